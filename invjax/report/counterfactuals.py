"""The section of counterfactual explanations: one line per person, the measures, the frontier."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from invjax.core.meant import explained
from invjax.recourse.answers import Explanation, Person
from invjax.recourse.wording import probability
from invjax.report.page import Section, escape, folded, inline, small_print, table_markup
from invjax.report.verdict import judged
from invjax.types import Status

_SHOWN = 200  # people on the page
_OPEN = 8  # of them not folded
_COLUMNS = {  # heading -> attributes of its cells
    "row": ' class="text"',
    "model says": ' class="text"',
    "wanted": ' class="text"',
    "changes": ' class="text changes"',
    "probability": "",
}

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
def counterfactual_section(
    explanation: Explanation, *, title: str = "", text: str = "", note: str = "", short: str = ""
) -> Section:
    """The explanations of a list of rows as a section of the page, with sentences about what the measures say.

    Args:
      explanation: what :func:`invjax.recourse.explain_rows` returned; the first 200 people are shown, all but the first
        eight of them folded.
      title, text: of the section; by default they name the data and the settings.
      note: added to the small print.
      short: its name in the line of contents.
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
    valid = round(explanation.summary["validity"] * wanted) if wanted else 0
    if valid and not math.isnan(plausible := explanation.summary.get("plausible", math.nan)):
        facts["plausible answers"] = f"{round(plausible * valid)} of {valid}"
    facts["features changed"] = _shown(explanation.summary["l0"], 1)
    said = "; ".join(f"{name}: {value}" for name, value in explanation.settings.items())
    return Section(
        title or f"What would have to be different: {explanation.name}",
        short=short,
        text=text or f"{said[:1].upper()}{said[1:]}.",
        facts=facts,
        markup=_people_table(explanation)
        + _left_out(len(people))
        + _frontier(explanation)
        + f"<h3>How good the answers are</h3><p>{inline(judged(explanation.summary, wanted))}</p>"
        + table_markup([measure_row(explanation.summary)])
        + small_print(f"{_NOTE} {note}".strip()),
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
    """HTML: one line per person and one more per further answer, the changes as pieces that do not break.

    What holds for all rows, their class and the wanted one, is said above the table instead.
    """
    shown = range(min(len(explanation.people), _SHOWN))
    lines = [[(k, person) for k, person, _ in explanation.answers(n)] for n in shown]
    classes = {(person.predicted, person.target) for line in lines for _, person in line}
    kept, said = list(_COLUMNS), ""
    if len(classes) == 1 and len(lines) > 1:
        ((predicted, target),) = classes
        kept = [name for name in kept if name not in ("model says", "wanted")]
        says = f"The model says <b>{escape(predicted)}</b> of all of these rows" if predicted else "All of these rows"
        said = f"<p>{says}; wanted is <b>{escape(target)}</b>.</p>"
    head = "".join(f'<th scope="col"{_COLUMNS[name]}>{name}</th>' for name in kept)
    body = ["".join(_line(k, person, kept) for k, person in line) for line in lines]
    first, more = (
        f'<div class="scroll"><table class="people"><thead><tr>{head}</tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table></div>"
        for rows in (body[:_OPEN], body[_OPEN:])
    )
    rest = len(body) - _OPEN
    return said + first + (folded(f"{rest} more row{'s' if rest > 1 else ''}", more) if rest > 0 else "")


def _line(number: int, person: Person, kept: Sequence[str]) -> str:
    found = person.status == Status.FOUND
    if found:
        pieces = "".join(f"<span>{_piece(change.feature, change.text)}</span>" for change in person.changes)
    else:
        pieces = escape(person.text)
    before, after = escape(probability(person.before)), escape(probability(person.after))
    cells = {
        "row": escape(f"{person.id} ({number})" if number > 1 else person.id),
        "model says": escape(person.predicted or "–"),
        "wanted": escape(person.target),
        "changes": pieces + (f"<br><small>{escape(person.proof)}</small>" if person.proof else ""),
        "probability": f"{before} → {after}" if found else before,
    }
    shown = "".join(f'<td{_COLUMNS[name]} data-head="{name}">{cells[name]}</td>' for name in kept)
    return f'<tr class="{"found" if found else "none"}">{shown}</tr>'


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
