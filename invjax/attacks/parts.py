"""What attacks share: coordinates in which the box has width 1, and units of sparsity.

Coordinates: ``r = (x' − x) / width`` with the width of the box per coordinate, so that the published constants, made
for [0, 1] images, are right for any bounds. Where a side of the box is infinite the width is 1.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from invjax.config import require_choice
from invjax.groups import Grouping, grouping, patch_groups
from invjax.numerics import safe_divide
from invjax.types import Array, ArrayLike, Problem

UNITS = ("feature", "pixel", "group")


def width(problem: Problem) -> Array:
    """[*S]: data units per unit of r; 0 where the box is a point."""
    wide = problem.upper - problem.lower
    return jnp.broadcast_to(jnp.where(jnp.isfinite(wide), wide, jnp.ones_like(wide)), problem.x.shape)


def change(problem: Problem, point: Array) -> Array:
    """r of a point in data units; 0 where the box is a point. [*S]"""
    return safe_divide(point - problem.x, width(problem))


def room(problem: Problem) -> tuple[Array, Array]:
    """[*S] each: the most negative and the most positive r of the box; 0 where the mask forbids a change."""
    low, high = (change(problem, jnp.broadcast_to(side, problem.x.shape)) for side in (problem.lower, problem.upper))
    if problem.mask is None:
        return low, high
    zero = jnp.zeros_like(low)
    return jnp.where(problem.mask, low, zero), jnp.where(problem.mask, high, zero)


def check_unit(owner: object) -> None:
    """Raise ValueError unless the field ``unit`` is one of UNITS."""
    require_choice(owner, "unit", UNITS)


def units(problem: Problem, unit: str, patch: int = 8) -> Grouping:
    """What counts as one change: a feature, a pixel (all channels of it), or a group.

    Groups are ``problem.groups``, labels in 0..D−1 with D the number of features; without them an image is tiled by
    ``patch × patch`` patches. Raises ValueError for pixels or patches of what is no image [H, W, C].
    """
    shape = problem.x.shape
    if unit == "feature":
        return Grouping(lambda a: a, lambda g: g, shape)
    if unit == "group" and problem.groups is not None:
        return grouping(shape, problem.groups, problem.x.size, None)
    if len(shape) != 3:
        need = "" if unit == "pixel" else ", or groups must be given"
        raise ValueError(f"x must be images [N, H, W, C] for unit {unit!r}{need}; had examples of shape {shape}")
    if unit == "pixel":
        return grouping(shape, None, None, -1)
    labels, count = patch_groups(*shape, patch)
    return grouping(shape, labels, count, None)


def count(ops: Grouping, problem: Problem, point: Array) -> Array:
    """[]: how many units of ``point`` differ from x, in the dtype of x."""
    return jnp.sum(ops.total((point != problem.x).astype(point.dtype)) > 0).astype(point.dtype)


def leading(score: Array, k: ArrayLike) -> Array:
    """Bool [*G]: the ``k`` (traced) largest scores. Equal scores: the first."""
    rank = jnp.argsort(jnp.argsort(-jax.lax.stop_gradient(score).reshape(-1))).reshape(score.shape)
    return rank < k
