"""The convex inner problem of PCFE: nearest point in halfspaces, one ellipsoid and what a row may become.

    min_u  φ(u - x)     subject to   A u >= b,   (u - μ)ᵀ P (u - μ) <= r,   u in the hull of the row           (P)

φ is the cost-weighted l1 norm or 1/2 ‖·‖². Consensus ADMM (Boyd et al. 2011, section 5 and 3.4.1) keeps a copy of u for
each of the three sets, each with its exact map. One polish follows: Newton's method on the equations of the active set.
Every function is for ONE problem; vmap it.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from invjax.core.numerics import safe_divide, safe_norm
from invjax.types import Array

RELAX = 1.6  # over-relaxation, Boyd et al. section 3.4.3
BALANCE_EVERY, BALANCE_UNTIL = 25, 1000  # iterations between, and after the last, changes of the penalty
POLISH_WIDTH = 128  # columns up to which the polish solves its linear system


class Ellipsoid(NamedTuple):
    """``(u - mean)ᵀ P (u - mean) <= radius`` with P = basis diag(1 / variance) basisᵀ; arrays of jax or NumPy."""

    mean: Any  # [D]
    basis: Any  # [D, D] orthonormal columns
    variance: Any  # [D] > 0
    radius: Any  # [] >= 0


class Halfspaces(NamedTuple):
    """``normal u >= offset``; rows of zeros with an offset <= 0 hold everywhere."""

    normal: Array  # [M, D]
    offset: Array  # [M]


class Solution(NamedTuple):
    u: Array  # [D] in the hull of the row
    residual: Array  # [] largest of the primal and dual residuals at the end
    iterations: Array  # [] int32


class _Admm(NamedTuple):
    z: tuple[Array, Array, Array]  # copies: normal u [M], of the ellipsoid [D], of the row's hull [D]
    w: tuple[Array, Array, Array]  # scaled dual variables
    rho: Array  # []
    primal: Array  # []
    dual: Array  # []
    count: Array  # [] int32, iterations so far


def distance(e: Ellipsoid, u: Array) -> Array:
    """[] ``(u - μ)ᵀ P (u - μ)``."""
    return jnp.sum(jnp.square((u - e.mean) @ e.basis) / e.variance)


def onto_ellipsoid(e: Ellipsoid, v: Array) -> Array:
    """The nearest point of the ellipsoid, ``y_i λ_i / (λ_i + ν)`` in its axes with the ν >= 0 that meets the radius.

    Newton's method on ``1 / √q(ν) - 1 / √r``, q the squared distance: concave and increasing, so from ν = 0 the steps
    never overshoot (Moré & Sorensen 1983).
    """
    y, lam = (v - e.mean) @ e.basis, e.variance
    target = jnp.maximum(e.radius, jnp.finfo(v.dtype).tiny)

    def step(_: int, nu: Array) -> Array:
        q = jnp.sum(lam * jnp.square(y / (lam + nu)))
        slope = 2 * jnp.sum(lam * jnp.square(y) / (lam + nu) ** 3)
        return nu + jnp.maximum(safe_divide(2 * q * (jnp.sqrt(q / target) - 1), slope), jnp.zeros_like(nu))

    nu = jax.lax.fori_loop(0, 25, step, jnp.zeros((), v.dtype))
    inside = jnp.sum(jnp.square(y) / lam) <= e.radius
    return jnp.where(inside, v, e.mean + e.basis @ (y * lam / (lam + nu)))


def unit_rows(h: Halfspaces) -> Halfspaces:
    """The same halfspaces with normals of length 1 (or 0, and then an offset <= 0)."""
    norm = safe_norm(h.normal, axis=1)
    return Halfspaces(safe_divide(h.normal, norm[:, None]), jnp.where(norm > 0, safe_divide(h.offset, norm), -1.0))


def solve(row: Any, h: Halfspaces, e: Ellipsoid, start: Array, tol: Array, limit: Array, norm: str) -> Solution:
    """(P) for one row.

    Args:
      row: the maps of :func:`invjax.constraints.actions`.
      h, e: the constraints; h with rows of length 1.
      start: [D] the first u.
      tol: [] the primal and dual residuals at which it ends, model coordinates.
      limit: [] int32, most iterations.
      norm: "l1" or "l2", static.

    An infeasible problem ends at the limit, with a residual above ``tol`` and a u that is only in the hull.
    """
    x, a, dtype = row.x, h.normal, start.dtype
    # (AᵀA + 2I)⁻¹ = (I - Aᵀ (2I + AAᵀ)⁻¹ A) / 2
    small = jnp.linalg.inv(2 * jnp.eye(a.shape[0], dtype=dtype) + a @ a.T)

    def minimise(p: tuple[Array, Array, Array]) -> Array:
        v = p[0] @ a + p[1] + p[2]
        return (v - (small @ (a @ v)) @ a) / 2

    def nearest(v: tuple[Array, Array, Array], rho: Array) -> tuple[Array, Array, Array]:
        near = row.prox(v[2], 1 / rho, "l1") if norm == "l1" else row.project((rho * v[2] + x) / (rho + 1))
        return jnp.maximum(v[0], h.offset), onto_ellipsoid(e, v[1]), near

    def on(s: _Admm) -> Array:
        return ((s.primal > tol) | (s.dual > tol)) & (s.count < limit)

    def body(s: _Admm) -> _Admm:
        u = minimise(jax.tree.map(jnp.subtract, s.z, s.w))
        copies = (a @ u, u, u)
        relaxed = jax.tree.map(lambda c, z: RELAX * c + (1 - RELAX) * z, copies, s.z)
        z = nearest(jax.tree.map(jnp.add, relaxed, s.w), s.rho)
        w = jax.tree.map(lambda w, c, z: w + c - z, s.w, relaxed, z)
        primal = jnp.max(jnp.stack([jnp.max(jnp.abs(c - d)) for c, d in zip(copies, z, strict=True)]))
        moved = jax.tree.map(jnp.subtract, z, s.z)
        dual = s.rho * jnp.max(jnp.abs(moved[0] @ a + moved[1] + moved[2]))
        # Residual balancing, section 3.4.1. It ends after a while, so that the iteration converges.
        turn = (s.count % BALANCE_EVERY == BALANCE_EVERY - 1) & (s.count < BALANCE_UNTIL)
        factor = jnp.where(primal > 5 * dual, 2.0, jnp.where(dual > 5 * primal, 0.5, 1.0)).astype(dtype)
        factor = jnp.where(turn, factor, jnp.ones_like(factor))
        return _Admm(z, jax.tree.map(lambda w: w / factor, w), s.rho * factor, primal, dual, s.count + 1)

    zero = (jnp.zeros(a.shape[0], dtype), jnp.zeros_like(start), jnp.zeros_like(start))
    big = jnp.asarray(jnp.inf, dtype)
    first = _Admm((a @ start, start, start), zero, jnp.ones((), dtype), big, big, jnp.int32(0))
    end = jax.lax.while_loop(on, body, first)
    return Solution(end.z[2], jnp.maximum(end.primal, end.dual), end.count)


def polish(row: Any, h: Halfspaces, e: Ellipsoid, u: Array, tol: Array, norm: str) -> Array:
    """u with its active constraints met exactly; u itself where that fails or does not apply.

    The active set is read off u (columns that differ from x and are inside their limits are free, halfspaces and the
    ellipsoid within 1000 tolerances of equality hold as equalities), and Newton's method solves the Karush-Kuhn-Tucker
    equations in (u, λ, ν):

        ∇φ - Aᵀλ + 2ν P(u - μ) = 0 on free columns,   A u = b,   (u - μ)ᵀP(u - μ) = r   of the active ones

    The answer is taken if it is in the hull of the row, feasible within ``tol`` and no farther than 1000 tolerances.
    """
    if u.shape[0] > POLISH_WIDTH or not hasattr(row, "lower"):
        return u
    x, near, count = row.x, 1000 * tol, h.offset.shape[0]
    width = u.shape[0]
    cost = getattr(row, "column_cost", jnp.ones_like(u))
    free = (u != x) & (u > row.lower + tol) & (u < row.upper - tol)
    tight = (h.normal @ u - h.offset < near) & (jnp.sum(jnp.abs(h.normal), axis=1) > 0)
    gap = distance(e, u) - e.radius
    edge = gap > -near * jnp.maximum(e.radius, 1)
    sign = cost * jnp.sign(u - x)

    def equations(v: Array) -> Array:
        p, lam, nu = v[:width], v[width : width + count], v[-1]
        pull = e.basis @ (((p - e.mean) @ e.basis) / e.variance)
        slope = (sign if norm == "l1" else p - x) - lam @ h.normal + 2 * nu * pull
        stationary = jnp.where(free, slope, p - u)
        holds = jnp.where(tight, h.normal @ p - h.offset, lam)
        round_ = jnp.where(edge, (distance(e, p) - e.radius) / jnp.maximum(e.radius, 1), nu)
        return jnp.concatenate([stationary, holds, round_[None]])

    # Multipliers to start with: least squares of the stationarity, which is linear in them.
    begin = jnp.concatenate([u, jnp.zeros(count + 1, u.dtype)])
    jacobian = jax.jacfwd(equations)
    matrix, value = jacobian(begin)[:, width:], equations(begin)
    ridge = jnp.sqrt(jnp.finfo(u.dtype).eps)
    normal = matrix.T @ matrix + ridge * jnp.eye(count + 1, dtype=u.dtype)
    begin = begin.at[width:].add(-jnp.linalg.solve(normal, matrix.T @ value))

    def newton(_: int, v: Array) -> Array:
        # A ridge on the diagonal: where a vertex has more active constraints than columns the system is singular.
        system = jacobian(v) + jnp.finfo(u.dtype).eps * jnp.eye(v.shape[0], dtype=v.dtype)
        step = jnp.linalg.solve(system, equations(v))
        return v - jnp.where(jnp.isfinite(step), step, jnp.zeros_like(step))

    p = jax.lax.fori_loop(0, 6, newton, begin)[:width]
    p = jnp.where(free, p, u)
    feasible = jnp.all(h.normal @ p >= h.offset - tol) & (distance(e, p) <= e.radius + tol * jnp.maximum(e.radius, 1))
    feasible &= jnp.max(jnp.abs(row.project(p) - p)) <= 4 * jnp.finfo(u.dtype).eps * (1 + jnp.max(jnp.abs(p)))
    good = feasible & jnp.isfinite(p).all() & (jnp.max(jnp.abs(p - u)) <= near)
    return jnp.where(good, p, u)
