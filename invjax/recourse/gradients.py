"""Where the gradient of a model without one comes from, and whether a network that imitates it may lend its own.

    agreement = share of rows at which network and model name the same class                                      (1)

A small network imitates a forest only roughly. Where it sees another boundary, its gradient leads nowhere, and an
answer that exists is missed. So (1) is measured before the run: on training rows, and on the same rows with one cell
taken from another row, because answers are sought around the data. Below :data:`ENOUGH` the differences of the model
itself take its place, at more calls.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from invjax.constraints import FeatureSpace
from invjax.data.tables.table import TabularData
from invjax.engine.blackbox import Antithetic, antithetic, surrogate
from invjax.recourse.judging import there
from invjax.recourse.raw import difference_steps, logits_of, logits_of_table, rows_of
from invjax.types import Evaluator

ENOUGH = 0.95
_ROWS = 500  # of the training rows; as many around them


class Gradient(NamedTuple):
    """The evaluator to take, and why."""

    evaluator: Evaluator
    words: str  # "" for a model with a gradient of its own


def differences(space: FeatureSpace, model: Any) -> Antithetic:
    """Differences of a model: as many directions as encoded columns, over a third of a unit.

    A predictor of raw rows sees no move within a grid point or a level: its steps are at least as long.
    """
    scale = 0.3 if rows_of(model) is None else difference_steps(space)
    return antithetic(samples=max(16, space.width), scale=scale)


def chosen_gradient(
    data: TabularData, network: Any, evaluator: Evaluator, train: np.ndarray, probability: float | None = None
) -> Gradient:
    """``evaluator``, or differences where it is the surrogate's and the surrogate does not agree with the model.

    train: rows of the table, of which 500 are looked at, and 500 around them. probability: what an answer must have;
    None: the target must win.
    """
    if isinstance(evaluator, Antithetic):
        return Gradient(evaluator, "differences of the model")
    beside = getattr(network, "surrogate", None)
    if evaluator is not surrogate or beside is None:
        return Gradient(evaluator, "")
    same, count = _agreement(data, network, beside, train, probability)
    seen = f"the same class on {_percent(same)} of {count} rows at and around the training rows"
    if same >= ENOUGH:
        return Gradient(evaluator, f"a network that imitates the model, {seen}")
    words = f"differences of the model, because the network that imitates it agrees too seldom ({seen})"
    return Gradient(differences(data.space, network), words)


def agreement_at(network: Any, x: np.ndarray, target: np.ndarray, probability: float | None) -> int | None:
    """For how many points [n, D] the network beside the model sees an answer, too; None without one."""
    beside = getattr(network, "surrogate", None)
    return None if beside is None else int(there(logits_of(beside, x), target, probability).sum())


def _agreement(
    data: TabularData, network: Any, beside: Any, train: np.ndarray, probability: float | None
) -> tuple[float, int]:
    """(1), and on how many rows."""
    draw = np.random.default_rng(0)
    rows = draw.permutation(train)[:_ROWS]
    table, others = data.rows(rows), data.rows(draw.permutation(rows))
    free = [feature.name for feature in data.space.features if feature.direction != "none"] or list(data.space.names)
    changed = np.asarray(free)[draw.integers(0, len(free), len(rows))]
    around = {name: np.where(changed == name, others[name], table[name]) for name in data.space.names}
    both = {name: np.concatenate([table[name], around[name]]) for name in data.space.names}
    said, imitated = logits_of_table(network, data.space, both), logits_of(beside, data.space.encode(both))
    same = np.ones(len(said), bool)
    for k in range(len(data.classes)):
        target = np.full(len(said), k)
        same &= there(said, target, probability) == there(imitated, target, probability)
    return float(same.mean()), len(said)


def _percent(share: float) -> str:
    """99.6 % is not 100 %."""
    return f"{np.floor(1000 * share) / 10:g} %"
