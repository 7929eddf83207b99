"""Measures of counterfactual rows: validity, coverage, distance, sparsity, plausibility, redundancy, violations.

For a factual row x of N, its counterfactual x' and target t, with r = x' - x in model coordinates (for a table: of the
encoded columns), F features f, and a feature *changed* where any of its columns has |r_j| > tolerance:

    trivial    predict(x) = t                            counted separately: never a success, in no mean
    answered   x' is finite and the method claims it (Result: FOUND; an array: any |r_j| > tolerance)
    valid      answered, not trivial, and predict(x') = t: judged here, whatever the method says. With a
               ``probability`` p "has the target" means P(t | x') >= p instead, also for trivial and redundant rows
    l2, l1     ‖r‖_2, ‖r‖_1
    l1_mad     Σ_j |r_j| / MAD_j                     MAD of the training rows, 1 where it is 0; a category adds 1  (1)
    l0         Σ_f [f changed]                           features, not columns
    lof        -score_samples of the local outlier factor, fitted on the target class's or on all training rows     (2)
    rank       share of the target class's training rows with a log-density below log p(x' | t)                     (3)
    ynn        share of the k nearest training rows that are predicted t                                            (4)
    redundant  changed features that can be put back, each alone, with the row staying valid
    violations constraints that the row breaks in raw units, by ``space.violations``

Means are over the valid, non-trivial rows, and NaN if there are none. validity = valid / non-trivial rows and coverage
= answered / non-trivial rows. A method that often gives up has both low; one that claims false answers has a low
validity with a high coverage.

Sources: (1) Wachter et al. 2017 and DiCE (Mothilal et al. 2020), (2) Breunig et al. 2000 as scikit-learn computes it
(k = 20 as in the S-CFE tables and CEL; some fit it on the target class, some on all rows, so both are given),
(4) and redundancy: CARLA (Pawelczyk et al. 2021), for any target class. Host-side NumPy; LOF needs scikit-learn.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from scipy.spatial.distance import cdist

from invjax.constraints.space import check_space
from invjax.core.arguments import kinds_checked
from invjax.core.errors import BadArgument, Words, check_number, check_whole, of_shape
from invjax.core.labels import check_indices
from invjax.core.meant import explained
from invjax.core.shown import many
from invjax.metrics.plausibility import density_rank, local_outlier_factor, neighbour_agreement
from invjax.metrics.rows import (
    Answers,
    PredictFn,
    answers,
    changed_features,
    column_features,
    flat,
    judge,
    raw_table,
    reaches,
    targets_of,
)

NAN = float("nan")


class CounterfactualRecord(NamedTuple):
    """One entry per row; N rows. A measure is NaN if the row does not count or if what it needs was not given."""

    trivial: np.ndarray  # [N] bool, the factual row already has the target
    infeasible: np.ndarray  # [N] bool, the method says that the constraints admit nothing (only a Result can say so)
    answered: np.ndarray  # [N] bool, a counterfactual is claimed
    valid: np.ndarray  # [N] bool, answered with the target, and not trivial: the rows of all means
    valid_decoded: np.ndarray  # [N] float64 1 or 0: still valid when decoded to raw units and encoded again
    l2: np.ndarray  # [N] float64
    l1: np.ndarray  # [N] float64
    l1_mad: np.ndarray  # [N] float64
    l0: np.ndarray  # [N] float64, a number of features
    lof_target: np.ndarray  # [N] float64
    lof_all: np.ndarray  # [N] float64
    logdensity: np.ndarray  # [N] float64 nats
    logdensity_rank: np.ndarray  # [N] float64 in [0, 1]
    ynn: np.ndarray  # [N] float64 in [0, 1]
    redundant: np.ndarray  # [N] float64, a number of features
    violations: np.ndarray  # [N] float64, a number of constraints
    retrained: np.ndarray  # [N] float64 in [0, 1], share of the retrained models that agree

    def __repr__(self) -> str:
        return f"CounterfactualRecord({many(len(self.valid), 'row')}, {int(self.valid.sum())} with a valid answer)"


MEASURES = CounterfactualRecord._fields[4:]
NAMES = {"redundant": "redundancy", "retrained": "retrained_validity", "valid_decoded": "validity_decoded"}


@kinds_checked
def measure_counterfactuals(
    x: Any,
    counterfactuals: Any,
    target: Any,
    *,
    predict: PredictFn,
    space: Any = None,
    table: Mapping[str, Any] | None = None,
    train_x: Any = None,
    train_y: Any = None,
    density: Any = None,
    retrained: Sequence[PredictFn] = (),
    tolerance: float = 1e-4,
    lof_neighbours: int | None = 20,
    ynn_neighbours: int = 5,
    probability: float | None = None,
) -> CounterfactualRecord:
    """All measures of N counterfactuals.

    Args:
      x: [N, *S] factual rows in model coordinates.
      counterfactuals: a :class:`~invjax.types.Result` for these rows, or an array [N, *S], in which a row that equals x
        or is not finite counts as unanswered. Of sets [N, P, *S] the nearest valid member is measured.
      target: wanted class, an int or [N] ints.
      predict: [n, *S] -> [n] class indices (or [n, K] scores, of which the largest counts). A row of NaN has no class.
        Probabilities [n] are refused; give ``np.stack([1 - p, p], axis=1)``.
      space: the FeatureSpace; without one every coordinate is a feature.
      table: the N factual rows in raw units; together with ``space`` it gives ``violations`` and ``valid_decoded``.
      train_x: [M, *S], train_y: [M] class indices: for ``lof_*``, ``ynn``, ``l1_mad``, and the rank.
      density: a pytree with ``log_prob(x, label)`` of one point, for ``logdensity`` and its rank.
      retrained: other models' predict functions, for ``retrained``.
      tolerance: model units; smaller differences do not count as changes.
      lof_neighbours: k of (2), at most the number of rows less one; None leaves LOF out (and scikit-learn unused).
      ynn_neighbours: k of (4).
      probability: what the target must have, in (0, 1), instead of being predicted; ``predict`` and ``retrained`` must
        then give logits [n, K].

    Raises:
      ValueError: an argument of another shape. ImportError: LOF needs scikit-learn (extra ``data``).
    """
    if probability is not None:
        check_number("probability", probability, lambda value: 0 < value < 1, "None or in (0, 1)")
    if space is not None:
        check_space(space)
    check_whole("ynn_neighbours", ynn_neighbours)
    if lof_neighbours is not None:
        check_whole("lof_neighbours", lof_neighbours)
    got = answers(x, counterfactuals, target, predict, tolerance, probability)
    train, classes = _training(train_x, train_y, got.x.shape[1:])
    count = got.valid
    delta = (flat(got.cf) - flat(got.x))[count]
    feature_of = column_features(space, delta.shape[1])
    changed = changed_features(delta, feature_of, tolerance)
    nothing = np.full(len(count), NAN)

    def fill(values: Any) -> np.ndarray:
        full = nothing.copy()
        full[count] = values
        return full

    points, wanted = got.cf[count], got.target[count]

    l1_mad = lof_target = lof_all = ynn = logdensity = rank = nothing
    if train is not None:
        said = judge(predict, train, classes, "train_y")
        l1_mad = fill(mad_distance(delta, flat(train), space))
        ynn = fill(neighbour_agreement(points, wanted, train, said, ynn_neighbours))
        if lof_neighbours is not None:
            lof_all = fill(local_outlier_factor(points, train, lof_neighbours))
            if classes is not None:
                lof_target = fill(_per_class(local_outlier_factor, points, wanted, train, classes, lof_neighbours))
    if density is not None:
        values, ranks = density_rank(density, points, wanted, train, classes)
        logdensity, rank = fill(values), fill(ranks)

    broken = valid_decoded = nothing
    if space is not None and table is not None:
        broken, valid_decoded = (
            fill(part) for part in _raw_judgement(got, count, space, table, predict, tolerance, probability)
        )
    agree = [reaches(other, points, wanted, probability) for other in retrained]
    return CounterfactualRecord(
        trivial=got.trivial,
        infeasible=got.infeasible,
        answered=got.answered,
        valid=got.valid,
        valid_decoded=valid_decoded,
        l2=fill(np.sqrt(np.square(delta).sum(1))),
        l1=fill(np.abs(delta).sum(1)),
        l1_mad=l1_mad,
        l0=fill(changed.sum(1)),
        lof_target=lof_target,
        lof_all=lof_all,
        logdensity=logdensity,
        logdensity_rank=rank,
        ynn=ynn,
        redundant=fill(redundant_changes(got.x[count], points, wanted, changed, feature_of, predict, probability)),
        violations=broken,
        retrained=fill(np.mean(agree, axis=0)) if agree else nothing,
    )


@explained
def summarize_counterfactuals(record: CounterfactualRecord) -> dict[str, float]:
    """The means of a record over its valid, non-trivial rows, and the numbers of rows.

    Keys: ``rows``, ``trivial``, ``infeasible``, ``nontrivial`` (numbers of rows), ``validity`` and ``coverage`` (shares
    of the non-trivial rows), ``feasible`` (share of the counted rows without violation), the measures
    ``validity_decoded l2 l1 l1_mad l0 lof_target lof_all logdensity logdensity_rank ynn redundancy violations
    retrained_validity``. NaN if nothing was counted or measured. A row without a number in a measure that other rows
    have (a target class of one row has no LOF) is left out of that mean; ``undefined`` is the number of such rows.
    """
    nontrivial = ~record.trivial
    count = int(nontrivial.sum())

    def share(mask: np.ndarray) -> float:
        return float(mask[nontrivial].mean()) if count else NAN

    def mean(values: np.ndarray) -> float:
        kept = values[record.valid & ~np.isnan(values)]
        return float(kept.mean()) if kept.size else NAN

    without = np.stack([np.isnan(getattr(record, name)[record.valid]) for name in MEASURES])
    measured = without[~without.all(1)]

    summary: dict[str, float] = {
        "rows": len(nontrivial),
        "trivial": int(record.trivial.sum()),
        "infeasible": int((record.infeasible & nontrivial).sum()),
        "nontrivial": count,
        "validity": share(record.valid),
        "coverage": share(record.answered),
        "undefined": int(measured.any(0).sum()) if len(measured) else 0,
    }
    for name in MEASURES:
        summary[NAMES.get(name, name)] = mean(getattr(record, name))
    broken = record.violations
    summary["feasible"] = mean(np.where(np.isnan(broken), NAN, broken == 0))
    return summary


def mad_distance(delta: Any, train: Any, space: Any = None) -> np.ndarray:
    """The MAD-weighted l1 norm (1), [n], of changes [n, D]; train [M, D] gives the median absolute deviations."""
    delta, train = np.asarray(delta, np.float64), np.asarray(train, np.float64)
    mad = np.median(np.abs(train - np.median(train, axis=0)), axis=0)
    weight = 1.0 / np.where(mad > 0, mad, 1.0)
    if space is not None:  # a switch of level changes two columns by 1, so each counts half
        kinds = np.asarray([feature.kind == "category" for feature in space.features])
        weight = np.where(kinds[column_features(space, delta.shape[1])], 0.5, weight)
    return (np.abs(delta) * weight).sum(1)


def redundant_changes(
    x: np.ndarray,
    cf: np.ndarray,
    target: np.ndarray,
    changed: np.ndarray,
    feature_of: np.ndarray,
    predict: PredictFn,
    probability: float | None = None,
    batch: int = 4096,
) -> np.ndarray:
    """[n] int64: changed features that can be put back, each alone, without losing the target.

    x, cf: [n, *S]; target: [n]; changed: [n, F] bool; feature_of: [D] the feature of each coordinate. At most ``batch``
    rows go to ``predict`` at once.
    """
    row, feature = np.nonzero(changed)
    total = np.zeros(len(x), np.int64)
    columns = (len(x), len(feature_of))
    old, new = x.reshape(columns), cf.reshape(columns)
    for start in range(0, len(row), batch):
        rows, features = row[start : start + batch], feature[start : start + batch]
        points = np.where(feature_of[None] == features[:, None], old[rows], new[rows])
        still = reaches(predict, points.reshape(-1, *x.shape[1:]), target[rows], probability)
        np.add.at(total, rows, still)
    return total


@kinds_checked
def nearest_accepted_row(x: Any, target: Any, train_x: Any, train_y: Any, predict: PredictFn) -> np.ndarray:
    """The baseline: the nearest (l2) training row of the target class that the classifier accepts.

    x: [N, *S]; target: int or [N]; train_x: [M, *S]; train_y: [M]. Returns [N, *S], the row itself if there is none.
    """
    train = np.asarray(train_x)
    rows = np.asarray(x, np.result_type(np.asarray(x), train))
    wanted, classes = targets_of(target, len(rows)), check_indices("train_y", train_y, len(train))
    said = judge(predict, train)
    best = rows.copy()
    for label in np.unique(wanted):
        accepted = train[(classes == label) & (said == label)]
        if len(accepted) == 0:
            continue
        own = np.flatnonzero(wanted == label)
        for part in np.split(own, range(256, len(own), 256)):
            distance = cdist(flat(rows[part]), flat(accepted))
            best[part] = accepted[distance.argmin(1)]
    return best


def _training(train_x: Any, train_y: Any, shape: tuple[int, ...]) -> tuple[np.ndarray | None, np.ndarray | None]:
    if train_x is None:
        if train_y is not None:
            raise BadArgument("train_x", "be given with train_y", Words("None"))
        return None, None
    train = np.asarray(train_x)
    if train.shape[1:] != shape or len(train) == 0:
        raise BadArgument("train_x", f"be [M, {', '.join(map(str, shape))}] with M >= 1", of_shape(train.shape))
    if train_y is None:
        return train, None
    return train, check_indices("train_y", train_y, len(train))


def _per_class(
    measure: Callable[..., np.ndarray],
    points: np.ndarray,
    wanted: np.ndarray,
    train: np.ndarray,
    classes: np.ndarray,
    neighbours: int,
) -> np.ndarray:
    values = np.full(len(points), NAN)
    for label in np.unique(wanted):
        values[wanted == label] = measure(points[wanted == label], train[classes == label], neighbours)
    return values


def _raw_judgement(
    got: Answers,
    count: np.ndarray,
    space: Any,
    table: Mapping[str, Any],
    predict: PredictFn,
    tolerance: float,
    probability: float | None,
) -> tuple[np.ndarray, np.ndarray]:
    """For the counted rows: constraints broken in raw units, and whether the decoded row is valid."""
    factual = {name: np.asarray(table[name])[count] for name in space.names}
    if not count.any():
        return np.zeros(0), np.zeros(0)
    raw = raw_table(space, got.cf[count], factual, tolerance)
    broken = np.asarray([len(reasons) for reasons in space.violations(factual, raw)], np.float64)
    decoded = space.encode(space.decode(got.cf[count], factual))
    return broken, reaches(predict, decoded, got.target[count], probability).astype(np.float64)
