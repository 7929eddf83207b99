"""Which images of a source are attacked: those that the network classifies correctly."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from invjax.core.errors import BadArgument, check_whole
from invjax.core.rows import map_rows
from invjax.data import ImageSource
from invjax.types import Array, LogitsFn

_BATCH = 256  # images per call of the network


class ChosenImages(NamedTuple):
    """The N images of a run."""

    index: np.ndarray  # [N] int64 rows of the source
    images: np.ndarray  # [N, H, W, C] float32
    labels: np.ndarray  # [N] int32
    left_out: int = 0  # images up to the last chosen one that the network classifies wrongly

    @property
    def words(self) -> str:
        """How many there are, and how many were left out."""
        count = len(self.index)
        if not self.left_out:
            return f"{count} images"
        wrong = f"{self.left_out} {'is' if self.left_out == 1 else 'are'} misclassified and left out"
        return f"{count} of {count + self.left_out} images: {wrong}"


def _classes(logits: LogitsFn, x: Array) -> Array:
    return logits(x).argmax(axis=-1)


def classify(logits: LogitsFn, images: np.ndarray, batch: int = _BATCH) -> np.ndarray:
    """[N] int, the classes that the network gives ``images`` [N, *S]. Compiles once whatever N."""
    return map_rows(_classes, logits, images, batch=batch)


def choose(
    logits: LogitsFn,
    source: ImageSource,
    labels: np.ndarray | None = None,
    start: int = 0,
    n: int | None = None,
    *,
    everything: bool = False,
) -> ChosenImages:
    """The first ``n`` images from row ``start`` on whose label is the class that the network gives them.

    Rows are read in blocks, no further than needed.

    Args:
      labels: [count] int, replace the labels of the source.
      n: None for all there are.
      everything: also take the images that the network classifies wrongly.

    Raises ValueError: a bad ``start`` or ``n``, no labels, or no image that the network classifies correctly.
    """
    check_whole("start", start, 0, source.count - 1)
    if n is not None:
        check_whole("n", n)
    index, images, classes, seen = [], [], [], 0
    while start + seen < source.count and (n is None or sum(map(len, index)) < n):
        begin = start + seen
        block = source.read(begin, min(begin + _BATCH, source.count))
        right = block.labels if labels is None else labels[begin : begin + _BATCH]
        if right is None:
            raise BadArgument("labels", "be given", hint="the images come without any")
        take = np.ones(len(right), bool) if everything else classify(logits, block.images) == right
        index.append(begin + np.flatnonzero(take))
        images.append(block.images[take])
        classes.append(right[take])
        seen += len(right)
    rows, pixels, known = (np.concatenate(parts)[:n] for parts in (index, images, classes))
    if len(rows) == n:
        seen = int(rows[-1]) + 1 - start
    if not len(rows):
        raise BadArgument(
            "images",
            "include some that the network classifies correctly",
            hint=f"none of the {seen} checked is; do weights, normalisation and labels match?",
        )
    return ChosenImages(rows, pixels, known, seen - len(rows))
