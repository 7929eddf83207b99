"""The local outlier factor of a point with respect to a class, and its differentiable form as a plausibility.

    LOF(x) = mean_o lrd(o) · mean_o reach(x, o)   reach(x, o) = max(d_k(o), ‖x − o‖)   lrd(o) = 1 / mean reach(o)   (1)
    log q(x | k) = −max(0, LOF_soft(x) − 1)                                                                          (2)

means over the k nearest points o of the class (Breunig, Kriegel, Ng, Sander, SIGMOD 2000); about 1 inside a cloud of
points, larger outside. In LOF_soft the means are weighted with

    w_o = clip((R² − ‖x − o‖²) / (s (R² − r²)), 0, 1)

with R the distance of the (k+1)-th nearest, r that of the nearest and s the softness. A neighbour fades before another
takes its place, so (2) is continuous, with a gradient almost everywhere. For s → 0 it is the hard mean of (1).
"""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from invjax.core.arguments import kinds_checked
from invjax.core.errors import check, check_whole
from invjax.core.numerics import safe_sqrt
from invjax.densities.common import check_points, evaluate, leaf, point
from invjax.densities.reference import FAR, Reference, kth_smallest, neighbours_of, small_distance
from invjax.types import Array, ArrayLike


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, eq=False)
class LOF:
    """The points with their k-distance and local reachability density; made by :func:`fit_lof`."""

    reference: Reference
    distance: Array  # [M] d_k(o), to the k-th nearest other point of the class
    reachability: Array  # [M] lrd(o)
    capped: Array  # [M] lrd(o), at most a thousand times the median of the class: what (2) uses
    softness: Array  # [] s
    k: int = dataclasses.field(metadata={"static": True})

    def __repr__(self) -> str:
        return f"LOF(k={self.k}: {self.reference.words})"

    @property
    def classes(self) -> int:
        """K."""
        return len(self.reference.centers)

    def log_prob(self, x: Array, label: Array) -> Array:
        """Formula (2) of the module at one point x [*S], class ``label`` [] int32; [], at most 0."""
        return _log_prob(self, x, label, None)

    def score(self, x: Array, label: Array) -> Array:
        """Formula (1), the hard factor, of one point [*S]; [].

        It is ``-score_samples`` of scikit-learn's LocalOutlierFactor(n_neighbors=k, novelty=True) fitted to the class
        (where distances tie, all the tied count). A point of the fit is then its own neighbour.
        """
        x = point(x)
        square = _squares(self, x, label, None)
        near = (square <= kth_smallest(square, self.k)).astype(x.dtype)
        reach = jnp.maximum(self.distance.astype(x.dtype), safe_sqrt(square))
        count = near.sum()
        return (near @ self.reachability.astype(x.dtype) / count) * (near @ reach / count + 1e-10)

    def held_out_log_prob(self, x: ArrayLike, y: ArrayLike) -> np.ndarray:
        """Formula (2) of points x [N, *S] of classes y [N], none of which is its own neighbour; [N]."""
        return evaluate(_log_prob, self, *self.reference.find(x, y))


@kinds_checked
def fit_lof(x: ArrayLike, y: ArrayLike, k: int = 20, softness: float = 0.5) -> LOF:
    """The local outlier factor with respect to each class: see the formulas of the module.

    Args:
      x: reference points [M, *S], y: their classes [M], 0 … K-1.
      k: neighbours.
      softness: s in (0, 1]: the share of the range of squared distances over which a neighbour fades.

    Raises:
      ValueError: x or y malformed, a class with fewer than k + 1 points, k or softness out of range.
    """
    k = check_whole("k", k)
    check("softness", softness, lambda share: 0 < share <= 1, "in (0, 1]")
    data = check_points(x, y, k + 1, f"k = {k} others")
    distance, reachability = np.zeros(len(data.y)), np.zeros(len(data.y))
    capped, least = np.zeros(len(data.y)), np.zeros(data.classes)
    for label in range(data.classes):
        own = data.y == label
        index, near = neighbours_of(data.of(label), k)
        reach = np.maximum(near[:, -1][index], near).mean(1)
        distance[own], reachability[own] = near[:, -1], 1 / (reach + 1e-10)
        least[label] = small_distance(near[:, -1])
        usual = float(np.median(reach[reach > 0])) if (reach > 0).any() else 1.0
        capped[own] = 1 / np.maximum(reach, 1e-3 * usual)
    reference, softened = Reference.of(data, least), leaf(softness, data)
    return LOF(reference, leaf(distance, data), leaf(reachability, data), leaf(capped, data), softened, k)


def _squares(lof: LOF, x: Array, label: Array, skip: Array | None) -> Array:
    squares = lof.reference.squares(lof.reference.local(x.reshape(-1), label))
    return jnp.where(lof.reference.mine(label, skip), squares, jnp.asarray(FAR, x.dtype))


def _log_prob(lof: LOF, x: Array, label: Array, skip: Array | None) -> Array:
    x = point(x)
    square = _squares(lof, x, label, skip)
    outer, inner = kth_smallest(square, min(lof.k + 1, square.size)), square.min()
    # Where all are equally far the ramp has no length; a little of the outer radius (and of 1) stands in.
    slack = 1e-6 * jax.lax.stop_gradient(jnp.minimum(outer, jnp.ones_like(outer))) + 1e-12
    ramp = (outer - square + slack) / (lof.softness.astype(x.dtype) * (outer - inner) + slack)
    inside = (square <= outer) & (square < FAR)
    weight = jnp.where(inside, jnp.minimum(ramp, jnp.ones_like(ramp)), jnp.zeros_like(ramp))
    reach = jnp.maximum(lof.distance.astype(x.dtype), safe_sqrt(square))
    total = weight.sum()
    factor = (weight @ lof.capped.astype(x.dtype) / total) * (weight @ reach / total)
    return -jnp.maximum(factor - 1, jnp.zeros_like(factor))
