"""Images in memory, and what makes them of pixels and labels.

    x = lower + (upper - lower) · pixel / 255                      pixels of 8 bits                              (1)

Floating-point images are taken as they are and must lie in the data range already.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Generic, NamedTuple, TypeVar

import numpy as np

from invjax.core import unpack
from invjax.core.errors import BadArgument, check_entries, exactly, in_range, of_shape
from invjax.core.images import are_pixels, from_pixels
from invjax.core.meant import fields_told
from invjax.core.shown import many
from invjax.types import Bounds

IMAGE_KEYS = ("images", "x")
LABEL_KEYS = ("labels", "y")
NAME_KEYS = ("names", "class_names")
TFDS = "tfds:"


Labels = TypeVar("Labels", bound="np.ndarray | None")


@fields_told
class ImageData(NamedTuple, Generic[Labels]):
    """Images in memory; N images."""

    images: np.ndarray  # [N, H, W, C] float32 in the data range
    labels: Labels  # [N] int32, None where the source has none
    bounds: Bounds  # the data range
    names: tuple[str, ...] | None  # K class names

    def __repr__(self) -> str:
        shape = "x".join(map(str, self.images.shape[1:]))
        classes = "" if self.names is None else f", {many(len(self.names), 'class')}"
        return f"ImageData({many(len(self.images), 'image')} {shape} in {list(self.bounds)}{classes})"


class ImageSource(NamedTuple):
    """Images that are converted when they are read: ``read(start, stop)`` gives the rows ``start:stop``."""

    count: int
    read: Callable[[int, int], ImageData[np.ndarray | None]]

    def __repr__(self) -> str:
        return f"ImageSource({many(self.count, 'image')}, read when asked for)"


def to_range(images: np.ndarray, bounds: Bounds, name: str = "images") -> np.ndarray:
    """[N, H, W, C] float32 in the data range, of [N, H, W, C] or [N, H, W] pixels; a checked copy."""
    check_shape(images.shape, name)
    images = images[..., None] if images.ndim == 3 else images
    if are_pixels(images.dtype, name):
        return from_pixels(images, *bounds)
    lower, upper = (np.asarray(side, np.float32) for side in bounds)
    images = images.astype(np.float32)
    check_entries(name, images, ~np.isfinite(images), "be finite")
    least, most = float(images.min()), float(images.max())
    if least < lower or most > upper:
        hint = "save pixels 0 ... 255 as uint8" if least >= 0 and 2 < most <= 255 else None
        raise BadArgument(name, f"lie in the bounds [{exactly(lower)}, {exactly(upper)}]", in_range(images), hint=hint)
    return images


def check_shape(shape: tuple[int, ...], name: str = "images") -> None:
    """Raise BadArgument unless images of this shape are [N, H, W, C] or [N, H, W], and cannot be one picture."""
    if len(shape) not in (3, 4) or 0 in shape:
        raise BadArgument(name, "be [N, H, W, C] or [N, H, W] with N >= 1", of_shape(shape))
    if len(shape) == 3 and shape[2] in (1, 3, 4) and shape[1] > shape[2]:
        hint = "one picture is images[None], and grey ones that are so narrow are images[..., None]"
        raise BadArgument(name, "be [N, H, W, C] where it might be one picture [H, W, C]", of_shape(shape), hint=hint)
    if len(shape) == 4 and shape[1] in (1, 3) and shape[3] not in (1, 2, 3, 4):
        raise BadArgument(name, "have the channel last, [N, H, W, C]", of_shape(shape))


def read_npz(path: Path, name: str, keys: tuple[str, ...] | None = None) -> dict[str, np.ndarray]:
    """The arrays ``keys`` of an npz as far as it has them; all for None. Raises BadArgument about ``name``."""
    try:
        return unpack.read_npz(path, keys)
    except unpack.Unreadable as error:
        raise BadArgument(name, "be a readable .npz file", str(path), hint=str(error)) from error
