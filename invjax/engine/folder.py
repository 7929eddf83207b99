"""Where a killed run is resumed: finished examples are on disk, and a second call solves only the others.

A run's folder holds ``manifest.json`` (:mod:`invjax.engine.manifest`) and part files (:mod:`invjax.engine.parts`), each
written under a temporary name and then renamed, so that a file is whole or absent. A folder that holds another run is
refused. Of several processes each writes into a folder of its own, ``p{process}/`` below it; a later run reads them
all, whatever the number of its processes.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import jax
import numpy as np

from invjax.core.errors import BadArgument
from invjax.core.files import write_atomic, writing
from invjax.engine.manifest import hash_of_run, open_folder
from invjax.engine.parts import each_part, part_paths, set_aside, write_part
from invjax.types import Result

PART_BYTES = 64 * 2**20  # a part is written before its arrays take much more than this
_AGAIN = "what is written there is kept, and the same call goes on with the rest"


def as_folder(name: str, value: object) -> Path:
    """``value`` as a path. Raises BadArgument about ``name`` for anything else, "" among it."""
    if not isinstance(value, str | os.PathLike) or not os.fspath(value):
        raise BadArgument(name, "be the path of a folder", value)
    return Path(value)


def bytes_of(result: Result) -> int:
    """What its arrays take."""
    return sum(field.nbytes for field in jax.tree.leaves(result))


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
        self._writing: tuple[Future[None], list[tuple[np.ndarray, Result]]] | None = None
        self._run = hash_of_run(open_folder(self.folder, manifest))
        with writing(self.folder):
            self._own.mkdir(exist_ok=True)
        numbers = [int(path.stem.split("-")[1]) for path in part_paths(self.folder) if path.parent == self._own]
        self._number = max(numbers, default=-1) + 1

    def keep_lanes(self, lanes: int, chosen: bool, devices: int = 1) -> int:
        """Write the number of lanes into the manifest; one that was chosen gives way to the number that is there.

        It is written in any case, before the work starts: a folder that takes nothing more says so now.

        devices: those that share the lanes. The number that is there was chosen for as many, or it is not taken.
        """
        path = self.folder / "manifest.json"
        with writing(self.folder, hint=_AGAIN):
            saved = json.loads(path.read_text())
            if chosen and "lanes" in saved and saved.get("devices", 1) == devices:
                lanes = int(saved["lanes"])
            write_atomic(path, json.dumps({**saved, "lanes": lanes, "devices": devices}, indent=2).encode())
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
            # Of two runs that someone starts in one folder at the same time, each has names of its own.
            name = f"{self._stem}-{self._number:06d}-{os.getpid()}-{os.urandom(4).hex()}.npz"
            rows, self._waiting = self._waiting, []
            self._writing = self._writer.submit(write_part, self._own / name, rows, self._run or ""), rows
            self._number, self._bytes = self._number + 1, 0
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
        """For the part that is being written. One that the disk refuses waits again: there may be room at the end."""
        if self._writing is None:
            return
        (writing_part, rows), self._writing = self._writing, None
        with writing(self.folder, hint=_AGAIN):
            try:
                writing_part.result()
            except OSError:
                self._waiting = rows + self._waiting
                raise

    def parts(self) -> Iterator[tuple[np.ndarray, Result]]:
        """All saved rows ``(index [n], Result [n])``, a part at a time and each row once.

        A damaged part is set aside, with a warning that names it.
        """
        return each_part(part_paths(self.folder), self.examples, self._run, damaged=set_aside)
