"""A last stage for sparse attacks: fewer changes from a success on, by bisection of their number m.

Each m is tried twice: with the m changes that the gradient says matter most, as they are; then with any m units that
promise most from the clean input, at the sides of the box. On a linear classifier of two classes the second try is
exact. The gradient is an average over the points of the stage: where several classes compete a single one would undo
what the last one said.

Untargeted, a :class:`Stage` first compares the strongest rivals at the clean input: which of them would need the fewest
units if the network were linear; its ways are tried first where they are fewer than what was found.

Not in the papers; an attack that has it says so, and ``prune=0`` turns it off. Coordinates: those of
:mod:`invjax.attacks.parts.coordinates` in which the attack works, of span 1.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax.numpy as jnp

from invjax import losses
from invjax.attacks.parts.coordinates import FAR, room, to_units
from invjax.core.groups import Grouping
from invjax.core.numerics import replace_if, select
from invjax.core.ranks import largest
from invjax.solvers.best import Best
from invjax.types import Array, Problem

MIX = 0.5  # what the newest gradient counts in the average
RIVALS = 9  # the strongest rivals, as many as DeepFool compares


class Pruning(NamedTuple):
    """Where the stage is."""

    w: Array  # [*S] the average of minus the gradient of the gap
    fails: Array  # [] int32, a number of changes that failed
    m: Array  # [] int32, the number asked
    again: Array  # [] bool, this is its second try
    asked: Array  # [] int32, points asked; -1 before the stage


def before(r: Array) -> Pruning:
    """The stage has not begun. r: [*S] a perturbation, for its shape."""
    none = jnp.int32(0)
    return Pruning(jnp.zeros_like(r), none, none, jnp.asarray(False), jnp.int32(-1))


def bisect(pruning: Pruning, w: Array, begins: Array, improved: Array, most: Array) -> Pruning:
    """The next number to try.

    w: [*S] minus the gradient at the point just asked. begins: [] bool, that point is the success to start from.
    improved: [] bool, the number asked will do. most: [] int32, the changes of the best so far.
    """
    second = pruning.again & ~improved
    fails = jnp.where(begins, 0, jnp.where(second, pruning.m, pruning.fails)).astype(jnp.int32)
    again = ~begins & ~improved & ~pruning.again
    asked = jnp.where(begins, 0, jnp.where(pruning.asked >= 0, pruning.asked + 1, -1)).astype(jnp.int32)
    mixed = pruning.w + MIX * (w - pruning.w)
    m = jnp.where(again, pruning.m, (fails + most) // 2).astype(jnp.int32)
    return Pruning(jnp.where(begins, w, mixed).astype(w.dtype), fails, m, again, asked)


def ends(pruning: Pruning, most: Array, budget: int | Array) -> Array:
    """Whether the stage has spent its points, or ``most`` [] changes cannot become fewer. [] bool"""
    return (pruning.asked >= budget) | (most - pruning.fails <= 1)


def offered(pruning: Pruning, best: Array, low: Array, high: Array) -> Array:
    """[*S] the changes of which the ``pruning.m`` most valuable, by ``w · offered``, are to be asked.

    best: [*S] the best perturbation so far; low, high: [*S] the finite room of r.
    """
    return jnp.where(pruning.again, towards(pruning.w, low, high), best)


def towards(w: Array, low: Array, high: Array) -> Array:
    """The side of the room to which w points; 0 where it is 0. [*S]"""
    return jnp.where(w > 0, high, jnp.where(w < 0, low, 0))


class Stage(NamedTuple):
    """The whole stage of an attack that has ended with a success: its best point, the rivals, the bisection."""

    pruning: Pruning
    rival: Array  # [*S] minus the gradient of the lead over the rival that needs the fewest units
    count: Array  # [] how many it needs
    compared: Array  # [] int32, rivals compared


def waiting(r: Array) -> Stage:
    """The stage has not begun."""
    return Stage(before(r), jnp.zeros_like(r), jnp.full((), jnp.inf, r.dtype), jnp.int32(0))


def _compares(problem: Problem, stage: Stage, classes: int) -> Array:
    rivals = 0 if classes == 2 else min(RIVALS, classes - 1)
    return (stage.pruning.asked >= 0) & (problem.target < 0) & (stage.compared < rivals)


def loss(problem: Problem, stage: Stage, logits: Array) -> Array:
    """What the stage asks the gradient of: the gap, or the lead over one rival."""
    lead = losses.lead(logits, problem.label, stage.compared)
    gap = losses.gap(logits, problem.label, problem.target)
    return jnp.where(_compares(problem, stage, logits.size), lead, gap)


def _needed(given: tuple[Array, Array]) -> Array:
    """The fewest units whose gains [*G] are worth more than the lead []; infinity: all together are not."""
    gain, lead = given
    worth = jnp.cumsum(-jnp.sort(-gain.reshape(-1)))
    return jnp.where(worth[-1] > lead, 1 + jnp.sum(worth <= lead), jnp.inf)


def _units(best: Best) -> Array:
    """[] int32, the units of the best point; 0 where there is none."""
    return jnp.where(jnp.isfinite(best.score), best.score, 0).astype(jnp.int32)


def advance(
    problem: Problem,
    ops: Grouping,
    stage: Stage,
    active: Array,
    best: Best,
    improved: Array,
    grad: Array,
    logits: Array,
) -> tuple[Stage, Array]:
    """After a point of the stage was asked (the first is the best of the attack): the stage, and the next r, [*S].

    active: [] bool, else nothing changes and r is 0. best: scored by its units. improved: [] bool, the point asked
    became the best. grad: [*S] the gradient of :func:`loss` there, with respect to r.
    """
    low, high = room(problem, FAR)
    old, w, most = stage.pruning, -grad, _units(best)
    begins, compares = old.asked < 0, active & _compares(problem, stage, logits.size)
    gain = ops.total(w * towards(w, low, high))
    lead = losses.lead(logits, problem.label, stage.compared)
    count = replace_if(compares, _needed, (gain, lead), jnp.full_like(stage.count, jnp.inf))
    # The ways of the rival that needs the fewest are tried first where they are fewer.
    rival, fewest = select(count < stage.count, (w, count), (stage.rival, stage.count))
    shorter = fewest < most
    ways = old._replace(
        w=jnp.where(shorter, rival, old.w), m=jnp.where(shorter, fewest, old.m).astype(jnp.int32), again=shorter
    )
    new = select(active, select(compares, ways, bisect(old, w, begins, improved, most)), old)
    stage = Stage(new, rival, fewest, stage.compared + compares.astype(jnp.int32))

    point = offered(new, to_units(problem, best.x), low, high)
    worth = jnp.where(ops.total(jnp.abs(point)) > 0, ops.total(new.w * point), -jnp.inf)
    asks = active & ~_compares(problem, stage, logits.size)  # the rivals are compared at the clean input
    chosen = replace_if(asks, lambda given: largest(*given), (worth, new.m), jnp.zeros_like(worth))
    return stage, jnp.where(ops.spread(chosen) > 0, point, jnp.zeros_like(point))


def onwards(
    problem: Problem, ops: Grouping, config: Any, state: Any, best: Best, r: Array, grad: Array, logits: Array
) -> tuple[Stage, Array, Array]:
    """For an attack of ``config.iterations`` steps with ``config.prune``: the stage, what to ask next, if it is over.

    state: with ``k`` (evaluations before this one), ``stage`` and ``best``. best: what it is now, scored by its units.
    r: what the attack itself would ask. grad: with respect to r.
    """
    prunes = state.k > config.iterations
    stage, fewer = advance(problem, ops, state.stage, prunes, best, best.score < state.best.score, grad, logits)
    # The stage begins with the best point once more, for its gradient.
    begins = (state.k == config.iterations) & jnp.isfinite(best.score) & (config.prune > 0)
    r = jnp.where(begins, to_units(problem, best.x), jnp.where(prunes, fewer, r))
    over = ends(stage.pruning, _units(best), config.prune)  # while rivals are compared only if one unit is all there is
    return stage, r, jnp.where(prunes, over, (state.k == config.iterations) & ~begins)
