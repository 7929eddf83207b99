"""A variational autoencoder conditional on the class, as a plausibility of points.

    log q(x | k) = log N(x; d(m(x, k), k), σ²) − KL(N(m(x, k), v(x, k)) || N(0, I))                                (1)

m and v the posterior's mean and variance, d the decoder, σ a learned deviation: the evidence lower bound (Kingma,
Welling, ICLR 2014) with the mean of the posterior in the place of a draw. So it is deterministic, as a search needs;
it is no longer a bound, and no normalised density. Points off the manifold are reconstructed badly: that is the pull.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from invjax.core.errors import BadArgument
from invjax.densities.common import check_points, deviations, leaf
from invjax.densities.training import check_training, train
from invjax.types import Array, ArrayLike


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, eq=False)
class VAE:
    """The networks and their standardisation; made by :func:`fit_vae`."""

    weights: Any  # of the networks, a flax state
    mean: Array  # [D]
    scale: Array  # [D]
    classes: int = dataclasses.field(metadata={"static": True})
    graph: Any = dataclasses.field(metadata={"static": True})

    def log_prob(self, x: Array, label: Array) -> Array:
        """Formula (1) of the module at one point x [*S] for class ``label`` [] int32 in 0 … K-1; []."""
        fit, divergence = self._terms(x, label)
        return fit - divergence - jnp.log(self.scale.astype(x.dtype)).sum()

    def reconstruct(self, x: Array, label: Array) -> Array:
        """``d(m(x, k), k)`` [*S]: the point of the learned manifold that stands for x [*S]."""
        from flax import nnx

        net = nnx.merge(self.graph, self._weights(x))
        one_hot = jax.nn.one_hot(label, self.classes, dtype=x.dtype)[None]
        z = net.decode(net.encode(self._standard(x), one_hot)[0], one_hot)[0]
        return (self.mean.astype(x.dtype) + self.scale.astype(x.dtype) * z).reshape(x.shape)

    def _weights(self, x: Array) -> Any:
        return jax.tree.map(lambda leaf: leaf.astype(x.dtype), self.weights)

    def _standard(self, x: Array) -> Array:
        return ((x.reshape(-1) - self.mean.astype(x.dtype)) / self.scale.astype(x.dtype))[None]

    def _terms(self, x: Array, label: Array) -> tuple[Array, Array]:
        from invjax.densities.vae_net import terms

        one_hot = jax.nn.one_hot(label, self.classes, dtype=x.dtype)[None]
        fit, divergence = terms(self.graph, self._weights(x), self._standard(x), one_hot, None)
        return fit[0], divergence[0]


def fit_vae(
    x: ArrayLike,
    y: ArrayLike,
    *,
    latent: int | None = None,
    hidden: int = 64,
    conv: bool = False,
    noise: float = 0.05,
    steps: int = 1500,
    batch: int = 128,
    rate: float = 3e-3,
    held_out: float = 0.1,
    key: Array | None = None,
) -> VAE:
    """Train a conditional variational autoencoder on the evidence lower bound.

    Args:
      x: reference points [M, *S], y: their classes [M], 0 … K-1.
      latent: numbers of the code; None: a third of D, from 2 to 16. hidden: width of the hidden layers.
      conv: convolutions, for images [M, H, W, C]; else dense layers on the flattened point.
      noise: deviation of the noise added to the points in training, in units of the features' deviation.
      steps, batch, rate, held_out, key: as in :func:`invjax.densities.fit_flow`.

    Raises:
      ValueError: x or y malformed, a class with fewer than 2 points, an argument out of range, ``conv`` and x not of
        shape [M, H, W, C].
    """
    data = check_points(x, y, 2, "to learn from")
    shape, size = np.shape(np.asarray(x))[1:], data.x.shape[1]
    latent = min(16, max(2, size // 3)) if latent is None else latent
    for name, value in (("latent", latent), ("hidden", hidden)):
        if isinstance(value, bool) or int(value) != value or value < 1:
            raise BadArgument(name, "be a whole number >= 1", value)
    if not 0 <= noise < np.inf:
        raise BadArgument("noise", "be at least 0 and finite", noise)
    if conv and len(shape) != 3:
        raise ValueError(f"conv=True needs x of shape [M, H, W, C]; it was {[len(data.x), *shape]}")
    check_training(steps, batch, rate, held_out)
    from invjax.densities.vae_net import build

    start, order = jax.random.split(jax.random.key(0) if key is None else key)
    graph, weights = build(shape or (1,), data.classes, int(latent), int(hidden), conv, start)
    weights = jax.tree.map(lambda leaf: leaf.astype(data.dtype), weights)
    mean = data.x.mean(0)
    # Pixels share one scale: a border pixel that is nearly always black must not weigh as much as one of the stroke.
    wide = len(shape) == 3
    scale = np.full(size, float(np.sqrt(data.x.var(0).mean())) or 1.0) if wide else deviations(data.x, 0.05)
    z = leaf((data.x - mean) / scale, data)
    loss = _Loss(graph, data.classes, float(noise))
    weights = train(
        loss, weights, z, jnp.asarray(data.y), order, steps=steps, batch=batch, rate=rate, held_out=held_out
    )
    return VAE(weights, leaf(mean, data), leaf(scale, data), data.classes, graph)


@dataclasses.dataclass(frozen=True)
class _Loss:
    """The mean negative evidence lower bound of a batch of standardised points."""

    graph: Any
    classes: int
    noise: float

    def __call__(self, weights: Any, z: Array, label: Array, key: Array | None) -> Array:
        from invjax.densities.vae_net import terms

        draw = None
        if key is not None:
            blur, draw = jax.random.split(key)
            z = z + self.noise * jax.random.normal(blur, z.shape, z.dtype)
        fit, divergence = terms(self.graph, weights, z, jax.nn.one_hot(label, self.classes, dtype=z.dtype), draw)
        return (divergence - fit).mean()
