"""EAD: the elastic-net attack (Chen et al., AAAI 2018), targeted and untargeted.

    min_r  c max(0, gap(f(x + r)) + κ) + ‖r‖_2² + β ‖r‖_1,   x + r in the box                                       (1)

FISTA with steps α_k = step_size·√(1 − k/steps); l1 norm and box are one exact proximal map. The smallest c that
succeeds is searched per example: c is raised ``growth``-fold until a trial succeeds and bisected afterwards. Of all
points with the wanted class and margin κ the one of least elastic net ‖r‖_2² + β‖r‖_1 (rule "en") or l1 norm ("l1") is
kept. Only the FISTA iterate is exactly sparse, so a probe judges it, too.

Unit: the feature. Coordinates: the box has width 1 (:mod:`invjax.attacks.parts.coordinates`). Deviations: the released
code shrinks by β where the step of (1) shrinks by α_k β, so its β is a hundred times the stated one. Its momentum is
k/(k + 3); here it is that of :mod:`invjax.solvers.momentum` with adaptive restart. It can return failures as black
images.
"""

from __future__ import annotations

from dataclasses import field
from typing import ClassVar, Literal, NamedTuple

import jax.numpy as jnp

from invjax import losses, penalties
from invjax.attacks.parts.coordinates import room, scale, to_data, to_units
from invjax.core.config import STATIC, config, require_above, require_at_least
from invjax.core.numerics import select
from invjax.solvers import State as Inner
from invjax.solvers import fista, search
from invjax.solvers.best import Best, nothing
from invjax.types import Array, Context, Eval, Method, Outcome, Problem, Status


@config
class EAD:
    """The attack's constants.

    Fields:
      beta: β, box widths, >= 0; 0 is Carlini and Wagner's l2 attack by proximal steps.
      initial_weight: c of the first trial, box widths squared per logit unit, > 0.
      growth: c of the next trial over this one's until one succeeds, > 1.
      trials: values of c tried, >= 1.
      steps: steps of a trial, >= 1.
      step_size: α_0, without unit, > 0.
      kappa: κ, confidence, logit units, >= 0.
      rule: "en" or "l1": what the best point is chosen by (static).

    Evaluations per example: at most 1 + trials·steps, and as many probes.
    """

    beta: float = 0.01
    initial_weight: float = 0.001
    growth: float = 10.0
    trials: int = 9
    steps: int = 1000
    step_size: float = 0.01
    kappa: float = 0.0
    rule: Literal["en", "l1"] = field(default="en", metadata=STATIC)

    method: ClassVar[Method]
    RENAMED: ClassVar = {"start": "initial_weight", "grow": "growth", "iterations": "steps", "step": "step_size"}

    def check(self) -> None:
        require_at_least(self, 0, "beta", "kappa")
        require_above(self, 0, "initial_weight", "step_size")
        require_above(self, 1, "growth")
        require_at_least(self, 1, "trials", "steps")


class EADState(NamedTuple):
    inner: Inner  # FISTA on r
    g0: Array  # [*S] gradient of the hinge at r = 0: the first step of every trial needs no evaluation
    count: Array  # [] int32, steps taken in this trial; 0 before the clean input was seen
    hit: Array  # [] bool, this trial has succeeded
    c: search.Bracket  # the search for the smallest c that succeeds
    best: Best  # scored by the rule
    status: Array  # [] int32, PENDING until decided


def _init(ctx: Context, problem: Problem, config: EAD) -> EADState:
    zero = jnp.zeros_like(problem.x)
    c = search.init(jnp.asarray(config.initial_weight, zero.dtype))
    return EADState(
        inner=fista.init(zero), g0=zero, count=jnp.int32(0), hit=jnp.bool_(False), c=c, best=nothing(problem),
        status=jnp.int32(Status.PENDING),
    )  # fmt: skip


def _at(problem: Problem, r: Array) -> Array:
    return to_data(problem, jnp.clip(r, *room(problem)))


def _ask(ctx: Context, problem: Problem, config: EAD, state: EADState) -> Array:
    return _at(problem, fista.ask(state.inner))


def _loss(ctx: Context, problem: Problem, config: EAD, state: EADState, point: Array, logits: Array) -> Array:
    """The hinge without c: its gradient at the clean input serves every trial."""
    return losses.margin(logits, problem.label, problem.target, config.kappa)


def _score(config: EAD, r: Array) -> Array:
    """[] the score of a point by ``config.rule``; the least wins."""
    l1 = jnp.sum(jnp.abs(r))
    return l1 if config.rule == "l1" else jnp.sum(jnp.square(r)) + config.beta * l1


def _judge(problem: Problem, config: EAD, best: Best, point: Array, logits: Array) -> tuple[Best, Array]:
    gap = losses.gap(logits, problem.label, problem.target)
    valid = (gap < 0) & (gap <= -config.kappa)
    return best.offer(point, _score(config, to_units(problem, point)), valid), valid


def _step(problem: Problem, config: EAD, inner: Inner, r: Array, grad: Array, count: Array, c: Array) -> Inner:
    """One FISTA step from r with the hinge's gradient there."""
    penalty = penalties.in_box(penalties.l1(config.beta), *room(problem))
    left = jnp.maximum(1 - count.astype(r.dtype) / config.steps, 0)
    size = jnp.asarray(config.step_size, r.dtype) * jnp.sqrt(left)
    return fista.tell(inner, c * grad + 2 * r, size, penalty.prox, point=r, restart="gradient")


def _tell(ctx: Context, problem: Problem, config: EAD, state: EADState, ev: Eval) -> EADState:
    first = state.count == 0
    best, valid = _judge(problem, config, state.best, ev.point, ev.logits)
    best = select(first, state.best, best)
    grad = ev.grad * scale(problem)
    inner = _step(problem, config, state.inner, to_units(problem, ev.point), grad, state.count, state.c.value)
    clean = first & losses.reached(ev.logits, problem.label, problem.target)
    return state._replace(
        inner=inner, g0=jnp.where(first, grad, state.g0), count=state.count + 1, hit=state.hit | (valid & ~first),
        best=best, status=best.status(clean, jnp.bool_(False)),
    )  # fmt: skip


def _probe(ctx: Context, problem: Problem, config: EAD, state: EADState) -> Array:
    return _at(problem, state.inner.x)[None]


def _tell_probe(ctx: Context, problem: Problem, config: EAD, state: EADState, points: Array, logits: Array) -> EADState:
    decided = state.status != Status.PENDING  # the clean input has the wanted class: its probe does not count
    best, valid = _judge(problem, config, state.best, points[0], logits[0])
    best, hit = select(decided, state.best, best), state.hit | valid
    ended = ~decided & (state.count >= config.steps)
    c = select(ended, search.seek_smallest(state.c, hit, config.growth), state.c)
    # A new trial begins with the step from r = 0. FISTA asks that step's result itself, so nothing is left unjudged.
    zero, start = jnp.zeros_like(problem.x), jnp.zeros_like(state.count)
    fresh = _step(problem, config, fista.init(zero), zero, state.g0, start, c.value)
    status = best.status(jnp.bool_(False), c.trials >= config.trials)
    return state._replace(
        inner=select(ended, fresh, state.inner), count=jnp.where(ended, 1, state.count).astype(jnp.int32),
        hit=hit & ~ended, c=c, best=best, status=jnp.where(decided, state.status, status),
    )  # fmt: skip


def _result(ctx: Context, problem: Problem, config: EAD, state: EADState) -> Outcome:
    return state.best.outcome(state.status, _at(problem, state.inner.x))


EAD.method = Method("ead", _init, _ask, _loss, _tell, result=_result, probe=_probe, tell_probe=_tell_probe)
