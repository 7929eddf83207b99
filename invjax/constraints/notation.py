"""How the numbers of a column are written: ``4,867.90``, ``$5,125.73``, ``12,5``, ``12.5 %``, ``31.01.2020``.

A column has one notation. ``read`` makes numbers of its cells and ``write`` cells of numbers. A date is a number of
days since 1970-01-01, and a percentage stays in per cent.
"""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Sequence
from datetime import date, datetime, timedelta
from typing import NamedTuple

import numpy as np

_SIGN = r"US\$|R\$|[$€£¥₹]|USD|EUR|GBP|CHF|JPY|CNY|INR|CAD|AUD|SEK|NOK|DKK|PLN|BRL|MXN|ZAR"
_MARKS = ",.'’ \u00a0\u202f"  # what may stand between digits
_WRITTEN = re.compile(rf"-?((?:{_SIGN})\s?)?-?(\d[\d{_MARKS}]*?)(\s?(?:{_SIGN}|%|‰))?")
_POINT = ("$", "US$", "£")  # where a point is the mark of decimals
_DATES = ("%Y-%m-%d", "%Y/%m/%d", "%d.%m.%Y", "%d/%m/%Y", "%m/%d/%Y", "%d-%m-%Y", "%m-%d-%Y")
_LIKE_A_DATE = re.compile(r"\d{1,4}([-/.])\d{1,2}\1\d{1,4}")
_MAY_BE_A_DATE = re.compile(r"\d{1,4}([-/.])\d{1,2}\1\d{1,4}([T ].*)?")  # with a time, or two digits of the year
_DAY_0 = date(1970, 1, 1)


class Notation(NamedTuple):
    """How numbers are written."""

    prefix: str = ""  # "$", "EUR "
    suffix: str = ""  # " €", "%"
    thousands: str = ""  # what stands between groups of three digits
    decimal: str = "."  # the mark of decimals
    decimals: int = 0  # how many are written at least
    date: str = ""  # the form of a date, as strftime has it; then nothing else matters

    def read(self, cell: str) -> float | None:
        """The number in a cell, else None. A currency sign may be left out, the sign of per cent may not."""
        if self.date:
            return _days(cell, self.date)
        found = _pattern(self).fullmatch(_ascii(cell))
        if found is None:
            return None
        sign, inner, whole, part = found.groups()
        value = float(f"{whole.replace(self.thousands, '') if self.thousands else whole}.{part or 0}")
        return -value if sign or inner else value

    def write(self, value: float) -> str:
        """The cell that holds ``value``, with as many digits as it needs."""
        if not math.isfinite(value):
            return ""
        return self.dress(str(int(value)) if value == int(value) else np.format_float_positional(value, trim="-"))

    def dress(self, text: str) -> str:
        """A number as Python writes it, in this notation; other texts stay as they are."""
        found = re.fullmatch(r"(-?)(\d+)(?:\.(\d+))?", text)
        if found is None:
            return text
        sign, whole, part = found.groups()
        if self.date:
            return (_DAY_0 + timedelta(int(sign + whole))).strftime(self.date)
        part = (part or "").ljust(self.decimals, "0")
        whole = f"{int(whole):,}".replace(",", self.thousands) if self.thousands else whole
        return f"{sign}{self.prefix}{whole}{self.decimal + part if part else ''}{self.suffix}"


def readings(cells: Sequence[str]) -> list[Notation]:
    """The notations in which every cell is a number, one for each list of numbers that they can mean."""
    cells = [_ascii(cell) for cell in cells]
    meant: dict[tuple[float | None, ...], Notation] = {}
    for notation in _candidates(cells):
        if all(map(_pattern(notation).fullmatch, cells)):
            meant.setdefault(tuple(map(notation.read, cells)), notation)
    return [_with_decimals(cells, notation) for notation in meant.values()]


def dates(cells: Sequence[str]) -> list[Notation]:
    """The forms of a date in which every cell is one, as :func:`readings` does it for numbers."""
    if not all(map(_LIKE_A_DATE.fullmatch, cells)):
        return []
    forms: dict[tuple[float | None, ...], Notation] = {}
    for form in _DATES:
        if all(_days(cell, form) is not None for cell in cells):
            forms.setdefault(tuple(_days(cell, form) for cell in cells), Notation(date=form))
    return list(forms.values())


def may_be_date(cell: str) -> bool:
    """Whether a cell has the look of a date, also of one that :func:`dates` does not read."""
    return bool(_MAY_BE_A_DATE.fullmatch(cell))


def signs(cells: Sequence[str]) -> list[str]:
    """The first cell with each sign of a currency or of per cent, or without one; texts are left out."""
    first: dict[tuple[str, str], str] = {}
    for cell in cells:
        if found := _WRITTEN.fullmatch(_ascii(cell)):
            first.setdefault(((found[1] or "").strip(), (found[3] or "").strip()), cell)
    return list(first.values())


def _candidates(cells: Sequence[str]) -> list[Notation]:
    """Every notation whose signs and marks occur in the cells; the one nearest to Python's first."""
    found = [_WRITTEN.fullmatch(cell) for cell in cells]
    if not all(found) or len(signs(cells)) != 1:
        return []
    prefix, suffix = found[0][1] or "", found[0][3] or ""  # type: ignore[index]
    digits = {mark for one in found for mark in one[2]}  # type: ignore[index]
    fitting = []
    for decimal in ".,":
        if decimal == "," and prefix.strip() in _POINT and "." not in digits:
            continue
        for thousands in ("", *(mark for mark in _MARKS if mark in digits and mark != decimal)):
            if decimal == "." or "," in digits or thousands == ".":
                fitting.append(Notation(prefix, suffix, thousands, decimal))
    return fitting


def _with_decimals(cells: Sequence[str], notation: Notation) -> Notation:
    """The notation with the number of decimals that all cells have; 0 where they differ."""
    pattern = _pattern(notation)
    counts = {len(found[4] or "") for cell in cells if (found := pattern.fullmatch(cell))}
    return notation._replace(decimals=counts.pop() if len(counts) == 1 else 0)


@functools.lru_cache(maxsize=256)
def _pattern(notation: Notation) -> re.Pattern[str]:
    """Groups: a sign before the prefix, one behind it, the whole part, the decimals."""
    whole = r"\d+"
    if notation.thousands:
        whole = rf"[1-9]\d{{0,2}}(?:{re.escape(notation.thousands)}\d{{3}})+|\d+"
    prefix, suffix = (re.escape(side.strip()) for side in (notation.prefix, notation.suffix))
    before = rf"(?:{prefix}\s?)?" if prefix else ""
    behind = rf"(?:\s?{suffix}){'' if notation.suffix.strip() in '%‰' else '?'}" if suffix else ""
    return re.compile(rf"(-?){before}(-?)({whole})(?:{re.escape(notation.decimal)}(\d+))?{behind}")


def _ascii(cell: str) -> str:
    return cell.strip().replace("\u2212", "-")  # the minus of typesetters


def _days(cell: str, form: str) -> float | None:
    try:
        return float((datetime.strptime(cell.strip(), form).date() - _DAY_0).days)
    except ValueError:
        return None
