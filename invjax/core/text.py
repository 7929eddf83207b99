"""Text from and for other programs: names that are bytes, and cells that a spreadsheet would run."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

from invjax.core.errors import BadArgument

_BEGINS = tuple("=+-@\t\r\n＝＋－＠")  # how a cell begins that a spreadsheet takes for a formula


def as_names(values: Iterable[Any], name: str = "names") -> tuple[str, ...]:
    """Names as text; bytes, as CIFAR's files, HDF5 and ARFF keep them, are read as UTF-8."""
    try:
        return tuple(str(one, "utf-8") if isinstance(one, bytes) else str(one) for one in values)
    except UnicodeDecodeError as error:
        raise BadArgument(name, "be text, or bytes in UTF-8", error.object) from error


def as_text(value: Any) -> str:
    """A value of any type as text; bytes that are no UTF-8 keep what can be read of them."""
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)


def inert(cell: str) -> str:
    """The cell with an apostrophe before it if a spreadsheet would run it, which then shows it as text.

    Numbers such as -3.5 and mere signs stay as they are. :func:`restored` gives every cell back.
    """
    return f"'{cell}" if _runs(cell) else cell


def restored(cell: str) -> str:
    """The cell that :func:`inert` was given."""
    return cell[1:] if cell.startswith("'") and _runs(cell) else cell


def _runs(cell: str) -> bool:
    """Whether a cell, without apostrophes before it, is taken for a formula."""
    text = cell.lstrip("'")
    return text.startswith(_BEGINS) and any(map(str.isalnum, text)) and not _is_number(text)


def _is_number(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False
