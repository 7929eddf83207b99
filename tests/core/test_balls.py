"""Points within their ball: seen in exact arithmetic, from the stored arrays."""

from __future__ import annotations

import contextlib
from functools import partial
from typing import get_args

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from oracles import x64

from invjax.core.balls import Norm, fitting, within_ball
from invjax.core.config import inwards
from invjax.core.numerics import lifted, narrowed_towards


@partial(jax.jit, static_argnames="norm")
def kept(x: jax.Array, r: jax.Array, radius: jax.Array, norm: str) -> tuple[jax.Array, jax.Array, jax.Array]:
    """x + r within the ball, in the dtype of x; the same before it is narrowed; and what ``fitting`` leaves of r."""
    exact = lifted(x)
    point = within_ball(exact, exact + r, radius, norm)
    return narrowed_towards(point, x), point, r * fitting(r, radius)


def size(r: np.ndarray, norm: str) -> np.longdouble:
    return np.abs(r).max() if norm == "linf" else np.sqrt(np.square(r).sum())


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
@settings(max_examples=40)
@given(st.integers(0, 10_000), st.floats(-2, 2), st.floats(-2, 0.5), st.sampled_from(get_args(Norm)))
def test_within_ball(dtype: str, seed: int, scale: float, radius: float, norm: str) -> None:
    rng, wide = np.random.default_rng(seed), np.float64 if dtype == "float64" else np.float32
    with x64() if dtype == "float64" else contextlib.nullcontext():
        x = (10**scale * rng.uniform(-1, 1, 300)).astype(jnp.dtype(dtype))
        r, eps = rng.normal(size=300).astype(wide), wide(10**radius)
        stored, point, shrunk = (np.asarray(a) for a in kept(x, r, eps, norm))
    assert stored.dtype == x.dtype
    clean = x.astype(np.longdouble)
    assert size(stored.astype(np.longdouble) - clean, norm) <= np.longdouble(eps)
    assert np.linalg.norm(shrunk.astype(np.longdouble)) <= np.longdouble(eps)
    # No more is given away than rounding asks for.
    moved, room = point.astype(np.longdouble) - clean, np.finfo(wide).eps * (np.abs(clean) + 1)
    wanted = np.longdouble(r)
    wanted = np.clip(wanted, -eps, eps) if norm == "linf" else wanted * min(1, eps / size(wanted, "l2"))
    np.testing.assert_array_less(np.abs(moved - wanted), 30 * room)


def test_inwards() -> None:
    """A radius is rounded down, so that what obeys it obeys the number that was given."""
    from invjax.attacks import PGD

    for eps in (8 / 255, 0.1, 0.3, 0.5):
        assert eps * (1 - 2e-7) <= float(inwards(PGD(eps=eps), np.float32).eps) <= eps
    assert float(inwards(PGD(eps=0.5), np.float32).eps) == 0.5
