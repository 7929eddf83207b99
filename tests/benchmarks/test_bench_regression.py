"""The guard against regressions: this checkout against itself, two commits, and how ratios are judged."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.__main__ import main
from benchmarks.regression import comparison
from benchmarks.regression.comparison import HERE, Cost, checkout, compare


def test_a_checkout_against_itself(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("sklearn")
    monkeypatch.setattr(comparison, "IMPORTS", 1)
    monkeypatch.setattr(comparison, "WARM_S", 0.0)
    words = ["regression", "--base", str(HERE), "--only", "import,scfe", "--repeat", "1", "--limit", "100"]
    assert main([*words, "--json", str(tmp_path / "r.json")]) == 0
    record = json.loads((tmp_path / "r.json").read_text())["measures"]
    assert list(record) == ["import", "scfe"]
    assert record["import"]["new"][0]["measured"]["import_s"] > 0
    new, old = record["scfe"]["new"][0], record["scfe"]["old"][0]
    assert new["exact"] == old["exact"]
    assert new["exact"]["rows"] == 100
    assert new["exact"]["found"] > 90
    assert set(record["scfe"]["ratios"]) == {"run_s", "compile_s", "run_cpu_s", "compile_cpu_s"}
    assert "evaluations and tables are equal" in capsys.readouterr().out


@pytest.mark.fast
def test_ratios_and_numbers() -> None:
    def side(costs: list[float], l0: float) -> list[dict]:
        return [{"measured": {"run_s": cost}, "exact": {"l0": l0}} for cost in costs]

    costs, differing = compare(side([3.0, 2.2, 2.0], 1.5), side([2.0, 1.0, 4.0], 1.5))
    assert costs["run_s"] == Cost([3.0, 2.2, 2.0], [2.0, 1.0, 4.0])
    assert costs["run_s"].ratio == pytest.approx(1.1)
    assert costs["run_s"].least_ratio == 2
    assert costs["run_s"].noise == pytest.approx(3 / 2)
    assert Cost([1.0], [2.0]).noise is None  # one measurement shows no spread
    assert differing == {}
    assert compare(side([1.0], 1.5), side([1.0], 1.25))[1] == {"l0": [1.5, 1.25]}
    assert compare(side([1.0], float("nan")), side([1.0], float("nan")))[1] == {}
    assert list(compare(side([1.0], 1.0) + side([1.0], 2.0), side([1.0, 1.0], 1.0))[1]) == ["l0"]


@pytest.mark.parametrize(
    ("given", "message"), [("slower", "run_s is 2.000 of the base's"), ("other", "l0 is 2, in the base 1")]
)
def test_what_fails(
    given: str, message: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A ratio above the limit, and a number that differs; what failed or is not there is told by its name."""

    turns = iter([(1.0, 1), {"slower": (2.0, 1), "other": (1.0, 2)}[given]])  # the base comes first

    def measured(*_: object) -> dict:
        seconds, l0 = next(turns)
        return {"measured": {"run_s": seconds}, "exact": {"l0": l0}}

    def missing(*_: object) -> dict:
        raise comparison.Skipped("no data")

    def broken(*_: object) -> dict:
        raise comparison.Failed("no such module")

    monkeypatch.setitem(comparison.MEASURES, "import", measured)
    monkeypatch.setitem(comparison.MEASURES, "gse", missing)
    monkeypatch.setitem(comparison.MEASURES, "demo", broken)
    assert main(["regression", "--base", str(HERE), "--only", "import,gse,demo", "--repeat", "1"]) == 1
    out = capsys.readouterr().out
    for text in (message, "gse skipped: no data", "demo failed: no such module"):
        assert text in out


def test_a_commit_gets_a_worktree(tmp_path: Path) -> None:
    if not (HERE / ".git").exists():
        pytest.skip("no git repository here")
    with checkout("HEAD") as tree:
        assert (tree / "invjax" / "__init__.py").is_file()
    assert not tree.exists()


@pytest.mark.fast
def test_regression_refuses(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for words, message in (
        (["--base", str(tmp_path)], "--base must be the folder of a checkout"),
        (["--base", "no-such-commit"], "--base must be a folder or a commit of this repository, was 'no-such-commit'"),
        (["--base", str(HERE), "--only", "speed"], "--only must be 'all' or some of import, scfe"),
        (["--base", str(HERE), "--repeat", "0"], "--repeat must be a whole number >= 1, was 0"),
        (["--base", str(HERE), "--limit", "nan"], "--limit must be a ratio > 0, was nan"),
    ):
        assert main(["regression", *words]) == 2
        error = capsys.readouterr().err
        assert message in error
        assert error.count("\n") == 1
