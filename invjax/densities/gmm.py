"""Gaussian mixtures, one per class.

log p(x | k) = log Σ_c w_kc N(x; μ_kc, Σ_kc)                                                                  (1)
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any, Literal, get_args

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import logsumexp

from invjax.core.arguments import kinds_checked
from invjax.core.errors import BadArgument, check, check_choice, check_key, check_number, check_whole
from invjax.core.shown import many
from invjax.densities.common import check_points, deviations, leaf, point
from invjax.densities.em import fit_classes
from invjax.types import Array, ArrayLike

Covariance = Literal["full", "diag"]
_NONE = -1e30  # the log weight of a component that is not there


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, eq=False)
class GMM:
    """A mixture for each class; made by :func:`fit_gmm` or :func:`from_sklearn`."""

    constant: Array  # [K, C] log w + log |factor| − D/2 log 2π
    mean: Array  # [K, C, D] less the center
    factor: Array  # [K, C, D, D] with factor factor' = the precision; diagonal: [K, C, D], its square root
    center: Array  # [D] of all points

    def __repr__(self) -> str:
        classes, components, features = np.shape(self.mean)[-3:] if np.ndim(self.mean) > 2 else (0, 0, 0)
        return f"GMM({many(components, 'component')} in each of {many(classes, 'class')}, {many(features, 'feature')})"

    @property
    def classes(self) -> int:
        """K."""
        return len(self.mean)

    def log_prob(self, x: Array, label: Array) -> Array:
        """Formula (1) of the module at one point x [*S] for class ``label`` [] int32 in 0 … K-1; [].

        With full covariances batched points meet the factors of all classes in one matrix product; if they were
        gathered by class, each lane would copy C D² numbers.
        """
        x = point(x)
        dtype = x.dtype
        z = x.reshape(-1) - self.center.astype(dtype)
        mean, factor = self.mean.astype(dtype), self.factor.astype(dtype)
        if factor.ndim == 3:
            white = (z - mean[label]) * factor[label]
        else:
            classes, components, size = mean.shape
            flat = factor.transpose(2, 0, 1, 3).reshape(size, -1)
            shift = jnp.einsum("kcd,kcde->kce", mean, factor)  # constant in a loop: computed once before it
            white = ((z @ flat).reshape(classes, components, size) - shift)[label]
        return logsumexp(self.constant.astype(dtype)[label] - 0.5 * jnp.square(white).sum(-1))


@kinds_checked
def fit_gmm(
    x: ArrayLike,
    y: ArrayLike,
    components: int = 5,
    covariance: Covariance = "full",
    *,
    floor: float = 1e-3,
    restarts: int = 3,
    steps: int = 200,
    tolerance: float = 1e-4,
    key: Array | None = None,
) -> GMM:
    """A Gaussian mixture for each class, by expectation maximisation from k-means++.

    Args:
      x: reference points [M, *S]; flattened to D numbers. y: their classes [M], 0 … K-1.
      components: Gaussians per class.
      covariance: "full" (D² numbers per component: for tables) or "diag" (for images).
      floor: least variance of a component in any direction, relative to the variance of each feature over all points
        (of a constant feature: to the mean variance). It keeps singular covariances proper.
      restarts: runs from different starts; the most likely is kept. steps: the most steps of each run, which ends
        when the mean log-likelihood rises by less than ``tolerance``.
      key: draws the starts; ``jax.random.key(0)`` by default.

    Raises:
      ValueError: x or y malformed, a class with fewer points than components, an argument out of range.
    """
    components, restarts = check_whole("components", components), check_whole("restarts", restarts)
    check_whole("steps", steps)
    check_choice("covariance", covariance, get_args(Covariance))
    check_number("tolerance", tolerance, lambda v: v >= 0, "a number >= 0")
    check("floor", floor, lambda share: 0 < share < 1, "in (0, 1)")
    data = check_points(x, y, components, f"{components} components")
    # Standardised, so that k-means weighs features alike and float32 holds every scale.
    center, scale = data.x.mean(0), deviations(data.x)
    rows, real = data.padded()
    rows = np.where(real[..., None], (rows - center) / scale, 0.0)
    keys = jax.random.split(check_key(key), (data.classes, restarts))
    mixture, values = fit_classes(
        leaf(rows, data),
        leaf(real, data),
        keys,
        leaf(np.full(len(center), floor), data),
        leaf(tolerance, data),
        components=components,
        full=covariance == "full",
        steps=jnp.asarray(steps, jnp.int32),
    )
    if not np.isfinite(values).all():
        raise BadArgument("floor", "be larger", hint=f"no start gave a finite likelihood with {floor!r}")
    factor = np.asarray(mixture.factor, np.float64)
    factor = factor / scale if covariance == "diag" else factor / scale[:, None]
    constant = np.asarray(mixture.log_weight, np.float64) + np.asarray(mixture.log_det, np.float64)
    constant = constant - np.log(scale).sum() - len(scale) / 2 * math.log(2 * math.pi)
    mean = np.asarray(mixture.mean, np.float64) * scale
    return GMM(leaf(constant, data), leaf(mean, data), leaf(factor, data), leaf(center, data))


def from_sklearn(mixtures: Sequence[Any], dtype: Any = None) -> GMM:
    """The mixtures fitted by scikit-learn, one ``GaussianMixture`` (any covariance type) per class, as a :class:`GMM`.

    dtype: of the leaves; None: jax's default float.

    Raises:
      ValueError: no mixture, one not fitted, or mixtures of different numbers of features.
    """
    if not len(mixtures):
        raise BadArgument("mixtures", "hold one fitted GaussianMixture per class", mixtures)
    for label, one in enumerate(mixtures):
        if not hasattr(one, "precisions_cholesky_"):
            raise BadArgument(f"mixtures[{label}]", "be a fitted GaussianMixture", one)
    sizes = {one.means_.shape[1] for one in mixtures}
    if len(sizes) > 1:
        raise BadArgument("mixtures", "have the same number of features", sorted(sizes))
    (size,) = sizes
    most = max(len(one.weights_) for one in mixtures)
    diagonal = all(one.covariance_type in ("diag", "spherical") for one in mixtures)
    constant = np.full((len(mixtures), most), _NONE)
    mean = np.zeros((len(mixtures), most, size))
    factor = np.zeros((len(mixtures), most, size) if diagonal else (len(mixtures), most, size, size))
    for label, one in enumerate(mixtures):
        count, root = len(one.weights_), np.asarray(one.precisions_cholesky_, np.float64)
        if one.covariance_type == "tied":
            root = np.broadcast_to(root, (count, size, size))
        elif one.covariance_type == "spherical":
            root = np.broadcast_to(root[:, None], (count, size))
        diagonals = root if root.ndim == 2 else np.diagonal(root, axis1=1, axis2=2)
        weight = np.log(np.maximum(one.weights_, 1e-300)) - size / 2 * math.log(2 * math.pi)
        constant[label, :count] = weight + np.log(diagonals).sum(1)
        mean[label, :count] = one.means_
        factor[label, :count] = root if diagonal or root.ndim == 3 else root[:, :, None] * np.eye(size)
    center = np.stack([one.weights_ @ one.means_ for one in mixtures]).mean(0)
    dtype = jnp.result_type(float) if dtype is None else dtype
    return GMM(*(jnp.asarray(array, dtype) for array in (constant, mean - center, factor, center)))
