"""The bandwidth of a kernel density estimate: leave-one-out likelihood, or else a rule of thumb."""

from __future__ import annotations

import math

import numpy as np

from invjax.densities.reference import squared_distances

_ROWS = 1500  # at most this many points of a class are left out in turn; all of them stay as kernels
_GRID = 24  # values that are tried, evenly in log h
_GOLDEN = (math.sqrt(5) - 1) / 2


def leave_one_out(x: np.ndarray, spread: float) -> float:
    """The h that maximises ``Σ_i log Σ_{j ≠ i} N(x_i; x_j, h² I)``; x [n, D] float64, n >= 2.

    On the matrix of distances it is ``Σ_i logsumexp_j(−d_ij² / 2h²) − n D log h``. A grid in log h brackets the
    maximum, and a golden section refines it to 0.1 %. Copies of a point are left out with it: with them the likelihood
    would grow without end as h falls to 0. Where no two points differ, or the maximum lies at an end of the grid,
    :func:`silverman` decides. In a class of more than 1500 points, 1500 evenly chosen ones are left out in turn.

    spread: the standard deviation to assume where all points of the class are equal.
    """
    n, d = x.shape
    rows = np.unique(np.linspace(0, n - 1, min(n, _ROWS)).round().astype(int))
    square = squared_distances(x, rows)
    square[square == 0] = np.inf  # itself, and its copies
    nearest = square.min(1)
    usable = np.isfinite(nearest)
    if not usable.any():
        return silverman(x, spread)
    square, nearest = square[usable], nearest[usable]
    finite = square[np.isfinite(square)]

    def likelihood(log_h: float) -> float:
        # Relative to the nearest, so that the largest term of the sum is 1.
        terms = np.exp((nearest[:, None] - square) * (0.5 * math.exp(-2 * log_h)))
        return float(np.mean(np.log(terms.sum(1)) - nearest * (0.5 * math.exp(-2 * log_h)))) - d * log_h

    low = 0.5 * math.log(float(nearest.min()) / d) - 1.0
    high = 0.5 * math.log(float(finite.max()) / d) + 1.0
    grid = np.linspace(low, high, _GRID)
    values = [likelihood(log_h) for log_h in grid]
    best = int(np.argmax(values))
    if not 0 < best < _GRID - 1:
        return silverman(x, spread)
    a, b = grid[best - 1], grid[best + 1]
    c, e = b - _GOLDEN * (b - a), a + _GOLDEN * (b - a)
    at_c, at_e = likelihood(c), likelihood(e)
    while b - a > 1e-3:
        if at_c > at_e:
            b, e, at_e = e, c, at_c
            c = b - _GOLDEN * (b - a)
            at_c = likelihood(c)
        else:
            a, c, at_c = c, e, at_e
            e = a + _GOLDEN * (b - a)
            at_e = likelihood(e)
    return math.exp(0.5 * (a + b))


def silverman(x: np.ndarray, spread: float) -> float:
    """``σ (4 / ((D + 2) n))^(1 / (D + 4))``, σ² the mean column variance of x [n, D]; if that is 0, σ is spread."""
    n, d = x.shape
    sigma = math.sqrt(float(x.var(0).mean()))
    if sigma <= 1e-12 * (1.0 + float(np.abs(x).max())):
        sigma = spread
    return sigma * (4 / ((d + 2) * n)) ** (1 / (d + 4))
