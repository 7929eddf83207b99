"""CEM: the pertinent negative of Dhurandhar et al. (2018), what must be added for another class.

    min_r  γ max(0, gap(f(x + r)) + κ) + β ‖r‖₁ + ‖r‖² − τ log q(x + r, t),   x + r in the hull                    (1)

their eq. (1) and (2) with c = γ. The paper is untargeted, ``gap = Z_y − max_{j≠y} Z_j`` (``target=None``); with a
target the gap is that of the target, as a comparison with other methods needs. Their auto-encoder's error is a density
here (``solve(density=...)``). FISTA steps with σ_k = step·sqrt(1 − k/iterations); the elastic net and the hull are one
proximal map,

    argmin_u 1/2 ‖u − v‖² + σ ‖u − x‖² + σβ ‖u − x‖₁  =  prox_l1((v + 2σ x)/(1 + 2σ), σβ/(1 + 2σ)).                 (2)

Deviations from the released code: it shrinks by β where the step of (1) shrinks by σβ, so its penalty is a hundred
times stronger than the one it states (lr 0.01); and it leaves ‖r‖² in the gradient. γ is raised to the first success
and bisected; of the valid points the one of least elastic net is kept, as there.
"""

from __future__ import annotations

from dataclasses import field
from typing import Any, ClassVar

import jax.numpy as jnp

from invjax import constraints
from invjax.core.config import STATIC, config, require
from invjax.counterfactuals.cfe_l2 import decayed, toward
from invjax.counterfactuals.parts import weighted
from invjax.solvers import State, fista
from invjax.types import Array, Context, Method, Problem


@config
class CEM:
    """The method's constants.

    Fields:
      gamma: γ of the first trial, data units squared per logit unit, > 0 (the paper's c).
      grow: γ of the next trial over this one's until one succeeds, > 1.
      trials: values of γ tried, >= 1.
      iterations: steps of a trial, >= 1.
      step: σ of the first step, without unit, > 0.
      beta: β, weight of the l1 norm, data units, >= 0.
      tau: τ, weight of −log q, data units squared, >= 0; used where a density is given.
      kappa: margin of a valid answer, logit units, >= 0.
      probability: wanted probability of the target, in (0, 1); None: it need only win.
      no_info: the value that says nothing (0: a black background), data units; used where ``away``.
      away: x may only move away from ``no_info``, as in the paper, whose pertinent negative is something added. For
        numbers: a one-hot column that is 1 could not become 0 (static).

    Evaluations per example: at most 1 + trials·iterations, and as many probes: the iterate, which alone is exactly
    sparse, is not the point where FISTA takes its gradient.
    """

    gamma: float = 0.1
    grow: float = 10.0
    trials: int = 9
    iterations: int = 100
    step: float = 0.1
    beta: float = 0.1
    tau: float = 1.0
    kappa: float = 0.05
    probability: float | None = None
    no_info: float = 0.0
    away: bool = field(default=False, metadata=STATIC)

    method: ClassVar[Method]

    def check(self) -> None:
        weighted.check_search(self)
        require(self, "step", lambda v: v > 0, "a step > 0")
        require(self, "beta", lambda v: v >= 0, "a weight >= 0")
        require(self, "tau", lambda v: v >= 0, "a weight >= 0")
        require(self, "away", lambda v: isinstance(v, bool), "True or False")


def _row(ctx: Context, problem: Problem, config: CEM) -> Any:
    if config.away:
        x = problem.x
        lower = jnp.broadcast_to(jnp.asarray(problem.lower, x.dtype), x.shape)
        upper = jnp.broadcast_to(jnp.asarray(problem.upper, x.dtype), x.shape)
        lower = jnp.where(x > config.no_info, jnp.maximum(lower, x), lower)
        upper = jnp.where(x < config.no_info, jnp.minimum(upper, x), upper)
        problem = problem._replace(lower=lower, upper=upper)
    return constraints.actions(ctx.constraints, problem)


def _step(row: Any, problem: Problem, config: CEM, inner: State, point: Array, grad: Array, k: Array) -> State:
    beta = jnp.asarray(config.beta, point.dtype)

    def prox(v: Array, step: Array) -> Array:
        return row.prox(toward(v, problem.x, step), step * beta / (1 + 2 * step), penalty="l1")

    size = decayed(config, k, point.dtype)
    return fista.tell(inner, grad, size, prox, point=point, restart="gradient")


def _implausible(ctx: Context, config: CEM, problem: Problem, point: Array, aim: Array) -> Array:
    if ctx.density is None:
        return jnp.zeros((), point.dtype)
    return -jnp.asarray(config.tau * ctx.density.log_prob(point, aim), point.dtype)


def _score(config: CEM, problem: Problem, point: Array) -> Array:
    r = point - problem.x
    return config.beta * jnp.sum(jnp.abs(r)) + jnp.sum(jnp.square(r))


CEM.method = weighted.method(
    "cem",
    weighted.Parts(
        begin=lambda problem, config: fista.init(problem.x),
        ask=lambda row, problem, config, inner: row.project(fista.ask(inner)),
        iterate=lambda problem, inner: inner.x,
        step=_step,
        loss=weighted.hinge,
        score=_score,
        smooth=_implausible,
        row=_row,
        probe_iterate=True,
    ),
)
