"""Back-tracking: the longest step of a ladder that the quadratic upper bound allows, in ask–tell form.

With z the asked point and r(σ) = prox_{σ g}(z − σ ∇h(z)), accept the first σ in σ_0, s σ_0, s² σ_0, … with

    h(r(σ)) ≤ h(z) + ⟨∇h(z), r(σ) − z⟩ + ‖r(σ) − z‖² / (2 σ)                     (1)

(Beck & Teboulle 2009, eq. 2.1 and "FISTA with backtracking"). If ∇h is L-Lipschitz every σ ≤ 1/L passes, so the step
found is at least min(σ_0, s/L). Started from the last step found, steps never grow, which FISTA's rate needs.

A search needs values of h but no further gradients: :func:`probe` names q points, the caller evaluates them (at once),
and :func:`tell` judges. If none passes, ``accepted`` is False and the search continues with the same z and ∇h(z).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from invjax.core.numerics import safe_divide
from invjax.solvers.momentum import Prox
from invjax.solvers.proximal import forward_backward, identity
from invjax.types import Array, ArrayLike

# Rounding of the two values compared in (1), in units of eps. Near the optimum their difference means nothing, and
# insisting on it would shrink the step without end. The values do not show how large the terms were that cancelled in
# them (a residual Ax − b near 0); ‖z‖²/(2σ), the value of a quadratic of curvature 1/σ, does.
ROUNDINGS = 8.0


class Backtrack(NamedTuple):
    """One search."""

    step_size: Array  # [] the first size to try next; once accepted, the size found
    accepted: Array  # [] bool
    index: Array  # [] int32 which of the probes told last was accepted (0 if none)
    trials: Array  # [] int32 function values told so far


def start(step_size: Array) -> Backtrack:
    """A search that tries ``step_size`` [] first."""
    zero = jnp.zeros((), jnp.int32)
    return Backtrack(step_size=step_size, accepted=jnp.zeros((), bool), index=zero, trials=zero)


def ladder(search: Backtrack, shrink: ArrayLike, q: int = 1) -> Array:
    """The next q step sizes, [q]: ``step_size · shrink^j``. shrink: [] in (0, 1)."""
    powers = jnp.arange(q).astype(search.step_size.dtype)
    return search.step_size * jnp.asarray(shrink, search.step_size.dtype) ** powers


def probe(
    search: Backtrack, point: Array, grad: Array, prox: Prox = identity, *, shrink: ArrayLike = 0.5, q: int = 1
) -> Array:
    """The points r(σ) of the next q steps, at which h is wanted: [q, *S].

    Args:
      search: the search.
      point: [*S] z.
      grad: [*S] ∇h(z).
      prox: the proximal map of g.
      shrink: [] in (0, 1).
      q: how many to try at once; static.
    """
    return jax.vmap(lambda size: forward_backward(point, grad, size, prox))(ladder(search, shrink, q))


def sufficient(point: Array, value: Array, grad: Array, candidate: Array, trial: Array, step_size: Array) -> Array:
    """(1), up to rounding; False where anything is NaN. [] bool

    Args:
      point: [*S] z.
      value: [] h(z).
      grad: [*S] ∇h(z).
      candidate: [*S] r(σ).
      trial: [] h(r(σ)).
      step_size: [] σ.
    """
    move = candidate - point
    bound = value + jnp.sum(grad * move) + jnp.sum(jnp.square(move)) / (2.0 * step_size)
    terms = ROUNDINGS * (jnp.abs(value) + jnp.abs(trial)) + jnp.sum(jnp.square(point)) / (2.0 * step_size)
    slack = jnp.finfo(point.dtype).eps * terms
    return trial <= bound + slack


def tell(
    search: Backtrack,
    point: Array,
    value: ArrayLike,
    grad: Array,
    candidates: Array,
    values: Array,
    *,
    shrink: ArrayLike = 0.5,
) -> Backtrack:
    """Judge the probes: the first that satisfies (1) ends the search; otherwise the ladder continues below the last.

    Args:
      search: the search that was probed.
      point: [*S] z.
      value: [] h(z).
      grad: [*S] ∇h(z).
      candidates: [q, *S] from :func:`probe` with the same ``shrink``.
      values: [q] h there.
      shrink: [] in (0, 1).
    """
    dtype, q = point.dtype, candidates.shape[0]
    steps = ladder(search, shrink, q)
    here, there = jnp.asarray(value, dtype), jnp.asarray(values, dtype)
    passes = jax.vmap(lambda r, v, s: sufficient(point, here, grad, r, v, s))(candidates, there, steps)
    accepted = jnp.any(passes)
    index = jnp.argmax(passes).astype(jnp.int32)
    below = steps[-1] * jnp.asarray(shrink, dtype)
    return Backtrack(
        step_size=jnp.where(accepted, steps[index], below),
        accepted=accepted,
        index=index,
        trials=search.trials + jnp.asarray(q, jnp.int32),
    )


def first_step(gradient: Callable[[Array], Array], x0: Array, grad: Array) -> Array:
    """A first step size for back-tracking when nothing is known of h: 1 / (curvature of h at x0 along its gradient).

    The curvature is a difference of two gradients (one more evaluation). It is at most L, so the step is at least 1/L
    and back-tracking shortens it where that is too long. Where h is flat or concave along the gradient the step is
    the one that moves x0 by a thousand times its own size (at least a thousand); it is never longer.

    Args:
      gradient: ∇h.
      x0: [*S].
      grad: [*S] ∇h(x0).
    """
    dtype = x0.dtype
    size = jnp.maximum(jnp.linalg.norm(jnp.ravel(x0)), jnp.ones((), dtype))
    length = jnp.linalg.norm(jnp.ravel(grad))
    direction = safe_divide(grad, jnp.broadcast_to(length, grad.shape))
    # The cube root of eps balances the rounding of the gradients against the change of curvature along the difference.
    gap = size * jnp.asarray(float(jnp.finfo(dtype).eps) ** (1.0 / 3.0), dtype)
    curvature = jnp.sum(direction * (gradient(x0 + gap * direction) - grad)) / gap
    least = length / (1000.0 * size)
    usable = jnp.isfinite(curvature) & (curvature > least)
    inverse = safe_divide(jnp.ones((), dtype), jnp.where(usable, curvature, least))
    return jnp.where(length > 0, inverse, jnp.ones((), dtype))  # a stationary start tells nothing
