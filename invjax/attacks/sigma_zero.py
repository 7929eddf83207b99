"""σ-zero: sparse perturbations through a smooth l0 norm (Cinà et al., ICLR 2025), untargeted and targeted.

    min_r  max(0, gap(f(x + r))) + 1/D Σ_i r_i² / (r_i² + σ),   x + r in the box                                   (1)

One step, with g the gradient of (1) at the asked r, is an Adam step along g/‖g‖_∞ of size η, which falls on a cosine
from ``step_size`` to a tenth of it. Then r is clipped to the box, and every |r_i| < τ becomes 0. The threshold τ rises
by ``threshold_step``·η where the asked point had the wanted class and falls by as much where it had not, within [0, 1].
The point of least ‖r‖_0 in the wanted class is kept.

The paper and all implementations are untargeted, with the gap of the label. The gap of a target
(:func:`invjax.losses.gap`) makes the targeted form, and nothing else changes. Each example has its own τ, and it does
move: in the released code (February 2025) it stays at its start, since the update is written to a copy. Unit: the
feature. Coordinates: the box has width 1 (:mod:`invjax.attacks.parts.coordinates`).
"""

from __future__ import annotations

from typing import ClassVar, NamedTuple

import jax.numpy as jnp
import optax

from invjax import losses
from invjax.attacks.parts import pruning
from invjax.attacks.parts.coordinates import room, scale, to_data
from invjax.attacks.parts.units import grouping_of
from invjax.core.config import config, require, require_above, require_at_least
from invjax.core.numerics import safe_divide
from invjax.solvers.best import Best, nothing
from invjax.types import Array, Context, Eval, Method, Problem, Status

_ADAM = optax.scale_by_adam()


@config
class SigmaZero:
    """The attack's constants; all defaults but ``prune`` are the published ones. Targeted and untargeted.

    Fields:
      steps: >= 1 (the released default is 100; the comparisons in the literature run 1000).
      step_size: η of the first step, box widths, > 0.
      smoothing: σ of the smooth l0 norm, box widths squared, > 0.
      threshold: τ at the start, box widths, in [0, 1].
      threshold_step: how far τ moves in a step, over η, >= 0.
      prune: points asked by the last stage, >= 0.

    Evaluations per example: 1 (the clean input, which is also the first step's) + steps, and where it succeeds at
    most prune + 10 (its best point, untargeted 9 rivals at the clean input, and the last stage).
    """

    steps: int = 1000
    step_size: float = 1.0
    smoothing: float = 1e-3
    threshold: float = 0.3
    threshold_step: float = 0.01
    prune: int = 20

    method: ClassVar[Method]
    RENAMED: ClassVar = {"iterations": "steps", "rate": "step_size", "sigma": "smoothing", "adapt": "threshold_step"}

    def check(self) -> None:
        require_at_least(self, 1, "steps")
        require_above(self, 0, "step_size", "smoothing")
        require_at_least(self, 0, "threshold_step", "prune")
        require(self, "threshold", lambda v: 0 <= v <= 1, "in [0, 1]")


class SigmaZeroState(NamedTuple):
    r: Array  # [*S] the next point to ask, as a perturbation
    adam: optax.OptState  # its moments, each [*S], and a count
    threshold: Array  # [] τ
    count: Array  # [] int32, steps taken
    stage: pruning.Stage  # the last one
    best: Best  # scored by its changed features
    status: Array  # [] int32, PENDING until decided


def _init(ctx: Context, problem: Problem, config: SigmaZero) -> SigmaZeroState:
    zero = jnp.zeros_like(problem.x)
    return SigmaZeroState(
        r=zero, adam=_ADAM.init(zero), threshold=jnp.asarray(config.threshold, zero.dtype), count=jnp.int32(0),
        stage=pruning.waiting(zero), best=nothing(problem), status=jnp.int32(Status.PENDING),
    )  # fmt: skip


def _ask(ctx: Context, problem: Problem, config: SigmaZero, state: SigmaZeroState) -> Array:
    return to_data(problem, state.r)


def _loss(
    ctx: Context, problem: Problem, config: SigmaZero, state: SigmaZeroState, point: Array, logits: Array
) -> Array:
    prunes = state.count > config.steps
    margin = losses.margin(logits, problem.label, problem.target)
    return jnp.where(prunes, pruning.loss(problem, state.stage, logits), margin)


def smooth_l0_grad(r: Array, smoothing: Array | float) -> Array:
    """The gradient of ``1/D Σ r_i² / (r_i² + σ)``, which is ``2 σ r_i / (D (r_i² + σ)²)``. [*S] -> [*S]"""
    return 2 * smoothing * r / (r.size * jnp.square(jnp.square(r) + smoothing))


def _tell(ctx: Context, problem: Problem, config: SigmaZero, state: SigmaZeroState, ev: Eval) -> SigmaZeroState:
    first = state.count == 0
    reached = losses.reached(ev.logits, problem.label, problem.target)
    l0 = jnp.sum(ev.point != problem.x).astype(problem.x.dtype)
    best = state.best.offer(ev.point, l0, reached & ~first)

    low, high = room(problem)
    slope = ev.grad * scale(problem)
    g = slope + smooth_l0_grad(state.r, config.smoothing)
    direction, adam = _ADAM.update(safe_divide(g, jnp.max(jnp.abs(g))), state.adam)
    share = jnp.minimum(state.count.astype(g.dtype) / config.steps, 1)
    eta = config.step_size * (0.1 + 0.9 * 0.5 * (1 + jnp.cos(jnp.pi * share)))
    r = jnp.clip(state.r - eta * jnp.asarray(direction), low, high)
    r = jnp.where(jnp.abs(r) < state.threshold, jnp.zeros_like(r), r)
    moved = state.threshold + jnp.where(reached, 1, -1) * config.threshold_step * eta
    threshold = jnp.clip(moved, 0, 1).astype(g.dtype)

    stage, r, over = pruning.onwards(problem, grouping_of(problem, "feature"), config, state, best, r, slope, ev.logits)
    status = best.status(first & reached, over)
    return SigmaZeroState(r.astype(g.dtype), adam, threshold, state.count + jnp.int32(1), stage, best, status)


SigmaZero.method = Method("sigma-zero", _init, _ask, _loss, _tell)
