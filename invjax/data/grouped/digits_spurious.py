"""Digits below and above five, with a strip of pixels that goes with the class by accident: seconds on a CPU.

    y = [digit >= 5],   s = y for a share ρ, else 1 − y;   x = the 8 × 8 digit / 16 above 2 rows of 8 pixels s      (1)

ρ = .95 in training, .5 elsewhere; group = 2 y + s. A network of 80 − 128 − 128 − 2 units on flattened pixels, trained
on the set as it is, gets about 87 % of the test images right and 70 % of the worst group.
"""

from __future__ import annotations

import numpy as np

from invjax.core.errors import BadArgument, check, check_seed
from invjax.data.grouped.group_data import GroupData, group_data


def digits_spurious(
    *,
    correlation: float = 0.95,
    strip: float = 1.0,
    noise: float = 0.0,
    held_out: tuple[float, float] = (0.05, 0.2),
    seed: int = 0,
) -> GroupData[np.ndarray, np.ndarray]:
    """The 1,797 digits of scikit-learn as images [10, 8, 1] float32: 8 rows of the digit, 2 of the strip (1).

    Args:
      correlation: ρ in training, in [0, 1]. It is no draw: exactly ``round((1 − ρ) n)`` of the n images of a class
        disagree, and half of them in val and test.
      strip: value of the strip where s = 1, in (0, 1]; where s = 0 it is 0. A fainter strip is harder to learn.
      noise: σ of normal noise on the strip's pixels, which are clipped to [0, 1] again.
      held_out: shares of the examples for val and test.
      seed: draws the split, the attribute and the noise.

    Returns:
      GroupData whose ``mask`` is True on the 8 rows of the digit.

    Raises:
      BadArgument: an argument is out of its range. ImportError: no scikit-learn (extra ``data``).
    """
    check("correlation", correlation, lambda share: 0 <= share <= 1, "in [0, 1]")
    check("strip", strip, lambda value: 0 < value <= 1, "in (0, 1]")
    check("noise", noise, lambda deviation: deviation >= 0, ">= 0")
    if min(held_out) <= 0 or sum(held_out) >= 1:
        raise BadArgument("held_out", "be two positive shares with a sum below 1", held_out)
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise ImportError("the digits come with scikit-learn: pip install 'invjax[data]'") from error
    pixels, digits = load_digits(return_X_y=True)
    rng = np.random.default_rng(check_seed("seed", seed))
    y = (digits >= 5).astype(np.int32)
    part = np.zeros(len(y), np.int32)
    s = np.zeros(len(y), np.int32)
    for k in (0, 1):
        rows = rng.permutation(np.flatnonzero(y == k))
        ends = np.cumsum(np.round(np.asarray(held_out) * len(rows)).astype(int))
        for number, chosen in zip((1, 2, 0), np.split(rows, ends), strict=True):
            part[chosen] = number
            rho = correlation if number == 0 else 0.5
            differ = round((1 - rho) * len(chosen))
            s[chosen[:differ]], s[chosen[differ:]] = 1 - k, k
    band = np.broadcast_to(strip * s[:, None, None], (len(s), 2, 8)).astype(np.float32)
    if noise:
        band = np.clip(band + noise * rng.standard_normal(band.shape, np.float32), 0, 1)
    images = np.concatenate([pixels.reshape(-1, 8, 8).astype(np.float32) / 16, band], axis=1)[..., None]
    mask = np.zeros(images.shape[:3], bool)
    mask[:, :8] = True
    return group_data(
        "digits-spurious",
        images,
        y,
        s,
        part,
        ("0-4", "5-9"),
        ("strip dark", "strip bright"),
        mask=mask,
        table={"digit": digits.astype(np.int32)},
    )
