"""The coordinates of a perturbation: r, in units in which the box has a given width.

``x' = x + scale · r``, with ``scale = (upper − lower) / span`` per coordinate. A method's published constants hold for
images in [0, 1] (span 1) or in [-1, 1] (span 2). In these coordinates they are right whatever the bounds of the data.
Where a side of the box is infinite, the box counts as having the width ``span``, and r is in data units.
"""

from __future__ import annotations

import jax.numpy as jnp

from invjax.core.balls import within_ball
from invjax.core.numerics import safe_divide
from invjax.types import Array, ArrayLike, Problem

SIGNED = 2.0  # the span of constants made for [-1, 1]
FAR = 100.0  # box widths; stands in for an infinite side where a method needs an end


def scale(problem: Problem, span: float = 1.0) -> Array:
    """Data units per unit of r; 0 where the box is a point. [*S]"""
    wide = (problem.upper - problem.lower) / jnp.asarray(span, problem.x.dtype)
    return jnp.broadcast_to(jnp.where(jnp.isfinite(wide), wide, jnp.ones_like(wide)), problem.x.shape)


def to_data(problem: Problem, r: Array, span: float = 1.0, radius: ArrayLike | None = None) -> Array:
    """``x + scale · r``, in data units. [*S]

    radius: bound on every |r|, which the point then obeys exactly; from ``span`` on only the box limits it.
    """
    width = scale(problem, span)
    point = problem.x + width * r
    if radius is None:
        return point
    bound = jnp.asarray(radius, width.dtype)
    kept = within_ball(problem.x, point, bound, "linf", width)
    return jnp.where(bound >= span, point, kept)


def to_units(problem: Problem, point: Array, span: float = 1.0) -> Array:
    """r of a point in data units; exactly 0 where the point is x or the box is a single value. [*S]"""
    return safe_divide(point - problem.x, scale(problem, span))


def room(problem: Problem, radius: ArrayLike | None = None, span: float = 1.0) -> tuple[Array, Array]:
    """[*S] each: the least and the greatest r within the box and ``|r| <= radius``; 0 where the mask forbids change."""
    shape = problem.x.shape
    low, high = (to_units(problem, jnp.broadcast_to(side, shape), span) for side in (problem.lower, problem.upper))
    if radius is not None:
        bound = jnp.asarray(radius, problem.x.dtype)
        low, high = jnp.maximum(low, -bound), jnp.minimum(high, bound)
    if problem.mask is None:
        return low, high
    return jnp.where(problem.mask, low, 0), jnp.where(problem.mask, high, 0)
