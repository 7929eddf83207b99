"""The vision transformer: a classifier in two halves, its maps on the token grid, and attacks on it."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import invjax
from invjax.attacks import GSE
from invjax.attribution import cams, grad_cams, split
from invjax.attribution.cam import _resize, scale_map
from invjax.core.errors import BadArgument
from invjax.metrics import interpretability
from invjax.models import ViT, ViTConfig, as_logits, vit_config
from invjax.models.params_file import weights_of, with_weights

SMALL = ViTConfig(patch=4, image=(8, 12), width=12, depth=2, heads=3, hidden=16)
IMAGES = np.random.default_rng(0).uniform(size=(4, 8, 12, 3)).astype(np.float32)
DOCS = Path(__file__).parent.parent.parent / "docs"
# Each way to pool, and each kind of token.
KINDS = {
    "token": SMALL,
    "mean": dataclasses.replace(SMALL, pool="mean", class_token=False, norm="pooled", representation=5),
    "both": dataclasses.replace(SMALL, pool="token_mean", registers=2, layer_scale=True, gelu="tanh"),
    "distilled": dataclasses.replace(SMALL, distilled=True),
}


def made(config: ViTConfig, classes: int = 4) -> ViT:
    """A network whose logits differ much from image to image; as it is drawn at first they hardly do."""
    net, rng = ViT(config, classes, rngs=nnx.Rngs(0)), np.random.default_rng(1)
    drawn = {name: 0.5 * rng.normal(size=value.shape) for name, value in weights_of(net).items()}
    return with_weights(net, {name: value + ("norm" in name) for name, value in drawn.items()})


@pytest.fixture(scope="module")
def net() -> ViT:
    return made(SMALL)


@pytest.mark.parametrize("kind", KINDS)
def test_the_halves_make_the_whole(kind):
    config, net = KINDS[kind], made(KINDS[kind])
    halves = jax.jit(lambda x: ((seen := net.features(x)), net.head(seen), net(x), net.activations(x)))
    (features, rest), through, logits, seen = halves(IMAGES)
    assert features.shape == (4, 2, 3, 12)
    assert rest.shape == (4, config.prefix + 6, 12)
    np.testing.assert_allclose(through, logits, rtol=1e-5, atol=1e-5)
    assert set(seen) == {"embedded", "block1", "block2", "pooled", "logits"}
    np.testing.assert_allclose(seen["logits"], logits, rtol=1e-6)
    assert seen["pooled"].shape == (4, config.pooled)
    assert np.ptp(logits, axis=0).min() > 1e-3  # it looks at the images


def test_attention_by_hand(net):
    y = np.random.default_rng(2).normal(size=(7, 12))
    block = net.block1
    q, k, v = np.split(y @ np.asarray(block.qkv.kernel[...], float) + np.asarray(block.qkv.bias[...], float), 3, 1)
    out = np.zeros((7, 12))
    for head in range(3):
        own = slice(4 * head, 4 * head + 4)
        scores = np.exp(q[:, own] @ k[:, own].T / 2)
        out[:, own] = scores / scores.sum(1, keepdims=True) @ v[:, own]
    wanted = out @ np.asarray(block.out.kernel[...], float) + np.asarray(block.out.bias[...], float)
    np.testing.assert_allclose(block.attend(jnp.asarray(y[None], jnp.float32))[0], wanted, rtol=0, atol=1e-5)


def test_patches_are_a_convolution(net):
    numbers = ("NHWC", "HWIO", "NHWC")
    kernel = net.patches.kernel[...]
    wanted = jax.lax.conv_general_dilated(IMAGES, kernel, (4, 4), "VALID", dimension_numbers=numbers)
    np.testing.assert_allclose(net.patches(IMAGES), wanted.reshape(4, 6, 12) + net.patches.bias[...], atol=1e-5)
    loop = jax.jit(lambda m, x: jax.lax.fori_loop(0, 2, lambda _, x: x + jax.grad(lambda x: m(x).sum())(x), x))
    assert "convolution" not in loop.lower(as_logits(net), IMAGES).as_text()


def test_published_sizes():
    def count(config: ViTConfig, classes: int = 1000) -> int:
        shapes = weights_of(nnx.eval_shape(lambda: ViT(config, classes, rngs=nnx.Rngs(0))))
        return sum(int(np.prod(value.shape)) for value in shapes.values())

    # Others count a position of the class token, which is a part of that token here, and DINOv2 a token that masks.
    assert count(ViTConfig()) == 86_567_656 - 768  # torchvision's vit_b_16
    assert vit_config("b", 16) == ViTConfig()
    assert count(vit_config("s", 14, image=(518, 518), layer_scale=True), 0) == 22_056_576 - 2 * 384
    assert [vit_config(size).heads for size in ("ti", "s", "l")] == [3, 6, 16]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"patch": 5}, r"image must be a height and a width that the patches of 5 pixels divide, was \(8, 12\)"),
        ({"image": 8}, "ViTConfig.image must be a height and a width"),
        ({"image": (8, 0)}, "ViTConfig.image must be a height and a width"),
        ({"heads": 5}, "ViTConfig.heads must divide the width, 12, was 5"),
        ({"depth": 0}, "ViTConfig.depth must be a whole number >= 1, was 0"),
        ({"registers": -1}, "ViTConfig.registers must be a whole number >= 0, was -1"),
        ({"pool": "max"}, "ViTConfig.pool must be one of"),
        ({"epsilon": 0.0}, "ViTConfig.epsilon must be a number > 0"),
        ({"class_token": False}, "ViTConfig.class_token must be True for pool='token', was False"),
        ({"class_token": False, "pool": "mean", "distilled": True}, "must be True for a second head, was False"),
    ],
)  # fmt: skip
def test_what_cannot_be_built(fields, message):
    with pytest.raises(BadArgument, match=message):
        dataclasses.replace(SMALL, **fields)


def test_every_field_is_in_the_glossary():
    page = (DOCS / "glossary.md").read_text("utf-8").partition("## The sizes of a vision transformer")[2]
    rows = re.findall(r"^\| `(\w+)` \| .+ \|$", page, re.MULTILINE)
    assert rows == [field.name for field in dataclasses.fields(ViTConfig)]


# Maps


def test_grad_cam_on_the_grid_of_patches(net):
    maps = grad_cams(as_logits(net), IMAGES, [0, 1, 2, 3])
    assert maps.shape == (4, 8, 12)
    features, rest = net.features(IMAGES)
    slope = jax.jit(jax.grad(lambda a: jnp.trace(net.head((a, rest)))))(features)  # image i for class i
    plane = np.maximum((slope.mean((1, 2), keepdims=True) * features).sum(-1), 0)
    assert (plane.max((1, 2)) > 0).sum() >= 2
    wanted = [scale_map(_resize(scale_map(one), (8, 12))) for one in plane]
    np.testing.assert_allclose(maps, wanted, rtol=0, atol=1e-5)
    np.testing.assert_array_equal(grad_cams(as_logits(net), IMAGES[1:2], [1])[0], maps[1])
    with pytest.raises(BadArgument, match="global average pooling"):
        cams(as_logits(net), IMAGES, [0, 1, 2, 3])


def test_normalisation_is_a_part_of_the_halves(net):
    model = as_logits(net, mean=0.5, std=0.25)
    halves = split(model)
    np.testing.assert_allclose(halves(IMAGES), model(IMAGES), rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(halves(IMAGES), net((IMAGES - 0.5) / 0.25), rtol=1e-4, atol=1e-4)


# Attacks


def test_an_attack_alone_in_the_queue_and_inside_jit():
    model = as_logits(made(dataclasses.replace(SMALL, depth=1)), mean=0.5, std=0.1)
    target, label = np.argsort(model(IMAGES), -1)[:, -2:].T
    attack = GSE(steps=10)
    queued = invjax.solve(model, IMAGES, label, target=target, method=attack, lanes=2)
    for i in range(4):
        one = slice(i, i + 1)
        alone = invjax.solve(model, IMAGES[one], label[one], target=target[one], method=attack, lanes=2)
        np.testing.assert_allclose(alone.x[0], queued.x[i], rtol=0, atol=1e-6)
        assert alone.status[0] == queued.status[i]
    traced = jax.jit(lambda m, x, l, t: invjax.solve(m, x, l, target=t, method=attack).x)
    np.testing.assert_allclose(traced(model, IMAGES, label, target), queued.x, rtol=0, atol=2e-5)
    assert queued.found.any()
    curve = interpretability(model, IMAGES, label, queued.delta, queued.status, target)
    assert np.all((curve.mean > 0) & (curve.mean <= 1))
    assert curve.counted == queued.found.sum()
