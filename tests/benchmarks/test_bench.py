"""The benchmarks run end to end on tiny inputs, and their records hold what they promise."""

from __future__ import annotations

import json
import os
from pathlib import Path

import nets
import numpy as np
import pytest

from benchmarks.__main__ import BENCHMARKS, main
from benchmarks.common import Clock, check_json, timed_run, write_json
from invjax.campaign.pairs import make_pairs, parse_targets
from invjax.models import load


def _run(tmp_path: Path, *words: str) -> dict:
    out = tmp_path / "record.json"
    assert main([*words, "--json", str(out)]) == 0
    return json.loads(out.read_text())


def test_gse_cifar10(pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    brief = ["--set", "steps=4", "--set", "trials=2", "--set", "phase_one_steps=2", "--no-progress", "--lanes", "4"]
    files = ["gse-cifar10", "--images", str(pictures), "--weights", str(nets.NARROW), "--variant", "released"]
    record = _run(tmp_path, *files, "--n", "3", "--targets", "1,4", *brief)
    for name in ("asr", "acp", "anc", "l2", "d20"):
        assert set(record[name]) == {"best", "average", "worst"}
    assert {"compile_s", "run_s", "per_example_s", "bare_gradient_s", "versions", "device"} <= set(record)
    assert record["attempts"] == 6
    # Two trials of at most four steps, after the clean input.
    assert 3 <= record["evaluations"] <= 9
    assert record["forwards"] == 0
    assert 0 < record["occupancy"] <= 1
    assert "published" in capsys.readouterr().out

    mine = {name: np.asarray(record["per_example"][name]).T for name in ("acp", "anc", "l2", "d20")}
    np.savez(tmp_path / "other.npz", **{**mine, "acp": mine["acp"] + 1}, image_index=record["image_index"])
    same = [*files, "--n", "3", "--targets", "1,4", *brief, "--compare", str(tmp_path / "other.npz")]
    compared = _run(tmp_path, *same)["compare"]
    assert compared["d20"]["equal"] == 1
    assert compared["acp"]["equal"] == 0

    record = _run(tmp_path, *files, "--n", "2", "--start", "3", "--untargeted", *brief)
    assert record["targets"] == "untargeted"
    assert min(record["image_index"]) >= 3


def test_evaluations_add_up(pictures: Path) -> None:
    """Occupancy is exact: lane evaluations asked over lane evaluations issued."""
    from invjax.attacks import PGD

    logits = load("resnet20", nets.NARROW)
    with np.load(pictures) as file:
        x, label = file["images"].astype(np.float32) / 255, file["labels"]
    method = PGD(eps=1e-4, step_size=1e-4, steps=6)
    timed = timed_run(logits, x, label, (label + 1) % 7, method=method, lanes=5, progress=False)
    asked = int(timed.result.evaluations.sum())
    assert timed.occupancy == pytest.approx(asked / (timed.steps * 5))
    assert timed.steps >= -(-asked // 5)
    assert timed.overhead > 0


def test_clock_measures_the_bare_gradient(pictures: Path) -> None:
    logits = load("resnet20", nets.NARROW)
    with np.load(pictures) as file:
        clock = Clock(logits, file["images"].astype(np.float32) / 255, file["labels"], None, lanes=2)
    clock.tick(2)
    assert len(clock.gradients) == len(clock.forwards) == 2
    assert clock.spent == pytest.approx(sum(clock.gradients) + sum(clock.forwards))


def test_conv_loop(tmp_path: Path) -> None:
    from invjax.engine import install_canonical_convolutions

    sizes = ["--batch", "2", "--size", "16", "--channels", "4", "--depth", "2", "--repeat", "2"]
    try:
        rows = _run(tmp_path, "conv-loop", *sizes)["rows"]
    finally:
        install_canonical_convolutions()
    assert set(rows) == {f"{layout} {remedy}" for layout in ("NHWC", "NCHW") for remedy in ("on", "off")}


def test_memory(tmp_path: Path) -> None:
    rows = _run(tmp_path, "memory", "--pairs", "6", "3", "--lanes", "4", "--no-progress")["rows"]
    assert [row["pairs"] for row in rows] == [3, 6]
    assert rows[0]["peak_mib"] <= rows[1]["peak_mib"]


def test_lanes(tmp_path: Path) -> None:
    rows = _run(tmp_path, "lanes", "--n", "2", "--lanes", "4", "--repeat", "1")["rows"]
    assert [row["lanes"] for row in rows] == ["4", "auto: 8", "4", "auto: 20"]
    assert all(row["found"] > 0.5 for row in rows)
    assert min(row["of the best"] for row in rows) == 1


def test_on_disk(tmp_path: Path) -> None:
    rows = _run(tmp_path, "on-disk", "--pairs", "60", "30", "--lanes", "8", "--no-progress")["rows"]
    assert [row["pairs"] for row in rows] == [30, 60]
    assert all(0 < row["disk_bytes"] < 3 * 4 * 64 + 600 for row in rows)
    assert all(row["memory_mib"] > 0 and row["write_ms"] > 0 for row in rows)


@pytest.mark.fast
@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--set", "nothing=1"], "--set must name constants of"),
        (["--set", "l2_weight"], "--set l2_weight must be a number"),
        (["--set", "l2_weight=-1.0"], "--set GSEReleased.l2_weight must be"),
        (["--targets", "0"], "--targets must be different offsets"),
        (["--n", "0"], "--n must be"),
        (["--json", "nowhere/record.json"], "benchmarks gse-cifar10: error: --json must lie in an existing folder"),
        (["--images", "missing.npz"], "missing.npz"),
        (["--weights", "missing.safetensors"], "missing.safetensors"),
    ],
)
def test_bad_input(pictures: Path, words: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    files = ["gse-cifar10", "--images", str(pictures), "--weights", str(nets.NARROW), "--variant", "released"]
    assert main([*files, "--n", "2", *words]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


@pytest.mark.fast
def test_what_was_measured_outlives_its_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The path is tried before the run; where it takes nothing afterwards, the record is printed."""
    check_json(tmp_path / "record.json")
    assert not list(tmp_path.iterdir())
    with pytest.raises(ValueError, match="json must name a file"):
        check_json(tmp_path)

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(ValueError, match=r"json must be a folder that can be written, was .*No space left"):
        check_json(tmp_path / "record.json")
    with pytest.raises(ValueError, match=r"json must be a file that can be written, was .*No space left"):
        write_json(tmp_path / "record.json", {"seconds": 12.5})
    assert json.loads(capsys.readouterr().out)["seconds"] == 12.5


@pytest.mark.fast
def test_names(capsys: pytest.CaptureFixture[str]) -> None:
    """Without a name the list of all; an unknown one, or one of before, is an error of one line."""
    for words in ([], ["--help"]):
        assert main(words) == 0
        out = capsys.readouterr().out
        assert all(f"  {name} " in out and benchmark.line in out for name, benchmark in BENCHMARKS.items())
    for name, message in (
        ("nothing", "NAME must be one of attacks, gse-cifar10"),
        ("attacks-cifar10", "attacks-cifar10 is now: python -m benchmarks attacks --data cifar10"),
        ("attacks-imagenet", "attacks-imagenet is now: python -m benchmarks attacks --data imagenet"),
    ):
        assert main([name, "--n", "1"]) == 2
        error = capsys.readouterr().err
        assert error.startswith(f"benchmarks: error: {message}")
        assert error.count("\n") == 1
    for words, message in (
        (["memry"], "did you mean 'memory'?"),
        (["memory", "--jsn", "x"], "there is no option --jsn; did you mean --json?"),
        (["memory", "--lanes", "x"], "argument --lanes: invalid int value: 'x' (see "),
        (["attacks", "--images", "x", "--attacks", "gse,Sigma_Zero"], "did you mean 'sigma-zero'?"),
    ):
        assert main(words) == 2
        error = capsys.readouterr().err
        assert message in error
        assert error.count("\n") == 1


@pytest.mark.fast
@pytest.mark.parametrize("name", BENCHMARKS)
def test_help(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Every benchmark is where the list says, writes JSON, and has a section in the docs."""
    assert f"## `{name}`\n" in (Path(__file__).parents[2] / "docs" / "benchmarks.md").read_text()
    with pytest.raises(SystemExit) as stop:
        main([name, "--help"])
    assert stop.value.code == 0
    assert "--json" in capsys.readouterr().out


@pytest.mark.fast
def test_pairs() -> None:
    pairs = make_pairs(np.array([3, 9]), 10, "1,4")
    assert pairs.shape == (2, 2)
    np.testing.assert_array_equal(pairs.image, [0, 0, 1, 1])
    np.testing.assert_array_equal(pairs.target, [4, 7, 0, 3])
    untargeted = make_pairs(np.array([3, 9]), 10, "untargeted")
    assert untargeted.target is None
    assert untargeted.shape == (2, 1)
    assert parse_targets("all", 4) == (1, 2, 3)
    assert set(make_pairs(np.array([5]), 10).target.tolist()) == set(range(10)) - {5}
    for bad in ("0", "10", "1,1", "x", "", []):
        with pytest.raises(ValueError, match="targets must be"):
            parse_targets(bad, 10)


def test_profile_of_the_loop(pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = ["gse-torch", "--images", str(pictures), "--weights", str(nets.NARROW), "--n", "2", "--targets", "1"]
    record = _run(tmp_path, *files, "--profile", "--batch", "3", "--repeat", "2")
    (row,) = record["rows"]
    assert {"XLA, one call", "a bare loop", "the engine's loop"} <= set(row["ms"])
    assert row["loop/XLA"] == pytest.approx(row["ms"]["the engine's loop"] / row["ms"]["XLA, one call"])
    assert main([*files, "--profile", "--batch", "3,0"]) == 2
    assert main([*files, "--profile", "--repeat", "0"]) == 2
    assert main([*files, "--profile", "--torch-python", str(tmp_path / "none")]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert [line.split(" must ")[0].rpartition(" ")[2] for line in lines] == ["--batch", "--repeat", "--torch-python"]
