"""Archives and arrays whose sizes are looked at before memory is taken for them.

    a file of n bytes may unpack to  max(limit, 32 n)  bytes                                                        (1)

The limit is 1 GiB, or as many GiB as the environment variable ``INVJAX_UNPACK_GIB`` says. So a file of a few MiB cannot
fill the memory, and a large data set needs no permission. All readers of npz, npy, gz, zip, pth and picture files ask
here. They raise :class:`Unreadable`, whose text is one line.
"""

from __future__ import annotations

import gzip
import json
import math
import os
import struct
import zipfile
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import jax.numpy as jnp
import numpy as np

from invjax.core.errors import BadArgument

LIMIT = "INVJAX_UNPACK_GIB"
_RATIO = 32  # of (1): MNIST as float32 deflates to a twelfth, photographs hardly at all
_METHODS = {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA}
_METHODS.add(getattr(zipfile, "ZIP_ZSTANDARD", zipfile.ZIP_STORED))  # of Python 3.14
_OTHERS = {9: "Deflate64", 93: "Zstandard", 98: "PPMd"}
_LOCKED = 0x1  # the bit of an encrypted member
_ARRAY = b"\x93NUMPY"


class Unreadable(ValueError):
    """A file, or a part of one, that cannot be read: the text says why, in one line."""


class Budget:
    """What a file may still unpack to, by (1)."""

    def __init__(self, packed: int) -> None:
        """packed: n, the bytes of the file."""
        self._left = max(_limit(), _RATIO * packed)

    def take(self, count: int, what: str) -> None:
        """Count ``count`` bytes, before they are allocated. Raises Unreadable where (1) does not allow them."""
        self._left -= count
        if self._left < 0:
            hint = f"{LIMIT}, a number of GiB, allows more"
            raise Unreadable(f"{what} would take {_bytes(count)}, too much for so small a file ({hint})")


def _limit() -> float:
    given = os.environ.get(LIMIT, "1")
    try:
        gib = float(given)
    except ValueError:
        gib = math.nan
    if not gib > 0:
        raise BadArgument(LIMIT, "be a number > 0", given)
    return gib * 2**30


def _bytes(count: int) -> str:
    for unit, size in (("TiB", 2**40), ("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10)):
        if count >= size:
            return f"{count / size:,.1f} {unit}" if count < 2**60 else f"more than a million {unit}"
    return f"{count} bytes"


@contextmanager
def unpacking() -> Iterator[None]:
    """Inside, whatever a damaged file makes Python raise becomes Unreadable."""
    try:
        yield
    except (BadArgument, Unreadable):
        raise
    except MemoryError as error:
        raise Unreadable("it does not fit into memory") from error
    except Exception as error:  # there is no list of what zipfile, zlib, ast and numpy raise
        if isinstance(error, OSError) and error.strerror:  # no damage: no permission, a name that is too long
            raise Unreadable(error.strerror) from error
        raise Unreadable(f"truncated or corrupt: {one_line(error)}") from error


def one_line(error: Exception) -> str:
    """What an error of another library says, on one line that is not too long."""
    return " ".join(str(error).split())[:200] or type(error).__name__


def open_member(archive: zipfile.ZipFile, info: zipfile.ZipInfo, budget: Budget | None = None) -> IO[bytes]:
    """The stream of a member of a zip, whose declared size is counted; the zip yields no more than that.

    budget: of the whole file; None allows the member what (1) allows a file as large as it is packed.
    """
    name = repr(info.filename)[:80]
    if info.flag_bits & _LOCKED:
        raise Unreadable(f"{name} is locked with a password: unpack the zip, and zip it again without one")
    if info.compress_type not in _METHODS:
        method = _OTHERS.get(info.compress_type, f"method {info.compress_type}")
        raise Unreadable(f"{name} is packed by {method}, which this Python cannot unpack: zip it again by Deflate")
    (budget or Budget(info.compress_size)).take(info.file_size, name)
    return archive.open(info)


def read_member(archive: zipfile.ZipFile, name: str, budget: Budget | None = None) -> bytes:
    """The bytes of a member of a zip; ``budget`` as in :func:`open_member`.

    Raises Unreadable where it is locked, damaged, too large or packed otherwise.
    """
    with unpacking():
        info = archive.getinfo(name)
        with open_member(archive, info, budget) as stream:
            return stream.read(info.file_size)  # read() without a size would trust the data instead of the header


def storable(name: str, array: Any) -> Any:
    """The array in a type that an npz gives back: bfloat16 and float8, whose names are lost in one, as float32.

    Raises BadArgument about ``name`` for objects, which would be pickled and which nothing here reads.
    """
    array = np.asarray(array)
    if array.dtype.kind == "V" and jnp.issubdtype(array.dtype, jnp.floating):
        return array.astype(np.float32)
    if array.dtype.kind in "OV":
        raise BadArgument(name, "hold numbers or text", array.dtype)
    return array


def read_npz(path: str | os.PathLike[str], keys: Collection[str] | None = None) -> dict[str, np.ndarray]:
    """The arrays ``keys`` of an npz as far as it has them; all for None. Pickled objects are not read."""
    with unpacking(), open(path, "rb") as file:
        if file.read(len(_ARRAY)) == _ARRAY:
            raise Unreadable("it holds a single array, without a name")
        file.seek(0)
        budget, arrays = Budget(os.path.getsize(path)), {}
        with zipfile.ZipFile(file) as archive:
            for info in archive.infolist():
                name = info.filename.removesuffix(".npy")
                if keys is not None and name not in keys:
                    continue
                if name == info.filename:
                    raise Unreadable(f"{repr(name)[:80]} is no array")
                with open_member(archive, info, budget) as member:
                    _check_header(member, info.file_size, repr(name)[:80])
                with archive.open(info) as member:
                    arrays[name] = np.lib.format.read_array(member, allow_pickle=False)
        return arrays


def read_npy(path: str | os.PathLike[str]) -> np.ndarray:
    """The array of an npy. Pickled objects are not read."""
    with unpacking(), open(path, "rb") as file:
        _check_header(file, os.path.getsize(path), repr(Path(path).name)[:80])
        file.seek(0)
        return np.lib.format.read_array(file, allow_pickle=False)


def read_json(path: str | os.PathLike[str]) -> Any:
    """The content of a JSON file in UTF-8. Raises Unreadable, also about one that is nested too deep for Python."""
    with unpacking():
        try:
            return json.loads(Path(path).read_bytes().decode("utf-8-sig"))
        except RecursionError as error:
            raise Unreadable("it is nested too deep") from error


def _check_header(file: Any, size: int, name: str) -> None:
    """Raise Unreadable unless the array that a header promises is there; ``size``: the bytes of header and numbers."""
    version = np.lib.format.read_magic(file)
    readers = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    if version not in readers:
        raise Unreadable(f"{name} is an array of named fields")
    shape, _, dtype = readers[version](file)
    if dtype.hasobject:
        raise Unreadable(f"{name} holds Python objects, which are not read")
    asked, there = math.prod(shape) * dtype.itemsize, size - file.tell()
    if min(shape, default=0) < 0:
        raise Unreadable(f"the array {name} has the shape {shape} by its header")
    if asked > there:
        raise Unreadable(f"the array {name} takes {_bytes(asked)} by its header; the file has {_bytes(there)} of it")


def read_idx(path: str | os.PathLike[str]) -> np.ndarray:
    """A gzipped idx file of bytes: two zeros, 8 for bytes, the number of axes, their lengths, the bytes."""
    with unpacking(), gzip.open(path) as file:
        head = file.read(4)
        axes = head[3] if head[:3] == b"\0\0\x08" and len(head) == 4 else 0
        lengths = file.read(4 * axes)
        if not axes or len(lengths) != 4 * axes:
            raise Unreadable("it is no idx file of bytes")
        shape = struct.unpack(f">{axes}I", lengths)
        count = math.prod(shape)
        Budget(os.path.getsize(path)).take(count, f"an array {shape}")
        raw = file.read(count + 1)  # one more: to see that the file ends there
        if len(raw) != count:
            raise Unreadable(f"it holds another number of bytes than {count}, as its header says")
        return np.frombuffer(raw, np.uint8).reshape(shape)
