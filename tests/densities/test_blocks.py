"""Classes with parts far apart: distances in float32 are those of float64. And fits hold no more than their points."""

from __future__ import annotations

import tracemalloc

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import logsumexp

from invjax.densities import fit_flow, fit_kde, fit_knn, fit_lof, fit_vae
from invjax.densities.bandwidth import leave_one_out

FITS = {"kde": fit_kde, "kde-8": lambda x, y: fit_kde(x, y, neighbours=8), "knn": fit_knn, "lof": fit_lof}


def clumps(kind: str) -> tuple[np.ndarray, np.ndarray]:
    """Two classes, the first in parts: two of a ten-thousandth of their distance, or a sentinel of -999."""
    draw = np.random.default_rng(0)
    x = draw.normal(0, 0.1, (200, 2))
    if kind == "two":
        x += np.where(np.arange(200) % 3 == 0, -1000, 1000)[:, None]
    else:
        x[::4, 1] = -999
    y = np.zeros(200, int)
    y[150:] = 1
    x[150:] = draw.normal(0, 0.1, (50, 2))
    return x.astype(np.float32), y


@jax.jit
def both(density, x: jax.Array, label: jax.Array) -> tuple[jax.Array, jax.Array]:
    return jax.vmap(jax.value_and_grad(lambda x, label: density.log_prob(x, label)))(x, label)


@pytest.mark.parametrize(("name", "kind"), [("kde", "two"), ("kde-8", "sentinel"), ("knn", "sentinel"), ("lof", "two")])
def test_parts_far_apart(name: str, kind: str) -> None:
    """By expansion around one center 10 nats were lost, and an outlier of 2.0 counted as 1.1."""
    x, y = clumps(kind)
    queries = x[100:] + np.random.default_rng(1).normal(0, 0.1, (100, 2)).astype(np.float32)
    narrow = FITS[name](x, y)
    assert narrow.reference.blocks is not None
    got = both(narrow, jnp.asarray(queries), jnp.asarray(y[100:]))
    with jax.enable_x64(True):
        wide = FITS[name](x.astype(np.float64), y)
        assert wide.reference.blocks is None
        expected = both(wide, jnp.asarray(queries, jnp.float64), jnp.asarray(y[100:]))
        np.testing.assert_allclose(got[0], expected[0], rtol=1e-3, atol=1e-3)
        np.testing.assert_allclose(got[1], expected[1], rtol=5e-3, atol=5e-3 * float(jnp.abs(expected[1]).max()))


def test_far_parts_without_themselves() -> None:
    """Points of the fit are found again, and left out."""
    x, y = clumps("two")
    got = fit_kde(x, y, bandwidth=0.05).held_out_log_prob(x[:100], y[:100])
    square = np.square(x[:100, None].astype(float) - x[y == 0].astype(float)).sum(-1)
    square[np.arange(100), np.arange(100)] = np.inf
    expected = logsumexp(-square / 0.005, axis=1) - np.log(149 * 2 * np.pi * 0.0025)
    np.testing.assert_allclose(got, expected, atol=5e-3)


@pytest.mark.fast
def test_a_class_without_far_parts_is_in_no_blocks() -> None:
    draw = np.random.default_rng(0)
    x = np.concatenate([draw.normal(size=(60, 3)), 20 + draw.normal(size=(60, 3))]).astype(np.float32)
    assert all(fit(x, np.zeros(120, int)).reference.blocks is None for fit in FITS.values())
    assert fit_knn(np.ones((30, 2), np.float32), np.zeros(30, int), 5).reference.blocks is None  # copies alone


@pytest.mark.fast
def test_bandwidth_of_far_parts() -> None:
    """Pairs that an expansion cannot tell from copies had been left out."""
    draw = np.random.default_rng(0)
    x = draw.normal(size=(120, 2))
    sides = np.where(np.arange(120) % 2 == 0, -1.0, 1.0)[:, None]
    near, far = (leave_one_out(x + sides * apart, 1.0) for apart in (1e3, 1e9))
    assert far == pytest.approx(near, rel=1e-3)


@pytest.mark.fast
def test_fits_hold_no_more_than_their_points() -> None:
    """fit_knn and fit_lof had held the differences to all neighbours of 1,024 points at once: 80 times the points."""
    x, y = np.random.default_rng(0).random((200, 1500), np.float32), np.zeros(200, int)
    for fit in (fit_kde, fit_knn, fit_lof):
        tracemalloc.start()
        fit(x, y)
        most = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert most < 20 * x.nbytes + 2**24


@pytest.mark.parametrize(("fit", "held_out"), [(fit_flow, 0.2), (fit_vae, 0.0)])
def test_a_training_that_diverged_is_refused(fit, held_out: float) -> None:
    x, y = clumps("sentinel")
    with pytest.raises(ValueError, match=r"rate must let the training converge, was 1e\+30; the loss became NaN"):
        fit(x, y, steps=4, rate=1e30, batch=16, hidden=4, held_out=held_out)
