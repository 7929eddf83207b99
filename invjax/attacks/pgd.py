"""PGD and FGSM: the largest loss, or the target's smallest, within a ball.

    min_r L(f(x + r), t)    (targeted; untargeted: max_r L(f(x + r), y))    s.t. ‖r‖_p <= ε,  x + r in the box     (5)

Stops at the first point that has the wanted class, unless told otherwise.
"""

from __future__ import annotations

from dataclasses import field
from functools import partial
from typing import ClassVar, NamedTuple

import jax
import jax.numpy as jnp

from invjax import losses
from invjax.core.config import STATIC, config, require, require_choice
from invjax.core.numerics import normal, replace_if, safe_divide, safe_norm, uniform
from invjax.solvers.best import Best, nothing
from invjax.types import Array, ArrayLike, Context, Eval, Method, Outcome, Problem, Status

LOSSES = {"cross_entropy": losses.cross_entropy, "margin": losses.gap}
NORMS = ("linf", "l2")


@config
class PGD:
    """Projected gradient descent (Madry et al. 2018); steps along sign(∇) for linf, ∇/‖∇‖_2 for l2.

    Fields:
      eps: radius of the ball, data units, >= 0.
      step: length of a step in the same norm, data units, > 0.
      steps: steps per start, >= 1.
      restarts: starts, >= 1; all but a deterministic first one are random.
      norm: "linf" or "l2" (static).
      loss: "cross_entropy", or "margin": the gap of the logits, which does not saturate (static).
      random_start: begin at a random point of the ball instead of x (static).
      stop_early: the first point with the wanted class is the answer; otherwise all steps of all starts are made and
        the one of least loss is: what is wanted where perturbations are to be strong, as training data are (static).

    Evaluations per example: 1 (the clean input) + at most restarts·(steps + 1), less one for a deterministic start.
    """

    eps: float = 8 / 255
    step: float = 2 / 255
    steps: int = 40
    restarts: int = 1
    norm: str = field(default="linf", metadata=STATIC)
    loss: str = field(default="cross_entropy", metadata=STATIC)
    random_start: bool = field(default=False, metadata=STATIC)
    stop_early: bool = field(default=True, metadata=STATIC)

    method: ClassVar[Method]

    def check(self) -> None:
        require(self, "eps", lambda v: v >= 0, "a radius >= 0")
        require(self, "step", lambda v: v > 0, "a step > 0")
        require(self, "steps", lambda v: v >= 1, "at least 1")
        require(self, "restarts", lambda v: v >= 1, "at least 1")
        require_choice(self, "norm", NORMS)
        require_choice(self, "loss", tuple(LOSSES))


def FGSM(eps: float = 8 / 255, norm: str = "linf", loss: str = "cross_entropy") -> PGD:
    """The fast gradient sign method (Goodfellow et al. 2015), ``x - ε sign ∇_x L`` (4): one PGD step of length ε."""
    return PGD(eps=eps, step=eps, steps=1, norm=norm, loss=loss)


class PGDState(NamedTuple):
    point: Array  # [*S] the next point to ask
    k: Array  # [] int32, steps taken from this start; -1 before the clean input was seen
    trial: Array  # [] int32, starts used up
    best: Best | None  # the point of least loss with the wanted class, where it is not the first one
    status: Array  # [] int32, PENDING until decided


def _init(ctx: Context, problem: Problem, config: PGD) -> PGDState:
    best = None if config.stop_early else nothing(problem)
    return PGDState(problem.x, jnp.int32(-1), jnp.int32(0), best, jnp.int32(Status.PENDING))


def _ask(ctx: Context, problem: Problem, config: PGD, state: PGDState) -> Array:
    return state.point


def _loss(ctx: Context, problem: Problem, config: PGD, state: PGDState, point: Array, logits: Array) -> Array:
    return LOSSES[config.loss](logits, problem.label, problem.target)


def onto_ball(r: Array, eps: ArrayLike, norm: str) -> Array:
    """The projection of r [*S] onto the ball of radius ε; clipping to a box that holds x afterwards never leaves it."""
    if norm == "linf":
        return jnp.clip(r, jnp.negative(eps), eps)
    size = safe_norm(r)
    return r * jnp.where(size > eps, safe_divide(jnp.asarray(eps, r.dtype), size), jnp.ones_like(size))


def direction(gradient: Array, norm: str) -> Array:
    """The step of length 1 along which the loss rises most, to first order: sign(∇) for linf, ∇/‖∇‖_2 for l2."""
    return jnp.sign(gradient) if norm == "linf" else safe_divide(gradient, safe_norm(gradient))


def random_in_ball(key: Array, x: Array, eps: ArrayLike, norm: str) -> Array:
    """A uniform point of the ball of radius ε around x [*S]."""
    direction_key, radius_key = jax.random.split(key)
    if norm == "linf":
        return x + eps * uniform(direction_key, x.shape, x.dtype, -1.0, 1.0)
    ray = normal(direction_key, x.shape, x.dtype)
    radius = eps * jax.random.uniform(radius_key, (), x.dtype) ** (1 / x.size)
    return x + radius * direction(ray, norm)


def _random_point(config: PGD, problem: Problem, trial: Array) -> Array:
    """A random start: its draw depends on the example's key and the start alone."""
    return random_in_ball(jax.random.fold_in(problem.key, trial), problem.x, config.eps, config.norm)


def _tell(ctx: Context, problem: Problem, config: PGD, state: PGDState, ev: Eval) -> PGDState:
    first = state.k < 0
    reached = losses.reached(ev.logits, problem.label, problem.target)
    at_random = first if config.random_start else jnp.bool_(False)
    ended = ~first & (state.k >= config.steps)
    trial = state.trial + ended.astype(jnp.int32)

    moved = ev.point - config.step * direction(ev.grad, config.norm)
    stepped = problem.x + onto_ball(moved - problem.x, config.eps, config.norm)
    spent = trial >= config.restarts
    if state.best is None:
        best, won = None, jnp.where(first, Status.ALREADY_TARGET, Status.FOUND)
        status = jnp.where(reached, won, jnp.where(spent, Status.NOT_FOUND, Status.PENDING)).astype(jnp.int32)
    else:
        best = state.best.offer(ev.point, ev.value, reached & ~first)
        status = best.status(first & reached, spent)
    over = status != Status.PENDING

    fresh = at_random | ended
    # Drawing costs more than all the rest of a step: it is done only where a start begins.
    point = replace_if(fresh & ~over, partial(_random_point, config, problem), trial, stepped)
    k = jnp.where(fresh, 0, jnp.maximum(state.k, 0) + 1)
    return PGDState(jnp.where(over, ev.point, point), k.astype(jnp.int32), trial, best, status)


def _result(ctx: Context, problem: Problem, config: PGD, state: PGDState) -> Outcome:
    if state.best is not None:
        return state.best.outcome(state.status, state.point)
    return Outcome(state.point, state.status, state.point)


PGD.method = Method("pgd", _init, _ask, _loss, _tell, result=_result)
