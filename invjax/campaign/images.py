"""Which images of a source are attacked: those that the network classifies correctly."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from invjax.core.arguments import kinds_checked
from invjax.core.errors import BadArgument, check_whole, of_shape
from invjax.core.images import check_floats
from invjax.core.labels import check_indices, classes_of
from invjax.core.logits import asked_in_shapes, num_classes
from invjax.core.mixing import check_names_classes
from invjax.core.rows import map_rows
from invjax.core.shown import short_repr
from invjax.data import ImageSource
from invjax.types import Array, LogitsFn

_BATCH = 256  # images per call of the network


class ChosenImages(NamedTuple):
    """The N images of a run."""

    index: np.ndarray  # [N] int64 rows of the source
    images: np.ndarray  # [N, H, W, C] float32
    labels: np.ndarray  # [N] int32
    left_out: int = 0  # images up to the last chosen one that the network classifies wrongly

    __repr__ = short_repr

    @property
    def words(self) -> str:
        """How many there are, and how many were left out."""
        count = len(self.index)
        if not self.left_out:
            return f"{count} images"
        wrong = f"{self.left_out} {'is' if self.left_out == 1 else 'are'} misclassified and left out"
        return f"{count} of {count + self.left_out} images: {wrong}"


def _classes(logits: LogitsFn, x: Array) -> Array:
    return classes_of(logits(x))


@kinds_checked
def classify(logits: LogitsFn, images: np.ndarray, batch: int = _BATCH) -> np.ndarray:
    """[N] int, the classes that the network gives ``images`` [N, *S], -1 where its logits hold NaN.

    Compiles once whatever N. Raises ValueError for images that are not floating point.
    """
    images = np.asarray(images)
    if not images.size:
        raise BadArgument("images", "hold at least one example", of_shape(images.shape))
    check_floats(images.dtype, "images")
    asked_in_shapes(logits, images.shape[1:], images.dtype)
    return map_rows(_classes, logits, images, batch=batch)


@kinds_checked
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

    An image whose logits hold NaN is classified wrongly.
    Raises ValueError: a bad ``start`` or ``n``, no labels or what is no class of the network, a network that gives NaN
    for all of its first images, or no image that the network classifies correctly.
    """
    check_whole("start", start, 0, source.count - 1)
    if n is not None:
        check_whole("n", n)
    index, images, classes, seen, total = [], [], [], 0, None
    while start + seen < source.count and (n is None or sum(map(len, index)) < n):
        begin = start + seen
        block = source.read(begin, min(begin + _BATCH, source.count))
        if total is None:
            total = num_classes(logits, block.images.shape[1:], block.images.dtype)
            check_names_classes(logits, block.images)
            if labels is not None:
                labels = check_indices("labels", labels, source.count, total, of="the network")
        right = block.labels if labels is None else labels[begin : begin + _BATCH]
        if right is None:
            raise BadArgument("labels", "be given", hint="the images come without any")
        if labels is None:
            right = _checked(right, len(block.images), total, begin)
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


def _checked(labels: np.ndarray, count: int, total: int, begin: int) -> np.ndarray:
    """Labels of a block of the source that begins at row ``begin``, checked; an error names the row of the source."""
    try:
        return check_indices("labels", labels, count, total, of="the network")
    except BadArgument as error:
        if error.index is None:
            raise
        raise BadArgument("labels", error.wanted, error.was, begin + error.index, hint=error.hint) from None
