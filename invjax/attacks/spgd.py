"""Sparse-PGD: a perturbation and a mask of k units, both by gradient (Zhong et al., ICML 2024; structured: v4).

    min_{p, m} L(f(x + p ∘ M(m)), t),   M(m) = 1 on the k units of the largest m,   |p_i| <= ε,  x + p in the box   (1)

One step from the asked point, with g = ∇L there and both halves at the same p, m:

    p ← clip(p − α ε sign(g̃)),   g̃ = g ("unprojected") or g ∘ M(m) ("projected")                                  (2)
    m ← m − β √G h/‖h‖_2,   h_u = σ'(m_u) Σ_{i in u} g_i p_i,   G the number of units                               (3)

(in (2) the unprojected gradient is g ∘ σ(m), and only its sign counts). After ``patience`` steps that did not change
the mask, m is drawn anew in place of the next step. Stops at the first point with the wanted class.

Units: pixels as in the paper, features, disjoint groups, or windows (the structured form): k squares of side ``patch``
anywhere, which may overlap; the gradient of a window's place is the sum over the window. The released code has no
structured masks, and its targeted flag does not reach the loss; here both forms are targeted and untargeted.
Coordinates: the box has width 1 (:mod:`invjax.attacks.parts.coordinates`).
"""

from __future__ import annotations

import math
from dataclasses import field
from functools import partial
from typing import ClassVar, Literal, NamedTuple

import jax
import jax.numpy as jnp

from invjax import losses
from invjax.attacks.parts.coordinates import room, scale, to_data
from invjax.attacks.parts.units import grouping_of, need_image
from invjax.core.config import OPEN, STATIC, config, require_above, require_at_least
from invjax.core.groups import Grouping
from invjax.core.numerics import normal, replace_if, safe_divide, safe_norm, uniform
from invjax.core.ranks import largest
from invjax.solvers.best import Best, nothing
from invjax.types import Array, Context, Eval, Method, Problem, Status

_STILL = 2e-10  # ‖h‖ below which the mask gets no step, as published


@config
class SparsePGD:
    """The attack's constants; step sizes and patience are the published ones. Targeted and untargeted.

    Fields:
      k: how many units may change, >= 1.
      eps: ε, the largest change of a feature, box widths, > 0; from 1 on only the box limits it.
      step_size: α, in ε, > 0.
      mask_step_size: β, in √G, > 0.
      steps: >= 1.
      patience: steps without a change of the mask before it is drawn anew, >= 1.
      gradient: "unprojected" or "projected": whether p also moves outside the mask (static).
      loss: "cross_entropy", by its log-odds, or "margin", the gap of the logits; neither saturates (static).
      unit: "pixel", "feature", "group" (``groups`` of the problem, or tiles of side ``patch``), or "window" (static).
      patch: side of windows or tiles, pixels (static).

    Evaluations per example: 1 (the clean input) + at most steps.
    """

    k: int = 20
    eps: float = field(default=1.0, metadata=OPEN)
    step_size: float = 0.25
    mask_step_size: float = 0.25
    steps: int = 300
    patience: int = 3
    gradient: Literal["unprojected", "projected"] = field(default="unprojected", metadata=STATIC)
    loss: losses.Loss = field(default="cross_entropy", metadata=STATIC)
    unit: Literal["feature", "pixel", "group", "window"] = field(default="pixel", metadata=STATIC)
    patch: int = field(default=8, metadata=STATIC)

    method: ClassVar[Method]
    RENAMED: ClassVar = {"step": "step_size", "mask_step": "mask_step_size", "iterations": "steps"}

    def check(self) -> None:
        require_at_least(self, 1, "k", "steps", "patience", "patch")
        require_above(self, 0, "eps", "step_size", "mask_step_size")


class SparsePGDState(NamedTuple):
    point: Array  # [*S] the next point to ask, data units
    p: Array  # [*S] the dense perturbation
    m: Array  # [*G] the mask's logits
    chosen: Array  # [*G] bool, M(m)
    stale: Array  # [] int32, steps since the mask last changed
    count: Array  # [] int32, perturbed points asked; -1 before the clean input was seen
    best: Best  # the first point with the wanted class
    status: Array  # [] int32, PENDING until decided


def windows(shape: tuple[int, ...], size: int) -> Grouping:
    """The size x size windows of an image [H, W, C] as units that overlap: ``total`` sums over each window,
    ``spread`` is True where any chosen window (bool [H', W', 1]) lies. Windows end at the edges of a smaller image.
    """
    sides = (min(size, shape[0]), min(size, shape[1]))

    def runs(a: Array) -> Array:
        for axis, side in enumerate(sides):
            length = a.shape[axis] - side + 1
            a = sum((jax.lax.slice_in_dim(a, t, t + length, axis=axis) for t in range(1, side)),
                    start=jax.lax.slice_in_dim(a, 0, length, axis=axis))  # fmt: skip
        return a

    def spread(chosen: Array) -> Array:
        padded = jnp.pad(chosen.astype(jnp.int32), [(side - 1, side - 1) for side in sides] + [(0, 0)])
        return jnp.broadcast_to(runs(padded) > 0, shape)

    places = (shape[0] - sides[0] + 1, shape[1] - sides[1] + 1, 1)
    return Grouping(lambda a: jnp.sum(runs(a), axis=-1, keepdims=True), spread, places)


def _units(problem: Problem, config: SparsePGD) -> Grouping:
    if config.unit != "window":
        return grouping_of(problem, config.unit, config.patch)
    need_image(problem, "unit 'window'")
    return windows(problem.x.shape, config.patch)


def _mask(problem: Problem, config: SparsePGD, ops: Grouping, m: Array) -> Array:
    """M(m) as the chosen units, bool [*G]: those in which nothing may change come last."""
    low, high = room(problem)
    free = ops.total((low < high).astype(m.dtype)) > 0
    return largest(jnp.where(free, m, -jnp.inf), config.k)


def _draw(problem: Problem, like: Array, draw: Array) -> Array:
    """Standard normal logits, by the example's key and the number of the draw."""
    return normal(jax.random.fold_in(problem.key, draw), like.shape, like.dtype)


def _init(ctx: Context, problem: Problem, config: SparsePGD) -> SparsePGDState:
    ops, x = _units(problem, config), problem.x
    low, high = room(problem, config.eps)
    p = low + uniform(problem.key, x.shape, x.dtype) * (high - low)
    m = _draw(problem, jnp.empty(ops.shape, x.dtype), jnp.int32(-1))
    return SparsePGDState(
        point=x, p=p.astype(x.dtype), m=m, chosen=_mask(problem, config, ops, m), stale=jnp.int32(0),
        count=jnp.int32(-1), best=nothing(problem), status=jnp.int32(Status.PENDING),
    )  # fmt: skip


def _ask(ctx: Context, problem: Problem, config: SparsePGD, state: SparsePGDState) -> Array:
    return state.point


def _loss(
    ctx: Context, problem: Problem, config: SparsePGD, state: SparsePGDState, point: Array, logits: Array
) -> Array:
    return losses.LOSSES[config.loss](logits, problem.label, problem.target)


def _tell(ctx: Context, problem: Problem, config: SparsePGD, state: SparsePGDState, ev: Eval) -> SparsePGDState:
    ops, first, dtype = _units(problem, config), state.count < 0, problem.x.dtype
    low, high = room(problem, config.eps)
    g = ev.grad * scale(problem)

    pushed = g if config.gradient == "unprojected" else jnp.where(ops.spread(state.chosen), g, jnp.zeros_like(g))
    p = jnp.clip(state.p - config.step_size * config.eps * jnp.sign(pushed), low, high)
    h = ops.total(g * state.p) * jax.nn.sigmoid(state.m) * jax.nn.sigmoid(-state.m)
    norm = safe_norm(h)
    length = config.mask_step_size * math.sqrt(math.prod(ops.shape)) * (norm >= _STILL)
    m = state.m - length * safe_divide(h, norm)
    # The gradient at the clean input is that of no p and no mask.
    p, m = jnp.where(first, state.p, p).astype(dtype), jnp.where(first, state.m, m).astype(dtype)

    redraw = state.stale >= config.patience  # in place of the step: so there is one sort, not two
    m = replace_if(redraw, partial(_draw, problem, m), state.count, m)
    chosen = _mask(problem, config, ops, m)
    changed = jnp.any(chosen != state.chosen)
    r = jnp.where(ops.spread(chosen), p, jnp.zeros_like(p))

    count = state.count + 1
    reached = losses.reached(ev.logits, problem.label, problem.target)
    best = state.best.offer(ev.point, 0.0, reached & ~first)
    status = best.status(first & reached, best.found | (count >= config.steps))
    point = jnp.where(status != Status.PENDING, ev.point, to_data(problem, r, radius=config.eps))
    stale = jnp.where(changed | redraw | first, 0, state.stale + 1).astype(jnp.int32)
    return SparsePGDState(point, p, m, chosen, stale, count, best, status)


SparsePGD.method = Method("spgd", _init, _ask, _loss, _tell)
