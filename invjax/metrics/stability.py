"""Stability of counterfactuals: under small shifts, other values of a protected feature, and retraining; and diversity.

For two similar rows x and y with counterfactuals x' and y' (S-CFE's slides ask for stability to small input shifts and
for individual fairness; the definitions are this library's):

    absolute  = ‖x' - y'‖_2,    relative = ‖x' - y'‖_2 / ‖x - y‖_2                                                 (1)
    jaccard   = |C(x) ∩ C(y)| / |C(x) ∪ C(y)|       C the features that the counterfactual changes                  (2)
    cost gap  = ‖y' - y‖_2 - ‖x' - x‖_2

For stability y = x + ε with ε ~ N(0, s²) on the numeric columns. For individual fairness y is x with another value of a
protected feature. The diversity of P counterfactuals of one row is measured by (Mothilal et al. 2020, DiCE)

    mean pairwise distance,    det K with K_ij = 1 / (1 + ‖x'_i - x'_j‖)                                            (3)

Host-side NumPy in model coordinates. A missing counterfactual gives NaN and enters no mean.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from invjax.constraints.features import Level
from invjax.constraints.space import check_space
from invjax.core.arguments import kinds_checked
from invjax.core.errors import BadArgument, Words, check_number, check_seed, check_whole, of_shape
from invjax.core.labels import check_flags
from invjax.core.shown import short_repr
from invjax.metrics.rows import PredictFn, changed_features, check_tolerance, column_features, reaches, targets_of
from invjax.types import Result, Status

NAN = float("nan")
Explain = Callable[[np.ndarray, np.ndarray], Any]  # (rows [N, D], targets [N]) -> a Result, or an array [N, D]


class Pairs(NamedTuple):
    """Comparison of the counterfactuals of two similar rows; NaN if either is missing."""

    absolute: np.ndarray  # [...] ‖x' - y'‖_2 (1)
    relative: np.ndarray  # [...] absolute / ‖x - y‖_2; NaN if the rows are equal
    jaccard: np.ndarray  # [...] overlap of the changed features (2); 1 if neither changes any
    cost_gap: np.ndarray  # [...] by how much the second row's change is larger
    both: np.ndarray  # [...] bool, both have a counterfactual

    __repr__ = short_repr

    def means(self) -> dict[str, float]:
        """Means of ``absolute, relative, jaccard, cost_gap`` over the pairs found, and their share ``found``."""
        shares = {name: _mean(getattr(self, name)) for name in ("absolute", "relative", "jaccard", "cost_gap")}
        return {**shares, "found": float(self.both.mean()) if self.both.size else NAN}


@kinds_checked
def compare_counterfactuals(
    x: Any,
    first: Any,
    similar: Any,
    second: Any,
    *,
    space: Any = None,
    tolerance: float = 1e-4,
    ignore: Sequence[str] = (),
) -> Pairs:
    """Compare the counterfactuals of N rows with those of N similar rows, by (1) and (2).

    Args:
      x, similar: [N, D] the rows.
      first, second: their counterfactuals, Results or arrays [N, D]. In an array a row counts as not found if it is not
        finite or equals its factual row.
      space: a FeatureSpace, with which (2) counts features instead of columns.
      tolerance: model units; smaller differences do not count as changes.
      ignore: names of features left out of x' - y' and of (2).
    """
    check_tolerance(tolerance)
    (a, a_cf, a_found), (b, b_cf, b_found) = _found(x, first, tolerance), _found(similar, second, tolerance)
    if a.shape != b.shape:
        raise BadArgument("similar", f"be of the shape of x, {a.shape}", of_shape(b.shape))
    both = a_found & b_found
    feature_of = column_features(space, a.shape[1])
    keep = np.ones(a.shape[1], bool)
    for name in ignore:
        if space is None or name not in space.names:
            raise BadArgument("ignore", "name features of space", name)
        keep &= feature_of != list(space.names).index(name)
    gap = np.sqrt(np.square((a_cf - b_cf)[:, keep]).sum(1))
    shift = np.sqrt(np.square(a - b).sum(1))
    sets = [
        changed_features(np.where(keep, cf - rows, 0.0), feature_of, tolerance) for rows, cf in ((a, a_cf), (b, b_cf))
    ]
    union, common = (sets[0] | sets[1]).sum(1), (sets[0] & sets[1]).sum(1)
    cost = [np.sqrt(np.square(cf - rows).sum(1)) for rows, cf in ((a, a_cf), (b, b_cf))]
    return Pairs(
        absolute=np.where(both, gap, NAN),
        relative=np.where(both & (shift > 0), gap / np.where(shift > 0, shift, 1.0), NAN),
        jaccard=np.where(both, np.where(union > 0, common / np.maximum(union, 1), 1.0), NAN),
        cost_gap=np.where(both, cost[1] - cost[0], NAN),
        both=both,
    )


@kinds_checked
def input_stability(
    explain: Explain,
    x: Any,
    target: Any,
    *,
    sd: float = 0.05,
    repeats: int = 1,
    seed: int = 0,
    space: Any = None,
    tolerance: float = 1e-4,
) -> Pairs:
    """Stability under small shifts of the input: compare the counterfactuals of x and x + ε.

    Args:
      explain: (rows [N, D], targets [N]) -> their counterfactuals, a Result or an array.
      x: [N, D] in model coordinates.
      target: int or [N].
      sd: s, model units (standard deviations if the table is z-scored).
      repeats: draws of ε per row.
      seed: of the draws.
      space: with it, categories keep their level, and a shifted row is moved onto ranges and grids like any row of the
        table. If that undoes the shift, ``relative`` is NaN.

    Returns:
      Pairs whose fields are [repeats, N].
    """
    if space is not None:
        check_space(space)
    check_number("sd", sd, lambda value: value > 0, "a number > 0 in model units")
    check_whole("repeats", repeats)
    check_tolerance(tolerance)
    check_seed("seed", seed)
    rows = np.asarray(x)
    if rows.ndim != 2:
        raise BadArgument("x", "be rows [N, D]", of_shape(rows.shape))
    wanted = targets_of(target, len(rows))
    first = explain(rows, wanted)
    draws = np.random.default_rng(seed)
    pairs = []
    for _ in range(repeats):
        noise = draws.normal(0.0, sd, rows.shape)
        if space is not None:
            numeric = np.asarray([feature.kind != "category" for feature in space.features])
            noise = np.where(numeric[column_features(space, rows.shape[1])], noise, 0.0)
        shifted = (rows + noise).astype(rows.dtype)
        if space is not None:
            shifted = np.asarray(space.encode(space.decode(shifted)), rows.dtype)
        pairs.append(
            compare_counterfactuals(rows, first, shifted, explain(shifted, wanted), space=space, tolerance=tolerance)
        )
    return Pairs(*(np.stack(values) for values in zip(*pairs, strict=True)))


@kinds_checked
def protected_flips(
    explain: Explain,
    table: Mapping[str, Any],
    target: Any,
    *,
    space: Any,
    feature: str,
    tolerance: float = 1e-4,
) -> dict[Level, Pairs]:
    """Individual fairness: compare counterfactuals of a person under different values of a protected feature.

    Args:
      explain: (rows [N, D], targets [N]) -> their counterfactuals, a Result or an array.
      table: the N rows in raw units.
      target: int or [N].
      feature: a feature with levels of ``space``. The flipped row is a similar *person*, not an action, so the feature
        may be immutable.

    Returns:
      For each level the Pairs [N] of the rows, each against itself with this level. Rows that have the level are
      NaN and not ``both``. ``absolute`` and ``jaccard`` leave the flipped feature out.
    """
    names = list(check_space(space).names)
    if feature not in names or not space.features[names.index(feature)].levels:
        raise BadArgument("feature", "be a feature with levels of space", feature)
    check_tolerance(tolerance)
    rows = np.asarray(space.encode(table))
    wanted = targets_of(target, len(rows))
    first = explain(rows, wanted)
    flips, own = {}, column_features(space, rows.shape[1]) == names.index(feature)
    for level in space.features[names.index(feature)].levels:
        other = np.asarray(space.encode({**table, feature: np.full(len(rows), level, np.asarray(level).dtype)}))
        pairs = compare_counterfactuals(
            rows, first, other, explain(other, wanted), space=space, tolerance=tolerance, ignore=(feature,)
        )
        flipped = (rows != other)[:, own].any(1)  # as the space reads the cells: 1, 1.0, True and "1" may be one level
        flips[level] = Pairs(*(np.where(flipped, values, NAN) for values in pairs[:4]), both=pairs.both & flipped)
    return flips


@kinds_checked
def retrained_validity(counterfactuals: Any, target: Any, predicts: Sequence[PredictFn]) -> np.ndarray:
    """[M, n] bool: whether each counterfactual [n, *S] has its target under each of M retrained predict functions."""
    rows = np.asarray(counterfactuals)
    if not rows.ndim:
        raise BadArgument("counterfactuals", "be [n, *S]", of_shape(rows.shape))
    wanted = targets_of(target, len(rows))
    return np.asarray([reaches(predict, rows, wanted) for predict in predicts], bool).reshape(len(predicts), len(rows))


class Diversity(NamedTuple):
    """Diversity of the counterfactuals of each row."""

    distance: np.ndarray  # [N] mean l2 distance of the pairs; NaN below two counterfactuals
    determinant: np.ndarray  # [N] det K (3), 0 if one is repeated, towards 1 if all are distant; NaN below two
    features: np.ndarray  # [N] mean number of columns in which a pair differs

    __repr__ = short_repr


@kinds_checked
def diversity(sets: Any, valid: Any = None, *, tolerance: float = 1e-4) -> Diversity:
    """Diversity (3) of sets [N, P, D], or of the Result of a method that gives sets.

    Only those with ``valid`` [N, P] count. The default is those found, or the finite ones of an array.
    """
    check_tolerance(tolerance)
    if isinstance(sets, Result):
        sets, valid = sets.x, np.asarray(sets.status) == Status.FOUND if valid is None else valid
    rows = np.asarray(sets, np.float64)
    if rows.ndim != 3:
        raise BadArgument("sets", "be [N, P, D]", of_shape(rows.shape))
    use = np.asarray(np.isfinite(rows).all(2))
    if valid is not None:
        if np.shape(valid) != use.shape:
            raise BadArgument("valid", f"be of shape {use.shape}", of_shape(np.shape(valid)))
        use &= check_flags("valid", valid)
    values = np.full((3, len(rows)), NAN)
    for n in range(len(rows)):
        points = rows[n][use[n]]
        if len(points) < 2:
            continue
        gaps = points[:, None] - points[None]
        distance = np.sqrt(np.square(gaps).sum(2))
        pairs = np.triu_indices(len(points), 1)
        values[:, n] = (
            distance[pairs].mean(),
            np.linalg.det(1.0 / (1.0 + distance)),
            (np.abs(gaps) > tolerance).sum(2)[pairs].mean(),
        )
    return Diversity(*values)


def _found(x: Any, counterfactuals: Any, tolerance: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows and counterfactuals [N, D] in float64, and whether each was found [N]."""
    rows = np.asarray(x, np.float64)
    is_result = isinstance(counterfactuals, Result)
    cf = np.asarray(counterfactuals.x if is_result else counterfactuals, np.float64)
    if rows.ndim != 2 or cf.shape != rows.shape:
        raise BadArgument("counterfactuals", "be [N, D] like their rows", Words(f"{cf.shape} for rows {rows.shape}"))
    found = np.asarray(np.isfinite(cf).all(1))
    cf = np.where(found[:, None], cf, rows)
    if is_result:
        return rows, cf, found & (np.asarray(counterfactuals.status) == Status.FOUND)
    return rows, cf, found & (np.abs(cf - rows).max(1) > tolerance)


def _mean(values: np.ndarray) -> float:
    kept = values[~np.isnan(values)]
    return float(kept.mean()) if kept.size else NAN
