"""A density of what a network sees in a point, not of its pixels.

    log q(x | k) = log p(z(x) | k),       z(x) = (φ(x) − m) / s                                                    (1)

φ are a network's features and p is any density of :mod:`invjax.densities`, fitted to the features of the reference
points. In pixels the mean of near images is a blur, and far images of one class are as far from each other as from the
other class's; in features (deep ones, such as those before the last layer) they are not. No normalised density of x:
nothing is known of what φ does not see, so points may be moved along it for nothing. An attack on φ is such a movement.

The derivative goes through the network: a search asks it twice per step, once for the classifier and once for this.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from invjax.core.errors import BadArgument, Words
from invjax.densities.common import deviations
from invjax.types import Array, ArrayLike


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, eq=False)
class FeatureDensity:
    """The network, the standardisation and the density behind them; made by :func:`fit_features`."""

    features: Any  # a pytree that can be called, [B, *S] -> [B, ...]; its leaves are the network's weights
    mean: Array  # [D] m
    scale: Array  # [D] s
    density: Any  # of z [D]

    def log_prob(self, x: Array, label: Array) -> Array:
        """Formula (1) of the module at one point x [*S] for class ``label`` [] int32 in 0 … K-1; []."""
        return self.density.log_prob(self.standard(x), label)

    def standard(self, x: Array) -> Array:
        """z(x) [D] of one point [*S], in the dtype of x."""
        seen = self.features(x[None])[0].reshape(-1).astype(x.dtype)
        return (seen - self.mean.astype(x.dtype)) / self.scale.astype(x.dtype)


def fit_features(
    features: Any,
    fit: Callable[..., Any],
    x: ArrayLike,
    y: ArrayLike,
    *,
    batch: int = 256,
    **options: Any,
) -> FeatureDensity:
    """The density (1) of each class.

    Args:
      features: [B, *S] in the data range -> [B, ...], flattened to D numbers; a pytree whose leaves are its weights,
        such as ``as_logits(feature_network(model, layer))`` of :mod:`invjax.learn` or another :class:`LogitsModel`.
      fit: ``(z [M, D], y [M], **options) -> density``: one of ``fit_knn``, ``fit_gmm``, ``fit_kde``, ``fit_vae``,
        ``fit_flow``.
      x, y: reference points [M, *S] in the data range, and their classes [M].
      batch: points per call of the network.
      options: further arguments of ``fit``.

    s is D^½ times the deviation of each feature: ‖z‖² is 1 on average whatever the network, so that a weight of a
    distance in features means as much with 64 of them as with 1,280.

    Raises:
      ValueError: x is no list, or not of floats, the network gives something that is no list of finite numbers for it,
        and all that ``fit`` raises.
    """
    points = np.asarray(x)
    if points.ndim < 2 or not len(points) or not np.issubdtype(points.dtype, np.floating):
        raise BadArgument("x", "be floats of shape [M, *S], M > 0", Words(f"{points.dtype} {list(points.shape)}"))
    if batch < 1:
        raise BadArgument("batch", "be at least 1", batch)
    seen = []
    for start in range(0, len(points), batch):
        rows = np.minimum(np.arange(start, start + min(batch, len(points))), len(points) - 1)  # one shape
        seen.append(np.asarray(_call(features, points[rows]))[: len(points) - start])
    flat = np.concatenate(seen).reshape(len(points), -1).astype(np.float64)
    if not np.isfinite(flat).all():
        raise BadArgument("features", "give finite numbers for all of x", hint="some were not")
    mean, scale = flat.mean(0), deviations(flat) * np.sqrt(flat.shape[1])
    dtype = jax.dtypes.canonicalize_dtype(points.dtype)
    density = fit(((flat - mean) / scale).astype(points.dtype), y, **options)
    return FeatureDensity(features, jnp.asarray(mean, dtype), jnp.asarray(scale, dtype), density)


@jax.jit
def _call(features: Any, x: Array) -> Array:
    return features(x)
