"""One pixel by differential evolution: against SciPy's, against trying everything, and its promises about queries."""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import nets
import numpy as np
import pytest
from scipy import optimize

import invjax
from invjax import Status, losses
from invjax.attacks.one_pixel import OnePixel
from invjax.attacks.parts import pixels
from invjax.solvers import differential_evolution as evolution

fast = pytest.mark.fast
TINY = (4, 4, 1)


@fast
def test_latin_hypercube() -> None:
    points = np.asarray(evolution.latin_hypercube(jax.random.key(3), 40, 5, jnp.float32))
    assert points.dtype == np.float32
    assert points.min() >= 0
    assert points.max() < 1
    np.testing.assert_array_equal(np.sort(np.floor(points * 40), axis=0), np.arange(40)[:, None] + np.zeros(5))
    orders = np.argsort(points, axis=0)
    assert (orders[:, :1] != orders[:, 1:]).any(0).all()


@partial(jax.jit, static_argnames="count")
def many_trials(seed: Any, members: Any, losses: Any, recombination: Any, count: int) -> Any:
    keys = jax.random.split(jax.random.key(seed), count)
    index = jnp.arange(members.shape[0], dtype=jnp.int32)
    scale = (0.5, 1.0)
    return jax.vmap(lambda key: evolution.trials(key, members, losses, index, scale, recombination))(keys)


@fast
def test_trials_are_best_1_bin() -> None:
    """Members ``1/2 + e_j / 100``: a trial tells which members and which F it is made of."""
    size, count = 6, 400
    members, best = 0.5 + 0.01 * np.eye(size, dtype=np.float32), 2
    order = np.full(size, np.inf, np.float32)
    order[best], order[4] = 1.0, 2.0  # the others are not known yet
    trial = np.asarray(many_trials(0, members, order, np.float32(1.0), count))
    moved = (trial - members[best]) / 0.01
    a, b, scale = moved.argmax(-1), moved.argmin(-1), moved.max(-1)
    np.testing.assert_allclose(moved.min(-1), -scale, rtol=1e-3)
    assert (np.sort(np.abs(moved), -1)[..., :-2] < 1e-3).all()
    np.testing.assert_allclose(scale, scale[:, :1] + np.zeros(size), rtol=1e-3)  # one F for a block
    assert 0.5 <= scale.min() < 0.51
    assert 0.99 < scale.max() <= 1.0001
    for i in range(size):
        pairs, times = np.unique(a[:, i] * size + b[:, i], return_counts=True)
        wanted = [u * size + v for u in range(size) for v in range(size) if len({u, v, i}) == 3]
        assert set(pairs) == set(wanted)
        assert times.max() < 3.5 * count / len(wanted)  # all of them alike
    # No recombination: one coordinate from the mutant, wherever it differs from the member's own.
    trial = np.asarray(many_trials(0, members, order, np.float32(0.0), count))
    assert ((trial != members).sum(-1) <= 1).all()
    assert ((trial != members).any((0, 1))).all()


@fast
def test_trials_that_leave_the_cube_are_drawn_anew() -> None:
    members = np.asarray([[0.0], [1.0], [0.0], [1.0], [1.0]], np.float32)
    trial = np.asarray(many_trials(1, members, np.arange(5, dtype=np.float32), np.float32(1.0), 300)).reshape(-1)
    assert trial.min() >= 0
    assert trial.max() <= 1
    fresh = trial[(trial != 0) & (trial != 1)]
    low = fresh < 0.5  # a − b = −1 leaves [0, 1] and is drawn anew; + 1 gives F, in [1/2, 1]
    assert 0.15 < low.mean() < 0.35
    assert fresh.min() < 0.02


@fast
def test_survivors() -> None:
    members, order = np.zeros((4, 2), np.float32), np.asarray([1, 1, np.inf, 5], np.float32)
    index, values = np.asarray([4, 0, 1, 2], np.int32), np.asarray([-9, 1, 2, 3], np.float32)
    tried = np.arange(1, 5, dtype=np.float32)[:, None] + np.zeros(2, np.float32)
    kept, least = evolution.survive(*map(jnp.asarray, (members, order, index, tried, values)))
    np.testing.assert_array_equal(np.asarray(kept)[:, 0], [2, 0, 4, 0])  # an equal one replaces; index 4 is nobody
    np.testing.assert_array_equal(least, [1, 1, 3, 5])


def closed_form(u: Any) -> Any:
    """Eight valleys along the first coordinate, one deepest; [..., 5] -> [...]."""
    where = jnp if isinstance(u, jax.Array) else np
    bowl = ((u - 0.3) ** 2).sum(-1)
    return bowl + 0.02 * (1 - where.cos(16 * np.pi * (u[..., 0] - 0.3)))


@partial(jax.jit, static_argnames=("population", "block"))
def queries_needed(keys: Any, goal: float, population: int, block: int) -> Any:
    """Per key: queries until ``closed_form < goal``, at most 40 generations' worth."""

    def one(key: Any) -> Any:
        members = evolution.latin_hypercube(key, population, 5, jnp.float32)

        def body(carry: Any) -> Any:
            members, values, asked = carry
            index = (asked + jnp.arange(block, dtype=jnp.int32)) % population
            trial = evolution.trials(jax.random.fold_in(key, asked), members, values, index, (0.5, 1.0), 1.0)
            return *evolution.survive(members, values, index, trial, closed_form(trial)), asked + block

        start = (members, closed_form(members), jnp.int32(population))
        going = lambda carry: (carry[1].min() >= goal) & (carry[2] < 41 * population)  # noqa: E731
        return jax.lax.while_loop(going, body, start)[2]

    return jax.vmap(one)(keys)


def test_against_scipy() -> None:
    """On an objective in closed form: as many successes at equal queries, for the deferred update; blocks: no fewer."""
    population, goal, runs = 50, 2e-3, 60
    theirs = []
    for seed in range(runs):
        asked = [0]

        def look(u: np.ndarray, asked: list[int] = asked) -> np.ndarray:
            asked[0] += u.shape[-1]
            return closed_form(u.T)

        optimize.differential_evolution(
            look, [(0, 1)] * 5, strategy="best1bin", popsize=10, mutation=(0.5, 1), recombination=1, maxiter=40,
            tol=0.0, atol=-1.0, init="latinhypercube", polish=False, updating="deferred", vectorized=True, rng=seed,
            callback=lambda intermediate_result: bool(intermediate_result.fun < goal),
        )  # fmt: skip
        theirs.append(asked[0])
    keys = jax.random.split(jax.random.key(5), 4 * runs)
    ours = np.asarray(queries_needed(keys, goal, population, population))
    blocks = np.asarray(queries_needed(keys, goal, population, 10))
    budgets = population * np.array([6, 9, 12, 16])
    for budget in budgets:
        rates = [(np.asarray(needed) <= budget).mean() for needed in (theirs, ours, blocks)]
        spread = 3 * np.sqrt(max(rates[0] * (1 - rates[0]), 0.05) * (1 / runs + 1 / len(keys)))
        assert abs(rates[0] - rates[1]) < spread, (budget, rates)
        assert rates[2] > rates[1] - 0.05, (budget, rates)
    middle = [np.median(needed) for needed in (theirs, ours)]
    assert 0.8 < middle[0] / middle[1] < 1.25


def exhaustive(task: nets.Task, target: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
    """Per example, over all pixels at both ends of the box: the least gap, and the least loss of the attack."""
    each = np.repeat(task.x[:, None], 32, 1)
    for pixel in range(16):
        for end in (0, 1):
            each[:, 2 * pixel + end, pixel // 4, pixel % 4] = end
    logits = np.asarray(task.net(jnp.asarray(each.reshape(-1, *TINY)))).reshape(len(each), 32, -1)
    aim = np.full(len(each), invjax.UNTARGETED) if target is None else target
    over = lambda f: jax.vmap(jax.vmap(f, (0, None, None)))(logits, task.label, aim)  # noqa: E731
    gap, loss = over(losses.gap), over(partial(losses.probability_gap, probability=0.5))
    return np.asarray(gap).min(1), np.asarray(loss).min(1)


@pytest.mark.parametrize(("classes", "targeted", "block", "level"), [(4, False, 15, 0.0), (2, True, 20, 0.7)])
def test_against_trying_everything(classes: int, targeted: bool, block: int, level: float) -> None:
    """Linear classifiers: the best pixel is at an end of its box, so 32 queries decide. Found where there is one.

    level: how far the bias evens out the classes, so that some examples can be won and some cannot.
    Nothing found: the whole budget is spent in whole blocks, never more. The wanted class at x: one block.
    """
    net = nets.linear(TINY, classes, seed=2)
    middle = np.median(nets.task(net, TINY, count=40, seed=3).x.reshape(40, -1) @ net.params["w"], axis=0)
    net = invjax.LogitsModel({**net.params, "b": -np.float32(level) * middle}, net.apply)
    task = nets.task(net, TINY, count=40, seed=3)
    target = task.target if targeted else None
    method = OnePixel(population=40, generations=12, block=block)
    result = invjax.solve(task.net, task.x, task.label, target=target, method=method)
    gap, loss = exhaustive(task, target)
    found = np.asarray(result.status) == Status.FOUND
    hopeless = gap >= 0
    assert 5 < hopeless.sum() < 35
    assert not found[hopeless].any()
    assert found[gap < -0.05].all()
    aim = np.full(40, invjax.UNTARGETED) if target is None else target
    logits = task.net(jnp.asarray(result.attempt))
    reached = np.asarray(jax.vmap(partial(losses.probability_gap, probability=0.5))(logits, task.label, aim))
    np.testing.assert_allclose(reached[hopeless], loss[hopeless], atol=0.03)
    assert (reached >= loss - 1e-5).all()
    assert (np.asarray(result.delta) != 0).reshape(40, -1).sum(1).max() == 1

    np.testing.assert_array_equal(result.evaluations, 0)
    np.testing.assert_array_equal(np.asarray(result.forwards)[hopeless], 40 * 13 // block * block)
    assert (np.asarray(result.forwards)[found] % block == 0).all()
    if targeted:
        result = invjax.solve(task.net, task.x, task.target, target=task.label, method=method)
        assert (np.asarray(result.status) == Status.ALREADY_TARGET).all()
        np.testing.assert_array_equal(result.forwards, block)


def test_every_query_changes_at_most_k_free_pixels() -> None:
    """A network that has seen everything: no point asked differs from x in more than k pixels, nor where it may not."""
    seen: list[np.ndarray] = []
    shape, k = (5, 6, 2), 3
    mask = np.random.default_rng(0).random(shape) < 0.3
    x = np.random.default_rng(1).random(shape).astype(np.float32)

    def spy(points: Any) -> Any:
        jax.debug.callback(lambda p: seen.append(np.array(p)), points)
        return jnp.stack([jnp.ones(len(points)), points.sum((1, 2, 3)) * 0], 1)

    result = invjax.solve(spy, x, 0, method=OnePixel(k=k, population=40, generations=4, block=10), mask=mask)
    jax.effects_barrier()
    points = np.concatenate([one for one in seen if one.shape == (10, *shape)])
    assert len(points) >= int(result.forwards) == 200
    changed = points != x
    assert not changed[:, ~mask].any()
    pixel = changed.any(-1)
    assert pixel.sum((1, 2)).max() == k
    np.testing.assert_array_equal(pixel.any(0), mask.any(-1))  # no free pixel is out of reach
    assert (pixel.any((1, 2))).mean() > 0.98  # and no query is spent on x, but the first


def test_vectors() -> None:
    task = nets.task(nets.linear((9,), 3), (9,), count=12)
    result = invjax.solve(task.net, task.x, task.label, method=OnePixel(k=2, population=24, generations=6, block=8))
    assert (np.asarray(result.status) == Status.FOUND).any()
    assert (np.asarray(result.delta) != 0).sum(1).max() <= 2


@fast
def test_the_last_of_two_at_one_place_counts() -> None:
    image = jnp.zeros((3, 4, 2))
    rows, columns = jnp.asarray([1, 2, 1, 3, 1]), jnp.asarray([2, 0, 2, 0, 3])
    values = jnp.arange(1.0, 6)[:, None] * jnp.asarray([1.0, -1.0])
    expected = np.zeros((3, 4, 2))
    for row, column, value in zip(rows, columns, values, strict=True):
        if row < 3:
            expected[row, column] = value
    np.testing.assert_array_equal(pixels.paint(image, rows, columns, values), expected)


@fast
@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"k": 0}, "OnePixel.k must be a whole number >= 1, was 0"),
        ({"generations": -1}, "OnePixel.generations must be at least 0"),
        ({"weakest": 0.9, "strongest": 0.8}, "OnePixel.weakest must be in"),
        ({"strongest": 3.0}, "OnePixel.strongest must be in"),
        ({"recombination": 1.5}, "OnePixel.recombination must be a probability"),
        ({"population": 3}, "OnePixel.population must be a whole number >= 4"),
        ({"block": 401}, "OnePixel.block must be a whole number from 1 to 400, was 401"),
    ],
)
def test_bad_constants(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        OnePixel(**fields).check()
