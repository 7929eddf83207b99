"""What the cells of a column are: numbers (and how they are written), dates, or names; and which of them are missing.

A column is read as a whole. ``1,234`` alone may be 1234 or 1.234: the other cells decide, then the other columns of the
file, then the caller. Where nothing decides, the column is refused, because a number that is wrong by a thousand is
worse than none.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping
from typing import NamedTuple

from invjax.constraints.notation import Notation, dates, may_be_date, readings, signs
from invjax.core.errors import BadArgument
from invjax.data.tables.cells import Cells

USUAL = ("?", "na", "n/a", "#n/a", "nan", "null", "none", "nil", "-", "--", ".")  # no number: missing where numbers are


class Form(NamedTuple):
    """How a column is read."""

    numeric: bool
    notations: tuple[Notation, ...] = ()  # what its numbers can mean; none where they are written as Python does


def number(cell: str) -> float | None:
    """The finite number that a cell holds as Python writes it, else None."""
    try:
        value = float(cell)
    except ValueError:
        return None
    return value if math.isfinite(value) and "_" not in cell else None


def is_missing(cell: str, words: Collection[str], numeric: bool, levels: Collection[str] = ()) -> bool:
    """Whether a cell holds nothing: it is empty, one of the user's words, or a usual word in a column of numbers."""
    if cell in levels:
        return False
    return not cell or cell in words or (numeric and cell.lower() in USUAL)


def form_of(cells: Cells, name: str, words: Collection[str]) -> Form:
    """How the column ``name`` is read.

    Raises BadArgument where most but not all of its cells are numbers (a typo is likelier than names), or where they
    are written in several ways.
    """
    present = [cell for cell in cells.columns[name] if not is_missing(cell, words, True)]
    if all(number(cell) is not None for cell in present):
        return Form(True)
    found = readings(present)
    if found:
        return Form(True, tuple(found))
    if found := dates(present):
        if len(found) > 1:
            wanted = "be a date of which day and month can be told apart"
            raise cells.wrong(name, _place(cells, name, present[0]), wanted, f"write 2020-12-31; {_out(name)}")
        return Form(True, tuple(found))
    if all(map(may_be_date, present)):
        wanted = "be a date that is read (2020-12-31, 31.12.2020, 31/12/2020, without a time)"
        raise cells.wrong(name, _place(cells, name, present[0]), wanted, _out(name))
    for wanted, fits in (("be a finite number", _some_number), ("be a date like the others", _some_date)):
        known = {cell: fits(cell) for cell in set(present)}
        other = [cell for cell in present if not known[cell]]
        if not other:
            if len(several := signs(present)) > 1:
                raise cells.wrong_column(name, "have one sign", f"{several[0]!r} beside {several[1]!r}", _out(name))
            raise cells.wrong_column(name, "be written in one way", f"{present[0]!r} and others", _out(name))
        if len(other) <= len(present) // 2:
            hint = f"{_out(name)}; --missing-values {other[0]} makes this cell missing"
            raise cells.wrong(name, _place(cells, name, other[0]), wanted, hint)
    return Form(False)


def choose_notations(cells: Cells, forms: Mapping[str, Form], decimal: str | None) -> dict[str, Notation | None]:
    """The notation of each column of numbers; None for Python's.

    decimal: the mark of decimals where the columns leave it open. Raises BadArgument where nothing decides.
    """
    if decimal is None:
        marks = {one.notations[0].decimal for one in forms.values() if len(one.notations) == 1 and _tells(one)}
        if "," in marks or any(len(one.notations) > 1 for one in forms.values()):
            plain = (name for name, one in forms.items() if one == Form(True))
            marks |= {"."} if any(_has_point(cells.columns[name]) for name in plain) else set()
        decimal = marks.pop() if len(marks) == 1 else None
    chosen: dict[str, Notation | None] = {}
    for name, form in forms.items():
        options: Iterable[Notation] = form.notations
        if form == Form(True) and decimal == ",":  # 1.234 may be 1234
            options = readings([cell for cell in cells.columns[name] if number(cell) is not None])
            options = [] if len(list(options)) < 2 else options
        fitting = [one for one in options if one.decimal == decimal or one.date]
        first = next(iter(form.notations), None)
        if len(form.notations) > 1 and len(fitting) != 1:
            cell = next(cell for cell in cells.columns[name] if len(readings([cell])) > 1)
            values = " or ".join(f"{one.read(cell):g}" for one in form.notations)
            hint = "--decimal . or --decimal , says which mark is that of decimals"
            raise cells.wrong(name, _place(cells, name, cell), f"be one number, not {values}", hint)
        chosen[name] = fitting[0] if fitting else first
    return chosen


def _tells(form: Form) -> bool:
    """Whether the notation shows the mark of decimals or excludes the other one."""
    return bool(form.notations[0].thousands) or form.notations[0].decimal == ","


def _has_point(column: list[str]) -> bool:
    """Whether a point in the column can only be the mark of decimals."""
    return any("." in cell and len(readings([cell])) == 1 for cell in column if number(cell) is not None)


def _some_number(cell: str) -> bool:
    return number(cell) is not None or bool(readings([cell]))


def _some_date(cell: str) -> bool:
    return bool(dates([cell]))


def _place(cells: Cells, name: str, cell: str) -> int:
    return cells.columns[name].index(cell)


def _out(name: str) -> str:
    return f"--categories {name} reads the column as names, --drop {name} leaves it out"


def refuse_names(cells: Cells, name: str, count: int) -> BadArgument:
    """The error about a column of names with (nearly) a name per row."""
    was = f"{count} different texts in {len(cells.rows)} rows"
    return cells.wrong_column(name, "hold numbers, dates or names that repeat", was, _out(name))
