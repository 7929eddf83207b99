"""Every change of one feature, asked about one by one: for models whose gradient is borrowed, or zero.

    least  cost(x' − x)   over   x' = x but for one feature f, x'_f in V_f,   allowed, and an answer                (1)

V_f holds all levels; all grid points of the range, or those near the data where these are too many; and of a feature
without a grid the values of the training rows, the points halfway between them and a hundredth of the way from either,
and the ends of the range. A tree cannot tell the values between two neighbouring thresholds apart. So where its
thresholds come from the same data, (1) finds an answer if one change is enough; for other models it has tried that many
values and no more.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from invjax.constraints import Feature
from invjax.constraints.table import numbers
from invjax.data.tables.table import Table
from invjax.densities.common import evaluate, log_prob_of
from invjax.recourse.judging import Judged, placed, share_of, there
from invjax.recourse.plan import Plan
from invjax.recourse.raw import logits_of_table
from invjax.recourse.reading import AskedRows
from invjax.recourse.wording import costs

_CHUNK = 2**16  # rows asked about at once
_PER_ROW = 20_000  # values tried for a row, about
_GRID = 1000  # grid points that are all tried
_KEPT = 32  # answers of one feature, from the cheapest to the dearest, that are compared


class Found(NamedTuple):
    """The best single changes of n rows."""

    judged: Judged  # [n]
    tried: np.ndarray  # [n] int, how many changes were asked about


def one_change(plan: Plan, rows: AskedRows, todo: np.ndarray) -> Found:
    """The cheapest answer (1) of each row of ``todo`` [n]; one that is as dense as was asked comes first."""
    space = plan.data.space
    table = {name: np.asarray(rows.table[name])[todo] for name in space.names}
    x, target = rows.x[todo], rows.target[todo]
    tried = np.zeros(len(todo), int)
    kept = Judged(
        np.zeros(len(todo), bool), {name: column.copy() for name, column in table.items()}, x.copy(),
        np.full(len(todo), np.nan), np.full(len(todo), np.nan), [""] * len(todo),
    )  # fmt: skip
    answers = [_Answers(np.zeros(0, int), {name: column[:0] for name, column in table.items()})]
    known, most = plan.data.rows(plan.train), max(64, _PER_ROW // len(space.features))
    for feature in space.features:
        if feature.direction == "none":
            continue
        values = values_of(feature, np.asarray(known[feature.name]), most)
        pairs = _allowed(feature, table[feature.name], values)
        for start in range(0, len(pairs), _CHUNK):
            answers.append(_asked(plan, feature, table, target, values, pairs[start : start + _CHUNK], tried))
    everyone = np.concatenate([part.row for part in answers])
    joined = {name: np.concatenate([part.table[name] for part in answers]) for name in space.names}
    if not len(everyone):
        return Found(kept, tried)
    factual = {name: column[everyone] for name, column in table.items()}
    u = space.encode(joined, x.dtype)
    cost = costs(space, factual, joined, (x[everyone], u))
    dense = _dense(plan, u, target[everyone])
    best = [int(own[np.lexsort((cost[own], ~dense[own]))[0]]) for n in range(len(todo))
            if len(own := np.flatnonzero(everyone == n))]  # fmt: skip
    row = everyone[best]
    kept.accepted[row], kept.x[row], kept.cost[row] = True, u[best], cost[best]
    won = {name: column[best] for name, column in joined.items()}
    kept.probability[row] = share_of(logits_of_table(plan.seen, space, won), target[row])
    whole = {name: placed(column, row, won[name]) for name, column in kept.table.items()}
    return Found(kept._replace(table=whole), tried)


def values_of(feature: Feature, column: np.ndarray, most: int) -> np.ndarray:
    """The values V_f that are tried, sorted: positions of levels, or numbers. column: of the training rows.

    most: about how many, of a feature without levels; of more the quantiles.
    """
    low, high = feature.range
    if feature.levelled:
        return np.arange(int(low), int(high) + 1, dtype=np.float64)
    ends = [end for end in (low, high) if math.isfinite(end)]
    if feature.grid and len(ends) == 2 and (high - low) / feature.grid < _GRID:
        return np.clip(low + feature.grid * np.arange(round((high - low) / feature.grid) + 1), low, high)
    own = numbers(feature, column)
    own = _thinned(np.unique(own[np.isfinite(own)]), most if feature.grid else most // 4)
    gaps = np.diff(own)
    between = [own[:-1] + share * gaps for share in (0.01, 0.5, 0.99)]
    values = np.concatenate([own, *between, ends])
    if feature.grid:
        values = feature.origin + np.rint((values - feature.origin) / feature.grid) * feature.grid
    return np.unique(values[(values >= low) & (values <= high)])


class _Answers(NamedTuple):
    """Some of the answers: which of the rows, and the row that it would become."""

    row: np.ndarray  # [k] int
    table: Table  # k rows


def _allowed(feature: Feature, column: np.ndarray, values: np.ndarray) -> np.ndarray:
    """[k, 2] of which row what value is an allowed change, by direction and transitions."""
    old = numbers(feature, column)[:, None]
    good = values != old
    if feature.direction == "up":
        good &= values > old
    elif feature.direction == "down":
        good &= values < old
    for (start, end), cost in feature.transitions.items():
        if cost is None:
            good &= ~((old == feature.levels.index(start)) & (values == feature.levels.index(end)))
    return np.argwhere(good)


def _asked(
    plan: Plan, feature: Feature, table: Table, target: np.ndarray, values: np.ndarray, pairs: np.ndarray,
    tried: np.ndarray,
) -> _Answers:  # fmt: skip
    """The answers among some changes of one feature; of each row a few, from its cheapest to its dearest."""
    space, (row, which) = plan.data.space, pairs.T
    new = {name: column[row] for name, column in table.items()}
    new[feature.name] = _cells(feature, table[feature.name], values[which])
    if space.relations:
        lawful = np.array([not broken for broken in space.violations({n: c[row] for n, c in table.items()}, new)])
        row, which, new = row[lawful], which[lawful], {name: column[lawful] for name, column in new.items()}
    tried += np.bincount(row, minlength=len(tried))
    good = np.zeros(len(row), bool)
    if len(row):
        good = there(logits_of_table(plan.seen, space, new), target[row], plan.probability)
    apart = np.abs(values[which] - numbers(feature, table[feature.name])[row])
    chosen = []
    for n in np.unique(row[good]):
        own = np.flatnonzero(good & (row == n))
        chosen.append(_thinned(own[np.argsort(apart[own], kind="stable")], _KEPT))
    picked = np.concatenate(chosen) if chosen else np.zeros(0, int)
    return _Answers(row[picked], {name: column[picked] for name, column in new.items()})


def _cells(feature: Feature, column: np.ndarray, values: np.ndarray) -> np.ndarray:
    """The values as cells like those of ``column``."""
    if feature.levelled:
        return np.asarray([feature.levels[int(i)] for i in values], object if column.dtype.kind in "USO" else None)
    return np.rint(values).astype(np.int64) if feature.kind == "integer" and column.dtype.kind in "iu" else values


def _dense(plan: Plan, u: np.ndarray, target: np.ndarray) -> np.ndarray:
    """[k] bool: as dense as was asked; all of them where nothing was."""
    if plan.cut is None or plan.density is None:
        return np.ones(len(u), bool)
    fill = np.resize(np.arange(len(u)), 1 << (len(u) - 1).bit_length())  # few shapes are compiled
    return np.asarray(evaluate(log_prob_of, plan.cut, u[fill], target[fill].astype(np.int32)))[: len(u)] >= -1e-3


def _thinned(sorted_values: np.ndarray, most: int) -> np.ndarray:
    """All of them, or ``most`` of them evenly spread, the first and the last included."""
    if len(sorted_values) <= most:
        return sorted_values
    return sorted_values[np.linspace(0, len(sorted_values) - 1, most).astype(int)]
