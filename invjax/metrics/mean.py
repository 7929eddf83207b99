"""Means with bootstrap intervals, of one sample or of several drawn separately (seeds, networks)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from invjax.core.errors import check_seed, check_whole
from invjax.metrics.group import check_confidence


class Mean(NamedTuple):
    """A mean and the percentile interval of its bootstrap; NaN if there is no value."""

    mean: float
    low: float
    high: float
    n: int  # finite values

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers for JSON, None for NaN."""
        mean, low, high = (None if np.isnan(value) else float(value) for value in self[:3])
        return {"mean": mean, "interval": [low, high], "n": self.n}

    def __str__(self) -> str:
        return "–" if np.isnan(self.mean) else f"{self.mean:.3f} [{self.low:.3f}, {self.high:.3f}]"


def bootstrap_mean(
    samples: Sequence[Any] | Any, confidence: float = 0.95, resamples: int = 2000, seed: int = 0
) -> Mean:
    """The mean of the finite values, with its interval.

    Args:
      samples: [N] values, or a list of C such arrays, one per seed. For several arrays the mean is that of their means,
        and the bootstrap draws in two stages: first among the C arrays, then within each. With few seeds the interval
        is too narrow, like every bootstrap of few values, but it covers both sources of chance.
      confidence: in (0, 1).
      resamples, seed: of the bootstrap.

    Raises:
      ValueError: confidence or resamples out of range.
    """
    check_confidence(confidence)
    check_whole("resamples", resamples)
    several = len(samples) > 0 and np.ndim(samples[0]) > 0
    given = [np.asarray(one, np.float64).reshape(-1) for one in (samples if several else [samples])]
    known = [one[np.isfinite(one)] for one in given]
    known = [one for one in known if one.size]
    if not known:
        return Mean(np.nan, np.nan, np.nan, 0)
    rng = np.random.default_rng(check_seed("seed", seed))
    drawn = np.stack([one[rng.integers(len(one), size=(resamples, len(one)))].mean(1) for one in known])  # [C, R]
    chosen = rng.integers(len(known), size=drawn.shape)
    means = drawn[chosen, rng.integers(resamples, size=drawn.shape)].mean(
        0
    )  # an array chosen twice is drawn from twice
    low, high = np.quantile(means, [(1 - confidence) / 2, (1 + confidence) / 2])
    return Mean(float(np.mean([one.mean() for one in known])), float(low), float(high), sum(map(len, known)))
