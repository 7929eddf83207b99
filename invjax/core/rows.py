"""Long lists through a compiled function in batches of one size, so that it compiles once whatever their length."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import numpy as np

BATCH = 64  # examples at once: at 224 pixels and with ResNet50 some 8 GB of activations, so give less there


class Picked(NamedTuple):
    """Rows ``index`` of an array, copied batch by batch only."""

    array: np.ndarray  # [M, ...]
    index: np.ndarray  # [N] int


@partial(jax.jit, static_argnums=(0, 1))
def _run(function: Callable[..., Any], options: tuple[Any, ...], shared: Any, *rows: Any) -> Any:
    return function(shared, *rows, *options)


def in_batches(
    function: Callable[..., Any], shared: Any, rows: tuple[Any, ...], options: tuple[Any, ...] = (), batch: int = BATCH
) -> Any:
    """``function(shared, *rows, *options)`` over a list, in numpy.

    Args:
        function: defined once at module level, of the leading axis of the rows; returns a pytree of arrays [n, ...],
            each row of which depends on the same row of the arguments alone.
        shared: a pytree that all rows share: a model.
        rows: arrays [N, ...] with N >= 1, or :class:`Picked` of such; None passes as it is.
        options: hashable; another value compiles anew.
        batch: rows at once. The last batch is filled up with rows of its own.

    Raises ValueError: batch is below 1.
    """
    if batch < 1:
        raise ValueError(f"batch must be a number of examples >= 1, was {batch!r}")
    count = next(len(row.index if isinstance(row, Picked) else row) for row in rows if row is not None)
    parts = []
    for begin in range(0, count, batch):
        index = np.arange(begin, min(begin + batch, count))
        whole = np.resize(index, batch) if count > batch else index
        out = _run(function, options, shared, *(_take(row, whole) for row in rows))
        parts.append(jax.tree.map(np.asarray, out))
    return jax.tree.map(lambda *a: np.concatenate(a)[:count], *parts)


def _take(row: Any, index: np.ndarray) -> Any:
    if isinstance(row, Picked):
        return row.array[row.index[index]]
    return None if row is None else row[index]
