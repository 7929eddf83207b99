"""Which examples step t sees: a pure function of the key and t, so a resumed run needs no state of an iterator.

Without weights the steps walk through an endless list of permutations, one per pass over the data. A batch may reach
from one permutation into the next, so every example is seen equally often whatever the batch size. With weights each
example of a batch is drawn with replacement, with probability proportional to its weight.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import numpy as np

from invjax.core.errors import check_key
from invjax.types import Array


@partial(jax.jit, static_argnums=(2, 3))
def _permutation(key: Array, number: int, count: int, draws: bool) -> Array:
    key = jax.random.fold_in(key, number)
    return jax.random.uniform(key, (count,)) if draws else jax.random.permutation(key, count)


class Order:
    """The rows of each step.

    Args:
      key: one PRNG key. count: N. batch: B <= N without weights.
      weights: [N] >= 0, not all 0, to draw with; None walks through permutations.
    """

    def __init__(self, key: Array, count: int, batch: int, weights: Any = None) -> None:
        self.key, self.count, self.batch = check_key(key), count, batch
        self._passes: dict[int, np.ndarray] = {}
        self._cumulated: np.ndarray | None = None
        if weights is not None:
            self._cumulated = np.cumsum(np.asarray(weights, np.float64))

    def rows(self, step: int) -> np.ndarray:
        """[B] int64 of step 0, 1, …"""
        if self._cumulated is not None:
            uniform = np.asarray(_permutation(self.key, step, self.batch, True), np.float64)
            rows = np.searchsorted(self._cumulated, uniform * self._cumulated[-1], side="right")
            return np.minimum(rows, self.count - 1)
        first, last = step * self.batch, (step + 1) * self.batch - 1
        wanted = range(first // self.count, last // self.count + 1)
        self._passes = {number: self._pass(number) for number in wanted}
        joined = np.concatenate([self._passes[number] for number in wanted])
        start = first - wanted[0] * self.count
        return joined[start : start + self.batch]

    def _pass(self, number: int) -> np.ndarray:
        if number not in self._passes:
            return np.asarray(_permutation(self.key, number, self.count, False), np.int64)
        return self._passes[number]
