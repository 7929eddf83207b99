"""How far a perturbation, or any mask, overlaps with a class activation map.

For a perturbation r [H, W, C] with support ``s = [max_c |r| > 0]``, a map A [H, W] in [0, 1] (CAM or Grad-CAM, see
:mod:`invjax.attribution.cam`) and the n = q H W pixels T of its q largest entries,

    mass     = Σ_T ‖r_ij‖² / Σ ‖r_ij‖²         the share of r in the map's top region;      chance level q           (1)
    iou      = |s ∩ [A > v]| / |s ∪ [A > v]|   v = 0.5                                                               (2)
    pointing = [argmax A in s]                 does the map's peak hit a changed pixel;     chance level |s| / H W   (3)
    energy   = Σ_s A / Σ A                     the share of the map on changed pixels;      chance level |s| / H W   (4)

(2)–(4) take any mask instead of s, for instance that of an object. Equal entries of A (Grad-CAM is 0 over much of the
plane) share evenly whatever has to be chosen among them, so that (1) and (3) are the average over random choices. A
quantity is NaN if it has no meaning: r = 0, an empty union, a constant map, or a map that is not finite.

All functions of one map take leading axes ``[..., H, W]`` that broadcast, and work inside ``jit`` and ``vmap``.

Source: (2) with v = 0.5 as in SpuCo's Grad-CAM evaluator; (3) Zhang et al. 2018, here without their tolerance of 15
pixels; (4) Wang et al. 2020 (Score-CAM).
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from invjax.core.arguments import kinds_checked
from invjax.core.errors import BadArgument, Words, check_number
from invjax.core.labels import check_status
from invjax.core.meant import explained
from invjax.core.numerics import as_float
from invjax.core.rows import BATCH, Picked, map_rows
from invjax.core.shown import short_repr
from invjax.metrics.attribution import counted
from invjax.metrics.summary import Convention
from invjax.types import AnyArray, Array, ArrayLike

PLANE = (-2, -1)
SHARE, LEVEL = 0.25, 0.5


class Overlap(NamedTuple):
    """Of each attempt, shares in [0, 1] or NaN."""

    mass: AnyArray  # (1)
    iou: AnyArray  # (2)
    pointing: AnyArray  # (3)
    energy: AnyArray  # (4)
    support: AnyArray  # |s| / H W, the chance level of (3) and (4)

    __repr__ = short_repr


@explained
def top_region(m: Array, share: ArrayLike = SHARE) -> Array:
    """The pixels of the largest entries: [..., H, W] -> weights in [0, 1] whose sum is ``share`` · H W.

    A pixel above the entry at which the region is full has weight 1, one below it 0; pixels equal to it share the rest.
    share: [] in (0, 1], traced.
    """
    m = as_float(m)
    flat = m.reshape(*m.shape[:-2], -1)
    size = flat.shape[-1]
    room = jnp.asarray(share, m.dtype) * size
    last = jnp.clip(jnp.ceil(room).astype(jnp.int32) - 1, 0, size - 1)
    edge = jnp.take(jnp.sort(flat, axis=-1, descending=True), last, axis=-1)[..., None]
    above, level = (flat > edge).astype(m.dtype), (flat == edge).astype(m.dtype)
    left = room - jnp.sum(above, axis=-1, keepdims=True)
    weight = jnp.clip(left / jnp.maximum(jnp.sum(level, axis=-1, keepdims=True), 1), 0, 1)
    return (above + level * weight).reshape(m.shape)


@explained
def mass_inside(delta: Array, region: Array) -> Array:
    """Σ region · ‖r_ij‖² / Σ ‖r_ij‖² of delta [..., H, W, C] and region [..., H, W], bool or weights; NaN if r = 0."""
    delta = as_float(delta)
    largest = jnp.max(jnp.abs(delta), axis=(-3, -2, -1), keepdims=True)
    r = delta / jnp.where(largest > 0, largest, jnp.ones_like(largest))  # squares must not underflow
    mass = jnp.sum(jnp.square(r), axis=-1)
    return _share(jnp.sum(mass * region, axis=PLANE), jnp.sum(mass, axis=PLANE))


@explained
def iou(m: Array, mask: Array, level: ArrayLike = LEVEL) -> Array:
    """(2): maps and bool masks [..., H, W] -> [...]. level: [], traced, in the units of the map."""
    m = as_float(m)
    high = m > level
    both, either = (jnp.sum(a, axis=PLANE).astype(m.dtype) for a in (high & mask, high | mask))
    return jnp.where(jnp.any(jnp.isnan(m), axis=PLANE), jnp.nan, _share(both, either))


@explained
def pointing_game(m: Array, mask: Array) -> Array:
    """(3): maps and bool masks [..., H, W] -> [...]; 1 or 0 if the map has a single peak."""
    m = as_float(m)
    peak = m == jnp.max(m, axis=PLANE, keepdims=True)
    hit, peaks = (jnp.sum(a, axis=PLANE).astype(m.dtype) for a in (peak & mask, peak))
    return jnp.where(jnp.max(m, axis=PLANE) > jnp.min(m, axis=PLANE), _share(hit, peaks), jnp.nan)


@explained
def energy_inside(m: Array, mask: Array) -> Array:
    """(4): maps [..., H, W], nowhere negative, and bool masks -> [...]."""
    m = as_float(m)
    inside = jnp.sum(jnp.where(mask, m, jnp.zeros_like(m)), axis=PLANE)
    return _share(inside, jnp.sum(m, axis=PLANE))


@explained
def overlap(delta: Array, m: Array, share: ArrayLike = SHARE, level: ArrayLike = LEVEL) -> Overlap:
    """(1)–(4) of perturbations [..., H, W, C] and maps [..., H, W] -> fields [...]. share: q; level: v; traced."""
    delta, m = as_float(delta), as_float(m)
    support = jnp.any(delta != 0, axis=-1)
    finite = jnp.all(jnp.isfinite(delta), axis=(-3, -2, -1)) & jnp.all(jnp.isfinite(m), axis=PLANE)
    good = finite & jnp.any(support, axis=PLANE)
    values = (
        mass_inside(delta, top_region(m, share)),
        iou(m, support, level),
        pointing_game(m, support),
        energy_inside(m, support),
        jnp.mean(support, axis=PLANE, dtype=m.dtype),
    )
    return Overlap(*(jnp.where(good, value, jnp.nan) for value in values))


@kinds_checked
def measure_overlap(
    delta: Any,
    maps: Any,
    status: Any,
    *,
    share: float = SHARE,
    level: float = LEVEL,
    convention: Convention = "successes_only",
    batch: int = BATCH,
) -> Overlap:
    """(1)–(4) of a list of attempts: fields [N, T] or [N] float64, NaN where an attempt does not count.

    Args:
        delta: [N, T, H, W, C] or [N, H, W, C]: ``result.delta``, or ``result.attempt - x``.
        maps: [N, H, W], one per image, nowhere negative.
        status: [N, T] or [N], of :class:`~invjax.types.Status`.
        share: q, in (0, 1].
        level: v.
        convention: "successes_only" counts FOUND; "all_attempts" counts all but those whose clean input already had the
            wanted class.
        batch: attempts at once.

    Raises ValueError: shapes that do not fit, a share outside (0, 1], an unknown convention.
    """
    r, m, state = np.asarray(delta), np.asarray(maps), check_status("status", status)
    if m.ndim != 3 or r.shape[:-1] != (*state.shape, *m.shape[1:]) or state.shape[:1] != m.shape[:1]:
        wanted = "be [N, H, W, C] with status [N], or [N, T, H, W, C] with status [N, T], and maps [N, H, W]"
        raise BadArgument("delta", wanted, Words(f"{r.shape}, {state.shape} and {m.shape}"))
    if not 0 < share <= 1:
        raise BadArgument("share", "be a share of the pixels in (0, 1]", share)
    check_number("level", level, lambda v: v >= 0, "a number >= 0")
    index = counted(state, convention).reshape(-1).nonzero()[0]
    table = Overlap(*(np.full(state.size, np.nan) for _ in Overlap._fields))
    if len(index):
        image = np.arange(state.size) // state[0].size
        columns = (Picked(r.reshape(-1, *r.shape[-3:]), index), Picked(m, image[index]))
        for field, values in zip(table, map_rows(_overlaps, (share, level), *columns, batch=batch), strict=True):
            field[index] = values
    return Overlap(*(field.reshape(state.shape) for field in table))


@explained
def summarize_overlap(table: Overlap) -> dict[str, float]:
    """Means over the attempts where a measure is defined (else NaN), and ``counted``, the attempts with a support."""
    means = {}
    for name, values in table._asdict().items():
        known = np.asarray(values)[np.isfinite(values)]
        means[name] = float(known.mean()) if known.size else float("nan")
    return {**means, "counted": int(np.isfinite(table.support).sum())}


def _overlaps(shared: tuple[Array, Array], delta: Array, m: Array) -> Overlap:
    m = as_float(m)
    return overlap(delta.astype(m.dtype), m, *shared)


def _share(part: Array, whole: Array) -> Array:
    there = whole > 0
    return jnp.where(there, part / jnp.where(there, whole, jnp.ones_like(whole)), jnp.nan)
