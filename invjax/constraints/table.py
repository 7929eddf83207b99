"""Tables (a dict of columns, a pandas DataFrame, an array [N, F]) as NumPy columns; and schemas from data."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from invjax.constraints.features import Feature
from invjax.core.errors import BadArgument, Words

Table = Any  # dict name -> [N] array, a pandas DataFrame, or a [N, F] array


def columns(table: Table, names: Sequence[str] | None = None) -> dict[str, np.ndarray]:
    """The columns of a table by name, each [N]. names: those needed, in their order; None: all there are.

    A [N, F] array has its columns in the order of names (``x0, x1, …`` where names is None); a dict or a DataFrame may
    have more columns than needed. Raises ValueError for a missing column or unequal lengths.
    """
    if isinstance(table, Mapping) or (hasattr(table, "columns") and hasattr(table, "iloc")):
        present = [str(name) for name in (table.keys() if isinstance(table, Mapping) else table.columns)]
        own = dict(zip(present, table.keys() if isinstance(table, Mapping) else table.columns, strict=True))
        wanted = present if names is None else list(names)
        missing = [name for name in wanted if name not in own]
        if missing:
            raise BadArgument("table", f"have the column {missing[0]!r}", Words(", ".join(map(repr, present))))
        found = {name: np.asarray(table[own[name]]) for name in wanted}
    else:
        array = np.asarray(table)
        if array.ndim != 2:
            raise BadArgument("table", "be a dict, a DataFrame or an array [N, F]", Words(f"an array of {array.shape}"))
        wanted = [f"x{i}" for i in range(array.shape[1])] if names is None else list(names)
        if array.shape[1] != len(wanted):
            raise BadArgument("table", f"have {len(wanted)} columns, [N, F]", Words(f"an array of shape {array.shape}"))
        found = {name: array[:, i] for i, name in enumerate(wanted)}
    lengths = {name: column.shape for name, column in found.items()}
    for name, shape in lengths.items():
        if len(shape) != 1:
            raise ValueError(f"column {name!r} of the table must be one-dimensional, was of shape {shape}")
    if len(set(lengths.values())) > 1:
        raise ValueError(f"columns of the table must be of one length, were {lengths}")
    return found


def numbers(feature: Feature, column: np.ndarray) -> np.ndarray:
    """[N] float64: the column as numbers, positions for levels; NaN where a cell is none of them."""
    if feature.levelled:
        return _positions(feature, column)
    if column.dtype.kind in "fiub":
        return column.astype(np.float64)
    return np.array([_as_number(cell) for cell in column], np.float64).reshape(len(column))


def _positions(feature: Feature, column: np.ndarray) -> np.ndarray:
    """Positions of the cells in the levels. A cell also matches by its text: "3" is the level 3."""
    lookup: dict[Any, float] = {str(level): float(i) for i, level in enumerate(feature.levels)}
    lookup |= {level: float(i) for i, level in enumerate(feature.levels)}

    def position(cell: Any) -> float:
        try:
            return lookup.get(cell, lookup.get(str(cell), math.nan))
        except TypeError:  # not hashable
            return math.nan

    return np.array([position(cell) for cell in column.tolist()], np.float64).reshape(len(column))


def _as_number(cell: Any) -> float:
    try:
        return float(cell)
    except (TypeError, ValueError):
        return math.nan


def infer_features(table: Table, overrides: Mapping[str, Any]) -> tuple[list[Feature], dict[str, np.ndarray]]:
    """One Feature per column, and the columns: floats continuous and whole numbers integer in the range of the data,
    text and truth values categories of the values that occur (sorted), an ordered pandas categorical ordinal.

    overrides: by name a Feature, or a dict of the fields that differ. Raises ValueError for a name that is no column.
    """
    found = columns(table)
    unknown = [name for name in overrides if name not in found]
    if unknown:
        raise ValueError(f"{unknown[0]!r} is no column of the table, which has {', '.join(map(repr, found))}")
    features = []
    for name, column in found.items():
        given = overrides.get(name, {})
        if isinstance(given, Feature):
            features.append(dataclasses.replace(given, name=name))
            continue
        if not isinstance(given, Mapping):
            raise ValueError(f"override of {name!r} must be a Feature or a dict of its fields, was {given!r}")
        guess = _guess(name, column, getattr(table, "dtypes", {}), given.get("kind"))
        try:
            features.append(Feature(name, **{**guess, **given}))
        except TypeError:
            raise ValueError(f"override of {name!r} must have fields of Feature, was {dict(given)!r}") from None
    return features, found


def _guess(name: str, column: np.ndarray, dtypes: Any, kind: str | None) -> dict[str, Any]:
    categorical = getattr(dtypes[name], "categories", None) if name in dtypes else None
    if categorical is not None:
        ordered = bool(getattr(dtypes[name], "ordered", False))
        return {"kind": "ordinal" if ordered else "category", "levels": tuple(categorical)}
    textual = column.dtype.kind in "OUSb" and (
        column.dtype.kind == "b" or not all(_numeric(cell) for cell in column.tolist())
    )
    if kind in ("ordinal", "category") or (kind is None and textual):
        levels = {cell for cell in column.tolist() if not _missing(cell)}
        try:
            ordered_levels = sorted(levels)
        except TypeError:  # of several types
            ordered_levels = sorted(levels, key=str)
        return {"kind": kind or "category", "levels": tuple(ordered_levels)}
    values = numbers(Feature(name), column)
    values = values[np.isfinite(values)]
    if not values.size:
        raise ValueError(f"column {name!r} must have a finite number, has none")
    low, high = float(values.min()), float(values.max())
    return {"kind": "integer" if column.dtype.kind in "iu" else "continuous", "lower": low, "upper": high}


def _missing(cell: Any) -> bool:
    """None, NaN, pandas' NA."""
    return (
        cell is None or type(cell).__name__ in ("NAType", "NaTType") or (isinstance(cell, float) and math.isnan(cell))
    )


def _numeric(cell: Any) -> bool:
    return _missing(cell) or (hasattr(cell, "__float__") and not isinstance(cell, str | bool))
