"""A last stage for sparse attacks: it begins with a success and seeks fewer changes by bisection of their number m.

Each m is tried twice: first with the m changes that matter most by the gradient, as they are; then with the m units
that promise most from the clean input, at the sides of the box. On a linear classifier of two classes the second try is
exact. The gradient is averaged over the points of the stage: where several classes compete, each single gradient would
undo what the one before it said.

Untargeted, a :class:`Stage` first asks at the clean input which of the strongest rivals would need the fewest units if
the network were linear. Where these are fewer than the units found, that rival's units are tried first.

The stage is not in the papers. An attack that has it says so, and ``prune=0`` turns it off. Coordinates are those of
:mod:`invjax.attacks.parts.coordinates` with span 1, in which the attack works.
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

_MIX = 0.5  # weight of the newest gradient in the average
_RIVALS = 9  # the strongest rivals, as many as DeepFool compares


class Pruning(NamedTuple):
    """The state of the bisection."""

    w: Array  # [*S] the average of minus the gradient of the gap
    fails: Array  # [] int32, the largest number of changes that failed
    m: Array  # [] int32, the number asked
    again: Array  # [] bool, whether this is its second try
    asked: Array  # [] int32, points asked; -1 before the stage


def before(r: Array) -> Pruning:
    """The stage has not begun. r: [*S] a perturbation, for its shape."""
    none = jnp.int32(0)
    return Pruning(jnp.zeros_like(r), none, none, jnp.asarray(False), jnp.int32(-1))


def bisect(pruning: Pruning, w: Array, begins: Array, improved: Array, most: Array) -> Pruning:
    """The next number to try.

    w: [*S] minus the gradient at the point just asked. begins: [] bool, that point is the success to start from.
    improved: [] bool, the number asked suffices. most: [] int32, the changes of the best point so far.
    """
    second = pruning.again & ~improved
    fails = jnp.where(begins, 0, jnp.where(second, pruning.m, pruning.fails)).astype(jnp.int32)
    again = ~begins & ~improved & ~pruning.again
    asked = jnp.where(begins, 0, jnp.where(pruning.asked >= 0, pruning.asked + 1, -1)).astype(jnp.int32)
    mixed = pruning.w + _MIX * (w - pruning.w)
    m = jnp.where(again, pruning.m, (fails + most) // 2).astype(jnp.int32)
    return Pruning(jnp.where(begins, w, mixed).astype(w.dtype), fails, m, again, asked)


def ends(pruning: Pruning, most: Array, budget: int | Array) -> Array:
    """[] bool: the stage has spent its points, or ``most`` [] changes cannot become fewer."""
    return (pruning.asked >= budget) | (most - pruning.fails <= 1)


def offered(pruning: Pruning, best: Array, low: Array, high: Array) -> Array:
    """[*S] the changes among which the ``pruning.m`` most valuable, by ``w · offered``, are asked next.

    best: [*S] the best perturbation so far; low, high: [*S] the finite room of r.
    """
    return jnp.where(pruning.again, _towards(pruning.w, low, high), best)


def _towards(w: Array, low: Array, high: Array) -> Array:
    """The side of the room to which w points; 0 where w is 0. [*S]"""
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


def _compares(problem: Problem, stage: Stage, logits: Array) -> Array:
    """[] bool: a rival is compared at the point asked. A single one needs no comparison."""
    rivals = losses.rivals(logits, problem.label)
    rivals = jnp.where(rivals < 2, 0, jnp.minimum(rivals, _RIVALS))
    return (stage.pruning.asked >= 0) & (problem.target < 0) & (stage.compared < rivals)


def loss(problem: Problem, stage: Stage, logits: Array) -> Array:
    """The loss of the stage: the gap, or while rivals are compared the lead over one of them."""
    lead = losses.lead(logits, problem.label, stage.compared)
    gap = losses.gap(logits, problem.label, problem.target)
    return jnp.where(_compares(problem, stage, logits), lead, gap)


def _needed(given: tuple[Array, Array]) -> Array:
    """The fewest units whose gains [*G] together exceed the lead []; infinity where all of them do not."""
    gain, lead = given
    worth = jnp.cumsum(-jnp.sort(-gain.reshape(-1)))
    return jnp.where(worth[-1] > lead, 1 + jnp.sum(worth <= lead), jnp.inf)


def _units(best: Best) -> Array:
    """[] int32, the units of the best point; 0 where there is none."""
    return jnp.where(jnp.isfinite(best.score), best.score, 0).astype(jnp.int32)


def _advance(
    problem: Problem,
    ops: Grouping,
    stage: Stage,
    active: Array,
    best: Best,
    improved: Array,
    grad: Array,
    logits: Array,
) -> tuple[Stage, Array]:
    """The stage after a point of it was asked (the first is the best point of the attack), and the next r, [*S].

    active: [] bool; without it nothing changes and r is 0. best: scored by its units. improved: [] bool, the point
    asked became the best. grad: [*S] the gradient of :func:`loss` there, with respect to r.
    """
    low, high = room(problem, FAR)
    old, w, most = stage.pruning, -grad, _units(best)
    begins, compares = old.asked < 0, active & _compares(problem, stage, logits)
    gain = ops.total(w * _towards(w, low, high))
    lead = losses.lead(logits, problem.label, stage.compared)
    count = replace_if(compares, _needed, (gain, lead), jnp.full_like(stage.count, jnp.inf))
    # The units of the rival that needs the fewest are tried first where they are fewer than those found.
    rival, fewest = select(count < stage.count, (w, count), (stage.rival, stage.count))
    shorter = fewest < most
    ways = old._replace(
        w=jnp.where(shorter, rival, old.w), m=jnp.where(shorter, fewest, old.m).astype(jnp.int32), again=shorter
    )
    new = select(active, select(compares, ways, bisect(old, w, begins, improved, most)), old)
    stage = Stage(new, rival, fewest, stage.compared + compares.astype(jnp.int32))

    point = offered(new, to_units(problem, best.x), low, high)
    worth = jnp.where(ops.total(jnp.abs(point)) > 0, ops.total(new.w * point), -jnp.inf)
    asks = active & ~_compares(problem, stage, logits)  # rivals are compared at the clean input, where r is 0
    chosen = replace_if(asks, lambda given: largest(*given), (worth, new.m), jnp.zeros_like(worth))
    return stage, jnp.where(ops.spread(chosen) > 0, point, jnp.zeros_like(point))


def onwards(
    problem: Problem, ops: Grouping, config: Any, state: Any, best: Best, r: Array, grad: Array, logits: Array
) -> tuple[Stage, Array, Array]:
    """For an attack of ``config.steps`` steps with ``config.prune``: the stage, what to ask next, whether it is over.

    state: has ``count`` (evaluations before this one), ``stage`` and the last ``best``. best: the new one, scored by
    its units. r: what the attack itself would ask. grad: with respect to r.
    """
    prunes = state.count > config.steps
    stage, fewer = _advance(problem, ops, state.stage, prunes, best, best.score < state.best.score, grad, logits)
    # The stage begins with the best point once more, for its gradient.
    begins = (state.count == config.steps) & jnp.isfinite(best.score) & (config.prune > 0)
    r = jnp.where(begins, to_units(problem, best.x), jnp.where(prunes, fewer, r))
    # While rivals are compared, the stage can only be over because the best point has a single unit.
    over = ends(stage.pruning, _units(best), config.prune)
    return stage, r, jnp.where(prunes, over, (state.count == config.steps) & ~begins)
