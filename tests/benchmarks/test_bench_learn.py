"""The command of the study of learning, at tiny sizes: its record, what it keeps and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("sklearn")

from benchmarks.__main__ import main

TINY = ["--train", "120", "--steps", "15", "--iterations", "4"]
KEYS = {"accuracy", "wga", "wga_ci", "groups", "steps", "seconds"}


def test_end_to_end(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """One command; the record; then the same command reads what is done, and a third seed joins."""
    out, runs = tmp_path / "learn.json", tmp_path / "runs"
    words = ["learn", *TINY, "--methods", "random-labels,reweight", "--policy", "other", "--json", str(out)]
    words += ["--runs", str(runs)]
    assert main([*words, "--seeds", "2"]) == 0
    record = json.loads(out.read_text(), parse_constant=pytest.fail)
    assert list(record["methods"]) == ["erm", "random-labels", "reweight"]
    assert {"versions", "device", "policy", "settings"} <= set(record)
    for row in record["methods"].values():
        assert set(row) >= KEYS
        low, high = row["wga_ci"]
        assert 0 <= low <= row["wga"] <= high <= 1
        assert row["wga"] <= row["group_mean"]
        assert row["steps"] == 15
        assert len(row["groups"]) == 4
        assert len(row["seeds"]) == 2
        assert row["wga"] == pytest.approx(np.mean([cell["wga"] for cell in row["seeds"]]))
    erm, wrong = record["methods"]["erm"], record["methods"]["random-labels"]
    assert (
        wrong["train_weighted"] < 0.3 < 0.7 < erm["train_weighted"]
    )  # of two classes the other one: learnt upside down
    printed = capsys.readouterr().out
    assert "worst group %" in printed
    assert "uniform over the other classes" in printed

    def fail(*_: Any, **__: Any) -> None:
        raise AssertionError("trained again")

    with monkeypatch.context() as patch:
        patch.setattr("invjax.learn.study.study.fit", fail)
        assert main([*words, "--seeds", "2"]) == 0
    assert json.loads(out.read_text())["methods"] == record["methods"]
    capsys.readouterr()
    for other in (["--density", "pixel-gmm"], ["--train", "130"]):
        assert main([*words, "--seeds", "2", *other]) == 2
        assert "runs must be a new folder or one of the same run" in capsys.readouterr().err


def test_command_refuses(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for words, message in (
        (["--methods", "sgd"], "methods must be all or some of erm, "),
        (["--methods", ","], "methods must be all"),
        (["--seeds", "0"], "--seeds must be a whole number >= 1, was 0"),
        (["--json", str(tmp_path / "no" / "x.json")], "json must lie in an existing folder"),
        (["--train", "2"], "count must be from 4"),
    ):
        assert main(["learn", *words]) == 2
        assert message in capsys.readouterr().err
