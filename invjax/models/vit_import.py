"""The weights of a ViT from the files of torchvision, timm, DINOv2, Hugging Face and Google, without those libraries.

The same architecture has other names in each, and code that differs where the weights do not tell: the form of gelu,
the number added to the variance, the interpolation of position embeddings, the normalisation of the images. So the keys
of a file say where it comes from, and the source says the rest (:data:`SOURCES`). :mod:`invjax.models.vit_names` holds
the names.
"""

from __future__ import annotations

import dataclasses
import json
import math
import os
import re
from collections.abc import Mapping
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
from flax import nnx

from invjax.core.arguments import kinds_checked
from invjax.core.errors import BadArgument, Words, check_choice, check_whole, of_shape
from invjax.models.params_file import INPUT, weights_of, with_weights
from invjax.models.torch_import import fill_from_torch, num_outputs, read_state
from invjax.models.vit import SIZES, ViT, ViTConfig
from invjax.models.vit_names import Names, names_of, plain_google, table_of
from invjax.models.vit_positions import Resize, resize_positions, sine_positions, square

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))  # mean and deviation of images in [0, 1]
HALF = (0.5, 0.5)
ViTName = Literal[
    "vit", "vit_ti_8", "vit_ti_14", "vit_ti_16", "vit_ti_32", "vit_s_8", "vit_s_14", "vit_s_16", "vit_s_32",
    "vit_b_8", "vit_b_14", "vit_b_16", "vit_b_32", "vit_l_8", "vit_l_14", "vit_l_16", "vit_l_32",
]  # fmt: skip
VIT_NAMES = get_args(ViTName)
CONFIG = "input.config"  # the configuration in a file of our own
DEFAULT = (224, 224)  # pixels, of weights with fixed positions
HEAD = 64  # features per head in every published size


class Source(NamedTuple):
    """What the code of a library does that the weights do not tell."""

    title: str
    resize: Resize  # how it brings positions to another grid
    statistics: tuple[Any, Any] = IMAGENET  # mean and deviation of the images it was trained on
    epsilon: float = 1e-6
    gelu: Literal["erf", "tanh"] = "erf"


OWN = Source("invjax", "bicubic_antialias", HALF)
SOURCES = {
    "torchvision": Source("torchvision", "bicubic_corners"),
    "timm": Source("timm", "bicubic_antialias", HALF),
    "timm_deit": Source("timm (DeiT, DeiT-III or DINOv2)", "bicubic_antialias"),
    "dinov2": Source("DINOv2", "bicubic_offset"),
    "dinov2_registers": Source("DINOv2 with registers", "bicubic_antialias"),
    "hf_vit": Source("Hugging Face (ViT)", "bicubic", HALF, 1e-12),
    "hf_deit": Source("Hugging Face (DeiT)", "bicubic", IMAGENET, 1e-12),
    "hf_dinov2": Source("Hugging Face (Dinov2)", "bicubic"),
    "hf_dinov2_registers": Source("Hugging Face (Dinov2WithRegisters)", "bicubic_antialias"),
    "google": Source("vit_jax or big_vision", "bilinear_corners", HALF, 1e-6, "tanh"),
}


@kinds_checked
def vit_from_weights(
    name: ViTName,
    weights: Mapping[str, np.ndarray] | str | os.PathLike[str],
    *,
    image: int | tuple[int, int] | None = None,
    heads: int | None = None,
) -> ViT:
    """A :class:`~invjax.models.ViT` with the weights of another library; torch and that library are not needed.

    The keys say which library wrote the file, and the tensors decide the sizes. What the tensors do not tell (gelu, the
    epsilon of the normalisations, how positions are resized) is taken from the library's code; ``net.config`` shows it.
    The network expects normalised images: give ``mean`` and ``std`` to ``as_logits``, or use :func:`load`, which does.

    Args:
      name: "vit" for any size, or "vit_b_16" and the like, which the weights must then have: Ti, S, B or L with patches
        of 8, 14, 16 or 32 pixels.
      weights: a state dict of arrays, or a file: torchvision, timm (ViT, DeiT, DeiT-III, DINOv2), the DINOv2 hub,
        Hugging Face (ViT, DeiT, Dinov2, with registers or without): ``.safetensors``, ``.pth``; vit_jax and big_vision:
        ``.npz``.
      image: height and width of the images, pixels (one number for both), to which the positions are resized as the
        library would. None takes the size that the weights were trained at.
      heads: of the attention, which torch weights do not tell. None takes one per 64 numbers of a token, as all
        published sizes have.

    A file without a classifier (DINOv2) gives a network without a head; :func:`with_classes` puts one on it.

    Raises:
      ValueError: the file cannot be read, holds no ViT or another size, or tensors are missing, left over or of other
        shapes; patches that do not divide the image.
    """
    return read_vit(name, weights, image=image, heads=heads)[0]


def read_vit(
    name: str, weights: Any, *, image: int | tuple[int, int] | None = None, heads: int | None = None
) -> tuple[ViT, Source]:
    """:func:`vit_from_weights`, and where the weights come from."""
    check_choice("name", name, VIT_NAMES)
    state = read_state(weights)
    if CONFIG in state:
        return _own(name, state, image)
    state = plain_google(state)
    names = names_of(state)
    source = SOURCES[names.source]
    state = {key: value for key, value in state.items() if not re.fullmatch(names.ignored, key)}
    config = _sizes(state, names, source)
    _check_size(name, config)
    config = dataclasses.replace(config, heads=_heads(state, names, config.width, heads))
    prefix, positions, grid = _tokens(state, names, config)
    config = dataclasses.replace(config, image=_image(image, positions, grid, config.patch))
    if positions is None:
        positions = sine_positions(config.grid, config.width)
    elif grid is not None:
        positions = resize_positions(positions, grid, config.grid, source.resize)
    classes = _classes(state, names)
    net = nnx.eval_shape(lambda: ViT(config, classes, rngs=nnx.Rngs(0)))
    used = {names.positions, *names.prefix}
    others = {"positions": positions} | ({} if prefix is None else {"prefix": prefix})
    rest = {key: value for key, value in state.items() if key not in used}
    return fill_from_torch(net, rest, table_of(net, names), others), source


def _own(name: str, state: Mapping[str, np.ndarray], image: Any) -> tuple[ViT, Source]:
    """A network that invjax saved, with the configuration beside the weights."""
    try:
        fields = json.loads(np.asarray(state[CONFIG], np.uint8).tobytes())
        config = ViTConfig(**{**fields, "image": tuple(fields["image"])})
    except (TypeError, KeyError, ValueError) as error:
        hint = str(error) if isinstance(error, BadArgument) else None
        raise BadArgument("weights", f"hold the configuration of a ViT under {CONFIG}", hint=hint) from error
    _check_size(name, config)
    arrays = {key: np.asarray(value) for key, value in state.items() if not key.startswith(INPUT)}
    if image is not None and "positions" in arrays:
        larger = dataclasses.replace(config, image=_image(image, None, None, config.patch))
        arrays["positions"] = resize_positions(arrays["positions"], config.grid, larger.grid, OWN.resize)
        config = larger
    head = arrays.get("classifier.kernel")
    net = nnx.eval_shape(lambda: ViT(config, 0 if head is None else head.shape[-1], rngs=nnx.Rngs(0)))
    statistics = (state.get("input.mean", 0.0), state.get("input.std", 1.0))
    return with_weights(net, arrays), OWN._replace(statistics=statistics)


def vit_arrays(net: ViT, mean: np.ndarray, std: np.ndarray) -> dict[str, np.ndarray]:
    """What a file of a trained network holds: weights in float16, statistics [C], and the configuration as JSON."""
    fields = json.dumps(dataclasses.asdict(net.config)).encode()
    arrays = {name: np.asarray(value, np.float16) for name, value in weights_of(net).items()}
    return {**arrays, "input.mean": mean, "input.std": std, CONFIG: np.frombuffer(fields, np.uint8)}


def _image(image: Any, positions: np.ndarray | None, grid: tuple[int, int] | None, patch: int) -> tuple[int, int]:
    """Height and width of the images: those that are given, else those of the square that the positions lie on."""
    if image is None:
        if positions is None:
            return DEFAULT
        if grid is None:
            was = Words(f"None for {positions.shape[1]} positions")
            raise BadArgument("image", "be given where the positions of the weights lie on no square", was)
        return grid[0] * patch, grid[1] * patch
    sides = tuple(image) if np.ndim(image) else (image, image)
    if len(sides) != 2 or any(check_whole("image", side) % patch for side in sides):
        raise BadArgument("image", f"be a height and a width that patches of {patch} pixels divide", image)
    if grid is None and positions is not None and math.prod(sides) != positions.shape[1] * patch**2:
        wanted = f"be the size that the {positions.shape[1]} positions were trained at, as they lie on no square"
        raise BadArgument("image", wanted, image)
    return int(sides[0]), int(sides[1])


def _sizes(state: Mapping[str, np.ndarray], names: Names, source: Source) -> ViTConfig:
    """The configuration that the tensors and the source tell, but for the size of the images and the heads."""
    google = names.source == "google"
    kernel, matrix = (".weight", 0) if not google else ("/kernel", -1)

    def outputs(layer: str, axes: int = 2) -> int:
        num_outputs(state, f"{layer}{kernel}", axes, "ViT")
        return state[f"{layer}{kernel}"].shape[matrix]

    width = outputs(names.patches, 4)
    embedding = state[f"{names.patches}{kernel}"].shape
    (rows, columns), channels = (embedding[:2], embedding[2]) if google else (embedding[2:], embedding[1])
    if rows != columns:
        raise BadArgument("weights", "have square patches", Words(f"patches of {rows} × {columns}"))
    first, head = names.block.format(0), f"{names.head}{kernel}"
    numbers = re.compile(re.escape(names.block).replace(r"\{\}", r"(\d+)"))
    depth = 1 + max(int(found[1]) for key in state if (found := numbers.match(key)))
    class_token = bool(names.prefix) and names.prefix[0].endswith(("cls_token", "class_token", "cls"))
    distilled = f"{names.second_head}{kernel}" in state
    count = sum(_token(state, name, width).shape[1] for name in names.prefix)
    seen = state[head].shape[-1 if not google else 0] if head in state and not names.representation else width
    if seen not in (width, 2 * width):
        hint = "of DINOv2's linear heads the one of one layer fits, which sees two tokens"
        raise BadArgument("weights", f"have a head of {width} or {2 * width} inputs", seen, hint=hint)
    pooled = names.norm.endswith("fc_norm")
    return ViTConfig(
        patch=rows,
        image=(rows, rows),
        channels=channels,
        width=width,
        depth=depth,
        heads=1,
        hidden=outputs(f"{first}{names.fc1}"),
        pool="token_mean" if seen == 2 * width else "mean" if pooled or not class_token else "token",
        class_token=class_token,
        distilled=distilled,
        registers=count - class_token - distilled,
        layer_scale=f"{first}{names.scale1}" in state,
        norm="pooled" if pooled else "tokens",
        representation=outputs(names.representation) if names.representation else 0,
        epsilon=source.epsilon,
        gelu=source.gelu,
    )


def _heads(state: Mapping[str, np.ndarray], names: Names, width: int, heads: int | None) -> int:
    told = state.get(f"{names.block.format(0)}{names.qkv[0]}/kernel")
    if told is not None and told.ndim == 3:
        if heads not in (None, told.shape[1]):
            raise BadArgument("heads", f"be that of the weights, {told.shape[1]}", heads)
        return told.shape[1]
    if heads is None and width % HEAD:
        hint = f"a token has {width} numbers, and torch weights do not tell how many heads share them"
        raise BadArgument("heads", "be given for this file", None, hint=hint)
    return width // HEAD if heads is None else check_whole("heads", heads)


def _tokens(
    state: Mapping[str, np.ndarray], names: Names, config: ViTConfig
) -> tuple[np.ndarray | None, np.ndarray | None, tuple[int, int] | None]:
    """Prefix tokens, positions of the patches, and their grid; None for what the file has not.

    Where the first prefix tokens have positions, these are added to them.
    """
    tokens = [_token(state, name, config.width) for name in names.prefix]
    prefix = np.concatenate(tokens, 1) if tokens else None
    if names.source == "google" and names.positions not in state:
        return prefix, None, None  # big_vision has fixed positions, too
    positions = _token(state, names.positions, config.width)
    # Registers have positions in some of timm's networks only, the other prefix tokens together or not at all.
    before = dict.fromkeys((0, config.prefix - config.registers, config.prefix, config.prefix and 1))
    count = positions.shape[1]
    own = next((n for n in before if square(count - n)), min(config.prefix, 1))
    if own and prefix is not None:
        prefix = np.concatenate([prefix[:, :own] + positions[:, :own], prefix[:, own:]], 1)
    return prefix, positions[:, own:], square(count - own)


def _token(state: Mapping[str, np.ndarray], name: str, width: int) -> np.ndarray:
    """Tokens or positions of a file, [1, T, D] float32."""
    if name not in state:
        raise BadArgument("weights", f"hold {name}", Words("a file without it"))
    value = state[name]
    if value.ndim != 3 or value.shape[0] != 1 or value.shape[2] != width:
        raise BadArgument("weights", f"have {name} of shape (1, T, {width})", of_shape(value.shape))
    return value.astype(np.float32)


def _classes(state: Mapping[str, np.ndarray], names: Names) -> int:
    google = names.source == "google"
    head = state.get(f"{names.head}{'/kernel' if google else '.weight'}")
    return 0 if head is None else head.shape[-1 if google else 0]


def _check_size(name: str, config: ViTConfig) -> None:
    """Raise BadArgument unless the weights are of the size that was asked for."""
    if name == "vit":
        return
    _, size, patch = name.split("_")
    width, depth, _ = SIZES[size]
    if (config.width, config.depth, config.patch) != (width, depth, int(patch)):
        was = f"those of a ViT of width {config.width} and depth {config.depth}, patches of {config.patch}"
        wanted = f"be those of {name}: width {width}, depth {depth}, patches of {patch} pixels"
        raise BadArgument("weights", wanted, Words(was), hint="'vit' takes any size")
