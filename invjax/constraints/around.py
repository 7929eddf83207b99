"""Points around rows, and the rows that they stand for: for whoever learns from a model that takes only rows."""

from __future__ import annotations

import jax
import numpy as np

from invjax.constraints.space import FeatureSpace
from invjax.core.errors import BadArgument, of_shape
from invjax.types import Array

_SWAPPED = 0.1  # of the categories take the level of a random row


def points_around(space: FeatureSpace, x: np.ndarray, noise: float, key: Array) -> np.ndarray:
    """[N, D] points near the rows x [N, D] of a space.

        x_i with one category in ten swapped, by whole levels + noise · s ∘ N(0, I)                               (1)

    s are the standard deviations of the columns. A level comes as often as the rows have it. The points lie between
    the rows of the table, as those that a method asks about do; :func:`rows_at` gives the rows.
    Raises BadArgument: x has other columns than the space.
    """
    if x.shape[1:] != (space.width,):
        raise BadArgument("x", f"have the {space.width} columns of the space, [N, D]", of_shape(x.shape))
    keys, count = jax.random.split(key, 3), len(x)
    normal = np.asarray(jax.random.normal(keys[0], x.shape, np.float32)).astype(x.dtype)
    swapped = np.asarray(jax.random.uniform(keys[1], (count, len(space.features)))) < _SWAPPED
    donors = np.asarray(jax.random.randint(keys[2], (count, len(space.features)), 0, count))
    moved, at = x.copy(), 0
    for f, feature in enumerate(space.features):
        if feature.kind == "category":
            own = slice(at, at + feature.columns)
            moved[:, own] = np.where(swapped[:, f, None], x[donors[:, f], own], x[:, own])
        at += feature.columns
    return moved + x.dtype.type(noise) * x.std(0) * normal


def rows_at(space: FeatureSpace, points: np.ndarray) -> np.ndarray:
    """[N, D] the row at each of the points: numbers in their range and on their grid, of a category the largest."""
    return space.encode(space.decode(points), points.dtype)
