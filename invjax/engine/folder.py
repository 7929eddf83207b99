"""Where a killed run is resumed: finished examples are on disk, and a second call solves only the others.

A run's folder holds ``manifest.json`` (hashes of the method, its numbers, the weights and the inputs) and part files
``p{process}-{number}-{pid}.npz``, each written under a temporary name and then renamed, so that a file is whole or
absent. A folder that holds another run is refused. Several processes write side by side; each solves its share.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import os
import time
import zipfile
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
_FIELDS = Result._fields
_PARTS = "p*-*.npz"


def digest(tree: Any) -> str:
    """SHA-256 of all leaves of a pytree: values, shapes, dtypes (not of functions, which have no stable hash)."""
    sha = hashlib.sha256()
    for leaf in jax.tree.leaves(tree):
        if isinstance(leaf, jax.Array) and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            leaf = jax.random.key_data(leaf)
        leaf = np.asarray(leaf)
        sha.update(f"{leaf.dtype.str}{leaf.shape}".encode())
        sha.update(np.ascontiguousarray(leaf).data)
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


def read_part(path: Path, examples: int) -> tuple[np.ndarray, Result] | None:
    """The rows of one part file; None where the file is not a whole part of a list of ``examples``."""
    try:
        file = np.load(BytesIO(path.read_bytes()))
        index, result = file["index"], Result(*(file[name] for name in _FIELDS))
        whole = index.ndim == 1 and all(len(field) == len(index) for field in result)
        whole = whole and bool(np.all((index >= 0) & (index < examples)))
    except Exception:  # damaged bytes fail in many ways: bad zip, bad deflate, bad header, missing field
        return None
    return (index, result) if whole else None


def count_saved(folder: str | Path) -> int:
    """How many examples the part files of ``folder`` hold, each counted once. Damaged files hold none."""
    rows: list[np.ndarray] = []
    for path in Path(folder).glob(_PARTS):
        with contextlib.suppress(Exception), np.load(path) as file:  # damaged bytes fail in many ways
            rows.append(file["index"])
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

    def __init__(self, folder: str | Path, manifest: dict, process: int = 0, every: float = 10.0):
        """Open or create ``folder``. every: seconds between part files while results come in."""
        self.folder, self.process, self.every = Path(folder), process, every
        self.examples = int(manifest["examples"])
        self._waiting: list[tuple[np.ndarray, Result]] = []
        self._last = time.monotonic()
        open_folder(self.folder, manifest)
        numbers = [int(path.stem.split("-")[1]) for path in self._paths() if path.name.startswith(f"p{process}-")]
        self._number = max(numbers, default=-1) + 1

    def _paths(self) -> list[Path]:
        return sorted(self.folder.glob(_PARTS))

    def add(self, index: np.ndarray, result: Result) -> None:
        """Keep some rows; they reach the disk within ``every`` seconds of further rows, or at :meth:`flush`."""
        self._waiting.append((index, result))
        if self.due:
            self.flush()

    @property
    def due(self) -> bool:
        """Whether the next rows that are added are written at once."""
        return time.monotonic() - self._last >= self.every

    def flush(self) -> None:
        """Write what is waiting."""
        if self._waiting:
            index = np.concatenate([index for index, _ in self._waiting])
            fields = [np.concatenate([result[i] for _, result in self._waiting]) for i in range(len(_FIELDS))]
            data = packed({"index": index, **dict(zip(_FIELDS, fields, strict=True))})
            # The process id keeps two runs apart that someone starts in one folder at the same time.
            write_atomic(self.folder / f"p{self.process}-{self._number:06d}-{os.getpid()}.npz", data)
            self._number += 1
            self._waiting.clear()
        self._last = time.monotonic()

    def load(self) -> tuple[np.ndarray, Result] | None:
        """All saved rows ``(index [n], Result [n])``, each row once, or None. Damaged files are ignored."""
        parts = [part for path in self._paths() if (part := read_part(path, self.examples)) is not None]
        if not parts:
            return None
        index, first = np.unique(np.concatenate([index for index, _ in parts]), return_index=True)
        fields = (np.concatenate([result[i] for _, result in parts])[first] for i in range(len(_FIELDS)))
        return index, Result(*fields)
