"""Rows as the measures of counterfactuals need them: which count, which features changed, their raw units."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from invjax.constraints.space import check_space
from invjax.core.errors import BadArgument, check_number, of_shape
from invjax.core.labels import NO_CLASS, check_indices, check_status, classes_of, whole_numbers
from invjax.types import Result, Status

PredictFn = Callable[[np.ndarray], Any]  # [n, *S] -> [n] class indices, or [n, K] scores


_ROUNDING = 1e-5  # of logits, in float32
_TWO_COLUMNS = "probabilities p of class 1 become scores by np.stack([1 - p, p], axis=1)"


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
    target = targets_of(target, len(rows))
    check_tolerance(tolerance)
    status = check_status("status", counterfactuals.status) if isinstance(counterfactuals, Result) else None
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
    target: np.ndarray,
    predict: PredictFn,
    tolerance: float,
    probability: float | None,
) -> Answers:
    """Judge sets [N, P, *S] and keep one answer of each."""
    count, each = cf.shape[:2]
    wanted = np.repeat(target, each)
    many = np.repeat(rows, each, axis=0)
    state = None if status is None else status.reshape(-1)
    all_ = _judged(many, cf.reshape(many.shape), state, wanted, predict, tolerance, probability)
    distance = np.square(flat(all_.cf) - flat(all_.x)).sum(1).reshape(count, each)
    order = np.where(all_.valid.reshape(count, each), distance, np.inf)
    order = np.where(np.isfinite(order).any(1, keepdims=True), order, ~all_.answered.reshape(count, each))
    return Answers(*(field[np.arange(count) * each + order.argmin(1)] for field in all_))


def _judged(
    rows: np.ndarray,
    cf: np.ndarray,
    status: np.ndarray | None,
    wanted: np.ndarray,
    predict: PredictFn,
    tolerance: float,
    probability: float | None,
) -> Answers:
    axes = tuple(range(1, rows.ndim))
    finite = np.isfinite(cf).all(axis=axes)
    whole = np.isfinite(rows).all(axis=axes)  # a factual row with a missing cell counts as unanswered
    old, new = (np.where(np.isfinite(a), a, 0) for a in (rows, cf))
    if not all(np.issubdtype(a.dtype, np.floating) for a in (old, new)):
        old, new = old.astype(np.float64), new.astype(np.float64)  # differences of uint8 wrap around
    moved = np.abs(new - old).max(axis=axes) > tolerance
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


def targets_of(target: Any, count: int) -> np.ndarray:
    """Wanted classes [N] int64, from one class index or N of them. Raises BadArgument about what is none."""
    values = np.full(count, target) if np.isscalar(target) or getattr(target, "ndim", 1) == 0 else target
    return check_indices("target", values, count, strict=True).astype(np.int64)


def check_tolerance(tolerance: float) -> None:
    """Raise BadArgument unless it is a number >= 0."""
    check_number("tolerance", tolerance, lambda value: value >= 0, "a number >= 0 in model units")


def flat(rows: Any) -> np.ndarray:
    """[n, *S] -> [n, D] float64, also where n is 0."""
    array = np.asarray(rows)
    return array.reshape(len(array), math.prod(array.shape[1:])).astype(np.float64)


def judge(predict: PredictFn, rows: np.ndarray, wanted: np.ndarray | None = None, name: str = "target") -> np.ndarray:
    """[n] int64 classes of rows [n, *S]: ``predict`` gives [n] class indices, or [n, K] scores.

    A row of NaN has no class, -1, which is never a target. Numbers [n] that are not whole are the probabilities of one
    class, not classes: they are refused. wanted: [n], the argument ``name``, which must be classes of the scores.
    """
    if len(rows) == 0:
        return np.zeros(0, np.int64)
    said = np.asarray(predict(rows))
    if said.ndim == 2 and len(said) == len(rows) and said.shape[1] > 1:
        if wanted is not None:
            check_indices(name, wanted, len(rows), said.shape[1], of="predict")
        return classes_of(said.astype(np.float64, copy=False)).astype(np.int64)
    form = f"return classes [{len(rows)}] as whole numbers, or scores [{len(rows)}, K]"
    if said.shape != (len(rows),):
        raise BadArgument("predict", form, of_shape(said.shape), hint=_TWO_COLUMNS)
    real = said.dtype.kind == "f"
    try:
        whole = whole_numbers("predict", np.where(np.isnan(said), NO_CLASS, said) if real else said, form)
        return whole.astype(np.int64)
    except BadArgument as error:
        hint = _TWO_COLUMNS if real else None
        raise BadArgument("predict", form, error.was, error.index, hint=hint) from None


def reaches(predict: PredictFn, rows: np.ndarray, target: np.ndarray, probability: float | None = None) -> np.ndarray:
    """[n] bool: rows [n, *S] have the target [n]: the class is predicted, or it has at least the probability.

    probability: needs a ``predict`` that gives logits [n, K]; a row of NaN has no probability.
    """
    if probability is None or not len(rows):
        return judge(predict, rows, target) == target
    logits = np.asarray(predict(rows), np.float64)
    if logits.ndim != 2 or len(logits) != len(rows) or logits.shape[1] < 2:
        raise BadArgument("predict", f"return logits [{len(rows)}, K] with a probability", of_shape(logits.shape))
    own = np.arange(logits.shape[1]) == check_indices("target", target, len(rows), logits.shape[1])[:, None]
    others = np.logaddexp.reduce(np.where(own, -np.inf, logits), axis=1)
    return logits[own] - others >= math.log(probability / (1 - probability)) - _ROUNDING


def column_features(space: Any, width: int) -> np.ndarray:
    """The index of the feature of each column, [D] int64; without a space every column is a feature."""
    if space is None:
        return np.arange(width)
    if check_space(space).width != width:
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
