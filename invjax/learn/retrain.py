"""Retraining the last layer of a network: DFR and AFR.

With the features φ(x) [D], the inputs of the last linear layer,

    DFR (Kirichenko et al. 2023)    min_{W,b}  (1/n) Σ_i l(W^T z_i + b, y_i) + ‖W‖_1 / (C n)      balanced, held out
    AFR (Qiu et al. 2023)           min_{W,b}  Σ_i μ_i l(W^T φ_i + b, y_i) + λ ‖(W, b) − (W_0, b_0)‖²

Both are convex and solved to a tolerance by the library's own accelerated methods. DFR needs group labels of the
held-out data. AFR needs none: its weights μ_i ∝ exp(−γ p_i) are large where the first network gives the true class a
small probability p_i.
"""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from invjax import prox, solvers
from invjax.core.arguments import kinds_checked
from invjax.core.errors import BadArgument, check_key, check_number, check_whole, of_shape
from invjax.core.labels import check_finite, check_indices
from invjax.core.shown import short_repr
from invjax.learn.last_layer import LastLayer, last_layer, penultimate, with_last_layer
from invjax.learn.rules import start_of
from invjax.learn.step import cross_entropy
from invjax.metrics.group import group_accuracies
from invjax.types import Array, ArrayLike

GRID = (1.0, 0.7, 0.3, 0.1, 0.07, 0.03, 0.01)  # of C, as in the released code


class Logistic(NamedTuple):
    """A linear classifier on features; several that were fitted at once have leading axes."""

    kernel: Array  # [D, K]
    bias: Array  # [K]
    converged: Array  # [] bool


class _SparseKernel(NamedTuple):
    """g = weight · ‖W‖_1 on [W; b], whose last row b is free."""

    weight: Array

    def value(self, u: Array) -> Array:
        return self.weight * jnp.sum(jnp.abs(u[:-1]))

    def prox(self, v: Array, step: Array) -> Array:
        return jnp.concatenate([prox.l1(v[:-1], self.weight * step), v[-1:]])


@partial(jax.jit, static_argnames="classes")
def l1_logistic(
    features: Array,
    y: Array,
    C: ArrayLike,
    *,
    classes: int,
    tol: ArrayLike = 1e-4,
    max_steps: ArrayLike = 2000,
) -> Logistic:
    """``min (1/n) Σ l(W^T z_i + b, y_i) + ‖W‖_1 / (C n)``, l the cross-entropy, by FISTA with restarts.

    C is the inverse strength, as in scikit-learn. The bias is not penalised (liblinear, which the released code calls,
    penalises it). For two classes only their difference w is fitted; the kernel is then ``(−w/2, w/2)``.

    Args:
      features: [n, D]; y: [n] int in [0, K). classes: K >= 2 (static). tol, max_steps: of :func:`solvers.minimize`.
    """
    free = 1 if classes == 2 else classes

    def spread(u: Array) -> Array:
        return jnp.concatenate([-u / 2, u / 2], axis=-1) if classes == 2 else u

    def smooth(u: Array) -> Array:
        return jnp.mean(cross_entropy(spread(features @ u[:-1] + u[-1]), y))

    penalty = _SparseKernel(1 / (jnp.asarray(C, features.dtype) * features.shape[0]))
    start = jnp.zeros((features.shape[1] + 1, free), features.dtype)
    found = solvers.minimize(smooth, start, g=penalty, tol=tol, max_steps=max_steps)
    full = spread(found.x)
    return Logistic(full[:-1], full[-1], found.converged)


@partial(jax.jit, static_argnames="classes")
def _many(features: Array, y: Array, rows: Array, C: Array, tol: Array, max_steps: Array, *, classes: int) -> Logistic:
    """R fits at once: one per row of ``rows`` [R, n] and C [R]."""

    def one(rows: Array, C: Array) -> Logistic:
        return l1_logistic(features[rows], y[rows], C, classes=classes, tol=tol, max_steps=max_steps)

    return jax.vmap(one)(rows, C)


class Retrained(NamedTuple):
    """A network with a new last layer, and a report of the fit."""

    model: nnx.Module  # in evaluation mode
    report: dict[str, Any]

    __repr__ = short_repr


@kinds_checked
def dfr(
    model: nnx.Module,
    x: Any,
    y: Any,
    groups: Any = None,
    *,
    key: Array,
    num_groups: int | None = None,
    C: float | None = None,
    grid: tuple[float, ...] = GRID,
    retrains: int = 20,
    batch: int = 256,
    tol: float = 1e-4,
    max_steps: int = 2000,
) -> Retrained:
    """Deep feature reweighting: refit the last layer by sparse logistic regression on group-balanced held-out data.

    One scaler (mean and standard deviation of each feature over all of x) serves the choice of C and the final fits. To
    choose C, each candidate is fitted on a balanced draw from a random half of x; the best worst group on the other
    half wins, and of equal ones the smallest C. Then W and b are the means over ``retrains`` fits, each on another
    balanced draw of x: as many examples of each group as the smallest has. The scaler is folded into the new layer.

    Args:
      model: the trained network; it is not changed.
      x, y, groups: held-out data [N, *S], [N], [N] (DFR_val; the training data for DFR_tr). If groups is None, the
        classes take their place, which needs no attribute.
      key: of the halves and draws.
      num_groups: G; a group without examples is an error.
      C: inverse strength; None chooses it from ``grid``.
      retrains: number of final fits, 20 in the paper.

    Returns:
      The network and {"C", "worst_by_C" (on the other half), "nonzero" (share of W), "converged" (share of fits),
      "examples" (of one fit)}.

    Raises:
      ValueError: a wrong argument, a network without a last linear layer, a group too small to be halved.
    """
    for name, value in (("retrains", retrains), ("batch", batch), ("max_steps", max_steps)):
        check_whole(name, value)
    check_number("tol", tol, lambda v: v >= 0, "a number >= 0")
    if C is not None:
        check_number("C", C, lambda v: v > 0, "None or a number > 0")
    for value in grid:
        check_number("grid", value, lambda v: v > 0, "positive numbers")
    if not len(grid):
        raise BadArgument("grid", "hold at least one number", grid)
    layer, labels = _layer_and_labels(model, x, y)
    member = labels if groups is None else check_indices("groups", groups, len(x), num_groups, what="groups")
    start_of(member, num_groups, "error")
    if C is None and np.bincount(member).min() < 2:
        raise BadArgument("groups", "have at least 2 examples each, so that C can be chosen on half of them")
    features = penultimate(model, x, layer, batch=batch)
    mean, std = features.mean(0), features.std(0)
    std = np.where(std > 1e-8, std, 1.0)  # a dead feature stays 0
    scaled = (features - mean) / std
    rng, classes = np.random.default_rng(np.asarray(jax.random.key_data(check_key(key)))), layer.kernel.shape[1]
    numbers = jnp.asarray(tol, jnp.float32), jnp.asarray(max_steps, jnp.int32)

    def run(rows: np.ndarray, strengths: np.ndarray) -> Logistic:
        given = (jnp.asarray(array) for array in (scaled, labels, rows))
        return jax.tree.map(np.asarray, _many(*given, jnp.asarray(strengths, jnp.float32), *numbers, classes=classes))

    report: dict[str, Any] = {}
    everything = np.arange(len(labels))
    if C is None:
        own = [rng.permutation(np.flatnonzero(member == g)) for g in np.unique(member)]
        half = np.concatenate([rows[: len(rows) // 2] for rows in own])
        rest, strengths = np.setdiff1d(everything, half), np.asarray(grid)
        drawn = _balanced(member, half, rng)
        fitted = run(np.broadcast_to(drawn, (len(grid), len(drawn))), strengths)
        said = np.einsum("nd,rdk->rnk", scaled[rest], fitted.kernel) + fitted.bias[:, None]
        worst = [group_accuracies(one.argmax(1) == labels[rest], member[rest], resamples=1).worst for one in said]
        C = float(strengths[np.lexsort((strengths, -np.asarray(worst)))[0]])
        report["worst_by_C"] = dict(zip(map(float, grid), worst, strict=True))
    draws = np.stack([_balanced(member, everything, rng) for _ in range(retrains)])
    fitted = run(draws, np.full(retrains, C))
    kernel, bias = fitted.kernel.mean(0), fitted.bias.mean(0)
    report |= {
        "C": C,
        "nonzero": float(np.mean(kernel != 0)),
        "converged": float(np.mean(fitted.converged)),
        "examples": int(draws.shape[1]),
    }
    kernel = kernel / std[:, None]
    return Retrained(with_last_layer(model, layer, kernel, bias - mean @ kernel), report)


def _balanced(member: np.ndarray, rows: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Draw from ``rows``, without replacement, as many of each group as the smallest has."""
    each = [rows[member[rows] == g] for g in np.unique(member[rows])]
    least = min(map(len, each))
    return np.concatenate([rng.permutation(one)[:least] for one in each])


def _layer_and_labels(model: nnx.Module, x: Any, y: Any) -> tuple[LastLayer, np.ndarray]:
    """The last layer of the network, and y as checked labels [N]."""
    check_indices("y", y, len(x))  # before the search for the layer
    layer = last_layer(model, x[np.arange(min(8, len(x)))])
    return layer, check_indices("y", y, len(x), layer.kernel.shape[1])


@kinds_checked
def afr_weights(logits: ArrayLike, y: Any, gamma: float) -> np.ndarray:
    """``μ_i ∝ exp(−γ p_i) / n_{y_i}`` with p_i = softmax(logits_i)_{y_i}, summing to 1: [N, K], [N] -> [N].

    Raises BadArgument: logits that are not [N, K] or hold NaN, or y that are no classes of them.
    """
    scores = np.asarray(logits, np.float64)
    if scores.ndim != 2:
        raise BadArgument("logits", "be [N, K]", of_shape(scores.shape))
    check_finite("logits", scores)
    _check_gamma(gamma)
    labels = check_indices("y", y, len(scores), scores.shape[1])
    scores = scores - scores.max(1, keepdims=True)
    p = np.exp(scores[np.arange(len(labels)), labels]) / np.exp(scores).sum(1)
    mu = np.exp(-gamma * p) / np.bincount(labels)[labels]
    return mu / mu.sum()


def _check_gamma(gamma: float) -> None:
    check_number("gamma", gamma, lambda v: v >= 0, "a number >= 0")


@jax.jit
def _towards(
    features: Array, y: Array, mu: Array, start: Array, penalty: Array, tol: Array, max_steps: Array
) -> solvers.Solution:
    def objective(u: Array) -> Array:
        return jnp.sum(mu * cross_entropy(features @ u[:-1] + u[-1], y)) + penalty * jnp.sum(jnp.square(u - start))

    return solvers.minimize(objective, start, solver="nag", tol=tol, max_steps=max_steps)


@kinds_checked
def afr(
    model: nnx.Module,
    x: Any,
    y: Any,
    *,
    gamma: float = 8.0,
    penalty: float = 0.1,
    batch: int = 256,
    tol: float = 1e-5,
    max_steps: int = 500,
) -> Retrained:
    """Automatic feature reweighting: refit the last layer with weight on the network's errors. It needs no groups.

    The paper trains the network on 80 % of the training data and refits on the other 20 %: on memorised data all p_i
    are near 1 and the weights say nothing. It takes 500 steps of full-batch gradient descent and chooses γ and λ by the
    worst group of validation data. Here Nesterov's method solves the convex problem to ``tol``, in at most
    ``max_steps`` steps. The defaults of γ and λ are this library's; choose them by validation data, too.

    Args:
      model: the trained network; it is not changed.
      x, y: data it has not seen, [N, *S], [N].
      gamma: γ >= 0; 0 is a class-balanced fit.
      penalty: λ >= 0.

    Returns:
      The network and {"steps", "converged", "effective": 1 / (N Σ μ_i²), the effective share of x in the fit}.
    """
    _check_gamma(gamma)
    for name, value in (("penalty", penalty), ("tol", tol)):
        check_number(name, value, lambda v: v >= 0, "a number >= 0")
    check_whole("max_steps", max_steps)
    layer, labels = _layer_and_labels(model, x, y)
    features = penultimate(model, x, layer, batch=batch)
    mu = afr_weights(features @ layer.kernel + layer.bias, labels, gamma)
    start = np.concatenate([layer.kernel, layer.bias[None]])
    numbers = (jnp.asarray(value, jnp.float32) for value in (mu, start, penalty, tol))
    found = _towards(features, labels, *numbers, jnp.asarray(max_steps, jnp.int32))
    report = {
        "steps": int(found.steps),
        "converged": bool(found.converged),
        "effective": float(1 / (len(mu) * np.sum(mu * mu))),
    }
    return Retrained(with_last_layer(model, layer, found.x[:-1], found.x[-1]), report)
