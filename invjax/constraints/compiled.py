"""Constraints: a FeatureSpace as arrays in model coordinates, and what they say about one row.

All functions take ONE row x [D] (vmap for a batch) and compare in model coordinates, with a tolerance of a few
roundings. Decoding to raw units takes these back: what is ``satisfied`` has no violation in raw units.
"""

from __future__ import annotations

import dataclasses
import math
from fractions import Fraction
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from invjax.constraints.layout import Layout
from invjax.constraints.schema import Schema
from invjax.core.errors import BadArgument
from invjax.core.shown import many
from invjax.types import Array

_SLACK = 4.0  # roundings of a value that still count as on its bound or grid point


class Relations(NamedTuple):
    """``matrix u <= upper`` with rows of norm 1; R = 0 where the space has no relations."""

    matrix: Array  # [R, D]
    upper: Array  # [R] what a left side may reach; between two lattice points where all its features have grids
    aim: Array  # [R] the left side at which a repair aims
    margin: Array  # [R] distance to keep from upper, in roundings: > 0 where a feature without grid takes part
    shift: Array  # [D] |center / scale|: the rounding of raw units is relative to |x| + shift


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Constraints:
    """What one row may become, in model coordinates. Made by :meth:`FeatureSpace.compile`."""

    lower: Array  # [D] range, −inf where open
    upper: Array  # [D]
    grid: Array  # [D] distance of grid points, 0 without a grid
    origin: Array  # [D] a grid point
    can_rise: Array  # [D] bool
    can_fall: Array  # [D] bool
    cost: Array  # [F] weight of changing a feature
    transition: Array  # [D, D] cost of the switch from column j to column k of one category; 0 where forbidden
    forbidden: Array  # [D, D] bool
    relations: Relations
    layout: Layout = dataclasses.field(metadata={"static": True})

    def __repr__(self) -> str:
        return f"Constraints({many(self.num_features, 'feature')} in {many(self.width, 'column')})"

    @property
    def width(self) -> int:
        """D."""
        return self.layout.width

    @property
    def num_features(self) -> int:
        """F."""
        return self.layout.num_features

    def limits(self, x: Array) -> tuple[Array, Array]:
        """(lower, upper), each [D]: what each column may become from x, which always lies between them."""
        x = jnp.where(jnp.isnan(x), jnp.zeros_like(x), x)
        low = jnp.minimum(jnp.where(self.can_fall, self.lower.astype(x.dtype), x), x)
        high = jnp.maximum(jnp.where(self.can_rise, self.upper.astype(x.dtype), x), x)
        if self.layout.has_categories:
            barred = jnp.any(self.forbidden & (x > 0.5)[:, None], axis=0)
            high = jnp.where(barred & self.layout.is_category, x, high)
            # Where every other level is barred, the present one stays too.
            open_ = self.layout.blocks((high > x).astype(x.dtype))
            stuck = jnp.broadcast_to(~jnp.any(open_ > 0, axis=1, keepdims=True), open_.shape)
            held = self.layout.columns(stuck.astype(x.dtype), jnp.zeros_like(x)) > 0
            low = jnp.where(held, x, low)
        return low, high

    def permits(self, x: Array) -> Array:
        """[] bool: x obeys ranges, grids, categories and relations, and is finite."""
        good = self._in_place(x, self.lower.astype(x.dtype), self.upper.astype(x.dtype))
        if self.layout.has_relations:
            good &= jnp.all(self.excess(x) <= self._rounding(x))
        return good

    def satisfied(self, x: Array, u: Array) -> Array:
        """[] bool: u [D] is an admissible answer to x [D]."""
        good = self._in_place(u, *self.limits(x))
        if self.layout.has_relations:
            good &= jnp.all(self.related(x, u))
        return good

    def related(self, x: Array, u: Array) -> Array:
        """[R] bool: the relation holds at u with a margin for rounding, or none of its columns changed."""
        matrix = self.relations.matrix.astype(u.dtype)
        touched = jnp.any((matrix != 0) & (u != x), axis=1)
        return ~touched | (self.excess(u) <= -self._rounding(u))

    def excess(self, u: Array) -> Array:
        """[R] ``matrix u − upper``."""
        product = jnp.matmul(self.relations.matrix.astype(u.dtype), u, precision=jax.lax.Precision.HIGHEST)
        return product - self.relations.upper.astype(u.dtype)

    def _rounding(self, u: Array) -> Array:
        """[R] what rounding to and from raw units may add to a left side."""
        size = jnp.abs(u) + self.relations.shift.astype(u.dtype)
        total = jnp.matmul(jnp.abs(self.relations.matrix).astype(u.dtype), size, precision=jax.lax.Precision.HIGHEST)
        total = total + jnp.abs(self.relations.upper.astype(u.dtype))
        return self.relations.margin.astype(u.dtype) * jnp.finfo(u.dtype).eps * total

    def _in_place(self, u: Array, low: Array, high: Array) -> Array:
        """[] bool: within [low, high], on the grids, one level of each category."""
        eps = _SLACK * jnp.finfo(u.dtype).eps
        slack = eps * (jnp.abs(u) + 1)
        good = jnp.all((u >= low - slack) & (u <= high + slack) & jnp.isfinite(u))
        if self.layout.has_grids:
            good &= jnp.all(jnp.abs(u - self.nearest(u)) <= self.grid_slack(u))
        if self.layout.has_categories:
            blocks = self.layout.blocks(u)
            good &= jnp.all((u == 0) | (u == 1) | ~self.layout.is_category)
            good &= jnp.all(jnp.sum(blocks, axis=1) == 1)
        return good

    def nearest(self, u: Array) -> Array:
        """[D] the nearest grid point, or u itself without a grid."""
        grid, origin = self.grid.astype(u.dtype), self.origin.astype(u.dtype)
        step = jnp.where(grid > 0, grid, jnp.ones_like(grid))
        return jnp.where(grid > 0, origin + jnp.round((u - origin) / step) * step, u)

    def grid_slack(self, u: Array) -> Array:
        """[D] how far from a grid point still counts as on it."""
        eps = _SLACK * jnp.finfo(u.dtype).eps
        return eps * (jnp.abs(u) + jnp.abs(self.origin.astype(u.dtype)) + 1) + 1e-6 * self.grid.astype(u.dtype)


def compile_space(space: Schema, dtype: Any) -> Constraints:
    """The arrays of ``space`` in ``dtype``; the arithmetic before is float64."""
    features, owner = space.features, space.column_features
    count, width = len(features), space.width
    center, scale = space.center[owner], space.scale[owner]
    category = np.array([features[i].kind == "category" for i in owner])
    center, scale = np.where(category, 0.0, center), np.where(category, 1.0, scale)
    ranges = np.array([(0.0, 1.0) if features[i].kind == "category" else features[i].range for i in owner])
    grid = np.array([0.0 if features[i].kind == "category" else features[i].grid for i in owner])
    origin = np.array([features[i].origin for i in owner])
    transition, forbidden = np.zeros((width, width)), np.zeros((width, width), bool)
    start = 0
    for feature in features:
        for j, old in enumerate(feature.levels if feature.kind == "category" else ()):
            for k, new in enumerate(feature.levels):
                cost = 0.0 if j == k else feature.transitions.get((old, new), 1.0)
                transition[start + j, start + k] = 0.0 if cost is None else cost
                forbidden[start + j, start + k] = cost is None
        start += feature.columns
    grid = _resolved(space, owner, grid, center, scale, np.dtype(dtype))
    relations, disjoint = _relations(space, center, scale, grid, owner, np.dtype(dtype))
    layout = Layout(
        widths=tuple(feature.columns for feature in features),
        categories=tuple(feature.kind == "category" for feature in features),
        has_grids=bool(grid.any()),
        has_relations=bool(space.relations),
        disjoint=disjoint,
    )
    floats = [(ranges[:, 0] - center) / scale, (ranges[:, 1] - center) / scale, grid / scale, (origin - center) / scale]
    return Constraints(
        *(jnp.asarray(side, dtype) for side in floats),
        can_rise=jnp.asarray([features[i].direction in ("both", "up") for i in owner]),
        can_fall=jnp.asarray([features[i].direction in ("both", "down") for i in owner]),
        cost=jnp.asarray([features[i].cost for i in range(count)], dtype),
        transition=jnp.asarray(transition, dtype),
        forbidden=jnp.asarray(forbidden),
        relations=relations,
        layout=layout,
    )


def _relations(
    space: Schema, center: np.ndarray, scale: np.ndarray, grid: np.ndarray, owner: np.ndarray, dtype: np.dtype
) -> tuple[Relations, bool]:
    """The relations in model coordinates, and whether no two of them share a feature."""
    raw = np.zeros((len(space.relations), len(owner)))
    first = {name: int(np.argmax(owner == i)) for i, name in enumerate(space.names)}
    origins = np.array([space.features[i].origin for i in owner])
    upper, aim, margin = [], [], []
    for row, relation in zip(raw, space.relations, strict=True):
        for name, value in relation.coefficients.items():
            row[first[name]] = value
        used = row != 0
        reach = np.abs(row[used]) @ _largest(space, owner[used], center[used], scale[used]) + abs(relation.upper)
        quantum = _lattice((row * grid)[used]) if (grid[used] > 0).all() else 0.0
        if quantum > 64 * np.finfo(dtype).eps * reach:
            base = float(row @ origins)
            room = (relation.upper - base) / quantum
            steps = math.floor(room + 1e-12 * abs(room) + 1e-9)  # what rounding took from a whole number is given back
            aim.append(base + steps * quantum)
            upper.append(base + (steps + 0.5) * quantum)  # half a quantum from every lattice point: safe from rounding
            margin.append(0.0)
        else:
            aim.append(relation.upper)
            upper.append(relation.upper)
            margin.append(8.0)
    matrix = raw * scale
    norm = np.linalg.norm(matrix, axis=1)
    shifted = raw @ center
    shift = np.abs(center / scale)
    return (
        Relations(
            jnp.asarray(matrix / np.maximum(norm, 1e-300)[:, None], dtype),
            jnp.asarray((np.array(upper) - shifted) / norm, dtype),
            jnp.asarray((np.array(aim) - shifted) / norm, dtype),
            jnp.asarray(margin, dtype),
            jnp.asarray(shift, dtype),
        ),
        bool(((raw != 0).sum(0) <= 1).all()),
    )


def _largest(space: Schema, owner: np.ndarray, center: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """[used] the largest |raw| to expect: the range, or 100 scales around the center where it is open."""
    ends = np.array([space.features[i].range for i in owner])
    far = (np.abs(center) + 100 * scale)[:, None]
    return np.where(np.isfinite(ends), np.abs(ends), far).max(1) + np.abs(center)


def _resolved(
    space: Schema, owner: np.ndarray, grid: np.ndarray, center: np.ndarray, scale: np.ndarray, dtype: np.dtype
) -> np.ndarray:
    """[D] the grids, 0 where ``dtype`` cannot tell the points apart: then only decoding puts them on their grid.

    Raises BadArgument where such a feature is in a relation, which its rounding could break.
    """
    points = _largest(space, owner, center, scale) / np.where(grid > 0, grid, 1.0)
    lost = (grid > 0) & (points * np.finfo(dtype).eps > 0.125)
    for i in np.flatnonzero(lost):
        name = space.names[owner[i]]
        for relation in space.relations:
            if name in relation.coefficients:
                hint = f"the grid of {name!r} is too fine: use a larger step"
                raise BadArgument(f"relation {relation}", f"be between grids that {dtype} resolves", hint=hint)
    return np.where(lost, 0.0, grid)


def _lattice(steps: np.ndarray) -> float:
    """The least positive ``|Σ k_i steps_i|`` over whole k, the greatest common divisor of the steps; 0 without one."""
    exact = [Fraction(abs(float(step))).limit_denominator(10**6) for step in steps]
    if any(abs(float(e) - abs(s)) > 1e-12 * abs(s) or not e for e, s in zip(exact, steps, strict=True)):
        return 0.0
    denominator = math.lcm(*(e.denominator for e in exact))
    return math.gcd(*(int(e * denominator) for e in exact)) / denominator
