"""A multi-layer perceptron for feature vectors (and, flattened, for small images)."""

from __future__ import annotations

from collections.abc import Sequence

import jax
from flax import nnx

from invjax.core.errors import BadArgument
from invjax.core.nnx import module_repr
from invjax.types import Array


class MLP(nnx.Module):
    """Dense layers with ReLU between them, [B, *S] -> logits [B, K]; an input of any shape is flattened.

    Args:
      sizes: features of each layer, from the input to the classes: ``(D, hidden, …, K)``; at least two.
      rngs: random numbers for the initial weights.

    Raises:
      ValueError: fewer than two sizes, or one that is not positive.
    """

    def __init__(self, sizes: Sequence[int], *, rngs: nnx.Rngs) -> None:
        if len(sizes) < 2 or min(sizes) < 1:
            raise BadArgument("sizes", "be at least two positive numbers (D, …, K)", tuple(sizes))
        self.layers = len(sizes) - 1
        for i in range(self.layers):
            layer = nnx.Linear(sizes[i], sizes[i + 1], kernel_init=nnx.initializers.he_normal(), rngs=rngs)
            setattr(self, f"dense{i + 1}", layer)

    def __call__(self, x: Array) -> Array:
        y = x.reshape(x.shape[0], -1)
        for i in range(self.layers - 1):
            y = jax.nn.relu(getattr(self, f"dense{i + 1}")(y))
        return getattr(self, f"dense{self.layers}")(y)

    def __repr__(self) -> str:
        first, last = (getattr(self, f"dense{i}") for i in (1, self.layers))
        return module_repr(self, f"{first.in_features} -> {last.out_features} classes")
