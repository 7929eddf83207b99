"""The networks of the variational autoencoder, in Flax NNX; loaded only where one is fitted."""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from invjax.types import Array


class Dense(nnx.Module):
    """Encoder and decoder of two hidden layers for D numbers and a class (one-hot, beside the input of both)."""

    def __init__(self, shape: tuple[int, ...], classes: int, latent: int, hidden: int, *, rngs: nnx.Rngs) -> None:
        size = math.prod(shape)
        self.encode_in = nnx.Linear(size + classes, hidden, rngs=rngs)
        self.encode_middle = nnx.Linear(hidden, hidden, rngs=rngs)
        self.encode_out = nnx.Linear(hidden, 2 * latent, rngs=rngs)
        self.decode_in = nnx.Linear(latent + classes, hidden, rngs=rngs)
        self.decode_middle = nnx.Linear(hidden, hidden, rngs=rngs)
        self.decode_out = nnx.Linear(hidden, size, rngs=rngs)
        self.log_noise = nnx.Param(jnp.zeros(()))  # log deviation of the reconstruction

    def encode(self, z: Array, one_hot: Array) -> tuple[Array, Array]:
        """Mean and log variance of the posterior, each [B, latent], of z [B, D]."""
        h = nnx.gelu(self.encode_in(jnp.concatenate([z, one_hot], -1)))
        mean, log_variance = jnp.split(self.encode_out(nnx.gelu(self.encode_middle(h))), 2, -1)
        return mean, log_variance

    def decode(self, code: Array, one_hot: Array) -> Array:
        """The reconstruction [B, D] of codes [B, latent]."""
        h = nnx.gelu(self.decode_in(jnp.concatenate([code, one_hot], -1)))
        return self.decode_out(nnx.gelu(self.decode_middle(h)))


class Conv(nnx.Module):
    """Two strided convolutions and two transposed ones for images [H, W, C], with the class beside the dense layers."""

    def __init__(self, shape: tuple[int, ...], classes: int, latent: int, hidden: int, *, rngs: nnx.Rngs) -> None:
        height, width, channels = shape
        self.shape = (height, width, channels)
        self.small = (-(-height // 4), -(-width // 4), 32)
        flat = math.prod(self.small)
        self.down_first = nnx.Conv(channels, 16, (3, 3), strides=2, rngs=rngs)
        self.down_second = nnx.Conv(16, 32, (3, 3), strides=2, rngs=rngs)
        self.encode_middle = nnx.Linear(flat + classes, hidden, rngs=rngs)
        self.encode_out = nnx.Linear(hidden, 2 * latent, rngs=rngs)
        self.decode_in = nnx.Linear(latent + classes, hidden, rngs=rngs)
        self.decode_middle = nnx.Linear(hidden, flat, rngs=rngs)
        self.up_first = nnx.ConvTranspose(32, 16, (4, 4), strides=(2, 2), rngs=rngs)
        self.up_second = nnx.ConvTranspose(16, channels, (4, 4), strides=(2, 2), rngs=rngs)
        self.log_noise = nnx.Param(jnp.zeros(()))

    def encode(self, z: Array, one_hot: Array) -> tuple[Array, Array]:
        """Mean and log variance of the posterior, each [B, latent], of z [B, D]."""
        h = nnx.gelu(self.down_first(z.reshape(-1, *self.shape)))
        h = nnx.gelu(self.down_second(h)).reshape(len(z), -1)
        h = nnx.gelu(self.encode_middle(jnp.concatenate([h, one_hot], -1)))
        mean, log_variance = jnp.split(self.encode_out(h), 2, -1)
        return mean, log_variance

    def decode(self, code: Array, one_hot: Array) -> Array:
        """The reconstruction [B, D] of codes [B, latent]."""
        h = nnx.gelu(self.decode_in(jnp.concatenate([code, one_hot], -1)))
        h = nnx.gelu(self.decode_middle(h)).reshape(-1, *self.small)
        h = self.up_second(nnx.gelu(self.up_first(h)))
        height, width, _ = self.shape
        return h[:, :height, :width].reshape(len(code), -1)


def build(shape: tuple[int, ...], classes: int, latent: int, hidden: int, conv: bool, key: Array) -> tuple[Any, Any]:
    """(graph, weights): a network as a hashable description and a pytree of arrays."""
    seed = jax.random.randint(key, (), 0, 2**31 - 1)
    net = (Conv if conv else Dense)(shape, classes, latent, hidden, rngs=nnx.Rngs(int(seed)))
    for node in [node for _, node in nnx.iter_graph(net) if isinstance(node, nnx.Module)]:
        if type(node).__module__.startswith("flax."):
            # flax 0.11 keeps its initialisers in the layers, a new function each time: equal networks would not
            # compare equal, and each fit would compile anew.
            for name in [name for name, value in vars(node).items() if name.endswith("_init") and callable(value)]:
                setattr(node, name, None)
    return nnx.split(net)


def terms(graph: Any, weights: Any, z: Array, one_hot: Array, key: Array | None) -> tuple[Array, Array]:
    """``log N(z; decode(code), noise²)`` and ``KL(posterior || N(0, I))``, each [B], of z [B, D].

    key: draws the code; without it (None) the code is the mean of the posterior.
    """
    net = nnx.merge(graph, weights)
    mean, log_variance = net.encode(z, one_hot)
    log_variance = 8 * jnp.tanh(log_variance / 8)  # no overflow far from the data
    draw = mean if key is None else mean + jnp.exp(0.5 * log_variance) * jax.random.normal(key, mean.shape, mean.dtype)
    log_noise = jnp.clip(net.log_noise[...], -4, 4)
    error = jnp.square((z - net.decode(draw, one_hot)) * jnp.exp(-log_noise)).sum(-1)
    fit = -0.5 * error - z.shape[-1] * (log_noise + 0.5 * math.log(2 * math.pi))
    divergence = 0.5 * (jnp.square(mean) + jnp.exp(log_variance) - 1 - log_variance).sum(-1)
    return fit, divergence
