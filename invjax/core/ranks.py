"""Select the largest entries, for a traced count or a required total, with neither a sort nor ``top_k``."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from invjax.core.numerics import at_least_float32
from invjax.types import Array, ArrayLike

PAIRWISE = 64  # up to so many entries all pairs are compared, in one pass


def largest(score: ArrayLike, m: ArrayLike) -> Array:
    """Bool in the shape of ``score``, True for its m largest entries; among equal ones the first.

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
    return portions(score, jnp.ones_like(score), m) > 0


def portions(score: Array, gain: Array, need: Array) -> Array:
    """What each entry contributes when the fewest entries of largest score are to be worth ``need`` [] together.

    score, gain: [n] float, gain >= 0 -> [n] in [0, gain]. The last entry taken contributes a part of its gain; among
    equal scores the earlier index is taken first. If all together are worth less than that, each contributes all of
    its gain. A NaN score counts as the largest.
    """
    key = _ordered(score)
    bits = 8 * key.dtype.itemsize
    one, need = jnp.ones((), key.dtype), need.astype(gain.dtype)

    def worth(chosen: Array) -> Array:
        return jnp.sum(jnp.where(chosen, gain, jnp.zeros_like(gain)))

    def bit(j: Array, found: Array) -> Array:
        higher = found | (one << (bits - 1 - j).astype(key.dtype))
        return jnp.where(worth(key >= higher) >= need, higher, found)

    # The greatest bound above which there is enough, bit by bit from the highest; each is one comparison and one sum.
    bound = jax.lax.fori_loop(0, bits, bit, jnp.zeros((), key.dtype))
    above, equal = key > bound, jnp.where(key == bound, gain, jnp.zeros_like(gain))
    share = jnp.clip(need - worth(above) - (jnp.cumsum(equal) - equal), 0, equal)
    return jnp.where(above, gain, share)


def _ordered(score: Array) -> Array:
    """Unsigned integers in the order of the floats: their bits, but for the sign (-0 is 0; negative: reversed)."""
    unsigned = jnp.dtype(f"uint{8 * score.dtype.itemsize}")
    top = unsigned.type(1 << (8 * score.dtype.itemsize - 1))
    plain = jnp.where(score == 0, jnp.zeros_like(score), jnp.where(jnp.isnan(score), jnp.inf, score))
    raw = jax.lax.bitcast_convert_type(plain, unsigned)
    return jnp.where(raw >= top, ~raw, raw | top)
