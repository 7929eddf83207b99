"""The study of learning from counterfactuals, at tiny sizes: its tasks, its methods, its records."""

from __future__ import annotations

import dataclasses
import functools
import math
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch_nets
from flax import nnx

pytest.importorskip("sklearn")

from invjax.data.grouped.digits_spurious import digits_spurious
from invjax.learn.study import (
    DENSITIES,
    DESCRIPTIONS,
    TASKS,
    Study,
    ablation,
    chosen_methods,
    grid_names,
    load_task,
    manifest_of,
    methods,
    over_seeds,
    percent,
    run_method,
    table_row,
)
from invjax.learn.study.ablation import one_record
from invjax.learn.study.records import t_interval
from invjax.models.params_file import save_arrays
from invjax.types import Status


@pytest.fixture(scope="module")
def study() -> Study:
    task = load_task("digits-spurious", train=120, steps=15, iterations=4)
    return Study(dataclasses.replace(task, lanes=64), 0, "all")


def test_one_call(study: Study) -> None:
    """The study as a library call: a record per method, and the study itself for whoever looks."""
    seen: list[Study] = []
    records = ablation(study.task, ["erm", "random-labels"], seeds=[3], say=lambda line: None, look=seen.append)
    assert list(records) == ["erm", "random-labels"]
    for record in records.values():
        low, high = record["wga_ci"]
        assert 0 <= low <= record["wga"] <= high <= 1
        assert len(record["seeds"]) == 1
    assert set(seen[0].models) == set(records)
    assert set(seen[0].perturbed) == {"random-labels"}


def test_the_folder_of_a_study(study: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its records are read back; damaged ones are measured again, and those of another study are refused."""
    module, asked = sys.modules["invjax.learn.study.ablation"], []

    def measured(name: str, study: Study) -> dict[str, Any]:
        asked.append(name)
        return {"error": f"{name} {study.seed} {len(asked)}"}

    monkeypatch.setattr(module, "one_record", measured)
    monkeypatch.setattr(module, "over_seeds", list)

    def call(task: Any = study.task, policy: str = "all") -> Any:
        return ablation(task, ["erm", "jtt"], seeds=[3], folder=tmp_path, policy=policy, say=lambda line: None)

    first = call()
    assert call() == first
    assert asked == ["erm", "jtt"]
    records = tmp_path / "seed-3" / "records"
    text = (records / "jtt.json").read_text()
    (records / "jtt.json").write_text(text.replace("jtt 3", "jtt 4"))
    (records / "erm.json").write_text(text[:20])
    with pytest.warns(UserWarning, match=r"(erm|jtt).json' was damaged: it is '(erm|jtt).json.damaged' now"):
        again = call()
    assert asked == ["erm", "jtt"] * 2
    assert again["jtt"][0]["error"] == "jtt 3 4"
    changes: list[tuple[dict[str, Any], str]] = [
        ({"policy": "other"}, "policy"),
        ({"task": dataclasses.replace(study.task, batch_norm="frozen")}, "batch_norm"),
        ({"task": dataclasses.replace(study.task, build=lambda key, data: None)}, "network"),
        ({"task": dataclasses.replace(study.task, load=functools.partial(study.task.load, count=90))}, "data"),
    ]
    for change, what in changes:
        with pytest.raises(ValueError, match=rf"^runs must be .* holds a run with another {what}$"):
            call(**change)


def test_controls_are_what_they_say(study: Study) -> None:
    """What each perturbed set consists of."""
    x, y = study.x, study.train.y
    assert run_method("random-labels", study).steps == 15
    plain = study.perturbed["random-labels"]
    np.testing.assert_array_equal(plain.x, x)
    own = plain.y == y
    assert 0.35 < own.mean() < 0.65  # targets from both classes

    run_method("density-only", study)
    run_method("density-only-own", study)
    kept, moved = study.perturbed["density-only"], study.perturbed["density-only-own"]
    np.testing.assert_array_equal(kept.y, plain.y)  # the same targets for all methods
    np.testing.assert_array_equal(kept.x[own], x[own])
    np.testing.assert_array_equal(moved.x[~own], kept.x[~own])
    assert (moved.x[own] != x[own]).reshape(own.sum(), -1).any(1).mean() > 0.9
    before, after = (
        np.mean([study.density.log_prob(jnp.asarray(at[n]), plain.y[n]) for n in np.flatnonzero(own)[:8]])
        for at in (x, moved.x)
    )
    assert after > before

    run_method("gravity", study)
    pulled = study.perturbed["gravity"]
    n = int(np.flatnonzero(~own)[0])
    near = study.x[study.references][study.train.y[study.references] == plain.y[n]].reshape(-1, 80)
    nearest = near[np.argsort(np.square(near - x[n].reshape(-1)).sum(1))[:5]]  # g is a mean of the five
    assert np.all(pulled.x[n].reshape(-1) <= nearest.max(0) + 1e-5)
    assert np.all(pulled.x[n].reshape(-1) >= nearest.min(0) - 1e-5)

    point = jnp.asarray(x[0])
    for k in (0, 1):
        other = study.density.log_prob(point, jnp.int32(1 - k))
        np.testing.assert_allclose(study.permuted.log_prob(point, jnp.int32(k)), other, rtol=1e-5)


def test_filtered_holds_what_reached_its_target(study: Study) -> None:
    outcome = run_method("success-filtered", study)
    made, whole = outcome.made, study.make("p-cfe", study.weights(), study.density)
    assert made is not None
    good = np.isin(whole.status, (Status.FOUND, Status.ALREADY_TARGET))
    assert len(made.y) == good.sum() > 0
    assert made.dropped == (~good).sum()
    np.testing.assert_array_equal(made.source, whole.source[good])


def test_nothing_reached_is_told(study: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    """One method fails, the others' numbers stand."""
    whole = study.make("p-cfe", study.weights(), study.density)
    nothing = whole._replace(status=np.full_like(whole.status, Status.NOT_FOUND))
    monkeypatch.setitem(study.made, "p-cfe", (nothing, 1.0))
    cell = one_record("success-filtered", study)
    assert "nothing is left to train on" in cell["error"]
    merged = over_seeds([cell])
    assert table_row("success-filtered", merged)["accuracy %"] == "failed"


def test_every_method_is_there() -> None:
    task = load_task("digits-spurious")
    names = chosen_methods("all", task, "all")
    assert names[0] == "erm"
    wanted = "erm-steps random-labels pgd-l2 pgd-linf cfe-l2 p-cfe density-only gravity permuted-density "
    wanted += "success-filtered resample reweight groupdro jtt dfr afr"
    assert set(wanted.split()) | set(grid_names(task)) <= set(names)
    assert len(grid_names(task)) == len(task.moves.gammas) * len(task.moves.taus) - 1
    assert {"density-only-own", "gravity-own"} == set(names) - set(chosen_methods("all", task, "other"))
    known = {*methods.CONTROLS, *methods.GENERATORS, *methods.PEERS, *methods.OWN}
    assert known | {"erm", "erm-steps", "success-filtered"} == set(DESCRIPTIONS)
    assert chosen_methods("p-cfe", task, "all") == ["erm", "p-cfe"]
    waterbirds = load_task("waterbirds", model="efficientnet_lite0")
    assert "groupdro" in chosen_methods("all", waterbirds, "all")
    assert "gravity" not in chosen_methods("all", waterbirds, "all")


@pytest.mark.parametrize("name", TASKS)
def test_budgets(name: str) -> None:
    """No more than what the comparison on small machines is allowed."""
    task = load_task(name)
    assert task.moves.iterations <= 40
    assert task.steps <= (300 if name == "waterbirds" else 1000)
    assert task.density in DENSITIES


def test_the_published_protocol(tmp_path: Path) -> None:
    """WaterBirds with ResNet50 from a file: its constants, its network, and a manifest that knows the file."""
    from invjax.models import resnet

    abstract = nnx.eval_shape(lambda: resnet.ResNet(resnet.SIZES["resnet50"], 5, 4, rngs=nnx.Rngs(0)))
    weights = tmp_path / "w.npz"
    save_arrays(weights, torch_nets.random_state(abstract, resnet.torch_table(abstract)))
    task = load_task("waterbirds", model="resnet50", weights=weights)
    assert (task.steps, task.batch, task.moves.iterations, task.size) == (5085, 108, 100, 224)
    assert task.train is None  # all there are
    made = task.build(jax.random.key(0), SimpleNamespace(classes=("landbird", "waterbird")))  # type: ignore[arg-type]
    made.eval()
    assert nnx.eval_shape(lambda: made(jnp.zeros((3, 64, 64, 3)))).shape == (3, 2)
    small = load_task("waterbirds", model="resnet50", weights=weights, size=64, train=40, steps=2, iterations=2)
    assert (small.size, small.train, small.steps, small.moves.iterations) == (64, 40, 2, 2)
    known = manifest_of(small, "all")
    weights.write_bytes(weights.read_bytes() + b" ")
    assert manifest_of(small, "all")["weights"] != known["weights"]
    assert "weights" not in manifest_of(load_task("waterbirds"), "all")


def test_t_interval() -> None:
    """For three numbers t is 4.3026527 (tables); the ends stay in [0, 1]."""
    low, high = t_interval([0.5, 0.6, 0.7])
    half = 4.3026527 * 0.1 / math.sqrt(3)
    assert low == pytest.approx(0.6 - half)
    assert high == pytest.approx(0.6 + half)
    assert t_interval([0.0, 1.0]) == (0.0, 1.0)
    assert t_interval([0.3, 0.3, 0.3]) == pytest.approx((0.3, 0.3))
    with pytest.raises(ValueError, match="values must hold at least 2 numbers, was 1"):
        t_interval([0.5])
    assert percent(0.5, (0.4, 0.6), 3) == "50.0 ± 10.0"
    assert percent(0.5, (0.4, 0.6), 1) == "50.0 [40.0, 60.0]"
    assert percent(None, None, 3) == "–"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "mnist"}, "name must be one of 'digits-spurious', "),
        (
            {"name": "waterbirds", "model": "vit"},
            "model must be one of 'resnet20', .*, 'resnet50', was 'vit'",
        ),
        ({"name": "synthbirds", "density": "flow"}, "density must be one of 'pixel-knn', "),
        ({"name": "synthbirds", "steps": 0}, "steps must be a whole number >= 1, was 0"),
        ({"name": "synthbirds", "source": "a.zip"}, "source must be left out for any data but waterbirds"),
        (
            {"name": "waterbirds", "model": "resnet50"},
            "weights must be the file of ImageNet's weights .*, was None",
        ),
        (
            {"name": "waterbirds", "model": "resnet50", "weights": "no.pth"},
            "weights must be .*, was 'no.pth'",
        ),
        ({"name": "waterbirds", "weights": "no.pth"}, "weights must be left out except for waterbirds with resnet50"),
        ({"name": "synthbirds", "size": 64}, "size must be left out except for waterbirds with resnet50, was 64"),
    ],
)
def test_load_task_refuses(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        load_task(**arguments)


def test_data_without_a_group_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    task = load_task("digits-spurious", steps=1)
    data = digits_spurious()
    lacking = data.take((data.part != 0) | (data.group != 1))
    with pytest.raises(ValueError, match="train must hold an example of each group"):
        run_method("erm", Study(dataclasses.replace(task, load=lambda seed: lacking), 0, "all"))
