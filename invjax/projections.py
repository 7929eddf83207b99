"""Euclidean projections: boxes, balls, balls with a box, m non-zeros with a box, subspaces, the simplex.

    project(v) = argmin_u ‖u − v‖_2    subject to u in the set

``v`` has any shape [*S] and decides dtype and shape of the answer; the sets are around 0 and act on the whole array
(vmap for a batch). Radii, bounds and m are traced. A box given with a ball must contain 0 (for :func:`top_m` it need
not). The multipliers of balls and simplex are found by a fixed number of bisections and one exact step on the active
set, which also carries the derivative. Nothing is sorted, so the projections are fast on accelerators.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp

from invjax.core.balls import fitting
from invjax.core.groups import Axis, Grouping, group_gains, grouping
from invjax.core.meant import suggest_names
from invjax.core.numerics import as_float, safe_divide, safe_norm
from invjax.core.ranges import check_box, check_least
from invjax.core.ranks import largest
from invjax.prox import bisect, floats_like, keep_nan, summing
from invjax.types import Array, ArrayLike


def box(v: ArrayLike, lower: ArrayLike | None = None, upper: ArrayLike | None = None) -> Array:
    """On ``lower <= u <= upper``; a side that is None is open."""
    check_box(lower, upper)
    v = as_float(v)
    return jnp.clip(v, floats_like(v, lower, -math.inf), floats_like(v, upper, math.inf))


def linf_ball(
    v: ArrayLike, radius: ArrayLike, *, lower: ArrayLike | None = None, upper: ArrayLike | None = None
) -> Array:
    """On ``{‖u‖_∞ <= radius}``, or its intersection with the box: itself a box. radius: [] or per coordinate."""
    check_least("radius", radius)
    check_box(lower, upper)
    v = as_float(v)
    r = floats_like(v, radius)
    return jnp.clip(
        v, jnp.maximum(-r, floats_like(v, lower, -math.inf)), jnp.minimum(r, floats_like(v, upper, math.inf))
    )


@summing
def l2_ball(
    v: ArrayLike, radius: ArrayLike, *, lower: ArrayLike | None = None, upper: ArrayLike | None = None
) -> Array:
    """On ``{‖u‖_2 <= radius}``, or its intersection with a box that contains 0. radius: [].

    With the box the answer is ``clip(t v)``, t in (0, 1] with ``‖clip(t v)‖ = radius``, a norm that never falls in t.
    """
    check_least("radius", radius)
    check_box(lower, upper)
    v = as_float(v)
    radius = jnp.asarray(radius, v.dtype)
    if lower is None and upper is None:
        norm = safe_norm(v)
        outside = norm > radius
        u = jnp.where(outside, v * (radius / jnp.where(outside, norm, jnp.ones_like(norm))), v)
        return u * jax.lax.stop_gradient(fitting(u, radius))  # within the radius to the last bit

    low, high = floats_like(v, lower, -math.inf), floats_like(v, upper, math.inf)
    clipped = jnp.clip(v, low, high)
    inside = safe_norm(clipped) <= radius
    fv, flow, fhigh, fradius = jax.lax.stop_gradient((v, low, high, radius))
    # ‖clip(t v)‖ <= t ‖v‖, so t >= radius/‖v‖: a positive lower end, and relative precision by geometric halving.
    tiny = jnp.asarray(jnp.finfo(v.dtype).tiny, v.dtype)
    one = jnp.ones((), v.dtype)
    start = jnp.clip(safe_divide(fradius, safe_norm(fv)), tiny, one)
    t = bisect(lambda t: safe_norm(jnp.clip(t * fv, flow, fhigh)) < fradius, start, one, geometric=True)
    # Newton on ‖clip(t v)‖² = radius² with the active set fixed: polishes t and gives it the derivative.
    free = (t * fv > flow) & (t * fv < fhigh)
    zero = jnp.zeros_like(v)
    slope = 2 * t * jnp.sum(jnp.where(free, fv * fv, zero))
    bound = jnp.where(free, zero, jnp.clip(t * v, low, high))
    excess = jnp.sum(jnp.where(free, jnp.square(t * v), jnp.square(bound))) - radius * radius
    t = t - safe_divide(excess, slope)
    limited = jnp.where(radius > 0, jnp.clip(t * v, low, high), zero)
    return keep_nan(v, jnp.where(inside, clipped, limited))


@summing
def l1_ball(
    v: ArrayLike, radius: ArrayLike, *, lower: ArrayLike | None = None, upper: ArrayLike | None = None
) -> Array:
    """On ``{‖u‖_1 <= radius}``, or its intersection with a box that contains 0. radius: [].

    The answer is soft thresholding at the multiplier, then the box; Duchi et al. (2008) for the free case, here by
    bisection on what the largest entry keeps.
    """
    check_least("radius", radius)
    check_box(lower, upper)
    v = as_float(v)
    radius = jnp.asarray(radius, v.dtype)
    low, high = floats_like(v, lower, -math.inf), floats_like(v, upper, math.inf)
    clipped = jnp.clip(v, low, high)
    inside = jnp.sum(jnp.abs(clipped)) <= radius
    side = jnp.where(v < 0, -jnp.ones_like(v), jnp.ones_like(v))
    cap = jnp.where(v < 0, -low, high)
    magnitude = _fill(side * v, cap, radius, None, bounded=True)
    # The rounding of v − multiplier does not shrink with the radius: give back what it leaves over, or be infeasible.
    total = jnp.sum(magnitude)
    fits = safe_divide(radius, jnp.maximum(total, radius))
    magnitude = magnitude * jax.lax.stop_gradient(fits)
    return keep_nan(v, jnp.where(inside, clipped, jnp.where(magnitude > 0, side * magnitude, jnp.zeros_like(v))))


@summing
def simplex(v: ArrayLike, total: ArrayLike = 1.0, *, axis: Axis = None) -> Array:
    """On ``{u >= 0, Σ u = total}``, total > 0: the sum over all coordinates, or along ``axis`` (each slice its own).

    total: broadcasts to [*S] with the summed axes of length 1.
    """
    check_least("total", total, above=True)
    v = as_float(v)
    return keep_nan(v, _fill(v, jnp.full_like(v, math.inf), jnp.asarray(total, v.dtype), axis, bounded=False))


def coordinate_subspace(v: ArrayLike, support: ArrayLike) -> Array:
    """On ``{u : u_i = 0 outside support}``. support: bool, broadcasts to [*S]."""
    v = as_float(v)
    return jnp.where(jnp.broadcast_to(jnp.asarray(support, bool), v.shape), v, jnp.zeros_like(v))


@summing
def top_m(v: ArrayLike, m: ArrayLike, *, lower: ArrayLike | None = None, upper: ArrayLike | None = None) -> Array:
    """On ``{‖u‖_0 <= m}``, or its intersection with a box. m: [] int, traced.

    Keeps, at c = clip(v), the m coordinates of largest gain ``v² − (c − v)²``; neither clipping after choosing the m
    largest |v| nor choosing after clipping is the projection. Coordinates whose box excludes 0 come first and count
    against m; if there are more than m of them the set is empty, and exactly these are kept. Equal gains: first index.
    """
    v = as_float(v)
    everyone = Grouping(lambda a: a, lambda g: g, v.shape)  # each coordinate its own group
    return _top(v, m, lower, upper, everyone)


@summing
def top_m_groups(
    v: ArrayLike,
    m: ArrayLike,
    groups: ArrayLike | None = None,
    *,
    num_groups: int | None = None,
    axis: Axis = None,
    lower: ArrayLike | None = None,
    upper: ArrayLike | None = None,
) -> Array:
    """On ``{at most m groups are not 0}``, or its intersection with a box: :func:`top_m` with groups as the units.

    groups, num_groups, axis: see :func:`invjax.core.groups.grouping` (``axis=-1``: pixels, all channels together).
    """
    v = as_float(v)
    return _top(v, m, lower, upper, grouping(v.shape, groups, num_groups, axis))


def _top(v: Array, m: ArrayLike, lower: ArrayLike | None, upper: ArrayLike | None, ops: Grouping) -> Array:
    check_least("m", m)
    check_box(lower, upper)
    low, high = floats_like(v, lower, -math.inf), floats_like(v, upper, math.inf)
    clipped, gain, forced = group_gains(v, low, high, ops)
    order = jnp.where(forced, jnp.full_like(gain, math.inf), gain).reshape(-1)
    keep = forced | largest(order, m).reshape(gain.shape)
    return keep_nan(v, jnp.where(ops.spread(keep), clipped, jnp.zeros_like(v)))


def _fill(v: Array, cap: Array, total: Array, axis: Axis, *, bounded: bool) -> Array:
    """``clip(level − d, 0, cap)`` with ``d = max(v) − v`` and the level at which it sums to ``total`` along axis.

    Measured from the largest entry nothing cancels, however small ``total`` is against v. bounded: the level ends at
    max(v) (the threshold at 0: what lies there belongs to the caller); otherwise at ``total``.
    """
    top = jnp.max(jax.lax.stop_gradient(v), axis=axis, keepdims=True)  # cancels in the level: no derivative
    depth = top - v
    fdepth, fcap = jax.lax.stop_gradient((depth, cap))
    goal = jnp.broadcast_to(total, top.shape)
    fgoal = jax.lax.stop_gradient(goal)
    zero = jnp.zeros_like(v)

    def fill(level: Array) -> Array:
        return jnp.clip(level - fdepth, zero, fcap)

    def summed(a: Array) -> Array:
        return jnp.sum(a, axis=axis, keepdims=True)

    # No entry exceeds the level, so the level is at least total / n.
    tiny = jnp.full_like(top, jnp.finfo(v.dtype).tiny)
    start = jnp.maximum(fgoal * (top.size / v.size), tiny)
    end = jnp.maximum(top if bounded else fgoal, start)
    level = bisect(_below(fill, summed, fgoal), start, end, geometric=True)
    # Exact on the active set {0 < level − d < cap}: Σ_active (level − d) + Σ_capped cap = total.
    active = (level > fdepth) & (level - fdepth < fcap)
    capped = level - fdepth >= fcap
    count = summed(active.astype(v.dtype))
    exact = (goal - summed(jnp.where(capped, cap, zero)) + summed(jnp.where(active, depth, zero))) / jnp.maximum(
        count, 1
    )
    level = jnp.where(count > 0, exact, level)
    return jnp.where(goal > 0, jnp.clip(level - depth, zero, cap), zero)


def _below(fill: Callable[[Array], Array], summed: Callable[[Array], Array], goal: Array) -> Callable[[Array], Array]:
    return lambda level: summed(fill(level)) < goal


suggest_names(__name__)
