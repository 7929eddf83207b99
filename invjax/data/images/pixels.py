"""What the pixels of a picture mean: 8-bit RGB of any kind of file, and the object of a mask.

    value of 8 bits = round(value of 16 bits / 257)                                                                 (1)

Pillow itself would cut 16-bit greys off at 255, which makes nearly all of them white.
"""

from __future__ import annotations

import io
from typing import Any

import numpy as np

from invjax.core.unpack import Budget, Unreadable, one_line

_DEEP = ("PNG", "PPM")  # kinds of file whose pixels "I" are 16 bits, kept in 32
_OFF = 0.2  # how far a colour of a mask may be from the line between black and its brightest one, by that one (JPEG)


def pillow() -> Any:
    """The module ``PIL.Image``."""
    try:
        from PIL import Image
    except ImportError as error:
        raise ImportError("image files need pillow: pip install 'invjax[data]'") from error
    return Image


def open_picture(encoded: bytes) -> Any:
    """A picture of pillow whose pixels are not decoded yet; the size that it declares is counted before.

    Raises Unreadable: it is too large for its file, or no picture but a program (EPS, which Ghostscript would run).
    """
    image = pillow()
    try:
        picture = image.open(io.BytesIO(encoded))
    except image.DecompressionBombError as error:
        raise Unreadable(f"{one_line(error)} PIL.Image.MAX_IMAGE_PIXELS allows more") from error
    if picture.format == "EPS":
        raise Unreadable("EPS is a program, not a picture")
    Budget(len(encoded)).take(3 * picture.width * picture.height, f"a picture of {picture.width} × {picture.height}")
    return picture


def rgb(picture: Any) -> Any:
    """The picture in RGB, by (1) where it has 16-bit greys. Raises Unreadable where the range is not known."""
    if picture.mode[0] not in "IF":
        return picture.convert("RGB")
    return pillow().fromarray(((_deep(picture) + 128) // 257).astype(np.uint8)).convert("RGB")


def _deep(picture: Any) -> np.ndarray:
    """[H, W] int64 of 16-bit greys."""
    if picture.mode == "F" or (picture.mode == "I" and picture.format not in _DEEP):
        raise Unreadable("its pixels have 32 bits, of which the range is not known: save it with 8 or 16")
    return np.asarray(picture).astype(np.int64)


def mask_levels(picture: Any) -> np.ndarray:
    """[H, W] uint8 of a mask: 255 on the object, 0 elsewhere, and what is between at soft edges.

    Two values, of which one is 0 (or a black background): the other one is the object, whatever its number or colour.
    More greys, up to 128 or beyond: as they stand. More shades of one colour: by its brightest. Two colours without
    black: the object is the one with more than half of red. Raises Unreadable for others, which have no such meaning.
    """
    colours = None
    if picture.mode[0] in "IF":
        deep = _deep(picture)
        grey = (deep if deep.max(initial=0) < 256 else (deep + 128) // 257).astype(np.uint8)
    elif picture.mode in ("1", "L"):
        grey = np.asarray(picture.convert("L"))
    else:
        colours = np.asarray(picture.convert("RGB"))
        grey = colours[..., 0]
    if colours is None or (colours == grey[..., None]).all():
        values = np.flatnonzero(np.bincount(grey.ravel(), minlength=256))
        if len(values) == 1 or (len(values) == 2 and values[0] == 0):
            return np.where(grey > 0, 255, 0).astype(np.uint8)
        if values[-1] >= 128:
            return grey
        shown = ", ".join(map(str, values[:5])) + (", …" if len(values) > 5 else "")
        raise Unreadable(f"a mask of the values {shown}: neither 0 and another, nor up to 255")
    exact = colours.astype(np.float64)
    brightest = exact.reshape(-1, 3)[exact.sum(2).argmax()]
    share = exact @ brightest / (brightest @ brightest)
    if np.abs(exact - share[..., None] * brightest).max() <= _OFF * brightest.max():
        return np.round(255 * np.clip(share, 0, 1)).astype(np.uint8)
    names = np.unique(colours.reshape(-1, 3), axis=0)
    if len(names) == 2 and (names[:, 0] >= 128).sum() == 1:
        return np.where(grey >= 128, 255, 0).astype(np.uint8)
    raise Unreadable(f"a mask of {len(names)} colours: it is not known which of them is the object")
