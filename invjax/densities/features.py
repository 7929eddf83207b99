"""A density of what a network sees in a point, not of its pixels.

    log q(x | k) = log p(z(x) | k),       z(x) = (φ(x) − m) / s                                                    (1)

φ are the features of a network, and p is any density of :mod:`invjax.densities`, fitted to the features of the
reference points. In pixels the mean of near images is a blur, and far images of one class are as far from each other as
from those of another class; in features (deep ones, such as those before the last layer) they are not. (1) is not a
normalised density of x: a movement that φ does not see costs nothing, and an attack on φ is such a movement.

The derivative goes through the network, so a search calls it twice per step: once for the classifier and once for (1).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from invjax.core.errors import BadArgument, Words
from invjax.core.logits import as_logits_fn
from invjax.core.numerics import as_float, wide
from invjax.core.rows import map_rows
from invjax.core.shown import shown
from invjax.densities.common import deviations
from invjax.types import Array, ArrayLike, Density


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, eq=False)
class FeatureDensity:
    """The network, the standardisation and the density behind them; made by :func:`fit_features`."""

    features: Callable[[Array], Array]  # a pytree, [B, *S] -> [B, ...]; its leaves are the network's weights
    mean: Array  # [D] m
    scale: Array  # [D] s
    density: Density  # of z [D]

    def __repr__(self) -> str:
        return f"FeatureDensity({self.density!r} of what {shown(self.features)} gives)"

    @property
    def classes(self) -> int | None:
        """K, where the density of the features says it."""
        return getattr(self.density, "classes", None)

    def log_prob(self, x: Array, label: Array) -> Array:
        """Formula (1) of the module at one point x [*S] for class ``label`` [] int32 in 0 … K-1; []."""
        return self.density.log_prob(self.standard(x), label)

    def standard(self, x: Array) -> Array:
        """z(x) [D] of one point [*S], in the dtype of x, at least float32."""
        x = as_float(x)
        dtype = wide(x.dtype)
        seen = self.features(x[None])[0].reshape(-1).astype(dtype)
        return (seen - self.mean.astype(dtype)) / self.scale.astype(dtype)


def fit_features(
    features: Callable[[Array], Array],
    fit: Callable[..., Density],
    x: ArrayLike,
    y: ArrayLike,
    *,
    batch: int = 256,
    **options: Any,
) -> FeatureDensity:
    """The density (1) of each class.

    Args:
      features: [B, *S] in the data range -> [B, ...], flattened to D numbers: a function, or a pytree whose leaves are
        its weights, such as ``as_logits(feature_network(model, layer))`` of :mod:`invjax.learn` or another
        :class:`LogitsModel`.
      fit: ``(z [M, D], y [M], **options) -> density``: one of ``fit_knn``, ``fit_gmm``, ``fit_kde``, ``fit_vae``,
        ``fit_flow``.
      x, y: reference points [M, *S] in the data range, and their classes [M].
      batch: points per call of the network.
      options: further arguments of ``fit``.

    s is D^½ times the deviation of each feature, so that ‖z‖² is 1 on average whatever the network, and a weight of a
    distance in features means as much with 64 of them as with 1,280.

    Raises:
      BadArgument: ``features`` cannot be called or gives numbers that are not finite, x is not a list of points of
        floats, and all that ``fit`` raises.
    """
    points = np.asarray(x)
    if points.ndim < 2 or not len(points) or not jnp.issubdtype(points.dtype, jnp.floating):
        raise BadArgument("x", "be floats of shape [M, *S], M > 0", Words(f"{points.dtype} of shape {points.shape}"))
    network = as_logits_fn(features, "features")
    flat = map_rows(_call, network, points, batch=batch).reshape(len(points), -1).astype(np.float64)
    if not np.isfinite(flat).all():
        raise BadArgument("features", "give finite numbers for all of x")
    mean, scale = flat.mean(0), deviations(flat) * np.sqrt(flat.shape[1])
    kept = wide(points.dtype)
    dtype = jax.dtypes.canonicalize_dtype(kept)
    density = fit(((flat - mean) / scale).astype(kept), y, **options)
    return FeatureDensity(network, jnp.asarray(mean, dtype), jnp.asarray(scale, dtype), density)


def _call(features: Callable[[Array], Array], x: Array) -> Array:
    return features(x)
