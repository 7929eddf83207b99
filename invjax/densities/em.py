"""Expectation maximisation of a Gaussian mixture: the computation behind :func:`invjax.densities.fit_gmm`."""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.scipy.special import logsumexp

from invjax.types import Array

_LLOYD = 10  # steps of k-means before the first M step


class Mixture(NamedTuple):
    """C weighted Gaussians in D dimensions."""

    log_weight: Array  # [C]
    mean: Array  # [C, D]
    factor: Array  # [C, D, D] with factor factor' = the precision; diagonal: [C, D], its square root
    log_det: Array  # [C] log |factor|


def _terms(mixture: Mixture, x: Array) -> Array:
    """``log(w_c N(x; c)) + D/2 log 2π`` of one point x [D] for every component, [C]."""
    difference = x - mixture.mean
    if mixture.factor.ndim == 2:
        white = difference * mixture.factor
    else:
        white = jnp.einsum("cd,cde->ce", difference, mixture.factor)
    return mixture.log_weight + mixture.log_det - 0.5 * jnp.square(white).sum(-1)


@functools.partial(jax.jit, static_argnames=("components", "full"))
def fit_classes(
    rows: Array, real: Array, keys: Array, floor: Array, tolerance: Array, *, components: int, full: bool, steps: Array
) -> tuple[Mixture, Array]:
    """A mixture for each class, the best of several starts by its likelihood.

    rows: [K, n, D] points, real: [K, n] 1 where a row is a point and 0 where it fills up, keys: [K, R] of the starts,
    floor: [D] least variance. Returns the mixtures [K, ...] and their mean log-likelihoods [K] (less D/2 log 2π).
    """

    def one(arguments: tuple[Array, Array, Array]) -> tuple[Mixture, Array]:
        rows, real, keys = arguments
        fits, values = jax.lax.map(lambda key: _fit(rows, real, key, floor, tolerance, components, full, steps), keys)
        best = jnp.argmax(jnp.where(jnp.isnan(values), -jnp.inf, values))
        return jax.tree.map(lambda leaf: leaf[best], fits), values[best]

    return jax.lax.map(one, (rows, real, keys))


def _fit(
    rows: Array, real: Array, key: Array, floor: Array, tolerance: Array, components: int, full: bool, steps: Array
) -> tuple[Mixture, Array]:
    """One run of EM from k-means++, which ends when the mean log-likelihood rises by less than ``tolerance``."""
    count = real.sum()

    def expect(mixture: Mixture) -> tuple[Array, Array]:
        logs = jax.vmap(lambda x: _terms(mixture, x))(rows)
        total = logsumexp(logs, axis=1)
        return jnp.exp(logs - total[:, None]) * real[:, None], (total * real).sum() / count

    def turn(carry: Any) -> Any:
        _, share, before, _, step = carry
        mixture = _maximise(rows, share, count, floor, full)
        share, value = expect(mixture)
        # A NaN ends the run as well: no comparison with it is true.
        return mixture, share, value, value - before > tolerance, step + 1

    def move(centers: Array) -> Array:
        share = _nearest(rows, centers) * real[:, None]
        size = share.sum(0)[:, None]
        return jnp.where(size > 0, share.T @ rows / jnp.maximum(size, 1), centers)

    centers = _seeds(rows, real, key, components)
    centers = jax.lax.fori_loop(0, _LLOYD, lambda _, centers: move(centers), centers)
    share = _nearest(rows, centers) * real[:, None]
    # M and E step stand once, which halves the program: the loop starts from the shares of k-means alone.
    size = rows.shape[1]
    empty = Mixture(
        jnp.zeros(components, rows.dtype),
        centers,
        jnp.zeros((components, size, size) if full else (components, size), rows.dtype),
        jnp.zeros(components, rows.dtype),
    )
    start = (empty, share, jnp.full((), -jnp.inf, rows.dtype), jnp.ones((), bool), jnp.zeros((), jnp.int32))
    mixture, _, value, _, _ = jax.lax.while_loop(lambda carry: carry[3] & (carry[4] < steps), turn, start)
    return mixture, value


def _maximise(rows: Array, share: Array, count: Array, floor: Array, full: bool) -> Mixture:
    """The M step. share: [n, C] responsibilities. Variances below ``floor`` [D] are raised to it.

    Full covariances by their eigenvalues, in coordinates where the floor is 1 in every direction: a singular
    covariance (a constant feature, fewer points than dimensions) needs no case of its own.
    """
    dtype = rows.dtype
    size = share.sum(0) + 10 * jnp.finfo(dtype).eps
    mean = share.T @ rows / size[:, None]

    def shape_of(weight: Array, mean: Array, size: Array) -> tuple[Array, Array]:
        difference = (rows - mean) / jnp.sqrt(floor)
        if not full:
            variance = jnp.maximum(weight @ jnp.square(difference) / size, 1) * floor
            return 1 / jnp.sqrt(variance), -0.5 * jnp.log(variance).sum()
        values, vectors = jnp.linalg.eigh((difference * weight[:, None]).T @ difference / size)
        values = jnp.maximum(values, 1)
        factor = vectors / jnp.sqrt(values) / jnp.sqrt(floor)[:, None]
        return factor, -0.5 * (jnp.log(values).sum() + jnp.log(floor).sum())

    factor, log_det = jax.lax.map(lambda row: shape_of(*row), (share.T, mean, size))
    return Mixture(jnp.log(size / count), mean, factor, log_det)


def _seeds(rows: Array, real: Array, key: Array, components: int) -> Array:
    """[C, D] by k-means++ (Arthur, Vassilvitskii, 2007): each center is a point drawn by its squared distance."""
    keys = jax.random.split(key, components)
    tiny = jnp.finfo(rows.dtype).tiny * 1e3

    def draw(key: Array, odds: Array) -> Array:
        return rows[jax.random.categorical(key, jnp.where(real > 0, jnp.log(odds + tiny), -jnp.inf))]

    def add(index: Array, carry: tuple[Array, Array]) -> tuple[Array, Array]:
        centers, square = carry
        center = draw(keys[index], square)
        return centers.at[index].set(center), jnp.minimum(square, jnp.square(rows - center).sum(1))

    first = draw(keys[0], jnp.ones_like(real))
    start = (jnp.zeros((components, rows.shape[1]), rows.dtype).at[0].set(first), jnp.square(rows - first).sum(1))
    return jax.lax.fori_loop(1, components, add, start)[0]


def _nearest(rows: Array, centers: Array) -> Array:
    """[n, C]: 1 at the nearest center of each row, else 0."""
    score = rows @ centers.T - 0.5 * jnp.square(centers).sum(1)
    return jax.nn.one_hot(jnp.argmax(score, axis=1), len(centers), dtype=rows.dtype)
