"""JSMA: its pair search against all pairs, its steps against the definition, budgets and directions."""

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
from invjax.attacks.jsma import JSMA, best_one, best_pair

fast = pytest.mark.fast
SHAPE, CLASSES, COUNT = (5, 4, 1), 4, 16
SIZE = int(np.prod(SHAPE))


@cache
def task() -> nets.Task:
    """Nets with tanh units, so that saliencies change on the way; the box is [-1, 1]."""
    net = nets.mlp(SHAPE, CLASSES, seed=1)
    net = invjax.LogitsModel({**net.params, "w2": 2 * net.params["w2"]}, net.apply)
    return nets.task(net, SHAPE, count=COUNT, bounds=(-1.0, 1.0))


def solve(method: Any, target: Any = None, **options: Any) -> Result:
    one = task()
    options = {"mask": np.ones(SHAPE, bool), "bounds": (-1.0, 1.0), "lanes": COUNT, "progress": False, **options}
    return invjax.solve(one.net, one.x, one.label, target=target, method=method, **options)


def l0(result: Result) -> np.ndarray:
    return (np.asarray(result.delta).reshape(COUNT, -1) != 0).sum(1)


def products(a: np.ndarray, b: np.ndarray, cost: np.ndarray, left: int) -> np.ndarray:
    """(3) of every pair of moves [2D, 2D], single moves on the diagonal; 0 where a rule forbids it."""
    a, b, cost = (v.reshape(-1) for v in (a, b, cost))
    allowed = np.isfinite(a) & (cost <= left)
    a = np.where(allowed, a, 0)
    alone = np.eye(a.size, dtype=bool)
    feature = np.arange(a.size) % (a.size // 2)
    together = [np.where(alone, v[:, None], v[:, None] + v) for v in (a, b, cost)]
    good = (together[0] > 0) & (together[1] > 0) & (together[2] <= left) & allowed[:, None] & allowed
    good &= alone | (feature[:, None] != feature)
    return np.where(good, together[0] * together[1], 0)


def moves(rng: np.random.Generator, size: int, correlation: float) -> tuple[np.ndarray, ...]:
    a = rng.normal(size=size)
    b = correlation * a + np.sqrt(1 - correlation**2) * rng.normal(size=size)
    both = np.stack([a, -a])
    both[rng.uniform(size=both.shape) < 0.3] = -np.inf
    return both.astype(np.float32), np.stack([b, -b]).astype(np.float32), rng.integers(0, 2, (2, size))


@fast
@pytest.mark.parametrize("correlation", [1.0, 0.5, 0.0, -0.9, -1.0])
def test_pairs_are_exact_for_few_features(correlation: float) -> None:
    search = jax.jit(best_pair, static_argnums=4)
    rng = np.random.default_rng(0)
    for trial in range(20):
        a, b, cost = moves(rng, 64, correlation)
        left = trial % 3
        table = products(a, b, cost, left)
        pair, product = search(a, b, cost, left, 128)
        assert float(product) == pytest.approx(table.max(), rel=1e-5, abs=1e-6)
        if product > 0:
            assert table[int(pair[0]), int(pair[1])] == pytest.approx(float(product), rel=1e-5, abs=1e-6)


@pytest.mark.parametrize(("correlation", "least"), [(0.9, 1.0), (0.0, 1.0), (-0.5, 1.0), (-0.9, 0.9)])
def test_pairs_among_many_features(correlation: float, least: float) -> None:
    """128 of 1000 moves: the best pair but where saliency up and down nearly cancel in every feature."""
    search = jax.jit(best_pair, static_argnums=4)
    rng, ratios = np.random.default_rng(1), []
    for _ in range(5):
        a, b, cost = moves(rng, 500, correlation)
        ratios.append(float(search(a, b, cost, 2, 128)[1]) / products(a, b, cost, 2).max())
    assert min(ratios) >= least - 1e-5
    assert max(ratios) <= 1 + 1e-5


def test_no_table_over_all_pairs() -> None:
    """At 224 px: nothing in the program is larger than a few images."""
    size = 224 * 224 * 3
    like = jax.ShapeDtypeStruct((2, size), jnp.float32)
    program = jax.make_jaxpr(lambda a, b, c: best_pair(a, b, c, jnp.int32(10), 128))(like, like, like)
    assert max(v.aval.size for line in program.eqns for v in line.outvars) <= 4 * size  # type: ignore[attr-defined]


@fast
def test_single_moves() -> None:
    rng = np.random.default_rng(3)
    single = jax.jit(best_one)
    for left in (0, 1):
        a, b, cost = moves(rng, 40, 0.3)
        pair, product = single(a, b, cost, left)
        good = np.isfinite(a) & (a > 0) & (b > 0) & (cost <= left)
        assert float(product) == pytest.approx(np.where(good, np.where(good, a, 0) * b, 0).max())
        assert pair[0] == pair[1]
    barred, cost = np.full((2, 40), -np.inf, np.float32), np.zeros((2, 40), int)
    assert float(single(barred, b, cost, 1)[1]) == 0
    assert float(jax.jit(best_pair, static_argnums=4)(barred, b, cost, 1, 128)[1]) == 0


def _by_definition(row: int, target: int | None, config: JSMA) -> tuple[bool, int, np.ndarray]:
    """JSMA with the whole Jacobian and a table of all pairs: (found, steps, point)."""
    one = task()
    x, label = one.x[row].reshape(-1), int(one.label[row])
    jacobian = jax.jit(jax.jacobian(lambda v: one.net(v.reshape(1, *SHAPE))[0]))
    aim, sign = (label, -1) if target is None else (target, 1)
    point, steps = x.copy(), 0
    while True:
        guess = int(np.asarray(one.net(jnp.asarray(point).reshape(1, *SHAPE)))[0].argmax())
        if (guess != label) if target is None else (guess == target):
            return True, steps, point
        rows = np.asarray(jacobian(jnp.asarray(point)), np.float64)
        a, b = sign * rows[aim], -sign * (rows.sum(0) - rows[aim])
        up = (point >= x) & (point < 1) & (config.direction != "down")
        down = (point <= x) & (point > -1) & (config.direction != "up")
        both = np.where(np.stack([up, down]), np.stack([a, -a]), -np.inf)
        used = point != x
        left = min(int(config.share * SIZE), config.k) - used.sum()
        table = products(both, np.stack([b, -b]), np.stack([~used] * 2).astype(int), left)
        if config.form == "one":
            table = np.where(np.eye(2 * SIZE, dtype=bool), table, 0)
        if table.max() <= 0:
            return False, steps, point
        for move in set(np.unravel_index(table.argmax(), table.shape)):
            step = 2 * config.step_size if move < SIZE else -2 * config.step_size  # the box is 2 wide
            point[move % SIZE] = np.clip(point[move % SIZE] + step, -1, 1)
        steps += 1


@pytest.mark.parametrize("form", ["pair", "one"])
@pytest.mark.parametrize("targeted", [pytest.param(True, marks=fast), False])
def test_steps_by_definition(form: str, targeted: bool) -> None:
    """Point, success and the number of evaluations, 2 a step; both directions, to the box and in steps of θ."""
    for theta in (1.0, 0.15):
        config = JSMA(step_size=theta, form=form, share=0.5)
        target = task().target if targeted else None
        result = solve(config, target)
        for row in range(4):
            found, steps, point = _by_definition(row, int(task().target[row]) if targeted else None, config)
            assert (result.status[row] == Status.FOUND) == found
            assert result.evaluations[row] == 2 * steps + (1 if found else 2)
            np.testing.assert_allclose(np.asarray(result.attempt)[row].reshape(-1), point, atol=1e-5)
        assert 0.3 < np.asarray(result.found).mean() < 1 or target is None


def test_budget_and_direction() -> None:
    for config, most in ((JSMA(share=0.5, k=3), 3), (JSMA(share=0.25), 5), (JSMA(share=0.0), 0)):
        result = solve(config, task().target)
        changes = (np.asarray(result.attempt) != task().x).reshape(COUNT, -1).sum(1)
        assert changes.max() == most, "the odd one is used, too"
        assert (np.asarray(result.delta)[~np.asarray(result.found)] == 0).all()
    up = np.asarray(solve(JSMA(share=1.0, direction="up"), task().target).attempt) - task().x
    down = np.asarray(solve(JSMA(share=1.0, direction="down"), task().target).attempt) - task().x
    assert up.min() >= 0
    assert up.max() > 0
    assert down.max() <= 0
    assert down.min() < 0
    few = solve(JSMA(share=1.0, step_size=0.05, steps=2), task().target)
    assert np.asarray(few.evaluations).max() == 1 + 2 * 2 + 1
    assert np.abs(np.asarray(few.attempt) - task().x).max() <= 2 * 2 * 0.05 + 1e-5


@pytest.mark.parametrize("targeted", [True, False])
def test_probabilities_take_one_evaluation_a_step(targeted: bool) -> None:
    """Every step moves the pair of the largest gradients of the wanted class's probability."""
    target = task().target if targeted else None
    result = solve(JSMA(scores="probabilities", share=1.0), target)
    changes = (np.asarray(result.attempt) != task().x).reshape(COUNT, -1).sum(1)
    found = np.asarray(result.found)
    assert found.mean() > 0.5
    np.testing.assert_array_equal(np.asarray(result.evaluations)[found], 1 + -(-changes[found] // 2))
    one = task()

    def chance(x: jax.Array, row: int) -> jax.Array:
        p = jax.nn.softmax(one.net(x[None])[0])
        return p[one.target[row]] if targeted else -p[one.label[row]]

    first = solve(JSMA(scores="probabilities", share=1.0, steps=1), target)
    for row in range(3):
        gradient = np.asarray(jax.grad(chance)(jnp.asarray(one.x[row]), row)).reshape(-1)
        moved = np.flatnonzero((np.asarray(first.attempt)[row] != one.x[row]).reshape(-1))
        np.testing.assert_array_equal(np.sort(np.argsort(-np.abs(gradient))[:2]), moved)


@fast
@pytest.mark.parametrize(
    "wrong", [{"form": "all"}, {"step_size": 0.0}, {"share": 1.5}, {"candidates": 1}, {"scores": "p"}]
)
def test_bad_constants(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=f"JSMA.{next(iter(wrong))} must be"):
        solve(JSMA(**wrong))
