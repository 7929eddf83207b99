"""From a method's claims to what is reported: judged answers, and the rows that no method has seen, put together."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from invjax.data.tables.table import Table
from invjax.recourse.answers import Person
from invjax.recourse.judging import Judged, Requirements, judge_claims, placed, share_of, tell
from invjax.recourse.plan import Plan
from invjax.recourse.raw import own_probability
from invjax.recourse.reading import AskedRows
from invjax.recourse.wording import Change
from invjax.types import Result, Status


class Conclusion(NamedTuple):
    """What came of N rows."""

    people: tuple[Person, ...]  # N
    table: Table  # the answers in raw units; the row as it is where there is none
    result: Result  # [N] the same in model coordinates


class Verdicts(NamedTuple):
    """What is known about N rows once a method's claims were judged."""

    status: np.ndarray  # [N] int32
    reasons: list[str]  # why a row has no answer; without meaning where it has one
    table: Table  # the answers in raw units; the row as it is where there is none
    x: np.ndarray  # [N, D] the same encoded
    after: np.ndarray  # [N] probability of the target there; NaN without an answer
    cost: np.ndarray  # [N] NaN without an answer
    attempt: np.ndarray  # [N, D] what was tried last
    evaluations: np.ndarray  # [N] int32
    forwards: np.ndarray  # [N] int32


def conclude(plan: Plan, rows: AskedRows, result: Result | None, most: int | None) -> Conclusion:
    """Judge a method's answers to the rows that need one (None: no row does). most: features that may change."""
    return report(plan, rows, judge_result(plan, rows, result, most))


def judge_result(plan: Plan, rows: AskedRows, result: Result | None, most: int | None) -> Verdicts:
    """The first half of :func:`conclude`."""
    data, todo = plan.data, rows.question()[0]
    status, reasons = rows.status.copy(), list(rows.reasons)
    table, x = {name: np.asarray(rows.table[name]).copy() for name in data.space.names}, rows.x.copy()
    after, cost = np.full(len(x), np.nan), np.full(len(x), np.nan)
    attempt, counts = x.copy(), np.zeros((2, len(x)), np.int32)
    if result is not None:
        judged, last, points = _judged(plan, rows, result, most)
        for i, n in enumerate(todo):
            if judged.accepted[i] or last.accepted[i]:
                status[n] = Status.FOUND
            else:
                status[n] = _ended(result.status[i])
                target = data.classes[rows.target[n]]
                reasons[n] = _why(plan.method, judged.why[i], last.why[i], Status(int(status[n])), target, most)
        judged = _either(judged, last)
        table = {name: placed(column, todo, judged.table[name]) for name, column in table.items()}
        x[todo] = judged.x
        after[todo], cost[todo] = judged.probability, judged.cost
        attempt[todo] = points
        counts[:, todo] = np.asarray(result.evaluations), np.asarray(result.forwards)
    return Verdicts(status, reasons, table, x, after, cost, attempt, counts[0], counts[1])


def report(plan: Plan, rows: AskedRows, verdicts: Verdicts) -> Conclusion:
    """The second half of :func:`conclude`: a record for each person."""
    data, (status, reasons, table, x, after, cost, attempt, evaluations, forwards) = plan.data, verdicts
    before = np.full(len(x), np.nan)
    known = rows.predicted >= 0
    before[known] = share_of(rows.logits[known], rows.target[known])
    before, after = (own_probability(plan.network, share, rows.target) for share in (before, after))
    told = _told(plan, rows, status, table)
    people = []
    for n, name in enumerate(rows.names):
        found = status[n] == Status.FOUND
        predicted = data.classes[rows.predicted[n]] if known[n] else ""
        people.append(
            Person(
                name, Status(int(status[n])), "" if found else reasons[n], predicted, data.classes[rows.target[n]],
                told.get(n, ()), float(before[n]), float(after[n] if found else before[n]), float(cost[n]),
            )
        )  # fmt: skip
    return Conclusion(tuple(people), table, Result(x, x - rows.x, status, evaluations, forwards, attempt))


def _told(plan: Plan, rows: AskedRows, status: np.ndarray, table: Table) -> dict[int, tuple[Change, ...]]:
    """The changes of the rows that have an answer, in words that hold as they are printed."""
    found = np.flatnonzero(status == Status.FOUND)
    factual, answers = (
        {name: np.asarray(side[name])[found] for name in plan.data.space.names} for side in (rows.table, table)
    )
    question = Requirements(rows.x[found], factual, rows.target[found], None, plan.probability)
    said = tell(plan.data.space, plan.seen, question, answers) if len(found) else []
    return dict(zip(found.tolist(), said, strict=True))


def _judged(plan: Plan, rows: AskedRows, result: Result, most: int | None) -> tuple[Judged, Judged, np.ndarray]:
    """What was claimed, judged; what was tried last where nothing was accepted, judged; and that point [n, D]."""
    todo, start, _, target = rows.question()
    factual = {name: np.asarray(rows.table[name])[todo] for name in plan.data.space.names}
    question = Requirements(start, factual, target, most, plan.probability)
    candidates, status = np.asarray(result.x), np.asarray(result.status)
    if status.ndim == 1:  # one answer per row
        candidates, status = candidates[:, None], status[:, None]
    judged = judge_claims(plan.data.space, plan.seen, question, candidates, status == Status.FOUND)
    points = np.asarray(result.attempt).reshape(len(todo), -1, start.shape[1])[:, :1]
    points = np.where(np.isfinite(points), points, start[:, None])
    moved = (points[:, 0] != start).any(1) & ~judged.accepted
    return judged, judge_claims(plan.data.space, plan.seen, question, points, moved[:, None]), points[:, 0]


def _ended(own: Any) -> int:
    """The status of a row whose answers were all rejected: never FOUND, whatever the method said."""
    for status in (Status.INFEASIBLE, Status.NONFINITE, Status.NO_GRADIENT):
        if (np.asarray(own) == status).all():
            return int(status)
    return int(Status.NOT_FOUND)


def _either(first: Judged, second: Judged) -> Judged:
    """The rows of ``second`` where it accepted, of ``first`` elsewhere."""
    rows = np.flatnonzero(second.accepted)
    table = {name: placed(column, rows, second.table[name][rows]) for name, column in first.table.items()}
    part = {name: getattr(first, name).copy() for name in ("accepted", "x", "probability", "cost")}
    for name, array in part.items():
        array[rows] = getattr(second, name)[rows]
    return first._replace(table=table, **part)


def _why(method: str, rejected: str, tried: str, status: Status, target: str, most: int | None) -> str:
    if status == Status.NONFINITE:
        return "the model gave no finite numbers near this row"
    if status == Status.INFEASIBLE:
        return "the constraints admit no answer"
    if status == Status.NO_GRADIENT:
        return "the model has no slope in anything that may change, so nothing was tried; take a method by queries"
    if rejected:
        return f"an answer was rejected: {rejected}"
    limit = "" if most is None else f" with at most {most} feature{'s' * (most != 1)} changed"
    best = f"; tried: {tried}" if tried else ""
    return f"none found: {method} gave no answer of class {target!r}{limit}{best}"
