"""Points that obey their ball exactly, not up to rounding: ``‖point − x‖ <= radius`` in exact arithmetic.

``x + r`` is rounded when it is stored, half of the time away from x. So a point at the edge of its ball would lie
outside for whoever subtracts the stored arrays in float64. What is asked, recorded and returned is made here.
"""

from __future__ import annotations

import math
from functools import partial
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from invjax.core.numerics import safe_divide, safe_sqrt
from invjax.types import Array, ArrayLike

Norm = Literal["linf", "l2"]


def reach(x: Array, radius: ArrayLike) -> tuple[Array, Array]:
    """The least and the greatest numbers, in the dtype of x, that are within ``radius`` >= 0 ([] or [*S]) of x. [*S]"""
    r = jnp.broadcast_to(jnp.asarray(radius, x.dtype), x.shape)
    low, high = x - r, x + r
    # What the rounding of the sums left out is itself a number of that dtype (Knuth's TwoSum).
    return (
        jnp.where(_rest(x, -r, low) > 0, jnp.nextafter(low, x), low),
        jnp.where(_rest(x, r, high) < 0, jnp.nextafter(high, x), high),
    )


def _rest(a: Array, b: Array, total: Array) -> Array:
    """a + b − total, exactly, for ``total`` the rounded sum. NaN for an infinite one."""
    part = total - a
    return (a - (total - part)) + (b - part)


def rounded_down(radius: float, dtype: Any) -> np.ndarray:
    """``radius`` >= 0 in this dtype, rounded down: what obeys the rounded radius obeys the one that was given."""
    near = np.asarray(radius, dtype)
    return np.asarray(np.nextafter(near, near.dtype.type(0)) if float(near) > radius else near)


def within_ball(x: Array, point: Array, radius: ArrayLike, norm: Norm, width: Array | None = None) -> Array:
    """``point`` where it is in the ball around x, exactly; else the nearest such point up to a few roundings.

    x, point: [*S]. radius: []. width: [*S] what the radius is measured in, feature by feature; by
    default data units. A clip to a box that holds x afterwards does not leave the ball.
    """
    if norm == "linf":
        if width is not None:  # the product is rounded, unless the width is a power of two
            product = jnp.asarray(radius, width.dtype) * width
            exact = jnp.frexp(width)[0] == 0.5
            radius = jnp.where(exact, product, jnp.nextafter(product, jnp.zeros_like(product)))
        return jnp.clip(point, *reach(x, radius))
    r = point - x
    share = fitting(r if width is None else safe_divide(r, width), radius)
    shrunk = r * share
    inside = jnp.clip(x + shrunk, *reach(x, jnp.abs(shrunk)))  # no coordinate is rounded away from x
    return jnp.where(share < 1, inside, point)


def fitting(r: Array, radius: ArrayLike) -> Array:
    """[] the factor, at most 1, with which ``‖factor · r‖_2 <= radius`` holds exactly. NaN as 1."""
    # The norm is a sum by halves, whose relative error is bounded by the number of halvings and a few operations.
    slack = jnp.finfo(r.dtype).eps * (4 + math.ceil(math.log2(max(2, r.size))) / 2)
    limit = jnp.asarray(radius, r.dtype) * jnp.asarray(1 - slack, r.dtype)
    norm = safe_sqrt(_sum_by_halves(jnp.square(r).reshape(-1)))
    return jnp.where(norm > limit, safe_divide(limit, norm), jnp.ones_like(norm))


@partial(jax.jit, inline=True)
def _sum_by_halves(values: Array) -> Array:
    """Σ values [n] -> []."""
    while values.size > 1:
        half = (values.size + 1) // 2
        values = values[:half] + jnp.pad(values[half:], (0, 2 * half - values.size))
    return values[0]
