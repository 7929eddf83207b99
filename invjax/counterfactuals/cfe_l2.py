"""CFE-l2: the nearest counterfactual in the l2 norm, with neither sparsity nor plausibility.

    min_r  γ L(f(x + r), t) + ‖r‖²,   x + r in the hull of what is permitted                                       (1)

with L the hinge ``max(0, shortfall + κ)`` on logits. Accelerated proximal gradient steps (FISTA, Beck & Teboulle
2009, with restarts) have ‖r‖² and the hull in the proximal map,

    argmin_u 1/2 ‖u − v‖² + σ ‖u − x‖² over the hull  =  project((v + 2σ x) / (1 + 2σ)),                            (2)

so the network's curvature alone limits the step σ. γ is searched: the smallest that is enough leaves x + r on the
boundary. This is S-CFE's problem without its other terms, the baseline that shows what those change.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import jax.numpy as jnp

from invjax.core.config import config
from invjax.counterfactuals.parts import weighted
from invjax.counterfactuals.parts.standard import Standardised
from invjax.solvers import State, fista
from invjax.types import Array, Method, Problem


@config
class CFEL2(Standardised):
    """The method's constants.

    Fields:
      gamma: γ of the first trial, data units squared per logit unit, > 0.
      growth: γ of the next trial over this one's until one succeeds, > 1.
      trials: values of γ tried, >= 1.
      steps: gradient steps of a trial, >= 1.
      step_size: σ of the first step, without unit (‖r‖² has the curvature 2), > 0; see :func:`decayed`.
      kappa: margin of a valid answer, logit units, >= 0.
      probability: wanted probability of the target, in (0, 1); None: it need only win.

    Evaluations per example: at most 1 + trials·steps.
    """

    gamma: float = 0.1
    growth: float = 10.0
    trials: int = 12
    steps: int = 60
    step_size: float = 0.1
    kappa: float = 0.05
    probability: float | None = None

    RENAMED: ClassVar[Mapping[str, str]] = weighted.RENAMED
    parts: ClassVar[weighted.Parts]
    method: ClassVar[Method]

    def check(self) -> None:
        weighted.check_search(self)


def decayed(config: Any, count: Array, dtype: Any) -> Array:
    """The size of the step after ``count`` others: ``step_size · sqrt(1 − count/steps)``."""
    share = count.astype(dtype) / jnp.asarray(config.steps, dtype)
    return jnp.asarray(config.step_size, dtype) * jnp.sqrt(jnp.maximum(1 - share, jnp.zeros_like(share)))


def toward(v: Array, x: Array, step_size: Array) -> Array:
    """The free part of (2): where ``1/2 ‖u − v‖² + σ ‖u − x‖²`` is least."""
    return x + (v - x) / (1 + 2 * step_size)  # exactly x where v is


def _step(row: Any, problem: Problem, config: CFEL2, inner: State, point: Array, grad: Array, count: Array) -> State:
    def prox(v: Array, step_size: Array) -> Array:
        return row.project(toward(v, problem.x, step_size))

    size = decayed(config, count, point.dtype)
    return fista.tell(inner, grad, size, prox, point=point, restart="gradient")


CFEL2.parts = weighted.Parts(
    begin=lambda problem, config: fista.init(problem.x),
    ask=lambda row, problem, config, inner: row.project(fista.ask(inner)),
    iterate=lambda problem, inner: inner.x,
    step=_step,
    loss=weighted.hinge,
    score=lambda config, problem, point: jnp.sum(jnp.square(point - problem.x)),
)
CFEL2.method = weighted.method("cfe-l2")
