"""The names that the libraries give the weights of a ViT, and which library a file comes from.

torchvision    encoder.layers.encoder_layer_0.ln_1.weight            queries, keys and values in one matrix
timm, DINOv2   blocks.0.norm1.weight                                 the same
Hugging Face   vit.encoder.layer.0.layernorm_before.weight           three matrices
Google         Transformer/encoderblock_0/LayerNorm_0/scale          three [D, heads, D / heads], inputs first
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from invjax.core.errors import BadArgument, Words
from invjax.models.torch_import import Entry, Table, conv, layer_norm, linear
from invjax.models.vit import ViT


class Names(NamedTuple):
    """The names of one file. Those of layers are followed by "weight" and "bias", those of a block follow ``block``."""

    source: str  # of vit_import.SOURCES
    patches: str
    positions: str
    prefix: tuple[str, ...]  # class token, distillation token, registers, as far as the file has them
    norm: str
    head: str
    second_head: str
    block: str  # with {} for the number
    norm1: str
    qkv: tuple[str, ...]
    out: str
    norm2: str
    fc1: str
    fc2: str
    scale1: str = ""
    scale2: str = ""
    ignored: str = r"(?!)"  # a pattern of keys that evaluation does not need
    representation: str = ""


def names_of(state: Mapping[str, np.ndarray]) -> Names:
    """The names in a file, by its keys. Raises BadArgument where it holds no ViT that is known here."""
    first = {key for key in state if re.search(r"(?<![0-9])0[./]|encoderblock/", key)}  # of the first block
    if any(key.startswith("encoder.layers.encoder_layer_0.") for key in state):
        return _torchvision(state)
    if any(re.match(r"(backbone\.)?blocks\.0\.", key) for key in first):
        return _timm(state)
    if any(re.search(r"(^|\.)(encoder\.layer|layers)\.0\.attention\.", key) for key in first):
        return _hugging_face(state)
    if "embedding/kernel" in state and any(key.startswith("Transformer/encoderblock_0/") for key in state):
        return google_names(state)
    keys = sorted(state)[:4]
    wanted = "be those of a vision transformer of torchvision, timm, DINOv2, Hugging Face, vit_jax or big_vision"
    raise BadArgument("weights", wanted, Words(f"a file with other keys: {', '.join(keys)} …"))


def _present(state: Mapping[str, np.ndarray], *names: str) -> tuple[str, ...]:
    return tuple(name for name in names if name in state)


def _torchvision(state: Mapping[str, np.ndarray]) -> Names:
    block = "encoder.layers.encoder_layer_{}."
    old = f"{block.format(0)}mlp.linear_1.weight" in state  # before torchvision 0.12
    fc1, fc2 = ("mlp.linear_1", "mlp.linear_2") if old else ("mlp.0", "mlp.3")
    return Names(
        "torchvision", "conv_proj", "encoder.pos_embedding", ("class_token",), "encoder.ln", "heads.head", "",
        block, "ln_1", ("self_attention.in_proj_",), "self_attention.out_proj", "ln_2", fc1, fc2,
        representation="heads.pre_logits" if "heads.pre_logits.weight" in state else "",
    )  # fmt: skip


def _timm(state: Mapping[str, np.ndarray]) -> Names:
    hub = any(key.endswith(("mask_token", "register_tokens")) for key in state)
    at = "backbone." if any(key.startswith("backbone.") for key in state) else ""
    scaled, old_scale = (any(key.startswith(f"{at}blocks.0.{s}") for key in state) for s in ("ls1.", "gamma_1"))
    prefix = _present(state, *(f"{at}{n}" for n in ("cls_token", "dist_token", "reg_token", "register_tokens")))
    registers = f"{at}register_tokens" in prefix
    plain = "timm_deit" if scaled or old_scale or f"{at}dist_token" in prefix else "timm"
    norm = "fc_norm" if "fc_norm.weight" in state else f"{at}norm"
    return Names(
        ("dinov2_registers" if registers else "dinov2") if hub else plain,
        f"{at}patch_embed.proj", f"{at}pos_embed", prefix, norm, "linear_head" if hub else "head", "head_dist",
        f"{at}blocks.{{}}.", "norm1", ("attn.qkv",), "attn.proj", "norm2", "mlp.fc1", "mlp.fc2",
        "gamma_1" if old_scale else "ls1.gamma", "gamma_2" if old_scale else "ls2.gamma", r".*mask_token",
    )  # fmt: skip


def _hugging_face(state: Mapping[str, np.ndarray]) -> Names:
    found = next(key for key in state if re.search(r"(^|\.)(encoder\.layer|layers)\.0\.attention\.", key))
    at = re.sub(r"(encoder\.layer|layers)\.0\..*", "", found)  # "vit.", or nothing where only the body was saved
    block = f"{at}{'layers' if f'{at}layers.0.' in found else 'encoder.layer'}.{{}}."
    first = block.format(0)
    packed = f"{first}attention.q_proj.weight" in state  # the names that transformers 5 has in memory
    qkv = ("q_proj", "k_proj", "v_proj") if packed else ("attention.query", "attention.key", "attention.value")
    dino = f"{first}norm1.weight" in state
    plain_mlp = f"{first}intermediate.dense.weight" in state
    embeddings = f"{at}embeddings."
    tokens = ("cls_token", "distillation_token", "register_tokens")
    prefix = _present(state, *(f"{embeddings}{name}" for name in tokens))
    deit, registers = f"{embeddings}distillation_token" in prefix, f"{embeddings}register_tokens" in prefix
    source = "hf_dinov2_registers" if registers else "hf_dinov2" if dino else "hf_deit" if deit else "hf_vit"
    second = "distillation_classifier" if "distillation_classifier.weight" in state else ""
    return Names(
        source, f"{embeddings}patch_embeddings.projection", f"{embeddings}position_embeddings", prefix,
        f"{at}layernorm", "cls_classifier" if second else "classifier", second,
        block, "norm1" if dino else "layernorm_before", tuple(f"attention.{name}" for name in qkv),
        "attention.o_proj" if packed else "attention.output.dense", "norm2" if dino else "layernorm_after",
        "intermediate.dense" if plain_mlp else "mlp.fc1", "output.dense" if plain_mlp else "mlp.fc2",
        "layer_scale1.lambda1", "layer_scale2.lambda1", rf"{re.escape(at)}(pooler\.|embeddings\.mask_token).*",
    )  # fmt: skip


def plain_google(state: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The weights of an npz of vit_jax or big_vision alone, one entry per block, as numbers that NumPy knows.

    Their training writes the state of the optimiser beside them, big_vision stacks the blocks on a first axis, and
    NumPy loses the name of bfloat16.
    """
    inside = next((key for key in state if key.endswith("embedding/kernel") and "/pos" not in key), None)
    if inside is None:
        return dict(state)
    at = inside.removesuffix("embedding/kernel")
    out: dict[str, np.ndarray] = {}
    for key, value in state.items():
        if not key.startswith(at):
            continue
        name, value = key[len(at) :], value.view(jnp.bfloat16) if value.dtype == "V2" else value
        before, stacked, after = name.partition("encoderblock/")
        if stacked:
            out |= {f"{before}encoderblock_{i}/{after}": layer for i, layer in enumerate(value)}
        else:
            out[name] = value
    return out


def google_names(state: Mapping[str, np.ndarray]) -> Names:
    """The names of vit_jax, of big_vision, and of what was between them."""
    if any(key.startswith("MAPHead_0/") or key == "probe" for key in state):
        hint = "invjax has ViTs whose head sees the class token, the mean of the patches, or both"
        raise BadArgument("weights", "be those of a ViT without attention pooling", hint=hint)
    places = ("Transformer/posembed_input/pos_embedding", "Transformer/pos_embedding", "pos_embedding")
    positions = next((name for name in places if name in state), "pos_embedding")
    block = "Transformer/encoderblock_{}/"
    old = f"{block.format(0)}LayerNorm_2/scale" in state
    attention = f"MultiHeadDotProductAttention_{int(old)}"
    mlp = "MlpBlock_3" if old else "MlpBlock_0"
    return Names(
        "google", "embedding", positions, _present(state, "cls"), "Transformer/encoder_norm", "head", "",
        block, "LayerNorm_0", tuple(f"{attention}/{name}" for name in ("query", "key", "value")),
        f"{attention}/out", "LayerNorm_2" if old else "LayerNorm_1", f"{mlp}/Dense_0", f"{mlp}/Dense_1",
        representation="pre_logits" if "pre_logits/kernel" in state else "",
    )  # fmt: skip


def table_of(net: ViT, names: Names) -> Table:
    """Where each tensor of a file goes, but for tokens and positions."""
    google = names.source == "google"
    dense, norm = (_dense, _scale) if google else (linear, layer_norm)
    table = {"embedding/kernel": Entry("patches.kernel"), "embedding/bias": Entry("patches.bias")} if google else {}
    table = table or conv(names.patches, "patches", bias=True)
    table |= norm(names.norm, "norm")
    heads = ((names.head, "classifier"), (names.second_head, "classifier_distilled"))
    for theirs, ours in (*heads, (names.representation, "representation")):
        if getattr(net, ours) is not None:
            table |= dense(theirs, ours)
    width, heads_ = net.config.width, net.config.heads
    for i in range(net.config.depth):
        theirs, ours = names.block.format(i), f"block{i + 1}"
        for name in ("norm1", "norm2"):
            table |= norm(f"{theirs}{getattr(names, name)}", f"{ours}.{name}")
        for name in ("fc1", "fc2"):
            table |= dense(f"{theirs}{getattr(names, name)}", f"{ours}.{name}")
        if google:
            split = (heads_, width // heads_)
            for part, name in enumerate(names.qkv):
                table[f"{theirs}{name}/kernel"] = Entry(f"{ours}.qkv.kernel", None, (part, 3), (width, *split))
                table[f"{theirs}{name}/bias"] = Entry(f"{ours}.qkv.bias", None, (part, 3), split)
            table[f"{theirs}{names.out}/kernel"] = Entry(f"{ours}.out.kernel", shape=(*split, width))
            table[f"{theirs}{names.out}/bias"] = Entry(f"{ours}.out.bias")
        else:
            for part, name in enumerate(names.qkv):
                joint = "" if name.endswith("_") else "."
                place = (part, len(names.qkv))
                table[f"{theirs}{name}{joint}weight"] = Entry(f"{ours}.qkv.kernel", (1, 0), place)
                table[f"{theirs}{name}{joint}bias"] = Entry(f"{ours}.qkv.bias", None, place)
            table |= linear(f"{theirs}{names.out}", f"{ours}.out")
        if net.config.layer_scale:
            for name in ("scale1", "scale2"):
                table[f"{theirs}{getattr(names, name)}"] = Entry(f"{ours}.{name}")
    return table


def _dense(theirs: str, ours: str) -> dict[str, Entry]:
    return {f"{theirs}/{name}": Entry(f"{ours}.{name}") for name in ("kernel", "bias")}


def _scale(theirs: str, ours: str) -> dict[str, Entry]:
    return {f"{theirs}/{name}": Entry(f"{ours}.{name}") for name in ("scale", "bias")}
