"""Rows as the measures of counterfactuals need them: which count, which features changed, their raw units."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from invjax.core.errors import BadArgument, check_number, of_shape
from invjax.types import Result, Status

PredictFn = Callable[[np.ndarray], Any]  # [n, *S] -> [n] class indices, or [n, K] scores


_ROUNDING = 1e-5  # of logits, in float32


class Answers(NamedTuple):
    """Judged counterfactuals; N rows."""

    x: np.ndarray  # [N, *S] factual rows
    cf: np.ndarray  # [N, *S] counterfactuals; the factual row if not answered
    target: np.ndarray  # [N] int64 wanted class
    trivial: np.ndarray  # [N] bool, the factual row has the target
    infeasible: np.ndarray  # [N] bool, the method found the constraints infeasible
    answered: np.ndarray  # [N] bool, a counterfactual is claimed
    valid: np.ndarray  # [N] bool, answered, not trivial, and of the target class


def answers(
    x: Any, counterfactuals: Any, target: Any, predict: PredictFn, tolerance: float, probability: float | None = None
) -> Answers:
    """Judge N counterfactuals, a Result or an array [N, *S], by ``predict``: see :func:`reaches`.

    Of a set of P per row ([N, P, *S]) the nearest valid one counts, or the first answered one if none is valid.

    Raises ValueError: a shape that does not fit, a target that is not a class, a tolerance below 0.
    """
    rows = np.asarray(x)
    if rows.ndim < 2:
        raise BadArgument("x", "be rows [N, *S]", of_shape(rows.shape))
    check_number("tolerance", tolerance, lambda value: value >= 0, "a number >= 0 in model units")
    status = np.asarray(counterfactuals.status) if isinstance(counterfactuals, Result) else None
    cf = np.asarray(counterfactuals.x if isinstance(counterfactuals, Result) else counterfactuals)
    if cf.ndim == rows.ndim + 1 and cf.shape[:1] + cf.shape[2:] == rows.shape and cf.shape[1] > 0:
        return _nearest_of_sets(rows, cf, status, target, predict, tolerance, probability)
    if cf.shape != rows.shape:
        raise BadArgument("counterfactuals", f"be of the shape of x, {rows.shape}", of_shape(cf.shape))
    return _judged(rows, cf, status, target, predict, tolerance, probability)


def _nearest_of_sets(
    rows: np.ndarray,
    cf: np.ndarray,
    status: np.ndarray | None,
    target: Any,
    predict: PredictFn,
    tolerance: float,
    probability: float | None,
) -> Answers:
    """Judge sets [N, P, *S] and keep one answer of each."""
    count, each = cf.shape[:2]
    wanted = np.repeat(np.broadcast_to(np.asarray(target), (count,)), each)
    many = np.repeat(rows, each, axis=0)
    state = None if status is None else status.reshape(-1)
    all_ = _judged(many, cf.reshape(many.shape), state, wanted, predict, tolerance, probability)
    distance = np.square((all_.cf - all_.x).reshape(count, each, -1).astype(np.float64)).sum(2)
    order = np.where(all_.valid.reshape(count, each), distance, np.inf)
    order = np.where(np.isfinite(order).any(1, keepdims=True), order, ~all_.answered.reshape(count, each))
    return Answers(*(field[np.arange(count) * each + order.argmin(1)] for field in all_))


def _judged(
    rows: np.ndarray,
    cf: np.ndarray,
    status: np.ndarray | None,
    target: Any,
    predict: PredictFn,
    tolerance: float,
    probability: float | None,
) -> Answers:
    wanted = np.asarray(target)
    if wanted.shape not in ((), (len(rows),)) or not np.issubdtype(wanted.dtype, np.integer) or (wanted < 0).any():
        raise BadArgument("target", f"be a class index or [{len(rows)}] of them", target)
    wanted = np.broadcast_to(wanted.astype(np.int64), (len(rows),))
    axes = tuple(range(1, rows.ndim))
    finite = np.isfinite(cf).all(axis=axes)
    whole = np.isfinite(rows).all(axis=axes)  # a factual row with a missing cell counts as unanswered
    moved = np.abs(np.where(np.isfinite(cf), cf, 0) - np.where(np.isfinite(rows), rows, 0)).max(axis=axes) > tolerance
    answered = finite & whole & (moved if status is None else status == Status.FOUND)
    factual = np.where(np.isfinite(rows), rows, 0)
    cf = np.where(answered.reshape(-1, *(1,) * len(axes)), cf, factual)
    trivial = _where(np.asarray(whole), predict, factual, wanted, probability)
    infeasible = np.zeros(len(rows), bool) if status is None else status == Status.INFEASIBLE
    answered = answered & ~trivial
    valid = _where(answered, predict, cf, wanted, probability)
    return Answers(rows, cf, wanted, trivial, infeasible, answered, valid)


def _where(
    asked: np.ndarray, predict: PredictFn, rows: np.ndarray, target: np.ndarray, probability: float | None
) -> np.ndarray:
    """:func:`reaches` of the rows ``asked`` [n] bool; False elsewhere, where there may be no row to ask about."""
    found = asked.copy()
    found[asked] = reaches(predict, rows[asked], target[asked], probability)
    return found


def flat(rows: Any) -> np.ndarray:
    """[n, *S] -> [n, D] float64, also where n is 0."""
    array = np.asarray(rows)
    return array.reshape(len(array), math.prod(array.shape[1:])).astype(np.float64)


def judge(predict: PredictFn, rows: np.ndarray) -> np.ndarray:
    """[n] int64 classes of rows [n, *S]: ``predict`` gives [n] class indices, or [n, K] scores."""
    if len(rows) == 0:
        return np.zeros(0, np.int64)
    said = np.asarray(predict(rows))
    if said.ndim == 2 and len(said) == len(rows) and said.shape[1] > 1:
        # A row of NaN has no class; -1 is never a target.
        return np.where(np.isfinite(said).all(1), np.nan_to_num(said).argmax(1), -1)
    if said.shape != (len(rows),):
        raise BadArgument("predict", f"return {len(rows)} classes or [{len(rows)}, K] scores", of_shape(said.shape))
    return said.astype(np.int64)


def reaches(predict: PredictFn, rows: np.ndarray, target: np.ndarray, probability: float | None = None) -> np.ndarray:
    """[n] bool: rows [n, *S] have the target [n]: the class is predicted, or it has at least the probability.

    probability: needs a ``predict`` that gives logits [n, K]; a row of NaN has no probability.
    """
    if probability is None or not len(rows):
        return judge(predict, rows) == target
    logits = np.asarray(predict(rows), np.float64)
    if logits.ndim != 2 or len(logits) != len(rows) or logits.shape[1] < 2:
        raise BadArgument("predict", f"return logits [{len(rows)}, K] with a probability", of_shape(logits.shape))
    own = np.arange(logits.shape[1]) == np.asarray(target)[:, None]
    others = np.logaddexp.reduce(np.where(own, -np.inf, logits), axis=1)
    return logits[own] - others >= math.log(probability / (1 - probability)) - _ROUNDING


def column_features(space: Any, width: int) -> np.ndarray:
    """The index of the feature of each column, [D] int64; without a space every column is a feature."""
    if space is None:
        return np.arange(width)
    if space.width != width:
        raise BadArgument("space", f"have the {width} columns of x", space.width)
    return np.asarray(space.column_features, np.int64)


def changed_features(delta: np.ndarray, feature_of: np.ndarray, tolerance: float) -> np.ndarray:
    """[n, F] bool: whether any column of a feature differs by more than the tolerance. delta: [n, D]."""
    changed = np.zeros((len(delta), int(feature_of.max()) + 1), bool)
    rows, columns = np.nonzero(np.abs(delta) > tolerance)
    changed[rows, feature_of[columns]] = True
    return changed


def raw_table(space: Any, x: np.ndarray, factual: Mapping[str, Any], tolerance: float) -> dict[str, np.ndarray]:
    """Rows [n, D] in raw units for the judge of constraints, without repairing anything beyond the tolerance.

    ``space.decode`` snaps values onto ranges, grids and levels, which would hide a violation. So its value of a feature
    is used only if encoding it again gives the row's columns within the tolerance (model units). Otherwise a number is
    kept as the row has it, and an impossible level becomes text that names no level.
    """
    decoded = space.decode(x, factual)
    off = changed_features(
        np.asarray(space.encode(decoded), np.float64) - x, column_features(space, x.shape[1]), tolerance
    )
    raw, column = {}, 0
    for f, feature in enumerate(space.features):
        values, own = np.asarray(decoded[feature.name]), x[:, column : column + feature.columns]
        if off[:, f].any():
            if feature.levelled:
                shown = [f"{feature.name} between its levels ({', '.join(f'{v:g}' for v in row)})" for row in own]
                values = np.where(off[:, f], np.asarray(shown, object), values.astype(object))
            else:
                values = np.where(off[:, f], own[:, 0].astype(np.float64) * space.scale[f] + space.center[f], values)
        raw[feature.name] = values
        column += feature.columns
    return raw
