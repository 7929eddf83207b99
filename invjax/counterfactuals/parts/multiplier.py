"""One step of S-CFE: proximal gradient with the weight γ of validity solved for instead of searched.

At a point u_t with the validity gap c(u) (at most 0 where u is valid), its gradient n, and the rest φ of the smooth
objective,

    u(γ) = prox_{σ g}(u_t + μ (u_t − u_{t−1}) − σ (∇φ(u_t) + γ n))                                                 (1)

is the accelerated proximal step of ``min φ + γ c + g`` for a given γ. The step takes the smallest γ >= 0 for which the
linearised gap ``c(u_t) + ⟨n, u(γ) − u_t⟩`` is at most 0: the Lagrange multiplier of validity. Each γ costs one proximal
map and no evaluation of the network, so a whole grid of them is one batch axis. The linearisation is exact within a
linear region of a ReLU network.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from invjax.core.numerics import safe_divide
from invjax.types import Array, ArrayLike

GRID = np.array([0.0, *np.geomspace(0.5, 16.0, 6)])  # γ in units of the least that can be enough
EXPONENTS = {"l0": 0.0, "l_half": 0.5, "l_two_thirds": 2 / 3, "l1": 1.0}  # q of φ = |·|^q
CHOOSING, MOST = 2.0, 16.0  # the γ that chooses the features, and the one tried if those are not enough


class Here(NamedTuple):
    """The values and gradients at an evaluated point u."""

    point: Array  # [*S] u
    gap: Array  # [] what is missing to validity, with a little more than the margin κ
    normal: Array  # [*S] its gradient
    smooth: Array  # [] φ = d − τ log q
    slope: Array  # [*S] its gradient
    charge: Array  # [] β Σ φ


class Step(NamedTuple):
    """What :func:`step` proposes."""

    point: Array  # [*S] u(γ) for the γ taken
    gamma: Array  # [] that γ
    candidates: Array  # [G, *S] u(γ) over the grid, from the least γ to the largest


def step(
    row: Any,
    here: Here,
    base: Array,
    size: Array,
    *,
    weight: Array,
    penalty: str,
    max_changes: Array,
    gamma_max: ArrayLike = jnp.inf,
) -> Step:
    """The next point.

    Choosing max_changes features is the expensive part of the proximal map, and the choice hardly depends on γ. So it
    is made at one γ, and γ is then solved for on those features. Others are taken only if these cannot close the gap.

    Args:
      row: the maps of :func:`invjax.constraints.actions`.
      here: u_t.
      base: [*S] the argument of (1) without the validity term.
      size: [] σ; weight: [] σ β.
      penalty: φ; max_changes: [] int32, how many features may change.
      gamma_max: the largest γ that may be taken; 0 switches validity off.
    """
    point, gap, normal = here.point, here.gap, here.normal
    limit, zero = jnp.asarray(gamma_max, gap.dtype), jnp.zeros_like(gap)

    def linear(u: Array) -> Array:
        return gap + jnp.sum(normal * (u - point))

    def moved(gamma: Array) -> Array:
        return base - size * jnp.minimum(gamma, limit) * normal

    def choosing(gamma: Array) -> Array:
        return row.prox(moved(gamma), weight, penalty, max_changes)

    free = choosing(zero)
    need = jnp.maximum(linear(free), zero)
    square = jnp.square(normal)
    if row.exact:  # a value at a side that would have to move outwards closes nothing of the gap
        # With levels and grids the longer steps that follow from this jump over the best answers.
        inwards = jnp.where(normal > 0, point > row.lower, point < row.upper)
        square = jnp.where(inwards, square, jnp.zeros_like(square))
    slope = jnp.minimum(jnp.sum(square), max_changes.astype(gap.dtype) * jnp.max(square))
    unit = safe_divide(need, size * slope)
    tolerance = 1e-6 * (1 + jnp.abs(gap))
    most, start = choosing(MOST * unit), zero
    if penalty != "none":  # a large β: what can be enough without it is not
        held = linear(most) > tolerance
        start = jnp.where(held, _threshold(row, base, normal, size, weight, penalty), zero)
        most = choosing(start + MOST * unit)
    chosen = row.pinned(row.changed(choosing(start + CHOOSING * unit)))
    gammas = (GRID > 0) * start + unit * GRID.astype(gap.dtype)
    candidates = jax.vmap(lambda gamma: chosen.prox(moved(gamma), weight, penalty))(gammas)
    values = jax.vmap(linear)(candidates)

    enough = values <= tolerance
    high = jnp.where(jnp.any(enough), jnp.argmax(enough), GRID.size - 1)
    low = jnp.maximum(high - 1, 0)
    fall = values[low] - values[high]
    share = jnp.where(fall > 0, jnp.clip(safe_divide(values[low], fall), 0, 1), jnp.ones_like(gap))
    between = gammas[low] + share * (gammas[high] - gammas[low])
    secant = chosen.prox(moved(between), weight, penalty)
    exact = linear(secant) <= jnp.maximum(tolerance, 1e-2 * jnp.abs(values[high]))
    gamma = jnp.where(exact, between, gammas[high])
    answer = jnp.where(exact, secant, candidates[high])

    other = ~jnp.any(enough) & (linear(most) < values[high])
    gamma, answer = jnp.where(other, start + MOST * unit, gamma), jnp.where(other, most, answer)
    nothing = need <= tolerance
    return Step(jnp.where(nothing, free, answer), jnp.minimum(jnp.where(nothing, zero, gamma), limit), candidates)


def _threshold(row: Any, base: Array, normal: Array, size: Array, weight: Array, penalty: str) -> Array:
    """[] the least γ at which some coordinate leaves 0 in spite of the penalty, so that a large β only rescales γ.

    ``½(c − y)² + w c^q`` beats ``½y²`` for a c in (0, L] where y > min_c ½c + w c^(q − 1); the minimiser is
    ``(2(1 − q) w)^(1 / (2 − q))``, or L if that is less. y: how far v goes from x against the normal; L: the room.
    """
    q = EXPONENTS[penalty]
    w = jnp.broadcast_to(weight * row.column_cost, base.shape)
    down = normal > 0
    room = jnp.where(down, row.x - row.lower, row.upper - row.x)
    gone = jnp.where(down, row.x - base, base - row.x)
    tiny = jnp.finfo(base.dtype).tiny
    c = jnp.clip((2 * (1 - q) * w) ** (1 / (2 - q)), tiny, jnp.maximum(room, tiny))
    least = w if q == 1 else c / 2 + w * c ** (q - 1)
    needed = safe_divide(jnp.maximum(least - gone, 0), size * jnp.abs(normal))
    able = (room > 0) & (gone < room) & (normal != 0)
    first = jnp.min(jnp.where(able, needed, jnp.inf))
    return jnp.where(jnp.isfinite(first), first, jnp.zeros_like(first))
