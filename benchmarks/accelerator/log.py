"""What a part of the program has measured: a JSON file that is written anew after every row, and its deadline."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.common import device, versions
from invjax.core.errors import BadArgument
from invjax.core.files import write_atomic, writing


class Missing(Exception):
    """A file or package that a part needs is not here: the part is left out, and the reason is written down."""


class Log:
    """The rows of one part. A killed run keeps what it has, and the next one leaves out the rows that are there.

    folder: where PART.json lies. guess: seconds of a row, until one has been measured. tiny: the scale of the run.
    clock: seconds of now.

    Raises BadArgument where the folder holds rows that cannot stand beside those of this run.
    """

    def __init__(
        self, folder: Path, part: str, guess: float = 0.0, tiny: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:  # fmt: skip
        self.part, self.path, self.clock = part, folder / f"{part}.json", clock
        self.rows: dict[str, dict[str, Any]] = {}
        self.notes: dict[str, str] = {}  # why rows, or all of them, are missing
        self.given_up: set[str] = set()  # rows that failed: not tried again by this run
        self._guess, self._beside = guess, None  # seconds of a row beside its run, as the last one took them
        self._deadline, self._most = clock(), None
        self._where = {"device": device(), "tiny": tiny, "versions": versions()}
        if self.path.is_file():
            self.rows = self._kept()

    def _kept(self) -> dict[str, dict[str, Any]]:
        """The rows of an earlier run, on the same device and at the same scale and versions."""
        folder = str(self.path.parent)
        try:
            kept = json.loads(self.path.read_text())
            rows, where = kept["rows"], {name: kept[name] for name in self._where}
        except (ValueError, KeyError, TypeError) as error:
            hint = f"{self.path.name} cannot be read as one"
            raise BadArgument("out", "hold no files but records of this program", folder, hint=hint) from error
        for name, value in self._where.items():
            if where[name] != value:
                hint = f"{self.path.name} has {name} {where[name]}, not {value}"
                raise BadArgument("out", "be a new folder for another device, scale or version", folder, hint=hint)
        return rows

    def open(self, seconds: float, most: int | None = None) -> None:
        """Allow rows for so many seconds from now on, and no more than ``most`` in all."""
        self._deadline, self._most = self.clock() + seconds, most

    @property
    def left(self) -> float:
        """Seconds until the deadline."""
        return self._deadline - self.clock()

    def wants(self, name: str, needs: float = 0.0) -> bool:
        """Whether a row has still to be measured and can end in the time left. needs: seconds of its run.

        What a row takes beside its run, which is compilation most of all, is that of the row before.
        """
        if name in self.rows or name in self.given_up or (self._most is not None and len(self.rows) >= self._most):
            return False
        seconds = max(needs, self._guess) if self._beside is None else needs + self._beside
        if self.left < max(seconds, 1e-9):
            self.note(name, f"no time left ({max(self.left, 0.0):.0f} s, and it takes about {seconds:.0f} s)")
            return False
        return True

    def row(self, name: str, needs: float, measure: Callable[[], dict[str, Any]]) -> None:
        """Measure a row, unless it is there or cannot end in time. A row that fails is noted, and not tried again."""
        if not self.wants(name, needs):
            return
        begin = self.clock()
        try:
            row = measure()
        except Missing:
            raise
        except Exception as error:  # out of memory at some number of lanes: the other rows count
            self.given_up.add(name)
            self.note(name, f"{type(error).__name__}: {' '.join(str(error).split())[:300]}")
            return
        self._beside = max(self.clock() - begin - row.get("run s", 0.0), 0.0)
        self.rows[name] = row
        self.notes.pop(name, None)
        self._write()

    def note(self, name: str, why: str) -> None:
        """Say why a row, or all of them, is missing."""
        self.notes[name] = why
        self._write()

    def _write(self) -> None:
        record = {"part": self.part, "rows": self.rows, "missing": self.notes, **self._where}
        with writing(self.path.parent):
            write_atomic(self.path, (json.dumps(record, indent=1, default=float) + "\n").encode())

    def table(self) -> list[dict[str, str]]:
        """The rows for a reader."""
        return [{"what": name} | {key: _short(value) for key, value in row.items()} for name, row in self.rows.items()]


def _short(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)
