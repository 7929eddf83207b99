"""The m entries of largest score, with a traced m: neither a sort nor ``top_k``."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from invjax.numerics import at_least_float32
from invjax.types import Array, ArrayLike

PAIRWISE = 64  # up to so many entries all pairs are compared, in one pass


def largest(score: ArrayLike, m: ArrayLike) -> Array:
    """Bool in the shape of ``score``, True for its m largest entries; of equal ones the first.

    m: [] int; at most 0: none. NaN counts as the largest. No derivative. For 32 lanes of 3,072 entries on CPU 1.9 ms,
    where the ranks by two ``argsort`` take 58 ms, and one sort of the values alone 19 ms.
    """
    score = at_least_float32(jax.lax.stop_gradient(jnp.asarray(score)))
    find = _by_pairs if score.size <= PAIRWISE else _by_bits
    return find(score.reshape(-1), jnp.asarray(m)).reshape(score.shape)


def _by_pairs(score: Array, m: Array) -> Array:
    # A sum of comparisons written out in floats is one vectorised pass over the lanes. The product with the identity
    # makes XLA's CPU compiler compute the scores once: it would fuse their arithmetic into each of the comparisons.
    score = jnp.nan_to_num(score, nan=jnp.inf)
    score = jnp.matmul(score, jnp.eye(score.size, dtype=score.dtype), precision=jax.lax.Precision.HIGHEST)
    rank = jnp.zeros_like(score)
    for j in range(score.size):
        later = (np.arange(score.size) > j).astype(score.dtype)
        tie = jnp.where(score[j] == score, later, jnp.zeros_like(score))
        rank = rank + jnp.where(score[j] > score, jnp.ones_like(score), tie)
    return rank < m.astype(score.dtype)


def _by_bits(score: Array, m: Array) -> Array:
    """The m-th largest entry bit by bit, from the highest on; each bit is one comparison and one sum."""
    bits = 8 * score.dtype.itemsize
    unsigned = jnp.dtype(f"uint{bits}")
    one, top = jnp.ones((), unsigned), unsigned.type(1 << (bits - 1))
    # Floats read as integers have the order of floats, but for the sign: -0 becomes 0, negative numbers are reversed.
    plain = jnp.where(score == 0, jnp.zeros_like(score), jnp.where(jnp.isnan(score), jnp.inf, score))
    raw = jax.lax.bitcast_convert_type(plain, unsigned)
    key = jnp.where(raw >= top, ~raw, raw | top)
    m = m.astype(jnp.int32)

    def bit(j: Array, found: Array) -> Array:
        higher = found | (one << (bits - 1 - j).astype(unsigned))
        return jnp.where(jnp.sum(key >= higher, dtype=jnp.int32) >= m, higher, found)

    bound = jax.lax.fori_loop(0, bits, bit, jnp.zeros((), unsigned))
    above, equal = key > bound, key == bound
    among = jnp.cumsum(equal, dtype=jnp.int32) <= m - jnp.sum(above, dtype=jnp.int32)
    return (m > 0) & (above | (equal & among))
