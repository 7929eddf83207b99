"""Between tables in raw units and model coordinates [N, D]."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from invjax.constraints.features import Feature
from invjax.constraints.table import Table, columns, numbers
from invjax.core.errors import BadArgument, of_shape

_ROUNDINGS = 16  # of the model's dtype, relative to |raw| + |center|: a difference up to here is no move


def encode(
    features: Sequence[Feature], center: np.ndarray, scale: np.ndarray, table: Table, dtype: Any = np.float32
) -> np.ndarray:
    """[N, D]: ``(raw − center)/scale`` of numbers and positions, 0/1 columns of categories.

    A cell that is not a number becomes NaN, and so does an unknown level of an ordinal feature. An unknown level of a
    category gives 0 in all of its columns.
    """
    found = columns(table, [feature.name for feature in features])
    blocks = []
    for feature, c, s in zip(features, center, scale, strict=True):
        values = numbers(feature, found[feature.name])
        if feature.kind == "category":
            blocks.append(values[:, None] == np.arange(len(feature.levels)))
        else:
            blocks.append(((values - c) / s)[:, None])
    return np.concatenate(blocks, axis=1).astype(dtype)


def decode(
    features: Sequence[Feature], center: np.ndarray, scale: np.ndarray, x: Any, factual: Table | None = None
) -> dict[str, np.ndarray]:
    """Columns by name from x [N, D]: numbers within their range and on their grid, of a category the largest column.

    factual: the table that x started from. What did not change, in model coordinates or by grid point, comes back bit
    for bit, and no rounding of the coordinates looks like a move that its direction forbids.
    """
    x = np.asarray(x)
    width = sum(feature.columns for feature in features)
    if x.ndim != 2 or x.shape[1] != width:
        raise BadArgument("x", f"be of shape [N, {width}]", of_shape(x.shape))
    old, start = None, np.zeros_like(x)
    if factual is not None:
        old = columns(factual, [feature.name for feature in features])
        start = encode(features, center, scale, old, x.dtype)
        if start.shape != x.shape:
            raise BadArgument("factual", f"be {len(x)} rows long like x", len(start))
    answer, at = {}, 0
    for feature, c, s in zip(features, center, scale, strict=True):
        block, before = x[:, at : at + feature.columns], start[:, at : at + feature.columns]
        at += feature.columns
        same = (block == before).all(1) if old is not None else np.zeros(len(x), bool)
        if feature.kind == "category":
            values = np.where(block.max(1) > 0, block.argmax(1), np.nan)
        else:
            values = _on_grid(feature, block[:, 0].astype(np.float64) * s + c)
        column = None if old is None else old[feature.name]
        if column is not None:
            raw = numbers(feature, column)
            same |= values == raw
            if feature.kind != "category":
                slack = _ROUNDINGS * np.finfo(x.dtype).eps * (np.abs(raw) + abs(c) + s)
                same |= np.isin(feature.direction, ("up", "none")) & (values < raw) & (raw - values <= slack)
                same |= np.isin(feature.direction, ("down", "none")) & (values > raw) & (values - raw <= slack)
        answer[feature.name] = _column(feature, values, column, same)
    return answer


def _on_grid(feature: Feature, raw: np.ndarray) -> np.ndarray:
    low, high = feature.range
    if feature.grid:
        raw = feature.origin + np.rint((raw - feature.origin) / feature.grid) * feature.grid
    return np.clip(raw, low, high)


def _column(feature: Feature, values: np.ndarray, old: np.ndarray | None, same: np.ndarray) -> np.ndarray:
    """The raw column: the old cell where ``same`` holds, else the value, or the level at the position ``values``."""
    if not feature.levelled:
        if old is not None:
            values = np.where(same, numbers(feature, old), values)
        whole = feature.kind == "integer" and np.all(np.isfinite(values) & (values == np.rint(values)))
        return values.astype(np.int64) if whole else values
    cells: list[Any] = [None if np.isnan(value) else feature.levels[int(value)] for value in values]
    if old is not None:
        cells = [before if kept else cell for before, cell, kept in zip(old.tolist(), cells, same, strict=True)]
    if len({type(cell) for cell in cells}) == 1 and None not in cells:
        return np.asarray(cells)
    column = np.empty(len(cells), object)
    column[:] = cells
    return column
