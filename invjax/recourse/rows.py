"""Rows in, tables of changes out: what would have to be different, person by person, in raw units."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from functools import partial
from importlib.util import find_spec
from typing import Any, Literal

import numpy as np

from invjax.core.arguments import kinds_checked
from invjax.core.errors import BadArgument, check_key, check_number, unknown_name
from invjax.counterfactuals import MethodName
from invjax.data.tables.table import TabularData
from invjax.densities.common import evaluate, log_prob_of
from invjax.engine.choosing import check_lanes
from invjax.engine.evaluate import white_box
from invjax.metrics import measure_counterfactuals, summarize_counterfactuals
from invjax.recourse.answers import Explanation, FrontierStep
from invjax.recourse.completing import complete
from invjax.recourse.concluding import Conclusion, conclude, judge_result, report
from invjax.recourse.methods import call_method, check_frontier, frontier_of
from invjax.recourse.plan import FunctionName, Plan, make_plan
from invjax.recourse.proofs import check_certify, prove
from invjax.recourse.raw import logits_of
from invjax.recourse.reading import AskedRows, read_rows
from invjax.recourse.several import check_answers, further_answers
from invjax.types import Array, Config, Density, Evaluator

_NEIGHBOURS = 20  # of the local outlier factor


@kinds_checked
def freeze(data: TabularData, names: Sequence[str]) -> TabularData:
    """The data with these features immutable as well. Raises ValueError for a name that is not a feature."""
    if isinstance(names, str):
        raise BadArgument("immutable", "be a sequence of names", names, hint=f"write [{names!r}]")
    if strange := [name for name in names if name not in data.space.names]:
        raise unknown_name("immutable", strange[0], data.space.names, f"name features ({', '.join(data.space.names)})")
    features = [
        dataclasses.replace(feature, direction="none") if feature.name in names else feature
        for feature in data.space.features
    ]
    space = type(data.space)(features, data.space.relations, data.space.center, data.space.scale)
    return data._replace(space=space)


@kinds_checked
def explain_rows(
    data: TabularData,
    model: Any,
    rows: Any = None,
    *,
    target: Any = None,
    undesired: Any = None,
    method: MethodName | FunctionName | Config = "s-cfe",
    max_changes: int | None = None,
    plausibility: float = 0.25,
    tau: float | None = None,
    density: Density | None = None,
    evaluator: Evaluator = white_box,
    probability: float | None = None,
    answers: int = 1,
    frontier: int = 0,
    certify: bool = False,
    time_limit: float = 30.0,
    ids: Sequence[Any] | None = None,
    key: Array | None = None,
    lanes: int | Literal["auto"] = "auto",
    progress: bool | None = None,
) -> Explanation:
    """Counterfactual explanations of rows of a table, in raw units.

    A row is reported as FOUND only if the changed row, written in raw units and read again, obeys the schema as an
    answer to it and has the wanted class (:mod:`invjax.recourse.judging`). Where a method found nothing, the last point
    that it tried is rounded and judged in the same way before the row counts as NOT_FOUND. Bad rows have a status and a
    reason, and leave the others as they are: INFEASIBLE (a missing cell, an unknown level, a value outside the schema,
    a violated relation, nothing that may change), ALREADY_TARGET, NONFINITE, NOT_FOUND (with what was tried).

    A model without a gradient gets, for the rows that the method left, all changes of one feature and then differences
    (:mod:`invjax.recourse.completing`); a surrogate that agrees with it too seldom is not used at all
    (:mod:`invjax.recourse.gradients`). ``settings`` says what was done.

    Args:
      data: the table that the model and the density know; its space says what may change.
      model: [B, D] -> [B, K], logits on the columns of ``data.x``; anything that :func:`invjax.solve` takes.
      rows: an index, slice or array into the table; or other rows, a dict of columns or a DataFrame. None:
        ``data.test``.
      target: the wanted class, a name of ``data.classes`` or a number (:meth:`TabularData.class_of`); one, or one for
        each row. None: the class that the data declare as desired. Without one, it is for every row the class that the
        model holds second most likely, whether or not anyone would wish for it.
      undesired: instead of a target, the class to get out of. Rows that the model gives another class need nothing;
        the others want the class that the model holds second most likely.
      method: a name of ``invjax.counterfactuals.REGISTRY``, "face", "pcfe", or a method's configuration, which is
        taken as it is.
      max_changes: features that may change, for methods that can limit it; None: 3 for S-CFE.
      plausibility: α, the share of the class's own training rows that are not plausible enough; 0 switches it off.
      tau: weight of the log density; None: see :mod:`invjax.recourse.plausible`, or 1 with ``density``.
      density: your own density instead of the kernels; with log_prob(x, label).
      evaluator: for a black box, see :mod:`invjax.engine.blackbox`.
      probability: p, that the target must have in an answer, in (0, 1), also below 1/2 and below that of another class;
        None: the target must win. It decides for the method, the judge and the status alike: a row whose target
        has it is ALREADY_TARGET. For methods with this constant.
      answers: up to so many answers for each row. Each further one leaves alone the feature that each answer before it
        moved most. The measures are of the first. Not for "face" and "pcfe".
      frontier: M > 0 also finds the best answers with 1, …, M changed features, or as many as there are (S-CFE with a
        differentiable model).
      certify: also prove for each row how few changed features suffice, or that no allowed change leads to the class
        (a MILP; small ReLU networks and logistic regression only). time_limit: seconds for each of these proofs.
      ids: names of the rows; by default their positions in the table, or in ``rows``.
      key: PRNG key of the method's draws. lanes, progress: see :func:`invjax.solve`.

    Raises:
      ValueError: an argument, naming it; a column that rows lack. ImportError: what a method needs is missing.
    """
    plan = make_plan(
        data, model, method, max_changes=max_changes, plausibility=plausibility, tau=tau, density=density,
        evaluator=evaluator, probability=probability,
    )  # fmt: skip
    frontier = check_frontier(plan, frontier)
    check_answers(plan, answers)
    check_number("time_limit", time_limit, lambda seconds: seconds > 0, "a number of seconds > 0")
    check_key(key)
    check_lanes(lanes, None)
    if certify:
        check_certify(plan)
    asked = read_rows(plan, rows, ids, target, undesired)
    plan = plan.knowing(asked.sound())
    mask = np.ones(asked.x.shape, bool) if answers > 1 else None  # forbids nothing: one program for all answers
    call: dict[str, Any] = {"key": key, "lanes": lanes, "progress": progress}
    result = call_method(plan, asked, mask=mask, **call)
    verdicts, done = complete(plan, asked, judge_result(plan, asked, result, plan.max_changes), mask=mask, **call)
    plan.words.update(done)
    first = report(plan, asked, verdicts)
    further = further_answers(plan, asked, first, answers, **call)
    if certify:
        first = first._replace(people=prove(plan, asked, first, time_limit=time_limit))
    steps: list[FrontierStep] = []
    if frontier and result is None:
        steps = [FrontierStep(m, first.people) for m in range(1, frontier + 1)]
    elif frontier:
        steps = [
            FrontierStep(m, conclude(plan, asked, part, m).people) for m, part in frontier_of(plan, asked, frontier)
        ]
    if answers > 1:
        plan.words["answers"] = f"up to {answers} per row, each without the features that those before it moved most"
    return dataclasses.replace(_explanation(plan, asked, first), frontier=tuple(steps), further=tuple(further))


def _explanation(plan: Plan, rows: AskedRows, answers: Conclusion) -> Explanation:
    """The answers with their measures."""
    data = plan.data
    record = measure_counterfactuals(
        rows.x, answers.result, rows.target, predict=partial(logits_of, plan.seen), probability=plan.probability,
        space=data.space, table=rows.table,
        train_x=data.x[plan.train], train_y=data.label[plan.train], density=plan.kernels,
        lof_neighbours=_NEIGHBOURS if find_spec("sklearn") else None,
    )  # fmt: skip
    summary = summarize_counterfactuals(record) | {"plausible": _plausible(plan, rows, answers, record.valid)}
    return Explanation(
        data.name, answers.people, rows.table, answers.table, answers.result, rows.predicted, rows.target, record,
        summary, plan.words, space=data.space,
    )  # fmt: skip


def _plausible(plan: Plan, rows: AskedRows, answers: Conclusion, valid: np.ndarray) -> float:
    """Share of the valid answers that are as dense as was asked; NaN without a threshold."""
    if plan.cut is None or not valid.any():
        return float("nan")
    values = evaluate(log_prob_of, plan.cut, answers.result.x[valid], rows.target[valid].astype(np.int32))
    return float((np.asarray(values) >= -1e-3).mean())
