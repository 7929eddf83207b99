"""Rows in, tables of changes out: what would have had to be different, person by person, in raw units."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from invjax.constraints.table import columns
from invjax.core.errors import BadArgument, Words, of_shape
from invjax.core.logits import as_logits_fn, num_classes
from invjax.data.tables.table import Table, TabularData
from invjax.densities.common import evaluate, log_prob_of
from invjax.engine.evaluate import white_box
from invjax.metrics import measure_counterfactuals, summarize_counterfactuals
from invjax.recourse.answers import Explanation, Person, Step
from invjax.recourse.judging import Judged, Question, classes_of, judge, logits_of, predictor, share_of
from invjax.recourse.methods import Asked, frontier_of, run_method, settings
from invjax.recourse.plausible import training_rows
from invjax.recourse.proofs import prove
from invjax.recourse.wording import changes
from invjax.types import Array, Config, Result, Status


def freeze(data: TabularData, names: Sequence[str]) -> TabularData:
    """The data with these features immutable as well. Raises ValueError for a name that is no feature."""
    unknown = [name for name in names if name not in data.space.names]
    if unknown:
        raise BadArgument("immutable", f"name features ({', '.join(data.space.names)})", unknown[0])
    features = [
        dataclasses.replace(feature, direction="none") if feature.name in names else feature
        for feature in data.space.features
    ]
    space = type(data.space)(features, data.space.relations, data.space.center, data.space.scale)
    return data._replace(space=space)


def explain_rows(
    data: TabularData,
    model: Any,
    rows: Any = None,
    *,
    target: Any = None,
    method: str | Config = "s-cfe",
    max_changes: int | None = None,
    plausibility: float = 0.25,
    tau: float | None = None,
    density: Any = None,
    evaluator: Any = white_box,
    frontier: int = 0,
    certify: bool = False,
    time_limit: float = 30.0,
    ids: Sequence[Any] | None = None,
    key: Array | None = None,
    lanes: int = 64,
    progress: bool | None = False,
) -> Explanation:
    """Counterfactual explanations of rows of a table, in raw units.

    A row is reported as FOUND only if the changed row, written in raw units and read again, obeys the schema as an
    answer to it and has the wanted class (:mod:`invjax.recourse.judging`). What a method that found nothing tried
    last is rounded and judged likewise before the row counts as NOT_FOUND. Bad rows have a status and a reason, and
    leave the others as they are: INFEASIBLE (a missing cell, an unknown level, a value outside the schema, a relation
    that does not hold, nothing that may change), ALREADY_TARGET, NONFINITE, NOT_FOUND (with what was tried).

    Args:
      data: the table that the model and the density know; its space says what may change.
      model: [B, D] -> [B, K], logits on ``data.x``'s columns; whatever :func:`invjax.solve` takes.
      rows: of the table, an index, slice or array; or other rows: a dict of columns, a DataFrame. None: ``data.test``.
      target: the wanted class, a name of ``data.classes`` or a number; one, or one for each row. None: the class that
        the model holds second most likely.
      method: a name of ``invjax.counterfactuals.REGISTRY``, "face", "pcfe", or a method's configuration, which is
        taken as it is.
      max_changes: features that may change, of methods that can limit it; None: 3 of S-CFE.
      plausibility: α, the share of the class's own training rows that are not plausible enough; 0: no density.
      tau: weight of the log density; None: see :mod:`invjax.recourse.plausible`; with ``density`` 1.
      density: a density of one's own in the place of the kernels; with log_prob(x, label).
      evaluator: for a black box, see :mod:`invjax.engine.blackbox`.
      frontier: M > 0: also the best answers with 1, …, M changed features (S-CFE with a differentiable model).
      certify: also prove how few changed features would do for each row (a MILP; small ReLU networks and logistic
        regression only), or that nothing allowed leads to the class. time_limit: seconds for each of these proofs.
      ids: names of the rows; by default their positions in the table, or in ``rows``.
      key: PRNG key of the method's draws. lanes, progress: see :func:`invjax.solve`.

    Raises:
      ValueError: an argument, naming it; a column that rows lack. ImportError: what a method needs is missing.
    """
    table, names = _people(data, rows, ids)
    space, count = data.space, len(names)
    x = space.encode(table)
    reasons = space.reasons(table)
    for n, row in enumerate(x):
        if not reasons[n] and not np.isfinite(row).all():
            reasons[n] = "a cell is no number"
    classes = len(data.classes)
    network = as_logits_fn(model)
    if (found := num_classes(network, (space.width,), np.float32)) != classes:
        raise BadArgument("model", f"have the {classes} classes of the data", Words(found))
    logits = logits_of(network, x)
    predicted = classes_of(logits)
    wanted = _targets(data, target, logits, predicted, count)

    asked = settings(data, method, max_changes, plausibility, tau, density, evaluator)
    status = np.full(count, Status.PENDING, np.int32)
    status[predicted < 0] = Status.NONFINITE
    status[predicted == wanted] = Status.ALREADY_TARGET
    bound = _nothing_may_change(space, x)
    for n in range(count):
        if reasons[n]:
            status[n] = Status.INFEASIBLE
        elif status[n] == Status.PENDING and bound[n]:
            status[n], reasons[n] = Status.INFEASIBLE, "no feature of this row may change, or has room to"
        elif status[n] == Status.NONFINITE:
            reasons[n] = "the model gives no finite numbers for this row"
        elif status[n] == Status.ALREADY_TARGET:
            reasons[n] = f"the model already says {data.classes[wanted[n]]!r}"

    todo = np.flatnonzero(status == Status.PENDING)
    task = _Task(data, network, x, table, logits, predicted, wanted, status, reasons, names, todo)
    result = None
    if len(todo):
        result = run_method(
            asked, data, network, x[todo], predicted[todo], wanted[todo],
            evaluator=evaluator, ids=todo, key=key, lanes=lanes, progress=progress,
        )  # fmt: skip
    people, answers, full = _conclude(task, asked, result, asked.most)
    if certify:
        people = prove(data, network, x, predicted, wanted, people, full, time_limit=time_limit)
    steps = []
    for m, part in frontier_of(asked, data, network, x[todo], predicted[todo], wanted[todo], frontier, evaluator):
        steps.append(Step(m, _conclude(task, asked, part, m)[0]))
    if frontier and not len(todo):
        steps = [Step(m, people) for m in range(1, frontier + 1)]

    train = training_rows(data) if asked.train is None else asked.train
    measured = measure_counterfactuals(
        x, full, wanted, predict=predictor(network), space=space, table=table, train_x=data.x[train],
        train_y=data.label[train], density=asked.measure, lof_neighbours=20 if _has_sklearn() else None,
    )  # fmt: skip
    summary = summarize_counterfactuals(measured) | {"plausible": _plausible(asked, full, wanted, measured.valid)}
    return Explanation(
        data.name, people, table, answers, full, predicted, wanted, measured, summary,
        asked.words, tuple(steps),
    )  # fmt: skip


class _Task(NamedTuple):
    data: TabularData
    model: Any
    x: np.ndarray
    table: Table
    logits: np.ndarray
    predicted: np.ndarray
    target: np.ndarray
    status: np.ndarray
    reasons: list[str]
    names: list[str]
    todo: np.ndarray


def _conclude(
    task: _Task, asked: Asked, result: Result | None, most: int | None
) -> tuple[tuple[Person, ...], Table, Result]:
    """Judge a method's answers to the rows ``todo``, and put them together with the rows it never saw."""
    data, space, todo = task.data, task.data.space, task.todo
    status, reasons = task.status.copy(), list(task.reasons)
    table, x = {name: np.asarray(task.table[name]).copy() for name in space.names}, task.x.copy()
    after, cost = np.full(len(x), np.nan), np.full(len(x), np.nan)
    attempt, counts = x.copy(), np.zeros((2, len(x)), np.int32)
    if result is not None:
        candidates, claimed = _candidates(result)
        question = Question(
            x[todo], {name: column[todo] for name, column in table.items()}, task.target[todo], most, asked.probability
        )
        judged = judge(space, task.model, question, candidates, claimed)
        points = np.asarray(result.attempt).reshape(len(todo), -1, x.shape[1])[:, :1]
        points = np.where(np.isfinite(points), points, question.x[:, None])
        moved = (points[:, 0] != question.x).any(1) & ~judged.accepted
        last = judge(space, task.model, question, points, moved[:, None])
        for i, n in enumerate(todo):
            status[n] = Status.FOUND if judged.accepted[i] or last.accepted[i] else _ended(result.status[i])
            if status[n] != Status.FOUND:
                target = data.classes[task.target[n]]
                reasons[n] = _why(judged.why[i], last.why[i], Status(int(status[n])), target, most)
        judged = _either(judged, last)
        table = _merge(table, judged.table, todo)
        x[todo] = judged.x
        after[todo], cost[todo] = judged.probability, judged.cost
        attempt[todo] = points[:, 0]
        counts[:, todo] = np.asarray(result.evaluations), np.asarray(result.forwards)
    before = np.full(len(x), np.nan)
    known = task.predicted >= 0
    before[known] = share_of(task.logits[known], task.target[known])
    people = tuple(
        Person(
            task.names[n], Status(int(status[n])), "" if status[n] == Status.FOUND else reasons[n],
            data.classes[task.predicted[n]] if known[n] else "", data.classes[task.target[n]],
            changes(space, task.table, table, n) if status[n] == Status.FOUND else (),
            float(before[n]), float(after[n]) if status[n] == Status.FOUND else float(before[n]), float(cost[n]),
        )
        for n in range(len(x))
    )  # fmt: skip
    return people, table, Result(x, x - task.x, status.astype(np.int32), counts[0], counts[1], attempt)


def _candidates(result: Result) -> tuple[np.ndarray, np.ndarray]:
    """[n, P, D] points and [n, P] which are claimed; P = 1 for a method with one answer."""
    x, status = np.asarray(result.x), np.asarray(result.status)
    if status.ndim == 1:
        x, status = x[:, None], status[:, None]
    return x, status == Status.FOUND


def _ended(own: Any) -> int:
    """The status of a row without an accepted answer: FOUND is no longer true."""
    for status in (Status.INFEASIBLE, Status.NONFINITE):
        if (np.asarray(own) == status).all():
            return int(status)
    return int(Status.NOT_FOUND)


def _either(first: Judged, second: Judged) -> Judged:
    """The rows of ``second`` where it accepted, of ``first`` elsewhere."""
    rows = np.flatnonzero(second.accepted)
    table = _merge(first.table, {name: column[rows] for name, column in second.table.items()}, rows)
    part = {name: getattr(first, name).copy() for name in ("accepted", "x", "probability", "cost")}
    for name, array in part.items():
        array[rows] = getattr(second, name)[rows]
    return first._replace(table=table, **part)


def _why(rejected: str, tried: str, status: Status, target: str, most: int | None) -> str:
    if status == Status.NONFINITE:
        return "the model gave no finite numbers near this row"
    if status == Status.INFEASIBLE:
        return "the constraints admit no answer"
    if rejected:
        return f"an answer was rejected: {rejected}"
    limit = "" if most is None else f" of at most {most} feature{'s' * (most != 1)}"
    best = f"; tried: {tried}" if tried else ""
    return f"no allowed change{limit} that leads to {target!r} was found{best}"


def _merge(table: Table, part: Mapping[str, np.ndarray], rows: np.ndarray) -> Table:
    merged = {}
    for name, column in table.items():
        own = np.asarray(part[name])
        if column.dtype.kind in "US" or own.dtype.kind == "O":
            column = column.astype(object)
        elif column.dtype.kind in "iu" and own.dtype.kind == "f":
            column = column.astype(np.float64)
        column[rows] = own
        merged[name] = column
    return merged


def _people(data: TabularData, rows: Any, ids: Sequence[Any] | None) -> tuple[Table, list[str]]:
    """The rows in question as columns, and their names."""
    if isinstance(rows, Mapping) or (hasattr(rows, "columns") and hasattr(rows, "iloc")):
        table = columns(rows, data.space.names)
        index = getattr(rows, "index", None)
        found = range(len(next(iter(table.values())))) if index is None else index
    else:
        chosen = data.test if rows is None else rows
        try:
            found = np.atleast_1d(np.arange(len(data.label))[chosen])
        except (IndexError, TypeError) as error:
            raise BadArgument("rows", f"be rows of the {len(data.label)} of the table, or a table", rows) from error
        table = data.rows(found)
    names = [str(name) for name in (found if ids is None else ids)]
    if not names or len(names) != len(next(iter(table.values()))):
        raise BadArgument("ids", f"name each of the {len(next(iter(table.values())))} rows", Words(len(names)))
    return table, names


def _targets(data: TabularData, target: Any, logits: np.ndarray, predicted: np.ndarray, count: int) -> np.ndarray:
    """[N] wanted classes."""
    if target is None:  # the runner-up
        rest = np.where(np.isnan(logits), -np.inf, logits)
        rest[np.arange(count), predicted] = -np.inf
        return rest.argmax(1).astype(np.int32)
    given = np.atleast_1d(np.asarray(target))
    if given.shape not in ((1,), (count,)):
        raise BadArgument("target", f"be one class or one for each of the {count} rows", of_shape(given.shape))
    wanted = []
    for one in given.tolist():
        by_name = [k for k, name in enumerate(data.classes) if name == str(one)]
        if not by_name and not (isinstance(one, int) and 0 <= one < len(data.classes)):
            raise BadArgument("target", f"be one of the classes {', '.join(data.classes)}", one)
        wanted.append(one if isinstance(one, int) and not isinstance(target, str) else by_name[0])
    return np.broadcast_to(np.asarray(wanted, np.int32), (count,)).copy()


def _nothing_may_change(space: Any, x: np.ndarray) -> np.ndarray:
    """[N] bool: no column has room."""
    low, high = jax.vmap(space.compile(np.float32).limits)(np.where(np.isfinite(x), x, 0).astype(np.float32))
    return np.all(np.asarray(low) >= np.asarray(high), axis=1)


def _plausible(asked: Asked, result: Result, target: np.ndarray, valid: np.ndarray) -> float:
    """Share of the valid answers that are as dense as was asked; NaN without a threshold."""
    if asked.cut is None or not valid.any():
        return float("nan")
    values = evaluate(log_prob_of, asked.cut, result.x[valid], target[valid].astype(np.int32))
    return float((np.asarray(values) >= -1e-3).mean())


def _has_sklearn() -> bool:
    from importlib.util import find_spec

    return find_spec("sklearn") is not None
