"""Each measure of counterfactual rows against a computation of its own."""

from __future__ import annotations

import itertools
import math
import sys
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from invjax import metrics
from invjax.constraints import Feature, FeatureSpace, Relation
from invjax.metrics import counterfactual, plausibility
from invjax.types import Result, Status

N, M, D = 80, 150, 4
LEVELS = ("clerk", "doctor", "teacher")


class Gauss(NamedTuple):
    """A density per class: standard normal around its mean."""

    mean: jax.Array  # [K, D]

    def log_prob(self, x, label):
        return -0.5 * jnp.sum(jnp.square(x - self.mean[label])) - 0.5 * D * math.log(2 * math.pi)


class Line:
    """A linear classifier with two classes."""

    def __init__(self, weights, bias=0.0):
        self.weights, self.bias = np.asarray(weights, np.float64), bias

    def __call__(self, rows):
        return (np.asarray(rows, np.float64).reshape(len(rows), -1) @ self.weights + self.bias > 0).astype(int)


@pytest.fixture
def case():
    """Factual rows, counterfactuals of all sorts, training rows: random, with columns that stay."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(N, D)).astype(np.float32)
    cf = x + rng.normal(size=(N, D)).astype(np.float32) * 2 * (rng.random((N, D)) < 0.6)
    cf[:3] = x[:3]  # no answer
    cf[3] = np.nan
    cf[4] = x[4] + 1e-5  # no change by the tolerance
    train = rng.normal(size=(M, D)).astype(np.float32)
    predict = Line([1.0, -0.5, 0.3, 0.2])
    return x, cf, train, predict(train + 0.2), predict


def measured(case, **options):
    x, cf, train, labels, predict = case
    return metrics.measure_counterfactuals(
        x, cf, 1, predict=predict, train_x=train, train_y=labels, lof_neighbours=None, **options
    )


def lof(points, train, k):
    """Formula (1) of invjax.metrics.plausibility by loops over all rows."""

    def nearest(point, skip=None):
        gaps = np.sqrt(((train - point) ** 2).sum(1))
        order = [i for i in np.argsort(gaps, kind="stable") if i != skip][:k]
        return order, gaps[order]

    own = [nearest(row, i) for i, row in enumerate(train)]
    reach = [gaps[-1] for _, gaps in own]

    def density(order, gaps):
        return 1 / np.mean([max(reach[o], gap) for o, gap in zip(order, gaps, strict=True)])

    lrd = [density(*entry) for entry in own]
    found = [nearest(point) for point in points]
    return np.array([np.mean([lrd[o] for o in order]) / density(order, gaps) for order, gaps in found])


@pytest.mark.fast
def test_who_counts(case):
    x, cf, _, _, predict = case
    record = measured(case)
    trivial = np.array([predict(row[None])[0] == 1 for row in x])
    answered = np.array([bool(np.isfinite(b).all() and (abs(b - a) > 1e-4).any()) for a, b in zip(x, cf, strict=True)])
    valid = np.array([ok and predict(row[None])[0] == 1 for ok, row in zip(answered & ~trivial, cf, strict=True)])
    assert 5 < valid.sum() < (~trivial).sum()
    np.testing.assert_array_equal(record.trivial, trivial)
    np.testing.assert_array_equal(record.answered, answered & ~trivial)
    np.testing.assert_array_equal(record.valid, valid)
    summary = metrics.summarize_counterfactuals(record)
    assert summary["rows"] == N
    assert summary["trivial"] + summary["nontrivial"] == N
    assert summary["validity"] == valid.sum() / (~trivial).sum()
    assert summary["coverage"] == (answered & ~trivial).sum() / (~trivial).sum()
    for name in counterfactual.MEASURES:
        assert np.isnan(getattr(record, name)[~valid]).all()


def test_a_result_says_what_was_found(case):
    """Only what the method claims counts; a claim is judged anew; scores do as well as classes."""
    x, cf, _, _, predict = case
    cf = np.nan_to_num(cf)
    status = np.full(N, Status.FOUND)
    status[5:10], status[10:12] = Status.NOT_FOUND, Status.INFEASIBLE
    zeros = np.zeros(N, int)
    result = Result(cf, cf - x, status, zeros, zeros, cf)
    scores = lambda rows: np.stack([1 - predict(rows), predict(rows)], 1)  # noqa: E731
    record = metrics.measure_counterfactuals(x, result, np.ones(N, int), predict=scores)
    nontrivial = predict(x) != 1
    np.testing.assert_array_equal(record.answered, nontrivial & (status == Status.FOUND))
    np.testing.assert_array_equal(record.valid, nontrivial & (status == Status.FOUND) & (predict(cf) == 1))
    np.testing.assert_array_equal(record.infeasible, status == Status.INFEASIBLE)
    assert np.isnan(record.lof_all).all()


def test_distances(case):
    x, cf, train, _, _ = case
    record = measured(case)
    mad = [np.median([abs(v - np.median(train[:, j])) for v in train[:, j]]) for j in range(D)]
    for i in np.flatnonzero(record.valid):
        gaps = [abs(float(b) - float(a)) for a, b in zip(x[i], cf[i], strict=True)]
        assert record.l2[i] == pytest.approx(math.sqrt(sum(gap**2 for gap in gaps)), rel=1e-6)
        assert record.l1[i] == pytest.approx(sum(gaps), rel=1e-6)
        assert record.l1_mad[i] == pytest.approx(sum(gap / m for gap, m in zip(gaps, mad, strict=True)), rel=1e-5)
        assert record.l0[i] == sum(gap > 1e-4 for gap in gaps)
    loose = measured(case, tolerance=0.5)
    both = record.valid & loose.valid
    assert (loose.l0[both] <= record.l0[both]).all()
    assert (loose.l0[both] < record.l0[both]).any()


def test_mad_of_constant_and_category_columns():
    space = FeatureSpace([Feature("a"), Feature("b"), Feature("job", "category", levels=LEVELS)])
    train = np.array([[0.0, 7, 1, 0, 0], [1, 7, 1, 0, 0], [4, 7, 0, 1, 0]])  # MADs 1 and 0
    delta = np.array([[3.0, 2, 0, 0, 0], [0, 0, -1, 0, 1], [0.5, 0, 1, -1, 0]])
    np.testing.assert_allclose(counterfactual.mad_distance(delta, train, space), [5, 1, 1.5])
    np.testing.assert_allclose(counterfactual.mad_distance(delta, train), [5, 2, 2.5])


def test_local_outlier_factor():
    pytest.importorskip("sklearn")
    rng = np.random.default_rng(1)
    train, points = rng.normal(size=(60, 3)), rng.normal(size=(9, 3)) * 2
    np.testing.assert_allclose(metrics.local_outlier_factor(points, train, 7), lof(points, train, 7), rtol=1e-6)
    np.testing.assert_allclose(  # fewer rows than neighbours: as many as there are
        metrics.local_outlier_factor(points, train[:5], 20), lof(points, train[:5], 4), rtol=1e-6
    )
    assert np.isfinite(
        metrics.local_outlier_factor(points, np.repeat(train[:2], 30, 0))
    ).all()  # duplicates: no warning
    assert np.isnan(metrics.local_outlier_factor(points, train[:1])).all()
    assert metrics.local_outlier_factor(points[:0], train).shape == (0,)


def test_outlier_factor_of_a_record(case):
    """Against the rows of each one's own target class, and against all."""
    pytest.importorskip("sklearn")
    x, cf, train, labels, predict = case
    target = 1 - predict(x)
    record = metrics.measure_counterfactuals(x, cf, target, predict=predict, train_x=train, train_y=labels)
    counted = record.valid
    assert set(target[counted]) == {0, 1}
    np.testing.assert_allclose(record.lof_all[counted], lof(cf[counted], train, 20), rtol=1e-5)
    for label in (0, 1):
        rows = counted & (target == label)
        np.testing.assert_allclose(record.lof_target[rows], lof(cf[rows], train[labels == label], 20), rtol=1e-5)


def test_without_scikit_learn(case, monkeypatch):
    plausibility._fitted.cache_clear()
    monkeypatch.setitem(sys.modules, "sklearn.neighbors", None)
    with pytest.raises(ImportError, match=r"invjax\[data\]"):
        plausibility.local_outlier_factor(case[2], case[2])
    assert measured(case).valid.any()


def test_log_density_rank(case):
    x, cf, train, labels, predict = case
    mean = np.array([[-1.0, 0, 0, 0], [0.5, 0.5, 0, 0]], np.float32)
    target = 1 - predict(x)
    options = {"predict": predict, "train_x": train, "train_y": labels, "density": Gauss(jnp.asarray(mean))}
    record = metrics.measure_counterfactuals(x, cf, target, lof_neighbours=None, **options)

    def log_prob(point, label):
        return sum(-0.5 * (p - m) ** 2 - 0.5 * math.log(2 * math.pi) for p, m in zip(point, mean[label], strict=True))

    for i in np.flatnonzero(record.valid):
        value = log_prob(cf[i], target[i])
        assert record.logdensity[i] == pytest.approx(value, rel=1e-5)
        others = [log_prob(row, target[i]) for row in train[labels == target[i]]]
        assert record.logdensity_rank[i] == np.mean([other < value for other in others])
    assert len(set(record.logdensity_rank[record.valid])) > 3
    own = train[labels == 1]  # a training row is not below itself: the ranks are 0, 1, … of their number
    ranks = metrics.density_rank(options["density"], own, np.ones(len(own), int), train, labels)[1]
    np.testing.assert_allclose(np.sort(ranks), np.arange(len(own)) / len(own))


def test_rank_of_any_object_and_of_an_empty_class(case):
    class Plain:
        def log_prob(self, x, label):
            return -jnp.sum(jnp.square(x))

    values, ranks = metrics.density_rank(Plain(), case[0], np.full(N, 3), case[2], np.zeros(M, int))
    np.testing.assert_allclose(values, -(case[0] ** 2).sum(1), rtol=1e-5)
    assert np.isnan(ranks).all()


def test_neighbour_agreement(case):
    x, cf, train, _, predict = case
    record = measured(case, ynn_neighbours=7)
    for i in np.flatnonzero(record.valid):
        gaps = [float(((row.astype(float) - cf[i]) ** 2).sum()) for row in train]
        nearest = sorted(range(M), key=gaps.__getitem__)[:7]
        assert record.ynn[i] == pytest.approx(np.mean([predict(train[j][None])[0] == 1 for j in nearest]))
    few = metrics.neighbour_agreement(x[:2], [1, 0], train[:3], [1, 1, 0], 5)
    np.testing.assert_allclose(few, [2 / 3, 1 / 3])


def test_redundancy(case):
    x, cf, _, _, predict = case
    record = measured(case)
    for i in np.flatnonzero(record.valid):
        back = 0
        for j in np.flatnonzero(abs(cf[i] - x[i]) > 1e-4):
            row = cf[i].copy()
            row[j] = x[i, j]
            back += int(predict(row[None])[0] == 1)
        assert record.redundant[i] == back
    assert record.redundant[record.valid].max() > 0
    chunks = counterfactual.redundant_changes(
        x[5:], cf[5:], np.ones(N - 5), abs(cf - x)[5:] > 1e-4, np.arange(D), predict, batch=7
    )
    np.testing.assert_array_equal(chunks[record.valid[5:]], record.redundant[5:][record.valid[5:]])


@pytest.fixture
def space():
    return FeatureSpace(
        [
            Feature("age", "integer", lower=18, upper=90, direction="up"),
            Feature("job", "category", levels=LEVELS),
            Feature("income", lower=0, upper=100),
            Feature("grade", "ordinal", levels=("low", "middle", "high")),
            Feature("debt", lower=0, upper=100),
        ],
        relations=[Relation.at_most("debt", "income")],
        center={"age": 40, "income": 50, "debt": 20},
        scale={"age": 10, "income": 20, "debt": 10},
    )


@pytest.mark.fast
def test_features_and_violations_in_raw_units(space):
    """A switch of level is one change; what decoding would mend is a violation all the same."""
    rows = 8
    table = {
        "age": np.full(rows, 30),
        "job": np.full(rows, "clerk"),
        "income": np.full(rows, 60.0),
        "grade": np.full(rows, "middle"),
        "debt": np.full(rows, 30.0),
    }
    x = space.encode(table)  # columns: age, clerk, doctor, teacher, income, grade, debt
    cf = x.copy()
    cf[:, 4] += 0.5  # income 70
    cf[1, [1, 2]] = 0, 1  # doctor
    cf[2, 0] -= 0.1  # a year younger
    cf[3, 0] += 0.15  # one year and a half: no whole number
    cf[4, 6] += 4.5  # debt 75 > 70
    cf[5, [1, 2]] = 0.5  # half a clerk
    cf[6, 4] = 3.0  # income 110
    cf[7, 5] = 1.5  # between middle and high
    record = metrics.measure_counterfactuals(
        x, cf, 1, predict=Line([0, 0, 0, 0, 1, 0, 0], -0.6), space=space, table=table
    )
    assert record.valid.all()
    assert record.l0.tolist() == [1, 2, 2, 2, 2, 2, 1, 2]
    assert record.violations.tolist() == [0, 0, 1, 1, 1, 1, 1, 1]
    assert record.redundant.tolist() == [0, 1, 1, 1, 1, 1, 0, 1]
    summary = metrics.summarize_counterfactuals(record)
    assert summary["violations"] == 6 / 8
    assert summary["feasible"] == 2 / 8
    assert summary["validity_decoded"] == 1.0
    over = metrics.measure_counterfactuals(
        x, cf, 1, predict=Line([0, 0, 0, 0, 1, 0, 0], -2.8), space=space, table=table
    )
    assert over.valid.tolist() == [False] * 6 + [True, False]
    assert over.valid_decoded[6] == 0  # within its range the income is 100: 2.5 units


def test_images_keep_their_shape(case):
    x, cf, train, labels, predict = (part.reshape(-1, 2, 2) if getattr(part, "ndim", 0) == 2 else part for part in case)
    seen = []

    def watched(rows):
        seen.append(rows.shape[1:])
        return predict(rows)

    record = metrics.measure_counterfactuals(
        x, cf, 1, predict=watched, train_x=train, train_y=labels, lof_neighbours=None
    )
    assert set(seen) == {(2, 2)}
    np.testing.assert_array_equal(record.l2, measured(case).l2)


def test_sets_give_their_nearest_valid_member(case):
    x, _, _, _, predict = case
    rng = np.random.default_rng(3)
    sets = x[:, None] + rng.normal(size=(N, 3, D)).astype(np.float32)
    record = metrics.measure_counterfactuals(x, sets, 1, predict=predict)
    for i in np.flatnonzero(predict(x) != 1):
        good = [math.dist(x[i], one) for one in sets[i] if predict(one[None])[0] == 1]
        assert record.valid[i] == bool(good)
        if good:
            assert record.l2[i] == pytest.approx(min(good), rel=1e-5)
    zeros = np.zeros(N, int)
    nothing = Result(sets, sets, np.full((N, 3), Status.NOT_FOUND), zeros, zeros, sets)
    assert not metrics.measure_counterfactuals(x, nothing, 1, predict=predict).answered.any()


def test_nothing_counted_gives_nan(case, space):
    x, _, train, labels, predict = case
    for rows, cf in ((x, x), (x[:0], x[:0]), (x[predict(x) == 1], x[predict(x) == 1] + 1)):
        record = metrics.measure_counterfactuals(
            rows, cf, 1, predict=predict, train_x=train, train_y=labels, density=Gauss(jnp.zeros((2, D)))
        )
        summary = metrics.summarize_counterfactuals(record)
        assert not record.valid.any()
        assert all(np.isnan(summary[name]) for name in ("l2", "l0", "lof_target", "lof_all", "logdensity_rank", "ynn"))
        assert summary["validity"] == 0 if summary["nontrivial"] else np.isnan(summary["validity"])
    broken = x.copy()
    broken[7, 0] = np.nan  # a factual row with a missing cell: neither trivial nor answered
    record = metrics.measure_counterfactuals(broken, x + 1, 1, predict=predict)
    assert not record.trivial[7]
    assert not record.answered[7]


def test_retrained_models(case):
    x, cf, _, _, _ = case
    others = [Line([1, -0.5, 0.3, 0.2], b) for b in (-1.0, -0.3, 0.0)]
    record = measured(case, retrained=others)
    for i in np.flatnonzero(record.valid):
        assert record.retrained[i] == pytest.approx(np.mean([other(cf[i][None])[0] == 1 for other in others]))
    assert record.retrained[record.valid].min() < 1
    agree = metrics.retrained_validity(np.nan_to_num(cf), 1, others)
    assert agree.shape == (3, N)
    np.testing.assert_allclose(agree.mean(0)[record.valid], record.retrained[record.valid])
    assert metrics.retrained_validity(x, 1, []).shape == (0, N)


@pytest.mark.fast
def test_nearest_accepted_row(case):
    x, _, train, labels, predict = case
    target = 1 - predict(x)
    best = metrics.nearest_accepted_row(x, target, train, labels, predict)
    assert best.dtype == np.float32
    for i in range(N):
        allowed = [j for j in range(M) if labels[j] == target[i] and predict(train[j][None])[0] == target[i]]
        nearest = min(allowed, key=lambda j: float(((train[j].astype(float) - x[i]) ** 2).sum()))
        np.testing.assert_array_equal(best[i], train[nearest])
    np.testing.assert_array_equal(metrics.nearest_accepted_row(x, 5, train, labels, predict), x)
    assert metrics.measure_counterfactuals(x, best, target, predict=predict).valid.all()


def test_wrong_arguments(case, space):
    x, cf, train, labels, predict = case
    good = {"predict": predict, "train_x": train, "train_y": labels}
    for change, message in (
        ({"train_x": None}, "train_x must be given"),
        ({"train_x": train[:, :2]}, r"train_x must be \[M, 4\]"),
        ({"train_y": labels[:3]}, "train_y must be classes of shape"),
        ({"tolerance": -1}, "tolerance must be"),
        ({"space": space, "table": {}}, "space must have the 4 columns"),
        ({"predict": lambda rows: np.zeros((len(rows), 1))}, "predict must return"),
        ({"ynn_neighbours": 0}, "neighbours must be a whole number >= 1"),
    ):
        with pytest.raises(ValueError, match=message):
            metrics.measure_counterfactuals(x, cf, 1, **{**good, **change})
    for arguments, message in (
        ((x[0], cf, 1), "x must be rows"),
        ((x, cf[:5], 1), "counterfactuals must be of the shape of x"),
        ((x, cf, 0.5), r"target must be classes .*, was 0.5 at index 0"),
        ((x, cf, [1, 0]), "target must be classes of shape"),
        ((x, cf, -1), r"target must be classes .*, was -1 at index 0"),
    ):
        with pytest.raises(ValueError, match=message):
            metrics.measure_counterfactuals(*arguments, **good)


def halfway(rows, targets):
    """A method: to the boundary of x0 + x1 = 0 and a little further, by the first two columns."""
    out = np.array(rows, np.float64)
    gap = (out[:, :2].sum(1) - 0.1) / 2
    out[:, :2] -= gap[:, None]
    return np.where((rows[:, :2].sum(1) > 0.1)[:, None], out, rows)


def test_comparison_of_two_counterfactuals():
    x, y = np.array([[1.0, 0, 0], [2, 0, 0], [3, 0, 0]]), np.array([[1.0, 0, 0.5], [2, 0, 0], [3, 0, 1]])
    first = x + np.array([[1.0, 2, 0], [0, 3, 0], [1, 0, 0]])
    second = y + np.array([[1.0, 0, 4], [0, 3, 0], [np.nan, 0, 0]])
    pairs = metrics.compare_counterfactuals(x, first, y, second)
    np.testing.assert_allclose(pairs.absolute, [math.hypot(2, 4.5), 0, np.nan])
    np.testing.assert_allclose(pairs.relative, [math.hypot(2, 4.5) / 0.5, np.nan, np.nan])
    np.testing.assert_allclose(pairs.jaccard, [1 / 3, 1, np.nan])
    np.testing.assert_allclose(pairs.cost_gap, [math.sqrt(17) - math.sqrt(5), 0, np.nan])
    assert pairs.both.tolist() == [True, True, False]
    means = pairs.means()
    assert means["found"] == pytest.approx(2 / 3)
    assert means["jaccard"] == pytest.approx(2 / 3)
    assert np.isnan(metrics.compare_counterfactuals(x, x, y, y).means()["absolute"])


def test_input_stability():
    """Of a method that is linear in x: the shift of x' is the projection of ε, computed here from the same draws."""
    x = np.random.default_rng(5).normal(size=(30, 3)) + np.array([2.0, 2.0, 0.0])
    pairs = metrics.input_stability(halfway, x, 1, sd=0.1, repeats=4, seed=9)
    draws = np.random.default_rng(9)
    for repeat in range(4):
        eps = draws.normal(0, 0.1, x.shape)
        moved = eps - np.stack([eps[:, :2].mean(1)] * 2 + [np.zeros(30)], 1)
        both = pairs.both[repeat]
        expected = np.sqrt((moved**2).sum(1))
        np.testing.assert_allclose(pairs.absolute[repeat][both], expected[both], atol=1e-9)
        np.testing.assert_allclose(pairs.relative[repeat][both], (expected / np.sqrt((eps**2).sum(1)))[both], atol=1e-9)
    assert pairs.both.mean() > 0.8
    assert (pairs.relative[pairs.both] <= 1 + 1e-9).all()
    for options in ({"sd": 0.0}, {"repeats": 0}):
        with pytest.raises(ValueError, match="must be"):
            metrics.input_stability(halfway, x, 1, **options)


def test_shifted_rows_obey_the_schema(space):
    table = {
        "age": np.array([30, 18]),
        "job": np.array(["clerk", "doctor"]),
        "income": np.array([60.0, 100.0]),
        "grade": np.array(["low", "high"]),
        "debt": np.array([1.0, 2.0]),
    }
    seen = []

    def watched(rows, targets):
        seen.append(space.decode(rows))
        assert not any(space.reasons(space.decode(rows)))
        return np.array(rows) + np.eye(7)[4] * 0.01

    metrics.input_stability(watched, space.encode(table), 1, sd=0.4, repeats=3, space=space)
    assert all((one["job"] == table["job"]).all() for one in seen)
    assert len({float(one["income"][0]) for one in seen}) == 4


def test_protected_flips(space):
    """A method that asks more of a doctor than of others."""
    table = {
        "age": np.array([30, 40]),
        "job": np.array(["clerk", "doctor"]),
        "income": np.array([60.0, 50.0]),
        "grade": np.array(["low", "high"]),
        "debt": np.array([1.0, 2.0]),
    }

    def unfair(rows, targets):
        out = np.array(rows, np.float64)
        out[:, 4] += 1 + rows[:, 2]  # income: one unit, two for doctors
        out[:, 0] += rows[:, 2]  # and they must grow older
        return out

    flips = metrics.protected_flips(unfair, table, 1, space=space, feature="job")
    assert set(flips) == set(LEVELS)
    assert flips["doctor"].both.tolist() == [True, False]
    assert flips["clerk"].both.tolist() == [False, True]
    np.testing.assert_allclose(flips["doctor"].absolute, [math.sqrt(2), np.nan], rtol=1e-5)
    np.testing.assert_allclose(flips["doctor"].cost_gap, [math.sqrt(5) - 1, np.nan], rtol=1e-5)
    np.testing.assert_allclose(flips["doctor"].jaccard, [0.5, np.nan])
    np.testing.assert_allclose(flips["teacher"].absolute, [0, math.sqrt(2)], atol=1e-5)
    np.testing.assert_allclose(flips["teacher"].cost_gap, [0, 1 - math.sqrt(5)], atol=1e-5)
    with pytest.raises(ValueError, match="feature must be a feature with levels"):
        metrics.protected_flips(unfair, table, 1, space=space, feature="age")


@pytest.mark.parametrize("kind", [np.int64, np.float64, bool, str])
def test_protected_flips_compares_numbers_as_numbers(kind):
    """1, 1.0, True and "1" are one level for the space, so they are one here: nobody is compared with himself."""
    levels = FeatureSpace([Feature("sex", "category", levels=(0, 1)), Feature("x", lower=0, upper=10)])

    def unfair(rows, target):
        return rows + np.stack([0 * rows[:, 0], 0 * rows[:, 0], 1 + rows[:, 1]], axis=1)  # one more step for level 1

    table = {"sex": np.array([0, 0, 1, 1]).astype(kind), "x": np.array([1.0, 2.0, 3.0, 4.0])}
    flips = metrics.protected_flips(unfair, table, 1, space=levels, feature="sex")
    assert flips[1].both.tolist() == [True, True, False, False]
    assert (flips[1].means()["absolute"], flips[0].means()["absolute"]) == (1.0, 1.0)


def test_a_row_without_a_number_does_not_hide_the_others():
    """It is left out of the mean and counted; what no row has is not measured at all."""
    x = np.zeros((4, 2))
    record = metrics.measure_counterfactuals(
        x, x + 1, [1, 1, 1, 0], predict=lambda rows: (rows[:, 0] > 0.5).astype(int)
    )
    assert record.valid.tolist() == [True, True, True, False]
    nan = float("nan")
    record = record._replace(logdensity=np.array([-1, nan, -3, nan]), lof_target=np.array([nan, 2, 4, nan]))
    summary = metrics.summarize_counterfactuals(record)
    assert (summary["logdensity"], summary["lof_target"], summary["undefined"]) == (-2, 3, 2)
    assert math.isnan(summary["ynn"])
    assert metrics.summarize_counterfactuals(record._replace(valid=np.zeros(4, bool)))["undefined"] == 0


def test_diversity():
    rng = np.random.default_rng(6)
    sets = rng.normal(size=(5, 4, 3))
    sets[1, 2] = np.nan
    valid = rng.random((5, 4)) < 0.9
    valid[2] = [True, False, False, False]
    sets[3], valid[3] = sets[3, 0], True  # four times the same
    sets[4, 1, 0] = sets[4, 0, 0]
    found = metrics.diversity(sets, valid)
    for n in range(5):
        points = [p for p, ok in zip(sets[n], valid[n], strict=True) if ok and np.isfinite(p).all()]
        if len(points) < 2:
            assert np.isnan(found.distance[n])
            assert np.isnan(found.determinant[n])
            continue
        pairs = list(itertools.combinations(points, 2))
        assert found.distance[n] == pytest.approx(np.mean([math.dist(a, b) for a, b in pairs]))
        kernel = [[1 / (1 + math.dist(a, b)) for a in points] for b in points]
        leibniz = sum(
            (-1) ** sum(p[i] > p[j] for i in range(len(p)) for j in range(i + 1, len(p)))
            * math.prod(kernel[i][j] for i, j in enumerate(p))
            for p in itertools.permutations(range(len(points)))
        )
        assert found.determinant[n] == pytest.approx(leibniz, abs=1e-12)
        assert found.features[n] == np.mean([(abs(a - b) > 1e-4).sum() for a, b in pairs])
    assert np.isnan(found.distance[2])
    assert found.determinant[3] == pytest.approx(0, abs=1e-12)
    zeros = np.zeros(5, int)
    status = np.where(valid, Status.FOUND, Status.NOT_FOUND)
    of_result = metrics.diversity(Result(sets, sets, status, zeros, zeros, sets))
    np.testing.assert_array_equal(of_result.distance, found.distance)
    for arguments in ((sets[0],), (sets, valid[:2])):
        with pytest.raises(ValueError, match="must be"):
            metrics.diversity(*arguments)


def test_predict_gives_classes_or_scores() -> None:
    """Probabilities [n] of a booster would all be class 0; NaN is no class; names of classes are none either."""
    x = np.zeros((4, 2))
    cf = x + np.array([1.0, 0.0])

    def validity(predict, target=1, **options):
        record = metrics.measure_counterfactuals(x, cf, target, predict=predict, lof_neighbours=None, **options)
        return metrics.summarize_counterfactuals(record)["validity"]

    def above(rows):
        return rows[:, 0] > 0.5

    def scores(rows):
        return np.stack([~above(rows), above(rows)], 1)

    assert validity(above) == validity(lambda rows: above(rows).astype(float)) == 1
    assert validity(scores) == validity(lambda rows: np.where(scores(rows), 0.0, -np.inf)) == 1  # log probabilities
    assert validity(lambda rows: np.where(above(rows), np.nan, 0)) == 0
    assert validity(lambda rows: np.where(above(rows)[:, None], np.nan, [[1.0, 0.0]])) == 0
    said = "predict must return classes .4. as whole numbers, or scores .4, K., was"
    for predict, message in (
        (lambda rows: 1 / (1 + np.exp(4 - 8 * rows[:, 0])), rf"{said} 0.017.* at index 0; .*np.stack\(\[1 - p, p\]"),
        (lambda rows: above(rows)[:, None] * 0.9, rf"{said} of shape \(4, 1\); .*np.stack"),
        (lambda rows: np.where(above(rows), "yes", "no"), f"{said} 'no' at index 0$"),
    ):
        with pytest.raises(ValueError, match=message):
            validity(predict)
    for target, message in ((2, r"target must lie in \[0, 2\), the classes of predict, was 2"), ("1", "was '1' at")):
        with pytest.raises(ValueError, match=message):
            validity(scores, target)
    for classes, was in (([1, 2], "2 at index 1; .* subtract 1"), (["0", "1"], "'0' at index 0"), ([0, -1], "-1 at")):
        with pytest.raises(ValueError, match=rf"train_y must .*was {was}"):
            validity(scores, train_x=np.eye(2), train_y=classes)


def test_differences_of_pixels_do_not_wrap_around() -> None:
    """The nearest of a set of uint8: 10 less is nearer than 20 more."""
    x, sets = np.full((1, 2), 30, np.uint8), np.array([[[50, 30], [20, 30]]], np.uint8)
    record = metrics.measure_counterfactuals(x, sets, 1, predict=lambda rows: rows[:, 0] != 30, lof_neighbours=None)
    np.testing.assert_array_equal(record.l2, [10])
