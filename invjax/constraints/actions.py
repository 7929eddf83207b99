"""The maps of one row: exact proximal map on the hull, projection, snapping, cost and change count.

    prox(v, w) = argmin_u  1/2 ‖u − v‖² + w Σ_f cost_f φ(u_f − x_f)                                   (1)
                 subject to u in the hull of what x may become, at most m features changed

The hull is an interval for a number, the simplex over the reachable levels for a category, and the half-spaces of the
relations. Without relations (1) separates into features, of which the m largest savings are kept, and is solved
exactly. With grids, categories or relations a point must be snapped before it is an answer (``exact`` is False).
"""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp

from invjax import prox as maps
from invjax.constraints.categories import Blocks
from invjax.constraints.compiled import Constraints
from invjax.constraints.plain import PlainRow, plain_row
from invjax.constraints.relations import Coupling
from invjax.core.ranks import largest
from invjax.penalties import PenaltyName, elementwise
from invjax.types import Array, ArrayLike, Problem


@dataclasses.dataclass(frozen=True)
class SpaceRow:
    """The maps of one row x [D] under Constraints: see :func:`actions`."""

    constraints: Constraints
    x: Array  # [D]
    lower: Array  # [D]
    upper: Array  # [D]
    blocks: Blocks | None  # its categories
    column_cost: Array  # [D] the cost of each column's feature

    @property
    def exact(self) -> bool:
        """Whether every answer of ``prox`` is feasible; static."""
        layout = self.constraints.layout
        return not (layout.has_grids or layout.has_categories or layout.has_relations)

    def prox(
        self, v: Array, w: ArrayLike, penalty: PenaltyName = "none", max_changes: ArrayLike | None = None
    ) -> Array:
        """(1), v and u [D]; penalty: none, l0, l_half, l_two_thirds, l1; max_changes: [] int, traced.

        With relations it is exact for the penalties none and l1 without max_changes (up to the fixed number of
        Dykstra's sweeps where relations share features). Otherwise features are chosen first and coupled afterwards.
        """
        w = jnp.asarray(w, v.dtype)
        if not self.constraints.layout.has_relations:
            return maps.keep_nan(v, self._separable(v, w, penalty, max_changes))
        return maps.keep_nan(v, self._coupled(v, w, penalty, max_changes))

    def project(self, v: Array) -> Array:
        """The nearest point of the hull."""
        return self.prox(v, 0.0)

    def snap(self, v: Array, max_changes: ArrayLike | None = None) -> Array:
        """A feasible point near v with at most max_changes features changed; x itself where there is none.

        Without relations it is the nearest such point. With relations the changed numbers of that point are moved
        until the relations hold (again the least possible for a single relation of numbers without grid); features
        for which that fails go back to x.
        """
        layout = self.constraints.layout
        u = jnp.clip(v, self.lower, self.upper)
        if layout.has_grids:
            u = self._on_grid(u, jnp.zeros_like(u))
        y, c = v - self.x, u - self.x
        saved, gain = c * (2 * y - c) / 2, None
        if self.blocks is not None:
            corners, gain = self.blocks.snap(layout.blocks(v))
            u = layout.columns(corners, u)
        free = jnp.ones(layout.num_features, bool)
        if max_changes is not None:
            free = largest(self._ranked(layout.per_feature(saved, gain), u), max_changes)
            u = self._keep(u, free)
        if layout.has_relations:
            moves = layout.spread(free)
            low, high = jnp.where(moves, self.lower, self.x), jnp.where(moves, self.upper, self.x)
            base = jnp.where(layout.is_category, u, v)  # not clipped or rounded: the repair starts from v itself
            moved = self._repaired(base, u, low, high)
            u = self._undo(jnp.where(layout.is_category, u, moved))
        return jnp.where(self.satisfied(u), u, self.x)

    def satisfied(self, u: Array) -> Array:
        """[] bool: u is an admissible answer and leaves what the problem masks."""
        slack = 4 * jnp.finfo(u.dtype).eps * (jnp.abs(u) + 1)
        inside = jnp.all((u >= self.lower - slack) & (u <= self.upper + slack))
        return inside & self.constraints.satisfied(self.x, u)

    def changed(self, u: Array) -> Array:
        """[F] bool: the features in which u differs from x."""
        layout = self.constraints.layout
        moved = u != self.x
        if self.blocks is None:
            return moved
        return layout.per_feature(moved, jnp.any(layout.blocks(moved.astype(u.dtype)) > 0, axis=1))

    def cost(self, u: Array) -> Array:
        """[] ``Σ_f cost_f |u_f − x_f|``, where a category counts its transition cost."""
        return self.penalty(u, "l1")

    def penalty(self, u: Array, penalty: PenaltyName) -> Array:
        """[] the sum in (1) without w."""
        layout = self.constraints.layout
        values = self.column_cost * elementwise(penalty).phi(u - self.x)
        if self.blocks is None:
            return jnp.sum(values)
        categories = jnp.sum(self.blocks.penalty(layout.blocks(u), penalty))
        return categories + jnp.sum(jnp.where(layout.is_category, jnp.zeros_like(values), values))

    # -----------------------------------------------------------------------------------------------------------------
    def _separable(self, v: Array, w: Array, penalty: PenaltyName, max_changes: ArrayLike | None = None) -> Array:
        """(1) without the relations, exact."""
        layout = self.constraints.layout
        y, low, high = v - self.x, self.lower - self.x, self.upper - self.x
        weight = w * self.column_cost
        c = elementwise(penalty).prox(y, weight, lower=low, upper=high)
        u = jnp.where(c == 0, self.x, jnp.clip(self.x + c, self.lower, self.upper))
        categorical = None
        if self.blocks is not None:
            block, categorical = self.blocks.prox(layout.blocks(v), w, penalty)
            stays = (categorical <= 0) if penalty not in ("none", "l1") else jnp.zeros_like(categorical, bool)
            block = jnp.where(stays[:, None], self.blocks.now, block)
            u = layout.columns(block, u)
        if max_changes is None:
            return u
        saved = c * (2 * y - c) / 2
        if penalty != "none":
            saved = saved - weight * elementwise(penalty).phi(c)
        gain = layout.per_feature(saved, categorical)
        return self._keep(u, largest(gain, max_changes) & (gain > 0))

    def _coupled(self, v: Array, w: Array, penalty: PenaltyName, max_changes: ArrayLike | None) -> Array:
        """(1) with the relations."""
        layout = self.constraints.layout
        coupling = Coupling(self.constraints, self.x)
        convex = penalty if penalty == "l1" else "none"

        def joint(row: SpaceRow) -> Array:
            slope = w * row.column_cost if convex == "l1" else jnp.zeros_like(v)
            return coupling.solve(v, lambda z: row._separable(z, w, convex), slope, row.lower, row.upper)

        if penalty in ("none", "l1") and max_changes is None:
            return joint(self)
        # Two choices of features: those that the joint convex problem moves most (a partner moves against its own
        # gain), and those that save most alone. The better of the two is taken.
        together = joint(self)
        move = jnp.square(together - self.x)
        block_move = None if self.blocks is None else jnp.sum(layout.blocks(move), axis=1)
        gain = layout.per_feature(move, block_move)
        keep = self.changed(together)
        if penalty not in ("none", "l1"):
            keep &= self.changed(self._separable(v, w, penalty))
        if max_changes is not None:
            keep &= largest(jnp.where(keep, gain, jnp.full_like(gain, -jnp.inf)), max_changes)
        low, high = coupling.alone(self.lower, self.upper)
        single = dataclasses.replace(self, lower=low, upper=high)._separable(v, w, penalty, max_changes)
        first, second = joint(self.pinned(keep)), joint(self.pinned(self.changed(single)))

        def objective(u: Array) -> Array:
            return jnp.sum(jnp.square(u - v)) / 2 + w * self.penalty(u, penalty)

        return jnp.where(objective(second) < objective(first), second, first)

    def pinned(self, keep: Array) -> SpaceRow:
        """The row with only the features of keep [F] free."""
        layout = self.constraints.layout
        free = layout.spread(keep)
        low, high = jnp.where(free, self.lower, self.x), jnp.where(free, self.upper, self.x)
        blocks = self.blocks
        if blocks is not None:
            inside = layout.blocks(free.astype(self.x.dtype)) > 0
            blocks = dataclasses.replace(blocks, allowed=blocks.allowed & (inside | (blocks.now > 0)))
        return dataclasses.replace(self, lower=low, upper=high, blocks=blocks)

    def _keep(self, u: Array, keep: Array) -> Array:
        """u where keep [F], x elsewhere."""
        return jnp.where(self.constraints.layout.spread(keep), u, self.x)

    def _ranked(self, gain: Array, u: Array) -> Array:
        """Gains [F]. Unchanged features come last, except for the partners in a relation that u breaks."""
        layout = self.constraints.layout
        last = jnp.full_like(gain, -jnp.inf)
        if layout.has_relations:
            broken = ~self.constraints.related(self.x, u)
            partner = jnp.any((self.constraints.relations.matrix != 0) & broken[:, None], axis=0)
            none = None if self.blocks is None else jnp.zeros(self.blocks.weight.shape, bool)
            last = jnp.where(layout.per_feature(partner, none), -jnp.ones_like(gain), last)
        return jnp.where(self.changed(u), gain, last)

    def _on_grid(self, u: Array, side: Array) -> Array:
        """The nearest grid point in the limits; side [D]: −1 takes the one below, 1 the one above. x stays as it is."""
        grid, origin = (a.astype(u.dtype) for a in (self.constraints.grid, self.constraints.origin))
        gridded = grid > 0
        step = jnp.where(gridded, grid, jnp.ones_like(grid))
        at = (u - origin) / step
        slack = 1e-3  # in steps: a grid point up to rounding is that grid point
        below, above = jnp.floor(at + slack), jnp.ceil(at - slack)
        k = jnp.where(side < 0, below, jnp.where(side > 0, above, jnp.round(at)))
        home = jnp.round((self.x - origin) / step)
        least, most = jnp.round((self.lower - origin) / step), jnp.round((self.upper - origin) / step)
        k = jnp.clip(k, least, most)
        return jnp.where(gridded, jnp.where(k == home, self.x, origin + k * step), u)

    def _repaired(self, v: Array, u: Array, low: Array, high: Array) -> Array:
        """A point near v [D], on the grids, at which the relations hold. u: v on its grids, which is tried first."""
        coupling = Coupling(self.constraints, self.x)
        gridded = self.constraints.grid > 0
        if not self.constraints.layout.has_grids:
            return coupling.repair(v, low, high)

        def rounded(side: Array) -> Array:
            # Numbers without grid may come back towards v once the others are on their grids.
            fixed = jnp.where(low < high, self._on_grid(near, side), low)  # rounding must not move what is held
            return coupling.repair_free(v, fixed, gridded, low, high)

        near = coupling.repair(v, low, high)
        zero = jnp.zeros(v.shape, jnp.int32)
        sides = jnp.stack([coupling.safe_side(), zero, zero - 1, zero + 1])
        tried = jnp.concatenate([coupling.repair_free(v, u, gridded, low, high)[None], jax.vmap(rounded)(sides)])
        return coupling.best(tried, v)

    def _undo(self, u: Array) -> Array:
        """u with the features of broken relations back at x, until none is broken: at most one turn per relation."""
        matrix = self.constraints.relations.matrix
        for _ in range(min(matrix.shape[0], 8)):
            broken = ~self.constraints.related(self.x, u)
            back = jnp.any((matrix != 0) & broken[:, None], axis=0)
            u = jnp.where(back, self.x, u)
        return u


def actions(constraints: Constraints | None, problem: Problem) -> PlainRow | SpaceRow:
    """The maps of one row: ``actions(ctx.constraints, problem)``.

    constraints: of a compiled FeatureSpace. Without them (None) only the box, the mask and the groups of the problem
    count, and x has any shape. Both rows have ``lower``, ``upper``, ``exact`` (static), ``prox``, ``project``,
    ``snap``, ``satisfied``, ``changed``, ``cost`` and ``penalty``: see :class:`SpaceRow` and :class:`PlainRow`.
    """
    if constraints is None:
        return plain_row(problem)
    x, layout = problem.x, constraints.layout
    low, high = constraints.limits(x)
    low = jnp.maximum(low, jnp.asarray(problem.lower, x.dtype))
    high = jnp.minimum(high, jnp.asarray(problem.upper, x.dtype))
    if problem.mask is not None:
        low, high = jnp.where(problem.mask, low, x), jnp.where(problem.mask, high, x)
    cost = constraints.cost.astype(x.dtype)
    column_cost = layout.spread(cost)
    blocks = None
    if layout.has_categories:
        now = layout.blocks(x)
        # A level held at 1 by its limits keeps the whole category.
        stays = jnp.any(layout.blocks(low) > 0.5, axis=1, keepdims=True)
        allowed = (now > 0.5) | (~stays & (layout.blocks(high) > 0.5))
        price = jnp.sum(constraints.transition.astype(x.dtype) * (x > 0.5)[:, None], axis=0)
        price = jnp.where(layout.is_category, price, jnp.zeros_like(price))
        first = jnp.max(layout.blocks(column_cost), axis=1)
        blocks = Blocks(now, allowed, layout.blocks(price), first)
    return SpaceRow(constraints, x, low, high, blocks, column_cost)
