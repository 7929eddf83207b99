"""The program for accelerators runs on a CPU, resumes, and says in one line what it cannot do."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.__main__ import main
from benchmarks.accelerator.log import Log
from benchmarks.accelerator.parts import PARTS
from benchmarks.accelerator.parts import ceilings as ceilings_part


def test_parts_on_a_cpu(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows are kept as they come; the same command measures nothing twice; data that is missing leaves a part out."""
    words = ["accelerator", "--out", str(tmp_path / "out"), "--cpu", "--tiny", "--data", str(tmp_path)]
    assert main([*words, "--parts", "ceilings,gse"]) == 0
    out = capsys.readouterr().out
    assert "TFLOP/s" in out
    assert "left out:" in out
    assert "is not there" in out
    kept = json.loads((tmp_path / "out" / "ceilings.json").read_text())
    assert set(kept["rows"]) == {*ceilings_part.PRODUCTS, "copy"}
    assert all(row.get("TFLOP/s", 1) > 0 for row in kept["rows"].values())
    assert {"versions", "device"} <= set(kept)
    assert "product bfloat16" in (tmp_path / "out" / "report.md").read_text()

    def never(*_: object) -> float:
        raise AssertionError("measured twice")

    monkeypatch.setattr(ceilings_part, "_seconds", never)
    assert main([*words, "--parts", "ceilings"]) == 0
    assert json.loads((tmp_path / "out" / "ceilings.json").read_text())["rows"] == kept["rows"]


@pytest.mark.fast
def test_log(tmp_path: Path) -> None:
    """A row that does not fit into the time left is noted, not measured; rows of another device are forgotten."""
    log = Log(tmp_path, "part", 5.0)
    assert log.todo("quick", 1.0)
    assert not log.todo("slow", 60.0)
    log.add("quick", value=1.5)
    assert not log.todo("quick")
    again = Log(tmp_path, "part", 5.0)
    assert again.rows == {"quick": {"value": 1.5}}
    assert "no time left" in json.loads((tmp_path / "part.json").read_text())["missing"]["slow"]
    record = json.loads((tmp_path / "part.json").read_text())
    (tmp_path / "part.json").write_text(json.dumps(record | {"device": "another"}))
    assert not Log(tmp_path, "part", 5.0).rows


@pytest.mark.fast
def test_shares_add_up() -> None:
    assert sum(part.share for part in PARTS.values()) == pytest.approx(1)


@pytest.mark.fast
@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--out", "out"], "--cpu must be given where there is no accelerator"),
        (["--out", "out", "--cpu", "--minutes", "0"], "--minutes must be above 0"),
        (["--cpu"], "--out must be the folder"),
        (["--out", "out", "--cpu", "--parts", "gsee"], "--parts must be 'all' or some of"),
        (["--out", "out", "--cpu", "--data", "nowhere"], "--data must be an existing folder"),
    ],
)
def test_bad_input(words: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["accelerator", *words]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
