"""A CSV file as text: its header, its cells and the lines that they stand on."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import NamedTuple

from invjax.core.errors import BadArgument, Words
from invjax.core.text import restored

_TAB = ("\\t", "tab")  # as a shell can write it


class Cells(NamedTuple):
    """The columns of a file. Row n is the n-th line with a cell below the header, counted from 0."""

    path: Path
    columns: dict[str, list[str]]  # header -> stripped cells, in the order of the rows
    lines: list[int]  # the line of the file on which each row ends
    rows: list[int]  # the numbers of the rows

    def wrong(self, name: str, place: int, wanted: str, hint: str | None = None) -> BadArgument:
        """An error about the cell at this place of a column."""
        where = f"column {name!r} in line {self.lines[place]} of {self.path.name}"
        return BadArgument(where, wanted, self.columns[name][place], hint=hint)

    def wrong_column(self, name: str, wanted: str, was: str, hint: str | None = None) -> BadArgument:
        """An error about a column."""
        where = f"column {name!r} of {self.path.name}"
        return (
            BadArgument(where, wanted, hint=hint) if was is None else BadArgument(where, wanted, Words(was), hint=hint)
        )


def read_cells(path: Path, delimiter: str | None = None) -> Cells:
    """The text of a CSV file (UTF-8, quotes allowed); blank lines are skipped.

    The apostrophe that keeps a spreadsheet from running a cell (:func:`invjax.core.text.inert`) is taken off again.

    delimiter: one character, or the word "tab"; None takes whichever of ``, ; tab`` is most frequent in the first line.
    Raises BadArgument where it is not readable or has no rows, where a column has no name of its own, or where a row is
    not as long as the header.
    """
    if delimiter in _TAB:
        delimiter = "\t"
    if delimiter is not None and (len(delimiter) != 1 or delimiter in '\r\n"'):
        raise BadArgument("delimiter", "be one character", delimiter)
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            first = file.readline()
            file.seek(0)
            reader = csv.reader(file, delimiter=delimiter or max(",;\t", key=first.count), skipinitialspace=True)
            rows = ((reader.line_num, [restored(cell).strip() for cell in row]) for row in reader)
            lines = [(line, row) for line, row in rows if any(row)]
    except UnicodeDecodeError as error:
        raise BadArgument("path", "be a readable CSV file, in UTF-8", str(path), hint=str(error)) from error
    except (OSError, csv.Error) as error:
        raise BadArgument("path", "be a readable CSV file", str(path), hint=str(error)) from error
    if not lines:
        raise BadArgument(path.name, "have a header and rows", Words("empty"))
    header = lines.pop(0)[1]
    for j, name in enumerate(header):
        if not name or name in header[:j]:
            hint = "pandas writes such a column for its index: to_csv(..., index=False)" if not (j or name) else None
            raise BadArgument(f"column {j + 1} in the header of {path.name}", "have a name of its own", name, hint=hint)
    if not lines:
        raise BadArgument(path.name, "have rows below its header")
    for line, row in lines:
        if len(row) != len(header):
            wanted = f"be {len(header)} cells long like the header"
            raise BadArgument(f"line {line} of {path.name}", wanted, len(row))
    columns = {name: [row[j] for _, row in lines] for j, name in enumerate(header)}
    return Cells(path, columns, [line for line, _ in lines], list(range(len(lines))))
