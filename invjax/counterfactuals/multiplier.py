"""One step of S-CFE: proximal gradient with the weight γ of validity solved for instead of searched.

At a point u_t with the validity gap c(u) (at most 0 where u is valid), its gradient n, and the rest φ of the smooth
objective,

    u(γ) = prox_{σ g}(u_t + μ (u_t − u_{t−1}) − σ (∇φ(u_t) + γ n))                                                 (1)

is the accelerated proximal step of ``min φ + γ c + g`` for a given γ. Of all γ >= 0 the smallest is taken for which the
linearised gap ``c(u_t) + ⟨n, u(γ) − u_t⟩`` is at most 0: the Lagrange multiplier of validity. Each γ costs one proximal
map and no network, so a whole grid of them is one batch axis. Of a ReLU network the linearisation is exact within a
linear region.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from invjax.numerics import safe_divide
from invjax.types import Array, ArrayLike

GRID = np.array([0.0, *np.geomspace(0.25, 8.0, 7)])  # γ in units of a first estimate of the multiplier


class Step(NamedTuple):
    """What :func:`step` proposes."""

    point: Array  # [*S] u(γ) for the γ taken
    gamma: Array  # [] that γ
    candidates: Array  # [G, *S] u(γ) over the grid, from the least γ to the largest


def step(
    prox: Callable[[Array], Array],
    base: Array,
    point: Array,
    gap: Array,
    normal: Array,
    size: Array,
    gamma_max: ArrayLike = jnp.inf,
) -> Step:
    """The next point.

    Args:
      prox: ``v -> prox_{σ g}(v)``, [*S] -> [*S].
      base: [*S] the argument of (1) without the validity term.
      point: [*S] u_t; gap: [] c(u_t); normal: [*S] n.
      size: [] σ.
      gamma_max: [] no larger γ is taken; 0: validity plays no part.
    """

    def linear(u: Array) -> Array:
        return gap + jnp.sum(normal * (u - point))

    def at(gamma: Array) -> Array:
        return prox(base - size * gamma * normal)

    limit = jnp.asarray(gamma_max, gap.dtype)
    free = at(jnp.zeros_like(gap))
    need = jnp.maximum(linear(free), jnp.zeros_like(gap))
    # All coordinates moving freely would need this γ; few of them in a box need more: by how much, one trial tells.
    least = safe_divide(need, size * jnp.sum(jnp.square(normal)))
    gained = need - linear(at(least))
    unit = least * jnp.clip(safe_divide(need, gained), 1.0, 100.0)
    unit = jnp.where(gained > 0, unit, 10.0 * least)
    gammas = jnp.minimum(unit * GRID.astype(gap.dtype), limit)
    candidates = jax.vmap(at)(gammas)
    values = jax.vmap(linear)(candidates)

    tolerance = 1e-6 * (1 + jnp.abs(gap))
    enough = values <= tolerance
    high = jnp.where(jnp.any(enough), jnp.argmax(enough), GRID.size - 1)
    low = jnp.maximum(high - 1, 0)
    fall = values[low] - values[high]
    share = jnp.where(fall > 0, jnp.clip(safe_divide(values[low], fall), 0, 1), jnp.ones_like(gap))
    between = gammas[low] + share * (gammas[high] - gammas[low])
    secant = at(between)
    exact = linear(secant) <= jnp.maximum(tolerance, 1e-2 * jnp.abs(values[high]))
    gamma = jnp.where(exact, between, gammas[high])
    return Step(jnp.where(exact, secant, candidates[high]), gamma, candidates)
