"""The networks that robust CIFAR checkpoints have, and VGG, against torchvision's and RobustBench's own code."""

from __future__ import annotations

import json
import sys
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from invjax.attribution import cams, grad_cams
from invjax.core.errors import BadArgument
from invjax.models import as_logits, load, preact_resnet_from_torch, resnet_from_torch, vgg_from_torch
from invjax.models import preact_resnet as preact
from invjax.models import vgg as vgg_module
from invjax.models.params_file import weights_of

FIXTURES = Path(__file__).parent.parent / "fixtures"
sys.path.insert(0, str(FIXTURES))
from drawn import drawn  # noqa: E402

with np.load(FIXTURES / "cnn.npz") as archive:
    RECORDED = dict(archive)
NAMES = sorted({key.partition(".")[0] for key in RECORDED})
LOADED = {"p": "preact_resnet18", "w": "wide_resnet", "r": "resnet18"}  # by the first letter; VGGs have names of theirs
WEIGHTS = jnp.arange(5) - 1.5


def state_of(name: str) -> dict[str, np.ndarray]:
    return drawn(json.loads(RECORDED[f"{name}.shapes"].tobytes()))


def module_of(name: str, state: dict[str, np.ndarray]) -> Any:
    if name.startswith("vgg"):
        return vgg_from_torch(name.removesuffix("_cifar"), state)
    return resnet_from_torch("resnet18", state) if name.startswith("r") else preact_resnet_from_torch(state)


@jax.jit
def everything(model: Any, x: Any) -> Any:
    (_, logits), gradient = jax.value_and_grad(lambda x: (jnp.sum((z := model(x)) * WEIGHTS), z), has_aux=True)(x)
    return logits, gradient


@pytest.mark.parametrize("name", NAMES)
def test_logits_and_gradient_are_those_of_the_library(name, tmp_path):
    side = int(RECORDED[f"{name}.side"])
    x = np.random.RandomState(side).uniform(size=(2, side, side, 3)).astype(np.float32)
    np.savez(tmp_path / "w.npz", **state_of(name))
    plain = {"mean": 0.0, "std": 1.0} if name in ("vgg19", "vgg19_bn") else {}  # the fixture does not normalise
    model = load(LOADED.get(name[0], name.removesuffix("_cifar")), tmp_path / "w.npz", 5, **plain)
    logits, gradient = everything(model, x)
    wanted, slope = RECORDED[f"{name}.logits"], RECORDED[f"{name}.gradient"]
    np.testing.assert_allclose(logits, wanted, rtol=0, atol=1e-5 * np.abs(wanted).max())
    np.testing.assert_allclose(gradient[:1, ::7, ::7], slope, rtol=0, atol=1e-5 * np.abs(slope).max())


def test_statistics_come_from_the_file_or_the_code(tmp_path):
    def mean(name: str, state: dict[str, np.ndarray]) -> Any:
        np.savez(tmp_path / "w.npz", **state)
        params = load(name, tmp_path / "w.npz").params
        return np.asarray(params["mean"]) if isinstance(params, dict) and "mean" in params else None

    rice = state_of("preact_rice2020")
    np.testing.assert_array_equal(mean("preact_resnet18", rice), rice["mu"].reshape(3))
    wrapped = {f"model.{key}": value for key, value in state_of("preact_cifar").items()}
    statistics = {"normalize.mean": np.full((1, 3, 1, 1), 0.4), "normalize.std": np.ones((1, 3, 1, 1))}
    np.testing.assert_allclose(mean("preact_resnet18", wrapped | statistics), 0.4)
    assert mean("preact_resnet18", wrapped) is None
    np.testing.assert_allclose(mean("wide_resnet", state_of("wide_deepmind")), (0.4914, 0.4822, 0.4465))
    np.testing.assert_allclose(mean("vgg19", state_of("vgg19")), (0.485, 0.456, 0.406))
    assert mean("resnet18", state_of("resnet18_cifar")) is None


def test_which_shortcut_is_said_where_the_file_cannot_tell():
    state, x = state_of("preact_cifar"), np.full((1, 8, 8, 3), 0.5, np.float32)
    default, activated, plain = (preact_resnet_from_torch(state, activated=a) for a in (None, True, False))
    assert default.shape.activated
    assert not plain.shape.activated
    assert np.abs(activated(x) - plain(x)).max() > 1e-3
    np.testing.assert_array_equal(default(x), activated(x))
    assert not preact_resnet_from_torch(state_of("preact_wong2020")).shape.activated


def test_published_sizes():
    def count(make: Any) -> int:
        weights = weights_of(nnx.eval_shape(lambda: make(rngs=nnx.Rngs(0))))
        return sum(int(np.prod(v.shape)) for k, v in weights.items() if not k.endswith((".mean", ".var")))

    assert count(partial(vgg_module.VGG, vgg_module.plan("vgg19"))) == 143_667_240
    assert count(partial(vgg_module.VGG, vgg_module.plan("vgg19_bn"))) == 143_678_248
    assert count(partial(preact.PreActResNet, preact.wide_resnet(28, 10))) == 36_479_194
    assert count(preact.PreActResNet) == 11_171_146 + 1_024  # with the last normalisation


def test_maps():
    x = np.random.default_rng(0).uniform(size=(2, 16, 16, 3)).astype(np.float32)
    for name, maps in (("wide_trades", cams), ("vgg11", grad_cams)):
        model = as_logits(module_of(name, state_of(name)))
        assert maps(model, x if name != "vgg11" else np.tile(x, (1, 2, 2, 1)), [0, 3]).shape[0] == 2


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("preact_cifar", lambda s: {"fc.weight": s["linear.weight"]}, "must hold the weights of a PreActResNet or"),
        ("preact_cifar", lambda s: {**s, "layer2.1.bn1.extra": s["linear.bias"]}, r"unknown: \['layer2.1.bn1.extra'\]"),
        ("wide_trades", lambda s: _without(s, "block2.layer.1.conv1.weight"), r"missing: \['block2.layer.1.conv1"),
        ("wide_deepmind", lambda s: _without(s, "logits.weight"), "must hold logits.weight with 2 axes"),
        ("vgg19", lambda s: _without(s, "features.10.bias"), r"missing: \['features.10.bias'\]"),
        ("vgg11", lambda s: {"conv1.weight": s["features.0.weight"]}, "hold the weights of vgg11, was a file with"),
        ("vgg11", lambda s: {**s, "classifier.weight": np.zeros((5, 24))}, "have a first linear layer over a square"),
        ("resnet18_cifar", lambda s: _without(s, "layer3.0.shortcut.0.weight"), r"missing: \['layer3.0.shortcut.0"),
    ],
)  # fmt: skip
def test_weights_that_do_not_fit(name, change, message):
    with pytest.raises(BadArgument, match=message):
        module_of(name, change(state_of(name)))


def test_another_size_is_named():
    with pytest.raises(BadArgument, match=r"weights of vgg16, was a network of 1\+1\+2\+2\+2 convolutions"):
        vgg_from_torch("vgg16", state_of("vgg11"))
    with pytest.raises(BadArgument, match="depth must be 10, 16, 22, 28, …, was 18"):
        preact.wide_resnet(18)


def _without(state: dict[str, np.ndarray], key: str) -> dict[str, np.ndarray]:
    return {name: value for name, value in state.items() if name != key}
