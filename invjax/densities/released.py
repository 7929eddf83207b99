"""The densities of the released S-CFE code, errors included: for comparison with it, not for use.

They differ from those of :mod:`invjax.densities` in three ways, which the functions below describe: the normaliser of
the kernel density does not grow with the dimension (so cross-validation chooses a far too wide kernel), the mixture
gets more components than it is asked for, and the "gravity" pulls to one point that is fixed at the factual.
They are written from the formulas alone. Fits run on the host in float64; ``log_prob`` takes ONE point and traces.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from scipy.special import logsumexp

from invjax.core.config import refuse_old_names
from invjax.core.errors import BadArgument, check_seed, check_whole
from invjax.core.ranks import largest
from invjax.core.shown import short_repr
from invjax.densities.common import Points, check_points, point
from invjax.types import Array, ArrayLike

_COARSE = (0.01, 1.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0)  # bandwidths tried first, data units
_FINE = 20  # bandwidths tried next, evenly spaced in [h/2, 2h]
_FOLDS = 5
_SPREAD = 5.0  # first variance of every component of the mixture, data units squared
_LEAST_VARIANCE = 1e-6  # a component that gets this narrow starts anew


class ReleasedKDE(NamedTuple):
    """``log p_c(x) = logsumexp_i(−‖x − q_i‖² / 2h_c²) − log(n_c h_c √2π)`` over the n_c points of class c."""

    points: Array  # [M, *S]
    labels: Array  # [M] int32
    bandwidth: Array  # [K] h_c, data units
    count: Array  # [K] n_c

    __repr__ = short_repr

    @property
    def classes(self) -> int:
        """K."""
        return len(self.count)

    def log_prob(self, x: Array, label: ArrayLike) -> Array:
        """[] for one point x [*S] and its class []. No density in more than one dimension: see the normaliser."""
        x = point(x)
        h, count = jnp.asarray(self.bandwidth, x.dtype)[label], jnp.asarray(self.count, x.dtype)[label]
        square = _squares(x, self.points)
        exponent = jnp.where(self.labels == label, -square / (2 * h * h), jnp.full_like(square, -jnp.inf))
        return jax.nn.logsumexp(exponent) - jnp.log(count * h * np.sqrt(2 * np.pi).astype(x.dtype))


class ReleasedGMM(NamedTuple):
    """A mixture of J axis-parallel Gaussians per class: ``log Σ_j π_j N(x; μ_j, diag v_j)``."""

    log_weight: Array  # [K, J] log π; −inf where a class has fewer components
    mean: Array  # [K, J, *S]
    variance: Array  # [K, J, *S]

    __repr__ = short_repr

    @property
    def classes(self) -> int:
        """K."""
        return len(self.log_weight)

    def log_prob(self, x: Array, label: ArrayLike) -> Array:
        """[] for one point x [*S] and its class []."""
        x = point(x)
        mean, variance = (jnp.asarray(a, x.dtype)[label] for a in (self.mean, self.variance))
        terms = jnp.square(x - mean) / variance + jnp.log(2 * np.pi * variance).astype(x.dtype)
        log_weight = jnp.asarray(self.log_weight, x.dtype)[label]
        return jax.nn.logsumexp(log_weight - 0.5 * terms.reshape(terms.shape[0], -1).sum(1))


class ReleasedGravity(NamedTuple):
    """The pull to one point per factual: the mean of its k nearest points of a class, weighted by their density."""

    points: Array  # [M, *S]
    labels: Array  # [M] int32
    weight: Array  # [M] local density: k over the summed distances to the k nearest others of its class
    k: int | Array  # neighbours

    __repr__ = short_repr

    @property
    def classes(self) -> int:
        """K."""
        return int(jnp.max(self.labels)) + 1

    def anchor(self, x: Array, label: ArrayLike) -> Array:
        """[*S] the point g of the factual x [*S] in the class ``label``."""
        x = point(x)
        square = _squares(x, self.points)
        near = largest(jnp.where(self.labels == label, -square, -jnp.inf), self.k) & (self.labels == label)
        share = jnp.where(near, jnp.asarray(self.weight, x.dtype), jnp.zeros_like(square))
        return jnp.tensordot(share / jnp.sum(share), jnp.asarray(self.points, x.dtype), 1)

    def log_prob(self, x: Array, label: ArrayLike) -> Array:
        """``−‖x − g(x)‖²`` [], g refreshed at x: for other methods; the released one keeps g of the factual."""
        x = point(x)
        return -jnp.sum(jnp.square(x - jax.lax.stop_gradient(self.anchor(x, label))))


def fit_released_kde(x: ArrayLike, y: ArrayLike, bandwidth: ArrayLike | None = None) -> ReleasedKDE:
    """One isotropic kernel density per class, its bandwidth by five-fold cross-validation of the wrong likelihood.

    In each fold (consecutive rows) the best of nine coarse bandwidths h, then the best of 20 in [h/2, 2h], by the sum
    of ``log p`` of the rows held out; the mean of the five is used. The normaliser has ``−log h`` where d dimensions
    need ``−d log h``, so a wide kernel costs too little: on standardised data of a dozen features the answer is
    around 4, where nearly all points count alike and the density is little more than a pull to the class's mean.

    Args:
      x: [M, *S] points.
      y: [M] their classes, int, from 0.
      bandwidth: [] or [K] instead of the cross-validation, data units, > 0.

    Raises:
      BadArgument: x or y malformed, or a class with fewer than five points to cross-validate.
    """
    if bandwidth is None:
        data = check_points(x, y, _FOLDS, "to choose a bandwidth")
        chosen = np.array([_cross_validated(data.of(label)) for label in range(data.classes)])
    else:
        data = check_points(x, y)
        chosen = np.broadcast_to(np.asarray(bandwidth, np.float64), (data.classes,))
        if not (np.isfinite(chosen) & (chosen > 0)).all():
            raise BadArgument("bandwidth", "be positive", bandwidth)
    return ReleasedKDE(*_reference(data), _array(chosen), _array(data.counts))


@refuse_old_names({"iterations": "steps"})
def fit_released_gmm(
    x: ArrayLike, y: ArrayLike, components: int = 5, *, steps: int = 100, seed: int = 0
) -> ReleasedGMM:
    """One mixture of axis-parallel Gaussians per class by expectation-maximisation from k-means centers.

    k-means runs for ten counts in [components/2, 3/2·components] and the least distortion is kept. Distortion falls
    with the count, so the largest count nearly always wins: 7 components where 5 were asked for. Variances start at 5;
    1e-9 guards the divisions. A component whose variance falls to 1e-6 in a coordinate starts anew at a random point.

    Args:
      x: [M, *S] points.
      y: [M] their classes, int, from 0.
      components: what is asked for, >= 2.
      steps: of expectation-maximisation, >= 1.
      seed: draws the starts of k-means and the points at which a component starts anew.

    Raises:
      BadArgument: x or y malformed, or a class with fewer points than components.
    """
    check_whole("components", components, least=2)
    check_whole("steps", steps)
    rng = np.random.default_rng(check_seed("seed", seed))
    counts = np.unique(np.linspace(0.5 * components, 1.5 * components, 10).astype(int))
    data = check_points(x, y, int(counts[-1]), "to fit a mixture")
    fits = []
    for own in map(data.of, range(data.classes)):
        centers = min((_k_means(own, int(k), rng) for k in counts), key=lambda found: found[0])[1]
        fits.append(_expectation_maximisation(own, centers, steps, rng))
    most = max(len(weight) for weight, _, _ in fits)
    log_weight = np.full((len(fits), most), -np.inf)
    mean, variance = np.zeros((len(fits), most, *data.shape)), np.ones((len(fits), most, *data.shape))
    for c, (weight, *moments) in enumerate(fits):
        log_weight[c, : len(weight)] = np.log(weight)
        mean[c, : len(weight)], variance[c, : len(weight)] = (a.reshape(-1, *data.shape) for a in moments)
    return ReleasedGMM(_array(log_weight), _array(mean), _array(variance))


def fit_released_gravity(x: ArrayLike, y: ArrayLike, k: int = 20) -> ReleasedGravity:
    """Local densities of the points for the fixed pull, by k neighbours.

    x: [M, *S] points; y: [M] their classes, int, from 0; k: at least 1. Raises BadArgument about x and y where they are
    malformed or a class has fewer than k + 1 points.
    """
    k = check_whole("k", k)
    data = check_points(x, y, k + 1, f"k = {k} others")
    weight = np.zeros(len(data.y))
    for label in range(data.classes):
        own = data.of(label)
        nearest = np.sort(np.sqrt(_host_squares(own, own)), axis=1)[:, 1 : k + 1]  # without the point itself
        weight[data.y == label] = k / np.maximum(nearest.sum(1), np.finfo(np.float32).eps)
    return ReleasedGravity(*_reference(data), _array(weight), k)


def _squares(x: Array, points: Array) -> Array:
    """[M] squared distances of one point to all, as ``‖q‖² − 2 q·x + ‖x‖²``: one matrix product over all the lanes.

    The rounding, about eps·‖x‖², is far below the squares of the bandwidths that are chosen here.
    """
    rows, row = jnp.asarray(points, x.dtype).reshape(points.shape[0], -1), x.reshape(-1)
    inner = jnp.matmul(rows, row, precision=jax.lax.Precision.HIGHEST)
    square = jnp.sum(jnp.square(rows), axis=1) - 2 * inner + jnp.sum(jnp.square(row))
    return jnp.maximum(square, jnp.zeros_like(square))


def _array(a: np.ndarray) -> Array:
    return jnp.asarray(a, jnp.result_type(float))


def _reference(data: Points) -> tuple[Array, Array]:
    """The points [M, *S] and their labels [M]."""
    return _array(data.x.reshape(-1, *data.shape)), jnp.asarray(data.y)


def _host_squares(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """[A, B] squared distances, float64."""
    square = (a * a).sum(1)[:, None] + (b * b).sum(1) - 2 * a @ b.T
    return np.maximum(square, 0)


def _cross_validated(points: np.ndarray) -> float:
    """The mean over the folds of the best bandwidth for the points of one class."""
    chosen = []
    for held in np.array_split(np.arange(len(points)), _FOLDS):
        rest = np.delete(points, held, axis=0)
        square = _host_squares(points[held], rest)

        def score(h: float, square: np.ndarray = square) -> float:
            return float((logsumexp(-square / (2 * h * h), axis=1) - np.log(h)).sum())

        coarse = max(_COARSE, key=score)
        chosen.append(max(np.linspace(coarse / 2, 2 * coarse, _FINE).tolist(), key=score))
    return float(np.mean(chosen))


def _k_means(points: np.ndarray, k: int, rng: np.random.Generator) -> tuple[float, np.ndarray]:
    """Distortion and centers [k, D] of Lloyd's iteration from random points."""
    centers = points[rng.choice(len(points), k, replace=False)]
    owner = np.full(len(points), -1)
    for _ in range(100):
        nearest = _host_squares(points, centers).argmin(1)
        if (nearest == owner).all():
            break
        owner = nearest
        centers = np.stack([points[owner == j].mean(0) if (owner == j).any() else centers[j] for j in range(k)])
    return float(_host_squares(points, centers).min(1).sum()), centers


def _expectation_maximisation(
    points: np.ndarray, mean: np.ndarray, steps: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Weights [J], means [J, D] and variances [J, D]."""
    weight, variance, tiny = np.full(len(mean), 1 / len(mean)), np.full(mean.shape, _SPREAD), 1e-9
    for _ in range(steps):
        terms = np.square(points[:, None] - mean) / variance + np.log(2 * np.pi * variance)
        joint = np.log(weight) - 0.5 * terms.sum(2)
        share = np.exp(joint - logsumexp(joint, axis=1, keepdims=True))  # [M, J]
        total = share.sum(0) + tiny
        mean = share.T @ points / total[:, None]
        variance = (share[:, :, None] * np.square(points[:, None] - mean)).sum(0) / total[:, None] + tiny
        weight = total / total.sum()
        narrow = (variance <= _LEAST_VARIANCE).any(1)
        mean[narrow], variance[narrow] = points[rng.integers(len(points), size=narrow.sum())], _SPREAD
    return weight, mean, variance
