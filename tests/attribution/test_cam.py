"""CAM and Grad-CAM: by hand in numpy, against the numbers of the package grad-cam, and models in two halves."""

from __future__ import annotations

import functools
import warnings
from importlib.util import find_spec
from pathlib import Path

import jax
import jax.numpy as jnp
import nets
import numpy as np
import pytest
from flax import nnx

from invjax import attribution as explain
from invjax.attribution.cam import _resize
from invjax.models import LogitsModel, ResNet20, SmallCNN, as_logits, load_state_dict, resnet20_from_torch

FIXTURES = Path(__file__).parent.parent / "fixtures"
RECORDED = FIXTURES / "gradcam_resnet20_width4.npz"
IMAGE = (12, 20, 3)


@pytest.fixture(scope="module")
def resnet() -> ResNet20:
    return resnet20_from_torch(FIXTURES / "resnet20_width4.pth")


@pytest.fixture(scope="module")
def small() -> SmallCNN:
    return SmallCNN(IMAGE, num_classes=5, widths=(4, 6), hidden=8, rngs=nnx.Rngs(2))


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    return np.random.default_rng(0).normal(size=(5, *IMAGE)).astype(np.float32)


def recorded_images(shape: str) -> np.ndarray:
    with np.load(RECORDED) as arrays:
        return (arrays[shape].astype(np.float32) - 128) / 8


# The oracle: float64, loops, gradients by hand


def bilinear(m: np.ndarray, height: int, width: int) -> np.ndarray:
    def taps(i: int, new: int, old: int) -> list[tuple[int, float]]:
        place = min(max((i + 0.5) * old / new - 0.5, 0.0), old - 1.0)
        low = int(place)
        return [(low, 1 - (place - low)), (min(low + 1, old - 1), place - low)]

    out = np.zeros((height, width))
    for i in range(height):
        for j in range(width):
            for a, u in taps(i, height, m.shape[0]):
                for b, v in taps(j, width, m.shape[1]):
                    out[i, j] += u * v * m[a, b]
    return out


def scaled(m: np.ndarray) -> np.ndarray:
    return (m - m.min()) / ((m - m.min()).max() + 1e-7)


def finished(plane: np.ndarray, size: tuple[int, ...]) -> np.ndarray:
    return scaled(bilinear(scaled(plane), *size[:2]))


def grad_cam_of_small(net: SmallCNN, features: np.ndarray, label: int) -> np.ndarray:
    """The gradient of a logit through the two dense layers by the chain rule, for one image [h, w, F]."""
    w1, b1 = (np.asarray(a[...], np.float64) for a in (net.dense1.kernel, net.dense1.bias))
    w2 = np.asarray(net.dense2.kernel[...], np.float64)
    on = features.reshape(-1) @ w1 + b1 > 0
    slope = (w1 @ (w2[:, label] * on)).reshape(features.shape)
    return np.maximum((features * slope.mean((0, 1))).sum(-1), 0)


def test_grad_cam_by_hand(small: SmallCNN, images: np.ndarray):
    features = np.asarray(explain.split(small).features(images), np.float64)
    for label in (0, 3):
        maps = explain.grad_cams(small, images, [label] * len(images))
        expected = [finished(grad_cam_of_small(small, a, label), IMAGE) for a in features]
        assert maps.shape == (5, 12, 20)
        assert maps.dtype == np.float32
        np.testing.assert_allclose(maps, expected, atol=5e-6)
        assert 0.05 < np.mean(maps > 0) < 0.95  # the rectifier had something to do


def test_cam_by_hand(resnet: ResNet20):
    """Weights of the linear layer times the last feature maps, signed."""
    x, labels = recorded_images("square"), np.array([2, 6])
    features = np.asarray(jax.jit(explain.Split.features)(explain.split(resnet), x), np.float64)
    weights = np.asarray(resnet.classifier.kernel[...], np.float64)
    planes = [(a * weights[:, label]).sum(-1) for a, label in zip(features, labels, strict=True)]
    assert min(p.min() for p in planes) < 0 < max(p.max() for p in planes)
    np.testing.assert_allclose(explain.cams(resnet, x, labels), [finished(p, x.shape[1:]) for p in planes], atol=1e-5)
    expected = [finished(np.maximum(p, 0), x.shape[1:]) for p in planes]
    np.testing.assert_allclose(explain.grad_cams(resnet, x, labels), expected, atol=1e-5)


@pytest.mark.parametrize(("old", "new"), [((2, 3), (7, 5)), ((4, 4), (4, 4)), ((1, 1), (3, 2)), ((8, 5), (3, 4))])
def test_resize_by_hand(old: tuple[int, int], new: tuple[int, int]):
    m = np.random.default_rng(1).normal(size=old).astype(np.float32)
    np.testing.assert_allclose(_resize(jnp.asarray(m), new), bilinear(m, *new), atol=1e-6)


# The package


@pytest.mark.parametrize("shape", ["square", "wide"])
def test_equals_the_recorded_maps_of_the_package(resnet: ResNet20, shape: str):
    x = recorded_images(shape)
    with np.load(RECORDED) as arrays:
        for label, expected in zip(arrays["classes"], arrays[f"{shape}_maps"], strict=True):
            np.testing.assert_allclose(explain.grad_cams(resnet, x, np.full(len(x), label)), expected, atol=3e-6)


@pytest.mark.skipif(find_spec("torch") is None or find_spec("pytorch_grad_cam") is None, reason="no torch and grad-cam")
def test_equals_the_package():
    """Fresh random weights, where torch and grad-cam are installed."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import torch
        from fixtures import make_gradcam_fixtures as make

        torch.manual_seed(5)
        net = make.TorchResNet20(4, 7).eval()  # the shapes of the recorded maps, hence their compiled program
        x = (np.random.default_rng(5).normal(size=(2, 32, 32, 3)) * 3).astype(np.float32)
        expected = make.maps(net, x, (1, 4))
    ours = resnet20_from_torch({key: value.numpy() for key, value in net.state_dict().items()})
    for label, maps in zip((1, 4), expected, strict=True):
        np.testing.assert_allclose(explain.grad_cams(ours, x, [label] * 2), maps, atol=5e-6)


# Batches, transformations, classes


def test_a_map_does_not_depend_on_its_batch(small: SmallCNN, images: np.ndarray):
    maps, labels = explain.grad_cams(small, images, [0, 1, 2, 3, 4]), np.arange(5)
    order = np.array([3, 0, 4, 2, 1])
    np.testing.assert_array_equal(explain.grad_cams(small, images[order], labels[order]), maps[order])
    bright = np.concatenate([images[:1], 100 + images[1:]])
    np.testing.assert_array_equal(explain.grad_cams(small, bright, labels)[0], maps[0])
    alone = jax.jit(explain.grad_cam)(explain.split(small), images[2], 2)
    np.testing.assert_allclose(alone, maps[2], atol=2e-6)
    np.testing.assert_allclose(explain.grad_cams(small, images, labels, batch=2), maps, atol=2e-6)


def test_under_jit_and_vmap(small: SmallCNN, images: np.ndarray):
    halves = explain.split(small)
    every = jax.jit(jax.vmap(jax.vmap(explain.grad_cam, (None, None, 0)), (None, 0, None)))
    maps = every(halves, images, np.arange(5))
    for label in (0, 4):
        np.testing.assert_allclose(maps[:, label], explain.grad_cams(small, images, [label] * 5), atol=2e-6)


def test_default_class_is_the_networks(small: SmallCNN, images: np.ndarray):
    said = np.asarray(as_logits(small)(images)).argmax(1)
    np.testing.assert_array_equal(explain.grad_cams(small, images), explain.grad_cams(small, images, said))


def test_new_weights_compile_nothing(images: np.ndarray, small: SmallCNN):
    explain.grad_cams(small, images, batch=2)
    other = SmallCNN(IMAGE, num_classes=5, widths=(4, 6), hidden=8, rngs=nnx.Rngs(7))
    with nets.compilations() as compiled:
        explain.grad_cams(other, images[:4], batch=2)
    assert not [name for name in compiled if "_run" in name], compiled


def _blind(params: jax.Array, x: jax.Array) -> jax.Array:
    return x[:, ::2, ::2] * params


def _sum(params: jax.Array, features: jax.Array) -> jax.Array:
    return -features.sum((1, 2)) @ jnp.ones((3, 2))


def test_a_class_that_nothing_speaks_for_has_a_map_of_zeros():
    halves = explain.Split(jnp.float32(1), _blind, _sum)  # every channel speaks against every class
    x = np.random.default_rng(0).uniform(size=(2, 4, 6, 3)).astype(np.float32)
    np.testing.assert_array_equal(explain.grad_cams(halves, x, [0, 1]), 0)
    assert np.ptp(explain.cams(halves, x, [0, 1])) > 0.9
    np.testing.assert_array_equal(explain.grad_cams(halves, np.zeros_like(x)), 0)
    np.testing.assert_allclose(explain.scale_map(jnp.array([[2.0, 3.0], [6.0, 4.0]])), [[0, 0.25], [1, 0.5]], atol=1e-6)


# Two halves


def test_split_of_everything_that_has_the_methods(small: SmallCNN, images: np.ndarray):
    x = images[:2]
    both = jax.jit(lambda halves, x: (halves.features(x), halves(x)))
    whole = jax.jit(lambda model, x: model(x))
    plain, normalised = as_logits(small), as_logits(small, 0.5, (0.5, 0.25, 0.5))
    for model in (small, plain, normalised, as_logits(normalised, 0.1, 2.0)):
        halves = explain.split(model)
        features, logits = both(halves, x)
        assert features.shape == (2, 3, 5, 6)
        np.testing.assert_array_equal(logits, whole(as_logits(model), x))
        assert explain.split(halves) is halves
        np.testing.assert_array_equal(both(explain.split(as_logits(halves)), x)[0], features)
    state = load_state_dict(FIXTURES / "resnet20_width4.pth")
    resnets = [resnet20_from_torch({k: scale * v for k, v in state.items()}) for scale in (1, 2)]
    one, other = (jax.tree.structure(explain.split(as_logits(net, 0.5, 0.5))) for net in resnets)
    assert one == other


class Own(nnx.Module):
    """A user's network with dropout, split by its two methods."""

    def __init__(self, rngs: nnx.Rngs) -> None:
        self.conv = nnx.Conv(3, 4, (3, 3), rngs=rngs)
        self.drop = nnx.Dropout(0.5, rngs=rngs)
        self.linear = nnx.Linear(4, 2, rngs=rngs)

    def features(self, x: jax.Array) -> jax.Array:
        return jax.nn.relu(self.conv(x))

    def head(self, features: jax.Array) -> jax.Array:
        return self.linear(self.drop(features.mean((1, 2))))

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.head(self.features(x))


def test_a_network_of_ones_own(images: np.ndarray):
    net = Own(nnx.Rngs(0))
    maps = explain.cams(net, images, np.zeros(5, int))
    assert maps.shape == (5, 12, 20)
    assert net.drop.deterministic is False  # evaluation mode is set on a copy
    np.testing.assert_array_equal(explain.cams(net, images, np.zeros(5, int)), maps)


def _features(params: dict, x: jax.Array) -> jax.Array:
    return x


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda s, x: explain.split(nets.conv()), r"model must have methods features\(x\).*LogitsModel without them"),
        (lambda s, x: explain.split(lambda x: x), r"model must have methods features\(x\)"),
        (lambda s, x: explain.Split({}, _features, 3), "head_apply must be a hashable function"),
        (lambda s, x: explain.cams(s, x, [0] * 5), "model must end in global average pooling and one linear layer"),
        (lambda s, x: explain.grad_cams(s, x, [0, 1, 2, 3, 5]), r"label must lie in \[0, 5\).*was 5"),
        (lambda s, x: explain.grad_cams(s, x[0], 0), "must"),
        (lambda s, x: explain.grad_cams(s, x.astype(int)), "x must be floating point"),
        (lambda s, x: explain.grad_cams(s, x, batch=0), "batch must be"),
        (
            lambda s, x: explain.grad_cams(explain.Split({}, _features, LogitsModel({}, _features)), x[:, :, :, 0]),
            "x must be images",
        ),
        (
            lambda s, x: explain.grad_cams(explain.Split({}, lambda p, x: x[:, 0], _features), x),
            r"features must be \[B, h, w, F\]",
        ),
    ],
)
def test_bad_arguments(small: SmallCNN, images: np.ndarray, call, message: str):
    with pytest.raises(ValueError, match=message):
        call(small, images)


def _pooled(wide: int, rectify: bool, params: dict, a: jax.Array) -> jax.Array:
    hidden = jax.nn.relu(a.mean((1, 2))) if rectify else a.mean((1, 2))
    return jax.nn.relu(hidden @ params["in"]) @ params["out"] if wide else hidden @ params["out"]


@pytest.mark.parametrize("rectify", [False, True])
@pytest.mark.parametrize("channels", [1, 4])
def test_cam_refuses_a_hidden_layer(channels: int, rectify: bool):
    """Behind pooling the gradient of a logit is even over the plane whatever follows; it must also not depend on A.

    One channel that is never negative and no bias is the hard case: there the hidden layer is linear.
    """
    draw = np.random.default_rng(channels)
    x = draw.random((3, 4, 5, channels)).astype(np.float32)
    params = {"in": draw.normal(size=(channels, 8)), "out": draw.normal(size=(8, 3))}
    hidden = explain.Split(params, _features, functools.partial(_pooled, 8, rectify))
    if channels == 1 and rectify:
        assert explain.cams(hidden, x, [0, 1, 2]).shape == (3, 4, 5)  # linear wherever it can be asked
    else:
        with pytest.raises(ValueError, match="model must end in global average pooling and one linear layer"):
            explain.cams(hidden, x, [0, 1, 2])
    linear = explain.Split({"out": params["out"][:channels]}, _features, functools.partial(_pooled, 0, rectify))
    assert explain.cams(linear, x, [0, 1, 2]).shape == (3, 4, 5)
