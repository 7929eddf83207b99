"""The logits of a trained network on a whole list, and its accuracy by group."""

from __future__ import annotations

from typing import Any

import numpy as np

from invjax.core.errors import BadArgument, of_shape
from invjax.core.logits import as_logits
from invjax.core.numerics import at_least_float32
from invjax.core.rows import Picked, map_rows
from invjax.learn.step import scaled
from invjax.metrics.group import Empty, GroupAccuracies, group_accuracies
from invjax.types import Array, LogitsFn


def _logits(model: LogitsFn, x: Array) -> Array:
    return at_least_float32(model(scaled(x)))


def predict(model: Any, x: Any, *, batch: int = 256) -> np.ndarray:
    """The logits of a list, [N, *S] -> [N, K] float32, in batches of one compiled shape.

    model: anything that :func:`invjax.models.as_logits` takes; an NNX module runs in evaluation mode. x: floats in the
    data range or uint8, as for :func:`invjax.learn.fit`.
    """
    if not len(x):
        raise BadArgument("x", "hold at least one example")
    return map_rows(_logits, as_logits(model), Picked(x, np.arange(len(x))), batch=batch)


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

    The other arguments are those of :func:`invjax.metrics.group_accuracies`.
    """
    labels = np.asarray(y)
    if labels.shape != (len(x),):
        raise BadArgument("y", f"be classes [{len(x)}], one per example", of_shape(labels.shape))
    return group_accuracies(
        predict(model, x, batch=batch).argmax(1) == labels,
        np.zeros(len(labels), int) if groups is None else groups,
        num_groups=num_groups,
        train_groups=train_groups,
        empty=empty,
        confidence=confidence,
    )
