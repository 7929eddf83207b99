"""Between tables in raw units and model coordinates [N, D]."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from invjax.constraints.cells import KnownCells, as_column, rounded, shortest
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
    features: Sequence[Feature],
    center: np.ndarray,
    scale: np.ndarray,
    x: Any,
    factual: Table | None = None,
    known: KnownCells | None = None,
) -> dict[str, np.ndarray]:
    """Columns by name from x [N, D]: numbers within their range and on their grid, of a category the largest column.

    A number without a grid is the shortest decimal that has its coordinate.

    factual: the table that x started from. What did not change, in model coordinates or by grid point, comes back bit
    for bit, and no rounding of the coordinates looks like a move that its direction forbids.
    known: cells that come back bit for bit too, wherever their coordinate occurs. With them every finite row of x is a
    row: also where all columns of a category are 0, which otherwise is an unknown level.
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
    answer, at, decimals = {}, 0, _decimals(features, center, scale, x)
    for feature, c, s in zip(features, center, scale, strict=True):
        block, before = x[:, at : at + feature.columns], start[:, at : at + feature.columns]
        at += feature.columns
        same = (block == before).all(1) if old is not None else np.zeros(len(x), bool)
        if feature.kind == "category":
            nothing = np.isnan(block).any(1) if known is not None else ~(block != 0).any(1) | np.isnan(block).any(1)
            values = np.where(nothing, np.nan, block.argmax(1))
        else:
            values = _number(feature, block[:, 0], c, s, decimals.get(feature.name))
            if known is not None and not feature.levelled:
                values = known.numbers(feature.name, block[:, 0], values)
        column = None if old is None else old[feature.name]
        if column is not None:
            raw = numbers(feature, column)
            same |= values == raw
            if feature.kind != "category":
                slack = _ROUNDINGS * np.finfo(x.dtype).eps * (np.abs(raw) + abs(c) + s)
                same |= np.isin(feature.direction, ("up", "none")) & (values < raw) & (raw - values <= slack)
                same |= np.isin(feature.direction, ("down", "none")) & (values > raw) & (values - raw <= slack)
        if feature.levelled:
            forms = as_column(feature.levels) if known is None else known.levels(feature.name)
            answer[feature.name] = _names(forms, values, column, same)
        else:
            if column is not None:
                values = np.where(same, numbers(feature, column), values)
            whole = feature.kind == "integer" if known is None else known.whole[feature.name]
            whole = whole and bool(np.all(np.isfinite(values) & (values == np.rint(values))))
            answer[feature.name] = values.astype(np.int64) if whole else values
    return answer


def _decimals(
    features: Sequence[Feature], center: np.ndarray, scale: np.ndarray, x: np.ndarray
) -> dict[str, np.ndarray]:
    """By name the shortest decimals [N] of the features without a grid, for all of them at once."""
    first = np.cumsum([0, *(feature.columns for feature in features)])
    own = [f for f, feature in enumerate(features) if not feature.levelled and not feature.grid]
    block, c, s = x[:, first[own]], center[own], scale[own]
    found = shortest(block.astype(np.float64) * s + c, block, c, s)
    return {features[f].name: found[:, i] for i, f in enumerate(own)}


def _number(feature: Feature, x: np.ndarray, center: float, scale: float, decimals: np.ndarray | None) -> np.ndarray:
    """[N] float64: raw values, or positions, of the coordinates x [N], within the range and on the grid."""
    raw, (low, high) = x.astype(np.float64) * scale + center, feature.range
    if feature.levelled:
        return np.clip(np.rint(raw), low, high)
    if feature.grid:
        points = feature.origin + np.rint((raw - feature.origin) / feature.grid) * feature.grid
        whole = float(feature.grid).is_integer() and float(feature.origin).is_integer()
        return np.clip(points if whole else rounded(points), low, high)  # 0.3, not 3 * 0.1
    values = np.clip(raw if decimals is None else decimals, low, high)
    for end in (low, high):
        if np.isfinite(end):
            values = np.where(x == np.asarray((end - center) / scale).astype(x.dtype), end, values)
    return values


def _names(forms: np.ndarray, values: np.ndarray, old: np.ndarray | None, same: np.ndarray) -> np.ndarray:
    """The levels at the positions ``values`` [N], None where one is NaN; the old cell where ``same`` holds."""
    unknown = np.isnan(values)
    found = forms[np.where(unknown, 0, values).astype(int)]
    if unknown.any():
        found = found.astype(object)
        found[unknown] = None
    if old is None or not same.any():
        return found
    return as_column([a if kept else b for a, b, kept in zip(old.tolist(), found.tolist(), same, strict=True)])
