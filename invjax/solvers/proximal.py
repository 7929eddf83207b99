"""Proximal gradient and FISTA: h smooth, g with a proximal map, one example.

    min_r h(r) + g(r)                                                    (1)
    forward–backward:  r_{t+1} = prox_{σ g}(z_t − σ ∇h(z_t))             (2)

Proximal gradient asks z_t = r_t; FISTA asks the look-ahead point of :mod:`invjax.solvers.momentum` (Beck & Teboulle
2009). With a convex h whose gradient is L-Lipschitz, g convex and σ ≤ 1/L,

    F(r_k) − F* ≤ ‖r_0 − r*‖² / (2 σ k)           proximal gradient
    F(r_k) − F* ≤ 2 ‖r_0 − r*‖² / (σ (k + 1)²)    FISTA without restart

The iterate ``state.x`` is the prox output, exactly sparse and feasible; the point that FISTA asks is not. With the
``averaging`` of :mod:`invjax.solvers.momentum`, ``fista.tell`` is the step of the released GSE code.
"""

from __future__ import annotations

import jax.numpy as jnp

from invjax.solvers.momentum import Prox, Solver, State, accept, current, init, look_ahead, replace
from invjax.types import Array, ArrayLike


def identity(v: Array, step_size: ArrayLike) -> Array:
    """The proximal map of g = 0."""
    del step_size
    return v


def forward_backward(point: Array, grad: Array, step_size: ArrayLike, prox: Prox = identity) -> Array:
    """``prox(point − step_size · grad, step_size)``: the step (2) every solver here is made of.

    Args:
      point: [*S] where ``grad`` was taken.
      grad: [*S] ∇h(point).
      step_size: [] σ > 0, in units of argument² / objective.
      prox: ``prox(v, step_size) = argmin_u ½‖u − v‖² + step_size · g(u)``.
    """
    size = jnp.asarray(step_size, point.dtype)
    return jnp.asarray(prox(point - size * grad, size), point.dtype)


def gradient_mapping(point: Array, candidate: Array, step_size: ArrayLike) -> Array:
    """``‖point − candidate‖_2 / step_size`` []: 0 exactly at the solutions of (1), ``‖∇h(point)‖`` where g = 0."""
    return jnp.linalg.norm(jnp.ravel(point - candidate)) / jnp.asarray(step_size, point.dtype)


def fista_propose(
    state: State, grad: Array, step_size: ArrayLike, prox: Prox = identity, *, point: Array | None = None
) -> Array:
    """(2) from the look-ahead point, or from ``point`` if the gradient was taken elsewhere (clipped). [*S]"""
    return forward_backward(look_ahead(state) if point is None else point, grad, step_size, prox)


def prox_grad_propose(
    state: State, grad: Array, step_size: ArrayLike, prox: Prox = identity, *, point: Array | None = None
) -> Array:
    """(2) from the iterate itself, or from ``point``. [*S]"""
    return forward_backward(state.x if point is None else point, grad, step_size, prox)


fista = Solver("fista", init, look_ahead, fista_propose, accept)
prox_grad = Solver("prox_grad", init, current, prox_grad_propose, replace)
