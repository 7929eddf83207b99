"""The judge of tables, in raw units and with NumPy alone: it shares nothing with the compiled maps that it judges."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from invjax.constraints.features import Feature, Relation
from invjax.constraints.table import Table, columns, numbers
from invjax.core.errors import BadArgument, exactly
from invjax.core.text import as_text

_ROUNDING = 1e-9  # relative, of raw numbers in float64
_OFF_GRID = 1e-6  # in steps


def reasons(features: Sequence[Feature], relations: Sequence[Relation], table: Table) -> list[list[str]]:
    """For each row the constraints that its own values break: ranges, grids, levels, missing cells, relations."""
    found = columns(table, [feature.name for feature in features])
    values = {feature.name: numbers(feature, found[feature.name]) for feature in features}
    count = len(next(iter(values.values()))) if values else 0
    rows: list[list[str]] = [[] for _ in range(count)]
    for feature in features:
        _own(feature, found[feature.name], values[feature.name], rows)
    ranges = {feature.name: feature.range for feature in features}
    for relation in relations:
        _related(relation, values, ranges, rows)
    return rows


def moves(features: Sequence[Feature], factual: Table, table: Table) -> list[list[str]]:
    """For each row the changes from the factual that are not allowed, by direction or by transition."""
    names = [feature.name for feature in features]
    old, new = columns(factual, names), columns(table, names)
    counts = [len(next(iter(side.values()))) for side in (old, new)]
    if counts[0] != counts[1]:
        raise BadArgument("table", f"be {counts[0]} rows long like factual", counts[1])
    rows: list[list[str]] = [[] for _ in range(counts[0])]
    for feature in features:
        before, after = numbers(feature, old[feature.name]), numbers(feature, new[feature.name])
        for i, (a, b) in enumerate(zip(before.tolist(), after.tolist(), strict=True)):
            sides = (feature.shown(side[feature.name][i]) for side in (old, new))
            said = f"{feature.name}: {' -> '.join(map(str, sides))}"
            if feature.direction == "none" and a != b and not (math.isnan(a) and math.isnan(b)):
                rows[i].append(f"{said}, but it is immutable")
            if feature.direction == "up" and b < a:
                rows[i].append(f"{said}, but it may only rise")
            if feature.direction == "down" and b > a:
                rows[i].append(f"{said}, but it may only fall")
            if feature.transitions and not math.isnan(a + b):
                pair = feature.levels[int(a)], feature.levels[int(b)]
                if feature.transitions.get(pair, 1.0) is None:
                    rows[i].append(f"{said} is a forbidden transition")
    return rows


def _own(feature: Feature, column: np.ndarray, values: np.ndarray, rows: list[list[str]]) -> None:
    low, high = feature.range
    slack = _ROUNDING * np.maximum(1.0, np.abs(np.nan_to_num(values)))
    missing = ~np.isfinite(values)
    outside = ~missing & ((values < low - slack) | (values > high + slack))
    inside = np.where(missing | outside, low if math.isfinite(low) else feature.origin, values)
    off = np.zeros(len(values), bool)
    if feature.grid:
        steps = (inside - feature.origin) / feature.grid
        off = np.abs(steps - np.rint(steps)) > _OFF_GRID + _ROUNDING * np.abs(steps)
    for i in np.flatnonzero(missing):
        what = f"is {as_text(column[i])!r}, must be {feature.describe()}"
        rows[i].append(f"{feature.name} {what if feature.levelled else what + ', a finite number'}")
    for i in np.flatnonzero(outside):
        rows[i].append(f"{feature.name} is {feature.shown(column[i])}, outside {feature.describe()}")
    for i in np.flatnonzero(off):
        grid = f"{exactly(feature.origin)} + k * {exactly(feature.grid)}"
        rows[i].append(f"{feature.name} is {feature.shown(column[i])}, not on the grid {grid}")


def _related(
    relation: Relation, values: dict[str, np.ndarray], ranges: dict[str, tuple[float, float]], rows: list[list[str]]
) -> None:
    terms = [value * values[name] for name, value in relation.coefficients.items()]
    left = np.sum(terms, axis=0)
    slack = _ROUNDING * (np.sum(np.abs(terms), axis=0) + abs(relation.upper))
    least = _least_value(relation, ranges)
    impossible = bool(least > relation.upper + _ROUNDING * (abs(least) + abs(relation.upper)))
    for i in np.flatnonzero(left > relation.upper + slack):
        said = f"relation {relation} does not hold: its left side is {left[i]:.12g}, above {relation.upper:.12g}"
        rows[i].append(said + (f"; it cannot hold for any row, as the ranges leave at least {least:g}" * impossible))


def _least_value(relation: Relation, ranges: dict[str, tuple[float, float]]) -> float:
    """The least left side that the ranges allow."""
    return sum(value * ranges[name][int(value < 0)] for name, value in relation.coefficients.items())
