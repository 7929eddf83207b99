"""Groups of coordinates: integer labels or axes, sums over them, and what keeping a group is worth.

Shared by the group-wise proximal maps (:mod:`invjax.prox`), projections and penalties.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.core
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from invjax.core.errors import BadArgument, check_entries, of_shape
from invjax.core.labels import whole_numbers
from invjax.types import Array, ArrayLike

Axis = int | tuple[int, ...] | None


class Grouping(NamedTuple):
    """How coordinates fall into groups: sums over each group, and values per group handed back to coordinates."""

    total: Callable[[Array], Array]  # [*S] -> [*G], the sum over each group
    spread: Callable[[Array], Array]  # [*G] -> [*S], each coordinate the value of its group
    shape: tuple[int, ...]  # [*G]


def grouping(shape: tuple[int, ...], groups: ArrayLike | None, num_groups: int | None, axis: Axis) -> Grouping:
    """The groups of an array [*S], in one of two forms.

    ``groups``: int labels [*S] in 0..num_groups−1 with a static ``num_groups``; then [*G] is [num_groups]. Or ``axis``:
    the axes a group runs along (``-1``: the channels of each pixel; None: all coordinates are one group); then [*G] is
    [*S] with those axes of length 1.
    Raises ValueError where both forms are given, num_groups is missing or not a positive int, the shape of groups is
    not [*S], or one of them, unless they are traced, lies beyond num_groups.
    """
    if groups is None:
        if num_groups is not None:
            raise BadArgument("num_groups", "be None without integer labels `groups`", num_groups)

        def along(a: Array) -> Array:
            return jnp.sum(a, axis=axis, keepdims=True)

        return Grouping(along, lambda g: jnp.broadcast_to(g, shape), jax.eval_shape(along, jnp.empty(shape)).shape)
    if axis is not None:
        raise BadArgument("axis", "be None where integer labels `groups` are given", axis)
    try:
        count = operator.index(num_groups)  # type: ignore[arg-type]
    except TypeError:
        count = 0
    if count < 1:
        raise BadArgument("num_groups", "be a positive int, the number of labels in `groups`", num_groups)
    if not isinstance(groups, Tracer):
        known = whole_numbers("groups", groups, f"hold group indices 0 … {count - 1} as whole numbers")
        check_entries("groups", known, (known < 0) | (known >= count), f"lie in [0, {count}), num_groups")
    labels = jnp.asarray(groups, jnp.int32)
    if labels.shape != shape:
        raise BadArgument("groups", f"have the shape of v, {shape}", of_shape(labels.shape))
    return Grouping(
        lambda a: jax.ops.segment_sum(a.reshape(-1), labels.reshape(-1), count), lambda g: g[labels], (count,)
    )


def patch_groups(height: int, width: int, channels: int, size: int | tuple[int, int]) -> tuple[np.ndarray, int]:
    """Labels [H, W, C] int32 of non-overlapping patches ``size`` (pixels; all channels together), and their number.

    Where size does not divide the image the patches at the lower and right edge are smaller.
    """
    rows, columns = (size, size) if isinstance(size, int) else size
    for name, value in (("height", height), ("width", width), ("channels", channels), ("size", min(rows, columns))):
        if value < 1:
            raise BadArgument(name, "be at least 1", value)
    across = -(-width // columns)
    labels = (np.arange(height) // rows)[:, None] * across + (np.arange(width) // columns)[None, :]
    return np.repeat(labels[:, :, None], channels, axis=2).astype(np.int32), across * -(-height // rows)


def group_gains(v: Array, low: Array, high: Array, ops: Grouping) -> tuple[Array, Array, Array]:
    """What keeping a group (at its clipped value) saves against setting it to 0.

    Returns clip(v) [*S]; ``gain_g = ‖v_g‖² − ‖clip(v_g) − v_g‖²`` [*G] in the form ``Σ c (2v − c)``, free of
    cancellation; and [*G] bool, True where the box of some coordinate excludes 0, so that the group has no choice.
    """
    clipped = jnp.clip(v, low, high)
    forced = ops.total(((low > 0) | (high < 0)).astype(v.dtype)) > 0
    return clipped, ops.total(clipped * (2 * v - clipped)), forced
