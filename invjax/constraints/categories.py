"""Categories on their hull, the simplex, and on its corners. Blocks are [C, K]; padded columns are never allowed.

With the level j now, transition costs c_k (c_j = 0) and a feature's cost a, the penalty of a point p of the simplex is

    l1:     a Σ_k c_k p_k                                        (1/2 ‖p − e_j‖_1 at the default costs 1)
    p < 1:  a ( [p ≠ e_j] + Σ_{k≠j} (c_k − 1) p_k )              a category is one unit: l0, l_half, l_two_thirds alike

Both are ``a c_k`` on corner k, linear up to the indicator, so their proximal maps are exact: project a shifted point on
the allowed levels' simplex and, for p < 1, compare with staying.
"""

from __future__ import annotations

import dataclasses

import jax.numpy as jnp

from invjax import projections
from invjax.types import Array

_PAIRWISE = 64  # up to this many levels all pairs are compared, which avoids a sort


@dataclasses.dataclass(frozen=True)
class Blocks:
    """The categories of one row."""

    now: Array  # [C, K] the present level, 0/1
    allowed: Array  # [C, K] bool, levels it may have, the present one included
    cost: Array  # [C, K] transition costs from the present level; 0 there
    weight: Array  # [C] the features' costs

    def project(self, v: Array) -> Array:
        """Nearest point of the simplex over the allowed levels. [C, K] -> [C, K]."""
        best = jnp.max(jnp.where(self.allowed, v, jnp.full_like(v, -jnp.inf)), axis=1, keepdims=True)
        depth = jnp.where(self.allowed, v - best, jnp.full_like(v, -2))  # at −1 and below the projection is 0
        if v.shape[1] > _PAIRWISE:
            return projections.simplex(depth, axis=1)
        # The threshold is the largest (Σ_A depth − 1)/|A| over sets A of the largest entries.
        ahead = (depth[:, None, :] >= depth[:, :, None]).astype(v.dtype)
        total = jnp.sum(ahead * depth[:, None, :], axis=2) - 1
        threshold = jnp.max(total / jnp.sum(ahead, axis=2), axis=1, keepdims=True)
        return jnp.maximum(depth - threshold, jnp.zeros_like(v))

    def prox(self, v: Array, w: Array, penalty: str) -> tuple[Array, Array]:
        """The proximal map of ``w`` times the penalty [C, K], and what it saves against staying [C]."""
        tax = self._slopes(penalty)
        charge = w * self.weight[:, None]
        u = self.project(v - charge * tax)
        saved = jnp.sum((u - self.now) * (2 * v - u - self.now), axis=1) / 2 - charge[:, 0] * jnp.sum(tax * u, axis=1)
        if penalty not in ("none", "l1"):
            saved = saved - charge[:, 0]
        return u, saved

    def snap(self, v: Array) -> tuple[Array, Array]:
        """The nearest corner [C, K], in a tie the present one, and what it saves [C]."""
        score = jnp.where(self.allowed, v, jnp.full_like(v, -jnp.inf))
        best = jnp.max(score, axis=1, keepdims=True)
        at_best = self.allowed & (score == best)
        first = at_best & (jnp.cumsum(at_best, axis=1) == 1)
        stay = jnp.any(at_best & (self.now > 0), axis=1, keepdims=True)
        u = jnp.where(stay, self.now, first.astype(v.dtype))
        return u, jnp.sum((u - self.now) * v, axis=1)

    def penalty(self, u: Array, penalty: str) -> Array:
        """[C] the value of the penalty."""
        linear = jnp.sum(self._slopes(penalty) * u, axis=1)
        if penalty in ("l0", "l_half", "l_two_thirds"):
            linear = linear + jnp.any(u != self.now, axis=1)
        return self.weight * linear

    def _slopes(self, penalty: str) -> Array:
        if penalty == "none":
            return jnp.zeros_like(self.cost)
        return self.cost if penalty == "l1" else jnp.where(self.now > 0, jnp.zeros_like(self.cost), self.cost - 1)
