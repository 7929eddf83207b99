"""A network behind its normalisation as one NNX module, so that training and attacks see the same function."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import nnx

from invjax.core.errors import BadArgument
from invjax.core.numerics import as_float
from invjax.types import Array, ArrayLike


class Normalised(nnx.Module):
    """``net((x - mean) / std)``: takes inputs in the data range, [B, *S], and returns the output of ``net``.

    Args:
      net: the module behind; its methods ``features`` and ``head`` are passed on if it has them.
      mean, std: scalars or one number per channel, in data units; constants, not trained. ImageNet networks have
        (0.485, 0.456, 0.406) and (0.229, 0.224, 0.225) for images in [0, 1].

    Raises:
      ValueError: a number is not finite, or ``std`` is not positive.
    """

    def __init__(self, net: nnx.Module, mean: ArrayLike, std: ArrayLike) -> None:
        for name, value, least, wanted in (("mean", mean, -np.inf, "finite"), ("std", std, 0, "positive and finite")):
            array = np.asarray(value)
            if not np.all(np.isfinite(array) & (array > least)):
                raise BadArgument(name, f"be {wanted}", array.tolist())
        self.net = net
        self.mean = nnx.Variable(jnp.asarray(mean, jnp.float32))
        self.std = nnx.Variable(jnp.asarray(std, jnp.float32))

    def normalise(self, x: Array) -> Array:
        """``(x - mean) / std`` in the dtype of x, or as floats where x holds whole numbers: no constant is rounded."""
        x = as_float(x)
        return (x - self.mean[...].astype(x.dtype)) / self.std[...].astype(x.dtype)

    def __repr__(self) -> str:
        return f"Normalised({self.net!r})"

    def __call__(self, x: Array) -> Array:
        net: Any = self.net
        return net(self.normalise(x))

    @property
    def features(self) -> Callable[[Array], Array]:
        """The features of ``net`` for inputs in the data range. AttributeError if it has none."""
        net: Any = self.net
        inner = net.features
        return lambda x: inner(self.normalise(x))

    @property
    def head(self) -> Callable[[Array], Array]:
        """The head of ``net``."""
        net: Any = self.net
        return net.head
