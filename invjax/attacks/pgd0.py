"""PGD with at most k changed pixels, and its imperceptible form on the σ-map (Croce & Hein, ICCV 2019).

    PGD0        ‖r‖_0 <= k,   |r_i| <= ε,   x + r in the box                                                       (1)
    sigma-map   ‖r‖_0 <= k,   x'_p = x_p (1 + λ_p σ_p),  |λ_p| <= κ,   x' in the box                               (2)

    r ← Π(r − α g/‖g‖_1),   g = ∇ L(f(x + r), t),   Π the exact projection onto (1) or (2)                          (3)

The exact projection first moves each pixel to its nearest permitted value c_p and then keeps the k pixels of the
largest gain ‖v_p‖² − ‖v_p − c_p‖². In (2), with d_p = x_p σ_p, c_p = λ_p d_p and λ_p = ⟨v_p, d_p⟩/‖d_p‖² clipped to
what κ and the box leave. σ_p is, per channel, the square root of the smaller of two standard deviations: that of a
pixel with its left and right neighbours, and that with its upper and lower ones (edges replicated). So changes hide in
texture and keep the colour's sign. ‖·‖_0 counts pixels or features. Stops at the first point with the wanted class.

Coordinates: the box is [0, 1] (:mod:`invjax.attacks.parts.coordinates`). The re-implementation in the GSE repository
keeps the pixels with room to spare instead of those that the box cuts, which is not the projection, and judges a start
by its last step alone. The noise of 1e-12 that breaks ties is left out: the pixel's place breaks them.
"""

from __future__ import annotations

from dataclasses import field
from functools import partial
from typing import ClassVar, Literal, NamedTuple

import jax
import jax.numpy as jnp

from invjax import losses
from invjax.attacks.parts.coordinates import room, scale, to_data, to_units
from invjax.attacks.parts.units import Unit, grouping_of, need_image
from invjax.core.config import OPEN, STATIC, config, require_above, require_at_least
from invjax.core.groups import Grouping, group_gains
from invjax.core.numerics import replace_if, safe_divide, safe_sqrt, uniform
from invjax.core.ranks import largest
from invjax.solvers.best import Best, nothing
from invjax.types import Array, Context, Eval, Method, Problem, Status


@config
class PGD0:
    """The constants of (1). Targeted and untargeted. Every point asked has at most k changed units.

    Fields:
      k: how many units may change, >= 0.
      eps: ε, the largest change of a feature, box widths, > 0; from 1 on only the box limits it.
      step_size: α, box widths, > 0; published: 120000/255, for 32x32x3 features.
      steps: steps per start, >= 1.
      restarts: random starts, >= 1.
      loss: "cross_entropy", by its log-odds, or "margin", the gap of the logits; neither saturates (static).
      unit: what k counts: "pixel", "feature", or "group": ``groups`` of the problem, or 8x8 patches (static).

    Evaluations per example: 1 (the clean input) + at most restarts·(steps + 1).
    """

    k: int = 5
    eps: float = field(default=1.0, metadata=OPEN)
    step_size: float = 120000 / 255
    steps: int = 100
    restarts: int = 5
    loss: losses.Loss = field(default="cross_entropy", metadata=STATIC)
    unit: Unit = field(default="pixel", metadata=STATIC)

    method: ClassVar[Method]
    RENAMED: ClassVar = {"step": "step_size"}

    def check(self) -> None:
        _check(self)
        require_above(self, 0, "eps")


@config
class SigmaMap:
    """The constants of (2), for images. Targeted and untargeted.

    Fields:
      sigma_scale: κ, the largest |λ|, without unit, > 0.
      unit: "pixel" or "feature" (static).
      k, step_size, steps, restarts, loss: as in :class:`PGD0`.
    """

    k: int = 5
    sigma_scale: float = 0.8
    step_size: float = 120000 / 255
    steps: int = 100
    restarts: int = 5
    loss: losses.Loss = field(default="cross_entropy", metadata=STATIC)
    unit: Literal["pixel", "feature"] = field(default="pixel", metadata=STATIC)

    method: ClassVar[Method]
    RENAMED: ClassVar = {"step": "step_size", "kappa": "sigma_scale"}

    def check(self) -> None:
        _check(self)
        require_above(self, 0, "sigma_scale")


Config = PGD0 | SigmaMap


def _check(config: Config) -> None:
    require_at_least(config, 0, "k")
    require_above(config, 0, "step_size")
    require_at_least(config, 1, "steps", "restarts")


def project(problem: Problem, config: PGD0, v: Array) -> Array:
    """Π of (1). v: [*S], box widths."""
    ops = grouping_of(problem, config.unit)
    clipped, gain, _ = group_gains(v, *room(problem, config.eps), ops)
    return jnp.where(ops.spread(largest(gain, config.k)), clipped, jnp.zeros_like(v))


def sigma_map(u: Array) -> Array:
    """σ of (2). u: [H, W, C] -> [H, W, C]."""

    def deviation(axis: int) -> Array:
        widths = [(1, 1) if a == axis else (0, 0) for a in range(u.ndim)]
        padded, size = jnp.pad(u, widths, mode="edge"), u.shape[axis]
        triple = jnp.stack([jax.lax.slice_in_dim(padded, s, s + size, axis=axis) for s in range(3)])
        return jnp.sqrt(jnp.mean(jnp.square(triple - triple.mean(0)), 0))

    return safe_sqrt(jnp.minimum(deviation(1), deviation(0)))


def project_sigma(problem: Problem, config: SigmaMap, v: Array) -> Array:
    """Π of (2). v: [H, W, C], box widths."""
    ops = grouping_of(problem, config.unit)
    low, high = room(problem)
    # x in the unit box is −low, but for the mask: σ is the whole picture's, and d is 0 where nothing may change.
    d = -low * sigma_map(safe_divide(problem.x - problem.lower, scale(problem)))
    # λ from ⟨v, d⟩; the box gives each channel an interval of λ, and a pixel's is their intersection.
    wanted = safe_divide(ops.total(v * d), ops.total(d * d))
    limit = jnp.asarray(config.sigma_scale, v.dtype)
    least = -_meet(ops, jnp.where(d > 0, safe_divide(-low, d), limit), limit)
    most = _meet(ops, jnp.where(d > 0, safe_divide(high, d), limit), limit)
    lam = jnp.clip(wanted, least, most)
    gain = lam * (2 * ops.total(v * d) - lam * ops.total(d * d))
    return jnp.where(ops.spread(largest(gain, config.k)), ops.spread(lam) * d, jnp.zeros_like(v))


def _meet(ops: Grouping, ends: Array, limit: Array) -> Array:
    """The smallest of the ``ends`` [*S] in each unit, at most κ. A unit is a feature, or the channels of a pixel."""
    smallest = ends if ops.shape == ends.shape else jnp.min(ends, axis=-1, keepdims=True)
    return jnp.minimum(smallest, limit)


class PGD0State(NamedTuple):
    point: Array  # [*S] the next point to ask, data units
    count: Array  # [] int32, steps taken from this start; -1 before the clean input was seen
    starts: Array  # [] int32, starts used up
    best: Best  # the first point with the wanted class
    status: Array  # [] int32, PENDING until decided


def _init(ctx: Context, problem: Problem, config: Config) -> PGD0State:
    if isinstance(config, SigmaMap):
        need_image(problem, "SigmaMap")
    return PGD0State(problem.x, jnp.int32(-1), jnp.int32(0), nothing(problem), jnp.int32(Status.PENDING))


def _ask(ctx: Context, problem: Problem, config: Config, state: PGD0State) -> Array:
    return state.point


def _loss(ctx: Context, problem: Problem, config: Config, state: PGD0State, point: Array, logits: Array) -> Array:
    return losses.LOSSES[config.loss](logits, problem.label, problem.target)


def _random(problem: Problem, start: Array) -> Array:
    """Uniform in the box, before the projection; the draw depends on the example's key and the start's number alone."""
    low, high = room(problem)
    share = uniform(jax.random.fold_in(problem.key, start), low.shape, low.dtype)
    finite = jnp.isfinite(low) & jnp.isfinite(high)
    low, high = (jnp.where(finite, side, default) for side, default in ((low, -1), (high, 1)))
    return low + share * (high - low)


def _tell(ctx: Context, problem: Problem, config: Config, state: PGD0State, ev: Eval) -> PGD0State:
    first = state.count < 0
    reached = losses.reached(ev.logits, problem.label, problem.target)
    ended = ~first & (state.count >= config.steps)
    starts = state.starts + ended.astype(jnp.int32)
    best = state.best.offer(ev.point, 0.0, reached & ~first)
    status = best.status(first & reached, best.found | (starts >= config.restarts))
    over = status != Status.PENDING

    g = ev.grad * scale(problem)
    v = to_units(problem, ev.point) - config.step_size * safe_divide(g, jnp.sum(jnp.abs(g)))
    fresh = first | ended
    # Drawing costs more than all the rest of a step: it is done only where a start begins.
    v = replace_if(fresh & ~over, partial(_random, problem), starts, v)
    r = project(problem, config, v) if isinstance(config, PGD0) else project_sigma(problem, config, v)
    radius = config.eps if isinstance(config, PGD0) else None
    point = jnp.where(over, ev.point, to_data(problem, r.astype(v.dtype), radius=radius))
    return PGD0State(point, jnp.where(fresh, 0, state.count + 1).astype(jnp.int32), starts, best, status)


PGD0.method = Method("pgd0", _init, _ask, _loss, _tell)
SigmaMap.method = PGD0.method._replace(name="sigma-map")
