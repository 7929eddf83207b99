"""Distances between an input and its counterfactual, and their fits from data.

With r = x' − x [*S]:

    SquaredL2       d(r) = ‖r‖²                          (1)
    MadL1           d(r) = Σ_j |r_j| / m_j               (2)   m: median absolute deviations (Wachter et al. 2017)
    Mahalanobis     d(r) = ‖F r‖² = rᵀ Σ⁻¹ r             (3)   F: FᵀF = Σ⁻¹

Each is a registered pytree, so its numbers are traced and it can be a field of a method's configuration. At r = 0 all
are finite with the (sub)gradient 0.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from invjax.core.arguments import kinds_checked
from invjax.core.config import config, require
from invjax.core.errors import BadArgument, check_number, of_shape
from invjax.core.shown import short_repr
from invjax.types import Array, ArrayLike


@config
class SquaredL2:
    """(1), in data units squared."""

    def value(self, r: Array) -> Array:
        """[] the distance of a change r [*S]."""
        return jnp.sum(jnp.square(r))


@config
class MadL1:
    """(2): the l1 norm in units of each feature's own spread. Differentiable wherever no r_j is 0.

    Fields:
      mad: the spread m of each coordinate, a number or an array that broadcasts to [*S], data units, > 0.
    """

    mad: ArrayLike = 1.0

    __repr__ = short_repr

    def check(self) -> None:
        require(self, "mad", lambda v: bool(np.all(np.isfinite(v)) and np.all(np.asarray(v) > 0)), "finite and > 0")

    @property
    def weights(self) -> Array:
        """1 / m: the weights of the l1 norm, as a proximal map wants them."""
        return 1 / jnp.asarray(self.mad)

    def value(self, r: Array) -> Array:
        """[] the distance of a change r [*S]."""
        # |r| with the derivative sign(r), 0 at 0 (that of jnp.abs is 1 there, and would push along the diagonal).
        magnitude = r * jax.lax.stop_gradient(jnp.sign(r))
        return jnp.sum(magnitude / jnp.asarray(self.mad, r.dtype))


@config
class Mahalanobis:
    """(3): a change along which the data varies is short, one across it is long.

    Fields:
      factor: F [D, D] with D = prod(S), per data unit; FᵀF is the inverse covariance.
    """

    factor: ArrayLike

    __repr__ = short_repr

    def check(self) -> None:
        def square(v: ArrayLike) -> bool:
            v = np.asarray(v)
            return bool(v.ndim == 2 and v.shape[0] == v.shape[1] and np.isfinite(v).all())

        require(self, "factor", square, "a finite square matrix [D, D]")

    def value(self, r: Array) -> Array:
        """[] the distance of a change r [*S]."""
        return jnp.sum(jnp.square(jnp.asarray(self.factor, r.dtype) @ r.reshape(-1)))


Proximity = SquaredL2 | MadL1 | Mahalanobis


def check(owner: Any) -> None:
    """Raise ValueError unless ``owner.proximity`` is a proximity with sound numbers."""
    require(owner, "proximity", lambda v: isinstance(v, Proximity), "a SquaredL2, MadL1 or Mahalanobis")
    if not isinstance(owner.proximity, SquaredL2):
        owner.proximity.check()


@kinds_checked
def fit_mad(x: ArrayLike) -> MadL1:
    """:class:`MadL1` with the median absolute deviation of each coordinate of the reference points x [M, *S].

    The median deviation of a column that is mostly one value (a one-hot column, a count) is 0, which would forbid any
    change. There the mean absolute deviation takes its place, and 1 where the column is constant. (DiCE takes 1 for
    both, which makes such columns depend on their units.) Raises ValueError if x holds no row or is not finite.
    """
    x = _reference(x)
    deviation = np.abs(x - np.median(x, axis=0))
    median, mean = np.median(deviation, axis=0), deviation.mean(axis=0)
    mad = np.where(median > 0, median, np.where(mean > 0, mean, 1.0))
    return MadL1(mad.astype(x.dtype))


@kinds_checked
def fit_mahalanobis(x: ArrayLike, ridge: float = 1e-3) -> Mahalanobis:
    """:class:`Mahalanobis` with the covariance of the reference points x [M, *S].

    ridge: share of the mean variance that is added to every variance, > 0. Without it, the covariance has no inverse if
    a column is constant or there are fewer points than columns. Raises ValueError on fewer than two rows or ridge <= 0.
    """
    x = _reference(x)
    if len(x) < 2:
        raise BadArgument("x", f"hold at least two reference points, held {len(x)}")
    check_number("ridge", ridge, lambda v: v > 0, "a number > 0")
    flat = x.reshape(len(x), -1).astype(np.float64)
    covariance = np.atleast_2d(np.cov(flat, rowvar=False))
    mean = float(np.trace(covariance)) / len(covariance)
    covariance = covariance + ridge * (mean if mean > 0 else 1.0) * np.eye(len(covariance))
    factor = np.linalg.inv(np.linalg.cholesky(covariance))
    return Mahalanobis(factor.astype(x.dtype))


def _reference(x: ArrayLike) -> np.ndarray:
    """Reference points [M, *S] in a floating dtype."""
    points = np.asarray(x)
    points = points if np.issubdtype(points.dtype, np.floating) else points.astype(np.float32)
    if points.ndim < 2 or not len(points) or not np.isfinite(points).all():
        raise BadArgument("x", "be finite reference points [M, *S] with M >= 1", of_shape(points.shape))
    return points
