"""What becomes of rows that a gradient left without an answer, where that gradient is not the model's own.

First every change of one feature (:mod:`.one_change`), then, where a network lent its gradient, the method once more
with differences of the model itself (:mod:`.gradients`). Both ask the model alone, so neither inherits what the network
got wrong. A gradient that was zero everywhere is treated in the same way.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from invjax.engine.blackbox import surrogate
from invjax.engine.evaluate import white_box
from invjax.recourse.concluding import Verdicts, judge_result
from invjax.recourse.gradients import agreement_at, differences
from invjax.recourse.judging import placed
from invjax.recourse.methods import call_method
from invjax.recourse.one_change import one_change
from invjax.recourse.plan import Plan
from invjax.recourse.reading import AskedRows
from invjax.types import Status


def complete(plan: Plan, rows: AskedRows, verdicts: Verdicts, **options: Any) -> tuple[Verdicts, dict[str, str]]:
    """The verdicts with more answers, and what was done for them, in words. options: of :func:`call_method`."""
    if plan.config is None or not plan.config.method.needs_grad:
        return verdicts, {}
    words: dict[str, str] = {}
    open_ = (Status.NO_GRADIENT,) if plan.evaluator is white_box else (Status.NO_GRADIENT, Status.NOT_FOUND)
    left = np.flatnonzero(np.isin(verdicts.status, open_))
    if len(left):
        verdicts, count = _by_one_change(plan, rows, verdicts, left)
        words["one change"] = f"all values of each feature alone, for the {len(left)} rows left: {count} answers"
        left = left[verdicts.status[left] == Status.NOT_FOUND]
    if len(left) and plan.evaluator is surrogate:
        verdicts, count = _by_differences(plan, rows, verdicts, left, **options)
        words["differences"] = f"of the model itself, for the {len(left)} rows still left: {count} answers"
    found = np.flatnonzero(verdicts.status == Status.FOUND)
    same = agreement_at(plan.network, verdicts.x[found], rows.target[found], plan.probability) if len(found) else None
    if same is not None:
        words["agreement at the answers"] = f"the network that imitates sees one in {same} of {len(found)}"
    return verdicts, words


def _by_one_change(
    plan: Plan, rows: AskedRows, verdicts: Verdicts, left: np.ndarray
) -> tuple[Verdicts, int]:  # fmt: skip
    got, tried = one_change(plan, rows, left)
    reasons = list(verdicts.reasons)
    for n, count in zip(left, tried, strict=True):
        if verdicts.status[n] == Status.NO_GRADIENT:
            reasons[n] = f"none found: the model has no slope in what may change, so {plan.method} tried nothing"
        reasons[n] += f"; none of the {count:,} changes of one feature that were tried leads there"
    forwards = verdicts.forwards.copy()
    forwards[left] += tried
    good = np.flatnonzero(got.accepted)
    won = left[good]
    status, x, after, cost = (a.copy() for a in (verdicts.status, verdicts.x, verdicts.after, verdicts.cost))
    status[left] = Status.NOT_FOUND
    status[won], x[won], after[won], cost[won] = Status.FOUND, got.x[good], got.probability[good], got.cost[good]
    table = {name: placed(column, won, got.table[name][good]) for name, column in verdicts.table.items()}
    return verdicts._replace(
        status=status, reasons=reasons, table=table, x=x, after=after, cost=cost, forwards=forwards
    ), len(won)


def _by_differences(
    plan: Plan, rows: AskedRows, verdicts: Verdicts, left: np.ndarray, **options: Any
) -> tuple[Verdicts, int]:
    plan = plan._replace(evaluator=differences(plan.data.space, plan.network))
    asked = rows._replace(status=np.where(np.isin(np.arange(len(rows.status)), left), Status.PENDING, Status.FOUND))
    again = judge_result(plan, asked, call_method(plan, asked, **options), plan.max_changes)
    won = left[again.status[left] == Status.FOUND]
    reasons = list(verdicts.reasons)
    for n in left:
        reasons[n] += "; nor did differences of the model find one"
    mixed = {
        name: np.where(np.isin(np.arange(len(rows.status)), won), getattr(again, name), getattr(verdicts, name))
        for name in ("status", "after", "cost")
    }
    x = verdicts.x.copy()
    x[won] = again.x[won]
    table = {name: placed(column, won, again.table[name][won]) for name, column in verdicts.table.items()}
    return verdicts._replace(
        **mixed, reasons=reasons, table=table, x=x,
        evaluations=verdicts.evaluations + again.evaluations, forwards=verdicts.forwards + again.forwards,
    ), len(won)  # fmt: skip
