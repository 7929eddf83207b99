"""The m units of largest gain, with a traced m."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from invjax.types import Array, ArrayLike

PAIRWISE = 64  # up to so many units all pairs are compared: much quicker than two sorts on CPU


def largest(gain: Array, m: ArrayLike) -> Array:
    """[F] bool, True for the m largest gains [F]; of equal gains the first."""
    size = gain.shape[0]
    if size > PAIRWISE:
        rank = jnp.argsort(jnp.argsort(-jax.lax.stop_gradient(gain)))
    else:
        earlier = np.arange(size)[None, :] < np.arange(size)[:, None]
        ahead = (gain[None, :] > gain[:, None]) | ((gain[None, :] == gain[:, None]) & earlier)
        rank = jnp.sum(ahead, axis=1, dtype=jnp.int32)
    return rank < jnp.asarray(m, jnp.int32)
