"""The program for accelerators runs on a CPU, resumes, and says in one line what it cannot do."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import jax
import numpy as np
import pytest
from flax import nnx

from benchmarks.__main__ import main
from benchmarks.accelerator.flops import counted, forward_flops, gradient_flops
from benchmarks.accelerator.log import Log
from benchmarks.accelerator.parts import PARTS
from benchmarks.accelerator.parts import ceilings as ceilings_part
from benchmarks.accelerator.program import rounds
from benchmarks.common import refused
from invjax.core.errors import BadArgument
from invjax.models import as_logits
from invjax.models.resnet_cifar import ResNet20
from invjax.types import Result, Status


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


def test_all_parts(data_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The whole tiny run: each part has a row, or says what it lacks."""
    assert (
        main(["accelerator", "--out", str(tmp_path), "--cpu", "--tiny", "--minutes", "60", "--data", str(data_dir)])
        == 0
    )
    out = capsys.readouterr().out
    for name in PARTS:
        record = json.loads((tmp_path / f"{name}.json").read_text())
        if name == "imagenet":
            assert record["missing"] == {"left out": "a tiny run leaves out 224 pixels"}
        elif name == "torch" and importlib.util.find_spec("torch") is None:
            assert record["missing"] == {"left out": "torch is not installed"}
        else:
            assert record["rows"]
        assert f"\n{name}: {PARTS[name].line}" in out
    rows = json.loads((tmp_path / "gse.json").read_text())["rows"]
    assert all(row["of peak"] > 0 and row["refused"] == 0 for row in rows.values())
    assert all(row["loop s"] + row["second look s"] <= row["run s"] for row in rows.values())


class FakeTime:
    """A clock that only moves when it is told to."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now

    def row(self, run: float, compilation: float = 0.0) -> dict[str, float]:
        self.now += run + compilation
        return {"run s": run}


@pytest.mark.fast
def test_log(tmp_path: Path) -> None:
    """Rows that cannot end in time are noted; what compilation took counts; a failed row stays alone."""
    clock = FakeTime()
    log = Log(tmp_path, "part", guess=4.0, clock=clock)
    log.open(30.0, most=3)
    log.row("first", 1.0, lambda: clock.row(1.0, compilation=9.0))
    log.row("too long beside its compilation", 12.0, lambda: clock.row(12.0))
    assert log.notes == {"too long beside its compilation": "no time left (20 s, and it takes about 21 s)"}
    assert log.wants("fits", 10.0)

    def fails() -> dict[str, float]:
        raise MemoryError("too many\nlanes")

    log.row("fails", 1.0, fails)
    assert log.notes["fails"] == "MemoryError: too many lanes"
    assert not log.wants("fails", 1.0)
    log.row("second", 1.0, lambda: clock.row(1.0))
    log.row("third", 1.0, lambda: clock.row(1.0))
    assert not log.wants("more than this round has", 0.0)
    assert "more than this round has" not in log.notes
    log.open(1.0)
    assert log.wants("more than this round has", 0.0)

    again = Log(tmp_path, "part")
    assert again.rows == {"first": {"run s": 1.0}, "second": {"run s": 1.0}, "third": {"run s": 1.0}}
    record = json.loads((tmp_path / "part.json").read_text())
    assert {"fails", "too long beside its compilation"} <= set(record["missing"])
    for text, hint in ((json.dumps(record | {"device": "another"}), "has device another"), ("{}", "cannot be read")):
        (tmp_path / "part.json").write_text(text)
        with pytest.raises(BadArgument, match=f"^out must .*part.json {hint}"):
            Log(tmp_path, "part")
    (tmp_path / "part.json").write_text(json.dumps(record))
    with pytest.raises(BadArgument, match="has tiny False, not True"):
        Log(tmp_path, "part", tiny=True)


@pytest.mark.parametrize(("minutes", "slow"), [(5.5, 1.0), (5.5, 3.0), (1.0, 1.0)])
def test_caps(minutes: float, slow: float, tmp_path: Path) -> None:
    """Whatever rows take, no part exceeds its cap by more than the row it is at, and the program ends in time.

    In 5.5 minutes, on a device as fast as the shares suppose, every part has its first rows.
    """
    clock, names, end = FakeTime(), list(PARTS), 60 * minutes
    logs = {name: Log(tmp_path, name, part.seconds[0] / part.first, clock=clock) for name, part in PARTS.items()}
    over: list[float] = []
    longest = 0.0

    def one(name: str) -> None:
        nonlocal longest
        part, cap = PARTS[name], clock.now + logs[name].left
        for number in range(6):
            takes = slow * part.seconds[0] / part.first * (1 + number % 3)  # some are longer than those before
            longest = max(longest, takes)
            log, needs = logs[name], takes / 2
            left = log.left
            if log.wants(f"row {number}", needs) and number:
                assert left >= needs
            log.row(f"row {number}", needs, lambda takes=takes: clock.row(takes / 2, takes / 2))
        over.append(clock.now - cap)

    rounds(names, logs, end, one)
    assert max(over) <= longest
    assert clock.now <= end + longest
    if minutes >= 5.5 and slow == 1.0:
        assert all(logs[name].rows for name in names)
    if slow > 1:
        assert any("no time left" in why for log in logs.values() for why in log.notes.values())


def test_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that is killed keeps its rows, and the same command goes on with the others."""
    words = ["accelerator", "--out", str(tmp_path), "--cpu", "--tiny", "--parts", "ceilings"]
    hangs = f"""
import time
from benchmarks.__main__ import main
from benchmarks.accelerator.parts import ceilings
ceilings._copies = lambda a: time.sleep(600)
main({words!r})
"""
    run = subprocess.Popen([sys.executable, "-c", hangs], stdout=subprocess.DEVNULL)
    record = tmp_path / "ceilings.json"
    try:
        until = time.monotonic() + 120
        while not (record.is_file() and len(json.loads(record.read_text())["rows"]) == len(ceilings_part.PRODUCTS)):
            assert time.monotonic() < until
            assert run.poll() is None
            time.sleep(0.05)
    finally:
        run.kill()
        run.wait()
    kept = json.loads(record.read_text())["rows"]
    measured: list[None] = []
    monkeypatch.setattr(ceilings_part, "_seconds", lambda call: measured.append(None) or 1.0)
    assert main(words) == 0
    rows = json.loads(record.read_text())["rows"]
    assert len(measured) == 1
    assert {name: rows[name] for name in kept} == kept
    assert set(rows) - set(kept) == {"copy"}


@pytest.mark.fast
def test_refused() -> None:
    """Answers of the loop that are gone, or whose row had to be solved again; a row that found nothing is neither."""
    status = np.array([Status.FOUND, Status.NOT_FOUND, Status.FOUND, Status.NOT_FOUND, Status.FOUND])
    evaluations = np.array([5, 5, 12, 9, 7])
    result = replace(Result(*(np.zeros(5),) * 6), status=status, evaluations=evaluations)
    believed = [(np.array([2, 0]), np.array([5, 5])), (np.array([4, 1]), np.array([7, 5]))]
    assert refused(result, believed).tolist() == [2, 1]
    assert len(refused(result, [])) == 0
    assert len(refused(result, [(np.empty(0, int), np.empty(0, int))])) == 0


def test_flops() -> None:
    """ResNet20 at 32 pixels: 41 million multiply-adds forward by published counts, and as many again backward."""
    logits, x, label = as_logits(ResNet20(rngs=nnx.Rngs(0))), np.zeros((2, 32, 32, 3), np.float32), np.zeros(2, int)
    forward = forward_flops(logits, x) / 2
    assert forward == pytest.approx(2 * 40.8e6, rel=0.01)
    assert gradient_flops(logits, x, label, label) / 2 == pytest.approx(2 * forward, rel=0.001)

    def repeated(a: jax.Array) -> jax.Array:
        return jax.lax.scan(lambda a, _: (a @ a, None), a, length=3)[0]

    assert counted(jax.make_jaxpr(repeated)(np.ones((4, 4)))) == 3 * 2 * 4**3


@pytest.mark.fast
@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--out", "out"], "--cpu must be given where there is no accelerator"),
        (["--out", "out", "--cpu", "--minutes", "0"], "--minutes must be above 0"),
        (["--cpu"], "--out must be the folder"),
        (["--out", "out", "--cpu", "--parts", "gsee"], "--parts must be 'all' or some of"),
        (["--out", "out", "--cpu", "--data", "nowhere"], "--data must be an existing folder"),
        (["--out", __file__, "--cpu"], "--out must be a folder that can be written"),
        (["--pack", __file__], "--pack must be a folder that can be written"),
        (["--pack", "pack", "--python", "three"], "--python must be a version"),
    ],
)
def test_bad_input(words: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["accelerator", *words]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
