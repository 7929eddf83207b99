"""Interpretability score and overlap with class activation maps: brute force, hand values, chance, statuses."""

from __future__ import annotations

import math
import subprocess
import sys
from fractions import Fraction
from itertools import permutations
from pathlib import Path

import jax
import jax.numpy as jnp
import nets
import numpy as np
import pytest

from invjax import attribution as explain
from invjax import metrics
from invjax.metrics.attribution import PERCENTILES, Threshold, _place, saliency_threshold
from invjax.types import Status

SHAPE = (5, 7, 2)
FOUND, NOT_FOUND, ALREADY = int(Status.FOUND), int(Status.NOT_FOUND), int(Status.ALREADY_TARGET)
# Compiled: one by one, every operation would be a program of its own.
score = jax.jit(metrics.interpretability_score, static_argnums=3)
nu = jax.jit(saliency_threshold, static_argnums=2)
iou, overlap, top_region, mass_inside, pointing_game, energy_inside = map(
    jax.jit,
    (
        metrics.iou,
        metrics.overlap,
        metrics.top_region,
        metrics.mass_inside,
        metrics.pointing_game,
        metrics.energy_inside,
    ),
)


def threshold_by_hand(saliency: np.ndarray, percentile: float, threshold: str) -> float:
    flat = np.sort(saliency.reshape(-1))
    if threshold == "plain":
        return float(np.percentile(flat, percentile))
    numbers = [0.0, *(v for v in flat if v != 0)]
    return float(numbers[min(math.ceil(percentile / 100 * len(numbers)), len(numbers) - 1)])


def score_by_hand(delta: np.ndarray, saliency: np.ndarray, percentile: float, threshold: str) -> float:
    above = threshold_by_hand(saliency, percentile, threshold)
    inside = sum(r * r for r, m in zip(delta.reshape(-1), saliency.reshape(-1), strict=True) if m > above)
    return math.sqrt(inside / sum(r * r for r in delta.reshape(-1)))


def draw(seed: int, zeros: float) -> tuple[np.ndarray, np.ndarray]:
    """A sparse perturbation and a map of whole numbers, hence with ties, a share of them 0."""
    rng = np.random.default_rng(seed)
    delta = rng.normal(size=SHAPE) * (rng.uniform(size=SHAPE) < 0.6)
    saliency = rng.integers(-9, 10, SHAPE) * (rng.uniform(size=SHAPE) >= zeros)
    return delta.astype(np.float32), saliency.astype(np.float32)


@pytest.mark.parametrize("threshold", ["released", "plain"])
@pytest.mark.parametrize("zeros", [0.0, 0.3, 0.9, 1.0])
def test_score_equals_brute_force(threshold: Threshold, zeros: float):
    asked = (0.0, 37.5, *PERCENTILES, 99.0)
    for seed in range(5):
        delta, saliency = draw(seed, zeros)
        scores = score(delta, saliency, asked, threshold)
        expected = [score_by_hand(delta, saliency, p, threshold) for p in asked]
        np.testing.assert_allclose(scores, expected, atol=2e-6)
        thresholds = [nu(saliency, p, threshold) for p in PERCENTILES[::4]]
        by_hand = [threshold_by_hand(saliency, p, threshold) for p in PERCENTILES[::4]]
        np.testing.assert_allclose(thresholds, by_hand, rtol=1e-6)


def test_places_are_exact_for_whole_percents():
    sizes = np.unique(np.concatenate([np.arange(1, 300), [1505, 3073, 150_529, 150_500, 268_204, 602_113]]))
    place = jax.jit(jax.vmap(_place, (None, 0)))
    for percent in (0, 1, 7, 50, 60, 70, 80, 90, 99):
        whole, fraction = place(jnp.float32(percent), jnp.asarray(sizes, jnp.int32))
        exact = [Fraction(percent * int(m), 100) for m in sizes]
        np.testing.assert_array_equal(whole, [math.floor(e) for e in exact])
        np.testing.assert_array_equal(np.asarray(fraction) > 0, [e.denominator > 1 for e in exact])
        np.testing.assert_allclose(fraction, [float(e - math.floor(e)) for e in exact], atol=2e-5)


@pytest.mark.fast
def test_the_two_thresholds_on_a_hand_made_map():
    saliency = jnp.array([0.0, 0.0, -1.0, 2.0, 3.0, 5.0])
    # released: 0, -1, 2, 3, 5 and number ceil(.5 * 5) = 3 of them, counted from 0; plain: between 0 and 2
    assert float(nu(saliency, 50.0, "released")) == 3.0
    assert float(nu(saliency, 50.0, "plain")) == pytest.approx(1.0)
    delta = jnp.array([1.0, 0.0, 0.0, 2.0, 0.0, 2.0])
    assert float(score(delta, saliency, 50.0, "released")) == pytest.approx(2 / 3)
    assert float(score(delta, saliency, 50.0, "plain")) == pytest.approx(np.sqrt(8 / 9))


def test_chance_level():
    np.testing.assert_allclose(metrics.chance_level(), [0.7071, 0.6325, 0.5477, 0.4472, 0.3162], atol=5e-5)
    rng = np.random.default_rng(0)
    maps, delta = (rng.normal(size=(300, 100)).astype(np.float32) for _ in range(2))
    for threshold in ("released", "plain"):
        many = jax.jit(jax.vmap(lambda r, m, t=threshold: metrics.interpretability_score(r, m, PERCENTILES, t)))
        scores = many(delta, maps)
        np.testing.assert_allclose(np.mean(np.square(scores), 0), metrics.chance_level() ** 2, atol=0.015)


def test_score_where_there_is_none():
    delta, saliency = draw(0, 0.2)
    assert np.isnan(score(delta * 0, saliency, PERCENTILES, "released")).all()
    for broken in (np.nan, np.inf):
        at = (1, 2, 0)
        bad_delta, bad_map = delta.copy(), saliency.copy()
        bad_delta[at] = bad_map[at] = broken
        assert np.isnan(score(bad_delta, saliency, PERCENTILES, "released")).all()
        assert np.isnan(score(delta, bad_map, PERCENTILES, "released")).all()
    tiny = score(delta * np.float32(1e-30), saliency, PERCENTILES, "released")
    np.testing.assert_allclose(tiny, score(delta, saliency, PERCENTILES, "released"), rtol=1e-5)


# Lists


@pytest.fixture(scope="module")
def task() -> nets.Task:
    return nets.task(nets.conv(), count=6)


@pytest.fixture(scope="module")
def delta() -> np.ndarray:
    """[6, 3, 8, 8, 1]."""
    rng = np.random.default_rng(3)
    return (rng.normal(size=(6, 3, *nets.SMALL)) * (rng.uniform(size=(6, 3, *nets.SMALL)) < 0.2)).astype(np.float32)


@pytest.fixture(scope="module")
def target(task: nets.Task) -> np.ndarray:
    return ((task.label[:, None] + np.arange(1, 4)) % 4).astype(np.int32)


def test_curve_of_a_list_is_each_example_by_itself(task: nets.Task, delta: np.ndarray, target: np.ndarray):
    status = np.full((6, 3), FOUND)
    curve = metrics.interpretability(task.net, task.x, task.label, delta, status, target, indicator="or", batch=4)
    assert curve.scores.shape == (6, 3, 5)
    every: list[np.ndarray] = []
    for t in range(3):
        maps = explain.saliency_maps(task.net, task.x, task.label, target[:, t], "or")
        every += list(maps)
        expected = [
            [score_by_hand(r, m, p, "released") for p in PERCENTILES] for r, m in zip(delta[:, t], maps, strict=True)
        ]
        np.testing.assert_allclose(curve.scores[:, t], expected, atol=2e-5)
    np.testing.assert_allclose(curve.mean, curve.scores.mean((0, 1)))
    np.testing.assert_array_equal(curve.chance, metrics.chance_level())
    share = [[(m > threshold_by_hand(m, p, "released")).mean() for p in PERCENTILES] for m in every]
    np.testing.assert_allclose(curve.level, np.sqrt(share).mean(0), atol=0.01)
    assert (curve.level < curve.chance - 0.02).all()  # the indicator has set some entries to 0
    assert curve[5:] == (18, 0, 0, 0)


def test_scores_do_not_depend_on_the_batch(task: nets.Task, delta: np.ndarray, target: np.ndarray):
    """An image alone, with its neighbours, and with others: where the released code gives three answers."""
    status = np.full(6, FOUND)

    def scores(rows: np.ndarray, **options: int) -> np.ndarray:
        given = (task.x[rows], task.label[rows], delta[rows, 0], status[rows], target[rows, 0])
        return metrics.interpretability(task.net, *given, **options).scores

    together, order = scores(np.arange(6)), np.array([4, 2, 0, 5, 1, 3])
    np.testing.assert_array_equal(scores(order), together[order])
    np.testing.assert_allclose(scores(np.arange(6), batch=4), together, atol=1e-5)
    for n in (0, 5):
        np.testing.assert_allclose(scores(np.array([n]))[0], together[n], atol=1e-5)


def test_statuses(task: nets.Task, delta: np.ndarray):
    status = np.array([FOUND, NOT_FOUND, ALREADY, FOUND, int(Status.NONFINITE), FOUND])
    r = delta[:, 0].copy()
    r[5] = 0  # found, and nothing changed: undefined
    given = (task.net, task.x, task.label, r, status)
    found = metrics.interpretability(*given)
    assert np.isfinite(found.scores).all(1).tolist() == [True, False, False, True, False, False]
    np.testing.assert_allclose(found.mean, found.scores[[0, 3]].mean(0))
    assert found[5:] == (2, 2, 1, 1)
    tried = metrics.interpretability(*given, convention="all_attempts")
    assert np.isfinite(tried.scores).all(1).tolist() == [True, True, False, True, True, False]
    assert tried[5:] == (4, 2, 1, 1)
    np.testing.assert_allclose(tried.scores[[0, 3]], found.scores[[0, 3]], atol=1e-5)
    nothing = metrics.interpretability(task.net, task.x, task.label, r, np.full(6, NOT_FOUND))
    assert np.isnan(nothing.mean).all()
    assert nothing[5:] == (0, 6, 0, 0)


def test_rows_and_summary(task: nets.Task, delta: np.ndarray):
    curve = metrics.interpretability(
        task.net, task.x, task.label, delta[:, 0], np.full(6, FOUND), percentiles=(50, 97.5)
    )
    rows = metrics.curve_rows({"gse": curve})
    assert [row["attack"] for row in rows] == ["gse", "chance"]
    # Of 64 entries 31 are above number 33, and none above number 64: "released" leaves one entry less than (3) has.
    assert rows[1] == {"attack": "chance", "IS 50": "0.696", "IS 97.5": "0.000", "attempts": ""}
    np.testing.assert_allclose(curve.chance, np.sqrt([0.5, 0.025]))
    assert rows[0]["IS 50"] == f"{curve.mean[0]:.3f}"
    summary = metrics.summarize_curve(curve)
    assert summary["mean"] == curve.mean.tolist()
    assert "scores" not in summary
    assert metrics.curve_rows({}) == []
    with pytest.raises(ValueError, match="curves must have the same percentiles; 'b' has"):
        metrics.curve_rows({"a": curve, "b": curve._replace(percentiles=np.array([50.0, 60.0]))})


# Overlap


def top_by_lot(m: np.ndarray, r: np.ndarray, count: int) -> float:
    """The mean share of ‖r‖² in the first ``count`` pixels over every order that ties allow."""
    flat, mass = m.reshape(-1), np.square(r).sum(-1).reshape(-1)
    orders = [order for order in permutations(range(len(flat))) if (np.diff(flat[list(order)]) <= 0).all()]
    return float(np.mean([mass[list(order[:count])].sum() / mass.sum() for order in orders]))


def test_mass_in_the_top_region_is_that_of_a_choice_by_lot():
    rng = np.random.default_rng(0)
    for m in ([3, 0, 1, 0, 2, 0], [1, 1, 1, 0, 0, 0], [0, 0, 0, 0, 0, 0], [6, 5, 4, 3, 2, 1]):
        plane = np.reshape(m, (2, 3)).astype(np.float32)
        r = rng.normal(size=(2, 3, 2)).astype(np.float32)
        for count in (1, 2, 3, 6):
            region = top_region(jnp.asarray(plane), count / 6)
            assert float(region.sum()) == pytest.approx(count, abs=1e-4)
            ours = mass_inside(jnp.asarray(r), region)
            assert float(ours) == pytest.approx(top_by_lot(plane, r, count), abs=1e-5)


@pytest.mark.fast
def test_overlap_by_hand():
    m = jnp.array([[0.9, 0.6, 0.0], [0.4, 0.0, 0.1]])
    r = jnp.zeros((2, 3, 2)).at[0, 0, 1].set(-3.0).at[1, 0].set(jnp.array([2.0, -2.0])).at[0, 2, 0].set(1e-3)
    mask = jnp.array([[True, False, True], [True, False, False]])
    assert float(iou(m, mask)) == pytest.approx(1 / 4)  # {0, 1} and {0, 2, 3}
    assert float(iou(m, mask, 0.3)) == pytest.approx(2 / 4)
    assert float(pointing_game(m, mask)) == 1
    assert float(pointing_game(m, ~mask)) == 0
    assert float(pointing_game(m.at[0, 1].set(0.9), mask)) == 0.5
    assert float(energy_inside(m, mask)) == pytest.approx(1.3 / 2.0)
    table = overlap(r, m, 1 / 3)
    expected = metrics.Overlap(mass=9 / 17, iou=1 / 4, pointing=1.0, energy=1.3 / 2, support=0.5)
    np.testing.assert_allclose(np.array(table), np.array(expected), atol=1e-6)
    assert float(mass_inside(r * 1e-25, m > 0.3)) == pytest.approx(1, abs=1e-6)


def test_overlap_where_there_is_none():
    m, r = jnp.array([[0.9, 0.1, 0.0], [0.0, 0.2, 0.3]]), jnp.ones((2, 3, 2))
    assert np.isnan(np.array(overlap(0 * r, m))).all()
    assert np.isnan(np.array(overlap(r.at[0, 0, 0].set(jnp.nan), m))).all()
    assert np.isnan(np.array(overlap(r, m.at[0, 0].set(jnp.nan)))).all()
    flat = overlap(r, 0 * m)
    assert np.isnan(flat.pointing)
    assert np.isnan(flat.energy)
    assert float(flat.mass) == pytest.approx(0.25)
    assert np.isnan(iou(0 * m, m > 1))


def test_random_maps_score_the_chance_levels():
    rng = np.random.default_rng(0)
    m = rng.uniform(size=(2000, 4, 5)).astype(np.float32)
    r = (rng.normal(size=(2000, 4, 5, 3)) * (rng.uniform(size=(2000, 4, 5, 1)) < 0.3)).astype(np.float32)
    found = metrics.summarize_overlap(metrics.measure_overlap(r, m, np.full(2000, FOUND), share=0.3, batch=1024))
    assert found["mass"] == pytest.approx(0.3, abs=0.02)
    assert found["pointing"] == pytest.approx(found["support"], abs=0.03)
    assert found["energy"] == pytest.approx(found["support"], abs=0.02)


def test_list_of_overlaps(delta: np.ndarray):
    maps = np.random.default_rng(5).uniform(size=(6, 8, 8)).astype(np.float32)
    status = np.full((6, 3), FOUND)
    status[1] = NOT_FOUND
    status[2, 0] = ALREADY
    table = metrics.measure_overlap(delta, maps, status, batch=4)
    counts = status == FOUND
    for n, t in np.argwhere(counts):
        for ours, alone in zip(table, overlap(delta[n, t], maps[n]), strict=True):
            np.testing.assert_allclose(ours[n, t], alone, rtol=1e-6)
    assert np.isnan(np.array(table)[:, ~counts]).all()
    summary = metrics.summarize_overlap(table)
    assert summary["counted"] == counts.sum()
    assert summary["mass"] == pytest.approx(table.mass[counts].mean())
    tried = metrics.measure_overlap(delta, maps, status, convention="all_attempts", batch=4)
    assert np.isfinite(tried.mass).sum() == 17
    assert np.isnan(metrics.summarize_overlap(metrics.measure_overlap(delta, maps, status * 0))["mass"])


def test_bad_arguments(task: nets.Task, delta: np.ndarray):
    one, status = delta[:, 0], np.full(6, FOUND)
    given = {"x": task.x, "label": task.label, "delta": one, "status": status}
    for change, message in (
        ({"status": status[:5]}, r"delta must be \[N, \*S\] with status \[N\]"),
        ({"delta": delta}, r"delta must be \[N, \*S\] with status \[N\]"),
        ({"target": [1, 2]}, r"target must have the shape of status, \(6,\), was of shape \(2,\)"),
        ({"target": [9] * 6}, r"target must lie in \[0, 4\)"),
        ({"percentiles": (50, 100)}, "percentiles must be numbers from 0 to below 100"),
        ({"percentiles": ()}, "percentiles must be numbers"),
        ({"threshold": "x"}, "threshold must be one of 'released', 'plain', was 'x'"),
        ({"convention": "x"}, "convention must be"),
        ({"indicator": "x"}, "indicator must be one of"),
    ):
        with pytest.raises(ValueError, match=message):
            metrics.interpretability(task.net, **{**given, **change})
    maps = np.zeros((6, 8, 8), np.float32)
    for r, m, share, message in (
        (one, maps[:5], 0.25, r"maps \[N, H, W\]"),
        (one, maps[:, :7], 0.25, r"maps \[N, H, W\]"),
        (one, maps, 0.0, r"share must be a share of the pixels in \(0, 1\], was 0.0"),
    ):
        with pytest.raises(ValueError, match=message):
            metrics.measure_overlap(r, m, status, share=share)
    with pytest.raises(ValueError, match=r"saliency must have the shape of delta, \(3,\), was of shape \(4,\)"):
        metrics.interpretability_score(jnp.zeros(3), jnp.zeros(4))


def test_maps_and_metrics_import_no_network_library():
    heavy = ("flax", "torch", "sklearn", "matplotlib")
    code = f"import sys, invjax.metrics, invjax.attribution; print([n for n in {heavy!r} if n in sys.modules])"
    root = Path(__file__).resolve().parent.parent.parent
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, timeout=120)
    assert done.stdout.strip() == "[]", done.stderr
