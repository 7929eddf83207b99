"""Training: the arithmetic of a step, the order of examples, runs that are killed and go on, meshes, precision."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from nets import compilations

from invjax import learn
from invjax.learn.order import Order
from invjax.learn.parts import split_module
from invjax.models import MLP
from invjax.models.normalised import Normalised

KEY = jax.random.key(7)
SGD = learn.Optimiser(rate=0.05)


class Net(nnx.Module):
    """A network with everything a training has to carry: statistics, dropout, a last layer."""

    def __init__(self, seed: int = 0) -> None:
        rngs = nnx.Rngs(seed)
        self.first = nnx.Linear(4, 8, rngs=rngs)
        self.bn = nnx.BatchNorm(8, momentum=0.9, rngs=rngs)
        self.drop = nnx.Dropout(0.25, rngs=rngs)
        self.last = nnx.Linear(8, 3, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.last(self.drop(jax.nn.relu(self.bn(self.first(x)))))


def _data(count: int = 96, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    x = rng.random((count, 4)).astype(np.float32)
    return x, (x @ rng.normal(size=(4, 3))).argmax(1)


X, Y = _data()


def arrays(module: nnx.Module) -> dict[str, np.ndarray]:
    leaves = jax.tree_util.tree_leaves_with_path(nnx.to_pure_dict(nnx.state(module, nnx.Not(nnx.RngState))))
    return {jax.tree_util.keystr(path): np.asarray(leaf) for path, leaf in leaves}


def same(a: nnx.Module, b: nnx.Module) -> None:
    first, second = arrays(a), arrays(b)
    assert first.keys() == second.keys()
    for name in first:
        np.testing.assert_array_equal(first[name], second[name], err_msg=name)


def close(a: nnx.Module, b: nnx.Module, atol: float) -> None:
    first, second = arrays(a), arrays(b)
    for name in first:
        np.testing.assert_allclose(first[name], second[name], rtol=0, atol=atol, err_msg=name)


def timeless(history: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{name: value for name, value in record.items() if name != "seconds"} for record in history]


# ---------------------------------------------------------------------------------------------------------------------
# The optimiser
# ---------------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (learn.Optimiser(rate=0.1, momentum=0.9, weight_decay=0.1), ("SGD", {"momentum": 0.9, "weight_decay": 0.1})),
        (learn.Optimiser(rate=0.1, momentum=0.8, nesterov=True), ("SGD", {"momentum": 0.8, "nesterov": True})),
        (learn.Optimiser(rate=0.1, momentum=0.0, clip=0.5), ("SGD", {})),
        (learn.Optimiser(rate=0.1, rule="adam", weight_decay=0.1), ("Adam", {"weight_decay": 0.1})),
        (learn.Optimiser(rate=0.1, rule="adamw", weight_decay=0.1), ("AdamW", {"weight_decay": 0.1})),
    ],
)
def test_optimiser_is_torchs(ours: learn.Optimiser, theirs: tuple[str, dict[str, Any]]) -> None:
    """The same weights after six steps on the same gradients, clipping included."""
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(0)
    start, gradients = rng.normal(size=5), rng.normal(size=(6, 5))
    weight = torch.nn.Parameter(torch.tensor(start))
    other = getattr(torch.optim, theirs[0])([weight], lr=0.1, **theirs[1])
    mine = {"w": jnp.asarray(start, jnp.float32)}
    memory = ours.init(mine)
    for t, g in enumerate(gradients):
        weight.grad = torch.tensor(g)
        if np.isfinite(ours.clip):
            torch.nn.utils.clip_grad_norm_([weight], ours.clip)
        other.step()
        updates, memory = ours.update({"w": jnp.asarray(g, jnp.float32)}, memory, mine, jnp.int32(t), jnp.int32(6))
        mine = optax.apply_updates(mine, updates)
    np.testing.assert_allclose(mine["w"], weight.detach().numpy(), rtol=2e-5, atol=2e-5)


def test_rates() -> None:
    cosine = learn.Optimiser(rate=2.0, schedule="cosine")
    np.testing.assert_allclose(
        [cosine.rate_at(t, 4) for t in range(4)], 1 + np.cos(np.pi * np.arange(4) / 4), rtol=1e-6
    )
    warm = learn.Optimiser(rate=2.0, warmup=4)
    np.testing.assert_allclose([warm.rate_at(t, 9) for t in range(6)], [0.5, 1.0, 1.5, 2.0, 2.0, 2.0], rtol=1e-6)


# ---------------------------------------------------------------------------------------------------------------------
# The order of examples
# ---------------------------------------------------------------------------------------------------------------------
def test_every_example_equally_often() -> None:
    order = Order(KEY, 10, 4)
    rows = np.concatenate([order.rows(t) for t in range(5)])  # 20 draws: two passes, batches reach across
    assert sorted(rows[:10]) == sorted(rows[10:]) == list(range(10))
    assert not np.array_equal(rows[:10], rows[10:])


def test_order_is_a_function_of_key_and_step() -> None:
    order = Order(KEY, 10, 4)
    ahead = [order.rows(t) for t in range(6)]
    for t in (5, 0, 3):
        np.testing.assert_array_equal(Order(KEY, 10, 4).rows(t), ahead[t])
    assert not np.array_equal(Order(jax.random.key(8), 10, 4).rows(0), ahead[0])


def test_sampling_follows_its_weights() -> None:
    weights = np.array([1.0, 0.0, 3.0, 4.0])
    order = Order(KEY, 4, 500, weights)
    counts = np.bincount(np.concatenate([order.rows(t) for t in range(8)]), minlength=4)
    assert counts[1] == 0
    expected = 4000 * weights / 8
    assert np.sum((counts - expected)[[0, 2, 3]] ** 2 / expected[[0, 2, 3]]) < 13.8  # chi² of 2 degrees, 0.1 %


# ---------------------------------------------------------------------------------------------------------------------
# One step, by hand
# ---------------------------------------------------------------------------------------------------------------------
def test_weighted_logistic_regression_by_hand() -> None:
    """Full batches, plain gradient descent: numpy gives the same weights, history and accuracy."""
    weights = np.random.default_rng(1).uniform(0, 2, 96)
    net = MLP((4, 3), rngs=nnx.Rngs(0))
    before = arrays(net)
    got = learn.fit(
        net, X, Y, key=KEY, steps=3, batch=96, optimiser=learn.Optimiser(rate=0.5, momentum=0.0), weights=weights
    )
    w, b = (before[f"['dense1']['{name}']"].astype(np.float64) for name in ("kernel", "bias"))
    for record in got.history:
        z = X @ w + b
        p = np.exp(z) / np.exp(z).sum(1, keepdims=True)
        losses = -np.log(p[np.arange(96), Y])
        slope = weights[:, None] * (p - np.eye(3)[Y]) / 96
        gradient = np.sqrt(np.sum((X.T @ slope) ** 2) + np.sum(slope.sum(0) ** 2))
        assert record["loss"] == pytest.approx(losses.mean(), rel=1e-5)
        assert record["objective"] == pytest.approx(np.mean(weights * losses), rel=1e-5)
        assert record["accuracy"] == pytest.approx(np.mean(z.argmax(1) == Y), abs=1e-6)
        assert record["gradient"] == pytest.approx(gradient, rel=1e-5)
        w, b = w - 0.5 * X.T @ slope, b - 0.5 * slope.sum(0)
    after = arrays(got.model)
    np.testing.assert_allclose(after["['dense1']['kernel']"], w, atol=1e-5)
    np.testing.assert_allclose(after["['dense1']['bias']"], b, atol=1e-5)
    same_before = arrays(net)
    assert all(np.array_equal(before[name], same_before[name]) for name in before)  # the user's own is as it was


def test_pixels_and_means() -> None:
    """uint8 is [0, 1] times 255; a normalised network sees (x - mean) / std; a report is the mean of its steps."""
    pixels = (255 * X).astype(np.uint8)
    run = {"key": KEY, "steps": 4, "batch": 24, "optimiser": SGD}
    net = Normalised(MLP((4, 3), rngs=nnx.Rngs(0)), 0.5, 0.25)
    each = learn.fit(net, pixels, Y, every=1, **run)
    both = learn.fit(net, pixels.astype(np.float32) / 255, Y, every=2, **run)
    assert [record["step"] for record in both.history] == [2, 4]
    losses = [record["loss"] for record in each.history]
    np.testing.assert_allclose(
        [record["loss"] for record in both.history], np.mean([losses[:2], losses[2:]], 1), rtol=1e-5
    )
    close(each.model, both.model, 1e-6)
    np.testing.assert_allclose(net(X), net.net((X - 0.5) / 0.25), rtol=1e-6)
    assert arrays(both.model)["['mean']"] == 0.5  # a constant
    with pytest.raises(ValueError, match="std must be positive"):
        Normalised(MLP((4, 3), rngs=nnx.Rngs(0)), 0.5, 0.0)


# ---------------------------------------------------------------------------------------------------------------------
# Killed and resumed
# ---------------------------------------------------------------------------------------------------------------------
RUN: dict[str, Any] = {"key": KEY, "steps": 9, "batch": 32, "optimiser": SGD, "every": 3}


@pytest.fixture(scope="module")
def whole() -> learn.Trained:
    return learn.fit(Net(), X, Y, **RUN)


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of :data:`RUN` that was killed after six of its nine steps (and saved after three and six)."""
    pytest.importorskip("orbax.checkpoint")
    folder = tmp_path_factory.mktemp("run")

    def kill(record: dict[str, Any]) -> None:
        if record["step"] == 6:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        learn.fit(Net(), X, Y, checkpoint=folder, hooks=(kill,), **RUN)
    return folder


def _times(factor: float) -> learn.step.Loss:
    return lambda logits, y: factor * learn.step.cross_entropy(logits, y)


def _plus(offset: float) -> Any:
    def augment(key: Any, x: Any) -> Any:
        return x + offset

    return augment


def test_killed_run_ends_with_the_same_bits(whole: learn.Trained, stopped: Path, tmp_path: Path) -> None:
    """Dropout, statistics, momentum and order go on where they were; a third call has nothing to do."""
    folder = tmp_path / "run"
    shutil.copytree(stopped, folder)
    seen: list[int] = []
    again = learn.fit(Net(), X, Y, checkpoint=folder, hooks=(lambda record: seen.append(record["step"]),), **RUN)
    assert seen == [9]
    same(again.model, whole.model)
    assert timeless(again.history) == timeless(whole.history)
    seen.clear()
    third = learn.fit(Net(), X, Y, checkpoint=folder, hooks=(lambda record: seen.append(record["step"]),), **RUN)
    assert not seen
    same(third.model, whole.model)
    assert timeless(third.history) == timeless(whole.history)


def test_damaged_save_falls_back(whole: learn.Trained, stopped: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    shutil.copytree(stopped, folder)
    shutil.rmtree(folder / "steps" / "6" / "state")
    same(learn.fit(Net(), X, Y, checkpoint=folder, **RUN).model, whole.model)


def test_nothing_readable_is_an_error(stopped: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    shutil.copytree(stopped, folder)
    for step in ("3", "6"):
        shutil.rmtree(folder / "steps" / step / "state")
    with pytest.raises(ValueError, match=r"checkpoint must hold a state that can be read; none of the steps \[6, 3\]"):
        learn.fit(Net(), X, Y, checkpoint=folder, **RUN)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"optimiser": learn.Optimiser(rate=0.06)}, "optimiser"),
        ({"key": jax.random.key(8)}, "key"),
        ({"steps": 10}, "steps"),
        ({"batch": 16}, "batch"),
        ({"weights": np.full(96, 2.0)}, "weights"),
        ({"sampling": np.ones(96)}, "sampling"),
        ({"precision": "bfloat16"}, "precision"),
        ({"batch_norm": "frozen"}, "batch_norm"),
        ({"adversary": learn.Adversary()}, "adversary"),
        ({"y": (Y + 1) % 3}, "labels"),
        ({"x": X[::-1]}, "inputs"),
        ({"model": Net(1)}, "start"),
        ({"loss": _times(2.0)}, "loss"),
        ({"augment": _plus(0.1)}, "augment"),
        ({"freeze": lambda name: name.startswith("nothing")}, "freeze"),
        ({"optimiser": optax.sgd(0.05)}, "optimiser"),
        ({"name": "other"}, "model"),
    ],
)
def test_another_configuration_is_refused(stopped: Path, change: dict[str, Any], named: str) -> None:
    before = sorted(path.name for path in (stopped / "steps").iterdir())
    call = {"model": Net(), "x": X, "y": Y, "checkpoint": stopped, **RUN, **change}
    with pytest.raises(ValueError, match=rf"checkpoint must be .* holds a run with another .*{named}"):
        learn.fit(**call)
    assert sorted(path.name for path in (stopped / "steps").iterdir()) == before  # nothing lost


def test_a_full_disk_ends_a_training_in_one_line(
    whole: learn.Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was saved before is kept, nothing half done is left, and there is room later."""
    ocp = pytest.importorskip("orbax.checkpoint")
    save = ocp.CheckpointManager.save

    def full(manager: Any, step: int, **options: Any) -> None:
        if step == 6:
            (tmp_path / "run" / "steps" / "6.orbax-checkpoint-tmp").mkdir()
            raise ValueError("RESOURCE_EXHAUSTED: Failed to write 9 bytes:\nNo space left on device")
        save(manager, step, **options)

    with monkeypatch.context() as patch:
        patch.setattr(ocp.CheckpointManager, "save", full)
        with pytest.raises(
            ValueError, match=r"^checkpoint must be a folder that can be written, was .*bytes: No space"
        ):
            learn.fit(Net(), X, Y, checkpoint=tmp_path / "run", **RUN)
    assert [path.name for path in (tmp_path / "run" / "steps").iterdir()] == ["3"]
    same(learn.fit(Net(), X, Y, checkpoint=tmp_path / "run", **RUN).model, whole.model)


def test_numbers_that_functions_hold_are_part_of_a_training(tmp_path: Path) -> None:
    """A rate of optax lies in a closure, a factor of a loss in another: by value, not by name."""
    pytest.importorskip("orbax.checkpoint")

    traced: list[float] = []

    def counted(loss: learn.step.Loss) -> learn.step.Loss:
        """With a list of its calls, which makes no other loss."""
        return lambda logits, y: (traced.append(1.0), loss(logits, y))[1]

    def call(rate: float = 1e-2, factor: float = 1.0, offset: float = 0.1) -> learn.Trained:
        optimiser = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(optax.cosine_decay_schedule(rate, 9)))
        parts = {"optimiser": optimiser, "loss": counted(_times(factor)), "augment": _plus(offset)}
        return learn.fit(Net(), X, Y, checkpoint=tmp_path / "run", **{**RUN, "steps": 1, **parts})

    first = call()
    assert traced
    same(call().model, first.model)
    for change, what in (({"rate": 2e-2}, "optimiser"), ({"factor": 2.0}, "loss"), ({"offset": 0.2}, "augment")):
        with pytest.raises(ValueError, match=rf"checkpoint must be .* holds a run with another {what}$"):
            call(**change)
    (tmp_path / "run" / "manifest.json").unlink()
    with pytest.raises(ValueError, match=r"checkpoint must be .* has parts of a run \(1\), but no manifest.json"):
        call()


# ---------------------------------------------------------------------------------------------------------------------
# Devices, precision, normalisation, freezing
# ---------------------------------------------------------------------------------------------------------------------
def test_eight_devices_are_one(whole: learn.Trained) -> None:
    """Batch normalisation and dropout included: the batch is split, the sums are over all devices."""
    mesh = jax.make_mesh((8,), ("data",))
    got = learn.fit(Net(), X, Y, mesh=mesh, **RUN)
    close(got.model, whole.model, 2e-6)
    for a, b in zip(got.history, whole.history, strict=True):
        assert a["loss"] == pytest.approx(b["loss"], rel=1e-5)
    with pytest.raises(ValueError, match="batch must be a multiple of the 8 devices"):
        learn.fit(Net(), X, Y, mesh=mesh, key=KEY, steps=1, batch=12)


def test_bfloat16(whole: learn.Trained) -> None:
    """The network computes in bfloat16; what is kept stays float32, and the result stays near."""
    kinds = []

    class Watched(Net):
        def __call__(self, x: jax.Array) -> jax.Array:
            kinds.append((x.dtype, self.first.kernel[...].dtype, self.bn.mean[...].dtype))
            return super().__call__(x)

    got = learn.fit(Watched(), X, Y, precision="bfloat16", **RUN)
    narrow, wide = np.dtype(jnp.bfloat16), np.dtype(np.float32)
    assert set(kinds) == {(narrow, narrow, wide)}
    assert {array.dtype for array in arrays(got.model).values()} == {np.dtype(np.float32)}
    assert got.history[-1]["loss"] == pytest.approx(whole.history[-1]["loss"], rel=0.1)
    assert got.history[-1]["loss"] != whole.history[-1]["loss"]


def test_batch_norm_and_freezing() -> None:
    """The running mean is the closed form of one batch; frozen it stays; a frozen weight stays, the others do not."""
    run = {"key": KEY, "steps": 1, "batch": 96, "optimiser": SGD}
    net = Net()
    start = arrays(net)
    live = arrays(learn.fit(net, X, Y, **run).model)
    hidden = X @ start["['first']['kernel']"] + start["['first']['bias']"]
    np.testing.assert_allclose(live["['bn']['mean']"], 0.1 * hidden.mean(0), atol=1e-6)
    np.testing.assert_allclose(live["['bn']['var']"], 0.9 + 0.1 * hidden.var(0), atol=1e-5)

    still = arrays(learn.fit(net, X, Y, batch_norm="frozen", freeze=_all_but_last, **run).model)
    moved = {name for name in still if not np.array_equal(still[name], start[name])}
    assert moved == {"['last']['kernel']", "['last']['bias']"}


def _all_but_last(name: str) -> bool:
    return not name.startswith("last.")


def test_numbers_and_seeds_compile_nothing() -> None:
    """Other weights, rates, radii, lengths: the compiled step is found again."""
    run: dict[str, Any] = {"batch": 32, "adversary": learn.Adversary(eps=0.1, steps=2)}
    learn.fit(MLP((4, 6, 3), rngs=nnx.Rngs(0)), X, Y, key=KEY, steps=2, optimiser=SGD, **run)
    run["adversary"] = learn.Adversary(eps=1, steps=3)
    with compilations() as names:
        other = learn.Optimiser(rate=1, clip=2.0, weight_decay=0.1)
        learn.fit(MLP((4, 6, 3), rngs=nnx.Rngs(1)), X, Y, key=jax.random.key(9), steps=3, optimiser=other, **run)
    assert not [name for name in names if "train_step" in name], names


def test_measure_hooks_and_optax() -> None:
    """Hooks see plain records with what was measured; any optax transformation serves."""
    seen: list[dict[str, Any]] = []

    kept: list[nnx.Module] = []

    def measure(model: nnx.Module) -> dict[str, Any]:
        kept.append(model)
        return {"right": learn.evaluate(model, X, Y).average}

    rule = optax.sgd(0.1)
    got = learn.fit(MLP((4, 3), rngs=nnx.Rngs(0)), X, Y, key=KEY, epochs=3, batch=96, optimiser=rule,
                    measure=measure, hooks=(seen.append,))  # fmt: skip
    assert seen == got.history
    assert [record["step"] for record in seen] == [1, 2, 3]
    assert seen[-1]["right"] == learn.evaluate(got.model, X, Y).average
    assert all(isinstance(record["loss"], float) for record in seen)
    assert "rate" not in seen[0]
    assert [learn.evaluate(model, X, Y).average for model in kept] == [record["right"] for record in seen]


def test_adversary_of_a_linear_network_is_the_closed_form() -> None:
    """Two classes, f = w·x: the worst point of the ball is along ±w, or its sign; then the box."""
    rng = np.random.default_rng(0)
    x, y = jnp.asarray(rng.uniform(0.4, 0.6, (6, 5)), jnp.float32), jnp.asarray([0, 1, 0, 1, 1, 0])
    w = jnp.asarray(rng.normal(size=(5, 2)), jnp.float32)
    away = (w[:, 0] - w[:, 1])[None] * jnp.where(y == 0, -1.0, 1.0)[:, None]
    for norm, step in (("l2", away / jnp.linalg.norm(away, axis=1, keepdims=True)), ("linf", jnp.sign(away))):
        got = learn.Adversary(eps=0.2, norm=norm, random_start=False)(lambda x: x @ w, x, y, KEY)
        np.testing.assert_allclose(got, x + 0.2 * step, atol=1e-6)
    far = learn.Adversary(eps=0.9)(lambda x: x @ w, x, y, KEY)
    assert 0 <= float(far.min()) < float(far.max()) <= 1
    assert float(jnp.linalg.norm(far - x, axis=1).max()) <= 0.9 + 1e-6
    zero = learn.Adversary(eps=0.0)(lambda x: x @ w, x, y, KEY)
    np.testing.assert_array_equal(zero, x)


def test_robust_accuracy_of_a_linear_network() -> None:
    """Right stays right exactly where the margin exceeds ε ‖w‖."""
    net = MLP((4, 2), rngs=nnx.Rngs(3))
    z, kernel = np.asarray(net(X)), arrays(net)["['dense1']['kernel']"]
    y = np.random.default_rng(0).integers(0, 2, 96)
    margin = np.where(y == 0, z[:, 0] - z[:, 1], z[:, 1] - z[:, 0]) / np.linalg.norm(kernel[:, 0] - kernel[:, 1])
    got = learn.robust_accuracy(net, X, y, eps=0.1, bounds=(-5.0, 5.0), steps=10)
    np.testing.assert_array_equal(got.right, margin > 0.1)
    assert got.clean == np.mean(margin > 0)
    assert got.low < got.robust < got.high


def test_predict_in_batches() -> None:
    net = Net()
    np.testing.assert_allclose(learn.predict(net, X, batch=40), learn.predict(net, X, batch=96), atol=1e-6)
    got = learn.evaluate(net, X, Y, np.arange(96) % 2)
    assert got.count.tolist() == [48, 48]


def test_random_numbers_come_from_the_key() -> None:
    """Dropout does not depend on how the module was made."""
    first, second = (split_module(Net(0), key)[1].rest for key in (KEY, jax.random.key(8)))
    third = split_module(Net(0), KEY)[1].rest
    draws = [jax.random.key_data(one["drop"]["rngs"]["key"][...]) for one in (first, second, third)]
    assert np.array_equal(draws[0], draws[2])
    assert not np.array_equal(draws[0], draws[1])


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"steps": None}, "steps must be given, or else epochs"),
        ({"epochs": 2}, "steps must be given, or else epochs, was 1 with epochs=2"),
        ({"steps": 0}, "steps must be a whole number"),
        ({"steps": None, "epochs": 0}, "epochs must be positive"),
        ({"batch": 97}, "batch must be a whole number from 1 to 96, was 97"),
        ({"y": Y[:5]}, "x must hold one input per label"),
        ({"y": Y.astype(float)}, "y must be classes"),
        ({"y": Y - 1}, "y must be classes"),
        ({"x": X.astype(np.int64)}, "x must be floats"),
        ({"groups": [0, 1]}, r"groups must be group indices of shape \(96,\)"),
        ({"weights": -np.ones(96)}, "weights must be 96 finite numbers"),
        ({"sampling": np.zeros(96)}, "sampling must be 96 finite numbers"),
        ({"precision": "float16"}, "precision must be one of"),
        ({"batch_norm": "off"}, "batch_norm must be one of"),
        ({"every": 0}, "every must be a whole number >= 1"),
        ({"freeze": lambda name: True}, "model must have weights that learn"),
        ({"model": lambda x: x}, "model must be an nnx.Module"),
        ({"optimiser": 0.1}, "optimiser must be an Optimiser or an optax"),
        ({"optimiser": learn.Optimiser(rate=-1.0)}, "Optimiser.rate must be"),
        ({"optimiser": learn.Optimiser(rule="lion")}, "Optimiser.rule must be one of"),
        ({"adversary": learn.Adversary(eps=-1.0)}, "Adversary.eps must be"),
    ],
)
def test_bad_input(change: dict[str, Any], said: str) -> None:
    call: dict[str, Any] = {"model": MLP((4, 3), rngs=nnx.Rngs(0)), "x": X, "y": Y, "key": KEY, "steps": 1, "batch": 8}
    with pytest.raises(ValueError, match=said):
        learn.fit(**(call | change))


def test_a_list_that_is_read_when_asked_for() -> None:
    """Anything with a length that gives rows for an array of indices."""

    class Lazy:
        def __len__(self) -> int:
            return len(X)

        def __getitem__(self, rows: Any) -> np.ndarray:
            return X[rows]

    run: dict[str, Any] = {"key": KEY, "steps": 2, "batch": 96, "optimiser": SGD}
    make: Callable[[], nnx.Module] = lambda: MLP((4, 3), rngs=nnx.Rngs(0))  # noqa: E731
    same(learn.fit(make(), Lazy(), Y, **run).model, learn.fit(make(), X, Y, **run).model)
