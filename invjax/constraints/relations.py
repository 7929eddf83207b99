"""Relations of one row: the joint proximal map with ``A u <= b``, and the repair of a point that breaks them.

    argmin_u  1/2 ‖u − v‖² + g(u)     subject to  A u <= b,      g separable and convex (box, simplex, l1)     (1)

Where no two relations share a feature, the answer is ``prox_g(v − A^T t)`` with one multiplier t_r >= 0 per relation.
Each multiplier is the root of a function that does not rise in t_r, so all are bisected at once. Otherwise (1) is
solved by the Dykstra-like splitting of Bauschke and Combettes (2008, Pacific J. Optim. 4(3)) with a fixed number of
sweeps, the last of which ends with prox_g.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp

from invjax import prox as maps
from invjax.constraints.compiled import Constraints
from invjax.types import Array

_SWEEPS = 32


@dataclasses.dataclass(frozen=True)
class Coupling:
    """The relations of one row."""

    constraints: Constraints
    x: Array  # [D]

    def solve(self, v: Array, g: Callable[[Array], Array], slope: Array, low: Array, high: Array) -> Array:
        """(1) with ``b`` relaxed so that x itself fits. g: prox_g; slope: [D] the largest |subgradient| of g."""
        matrix, aim = self._matrix(v), self._aim(v)
        aim = jnp.maximum(aim, self._left(matrix, self.x))
        return self._joint(v, g, slope, low, high, matrix, aim)

    def alone(self, low: Array, high: Array) -> tuple[Array, Array]:
        """The limits [D] of each column while all others stay at x."""
        matrix = self._matrix(self.x)
        slack = jnp.maximum(self._aim(self.x) - self._left(matrix, self.x), jnp.zeros((), self.x.dtype))[:, None]
        size = jnp.where(matrix != 0, jnp.abs(matrix), jnp.ones_like(matrix))
        up = jnp.min(jnp.where(matrix > 0, slack / size, jnp.inf), axis=0)
        down = jnp.min(jnp.where(matrix < 0, slack / size, jnp.inf), axis=0)
        return jnp.maximum(low, self.x - down), jnp.minimum(high, self.x + up)

    def repair(self, u: Array, low: Array, high: Array) -> Array:
        """The nearest point of the box at which the relations hold with a margin for rounding, if there is one."""
        matrix, aim = self._matrix(u), self._aim(u)
        touched = jnp.any((matrix != 0) & (jnp.clip(u, low, high) != self.x), axis=1)
        # An untouched relation holds by itself, whatever the margin.
        aim = jnp.where(touched, aim, jnp.maximum(aim, self._left(matrix, self.x)))
        return self._joint(u, lambda z: jnp.clip(z, low, high), jnp.zeros_like(u), low, high, matrix, aim)

    def repair_free(self, v: Array, u: Array, gridded: Array, low: Array, high: Array) -> Array:
        """u where gridded; numbers without grid are moved from v until the relations hold, if they can."""
        ends = jnp.where(gridded, u, low), jnp.where(gridded, u, high)
        return jnp.where(gridded, u, self.repair(jnp.where(gridded, u, v), *ends))

    def best(self, tried: Array, v: Array) -> Array:
        """The nearest to v among the points tried [Q, D] at which the relations hold; the first if they hold at none.

        Disjoint relations are looked at one by one.
        """
        matrix = self.constraints.relations.matrix
        holds = jax.vmap(self.constraints.related, (None, 0))(self.x, tried)  # [Q, R]
        square = jnp.square(tried - v)
        if self.constraints.layout.disjoint:
            far = jnp.sum(jnp.where(matrix != 0, square[:, None, :], jnp.zeros((), v.dtype)), axis=2)
            choice = jnp.argmin(jnp.where(holds, far, jnp.inf), axis=0)  # [R]
            of_column = jnp.sum(jnp.where(matrix != 0, choice[:, None], 0), axis=0)  # [D], one relation each at most
            return jnp.take_along_axis(tried, of_column[None], axis=0)[0]
        choice = jnp.argmin(jnp.where(jnp.all(holds, axis=1), jnp.sum(square, axis=1), jnp.inf))
        return tried[choice]

    def safe_side(self) -> Array:
        """[D] how to round to a grid so that no left side rises: −1 down, 1 up, 0 nearest (opposed relations)."""
        matrix = self.constraints.relations.matrix
        rises, falls = jnp.any(matrix > 0, axis=0), jnp.any(matrix < 0, axis=0)
        return jnp.where(rises & ~falls, -1, jnp.where(falls & ~rises, 1, 0))

    def _joint(
        self, v: Array, g: Callable[[Array], Array], slope: Array, low: Array, high: Array, matrix: Array, aim: Array
    ) -> Array:
        if self.constraints.layout.disjoint:
            return self._multipliers(v, g, slope, low, high, matrix, aim)
        return _dykstra(v, g, matrix, aim)

    def _multipliers(
        self, v: Array, g: Callable[[Array], Array], slope: Array, low: Array, high: Array, matrix: Array, aim: Array
    ) -> Array:
        start = g(v)
        over = self._left(matrix, start) - aim
        # The multiplier at which a column alone has done enough: it is at its bound, or moved by the whole excess.
        size = jnp.abs(matrix)
        used = size > 0
        safe = jnp.where(used, size, jnp.ones_like(size))
        bound = jnp.where(matrix > 0, low, high)
        room = jnp.where(jnp.isfinite(bound), jnp.abs(v - jnp.where(jnp.isfinite(bound), bound, v)), jnp.inf)
        excess = jnp.maximum(over, jnp.zeros_like(over))[:, None]
        alone = jnp.abs(v - start) + slope + excess / safe
        far = jnp.where(used, (jnp.minimum(room, alone) + slope) / safe, jnp.zeros_like(safe))
        end = 2 * jnp.max(far, axis=1)
        zero = jnp.zeros_like(over)

        def at(t: Array) -> Array:
            return g(v - jnp.sum(matrix * t[:, None], axis=0))

        def too_low(t: Array) -> Array:
            return self._left(matrix, at(t)) > aim

        t = maps.bisect(too_low, zero, end)
        low_point = at(t)
        # One exact step along the columns that are still free gives the last digits.
        free = used & (low_point > low) & (low_point < high)
        left = self._left(matrix, low_point) - aim
        norm = jnp.sum(jnp.where(free, jnp.square(matrix), jnp.zeros_like(matrix)), axis=1)
        step = jnp.where(norm > 0, left / jnp.where(norm > 0, norm, jnp.ones_like(norm)), zero)
        t = jnp.where(over > 0, jnp.maximum(t + step, zero), zero)
        return at(t)

    def _matrix(self, v: Array) -> Array:
        return self.constraints.relations.matrix.astype(v.dtype)

    def _left(self, matrix: Array, u: Array) -> Array:
        return jnp.sum(matrix * u, axis=1)

    def _aim(self, u: Array) -> Array:
        """[R] the left side to aim at, with a margin for rounding where a feature without grid takes part."""
        relations = self.constraints.relations
        size = jnp.abs(u) + jnp.abs(self.x) + relations.shift.astype(u.dtype)
        total = self._left(jnp.abs(self._matrix(u)), size) + jnp.abs(relations.upper.astype(u.dtype))
        return relations.aim.astype(u.dtype) - 2 * relations.margin.astype(u.dtype) * jnp.finfo(u.dtype).eps * total


def _dykstra(v: Array, g: Callable[[Array], Array], matrix: Array, aim: Array) -> Array:
    """(1) by a fixed number of sweeps over the relations and g in turn."""

    def sweep(_: int, state: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        u, increments, own = state

        def one(r: int, inner: tuple[Array, Array]) -> tuple[Array, Array]:
            u, increments = inner
            z = u + increments[r]
            over = jnp.maximum(jnp.sum(matrix[r] * z) - aim[r], jnp.zeros((), z.dtype))
            u = z - over * matrix[r]
            return u, increments.at[r].set(z - u)

        u, increments = jax.lax.fori_loop(0, matrix.shape[0], one, (u, increments))
        z = u + own
        u = g(z)
        return u, increments, z - u

    start = (v, jnp.zeros_like(matrix), jnp.zeros_like(v))
    return jax.lax.fori_loop(0, _SWEEPS, sweep, start)[0]
