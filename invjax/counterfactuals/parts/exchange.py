"""One-feature exchanges, for features with a few separate values, which gradient steps cannot handle.

From a feasible point u every single change is listed: each category to each of its other levels, each number to where
the linearised gap closes, each changed feature back to x. Where m features have changed already, a further one takes
the place of the one that costs least to give back. The changes are ranked by the linearised merit

    ⟨∇φ, u' − u⟩ + Γ max(0, c + ⟨n, u' − u⟩)                                                                      (1)

(φ the smooth objective, c the gap of validity, n its gradient, all at u), which needs no evaluation. The network sees
only the first few.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from invjax.core.numerics import safe_divide
from invjax.counterfactuals.parts.multiplier import Here
from invjax.types import Array, ArrayLike


def moves(row: Any, here: Here, price: ArrayLike, max_changes: Array, count: int) -> Array:
    """The ``count`` single-feature changes of least linearised merit, [count, D], not snapped yet; some may be equal.

    Args:
      row: a row of a FeatureSpace (:func:`invjax.constraints.actions`).
      here: u, feasible, and what is known there.
      price: [] Γ > 0.
      max_changes: [] int32, m.
      count: static.
    """
    point, gap, normal = here.point, here.gap, here.normal
    layout, x = row.constraints.layout, row.x
    width = layout.width
    owner = np.repeat(np.arange(layout.num_features), layout.widths)
    same, unit = owner[:, None] == owner[None, :], np.eye(width, dtype=bool)

    # Each number goes a little beyond where it would close the gap by itself, within its range; on a grid, to the next
    # point beyond: half a step more is rounded there, however coarse the grid.
    grid = row.constraints.grid.astype(point.dtype)
    half = jnp.asarray(0.499, point.dtype) * grid * jnp.sign(normal)
    further = jnp.where(grid > 0, jnp.ones_like(grid), jnp.full_like(grid, 1.05))
    reach = point - further * safe_divide(gap, normal) - half
    value = jnp.where(layout.is_category, jnp.ones_like(point), jnp.clip(reach, row.lower, row.upper))
    onward = jnp.where(same, jnp.where(unit, value, jnp.zeros_like(value)), point)
    back = jnp.where(same, x, point)

    def merit(points: Array) -> Array:
        moved = points - point
        return moved @ here.slope + jnp.asarray(price, point.dtype) * jnp.maximum(gap + moved @ normal, 0)

    changed = layout.spread(row.changed(point))  # [D]
    cost_back = jnp.where(changed, merit(back), jnp.inf)
    cheapest = jnp.argmin(cost_back)
    makes_room = jnp.where(jnp.asarray(same)[cheapest], x, onward)
    full = (jnp.sum(row.changed(point)) >= max_changes) & ~changed  # [D] of each column: a further feature
    onward = jnp.where(full[:, None], makes_room, onward)

    possible = (row.lower < row.upper) | layout.is_category
    if layout.has_categories:
        open_level = layout.columns(row.blocks.allowed.astype(x.dtype), jnp.ones_like(x)) > 0
        possible &= open_level
    everything = jnp.concatenate([onward, back])
    stays = jnp.all(everything == point, axis=1)
    barred = jnp.concatenate([~possible, ~changed]) | stays
    merits = jnp.where(barred, jnp.inf, merit(everything))
    _, first = jax.lax.top_k(-merits, min(count, 2 * width))
    # Fewer columns than that have fewer changes: they are repeated.
    return everything[jnp.resize(first, (count,))]
