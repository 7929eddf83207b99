"""Kernel density estimates, one per class: Gaussian kernels with the normaliser of D dimensions.

    log p(x | k) = log Σ_{m in class k} exp(−‖x − x_m‖² / 2h_k²)  −  log n_k − D log h_k − D/2 log 2π          (1)

The released S-CFE code divides by h where D dimensions ask for h^D, so its cross-validation oversmooths.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from invjax.core.arguments import kinds_checked
from invjax.core.errors import BadArgument, check_whole
from invjax.densities.bandwidth import leave_one_out
from invjax.densities.blocks import Local
from invjax.densities.common import check_points, evaluate, leaf, point
from invjax.densities.reference import FAR, Reference, kth_smallest
from invjax.types import Array, ArrayLike


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, eq=False)
class KDE:
    """A kernel density estimate for each class; made by :func:`fit_kde`. A pytree: leaves may be swapped."""

    reference: Reference  # the centers of the kernels
    bandwidth: Array  # [K] h_k, units of x
    neighbours: int | None = dataclasses.field(default=None, metadata={"static": True})

    def __repr__(self) -> str:
        return f"KDE({self.reference.words})"

    @property
    def classes(self) -> int:
        """K."""
        return len(self.reference.centers)

    def log_prob(self, x: Array, label: Array) -> Array:
        """Formula (1) of the module at one point x [*S] for class ``label`` [] int32 in 0 … K-1; [] in the dtype of x.

        Finite, and with a useful gradient, also far from all points. Only x has a derivative: the leaves count as
        constants. With ``neighbours`` only that many largest terms of the sum count; n_k stays.
        """
        return _log_prob(self, x, label, None)

    def held_out_log_prob(self, x: ArrayLike, y: ArrayLike) -> np.ndarray:
        """log p of points x [N, *S] of classes y [N], each without the kernel at it, if there is one; [N]."""
        return evaluate(_log_prob, self, *self.reference.find(x, y))


@kinds_checked
def fit_kde(
    x: ArrayLike, y: ArrayLike, bandwidth: float | ArrayLike | None = None, neighbours: int | None = None
) -> KDE:
    """A kernel density estimate for each class.

    Args:
      x: reference points [M, *S]; flattened to D numbers. Scale the features first: the kernels are round.
      y: their classes [M], 0 … K-1.
      bandwidth: h, in the units of x; a number, or one per class [K]. None takes for each class the maximum of the
        leave-one-out likelihood (:func:`invjax.densities.bandwidth.leave_one_out`).
      neighbours: how many nearest points of the class count at a point (more where distances tie); None for all.

    Raises:
      BadArgument: x or y malformed, a class with no point (with fewer than 2 where the bandwidth is to be found);
        ``bandwidth`` not positive, ``neighbours`` not a whole number >= 1.
    """
    data = check_points(x, y, 2 if bandwidth is None else 1, "to find a bandwidth" if bandwidth is None else "")
    if neighbours is not None:
        neighbours = check_whole("neighbours", neighbours)
    if bandwidth is None:
        spread = math.sqrt(float(data.x.var(0).mean())) or 1.0
        h = np.array([leave_one_out(data.of(label), spread) for label in range(data.classes)])
    else:
        h = np.asarray(bandwidth, np.float64)
        if (
            np.asarray(bandwidth).dtype.kind == "b"
            or h.shape not in ((), (data.classes,))
            or not np.all(np.isfinite(h) & (h > 0))
        ):
            raise BadArgument("bandwidth", f"be positive, one number or one per class [{data.classes}]", bandwidth)
        h = np.broadcast_to(h, (data.classes,))
    few = None if neighbours is None or neighbours >= data.counts.max() else neighbours
    return KDE(Reference.of(data, h), leaf(h, data), few)


def _log_prob(kde: KDE, x: Array, label: Array, skip: Array | None) -> Array:
    """Formula (1) without the kernel of index ``skip``; -1 and None leave out none."""
    x = point(x)
    reference, h = kde.reference, kde.bandwidth.astype(x.dtype)[label]
    z, mine = reference.local(x.reshape(-1), label), reference.mine(label, skip)
    total = _log_kernels(kde.neighbours, z, 1 / jnp.square(h), reference, mine)
    count = reference.counts.astype(x.dtype)[label]
    if skip is not None:
        count = jnp.maximum(count - (skip >= 0).astype(x.dtype), jnp.ones_like(count))
    return total - jnp.log(count) - x.size * (jnp.log(h) + 0.5 * math.log(2 * math.pi))


def _terms(neighbours: int | None, z: Any, precision: Array, reference: Reference, mine: Array) -> tuple[Array, Array]:
    """The exponents' maximum [] and the kernels relative to it [M], 0 where not of the class."""
    half_square = reference.squares(z, 0.5)
    nothing = -jnp.asarray(jnp.finfo(precision.dtype).max / 4, precision.dtype)
    exponent = jnp.where(mine, -precision * half_square, nothing)
    if neighbours is not None:
        near = half_square <= kth_smallest(jnp.where(mine, half_square, jnp.full_like(half_square, FAR)), neighbours)
        exponent = jnp.where(near, exponent, nothing)
    top = exponent.max()
    return top, jnp.exp(exponent - top)


@functools.partial(jax.custom_jvp, nondiff_argnums=(0,))
def _log_kernels(neighbours: int | None, z: Any, precision: Array, reference: Reference, mine: Array) -> Array:
    """``log Σ_m exp(−precision/2 ‖x − p_m‖²)`` over the points with ``mine``; z: x by ``reference.local``."""
    top, kernels = _terms(neighbours, z, precision, reference, mine)
    return top + jnp.log(kernels.sum())


@_log_kernels.defjvp
def _log_kernels_jvp(neighbours: int | None, primals: Any, tangents: Any) -> tuple[Array, Array]:
    """``−precision (x − Σ_m w_m p_m)``, w the normalised kernels: with these at hand it takes one product more."""
    z, precision, reference, mine = primals
    top, kernels = _terms(neighbours, z, precision, reference, mine)
    gradient = -precision * reference.away(kernels, z)
    step = tangents[0].away[0] if isinstance(z, Local) else tangents[0]  # that of x, the same seen from every block
    return top + jnp.log(kernels.sum()), gradient @ step
