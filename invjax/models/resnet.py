"""ResNet for ImageNet: He et al., "Deep Residual Learning for Image Recognition" (2016), table 1.

The form of torchvision and timm ("v1.5"): the stride of a bottleneck is in its 3×3 convolution, and a 1×1 convolution
projects the shortcut wherever it changes shape (option B).
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Literal, NamedTuple

import jax
import numpy as np
from flax import nnx

from invjax.core.errors import check_choice
from invjax.core.meant import explained
from invjax.models.blocks import ConvBN, PooledClassifier, block_name, max_pool
from invjax.models.torch_import import Entry, conv_bn, fill_from_torch, linear, num_outputs, read_state, statistics_of
from invjax.types import Array

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet images in [0, 1], per channel
WIDTH = 64  # channels of the stem


class Size(NamedTuple):
    """A column of table 1."""

    blocks: tuple[int, int, int, int]  # per stage
    kernels: tuple[int, ...]  # of a block: two 3×3, or a bottleneck
    small: bool = False  # the form for 32 × 32 images: it begins with a 3×3 convolution, without stride or pooling

    @property
    def expansion(self) -> int:
        """Output channels of a block per channel between."""
        return 4 if len(self.kernels) == 3 else 1


BASIC, BOTTLENECK = (3, 3), (1, 3, 1)
ResNetName = Literal["resnet18", "resnet34", "resnet50", "resnet101", "resnet152"]
SIZES: dict[ResNetName, Size] = {
    "resnet18": Size((2, 2, 2, 2), BASIC),
    "resnet34": Size((3, 4, 6, 3), BASIC),
    "resnet50": Size((3, 4, 6, 3), BOTTLENECK),
    "resnet101": Size((3, 4, 23, 3), BOTTLENECK),
    "resnet152": Size((3, 8, 36, 3), BOTTLENECK),
}


class ResidualBlock(nnx.Module):
    """``relu(shortcut(x) + bn(conv(… relu(bn(conv(x))))))``: [B, H, W, I] -> [B, ceil(H/stride), ceil(W/stride), O].

    Args:
      in_features, between: channels I, and those of all convolutions but the last.
      out_features: O.
      kernels: sides of the convolutions; the first of side 3 has the stride.
    """

    def __init__(
        self,
        in_features: int,
        between: int,
        out_features: int,
        kernels: tuple[int, ...],
        stride: int,
        *,
        rngs: nnx.Rngs,
    ) -> None:
        self.count = len(kernels)
        for i, kernel in enumerate(kernels):
            channels = in_features if i == 0 else between
            out = out_features if i == self.count - 1 else between
            step = stride if i == kernels.index(3) else 1
            setattr(self, f"conv{i + 1}", ConvBN(channels, out, kernel, step, rngs=rngs))
        projected = stride != 1 or in_features != out_features
        self.shortcut = ConvBN(in_features, out_features, 1, stride, rngs=rngs) if projected else None

    def __call__(self, x: Array) -> Array:
        y = x
        for i in range(1, self.count + 1):
            y = getattr(self, f"conv{i}")(y)
            y = jax.nn.relu(y) if i < self.count else y
        return jax.nn.relu(y + (x if self.shortcut is None else self.shortcut(x)))


class ResNet(PooledClassifier):
    """The classifier on normalised images, [B, H, W, 3] -> logits [B, K]; ``__call__ = head(features(x))``.

    H and W are free; they are halved five times, or three times in the small form. A new module is in training mode, in
    which BatchNorm uses the batch and updates its statistics; ``as_logits`` works on a copy in evaluation mode.

    Args:
      size: one of ``SIZES``.
      num_classes: K.
      width: channels of the stem.
      rngs: random numbers for the initial weights.
    """

    def __init__(
        self, size: Size = SIZES["resnet50"], num_classes: int = 1000, width: int = WIDTH, *, rngs: nnx.Rngs
    ) -> None:
        self.blocks, self.small = size.blocks, size.small
        self.stem = ConvBN(3, width, 3, rngs=rngs) if size.small else ConvBN(3, width, 7, 2, rngs=rngs)
        features = width
        for stage, count in enumerate(size.blocks):
            between = width * 2**stage
            for block in range(count):
                out, stride = between * size.expansion, 2 if stage > 0 and block == 0 else 1
                made = ResidualBlock(features, between, out, size.kernels, stride, rngs=rngs)
                # Numbered attributes: a list of modules is handled differently by the supported versions of flax.
                setattr(self, block_name(stage, block), made)
                features = out
        self.classifier = nnx.Linear(features, num_classes, rngs=rngs)

    def activations(self, x: Array) -> dict[str, Array]:
        """The output of each layer, in order: ``stem``, ``pool``, ``stage1_block1`` …, ``features``, ``logits``."""
        out = {"stem": jax.nn.relu(self.stem(x))}
        y = out["pool"] = out["stem"] if self.small else max_pool(out["stem"], 3, 2)
        for stage, count in enumerate(self.blocks):
            for block in range(count):
                y = out[block_name(stage, block)] = getattr(self, block_name(stage, block))(y)
        out["features"] = y
        out["logits"] = self.head(y)
        return out

    def features(self, x: Array) -> Array:
        """[B, H, W, 3] -> [B, ceil(H / 32), ceil(W / 32), F], where Grad-CAM is read; >= 0. F: 512 or 2048."""
        return self.activations(x)["features"]


def torch_table(net: ResNet, cifar: bool = False) -> dict[str, Entry]:
    """The keys of torchvision's and timm's ResNets (``conv1``, ``layer1.0.conv1`` …, ``fc``).

    cifar: those of pytorch-cifar and RobustBench, which call the projection ``shortcut`` and the last layer ``linear``.
    """
    projection, last = ("shortcut", "linear") if cifar else ("downsample", "fc")
    table = conv_bn("conv1", "bn1", "stem") | linear(last, "classifier")
    for stage, count in enumerate(net.blocks):
        for i in range(count):
            theirs, ours = f"layer{stage + 1}.{i}", block_name(stage, i)
            made: ResidualBlock = getattr(net, ours)
            for n in range(1, made.count + 1):
                table |= conv_bn(f"{theirs}.conv{n}", f"{theirs}.bn{n}", f"{ours}.conv{n}")
            if made.shortcut is not None:
                table |= conv_bn(f"{theirs}.{projection}.0", f"{theirs}.{projection}.1", f"{ours}.shortcut")
    return table


@explained
def resnet_from_torch(name: ResNetName, weights: Mapping[str, np.ndarray] | str | os.PathLike[str]) -> ResNet:
    """A :class:`ResNet` with the weights of torchvision or timm; give ``MEAN`` and ``STD`` to ``as_logits``.

    The tensors decide width, number of classes and form: a first convolution of 3×3 pixels makes the network for CIFAR,
    under the names of torchvision, pytorch-cifar or RobustBench.

    Args:
      name: "resnet18", "resnet34", "resnet50", "resnet101" or "resnet152".
      weights: a state dict of arrays, or the path of one (``.pth``, ``.safetensors``); torch is not needed.

    Raises:
      ValueError: unknown name; the file cannot be read, or its keys or shapes are not those of this size.
    """
    check_choice("name", name, SIZES)
    state, _ = statistics_of(read_state(weights))
    cifar = "linear.weight" in state
    classes = num_outputs(state, "linear.weight" if cifar else "fc.weight", 2, name)
    width = num_outputs(state, "conv1.weight", 4, name)
    size = SIZES[name]._replace(small=state["conv1.weight"].shape[2] == 3)
    abstract = nnx.eval_shape(lambda: ResNet(size, classes, width, rngs=nnx.Rngs(0)))
    return fill_from_torch(abstract, state, torch_table(abstract, cifar))
