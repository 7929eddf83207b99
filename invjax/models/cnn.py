"""A small convolutional network for digits and other small pictures: the classifier of the demo."""

from __future__ import annotations

from collections.abc import Sequence

import jax
from flax import nnx

from invjax.core.errors import BadArgument
from invjax.core.nnx import module_repr
from invjax.types import Array


class SmallCNN(nnx.Module):
    """Two strided convolutions and two dense layers, [B, H, W, C] -> logits [B, K].

    It has strides instead of pooling: on a CPU the gradient of max-pooling alone takes several times as long as the
    rest of such a network.

    Args:
      shape: (H, W, C) of one image.
      num_classes: K.
      widths: channels of the two convolutions (side 5, stride 2).
      hidden: features of the hidden dense layer.
      rngs: random numbers for the initial weights.

    Raises:
      ValueError: ``shape`` is not three positive numbers.
    """

    def __init__(
        self,
        shape: Sequence[int] = (28, 28, 1),
        num_classes: int = 10,
        widths: tuple[int, int] = (16, 32),
        hidden: int = 64,
        *,
        rngs: nnx.Rngs,
    ) -> None:
        if len(shape) != 3 or min(shape) < 1:
            raise BadArgument("shape", "be (height, width, channels) of one image", tuple(shape))
        height, width, channels = shape
        flat = -(-height // 4) * -(-width // 4) * widths[1]
        self.conv1 = _conv(channels, widths[0], rngs)
        self.conv2 = _conv(widths[0], widths[1], rngs)
        self.dense1 = nnx.Linear(flat, hidden, kernel_init=nnx.initializers.he_normal(), rngs=rngs)
        self.dense2 = nnx.Linear(hidden, num_classes, rngs=rngs)

    def features(self, x: Array) -> Array:
        """The last convolutional layer: [B, H, W, C] -> [B, h, w, F]."""
        return jax.nn.relu(self.conv2(jax.nn.relu(self.conv1(x))))

    def head(self, features: Array) -> Array:
        """The dense layers: [B, h, w, F] -> [B, K]."""
        return self.dense2(jax.nn.relu(self.dense1(features.reshape(features.shape[0], -1))))

    def __call__(self, x: Array) -> Array:
        return self.head(self.features(x))

    def __repr__(self) -> str:
        return module_repr(self, f"HxWx{self.conv1.in_features} -> {self.dense2.out_features} classes")


def _conv(in_features: int, out_features: int, rngs: nnx.Rngs) -> nnx.Conv:
    return nnx.Conv(
        in_features,
        out_features,
        (5, 5),
        strides=(2, 2),
        padding=((2, 2), (2, 2)),
        kernel_init=nnx.initializers.he_normal(),
        rngs=rngs,
    )
