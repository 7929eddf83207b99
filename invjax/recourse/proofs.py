"""How good an explanation can be at all: the fewest features that any allowed change needs, proved by a MILP."""

from __future__ import annotations

import dataclasses
import math

import numpy as np

from invjax.core.errors import BadArgument
from invjax.counterfactuals import certify
from invjax.recourse.answers import Person
from invjax.recourse.concluding import Conclusion
from invjax.recourse.judging import Requirements, tell
from invjax.recourse.plan import Plan
from invjax.recourse.reading import AskedRows
from invjax.recourse.wording import sentence
from invjax.types import Status

_MARGIN = 1e-4  # logit units: the class need only win


def check_certify(plan: Plan) -> None:
    """Raise ValueError unless the wanted probability is a margin of logits, which is what can be proved."""
    if plan.probability is not None and (plan.probability < 0.5 or len(plan.data.classes) != 2):
        hint = "a proof takes a probability of at least 0.5, and two classes"
        raise BadArgument("certify", "be left out with this probability", hint=hint)


def prove(plan: Plan, rows: AskedRows, answers: Conclusion, *, time_limit: float) -> tuple[Person, ...]:
    """The people with their ``proof``: is the number of changed features the least possible, can there be an answer?

    Plausibility plays no part: the least is over everything that the schema allows. time_limit: seconds per row.

    Raises ValueError where the model is not a small ReLU network, or a feature has no range.
    """
    proved, space = list(answers.people), plan.data.space
    asked = (Status.FOUND, Status.NOT_FOUND)
    todo = np.array([n for n, person in enumerate(proved) if person.status in asked], int)
    if not len(todo):
        return answers.people
    odds = 0.0 if plan.probability is None else math.log(plan.probability / (1 - plan.probability))
    found = certify(
        plan.network, rows.x[todo], rows.rivals(todo), rows.target[todo], answers.result[todo], space=space,
        norm="l0", kappa=_MARGIN + odds, time_limit=time_limit,
    )  # fmt: skip
    factual = {name: np.asarray(rows.table[name])[todo] for name in space.names}
    better = space.decode(np.asarray(found.x), factual)
    question = Requirements(rows.x[todo], factual, rows.target[todo], None, plan.probability)
    told = tell(space, plan.seen, question, better)
    for i, n in enumerate(todo):
        status, changed = str(found.status[i]), len(proved[n].changes)
        words = "no proof found"
        if status == "infeasible":
            words = "proved: no allowed change leads there"
        elif status == "optimal":
            words = "proved: none with fewer changes" if changed > 1 else "proved: as few changes as there can be"
        elif status == "gap":
            words = f"enough, if it need not be plausible: {sentence(told[i])}"
        proved[n] = dataclasses.replace(proved[n], proof=words)
    return tuple(proved)
