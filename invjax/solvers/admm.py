"""ADMM in consensus form: a smooth h known only by its gradients, and m terms known only by their proximal maps.

    min_z  h(z) + Σ_i g_i(z)      written as      min  h(z) + Σ_i g_i(y_i)   s.t.  y_i = z,  i = 1 … m             (1)

With scaled duals u_i, a penalty ρ > 0 and h replaced by its linearisation at z with the proximity weight η,

    y_i ← argmin_y  g_i(y) + ρ/2 ‖y − (z − u_i)‖²                                        :func:`blocks`            (2)
    z   ← (η z + ρ Σ_i (y_i + u_i) − ∇h(z)) / (η + m ρ)                                  :func:`advance`           (3)
    u_i ← u_i + y_i − z

(2) is an exact proximal map of weight 1/ρ. For convex h with an L-Lipschitz gradient and η >= L the iterates converge
to a solution (linearised, or generalised, ADMM). A term leaves the sum where ``active`` is False. Its copy and its dual
are then carried along without effect, so that a method may change its problem without changing its program.

Sources: Boyd et al. 2011, section 7.1 (consensus); Xu et al. 2019 (StrAttack), appendix, for (3) with η = α √(k + 1).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax.numpy as jnp

from invjax.types import Array, ArrayLike

Map = Callable[[Array, Array], Array]  # (v [*S], weight []) -> argmin_y ½‖y − v‖² + weight · g(y)


class State(NamedTuple):
    """ADMM's state for one example."""

    z: Array  # [*S] where h's gradient is wanted
    u: Array  # [m, *S] scaled duals: the sums of y_i − z so far


def init(z: Array, terms: int) -> State:
    """At z with duals 0. terms: m, static."""
    return State(z, jnp.zeros((terms, *z.shape), z.dtype))


def blocks(state: State, maps: Sequence[Map], rho: ArrayLike) -> Array:
    """(2): the copies y_i. maps: m proximal maps. rho: [] > 0. -> [m, *S]"""
    weight = 1 / jnp.asarray(rho, state.z.dtype)
    return jnp.stack([one(state.z - dual, weight) for one, dual in zip(maps, state.u, strict=True)])


def advance(
    state: State, copies: Array, grad: Array, rho: ArrayLike, eta: ArrayLike, active: Array | None = None
) -> State:
    """(3) and the dual step.

    Args:
      state: the state that ``copies`` were computed from.
      copies: [m, *S] the y_i.
      grad: [*S] ∇h(z).
      rho: [] > 0.
      eta: [] >= 0 proximity of the next z, in the units of ρ.
      active: [m] bool, which terms belong to the sum; None: all.
    """
    dtype = state.z.dtype
    rho, eta = jnp.asarray(rho, dtype), jnp.asarray(eta, dtype)
    count = copies.shape[0]
    counted = jnp.ones(count, dtype) if active is None else active.astype(dtype)
    each = counted.reshape(count, *(1 for _ in state.z.shape))
    pulled = rho * jnp.sum(each * (copies + state.u), axis=0)
    z = (eta * state.z + pulled - grad) / (eta + rho * jnp.sum(counted))
    return State(z, state.u + each * (copies - z))


def ridge(gamma: ArrayLike) -> Map:
    """The map of ``γ ‖y‖_2²``: ``v / (1 + 2 γ weight)``."""
    return lambda v, weight: v / (1 + 2 * jnp.asarray(gamma, v.dtype) * weight)


def ridge_in_box(gamma: ArrayLike, lower: ArrayLike, upper: ArrayLike) -> Map:
    """The map of ``γ ‖y‖_2²`` within a box: clipping is exact, for both terms act on each coordinate alone."""
    return lambda v, weight: jnp.clip(ridge(gamma)(v, weight), lower, upper)


def inside(lower: ArrayLike, upper: ArrayLike) -> Map:
    """The map of the indicator of a box: clipping, whatever the weight."""
    return lambda v, weight: jnp.clip(v, lower, upper)
