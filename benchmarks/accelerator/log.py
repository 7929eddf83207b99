"""What a part of the program has measured: a JSON file that is written anew after every row, and its deadline."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

from benchmarks.common import device, versions
from invjax.core.files import write_atomic


class Log:
    """The rows of one part. A killed run keeps what it has, and the next one leaves out the rows that are there."""

    def __init__(self, folder: Path, part: str, seconds: float) -> None:
        self.part, self.path = part, folder / f"{part}.json"
        self.deadline = time.monotonic() + seconds
        self.rows: dict[str, dict[str, Any]] = {}
        self.notes: dict[str, str] = {}
        if self.path.is_file():
            kept = json.loads(self.path.read_text())
            self.rows = {name: row for name, row in kept["rows"].items() if kept["device"] == device()}

    @property
    def left(self) -> float:
        """Seconds until the deadline."""
        return self.deadline - time.monotonic()

    def todo(self, name: str, needs: float = 0.0) -> bool:
        """Whether the row has still to be measured, and the time left allows it. needs: seconds it is going to take."""
        if name in self.rows:
            return False
        if self.left < needs or self.left <= 0:
            self.note(name, f"no time left ({self.left:.0f} s, {needs:.0f} s needed)")
            return False
        return True

    def add(self, name: str, **values: Any) -> None:
        """Keep a row."""
        self.rows[name] = values
        self.notes.pop(name, None)
        self._write()

    def note(self, name: str, why: str) -> None:
        """Say why a row, or all of them, is missing."""
        self.notes[name] = why
        self._write()

    def _write(self) -> None:
        record = {"part": self.part, "rows": self.rows, "missing": self.notes, "versions": versions()}
        text = json.dumps({**record, "device": device()}, indent=1, default=float)
        write_atomic(self.path, (text + "\n").encode())

    def table(self) -> list[dict[str, str]]:
        """The rows for a reader."""
        return [{"what": name} | {key: _short(value) for key, value in row.items()} for name, row in self.rows.items()]


def _short(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)
