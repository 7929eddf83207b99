"""A normalising flow conditional on the class: affine couplings, an exact and normalised log density.

    log p(x | k) = log N(f_k(x); 0, I) + log |det ∂f_k/∂x|                                                         (1)

f_k standardises with the mean and deviation of class k, then applies L couplings (RealNVP: Dinh, Sohl-Dickstein,
Bengio, ICLR 2017)

    z ← m ∘ z + (1 − m) ∘ (z ∘ exp(s(m ∘ z, k)) + t(m ∘ z, k))

with masks m of random halves, each followed by its complement; s and t come from one network of two hidden layers,
s bounded by ±2. Plain arrays, no neural network library.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from invjax.core.arguments import kinds_checked
from invjax.core.errors import check, check_key, check_whole
from invjax.core.shown import many, size_of
from invjax.densities.common import check_points, deviations, leaf, point
from invjax.densities.training import check_training, train
from invjax.types import Array, ArrayLike

_BOUND = 2.0  # of |s|: a coupling scales by at most e^2


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, eq=False)
class Flow:
    """Couplings and their standardisation; made by :func:`fit_flow`."""

    weights: dict[str, Array]  # of the couplings, stacked on a leading axis [L]
    masks: Array  # [L, D] 0 or 1
    mean: Array  # [K, D]
    scale: Array  # [K, D]

    def __repr__(self) -> str:
        classes, features = np.shape(self.mean)[-2:] if np.ndim(self.mean) > 1 else (0, 0)
        return f"Flow({many(features, 'feature')} in {many(classes, 'class')}, {size_of(self.weights)})"

    @property
    def classes(self) -> int:
        """K."""
        return len(self.mean)

    def log_prob(self, x: Array, label: Array) -> Array:
        """Formula (1) of the module at one point x [*S] for class ``label`` [] int32 in 0 … K-1; []."""
        x = point(x)
        dtype = x.dtype
        scale = self.scale.astype(dtype)[label]
        z = (x.reshape(-1) - self.mean.astype(dtype)[label]) / scale
        weights = jax.tree.map(lambda leaf: leaf.astype(dtype), self.weights)
        return _standard(weights, self.masks.astype(dtype), z, label) - jnp.log(scale).sum()


@kinds_checked
def fit_flow(
    x: ArrayLike,
    y: ArrayLike,
    *,
    layers: int = 8,
    hidden: int = 64,
    noise: float = 0.05,
    steps: int = 1500,
    batch: int = 128,
    rate: float = 3e-3,
    held_out: float = 0.1,
    key: Array | None = None,
) -> Flow:
    """Train a conditional flow by maximum likelihood.

    Args:
      x: reference points [M, *S]; flattened to D numbers. y: their classes [M], 0 … K-1.
      layers: couplings L. hidden: width of their networks.
      noise: deviation of the Gaussian noise that is added to the points in training, in units of the features'
        deviation. It keeps the likelihood of discrete features finite and smooths that of few points.
      steps, batch, rate: minibatches of Adam, their size, the peak rate. held_out: share of the points by which the
        weights to keep are chosen.
      key: draws weights, masks, order and noise; ``jax.random.key(0)`` by default.

    Raises:
      ValueError: x or y malformed, a class with fewer than 2 points, an argument out of range.
    """
    layers, hidden = check_whole("layers", layers), check_whole("hidden", hidden)
    check("noise", noise, lambda deviation: 0 <= deviation < np.inf, "at least 0 and finite")
    check_training(steps, batch, rate, held_out)
    data = check_points(x, y, 2, "for a deviation")
    size = data.x.shape[1]
    start, order = jax.random.split(check_key(key))
    # A feature that is (nearly) constant only within its class keeps 5 % of its deviation over all points.
    mean, overall = data.centers(), deviations(data.x, 0.05)
    scale = np.stack([np.maximum(data.of(label).std(0), 0.05 * overall) for label in range(data.classes)])
    z = leaf((data.x - mean[data.y]) / scale[data.y], data)
    masks = leaf(_masks(layers, size, jax.random.fold_in(start, 0)), data)
    weights = _initial(layers, size, data.classes, hidden, jax.random.fold_in(start, 1), data.dtype)
    run: dict[str, Any] = {"steps": steps, "batch": batch, "rate": rate, "held_out": held_out}
    weights, _ = train(_Loss(float(noise)), (weights, masks), z, jnp.asarray(data.y), order, **run)
    return Flow(weights, masks, leaf(mean, data), leaf(scale, data))


@dataclasses.dataclass(frozen=True)
class _Loss:
    """The mean negative log-likelihood of a batch of standardised points."""

    noise: float

    def __call__(self, state: tuple[Any, Array], z: Array, label: Array, key: Array | None) -> Array:
        weights, masks = state
        if key is not None:
            z = z + self.noise * jax.random.normal(key, z.shape, z.dtype)
        masks = jax.lax.stop_gradient(masks)  # fixed: Adam leaves alone what has no gradient
        return -jax.vmap(lambda z, label: _standard(weights, masks, z, label))(z, label).mean()


def _standard(weights: dict[str, Array], masks: Array, z: Array, label: Array) -> Array:
    """The log density of one standardised point z [D]."""

    def couple(carry: tuple[Array, Array], layer: tuple[dict[str, Array], Array]) -> tuple[tuple[Array, Array], None]:
        (z, log_det), (w, mask) = carry, layer
        h = jnp.tanh((mask * z) @ w["in"] + w["class_in"][label])
        h = jnp.tanh(h @ w["middle"] + w["class_middle"][label])
        s, t = jnp.split(h @ w["out"] + w["class_out"][label], 2)
        s = (1 - mask) * _BOUND * jnp.tanh(s / _BOUND)
        return (z * jnp.exp(s) + (1 - mask) * t, log_det + s.sum()), None

    (z, log_det), _ = jax.lax.scan(couple, (z, jnp.zeros((), z.dtype)), (weights, masks))
    return log_det - 0.5 * jnp.square(z).sum() - 0.5 * z.size * math.log(2 * math.pi)


def _masks(layers: int, size: int, key: Array) -> np.ndarray:
    """[L, D] random halves in pairs with their complements; 0 in one dimension, where s and t see the class alone."""
    if size == 1:
        return np.zeros((layers, 1))
    masks = []
    for pair in range((layers + 1) // 2):
        order = np.asarray(jax.random.permutation(jax.random.fold_in(key, pair), size))
        half = (order < size // 2).astype(np.float64)
        masks += [half, 1 - half]
    return np.stack(masks[:layers])


def _initial(layers: int, size: int, classes: int, hidden: int, key: Array, dtype: Any) -> dict[str, Array]:
    """Weights with which the flow is the identity: the last layer of each coupling is 0."""
    first, second = jax.random.split(key)
    return {
        "in": jax.random.normal(first, (layers, size, hidden), dtype) / math.sqrt(size),
        "class_in": jnp.zeros((layers, classes, hidden), dtype),
        "middle": jax.random.normal(second, (layers, hidden, hidden), dtype) / math.sqrt(hidden),
        "class_middle": jnp.zeros((layers, classes, hidden), dtype),
        "out": jnp.zeros((layers, hidden, 2 * size), dtype),
        "class_out": jnp.zeros((layers, classes, 2 * size), dtype),
    }
