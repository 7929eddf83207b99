"""How a table becomes what a fitted model takes: its own names, order and dtypes, or an array of numbers."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from invjax.constraints import Feature, FeatureSpace
from invjax.constraints.table import numbers
from invjax.core.errors import BadArgument, Words
from invjax.data.tables.table import TabularData

_NUMBERED = re.compile(r"(Column_|f|x)?\d+")  # names that a library gives to the columns of an array


@dataclasses.dataclass(frozen=True, eq=False)
class Columns:
    """Called with a raw table, gives the DataFrame or array that a model takes."""

    space: FeatureSpace
    names: tuple[str, ...]  # features of the table, in the model's order
    labels: tuple[Any, ...] | None  # what the model calls them; None: it takes an array
    dtypes: Mapping[str, Any]  # of the columns of a DataFrame
    encoded: bool  # model coordinates instead of raw units
    words: str

    def __call__(self, table: Mapping[str, Any]) -> Any:
        if self.encoded:
            x = self.space.encode(table)
            return x if self.labels is None else _pandas().DataFrame(x, columns=list(self.labels))
        if self.labels is None:
            return self._array(table)
        pandas = _pandas()
        cells = {
            label: as_series(np.asarray(table[name]), self.dtypes.get(name))
            for name, label in zip(self.names, self.labels, strict=True)
        }
        return pandas.DataFrame(cells)

    def _array(self, table: Mapping[str, Any]) -> np.ndarray:
        """[N, F] float64 where every feature is a number, else objects."""
        features = {feature.name: feature for feature in self.space.features}
        columns = []
        for name in self.names:
            column = np.asarray(table[name])
            columns.append(column if features[name].levelled else numbers(features[name], column))
        if all(_countable(features[name]) for name in self.names):
            return np.stack([column.astype(np.float64) for column in columns], axis=1)
        return np.stack([column.astype(object) for column in columns], axis=1)


def ways_to_ask(model: Any, data: TabularData, dtypes: Mapping[str, Any] | None = None) -> list[Columns]:
    """The ways in which ``model`` may take a table like ``data.table``, the likeliest first.

    Raises BadArgument about "model": it was fitted on columns that the table does not have.
    """
    space, given = data.space, dict(dtypes or {})
    known = {name: given.get(name, data.table[name].dtype) for name in space.names}
    fitted, count = _fitted_names(model), getattr(model, "n_features_in_", None)
    every = space.names
    plain = not any(feature.kind == "category" for feature in space.features)
    raw, coded = "asked in raw columns, by name", "asked in encoded columns"
    if fitted is not None:
        names = _matched(fitted, every)
        labelled = {"space": space, "names": names, "labels": tuple(fitted)}
        ways = [Columns(**labelled, dtypes=known, encoded=False, words=raw)]
        levels = {f.name: sorted(f.levels, key=str) for f in space.features if f.levelled and not _countable(f)}
        if levels and not dtypes:
            ways.append(Columns(**labelled, dtypes=known | _categorical(levels), encoded=False, words=raw))
        if plain and names == every:
            ways.append(Columns(**labelled, dtypes={}, encoded=True, words=coded))
        return ways
    array = Columns(space, every, None, {}, False, "asked in raw columns, in the order of the table")
    frame = Columns(space, every, every, known, False, raw)
    matrix = Columns(space, every, None, {}, True, coded)
    if count is None:
        return [frame, array, matrix]
    ways = ([array, frame] if count == len(every) else []) + ([matrix] if count == space.width else [])
    if not ways:
        width = f" (or {space.width} encoded ones)" if space.width != len(every) else ""
        raise BadArgument("model", f"take the {len(every)} columns of {data.name}{width}", Words(f"fitted on {count}"))
    return ways


def known_features(model: Any, names: Sequence[str]) -> list[str]:
    """Those of the columns ``names`` that the model was fitted on; all where it does not know their names.

    Raises BadArgument about "model": it was fitted on other columns.
    """
    fitted = _fitted_names(getattr(model, "__self__", model))
    return list(names) if fitted is None else list(_matched(fitted, tuple(names)))


def _fitted_names(model: Any) -> list[str] | None:
    """The names that a model was fitted on; None where it saw an array."""
    for attribute in ("feature_names_in_", "feature_names_", "feature_name_"):
        try:
            found = getattr(model, attribute, None)
        except Exception:  # a property that raises where there are none
            continue
        if found is not None and not callable(found):
            names = [str(name) for name in found]
            return None if all(map(_NUMBERED.fullmatch, names)) and attribute != "feature_names_in_" else names
    return None


def _matched(fitted: list[str], names: tuple[str, ...]) -> tuple[str, ...]:
    """The features behind the model's names; where a library rewrote them, letters and digits must agree."""
    simple = {re.sub(r"\W", "_", name): name for name in names}
    places = {name: name for name in names} | ({} if len(simple) < len(names) else simple)
    found = [name if name in names else places.get(re.sub(r"\W", "_", name)) for name in fitted]
    if None in found:
        lost = [name for name, place in zip(fitted, found, strict=True) if place is None]
        shown = ", ".join(map(repr, lost[:3])) + (f" and {len(lost) - 3} more" if len(lost) > 3 else "")
        was = Words(f"fitted on {shown}, which the table does not have")
        hint = "a Pipeline that makes its own columns can be asked in the raw ones"
        raise BadArgument("model", f"be fitted on columns of the table ({', '.join(names)})", was, hint=hint)
    return tuple(str(name) for name in found)


def _categorical(levels: Mapping[str, Sequence[Any]]) -> dict[str, Any]:
    try:
        pandas = _pandas()
    except ImportError:
        return {}
    return {name: pandas.CategoricalDtype(list(own)) for name, own in levels.items()}


def _countable(feature: Feature) -> bool:
    """Whether its raw values are numbers, or levels that are."""
    return not feature.levelled or all(isinstance(level, int | float) for level in feature.levels)


def as_series(column: np.ndarray, dtype: Any = None) -> Any:
    """A column as a Series of ``dtype``, where its cells fit: a half stays a half in a column of integers."""
    pandas = _pandas()
    if column.dtype.kind in "US":
        column = column.astype(object)
    series = pandas.Series(column)
    if dtype is None or (getattr(dtype, "kind", "O") in "OUS" and not hasattr(dtype, "na_value")):
        if column.dtype.kind == "O" and all(isinstance(cell, int | float) for cell in column.tolist()):
            return series.infer_objects()
        return series
    if hasattr(dtype, "categories"):
        return series.astype(dtype)
    if getattr(dtype, "kind", "O") in "iub" and column.dtype.kind in "fO":
        values = pandas.to_numeric(series, errors="coerce")
        if values.isna().any() or (values != values.round()).any():
            return values if column.dtype.kind == "f" else series
    try:
        return series.astype(dtype)
    except (TypeError, ValueError):
        return series


def _pandas() -> Any:
    try:
        import pandas
    except ImportError as error:
        raise ImportError("a model that was fitted on a DataFrame needs pandas: pip install pandas") from error
    return pandas
