"""S-CFE's problem with weights that are given, not solved for: counterfactuals as training data.

    min_{x'}  ‖x' − x‖² + γ L(f(x'), t) − τ log q(x', t) + β Σ_f cost_f φ(x'_f − x_f),      x' in A(x)             (1)

L is the cross-entropy of the target, or the hinge of its margin; q a density of the target class. Learning from
perturbations (Sadiku, Chitranshi, Kera, Pokutta 2025, arXiv 2505.16583) compares the terms of (1) against one another,
so each weight is a constant here and may be 0: ``gamma=0`` leaves the density alone, ``tau=0`` the classifier alone,
and ``beta=0`` drops sparsity. Where the minimiser does not reach the class, the status says NOT_FOUND and the point is
in ``Result.attempt``.

FISTA (Beck & Teboulle 2009) with gradient restarts takes ``steps`` steps from x, with the quadratic, the penalty and
A(x) in the proximal map,

    argmin_u ½‖u − v‖² + σ‖u − x‖² + σβ Σ φ  =  prox_{σβ/(1 + 2σ)}((v + 2σx) / (1 + 2σ)),                          (2)

so x' is exactly sparse. The last iterate is asked once more and judged.

Deviations from the released code: perturbations have either sign (there they can only brighten), the step falls as
√(1 − k/N) once (there the factor compounds), and x is never silently returned where the class is not reached.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import field
from typing import Any, ClassVar, Literal, NamedTuple

import jax.numpy as jnp

from invjax import losses
from invjax.constraints import actions
from invjax.core.config import STATIC, config, require_above, require_at_least
from invjax.core.numerics import select
from invjax.counterfactuals.cfe_l2 import decayed, toward
from invjax.counterfactuals.parts.standard import Standardised
from invjax.penalties import PenaltyName
from invjax.solvers import State, fista
from invjax.types import Array, Context, Eval, Method, Outcome, Problem, Status

Loss = Literal["cross_entropy", "hinge"]
LOSSES: dict[Loss, Callable[..., Array]] = {"cross_entropy": losses.cross_entropy, "hinge": losses.margin}


@config
class FixedWeights(Standardised):
    """The weights of (1) and the descent's constants. Distances are in data units (model coordinates with a space).

    Fields:
      gamma: γ, weight of the classifier's loss, >= 0.
      tau: τ, weight of the log density of the target class (``solve(density=...)``), >= 0.
      beta: β, weight of the penalty, >= 0.
      steps: N, gradient steps, >= 1.
      step_size: σ of the first step, > 0; the k-th takes σ √(1 − k/N).
      loss: L, "cross_entropy" or "hinge" (static).
      penalty: φ, "none", "l0", "l_half", "l_two_thirds" or "l1" (static).

    Evaluations per example: 1 + steps.
    """

    gamma: float = 1.0
    tau: float = 0.0
    beta: float = 0.0
    steps: int = 40
    step_size: float = 0.1
    loss: Loss = field(default="cross_entropy", metadata=STATIC)
    penalty: PenaltyName = field(default="l0", metadata=STATIC)

    RENAMED: ClassVar[Mapping[str, str]] = {"iterations": "steps", "step": "step_size"}
    method: ClassVar[Method]

    @property
    def wants_density(self) -> bool:
        """Whether there must be a density."""
        return self.tau > 0

    def check(self) -> None:
        require_at_least(self, 0, "gamma", "tau", "beta")
        require_at_least(self, 1, "steps")
        require_above(self, 0, "step_size")


class FixedWeightsState(NamedTuple):
    inner: State  # FISTA on x'
    count: Array  # [] int32, steps taken
    aim: Array  # [] int32, the class that x' should look like
    point: Array  # [*S] what was asked last
    status: Array  # [] int32, PENDING until decided


def _init(ctx: Context, problem: Problem, config: FixedWeights) -> FixedWeightsState:
    aim = jnp.where(problem.target < 0, 0, problem.target).astype(jnp.int32)
    return FixedWeightsState(fista.init(problem.x), jnp.int32(0), aim, problem.x, jnp.int32(Status.PENDING))


def _ask(ctx: Context, problem: Problem, config: FixedWeights, state: FixedWeightsState) -> Array:
    row = actions(ctx.constraints, problem)
    last = row.snap(state.inner.x) if not row.exact else state.inner.x
    return jnp.where(state.count >= config.steps, last, row.project(fista.ask(state.inner)))


def _loss(
    ctx: Context, problem: Problem, config: FixedWeights, state: FixedWeightsState, point: Array, logits: Array
) -> Array:
    value = jnp.asarray(config.gamma, logits.dtype) * LOSSES[config.loss](logits, problem.label, problem.target)
    if ctx.density is None:
        return value
    aim = jnp.where(state.count == 0, losses.wanted(logits, problem.label, problem.target), state.aim)
    return value - config.tau * ctx.density.log_prob(point, aim).astype(value.dtype)


def _tell(
    ctx: Context, problem: Problem, config: FixedWeights, state: FixedWeightsState, ev: Eval
) -> FixedWeightsState:
    row, first, last = actions(ctx.constraints, problem), state.count == 0, state.count >= config.steps
    reached = losses.reached(ev.logits, problem.label, problem.target)

    def prox(v: Array, step_size: Array) -> Array:
        weight = step_size * config.beta / (1 + 2 * step_size)
        return row.prox(toward(v, problem.x, step_size), weight, config.penalty)

    size = decayed(config, state.count, ev.point.dtype)
    moved = fista.tell(state.inner, ev.grad, size, prox, point=ev.point, restart="gradient")
    ending = jnp.where(reached & jnp.any(ev.point != problem.x), Status.FOUND, Status.NOT_FOUND)
    status = jnp.where(last, ending, Status.PENDING)
    return FixedWeightsState(
        inner=select(last, state.inner, moved),
        count=state.count + 1,
        aim=jnp.where(first, losses.wanted(ev.logits, problem.label, problem.target), state.aim).astype(jnp.int32),
        point=ev.point,
        status=jnp.where(first & reached, Status.ALREADY_TARGET, status).astype(jnp.int32),
    )


def _result(ctx: Context, problem: Problem, config: FixedWeights, state: Any) -> Outcome:
    return Outcome(state.point, state.status, state.point)


FixedWeights.method = Method("fixed-weights", _init, _ask, _loss, _tell, result=_result)
