"""What a row may become without a FeatureSpace: the box, the mask and the groups of the problem. Any shape."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp

from invjax import prox as maps
from invjax.core.ranks import largest
from invjax.penalties import PenaltyName, elementwise
from invjax.types import Array, ArrayLike, Problem


@dataclasses.dataclass(frozen=True)
class PlainRow:
    """The maps of one input x [*S]: see :func:`invjax.constraints.actions`.

    Units of change (for ``changed``, the l0 penalty and max_changes) are the coordinates, or the groups where the
    problem has some: labels in 0..n−1 of n coordinates. The other penalties are elementwise. Every cost is 1.
    """

    exact: ClassVar[bool] = True
    column_cost: ClassVar[float] = 1.0
    x: Array  # [*S]
    lower: Array  # [*S]
    upper: Array  # [*S]
    groups: Array | None  # [*S] int32

    def prox(
        self, v: Array, w: ArrayLike, penalty: PenaltyName = "none", max_changes: ArrayLike | None = None
    ) -> Array:
        """``argmin_u 1/2 ‖u − v‖² + w Σ φ(u − x)`` in the box, with at most max_changes units changed. [*S] -> [*S]."""
        y, low, high = v - self.x, self.lower - self.x, self.upper - self.x
        grouped_l0 = penalty == "l0" and self.groups is not None
        weight = jnp.asarray(w, v.dtype)
        c = elementwise("none" if grouped_l0 else penalty).prox(y, weight, lower=low, upper=high)
        if grouped_l0 or max_changes is not None:
            # What a change saves in the objective, less what the penalty charges for it.
            gain = c * (2 * y - c) / 2
            if penalty != "none" and not grouped_l0:
                gain = gain - weight * elementwise(penalty).phi(c)
            gain = self._per_unit(gain)
            if grouped_l0:
                gain = gain - weight * self._per_unit((c != 0).astype(v.dtype), most=True)
            keep = gain > 0
            if max_changes is not None:
                keep &= largest(gain, max_changes)
            c = jnp.where(self._spread(keep), c, jnp.zeros_like(c))
        u = jnp.where(c == 0, self.x, jnp.clip(self.x + c, self.lower, self.upper))
        return maps.keep_nan(v, u)

    def pinned(self, keep: Array) -> PlainRow:
        """The row with only the units of keep [n] free."""
        free = self._spread(keep)
        low, high = jnp.where(free, self.lower, self.x), jnp.where(free, self.upper, self.x)
        return dataclasses.replace(self, lower=low, upper=high)

    def project(self, v: Array) -> Array:
        """The nearest point of the box."""
        return jnp.clip(v, self.lower, self.upper)

    def snap(self, v: Array, max_changes: ArrayLike | None = None) -> Array:
        """The nearest feasible point with at most max_changes units changed."""
        return self.prox(v, 0.0, "none", max_changes)

    def satisfied(self, u: Array) -> Array:
        """[] bool: u is in the box and unchanged where masked."""
        return jnp.all((u >= self.lower) & (u <= self.upper))

    def changed(self, u: Array) -> Array:
        """bool [n]: each coordinate, flat, or each group label."""
        return self._per_unit((u != self.x).astype(jnp.int32), most=True) > 0

    def cost(self, u: Array) -> Array:
        """[] ``‖u − x‖_1``."""
        return jnp.sum(jnp.abs(u - self.x))

    def penalty(self, u: Array, penalty: PenaltyName) -> Array:
        """[] ``Σ φ(u − x)``; a group counts once in l0."""
        if penalty == "l0":
            return jnp.sum(self.changed(u)).astype(u.dtype)
        return jnp.sum(elementwise(penalty).phi(u - self.x))

    def _per_unit(self, a: Array, *, most: bool = False) -> Array:
        """[*S] -> [n], the sum over each unit, or with ``most`` the maximum of nonnegative values."""
        if self.groups is None:
            return a.reshape(-1)
        flat, labels = a.reshape(-1), self.groups.reshape(-1)
        if not most:
            return jax.ops.segment_sum(flat, labels, a.size)
        return jnp.maximum(
            jax.ops.segment_max(flat, labels, a.size), jnp.zeros((), a.dtype)
        )  # 0 for labels that are not used

    def _spread(self, units: Array) -> Array:
        """[n] -> [*S]."""
        return units.reshape(self.x.shape) if self.groups is None else units[self.groups]


def plain_row(problem: Problem) -> PlainRow:
    """The maps of ``problem`` without constraints."""
    x = problem.x
    lower = jnp.broadcast_to(jnp.asarray(problem.lower, x.dtype), x.shape)
    upper = jnp.broadcast_to(jnp.asarray(problem.upper, x.dtype), x.shape)
    if problem.mask is not None:
        lower, upper = jnp.where(problem.mask, lower, x), jnp.where(problem.mask, upper, x)
    return PlainRow(x, lower, upper, problem.groups)
