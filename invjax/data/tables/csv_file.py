"""A user's table: a CSV file with a header, a label column, and a schema from a file or inferred.

Without a schema a column is an integer or continuous feature if every cell is a number, and a category otherwise. The
ranges are those of the rows, and every feature may change both ways. An inferred schema is a first draft: write it with
``data.space.to_json(path)``, correct it by hand, and give it back as ``schema``.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np

from invjax.constraints import FeatureSpace
from invjax.core.errors import BadArgument, Words, check, check_choice
from invjax.data.folder import find
from invjax.data.tables.table import TabularData, from_space, shuffled_split

_MISSING = ("", "?", "na", "n/a", "nan", "null", "none")


class Cells(NamedTuple):
    """A CSV file as text."""

    path: Path
    columns: dict[str, list[str]]  # header -> stripped cells, in the order of the rows
    lines: list[int]  # the line of the file on which each row ends


def load_csv(
    path: str | Path,
    label: str,
    schema: FeatureSpace | str | Path | None = None,
    *,
    delimiter: str | None = None,
    drop: Sequence[str] = (),
    categories: Sequence[str] = (),
    missing: Literal["error", "drop"] = "error",
    test_fraction: float = 0.2,
    seed: int = 1,
) -> TabularData:
    """Rows, labels and feature space of a CSV file.

    Args:
      path: the file; a relative one is looked for in the working folder, then in ``INVJAX_DATA/tabular``. Its first
        line names the columns.
      label: the column of the class; its values, sorted (numbers as numbers), are the classes.
      schema: a FeatureSpace, or the JSON file of one. Columns that it does not name are left out. None infers one.
      delimiter: one character; None takes whichever of ``, ; tab`` is most frequent in the first line.
      drop: columns to leave out; categories: columns of numbers that are names. Both only without a schema.
      missing: what happens to a row with an empty cell (or ``?``, ``NA``, ``NaN``, ``null``, ``none``) in a column in
        use: "error", or "drop" to leave it out. A declared level of a schema is never missing.
      test_fraction: share of the rows to test, at least one and at most all but one. seed: of numpy's RandomState,
        which shuffles them.

    Raises:
      BadArgument: the file, a column or a cell is not as it must be; the message names file, column and line. Rows that
        only break the ranges of the schema are kept: :meth:`FeatureSpace.reasons` names them, and no method changes
        them.
    """
    check_choice("missing", missing, ("error", "drop"))
    check("test_fraction", test_fraction, lambda share: 0 < share < 1, "between 0 and 1")
    if schema is not None and (drop or categories):
        raise BadArgument("drop and categories", "be left out with a schema", hint="it names the features to use")
    found = find(path, "tabular")
    if not found.is_file():
        raise BadArgument("path", "be an existing CSV file", str(path))
    cells = read_cells(found, delimiter)
    _require_columns(cells, [label], "label")
    _require_columns(cells, drop, "drop")
    _require_columns(cells, categories, "categories")
    space = _read_schema(schema) if isinstance(schema, str | Path) else schema
    if space is None:
        names = [name for name in cells.columns if name != label and name not in drop]
        if not names:
            raise BadArgument(cells.path.name, f"have a column besides the label {label!r}")
        numeric = {name: name not in categories and _looks_numeric(cells, name, missing) for name in names}
        levels: dict[str, tuple[str, ...]] = {}
    else:
        names = list(space.names)
        if label in names:
            raise BadArgument("label", "not be a feature of the schema", label)
        _require_columns(cells, names, "schema")
        numeric = {feature.name: _is_number(feature) for feature in space.features}
        levels = {feature.name: tuple(map(str, feature.levels)) for feature in space.features if feature.levels}
    cells = _complete(cells, [label, *names], levels, missing)
    table = {name: _column(cells, name, numeric[name], levels.get(name)) for name in names}
    classes, index = _classes(cells, label)
    if space is None:
        space = FeatureSpace.infer(table)
    count = len(index)
    held_out = min(max(1, round(count * test_fraction)), count - 1)
    return from_space(cells.path.stem, table, index, classes, space, shuffled_split(count, held_out, seed))


def read_cells(path: Path, delimiter: str | None = None) -> Cells:
    """The text of a CSV file (UTF-8, quotes allowed); blank lines are skipped.

    Raises BadArgument where it is not readable or has no rows, where a column has no name of its own, or where a row is
    not as long as the header.
    """
    if delimiter is not None and len(delimiter) != 1:
        raise BadArgument("delimiter", "be one character", delimiter)
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            first = file.readline()
            file.seek(0)
            reader = csv.reader(file, delimiter=delimiter or max(",;\t", key=first.count), skipinitialspace=True)
            rows = [(reader.line_num, [cell.strip() for cell in row]) for row in reader if any(map(str.strip, row))]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise BadArgument("path", "be a readable CSV file", str(path), hint=str(error)) from error
    if not rows:
        raise BadArgument(path.name, "have a header and rows", Words("empty"))
    header = rows.pop(0)[1]
    for j, name in enumerate(header):
        if not name or name in header[:j]:
            raise BadArgument(f"column {j + 1} in the header of {path.name}", "have a name of its own", name)
    if not rows:
        raise BadArgument(path.name, "have rows below its header")
    for line, row in rows:
        if len(row) != len(header):
            wanted = f"be {len(header)} cells long like the header"
            raise BadArgument(f"line {line} of {path.name}", wanted, len(row))
    columns = {name: [row[j] for _, row in rows] for j, name in enumerate(header)}
    return Cells(path, columns, [line for line, _ in rows])


def _read_schema(path: str | Path) -> FeatureSpace:
    try:
        return FeatureSpace.from_json(path)
    except OSError as error:
        raise BadArgument("schema", "be a FeatureSpace or the JSON file of one", str(path), hint=str(error)) from error


def _require_columns(cells: Cells, names: Sequence[str], argument: str) -> None:
    if isinstance(names, str):
        raise BadArgument(argument, "be a sequence of column names", Words(f"the string {names!r}"))
    for name in names:
        if name not in cells.columns:
            raise BadArgument(argument, f"name columns of {cells.path.name} ({', '.join(cells.columns)})", name)


def _is_number(feature: Any) -> bool:
    return feature.kind in ("continuous", "integer") or (
        feature.kind == "ordinal" and all(isinstance(level, int | float) for level in feature.levels)
    )


def _complete(cells: Cells, names: Sequence[str], levels: dict[str, tuple[str, ...]], missing: str) -> Cells:
    """The rows without a missing cell in the columns ``names``, and these columns."""
    keep = np.ones(len(cells.lines), bool)
    for name in names:
        gone = [cell.lower() in _MISSING and cell not in levels.get(name, ()) for cell in cells.columns[name]]
        if missing == "error" and any(gone):
            raise _wrong_cell(cells, name, gone.index(True), "have a value", "missing='drop' leaves such rows out")
        keep &= ~np.asarray(gone)
    if not keep.any():
        raise BadArgument(cells.path.name, "have a row without missing cells")
    rows = np.flatnonzero(keep)
    columns = {name: [cells.columns[name][i] for i in rows] for name in names}
    return Cells(cells.path, columns, [cells.lines[i] for i in rows])


def _number(cell: str) -> float | None:
    """The finite number that a cell holds, else None."""
    try:
        value = float(cell)
    except ValueError:
        return None
    return value if math.isfinite(value) and "_" not in cell else None


def _looks_numeric(cells: Cells, name: str, missing: str) -> bool:
    """Whether every present cell is a number. Raises if most but not all are: a typo is likelier than a category."""
    present = [i for i, cell in enumerate(cells.columns[name]) if cell.lower() not in _MISSING]
    other = [i for i in present if _number(cells.columns[name][i]) is None]
    if other and len(other) <= len(present) // 2:
        hint = f"categories=({name!r},) reads the column as names"
        raise _wrong_cell(cells, name, other[0], "be a finite number", hint)
    return not other


def _wrong_cell(cells: Cells, name: str, row: int, wanted: str, hint: str | None = None) -> BadArgument:
    where = f"column {name!r} in line {cells.lines[row]} of {cells.path.name}"
    return BadArgument(where, wanted, cells.columns[name][row], hint=hint)


def _column(cells: Cells, name: str, numeric: bool, levels: tuple[str, ...] | None) -> np.ndarray:
    """[N] float64, or int64 where every number is whole and below 2^53, or str."""
    column = cells.columns[name]
    if not numeric:
        for i, cell in enumerate(column):
            if levels is not None and cell not in levels:
                raise _wrong_cell(cells, name, i, f"be one of the levels {', '.join(levels)}")
        return np.asarray(column)
    values = [_number(cell) for cell in column]
    if None in values:
        raise _wrong_cell(cells, name, values.index(None), "be a finite number")
    numbers = np.asarray(values, np.float64)
    whole = bool((numbers == np.rint(numbers)).all()) and np.abs(numbers).max() < 2**53
    return numbers.astype(np.int64) if whole else numbers


def _classes(cells: Cells, label: str) -> tuple[tuple[str, ...], np.ndarray]:
    """The class names in order, and [N] int32 indices."""
    column = cells.columns[label]
    names = sorted(set(column), key=lambda cell: (_number(cell) is None, _number(cell) or 0.0, cell))
    if len(names) < 2:
        raise BadArgument(f"column {label!r} of {cells.path.name}", "have at least two classes", names)
    if len(names) > max(20, len(column) // 2):
        was = Words(f"{len(names)} values in {len(column)} rows")
        raise BadArgument(f"column {label!r} of {cells.path.name}", "hold classes", was)
    place = {name: k for k, name in enumerate(names)}
    return tuple(names), np.asarray([place[cell] for cell in column], np.int32)
