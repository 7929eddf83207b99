"""Accuracy by group: against loops, root finding and resampling of the single answers."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import optimize, stats

from invjax.metrics import group

pytestmark = pytest.mark.fast


def _answers(seed: int = 0, count: int = 400, num: int = 4) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    groups = rng.choice(num, count, p=[0.6, 0.05, 0.1, 0.25])
    return rng.random(count) < np.array([0.95, 0.4, 0.7, 0.9])[groups], groups


def test_by_hand() -> None:
    """Two groups that can be counted on the fingers, with other shares in training."""
    got = group.group_accuracies([1, 1, 1, 0, 0, 1], [0, 0, 0, 0, 1, 1], train_groups=[0] * 9 + [1])
    np.testing.assert_array_equal(got.count, [4, 2])
    np.testing.assert_array_equal(got.correct, [3, 1])
    assert (got.worst, got.worst_group) == (0.5, 1)
    assert got.average == pytest.approx(4 / 6)
    assert got.group_mean == pytest.approx(0.625)
    assert got.train_weighted == pytest.approx(0.9 * 0.75 + 0.1 * 0.5)


def test_against_loops() -> None:
    """Each number once more from its definition, example by example."""
    correct, groups = _answers()
    train = np.random.default_rng(5).integers(0, 4, 77)
    got = group.group_accuracies(correct, groups, train_groups=train)
    each = [[bool(c) for c, g in zip(correct, groups, strict=True) if g == wanted] for wanted in range(4)]
    rates = [sum(answers) / len(answers) for answers in each]
    np.testing.assert_allclose(got.accuracy, rates)
    assert got.worst == min(rates)
    assert got.average == pytest.approx(sum(map(bool, correct)) / len(correct))
    assert got.group_mean == pytest.approx(math.fsum(rates) / 4)
    assert got.train_weighted == pytest.approx(math.fsum(rates[g] for g in train) / 77)
    assert math.isnan(group.group_accuracies(correct, groups).train_weighted)


@given(count=st.integers(1, 3000), share=st.floats(0, 1), confidence=st.sampled_from([0.8, 0.95, 0.99]))
def test_wilson_inverts_the_score_test(count: int, share: float, confidence: float) -> None:
    """The ends are where the score test has the level: found here by bisection of its statistic."""
    k = round(share * count)
    low, high = (float(v) for v in group.wilson_interval(k, count, confidence))
    z = stats.norm.ppf((1 + confidence) / 2)
    a = k / count

    def score(p: float) -> float:
        return (a - p) ** 2 - z * z * p * (1 - p) / count

    assert 0 <= low <= a <= high <= 1
    below = 0.0 if k == 0 else optimize.brentq(score, 0.0, min(a, 1 - 1e-9), xtol=1e-15)
    above = 1.0 if k == count else optimize.brentq(score, max(a, 1e-9), 1.0, xtol=1e-15)
    assert (low, high) == pytest.approx((below, above), abs=1e-9)


def test_wilson_of_scipy() -> None:
    correct, groups = _answers()
    got = group.group_accuracies(correct, groups, confidence=0.9)
    for g in range(4):
        other = stats.binomtest(int(got.correct[g]), int(got.count[g])).proportion_ci(0.9, method="wilson")
        assert (got.low[g], got.high[g]) == pytest.approx((other.low, other.high), abs=1e-12)


def test_bootstrap_resamples_the_answers() -> None:
    """The binomial draw is the stratified bootstrap: the same quantiles as drawing the single answers again."""
    correct, groups = _answers(1)
    got = group.group_accuracies(correct, groups, resamples=20000)
    rng = np.random.default_rng(9)
    least = np.full(20000, np.inf)
    for g in range(4):
        mine = correct[groups == g].astype(np.float64)
        least = np.minimum(least, mine[rng.integers(0, len(mine), (20000, len(mine)))].mean(1))
    step = 1.01 / np.bincount(groups).min()  # neighbouring values of the minimum
    assert abs(got.worst_low - np.quantile(least, 0.025)) <= step
    assert abs(got.worst_high - np.quantile(least, 0.975)) <= step
    assert got.worst_low < got.worst < got.worst_high


def test_bootstrap_covers() -> None:
    """95 % intervals of one group hold the truth about so often; the seed decides the draw."""
    rng = np.random.default_rng(3)
    hits = 0
    for seed in range(300):
        k = rng.binomial(200, 0.8)
        low, high = group.bootstrap_worst([k, 500], [200, 500], resamples=400, seed=seed)
        hits += low <= 0.8 <= high
    assert 0.90 <= hits / 300 <= 0.99
    assert group.bootstrap_worst([3, 4], [9, 9], seed=1) == group.bootstrap_worst([3, 4], [9, 9], seed=1)


def test_empty_group_is_an_error_or_left_out() -> None:
    correct, groups = np.array([True, False, True]), np.array([0, 0, 2])
    with pytest.raises(ValueError, match=r"was without any of \[1, 3\]"):
        group.group_accuracies(correct, groups, num_groups=4)
    got = group.group_accuracies(correct, groups, num_groups=4, empty="skip", train_groups=[0, 1, 1, 2])
    assert (got.worst, got.worst_group, got.group_mean) == (0.5, 0, 0.75)
    assert np.isnan(got.accuracy[[1, 3]]).all()
    assert np.isnan(got.low[[1, 3]]).all()
    assert got.train_weighted == pytest.approx((1 * 0.5 + 1 * 1.0) / 2)  # the weight of group 1 drops out
    assert group.group_accuracies(correct, groups, num_groups=4, empty="skip").worst == 0.5


def test_a_group_absent_from_training_counts_nothing() -> None:
    got = group.group_accuracies([1, 0], [0, 1], train_groups=[0, 0])
    assert got.train_weighted == 1.0
    assert got.worst == 0.0


def test_plain_numbers() -> None:
    correct, groups = np.array([True, False, True]), np.array([0, 0, 2])
    got = group.group_accuracies(correct, groups, num_groups=3, empty="skip").to_dict(["a", "b", "c"])
    assert json.loads(json.dumps(got, allow_nan=False)) == got
    assert got["worst_group"] == "a"
    assert got["groups"]["b"]["accuracy"] is None
    assert got["train_weighted"] is None
    with pytest.raises(ValueError, match="names must be 3"):
        group.group_accuracies(correct, groups, num_groups=3, empty="skip").to_dict(["a"])


def test_groups_of_one_name_are_all_kept() -> None:
    found = group.group_accuracies([1, 0, 1, 0], [0, 1, 2, 3])
    got = found.to_dict(["cat", "dog", "cat", "cat (0)"])
    assert list(got["groups"]) == ["cat (0) (0)", "dog", "cat (2)", "cat (0) (3)"]
    assert [one["correct"] for one in got["groups"].values()] == [1, 0, 1, 0]
    assert got["worst_group"] == "dog"
    assert found.to_dict(["dog", "cat", "bird", "cat"])["worst_group"] == "cat (1)"


def test_group_index() -> None:
    np.testing.assert_array_equal(group.group_index([0, 0, 1, 1], [0, 1, 0, 1]), [0, 1, 2, 3])
    np.testing.assert_array_equal(group.group_index([0, 1], [0, 0], attributes=3), [0, 3])
    np.testing.assert_array_equal(group.group_counts([2, 0, 2], 4), [1, 0, 2, 0])


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: group.group_accuracies([1], [0, 1]), "correct must have the shape"),
        (lambda: group.group_accuracies([], np.zeros(0, int)), "groups must not be empty"),
        (lambda: group.group_accuracies([2], [0]), "correct must be bool"),
        (lambda: group.group_accuracies([1], [0.0]), "groups must be a list of integers"),
        (lambda: group.group_accuracies([1], [-1]), "groups must be at least 0"),
        (lambda: group.group_accuracies([1], [4], num_groups=2), "groups must lie in"),
        (lambda: group.group_accuracies([1], [0], empty="zero"), "empty must be"),
        (lambda: group.group_accuracies([1], [0], confidence=1), "confidence must be in"),
        (lambda: group.group_accuracies([1], [0], resamples=0), "resamples must be"),
        (lambda: group.group_accuracies([1, 1], [0, 2], empty="skip", train_groups=[1]), "train_groups must have"),
        (lambda: group.wilson_interval(3, 2), "correct must lie"),
        (lambda: group.bootstrap_worst([0], [0]), "count must have"),
        (lambda: group.group_index([0], [0, 1]), "attribute must have the shape"),
        (lambda: group.group_index([0], [3], attributes=2), "attribute must lie"),
    ],
)
def test_bad_input(call, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        call()
