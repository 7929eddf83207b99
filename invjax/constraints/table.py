"""Tables (a dict of columns, a pandas DataFrame, an array [N, F]) as NumPy columns; and schemas from data."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from invjax.constraints.features import Feature
from invjax.constraints.notation import Notation
from invjax.core.errors import BadArgument, Words, of_shape, unknown_name
from invjax.core.meant import closest
from invjax.core.text import as_text

Table = Any  # dict name -> [N] array, a pandas DataFrame, or a [N, F] array


def columns(table: Table, names: Sequence[str] | None = None) -> dict[str, np.ndarray]:
    """The columns of a table by name, each [N].

    names: the columns that are needed, in their order; None for all. An array [N, F] has its columns in the order of
    names (``x0, x1, …`` where names is None); a dict or a DataFrame may have more columns than needed. Raises
    BadArgument for a missing column and for unequal lengths.
    """
    if isinstance(table, Mapping) or (hasattr(table, "columns") and hasattr(table, "iloc")):
        own = {str(key): key for key in (table if isinstance(table, Mapping) else table.columns)}
        wanted = list(own) if names is None else list(names)
        if missing := [name for name in wanted if name not in own]:
            raise no_column("table", missing[0], own, wanted)
        found = {name: np.asarray(table[own[name]]) for name in wanted}
    else:
        array = np.asarray(table)
        if array.ndim != 2:
            raise BadArgument("table", "be a dict, a DataFrame or an array [N, F]", of_shape(array.shape))
        wanted = [f"x{i}" for i in range(array.shape[1])] if names is None else list(names)
        if array.shape[1] != len(wanted):
            raise BadArgument("table", f"have {len(wanted)} columns, [N, F]", of_shape(array.shape))
        found = {name: array[:, i] for i, name in enumerate(wanted)}
    for name, column in found.items():
        if column.ndim != 1:
            raise BadArgument(f"column {name!r} of the table", "be one-dimensional", of_shape(column.shape))
    lengths = {name: len(column) for name, column in found.items()}
    if len(set(lengths.values())) > 1:
        raise BadArgument("columns of the table", "be of one length", lengths)
    return found


def no_column(name: str, missing: str, own: Iterable[str], wanted: Collection[str]) -> BadArgument:
    """The error about a table without a column. It names the one of its ``own`` that may be meant by it."""
    own = list(own)
    near = closest(missing, [one for one in own if one not in wanted])
    hint = None if near is None else f"{near!r} is close: rename it"
    return BadArgument(name, f"have the column {missing!r}", Words(f"of {', '.join(map(repr, own))}"), hint=hint)


def numbers(feature: Feature, column: np.ndarray) -> np.ndarray:
    """[N] float64: the column as numbers, or as positions in the levels; NaN where a cell is neither."""
    if feature.levelled:
        return _positions(feature, column)
    if column.dtype.kind in "fiub":
        return column.astype(np.float64)
    return np.array([_as_number(cell, feature.notation) for cell in column], np.float64).reshape(len(column))


def _positions(feature: Feature, column: np.ndarray) -> np.ndarray:
    """The positions of the cells in the levels. A cell also matches by its text: "3" is the level 3."""
    lookup: dict[Any, float] = {as_text(level): float(i) for i, level in enumerate(feature.levels)}
    lookup |= {level: float(i) for i, level in enumerate(feature.levels)}

    def position(cell: Any) -> float:
        try:
            return lookup.get(cell, lookup.get(as_text(cell), math.nan))
        except TypeError:  # not hashable
            return math.nan

    return np.array([position(cell) for cell in column.tolist()], np.float64).reshape(len(column))


def _as_number(cell: Any, notation: Notation | None) -> float:
    """The number of a cell, in the feature's own notation first; a percentage only if it says so."""
    if notation is not None and isinstance(cell, str):
        value = notation.read(cell)
        if value is not None or notation.suffix.strip() in ("%", "‰"):
            return math.nan if value is None else value
    try:
        return float(cell)
    except (TypeError, ValueError):
        return math.nan


def infer_features(table: Table, overrides: Mapping[str, Any]) -> tuple[list[Feature], dict[str, np.ndarray]]:
    """One Feature per column, and the columns.

    Floats become continuous and whole numbers integer, within the range of the data; text and truth values become
    categories of the values that occur (sorted), and an ordered pandas categorical becomes ordinal.

    overrides: by name a Feature, or a dict of the fields that differ. Raises BadArgument for a name without a column.
    """
    found = columns(table)
    if strange := [name for name in overrides if name not in found]:
        raise unknown_name("overrides", strange[0], found, f"name columns of the table, {', '.join(map(repr, found))}")
    features = []
    for name, column in found.items():
        given = overrides.get(name, {})
        if isinstance(given, Feature):
            features.append(dataclasses.replace(given, name=name))
            continue
        if not isinstance(given, Mapping):
            raise BadArgument(f"override of {name!r}", "be a Feature or a dict of its fields", given)
        guess = _guess(name, column, getattr(table, "dtypes", {}), given.get("kind"))
        try:
            features.append(Feature(name, **{**guess, **given}))
        except TypeError as error:
            raise BadArgument(f"override of {name!r}", "have fields of Feature", dict(given), hint=str(error)) from None
    return features, found


def _guess(name: str, column: np.ndarray, dtypes: Any, kind: str | None) -> dict[str, Any]:
    categorical = getattr(dtypes[name], "categories", None) if name in dtypes else None
    if categorical is not None:
        ordered = bool(getattr(dtypes[name], "ordered", False))
        return {"kind": "ordinal" if ordered else "category", "levels": tuple(categorical)}
    kinds = column.dtype.kind
    textual = kinds == "b" or (kinds in "OUS" and not all(map(_numeric, column.tolist())))
    if kind in ("ordinal", "category") or (kind is None and textual):
        levels = {cell for cell in column.tolist() if not _missing(cell)}
        try:
            ordered_levels = sorted(levels)
        except TypeError:  # levels of several types
            ordered_levels = sorted(levels, key=str)
        return {"kind": kind or "category", "levels": tuple(ordered_levels)}
    values = numbers(Feature(name), column)
    values = values[np.isfinite(values)]
    if not values.size:
        raise BadArgument(f"column {name!r}", "have a finite number")
    low, high = float(values.min()), float(values.max())
    return {"kind": "integer" if kinds in "iu" else "continuous", "lower": low, "upper": high}


def _missing(cell: Any) -> bool:
    """Whether a cell is None, NaN or pandas' NA."""
    nan = isinstance(cell, float) and math.isnan(cell)
    return nan or cell is None or type(cell).__name__ in ("NAType", "NaTType")


def _numeric(cell: Any) -> bool:
    return _missing(cell) or (hasattr(cell, "__float__") and not isinstance(cell, str | bool))
