"""Independent oracles for the proximal maps, and a switch to float64 that works on every supported jax."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

import jax
import numpy as np


@contextlib.contextmanager
def x64() -> Iterator[None]:
    """Double precision inside the block (neither of jax's own context managers exists on all supported versions)."""
    before = jax.config.jax_enable_x64
    jax.config.update("jax_enable_x64", True)
    try:
        yield
    finally:
        jax.config.update("jax_enable_x64", before)


def power(p: float) -> Callable[[np.ndarray], np.ndarray]:
    """u -> |u|^p, the count of non-zeros for p = 0."""
    return lambda u: (u != 0).astype(float) if p == 0 else np.abs(u) ** p


def objective(p: float, u: np.ndarray, v: np.ndarray, w: np.ndarray) -> np.ndarray:
    """1/2 (u − v)² + w |u|^p, elementwise in float64."""
    u, v, w = (np.asarray(a, np.float64) for a in (u, v, w))
    return 0.5 * (u - v) ** 2 + w * power(p)(u)


def least_objective(p: float, v: np.ndarray, w: np.ndarray, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """The least objective on [low, high], by a dense grid and five zooms. All [N] float64."""
    start, end = np.clip(np.minimum(v, 0), low, high), np.clip(np.maximum(v, 0), low, high)
    special = np.stack([start, end, np.clip(np.zeros_like(v), low, high)], axis=1)
    best = objective(p, special, v[:, None], w[:, None]).min(axis=1)
    grid = np.linspace(0, 1, 1501)
    for _ in range(5):
        points = start[:, None] + (end - start)[:, None] * grid
        values = objective(p, points, v[:, None], w[:, None])
        where = values.argmin(axis=1)
        best = np.minimum(best, values.min(axis=1))
        rows = np.arange(len(v))
        start, end = points[rows, np.maximum(where - 1, 0)], points[rows, np.minimum(where + 1, grid.size - 1)]
        grid = np.linspace(0, 1, 101)
    return best


def boxes(kind: str, rng: np.random.Generator, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Random boxes: "free", "inside" (0 in the box, at its edge, or a single point) or "outside"."""
    if kind == "free":
        return np.full(n, -np.inf), np.full(n, np.inf)
    if kind == "inside":
        low, high = -rng.exponential(1, n), rng.exponential(1, n)
        low[rng.random(n) < 0.15] = 0
        high[rng.random(n) < 0.15] = 0
        high[rng.random(n) < 0.1] = np.inf
        return low, high
    near = rng.exponential(0.6, n) + 1e-3
    far = near + rng.exponential(1, n)
    side = rng.random(n) < 0.5
    return np.where(side, near, -far), np.where(side, far, -near)


def cases(kind: str, seed: int, n: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """v, w, low, high [n]: weights 0, tiny, moderate and large, some v at 0 and at the edges."""
    rng = np.random.default_rng(seed)
    v = rng.normal(0, 2, n)
    v[rng.random(n) < 0.05] = 0
    w = rng.exponential(0.7, n)
    w[rng.random(n) < 0.1] = 0
    w[rng.random(n) < 0.05] = 1e-9
    w[rng.random(n) < 0.05] = 300
    low, high = boxes(kind, rng, n)
    edge = (rng.random(n) < 0.05) & np.isfinite(high)
    v[edge] = high[edge]
    return v, w, low, high
