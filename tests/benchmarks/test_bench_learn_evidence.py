"""The evidence of the ``learn`` benchmark: pictures and shares of a tiny study."""

from __future__ import annotations

import dataclasses
import json
from functools import partial
from pathlib import Path

import pytest

pytest.importorskip("sklearn")
pytest.importorskip("matplotlib")

from flax import nnx

from benchmarks.learn import evidence as learn_evidence
from invjax.data.grouped.synthbirds import synthbirds
from invjax.learn.study import Study, load_task, run_method
from invjax.models import MLP
from invjax.types import Status


@pytest.mark.filterwarnings("ignore:PGD makes .* steps")  # a few steps, to be quick
def test_evidence_of_a_study(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Pictures and shares; a network without a plane of features has no map, and that is no error."""
    task = load_task("synthbirds", train=40, steps=2, iterations=2)
    few = partial(synthbirds, 40, size=16, held_out=8, background="procedural", foreground="silhouettes")
    study = Study(dataclasses.replace(task, load=lambda seed: few(seed=seed), lanes=32), 0, "other")
    for name in ("erm", "random-labels", "pgd-l2"):
        run_method(name, study)
    study.models["mlp"] = MLP((768, 2), rngs=nnx.Rngs(0))
    record = json.loads(json.dumps(learn_evidence.write(tmp_path / "a", study)), parse_constant=pytest.fail)
    assert [Path(file).name for file in record["files"]] == ["panels.png", "perturbations.png"]
    assert all(Path(file).stat().st_size > 5000 for file in record["files"])
    assert set(record["cam"]) == {"erm", "random-labels", "pgd-l2"}
    assert record["cam"]["erm"]["energy"]["n"] + record["cam"]["erm"]["undefined"] == len(study.test)
    assert set(record["mass"]) == {"random-labels", "pgd-l2"}
    assert record["mass"]["random-labels"] == {
        "mass": {"mean": None, "interval": [None, None], "n": 0},
        "above": {"mean": None, "interval": [None, None], "n": 0},
        "chance": None,
        "unmoved": int((study.perturbed["random-labels"].status != Status.ALREADY_TARGET).sum()),
    }
    asked = study.perturbed["pgd-l2"].status != Status.ALREADY_TARGET
    assert record["mass"]["pgd-l2"]["mass"]["n"] == asked.sum() > 20
    assert "Grad-CAM on the object" in capsys.readouterr().out
