"""CFE-l2: the nearest counterfactual in the l2 norm, with neither sparsity nor plausibility.

    min_r  γ L(f(x + r), t) + ‖r‖²,   x + r in the hull of what is permitted                                       (1)

with L the hinge ``max(0, shortfall + κ)`` on logits. Accelerated proximal gradient steps (FISTA, Beck & Teboulle
2009, with restarts): ‖r‖² and the hull go into the proximal map,

    argmin_u 1/2 ‖u − v‖² + σ ‖u − x‖² over the hull  =  project((v + 2σ x) / (1 + 2σ)),                            (2)

so that the step σ is bound by the network's curvature alone. γ is searched: the smallest that is enough leaves x + r on
the boundary. It is S-CFE's problem without its other terms, the baseline that shows what those change.
"""

from __future__ import annotations

from typing import Any, ClassVar

import jax.numpy as jnp

from invjax.core.config import config, require
from invjax.counterfactuals.parts import weighted
from invjax.solvers import State, fista
from invjax.types import Array, Method, Problem


@config
class CFEL2:
    """The method's constants.

    Fields:
      gamma: γ of the first trial, data units squared per logit unit, > 0.
      grow: γ of the next trial over this one's until one succeeds, > 1.
      trials: values of γ tried, >= 1.
      iterations: steps of a trial, >= 1.
      step: σ of the first step, without unit (‖r‖² has the curvature 2), > 0; step k takes σ sqrt(1 − k/iterations).
      kappa: margin of a valid answer, logit units, >= 0.
      probability: wanted probability of the target, in (0, 1); None: it need only win.

    Evaluations per example: at most 1 + trials·iterations.
    """

    gamma: float = 0.1
    grow: float = 10.0
    trials: int = 12
    iterations: int = 60
    step: float = 0.1
    kappa: float = 0.05
    probability: float | None = None

    method: ClassVar[Method]

    def check(self) -> None:
        weighted.check_search(self)
        require(self, "step", lambda v: v > 0, "a step > 0")


def decayed(config: Any, k: Array, dtype: Any) -> Array:
    """``step · sqrt(1 − k/iterations)``."""
    share = k.astype(dtype) / jnp.asarray(config.iterations, dtype)
    return jnp.asarray(config.step, dtype) * jnp.sqrt(jnp.maximum(1 - share, jnp.zeros_like(share)))


def toward(v: Array, x: Array, step: Array) -> Array:
    """The free part of (2): where ``1/2 ‖u − v‖² + σ ‖u − x‖²`` is least."""
    return x + (v - x) / (1 + 2 * step)  # exactly x where v is


def _step(row: Any, problem: Problem, config: CFEL2, inner: State, point: Array, grad: Array, k: Array) -> State:
    def prox(v: Array, step: Array) -> Array:
        return row.project(toward(v, problem.x, step))

    size = decayed(config, k, point.dtype)
    return fista.tell(inner, grad, size, prox, point=point, restart="gradient")


CFEL2.method = weighted.method(
    "cfe-l2",
    weighted.Parts(
        begin=lambda problem, config: fista.init(problem.x),
        ask=lambda row, problem, config, inner: row.project(fista.ask(inner)),
        iterate=lambda problem, inner: inner.x,
        step=_step,
        loss=weighted.hinge,
        score=lambda config, problem, point: jnp.sum(jnp.square(point - problem.x)),
    ),
)
