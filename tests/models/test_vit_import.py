"""Weights of ViTs from every library that writes them, against what that library's own code computes with them."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from invjax.core.errors import BadArgument
from invjax.models import ViT, as_logits, load, load_state_dict, resnet_from_torch, vit_from_weights, with_classes
from invjax.models.params_file import save_arrays
from invjax.models.registry import VITS
from invjax.models.torch_import import read_state
from invjax.models.vit_import import SOURCES, VIT_NAMES, vit_arrays
from invjax.models.vit_names import names_of, plain_google
from invjax.models.vit_positions import resize_matrix

FIXTURES = Path(__file__).parent.parent / "fixtures" / "vit"
RECORDED = ("torch.npz", "google.npz")
FILES = {path.stem: path for path in sorted(FIXTURES.iterdir()) if path.name not in RECORDED}
TOLERANCE = 1e-5  # relative to the largest number
HEADS = 2
DIFFERENTIATED = ("torchvision", "timm_deit", "dinov2_registers", "vit_jax_gap")  # one of each form of network
FIXED = {"big_vision_scan": 20}  # its positions are sines, so the file does not tell the size of the images


@pytest.fixture(scope="module")
def recorded() -> dict[str, np.ndarray]:
    out: dict[str, np.ndarray] = {}
    for name in RECORDED:
        with np.load(FIXTURES / name) as archive:
            out |= {f"google.{key}" if name == "google.npz" and key[0] == "x" else key: archive[key] for key in archive}
    return out


def images(recorded: dict[str, np.ndarray], name: str) -> tuple[np.ndarray, np.ndarray]:
    """Images of the size of the weights, and of the other one."""
    if recorded[f"{name}.logits"].dtype == np.float32:
        return recorded["google.x20"], recorded["google.x28"]
    return recorded["x"], recorded["x_square" if name == "torchvision" else "x_other"]


def close(ours: Any, theirs: np.ndarray) -> None:
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=TOLERANCE * np.abs(theirs).max())


@jax.jit
def everything(model: Any, x: Any) -> Any:
    weights = jnp.arange(5) - 1.5
    (_, logits), gradient = jax.value_and_grad(lambda x: (jnp.sum((z := model(x)) * weights), z), has_aux=True)(x)
    return logits, gradient


def test_every_source_has_a_file():
    assert VITS == VIT_NAMES
    assert {names_of(plain_google(read_state(path))).source for path in FILES.values()} == set(SOURCES)
    assert sum(path.stat().st_size for path in FIXTURES.iterdir()) < 500_000


@pytest.mark.parametrize("name", FILES)
def test_logits_and_gradient_are_those_of_the_library(name, recorded):
    if FILES[name].suffix == ".safetensors":
        pytest.importorskip("safetensors")
    x, other = images(recorded, name)
    net = vit_from_weights("vit", FILES[name], heads=HEADS, image=FIXED.get(name))
    close(net(x), recorded[f"{name}.logits"])
    if name in DIFFERENTIATED:
        logits, gradient = everything(as_logits(net), x)
        close(logits, recorded[f"{name}.logits"])
        close(gradient[:1], recorded[f"{name}.gradient"])
    # Positions on another grid, with more rows and (but for squares) fewer columns.
    resized = vit_from_weights("vit", FILES[name], heads=HEADS, image=other.shape[1:3])
    close(resized(other), recorded[f"{name}.other"])


@pytest.mark.parametrize(("name", "changed"), [("hf_vit", "epsilon"), ("google", "gelu"), ("timm_vit", "gelu")])
def test_another_convention_would_be_noticed(name, changed, recorded):
    file = {"google": "vit_jax"}.get(name, name)
    net, other = vit_from_weights("vit", FILES[file], heads=HEADS), {"epsilon": 1e-4, "gelu": "tanh"}[changed]
    value = "erf" if name == "google" else other
    wrong = ViT(dataclasses.replace(net.config, **{changed: value}), 5, rngs=nnx.Rngs(0))
    nnx.update(wrong, nnx.state(net))
    with pytest.raises(AssertionError):
        close(wrong(images(recorded, file)[0]), recorded[f"{file}.logits"])


def test_each_way_of_resizing_is_another():
    kinds = {source.resize for source in SOURCES.values()}
    matrices = [resize_matrix(5, 8, kind) for kind in sorted(kinds)]
    assert len(kinds) == 5
    for i, one in enumerate(matrices):
        np.testing.assert_allclose(one.sum(1), 1, atol=1e-12)
        assert all(np.abs(one - other).max() > 1e-3 for other in matrices[i + 1 :])
    for kind in kinds - {"bicubic_offset"}:
        np.testing.assert_allclose(resize_matrix(6, 6, kind), np.eye(6), atol=1e-12)


def test_load_takes_the_statistics_of_the_source(recorded, tmp_path):
    x = recorded["x"]
    wide = tmp_path / "wide.npz"
    np.savez(wide, **_wide(load_state_dict(FILES["hf_vit"])))
    model = load("vit", wide, 5)  # heads are not asked for where there are 64 numbers for each
    inside = vit_from_weights("vit", wide)
    np.testing.assert_allclose(model(0.5 * x + 0.5), inside(x), rtol=1e-4, atol=1e-4)
    assert load("vit", wide, image=28)(np.zeros((1, 28, 28, 3), np.float32)).shape == (1, 5)
    with pytest.raises(BadArgument, match="num_classes must be that of the weights of vit, 5, was 10"):
        load("vit", wide, 10)
    with pytest.raises(BadArgument, match="heads must be given for this file"):
        load("vit", FILES["timm_vit"])


def _wide(state: dict[str, np.ndarray], width: int = 64) -> dict[str, np.ndarray]:
    """Random weights under the same keys, with 64 numbers per token instead of 8."""
    rng = np.random.default_rng(0)
    out = {}
    for key, value in state.items():
        shape = tuple({8: width, 24: 3 * width}.get(size, size) for size in value.shape)
        out[key] = (rng.normal(size=shape) * 0.1 + key.endswith("norm.weight")).astype(np.float32)
    return out


def test_names_in_the_memory_of_transformers_5(recorded):
    state = load_state_dict(FILES["hf_vit"])
    for old, new in (
        ("encoder.layer.", "layers."),
        ("attention.attention.query", "attention.q_proj"),
        ("attention.attention.key", "attention.k_proj"),
        ("attention.attention.value", "attention.v_proj"),
        ("attention.output.dense", "attention.o_proj"),
        ("intermediate.dense", "mlp.fc1"),
        ("output.dense", "mlp.fc2"),
    ):
        state = {key.replace(old, new): value for key, value in state.items()}
    assert "vit.layers.1.mlp.fc2.weight" in state
    close(vit_from_weights("vit", state, heads=HEADS)(recorded["x"]), recorded["hf_vit.logits"])


def test_a_body_without_a_head(recorded, tmp_path):
    state = load_state_dict(FILES["dinov2"])
    body = {key.removeprefix("backbone."): value for key, value in state.items() if key.startswith("backbone.")}
    net = vit_from_weights("vit", body, heads=HEADS)
    assert net.classifier is None
    with pytest.raises(BadArgument, match="ViT must have a head to give logits, was one without; with_classes"):
        net(recorded["x"])
    assert with_classes(net, 4, rngs=nnx.Rngs(0))(recorded["x"]).shape == (2, 4)
    np.savez(tmp_path / "body.npz", **_wide(body))
    with pytest.raises(BadArgument, match="weights must hold a classifier, was the body of a network alone"):
        load("vit", tmp_path / "body.npz")
    # The hub has body and linear head as two files, which a dictionary joins.
    joined = body | {key: value for key, value in state.items() if key.startswith("linear_head.")}
    close(vit_from_weights("vit", joined, heads=HEADS)(recorded["x"]), recorded["dinov2.logits"])
    distilled = with_classes(vit_from_weights("vit", FILES["timm_deit"], heads=HEADS), 3, rngs=nnx.Rngs(0))
    assert distilled(recorded["x"]).shape == (2, 3)


def test_a_file_of_our_own(recorded, tmp_path):
    net = vit_from_weights("vit", FILES["timm_deit"], heads=HEADS)
    save_arrays(tmp_path / "own.npz", vit_arrays(net, np.full(3, 0.25, np.float32), np.full(3, 0.5, np.float32)))
    again = vit_from_weights("vit", tmp_path / "own.npz")
    assert again.config == net.config  # with its heads
    np.testing.assert_allclose(again(recorded["x"]), net(recorded["x"]), rtol=0, atol=0.03)  # in float16
    model = load("vit", tmp_path / "own.npz", image=(28, 16))
    x = recorded["x_other"]
    other = vit_from_weights("vit", FILES["timm_deit"], heads=HEADS, image=(28, 16))
    np.testing.assert_allclose(model(0.5 * x + 0.25), other(x), rtol=0, atol=0.03)
    np.savez(tmp_path / "odd.npz", **{"input.config": np.zeros(3, np.uint8)})
    with pytest.raises(BadArgument, match=r"weights must hold the configuration of a ViT under input\.config"):
        load("vit", tmp_path / "odd.npz")


# What does not fit


def without(name: str, key: str) -> dict[str, np.ndarray]:
    state = load_state_dict(FILES[name])
    del state[key]
    return state


def changed(name: str, **arrays: np.ndarray) -> dict[str, np.ndarray]:
    state = load_state_dict(FILES[name])
    assert set(arrays) <= set(state)
    return state | arrays


Z = np.zeros
QUERY = "vit.encoder.layer.{}.attention.attention.query.weight"
DENSE = "Transformer/encoderblock_1/MlpBlock_3/Dense_0/kernel"
BAD: dict[str, tuple[Any, str]] = {
    "another network": (lambda: FIXTURES.parent / "resnet20_width4.pth", "must be those of a vision transformer"),
    "a missing key": (
        lambda: without("timm_vit", "blocks.1.norm2.bias"), r"missing: \['blocks.1.norm2.bias'\], unknown: \[\]"),
    "a missing query": (lambda: without("hf_vit", QUERY.format(1)), rf"missing: \['{QUERY.format(1)}'\]"),
    "a key left over": (
        lambda: changed("timm_vit") | {"blocks.0.attn.q_norm.weight": Z(4)},
        r"unknown: \['blocks.0.attn.q_norm.weight'\]",
    ),
    "no positions": (lambda: without("timm_vit", "pos_embed"), "weights must hold pos_embed, was a file without it"),
    "no class token": (lambda: without("torchvision", "class_token"), "must hold class_token, was a file without it"),
    "no patches": (lambda: without("torchvision", "conv_proj.weight"), "must hold conv_proj.weight with 4 axes"),
    "another shape": (lambda: changed("vit_jax", **{DENSE: Z((8, 13))}), rf"{DENSE} must be \(8, 12\), was \(8, 13\)"),
    "another query": (lambda: changed("hf_vit", **{QUERY.format(0): Z((8, 9))}), r"must be \(8, 8\), was \(8, 9\)"),
    "flat positions": (lambda: changed("timm_vit", pos_embed=Z((26, 8))), r"pos_embed of shape \(1, T, 8\), was of"),
    "long patches": (
        lambda: changed("timm_vit", **{"patch_embed.proj.weight": Z((8, 3, 4, 5))}), "must have square patches, was"),
    "five tokens at the head": (
        lambda: changed("timm_vit", **{"head.weight": Z((5, 40))}), "have a head of 8 or 16 inputs, was 40"),
    "attention pooling": (
        lambda: changed("big_vision") | {"params/MAPHead_0/probe": Z((1, 1, 8))}, "of a ViT without attention pooling"),
    "a gated layer": (
        lambda: {key.replace("mlp.fc1", "mlp.w12"): value for key, value in changed("dinov2").items()},
        r"must hold backbone.blocks.0.mlp.fc1.weight with 2 axes",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_weights_that_do_not_fit(case):
    pytest.importorskip("safetensors")
    make, message = BAD[case]
    with pytest.raises(BadArgument, match=message) as error:
        vit_from_weights("vit", make(), heads=HEADS)
    assert len(str(error.value)) < 500
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "vit_b_16"}, "weights must be those of vit_b_16: width 768, depth 12, patches of 16 pixels, was"),
        ({"name": "vit_s_16", "heads": None}, "weights must be those of vit_s_16"),
        ({"name": "vit_b_17"}, "name must be one of"),
        ({"image": 30}, "image must be a height and a width that patches of 4 pixels divide, was 30"),
        ({"image": (28, 28, 3)}, "image must be a height and a width"),
        ({"image": (28, 0)}, "image must be a whole number >= 1, was 0"),
        ({"heads": 3}, "ViTConfig.heads must divide the width, 8, was 3"),
        ({"heads": 0}, "heads must be a whole number >= 1, was 0"),
    ],
)  # fmt: skip
def test_arguments_that_do_not_fit(arguments, message):
    with pytest.raises(BadArgument, match=message):
        vit_from_weights(**{"name": "vit", "weights": FILES["torchvision"], "heads": HEADS, **arguments})


def test_other_loaders_and_the_size_of_images(recorded, tmp_path):
    with pytest.raises(BadArgument, match="image must be left out with 'resnet18', which has no positions"):
        load("resnet18", "resnet18.pth", image=96)
    with pytest.raises(ValueError, match=r"must hold fc.weight with 2 axes, as a resnet18 does"):
        resnet_from_torch("resnet18", FILES["torchvision"])
    with pytest.raises(BadArgument, match=r"path must be a complete file of torch.save"):
        load("vit", _cut(FILES["torchvision"], tmp_path))
    model = as_logits(vit_from_weights("vit", FILES["torchvision"], heads=HEADS))
    with pytest.raises(BadArgument, match=r"x must be images \[B, 20, 20, 3\], was of shape .*image=.* resizes"):
        model(recorded["x_other"])


def _cut(path: Path, folder: Path) -> Path:
    short = folder / path.name
    short.write_bytes(path.read_bytes()[:9_000])
    return short
