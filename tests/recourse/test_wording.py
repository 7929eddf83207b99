"""What an explanation looks like in a notebook: the changes of each person in colour, the reasons of the others."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from invjax import Status
from invjax.recourse.answers import Explanation, Person
from invjax.recourse.wording import Change

UP, DOWN, OTHER = "rgba(217, 114, 0", "rgba(60, 125, 240", "rgba(15, 138, 126"


def page(*people: Person) -> str:
    answers = SimpleNamespace(people=people, answers=lambda row: [(1, people[row], {})])
    return Explanation._repr_html_(answers)


def person(status: Status, *changes: Change, reason: str = "") -> Person:
    return Person("7", status, reason, "bad", "good", changes, 0.25, 0.571, 1.0)


@pytest.mark.fast
@pytest.mark.parametrize(
    ("old", "new", "tint"), [(300, 330, UP), (330, 300.5, DOWN), ("none", "<part>", OTHER), (False, True, OTHER)]
)
def test_a_change_has_the_colour_of_its_direction(old, new, tint):
    shown = page(person(Status.FOUND, Change("tax", old, new, f"tax {old} → {new}")))
    assert [colour for colour in (UP, DOWN, OTHER) if colour in shown] == [tint]
    assert "0.25 → 0.57" in shown
    assert f"{str(new).replace('<', '&lt;').replace('>', '&gt;')}</b>" in shown
    assert "<part>" not in shown


@pytest.mark.fast
def test_without_an_answer_the_reason_stands_there():
    shown = page(person(Status.INFEASIBLE, reason="nothing may change"))
    assert "not possible: nothing may change" in shown
    assert not any(colour in shown for colour in (UP, DOWN, OTHER))
