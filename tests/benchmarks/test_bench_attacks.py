"""The comparison of attacks runs end to end on tiny inputs: records, resuming, figures, bad input."""

from __future__ import annotations

import json
from pathlib import Path

import jax
import nets
import numpy as np
import pytest

from benchmarks.__main__ import main
from benchmarks.attacks.records import attempted
from benchmarks.attacks.settings import CIFAR10, CIFAR10_FIDELITY, IMAGENET, IMAGENET_FIDELITY, configuration
from benchmarks.common import brief
from invjax.attacks import REGISTRY
from invjax.metrics.attribution import PERCENTILES
from invjax.types import Result

TABLES = {
    "cifar10": CIFAR10,
    "fidelity": CIFAR10_FIDELITY,
    "imagenet": IMAGENET,
    "imagenet-fidelity": IMAGENET_FIDELITY,
}


def words(pictures: Path, *more: str) -> list[str]:
    files = ["--images", str(pictures), "--weights", str(nets.NARROW), "--lanes", "4", "--no-progress"]
    return ["attacks", *files, *more]


@pytest.mark.parametrize("table", TABLES)
@pytest.mark.parametrize("untargeted", [False, True])
def test_every_entry_is_a_configuration(table: str, untargeted: bool) -> None:
    for name, entry in TABLES[table].items():
        config = configuration(entry, untargeted, [])
        assert type(brief(config)) is type(config), name
        assert jax.tree.structure(brief(config)) == jax.tree.structure(config), "the same program"


def test_every_sparse_attack_has_an_entry() -> None:
    elsewhere = {"fgsm", "pgd", "forward-backward", "gse-published"}  # three dense ones, and one of gse-cifar10
    assert {entry.attack for entry in CIFAR10.values()} >= set(REGISTRY) - elsewhere


def test_records_resuming_and_figures(pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    record, figures, runs = tmp_path / "record.json", tmp_path / "figures", tmp_path / "runs"
    small = ["--n", "2", "--targets", "1,2", "--attacks", "gse,pgd0", "--runs", str(runs)]
    asked = words(pictures, *small, "--json", str(record), "--figures", str(figures))
    assert main(asked) == 0
    first = json.loads(record.read_text())
    assert set(first["attacks"]) == {"gse", "pgd0"}
    for one in first["attacks"].values():
        assert set(one["d20"]) == {"best", "average", "worst"}
        assert one["attempts"] == 4
        assert one["failures"].startswith("by status")
        for indicator in ("none", "or", "and"):
            curve = one["interpretability"][indicator]
            assert curve["percentiles"] == list(PERCENTILES)
            np.testing.assert_allclose(curve["chance"], np.sqrt(1 - np.asarray(PERCENTILES) / 100))
        assert {"mass", "iou", "support"} <= set(one["grad_cam"])
    for name in ("scores.png", "pictures.png"):
        assert (figures / name).read_bytes().startswith(b"\x89PNG")
    printed = capsys.readouterr().out
    assert "published" in printed
    assert "chance" in printed

    assert main(asked) == 0  # everything is there: nothing is attacked again, and nothing changes
    again = json.loads(record.read_text())
    for name, one in first["attacks"].items():
        for key in ("per_example", "evaluations", "run_s", "occupancy"):
            assert again["attacks"][name][key] == one[key], key


def test_fidelity_counts_failures_as_attempted(pictures: Path, tmp_path: Path) -> None:
    record = tmp_path / "record.json"
    hopeless = ["--mode", "fidelity", "--attacks", "fwnucl", "--n", "2", "--targets", "1", "--no-explain"]
    asked = words(pictures, *hopeless, "--set", "steps=2", "--set", "eps=0.01", "--json", str(record))
    assert main(asked) == 0
    one = json.loads(record.read_text())["attacks"]["fwnucl"]
    assert one["failed"] == 2
    assert one["failures"] == "as attempted"
    assert one["acp"]["average"] > 0
    assert np.isnan(one["acp"]["best"])
    assert one["released_forwards"] == 10200
    assert "interpretability" not in one


def test_attempted() -> None:
    x = np.zeros((2, 1, 1, 1), np.float32)
    field = np.arange(2, dtype=np.float32).reshape(x.shape)
    result = Result(x + 3, x + 3, np.array([1, 2]), np.ones(2), np.ones(2), field + 5)
    np.testing.assert_array_equal(attempted(result, x).reshape(-1), [3, 6])


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--attacks", "nothing"], "attacks must be 'all' or some of"),
        (["--attacks", "gse", "--set", "nothing=1"], "--set must name constants of"),
        (["--attacks", "gse", "--targets", "0"], "targets must be different offsets"),
        (["--attacks", "gse", "--json", "nowhere/record.json"], "json must lie in an existing folder"),
    ],
)
def test_bad_input(pictures: Path, more: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words(pictures, "--n", "1", *more)) == 2
    assert message in capsys.readouterr().err
