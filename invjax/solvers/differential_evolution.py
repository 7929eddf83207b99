"""Differential evolution in the unit cube (Storn & Price 1997), the scheme best/1/bin.

    trial_i = m_best + F (m_a − m_b),      a ≠ b, both ≠ i, drawn at random                                        (1)

then each coordinate keeps its value in m_i unless chosen with the probability ``recombination`` (one always is), and
one that left [0, 1] is drawn anew. A trial that is not worse than m_i takes its place. Members may be tried in blocks
of any size: a whole generation at once is the deferred update of SciPy, one at a time its immediate one.

All draws are made in float32 and then cast, so that float32 and float64 problems walk the same way.
"""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp

from invjax.core.numerics import uniform
from invjax.types import Array, ArrayLike


def _uniform(key: Array, *shape: int) -> Array:
    """Numbers in [0, 1). Drawn in a row: on a CPU the generator takes many times longer to compile for more axes."""
    return uniform(key, shape, jnp.float32)


def latin_hypercube(key: Array, count: int, size: int, dtype: Any) -> Array:
    """[count, size] in [0, 1): along every coordinate one point in each of ``count`` equal intervals."""
    draws = _uniform(key, 2, count, size)
    interval = jnp.argsort(draws[0], axis=0).astype(jnp.float32)  # a random order
    # An interval's number leaves few bits for the place in it: a number rounded up to 1 is put back below.
    return jnp.minimum((interval + draws[1]) / count, jnp.float32(1 - 2**-24)).astype(dtype)


def whole(share: Array, count: ArrayLike) -> Array:
    """0 … count − 1, int32, for a share of [0, 1]; count >= 1, or 0 is the answer."""
    number = jnp.floor(share * count).astype(jnp.int32)
    return jnp.maximum(jnp.minimum(number, jnp.asarray(count - 1, jnp.int32)), 0)


def trials(
    key: Array,
    members: Array,
    losses: Array,
    index: Array,
    scale: tuple[ArrayLike, ArrayLike],
    recombination: ArrayLike,
) -> Array:
    """(1) for the members ``index``. -> [b, D]

    key: of this block alone. members: [P, D], P >= 4. losses: [P], infinite where not known yet. index: [b] int32.
    scale: F is drawn once, between these. recombination: [] in [0, 1].
    """
    count, size = members.shape
    # One call makes all draws: the random generator is much of the program, which then holds it once.
    draws = _uniform(key, 1 + index.shape[0], 3 + 2 * size)
    pair, spot, chance, fresh = jnp.split(draws[1:], (2, 3, 3 + size), axis=1)
    # a skips i; b skips both: drawn from fewer numbers, and moved up past each of those it must not be.
    a = whole(pair[:, 0], count - 1)
    a = a + (a >= index)
    b = whole(pair[:, 1], count - 2)
    b = b + (b >= jnp.minimum(a, index))
    b = b + (b >= jnp.maximum(a, index))
    own, best = members[index], members[jnp.argmin(losses)]
    least, most = (jnp.asarray(side, members.dtype) for side in scale)
    factor = least + (most - least) * draws[0, 0].astype(members.dtype)
    mutant = best + factor * (members[a] - members[b])
    chosen = (chance < recombination) | (jnp.arange(size) == whole(spot, size))
    trial = jnp.where(chosen, mutant, own)
    return jnp.where((trial < 0) | (trial > 1), fresh.astype(members.dtype), trial)


def survive(members: Array, losses: Array, index: Array, tried: Array, values: Array) -> tuple[Array, Array]:
    """The population after the trials ``tried`` [b, D] of the members ``index``, all different, with ``values`` [b].

    An index outside 0 … P − 1 stands for no member: its trial is dropped.
    """
    better = values <= losses.at[index].get(mode="fill", fill_value=-jnp.inf)
    index = jnp.where(better, index, members.shape[0])
    return members.at[index].set(tried, mode="drop"), losses.at[index].set(values, mode="drop")
