"""The examples of a training: four lists checked at the door, and the batch that a step is given."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from invjax.core.errors import BadArgument, Words, check, check_whole
from invjax.learn.step import Batch


class Examples(NamedTuple):
    """N examples. See :func:`invjax.learn.fit` for what the lists mean."""

    x: Any  # [N, *S] floats or uint8: an array, or anything that gives rows for an array of indices
    y: np.ndarray  # [N] int32
    group: np.ndarray  # [N] int32
    weight: np.ndarray  # [N] float32
    sampling: np.ndarray | None  # [N] float64 >= 0; None: each in turn

    def rows(self, index: np.ndarray) -> Batch:
        """The examples ``index`` [B], on the host."""
        return Batch(np.asarray(self.x[index]), self.y[index], self.group[index], self.weight[index])


def check_examples(x: Any, y: Any, groups: Any, weights: Any, sampling: Any) -> Examples:
    """The lists of ``fit`` in one form. Raises ValueError about the list that does not fit."""
    labels = np.asarray(y)
    if labels.ndim != 1 or not np.issubdtype(labels.dtype, np.integer) or not len(labels) or labels.min() < 0:
        raise BadArgument("y", "be classes [N], integers >= 0", Words(f"{labels.dtype} {labels.shape}"))
    count = len(labels)
    if len(x) != count:
        raise BadArgument("x", f"hold one input per label, {count}", len(x))
    dtype = np.asarray(x[:1]).dtype
    if dtype != np.uint8 and not jnp.issubdtype(dtype, jnp.floating):
        raise BadArgument("x", "be floats in the data range, or uint8", dtype)
    member = np.zeros(count, np.int32) if groups is None else np.asarray(groups)
    if member.shape != (count,) or not np.issubdtype(member.dtype, np.integer) or member.min() < 0:
        was = Words(f"{member.dtype} {member.shape}")
        raise BadArgument("groups", f"be integers >= 0 of shape ({count},)", was)
    weight = np.ones(count) if weights is None else _factors("weights", weights, count)
    drawn = None if sampling is None else _factors("sampling", sampling, count)
    return Examples(x, labels.astype(np.int32), member.astype(np.int32), weight.astype(np.float32), drawn)


def total_steps(steps: int | None, epochs: float | None, count: int, batch: int) -> int:
    """The number of steps of a training on ``count`` examples, given as such or in epochs."""
    if (steps is None) == (epochs is None):
        raise BadArgument("steps", "be given, or else epochs", Words(f"{steps!r} with epochs={epochs!r}"))
    if epochs is None:
        return check_whole("steps", steps)
    check("epochs", epochs, lambda value: value > 0, "positive")
    return math.ceil(epochs * count / batch)


def _factors(name: str, values: Any, count: int) -> np.ndarray:
    array = np.asarray(values, np.float64)
    if array.shape != (count,) or not np.all(np.isfinite(array)) or array.min() < 0 or not array.sum() > 0:
        was = Words(f"{array.size} numbers of shape {array.shape}, the least {array.min(initial=math.inf):g}")
        raise BadArgument(name, f"be {count} finite numbers >= 0, not all 0", was)
    return array
