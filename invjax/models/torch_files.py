"""Weight files: of torch, read without torch and without running code that a file asks for; safetensors; npz.

A ``.pth`` of torch >= 1.6 is a zip of raw storages and one pickle that arranges them
(:mod:`invjax.models.torch_pickle`). An older file is five pickles, of which the fourth arranges the storages that
follow the last.
"""

from __future__ import annotations

import io
import mmap
import os
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from invjax.core.arguments import kinds_checked
from invjax.core.errors import BadArgument, Words
from invjax.core.files import no_file
from invjax.core.unpack import Budget, Unreadable, one_line, read_member
from invjax.models.params_file import load_arrays
from invjax.models.torch_pickle import DTYPES, RefusedPickle, WeightsUnpickler

LEGACY_MAGIC, LEGACY_PROTOCOL = 0x1950A86A20F9469CFC6C, 1001  # the beginning of a file of torch < 1.6
NESTED = ("state_dict", "model_state_dict", "model")  # where training scripts put the weights of a checkpoint


@kinds_checked
def load_state_dict(path: str | os.PathLike[str]) -> dict[str, np.ndarray]:
    """The tensors of a weights file by key.

    Args:
      path: ``.safetensors`` (needs the extra ``weights``), ``.pth``, ``.pt`` or ``.th`` as written by ``torch.save``
        (torch is not needed), or ``.npz``. Weights may also be nested under "state_dict" or "model".

    Raises:
      ValueError: the file is missing, truncated, corrupt or of an unknown kind, or holds anything but tensors in
        dictionaries.
      ImportError: safetensors is not installed.
    """
    path = Path(path)
    if not os.path.isfile(path):
        raise no_file("path", "be an existing weights file", path)
    readers = {".safetensors": _safetensors, ".pth": _torch, ".pt": _torch, ".th": _torch, ".npz": load_arrays}
    if path.suffix not in readers:
        raise BadArgument("path", f"end in one of {', '.join(readers)}", Words(path.name))
    return readers[path.suffix](path)


def _safetensors(path: Path) -> dict[str, np.ndarray]:
    try:
        from safetensors import SafetensorError
        from safetensors.numpy import load_file
    except ImportError:
        raise ImportError("reading .safetensors needs safetensors: pip install 'invjax[weights]'") from None
    try:
        return load_file(path)
    except (AttributeError, KeyError) as error:  # float8, float4: NumPy has no such type
        hint = f"{path} has others ({one_line(error)}): save them as float32 or bfloat16"
        raise BadArgument("path", "hold numbers of types that NumPy knows", hint=hint) from error
    except (SafetensorError, OSError) as error:
        hint = f"{path} is truncated or corrupt: {one_line(error)}"
        raise BadArgument("path", "be a complete .safetensors file", hint=hint) from error


def _torch(path: Path) -> dict[str, np.ndarray]:
    with open(path, "rb") as file:
        old = file.read(1) == b"\x80"  # the first byte of a pickle
    try:
        found = _legacy(path) if old else _zip(path)
    except RefusedPickle as error:
        wanted = "hold nothing but tensors in dictionaries (save model.state_dict())"
        raise BadArgument("path", wanted, hint=f"{path} has {error}") from error
    except Exception as error:  # a damaged pickle can raise anything
        damage = "" if isinstance(error, Unreadable) else "truncated or corrupt: "
        hint = f"{path}: {damage}{one_line(error)}"
        raise BadArgument("path", "be a complete file of torch.save", hint=hint) from error
    return _tensors(found, path)


def _member(archive: zipfile.ZipFile, name: str, budget: Budget) -> bytes:
    if archive.getinfo(name).compress_type != zipfile.ZIP_STORED:
        # torch never compresses. Without compression a small file cannot unpack to one that fills the memory.
        raise RefusedPickle(f"a compressed member {name}")
    return read_member(archive, name, budget)


def _zip(path: Path) -> Any:
    """The object in a file of torch >= 1.6."""
    size = path.stat().st_size
    stored, tensors = Budget(size), Budget(size)  # members of a zip may overlap, and so may tensors of a storage
    with zipfile.ZipFile(path) as archive:
        pickles = [name for name in archive.namelist() if name.rpartition("/")[2] == "data.pkl"]
        if len(pickles) != 1:
            raise RefusedPickle("no data.pkl: not written by torch.save")
        root = pickles[0].removesuffix("data.pkl")
        if f"{root}byteorder" in archive.namelist() and _member(archive, f"{root}byteorder", stored) != b"little":
            raise RefusedPickle("numbers in big-endian order")

        def fetch(key: str, kind: str, count: int) -> np.ndarray:
            raw, dtype = _member(archive, f"{root}data/{key}", stored), np.dtype(DTYPES[kind])
            if len(raw) != count * dtype.itemsize:
                raise RefusedPickle(f"a storage {key} of {len(raw)} bytes instead of {count * dtype.itemsize}")
            return np.frombuffer(raw, dtype)

        content = io.BytesIO(_member(archive, pickles[0], stored))
        return WeightsUnpickler(content, fetch, tensors).load()


def _legacy(path: Path) -> Any:
    """The object in a file of torch < 1.6. It holds pickles of a magic number, the protocol, the machine, the object
    and the order of its storages, and then for each storage its count (int64) and its numbers."""
    with (
        open(path, "rb") as raw_file,
        # A map reads no further than its end. A file would allocate whatever size a damaged pickle asks for.
        mmap.mmap(raw_file.fileno(), 0, access=mmap.ACCESS_READ) as file,
    ):
        if WeightsUnpickler(file).load() != LEGACY_MAGIC or WeightsUnpickler(file).load() != LEGACY_PROTOCOL:
            raise RefusedPickle("a pickle that torch.save did not write")
        machine = WeightsUnpickler(file).load()
        if not isinstance(machine, dict) or machine.get("little_endian") is not True:
            raise RefusedPickle("numbers in big-endian order")
        begin = file.tell()
        # The object comes before the numbers that its tensors view. So it is read twice: first with zeros, for the
        # sizes of the storages, and again with their numbers.
        sizes: dict[str, tuple[str, int]] = {}
        left = size = path.stat().st_size

        def note(key: str, kind: str, count: int) -> np.ndarray:
            nonlocal left
            sizes[key] = (kind, count)
            left -= count * np.dtype(DTYPES[kind]).itemsize
            if count < 0 or left < 0:
                raise RefusedPickle(f"a storage {key} of {count} numbers, more than the file holds")
            return np.zeros(count, DTYPES[kind])

        WeightsUnpickler(file, note, Budget(size)).load()
        order = WeightsUnpickler(file).load()
        if not isinstance(order, list) or not all(type(key) is str for key in order) or sorted(order) != sorted(sizes):
            raise RefusedPickle("storages that do not belong to its tensors")
        data: dict[str, np.ndarray] = {}
        for key in order:
            kind, count = sizes[key]
            dtype = np.dtype(DTYPES[kind])
            written, raw = file.read(8), file.read(count * dtype.itemsize)
            if int.from_bytes(written, "little") != count or len(raw) != count * dtype.itemsize:
                raise RefusedPickle(f"a storage {key} without its {count} numbers")
            data[key] = np.frombuffer(raw, dtype)
        file.seek(begin)
        return WeightsUnpickler(file, lambda key, kind, count: data[key], Budget(size)).load()


def _tensors(found: Any, path: Path) -> dict[str, np.ndarray]:
    for key in NESTED:
        if isinstance(found, Mapping) and isinstance(found.get(key), Mapping):
            found = found[key]
            break
    if not isinstance(found, Mapping) or not found:
        raise BadArgument("path", "hold a state dict", hint=f"{path} holds {type(found).__name__}")
    for key, value in found.items():
        if not isinstance(key, str) or not isinstance(value, np.ndarray):
            hint = f"in {path} entry {repr(key)[:80]} is {type(value).__name__}"
            raise BadArgument("path", "hold a state dict (names and tensors)", hint=hint)
    return dict(found)
