"""A model of raw rows as a classifier of coordinates, and how any model is asked about a table.

    x --decode--> table --predict--> probabilities           a predictor of raw rows: ``model_of_table``             (1)
    table --encode--> x --network--> logits                  any other model

Thresholds of trees are values of the data, and a float32 coordinate, turned back, is not that value: 1e-7 decides.
So (1) turns the coordinates of known cells into those very cells, and a table that exists already (a person's row, an
answer as it is written) never takes the way over coordinates: :func:`logits_of_table` hands it to the predictor as it
is.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from invjax.constraints import FeatureSpace
from invjax.constraints.cells import KnownCells
from invjax.constraints.encode import decode
from invjax.constraints.table import numbers
from invjax.core.errors import BadArgument
from invjax.core.logits import LogitsModel, num_classes
from invjax.core.numerics import at_least_float32
from invjax.core.rows import map_rows
from invjax.models.blackbox import BlackBoxApply, asked, with_surrogate
from invjax.types import Array, LogitsFn

TablePredict = Callable[[Mapping[str, np.ndarray]], Any]  # N raw rows -> [N, K] probabilities

_CHUNK = 4096  # rows per call of the network
_LEAST = 1e-300  # a probability below it counts as this one, so that every logit is finite


@dataclasses.dataclass(frozen=True, eq=False)
class RawRows:
    """A predictor of tables as a function of coordinates, x [N, D] -> [N, K] probabilities.

    Two are equal where predictor, space and known cells are, so that their compiled programs are the same.
    """

    predict: TablePredict
    space: FeatureSpace
    known: KnownCells
    classes: int

    def __call__(self, x: np.ndarray) -> np.ndarray:
        """Probabilities [N, K]; NaN for a row that is not finite, about which the predictor is not asked."""
        finite = np.isfinite(x).all(1)
        out = np.full((len(x), self.classes), np.nan)
        if finite.any():
            out[finite] = self.of_table(table_of(self, self.space, x[finite]))
        return out

    def of_table(self, table: Mapping[str, np.ndarray]) -> np.ndarray:
        """Probabilities [N, K] float64 of raw rows, which the predictor gets as they are."""
        count = len(next(iter(table.values())))
        return asked(self.predict, table, count, self.classes)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, RawRows):
            return NotImplemented
        mine, theirs = ((one.predict, one.classes, one.known, one.space) for one in (self, other))
        return mine == theirs

    def __hash__(self) -> int:
        return hash((self.predict, self.classes, self.known, self.space.names))


def model_of_table(
    predict: TablePredict, space: FeatureSpace, known: Mapping[str, Any], classes: int, *, floor: float = 1e-3
) -> LogitsModel:
    """A predictor of raw rows as a classifier of model coordinates, for ``solve`` and ``explain_rows``.

    Args:
      predict: a table, {name: [N] column in raw units}, -> [N, K] probabilities (for K = 2 also [N], that of class 1).
        It is part of the key of compiled programs: pass the same object each time.
      space: of the table.
      known: a table whose cells come back bit for bit from their coordinates: as a rule all rows of the data.
      classes: K.
      floor: the smallest probability distinguished from 0 in the search.

    Like every black box it has no gradient: see :mod:`invjax.engine.blackbox`. ``rows_of(model)`` is the function of
    coordinates that :func:`invjax.models.distill` imitates.
    """
    rows = RawRows(predict, space, KnownCells(space.features, space.center, space.scale, known), classes)
    return LogitsModel((), BlackBoxApply(rows, classes, True, floor))


def rows_of(model: Any) -> RawRows | None:
    """The predictor of raw rows in a model, also beside a surrogate; None for every other model."""
    if isinstance(model, RawRows):
        return model
    inner = getattr(model, "model", model)  # WithSurrogate
    predict = getattr(getattr(inner, "apply", None), "predict", None)
    return predict if isinstance(predict, RawRows) else None


def difference_steps(space: FeatureSpace, least: float = 0.3) -> tuple[float, ...]:
    """[D] steps for :func:`invjax.engine.antithetic`, model units: ``least``, but at least a grid point or a level.

    A predictor of raw rows is constant between grid points, so a shorter step would see no difference.
    """
    steps: list[float] = []
    for feature, scale in zip(space.features, space.scale, strict=True):
        own = 1.0 if feature.kind == "category" else max(least, feature.grid / float(scale))
        steps += [own] * feature.columns
    return tuple(steps)


def knowing(model: Any, space: FeatureSpace, table: Mapping[str, Any]) -> Any:
    """The model with the cells of these rows known as well, so that a search starts from the very rows.

    It is the model itself where their coordinates give them back already: rows of the data, whole numbers, decimals of
    a few digits. Other numbers (a dollar amount of 17 digits) make another model, whose programs are compiled anew.
    """
    rows = rows_of(model)
    if rows is None:
        return model
    own = {f.name: numbers(f, np.asarray(table[f.name])) for f in space.features if not f.levelled}
    back = table_of(model, space, space.encode(table))
    lost = {name: values[(back[name] != values) & np.isfinite(values)] for name, values in own.items()}
    lost = {name: values for name, values in lost.items() if len(values)}
    if not lost:
        return model
    known = dataclasses.replace(rows, known=rows.known.before(lost))
    inner = getattr(model, "model", model)
    inner = LogitsModel(inner.params, dataclasses.replace(inner.apply, predict=known))
    return inner if not hasattr(model, "surrogate") else with_surrogate(inner, model.surrogate)


def table_of(
    model: Any, space: FeatureSpace, x: np.ndarray, factual: Mapping[str, Any] | None = None
) -> dict[str, np.ndarray]:
    """Rows x [N, D] in raw units, as they are written down: the very rows that the model is asked about.

    factual: as for :meth:`FeatureSpace.decode`.
    """
    rows = rows_of(model)
    known = None if rows is None else rows.known
    return decode(space.features, space.center, space.scale, x, factual, known)


def logits_of_table(model: LogitsFn, space: FeatureSpace, table: Mapping[str, Any]) -> np.ndarray:
    """[N, K] float64 logits of raw rows; NaN for a row about which the model has nothing to say.

    A predictor of raw rows is asked about the table as it is. A row with a missing cell or an unknown level is asked
    about apart from the others: not every model takes it, and then it has no logits. Any other model gets the table
    encoded.
    """
    columns = {name: np.asarray(table[name]) for name in space.names}
    x, rows = space.encode(columns), rows_of(model)
    if rows is None:
        return logits_of(model, x)
    out = np.full((len(x), rows.classes), np.nan)
    whole = _whole(space, x)
    if whole.any():
        out[whole] = rows.of_table({name: column[whole] for name, column in columns.items()})
    if not whole.all():
        try:
            out[~whole] = rows.of_table({name: column[~whole] for name, column in columns.items()})
        except BadArgument:
            out[~whole] = np.nan
    return np.log(np.maximum(out, _LEAST))


def own_probability(model: Any, share: np.ndarray, target: np.ndarray) -> np.ndarray:
    """[n] the probabilities that a model with a threshold gives the classes ``target``, from those of its logits.

    The logits of such a model are moved so that the winner is its decision: a person is told its own number.
    """
    own = getattr(getattr(rows_of(model), "predict", None), "own_probability", None)
    return share if own is None else own(share, target)


def _whole(space: FeatureSpace, x: np.ndarray) -> np.ndarray:
    """[N] bool: every number is there, and every category has a level."""
    whole, at = np.asarray(np.isfinite(x).all(1)), 0
    for feature in space.features:
        if feature.kind == "category":
            whole = whole & np.asarray((x[:, at : at + feature.columns] > 0).any(1))
        at += feature.columns
    return whole


def _logits(model: LogitsFn, x: Array) -> Array:
    return at_least_float32(model(x))


def logits_of(model: LogitsFn, x: np.ndarray) -> np.ndarray:
    """[n, K] float64 logits of coordinates x [n, D], at a few compiled shapes only; NaN for rows with a NaN.

    Such a row is replaced by another one of x when the model is called, so it only ever sees rows.
    """
    whole = np.flatnonzero(np.isfinite(x).all(1))
    rows = rows_of(model)
    if rows is not None:
        return np.log(np.maximum(rows(np.asarray(x)), _LEAST)) if len(x) else np.zeros((0, rows.classes))
    if not len(whole):
        return np.full((len(x), num_classes(model, x.shape[1:], np.float32)), np.nan)
    filled = np.full(len(x), whole[0])
    filled[whole] = whole
    clean = np.asarray(x[filled], np.float32)
    logits = map_rows(_logits, model, clean, batch=_CHUNK, few_shapes=True).astype(np.float64)
    logits[~np.isin(np.arange(len(x)), whole)] = np.nan
    return logits
