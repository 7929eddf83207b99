"""Proximal maps of the sparsity penalties, free and with a box, elementwise and by groups.

One convention everywhere:

    prox(v, w) = argmin_u  1/2 ‖u − v‖² + w φ(u)      subject to  lower <= u <= upper if given,

with ``w`` the WHOLE weight (step × regularisation). A paper that writes ``‖u − v‖² + λ φ(u)`` means w = λ/2.
``v`` has any shape [*S] and decides dtype and shape of the answer; ``w``, ``lower`` and ``upper`` broadcast to it and
are traced. The box need not contain 0. It must have lower <= upper, and w must be >= 0; with w = 0 the map is the
projection onto the box. Where two points are equally good the smaller in magnitude is returned. NaN stays NaN.

φ(u) = |u|^p with p < 1 has at most one candidate besides the lower end of the box: on u >= 0 the objective rises, falls
to the larger root z of ``z − y + w p z^(p−1) = 0`` and rises again. So the box only raises the threshold: with
c = min(z, upper) the answer is c if ``y > c/2 + w c^(p−1)`` and 0 otherwise. Clipping the free map would be wrong.
Roots: p = 1/2, Xu, Chang, Xu, Zhang (2012), IEEE TNNLS 23(7); p = 2/3, Cao, Sun, Xu (2013), J. Vis. Commun. Image
Represent. 24(1). Here both are rewritten in the dimensionless ``q = p w y^(p−2)`` so that nothing overflows.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from invjax.core.errors import BadArgument
from invjax.core.groups import Axis, Grouping, group_gains, grouping
from invjax.core.groups import patch_groups as patch_groups  # part of the public face of this module
from invjax.core.meant import suggest_names
from invjax.core.numerics import as_float, at_least_float32, narrowed_towards, safe_divide
from invjax.core.ranges import check_box, check_least
from invjax.types import Array, ArrayLike


def summing(function: Callable[..., Array]) -> Callable[..., Array]:
    """A map ``(v, ...) -> [*S]`` that sums over v: of v in 16 bits it is computed in float32, and rounded towards 0."""

    @functools.wraps(function)
    def call(v: ArrayLike, *args: Any, **options: Any) -> Array:
        v = as_float(v)
        return narrowed_towards(function(at_least_float32(v), *args, **options), jnp.zeros_like(v))

    return call


# ---------------------------------------------------------------------------------------------------------------------
# Elementwise
# ---------------------------------------------------------------------------------------------------------------------
def l1(v: ArrayLike, w: ArrayLike, *, lower: ArrayLike | None = None, upper: ArrayLike | None = None) -> Array:
    """``argmin_u 1/2 (u − v)² + w |u|``, elementwise: soft thresholding, then the box.

    Only for this map is clipping afterwards exact: its problem is convex in one variable.
    """
    v, w, low, high = _arguments(v, w, lower, upper)
    return jnp.clip(v - jnp.clip(v, -w, w), low, high)


def l0(v: ArrayLike, w: ArrayLike, *, lower: ArrayLike | None = None, upper: ArrayLike | None = None) -> Array:
    """``argmin_u 1/2 (u − v)² + w [u ≠ 0]``, elementwise: hard thresholding at sqrt(2w), exact with the box."""
    return _power(0.0, v, w, lower, upper)


def l_half(v: ArrayLike, w: ArrayLike, *, lower: ArrayLike | None = None, upper: ArrayLike | None = None) -> Array:
    """``argmin_u 1/2 (u − v)² + w |u|^(1/2)``, elementwise, exact with the box; free threshold 1.5 w^(2/3).

    Xu et al. (2012) state ``(u − v)² + λ |u|^(1/2)``: their map is ``l_half(v, λ / 2)``.
    """
    return _power(1 / 2, v, w, lower, upper)


def l_two_thirds(
    v: ArrayLike, w: ArrayLike, *, lower: ArrayLike | None = None, upper: ArrayLike | None = None
) -> Array:
    """``argmin_u 1/2 (u − v)² + w |u|^(2/3)``, elementwise, exact with the box; free threshold 2 (2w/3)^(3/4)."""
    return _power(2 / 3, v, w, lower, upper)


def threshold(w: ArrayLike, p: float) -> Array:
    """The largest |v| that the free map of ``w |u|^p`` sends to 0. p: static, in [0, 1]; shape and dtype of w.

    ``C w^(1/(2−p))`` with ``C = (2−p) (2(1−p))^((p−1)/(2−p))``: sqrt(2w), 1.5 w^(2/3), 2 (2w/3)^(3/4), w.
    """
    check_least("w", w)
    w = as_float(w)
    return _threshold_constant(p) * w ** (1 / (2 - p))


def zero_weight(magnitude: ArrayLike, p: float) -> Array:
    """The smallest weight w at which the free map of ``w |u|^p`` sends every |v| <= magnitude to 0.

    The inverse of :func:`threshold`: ``(magnitude / C)^(2−p)``, for p = 1/2 ``(2/3 magnitude)^(3/2)``. p: static, in
    [0, 1].
    """
    check_least("magnitude", magnitude)
    magnitude = as_float(magnitude)
    return (magnitude / _threshold_constant(p)) ** (2 - p)


# ---------------------------------------------------------------------------------------------------------------------
# Groups
# ---------------------------------------------------------------------------------------------------------------------
@summing
def group_l2(
    v: ArrayLike,
    w: ArrayLike,
    groups: ArrayLike | None = None,
    *,
    num_groups: int | None = None,
    axis: Axis = None,
    lower: ArrayLike | None = None,
    upper: ArrayLike | None = None,
) -> Array:
    """``argmin_u 1/2 ‖u − v‖² + Σ_g w_g ‖u_g‖_2``: block soft thresholding, exact with the box.

    Free: ``u_g = max(0, 1 − w_g/‖v_g‖) v_g``. With a box ``u_g = clip(t v_g)`` where t in (0, 1) is the root of
    ``(1 − t) ‖clip(t v_g)‖ = w_g t``, unique because ``‖clip(t v_g)‖ / t`` does not increase in t; found by bisection.
    groups, num_groups, axis: see :func:`invjax.core.groups.grouping`. w: broadcasts to [*G], one weight per group.
    """
    unboxed = lower is None and upper is None
    v, w, low, high, ops = _group_arguments(v, w, lower, upper, groups, num_groups, axis)
    if unboxed:
        norm = jnp.sqrt(_positive(ops.total(jnp.square(v))))
        shrink = jnp.where((norm > w) | (w <= 0), 1 - w / norm, jnp.zeros_like(norm))
        return v * ops.spread(shrink)

    fv, fw, flow, fhigh = jax.lax.stop_gradient((v, w, low, high))

    def gap(t: Array, v: Array, w: Array, low: Array, high: Array) -> tuple[Array, Array]:
        u = jnp.clip(ops.spread(t) * v, low, high)
        return (1 - t) * _group_norm(u, ops) - t * w, u

    def too_low(t: Array) -> Array:
        return gap(t, fv, fw, flow, fhigh)[0] > 0

    t = bisect(too_low, jnp.zeros(ops.shape, v.dtype), jnp.ones(ops.shape, v.dtype))
    # One Newton step in t: its value polishes the root, its derivative is that of the implicit function.
    u = jnp.clip(ops.spread(t) * fv, flow, fhigh)
    norm = _group_norm(u, ops)
    inside = (u > flow) & (u < fhigh)
    slope = (1 - t) * safe_divide(ops.total(jnp.where(inside, u * fv, jnp.zeros_like(u))), norm) - norm - fw
    t = t - safe_divide(gap(t, v, w, low, high)[0], slope)
    t = t + jax.lax.stop_gradient(jnp.where(w > 0, jnp.zeros_like(t), 1 - t))  # exactly clip(v) at w = 0
    # 0 is the answer only where every box of the group holds it and the part of v that may move is within the ball w.
    movable = jnp.where(fv > 0, fhigh > 0, flow < 0)
    reach = _group_norm(jnp.where(movable, fv, jnp.zeros_like(fv)), ops)
    forced = ops.total(((flow > 0) | (fhigh < 0)).astype(v.dtype)) > 0
    alive = forced | (reach > fw) | (fw <= 0)
    return keep_nan(v, jnp.where(ops.spread(alive), jnp.clip(ops.spread(t) * v, low, high), jnp.zeros_like(v)))


@summing
def group_l0(
    v: ArrayLike,
    w: ArrayLike,
    groups: ArrayLike | None = None,
    *,
    num_groups: int | None = None,
    axis: Axis = None,
    lower: ArrayLike | None = None,
    upper: ArrayLike | None = None,
) -> Array:
    """``argmin_u 1/2 ‖u − v‖² + Σ_g w_g [u_g ≠ 0]``, exact with the box.

    A group is kept, at c = clip(v), where its gain ``‖v_g‖² − ‖c_g − v_g‖²`` exceeds ``2 w_g``; a group whose box
    excludes 0 in some coordinate is always kept. groups, num_groups, axis, w: as in :func:`group_l2`.
    """
    v, w, low, high, ops = _group_arguments(v, w, lower, upper, groups, num_groups, axis)
    clipped, gain, forced = group_gains(v, low, high, ops)
    keep = forced | (gain > 2 * w) | (w <= 0)
    return keep_nan(v, jnp.where(ops.spread(keep), clipped, jnp.zeros_like(v)))


# ---------------------------------------------------------------------------------------------------------------------
# Machinery
# ---------------------------------------------------------------------------------------------------------------------
def bisect(too_low: Callable[[Array], Array], low: Array, high: Array, *, geometric: bool = False) -> Array:
    """The point of [low, high] where ``too_low`` turns from True to False, elementwise, to the precision of the dtype.

    A fixed number of halvings (31 in float32, 60 in float64), so the cost is known and lanes stay together. geometric:
    halve the ratio instead of the difference (low > 0): relative precision however far apart the ends are.
    """
    steps = jnp.finfo(low.dtype).nmant + 8

    def halve(_: int, bracket: tuple[Array, Array]) -> tuple[Array, Array]:
        low, high = bracket
        middle = jnp.sqrt(low) * jnp.sqrt(high) if geometric else 0.5 * (low + high)
        up = too_low(middle)
        return jnp.where(up, middle, low), jnp.where(up, high, middle)

    low, high = jax.lax.fori_loop(0, steps, halve, jax.lax.stop_gradient((low, high)))
    return 0.5 * (low + high)


def floats_like(v: Array, a: ArrayLike | None, default: float = 0.0) -> Array:
    """``a`` (``default`` where it is None) in the dtype and shape of v."""
    return jnp.broadcast_to(jnp.asarray(default if a is None else a, v.dtype), v.shape)


def keep_nan(v: Array, u: Array) -> Array:
    """u, but NaN where v is: a comparison with NaN is False, which must not turn a broken gradient into a clean 0."""
    return jnp.where(jnp.isnan(v), v, u)


def _arguments(
    v: ArrayLike, w: ArrayLike, lower: ArrayLike | None, upper: ArrayLike | None
) -> tuple[Array, Array, Array, Array]:
    check_least("w", w)
    check_box(lower, upper)
    v = as_float(v)
    return v, floats_like(v, w), floats_like(v, lower, -math.inf), floats_like(v, upper, math.inf)


def _group_arguments(
    v: ArrayLike,
    w: ArrayLike,
    lower: ArrayLike | None,
    upper: ArrayLike | None,
    groups: ArrayLike | None,
    num_groups: int | None,
    axis: Axis,
) -> tuple[Array, Array, Array, Array, Grouping]:
    check_least("w", w)
    v, _, low, high = _arguments(v, 0.0, lower, upper)
    ops = grouping(v.shape, groups, num_groups, axis)
    return v, jnp.broadcast_to(jnp.asarray(w, v.dtype), ops.shape), low, high, ops


def _positive(a: Array) -> Array:
    """a where a > 0, else 1: a safe operand of sqrt and division."""
    return jnp.where(a > 0, a, jnp.ones_like(a))


def _group_norm(u: Array, ops: Grouping) -> Array:
    """``‖u_g‖_2`` [*G] with the derivative 0 at 0."""
    square = ops.total(jnp.square(u))
    return jnp.where(square > 0, jnp.sqrt(_positive(square)), jnp.zeros_like(square))


def _threshold_constant(p: float) -> float:
    if not 0 <= p <= 1:
        raise BadArgument("p", "be in [0, 1]", p)
    return (2 - p) * (2 * (1 - p)) ** ((p - 1) / (2 - p))


def _fractional(p: float, z: Array) -> Array:
    """``z^(1−p)`` for z > 0."""
    return jnp.sqrt(z) if p == 1 / 2 else jnp.cbrt(z)


@functools.partial(jax.custom_jvp, nondiff_argnums=(0,))
def _root(p: float, y: Array, w: Array) -> Array:
    """The larger root z of ``z − y + w p z^(p−1) = 0``, p in {1/2, 2/3}, y > 0, which must exist (q < q_max).

    With z = y t^(1/(1−p)) and q = p w y^(p−2): p = 1/2 is the cubic ``t³ − t + q = 0`` (three cosines), p = 2/3 the
    quartic ``t⁴ − t + q = 0`` with the resolvent ``A³ − 4qA − 1 = 0`` (Cardano, in the form without cancellation).
    """
    q = p * (w / y) / _fractional(p, y)
    if p == 1 / 2:
        t = 2 / math.sqrt(3) * jnp.cos(jnp.arccos(-jnp.minimum(q / _q_max(p), jnp.ones_like(q))) / 3)
        z = y * jnp.square(t)
    else:
        k = 4 / 3 * q
        first = jnp.cbrt(0.5 * (1 + jnp.sqrt(jnp.maximum(1 - 4 * k**3, jnp.zeros_like(k)))))
        square = first + k / first
        a = jnp.sqrt(square)
        z = y * (0.5 * (a + jnp.sqrt(jnp.maximum(2 / a - square, jnp.zeros_like(a))))) ** 3
    # One step of the (contracting) fixed point: the last digits, and exactly y at w = 0.
    return y - w * p / _fractional(p, z)


@_root.defjvp
def _root_jvp(p: float, primals: tuple[Array, Array], tangents: tuple[Array, Array]) -> tuple[Array, Array]:
    """Implicit differentiation; ``w p (1−p) z^(p−2) = (1−p)(y/z − 1)`` at the root, which cannot overflow."""
    y, w = primals
    dy, dw = tangents
    z = _root(p, y, w)
    curvature = jnp.maximum(1 - (1 - p) * (y / z - 1), jnp.full_like(z, jnp.finfo(z.dtype).eps))
    return z, (dy - p / _fractional(p, z) * dw) / curvature


def _q_max(p: float) -> float:
    """The largest ``q = p w y^(p−2)`` with a stationary point: max over s in (0, 1) of ``(1 − s) s^(1−p)``."""
    return ((1 - p) / (2 - p)) ** (1 - p) / (2 - p)


def _power(p: float, v: ArrayLike, w: ArrayLike, lower: ArrayLike | None, upper: ArrayLike | None) -> Array:
    """The map of ``w |u|^p``, p in {0, 1/2, 2/3}, with or without box, 0 inside or outside (see the module's head)."""
    v, w, low, high = _arguments(v, w, lower, upper)
    one, zero = jnp.ones_like(v), jnp.zeros_like(v)
    # Reflect, so that the answer lies in [floor, ceiling] with floor >= 0; floor is 0 where the box holds 0.
    side = jnp.where(low > 0, one, jnp.where(high < 0, -one, jnp.where(v < 0, -one, one)))
    y = side * v
    floor = jnp.maximum(jnp.where(side > 0, low, -high), zero)
    ceiling = jnp.where(side > 0, high, -low)

    if p == 0:
        exists, z = y > 0, y
    else:
        fy = jax.lax.stop_gradient(_positive(y))
        limit = _q_max(p) * (1 - 4 * float(jnp.finfo(v.dtype).eps))
        exists = (y > 0) & (p * (jax.lax.stop_gradient(w) / fy) / _fractional(p, fy) < limit)
        z = _root(p, jnp.where(exists, y, one), jnp.where(exists, w, zero))
    candidate = jnp.clip(jnp.where(exists, z, floor), floor, ceiling)

    # objective(candidate) < objective(floor), divided by candidate − floor: a comparison that is safe near ties.
    fy, fw, c, f = jax.lax.stop_gradient((y, w, _positive(candidate), floor))
    if p == 0:
        rise = jnp.where(f > 0, zero, fw / c)
    elif p == 1 / 2:
        rise = fw / (jnp.sqrt(c) + jnp.sqrt(f))
    else:
        a, b = jnp.cbrt(c), jnp.cbrt(f)
        rise = fw * ((a + b) / (a * a + a * b + b * b))
    keep = exists & (candidate > floor) & (fy > 0.5 * (c + f) + rise)
    answer = jnp.where(keep, side * candidate, jnp.where(floor > 0, side * floor, zero))
    return keep_nan(v, answer)


suggest_names(__name__)
