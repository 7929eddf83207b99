"""Units of sparsity: what counts as one change. A feature, a pixel (all channels of it), or a group of coordinates.

Groups are the problem's own (labels in 0 … D − 1, D the number of features) where it has any; an image without groups
is tiled by square patches. There are two forms: a :class:`Layout` serves the proximal maps, and the sums over units
(:func:`grouping_of`) serve selections.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp

from invjax.core.errors import BadArgument, Words
from invjax.core.groups import Grouping, grouping
from invjax.types import Array, Problem

Unit = Literal["feature", "pixel", "group"]


def need_image(problem: Problem, name: str, otherwise: str = "") -> None:
    """Raise BadArgument unless x is an image."""
    if problem.x.ndim != 3:
        wanted = f"images [N, H, W, C] {otherwise}".strip()
        raise BadArgument("x", f"be {wanted} for {name}", Words(f"examples of shape {problem.x.shape}"))


class Layout(NamedTuple):
    """Groups of coordinates in a form that :mod:`invjax.prox` takes: ``join(group_l2(split(v), w, **options))``."""

    split: Callable[[Array], Array]  # [*S] -> the array that is divided into groups
    join: Callable[[Array], Array]  # its inverse
    options: dict[str, Any]  # ``axis``, or ``groups`` and ``num_groups``

    def sums(self, shape: tuple[int, ...]) -> Grouping:
        """Sums over the groups of an array that ``split`` returned, of this shape."""
        return grouping(shape, **{"groups": None, "num_groups": None, "axis": None, **self.options})

    def grouping(self, shape: tuple[int, ...]) -> Grouping:
        """Sums over the groups of an array of the example's own shape [*S]."""
        parts = jax.eval_shape(self.split, jnp.empty(shape)).shape
        sums = self.sums(parts)

        def spread(per_group: Array) -> Array:
            return self.join(jnp.broadcast_to(sums.spread(per_group), parts))

        return Grouping(lambda a: sums.total(self.split(a)), spread, sums.shape)


def patches(shape: tuple[int, ...], size: int, offset: tuple[int, int] = (0, 0), whole: int = 0) -> Layout:
    """Square patches of an image [H, W, C], all channels together, as [G, size, size, C].

    offset: where the first whole patch begins, in pixels, each in [0, size). Patches at the edges are filled up with
    zeros, which ``join`` drops again, so they are smaller groups. whole: a positive number makes room for that many
    pixels of margin whatever the offset, so that all offsets have the same G.
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


def patch_side(shape: tuple[int, ...], patch: int | None, small: int, large: int, most: int = 32) -> int:
    """``patch``; None stands for ``small`` where no side of x is longer than ``most`` pixels, else for ``large``."""
    return patch or (small if max(shape[:2], default=0) <= most else large)


def layout(problem: Problem, size: int, name: str) -> Layout:
    """The problem's own groups where it has any, else :func:`patches` of ``size`` pixels.

    Raises BadArgument where there are no groups and x is not an image.
    """
    if problem.groups is not None:
        return Layout(lambda a: a, lambda a: a, {"groups": problem.groups, "num_groups": problem.x.size})
    need_image(problem, name, "or come with groups")
    return patches(problem.x.shape, size)


def layout_of(problem: Problem, unit: Unit, size: int, name: str) -> Layout:
    """The layout of a unit; ``size``: the side of the patches of an image without groups."""
    if unit == "group":
        return layout(problem, size, name)
    if unit == "pixel":
        need_image(problem, f"{name} with unit='pixel'")
    return Layout(lambda a: a, lambda a: a, {"axis": -1 if unit == "pixel" else ()})


def grouping_of(problem: Problem, unit: Unit, patch: int = 8, name: str = "it") -> Grouping:
    """Sums over the units, and values per unit handed back. Raises as :func:`layout_of`."""
    return layout_of(problem, unit, patch, name).grouping(problem.x.shape)


def count(ops: Grouping, r: Array) -> Array:
    """How many units contain a change, [] int32. r: [*S], 0 where nothing changes."""
    return jnp.sum(ops.total((r != 0).astype(r.dtype)) > 0, dtype=jnp.int32)
