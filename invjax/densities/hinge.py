"""Plausible enough is enough: a log density cut at a quantile of the training points' own.

    log q(x | k) = min(0, log p(x | k) − q_α[k])          q_α[k] the α-quantile of log p(x_i | k) over class k     (1)

An unbounded −τ log p pulls every answer to the mode, and its scale grows with D. (1) is 0, with gradient 0, wherever x
is at least as dense as the least dense share α of its class, so τ weighs only what is missing. The threshold is that of
PPCEF (Wielopolski et al., ECAI 2024) and of Artelt and Hammer (2020).
"""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from invjax.core.arguments import kinds_checked
from invjax.core.config import refuse_old_names
from invjax.core.density import check_density
from invjax.core.errors import check
from invjax.densities.common import check_points, own_log_prob, point
from invjax.types import Array, ArrayLike, Density


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, eq=False)
class Hinge:
    """A density cut at a threshold per class; made by :func:`hinge`."""

    density: Density
    threshold: Array  # [K] q_α

    def __repr__(self) -> str:
        return f"Hinge({self.density!r})"

    @property
    def classes(self) -> int:
        """K."""
        return len(self.threshold)

    def log_prob(self, x: Array, label: Array) -> Array:
        """Formula (1) of the module at one point x [*S], class ``label`` [] int32; [], at most 0."""
        value = self.density.log_prob(point(x), label)
        short = value - self.threshold.astype(value.dtype)[label]
        return jnp.minimum(short, jnp.zeros_like(short))


@kinds_checked
@refuse_old_names({"alpha": "quantile"})
def quantiles(density: Density, x: ArrayLike, y: ArrayLike, quantile: float = 0.25) -> Array:
    """The α-quantile of ``density.log_prob(x_i, y_i)`` over each class of y; [K], in the dtype of x.

    A density made of the points themselves (KDE, kNN, LOF) leaves out the very point that it is asked about
    (``held_out_log_prob``): if it counted itself, each training point would look denser than any new one can. Fitted
    models (GMM, VAE, flow) are taken as they are; an honest threshold needs points that they were not fitted to.

    Args:
      x: points [N, *S], y: their classes [N], each of 0 … K-1 at least once.
      quantile: α, in [0, 1].

    Raises:
      BadArgument: x or y malformed, a class without a point, quantile outside [0, 1].
    """
    data = check_points(x, y)
    check("quantile", quantile, lambda share: 0 <= share <= 1, "in [0, 1]")
    check_density(density, data.shape, data.dtype, data.y)
    values = own_log_prob(density, data.x.astype(data.dtype).reshape(-1, *data.shape), data.y)
    per_class = [np.quantile(values[data.y == label].astype(np.float64), quantile) for label in range(data.classes)]
    return jnp.asarray(np.stack(per_class), data.dtype)


@kinds_checked
@refuse_old_names({"alpha": "quantile"})
def hinge(density: Density, x: ArrayLike, y: ArrayLike, quantile: float = 0.25) -> Hinge:
    """``min(0, log p − q_α[label])`` with q_α from the points x [N, *S], y [N]: see :func:`quantiles`.

    quantile: α, the share of the points of each class that count as not plausible enough.
    """
    return Hinge(density, quantiles(density, x, y, quantile))
