"""``learn-angle`` at tiny sizes: its table, its record, what it refuses."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("sklearn")

from benchmarks.__main__ import main
from benchmarks.learn import angle as learn_angle
from benchmarks.learn.angle import COSINES, SHARES, Cell, Setting, summary
from invjax.learn.angle import Angles

TINY = ["--steps", "12", "--train", "300", "--pairs", "12", "--iterations", "4"]


def _angles(value: float) -> Angles:
    return Angles(
        {name: np.array([value, value, np.nan]) for name in COSINES},
        {name: np.full(3, value / 2) for name in SHARES},
        0.1,
    )


def test_summary() -> None:
    """Means over seeds; the rise is that of the same pairs, so exact where all rise alike."""
    network = {"accuracy": 1.0, "robust": 0.5, "adversarial": 0.7, "plausible": 0.9}
    cells = [
        {0.0: Cell(network, _angles(0.1 + seed)), 1.0: Cell(network, _angles(0.3 + seed))} for seed in (0.0, 0.1, 0.2)
    ]
    record = summary(cells, [0.0, 1.0])
    row = record["cosine"]["adversarial, p-CFE"]
    assert row[0.0].mean == pytest.approx(0.2)
    assert row[0.0].low < 0.2 < row[0.0].high
    assert row[0.0].n == 6  # what is not known does not count
    assert row["rise"][:3] == pytest.approx((0.2, 0.2, 0.2))
    assert record["share in the tangent space"]["p-CFE"]["rise"].mean == pytest.approx(0.1)
    assert record["networks"][1.0] == pytest.approx(network)


@pytest.mark.filterwarnings("ignore:PGD makes .* steps")  # a few steps, to be quick
def test_angle_end_to_end(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "angle.json"
    assert main(["learn-angle", *TINY, "--eps", "0,1", "--seeds", "1", "--json", str(out)]) == 0
    record = json.loads(out.read_text(), parse_constant=pytest.fail)
    assert (record["eps"], record["seeds"], record["chance"]) == ([0, 1], [0], 10 / 64)
    assert set(record["cosine"]) == set(COSINES)
    assert set(record["networks"]) == {"0", "1"}
    for name, row in record["cosine"].items():
        assert set(row) == {"0", "1", "rise"}
        low, high = row["1"]["interval"]
        assert -1 <= low <= row["1"]["mean"] <= high <= 1, name
    density = record["share in the tangent space"]["density alone"]
    assert density["rise"]["mean"] == pytest.approx(0, abs=0.02)  # but for examples that one network has elsewhere
    printed = capsys.readouterr().out
    for word in ("null: p-CFE for another target", "ε 1 less 0", "robust %", "has the share 0.156"):
        assert word in printed


def test_angle_refuses(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("INVJAX_DATA", str(tmp_path))
    monkeypatch.setenv("XDG_DATA_DIRS", str(tmp_path))
    for words, message in (
        (["--eps", "0,0"], "eps must be different radii >= 0"),
        (["--eps", "-1"], "eps must be different radii >= 0"),
        (["--eps", "x"], "eps must be different radii >= 0"),
        (["--seeds", "0"], "--seeds must be a whole number >= 1, was 0"),
        (["--pairs", "1"], "--pairs must be a whole number >= 2, was 1"),
        (["--steps", "0"], "--steps must be a whole number >= 1, was 0"),
        (["--train", "1797"], "--train must be a whole number from 10 to 1796, was 1797"),
        (["--data", "fashion-mnist"], "was in no known place; Debian has them in the package"),
    ):
        assert main(["learn-angle", *words]) == 2
        assert message in capsys.readouterr().err


def test_settings_fit_their_data(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fashion-MNIST from files: the test images are those of its own test set."""
    from invjax.data.images.source import ImageData
    from invjax.types import Bounds

    def garments(folder: Any = None, split: str = "train") -> ImageData:
        count = 40 if split == "train" else 12
        level = 0.25 if split == "train" else 0.75
        labels = (np.arange(count) % 10).astype(np.int32)
        return ImageData(np.full((count, 28, 28, 1), level, np.float32), labels, Bounds(), tuple("0123456789"))

    monkeypatch.setattr(learn_angle, "fashion_mnist", garments)
    data = learn_angle.SETTINGS["fashion-mnist"].load(3, 30)
    assert (len(data.x), len(data.test_x)) == (30, 12)
    assert (data.x.max(), data.test_x.min()) == (0.25, 0.75)
    assert sorted(data.test_y) == sorted(np.arange(12) % 10)
    assert isinstance(learn_angle.SETTINGS["digits"], Setting)
