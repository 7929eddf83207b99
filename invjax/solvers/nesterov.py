"""Smooth problems, one example: Nesterov's accelerated gradient, its projected form, gradient descent with momentum.

With the velocity v_t = x_t − x_{t−1} and the weight μ_t = (β_{t−1} − 1)/β_t of :mod:`invjax.solvers.momentum`,

    NAG              v_{t+1} = μ_t v_t − σ ∇h(x_t + μ_t v_t),         x_{t+1} = x_t + v_{t+1}      (1)
    projected NAG    v_{t+1} = μ_t v_t − σ P_V ∇h(x_t + μ_t v_t),     x_{t+1} = x_t + v_{t+1}      (2)
    heavy ball       v_{t+1} = m v_t − σ ∇h(x_t),                     x_{t+1} = x_t + v_{t+1}      (3)

(1) is FISTA with g = 0. P_V zeroes the entries outside a support V; with x_0 in V, (2) gives the iterates of (1) run in
the coordinates of V alone. (3) is Polyak's method (1964).
"""

from __future__ import annotations

import jax.numpy as jnp

from invjax.solvers.momentum import Prox, Solver, State, accept, current, init, look_ahead, replace
from invjax.solvers.proximal import identity
from invjax.types import Array, ArrayLike


def within(support: Array | None, grad: Array) -> Array:
    """P_V: ``grad`` where ``support`` (bool, [*S] or broadcastable to it), 0 elsewhere; None is no restriction."""
    return grad if support is None else jnp.where(support, grad, jnp.zeros_like(grad))


def velocity_step(x: Array, velocity: Array, grad: Array, step_size: ArrayLike, project: Prox = identity) -> Array:
    """``project(x + (velocity − step_size · grad), step_size)``: the move that (1), (2) and (3) share. [*S]"""
    size = jnp.asarray(step_size, x.dtype)
    return jnp.asarray(project(x + (velocity - size * grad), size), x.dtype)


def nag_propose(
    state: State, grad: Array, step_size: ArrayLike, project: Prox = identity, *, point: Array | None = None
) -> Array:
    """x_{t+1} of (1).

    Args:
      state: the state that was asked.
      grad: [*S] ∇h at the asked point.
      step_size: [] σ, at most 1/L where convergence is to be guaranteed.
      project: ``project(v, step_size)`` brings the iterate back into a set such as a box; the next velocity is the
        projected iterate's.
      point: [*S] where the gradient was taken, if that was not ``look_ahead(state)``.
    """
    carried = state.weight * state.velocity if point is None else point - state.x
    return velocity_step(state.x, carried, grad, step_size, project)


def pnag_propose(
    state: State,
    grad: Array,
    step_size: ArrayLike,
    support: Array,
    project: Prox = identity,
    *,
    point: Array | None = None,
) -> Array:
    """x_{t+1} of (2): :func:`nag_propose` with the gradient restricted to ``support``.

    Entries outside the support keep the value they have in x_0 (0 for a perturbation that starts in V); ``project``
    must not move them.
    """
    return nag_propose(state, within(support, grad), step_size, project, point=point)


def gd_propose(
    state: State,
    grad: Array,
    step_size: ArrayLike,
    momentum: ArrayLike = 0.9,
    project: Prox = identity,
    *,
    point: Array | None = None,
) -> Array:
    """x_{t+1} of (3). momentum: [] m in [0, 1), 0 is gradient descent. point: where the gradient was taken if not x."""
    carried = jnp.asarray(momentum, state.x.dtype) * state.velocity
    return velocity_step(state.x if point is None else point, carried, grad, step_size, project)


nag = Solver("nag", init, look_ahead, nag_propose, accept)
pnag = Solver("pnag", init, look_ahead, pnag_propose, accept)
gd = Solver("gd", init, current, gd_propose, replace)
