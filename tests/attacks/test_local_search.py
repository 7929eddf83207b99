"""Local search: against its algorithm written down again in NumPy, and its lists of pixels against sets."""

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
from invjax.attacks import local_search
from invjax.attacks.local_search import LocalSearch
from invjax.types import UNTARGETED, Context, Problem

fast = pytest.mark.fast
SHAPE, COUNT, CLASSES = (5, 6, 2), 16, 4
FREE = np.random.default_rng(7).random(SHAPE) < 0.7


@cache
def task() -> nets.Task:
    return nets.task(nets.mlp(SHAPE, CLASSES, seed=1), SHAPE, count=COUNT, bounds=(-1.0, 3.0))


def solve(method: Any, target: Any = None, mask: np.ndarray = FREE) -> Result:
    t = task()
    return invjax.solve(t.net, t.x, t.label, target=target, method=method, mask=mask, bounds=(-1.0, 3.0))


def plain(x: np.ndarray, label: int, target: int, mask: np.ndarray, c: LocalSearch) -> tuple[int, np.ndarray, int]:
    """Algorithm 3 with full lists. Status, the point, and how often the list was gone through."""

    def probabilities(points: list[np.ndarray]) -> np.ndarray:
        z = np.asarray(task().net(jnp.asarray(np.stack(points))), np.float64)
        e = np.exp(z - z.max(1, keepdims=True))
        return e / e.sum(1, keepdims=True)

    def wanted(p: np.ndarray) -> bool:
        if target != UNTARGETED:
            return p.argmax() == target
        return label not in np.argsort(-p)[: c.top]

    def put(image: np.ndarray, i: int, j: int, value: np.ndarray) -> np.ndarray:
        image = image.copy()
        image[i, j] = np.where(mask[i, j], np.clip(4 * value + 1, -1, 3), image[i, j])
        return image

    image, height, width = x.copy(), *x.shape[:2]
    places = {(i, j) for i in range(height) for j in range(width) if mask[i, j].any()}
    for turn in range(c.rounds + 1):
        unit = (image.astype(np.float64) - 1) / 4
        order = sorted(places)
        points = [put(image, i, j, np.where(unit[i, j] < 0, -c.perturbation, c.perturbation)) for i, j in order]
        p = probabilities([image, *points])
        if turn == 0 and wanted(p[0]):
            return Status.ALREADY_TARGET, x, 1
        won = [bool(wanted(row)) for row in p]
        if any(won):
            found = [one for one, ok in zip([image, *points], won, strict=True) if ok]
            return Status.FOUND, np.stack(found), turn + 1
        if turn == c.rounds:
            return Status.NOT_FOUND, image, turn + 1
        score = p[1:, label] if target == UNTARGETED else -p[1:, target]
        places = set()
        for index in np.argsort(score)[: c.pixels_per_round]:
            i, j = order[index]
            moved = c.cyclic_factor * unit[i, j]
            image = put(image, i, j, np.where(moved < -0.5, moved + 1, np.where(moved > 0.5, moved - 1, moved)))
            d = c.half_side
            near = [(a, b) for a in range(i - d, i + d + 1) for b in range(j - d, j + d + 1)]
            places |= {(a, b) for a, b in near if 0 <= a < height and 0 <= b < width and mask[a, b].any()}
    raise AssertionError


BASE: dict[str, Any] = {
    "perturbation": 0.3, "rounds": 4, "half_side": 1, "pixels_per_round": 3, "candidates": 30
}  # fmt: skip


@pytest.mark.parametrize(
    ("fields", "targeted"),
    [
        ({}, False),
        ({}, True),
        ({"top": 2}, False),
        ({"perturbation": 2.0, "cyclic_factor": 0.4}, False),
        ({"cyclic_factor": 1.9, "rounds": 7}, True),
    ],
)
def test_against_numpy(fields: dict[str, Any], targeted: bool) -> None:
    """Lists long enough for all pixels: nothing is left to chance. One program for all of these."""
    t, method = task(), LocalSearch(**{**BASE, **fields})
    result = solve(method, t.target if targeted else None)
    for row in range(COUNT):
        aim = int(t.target[row]) if targeted else UNTARGETED
        status, points, turns = plain(t.x[row], int(t.label[row]), aim, FREE, method)
        assert result.status[row] == status
        assert result.forwards[row] == 31 * turns
        attempt = np.asarray(result.attempt[row])
        if status == Status.FOUND:  # the image before its candidates; which candidate does not matter
            points = points[:1] if _reached_itself(points, attempt) else points
            assert np.abs(points - attempt).max((1, 2, 3)).min() < 1e-5
            np.testing.assert_array_equal(result.x[row], attempt)
        else:
            np.testing.assert_allclose(attempt, points, atol=1e-5)
        assert (attempt[~FREE] == t.x[row][~FREE]).all()
    statuses = np.asarray(result.status)
    assert (statuses == Status.FOUND).any()
    if not fields.get("rounds"):
        assert (statuses == Status.NOT_FOUND).any()


def _reached_itself(points: np.ndarray, attempt: np.ndarray) -> bool:
    return np.abs(points[0] - attempt).max() < 1e-5


@fast
def test_already_there() -> None:
    t = task()
    result = invjax.solve(
        t.net, t.x, t.target, target=t.label, method=LocalSearch(**BASE), mask=FREE, bounds=(-1.0, 3.0)
    )
    assert (np.asarray(result.status) == Status.ALREADY_TARGET).all()
    np.testing.assert_array_equal(result.forwards, 31)
    np.testing.assert_array_equal(result.evaluations, 0)


@fast
def test_cyclic() -> None:
    v = np.linspace(-0.5, 0.5, 101, dtype=np.float32)
    for r in (0.0, 0.7, 1.0, 1.5, 2.0):
        moved = np.asarray(local_search.cyclic(jnp.asarray(v), r))
        assert moved.min() >= -0.5 - 1e-6
        assert moved.max() <= 0.5 + 1e-6
        np.testing.assert_allclose(np.abs(moved - r * v), np.where(np.abs(np.float32(r) * v) > 0.5, 1, 0), atol=1e-6)


@fast
@pytest.mark.parametrize("d", [0, 1, 3])
def test_neighbourhoods_are_unions_of_squares(d: int) -> None:
    free = np.random.default_rng(d).random((6, 9)) < 0.8
    chosen = np.asarray([0, 53, 13, 14, 54], np.int32)  # two corners, two that overlap, and none
    got = np.asarray(local_search.neighbours(jnp.asarray(free), jnp.asarray(chosen), d))
    expected = {
        i * 9 + j
        for i in range(6)
        for j in range(9)
        if free[i, j] and any(max(abs(i - c // 9), abs(j - c % 9)) <= d for c in chosen if c < 54)
    }
    assert got.shape == (5 * (2 * d + 1) ** 2,)
    assert sorted(got[got < 54].tolist()) == sorted(expected)


@fast
def test_lists_are_random_and_without_repetition() -> None:
    problem = _problem((6, 7, 1))
    among = np.asarray([3, 42, 8, 20, 42, 11, 30], np.int32)
    draw = jax.jit(lambda config, k: local_search.draw(problem, config, jnp.asarray(among), 42, k))
    counts = np.zeros(43)
    for k in range(60):
        got = np.asarray(draw(LocalSearch(pixels_per_round=2, candidates=3), k))
        assert len(set(got)) == 3
        assert 42 not in got
        counts[got] += 1
    assert set(np.flatnonzero(counts)) == {3, 8, 20, 11, 30}
    assert counts[counts > 0].min() > 20
    got = np.asarray(draw(LocalSearch(candidates=9), 0))
    assert sorted(got) == [3, 8, 11, 20, 30, 42, 42, 42, 42]


def _problem(shape: tuple[int, ...]) -> Problem:
    x = jnp.full(shape, 0.3)
    zero = jnp.int32(0)
    return Problem(x, zero, zero, jnp.float32(0), jnp.float32(1), None, None, jax.random.key(0), zero)


@fast
def test_no_table_over_all_pixels() -> None:
    """At 224 px the state is two images and a list, and a round makes nothing larger than its batch of images."""
    shape, method = (224, 224, 3), LocalSearch(candidates=8)
    net = nets.linear(shape, 2)
    problem, ctx = _problem(shape), Context(net)
    state = jax.eval_shape(lambda: method.method.init(ctx, problem, method))
    large = [leaf.shape for leaf in jax.tree.leaves(state) if leaf.size > 8]
    assert large == [shape, shape]
    neighbours = jax.make_jaxpr(lambda free, chosen: local_search.neighbours(free, chosen, 5))
    program = neighbours(jnp.ones((224, 224), bool), jnp.zeros(5, jnp.int32))
    sizes = [out.aval.size for eqn in program.jaxpr.eqns for out in eqn.outvars]
    assert max(sizes) <= 2 * 5 * 121  # rows and columns side by side


def test_short_lists_and_vectors() -> None:
    """A list shorter than the neighbourhoods; a vector, whose features are pixels of one row."""
    task = nets.task(nets.linear((9,), 3), (9,), count=12)
    method = LocalSearch(rounds=6, half_side=2, pixels_per_round=2, candidates=4)
    result = invjax.solve(task.net, task.x, task.label, method=method)
    found = np.asarray(result.status) == Status.FOUND
    assert found.any()
    assert set(np.asarray(result.forwards)[~found]) <= {7 * 5}


@fast
@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"perturbation": 0.0}, "LocalSearch.perturbation must be above 0"),
        ({"cyclic_factor": 2.5}, "LocalSearch.cyclic_factor must be in"),
        ({"top": 0}, "LocalSearch.top must be at least 1"),
        ({"rounds": 0}, "LocalSearch.rounds must be at least 1"),
        ({"half_side": -1}, "LocalSearch.half_side must be a whole number >= 0, was -1"),
        ({"pixels_per_round": 0}, "LocalSearch.pixels_per_round must be a whole number >= 1"),
        ({"candidates": 4}, "LocalSearch.candidates must be a whole number >= pixels_per_round = 5, was 4"),
    ],
)
def test_bad_constants(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        LocalSearch(**fields).check()
