"""The job of ``invjax explain``: data, classifier and rows by name; a folder with a table, a page and the numbers."""

from __future__ import annotations

import csv
import io
import json
import math
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np

from invjax.constraints.table import numbers
from invjax.core.errors import BadArgument, Words
from invjax.core.files import check_folder, write_atomic
from invjax.data.tables.csv_file import load_csv, read_cells
from invjax.data.tables.load import load_tabular
from invjax.data.tables.table import Table, TabularData
from invjax.recourse.answers import Explanation
from invjax.recourse.classifiers import Chosen, classifier, save
from invjax.recourse.rows import explain_rows, freeze
from invjax.report import counterfactual_section, write_report
from invjax.report.counterfactuals import frontier_rows, measure_row
from invjax.report.text import text_table
from invjax.types import Status

SHOWN = 10  # rows explained where none are named
PRINTED = 40  # people printed


@dataclass(frozen=True)
class ExplainJob:
    """What ``invjax explain`` is asked for; the fields are its options."""

    out: str | Path
    data: str | None = None
    csv: str | Path | None = None
    label: str | None = None
    schema: str | Path | None = None
    missing: str = "error"
    rows: str | None = None
    people: str | Path | None = None
    model: str = "mlp"
    gradient: str = "surrogate"
    target: str | None = None
    method: str = "s-cfe"
    max_changes: int | None = None
    plausibility: float = 0.25
    tau: float | None = None
    immutable: str = ""
    frontier: bool = False
    certify: bool = False
    time_limit: float = 30.0
    save_schema: str | Path | None = None
    seed: int = 0
    lanes: int = 64
    no_progress: bool = False


def run_explain(job: ExplainJob, say: Callable[[str], None] = print) -> Explanation:
    """Check everything, explain the rows, write counterfactuals.csv, report.html and summary.json into ``job.out``.

    counterfactuals.csv has a row per person: id, status, reason, predicted, target, changed, cost, probability,
    probability_after, proof, and of every feature NAME (from) and NAME (to), the latter empty where there is no answer.

    Raises ValueError, ImportError: before anything is written; naming the option, what it must be and what it was.
    """
    begin = time.perf_counter()
    if job.lanes < 1:
        raise BadArgument("lanes", "be at least 1", Words(job.lanes))
    data = _data(job)
    rows, ids = _rows(job, data)
    folder = check_folder(job.out)
    if job.save_schema is not None:
        _save_schema(data, job.save_schema)
    chosen = classifier(data, job.model, gradient=job.gradient, seed=job.seed)
    right = "" if math.isnan(chosen.accuracy) else f"; right on {100 * chosen.accuracy:.0f} % of the test rows"
    say(f"{data.name}: {chosen.words}{right}")
    most = job.max_changes
    explanation = explain_rows(
        data, chosen.model, rows, ids=ids, target=job.target, method=job.method, max_changes=most,
        plausibility=job.plausibility, tau=job.tau, evaluator=chosen.evaluator, key=jax.random.key(job.seed),
        certify=job.certify, time_limit=job.time_limit, lanes=job.lanes,
        frontier=(3 if most is None else most) if job.frontier else 0,
        progress=False if job.no_progress else None,
    )  # fmt: skip
    seconds = time.perf_counter() - begin
    _print(explanation, say)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_atomic(folder / "counterfactuals.csv", table_of(data, explanation).encode())
        write_atomic(folder / "summary.json", _json(explanation, chosen, seconds).encode())
        if chosen.weights is not None:
            save(chosen.weights, folder / "model.npz")
    except OSError as error:
        raise BadArgument(
            "out", "be a folder that can be written", Words(f"{str(folder)!r}: {error.strerror}")
        ) from error
    write_report(
        folder / "report.html",
        [counterfactual_section(explanation)],
        title="invjax explain",
        subtitle=f"What would have to be different for {len(explanation.people)} rows of `{data.name}`. "
        f"The model: {chosen.words}{right}.",
        footer=f"All values: counterfactuals.csv and summary.json beside this page. {seconds:.0f} s.",
    )
    kept = ", model.npz" if chosen.weights is not None else ""
    say(f"wrote {folder / 'report.html'}, counterfactuals.csv, summary.json{kept}")
    return explanation


def table_of(data: TabularData, explanation: Explanation) -> str:
    """The text of counterfactuals.csv: see :func:`run_explain`."""
    names = data.space.names
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    first = (
        "id",
        "status",
        "reason",
        "predicted",
        "target",
        "changed",
        "cost",
        "probability",
        "probability_after",
        "proof",
    )
    writer.writerow([*first, *(f"{name} ({side})" for name in names for side in ("from", "to"))])
    for n, person in enumerate(explanation.people):
        found = person.status == Status.FOUND
        cells: list[Any] = []
        for name in names:
            cells += [_cell(explanation.factual[name][n]), _cell(explanation.table[name][n]) if found else ""]
        numbers_of = (person.cost, person.before, person.after if found else math.nan)
        shown = ["" if math.isnan(value) else f"{value:.6g}" for value in numbers_of]
        writer.writerow(
            [person.id, person.status.name.lower(), person.reason, person.predicted, person.target,
             len(person.changes), *shown, person.proof, *cells]
        )  # fmt: skip
    return text.getvalue()


def read_people(path: str | Path, data: TabularData) -> tuple[Table, list[str]]:
    """Rows to explain from a CSV file with the columns of the data, and their names: the column ``id``, or positions.

    A cell that is missing or no number stays what it is: its row is then INFEASIBLE, for that reason.
    Raises ValueError: the file cannot be read, or lacks a feature's column.
    """
    path = Path(path)
    if not path.is_file():
        raise BadArgument("people", "be an existing CSV file", str(path))
    try:
        cells = read_cells(path)
    except ValueError as error:
        raise BadArgument("people", "be a CSV file with a header", hint=str(error)) from error
    table: Table = {}
    for feature in data.space.features:
        if feature.name not in cells.columns:
            raise BadArgument("people", f"have a column {feature.name!r}, {path.name} has none")
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


def _data(job: ExplainJob) -> TabularData:
    if (job.data is None) == (job.csv is None):
        raise BadArgument("data", "be given, or csv, and not both", Words(f"{job.data} and {job.csv}"))
    if job.csv is None:
        for name, value in (("label", job.label), ("schema", job.schema)):
            if value is not None:
                raise BadArgument(name, "be left out with a data set by name", str(value))
        try:
            data = load_tabular(str(job.data))
        except ValueError as error:
            raise ValueError(re.sub(r"^name must be", "data must be", str(error))) from error
    else:
        if job.label is None:
            raise BadArgument("label", "name the column with the class, where csv is given")
        try:
            data = load_csv(job.csv, job.label, job.schema, missing=job.missing)  # type: ignore[arg-type]
        except ValueError as error:
            raise ValueError(re.sub(r"^path must be", "csv must be", str(error))) from error
    return freeze(data, [name.strip() for name in job.immutable.split(",") if name.strip()])


def _rows(job: ExplainJob, data: TabularData) -> tuple[Any, Sequence[str] | None]:
    """What to explain: a table of people, or row numbers of the data."""
    if job.people is not None:
        if job.rows is not None:
            raise BadArgument("rows", "be left out where people is given", hint="all of its rows are explained")
        return read_people(job.people, data)
    count = len(data.label)
    if job.rows is None:
        return data.test[:SHOWN], None
    if job.rows in ("test", "all"):
        return (data.test if job.rows == "test" else np.arange(count)), None
    if found := re.fullmatch(r"(\d*):(\d*)", job.rows):
        chosen = np.arange(count)[int(found[1] or 0) : int(found[2] or count)]
    elif re.fullmatch(r"\d+(,\d+)*", job.rows):
        chosen = np.asarray([int(word) for word in job.rows.split(",")])
    else:
        raise BadArgument("rows", "be a range like 0:10, numbers like 3,7, test or all", job.rows)
    if not len(chosen) or chosen.max() >= count:
        raise BadArgument("rows", f"be row numbers below {count}", job.rows)
    return chosen, None


def _save_schema(data: TabularData, path: str | Path) -> None:
    try:
        data.space.to_json(path)
    except OSError as error:
        raise BadArgument(
            "save_schema", "be a file that can be written", Words(f"{str(path)!r}: {error.strerror}")
        ) from error


def _print(explanation: Explanation, say: Callable[[str], None]) -> None:
    lines = explanation.text().splitlines()
    say("\n" + "\n".join(lines[: 2 * PRINTED]))
    if len(explanation.people) > PRINTED:
        say(f"… and {len(explanation.people) - PRINTED} more in counterfactuals.csv")
    say("\n" + "; ".join(f"{name}: {value}" for name, value in explanation.settings.items()))
    row = {"rows": str(len(explanation.people))} | measure_row(explanation.summary)
    say(f"\n{text_table([row])}\n")
    if explanation.frontier:
        say(f"{text_table(frontier_rows(explanation))}\n")


def _json(explanation: Explanation, chosen: Chosen, seconds: float) -> str:
    def plain(values: dict[str, float]) -> dict[str, float | None]:
        return {name: None if math.isnan(value) else value for name, value in values.items()}

    content = {
        "data": explanation.name,
        "model": chosen.words,
        "accuracy": None if math.isnan(chosen.accuracy) else chosen.accuracy,
        "settings": explanation.settings,
        "statuses": {status.name.lower(): explanation.count(status) for status in Status},
        "measures": plain(explanation.summary),
        "frontier": frontier_rows(explanation),
        "seconds": round(seconds, 2),
    }
    return json.dumps(content, indent=1, allow_nan=False) + "\n"


def _cell(value: Any) -> Any:
    value = value.item() if hasattr(value, "item") else value
    return "" if isinstance(value, float) and math.isnan(value) else value
