"""The integrity check: an answer counts as it is written down, in raw units, and as the classifier judges that.

    x' --decode--> table' --encode--> x''    accepted:  space.violations(table, table') = [],  predict(x'') = t    (1)

A method works on float32 coordinates; what a person is told is a table. Rounding to ranges, grids and levels lies
between them, so what the method claimed proves nothing about what is printed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np

from invjax.constraints import FeatureSpace
from invjax.core.logits import as_logits_fn
from invjax.core.numerics import at_least_float32
from invjax.recourse.wording import changes, costs, sentence

CHUNK = 4096
TOLD = 5  # changes of a rejected answer are named up to so many


class Question(NamedTuple):
    """What an answer must have; n rows."""

    x: np.ndarray  # [n, D] factual rows
    table: Mapping[str, np.ndarray]  # the same in raw units
    target: np.ndarray  # [n] wanted class
    most: int | None = None  # features that may change
    probability: float = 0.0  # of the target


class Judged(NamedTuple):
    """The answers accepted by (1), one per row: of several the one of least cost."""

    accepted: np.ndarray  # [n] bool
    table: dict[str, np.ndarray]  # the answers in raw units; the factual row where not accepted
    x: np.ndarray  # [n, D] that table encoded
    probability: np.ndarray  # [n] of the target there
    cost: np.ndarray  # [n] sum of cost times change; NaN where not accepted
    why: list[str]  # "" where accepted or nothing was claimed; else what is wrong with what was claimed


@jax.jit
def _run(model: Any, x: Any) -> Any:
    return at_least_float32(model(x))


def logits_of(model: Any, x: np.ndarray) -> np.ndarray:
    """[n, K] float64 logits of x [n, D], at a few compiled shapes only; NaN for rows with a NaN."""
    network = as_logits_fn(model)
    whole = np.asarray(np.isfinite(x).all(1))
    clean = np.where(whole[:, None], x, 0).astype(np.float32)
    parts = []
    for begin in range(0, max(len(clean), 1), CHUNK):
        part = clean[begin : begin + CHUNK]
        wide = max(8, 1 << max(len(part) - 1, 0).bit_length())
        filled = np.concatenate([part, np.zeros((wide - len(part), clean.shape[1]), np.float32)])
        parts.append(np.asarray(_run(network, filled), np.float64)[: len(part)])
    logits = np.concatenate(parts)
    logits[~whole] = np.nan
    return logits


def predictor(model: Any) -> Callable[[np.ndarray], np.ndarray]:
    """x [n, D] -> [n] classes, -1 where the logits are not numbers."""
    return lambda x: classes_of(logits_of(model, np.asarray(x)))


def classes_of(logits: np.ndarray) -> np.ndarray:
    """[n] int64; -1 for a row with NaN."""
    broken = np.isnan(logits).any(1)
    return np.where(broken, -1, np.where(np.isnan(logits), 0, logits).argmax(1))


def share_of(logits: np.ndarray, target: np.ndarray) -> np.ndarray:
    """[n] softmax probabilities of the classes ``target`` [n]."""
    shifted = logits - logits.max(1, keepdims=True)
    return np.exp(shifted[np.arange(len(target)), target]) / np.exp(shifted).sum(1)


def judge(space: FeatureSpace, model: Any, question: Question, candidates: np.ndarray, claimed: np.ndarray) -> Judged:
    """Hold candidates [n, P, D], of which those with ``claimed`` [n, P] are said to be answers, against (1).

    Accepted are also asked: at least one and at most ``most`` changed features, ``probability``.
    """
    x, table = question.x, {name: np.asarray(question.table[name]) for name in space.names}
    count = len(x)
    kept = Judged(
        np.zeros(count, bool), {name: column.copy() for name, column in table.items()}, x.copy(),
        share_of(logits_of(model, x), question.target), np.full(count, np.nan), [""] * count,
    )  # fmt: skip
    for p in range(candidates.shape[1]):
        rows = np.flatnonzero(claimed[:, p])
        if not len(rows):
            continue
        factual = {name: column[rows] for name, column in table.items()}
        raw = space.decode(candidates[rows, p], factual)
        again = space.encode(raw, x.dtype)
        broken = space.violations(factual, raw)
        logits = logits_of(model, again)
        said, share = classes_of(logits), share_of(logits, question.target[rows])
        cost = costs(space, factual, raw, (x[rows], again))
        for i, n in enumerate(rows):
            wrong = _wrong(space, factual, raw, i, broken[i], question.most)
            if not wrong and said[i] != question.target[n]:
                wrong = f"in its own units that has the wanted class only with probability {share[i]:.2f}"
            if not wrong and share[i] < question.probability - 1e-4:
                wrong = f"in its own units that has a probability of {share[i]:.2f} only"
            if wrong:
                kept.why[n] = "" if kept.accepted[n] else f"{_told(space, factual, raw, i)} ({wrong})"
            elif not kept.accepted[n] or cost[i] < kept.cost[n]:
                kept.accepted[n], kept.why[n] = True, ""
                kept.x[n], kept.probability[n], kept.cost[n] = again[i], share[i], cost[i]
                for name in space.names:
                    _put(kept.table, name, int(n), raw[name][i])
    return kept


def _wrong(space: FeatureSpace, factual: Any, raw: Any, row: int, broken: list[str], most: int | None) -> str:
    if broken:
        return "; ".join(broken)
    found = changes(space, factual, raw, row)
    if not found:
        return "in its own units nothing changes"
    if most is not None and len(found) > most:
        return f"it changes {len(found)} features, at most {most} may change"
    return ""


def _told(space: FeatureSpace, factual: Any, raw: Any, row: int) -> str:
    found = changes(space, factual, raw, row)
    return sentence(found) if 0 < len(found) <= TOLD else f"{len(found) or 'no'} changes"


def _put(table: dict[str, np.ndarray], name: str, row: int, value: Any) -> None:
    """One cell; the column becomes one of objects or floats where the value does not fit its type."""
    column = table[name]
    if column.dtype.kind in "US":
        table[name] = column = column.astype(object)
    elif column.dtype.kind in "iu" and float(value) != int(value):
        table[name] = column = column.astype(np.float64)
    column[row] = value
