"""VGG: Simonyan and Zisserman, "Very Deep Convolutional Networks for Large-Scale Image Recognition" (2015), table 1.

3 × 3 convolutions with ReLU in stages that end in a 2 × 2 max-pooling, with batch normalisation or without. The form
of torchvision then has a pooling to 7 × 7 and three linear layers; that of pytorch-cifar has one.
"""

from __future__ import annotations

import functools
import os
import re
from collections.abc import Mapping
from typing import Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from invjax.core.arguments import kinds_checked
from invjax.core.errors import BadArgument, Words, check_choice
from invjax.core.nnx import module_repr
from invjax.models.blocks import ConvBN
from invjax.models.torch_import import Entry, batch_norm, conv, fill_from_torch, linear, read_state, statistics_of
from invjax.types import Array

BLOCKS = {"vgg11": (1, 1, 2, 2, 2), "vgg13": (2, 2, 2, 2, 2), "vgg16": (2, 2, 3, 3, 3), "vgg19": (2, 2, 4, 4, 4)}
WIDTHS = (64, 128, 256, 512, 512)
VGGName = Literal["vgg11", "vgg11_bn", "vgg13", "vgg13_bn", "vgg16", "vgg16_bn", "vgg19", "vgg19_bn"]
NAMES = get_args(VGGName)


class Plan(NamedTuple):
    """The architecture of a :class:`VGG`."""

    stages: tuple[tuple[int, ...], ...]  # channels of each convolution
    norm: bool = False  # batch normalisation after each convolution
    pooled: int = 7  # side of the plane that the linear layers see
    hidden: tuple[int, ...] = (4096, 4096)  # sizes of the linear layers before the last


def plan(name: VGGName = "vgg19") -> Plan:
    """The plan of torchvision's network of that name, with ``_bn`` or without."""
    check_choice("name", name, NAMES)
    counts = BLOCKS[name.removesuffix("_bn")]
    return Plan(tuple((w,) * n for w, n in zip(WIDTHS, counts, strict=True)), norm=name.endswith("_bn"))


class VGG(nnx.Module):
    """The classifier on normalised images, [B, H, W, 3] -> logits [B, K]; ``__call__ = head(features(x))``.

    H and W are free, at least 2 pixels per stage doubled (32 for five stages).

    Args:
      plan: of :func:`invjax.models.vgg.plan`.
      num_classes: K.
      rngs: random numbers for the initial weights.
    """

    def __init__(self, plan: Plan, num_classes: int = 1000, *, rngs: nnx.Rngs) -> None:
        self.plan = plan
        before = 3
        for stage, widths in enumerate(plan.stages):
            for i, after in enumerate(widths):
                # Numbered attributes: a list of modules is handled differently by the supported versions of flax.
                setattr(self, layer_name(stage, i), _layer(before, after, plan.norm, rngs))
                before = after
        sizes = (before * plan.pooled**2, *plan.hidden)
        for i, (inputs, outputs) in enumerate(zip(sizes, plan.hidden, strict=False)):
            setattr(self, f"linear{i + 1}", nnx.Linear(inputs, outputs, rngs=rngs))
        self.classifier = nnx.Linear(sizes[-1], num_classes, rngs=rngs)

    def features(self, x: Array) -> Array:
        """[B, H, W, 3] -> [B, h, w, F] after the last convolution, where Grad-CAM is read; >= 0."""
        for stage, widths in enumerate(self.plan.stages):
            x = _halved(x) if stage else x
            for i in range(len(widths)):
                x = jax.nn.relu(getattr(self, layer_name(stage, i))(x))
        return x

    def head(self, features: Array) -> Array:
        """[B, h, w, F] -> logits [B, K]: the last pooling and the linear layers."""
        side = self.plan.pooled
        y = _pooled(_halved(features), side)
        y = y.transpose(0, 3, 1, 2).reshape(len(y), -1)  # channels first, as the weights of torch have it
        for i in range(len(self.plan.hidden)):
            y = jax.nn.relu(getattr(self, f"linear{i + 1}")(y))
        return self.classifier(y)

    def __call__(self, x: Array) -> Array:
        return self.head(self.features(x))

    def __repr__(self) -> str:
        return module_repr(self, f"HxWx3 -> {self.classifier.out_features} classes")


def layer_name(stage: int, layer: int) -> str:
    """Attribute of a convolution, counted from 1 in the name and from 0 in the arguments."""
    return f"stage{stage + 1}_conv{layer + 1}"


class _BiasedConvBN(ConvBN):
    """A convolution with a bias before its normalisation, as torch's VGGs have it."""

    def __init__(self, before: int, after: int, *, rngs: nnx.Rngs) -> None:
        super().__init__(before, after, rngs=rngs)
        self.conv = _conv(before, after, rngs)


def _conv(before: int, after: int, rngs: nnx.Rngs) -> nnx.Conv:
    init = nnx.initializers.he_normal()
    return nnx.Conv(before, after, (3, 3), padding=((1, 1), (1, 1)), kernel_init=init, rngs=rngs)


def _layer(before: int, after: int, norm: bool, rngs: nnx.Rngs) -> nnx.Module:
    return _BiasedConvBN(before, after, rngs=rngs) if norm else _conv(before, after, rngs)


def _halved(x: Array) -> Array:
    """The largest of each 2 × 2 pixels; an odd last row or column is left out. Equal ones share the gradient."""
    rows, columns = (size // 2 * 2 for size in x.shape[1:3])
    corners = [x[:, i:rows:2, j:columns:2] for i in (0, 1) for j in (0, 1)]
    return functools.reduce(jnp.maximum, corners)


def _pooled(x: Array, side: int) -> Array:
    """Means over ``side × side`` windows that cover the plane: of n pixels window i has those from i n / side on."""
    for axis in (1, 2):
        size = x.shape[axis]
        if size != side:
            weights = np.zeros((side, size), np.float32)
            for i in range(side):
                first, last = i * size // side, -(-(i + 1) * size // side)
                weights[i, first:last] = 1 / (last - first)
            x = jnp.moveaxis(jnp.tensordot(x, jnp.asarray(weights, x.dtype), ((axis,), (1,))), -1, axis)
    return x


def torch_table(net: VGG, convolutions: list[int], linears: list[str]) -> dict[str, Entry]:
    """The keys ``features.N`` and ``classifier.N`` of a file; convolutions: N in order; linears: their full names."""
    table: dict[str, Entry] = {}
    places = iter(convolutions)
    for stage, widths in enumerate(net.plan.stages):
        for i in range(len(widths)):
            at, ours = next(places), layer_name(stage, i)
            table |= conv(f"features.{at}", f"{ours}.conv" if net.plan.norm else ours, bias=True)
            if net.plan.norm:
                table |= batch_norm(f"features.{at + 1}", f"{ours}.bn")
    for i, theirs in enumerate(linears):
        table |= linear(theirs, f"linear{i + 1}" if i < len(net.plan.hidden) else "classifier")
    return table


@kinds_checked
def vgg_from_torch(name: VGGName, weights: Mapping[str, np.ndarray] | str | os.PathLike[str]) -> VGG:
    """A :class:`VGG` with the weights of torchvision, or of the form for CIFAR with one linear layer.

    Args:
      name: "vgg11", "vgg13", "vgg16" or "vgg19", with "_bn" for those with batch normalisation.
      weights: a state dict of arrays, or the path of one (``.pth``, ``.safetensors``); torch is not needed. The tensors
        decide the widths and the number of classes.

    Raises:
      ValueError: unknown name; the file cannot be read, or holds another network.
    """
    check_choice("name", name, NAMES)
    state, _ = statistics_of(read_state(weights))
    layers = sorted(int(m[1]) for key in state if (m := re.fullmatch(r"features\.(\d+)\.weight", key)))
    convolutions = [i for i in layers if state[f"features.{i}.weight"].ndim == 4]
    linears = sorted((key for key in state if re.fullmatch(r"classifier(\.\d+)?\.weight", key)), key=_number)
    if not convolutions or not linears or any(state[key].ndim != 2 for key in linears):
        was = Words(f"a file with other keys: {', '.join(sorted(state)[:4])} …")
        raise BadArgument("state_dict", f"hold the weights of {name}", was)
    norm = f"features.{convolutions[0] + 1}.running_mean" in state
    apart = 3 if norm else 2  # from a convolution to the next; a pooling between them counts as one layer more
    stages: list[list[int]] = [[]]
    for last, at in zip([None, *convolutions], convolutions, strict=False):
        if last is not None and at - last > apart:
            stages.append([])
        stages[-1].append(state[f"features.{at}.weight"].shape[0])
    counts = tuple(map(len, stages))
    if counts != BLOCKS[name.removesuffix("_bn")] or norm != name.endswith("_bn"):
        found = f"{'+'.join(map(str, counts))} convolutions {'with' if norm else 'without'} normalisation"
        raise BadArgument("state_dict", f"hold the weights of {name}", Words(f"a network of {found}"))
    seen = state[linears[0]].shape[1] / stages[-1][-1]
    side = round(seen**0.5)
    if side**2 != seen:
        raise BadArgument("state_dict", "have a first linear layer over a square plane", state[linears[0]].shape[1])
    shape = Plan(tuple(map(tuple, stages)), norm, side, tuple(state[key].shape[0] for key in linears[:-1]))
    net = nnx.eval_shape(lambda: VGG(shape, state[linears[-1]].shape[0], rngs=nnx.Rngs(0)))
    return fill_from_torch(net, state, torch_table(net, convolutions, [key[: -len(".weight")] for key in linears]))


def _number(key: str) -> int:
    return int(key.split(".")[1]) if key.count(".") == 2 else 0
