"""What came of a list of rows: a record per person, and the tables."""

from __future__ import annotations

import dataclasses
import html
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from invjax.constraints import FeatureSpace
from invjax.core.shown import many, short_repr
from invjax.metrics import CounterfactualRecord
from invjax.recourse.asking import as_series
from invjax.recourse.wording import ARROW, Change, probability, sentence
from invjax.types import Result, Status

if TYPE_CHECKING:
    import pandas as pd


@dataclasses.dataclass(frozen=True)
class Person:
    """What came of one row."""

    id: str
    status: Status
    reason: str  # why there is no answer; "" where there is one
    predicted: str  # the class the model gives the row; "" where it gives none
    target: str  # the class that was wanted
    changes: tuple[Change, ...]  # what has to change; empty where not FOUND
    before: float  # probability of the target, NaN where the row has none
    after: float  # the same after the changes
    cost: float  # Σ_f cost_f |change| in model units; NaN where not FOUND
    proof: str = ""  # what was proved about it, where that was asked for

    def __repr__(self) -> str:
        return f"Person({self.id!r}, {self.status.name}: {self.text})"

    @property
    def text(self) -> str:
        """The row in one line."""
        if self.status == Status.FOUND:
            return sentence(self.changes)
        return f"{_WORDS[self.status]}: {self.reason}"


_WORDS = {
    Status.FOUND: "found",
    Status.NOT_FOUND: "not found",
    Status.NONFINITE: "not a number",
    Status.ALREADY_TARGET: "nothing to change",
    Status.INFEASIBLE: "not possible",
    Status.NO_GRADIENT: "no gradient",
    Status.PENDING: "not finished",
}


class FurtherAnswers(NamedTuple):
    """The second answers of all rows, or the third, …"""

    number: int  # 2, 3, …
    people: tuple[Person | None, ...]  # N; None where a row has no such answer
    table: dict[str, np.ndarray]  # the answers in raw units; the row as it is where there is none

    __repr__ = short_repr


class FrontierStep(NamedTuple):
    """The frontier at one number of changes m."""

    most: int  # m
    people: tuple[Person, ...]

    __repr__ = short_repr


@dataclasses.dataclass(frozen=True)
class Explanation:
    """Everything that :func:`invjax.recourse.explain_rows` found out; N rows."""

    name: str  # of the data
    people: tuple[Person, ...]  # N
    factual: dict[str, np.ndarray]  # the rows as they are, raw units
    table: dict[str, np.ndarray]  # the counterfactuals in raw units; the row as it is where there is none
    result: Result  # [N] the same in model coordinates; the status is that of ``people``
    predicted: np.ndarray  # [N] class, -1 for none
    target: np.ndarray  # [N] wanted class
    record: CounterfactualRecord  # the measures of the decoded answers
    summary: dict[str, float]  # the means of these, validity and coverage
    settings: dict[str, str]  # method, plausibility and the like in words
    frontier: tuple[FrontierStep, ...] = ()
    frame: pd.DataFrame | None = None  # that the rows came from, where its index and dtypes are to come back
    further: tuple[FurtherAnswers, ...] = ()  # more answers, where they were asked for; the measures are of the first
    space: FeatureSpace | None = None  # what the features are, and how their file writes them

    def __repr__(self) -> str:
        ended = ", ".join(f"{status.name} {count}" for status in Status if (count := self.count(status)))
        return f"Explanation({self.name!r}: {many(len(self.people), 'row')}; {ended or 'empty'})"

    def answers(self, row: int) -> list[tuple[int, Person, dict[str, np.ndarray]]]:
        """What came of a row: (number, person, table of that number), the first and whatever further ones there are."""
        more = [(one.number, one.people[row], one.table) for one in self.further]
        return [(1, self.people[row], self.table)] + [(k, person, table) for k, person, table in more if person]

    def count(self, status: Status) -> int:
        """How many rows have this status."""
        return sum(person.status == status for person in self.people)

    def text(self) -> str:
        """All people, two lines each, for a terminal; a line more for a proof and for each further answer."""
        return "\n".join(self.paragraphs())

    def paragraphs(self) -> list[str]:
        """The lines of each person."""
        return [self._paragraph(n, person) for n, person in enumerate(self.people)]

    def _paragraph(self, row: int, person: Person) -> str:
        lines = [f"{person.id}: {person.predicted or 'no prediction'} → {person.target}{_chances(person)}"]
        lines += [f"    {line}" for line in (person.text, person.proof) if line]
        for number, other, _ in self.answers(row)[1:]:
            lines.append(f"    or ({number}) {other.text}{_chances(other)}")
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        """In a notebook: a row for each person, and in colour what would have to change (orange up, blue down)."""
        heads = ("", "predicted", "wanted", "probability", "what would change that")
        left = "text-align: left; vertical-align: top"
        lines = ["".join(f'<th style="{left}">{head}</th>' for head in heads)]
        for row, person in enumerate(self.people):
            chance = "–" if np.isnan(person.before) else probability(person.before)
            if person.status == Status.FOUND:
                chance += f" → {probability(person.after)}"
            plain = (person.id, person.predicted or "–", person.target, chance)
            ways = "<br>".join(_coloured(other) for _, other, _ in self.answers(row))
            cells = [f'<td style="{left}; white-space: nowrap">{html.escape(str(cell))}</td>' for cell in plain]
            lines.append("".join([*cells, f'<td style="{left}">{ways}</td>']))
        return f"<table>{''.join(f'<tr>{line}</tr>' for line in lines)}</table>"

    def to_pandas(self) -> pd.DataFrame:
        """The table of counterfactuals, columns in raw units, after the columns ``status`` and ``changed``.

        A row whose further answers were asked for and found has a line for each, and their numbers stand in the column
        ``answer``. Explanations of a DataFrame (:func:`invjax.recourse.from_predictor`) have its index and its dtypes.
        A feature of the name "status" or "changed" is the column "status (feature)" or "changed (feature)".
        Raises ImportError where pandas is missing.
        """
        try:
            import pandas as pd
        except ImportError as error:
            raise ImportError("to_pandas needs pandas: pip install pandas") from error
        lines = [(n, *answer) for n in range(len(self.people)) for answer in self.answers(n)]
        first: dict[str, Any] = {"answer": [number for _, number, _, _ in lines]} if self.further else {}
        first["status"] = [person.status.name for _, _, person, _ in lines]
        first["changed"] = [len(person.changes) for _, _, person, _ in lines]
        dtypes = {} if self.frame is None else {str(name): dtype for name, dtype in self.frame.dtypes.items()}
        answers = {}
        for name, column in self.table.items():
            if self.further:
                column = np.asarray(pd.Series([table[name][n] for n, _, _, table in lines]))
            answers[f"{name} (feature)" if name in first else name] = as_series(column, dtypes.get(name))
        named = pd.Index([person.id for person in self.people], name="id") if self.frame is None else self.frame.index
        return pd.DataFrame({**first, **answers}).set_axis(named[[n for n, _, _, _ in lines]])


# Behind a new value, on any page: orange where a number goes up, blue where it goes down, green for another level.
_UP, _DOWN, _OTHER = "rgba(217, 114, 0, .28)", "rgba(60, 125, 240, .28)", "rgba(15, 138, 126, .28)"


def _coloured(person: Person) -> str:
    """The changes of a person as HTML; without any, the reason."""
    if person.status != Status.FOUND:
        return f'<span style="opacity: .7">{html.escape(person.text)}</span>'
    return ", ".join(_marked(change) for change in person.changes)


def _marked(change: Change) -> str:
    before, after = change.text.rsplit(ARROW, 1)
    numbers = all(isinstance(value, int | float) and not isinstance(value, bool) for value in (change.old, change.new))
    tint = _OTHER if not numbers else _UP if change.new > change.old else _DOWN
    style = f"background: {tint}; border-radius: 4px; padding: 0 .3em"
    return f'{html.escape(before)} → <b style="{style}">{html.escape(after)}</b>'


def _chances(person: Person) -> str:
    if np.isnan(person.before):
        return ""
    both = f" → {probability(person.after)}" if person.status == Status.FOUND else ""
    return f" (probability {probability(person.before)}{both})"
