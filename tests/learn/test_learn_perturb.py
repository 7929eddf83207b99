"""Perturbed data sets: targets, failures, resuming, controls, presets."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jax
import nets
import numpy as np
import pytest

import invjax
from invjax import Status
from invjax.attacks import PGD
from invjax.learn import PRESETS, Perturbed, draw_targets, make_perturbed_dataset, preset

KEY = jax.random.key(3)
SHAPE, CLASSES, COUNT = (4, 3, 1), 4, 30
METHOD = PGD(eps=0.25, step_size=0.1, steps=6, norm="l2", random_start=True, stop_early=False)


@pytest.fixture(scope="module")
def task() -> nets.Task:
    return nets.task(nets.linear(SHAPE, CLASSES), SHAPE, COUNT)


def make(task: nets.Task, generator: Any = METHOD, policy: Any = "other", **options: Any) -> Perturbed:
    options = {"key": KEY, "lanes": 8, "shard": 12, "progress": False, **options}
    return make_perturbed_dataset(generator, policy, task.net, task.x, task.label, **options)


def same(a: Perturbed, b: Perturbed) -> None:
    for name, left, right in zip(a._fields, a, b, strict=True):
        np.testing.assert_array_equal(left, right, err_msg=name)


def test_target_policies() -> None:
    label = np.repeat(np.arange(5), 400)
    other, every = (draw_targets(policy, label, 5, KEY) for policy in ("other", "all"))
    assert (other != label).all()
    shift = np.bincount((other - label) % 5, minlength=5)
    assert (abs(shift[1:] - 500) < 100).all()
    assert (abs(np.bincount((every - label) % 5, minlength=5) - 400) < 90).all()  # the own class among them
    np.testing.assert_array_equal(draw_targets("next", label, 5, KEY), (label + 1) % 5)
    np.testing.assert_array_equal(draw_targets(("fixed", 2), label, 5, KEY), 2)
    np.testing.assert_array_equal(draw_targets("other", [0, 1, 1], 2, KEY), [1, 0, 0])


def test_every_example_has_its_target(task: nets.Task) -> None:
    made = make(task)
    np.testing.assert_array_equal(made.source, np.arange(COUNT))
    assert (made.y != made.label).all()
    classes = np.asarray(task.net(made.x)).argmax(1)
    np.testing.assert_array_equal(classes == made.y, made.status == Status.FOUND)
    assert 0 < made.reached < 1, "the tests below need both kinds"
    moved = np.linalg.norm((made.x - task.x).reshape(COUNT, -1), axis=1)
    assert (moved > 0.05).all(), "what failed keeps what was tried"
    assert (moved <= 0.25 + 1e-5).all()
    assert (made.evaluations >= 7).all()


def test_shards_and_lists_do_not_matter(task: nets.Task) -> None:
    """But for the last bits of another batch size."""
    one, other = make(task), make(task, shard=100, lanes=30)
    np.testing.assert_allclose(one.x, other.x, atol=1e-6)
    np.testing.assert_array_equal(one.y, other.y)
    np.testing.assert_array_equal(one.status, other.status)


def test_failures(task: nets.Task) -> None:
    kept, clean, dropped = (make(task, failures=policy) for policy in ("keep", "clean", "drop"))
    lost = kept.status != Status.FOUND
    np.testing.assert_array_equal(clean.x[lost], task.x[lost])
    np.testing.assert_array_equal(clean.x[~lost], kept.x[~lost])
    np.testing.assert_array_equal(dropped.source, np.flatnonzero(~lost))
    np.testing.assert_array_equal(dropped.y, kept.y[~lost])
    assert dropped.dropped == lost.sum()
    assert dropped.reached == pytest.approx(kept.reached)


def test_own_class_as_target_stays(task: nets.Task) -> None:
    made = make(task, policy="all")
    own = made.y == made.label
    assert 0 < own.sum() < COUNT
    np.testing.assert_array_equal(made.x[own], task.x[own])
    assert (made.status[own] == Status.ALREADY_TARGET).all()
    assert (made.evaluations[own] == 0).all()


def test_a_killed_run_goes_on(task: nets.Task, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = make(task)
    asked: list[int] = []
    solve = invjax.learn.perturb.solve

    def counted(network: Any, x: Any, *args: Any, **options: Any) -> Any:
        if len(asked) == 1:
            raise KeyboardInterrupt
        asked.append(len(x))
        return solve(network, x, *args, **options)

    monkeypatch.setattr(invjax.learn.perturb, "solve", counted)
    with pytest.raises(KeyboardInterrupt):
        make(task, out=tmp_path / "set")
    monkeypatch.setattr(invjax.learn.perturb, "solve", solve)
    running = tmp_path / "set" / "shard-000001.running"
    running.mkdir()  # of a function that had counted more calls
    (running / "manifest.json").write_text(json.dumps({"format": 2, "network": "counted"}))
    same(make(task, out=tmp_path / "set"), whole)
    assert not running.exists()
    monkeypatch.setattr(invjax.learn.perturb, "solve", counted)
    same(make(task, out=tmp_path / "set"), whole)  # reread: the solver is not asked again
    (tmp_path / "set" / "shard-000001.npz").write_bytes(b"damaged")
    monkeypatch.setattr(invjax.learn.perturb, "solve", solve)
    with pytest.warns(UserWarning, match=r"shard-000001.npz' was damaged: it is 'shard-000001.npz.damaged' now"):
        same(make(task, out=tmp_path / "set"), whole)


def shifted(by: float) -> Any:
    """A control that holds a number."""
    return lambda x, label, target, keys: x + by


def test_another_run_is_refused(task: nets.Task, tmp_path: Path) -> None:
    """Whatever can change a point is part of what the run is, and what cannot is none."""
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"generator": PGD(eps=0.3, step_size=0.1, steps=6)}, "generator"),
        ({"policy": "next"}, "inputs"),
        ({"key": jax.random.key(4)}, "inputs"),
        ({"bounds": (0.1, 0.9)}, "bounds"),
        ({"mask": np.ones(SHAPE, bool)}, "options"),
        ({"precision": "highest"}, "options"),
        ({"evaluator": _tilted}, "evaluator"),
        ({"density": invjax.densities.fit_knn(task.x, np.arange(COUNT) % CLASSES, 2)}, "density"),
        ({"shard": 30}, "shard"),
        ({"name": "other"}, "model"),
    ]
    whole = make(task, out=tmp_path / "set")
    for other, what in wrong:
        with pytest.raises(ValueError, match=rf"out must be .* holds a run with another {what}$"):
            make(task, out=tmp_path / "set", **other)
    same(make(task, out=tmp_path / "set", lanes=4, failures="keep"), whole)
    make(task, shifted(0.1), out=tmp_path / "control")
    with pytest.raises(ValueError, match="holds a run with another generator"):
        make(task, shifted(0.2), out=tmp_path / "control")
    make(task, shifted(0.1), out=tmp_path / "control")
    (tmp_path / "set" / "manifest.json").unlink()
    with pytest.raises(ValueError, match=r"set' has parts of a run \(shard-000000.npz\), but no manifest.json"):
        make(task, out=tmp_path / "set")


def test_the_point_that_was_found_is_kept(task: nets.Task, tmp_path: Path) -> None:
    """Bit for bit that of solve, and inside the bounds: x + (x' - x) would be rounded a second time."""
    inside = task._replace(x=0.1 + 0.8 * task.x)
    bounds, far = (0.1, 0.9), PGD(eps=0.8, step_size=0.4, steps=4, stop_early=False)  # up to the walls
    made = make(inside, far, shard=COUNT, bounds=bounds, out=tmp_path)
    target_key, method_key = jax.random.split(KEY)
    target = draw_targets("other", task.label, CLASSES, target_key)
    found = invjax.solve(
        task.net, inside.x, task.label, target=target, method=far, bounds=bounds, key=method_key, lanes=8,
        progress=False,
    )  # fmt: skip
    won = (found.status == Status.FOUND).reshape(-1, 1, 1, 1)
    want = np.where(won, found.x, found.attempt)
    np.testing.assert_array_equal(made.x, want)
    low, high = (np.float32(side) for side in bounds)
    again = inside.x + (want - inside.x)
    assert ((again < low) | (again > high)).any(), "the test needs points that a second rounding moves"
    assert (made.x >= low).all()
    assert (made.x <= high).all()
    same(make(inside, far, shard=COUNT, bounds=bounds, out=tmp_path), made)


def test_control(task: nets.Task) -> None:
    """A function in the place of a method: clipped, judged by the classifier, its draws by row."""

    def noise(x: Any, label: Any, target: Any, keys: Any) -> Any:
        return x + 0.8 * np.asarray(jax.vmap(lambda key: jax.random.normal(key, SHAPE))(keys))

    made = make(task, noise)
    assert made.x.min() == 0
    assert made.x.max() == 1
    classes = np.asarray(task.net(made.x)).argmax(1)
    np.testing.assert_array_equal(classes == made.y, made.status == Status.FOUND)
    np.testing.assert_array_equal(make(task, noise, shard=7).x, made.x)


def _tilted(*arguments: Any) -> Any:
    """Prefers class 0, as the network itself does not."""
    seen = invjax.white_box(*arguments)
    return seen._replace(logits=seen.logits.at[..., 0].add(2.4))


def test_control_seen_through_an_evaluator(task: nets.Task, tmp_path: Path) -> None:
    """It decides who has moved, and another one is another run."""

    def brighter(x: Any, label: Any, target: Any, keys: Any) -> Any:
        return x + 0.3

    made = make(task, brighter, evaluator=_tilted, out=tmp_path)
    bare = np.asarray(task.net(made.x))
    tilted = bare + 2.4 * (np.arange(CLASSES) == 0)
    np.testing.assert_array_equal(tilted.argmax(1) == made.y, made.status == Status.FOUND)
    assert (tilted.argmax(1) != bare.argmax(1)).any(), "the evaluator must matter"
    with pytest.raises(ValueError, match="holds a run with another evaluator"):
        make(task, brighter, out=tmp_path)


def test_pixels(task: nets.Task) -> None:
    """uint8 images are the floats they stand for."""
    pixels = np.round(255 * task.x).astype(np.uint8)
    same(make(task._replace(x=pixels)), make(task._replace(x=(pixels.astype(np.float32) / np.float32(255)))))


def test_presets() -> None:
    choices = [{}] + [{"norm": norm, "targets": "det", "data": "cifar10"} for norm in ("l2", "linf")]
    for given in choices:
        recipe = preset("kumano", **given)
        assert recipe.generator.steps == 100
        assert recipe.generator.step_size == pytest.approx(recipe.generator.eps / 5)
    assert preset("kumano", targets="det").target_policy == "next"
    assert preset("kumano").generator.eps == 2
    assert preset("ilyas", targets="det").target_policy == "next"
    assert preset("ilyas").target_policy == "all"
    assert preset("pcfe_slides").target_policy == "other"
    assert preset("pcfe_released")[1:] == ("all", "clean")
    assert all(preset(name).generator.method is not None for name in PRESETS)
    for name, wrong in (("nothing", {}), ("kumano", {"norm": "l1"}), ("waterbirds", {"method": "gse"})):
        with pytest.raises(ValueError, match="must be one of"):
            preset(name, **wrong)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"policy": "any"}, "target_policy must be"),
        ({"policy": ("fixed", 9)}, "target_policy must be of a class"),
        ({"failures": "hide"}, "failures must be one of"),
        ({"shard": 0}, "shard must be"),
    ],
)
def test_bad_input(task: nets.Task, change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make(task, **change)


def test_lists_must_fit(task: nets.Task) -> None:
    with pytest.raises(ValueError, match="y must be classes"):
        make(task._replace(label=task.label[1:]))
