"""The forward-backward attack with an lp penalty, 0 <= p <= 1: sparse perturbations by proximal gradient steps.

    min_r  L(f(x + r), t) + λ ‖r‖_p^p,   x + r in the box                                                          (8)
    r_{t+1} = prox_{αλ‖·‖_p^p + box}(r_t - α ∇_r L(f(x + r_t), t)),   r_0 = 0

with L the Carlini-Wagner margin and the exact proximal map of penalty and box together. λ is searched per example: the
largest λ that still reaches the wanted class gives the sparsest answer. Every asked point is an output of the proximal
map, so it is exactly sparse and in the box, and needs no separate check. Of the successful trials the one with the
fewest changed features is kept.
"""

from __future__ import annotations

from dataclasses import field
from typing import ClassVar, Literal, NamedTuple

import jax.numpy as jnp

from invjax import losses, penalties, prox
from invjax.attacks.parts.coordinates import room, scale, to_data, to_units
from invjax.core.config import STATIC, config, require, require_above, require_at_least
from invjax.core.numerics import safe_divide, select
from invjax.solvers import search
from invjax.solvers.best import Best, nothing
from invjax.types import Array, Context, Eval, Method, Problem, Status

# The penalties |u|^p: their proximal maps and p.
_PENALTIES = {name: (one.prox, one.power) for name, one in penalties.ELEMENTWISE.items() if one.power is not None}

REACH = 0.5  # box widths that the steps of a trial can move the steepest coordinate by, at least


@config
class ForwardBackward:
    """The attack's constants. r is measured in box widths (:mod:`invjax.attacks.parts.coordinates`).

    Fields:
      step_size: α, box widths squared per unit of loss, > 0; longer where all steps of a trial together would move no
        coordinate by half of the box, as with a network of tiny logits.
      steps: steps of a trial, >= 1.
      trials: values of λ tried, >= 1.
      initial_weight: λ of the first trial over λ_max, the smallest λ at which r never leaves 0; in (0, 1).
      growth: λ of the next trial over this one's while no trial has failed, > 1.
      kappa: confidence, logit units, >= 0.
      penalty: "l0", "l_half", "l_two_thirds" or "l1" (static).

    Evaluations per example: at most 1 + trials·steps.
    """

    step_size: float = 0.01
    steps: int = 60
    trials: int = 10
    initial_weight: float = 0.01
    growth: float = 2.0
    kappa: float = 0.0
    penalty: Literal["l0", "l_half", "l_two_thirds", "l1"] = field(default="l_half", metadata=STATIC)

    method: ClassVar[Method]
    RENAMED: ClassVar = {"step": "step_size", "iterations": "steps", "start": "initial_weight"}

    def check(self) -> None:
        require_above(self, 0, "step_size")
        require_at_least(self, 1, "steps", "trials")
        require(self, "initial_weight", lambda v: 0 < v < 1, "in (0, 1)")
        require_above(self, 1, "growth")
        require_at_least(self, 0, "kappa")


class ForwardBackwardState(NamedTuple):
    r: Array  # [*S] the next point to ask, as a perturbation
    g0: Array  # [*S] gradient at r = 0: the first step of every trial needs no evaluation
    count: Array  # [] int32, steps taken in this trial; -1 before the clean input was seen
    lam: search.Bracket  # the search for the largest λ that succeeds
    best: Best  # scored by its changed features
    status: Array  # [] int32, PENDING until decided


def _init(ctx: Context, problem: Problem, config: ForwardBackward) -> ForwardBackwardState:
    zero, lam = jnp.zeros_like(problem.x), search.init(jnp.zeros((), problem.x.dtype))
    return ForwardBackwardState(zero, zero, jnp.int32(-1), lam, nothing(problem), jnp.int32(Status.PENDING))


def _ask(ctx: Context, problem: Problem, config: ForwardBackward, state: ForwardBackwardState) -> Array:
    return to_data(problem, state.r)


def _loss(
    ctx: Context, problem: Problem, config: ForwardBackward, state: ForwardBackwardState, point: Array, logits: Array
) -> Array:
    return losses.margin(logits, problem.label, problem.target, config.kappa)


def _tell(
    ctx: Context, problem: Problem, config: ForwardBackward, state: ForwardBackwardState, ev: Eval
) -> ForwardBackwardState:
    proximal, p = _PENALTIES[config.penalty]
    first = state.count < 0
    clean = losses.reached(ev.logits, problem.label, problem.target)
    success = ~first & (losses.gap(ev.logits, problem.label, problem.target) < -config.kappa)
    ended = success | (~first & (state.count >= config.steps))
    best = state.best.offer(ev.point, jnp.sum(ev.point != problem.x), success)

    g = ev.grad * scale(problem)
    g0 = jnp.where(first, g, state.g0)
    least = safe_divide(jnp.asarray(REACH, g0.dtype), config.steps * jnp.max(jnp.abs(g0)))
    step_size = jnp.maximum(jnp.asarray(config.step_size, g0.dtype), least)
    lam_max = prox.zero_weight(step_size * jnp.max(jnp.abs(g0)), p) / step_size
    lam = select(ended, search.seek_largest(state.lam, success, config.growth), state.lam)
    lam = select(first, search.init(config.initial_weight * lam_max), lam)

    fresh = first | ended
    r, grad = jnp.where(fresh, 0, to_units(problem, ev.point)), jnp.where(fresh, g0, g)
    low, high = room(problem)
    r = proximal(r - step_size * grad, step_size * lam.value, lower=low, upper=high)
    status = best.status(first & clean, lam.trials >= config.trials)
    return ForwardBackwardState(r, g0, jnp.where(fresh, 0, state.count) + 1, lam, best, status)


ForwardBackward.method = Method("forward-backward", _init, _ask, _loss, _tell)
