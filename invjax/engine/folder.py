"""Where a killed run is resumed: finished examples are on disk, and a second call solves only the others.

A run's folder holds ``manifest.json`` (hashes of the method, its numbers, the weights and the inputs) and part files
``p{process}-{number}-{pid}.npz``, each written under a temporary name and then renamed, so that a file is whole or
absent. A folder that holds another run is refused. Of several processes each writes into a folder of its own,
``p{process}/`` below it; a later run reads them all, whatever the number of its processes.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import time
import zipfile
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from io import BytesIO
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from invjax.core.errors import BadArgument, Words
from invjax.core.files import write_atomic
from invjax.types import Config, Method, Problem, Result

FORMAT = 1
PART_BYTES = 64 * 2**20  # a part is written before its arrays take much more than this
_FIELDS = Result._fields
_BLOCK = 16 * 2**20  # bytes that are hashed at once: an array on disk never stands in memory


def digest(tree: Any) -> str:
    """SHA-256 of all leaves of a pytree: values, shapes, dtypes (not of functions, which have no stable hash)."""
    sha = hashlib.sha256()
    for leaf in jax.tree.leaves(tree):
        if isinstance(leaf, jax.Array) and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            leaf = jax.random.key_data(leaf)
        leaf = np.asarray(leaf)
        sha.update(f"{leaf.dtype.str}{leaf.shape}".encode())
        rows = leaf if leaf.ndim else leaf[None]
        each = max(1, _BLOCK * len(rows) // max(1, rows.nbytes))
        for begin in range(0, len(rows), each):
            sha.update(np.ascontiguousarray(rows[begin : begin + each]).data)
    return sha.hexdigest()[:32]


def describe(config: Config) -> dict[str, Any]:
    """The config's fields as they stand in the manifest."""

    def plain(value: Any) -> Any:
        if isinstance(value, str | bool) or value is None:
            return value
        if dataclasses.is_dataclass(value) and not isinstance(value, type):  # a penalty, a distance
            return {"class": type(value).__name__, **describe(value)}
        if callable(value):
            return getattr(value, "__qualname__", type(value).__name__)
        return np.asarray(value).tolist()

    return {field.name: plain(getattr(config, field.name)) for field in dataclasses.fields(config)}


def describe_evaluator(evaluator: Any) -> str:
    """The evaluator in the manifest: its name, or with its options where it has any."""
    if dataclasses.is_dataclass(evaluator):
        return repr(evaluator)
    return getattr(evaluator, "__qualname__", type(evaluator).__name__)


def make_manifest(
    logits: Any, problems: Problem, config: Config, method: Method, key: Any, name: str, evaluator: Any
) -> dict:
    """What makes two runs the same run. ``name`` says which network it is: its structure cannot be hashed."""
    return {
        "format": FORMAT,
        "method": method.name,
        "evaluator": describe_evaluator(evaluator),
        "config": {"class": type(config).__name__, **describe(config)},
        "model": name,
        "weights": digest(logits),
        "inputs": digest((problems, key)),
        "examples": int(problems.label.shape[0]),
    }


def packed(arrays: dict[str, np.ndarray]) -> bytes:
    """The bytes of an npz, deflated at the fastest level: numpy's own takes four times as long and saves 4 % more."""
    buffer = BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for name, array in arrays.items():
            with archive.open(f"{name}.npy", "w") as member:
                np.lib.format.write_array(member, array, allow_pickle=False)
    return buffer.getvalue()


def as_folder(name: str, value: Any) -> Path:
    """``value`` as a path. Raises BadArgument about ``name`` for anything else."""
    if not isinstance(value, str | os.PathLike):
        raise BadArgument(name, "be the path of a folder", value)
    return Path(value)


def bytes_of(result: Result) -> int:
    """What its arrays take."""
    return sum(field.nbytes for field in result)


def part_paths(folder: str | Path) -> list[Path]:
    """The part files of a run: those beside the manifest, and those in the folders of processes."""
    return sorted(path for pattern in ("p*-*.npz", "p*/p*-*.npz") for path in Path(folder).glob(pattern))


def _write_part(path: Path, rows: list[tuple[np.ndarray, Result]]) -> None:
    index = np.concatenate([index for index, _ in rows])
    fields = [np.concatenate([result[i] for _, result in rows]) for i in range(len(_FIELDS))]
    write_atomic(path, packed({"index": index, **dict(zip(_FIELDS, fields, strict=True))}))


def read_index(path: Path, examples: int) -> np.ndarray | None:
    """The rows that a part file answers [n]; None where it is no part of a list of ``examples``."""
    try:
        with open(path, "rb") as raw, np.load(raw) as file:
            index = file["index"]
        return index if index.ndim == 1 and bool(np.all((index >= 0) & (index < examples))) else None
    except Exception:  # damaged bytes fail in many ways: bad zip, bad deflate, bad header, missing field
        return None


def read_part(path: Path, examples: int, fields: tuple[str, ...] = _FIELDS) -> tuple[np.ndarray, Result] | None:
    """The rows of one part file; None where it is not a whole part of a list of ``examples``.

    fields: those that are read; the others are None.
    """
    index = read_index(path, examples)
    if index is None:
        return None
    try:
        with open(path, "rb") as raw, np.load(raw) as file:
            result = Result(*(file[name] if name in fields else None for name in _FIELDS))
    except Exception:  # as above
        return None
    return (index, result) if all(len(field) == len(index) for field in result if field is not None) else None


def each_part(
    paths: list[Path], examples: int, fields: tuple[str, ...] = _FIELDS
) -> Iterator[tuple[np.ndarray, Result]]:
    """The parts, one in memory at a time, and every row once. Damaged files are left out."""
    seen = np.zeros(examples, bool)
    for path in paths:
        part = read_part(path, examples, fields)
        if part is None:
            continue
        index, result = part
        new = np.zeros(len(index), bool)
        new[np.unique(index, return_index=True)[1]] = True
        new &= ~seen[index]
        seen[index] = True
        if new.all():
            yield index, result
        elif new.any():
            yield index[new], Result(*(None if field is None else field[new] for field in result))


def count_saved(folder: str | Path) -> int:
    """How many examples the part files of ``folder`` hold, each counted once. Damaged files hold none."""
    most = np.iinfo(np.int64).max
    rows = [index for path in part_paths(folder) if (index := read_index(path, most)) is not None]
    return len(np.unique(np.concatenate(rows))) if rows else 0


def open_folder(folder: Path, manifest: dict, argument: str = "out") -> None:
    """Make ``folder`` that of the run with this manifest, or check that it is.

    Raises:
      ValueError: it cannot be written, or holds another run; naming ``argument`` and in what the runs differ.
    """
    path = folder / "manifest.json"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if path.exists():
            saved = json.loads(path.read_text())
        else:
            write_atomic(path, json.dumps(manifest, indent=2).encode())
            saved = manifest
    except (OSError, json.JSONDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else f"manifest.json is not JSON ({error})"
        raise BadArgument(argument, "be a folder that can be written", Words(f"{str(folder)!r}: {reason}")) from error
    if not isinstance(saved, dict):
        raise BadArgument(
            argument, "be a folder that can be written", Words(f"{str(folder)!r}: manifest.json is not a run's")
        )
    differs = [name for name in manifest if saved.get(name) != manifest[name]]
    if differs:
        raise BadArgument(
            argument,
            "be a new folder or one of the same run",
            hint=f"{str(folder)!r} holds a run with another {', '.join(differs)}",
        )
    if not os.access(folder, os.W_OK):
        raise BadArgument(argument, "be a folder that can be written", str(folder))


class RunFolder:
    """The saved parts of one run."""

    def __init__(
        self, folder: str | Path, manifest: dict, process: int = 0, processes: int = 1, every: float = 10.0
    ) -> None:
        """Open or create ``folder``. every: seconds between part files; with 0 the run waits for each to be written."""
        self.folder, self.every = as_folder("out", folder), every
        self.examples = int(manifest["examples"])
        self._stem = f"p{process}"
        self._own = self.folder if processes == 1 else self.folder / self._stem
        self._waiting: list[tuple[np.ndarray, Result]] = []
        self._bytes = 0
        self._last = time.monotonic()
        self._writer = ThreadPoolExecutor(1, "invjax-parts")  # deflating takes as long as solving on a fast device
        self._writing: Future[None] | None = None
        open_folder(self.folder, manifest)
        self._own.mkdir(exist_ok=True)
        numbers = [int(path.stem.split("-")[1]) for path in self._own.glob(f"{self._stem}-*.npz")]
        self._number = max(numbers, default=-1) + 1

    def keep_lanes(self, lanes: int, chosen: bool, devices: int = 1) -> int:
        """Write the number of lanes into the manifest; one that was chosen gives way to the number that is there.

        devices: those that share the lanes. The number that is there was chosen for as many, or it is not taken.
        """
        path = self.folder / "manifest.json"
        saved = json.loads(path.read_text())
        if chosen and "lanes" in saved and saved.get("devices", 1) == devices:
            return int(saved["lanes"])
        now = {**saved, "lanes": lanes, "devices": devices}
        if saved != now:
            write_atomic(path, json.dumps(now, indent=2).encode())
        return lanes

    def add(self, index: np.ndarray, result: Result) -> None:
        """Keep some rows. They reach the disk when ``due``, or at :meth:`flush`."""
        self._waiting.append((index, result))
        self._bytes += bytes_of(result)
        if self.due:
            self.flush()

    @property
    def due(self) -> bool:
        """Whether the next rows that are added are written at once: ``every`` seconds are over, or many bytes wait."""
        return time.monotonic() - self._last >= self.every or self._bytes >= PART_BYTES

    def flush(self) -> None:
        """Have what is waiting written, beside the run; first wait for the part before it, and raise what that met."""
        self._wait()
        if self._waiting:
            # The process id keeps two runs apart that someone starts in one folder at the same time.
            path = self._own / f"{self._stem}-{self._number:06d}-{os.getpid()}.npz"
            self._writing = self._writer.submit(_write_part, path, self._waiting)
            self._number, self._bytes, self._waiting = self._number + 1, 0, []
            if self.every <= 0:
                self._wait()
        self._last = time.monotonic()

    def close(self) -> None:
        """Write what is waiting, to the end."""
        try:
            self.flush()
            self._wait()
        finally:
            self._writer.shutdown()

    def _wait(self) -> None:
        writing, self._writing = self._writing, None
        if writing is not None:
            writing.result()

    def parts(self) -> Iterator[tuple[np.ndarray, Result]]:
        """All saved rows ``(index [n], Result [n])``, a part at a time and each row once."""
        return each_part(part_paths(self.folder), self.examples)
