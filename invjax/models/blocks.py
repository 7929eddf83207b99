"""Building blocks of the NNX models.

In evaluation mode batch normalisation is affine per channel. So after a convolution it folds into kernel and bias:

    bn(conv(x)) = s · (W * x + b - μ) + β = (s W) * x + (β + s (b - μ)),        s = γ / sqrt(σ² + ε)           (1)

which saves one more read and write of every activation.
"""

from __future__ import annotations

import functools
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
from flax import nnx

from invjax.core.arguments import kinds_checked
from invjax.core.errors import BadArgument, Words, check_whole
from invjax.core.nnx import module_repr
from invjax.types import Array


class ConvBN(nnx.Module):
    """A convolution followed by batch normalisation, [B, H, W, I] -> [B, H', W', O]; :meth:`fold` merges the two.

    Args:
      in_features, out_features: channels I and O.
      kernel: side of the square kernel; odd. The padding is ``kernel // 2`` on each side, as in torch models ("SAME"
        padding of strided convolutions is lopsided).
      stride: step of the convolution.
      groups: of channels that are filtered separately; ``groups == in_features == out_features`` is a depthwise
        convolution.
      same: TensorFlow's padding instead, for weights trained there: ``ceil(H / stride)`` rows, an odd pixel at the end.
      epsilon, momentum: of the batch normalisation; momentum 0.9 is torch's 0.1.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        kernel: int = 3,
        stride: int = 1,
        *,
        groups: int = 1,
        same: bool = False,
        epsilon: float = 1e-5,
        momentum: float = 0.9,
        rngs: nnx.Rngs,
    ) -> None:
        half = kernel // 2
        self.conv = nnx.Conv(
            in_features,
            out_features,
            (kernel, kernel),
            strides=(stride, stride),
            padding="SAME" if same else ((half, half), (half, half)),
            feature_group_count=groups,
            use_bias=False,
            kernel_init=nnx.initializers.he_normal(),
            rngs=rngs,
        )
        self.bn = nnx.BatchNorm(out_features, epsilon=epsilon, momentum=momentum, rngs=rngs)
        self.folded = False

    def __call__(self, x: Array) -> Array:
        y = self.conv(x)
        return y + self.shift[...].astype(y.dtype) if self.folded else self.bn(y)

    def __repr__(self) -> str:
        return module_repr(self, f"{self.conv.in_features} -> {self.conv.out_features} channels")

    def fold(self) -> None:
        """Fold the running statistics into the convolution by (1), in place, for evaluation. If folded, do nothing."""
        if self.folded:
            return
        bn = self.bn
        scale = jax.lax.rsqrt(bn.var[...] + bn.epsilon)
        if bn.scale is not None:
            scale = scale * bn.scale[...]
        shift = -bn.mean[...] * scale
        if bn.bias is not None:
            shift = shift + bn.bias[...]
        if self.conv.bias is not None:
            # The convolution still adds its own bias, so the bias is normalised as well.
            self.conv.bias[...] = self.conv.bias[...] * scale
        self.conv.kernel[...] = self.conv.kernel[...] * scale  # output channels are the last axis of HWIO
        self.shift = nnx.Param(shift)
        self.folded = True
        del self.bn


def block_name(stage: int, block: int) -> str:
    """Attribute of a block, counted from 1 in the name and from 0 in the arguments."""
    return f"stage{stage + 1}_block{block + 1}"


class PooledClassifier(nnx.Module):
    """Features, their mean over the pixels, a linear layer ``classifier``: [B, H, W, 3] -> logits [B, K]."""

    classifier: nnx.Linear

    def features(self, x: Array) -> Array:
        """[B, H, W, 3] -> [B, h, w, F] before the pooling, where class activation maps are read."""
        raise NotImplementedError

    def head(self, features: Array) -> Array:
        """[B, h, w, F] -> logits [B, K]: the mean over the pixels and a linear layer."""
        return self.classifier(jnp.mean(features, axis=(1, 2)))

    def __call__(self, x: Array) -> Array:
        return self.head(self.features(x))

    def __repr__(self) -> str:
        return module_repr(self, f"HxWx3 -> {self.classifier.out_features} classes")


def max_pool(x: Array, window: int = 3, stride: int = 2) -> Array:
    """The largest of each ``window × window``, padded by ``window // 2``: [B, H, W, C] -> [B, H', W', C].

    It is a maximum of shifted images, because on a CPU the gradient of ``lax.reduce_window`` takes several times as
    long. Equal largest pixels share the gradient (torch gives it to the first).
    """
    half = window // 2
    count = [(size - 1) // stride + 1 for size in x.shape[1:3]]  # odd windows
    edges = [(half, (n - 1) * stride + window - half - size, 0) for n, size in zip(count, x.shape[1:3], strict=True)]
    padded = jax.lax.pad(x, jnp.asarray(-jnp.inf, x.dtype), [(0, 0, 0), *edges, (0, 0, 0)])
    padded = jax.lax.optimization_barrier(padded)  # else the padding is decided anew for each shift of each pixel
    pieces = [
        padded[:, i : i + (count[0] - 1) * stride + 1 : stride, j : j + (count[1] - 1) * stride + 1 : stride]
        for i in range(window)
        for j in range(window)
    ]
    return functools.reduce(jnp.maximum, pieces)


Module = TypeVar("Module", bound=nnx.Module)


@kinds_checked
def with_classes(module: Module, num_classes: int, *, rngs: nnx.Rngs) -> Module:
    """A copy of a classifier with a fresh last layer for ``num_classes`` classes, for fine-tuning.

    Args:
      module: one with a linear layer ``classifier``: an ``EfficientNetLite``, a ``ResNet`` or a ``ViT``, which may also
        have none yet. A distilled ViT gets two fresh layers.
      num_classes: K, at least 2.
      rngs: random numbers for the initial weights of that layer.

    Raises:
      ValueError: ``module`` has no such layer; ``num_classes`` is too small.
    """
    old = getattr(module, "classifier", None)
    inputs = old.in_features if isinstance(old, nnx.Linear) else getattr(module, "head_inputs", None)
    if inputs is None:
        raise BadArgument("module", "have a linear layer `classifier`", Words(type(module).__name__))
    check_whole("num_classes", num_classes, 2)
    copy: Any = nnx.clone(module)
    for name in ("classifier", "classifier_distilled"):
        if name == "classifier" or getattr(copy, name, None) is not None:
            if hasattr(copy, name):
                delattr(copy, name)  # flax 0.12 does not let a layer take the place of None
            setattr(copy, name, nnx.Linear(inputs, num_classes, rngs=rngs))
    return copy
