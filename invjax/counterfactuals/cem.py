"""CEM: the pertinent negative of Dhurandhar et al. (2018), what must be added for another class.

    min_r  γ max(0, gap(f(x + r)) + κ) + β ‖r‖₁ + ‖r‖² − τ log q(x + r, t),   x + r in the hull                    (1)

their eq. (1) and (2) with c = γ. The paper is untargeted, ``gap = Z_y − max_{j≠y} Z_j`` (``target=None``); with a
target the gap is the target's, as a comparison with other methods needs. A density (``solve(density=...)``) takes the
place of their auto-encoder's error. FISTA's step k has the size σ_k = step_size·sqrt(1 − k/steps), and the elastic net
and the hull are one proximal map,

    argmin_u 1/2 ‖u − v‖² + σ ‖u − x‖² + σβ ‖u − x‖₁  =  prox_l1((v + 2σ x)/(1 + 2σ), σβ/(1 + 2σ)).                 (2)

Deviations from the released code: it shrinks by β where the step of (1) shrinks by σβ, so its penalty is a hundred
times stronger than the one it states (lr 0.01), and it leaves ‖r‖² in the gradient. As there, γ is raised to the first
success and then bisected, and the valid point of least elastic net is kept.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field
from typing import Any, ClassVar

import jax.numpy as jnp

from invjax import constraints
from invjax.core.config import STATIC, config, require, require_at_least
from invjax.counterfactuals.cfe_l2 import decayed, toward
from invjax.counterfactuals.parts import weighted
from invjax.counterfactuals.parts.standard import Standardised
from invjax.solvers import State, fista
from invjax.types import Array, Context, Method, Problem


@config
class CEM(Standardised):
    """The method's constants.

    Fields:
      gamma: γ of the first trial, data units squared per logit unit, > 0 (the paper's c).
      growth: γ of the next trial over this one's until one succeeds, > 1.
      trials: values of γ tried, >= 1.
      steps: gradient steps of a trial, >= 1.
      step_size: σ of the first step, without unit, > 0.
      beta: β, weight of the l1 norm, data units, >= 0.
      tau: τ, weight of −log q, data units squared, >= 0; used where a density is given.
      kappa: margin of a valid answer, logit units, >= 0.
      probability: wanted probability of the target, in (0, 1); None: it need only win.
      no_info: the value that says nothing (0: a black background), data units; used where ``away``.
      away: x may only move away from ``no_info``, as in the paper, whose pertinent negative is something added. Meant
        for numbers: a one-hot column that is 1 could not become 0 (static).

    Evaluations per example: at most 1 + trials·steps, and as many probes, because the iterate, which alone is exactly
    sparse, is not the point where FISTA takes its gradient.
    """

    gamma: float = 0.1
    growth: float = 10.0
    trials: int = 9
    steps: int = 100
    step_size: float = 0.1
    beta: float = 0.1
    tau: float = 1.0
    kappa: float = 0.05
    probability: float | None = None
    no_info: float = 0.0
    away: bool = field(default=False, metadata=STATIC)

    RENAMED: ClassVar[Mapping[str, str]] = weighted.RENAMED
    parts: ClassVar[weighted.Parts]
    method: ClassVar[Method]

    def check(self) -> None:
        weighted.check_search(self)
        require_at_least(self, 0, "beta", "tau")
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


def _step(row: Any, problem: Problem, config: CEM, inner: State, point: Array, grad: Array, count: Array) -> State:
    beta = jnp.asarray(config.beta, point.dtype)

    def prox(v: Array, step_size: Array) -> Array:
        return row.prox(toward(v, problem.x, step_size), step_size * beta / (1 + 2 * step_size), penalty="l1")

    size = decayed(config, count, point.dtype)
    return fista.tell(inner, grad, size, prox, point=point, restart="gradient")


def _implausible(ctx: Context, config: CEM, problem: Problem, point: Array, aim: Array) -> Array:
    if ctx.density is None:
        return jnp.zeros((), point.dtype)
    return -jnp.asarray(config.tau * ctx.density.log_prob(point, aim), point.dtype)


def _score(config: CEM, problem: Problem, point: Array) -> Array:
    r = point - problem.x
    return config.beta * jnp.sum(jnp.abs(r)) + jnp.sum(jnp.square(r))


CEM.parts = weighted.Parts(
    begin=lambda problem, config: fista.init(problem.x),
    ask=lambda row, problem, config, inner: row.project(fista.ask(inner)),
    iterate=lambda problem, inner: inner.x,
    step=_step,
    loss=weighted.hinge,
    score=_score,
    smooth=_implausible,
    row=_row,
    probe_iterate=True,
)
CEM.method = weighted.method("cem")
