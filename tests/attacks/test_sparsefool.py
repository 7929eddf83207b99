"""SparseFool against the exact minimum on linear classifiers in a box, its linear solver, and its published form."""

from __future__ import annotations

from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
import nets
import numpy as np
import pytest

import invjax
from invjax import Result, Status
from invjax.attacks.sparsefool import SparseFool, Way, go

fast = pytest.mark.fast
SHAPE, COUNT = (8, 6, 1), 32
SIZE = int(np.prod(SHAPE))
PUBLISHED = SparseFool(order="slope", prune=0, compare=1_000_000)


@cache
def task(seed: int, classes: int) -> nets.Task:
    """A linear classifier; examples of class 0, which is harder or easier to leave."""
    net = nets.linear(SHAPE, classes, seed=seed)
    bias = -1.5 * net.params["w"].sum(0)  # at 1/2 everywhere all classes are equal, but for
    bias[0] += 1.0 + seed % 3
    net = invjax.LogitsModel({"w": 3 * net.params["w"], "b": bias}, net.apply)
    drawn = nets.task(net, SHAPE, count=4 * COUNT, seed=seed)
    rows = np.flatnonzero(drawn.label == 0)[:COUNT]
    assert len(rows) == COUNT
    target = 1 + np.arange(COUNT) % (classes - 1)
    return nets.Task(net, drawn.x[rows], drawn.label[rows], target.astype(np.int32))


def solve(task: nets.Task, method: Any, target: Any = None, **options: Any) -> Result:
    """One program for each number of classes: there is always a mask, and bounds of each feature."""
    ones = np.ones(SHAPE, np.float32)
    options = {"mask": np.ones(SHAPE, bool), "bounds": (0 * ones, ones), "lanes": COUNT, "progress": False, **options}
    return invjax.solve(task.net, task.x, task.label, target=target, method=method, **options)


def l0(result: Result) -> np.ndarray:
    return (np.asarray(result.delta).reshape(COUNT, -1) != 0).sum(1)


def fewest(task: nets.Task, low: Any, high: Any, mask: Any, aims: Any = None) -> np.ndarray:
    """The least l0 with which class 0 loses to another one (to ``aims`` [N]): features in order of what they can gain;
    the best class. Infinite where even all features do not do it."""
    w, b = (np.asarray(task.net.params[name], np.float64) for name in "wb")
    answer = []
    for row, x in enumerate(task.x.reshape(COUNT, -1).astype(np.float64)):
        counts = []
        for k in range(1, w.shape[1]) if aims is None else [aims[row]]:
            d = w[:, k] - w[:, 0]
            lead = x @ (w[:, 0] - w[:, k]) + b[0] - b[k]
            gain = np.maximum(d * (high.reshape(-1) - x), d * (low.reshape(-1) - x)) * mask.reshape(-1)
            reach = np.cumsum(-np.sort(-gain))
            counts.append(1 + np.searchsorted(reach, lead, side="right") if reach[-1] > lead else np.inf)
        answer.append(min(counts))
    return np.array(answer)


BOX = (np.zeros(SHAPE, np.float32), np.ones(SHAPE, np.float32), np.ones(SHAPE, bool))


@pytest.mark.parametrize("classes", [pytest.param(2, marks=fast), 5])
def test_within_a_quarter_of_the_exact_minimum(classes: int) -> None:
    """8 classifiers of 32 examples each, every second one with a box of each feature and a mask."""
    rng, ratios = np.random.default_rng(0), []
    for seed in range(8):
        one, (low, high, mask) = task(seed, classes), BOX
        if seed % 2:
            low = (one.x.min(0) * rng.uniform(0, 1, SHAPE)).astype(np.float32)
            high = (one.x.max(0) + (1 - one.x.max(0)) * rng.uniform(0, 1, SHAPE)).astype(np.float32)
            mask = rng.uniform(size=SHAPE) < 0.8
        exact = fewest(one, low, high, mask)
        result = solve(one, SparseFool(), bounds=(low, high), mask=mask)
        found = np.asarray(result.status) == Status.FOUND
        np.testing.assert_array_equal(found, np.isfinite(exact))
        count = l0(result)
        assert (count[found] >= exact[found]).all(), "fewer than possible: the oracle or the answer is wrong"
        ratios += list(count[found] / exact[found])
        # The number of changes the linear solver needs, then at most two tries for each halving.
        assert np.asarray(result.evaluations).mean() < 25
    assert len(ratios) > 200
    assert max(ratios) <= 1.25
    assert np.mean(ratios) <= 1.01


def test_targeted_near_the_bound() -> None:
    """To beat class 0 alone is necessary for a target, not sufficient: a bound from below of the exact minimum."""
    one = task(1, 5)
    bound = fewest(one, *BOX, aims=one.target)
    result = solve(one, SparseFool(), one.target)
    assert (np.asarray(result.status) == Status.FOUND).all()
    assert (np.asarray(one.net(jnp.asarray(result.x))).argmax(1) == one.target).all()
    assert (l0(result) >= bound).all()
    assert (l0(result) / bound).mean() <= 1.4
    plain = solve(one, SparseFool(prune=0), one.target)
    assert l0(result).mean() < 0.6 * l0(plain).mean()


def test_without_a_factor_the_rounds_alone_are_exact() -> None:
    """λ = 1 and no overshoot: DeepFool ends on the plane, and the solver crosses it with the fewest coordinates."""
    one = task(0, 2)
    result = solve(one, SparseFool(factor=1.0, overshoot=1e-3, prune=0))
    assert (np.asarray(result.status) == Status.FOUND).all()
    assert (l0(result) - fewest(one, *BOX)).max() <= 1  # the overshoot may take one more
    assert np.asarray(result.evaluations).max() <= 6


def test_published_form() -> None:
    """One round on a linear classifier: the coordinates of steepest slope, to a plane λ times as far."""
    one = task(0, 2)
    result = solve(one, SparseFool(**{**vars(PUBLISHED), "factor": 1.5}))
    found = np.asarray(result.status) == Status.FOUND
    assert found.all()
    w = np.asarray(one.net.params["w"], np.float64)
    d = w[:, 1] - w[:, 0]
    steepest = np.argsort(-np.abs(d))
    once = np.asarray(result.evaluations) == 3  # the clean input, DeepFool's point, the answer
    assert once.mean() > 0.5
    for row in np.flatnonzero(once):
        x, end = (np.asarray(v, np.float64)[row].reshape(-1) for v in (one.x, result.x))
        lead = float(np.asarray(one.net(jnp.asarray(one.x[row : row + 1])))[0] @ [1, -1])
        boundary = np.clip(x + 1.02 * lead * d / (d @ d), 0, 1)
        need = 1.5 * (boundary - x) @ d + 1e-3 * np.linalg.norm(d)
        point = x.copy()
        for i in steepest:
            way = max(0.0, need - (point - x) @ d) / abs(d[i])
            point[i] = np.clip(point[i] + np.sign(d[i]) * way, 0, 1)
        np.testing.assert_allclose(end, np.clip(x + 1.02 * (point - x), 0, 1), atol=1e-4)


@fast
def test_linear_solver() -> None:
    """Against the loop: one coordinate after another until the sum is reached."""
    rng = np.random.default_rng(2)
    walk = jax.jit(go)
    for _ in range(50):
        base, w = rng.uniform(size=30), rng.normal(size=30)
        end = np.where(w > 0, 1.0, 0.0)
        end[::5] = base[::5]  # no room
        gain = np.abs(w) * np.abs(end - base)
        score, need = rng.permutation(30).astype(float), rng.uniform(0, 1.3) * gain.sum()
        expected, left = base.copy(), need
        for i in np.argsort(-score):
            part = min(1.0, max(left, 0) / gain[i]) if gain[i] else 0.0
            expected[i] += part * (end[i] - base[i])
            left -= gain[i]
        got, part = walk(Way(*(jnp.asarray(v, jnp.float32) for v in (base, end, gain, score))), jnp.float32(need))
        np.testing.assert_allclose(got, expected, atol=1e-5)
        assert ((np.asarray(part) == 0) == (np.abs(expected - base) == 0)).mean() > 0.95
    zero = jnp.zeros(3)
    for field in walk(Way(zero, zero, zero, zero), jnp.float32(1)):
        assert (np.asarray(field) == 0).all()


def test_classes_are_compared_once_each() -> None:
    """min(classes, K) − 1 gradients at the clean input, then one a step; as published at every step."""
    one = task(2, 5)
    more = {}
    for classes in (2, 3, 5, 50):
        result = solve(one, SparseFool(classes=classes, prune=0, factor=1.0, steps=1))
        more[classes] = np.asarray(result.evaluations)
        assert more[classes].min() >= 2
    np.testing.assert_array_equal(more[5], more[50])
    assert (more[3] >= more[2]).all()
    assert more[5].min() >= 4 + 1
    always = solve(one, SparseFool(prune=0, factor=1.0, steps=1, compare=1_000_000))
    assert np.asarray(always.evaluations).mean() > more[5].mean()


@fast
def test_nothing_to_gain() -> None:
    """No coordinate is free, or every gradient is 0: over at once."""
    one = task(0, 2)
    low, high, only = np.zeros(SHAPE, np.float32), np.ones(SHAPE, np.float32), np.zeros(SHAPE, bool)
    low[0, 0], high[0, 0], only[0, 0] = 0.5, 0.5, True  # the one coordinate that may change has no room
    x = one.x.copy()
    x[:, 0, 0] = 0.5
    with pytest.warns(UserWarning, match="NO_GRADIENT"):
        held = solve(one._replace(x=x), SparseFool(), bounds=(low, high), mask=only)
    flat = one._replace(net=invjax.LogitsModel(jax.tree.map(np.zeros_like, one.net.params), one.net.apply))
    with pytest.warns(UserWarning, match="NO_GRADIENT"):
        still = solve(flat, SparseFool())
    for result in (held, still):
        assert (np.asarray(result.status) == Status.NO_GRADIENT).all()
        assert np.asarray(result.evaluations).max() <= 4
        assert np.isfinite(np.asarray(result.attempt)).all()
        assert (np.asarray(result.delta) == 0).all()


@fast
@pytest.mark.parametrize(
    "wrong", [{"order": "best"}, {"factor": 0.5}, {"classes": 1}, {"prune": -1}, {"inner_steps": 0}]
)
def test_bad_constants(wrong: dict[str, Any]) -> None:
    one = task(0, 2)
    with pytest.raises(ValueError, match=f"SparseFool.{next(iter(wrong))} must be"):
        solve(one, SparseFool(**wrong))
