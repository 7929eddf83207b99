"""Wachter, Mittelstadt, Russell (2017): the nearest input of another class, by gradient descent.

    min_x'  γ L(f(x'), t) + d(x' − x),   x' in the hull of what is permitted                                       (1)

d is the l1 norm in units of the median absolute deviations (their eq. 4). γ is raised until a trial reaches the
target and bisected afterwards (they raise it until |f(x') − y'| <= ε). Each step is Adam's (Kingma & Ba 2015,
Algorithm 1), then the projection onto the hull.

Deviations. L is by default a hinge on logits: the paper's squared loss ``(p_t − p)²`` has no gradient where the softmax
is saturated. Adam's step falls linearly to 0 within a trial, or the l1 norm would keep it swinging around 0. The answer
is the nearest valid point ever seen, not the last one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field
from typing import Any, ClassVar, Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax

from invjax.core.config import STATIC, config
from invjax.core.numerics import safe_divide
from invjax.counterfactuals.parts import proximity, weighted
from invjax.counterfactuals.parts.proximity import MadL1, Proximity
from invjax.counterfactuals.parts.standard import Standardised
from invjax.types import Array, ArrayLike, Method, Problem

ADAM = optax.scale_by_adam()  # β₁ = 0.9, β₂ = 0.999, ε = 1e-8


@config
class Wachter(Standardised):
    """The method's constants.

    Fields:
      proximity: d; by default the plain l1 norm. ``fit_mad(x_train)`` gives the paper's.
      gamma: γ of the first trial, units of d per unit of loss, > 0.
      growth: γ of the next trial over this one's until one succeeds, > 1.
      trials: values of γ tried, >= 1.
      steps: gradient steps of a trial, >= 1.
      step_size: Adam's first step, data units, > 0.
      kappa: margin of a valid answer, logit units, >= 0.
      probability: wanted probability of the target, in (0, 1); None: it need only win.
      loss: "hinge", max(0, shortfall + κ) on logits, or the paper's "squared", (p_t − p)² with p = 1 where
        ``probability`` is None (static).

    Evaluations per example: at most 1 + trials·steps.
    """

    proximity: Proximity = MadL1()
    gamma: float = 0.1
    growth: float = 10.0
    trials: int = 10
    steps: int = 100
    step_size: float = 0.1
    kappa: float = 0.05
    probability: float | None = None
    loss: Literal["hinge", "squared"] = field(default="hinge", metadata=STATIC)

    RENAMED: ClassVar[Mapping[str, str]] = weighted.RENAMED
    parts: ClassVar[weighted.Parts]
    method: ClassVar[Method]

    def check(self) -> None:
        weighted.check_search(self)
        proximity.check(self)


class Adam(NamedTuple):
    u: Array  # [*S] the iterate
    moments: optax.OptState  # of the gradients, each [*S], and a count


def adam_begin(u: Array) -> Adam:
    """At rest at ``u``."""
    return Adam(u, ADAM.init(u))


def adam_step(state: Adam, point: Array, grad: Array, step_size: ArrayLike) -> Adam:
    """Adam's step from ``point`` [*S], where ``grad`` [*S] was taken; the iterate is not projected."""
    direction, moments = ADAM.update(grad, state.moments)
    return Adam(point - jnp.asarray(step_size, grad.dtype) * direction, moments)  # type: ignore[operator]


def tangent(row: Any, point: Array, grad: Array, step_size: ArrayLike) -> Array:
    """The part of ``grad`` [*S] that the hull leaves: ``(u − project(u − η grad)) / η`` with ‖η grad‖_∞ = step_size.

    Adam moves every coordinate alike: without this it would raise all columns of a category by the same amount, which
    the projection onto the simplex takes back. In a box the whole gradient stays.
    """
    if row.exact:
        return grad
    largest = jnp.max(jnp.abs(grad))
    rate = safe_divide(jnp.asarray(step_size, grad.dtype), largest)
    return safe_divide(point - row.project(point - rate * grad), rate)


def _squared(config: Wachter, problem: Problem, logits: Array) -> Array:
    """``(p_t − p)²``, untargeted of not being the label. No gradient where the softmax is saturated."""
    own = jnp.take(jax.nn.softmax(logits), jnp.where(problem.target >= 0, problem.target, problem.label), mode="clip")
    reached = jnp.where(problem.target >= 0, own, 1 - own)
    wanted = 1.0 if config.probability is None else jnp.asarray(config.probability, logits.dtype)
    return jnp.square(reached - wanted)


def _loss(config: Wachter, problem: Problem, logits: Array, margin: Array) -> Array:
    if config.loss == "squared":
        return _squared(config, problem, logits)
    return weighted.hinge(config, problem, logits, margin)


def _step(row: Any, problem: Problem, config: Wachter, inner: Adam, point: Array, grad: Array, count: Array) -> Adam:
    left = 1 - count.astype(point.dtype) / jnp.asarray(config.steps, point.dtype)
    moved = adam_step(inner, point, tangent(row, point, grad, config.step_size), config.step_size * left)
    return moved._replace(u=row.project(moved.u))


def _score(config: Wachter, problem: Problem, point: Array) -> Array:
    return config.proximity.value(point - problem.x)


Wachter.parts = weighted.Parts(
    begin=lambda problem, config: adam_begin(problem.x),
    ask=lambda row, problem, config, inner: inner.u,
    iterate=lambda problem, inner: inner.u,
    step=_step,
    loss=_loss,
    score=_score,
    smooth=lambda ctx, config, problem, point, aim: _score(config, problem, point),
)
Wachter.method = weighted.method("wachter")
