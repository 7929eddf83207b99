"""What the group-wise attacks share: the perturbation's units, its room in the box, and its groups.

r is measured as in GSE, in units in which the box has width 2 (:func:`invjax.attacks.gse_fast.half_width`): published
constants are in these units, whatever the bounds of the data.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp

from invjax.attacks.gse_fast import half_width
from invjax.groups import Grouping, grouping
from invjax.numerics import safe_divide
from invjax.types import Array, ArrayLike, Problem

UNITS = ("group", "pixel", "feature")


def to_data(problem: Problem, r: Array) -> Array:
    """``x + r`` in data units."""
    return problem.x + half_width(problem) * r


def to_units(problem: Problem, point: Array) -> Array:
    """r of a point in data units; exactly 0 where the point is x, or the box is one value."""
    return safe_divide(point - problem.x, jnp.broadcast_to(half_width(problem), problem.x.shape))


def room(problem: Problem, radius: ArrayLike | None = None) -> tuple[Array, Array]:
    """[*S] each: the least and the greatest r within the box and ``|r| <= radius``; 0 where r may not change."""
    scale = jnp.broadcast_to(half_width(problem), problem.x.shape)
    low, high = safe_divide(problem.lower - problem.x, scale), safe_divide(problem.upper - problem.x, scale)
    if radius is not None:
        bound = jnp.asarray(radius, problem.x.dtype)
        low, high = jnp.maximum(low, -bound), jnp.minimum(high, bound)
    if problem.mask is not None:
        low, high = jnp.where(problem.mask, low, 0), jnp.where(problem.mask, high, 0)
    return low, high


class Layout(NamedTuple):
    """Groups of coordinates in a form that :mod:`invjax.prox` takes: ``join(group_l2(split(v), w, **options))``."""

    split: Callable[[Array], Array]  # [*S] -> the array that the groups are of
    join: Callable[[Array], Array]  # its inverse
    options: dict[str, Any]  # ``axis``, or ``groups`` and ``num_groups``

    def sums(self, shape: tuple[int, ...]) -> Grouping:
        """Sums over the groups of what ``split`` has made, of this shape."""
        return grouping(shape, **{"groups": None, "num_groups": None, "axis": None, **self.options})

    def count(self, r: Array) -> Array:
        """How many groups of r [*S] hold a change, [] int32."""
        parts = self.split((r != 0).astype(r.dtype))
        return jnp.sum(self.sums(parts.shape).total(parts) > 0, dtype=jnp.int32)


def patches(shape: tuple[int, ...], size: int, offset: tuple[int, int] = (0, 0), whole: int = 0) -> Layout:
    """Square patches of an image [H, W, C], all channels together, as [G, size, size, C].

    offset: where the first whole patch begins, in pixels, each in [0, size). What the patches do not cover evenly is
    filled up with zeros, which ``join`` drops again: those at the edges are smaller groups. whole: with a number, room
    for that many pixels of margin whatever the offset, so that all offsets have the same G.
    """
    height, width, channels = shape
    before = [(size - start) % size for start in offset]
    margins = [whole, whole] if whole else before
    count = [-(-(length + margin) // size) for length, margin in zip((height, width), margins, strict=True)]
    after = [c * size - length - first for c, length, first in zip(count, (height, width), before, strict=True)]
    pad = [(before[0], after[0]), (before[1], after[1]), (0, 0)]

    def split(a: Array) -> Array:
        tiles = jnp.pad(a, pad).reshape(count[0], size, count[1], size, channels)
        return tiles.swapaxes(1, 2).reshape(-1, size, size, channels)

    def join(a: Array) -> Array:
        tiles = a.reshape(count[0], count[1], size, size, channels).swapaxes(1, 2)
        image = tiles.reshape(count[0] * size, count[1] * size, channels)
        return image[before[0] : before[0] + height, before[1] : before[1] + width]

    return Layout(split, join, {"axis": (1, 2, 3)})


def overlapping(shape: tuple[int, ...], size: int, stride: int) -> Layout:
    """All windows that begin at multiples of ``stride``, a divisor of size: (size / stride)² partitions at once.

    split takes, and join gives, one array per partition: [m, H, W, C] and [m·G, size, size, C].
    """
    starts = range(0, size, stride)
    parts = [patches(shape, size, (a, b), whole=size - 1 if stride < size else 0) for a in starts for b in starts]

    def split(a: Array) -> Array:
        return jnp.concatenate([part.split(one) for part, one in zip(parts, a, strict=True)])

    def join(a: Array) -> Array:
        return jnp.stack([part.join(one) for part, one in zip(parts, jnp.split(a, len(parts)), strict=True)])

    return Layout(split, join, {"axis": (1, 2, 3)})


def layout(problem: Problem, size: int, name: str) -> Layout:
    """The problem's own groups where it has any (labels in 0 … D − 1), else :func:`patches`.

    Raises ValueError where there are no groups and x is not an image.
    """
    if problem.groups is not None:
        return Layout(lambda a: a, lambda a: a, {"groups": problem.groups, "num_groups": problem.x.size})
    need_image(problem, name, "or come with groups")
    return patches(problem.x.shape, size)


def units(problem: Problem, unit: str, size: int, name: str) -> Layout:
    """What counts as one change: "group" (:func:`layout`), "pixel" (all its channels) or "feature"."""
    if unit == "group":
        return layout(problem, size, name)
    if unit == "pixel":
        need_image(problem, f"{name} with unit='pixel'")
    return Layout(lambda a: a, lambda a: a, {"axis": -1 if unit == "pixel" else ()})


def need_image(problem: Problem, name: str, otherwise: str = "") -> None:
    """Raise ValueError unless x is an image."""
    if problem.x.ndim != 3:
        wanted = f"images [N, H, W, C] {otherwise}".strip()
        raise ValueError(f"x must be {wanted} for {name}, had examples of shape {problem.x.shape}")
