"""How the fitted networks (flow, VAE) are trained: minibatches, Adam, and the best weights on points held out."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from invjax.core.errors import BadArgument, check, check_whole
from invjax.types import Array

_CHECKS = 25  # how often in a run the loss on the points held out is measured
# The rate is applied outside of the rule, so that one compiled step serves every schedule.
_RULE = optax.chain(optax.clip_by_global_norm(1.0), optax.scale_by_adam())

Loss = Callable[[Any, Array, Array, "Array | None"], Array]


@functools.partial(jax.jit, static_argnames="loss")
def _step(
    loss: Loss, weights: Any, memory: Any, x: Array, label: Array, rows: Array, key: Array, rate: Array
) -> tuple[Any, Any]:
    gradient = jax.grad(lambda weights: loss(weights, x[rows], label[rows], key))(weights)
    updates, memory = _RULE.update(gradient, memory)
    return jax.tree.map(lambda weight, update: weight - rate * update, weights, updates), memory


_value = jax.jit(lambda loss, weights, x, label: loss(weights, x, label, None), static_argnums=0)


def train(
    loss: Loss,
    weights: Any,
    x: Array,
    label: Array,
    key: Array,
    *,
    steps: int,
    batch: int,
    rate: float,
    held_out: float,
) -> Any:
    """The weights with the least loss on the points held out, over a run of ``steps`` minibatches.

    Args:
      loss: ``loss(weights, x [B, D], label [B], key) -> []``, hashable, as it is the key of the compiled step. A key of
        None asks for the value without noise.
      weights: a pytree. x [M, D], label [M]: the points. key: draws the order, the noise and which points are held out.
      rate: the peak rate of Adam, which falls to 0 by a half cosine. held_out: a share of the points, in [0, 1); with 0
        (or fewer than 20 points) the last weights are returned.

    Raises:
      BadArgument: the training diverged, so that no weights with a finite loss are left.
    """
    count = len(x)
    order = np.asarray(jax.random.permutation(jax.random.fold_in(key, 0), count))
    away = int(held_out * count) if count >= 20 else 0
    test, learn = order[:away], order[away:]
    batch = min(batch, len(learn))
    generator = np.random.default_rng(int(jax.random.randint(jax.random.fold_in(key, 1), (), 0, 2**31 - 1)))
    memory = _RULE.init(weights)
    keys = jax.random.split(jax.random.fold_in(key, 2), steps)
    best, least, queue = weights, np.inf, np.zeros(0, learn.dtype)
    every = max(1, steps // _CHECKS)
    for step in range(steps):
        if len(queue) < batch:
            queue = np.concatenate([queue, generator.permutation(learn)])
        rows, queue = queue[:batch], queue[batch:]
        now = jnp.asarray(rate * 0.5 * (1 + np.cos(np.pi * step / steps)), x.dtype)
        weights, memory = _step(loss, weights, memory, x, label, rows, keys[step], now)
        if away and ((step + 1) % every == 0 or step + 1 == steps):
            value = float(_value(loss, weights, x[test], label[test]))
            if value < least:
                best, least = weights, value
    if not away:
        best, some = weights, learn[:batch]
        least = float(_value(loss, weights, x[some], label[some]))
    if not (np.isfinite(least) and all(bool(jnp.isfinite(leaf).all()) for leaf in jax.tree.leaves(best))):
        raise BadArgument("rate", "let the training converge", rate, hint="the loss became NaN or infinite")
    return best


def check_training(steps: int, batch: int, rate: float, held_out: float) -> None:
    """Raise BadArgument about the argument that is out of its range."""
    check_whole("steps", steps)
    check_whole("batch", batch)
    check("rate", rate, lambda peak: peak > 0, "positive")
    check("held_out", held_out, lambda share: 0 <= share < 1, "in [0, 1)")
