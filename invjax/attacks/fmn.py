"""FMN-l0: the fewest changed features, by a radius that follows the boundary (Pintor et al., NeurIPS 2021).

    min_r ‖r‖_0    s.t.  gap(f(x + r)) < 0,   x + r in the box                                                     (1)

    ε ← min(ε − 1, ⌊ε(1 − γ_k)⌋, best)   if x + r has the wanted class,    max(ε + 1, ⌊ε(1 + γ_k)⌋) otherwise      (2)
    r ← argmin_{‖u‖_0 <= ε, x + u in the box} ‖u − (r − α_k g/‖g‖_2)‖_2,   g = ∇ gap                                (3)

α_k and γ_k fall on cosines from the first to the last step. ε is a number of *units*: features as in the paper, or
pixels, or groups. Coordinates: the box has width 1 (:mod:`invjax.attacks.parts.coordinates`).

Deviations: (3) is the exact projection onto the intersection. The paper keeps the ε largest |u| and clips afterwards,
which spends units on values that the box then takes away. After the last step :mod:`invjax.attacks.parts.pruning` looks
for even fewer units (``prune=0`` ends as the paper does).
"""

from __future__ import annotations

import math
from dataclasses import field
from typing import ClassVar, NamedTuple

import jax.numpy as jnp

from invjax import losses
from invjax.attacks.parts import pruning
from invjax.attacks.parts.coordinates import room, scale, to_data
from invjax.attacks.parts.units import Unit, count, grouping_of
from invjax.core.config import STATIC, config, require, require_above, require_at_least
from invjax.core.groups import group_gains
from invjax.core.numerics import safe_divide, safe_norm
from invjax.core.ranks import largest
from invjax.solvers.best import Best, nothing
from invjax.types import Array, Context, Eval, Method, Problem, Status


@config
class FMN:
    """The attack's constants; all defaults but ``prune`` are the published ones. Targeted and untargeted.

    Fields:
      steps: >= 1.
      step_size: α of the first step, l2 length, box widths, > 0.
      step_size_end: α of the last step, > 0.
      eps_rate: γ of the first step, the share by which ε moves, in [0, 1).
      eps_rate_end: γ of the last step, in [0, 1).
      prune: points asked by the last stage, >= 0.
      unit: what ε counts: "feature", "pixel", or "group": ``groups`` of the problem, or patches (static).
      patch: side of the patches, pixels, where ``unit`` is "group" and no groups are given (static).

    Evaluations per example: 1 (the clean input) + steps, and where it succeeds at most prune + 10 (its
    best point, untargeted 9 rivals at the clean input, and the last stage).
    """

    steps: int = 1000
    step_size: float = 1.0
    step_size_end: float = 0.01
    eps_rate: float = 0.05
    eps_rate_end: float = 0.001
    prune: int = 20
    unit: Unit = field(default="feature", metadata=STATIC)
    patch: int = field(default=8, metadata=STATIC)

    method: ClassVar[Method]
    RENAMED: ClassVar = {
        "iterations": "steps", "step": "step_size", "step_end": "step_size_end", "gamma": "eps_rate",
        "gamma_end": "eps_rate_end",
    }  # fmt: skip

    def check(self) -> None:
        require_at_least(self, 1, "steps", "patch")
        require_at_least(self, 0, "prune")
        require_above(self, 0, "step_size", "step_size_end")
        for name in ("eps_rate", "eps_rate_end"):
            require(self, name, lambda v: 0 <= v < 1, "in [0, 1)")


class FMNState(NamedTuple):
    r: Array  # [*S] the next point to ask, as a perturbation
    eps: Array  # [] ε, a whole number of units, in the dtype of x
    count: Array  # [] int32, steps taken
    stage: pruning.Stage  # the last one
    best: Best  # scored by its changed units
    status: Array  # [] int32, PENDING until decided


def _init(ctx: Context, problem: Problem, config: FMN) -> FMNState:
    grouping_of(problem, config.unit, config.patch)  # a shape that has no such units is refused here
    zero, one = jnp.zeros_like(problem.x), jnp.ones((), problem.x.dtype)
    return FMNState(zero, one, jnp.int32(0), pruning.waiting(zero), nothing(problem), jnp.int32(Status.PENDING))


def _ask(ctx: Context, problem: Problem, config: FMN, state: FMNState) -> Array:
    return to_data(problem, state.r)


def _loss(ctx: Context, problem: Problem, config: FMN, state: FMNState, point: Array, logits: Array) -> Array:
    """The gap, not the margin: r keeps moving where the class is reached, and only ε gives back."""
    return pruning.loss(problem, state.stage, logits)


def _tell(ctx: Context, problem: Problem, config: FMN, state: FMNState, ev: Eval) -> FMNState:
    ops, dtype = grouping_of(problem, config.unit, config.patch), problem.x.dtype
    first = state.count == 0
    reached = losses.reached(ev.logits, problem.label, problem.target)
    best = state.best.offer(ev.point, count(ops, ev.point - problem.x).astype(dtype), reached & ~first)

    share = jnp.minimum(state.count.astype(dtype) / config.steps, 1)
    falling = 0.5 * (1 + jnp.cos(jnp.pi * share))
    step_size = config.step_size_end + (config.step_size - config.step_size_end) * falling
    rate = config.eps_rate_end + (config.eps_rate - config.eps_rate_end) * falling

    eps = state.eps
    fewer = jnp.minimum(jnp.minimum(eps - 1, jnp.floor(eps * (1 - rate))), best.score)
    more = jnp.maximum(eps + 1, jnp.floor(eps * (1 + rate)))
    # The clean input tells nothing about ε: the first step has ε = 1.
    eps = jnp.where(first, eps, jnp.clip(jnp.where(reached, fewer, more), 0, math.prod(ops.shape)))

    g = ev.grad * scale(problem)
    v = state.r - step_size * safe_divide(g, safe_norm(g))
    clipped, gain, _ = group_gains(v, *room(problem), ops)
    r = jnp.where(ops.spread(largest(gain, eps)), clipped, jnp.zeros_like(v))

    stage, r, over = pruning.onwards(problem, ops, config, state, best, r, g, ev.logits)
    status = best.status(first & reached, over)
    return FMNState(r.astype(dtype), eps.astype(dtype), state.count + jnp.int32(1), stage, best, status)


FMN.method = Method("fmn", _init, _ask, _loss, _tell)
