"""Reading torch weight files without torch, and without running anything a file may ask for.

A ``.pth`` of torch >= 1.6 is a zip of raw storages and one pickle that arranges them; an older one is five pickles, the
fourth of which arranges storages that follow the last. A pickle may call any function; the reader here knows the few
that rebuild tensors in dictionaries, and refuses the file for any other.
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
LEGACY_MAGIC, LEGACY_PROTOCOL = 0x1950A86A20F9469CFC6C, 1001  # how a file of torch < 1.6 begins
NESTED = ("state_dict", "model_state_dict", "model")  # where training scripts put the weights of a checkpoint


def load_state_dict(path: str | os.PathLike[str]) -> dict[str, np.ndarray]:
    """The tensors of a weights file by key.

    Args:
      path: ``.safetensors`` (needs the extra ``weights``), ``.pth``, ``.pt`` or ``.th`` as written by ``torch.save``
        (torch is not needed), or ``.npz``. Checkpoints that hold the weights under "state_dict" or
        "model" are looked into.

    Raises:
      ValueError: the file is missing, truncated or corrupt, of an unknown kind, or holds anything but tensors in
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
        raise BadArgument(
            "path", "be a complete .safetensors file", hint=f"{path} is truncated or corrupt: {error}"
        ) from error


class _Storage(NamedTuple):
    data: np.ndarray  # [numel]


class _Refused(Exception):
    """The pickle asks for something a weights file does not need."""


def _rebuild_tensor(storage: Any, offset: Any, size: Any, stride: Any, *_: Any) -> np.ndarray:
    """``torch._utils._rebuild_tensor_v2``: a strided view, here copied out of its storage after a bounds check."""
    numbers = (offset, *size, *stride)
    if not isinstance(storage, _Storage) or not all(type(n) is int and n >= 0 for n in numbers):
        raise _Refused("a tensor that is not made of a storage and non-negative sizes")
    if len(size) != len(stride):
        raise _Refused("a tensor with unequal numbers of sizes and strides")
    data = storage.data
    last = offset + sum((n - 1) * s for n, s in zip(size, stride, strict=True))
    if math.prod(size) and (last >= data.size or math.prod(size) > data.size):
        raise _Refused(f"a tensor of shape {tuple(size)} that does not fit its storage of {data.size} numbers")
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


class _Unpickler(pickle.Unpickler):
    """Knows ``ALLOWED`` and storages, nothing else. fetch: the numbers of a storage, by its key, kind and count."""

    def __init__(self, file: Any, fetch: Callable[[str, str, int], np.ndarray] | None = None) -> None:
        super().__init__(file)
        self.fetch = fetch
        self.storages: dict[str, _Storage] = {}

    def find_class(self, module_name: str, global_name: str) -> Any:
        try:
            return ALLOWED[module_name, global_name]
        except KeyError:
            raise _Refused(f"{module_name}.{global_name}") from None

    def persistent_load(self, pid: Any) -> _Storage:
        match pid:
            # The old format has a sixth entry: a view of a storage within another one, or None.
            case ("storage", str(kind), str(key), _, int(count), *views) if kind in DTYPES and views in ([], [None]):
                if key not in self.storages and self.fetch is not None:
                    self.storages[key] = _Storage(self.fetch(key, kind, count))
                if key in self.storages and self.storages[key].data.size == count:
                    return self.storages[key]
        raise _Refused(f"a stored object that is no tensor: {str(pid)[:80]}")


def _torch(path: Path) -> dict[str, np.ndarray]:
    with open(path, "rb") as file:
        old = file.read(1) == b"\x80"  # a pickle begins so
    try:
        found = _legacy(path) if old else _zip(path)
    except _Refused as error:
        raise BadArgument(
            "path", "hold nothing but tensors in dictionaries (save model.state_dict())", hint=f"{path} has {error}"
        ) from error
    except Exception as error:  # a damaged pickle can raise anything
        raise BadArgument(
            "path", "be a complete file of torch.save", hint=f"{path} is truncated or corrupt: {error}"
        ) from error
    return _tensors(found, path)


def _member(archive: zipfile.ZipFile, name: str) -> bytes:
    if archive.getinfo(name).compress_type != zipfile.ZIP_STORED:
        # torch never compresses; so a small file cannot unpack to one that fills the memory.
        raise _Refused(f"a compressed member {name}")
    return archive.read(name)


def _zip(path: Path) -> Any:
    """What a file of torch >= 1.6 holds."""
    with zipfile.ZipFile(path) as archive:
        pickles = [name for name in archive.namelist() if name.rpartition("/")[2] == "data.pkl"]
        if len(pickles) != 1:
            raise _Refused("no data.pkl: not written by torch.save")
        root = pickles[0].removesuffix("data.pkl")
        if f"{root}byteorder" in archive.namelist() and _member(archive, f"{root}byteorder") != b"little":
            raise _Refused("numbers in big-endian order")

        def fetch(key: str, kind: str, count: int) -> np.ndarray:
            raw, dtype = _member(archive, f"{root}data/{key}"), np.dtype(DTYPES[kind])
            if len(raw) != count * dtype.itemsize:
                raise _Refused(f"a storage {key} of {len(raw)} bytes in the place of {count * dtype.itemsize}")
            return np.frombuffer(raw, dtype)

        return _Unpickler(io.BytesIO(_member(archive, pickles[0])), fetch).load()


def _legacy(path: Path) -> Any:
    """What a file of torch < 1.6 holds: pickles of a magic number, the protocol, the machine, the object and the order
    of its storages; then of each storage the count (int64) and the numbers."""
    with open(path, "rb") as file:
        if _Unpickler(file).load() != LEGACY_MAGIC or _Unpickler(file).load() != LEGACY_PROTOCOL:
            raise _Refused("another pickle than torch.save writes")
        machine = _Unpickler(file).load()
        if not isinstance(machine, dict) or machine.get("little_endian") is not True:
            raise _Refused("numbers in big-endian order")
        begin = file.tell()
        # The object comes before the numbers its tensors are views of: read once for the sizes of the storages, with
        # zeros in their place, and again when they are there.
        sizes: dict[str, tuple[str, int]] = {}

        def note(key: str, kind: str, count: int) -> np.ndarray:
            sizes[key] = (kind, count)
            if sum(n * np.dtype(DTYPES[k]).itemsize for k, n in sizes.values()) > path.stat().st_size:
                raise _Refused(f"a storage {key} of {count} numbers, more than the file holds")
            return np.zeros(count, DTYPES[kind])

        _Unpickler(file, note).load()
        order = _Unpickler(file).load()
        if not isinstance(order, list) or sorted(order) != sorted(sizes):
            raise _Refused("other storages than its tensors have")
        data: dict[str, np.ndarray] = {}
        for key in order:
            kind, count = sizes[key]
            dtype = np.dtype(DTYPES[kind])
            written, raw = file.read(8), file.read(count * dtype.itemsize)
            if int.from_bytes(written, "little") != count or len(raw) != count * dtype.itemsize:
                raise _Refused(f"a storage {key} of other than {count} numbers")
            data[key] = np.frombuffer(raw, dtype)
        file.seek(begin)
        return _Unpickler(file, lambda key, kind, count: data[key]).load()


def _tensors(found: Any, path: Path) -> dict[str, np.ndarray]:
    for key in NESTED:
        if isinstance(found, Mapping) and isinstance(found.get(key), Mapping):
            found = found[key]
            break
    if not isinstance(found, Mapping) or not found:
        raise BadArgument("path", "hold a state dict", hint=f"{path} holds {type(found).__name__}")
    for key, value in found.items():
        if not isinstance(key, str) or not isinstance(value, np.ndarray):
            raise BadArgument(
                "path",
                "hold a state dict (names and tensors)",
                hint=f"in {path} entry {key!r} is {type(value).__name__}",
            )
    return dict(found)
