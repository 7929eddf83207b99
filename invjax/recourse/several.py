"""Several answers for one row: each leaves alone what the ones before it moved most.

    answer 1      the method's own                                                                              (1)
    answer k      the same without l_1, …, l_{k−1},  l_j = argmax_f cost_f |change_f| of answer j

So any two answers differ in a feature that matters, which small changes of one answer would not. All are judged alike.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from invjax.constraints import FeatureSpace
from invjax.core.errors import BadArgument, check_whole
from invjax.recourse.answers import FurtherAnswers
from invjax.recourse.concluding import Conclusion, conclude
from invjax.recourse.methods import call_method
from invjax.recourse.plan import FUNCTIONS, Plan
from invjax.recourse.reading import AskedRows
from invjax.types import Status


def check_answers(plan: Plan, answers: int) -> None:
    """Raise ValueError unless ``answers`` is 1, or the method is one that can leave features alone row by row."""
    check_whole("answers", answers)
    if answers > 1 and plan.method in FUNCTIONS:
        raise BadArgument("answers", f"be 1 for the method {plan.method!r}", answers)


def further_answers(plan: Plan, rows: AskedRows, first: Conclusion, answers: int, **call: Any) -> list[FurtherAnswers]:
    """Answers 2, …, ``answers`` by (1), as long as there are any. call: of :func:`call_method`."""
    space, mask = plan.data.space, np.ones(rows.x.shape, bool)
    least, last, found = len(rows.question()[0]), first, []
    for number in range(2, answers + 1):
        again = np.asarray([person.status == Status.FOUND for person in last.people])
        for n in np.flatnonzero(again):
            mask[n] &= space.column_features != _lever(space, last, int(n))
        again &= mask.any(1)
        if not again.any():
            break
        status = np.where(again, Status.PENDING, Status.NOT_FOUND).astype(np.int32)
        asked = rows._replace(status=status)
        result = call_method(plan, asked, mask=mask, least=least, **call)
        last = _obeying(conclude(plan, asked, result, plan.max_changes), mask)
        people = tuple(person if person.status == Status.FOUND else None for person in last.people)
        if not any(people):
            break
        found.append(FurtherAnswers(number, people, last.table))
    return found


def _lever(space: FeatureSpace, answers: Conclusion, row: int) -> int:
    """The feature that counts most in the answer to a row."""
    moved = np.abs(np.asarray(answers.result.delta[row], np.float64))
    each = np.asarray([moved[space.column_features == f].max() for f in range(len(space.features))])
    return int(np.argmax(each * [feature.cost for feature in space.features]))


def _obeying(answers: Conclusion, mask: np.ndarray) -> Conclusion:
    """The answers without those that move a masked column."""
    delta = np.asarray(answers.result.delta)
    broken = ((delta != 0) & ~mask).any(1)
    people = [
        dataclasses.replace(person, status=Status.NOT_FOUND) if bad else person
        for person, bad in zip(answers.people, broken, strict=True)
    ]
    return answers._replace(people=tuple(people))
