"""Corners of the box: the values that query attacks try, each feature at its lower or its upper bound.

A unit (a pixel with C channels, or a feature: C = 1) has 2^C corners, its colours, numbered by their bits: bit c says
"upper" for channel c. A feature that may not change (the mask, or lower = upper) has both its ends at x.
"""

from __future__ import annotations

import math
from typing import Literal

import jax
import jax.numpy as jnp

from invjax.attacks.parts import units
from invjax.types import Array, Problem

Unit = Literal["pixel", "feature"]
_WORD = 32  # random bits per draw


def shape_of(problem: Problem, unit: Unit, name: str) -> tuple[int, int]:
    """(U, C): how many units there are, and the channels of each.

    Raises BadArgument where pixels are asked for and x is not an image.
    """
    if unit == "feature":
        return math.prod(problem.x.shape), 1
    units.need_image(problem, f"{name} with unit='pixel'")
    height, width, channels = problem.x.shape
    return height * width, channels


def ends(problem: Problem) -> tuple[Array, Array]:
    """[*S] each: the lower and the upper value of each feature; both x where it may not change.

    Where a side of the box is infinite its end is x ∓ 1, as in :mod:`invjax.attacks.parts.coordinates`.
    """

    def end(side: Array, sign: int) -> Array:
        value = jnp.where(jnp.isfinite(side), side, problem.x + sign).astype(problem.x.dtype)
        return value if problem.mask is None else jnp.where(problem.mask, value, problem.x)

    return end(problem.lower, -1), end(problem.upper, 1)


def bits_of(code: Array, channels: int) -> Array:
    """Bool [..., C], channel last: the bits of a colour's number [...], C <= 32 (31 for a signed one)."""
    return (code[..., None] >> jnp.arange(channels, dtype=code.dtype)) & 1 == 1


def words(key: Array, shape: tuple[int, ...]) -> Array:
    """Random bits, uint32 of this shape. Call it once per query: the generator is expensive to compile."""
    return jax.random.bits(key, shape, jnp.uint32)


def length(channels: int) -> int:
    """How many words a colour takes."""
    return -(-channels // _WORD)


def colours(words: Array, channels: int) -> Array:
    """Bool [..., C]: a colour for the words [..., :func:`length` (C)] of each unit, all 2^C equally likely."""
    return bits_of(words, _WORD).reshape(*words.shape[:-1], -1)[..., :channels]


def flips(words: Array, channels: int) -> Array:
    """Bool [..., C]: channels to flip, at least one, all such sets equally likely (up to 2^−31 for C > 31).

    words: [..., :func:`length` (C)].
    """
    if channels < _WORD:
        return bits_of(words[..., 0] % jnp.uint32(2**channels - 1) + jnp.uint32(1), channels)
    bits = colours(words, channels)
    return bits.at[..., 0].set(bits[..., 0] | ~bits.any(-1))


def below(word: Array, count: Array | int) -> Array:
    """Int32 in [0, count), uniform up to count/2^32; 0 for a count of 0. word: uint32."""
    return (word % jnp.maximum(count, 1).astype(jnp.uint32)).astype(jnp.int32)


def subset(keys: Array, among: Array, count: Array) -> Array:
    """Bool [U]: the ``count`` (traced) members of ``among`` [U] bool with the smallest keys, or all if there are fewer.

    keys: [U] uint32; of equal keys the first counts. Random keys give a uniformly random subset. Bisection on the 32
    bits of the threshold takes O(U): on a CPU it is many times faster than two sorts.
    """

    def turn(_: int, span: tuple[Array, Array]) -> tuple[Array, Array]:
        low, high = span
        middle = low + (high - low) // 2
        enough = jnp.sum(among & (keys <= middle)) >= count
        return jnp.where(enough, low, middle + 1), jnp.where(enough, middle, high)

    # The least threshold that enough members do not exceed.
    _, threshold = jax.lax.fori_loop(0, _WORD, turn, (jnp.uint32(0), jnp.uint32(2**_WORD - 1)))
    below, level = among & (keys < threshold), among & (keys == threshold)
    return below | (level & (jnp.cumsum(level) <= count - jnp.sum(below)))
