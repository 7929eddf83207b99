"""How good an explanation can be at all: the fewest features that any allowed change needs, proved by a MILP."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from invjax.counterfactuals import certify
from invjax.data.tables.table import TabularData
from invjax.recourse.answers import Person
from invjax.recourse.wording import changes, sentence
from invjax.types import Result, Status

MARGIN = 1e-4  # logit units: the class need only win


def prove(
    data: TabularData,
    model: Any,
    x: np.ndarray,
    predicted: np.ndarray,
    target: np.ndarray,
    people: Sequence[Person],
    result: Result,
    *,
    time_limit: float,
) -> tuple[Person, ...]:
    """The people with their ``proof``: is the number of changed features the least of all, may there be an answer?

    Plausibility plays no part: the least is over everything that the schema allows. time_limit: seconds per row.

    Raises ValueError where the model is no small ReLU network, or a feature has no range.
    """
    todo = np.array([n for n, person in enumerate(people) if person.status in (Status.FOUND, Status.NOT_FOUND)], int)
    if not len(todo):
        return tuple(people)
    found = certify(
        model, x[todo], predicted[todo], target[todo], result.rows(todo), space=data.space, norm="l0", kappa=MARGIN,
        time_limit=time_limit,
    )  # fmt: skip
    proved = list(people)
    factual = data.space.decode(x[todo])
    better = data.space.decode(np.asarray(found.x), factual)
    for i, n in enumerate(todo):
        status, changed = str(found.status[i]), len(people[n].changes)
        words = "no proof within the time"
        if status == "infeasible":
            words = "proved: nothing that is allowed leads there"
        elif status == "optimal":
            words = "proved: none with fewer changes" if changed > 1 else "proved: as few changes as there can be"
        elif status == "gap":
            words = f"enough, if it need not be plausible: {sentence(changes(data.space, factual, better, i))}"
        proved[n] = dataclasses.replace(people[n], proof=words)
    return tuple(proved)
