"""``invjax explain``: data, classifier and rows by name; a folder with a table, a page and the measures."""

from __future__ import annotations

import contextlib
import csv
import json
import math
import re
import shlex
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import numpy as np

from invjax.cli.options import ExplainOptions
from invjax.core.errors import BadArgument, check_number, check_seed, check_whole
from invjax.core.files import check_folder, write_answers, writing
from invjax.data.tables.csv_file import load_csv
from invjax.data.tables.draft import unknowns
from invjax.data.tables.load import load_tabular
from invjax.data.tables.table import TabularData
from invjax.engine.choosing import check_lanes
from invjax.recourse import Explanation, TableClassifier, classifier, csv_text, explain_rows, freeze, read_people
from invjax.recourse.classifiers import save_mlp
from invjax.recourse.plan import check_constants
from invjax.report import counterfactual_section, write_report
from invjax.report.counterfactuals import frontier_rows, measure_row
from invjax.report.text import text_table
from invjax.types import Status

_OF_FILES = ("label", "schema", "delimiter", "decimal", "categories", "drop", "missing", "missing_values")  # of --csv
_SHOWN = 10  # rows explained where none are named
_PRINTED = 40  # people printed
_FRONTIER = 3  # changes on the frontier where --max-changes is not given


def run_explain(options: ExplainOptions, say: Callable[[str], None] = print) -> Explanation:
    """Check everything, explain the rows, write counterfactuals.csv, report.html and summary.json into ``options.out``.

    The first: :func:`invjax.recourse.csv_text`. A classifier that was trained here is kept as model.npz.

    Raises ValueError, ImportError: before anything is written; naming the option, what it must be and what it was.
    """
    begin = time.perf_counter()
    check_lanes(options.lanes, None)
    check_seed("seed", options.seed, 32, -(2**31))
    check_constants(options.method, options.max_changes, options.plausibility, options.tau, options.probability)
    check_whole("answers", options.answers)
    check_number("time_limit", options.time_limit, lambda seconds: seconds > 0, "a number of seconds > 0")
    folder = check_folder(options.out)
    data = _data(options)
    rows, ids = _rows(options, data)
    _check_target(options, data)
    unknown = unknowns(data) if options.csv is not None and options.schema is None else []
    if options.save_schema is not None:
        with writing(options.save_schema, "save_schema", "file"):
            data.space.to_json(options.save_schema, unknown)
    with _about_the_file(options):
        chosen = classifier(
            data, options.model, gradient=options.gradient,  # type: ignore[arg-type]
            classes=_classes(options.classes), threshold=options.threshold, seed=options.seed,
        )  # fmt: skip
    right = "" if math.isnan(chosen.accuracy) else f"; right on {100 * chosen.accuracy:.0f} % of the test rows"
    say(f"{data.name}: {len(data.label)} rows, classes {', '.join(data.classes)}; {chosen.words}{right}")
    notes = [*data.notes, *_left(options, data, rows)]
    for heading, lines in (("As the table was read", notes), ("What the draft of a schema does not know", unknown)):
        if lines:
            say("\n".join([f"{heading}:", *(f"  - {line}" for line in lines)]))
    with _about_the_file(options):
        explanation = explain_rows(
            data, chosen.model, rows, ids=ids, target=options.target, undesired=options.undesired,
            method=options.method, max_changes=options.max_changes, plausibility=options.plausibility, tau=options.tau,
            probability=options.probability, answers=options.answers,
            evaluator=chosen.evaluator, key=jax.random.key(options.seed), certify=options.certify,
            time_limit=options.time_limit, lanes=options.lanes,
            frontier=(options.max_changes or _FRONTIER) if options.frontier else 0,
            progress=False if options.no_progress else None,
        )  # fmt: skip
    seconds = time.perf_counter() - begin
    _print(explanation, say)
    table = csv_text(explanation, options.keep_formulas)
    summary = _json(explanation, chosen, [*notes, *unknown], seconds)
    write_answers(folder, {"counterfactuals.csv": table.encode(), "summary.json": summary.encode()})
    with writing(folder):
        if chosen.weights is not None:
            save_mlp(chosen.weights, folder / "model.npz")
        write_report(
            folder / "report.html",
            [counterfactual_section(explanation)],
            title="invjax explain",
            subtitle=f"What would have to be different for {len(explanation.people)} rows of `{data.name}`. "
            f"The model: {chosen.words}{right}.",
            footer=" ".join(f"{line[:1].upper()}{line[1:]}." for line in notes)
            + f" All values: counterfactuals.csv and summary.json beside this page. {seconds:.0f} s.",
        )
    kept = ", model.npz" if chosen.weights is not None else ""
    say(f"wrote {folder / 'report.html'}, counterfactuals.csv, summary.json{kept}")
    return explanation


@contextlib.contextmanager
def _about_the_file(options: ExplainOptions) -> Iterator[None]:
    """Errors about the data are about ``--csv`` where they came from there."""
    try:
        yield
    except BadArgument as error:
        raise (error.renamed("csv") if error.name == "data" and options.csv is not None else error) from None


def _data(options: ExplainOptions) -> TabularData:
    if (options.data is None) == (options.csv is None):
        raise BadArgument("data", "be given, or --csv, but not both")
    try:
        if options.csv is not None:
            if options.label is None:
                raise BadArgument("label", "name the column with the class, because --csv is given")
            data = load_csv(
                options.csv, options.label, options.schema, delimiter=options.delimiter,
                decimal=options.decimal,  # type: ignore[arg-type]
                drop=_names(options.drop), categories=_names(options.categories),
                missing=options.missing,  # type: ignore[arg-type]
                missing_values=_names(options.missing_values),
            )  # fmt: skip
        else:
            for name in _OF_FILES:
                if (value := getattr(options, name)) not in (None, "", "error"):
                    raise BadArgument(name, "be left out with --data", str(value))
            data = load_tabular(str(options.data))  # type: ignore[arg-type]
            if data.name == "housing":
                data = data.without("B", reason="it is computed from the share of Black residents")
    except BadArgument as error:
        option = {"path": "csv", "name": "data"}.get(error.name)
        raise (error.renamed(option) if option else error) from None
    return freeze(data, _names(options.immutable))


def _names(text: str) -> list[str]:
    """The parts of ``A,B``; quotes keep the comma of a name: ``'"A, B",C'``."""
    return [part.strip() for part in next(csv.reader([text], skipinitialspace=True), []) if part.strip()]


def _classes(text: str) -> dict[str, str] | None:
    """The pairs of ``A=B,C=D``; None where there are none."""
    pairs = [part.partition("=") for part in _names(text)]
    if any(not (own and equals and name) for own, equals, name in pairs):
        raise BadArgument("classes", "be pairs like 0=bad,1=good", text)
    return {own.strip(): name.strip() for own, _, name in pairs} or None


def _check_target(options: ExplainOptions, data: TabularData) -> None:
    """Raise BadArgument where nobody has said which class is good: an answer must not talk a person out of it."""
    if options.target is None and options.undesired is None and data.desired is None:
        first, last = data.classes[0], data.classes[-1]
        hint = f"its classes are {', '.join(data.classes)}: --target {_word(last)}, or --undesired {_word(first)}"
        raise BadArgument("target", "be given with --csv, which does not say what its good class is", hint=hint)
    for name, value in (("target", options.target), ("undesired", options.undesired)):
        if value is not None:
            data.class_of(value, name)


def _word(name: str) -> str:
    return shlex.quote(name)


def _left(options: ExplainOptions, data: TabularData, rows: Any) -> list[str]:
    """What is not explained although it could be."""
    if options.rows is not None or options.people is not None or len(data.test) <= _SHOWN:
        return []
    return [f"the first {len(rows)} of {len(data.test)} test rows are explained; --rows test explains all"]


def _rows(options: ExplainOptions, data: TabularData) -> tuple[Any, Sequence[str] | None]:
    """What to explain: a table of people, or row numbers of the data."""
    if options.people is not None:
        if options.rows is not None:
            raise BadArgument("rows", "be left out with --people", hint="all of its rows are explained")
        return read_people(options.people, data, options.delimiter)
    ids = np.arange(len(data.label)) if data.ids is None else data.ids
    count = int(ids.max()) + 1
    if options.rows is None:
        return data.test[:_SHOWN], None
    if options.rows in ("test", "all"):
        return (data.test if options.rows == "test" else np.arange(len(ids))), None
    if found := re.fullmatch(r"(\d*):(\d*)", options.rows):
        chosen = np.flatnonzero((ids >= int(found[1] or 0)) & (ids < int(found[2] or count)))
        if not len(chosen):
            raise BadArgument("rows", f"be row numbers below {count}", options.rows)
        return chosen, None
    if not re.fullmatch(r"\d+(,\d+)*", options.rows):
        raise BadArgument("rows", "be a range like 0:10, numbers like 3,7, test or all", options.rows)
    wanted = [int(word) for word in options.rows.split(",")]
    if max(wanted) >= count:
        raise BadArgument("rows", f"be row numbers below {count}", options.rows)
    place = {row: n for n, row in enumerate(ids.tolist())}
    if gone := [row for row in wanted if row not in place]:
        raise BadArgument("rows", "name rows that are complete", gone[0], hint="a cell of this one is missing")
    return np.asarray([place[row] for row in wanted]), None


def _print(explanation: Explanation, say: Callable[[str], None]) -> None:
    say("\n" + "\n".join(explanation.paragraphs()[:_PRINTED]))
    if len(explanation.people) > _PRINTED:
        say(f"… and {len(explanation.people) - _PRINTED} more in counterfactuals.csv")
    say("\n" + "; ".join(f"{name}: {value}" for name, value in explanation.settings.items()))
    row = {"rows": str(len(explanation.people))} | measure_row(explanation.summary)
    say(f"\n{text_table([row])}\n")
    if explanation.frontier:
        say(f"{text_table(frontier_rows(explanation))}\n")


def _json(explanation: Explanation, chosen: TableClassifier, notes: Sequence[str], seconds: float) -> str:
    content = {
        "data": explanation.name,
        "model": chosen.words,
        "accuracy": _finite(chosen.accuracy),
        "settings": explanation.settings,
        "notes": list(notes),
        "statuses": {status.name.lower(): explanation.count(status) for status in Status},
        "measures": {name: _finite(value) for name, value in explanation.summary.items()},
        "further_answers": [sum(person is not None for person in one.people) for one in explanation.further],
        "frontier": frontier_rows(explanation),
        "seconds": round(seconds, 2),
    }
    return json.dumps(content, indent=1, allow_nan=False) + "\n"


def _finite(value: float) -> float | None:
    return None if math.isnan(value) else value
