"""The examples of a training: four lists checked at the door, and the batch that a step is given."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from invjax.core.errors import BadArgument, Words, check, check_whole
from invjax.core.images import are_pixels
from invjax.core.labels import check_indices
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
    labels = check_indices("y", y, None, strict=True)
    count = len(labels)
    if not count:
        raise BadArgument("y", "hold at least one class")
    if len(x) != count:
        raise BadArgument("x", f"hold one input per label, {count}", len(x))
    are_pixels(one_row(x).dtype)
    member = np.zeros(count, np.int32)
    if groups is not None:
        member = check_indices("groups", groups, count, what="groups", strict=True)
    weight = np.ones(count) if weights is None else _factors("weights", weights, count)
    drawn = None if sampling is None else _factors("sampling", sampling, count)
    return Examples(x, labels, member, weight.astype(np.float32), drawn)


def one_row(x: Any) -> np.ndarray:
    """The first of the inputs [N, *S], as [1, *S]. Raises BadArgument for inputs that are no such list."""
    try:
        return np.asarray(x[np.arange(1)])
    except (TypeError, IndexError) as error:
        wanted = "be an array, or give rows for an array of indices"
        raise BadArgument("x", wanted, Words(f"a {type(x).__name__}")) from error


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
        was = Words(f"{array.size} numbers of shape {array.shape}, the least {array.min(initial=math.inf)}")
        raise BadArgument(name, f"be {count} finite numbers >= 0, not all 0", was)
    return array
