"""A variational autoencoder conditional on the class, as a plausibility of points.

    log q(x | k) = log N(x; d(m(x, k), k), σ²) − KL(N(m(x, k), v(x, k)) || N(0, I))                                (1)

m and v are the posterior's mean and variance, d is the decoder, σ a learned deviation: (1) is the evidence lower bound
(Kingma, Welling, ICLR 2014) with the mean of the posterior in the place of a draw. So it is deterministic, as a search
needs, but no longer a bound, and not a normalised density. The pull is that points off the manifold are reconstructed
badly.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from invjax.core.arguments import kinds_checked
from invjax.core.errors import BadArgument, check, check_key, check_whole, of_shape
from invjax.core.shown import many, size_of
from invjax.densities.common import check_points, deviations, leaf, point
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

    def __repr__(self) -> str:
        return f"VAE({many(np.size(self.mean), 'feature')} in {many(self.classes, 'class')}, {size_of(self.weights)})"

    def log_prob(self, x: Array, label: Array) -> Array:
        """Formula (1) of the module at one point x [*S] for class ``label`` [] int32 in 0 … K-1; []."""
        from invjax.densities.vae_net import terms

        x = point(x)
        weights = jax.tree.map(lambda leaf: leaf.astype(x.dtype), self.weights)
        scale = self.scale.astype(x.dtype)
        z = ((x.reshape(-1) - self.mean.astype(x.dtype)) / scale)[None]
        fit, divergence = terms(self.graph, weights, z, jax.nn.one_hot(label, self.classes, dtype=x.dtype)[None], None)
        return fit[0] - divergence[0] - jnp.log(scale).sum()


@kinds_checked
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
      latent: size of the code; None takes a third of D, from 2 to 16. hidden: width of the hidden layers.
      conv: convolutions, for images [M, H, W, C], instead of dense layers on the flattened point.
      noise: deviation of the noise that is added to the points in training, in units of the features' deviation.
      steps, batch, rate, held_out, key: as in :func:`invjax.densities.fit_flow`.

    Raises:
      ValueError: x or y malformed, a class with fewer than 2 points, an argument out of range, ``conv`` and x not of
        shape [M, H, W, C].
    """
    data = check_points(x, y, 2, "to learn from")
    size = data.x.shape[1]
    latent = min(16, max(2, size // 3)) if latent is None else check_whole("latent", latent)
    hidden = check_whole("hidden", hidden)
    check("noise", noise, lambda deviation: 0 <= deviation < np.inf, "at least 0 and finite")
    if conv and len(data.shape) != 3:
        raise BadArgument("x", "be images [M, H, W, C] for conv=True", of_shape((len(data.x), *data.shape)))
    check_training(steps, batch, rate, held_out)
    from invjax.densities.vae_net import build

    start, order = jax.random.split(check_key(key))
    graph, weights = build(data.shape or (1,), data.classes, latent, hidden, conv, start)
    weights = jax.tree.map(lambda leaf: leaf.astype(data.dtype), weights)
    mean = data.x.mean(0)
    # Pixels share one scale: a border pixel that is nearly always black must not weigh as much as one of the stroke.
    wide = len(data.shape) == 3
    scale = np.full(size, float(np.sqrt(data.x.var(0).mean())) or 1.0) if wide else deviations(data.x, 0.05)
    z = leaf((data.x - mean) / scale, data)
    loss = _Loss(graph, data.classes, float(noise))
    run: dict[str, Any] = {"steps": steps, "batch": batch, "rate": rate, "held_out": held_out}
    weights = train(loss, weights, z, jnp.asarray(data.y), order, **run)
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
