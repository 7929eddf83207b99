"""``open_run``: the answers in a run's folder, read a part at a time, also while other processes still write them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

import jax
import numpy as np

from invjax.core.errors import BadArgument, Words, check_choice, warn
from invjax.core.meant import explained
from invjax.engine.folder import as_folder
from invjax.engine.manifest import differences, hash_of_run
from invjax.engine.parts import FIELDS, each_part, part_paths, read_index, read_part
from invjax.types import Result


@explained
def open_run(folder: str | Path, *more: str | Path) -> SavedRun:
    """What the folder ``out`` of a run holds now. Parts that are written later are seen when it is opened again.

    folder: what ``solve(out=...)`` was given. more: further folders of the same run, from machines that share no disk.

    Raises:
      ValueError: one is not the folder of a run, or not of the same one.
    """
    folders = [as_folder("folder", one) for one in (folder, *more)]
    manifests = [_manifest(one) for one in folders]
    for one, manifest in zip(folders[1:], manifests[1:], strict=True):
        if differs := differences(manifest, manifests[0]):
            why = f"{str(one)!r} holds a run with another {', '.join(differs)}"
            raise BadArgument("folder", "be followed by folders of the same run", hint=why)
    return SavedRun(folders, manifests[0])


def _manifest(folder: Path) -> dict[str, Any]:
    try:
        manifest = json.loads((folder / "manifest.json").read_text())
        if int(manifest["examples"]) > 0:
            return manifest
        reason = "examples is not positive"
    except OSError as error:
        reason = error.strerror or str(error)
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
        reason = "it is not a run's"
    raise BadArgument("folder", "be the folder of a run", Words(f"{str(folder)!r}: manifest.json: {reason}"))


class SavedRun:
    """The answers of a run, on disk. See :func:`open_run`.

    Attributes:
      examples: N, the length of the list.
      manifest: what the run is: method, constants, hashes of weights and inputs.
    """

    def __init__(self, folders: list[Path], manifest: dict[str, Any]) -> None:
        self.folders, self.manifest, self.examples = folders, manifest, int(manifest["examples"])
        self._run = hash_of_run(manifest)
        self._paths = [path for folder in folders for path in part_paths(folder)]
        self._kept: tuple[Path, tuple[np.ndarray, Result]] | None = None  # the part that was read last

    def __len__(self) -> int:
        return self.examples

    def __repr__(self) -> str:
        where = ", ".join(repr(str(folder)) for folder in self.folders)
        return f"SavedRun({where}: {len(self.saved)} of {self.examples} rows in {len(self._paths)} parts)"

    @cached_property
    def _where(self) -> np.ndarray:
        """[N] int32: the part that has the row, or -1."""
        where = np.full(self.examples, -1, np.int32)
        for number in reversed(range(len(self._paths))):  # the first part that has a row stays
            index = read_index(self._paths[number], self.examples, self._run)
            if index is not None:
                where[index] = number
        return where

    @property
    def saved(self) -> np.ndarray:
        """The rows [n] that are on disk, ascending."""
        return np.flatnonzero(self._where >= 0)

    def parts(self, *fields: str) -> Iterator[tuple[np.ndarray, Result]]:
        """Each saved row once, as ``(index [n], Result [n])``; one part is in memory at a time.

        fields: those of ``Result`` that are wanted, all by default. The others are None, and are not read: a count
        of statuses reads no image. A damaged part is left out, with a warning that names it.
        """
        for field in fields:
            check_choice("fields", field, FIELDS)
        return each_part(self._paths, self.examples, self._run, fields or FIELDS, _warn_of)

    def __getitem__(self, index: Any) -> Result:
        """The rows that an int, a slice or an array selects, as :class:`Result` does; only their parts are read.

        Raises IndexError for rows that the list does not have, and ValueError for rows that are not saved.
        """
        rows = np.arange(self.examples)[index]  # what a list would give: negative numbers, slices, masks
        flat = np.atleast_1d(rows)
        parts = self._where[flat]
        if (parts < 0).any():
            lost = f"{int((parts < 0).sum())} of {len(flat)} rows are not saved, row {int(flat[parts < 0][0])} say"
            raise BadArgument("index", "name rows that are saved", Words(lost))
        if not len(flat):
            raise BadArgument("index", "name at least one row", Words("none"))
        found: Result | None = None
        for number in np.unique(parts):
            index, answers = self._part(self._paths[number])
            at = np.flatnonzero(parts == number)
            order = np.argsort(index, kind="stable")
            chosen = answers[order[np.searchsorted(index, flat[at], sorter=order)]]
            if found is None:
                found = jax.tree.map(lambda field: np.empty((len(flat), *field.shape[1:]), field.dtype), chosen)
            for name, values in vars(chosen).items():
                getattr(found, name)[at] = values
        assert found is not None
        return found if np.ndim(rows) else found[0]

    def _part(self, path: Path) -> tuple[np.ndarray, Result]:
        if self._kept is None or self._kept[0] != path:
            part = read_part(path, self.examples, self._run)
            if part is None:
                hint = "the call that made it solves its rows again"
                raise BadArgument("folder", "hold whole parts", Words(f"damaged: {str(path)!r}"), hint=hint)
            self._kept = path, part
        return self._kept[1]

    def load(self) -> Result:
        """All N rows, in memory. Raises ValueError where some are not saved."""
        found: Result | None = None
        done, damaged = 0, list[Path]()
        for index, answers in each_part(self._paths, self.examples, self._run, damaged=damaged.append):
            if found is None:
                found = jax.tree.map(lambda field: np.empty((self.examples, *field.shape[1:]), field.dtype), answers)
            for name, values in vars(answers).items():
                getattr(found, name)[index] = values
            done += len(index)
        if found is None or done < self.examples:
            lost = f"damaged: {', '.join(repr(str(path)) for path in damaged)}" if damaged else None
            was = Words(f"a folder with {done} of them")
            raise BadArgument("folder", f"hold all {self.examples} rows", was, hint=lost)
        return found


def _warn_of(path: Path) -> None:
    if path.exists():  # else a run has just set it aside
        warn(f"{str(path)!r} is damaged and left out: the call that made it computes it again")
