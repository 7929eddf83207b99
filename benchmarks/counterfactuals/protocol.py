"""Rows, network and limits of the counterfactual tables: one split and one small network for all methods and peers."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax

from benchmarks.counterfactuals.peers.exchange import Exchange, network
from invjax.core.errors import BadArgument, Words
from invjax.data.tables.load import TableName, load_tabular
from invjax.types import Array

Weights = list[tuple[Array, Array]]

HIDDEN = (20, 20)
EPOCHS, BATCH, RATE = 80, 32, 5e-3
LAST_RATE = 0.01  # rate of the last step over that of the first


def protocol(name: TableName, *, seed: int = 0, root: Path | None = None) -> Exchange:
    """The protocol: features z-scored over all rows, NumPy's ``RandomState(1)`` permutation, last 100 rows to explain.

    The network is the rectifier network D-20-20-1, trained with Adam on cross-entropy: 80 epochs, batches of 32, a rate
    that falls linearly from .005 to a hundredth of it. The target of a row is the class that the network does not give
    it, so no row is trivial. The limits are the least and the greatest value of each feature over all rows.

    Args:
      name: a data set of two classes, "housing" or "wine" (:func:`invjax.data.load_tabular`).
      seed: seed of the network.
      root: folder of the data's files, as for ``load_tabular``.

    Raises:
      BadArgument: the data set is unknown, absent, or of more classes. ImportError: its package is missing.
    """
    data = load_tabular(name, root)
    if len(data.classes) != 2:
        raise BadArgument("data", "be a set of two classes", Words(f"{name!r} with {len(data.classes)}"))
    train_x, train_y, test_x = data.x[data.train], data.label[data.train], data.x[data.test]
    weights = train_network(train_x, train_y, seed=seed)
    predicted = (network(weights, test_x) > 0).astype(np.int32)
    return Exchange(train_x, train_y, test_x, predicted, 1 - predicted, data.x.min(0), data.x.max(0), weights)


def train_network(
    x: np.ndarray, y: np.ndarray, *, seed: int = 0, epochs: int = EPOCHS
) -> tuple[tuple[np.ndarray, np.ndarray], ...]:
    """Train the network; its weights ((W [in, out], b [out]), ...), float32.

    As in PyTorch, weights and biases start uniform within 1/sqrt(in) of zero, and the last, incomplete batch of an
    epoch is used.

    Args:
      x: [M, D] rows. y: [M] labels, 0 or 1.
      seed: seed of the first weights and of the order of the rows. epochs: passes over the rows, >= 1.
    """
    key = jax.random.key(seed)
    sizes = (x.shape[1], *HIDDEN, 1)
    weights: Weights = []
    for i in range(len(sizes) - 1):
        draw = partial(jax.random.uniform, minval=-(sizes[i] ** -0.5), maxval=sizes[i] ** -0.5)
        kernel_key, bias_key = jax.random.split(jax.random.fold_in(key, i))
        weights.append((draw(kernel_key, (sizes[i], sizes[i + 1])), draw(bias_key, (sizes[i + 1],))))
    # The order of each epoch is padded with the row number M, which has no weight in the loss.
    generator, batches = np.random.default_rng(seed), -(-len(x) // BATCH)
    order = np.stack([generator.permutation(len(x)) for _ in range(epochs)])
    order = np.pad(order, ((0, 0), (0, batches * BATCH - len(x))), constant_values=len(x)).reshape(-1, BATCH)
    trained = _train(weights, jnp.asarray(x, jnp.float32), jnp.asarray(y, jnp.float32), jnp.asarray(order))
    return tuple((np.asarray(kernel), np.asarray(bias)) for kernel, bias in trained)


def accuracy(weights: tuple[tuple[np.ndarray, np.ndarray], ...], x: np.ndarray, y: np.ndarray) -> float:
    """Share of the rows x [N, D] to which the network gives their class y [N]."""
    return float(((network(weights, x) > 0) == (np.asarray(y) == 1)).mean())


@jax.jit
def _train(weights: Weights, x: Array, y: Array, order: Array) -> Weights:
    """Adam over the batches ``order`` [steps, BATCH] of row numbers, in which M stands for no row."""
    optimiser = optax.adam(optax.linear_schedule(RATE, LAST_RATE * RATE, len(order)))

    def loss_of(weights: Weights, rows: Array) -> Array:
        real = rows < len(x)
        rows = jnp.where(real, rows, 0)
        out = x[rows]
        for i, (kernel, bias) in enumerate(weights):
            out = (jax.nn.relu(out) if i else out) @ kernel + bias
        losses = optax.sigmoid_binary_cross_entropy(out[:, 0], y[rows])
        return jnp.where(real, losses, 0).sum() / real.sum()

    def step(carry: tuple[Weights, optax.OptState], rows: Array) -> tuple[tuple[Weights, optax.OptState], None]:
        weights, memory = carry
        updates, memory = optimiser.update(jax.grad(loss_of)(weights, rows), memory)
        return (optax.apply_updates(weights, updates), memory), None  # type: ignore[return-value]

    return jax.lax.scan(step, (weights, optimiser.init(weights)), order)[0][0]
