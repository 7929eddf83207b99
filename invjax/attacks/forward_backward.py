"""The forward-backward attack with an lp penalty, 0 <= p <= 1: sparse perturbations by proximal gradient steps.

    min_r  L(f(x + r), t) + λ ‖r‖_p^p,   x + r in the box                                                          (8)
    r_{t+1} = prox_{αλ‖·‖_p^p + box}(r_t - α ∇_r L(f(x + r_t), t)),   r_0 = 0

with L the Carlini-Wagner margin and the exact proximal map of penalty and box together. λ is searched per example:
the largest one that still reaches the wanted class gives the sparsest answer. Every asked point is an output of the
proximal map, so it is exactly sparse and in the box, and no separate verification is needed.
"""

from __future__ import annotations

from dataclasses import field
from typing import ClassVar, NamedTuple

import jax.numpy as jnp

from invjax import losses, prox
from invjax.core.config import STATIC, config, require, require_choice
from invjax.core.numerics import select
from invjax.solvers import search
from invjax.types import Array, Context, Eval, Method, Outcome, Problem, Status

PENALTIES = {
    "l0": (prox.l0, 0.0),
    "l_half": (prox.l_half, 1 / 2),
    "l_two_thirds": (prox.l_two_thirds, 2 / 3),
    "l1": (prox.l1, 1.0),
}


@config
class ForwardBackward:
    """The attack's constants. r is measured in data units.

    Fields:
      step: α, data units squared per unit of loss, > 0.
      iterations: steps of a trial, >= 1.
      trials: values of λ tried, >= 1.
      start: λ of the first trial over λ_max, the smallest λ at which r never leaves 0; in (0, 1).
      growth: λ of the next trial over this one's while no trial has failed, > 1.
      kappa: confidence, logit units, >= 0.
      penalty: "l0", "l_half", "l_two_thirds" or "l1" (static).

    Of the successful trials the one with the fewest changed features is kept. Evaluations per example: at most
    1 + trials·iterations.
    """

    step: float = 0.01
    iterations: int = 60
    trials: int = 10
    start: float = 0.01
    growth: float = 2.0
    kappa: float = 0.0
    penalty: str = field(default="l_half", metadata=STATIC)

    method: ClassVar[Method]

    def check(self) -> None:
        require(self, "step", lambda v: v > 0, "a step > 0")
        require(self, "iterations", lambda v: v >= 1, "at least 1")
        require(self, "trials", lambda v: v >= 1, "at least 1")
        require(self, "start", lambda v: 0 < v < 1, "in (0, 1)")
        require(self, "growth", lambda v: v > 1, "above 1")
        require(self, "kappa", lambda v: v >= 0, "a margin >= 0")
        require_choice(self, "penalty", tuple(PENALTIES))


class ForwardBackwardState(NamedTuple):
    r: Array  # [*S] the next point to ask, as a perturbation
    g0: Array  # [*S] gradient at r = 0: the first step of every trial needs no evaluation
    k: Array  # [] int32, steps taken in this trial; -1 before the clean input was seen
    lam: search.Bracket  # the search for the largest λ that succeeds
    best: Array  # [*S] the sparsest point with the wanted class so far
    best_l0: Array  # [] its changed features; infinity if there is none
    status: Array  # [] int32, PENDING until decided


def _init(ctx: Context, problem: Problem, config: ForwardBackward) -> ForwardBackwardState:
    x, zero = problem.x, jnp.zeros_like(problem.x)
    scalar = jnp.zeros((), x.dtype)
    return ForwardBackwardState(
        zero, zero, jnp.int32(-1), search.init(scalar), x, scalar + jnp.inf, jnp.int32(Status.PENDING)
    )


def _ask(ctx: Context, problem: Problem, config: ForwardBackward, state: ForwardBackwardState) -> Array:
    return problem.x + state.r


def _loss(
    ctx: Context, problem: Problem, config: ForwardBackward, state: ForwardBackwardState, point: Array, logits: Array
) -> Array:
    return losses.margin(logits, problem.label, problem.target, config.kappa)


def _tell(
    ctx: Context, problem: Problem, config: ForwardBackward, state: ForwardBackwardState, ev: Eval
) -> ForwardBackwardState:
    proximal, p = PENALTIES[config.penalty]
    first = state.k < 0
    clean = losses.reached(ev.logits, problem.label, problem.target)
    success = ~first & (losses.gap(ev.logits, problem.label, problem.target) < -config.kappa)
    ended = success | (~first & (state.k >= config.iterations))

    l0 = jnp.sum(ev.point != problem.x).astype(problem.x.dtype)
    better = success & (l0 < state.best_l0)
    best_l0 = jnp.where(better, l0, state.best_l0)

    g0 = jnp.where(first, ev.grad, state.g0)
    step = jnp.asarray(config.step, problem.x.dtype)
    lam_max = prox.zero_weight(step * jnp.max(jnp.abs(g0)), p) / step
    lam = select(ended, search.seek_largest(state.lam, success, grow=config.growth), state.lam)
    lam = select(first, search.init(config.start * lam_max), lam)

    fresh = first | ended
    r, grad = jnp.where(fresh, 0, ev.point - problem.x), jnp.where(fresh, g0, ev.grad)
    r = proximal(r - step * grad, step * lam.value, lower=problem.lower - problem.x, upper=problem.upper - problem.x)

    spent = lam.trials >= config.trials
    decided = jnp.where(jnp.isfinite(best_l0), Status.FOUND, Status.NOT_FOUND)
    status = jnp.where(spent, decided, Status.PENDING)
    return ForwardBackwardState(
        r=r,
        g0=g0,
        k=jnp.where(fresh, 0, state.k) + 1,
        lam=lam,
        best=jnp.where(better, ev.point, state.best),
        best_l0=best_l0,
        status=jnp.where(first & clean, Status.ALREADY_TARGET, status).astype(jnp.int32),
    )


def _result(ctx: Context, problem: Problem, config: ForwardBackward, state: ForwardBackwardState) -> Outcome:
    # Also where the network broke in a later trial: what an earlier one found stands.
    found = jnp.isfinite(state.best_l0)
    status = jnp.where(found, Status.FOUND, state.status).astype(jnp.int32)
    return Outcome(state.best, status, jnp.where(found, state.best, problem.x + state.r))


ForwardBackward.method = Method("forward-backward", _init, _ask, _loss, _tell, result=_result)
