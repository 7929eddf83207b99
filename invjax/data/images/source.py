"""Images with labels, from an ``.npz`` file or a data set of ``tensorflow_datasets``.

    x = lower + (upper - lower) · pixel / 255                      pixels of 8 bits                              (1)

Floating-point images are taken as they are and must lie in the data range already.
"""

from __future__ import annotations

import os
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from invjax.types import Bounds

IMAGE_KEYS = ("images", "x")
LABEL_KEYS = ("labels", "y")
NAME_KEYS = ("names", "class_names")
TFDS = "tfds:"


class ImageData(NamedTuple):
    """Images in memory; N images."""

    images: np.ndarray  # [N, H, W, C] float32 in the data range
    labels: np.ndarray | None  # [N] int32, None where the source has none
    bounds: Bounds  # the data range
    names: tuple[str, ...] | None  # K class names


class ImageSource(NamedTuple):
    """Images that are converted when they are read: ``read(start, stop)`` gives the rows ``start:stop``."""

    count: int
    read: Callable[[int, int], ImageData]


def data_folder() -> Path:
    """The folder of data files: the environment variable ``INVJAX_DATA``, else ``~/.local/share/invjax``.

    It need not exist. A relative path that is not found from the working folder is looked for in it.
    """
    if chosen := os.environ.get("INVJAX_DATA"):
        return Path(chosen).expanduser()
    return Path(os.environ.get("XDG_DATA_HOME") or "~/.local/share").expanduser() / "invjax"


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
        raise ValueError(f"start must be from 0 to {opened.count - 1}, the last image; was {start}")
    if count is not None and count < 1:
        raise ValueError(f"count must be at least 1, was {count}")
    return opened.read(start, opened.count if count is None else min(start + count, opened.count))


def open_images(source: Any, split: str = "test", *, bounds: Any = Bounds()) -> ImageSource:  # noqa: B008
    """The same without reading the images: arguments and errors of :func:`load_images`."""
    limits = _limits(bounds)
    if isinstance(source, str) and source.startswith(TFDS):
        from invjax.data.images.tfds import open_tfds

        return open_tfds(source.removeprefix(TFDS), split, limits)
    if not isinstance(source, str | os.PathLike):
        from invjax.data.images.tfds import open_tfds

        return open_tfds(source, split, limits)
    return _open_npz(Path(source), limits)


def to_range(images: np.ndarray, bounds: Bounds, name: str = "images") -> np.ndarray:
    """[N, H, W, C] float32 in the data range, of [N, H, W, C] or [N, H, W] pixels; a checked copy."""
    if images.ndim not in (3, 4) or 0 in images.shape:
        raise ValueError(f"{name} must be [N, H, W, C] or [N, H, W] with N >= 1, were of shape {images.shape}")
    if images.ndim == 3:
        images = images[..., None]
    elif images.shape[1] in (1, 3) and images.shape[3] not in (1, 2, 3, 4):
        raise ValueError(f"{name} must have the channel last, [N, H, W, C]; were of shape {images.shape}")
    lower, upper = (np.asarray(side, np.float32) for side in bounds)
    if images.dtype == np.uint8:
        return lower + (upper - lower) * (images.astype(np.float32) / np.float32(255))
    if not np.issubdtype(images.dtype, np.floating):
        raise ValueError(f"{name} must be uint8 or floating point, were {images.dtype}")
    images = images.astype(np.float32)
    if not np.isfinite(images).all():
        bad = np.argwhere(~np.isfinite(images))[0]
        raise ValueError(f"{name} must be finite, were {images[tuple(bad)]} at index {tuple(int(i) for i in bad)}")
    least, most = float(images.min()), float(images.max())
    if least < lower or most > upper:
        hint = "; save pixels 0 ... 255 as uint8" if least >= 0 and 2 < most <= 255 else ""
        raise ValueError(f"{name} must lie in the bounds [{lower:g}, {upper:g}], were in [{least:g}, {most:g}]{hint}")
    return images


def to_labels(labels: np.ndarray, count: int, name: str = "labels") -> np.ndarray:
    """[N] int32, checked."""
    if labels.shape != (count,) or not np.issubdtype(labels.dtype, np.integer):
        raise ValueError(
            f"{name} must be integers of shape ({count},), one per image; were {labels.dtype} {labels.shape}"
        )
    if labels.min() < 0:
        raise ValueError(f"{name} must be class indices >= 0, were {labels.min()} at index {int(labels.argmin())}")
    return labels.astype(np.int32)


def _limits(bounds: Any) -> Bounds:
    try:
        lower, upper = (float(side) for side in bounds)
    except (TypeError, ValueError):
        raise ValueError(f"bounds must be two numbers (lower, upper), were {bounds!r}") from None
    if not (np.isfinite(lower) and np.isfinite(upper) and lower < upper):
        raise ValueError(f"bounds must be finite with lower < upper, were ({lower:g}, {upper:g})")
    return Bounds(lower, upper)


def _open_npz(path: Path, bounds: Bounds) -> ImageSource:
    found = path if path.exists() or path.is_absolute() else data_folder() / path
    if not found.is_file():
        raise ValueError(f"images must be an existing .npz file or {TFDS}NAME, was {str(path)!r}")
    arrays = read_npz(found, "images", (*IMAGE_KEYS, *LABEL_KEYS, *NAME_KEYS))
    pixels = _pick(arrays, IMAGE_KEYS)
    if pixels is None:
        raise ValueError(f"images must be an npz with an array 'images' or 'x'; {str(path)!r} has neither")
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


def read_npz(path: Path, name: str, keys: tuple[str, ...] | None = None) -> dict[str, np.ndarray]:
    """The arrays ``keys`` of an npz, those it has; all for None. Raises ValueError, naming the argument ``name``."""
    try:
        with open(path, "rb") as file:
            if file.read(2) != b"PK":
                raise ValueError("not an .npz archive")
            file.seek(0)
            with np.load(file, allow_pickle=False) as archive:
                return {key: archive[key] for key in archive.files if keys is None or key in keys}
    except (OSError, EOFError, KeyError, ValueError, zipfile.BadZipFile, zlib.error) as error:
        raise ValueError(f"{name} must be a readable .npz file, {str(path)!r} is not: {error}") from error


def _pick(arrays: dict[str, np.ndarray], keys: tuple[str, ...]) -> np.ndarray | None:
    return next((arrays[key] for key in keys if key in arrays), None)
