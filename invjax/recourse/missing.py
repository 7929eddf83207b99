"""Rows with missing cells, for a model that takes them: explained in the features that they have.

    rows with the same missing features m:  a table without m,  predict(table) = model(table with m missing)         (1)

What is missing stays missing: nobody can be told to change it. The explanations of (1) are put together again.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from invjax.constraints import FeatureSpace
from invjax.core.errors import BadArgument
from invjax.data.tables.table import TabularData
from invjax.metrics import summarize_counterfactuals
from invjax.recourse.answers import Explanation, FrontierStep, FurtherAnswers
from invjax.recourse.fitted import TablePredictor
from invjax.recourse.judging import placed
from invjax.types import Result

Part = tuple[np.ndarray, Explanation]  # rows [n] of the whole, and what came of them


@dataclasses.dataclass(frozen=True, eq=False)
class WithoutFeatures:
    """A predictor of tables that lack some features, whose cells it sees as missing: (1)."""

    predictor: TablePredictor
    gone: tuple[str, ...]

    @property
    def threshold(self) -> float | None:
        """Of the predictor."""
        return self.predictor.threshold

    @property
    def words(self) -> str:
        """What it is."""
        return self.predictor.words

    def own_probability(self, share: np.ndarray, target: np.ndarray) -> np.ndarray:
        """As :meth:`TablePredictor.own_probability`."""
        return self.predictor.own_probability(share, target)

    def __call__(self, table: Mapping[str, np.ndarray]) -> np.ndarray:
        """[N, K] as :class:`TablePredictor` gives them."""
        count = len(next(iter(table.values())))
        levelled = {feature.name for feature in self.predictor.columns.space.features if feature.levelled}
        cells = {name: np.full(count, np.nan, object if name in levelled else np.float64) for name in self.gone}
        return self.predictor({**table, **cells})


def patterns(gone: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
    """The different rows of gone [N, F] bool (a cell is missing), each with the positions of its rows."""
    kinds, of = np.unique(gone, axis=0, return_inverse=True)
    return [(kind, np.flatnonzero(np.ravel(of) == k)) for k, kind in enumerate(kinds)]


def without_features(data: TabularData, predictor: TablePredictor, gone: Sequence[str]) -> tuple[TabularData, Any]:
    """The table and the predictor (1). Raises BadArgument where the model does not take such rows."""
    space = data.space
    kept = [k for k, name in enumerate(space.names) if name not in gone]
    if not kept:
        raise BadArgument("rows", "have a cell that is not missing")
    relations = [relation for relation in space.relations if not set(relation.coefficients) & set(gone)]
    features = [space.features[k] for k in kept]
    small = FeatureSpace(features, relations, space.center[kept], space.scale[kept])
    table = {name: data.table[name] for name in small.names}
    part, asked = (
        data._replace(table=table, space=small, x=small.encode(table)),
        WithoutFeatures(predictor, tuple(gone)),
    )
    if np.isnan(asked(part.rows(part.train[:1]))).any():
        raise BadArgument("model", "take rows with missing cells")
    return part, asked


def together(parts: Sequence[Part], table: Mapping[str, np.ndarray], data: TabularData) -> Explanation:
    """One explanation of all rows; table: these rows in raw units. The model coordinates of missing cells are NaN."""
    count, space, first = len(next(iter(table.values()))), data.space, parts[0][1]

    def rowwise(pieces: Sequence[Any]) -> np.ndarray:
        arrays = [np.asarray(piece) for piece in pieces]
        whole = np.empty((count, *arrays[0].shape[1:]), np.result_type(*arrays))
        for (rows, _), array in zip(parts, arrays, strict=True):
            whole[rows] = array
        return whole

    def columnwise(field: str, fill: float) -> np.ndarray:
        whole = np.full((count, space.width), fill, np.float32)
        for rows, part in parts:
            assert part.space is not None
            known = np.isin(np.asarray(space.names)[space.column_features], part.space.names)
            whole[np.ix_(rows, known)] = getattr(part.result, field)
        return whole

    def raw(pieces: Sequence[Mapping[str, np.ndarray]]) -> dict[str, np.ndarray]:
        columns = {name: np.asarray(table[name]) for name in space.names}
        for (rows, _), piece in zip(parts, pieces, strict=True):
            columns |= {name: placed(columns[name].copy(), rows, np.asarray(own)) for name, own in piece.items()}
        return columns

    def people(pieces: Sequence[Sequence[Any]]) -> tuple[Any, ...]:
        found: list[Any] = [None] * count
        for (rows, _), piece in zip(parts, pieces, strict=True):
            for n, person in zip(rows, piece, strict=True):
                found[int(n)] = person
        return tuple(found)

    every = [part for _, part in parts]
    names = ("status", "evaluations", "forwards")
    result = Result(
        x=columnwise("x", np.nan), delta=columnwise("delta", 0), attempt=columnwise("attempt", np.nan),
        **{name: rowwise([getattr(part.result, name) for part in every]) for name in names},
    )  # fmt: skip
    record = type(first.record)(*(rowwise(fields) for fields in zip(*(part.record for part in every), strict=True)))
    valid = [int(part.record.valid.sum()) for part in every]
    dense = [(n, part.summary["plausible"]) for n, part in zip(valid, every, strict=True) if n]
    share = sum(n * value for n, value in dense) / sum(valid) if dense else np.nan
    steps = [
        FrontierStep(step.most, people([part.frontier[k].people for part in every]))
        for k, step in enumerate(first.frontier)
    ]
    most = max(len(part.further) for part in every)
    return dataclasses.replace(
        first, people=people([part.people for part in every]), factual=raw([part.factual for part in every]),
        table=raw([part.table for part in every]), result=result, predicted=rowwise([part.predicted for part in every]),
        target=rowwise([part.target for part in every]), record=record,
        summary=summarize_counterfactuals(record) | {"plausible": share}, frontier=tuple(steps),
        further=tuple(_further(k, parts, people, raw) for k in range(most)), space=space,
    )  # fmt: skip


def _further(k: int, parts: Sequence[Part], people: Any, raw: Any) -> FurtherAnswers:
    """The answers of number k + 2 of all rows; None for the parts that have none."""
    have = [len(part.further) > k for _, part in parts]
    who = [
        part.further[k].people if has else [None] * len(part.people) for (_, part), has in zip(parts, have, strict=True)
    ]
    table = [part.further[k].table if has else part.factual for (_, part), has in zip(parts, have, strict=True)]
    return FurtherAnswers(k + 2, people(who), raw(table))
