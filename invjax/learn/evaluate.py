"""The logits of a trained network on a whole list, and its accuracy by group."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np

from invjax.core.arguments import kinds_checked
from invjax.core.errors import BadArgument
from invjax.core.images import are_pixels
from invjax.core.labels import check_indices, classes_of
from invjax.core.logits import as_logits, asked_in_shapes, num_classes
from invjax.core.numerics import at_least_float32
from invjax.core.rows import Picked, map_rows
from invjax.learn.examples import one_row
from invjax.learn.step import scaled
from invjax.metrics.group import Empty, GroupAccuracies, group_accuracies
from invjax.types import Array, LogitsFn


def _logits(model: LogitsFn, x: Array) -> Array:
    return at_least_float32(model(scaled(x)))


@kinds_checked
def predict(model: Any, x: Any, *, batch: int = 256) -> np.ndarray:
    """The logits of a list, [N, *S] -> [N, K] float32, in batches of one compiled shape.

    model: anything that :func:`invjax.models.as_logits` takes; an NNX module runs in evaluation mode. x: floats in the
    data range or uint8, as for :func:`invjax.learn.fit`.
    """
    if not len(x):
        raise BadArgument("x", "hold at least one example")
    network, row = as_logits(model), one_row(x)
    dtype = np.float32 if are_pixels(row.dtype) else jax.dtypes.canonicalize_dtype(row.dtype)
    asked_in_shapes(network, row.shape[1:], dtype, "model")
    return map_rows(_logits, network, Picked(x, np.arange(len(x))), batch=batch)


def judged(model: Any, x: Any, y: Any, *, batch: int = 256) -> tuple[np.ndarray, np.ndarray]:
    """The classes that ``model`` gives x, and y as checked labels: [N], [N]. A row of NaN has no class, -1.

    Raises BadArgument: y are no classes of the model, or the model gives no logits [B, K].
    """
    if not len(x):
        raise BadArgument("x", "hold at least one example")
    network, row = as_logits(model), one_row(x)
    dtype = np.float32 if are_pixels(row.dtype) else jax.dtypes.canonicalize_dtype(row.dtype)
    try:
        classes = num_classes(network, row.shape[1:], dtype)
    except BadArgument as error:
        raise error.renamed("model") from error.__cause__
    labels = check_indices("y", y, len(x), classes)
    return classes_of(predict(network, x, batch=batch)), labels


@kinds_checked
def evaluate(
    model: Any,
    x: Any,
    y: Any,
    groups: Any = None,
    *,
    batch: int = 256,
    num_groups: int | None = None,
    train_groups: Any = None,
    empty: Empty = "error",
    confidence: float = 0.95,
) -> GroupAccuracies:
    """Accuracies of ``model`` on x [N, *S] with classes y [N], by ``groups`` [N] (None puts all into one group).

    An example whose logits hold NaN counts as wrong: a network that diverged is right on nothing. y are whole numbers
    0 … K-1; anything else is refused. The other arguments are those of :func:`invjax.metrics.group_accuracies`.
    """
    said, labels = judged(model, x, y, batch=batch)
    return group_accuracies(
        said == labels,
        np.zeros(len(labels), int) if groups is None else groups,
        num_groups=num_groups,
        train_groups=train_groups,
        empty=empty,
        confidence=confidence,
    )
