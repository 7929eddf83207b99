"""Densities in batches of one compiled shape, for their tests."""

from __future__ import annotations

import jax
import numpy as np


@jax.jit
def batch(density, x, label):
    return jax.vmap(density.log_prob)(x, label)


def values(density, x, label):
    """log p of points [N, *S] for one class or one class each."""
    return np.asarray(batch(density, x, np.broadcast_to(np.asarray(label, np.int32), (len(x),))), np.float64)


@jax.jit
def one(density, x, label):
    """log p of one point and its gradient."""
    return jax.value_and_grad(density.log_prob)(x, label)
