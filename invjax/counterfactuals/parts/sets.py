"""Sets of counterfactuals for one example: how far apart their points are, and which of many points to return.

    K_ij = 1 / (1 + d(c_i − c_j))                                                                                (1)

of Mothilal, Sharma, Tan (2020), eq. 2: 1 for two equal points, towards 0 for far ones. K is positive semidefinite for
every proximity d of this package (each is conditionally negative definite, and 1/(1 + d) is completely monotone).
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from invjax.counterfactuals.parts.proximity import Proximity
from invjax.types import Array, Context, Outcome, Problem, Status

RIDGE = 1e-4  # added to the diagonal of K, as in the released DiCE


def owners(ctx: Context, problem: Problem) -> np.ndarray:
    """[*S] int, static: the feature of each coordinate. Without a space every coordinate is a feature of its own."""
    if ctx.constraints is None:
        return np.arange(problem.x.size).reshape(problem.x.shape)
    return np.repeat(np.arange(ctx.constraints.num_features), ctx.constraints.layout.widths)


def spans(row: Any, x: Array) -> tuple[Array, Array]:
    """Finite ends [*S] to draw between: the row's own, and x ± 2 where a range is open (model units)."""
    lower, upper = (jnp.broadcast_to(jnp.asarray(side, x.dtype), x.shape) for side in (row.lower, row.upper))
    return jnp.where(jnp.isfinite(lower), lower, x - 2), jnp.where(jnp.isfinite(upper), upper, x + 2)


def kernel(points: Array, proximity: Proximity) -> Array:
    """[P, P] K of (1). points: [P, *S]."""
    distance = jax.vmap(lambda a: jax.vmap(lambda b: proximity.value(a - b))(points))(points)
    return 1 / (1 + distance)


def log_pivots(matrix: Array) -> Array:
    """[P] whose sum is log det of a positive definite [P, P]. By elimination in P static steps, on any device."""
    size, pivots = matrix.shape[0], []
    for i in range(size):
        pivot = jnp.maximum(matrix[i, i], jnp.finfo(matrix.dtype).eps)
        pivots.append(jnp.log(pivot))
        matrix = matrix - matrix[:, i, None] * matrix[None, i] / pivot
    return jnp.stack(pivots)


def diversity(points: Array, proximity: Proximity, kind: str) -> Array:
    """[] det(K + 1e-4 I), or its logarithm. points: [P, *S]; kind: "det" or "logdet"."""
    matrix = kernel(points, proximity)
    value = jnp.sum(log_pivots(matrix + RIDGE * jnp.eye(matrix.shape[0], dtype=matrix.dtype)))
    return jnp.exp(value) if kind == "det" else value


def pick_diverse(
    points: Array, score: Array, valid: Array, count: int, weight: Array, proximity: Proximity
) -> tuple[Array, Array]:
    """Which ``count`` (static) of M points [M, *S] to keep, best first, [count] int32, and which are worth it.

    The choice is greedy: each time it takes the point of least ``score + weight · max_j K_ij`` over the points taken.
    Valid points ([M] bool) come before the others, and copies of points taken come last. A point is worth keeping
    where it is valid and no copy.
    """
    spread = jnp.max(score) - jnp.min(score) + weight + 1
    base = jnp.where(valid, score, score + spread)

    def take(i: Array, carry: tuple[Array, Array, Array, Array]) -> tuple[Array, Array, Array, Array]:
        closest, taken, order, good = carry
        copy = closest >= 1
        cost = base + weight * closest + jnp.where(copy, 3 * spread, jnp.zeros_like(spread))
        chosen = jnp.argmin(jnp.where(taken, jnp.inf, cost)).astype(jnp.int32)
        near = 1 / (1 + jax.vmap(lambda c: proximity.value(c - points[chosen]))(points))
        return (
            jnp.maximum(closest, near),
            taken.at[chosen].set(True),
            order.at[i].set(chosen),
            good.at[i].set(valid[chosen] & ~copy[chosen]),
        )

    start = (
        jnp.zeros_like(score), jnp.zeros(score.shape, bool), jnp.zeros(count, jnp.int32), jnp.zeros(count, bool),
    )  # fmt: skip
    _, _, order, good = jax.lax.fori_loop(0, count, take, start)
    return order, good


def distinct(points: Array, valid: Array) -> Array:
    """[P] bool: valid, and not equal to a valid point before it. points: [P, *S]; valid: [P] bool."""
    flat = points.reshape(points.shape[0], -1)
    equal = (flat[:, None] == flat[None]).all(-1) & valid[None] & jnp.tri(len(flat), k=-1, dtype=bool)
    return valid & ~equal.any(1)


def apart(new: Array, old: Array) -> Array:
    """[P] bool: new[i] equals neither old[j] for another j nor new[j] for an earlier j. new, old: [P, *S]."""
    count = new.shape[0]
    new, old = new.reshape(count, -1), old.reshape(count, -1)
    is_old = (new[:, None] == old[None]).all(-1) & ~jnp.eye(count, dtype=bool)
    is_new = (new[:, None] == new[None]).all(-1) & jnp.tri(count, k=-1, dtype=bool)
    return ~(is_old | is_new).any(1)


def outcome(points: Array, valid: Array, status: Array, tried: Array) -> Outcome:
    """A set's Outcome: each valid point of [P, *S] is FOUND, the others have the lane's status [].

    tried: [P, *S] what to show as the attempt where a point was not found.
    """
    found = valid.reshape(valid.shape + (1,) * (points.ndim - 1))
    each = jnp.where(valid, Status.FOUND, jnp.broadcast_to(status, valid.shape)).astype(jnp.int32)
    return Outcome(points, each, jnp.where(found, points, tried))
