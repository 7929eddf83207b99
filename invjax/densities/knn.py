"""Density gravity: the pull towards the local-density-weighted centroid of the nearest points of a class.

    log q(x | k) = −‖x − g(x)‖²          g(x) = Σ_i w_i x_i / Σ_i w_i          w_i = a_i (R² − ‖x − x_i‖²)₊          (1)

over the points x_i of class k, with R the distance of the (k+1)-th nearest to x and a_i the local density of x_i: k
over the sum of the distances to its own k nearest. So exactly k points count, and a point that leaves the k nearest
leaves with weight 0, which keeps g continuous. log q is not a normalised density.

Deviation: S-CFE's released code takes the k nearest at the factual, with weights a_i alone, and keeps g fixed there.
Here g is refreshed at x, and the derivative is that of all of (1), through the weights and R too, so that a line search
or a monotone safeguard sees the gradient of what it measures.
"""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from invjax.core.arguments import kinds_checked
from invjax.core.errors import check_whole
from invjax.densities.common import check_points, evaluate, leaf, point
from invjax.densities.reference import FAR, Reference, kth_smallest, neighbours_of, small_distance
from invjax.types import Array, ArrayLike


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, eq=False)
class KNN:
    """The points, their local densities, and k; made by :func:`fit_knn`."""

    reference: Reference
    local: Array  # [M] a_i relative to the mean of the class
    scale: Array  # [K] mean squared distance to the k-th nearest
    k: int = dataclasses.field(metadata={"static": True})

    def __repr__(self) -> str:
        return f"KNN(k={self.k}: {self.reference.words})"

    @property
    def classes(self) -> int:
        """K."""
        return len(self.reference.centers)

    def log_prob(self, x: Array, label: Array) -> Array:
        """Formula (1) of the module at one point x [*S], class ``label`` [] int32; [] in units of x squared, <= 0."""
        return _log_prob(self, x, label, None)

    def gravity_point(self, x: Array, label: Array) -> Array:
        """g(x) [*S] of formula (1): the centroid that pulls x [*S] into class ``label``."""
        x = point(x)
        return x - _away(self, x.reshape(-1), label, None).reshape(x.shape)

    def held_out_log_prob(self, x: ArrayLike, y: ArrayLike) -> np.ndarray:
        """log q of points x [N, *S] of classes y [N], each without the reference point that it is, if any; [N]."""
        return evaluate(_log_prob, self, *self.reference.find(x, y))


@kinds_checked
def fit_knn(x: ArrayLike, y: ArrayLike, k: int = 20) -> KNN:
    """The density gravity of each class: see formula (1) of the module.

    Args:
      x: reference points [M, *S], y: their classes [M], 0 … K-1.
      k: how many nearest points of the class pull.

    Raises:
      ValueError: x or y malformed, a class with fewer than k + 1 points, k not a whole number >= 1.
    """
    k = check_whole("k", k)
    data = check_points(x, y, k + 1, f"k = {k} others")
    local, scale, least = np.zeros(len(data.y)), np.zeros(data.classes), np.zeros(data.classes)
    for label in range(data.classes):
        distance = neighbours_of(data.of(label), k)[1]
        total = distance.sum(1)
        # A point with k copies has no distance at all; its density is cut at a thousand times the usual.
        typical = float(np.median(total[total > 0])) if (total > 0).any() else 1.0
        density = 1 / np.maximum(total, 1e-3 * typical)
        local[data.y == label] = density / density.mean()
        least[label] = small_distance(distance[:, -1])
        scale[label] = max(float(np.square(distance[:, -1]).mean()), (typical / k) ** 2)
    return KNN(Reference.of(data, least), leaf(local, data), leaf(scale, data), k)


def _away(knn: KNN, x: Array, label: Array, skip: Array | None) -> Array:
    """x − g(x) [D] of one point x [D]."""
    reference, z = knn.reference, knn.reference.local(x, label)
    square = jnp.where(reference.mine(label, skip), reference.squares(z), jnp.asarray(FAR, x.dtype))
    reach = kth_smallest(square, min(knn.k + 1, square.size))
    # A millionth of the usual square keeps the sum above 0 where k + 1 points are equally far.
    slack = 1e-6 * knn.scale.astype(x.dtype)[label]
    inside = (square <= reach) & (square < FAR)
    weight = knn.local.astype(x.dtype) * jnp.where(inside, reach - square + slack, jnp.zeros_like(square))
    weight = weight / jax.lax.stop_gradient(weight.max())  # no overflow, whatever the units
    return reference.away(weight, z)


def _log_prob(knn: KNN, x: Array, label: Array, skip: Array | None) -> Array:
    return -jnp.square(_away(knn, point(x).reshape(-1), label, skip)).sum()
