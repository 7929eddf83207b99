"""A user's table: a CSV file with a header, a label column, and a schema from a file or inferred.

Without a schema a column is an integer or continuous feature if every cell is a number or a date
(:mod:`invjax.data.tables.column`), and a category otherwise. The ranges are those of the rows, and every feature may
change both ways. An inferred schema is a first draft: write it with ``data.space.to_json(path)``, correct it by hand,
and give it back as ``schema``. What was left out, and what was not read as it stands, is said in ``data.notes``.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np

from invjax.constraints import FeatureSpace
from invjax.constraints.notation import Notation
from invjax.core.errors import BadArgument, Words, check, check_choice, unknown_name
from invjax.core.files import no_file
from invjax.core.meant import explained
from invjax.data.folder import find
from invjax.data.tables.cells import Cells, read_cells
from invjax.data.tables.column import USUAL, Form, choose_notations, form_of, is_missing, number, refuse_names
from invjax.data.tables.table import TabularData, from_space, shuffled_split

Decimal = Literal[".", ","]
Missing = Literal["error", "drop"]
_LARGEST = 1e100  # the square of a larger number is no number
_REPEATS = 20  # names of a column that need not repeat


@explained
def load_csv(
    path: str | Path,
    label: str,
    schema: FeatureSpace | str | Path | None = None,
    *,
    delimiter: str | None = None,
    decimal: Decimal | None = None,
    drop: Sequence[str] = (),
    categories: Sequence[str] = (),
    missing: Missing = "error",
    missing_values: Sequence[str] = (),
    test_fraction: float = 0.2,
    seed: int = 1,
) -> TabularData:
    """Rows, labels and feature space of a CSV file.

    Args:
      path: the file; a relative one is looked for in the working folder, then in ``INVJAX_DATA/tabular``. Its first
        line names the columns.
      label: the column of the class; its values, sorted (numbers as numbers), are the classes.
      schema: a FeatureSpace, or the JSON file of one. Columns that it does not name are left out. None infers one.
      delimiter: one character, or "tab"; None takes whichever of ``, ; tab`` is most frequent in the first line.
      decimal: the mark of decimals where the cells leave it open (``1,234``).
      drop: columns to leave out; categories: columns of numbers that are names. Both only without a schema.
      missing: what happens to a row with a missing cell in a column in use: "error", or "drop" to leave it out. The
        rows that are left keep their numbers in the file, ``data.ids``.
      missing_values: texts that are missing cells, besides the empty one. In a column of numbers ``?``, ``NA``,
        ``NaN``, ``null``, ``none`` and their like are missing as well; in a column of names they are names. A declared
        level of a schema is never missing.
      test_fraction: share of the rows to test, at least one and at most all but one. seed: of numpy's RandomState,
        which shuffles them.

    Raises:
      BadArgument: the file, a column or a cell is not as it must be; the message names file, column and line. Rows that
        only break the ranges of the schema are kept: :meth:`FeatureSpace.reasons` names them, and no method changes
        them.
    """
    check_choice("missing", missing, get_args(Missing))
    check("test_fraction", test_fraction, lambda share: 0 < share < 1, "between 0 and 1")
    if decimal is not None:
        check_choice("decimal", decimal, get_args(Decimal))
    if schema is not None and (drop or categories):
        raise BadArgument("drop and categories", "be left out with a schema", hint="it names the features to use")
    found = find(path, "tabular")
    if not os.path.isfile(found):
        raise no_file("path", "be an existing CSV file", path)
    cells = read_cells(found, delimiter)
    _require_columns(cells, [label], "label")
    _require_columns(cells, drop, "drop")
    _require_columns(cells, categories, "categories")
    _require_sequence(missing_values, "missing_values")
    space = _read_schema(schema) if isinstance(schema, str | Path) else schema
    if space is None:
        names = [name for name in cells.columns if name != label and name not in drop]
        if not names:
            raise BadArgument(cells.path.name, f"have a column besides the label {label!r}")
        levels: dict[str, tuple[str, ...]] = {}
        forms = {name: Form(False) if name in categories else form_of(cells, name, missing_values) for name in names}
    else:
        names = list(space.names)
        if label in names:
            raise BadArgument("label", "not be a feature of the schema", label)
        _require_columns(cells, names, "schema")
        levels = {feature.name: tuple(map(str, feature.levels)) for feature in space.features if feature.levels}
        forms = {feature.name: _declared(cells, feature, missing_values) for feature in space.features}
    notations = choose_notations(cells, forms, decimal)
    numeric = {name: form.numeric for name, form in forms.items()} | {label: _all_numbers(cells, label, missing_values)}
    every, notes = cells, []
    cells = _complete(cells, numeric, levels, missing, missing_values, notes)
    table = {name: _column(cells, name, numeric[name], notations[name], levels.get(name)) for name in names}
    classes, index = _classes(cells, label)
    if space is None:
        for name in names:
            count = len(set(table[name].tolist()))
            if not numeric[name] and name not in categories and _names_rows(count, len(index)):
                raise refuse_names(cells, name, count)
        space = FeatureSpace.infer(table)
    space = _with_notations(space, notations)
    notes += _notes(every, cells, label, numeric, notations, table, schema is not None)
    count = len(index)
    held_out = min(max(1, round(count * test_fraction)), count - 1)
    data = from_space(cells.path.stem, table, index, classes, space, shuffled_split(count, held_out, seed))
    return data._replace(ids=np.asarray(cells.rows, np.int64), notes=tuple(notes))


def _read_schema(path: str | Path) -> FeatureSpace:
    if not os.path.isfile(path):
        raise no_file("schema", "be a FeatureSpace or the JSON file of one", path)
    try:
        return FeatureSpace.from_json(path)
    except BadArgument as error:
        raise (error.renamed("schema") if error.name == "path" else error) from None


def _require_sequence(names: Any, argument: str) -> None:
    if isinstance(names, str):
        raise BadArgument(argument, "be a sequence of texts", Words(f"the string {names!r}"))


def _require_columns(cells: Cells, names: Sequence[str], argument: str) -> None:
    if isinstance(names, str):
        raise BadArgument(argument, "be a sequence of column names", Words(f"the string {names!r}"))
    for name in names:
        if name not in cells.columns:
            wanted = f"name columns of {cells.path.name} ({', '.join(cells.columns)})"
            if sign := _other_delimiter(cells):
                raise BadArgument(argument, wanted, name, hint=f"its header is one column: is its delimiter {sign!r}?")
            raise unknown_name(argument, name, cells.columns, wanted)


def _other_delimiter(cells: Cells) -> str | None:
    """What may separate the columns of a file that was read as one column."""
    header = next(iter(cells.columns)) if len(cells.columns) == 1 else ""
    return next((sign for sign in ",;|\t: " if sign in header), None)


def _declared(cells: Cells, feature: Any, words: Collection[str]) -> Form:
    """How a column is read that the schema declares; in the schema's notation if every cell has it."""
    if feature.levelled:
        return Form(feature.kind == "ordinal" and all(isinstance(level, int | float) for level in feature.levels))
    present = [cell for cell in cells.columns[feature.name] if not is_missing(cell, words, True)]
    if feature.notation is not None and all(feature.notation.read(cell) is not None for cell in present):
        return Form(True, (feature.notation,))
    if not present or all(number(cell) is not None for cell in present):
        return Form(True)
    form = form_of(cells, feature.name, words)
    if not form.numeric:
        wrong = next(cell for cell in present if number(cell) is None)
        raise cells.wrong(feature.name, cells.columns[feature.name].index(wrong), "be a finite number")
    return form


def _with_notations(space: FeatureSpace, notations: Mapping[str, Notation | None]) -> FeatureSpace:
    """The schema with the notations of the file, or itself where it has them."""
    if all(feature.notation == notations[feature.name] for feature in space.features):
        return space
    features = [dataclasses.replace(feature, notation=notations[feature.name]) for feature in space.features]
    return FeatureSpace(features, space.relations, space.center, space.scale)


def _all_numbers(cells: Cells, name: str, words: Collection[str]) -> bool:
    return all(number(cell) is not None for cell in cells.columns[name] if not is_missing(cell, words, True))


def _complete(
    cells: Cells,
    numeric: Mapping[str, bool],
    levels: Mapping[str, tuple[str, ...]],
    missing: str,
    words: Collection[str],
    notes: list[str],
) -> Cells:
    """The rows without a missing cell in the columns of ``numeric``, and these columns; notes says what went."""
    keep, counts = np.ones(len(cells.rows), bool), {}
    for name, numbers in numeric.items():
        gone = np.asarray([is_missing(cell, words, numbers, levels.get(name, ())) for cell in cells.columns[name]])
        if gone.all():
            hint = f"column {name!r} is empty, --drop {name} leaves it out"
            raise BadArgument(cells.path.name, "have a row without missing cells", hint=hint)
        if missing == "error" and gone.any():
            raise cells.wrong(
                name, int(gone.argmax()), "have a value", "--missing drop (missing='drop') leaves such rows out"
            )
        counts[name] = int(gone.sum())
        keep &= ~gone
    if not keep.any():
        raise BadArgument(cells.path.name, "have a row without missing cells")
    if not keep.all():
        each = ", ".join(f"{name} {count}" for name, count in counts.items() if count)
        notes.append(f"{int((~keep).sum())} of {len(keep)} rows are left out, because a cell is missing: {each}")
    rows = np.flatnonzero(keep)
    columns = {name: [cells.columns[name][i] for i in rows] for name in numeric}
    return Cells(cells.path, columns, [cells.lines[i] for i in rows], [cells.rows[i] for i in rows])


def _names_rows(count: int, rows: int) -> bool:
    """Whether so many names tell the rows apart rather than say something about them."""
    return count > max(_REPEATS, rows // 2) or (rows >= _REPEATS // 2 and count > 0.9 * rows)


def _notes(
    every: Cells,
    cells: Cells,
    label: str,
    numeric: Mapping[str, bool],
    notations: Mapping[str, Notation | None],
    table: Mapping[str, np.ndarray],
    declared: bool,
) -> list[str]:
    """What a reader of the file would not expect, or should look at."""
    notes = []
    if left := [name for name in every.columns if name not in numeric]:
        notes.append(f"{len(left)} column{'s are' if len(left) > 1 else ' is'} left out: {', '.join(left)}")
    for name, notation in notations.items():
        if notation is not None:
            what = "dates, read as days since 1970-01-01" if notation.date else "numbers"
            notes.append(f"{name}: {what}, written like {cells.columns[name][0]!r}")
    for name in () if declared else (label, *table):
        column = cells.columns[name]
        for word in sorted({cell for cell in column if cell.lower() in USUAL}):
            count, what = column.count(word), "class" if name == label else "level"
            hint = f"--missing-values {word} makes it a missing cell"
            notes.append(f"{name}: {word!r} is read as a {what}, in {count} rows; {hint}")
    for name, values in () if declared else table.items():
        if len(values) > 1 and (values == values[0]).all():
            notes.append(f"{name}: the same value in every row")
        elif numeric[name] and _counts_rows(values):
            notes.append(f"{name}: counts the rows; --drop {name} leaves it out")
    return notes


def _counts_rows(values: np.ndarray) -> bool:
    """Whether they are the whole numbers of a range, each once."""
    whole = values.dtype.kind == "i" and len(values) >= _REPEATS // 2
    return whole and len(np.unique(values)) == len(values) == values.max() - values.min() + 1


def _column(
    cells: Cells, name: str, numeric: bool, notation: Notation | None, levels: tuple[str, ...] | None
) -> np.ndarray:
    """[N] float64, or int64 where every number is whole and below 2^53, or str."""
    column = cells.columns[name]
    if not numeric:
        for i, cell in enumerate(column):
            if levels is not None and cell not in levels:
                raise cells.wrong(name, i, f"be one of the levels {', '.join(levels)}")
        return np.asarray(column)
    values = [number(cell) if notation is None else notation.read(cell) for cell in column]
    if None in values:
        raise cells.wrong(name, values.index(None), "be a finite number")
    numbers = np.asarray(values, np.float64)
    if (large := np.abs(numbers) > _LARGEST).any():
        raise cells.wrong(name, int(large.argmax()), f"be at most {_LARGEST:g} in size")
    whole = bool((numbers == np.rint(numbers)).all()) and np.abs(numbers).max() < 2**53
    return numbers.astype(np.int64) if whole else numbers


def _classes(cells: Cells, label: str) -> tuple[tuple[str, ...], np.ndarray]:
    """The class names in order, and [N] int32 indices."""
    column = cells.columns[label]
    names = sorted(set(column), key=lambda cell: (number(cell) is None, number(cell) or 0.0, cell))
    if len(names) < 2:
        raise BadArgument(f"column {label!r} of {cells.path.name}", "have at least two classes", names)
    if len(names) > max(20, len(column) // 2):
        raise cells.wrong_column(label, "hold classes", f"{len(names)} values in {len(column)} rows")
    place = {name: k for k, name in enumerate(names)}
    return tuple(names), np.asarray([place[cell] for cell in column], np.int32)
