"""The part files of a run: arrays with a checksum each, so that what was changed or cut is known for it.

A part is an npz with the rows ``index`` and the fields of a :class:`Result`, and ``checks``: a line per array with its
name, its dtype and its SHA-256, into which the hash of the run goes as well. Arrays of dtypes that numpy has no format
for (bfloat16) are stored as the bits they are.
"""

from __future__ import annotations

import dataclasses
import hashlib
import os
import re
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from io import BytesIO
from pathlib import Path
from typing import Any

import jax
import numpy as np

from invjax.core.errors import warn
from invjax.core.files import write_atomic
from invjax.core.identity import bytes_of_array
from invjax.types import Result

FIELDS = tuple(field.name for field in dataclasses.fields(Result))
# p{process}-{number}-{pid}-{random}.npz; earlier versions wrote fewer parts of the name.
_NAME = re.compile(r"p\d+-\d{6,}(-\d+(-[0-9a-f]+)?)?\.npz")
_PROCESS = re.compile(r"p\d+")
_BITS = {1: np.uint8, 2: np.uint16, 4: np.uint32, 8: np.uint64}


def _sum(run: str, name: str, array: np.ndarray) -> str:
    sha = hashlib.sha256(f"{run} {name} {array.dtype.name} {array.shape} ".encode())
    sha.update(bytes_of_array(array))
    return sha.hexdigest()


def packed(arrays: Mapping[str, np.ndarray], run: str = "") -> bytes:
    """The bytes of an npz with checksums, deflated at the fastest level: numpy's own takes four times as long and saves
    4 % more. run: the hash of the run, so that a part of another run is none of this one.
    """
    buffer = BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:

        def write(name: str, array: np.ndarray) -> None:
            with archive.open(f"{name}.npy", "w") as member:
                np.lib.format.write_array(member, array, allow_pickle=False)

        lines = []
        for name, array in arrays.items():
            array = np.asarray(array)
            lines.append(f"{name} {array.dtype.name} {_sum(run, name, array)}")
            foreign = array.dtype.isbuiltin == 2  # of ml_dtypes: numpy would write it as bytes without a meaning
            write(name, array.view(_BITS[array.dtype.itemsize]) if foreign else array)
        write("checks", np.array(lines, "S"))
    return buffer.getvalue()


def unpacked(path: Path, names: Iterable[str], run: str | None = "") -> dict[str, np.ndarray] | None:
    """The arrays ``names`` of a file that :func:`packed` made; None where one of them is not as it was written.

    run: as for ``packed``; None takes files of earlier versions, which have no checksums, as they are. Raises OSError
    where the file cannot be opened.
    """
    with open(path, "rb") as raw:
        try:
            with np.load(raw, allow_pickle=False) as file:
                if run is None:
                    return {name: file[name] for name in names}
                lines = (line.decode().split(" ") for line in file["checks"].tolist())
                checks = {name: (dtype, found) for name, dtype, found in lines}
                arrays = {}
                for name in names:
                    dtype, wanted = checks[name]
                    array = file[name]
                    arrays[name] = array if array.dtype.name == dtype else array.view(np.dtype(dtype))
                    if _sum(run, name, arrays[name]) != wanted:
                        return None
                return arrays
        except Exception:  # damaged bytes fail in many ways: bad zip, bad deflate, bad header, missing field
            return None


def set_aside(path: Path) -> None:
    """Give a damaged file another name, so that nothing reads it, and say so in a UserWarning."""
    aside = path.with_name(f"{path.name}.damaged")
    try:
        os.replace(path, aside)
    except FileNotFoundError:  # another process was faster
        return
    warn(f"{str(path)!r} was damaged: it is {aside.name!r} now, and what it held is computed again")


def part_paths(folder: str | Path) -> list[Path]:
    """The part files of a run: those beside the manifest, and those in the folders of processes. No other names."""
    folder = Path(folder)
    own = [folder, *(path for path in folder.glob("p*") if _PROCESS.fullmatch(path.name) and path.is_dir())]
    return sorted(path for one in own for path in one.glob("p*-*.npz") if _NAME.fullmatch(path.name))


def write_part(path: Path, rows: list[tuple[np.ndarray, Result]], run: str) -> None:
    index = np.concatenate([index for index, _ in rows])
    whole = jax.tree.map(lambda *fields: np.concatenate(fields), *(result for _, result in rows))
    write_atomic(path, packed({"index": index, **vars(whole)}, run))


def read_index(path: Path, examples: int, run: str | None) -> np.ndarray | None:
    """The rows that a part file answers [n]; None where it is no part of a list of ``examples``."""
    part = read_part(path, examples, run, ())
    return None if part is None else part[0]


def read_part(
    path: Path, examples: int, run: str | None, fields: tuple[str, ...] = FIELDS
) -> tuple[np.ndarray, Result] | None:
    """The rows of one part file; None where it is not a whole part of the run, or has gone.

    fields: those that are read and checked; the others are None.
    """
    try:
        arrays = unpacked(path, ("index", *fields), run)
    except FileNotFoundError:
        return None
    if arrays is None:
        return None
    index = arrays.pop("index")
    whole = index.ndim == 1 and index.dtype.kind in "iu" and bool(np.all((index >= 0) & (index < examples)))
    if not whole or any(array.shape[:1] != index.shape for array in arrays.values()):
        return None
    given: list[Any] = [arrays.get(name) for name in FIELDS]  # None for what was not asked for
    return index, Result(*given)


def each_part(
    paths: list[Path],
    examples: int,
    run: str | None,
    fields: tuple[str, ...] = FIELDS,
    damaged: Callable[[Path], None] | None = None,
) -> Iterator[tuple[np.ndarray, Result]]:
    """The parts, one in memory at a time, and every row once. damaged: told of each file that is none."""
    seen = np.zeros(examples, bool)
    for path in paths:
        part = read_part(path, examples, run, fields)
        if part is None:
            if damaged is not None:
                damaged(path)
            continue
        index, result = part
        new = np.zeros(len(index), bool)
        new[np.unique(index, return_index=True)[1]] = True
        new &= ~seen[index]
        seen[index] = True
        if new.all():
            yield index, result
        elif new.any():
            yield index[new], result[new]


def count_saved(folder: str | Path) -> int:
    """How many examples the part files of ``folder`` hold, each counted once. Damaged files hold none."""
    most = np.iinfo(np.int64).max
    rows = [index for path in part_paths(folder) if (index := read_index(path, most, None)) is not None]
    return len(np.unique(np.concatenate(rows))) if rows else 0
