"""ResNet20 for 32 × 32 images: He et al., "Deep Residual Learning for Image Recognition" (2016), section 4.2.

Three stages of three basic blocks, widths 16, 32, 64, with the identity shortcuts of option A: at the start of a stage
the shortcut takes every second pixel and pads the new channels with zeros, half on each side.
"""

from __future__ import annotations

import os
from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from invjax.core.arguments import kinds_checked
from invjax.core.nnx import module_repr
from invjax.models.blocks import ConvBN, block_name
from invjax.models.torch_import import Entry, conv_bn, fill_from_torch, linear, num_outputs, read_state
from invjax.types import Array

STAGES = 3
BLOCKS = 3  # per stage


class BasicBlock(nnx.Module):
    """``relu(shortcut(x) + bn(conv(relu(bn(conv(x))))))``: [B, H, W, I] -> [B, ceil(H/stride), ceil(W/stride), O]."""

    def __init__(self, in_features: int, out_features: int, stride: int, *, rngs: nnx.Rngs) -> None:
        self.conv1 = ConvBN(in_features, out_features, stride=stride, rngs=rngs)
        self.conv2 = ConvBN(out_features, out_features, rngs=rngs)
        self.stride = stride
        self.new_channels = out_features - in_features

    def __call__(self, x: Array) -> Array:
        y = self.conv2(jax.nn.relu(self.conv1(x)))
        if self.stride != 1 or self.new_channels:
            low = self.new_channels // 2
            pad = ((0, 0), (0, 0), (0, 0), (low, self.new_channels - low))
            x = jnp.pad(x[:, :: self.stride, :: self.stride], pad)
        return jax.nn.relu(x + y)


class ResNet20(nnx.Module):
    """The CIFAR form of ResNet with 20 layers, [B, H, W, 3] -> logits [B, K].

    Args:
      num_classes: K.
      width: channels of the first stage (16 in the paper); the others have 2 and 4 times as many.
      rngs: random numbers for the initial weights.
    """

    def __init__(self, num_classes: int = 10, width: int = 16, *, rngs: nnx.Rngs) -> None:
        self.stem = ConvBN(3, width, rngs=rngs)
        features = width
        for stage in range(STAGES):
            for block in range(BLOCKS):
                out, stride = width * 2**stage, 2 if stage > 0 and block == 0 else 1
                # Numbered attributes: a list of modules is handled differently by the supported versions of flax.
                setattr(self, block_name(stage, block), BasicBlock(features, out, stride, rngs=rngs))
                features = out
        self.classifier = nnx.Linear(features, num_classes, rngs=rngs)

    def activations(self, x: Array) -> dict[str, Array]:
        """The output of each layer, in order: ``stem``, ``stage1_block1`` … ``stage3_block3``, ``pool``, ``logits``."""
        out = {"stem": jax.nn.relu(self.stem(x))}
        y = out["stem"]
        for stage in range(STAGES):
            for block in range(BLOCKS):
                name = block_name(stage, block)
                y = out[name] = getattr(self, name)(y)
        out["pool"] = jnp.mean(y, axis=(1, 2))
        out["logits"] = self.classifier(out["pool"])
        return out

    def features(self, x: Array) -> Array:
        """The last convolutional layer, where class activation maps are read: [B, H, W, 3] -> [B, h, w, F]."""
        return self.activations(x)[block_name(STAGES - 1, BLOCKS - 1)]

    def head(self, features: Array) -> Array:
        """The rest of the network, global average pooling and one linear layer: [B, h, w, F] -> [B, K]."""
        return self.classifier(jnp.mean(features, axis=(1, 2)))

    def __call__(self, x: Array) -> Array:
        return self.activations(x)["logits"]

    def __repr__(self) -> str:
        return module_repr(self, f"HxWx3 -> {self.classifier.out_features} classes")


def torch_table() -> dict[str, Entry]:
    """The keys of the usual torch ResNet20 for CIFAR (``conv1``, ``layer1.0.conv1`` …, ``linear``)."""
    table = conv_bn("conv1", "bn1", "stem") | linear("linear", "classifier")
    for stage in range(STAGES):
        for block in range(BLOCKS):
            theirs, ours = f"layer{stage + 1}.{block}", block_name(stage, block)
            for i in (1, 2):
                table |= conv_bn(f"{theirs}.conv{i}", f"{theirs}.bn{i}", f"{ours}.conv{i}")
    return table


@kinds_checked
def resnet20_from_torch(state: Mapping[str, np.ndarray] | str | os.PathLike[str]) -> ResNet20:
    """A :class:`ResNet20` with torch weights (the form with option-A shortcuts).

    The tensors decide width and number of classes. The result expects inputs as the torch model did: give ``mean`` and
    ``std`` to :func:`invjax.models.as_logits`.

    Args:
      state: a state dict of arrays, or the path of a ``.safetensors``, ``.pth`` or ``.pt`` file.

    Raises:
      ValueError: the file cannot be read, or the keys or shapes are not those of a ResNet20; all are named.
    """
    tensors = read_state(state)
    width, classes = (num_outputs(tensors, *of, "ResNet20") for of in (("conv1.weight", 4), ("linear.weight", 2)))
    abstract = nnx.eval_shape(lambda: ResNet20(num_classes=classes, width=width, rngs=nnx.Rngs(0)))
    return fill_from_torch(abstract, tensors, torch_table())
