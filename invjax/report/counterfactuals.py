"""The section of counterfactual explanations: one line per person, the measures, the frontier."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from invjax.core.meant import explained
from invjax.recourse.answers import Explanation, Person
from invjax.recourse.wording import probability
from invjax.report.page import Section, escape, inline, table_markup
from invjax.types import Status

_SHOWN = 200  # people on the page

_MEASURES = (  # key of the summary, heading, decimals
    ("l0", "changed", 2),
    ("l2", "l2", 2),
    ("lof_target", "LOF, target class", 3),
    ("lof_all", "LOF, all rows", 3),
    ("plausible", "plausible", 2),
    ("ynn", "agreeing neighbours", 2),
    ("redundancy", "redundant", 2),
    ("violations", "violations", 0),
)

_NOTE = (
    "Validity: of the rows that did not have the wanted class, the share with an answer that has it, in raw units and "
    "by the model itself; rows that already had it are not counted anywhere. Coverage: the share of the same rows with "
    "any answer. All other columns are means over the valid answers alone. l2 is in standardised units; a switch of a "
    "category counts √2. LOF: local outlier factor with 20 neighbours among the training rows (1: like its neighbours; "
    "real rows have a little more). Plausible: share of the answers that are as dense as required. Agreeing "
    "neighbours: of the five nearest training rows, the share that the model gives the wanted class. Redundant: "
    "changes that could be undone singly without losing the wanted class. Violations: of the schema, in raw units."
)


@explained
def counterfactual_section(explanation: Explanation, *, title: str = "", text: str = "", note: str = "") -> Section:
    """The explanations of a list of rows as a section of the page.

    Args:
      explanation: what :func:`invjax.recourse.explain_rows` returned; the first 200 people are shown.
      title, text: of the section; by default they name the data and the settings.
      note: added to the small print.
    """
    people = explanation.people
    wanted = sum(person.status != Status.ALREADY_TARGET for person in people)
    facts: dict[str, Any] = {"rows": len(people), "answers": f"{explanation.count(Status.FOUND)} of {wanted}"}
    if already := explanation.count(Status.ALREADY_TARGET):
        facts["already as wanted"] = already
    if refused := explanation.count(Status.INFEASIBLE):
        facts["not possible"] = refused
    if explanation.further:
        facts["further answers"] = sum(person is not None for one in explanation.further for person in one.people)
    facts["features changed"] = _shown(explanation.summary["l0"], 1)
    said = "; ".join(f"{name}: {value}" for name, value in explanation.settings.items())
    return Section(
        title or f"What would have to be different: {explanation.name}",
        text=text or f"{said[:1].upper()}{said[1:]}.",
        facts=facts,
        markup=_people_table(explanation)
        + _left_out(len(people))
        + _frontier(explanation)
        + f"<h3>How good the answers are</h3>{table_markup([measure_row(explanation.summary)])}"
        + f"<figcaption>{inline(f'{_NOTE} {note}'.strip())}</figcaption>",
    )


def measure_row(summary: Mapping[str, float]) -> dict[str, str]:
    """The summary as one row of a table, with headings a reader knows."""
    row = {"validity": _percent(summary["validity"]), "coverage": _percent(summary["coverage"])}
    return row | {heading: _shown(summary[key], decimals) for key, heading, decimals in _MEASURES}


def frontier_rows(explanation: Explanation) -> list[dict[str, str]]:
    """One row per allowed number of changes: how many people have an answer, and what it costs them."""
    rows = []
    for step in explanation.frontier:
        found = [person for person in step.people if person.status == Status.FOUND]
        asked = sum(person.status != Status.ALREADY_TARGET for person in step.people)
        rows.append(
            {
                "changes allowed": str(step.most),
                "answers": f"{len(found)} of {asked}",
                "features changed": _shown(_mean([len(person.changes) for person in found]), 2),
                "cost": _shown(_mean([person.cost for person in found]), 2),
                "probability": _shown(_mean([person.after for person in found]), 2),
            }
        )
    return rows


def _people_table(explanation: Explanation) -> str:
    """HTML: one line per person and one more per further answer, the changes as pieces that do not break."""
    head = "".join(f'<th scope="col" class="text">{name}</th>' for name in ("row", "model says", "wanted", "changes"))
    head += '<th scope="col">probability</th>'
    body = [
        _line(f"{person.id} ({number})" if number > 1 else person.id, person)
        for n in range(min(len(explanation.people), _SHOWN))
        for number, person, _ in explanation.answers(n)
    ]
    return f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{"".join(body)}</tbody></table></div>'


def _line(name: str, person: Person) -> str:
    found = person.status == Status.FOUND
    if found:
        pieces = "".join(f"<span>{_piece(change.feature, change.text)}</span>" for change in person.changes)
    else:
        pieces = escape(person.text)
    pieces += f"<br><small>{escape(person.proof)}</small>" if person.proof else ""
    before, after = escape(probability(person.before)), escape(probability(person.after))
    return (
        f'<tr class="{"found" if found else "none"}"><td class="text">{escape(name)}</td>'
        f'<td class="text">{escape(person.predicted or "–")}</td><td class="text">{escape(person.target)}</td>'
        f'<td class="text changes">{pieces}</td><td>{f"{before} → {after}" if found else before}</td></tr>'
    )


def _shown(value: float, decimals: int) -> str:
    return "–" if math.isnan(value) else f"{value:.{decimals}f}"


def _percent(value: float) -> str:
    return "–" if math.isnan(value) else f"{100 * value:.1f} %".replace(".0 %", " %")


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values)) if len(values) else math.nan


def _piece(feature: str, text: str) -> str:
    return f"<i>{escape(feature)}</i> <b>{escape(text[len(feature) :].strip())}</b>"


def _left_out(count: int) -> str:
    return f"<figcaption>The first {_SHOWN} of {count} rows are shown.</figcaption>" if count > _SHOWN else ""


def _frontier(explanation: Explanation) -> str:
    rows = frontier_rows(explanation)
    if not rows:
        return ""
    return (
        f"<h3>How many changes it takes</h3>{table_markup(rows)}"
        "<figcaption>The best answers with at most this many changed features. Cost: the change of each feature in "
        "standard deviations, times the feature's cost. Means over the rows with an answer.</figcaption>"
    )
