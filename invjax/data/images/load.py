"""Images with labels, from an ``.npz`` file or a data set of ``tensorflow_datasets``."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np

from invjax.core.errors import BadArgument
from invjax.data.images.source import (
    IMAGE_KEYS,
    LABEL_KEYS,
    NAME_KEYS,
    TFDS,
    ImageData,
    ImageSource,
    check_limits,
    data_folder,
    read_npz,
    to_labels,
    to_range,
)
from invjax.data.images.tfds import open_tfds
from invjax.types import Bounds


def load_images(
    source: Any,
    split: str = "test",
    *,
    start: int = 0,
    count: int | None = None,
    bounds: Bounds | tuple[float, float] = Bounds(),  # noqa: B008 -- a tuple of two numbers
) -> ImageData:
    """Images and labels of a file or data set.

    Args:
      source: path of an ``.npz``; or "tfds:NAME" (a prepared data set of tensorflow_datasets, or the folder of one);
        or a builder of tensorflow_datasets. An npz holds ``images`` (or ``x``), uint8 or float, [N, H, W, C] or
        [N, H, W], and optionally ``labels`` (or ``y``), integers [N], and ``names``, [K] strings.
      split: of a tfds data set, e.g. "test".
      start, count: the rows wanted; all by default.
      bounds: (lower, upper), numbers: the data range. Pixels of 8 bits are mapped onto it (1), floating-point images
        must lie in it.

    Raises:
      ValueError: the source cannot be found or read, or holds something else; naming what.
      ImportError: tensorflow_datasets is missing (extra ``data``).
    """
    opened = open_images(source, split, bounds=bounds)
    if not 0 <= start < opened.count:
        raise BadArgument("start", f"be from 0 to {opened.count - 1}, the last image", start)
    if count is not None and count < 1:
        raise BadArgument("count", "be at least 1", count)
    return opened.read(start, opened.count if count is None else min(start + count, opened.count))


def open_images(source: Any, split: str = "test", *, bounds: Any = Bounds()) -> ImageSource:  # noqa: B008
    """The same without reading the images: arguments and errors of :func:`load_images`."""
    limits = check_limits(bounds)
    if isinstance(source, str) and source.startswith(TFDS):
        return open_tfds(source.removeprefix(TFDS), split, limits)
    if not isinstance(source, str | os.PathLike):
        return open_tfds(source, split, limits)
    return _open_npz(Path(source), limits)


def _open_npz(path: Path, bounds: Bounds) -> ImageSource:
    found = path if path.exists() or path.is_absolute() else data_folder() / path
    if not found.is_file():
        raise BadArgument("images", f"be an existing .npz file or {TFDS}NAME", str(path))
    arrays = read_npz(found, "images", (*IMAGE_KEYS, *LABEL_KEYS, *NAME_KEYS))
    pixels = _pick(arrays, IMAGE_KEYS)
    if pixels is None:
        raise BadArgument("images", "be an npz with an array 'images' or 'x'", str(path))
    if pixels.ndim not in (3, 4) or 0 in pixels.shape:
        to_range(pixels, bounds)  # says what is wrong
    labels, names = _pick(arrays, LABEL_KEYS), _pick(arrays, NAME_KEYS)
    if labels is not None:
        labels = to_labels(labels, len(pixels))
    classes = None if names is None else tuple(str(name) for name in names.tolist())

    def read(start: int, stop: int) -> ImageData:
        return ImageData(
            to_range(pixels[start:stop], bounds), None if labels is None else labels[start:stop], bounds, classes
        )

    return ImageSource(len(pixels), read)


def _pick(arrays: dict[str, np.ndarray], keys: tuple[str, ...]) -> np.ndarray | None:
    return next((arrays[key] for key in keys if key in arrays), None)
