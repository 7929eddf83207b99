"""The largest entries, by number and by worth, against a stable sort."""

from __future__ import annotations

from contextlib import nullcontext

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracles import x64

from invjax.core.ranks import PAIRWISE, largest, portions

pytestmark = pytest.mark.fast


def by_sorting(score: np.ndarray, m: int) -> np.ndarray:
    plain = np.where(np.isnan(score), np.inf, score.astype(np.float64)).reshape(-1)
    wanted = np.zeros(plain.size, bool)
    wanted[np.argsort(-plain, kind="stable")[: max(m, 0)]] = True
    return wanted.reshape(score.shape)


@pytest.mark.parametrize("shape", [(7,), (PAIRWISE,), (PAIRWISE + 1,), (8, 9, 3), (1000,)])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float64"])
def test_largest(shape: tuple[int, ...], dtype: str) -> None:
    rng = np.random.default_rng(0)
    drawn = rng.standard_normal(shape) * 10.0 ** rng.integers(-30, 30, shape)
    few = rng.integers(-2, 3, shape) * 1.0  # nearly all equal, and 0 among them
    signs = np.where(few == 0, np.where(rng.random(shape) < 0.5, -0.0, 0.0), few)
    odd = drawn.copy()
    odd.reshape(-1)[:4] = [np.inf, -np.inf, np.nan, -np.nan]
    with x64() if dtype == "float64" else nullcontext():
        find = jax.jit(jax.vmap(largest))
        for case in (drawn, few, signs, odd):
            score = jnp.asarray(case, dtype)
            size = score.size
            counts = np.array([-1, 0, 1, 2, size // 3, size - 1, size, size + 5])
            found = np.asarray(find(jnp.broadcast_to(score, (len(counts), *shape)), counts))
            for m, one in zip(counts, found, strict=True):
                np.testing.assert_array_equal(one, by_sorting(np.asarray(score).astype(np.float64), m))


def test_portions() -> None:
    """Against the loop over a stable sort: as few as are worth it, the last in part."""
    rng = np.random.default_rng(1)
    share = jax.jit(portions)
    for _ in range(30):
        score, gain = rng.integers(-3, 4, 90) / 2, rng.uniform(size=90) * (rng.random(90) < 0.8)
        need = rng.choice([-1.0, 0.0, 0.3, 0.9, 1.5]) * gain.sum()
        left, wanted = max(need, 0.0), np.zeros(90)
        for i in np.argsort(-score, kind="stable"):
            wanted[i] = min(gain[i], left)
            left -= wanted[i]
        found = share(*(jnp.asarray(v, jnp.float32) for v in (score, gain, need)))
        np.testing.assert_allclose(found, wanted, atol=2e-5)
