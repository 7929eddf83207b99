"""Single pixels: what the query attacks that set pixels one by one have in common.

An example is treated as an image [H, W, C]. Any other example counts as a single row of D pixels with one channel each,
so that "pixel" then means feature. A pixel is *free* where the box and the mask let some channel of it change.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import jax.numpy as jnp

from invjax.attacks.parts import corners
from invjax.types import Array, Problem


class Grid(NamedTuple):
    """The problem as an image."""

    x: Array  # [H, W, C]
    lower: Array  # [H, W, C] finite; x where it may not change
    upper: Array  # [H, W, C] likewise

    @property
    def free(self) -> Array:
        """[H, W] bool: some channel may change."""
        return jnp.any(self.lower < self.upper, axis=-1)


def shape_of(shape: tuple[int, ...]) -> tuple[int, int, int]:
    """(H, W, C) of an example of this shape."""
    if len(shape) == 3:
        return shape
    return 1, math.prod(shape), 1


def grid(problem: Problem) -> Grid:
    """The problem as an image, with the sides of :func:`invjax.attacks.parts.corners.ends`."""
    x, (lower, upper) = problem.x, corners.ends(problem)
    form = shape_of(x.shape)
    return Grid(x.reshape(form), lower.reshape(form), upper.reshape(form))


def from_share(lower: Array, upper: Array, share: Array) -> Array:
    """The value at a share of the box: lower at 0, upper at 1. Exactly x where both are x."""
    return lower + share * (upper - lower)


def nth(running: Array, number: Array) -> Array:
    """The index of the ``number``-th True, counted from 0. running: [..., n] int32, the running count of Trues."""
    return jnp.sum(running <= number[..., None], axis=-1, dtype=jnp.int32)


def paint(image: Array, rows: Array, columns: Array, values: Array) -> Array:
    """``image`` [H, W, C] with k pixels set. rows, columns: [k] int32, outside the image to set none; values: [k, C].

    Of several pixels at the same place the last wins.
    """
    place = rows * image.shape[1] + columns
    # JAX does not promise in which order a scatter writes twice to one place, so only the last one writes.
    later = jnp.arange(place.size)[:, None] < jnp.arange(place.size)
    overwritten = jnp.any(later & (place[:, None] == place), axis=1)
    return image.at[jnp.where(overwritten, image.shape[0], rows), columns].set(values, mode="drop")
