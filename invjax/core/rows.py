"""A long list through a function in batches of one compiled shape, so that it compiles once whatever its length."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import numpy as np

from invjax.core.errors import check_whole
from invjax.core.host import own_work

BATCH = 64  # rows at once: at 224 pixels and with ResNet50 some 8 GB of activations, so give less there


class Picked(NamedTuple):
    """Rows ``index`` of an array, copied batch by batch only."""

    array: Any  # [M, ...]
    index: np.ndarray  # [N] int

    def __len__(self) -> int:  # type: ignore[override]
        return len(self.index)


@partial(jax.jit, static_argnums=(0, 1))
def _run(fn: Callable[..., Any], static: tuple[Any, ...], shared: Any, *rows: Any) -> Any:
    return fn(shared, *rows, *static)


@partial(jax.jit, static_argnums=(0, 1))
def _run_each(fn: Callable[..., Any], static: tuple[Any, ...], shared: Any, *rows: Any) -> Any:
    return jax.vmap(lambda *row: fn(shared, *row, *static))(*rows)


@own_work()
def map_rows(
    fn: Callable[..., Any],
    shared: Any,
    *rows: Any,
    batch: int = BATCH,
    static: tuple[Any, ...] = (),
    each: bool = False,
    few_shapes: bool = False,
) -> Any:
    """``fn(shared, *rows, *static)`` over a list, batch by batch, on the host.

    Args:
      fn: defined once at module level (it is the key of the compiled program), of the leading axis of the rows;
        returns a pytree of arrays [n, ...], each row of which depends on the same row of the arguments alone.
      shared: a pytree that all rows share: a model, a density.
      rows: arrays [N, ...] with N >= 1 (or pytrees of such), or :class:`Picked`; None passes as it is.
      batch: rows at once, >= 1. The last batch of several is filled up with rows of its own.
      static: hashable further arguments; another value compiles anew.
      each: ``fn`` is written for one row, and mapped.
      few_shapes: a list shorter than a batch is filled up as well, to a power of two (8 at least): for lists whose
        length differs from call to call.

    Returns:
      The results [N, ...], NumPy arrays.
    """
    batch = check_whole("batch", batch)
    count = next(_length(row) for row in rows if row is not None)
    run, parts = _run_each if each else _run, []
    for begin in range(0, count, batch):
        index = np.arange(begin, min(begin + batch, count))
        width = batch if count > batch else len(index)
        if few_shapes and count <= batch:
            width = max(width, min(batch, max(8, 1 << (count - 1).bit_length())))
        whole = np.resize(index, width)
        parts.append(jax.tree.map(np.asarray, run(fn, static, shared, *(_take(row, whole) for row in rows))))
    return parts[0] if len(parts) == 1 and count == width else _joined(parts, count)


def _joined(parts: list[Any], count: int) -> Any:
    return jax.tree.map(lambda *a: np.concatenate(a)[:count], *parts)


def _length(row: Any) -> int:
    return len(row) if isinstance(row, Picked) else len(jax.tree.leaves(row)[0])


def _take(row: Any, index: np.ndarray) -> Any:
    if isinstance(row, Picked):
        return np.asarray(row.array[row.index[index]])
    return jax.tree.map(lambda leaf: leaf[index], row)
