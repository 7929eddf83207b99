"""Reading torch weight files without torch, and without running code that a file asks for.

A ``.pth`` of torch >= 1.6 is a zip of raw storages and one pickle that arranges them. An older file is five pickles, of
which the fourth arranges the storages that follow the last. A pickle may call any function. This reader knows only the
few that rebuild tensors in dictionaries and refuses a file that calls another.
"""

from __future__ import annotations

import io
import math
import os
import pickle
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from invjax.core.errors import BadArgument, Words
from invjax.models.params_file import load_arrays

DTYPES: dict[str, Any] = {
    "FloatStorage": np.float32,
    "DoubleStorage": np.float64,
    "HalfStorage": np.float16,
    "BFloat16Storage": jnp.bfloat16,
    "LongStorage": np.int64,
    "IntStorage": np.int32,
    "ShortStorage": np.int16,
    "CharStorage": np.int8,
    "ByteStorage": np.uint8,
    "BoolStorage": np.bool_,
}
LEGACY_MAGIC, LEGACY_PROTOCOL = 0x1950A86A20F9469CFC6C, 1001  # the beginning of a file of torch < 1.6
NESTED = ("state_dict", "model_state_dict", "model")  # where training scripts put the weights of a checkpoint


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
    if not path.is_file():
        raise BadArgument("path", "be an existing weights file", hint=f"there is no file {path}")
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
    except (SafetensorError, OSError, KeyError) as error:
        hint = f"{path} is truncated or corrupt: {error}"
        raise BadArgument("path", "be a complete .safetensors file", hint=hint) from error


class _Storage(NamedTuple):
    data: np.ndarray  # [numel]


class RefusedPickle(Exception):
    """The pickle asks for something that a weights file does not need."""


def _rebuild_tensor(storage: Any, offset: Any, size: Any, stride: Any, *_: Any) -> np.ndarray:
    """``torch._utils._rebuild_tensor_v2``: a strided view, copied out of its storage after a bounds check."""
    numbers = (offset, *size, *stride)
    if not isinstance(storage, _Storage) or not all(type(n) is int and n >= 0 for n in numbers):
        raise RefusedPickle("a tensor that is not made of a storage and non-negative sizes")
    if len(size) != len(stride):
        raise RefusedPickle("a tensor with unequal numbers of sizes and strides")
    data = storage.data
    last = offset + sum((n - 1) * s for n, s in zip(size, stride, strict=True))
    if math.prod(size) and (last >= data.size or math.prod(size) > data.size):
        raise RefusedPickle(f"a tensor of shape {tuple(size)} that does not fit its storage of {data.size} numbers")
    if not math.prod(size):
        return np.empty(size, data.dtype)
    view = np.lib.stride_tricks.as_strided(data[offset:], tuple(size), tuple(s * data.itemsize for s in stride))
    return view.copy()


def _rebuild_parameter(data: Any, *_: Any) -> Any:
    return data


ALLOWED: dict[tuple[str, str], Any] = {
    ("collections", "OrderedDict"): OrderedDict,
    ("torch._utils", "_rebuild_tensor_v2"): _rebuild_tensor,
    ("torch._utils", "_rebuild_parameter"): _rebuild_parameter,
    **{("torch", name): name for name in DTYPES},
}


class WeightsUnpickler(pickle.Unpickler):
    """Knows ``ALLOWED`` and storages, nothing else. fetch: (key, kind, count) of a storage -> its numbers."""

    def __init__(self, file: Any, fetch: Callable[[str, str, int], np.ndarray] | None = None) -> None:
        super().__init__(file)
        self.fetch = fetch
        self.storages: dict[str, _Storage] = {}

    def find_class(self, module_name: str, global_name: str) -> Any:
        try:
            return ALLOWED[module_name, global_name]
        except KeyError:
            raise RefusedPickle(f"{module_name}.{global_name}") from None

    def persistent_load(self, pid: Any) -> _Storage:
        match pid:
            # The old format has a sixth entry: a view of a storage within another one, or None.
            case ("storage", str(kind), str(key), _, int(count), *views) if kind in DTYPES and views in ([], [None]):
                if key not in self.storages and self.fetch is not None:
                    self.storages[key] = _Storage(self.fetch(key, kind, count))
                if key in self.storages and self.storages[key].data.size == count:
                    return self.storages[key]
        raise RefusedPickle(f"a stored object that is no tensor: {str(pid)[:80]}")


def _torch(path: Path) -> dict[str, np.ndarray]:
    with open(path, "rb") as file:
        old = file.read(1) == b"\x80"  # the first byte of a pickle
    try:
        found = _legacy(path) if old else _zip(path)
    except RefusedPickle as error:
        wanted = "hold nothing but tensors in dictionaries (save model.state_dict())"
        raise BadArgument("path", wanted, hint=f"{path} has {error}") from error
    except Exception as error:  # a damaged pickle can raise anything
        hint = f"{path} is truncated or corrupt: {error}"
        raise BadArgument("path", "be a complete file of torch.save", hint=hint) from error
    return _tensors(found, path)


def _member(archive: zipfile.ZipFile, name: str) -> bytes:
    if archive.getinfo(name).compress_type != zipfile.ZIP_STORED:
        # torch never compresses. Without compression a small file cannot unpack to one that fills the memory.
        raise RefusedPickle(f"a compressed member {name}")
    return archive.read(name)


def _zip(path: Path) -> Any:
    """The object in a file of torch >= 1.6."""
    with zipfile.ZipFile(path) as archive:
        pickles = [name for name in archive.namelist() if name.rpartition("/")[2] == "data.pkl"]
        if len(pickles) != 1:
            raise RefusedPickle("no data.pkl: not written by torch.save")
        root = pickles[0].removesuffix("data.pkl")
        if f"{root}byteorder" in archive.namelist() and _member(archive, f"{root}byteorder") != b"little":
            raise RefusedPickle("numbers in big-endian order")

        def fetch(key: str, kind: str, count: int) -> np.ndarray:
            raw, dtype = _member(archive, f"{root}data/{key}"), np.dtype(DTYPES[kind])
            if len(raw) != count * dtype.itemsize:
                raise RefusedPickle(f"a storage {key} of {len(raw)} bytes instead of {count * dtype.itemsize}")
            return np.frombuffer(raw, dtype)

        return WeightsUnpickler(io.BytesIO(_member(archive, pickles[0])), fetch).load()


def _legacy(path: Path) -> Any:
    """The object in a file of torch < 1.6. It holds pickles of a magic number, the protocol, the machine, the object
    and the order of its storages, and then for each storage its count (int64) and its numbers."""
    with open(path, "rb") as file:
        if WeightsUnpickler(file).load() != LEGACY_MAGIC or WeightsUnpickler(file).load() != LEGACY_PROTOCOL:
            raise RefusedPickle("a pickle that torch.save did not write")
        machine = WeightsUnpickler(file).load()
        if not isinstance(machine, dict) or machine.get("little_endian") is not True:
            raise RefusedPickle("numbers in big-endian order")
        begin = file.tell()
        # The object comes before the numbers that its tensors view. So it is read twice: first with zeros, for the
        # sizes of the storages, and again with their numbers.
        sizes: dict[str, tuple[str, int]] = {}

        def note(key: str, kind: str, count: int) -> np.ndarray:
            sizes[key] = (kind, count)
            if sum(n * np.dtype(DTYPES[k]).itemsize for k, n in sizes.values()) > path.stat().st_size:
                raise RefusedPickle(f"a storage {key} of {count} numbers, more than the file holds")
            return np.zeros(count, DTYPES[kind])

        WeightsUnpickler(file, note).load()
        order = WeightsUnpickler(file).load()
        if not isinstance(order, list) or sorted(order) != sorted(sizes):
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
        return WeightsUnpickler(file, lambda key, kind, count: data[key]).load()


def _tensors(found: Any, path: Path) -> dict[str, np.ndarray]:
    for key in NESTED:
        if isinstance(found, Mapping) and isinstance(found.get(key), Mapping):
            found = found[key]
            break
    if not isinstance(found, Mapping) or not found:
        raise BadArgument("path", "hold a state dict", hint=f"{path} holds {type(found).__name__}")
    for key, value in found.items():
        if not isinstance(key, str) or not isinstance(value, np.ndarray):
            hint = f"in {path} entry {key!r} is {type(value).__name__}"
            raise BadArgument("path", "hold a state dict (names and tensors)", hint=hint)
    return dict(found)
