"""Files of an explanation: people in, the table of counterfactuals out."""

from __future__ import annotations

import csv
import io
import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from invjax.constraints import Feature
from invjax.constraints.table import numbers
from invjax.core.arguments import kinds_checked
from invjax.core.errors import BadArgument, Words
from invjax.core.files import no_file
from invjax.core.meant import explained
from invjax.core.text import as_text, inert
from invjax.data.tables.cells import read_cells
from invjax.data.tables.table import Table, TabularData
from invjax.recourse.answers import Explanation
from invjax.types import Status

COLUMNS = (
    "id", "answer", "status", "reason", "predicted", "target", "changed", "cost", "probability", "probability_after",
    "proof",
)  # fmt: skip


@kinds_checked
def csv_text(explanation: Explanation, formulas: bool = False) -> str:
    """The text of counterfactuals.csv: a row per answer with :data:`COLUMNS` and each feature's NAME (from), NAME (to).

    A person has at least one row, with the answer 1; NAME (to) is empty where there is no answer. Numbers have all
    their digits, in the notation of the table's own file.

    formulas: leave text that begins with ``=``, ``+``, ``-`` or ``@`` as it is. By default it gets an apostrophe in
    front (:func:`invjax.core.text.inert`), so that a spreadsheet shows a stranger's ``=cmd()`` and does not run it.
    Numbers never get one, and our own readers take it off.
    """
    safe = str if formulas else inert
    names = list(explanation.table)
    features = {} if explanation.space is None else {feature.name: feature for feature in explanation.space.features}
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([*COLUMNS, *(safe(f"{name} ({side})") for name in names for side in ("from", "to"))])
    for n in range(len(explanation.people)):
        for number, person, table in explanation.answers(n):
            found = person.status == Status.FOUND
            cells: list[Any] = []
            for name in names:
                old, new = (_cell(side[name][n], features.get(name), safe) for side in (explanation.factual, table))
                cells += [old, new if found else ""]
            measures = (person.cost, person.before, person.after if found else math.nan)
            shown = ["" if math.isnan(value) else f"{value:.6g}" for value in measures]
            said = (str(person.id), number, person.status.name.lower(), person.reason, person.predicted, person.target)
            words = [safe(word) if isinstance(word, str) else word for word in said]
            writer.writerow([*words, len(person.changes), *shown, safe(person.proof), *cells])
    return text.getvalue()


@explained
def read_people(path: str | Path, data: TabularData, delimiter: str | None = None) -> tuple[Table, list[str]]:
    """Rows to explain from a CSV file with the columns of the data, and their names: the column ``id``, or positions.

    Numbers may be written as in the file of the data. delimiter: see :func:`invjax.data.load_csv`.
    A cell that is missing or is not a number stays as it is: its row becomes INFEASIBLE, for that reason.
    Raises ValueError: the file cannot be read, or lacks a feature's column.
    """
    path = Path(path)
    if not os.path.isfile(path):
        raise no_file("people", "be an existing CSV file", path)
    try:
        cells = read_cells(path, delimiter)
    except ValueError as error:
        raise BadArgument("people", "be a CSV file with a header", hint=str(error)) from error
    table: Table = {}
    for feature in data.space.features:
        if feature.name not in cells.columns:
            own = [name for name in cells.columns if name not in data.space.names]
            raise BadArgument(
                "people", f"have a column {feature.name!r}", Words(f"{path.name} without it"),
                hint=f"its other columns are {', '.join(own)}" if own else None,
            )  # fmt: skip
        column = np.asarray(cells.columns[feature.name], object)
        if not feature.levelled:
            values = numbers(feature, column)
            if np.isfinite(values).all():
                whole = (values == np.rint(values)).all() and (np.abs(values) < 2**53).all()
                column = values.astype(np.int64) if whole and feature.kind == "integer" else values
            else:
                column[:] = [float(v) if np.isfinite(v) else cell for v, cell in zip(values, column, strict=True)]
        table[feature.name] = column
    named = "id" in cells.columns and "id" not in data.space.names
    return table, cells.columns["id"] if named else [str(n) for n in range(len(cells.lines))]


def _cell(value: Any, feature: Feature | None, safe: Callable[[str], str]) -> Any:
    value = value.item() if hasattr(value, "item") else value
    if isinstance(value, float) and math.isnan(value):
        return ""
    if isinstance(value, str | bytes):
        return safe(as_text(value))
    return value if feature is None else feature.shown(value)
