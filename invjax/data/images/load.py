"""Images with labels, from an ``.npz`` file or a data set of ``tensorflow_datasets``."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np

from invjax.core.arguments import kinds_checked
from invjax.core.errors import BadArgument, check_whole
from invjax.core.files import no_file
from invjax.core.labels import check_indices
from invjax.core.text import as_names
from invjax.data.folder import find
from invjax.data.images.source import (
    IMAGE_KEYS,
    LABEL_KEYS,
    NAME_KEYS,
    TFDS,
    ImageData,
    ImageSource,
    check_shape,
    read_npz,
    to_range,
)
from invjax.data.images.tfds import open_tfds
from invjax.types import Bounds


@kinds_checked
def load_images(
    source: Any,
    split: str = "test",
    *,
    start: int = 0,
    count: int | None = None,
    bounds: Bounds | tuple[float, float] = Bounds(),  # noqa: B008 -- a tuple of two numbers
) -> ImageData[np.ndarray | None]:
    """Images and labels of a file or data set.

    Args:
      source: path of an ``.npz``; or "tfds:NAME" (a prepared data set of tensorflow_datasets, or the folder of one);
        or a builder of tensorflow_datasets. An npz holds ``images`` (or ``x``), uint8 or float, [N, H, W, C] or
        [N, H, W], and optionally ``labels`` (or ``y``), integers [N], and ``names``, [K] strings.
      split: of a tfds data set, e.g. "train". A file has none.
      start, count: the rows to read; all by default.
      bounds: the data range, two numbers (lower, upper). Pixels of 8 bits are mapped onto it by (1) of
        :mod:`invjax.data.images.source`; floating-point images must lie in it.

    Raises:
      BadArgument: the source cannot be found or read, or holds something else.
      ImportError: tensorflow_datasets is missing (extra ``data``).
    """
    opened = open_images(source, split, bounds=bounds)
    start = check_whole("start", start, 0, opened.count - 1)
    stop = opened.count if count is None else min(start + check_whole("count", count), opened.count)
    return opened.read(start, stop)


@kinds_checked
def open_images(source: Any, split: str = "test", *, bounds: Any = Bounds()) -> ImageSource:  # noqa: B008
    """The same without reading the images: arguments and errors of :func:`load_images`."""
    limits = _limits(bounds)
    if isinstance(source, str) and source.startswith(TFDS):
        return open_tfds(source.removeprefix(TFDS), split, limits)
    if not isinstance(source, str | os.PathLike):
        return open_tfds(source, split, limits)
    if split != "test":
        raise BadArgument("split", "be left out for a file, which has none", split)
    return _open_npz(Path(source), limits)


def _limits(bounds: Any) -> Bounds:
    try:
        lower, upper = (float(side) for side in bounds)
    except (TypeError, ValueError):
        raise BadArgument("bounds", "be two numbers (lower, upper)", bounds) from None
    if not (np.isfinite(lower) and np.isfinite(upper) and lower < upper):
        raise BadArgument("bounds", "be finite with lower < upper", (lower, upper))
    return Bounds(lower, upper)


def _open_npz(path: Path, bounds: Bounds) -> ImageSource:
    found = find(path)
    if not os.path.isfile(found):
        raise no_file("images", f"be an existing .npz file or {TFDS}NAME", path)
    arrays = read_npz(found, "images", (*IMAGE_KEYS, *LABEL_KEYS, *NAME_KEYS))
    pixels = _pick(arrays, IMAGE_KEYS)
    if pixels is None:
        raise BadArgument("images", "be an npz with an array 'images' or 'x'", str(path))
    check_shape(pixels.shape)
    labels, names = _pick(arrays, LABEL_KEYS), _pick(arrays, NAME_KEYS)
    if labels is not None:
        labels = check_indices("labels", labels, len(pixels), strict=True)
    classes = None if names is None else as_names(np.atleast_1d(names).tolist())

    def read(start: int, stop: int) -> ImageData[np.ndarray | None]:
        return ImageData(
            to_range(pixels[start:stop], bounds), None if labels is None else labels[start:stop], bounds, classes
        )

    return ImageSource(len(pixels), read)


def _pick(arrays: dict[str, np.ndarray], keys: tuple[str, ...]) -> np.ndarray | None:
    return next((arrays[key] for key in keys if key in arrays), None)
