"""The integrity check: an answer counts as it is written down, in raw units, and as the classifier judges that.

    x' --decode--> table' --encode--> x''    accepted:  space.violations(table, table') = [],  predict(x'') = t    (1)

A method works on float32 coordinates, but a person is told a table. Rounding to ranges, grids and levels lies between
the two, so what the method claimed proves nothing about what is printed. A predictor of raw rows is asked about table'
itself (:mod:`invjax.recourse.raw`). What is printed is rounded once more, so :func:`tell` judges that as well.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from invjax.constraints import FeatureSpace
from invjax.core.labels import classes_of
from invjax.recourse.raw import logits_of, logits_of_table, own_probability, table_of
from invjax.recourse.wording import Change, changes, costs, read, sentence
from invjax.types import LogitsFn

_ROUNDING = 1e-6  # of a probability, in float32
_TOLD = 5  # the changes of a rejected answer are named up to this number
_MORE = 6  # further digits that are tried before all of them are printed


class Requirements(NamedTuple):
    """What an answer must have; n rows."""

    x: np.ndarray  # [n, D] factual rows
    table: Mapping[str, np.ndarray]  # the same in raw units
    target: np.ndarray  # [n] wanted class
    most: int | None = None  # features that may change
    probability: float | None = None  # of the target; None: the target must win


class Judged(NamedTuple):
    """The answers accepted by (1), at most one per row: the cheapest of several."""

    accepted: np.ndarray  # [n] bool
    table: dict[str, np.ndarray]  # the answers in raw units; the factual row where not accepted
    x: np.ndarray  # [n, D] that table encoded
    probability: np.ndarray  # [n] of the target there
    cost: np.ndarray  # [n] sum of cost times change; NaN where not accepted
    why: list[str]  # what is wrong with a claimed answer; "" where one was accepted or none was claimed


def predictor(model: LogitsFn) -> Callable[[np.ndarray], np.ndarray]:
    """x [n, D] -> [n] classes, -1 where the logits are not numbers."""
    return lambda x: classes_of(logits_of(model, np.asarray(x)))


def share_of(logits: np.ndarray, target: np.ndarray) -> np.ndarray:
    """[n] softmax probabilities of the classes ``target`` [n]."""
    shifted = logits - logits.max(1, keepdims=True)
    return np.exp(shifted[np.arange(len(target)), target]) / np.exp(shifted).sum(1)


def there(logits: np.ndarray, target: np.ndarray, probability: float | None) -> np.ndarray:
    """[n] bool: these logits [n, K] are an answer, as the methods see it too (:func:`invjax.solvers.best.there`).

    probability: None: the target wins; otherwise it has at least this softmax probability, winning or not.
    """
    if probability is None:
        return classes_of(logits) == target
    with np.errstate(invalid="ignore"):
        return share_of(logits, target) >= probability - _ROUNDING


def judge_claims(
    space: FeatureSpace, model: LogitsFn, question: Requirements, candidates: np.ndarray, claimed: np.ndarray
) -> Judged:
    """Hold candidates [n, P, D], of which those with ``claimed`` [n, P] are said to be answers, against (1).

    An answer must also change a feature, and at most ``most`` of them; :func:`there` says what the class asks.
    """
    x, table = question.x, {name: np.asarray(question.table[name]) for name in space.names}
    count = len(x)
    kept = Judged(
        np.zeros(count, bool), {name: column.copy() for name, column in table.items()}, x.copy(),
        share_of(logits_of_table(model, space, table), question.target), np.full(count, np.nan), [""] * count,
    )  # fmt: skip
    for p in range(candidates.shape[1]):
        rows = np.flatnonzero(claimed[:, p])
        if not len(rows):
            continue
        factual = {name: column[rows] for name, column in table.items()}
        raw = table_of(model, space, candidates[rows, p], factual)
        again = space.encode(raw, x.dtype)
        broken = space.violations(factual, raw)
        logits = logits_of_table(model, space, raw)
        share = share_of(logits, question.target[rows])
        own = own_probability(model, share, question.target[rows])
        enough = there(logits, question.target[rows], question.probability)
        cost = costs(space, factual, raw, (x[rows], again))
        better = []
        for i, n in enumerate(rows):
            wrong = _wrong(space, factual, raw, i, broken[i], question.most)
            if not wrong and not enough[i]:
                wrong = f"after rounding to raw units the model gives the target class only probability {own[i]:.2f}"
            if wrong:
                kept.why[n] = "" if kept.accepted[n] else f"{_told(space, factual, raw, i)} ({wrong})"
            elif not kept.accepted[n] or cost[i] < kept.cost[n]:
                kept.accepted[n], kept.why[n] = True, ""
                kept.x[n], kept.probability[n], kept.cost[n] = again[i], share[i], cost[i]
                better.append(i)
        for name in space.names if better else ():
            kept.table[name] = placed(kept.table[name], rows[better], np.asarray(raw[name])[better])
    return kept


def tell(
    space: FeatureSpace, model: LogitsFn, question: Requirements, answers: Mapping[str, Any]
) -> list[tuple[Change, ...]]:
    """The changes of n answers in words, with as many digits as it takes for (1) to hold of the numbers printed.

    answers: n rows in raw units that (1) holds of. A row is as a rule printed as :func:`wording.pair` rounds it.
    """
    factual, count = question.table, len(question.target)
    said: list[tuple[Change, ...]] = [()] * count
    todo = np.arange(count)
    for more in (*range(_MORE), None):
        for n in todo:
            said[n] = changes(space, factual, answers, int(n), more)
        rounded = [n for n in todo if any(read(change) != change.new for change in said[n])]
        todo = np.asarray(rounded, int)
        if more is None or not len(todo):
            break
        old = {name: np.asarray(factual[name])[todo] for name in space.names}
        shown = {name: np.asarray(answers[name])[todo] for name in space.names}
        for name in space.names:
            own = [(i, read(change)) for i, n in enumerate(todo) for change in said[n] if change.feature == name]
            if own:
                rows, values = zip(*own, strict=True)
                shown[name] = placed(shown[name], np.asarray(rows), np.asarray(values))
        wanted = np.asarray(question.target)[todo]
        holds = there(logits_of_table(model, space, shown), wanted, question.probability)
        broken = space.violations(old, shown)
        todo = todo[[not held or bool(wrong) for held, wrong in zip(holds, broken, strict=True)]]
    return said


def placed(column: np.ndarray, rows: np.ndarray, values: np.ndarray) -> np.ndarray:
    """``column`` with ``values`` in ``rows``, as objects or floats where its own type cannot hold them."""
    if column.dtype.kind in "US" or values.dtype.kind == "O":
        column = column.astype(object)
    elif column.dtype.kind in "iu" and values.dtype.kind == "f" and (values != np.rint(values)).any():
        column = column.astype(np.float64)
    column[rows] = values
    return column


def _wrong(space: FeatureSpace, factual: Any, raw: Any, row: int, broken: list[str], most: int | None) -> str:
    if broken:
        return "; ".join(broken)
    found = changes(space, factual, raw, row)
    if not found:
        return "nothing changes after rounding to raw units"
    if most is not None and len(found) > most:
        return f"it changes {len(found)} features, at most {most} may change"
    return ""


def _told(space: FeatureSpace, factual: Any, raw: Any, row: int) -> str:
    found = changes(space, factual, raw, row)
    return sentence(found) if 0 < len(found) <= _TOLD else f"{len(found) or 'no'} changes"
