"""The last linear layer of a network: its inputs, and the network with another such layer.

    f(x) = W^T φ(x) + b        φ(x) [D]: the inputs of the layer,   W [D, K],  b [K]

Every NNX module that ends in an ``nnx.Linear`` has one; the layer is found by trial.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from flax import nnx

from invjax.core.arguments import kinds_checked
from invjax.core.errors import BadArgument, Words, of_shape
from invjax.core.labels import check_finite
from invjax.core.meant import explained
from invjax.core.shown import short_repr
from invjax.learn.evaluate import predict
from invjax.types import Array, ArrayLike


class LastLayer(NamedTuple):
    """The place of the layer in its module, and its arrays."""

    path: tuple[Any, ...]  # attribute path within the module
    kernel: np.ndarray  # [D, K]
    bias: np.ndarray  # [K], zeros if the layer has none

    __repr__ = short_repr


class _Identity(nnx.Module):
    def __call__(self, x: Array) -> Array:
        return x


def _replaced(model: nnx.Module, path: tuple[Any, ...], layer: nnx.Module) -> nnx.Module:
    copy: Any = nnx.clone(model)
    parent = copy
    for part in path[:-1]:
        parent = parent[part] if isinstance(part, int) else getattr(parent, part)
    if isinstance(path[-1], int):
        parent[path[-1]] = layer
    else:
        setattr(parent, path[-1], layer)
    copy.eval()
    return copy


@kinds_checked
def last_layer(model: nnx.Module, example: Any) -> LastLayer:
    """Find the last linear layer. example: a few inputs [B, *S], on which the search runs.

    Raises:
      ValueError: no ``nnx.Linear`` gives the logits, or they hold NaN.
    """
    if not isinstance(model, nnx.Module):
        raise BadArgument("model", "be an nnx.Module", Words(type(model).__name__))
    few = np.asarray(example)
    logits = predict(model, few)
    check_finite("model", logits)
    # A shift of its bias identifies the layer: only that of the last one comes out of the network unchanged.
    shift = np.arange(1, logits.shape[1] + 1, dtype=np.float32) * (np.abs(logits).max() + 1) / logits.shape[1]
    for path, node in nnx.iter_graph(model):
        if not (isinstance(node, nnx.Linear) and node.out_features == logits.shape[1]):
            continue
        kernel = np.asarray(node.kernel[...], np.float32)
        bias = np.zeros(kernel.shape[1], np.float32) if node.bias is None else np.asarray(node.bias[...], np.float32)
        layer = LastLayer(tuple(path), kernel, bias)
        moved = predict(with_last_layer(model, layer, kernel, bias + shift), few) - logits
        if np.allclose(moved, shift, rtol=0, atol=1e-2 * shift[0]):
            return layer
    raise BadArgument("model", "end in an nnx.Linear that gives the logits", Words(type(model).__name__))


@explained
def feature_network(model: nnx.Module, layer: LastLayer) -> nnx.Module:
    """φ as a network, [B, *S] -> [B, D]: a copy of ``model``, in evaluation mode, without its last layer."""
    return _replaced(model, layer.path, _Identity())


@kinds_checked
def penultimate(model: nnx.Module, x: Any, layer: LastLayer, *, batch: int = 256) -> np.ndarray:
    """φ(x), the inputs of the last layer: [N, *S] -> [N, D] float32. Raises BadArgument where they hold NaN."""
    features = predict(feature_network(model, layer), x, batch=batch)
    check_finite("model", features, "features")
    return features


@kinds_checked
def with_last_layer(model: nnx.Module, layer: LastLayer, kernel: ArrayLike, bias: ArrayLike) -> nnx.Module:
    """A copy of ``model``, in evaluation mode, whose last layer has W [D, K] and b [K]."""
    copy: Any = nnx.clone(model)
    own: Any = next(node for where, node in nnx.iter_graph(copy) if tuple(where) == layer.path)
    for name, value, wanted in (("kernel", kernel, layer.kernel.shape), ("bias", bias, layer.bias.shape)):
        if np.shape(value) != wanted:
            raise BadArgument(name, f"be of shape {wanted}", of_shape(np.shape(value)))
    own.kernel[...] = jnp.asarray(kernel, own.kernel[...].dtype)
    if own.bias is None:
        own.bias = nnx.Param(jnp.asarray(bias, own.kernel[...].dtype))
    else:
        own.bias[...] = jnp.asarray(bias, own.bias[...].dtype)
    copy.eval()
    return copy
