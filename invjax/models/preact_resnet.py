"""Residual networks whose blocks normalise first, for 32 × 32 images: PreActResNet18 and WideResNet.

With β batch normalisation and σ the activation, a block is

    a = σ(β x),      y = W_2 σ(β W_1 a) + shortcut,      shortcut = x,  V a or V x where the shape changes          (1)

Sources: He et al., "Identity Mappings in Deep Residual Networks" (2016); Zagoruyko and Komodakis, "Wide Residual
Networks" (2016). Robust CIFAR checkpoints come in three forms, whose keys differ:

    pytorch-cifar, RobustBench   layer1.0.bn1        PreActResNet; a last normalisation, or none
    TRADES                       block1.layer.0.bn1  WideResNet
    DeepMind                     layer.0.block.0     WideResNet with SiLU and TensorFlow's padding

The weights of the first form do not tell whether its shortcuts see a or x; :func:`preact_resnet_from_torch` says what
it takes.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import NamedTuple

import jax
import numpy as np
from flax import nnx

from invjax.core.arguments import kinds_checked
from invjax.core.errors import BadArgument, Words
from invjax.models.blocks import ConvBN, PooledClassifier, block_name
from invjax.models.torch_import import (
    Entry,
    batch_norm,
    conv,
    conv_bn,
    fill_from_torch,
    linear,
    num_outputs,
    read_state,
    statistics_of,
)
from invjax.types import Array


class Shape(NamedTuple):
    """The architecture of a :class:`PreActResNet`."""

    blocks: tuple[int, ...]  # per stage
    widths: tuple[int, ...]  # channels per stage
    stem: int  # channels of the first convolution
    smooth: bool = False  # SiLU instead of ReLU
    same: bool = False  # TensorFlow's padding
    last_norm: bool = True  # β and σ before the head
    activated: bool = True  # shortcuts see a of (1), not x


CIFAR10 = ((0.4914, 0.4822, 0.4465), (0.2471, 0.2435, 0.2616))  # mean and deviation of images in [0, 1]
CIFAR100 = ((0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762))
PREACT_RESNET18 = Shape((2, 2, 2, 2), (64, 128, 256, 512), 64)


def wide_resnet(depth: int = 28, factor: int = 10, smooth: bool = False) -> Shape:
    """WRN-depth-factor: three stages of (depth - 4) / 6 blocks, of 16, 32 and 64 times ``factor`` channels."""
    if depth % 6 != 4 or depth < 10:
        raise BadArgument("depth", "be 10, 16, 22, 28, …", depth)
    return Shape(((depth - 4) // 6,) * 3, (16 * factor, 32 * factor, 64 * factor), 16, smooth, same=smooth)


class PreActBlock(nnx.Module):
    """Equation (1): [B, H, W, I] -> [B, ceil(H/stride), ceil(W/stride), O]."""

    def __init__(self, before: int, after: int, stride: int, shape: Shape, *, rngs: nnx.Rngs) -> None:
        self.smooth, self.activated = shape.smooth, shape.activated
        self.norm = _norm(before, rngs)
        self.conv1 = ConvBN(before, after, stride=stride, same=shape.same, rngs=rngs)
        self.conv2 = _conv(after, after, 3, 1, rngs)
        self.shortcut = _conv(before, after, 1, stride, rngs) if stride != 1 or before != after else None

    def __call__(self, x: Array) -> Array:
        a = _act(self.norm(x), self.smooth)
        y = self.conv2(_act(self.conv1(a), self.smooth))
        return y + (x if self.shortcut is None else self.shortcut(a if self.activated else x))


class PreActResNet(PooledClassifier):
    """The classifier on normalised images, [B, H, W, 3] -> logits [B, K]; ``__call__ = head(features(x))``.

    H and W are free; every stage but the first halves them. A new module is in training mode; ``as_logits`` works on a
    copy in evaluation mode.

    Args:
      shape: ``PREACT_RESNET18`` or ``wide_resnet(depth, factor)`` of :mod:`invjax.models.preact_resnet`.
      num_classes: K.
      rngs: random numbers for the initial weights.
    """

    def __init__(self, shape: Shape = PREACT_RESNET18, num_classes: int = 10, *, rngs: nnx.Rngs) -> None:
        self.shape = shape
        self.stem = _conv(3, shape.stem, 3, 1, rngs)
        before = shape.stem
        for stage, (count, after) in enumerate(zip(shape.blocks, shape.widths, strict=True)):
            for i in range(count):
                stride = 2 if stage and not i else 1
                # Numbered attributes: a list of modules is handled differently by the supported versions of flax.
                setattr(self, block_name(stage, i), PreActBlock(before, after, stride, shape, rngs=rngs))
                before = after
        self.norm = _norm(before, rngs) if shape.last_norm else None
        self.classifier = nnx.Linear(before, num_classes, rngs=rngs)

    def features(self, x: Array) -> Array:
        """[B, H, W, 3] -> [B, h, w, F] before the pooling, where class activation maps are read."""
        y = self.stem(x)
        for stage, count in enumerate(self.shape.blocks):
            for i in range(count):
                y = getattr(self, block_name(stage, i))(y)
        return y if self.norm is None else _act(self.norm(y), self.shape.smooth)


def _act(x: Array, smooth: bool) -> Array:
    return jax.nn.silu(x) if smooth else jax.nn.relu(x)


def _norm(features: int, rngs: nnx.Rngs) -> nnx.BatchNorm:
    return nnx.BatchNorm(features, epsilon=1e-5, momentum=0.9, rngs=rngs)


def _conv(before: int, after: int, kernel: int, stride: int, rngs: nnx.Rngs) -> nnx.Conv:
    pad = ((kernel // 2, kernel // 2),) * 2
    size, init = (kernel, kernel), nnx.initializers.he_normal()
    return nnx.Conv(
        before, after, size, strides=(stride, stride), padding=pad, use_bias=False, kernel_init=init, rngs=rngs
    )


class Form(NamedTuple):
    """The keys of one of the three forms; {} are the numbers of the stage and of the block."""

    stem: str
    block: str
    first: int  # number of the first stage
    layers: tuple[str, str, str, str]  # the two normalisations, the two convolutions
    shortcut: str
    norm: str
    head: str


FORMS = (
    Form("conv1", "block{}.layer.{}", 1, ("bn1", "bn2", "conv1", "conv2"), "convShortcut", "bn1", "fc"),
    Form(
        "init_conv", "layer.{}.block.{}", 0, ("batchnorm_0", "batchnorm_1", "conv_0", "conv_1"), "shortcut",
        "batchnorm", "logits",
    ),
    Form("conv1", "layer{}.{}", 1, ("bn1", "bn2", "conv1", "conv2"), "shortcut.0", "bn", "linear"),
)  # fmt: skip


def _first(form: Form) -> str:
    return f"{form.block.format(form.first, 0)}.{form.layers[2]}.weight"


def own_statistics(state: Mapping[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray] | tuple[None, None]:
    """Mean and deviation that the network of a file normalises by: its own, or those in DeepMind's code, or none."""
    state, found = statistics_of(state)
    if found is None and _first(FORMS[1]) in state:
        cifar100 = state["logits.weight"].shape[0] == 100 if "logits.weight" in state else False
        mean, std = CIFAR100 if cifar100 else CIFAR10
        found = np.asarray(mean, np.float32), np.asarray(std, np.float32)
    return (None, None) if found is None else found


def torch_table(net: PreActResNet, form: Form) -> dict[str, Entry]:
    """The keys of a form."""
    table = conv(form.stem, "stem") | linear(form.head, "classifier")
    if net.norm is not None:
        table |= batch_norm(form.norm, "norm")
    norm1, norm2, conv1, conv2 = form.layers
    for stage, count in enumerate(net.shape.blocks):
        for i in range(count):
            theirs, ours = form.block.format(stage + form.first, i), block_name(stage, i)
            table |= batch_norm(f"{theirs}.{norm1}", f"{ours}.norm") | conv(f"{theirs}.{conv2}", f"{ours}.conv2")
            table |= conv_bn(f"{theirs}.{conv1}", f"{theirs}.{norm2}", f"{ours}.conv1")
            if getattr(net, ours).shortcut is not None:
                table |= conv(f"{theirs}.{form.shortcut}", f"{ours}.shortcut")
    return table


@kinds_checked
def preact_resnet_from_torch(
    weights: Mapping[str, np.ndarray] | str | os.PathLike[str], *, activated: bool | None = None
) -> PreActResNet:
    """A :class:`PreActResNet` with the weights of a PreActResNet or WideResNet in one of the three forms.

    The tensors decide depth, widths and number of classes. Where the file holds the statistics that its network
    normalises by (``mu`` and ``sigma`` of RobustBench), :func:`load` uses them.

    Args:
      weights: a state dict of arrays, or the path of one (``.pth``, ``.safetensors``); torch is not needed.
      activated: for PreActResNet, whether the shortcuts see a of (1), as in pytorch-cifar and in most of RobustBench,
        or x, as in "Fast is better than free" (Wong 2020), whose file in RobustBench has statistics but no last
        normalisation. None decides by these two.

    Raises:
      ValueError: the file cannot be read, or its keys or shapes are those of another network.
    """
    state, statistics = statistics_of(read_state(weights))
    form = next(
        (form for form in FORMS if f"{form.block.format(form.first, 0)}.{form.layers[2]}.weight" in state), None
    )
    if form is None:
        was = Words(f"a file with other keys: {', '.join(sorted(state)[:4])} …")
        raise BadArgument("state_dict", "hold the weights of a PreActResNet or WideResNet", was)
    state = {key: value for key, value in state.items() if not key.startswith("sub_block1.")}  # TRADES never runs it
    place = re.compile(re.escape(form.block).replace(r"\{\}", r"(\d+)") + rf"\.{form.layers[3]}\.weight")
    found = [(int(m[1]), int(m[2])) for key in state if (m := place.fullmatch(key))]
    stages = range(form.first, 1 + max((stage for stage, _ in found), default=form.first))
    blocks = tuple(1 + max((i for stage, i in found if stage == s), default=0) for s in stages)
    firsts = (f"{form.block.format(stage, 0)}.{form.layers[3]}.weight" for stage in stages)
    widths = tuple(num_outputs(state, key, 4, "PreActResNet") for key in firsts)
    classes = num_outputs(state, f"{form.head}.weight", 2, "PreActResNet")
    last_norm = f"{form.norm}.weight" in state
    wide = form is not FORMS[2]
    plain = statistics is not None and not last_norm and not wide
    shape = Shape(
        blocks,
        widths,
        num_outputs(state, f"{form.stem}.weight", 4, "PreActResNet"),
        smooth=form is FORMS[1],
        same=form is FORMS[1],
        last_norm=last_norm or wide,
        activated=not plain if activated is None else activated,
    )
    net = nnx.eval_shape(lambda: PreActResNet(shape, classes, rngs=nnx.Rngs(0)))
    return fill_from_torch(net, state, torch_table(net, form))
