"""ResNet: every layer against torch, the properties of a classifier, max-pooling, files."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch_nets
from flax import nnx

from invjax.attribution import split
from invjax.models import ResNet, as_logits, load, resnet_from_torch, with_classes
from invjax.models import resnet as module
from invjax.models.blocks import max_pool
from invjax.models.params_file import save_arrays, weights_of
from invjax.models.registry import REGISTRY

WIDTH, CLASSES = 4, 5
SHAPE = (37, 50, 3)  # odd sizes on the way down: 19 10 5 3 2 and 25 13 7 4 2
SMALL = module.Size((1, 2, 1, 1), module.BOTTLENECK)
BASIC = module.Size((1, 2, 1, 1), module.BASIC)
WEIGHTS = np.arange(CLASSES, dtype=np.float32) - 1


def state_of(size: module.Size, width: int = WIDTH) -> dict[str, np.ndarray]:
    abstract = nnx.eval_shape(lambda: ResNet(size, CLASSES, width, rngs=nnx.Rngs(0)))
    return torch_nets.random_state(abstract, module.torch_table(abstract))


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SIZES", {**module.SIZES, "small": SMALL, "basic": BASIC})


@pytest.fixture(scope="module")
def x() -> np.ndarray:
    return np.random.default_rng(1).uniform(-1, 1, (2, *SHAPE)).astype(np.float32)


@pytest.mark.parametrize("size", ["small", "basic"])
def test_every_layer_against_torch(size: str, x: np.ndarray, small: None) -> None:
    pytest.importorskip("torch")
    state = state_of(module.SIZES[size])
    theirs = torch_nets.Net(state, 1e-5)
    image = theirs.image(x)
    logits = torch_nets.resnet(theirs, image, module.SIZES[size].blocks)
    torch_nets.assert_same_layers(resnet_from_torch(size, state), theirs, image, logits, x, WEIGHTS)


def test_a_classifier_as_the_library_needs_it(x: np.ndarray, small: None, tmp_path: Any) -> None:
    save_arrays(tmp_path / "w.npz", state_of(SMALL))
    net = resnet_from_torch("small", tmp_path / "w.npz")
    model = as_logits(net, module.MEAN, module.STD)
    inside = np.float32(module.STD) * x + np.float32(module.MEAN)
    torch_nets.assert_classifier(net, model, inside, x, WEIGHTS)
    halves = split(model)
    features = jax.eval_shape(lambda x: halves.features(x), x)
    assert features.shape == (2, 2, 2, 4 * 8 * WIDTH)
    assert jax.eval_shape(lambda a: halves.head(a), features).shape == (2, CLASSES)
    assert with_classes(net, 3, rngs=nnx.Rngs(0)).classifier.kernel.shape == (4 * 8 * WIDTH, 3)
    assert model.apply == as_logits(nnx.clone(net), module.MEAN, module.STD).apply


@pytest.mark.parametrize(
    ("name", "parameters"), [("resnet18", 11_689_512), ("resnet34", 21_797_672), ("resnet50", 25_557_032)]
)
def test_the_published_sizes(name: str, parameters: int) -> None:
    """As many parameters as torchvision's."""
    net = nnx.eval_shape(lambda: ResNet(module.SIZES[name], rngs=nnx.Rngs(0)))
    weights = {k: int(np.prod(v.shape)) for k, v in weights_of(net).items() if not k.endswith((".mean", ".var"))}
    assert sum(weights.values()) == parameters
    table = module.torch_table(net)
    assert {entry.path for entry in table.values()} == set(weights_of(net))
    assert {"conv1.weight", "layer2.0.downsample.1.running_var", "layer4.1.bn2.bias", "fc.bias"} <= set(table)


def test_load_resnet18(tmp_path: Any) -> None:
    save_arrays(tmp_path / "w.npz", state_of(module.SIZES["resnet18"], width=2))
    model = load("resnet18", tmp_path / "w.npz", CLASSES)
    np.testing.assert_allclose(model.params["mean"], module.MEAN)
    np.testing.assert_allclose(model.params["std"], module.STD)
    assert {f"resnet{layers}" for layers in (18, 34, 50, 101, 152)} <= set(REGISTRY)
    with pytest.raises(ValueError, match=r"num_classes must be .* 5, was 1000"):
        load("resnet18", tmp_path / "w.npz", 1000)
    with pytest.raises(ValueError, match=r"missing: \['layer1.0.bn3.bias'"):
        load("resnet50", tmp_path / "w.npz")
    with pytest.raises(
        ValueError, match=r"weights must be the path of a file, was None; no weights come with 'resnet50'"
    ):
        load("resnet50")
    with pytest.raises(ValueError, match=r"name must be one of 'resnet18', .*, was 'resnet20'"):
        resnet_from_torch("resnet20", {})


@pytest.mark.fast
@pytest.mark.parametrize(
    ("shape", "window", "stride"), [((8, 9), 3, 2), ((5, 5), 3, 1), ((7, 6), 5, 3), ((1, 2), 3, 2)]
)
def test_max_pool(shape: tuple[int, int], window: int, stride: int) -> None:
    """Values and gradient of a maximum over windows; numbers without ties."""
    x = np.random.default_rng(0).permutation(2 * shape[0] * shape[1] * 3).reshape(2, *shape, 3).astype(np.float32) - 20
    half = window // 2

    def default(x: Any) -> Any:
        edges = [(0, 0), (half, half), (half, half), (0, 0)]
        sizes = ((1, window, window, 1), (1, stride, stride, 1))
        return jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, *sizes, edges)

    weights = np.random.default_rng(1).normal(size=jax.eval_shape(default, x).shape).astype(np.float32)
    same = np.full(x.shape, 3.0, np.float32)

    @jax.jit
    def run(x: Any, same: Any) -> Any:
        pool = lambda x: max_pool(x, window, stride)  # noqa: E731
        slopes = [jax.grad(lambda x, f=f: jnp.sum(f(x) * weights))(x) for f in (pool, default)]
        return pool(x), default(x), *slopes, jax.grad(lambda x: jnp.sum(pool(x)))(same)

    value, want, slope, wanted, shares = run(x, same)
    np.testing.assert_array_equal(value, want)
    np.testing.assert_allclose(slope, wanted, rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(shares.sum(), want.size, rtol=1e-6)
