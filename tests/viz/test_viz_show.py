"""``viz.show``: a picture of whatever comes out, in one line; one error for all else."""

from __future__ import annotations

import pickle
from typing import Any

import jax
import numpy as np
import pytest

from invjax import Bounds, Result, Status, metrics, viz
from invjax.core.errors import BadArgument
from invjax.data import group_data
from invjax.data.images.source import ImageData
from invjax.engine.trace import Trace
from invjax.learn import Perturbed, Trained
from invjax.metrics import Attempts, Curve, group_accuracies, summarize
from invjax.recourse import Explanation, Person
from invjax.recourse.answers import FrontierStep
from invjax.recourse.wording import Change
from invjax.viz.tables import DOWN, UP

pytest.importorskip("matplotlib")
RNG = np.random.default_rng(0)


def result(*shape: int, axes: int = 1, asked: int | None = None) -> Result:
    x = RNG.uniform(size=shape).astype(np.float32)
    delta = np.where(RNG.uniform(size=shape) < 0.2, 0.25, 0).astype(np.float32)
    status = np.full(shape[:axes], Status.FOUND, np.int32)
    count = np.ones(shape[: axes if asked is None else asked], np.int32)
    return Result(x + delta, delta, status, count, count * 0, x + delta)


def person(name: str, status: Status, *changes: Change) -> Person:
    return Person(name, status, "it is so", "no", "yes", changes, 0.2, 0.8, 1.0)


ANN = person("Ann", Status.FOUND, Change("rooms", 5, 6, "rooms 5 → 6"), Change("tax", 330, 300, "tax 330 → 300"))
BOB, EVE = person("Bob", Status.NOT_FOUND), person("Eve", Status.ALREADY_TARGET)


def explanation(*steps: FrontierStep) -> Explanation:
    nothing: Any = None
    return Explanation(
        "homes", (BOB, ANN, EVE), {}, {}, nothing, np.zeros(3), np.ones(3), nothing, {}, {}, frontier=steps
    )


def attempts() -> Attempts:
    success = np.array([[True, False], [True, True]])
    return Attempts(success, ~success & False, *(np.array([[3.0, 0.0], [5.0, 7.0]]) for _ in range(4)))


def groups() -> Any:
    x = RNG.integers(0, 255, (6, 4, 4, 1)).astype(np.uint8)
    return group_data("birds", x, [0, 1] * 3, [0, 0, 0, 1, 1, 1], [0] * 6, ["a", "b"], ["c", "d"])


def test_images() -> None:
    images = result(10, 6, 6, 1)
    assert len(viz.show(images).axes) == 4 * 8
    assert len(viz.show(images, most=2).axes) == 4 * 2
    assert len(viz.show(images[3]).axes) == 4
    assert len(viz.show(result(2, 3, 6, 6, 3, axes=2)).axes) == 4 * 6  # two images, three targets each


def test_rows_sets_and_frontiers() -> None:
    (axis,) = viz.show(result(5, 7)).axes
    assert axis.images[0].get_array().shape == (5, 7, 4)
    (axis,) = viz.show(result(5, 3, 7, axes=2, asked=1)).axes  # three answers a row
    assert axis.images[0].get_array().shape == (15, 7, 4)
    path = result(5, 3, 7, axes=2)
    path.status[0] = Status.ALREADY_TARGET
    (axis,) = viz.show(path).axes
    assert axis.get_xlabel().startswith("features that may change")
    assert len(axis.lines) == 4 + 1  # who has the class already is no line; and the median


def test_an_explanation() -> None:
    (axis,) = viz.show(explanation()).axes
    said = {text.get_text(): text.get_color() for text in axis.texts}
    assert said["5 → 6"] == UP
    assert said["330 → 300"] == DOWN
    assert "not found: it is so" in said
    assert [label.get_text() for label in axis.get_yticklabels()] == ["Ann", "Bob", "Eve"]
    assert axis.get_xlabel() == "wanted: yes"
    steps = FrontierStep(1, (BOB, BOB, EVE)), FrontierStep(2, (BOB, ANN, EVE))
    np.testing.assert_allclose(viz.show(explanation(*steps)).axes[1].lines[0].get_ydata(), [0, 50])


def test_attempts_and_their_summary() -> None:
    for shown in (attempts(), summarize(attempts())):
        figure = viz.show(shown)
        assert [axis.get_title() for axis in figure.axes] == ["success, %", "changed pixels", "clusters", "l2", "d2,0"]
        assert [text.get_text() for text in figure.axes[0].texts] == ["100", "75", "50"]


def test_data_sets_and_trainings() -> None:
    images = ImageData(np.zeros((9, 4, 4, 1), np.float32), np.arange(9) % 2, Bounds(0.0, 1.0), ("cat", "dog"))
    assert [axis.get_title() for axis in viz.show(images, most=3).axes] == ["cat", "dog", "cat"]
    assert [axis.get_ylabel() for axis in viz.show(groups(), most=2).axes[::2]] == [
        "a on c",
        "a on d",
        "b on c",
        "b on d",
    ]
    made = Perturbed(images.images[:2], np.int32([3, 1]), np.arange(2), np.int32([0, 1]), np.ones(2), np.ones(2), 0)
    assert [axis.get_title() for axis in viz.show(made).axes] == ["0 → 3", "1 → 1"]
    model: Any = None
    history = [{"step": n, "epoch": 0.1, "loss": 1 / n, "objective": 1 / n, "accuracy": 0.5} for n in (1, 2)]
    assert [axis.get_title() for axis in viz.show(Trained(model, history)).axes] == ["loss", "accuracy"]


def test_lines() -> None:
    run = np.ones((4, 2))
    traced = Trace(run, run, run, run, np.array([[True, True]] * 2 + [[True, False]] * 2))  # type: ignore[arg-type]
    assert len(viz.show(traced).axes) == 2
    both: Any = (result(2, 6, 6, 1), traced)
    assert len(viz.show(both).axes) == 2
    at = np.array([50.0, 60.0])
    curve = Curve(at, np.ones((3, 2)), np.array([0.7, 0.6]), np.array([0.6, 0.5]), at, 3, 0, 0, 0)
    assert viz.show(curve).axes[0].get_ylabel() == "interpretability score"
    right = group_accuracies(np.array([1, 0, 1, 1]), np.array([0, 0, 1, 1]))
    assert len(viz.show(right).axes[0].get_yticklabels()) == 2


@pytest.mark.parametrize("wrong", [3, None, {"a": 1}, np.zeros((2, 4, 4, 1)), "result"])
def test_all_else_is_one_error(wrong: Any) -> None:
    with pytest.raises(BadArgument, match=r"^result must be a Result, Explanation, .* was a \w+") as caught:
        viz.show(wrong)
    assert "\n" not in str(caught.value)


def test_results_and_sets_that_have_no_picture() -> None:
    with pytest.raises(BadArgument, match=r"result must have images \[N, H, W, C\] of 1 or 3 channels, or rows"):
        viz.show(result(5, 6, 7))
    with pytest.raises(BadArgument, match="result must hold at least one answer"):
        viz.show(jax.tree.map(lambda field: field[:0], result(5, 7)))
    with pytest.raises(BadArgument, match="result must hold images"):
        viz.show(Perturbed(np.zeros((2, 3)), *(np.zeros(2, int),) * 5, 0))
    with pytest.raises(BadArgument, match="result must have a history"):
        viz.show(Trained(None, []))  # type: ignore[arg-type]


def test_a_summary_and_a_table_in_a_notebook() -> None:
    summary = summarize(attempts())
    assert repr(summary).startswith("3 of 4 attempts succeeded, 1 failed\nattack ")
    page = summary._repr_html_()
    assert "<th>mean over</th><th>case</th><th>ASR %</th>" in page
    assert page.count("<tr>") == 1 + 6
    table = metrics.attack_table({"a<b": summary["all_attempts"]})
    assert str(table) == table
    assert "<td>a&lt;b</td>" in table._repr_html_()
    assert "color" not in page + table._repr_html_()  # those of the page around it, light or dark
    assert pickle.loads(pickle.dumps(table)).rows == table.rows
    assert pickle.loads(pickle.dumps(summary)) == summary == dict(summary)
