"""What a trained network says on a whole list, and how good that is by group."""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import numpy as np

from invjax.core.errors import BadArgument, of_shape
from invjax.core.numerics import at_least_float32
from invjax.learn.step import scaled
from invjax.metrics.group import Empty, GroupAccuracies, group_accuracies
from invjax.models import LogitsModel, as_logits
from invjax.types import Array


@jax.jit
def _forward(logits: LogitsModel, x: Array) -> Array:
    return at_least_float32(logits(scaled(x)))


def predict(model: Any, x: Any, *, batch: int = 256) -> np.ndarray:
    """The logits of a list, [N, *S] -> [N, K] float32, in batches of one size (the last is filled up).

    model: anything :func:`invjax.models.as_logits` takes; an NNX module is run in evaluation mode. x: floats in the
    data range or uint8, as for :func:`invjax.learn.fit`.
    """
    if batch < 1:
        raise BadArgument("batch", "be at least 1", batch)
    count = len(x)
    if not count:
        raise BadArgument("x", "hold at least one example")
    logits, size = as_logits(model), min(batch, count)
    out = []
    for i in range(0, count, size):
        rows = np.minimum(np.arange(i, i + size), count - 1)
        out.append(np.asarray(_forward(logits, np.asarray(x[rows])))[: count - i])
    return np.concatenate(out)


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
    """Accuracies of ``model`` on x [N, *S] with classes y [N], by ``groups`` [N] (None: all one group).

    The other arguments are those of :func:`invjax.metrics.group_accuracies`.
    """
    labels = np.asarray(y)
    if labels.shape != (len(x),):
        raise BadArgument("y", f"be classes [{len(x)}], one per example", of_shape(labels.shape))
    measure = partial(
        group_accuracies, num_groups=num_groups, train_groups=train_groups, empty=empty, confidence=confidence
    )
    return measure(
        predict(model, x, batch=batch).argmax(1) == labels, np.zeros(len(labels), int) if groups is None else groups
    )
