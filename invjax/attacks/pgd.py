"""PGD and FGSM: the largest loss, or the target's smallest, within a ball.

    min_r L(f(x + r), t)    (targeted; untargeted: max_r L(f(x + r), y))    s.t. ‖r‖_p <= ε,  x + r in the box     (5)

Stops at the first point that has the wanted class, unless told otherwise. Points obey the radius exactly, as measured
from the arrays that are returned (:mod:`invjax.core.balls`).

A radius that is given is in data units, and by default a step has the length 2.5 ε / steps (Madry et al. 2018), so that
the boundary can be reached from any start. Without a radius, ε is measured in box widths, feature by feature: 8/255 of
the box for linf and 0.5 for l2, the radii of RobustBench's CIFAR-10 leaderboards for images in [0, 1]. An l2 radius
means less the more features there are: the field takes 3 at ImageNet's size.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import field
from functools import partial
from typing import ClassVar, NamedTuple

import jax
import jax.numpy as jnp

from invjax import losses, projections
from invjax.attacks.parts.coordinates import scale, to_data, to_units
from invjax.core.balls import Norm, rounded_down, within_ball
from invjax.core.config import OPEN, STATIC, config, require, require_at_least
from invjax.core.meant import explained
from invjax.core.numerics import normal, replace_if, safe_divide, safe_norm, uniform
from invjax.solvers.best import Best, nothing
from invjax.types import Array, ArrayLike, Context, Eval, Method, Problem, Status

REACH = 2.5  # default length of all steps together, in radii
DEFAULT_EPS: dict[Norm, float] = {"linf": 8 / 255, "l2": 0.5}  # box widths

# The projection onto the ball of each norm. Clipping to a box that holds x never leaves the ball.
BALLS: dict[Norm, Callable[..., Array]] = {"linf": projections.linf_ball, "l2": projections.l2_ball}


@config
class PGD:
    """Projected gradient descent (Madry et al. 2018); steps along sign(∇) for linf, ∇/‖∇‖_2 for l2.

    Fields:
      eps: radius of the ball, data units, >= 0; None: 8/255 (linf) or 0.5 (l2) of the width of the bounds.
        Infinite: the bounds alone, with a step_size and without random starts.
      step_size: length of a step in the same norm, data units, > 0; None: 2.5 eps / steps.
      steps: steps per start, >= 1.
      restarts: starts, >= 1; the first one is x unless ``random_start``, the others are random.
      norm: "linf" or "l2" (static).
      loss: "cross_entropy", by its log-odds, or "margin", the gap of the logits; neither saturates (static).
      random_start: the first start is a random point of the ball, too (static).
      stop_early: the first point with the wanted class is the answer. Without it all steps of all starts are made, and
        the answer is the point of least loss: for perturbations that must be strong, such as training data (static).

    Evaluations per example: 1 (the clean input) + at most restarts·(steps + 1), less one for a deterministic start.
    """

    eps: float | None = field(default=None, metadata=OPEN)
    step_size: float | None = None
    steps: int = 40
    restarts: int = 1
    norm: Norm = field(default="linf", metadata=STATIC)
    loss: losses.Loss = field(default="cross_entropy", metadata=STATIC)
    random_start: bool = field(default=False, metadata=STATIC)
    stop_early: bool = field(default=True, metadata=STATIC)

    method: ClassVar[Method]
    RENAMED: ClassVar = {"step": "step_size"}

    def check(self) -> None:
        require(self, "eps", lambda v: v is None or v >= 0, "a radius >= 0")
        require(self, "step_size", lambda v: v is None or v > 0, "above 0")
        require_at_least(self, 1, "steps", "restarts")
        if self.eps is not None and (self.step_size is None or self.random_start is True or self.restarts > 1):
            require(self, "eps", lambda v: v != math.inf, "finite where step_size or a random start follows from it")

    def advice(self, width: float | None) -> str | None:
        """What a user should know, if anything: that the radius is of pixels, or that the steps cannot reach it.

        width: of the box, None where it is not known.
        """
        if width is not None and self.norm == "linf" and self.eps is not None and 2 * width < self.eps < math.inf:
            return (
                f"PGD's radius {float(self.eps):.4g} is beyond the whole range of x, which is {width:.4g} wide; "
                "for images in [0, 1] it is eps / 255"
            )
        if self.eps is None or self.step_size is None or self.steps * self.step_size >= self.eps * (1 - 1e-6):
            return None
        return (
            f"PGD makes {int(self.steps)} steps of {float(self.step_size):.4g}, so from x it cannot reach its radius "
            f"{float(self.eps):.4g}; leave step_size out for steps of 2.5 eps / steps"
        )


@explained
def FGSM(eps: float | None = None, norm: Norm = "linf", loss: losses.Loss = "cross_entropy") -> PGD:
    """The fast gradient sign method (Goodfellow et al. 2015), ``x - ε sign ∇_x L`` (4): one PGD step of length ε.

    eps: None is the default radius of :class:`PGD`.
    """
    return PGD(eps=eps, step_size=eps, steps=1, norm=norm, loss=loss)


class PGDState(NamedTuple):
    point: Array  # [*S] the next point to ask
    count: Array  # [] int32, steps taken from this start; -1 before the clean input was seen
    starts: Array  # [] int32, starts used up
    best: Best  # scored by the loss
    status: Array  # [] int32, PENDING until decided


def _init(ctx: Context, problem: Problem, config: PGD) -> PGDState:
    return PGDState(problem.x, jnp.int32(-1), jnp.int32(0), nothing(problem), jnp.int32(Status.PENDING))


def _ask(ctx: Context, problem: Problem, config: PGD, state: PGDState) -> Array:
    return state.point


def _loss(ctx: Context, problem: Problem, config: PGD, state: PGDState, point: Array, logits: Array) -> Array:
    return losses.LOSSES[config.loss](logits, problem.label, problem.target)


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


def _random_point(config: PGD, problem: Problem, start: Array) -> Array:
    """A random start: its draw depends on the example's key and the number of the start alone."""
    key = jax.random.fold_in(problem.key, start)
    if config.eps is None:
        u = random_in_ball(key, jnp.zeros_like(problem.x), DEFAULT_EPS[config.norm], config.norm)
        return to_data(problem, u).astype(problem.x.dtype)
    return random_in_ball(key, problem.x, config.eps, config.norm).astype(problem.x.dtype)


def _stepped(config: PGD, problem: Problem, point: Array, ev: Eval) -> Array:
    """The next point: a step against the gradient from the ``point`` that was asked, then the projection onto the ball.

    It goes on from there, not from the point evaluated: of images in 16 bits that is rounded, and short steps are lost.
    """
    here = jnp.clip(point, problem.lower, problem.upper)
    if problem.mask is not None:
        here = jnp.where(problem.mask, here, problem.x)
    widths, eps = config.eps is None, config.eps
    if eps is None:
        eps = jnp.asarray(DEFAULT_EPS[config.norm], problem.x.dtype)
    # What leads out of the box is no direction: in l2 it would take length from what can move.
    grad = jnp.where(jnp.where(ev.grad > 0, here > problem.lower, here < problem.upper), ev.grad, 0)
    if config.step_size is not None:
        moved = here - config.step_size * direction(grad, config.norm)
    else:
        grad = grad * scale(problem) if widths else grad
        step = REACH * eps / config.steps * direction(grad, config.norm)
        step = scale(problem) * step if widths else step
        moved = here - step
    if config.norm == "l2":  # first the box, or the ball would shorten r for what the box then takes away
        moved = jnp.clip(moved, problem.lower, problem.upper)
    if widths:
        return to_data(problem, BALLS[config.norm](to_units(problem, moved), eps))
    return problem.x + BALLS[config.norm](moved - problem.x, eps)


def _tell(ctx: Context, problem: Problem, config: PGD, state: PGDState, ev: Eval) -> PGDState:
    first = state.count < 0
    reached = losses.reached(ev.logits, problem.label, problem.target)
    ended = ~first & (state.count >= config.steps)
    starts = state.starts + ended.astype(jnp.int32)
    best = state.best.offer(ev.point, ev.value, reached & ~first)
    spent = starts >= config.restarts
    status = best.status(first & reached, spent | best.found if config.stop_early else spent)
    over = status != Status.PENDING

    stepped = _stepped(config, problem, state.point, ev).astype(ev.point.dtype)
    fresh = ended | (first & config.random_start)
    # Drawing costs more than all the rest of a step: it is done only where a start begins.
    point = replace_if(fresh & ~over, partial(_random_point, config, problem), starts, stepped)
    count = jnp.where(fresh, 0, jnp.maximum(state.count, 0) + 1).astype(jnp.int32)
    if config.eps is None:
        eps, width = rounded_down(DEFAULT_EPS[config.norm], problem.x.dtype), scale(problem)
        point = within_ball(problem.x, point, eps, config.norm, width)
    else:
        point = within_ball(problem.x, point, config.eps, config.norm)
    return PGDState(jnp.where(over, ev.point, point), count, starts, best, status)


PGD.method = Method("pgd", _init, _ask, _loss, _tell)
