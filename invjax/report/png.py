"""A PNG encoder of one screen, so that the pixels of a report need neither matplotlib nor pillow."""

from __future__ import annotations

import base64
import struct
import zlib

import numpy as np

from invjax.core.errors import BadArgument, Words

_COLOUR_TYPE = {1: 0, 3: 2, 4: 6}  # channels -> PNG colour type: grey, RGB, RGBA
_SIGNATURE = b"\x89PNG\r\n\x1a\n"


def encode_png(pixels: np.ndarray) -> bytes:
    """An image file from [H, W], [H, W, 1], [H, W, 3] or [H, W, 4] uint8 pixels; RGB without any colour becomes grey.

    Raises:
        ValueError: another dtype or shape, or no pixels.
    """
    array = np.asarray(pixels)
    if array.ndim == 2:
        array = array[..., None]
    if array.dtype != np.uint8 or array.ndim != 3 or array.shape[-1] not in _COLOUR_TYPE or array.size == 0:
        raise BadArgument("pixels", "be uint8 [H, W] or [H, W, 1|3|4]", Words(f"{array.dtype} {np.shape(pixels)}"))
    if array.shape[-1] == 3 and (array == array[..., :1]).all():  # a grey picture, in a third of the bytes
        array = array[..., :1]
    height, width, channels = array.shape
    rows = array.reshape(height, width * channels)
    # Each row starts with its filter type; 0 is "unfiltered", which suits small flat pictures.
    data = np.concatenate([np.zeros((height, 1), np.uint8), rows], axis=1).tobytes()
    header = struct.pack(">IIBBBBB", width, height, 8, _COLOUR_TYPE[channels], 0, 0, 0)
    return _SIGNATURE + _chunk(b"IHDR", header) + _chunk(b"IDAT", zlib.compress(data, 9)) + _chunk(b"IEND", b"")


def data_uri(png: bytes) -> str:
    """The file as the value of an ``src`` attribute."""
    return "data:image/png;base64," + base64.b64encode(png).decode("ascii")


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
