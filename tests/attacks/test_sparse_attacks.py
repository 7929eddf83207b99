"""FMN, σ-zero, PGD0, σ-map, sPGD and EAD against what is known exactly, on linear classifiers in a box."""

from __future__ import annotations

import dataclasses
import itertools
from functools import cache
from typing import Any, get_args

import jax
import jax.numpy as jnp
import nets
import numpy as np
import pytest
from scipy.optimize import Bounds, LinearConstraint, milp

import invjax
from invjax import Result, Status
from invjax.attacks.ead import EAD
from invjax.attacks.fmn import FMN
from invjax.attacks.parts import units
from invjax.attacks.pgd0 import PGD0, SigmaMap, project, project_sigma, sigma_map
from invjax.attacks.sigma_zero import SigmaZero, smooth_l0_grad
from invjax.attacks.spgd import SparsePGD, windows
from invjax.types import UNTARGETED, Context, Eval, Problem

fast = pytest.mark.fast
SHAPE, CLASSES, COUNT = nets.SMALL, 4, 20
CONFIGS: dict[str, Any] = {
    "fmn": FMN(steps=120),
    "sigma-zero": SigmaZero(steps=120),
    "pgd0": PGD0(k=16, steps=10, restarts=2),
    "sigma-map": SigmaMap(k=50, sigma_scale=2.0, steps=10, restarts=2),
    "spgd": SparsePGD(k=16, steps=40),
    "ead": EAD(beta=0.05, initial_weight=0.01, trials=5, steps=50, step_size=0.05),
}
every = pytest.mark.parametrize("name", CONFIGS)


@cache
def task(classes: int = CLASSES) -> nets.Task:
    """A linear classifier whose bias makes class 0 hard to leave: the smallest l0 is 4 to 8 of 64 features."""
    net = nets.linear(SHAPE, classes, seed=3)
    bias = np.zeros(classes, np.float32)
    bias[0] = 6.0
    net = invjax.LogitsModel({"w": 3 * net.params["w"], "b": bias}, net.apply)
    drawn = nets.task(net, SHAPE, count=3 * COUNT)
    rows = np.flatnonzero(drawn.label == 0)[:COUNT]
    assert len(rows) == COUNT
    targets = 1 + np.arange(COUNT) % (classes - 1)
    return nets.Task(net, drawn.x[rows], drawn.label[rows], targets.astype(np.int32))


def solve(task: nets.Task, method: Any, target: Any = None, **options: Any) -> Result:
    """One program for each method and network: there is always a mask."""
    options = {"mask": np.ones(SHAPE, bool), "lanes": len(task.x), "progress": False, **options}
    return invjax.solve(task.net, task.x, task.label, target=target, method=method, **options)


def l0(result: Result) -> np.ndarray:
    return (np.asarray(result.delta).reshape(len(result.status), -1) != 0).sum(1)


def directions(task: nets.Task, row: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of one example: x [D], the weights [D, K] relative to class 0, and the lead of class 0 over the others [K]."""
    w = np.asarray(task.net.params["w"], np.float64)
    b = np.asarray(task.net.params["b"], np.float64)
    x = task.x[row].reshape(-1).astype(np.float64)
    logits = x @ w + b
    return x, w - w[:, :1], logits[0] - logits


def fewest(task: nets.Task) -> np.ndarray:
    """The least l0 untargeted: for each class, features in order of what they can gain in the box; the best class."""
    answer = []
    for row in range(len(task.x)):
        x, d, lead = directions(task, row)
        gain = -np.sort(-np.maximum(d * (1 - x)[:, None], -d * x[:, None]), axis=0)
        counts = [1 + np.searchsorted(np.cumsum(gain[:, j]), lead[j], side="right") for j in range(1, d.shape[1])]
        answer.append(min(counts))
    return np.array(answer)


def fewest_targeted(task: nets.Task) -> np.ndarray:
    """The least l0 with which the target beats every other class: a mixed-integer linear program."""
    answer = []
    for row, target in enumerate(task.target):
        x, d, lead = directions(task, row)
        others = [j for j in range(d.shape[1]) if j != target]
        a = (d[:, [target]] - d[:, others]).T
        eye, zero = np.eye(len(x)), np.zeros_like(a)
        rules = [
            LinearConstraint(np.hstack([a, zero]), lead[target] - lead[others] + 1e-6, np.inf),
            LinearConstraint(np.hstack([eye, np.diag(x)]), 0, np.inf),
            LinearConstraint(np.hstack([eye, -np.diag(1 - x)]), -np.inf, 0),
        ]
        whole = np.r_[np.zeros(len(x)), np.ones(len(x))]
        limits = Bounds(np.r_[-np.ones(len(x)), np.zeros(len(x))], 1)
        answer.append(milp(whole, constraints=rules, integrality=whole, bounds=limits).fun)
    return np.round(np.array(answer))


@pytest.mark.parametrize("name", ["fmn", pytest.param("sigma-zero", marks=fast)])
def test_fewest_features(name: str) -> None:
    result, exact = solve(task(), CONFIGS[name]), fewest(task())
    assert exact.min() <= 4
    assert exact.max() >= 7
    assert (np.asarray(result.status) == Status.FOUND).all()
    assert (l0(result) >= exact).all(), "fewer than possible: the oracle or the answer is wrong"
    assert (l0(result) == exact).all()
    evaluations = np.asarray(result.evaluations)
    assert ((evaluations > 121) & (evaluations <= 121 + 20 + CLASSES)).all()


@pytest.mark.parametrize(("name", "share"), [("fmn", 1.05), ("sigma-zero", 1.05)])
def test_fewest_features_targeted(name: str, share: float) -> None:
    result, exact = solve(task(), CONFIGS[name], task().target), fewest_targeted(task())
    assert (exact >= fewest(task())).all()
    assert (np.asarray(result.status) == Status.FOUND).all()
    assert (l0(result) >= exact).all()
    assert (l0(result) / exact).max() <= 1.25
    assert (l0(result) / exact).mean() <= share


def test_pruning_never_worse_and_off_by_request() -> None:
    """The last stage keeps what was found; without it the evaluations are the paper's."""
    for config in (CONFIGS["fmn"], CONFIGS["sigma-zero"]):
        plain, pruned = solve(task(), dataclasses.replace(config, prune=0)), solve(task(), config)
        assert (np.asarray(plain.evaluations) == 121).all()
        assert (l0(pruned) <= l0(plain)).all()
        assert (l0(pruned) < l0(plain)).any()


def test_ead_against_its_closed_form() -> None:
    """Two classes: r = clip(sign(d) max(0, μ|d| − β)/2) with the μ that just reaches the boundary."""
    two = task(2)
    for beta in (0.02, 0.3):
        config = EAD(beta=beta, initial_weight=0.1, trials=6, steps=100, step_size=0.05)
        result = solve(two, config)
        r = np.asarray(result.delta, np.float64).reshape(COUNT, -1)
        exact = np.array([_elastic_net(two, row, beta) for row in range(COUNT)])
        ratio = ((r * r).sum(1) + beta * np.abs(r).sum(1)) / exact
        assert (np.asarray(result.status) == Status.FOUND).all()
        assert ratio.min() > 1 - 1e-4
        assert ratio.mean() < 1.01
        assert ratio.max() < 1.03
        # The first step of a trial needs no gradient of its own, and the last one's result is only probed.
        np.testing.assert_array_equal(result.evaluations, 1 + 6 * 99)
        np.testing.assert_array_equal(result.forwards, 1 + 6 * 99)


def _elastic_net(task: nets.Task, row: int, beta: float) -> float:
    x, d, lead = directions(task, row)
    w, need, low, high = d[:, 1], lead[1], 0.0, 1e4

    def at(mu: float) -> np.ndarray:
        return np.clip(np.sign(w) * np.maximum(mu * np.abs(w) - beta, 0) / 2, -x, 1 - x)

    for _ in range(100):
        middle = (low + high) / 2
        low, high = (middle, high) if w @ at(middle) < need else (low, middle)
    r = at(high)
    return float((r * r).sum() + beta * np.abs(r).sum())


def check(task: nets.Task, result: Result, target: Any, low: float = 0.0, high: float = 1.0) -> None:
    x, status = np.asarray(result.x), np.asarray(result.status)
    assert x.dtype == task.x.dtype
    assert set(status.tolist()) <= {Status.FOUND, Status.NOT_FOUND}
    assert ((x >= low) & (x <= high)).all()
    assert np.isfinite(np.asarray(result.attempt)).all()
    np.testing.assert_array_equal(np.asarray(result.delta), x - task.x)
    failed = status != Status.FOUND
    assert (x[failed] == task.x[failed]).all()
    guess = np.asarray(task.net(jnp.asarray(x))).argmax(1)[~failed]
    assert (guess != task.label[~failed] if target is None else guess == target[~failed]).all()


@every
@pytest.mark.parametrize("targeted", [False, True])
def test_contract(name: str, targeted: bool) -> None:
    target = task().target if targeted else None
    result = solve(task(), CONFIGS[name], target)
    check(task(), result, target)
    assert np.asarray(result.found).mean() > 0.5


@every
def test_mask_and_new_numbers(name: str) -> None:
    """Half of the features may change; other numbers, weights and bounds: nothing is compiled a second time."""
    reference = solve(task(), CONFIGS[name])
    config = jax.tree.map(lambda v: v * 1.01 if isinstance(v, float) else v + 1, CONFIGS[name])
    mask = np.random.default_rng(4).uniform(size=SHAPE) < 0.6
    other = task()._replace(x=(2 * task().x - 1).astype(np.float32))
    params = task().net.params  # the same function in the coordinates of [-1, 1]
    weights = {"w": params["w"] / 2, "b": params["b"] + params["w"].sum(0) / 2}
    other = other._replace(net=invjax.LogitsModel(weights, task().net.apply))
    with nets.compilations() as names:
        masked = solve(task(), config, mask=mask)
        scaled = solve(other, CONFIGS[name], bounds=(-1.0, 1.0))
    assert names == []
    check(task(), masked, None)
    assert (np.asarray(masked.delta)[:, ~mask] == 0).all()
    assert (np.asarray(masked.attempt)[:, ~mask] == task().x[:, ~mask]).all()
    assert np.asarray(masked.found).any()
    check(other, scaled, None, -1.0, 1.0)
    # The constants are shares of the box: the same answers in other units, up to rounding.
    assert (np.asarray(scaled.status) == np.asarray(reference.status)).mean() >= 0.9
    both = np.asarray(scaled.found) & np.asarray(reference.found)
    assert (np.abs(l0(scaled) - l0(reference))[both] <= 1).mean() >= 0.8


@every
def test_clean_input_and_flat_network(name: str) -> None:
    """The clean input is enough: one evaluation. A network without a gradient: NO_GRADIENT, nothing NaN."""
    swapped = task()._replace(label=task().target)  # the network says 0
    result = solve(swapped, CONFIGS[name], np.zeros(COUNT, np.int32))
    assert (np.asarray(result.status) == Status.ALREADY_TARGET).all()
    assert (np.asarray(result.evaluations) == 1).all()
    assert (np.asarray(result.x) == task().x).all()
    flat = invjax.LogitsModel(jax.tree.map(np.zeros_like, task().net.params), task().net.apply)
    with pytest.warns(UserWarning, match="NO_GRADIENT"):
        result = solve(task()._replace(net=flat), CONFIGS[name])
    assert (np.asarray(result.status) == Status.NO_GRADIENT).all()
    assert np.isfinite(np.asarray(result.attempt)).all()


# ---------------------------------------------------------------------------------------------------------------------
# The parts
# ---------------------------------------------------------------------------------------------------------------------
def problem(x: np.ndarray, lower: Any = 0.0, upper: Any = 1.0, mask: Any = None, groups: Any = None) -> Problem:
    low, high = (jnp.asarray(side, jnp.float32) for side in (lower, upper))
    place = jnp.int32(0)
    return Problem(jnp.asarray(x), place, jnp.int32(UNTARGETED), low, high, mask, groups, jax.random.key(0), place)


def _nearest(v: np.ndarray, candidate: np.ndarray, units: list[np.ndarray], k: int) -> float:
    """The least ‖u − v‖² over all choices of k units that take the candidate's values, the others 0."""
    best = np.inf
    for chosen in itertools.combinations(units, k):
        keep = np.any(chosen, axis=0) if k else np.zeros(v.shape, bool)
        best = min(best, float(np.square(np.where(keep, candidate, 0) - v).sum()))
    return best


@pytest.mark.parametrize("unit", ["pixel", "feature", "group"])
def test_projection_of_pgd0(unit: str) -> None:
    """Against every choice of k units; the released rule (keep what has slack) is not it."""
    rng = np.random.default_rng(0)
    shape = (2, 3, 2)
    groups = jnp.asarray([[[0, 0], [1, 1], [2, 2]], [[0, 0], [1, 3], [3, 3]]], jnp.int32)
    place = np.arange(12).reshape(shape)
    units = {
        "pixel": [place // 2 == i for i in range(6)],
        "feature": [place == i for i in range(12)],
        "group": [np.asarray(groups) == i for i in range(4)],
    }[unit]
    map_onto = jax.jit(lambda problem, config, v: project(problem, config, v))
    for trial in range(8):
        x = rng.uniform(size=shape).astype(np.float32)
        mask = rng.uniform(size=shape) < 0.8
        v = rng.normal(size=shape).astype(np.float32)
        k, eps = trial % 4, (1.0, 0.4)[trial % 2]
        config = PGD0(k=k, eps=eps, unit=unit)
        u = np.asarray(map_onto(problem(x, mask=jnp.asarray(mask), groups=groups), config, v))
        low, high = np.maximum(-x, -eps), np.minimum(1 - x, eps)
        assert (u[~mask] == 0).all()
        assert ((u >= low) & (u <= high)).all()
        assert sum(bool((u[one] != 0).any()) for one in units) <= k
        best = _nearest(v, np.where(mask, np.clip(v, low, high), 0), units, k)
        np.testing.assert_allclose(np.square(u - v).sum(), best, rtol=1e-5)


def test_sigma_map() -> None:
    """Against loops: standard deviations of three neighbours, edges replicated."""
    u = np.random.default_rng(1).uniform(size=(4, 5, 2)).astype(np.float32)
    expected = np.zeros_like(u)
    for i, j, c in np.ndindex(*u.shape):
        row = [u[i, min(max(j + s, 0), 4), c] for s in (-1, 0, 1)]
        column = [u[min(max(i + s, 0), 3), j, c] for s in (-1, 0, 1)]
        expected[i, j, c] = np.sqrt(min(np.std(row), np.std(column)))
    np.testing.assert_allclose(jax.jit(sigma_map)(u), expected, atol=2e-4)
    flat = np.full((3, 3, 1), 0.5, np.float32)
    assert (np.asarray(sigma_map(flat)) == 0).all()


@pytest.mark.parametrize("unit", ["pixel", "feature"])
def test_projection_of_the_sigma_map(unit: str) -> None:
    """λ of each unit against a dense grid over what κ and the box leave; the choice of units against all choices."""
    rng = np.random.default_rng(2)
    shape, kappa = (2, 3, 2), 0.8
    place = np.arange(12).reshape(shape)
    units = [place // 2 == i for i in range(6)] if unit == "pixel" else [place == i for i in range(12)]
    map_onto = jax.jit(lambda problem, config, v: project_sigma(problem, config, v))
    for trial in range(6):
        x = rng.uniform(size=shape).astype(np.float32)
        v = rng.normal(size=shape, scale=0.5).astype(np.float32)
        mask = rng.uniform(size=shape) < 0.8
        k = 1 + trial % 3
        # In a box of width 2, so that coordinates and data differ.
        given = problem(2 * x - 1, -1.0, 1.0, mask=jnp.asarray(mask))
        u = np.asarray(map_onto(given, SigmaMap(k=k, sigma_scale=kappa, unit=unit), v))
        d = np.where(mask, x * np.asarray(sigma_map(x)), 0)
        candidate = np.zeros(shape)
        for one in units:
            lam = np.linspace(-kappa, kappa, 20001)[:, None]
            moved = lam * d[one]
            inside = ((x[one] + moved >= -1e-9) & (x[one] + moved <= 1 + 1e-9)).all(1)
            cost = np.where(inside, np.square(moved - v[one]).sum(1), np.inf)
            candidate[one] = moved[cost.argmin()]
        assert (x + u > -1e-6).all()
        assert (x + u < 1 + 1e-6).all()
        assert sum(bool((u[one] != 0).any()) for one in units) <= k
        np.testing.assert_allclose(np.square(u - v).sum(), _nearest(v, candidate, units, k), rtol=1e-4)


def test_answers_of_the_sigma_map() -> None:
    """x' = x (1 + λσ) with |λ| <= κ, in at most k pixels."""
    config = CONFIGS["sigma-map"]
    result = solve(task(), config)
    found = np.asarray(result.status) == Status.FOUND
    sigma = np.asarray(jax.vmap(sigma_map)(jnp.asarray(task().x)))
    lam = np.asarray(result.delta)[found] / np.maximum(task().x * sigma, 1e-6)[found]
    assert np.abs(lam).max() <= config.sigma_scale * 1.001
    assert np.abs(lam).max() > 0.9 * config.sigma_scale
    assert (l0(result) <= config.k).all()


def test_pgd0_counts_pixels() -> None:
    for k in (3, 9):
        result = solve(task(), PGD0(k=k, steps=10, restarts=2))
        assert (l0(result) <= k).all()
        assert (np.abs(np.asarray(result.attempt) - task().x).reshape(COUNT, -1) > 0).sum(1).max() == k


def test_steps_of_sigma_zero() -> None:
    """Against the algorithm in NumPy, on given gradients: τ falls while the class is not reached, and rises after."""
    rng = np.random.default_rng(3)
    x = rng.uniform(0.2, 0.8, size=(5,)).astype(np.float32)
    given, config = problem(x, 0.0, 2.0), SigmaZero(steps=8, threshold=0.1, step_size=0.5, threshold_step=0.1)
    ctx = Context(lambda x: x)
    state = SigmaZero.method.init(ctx, given, config)
    tell = jax.jit(lambda state, ev: SigmaZero.method.tell(ctx, given, config, state, ev))
    r, mean, square, tau = np.zeros(5), np.zeros(5), np.zeros(5), 0.1
    for k in range(8):
        network = rng.normal(size=5)
        logits = np.array([1.0, 2.0]) if k >= 4 else np.array([2.0, 1.0])
        point = (x + 2 * r).astype(np.float32)
        np.testing.assert_allclose(SigmaZero.method.ask(ctx, given, config, state), point, atol=1e-5)
        ev = Eval(point, np.float32(0), network.astype(np.float32), logits.astype(np.float32))
        state = tell(state, jax.tree.map(jnp.asarray, ev))
        g = 2 * network + 2 * 1e-3 * r / (5 * (r * r + 1e-3) ** 2)
        g = g / np.abs(g).max()
        mean, square = 0.9 * mean + 0.1 * g, 0.999 * square + 0.001 * g * g
        eta = 0.5 * (0.1 + 0.9 * (1 + np.cos(np.pi * k / 8)) / 2)
        r = r - eta * (mean / (1 - 0.9 ** (k + 1))) / (np.sqrt(square / (1 - 0.999 ** (k + 1))) + 1e-8)
        r = np.clip(r, -x / 2, (2 - x) / 2)
        r[np.abs(r) < tau] = 0
        tau = np.clip(tau + (0.1 if k >= 4 else -0.1) * eta, 0, 1)
        np.testing.assert_allclose(state.threshold, tau, atol=1e-6)
    assert state.best.score == (np.asarray(state.best.x) != x).sum()


def test_gradient_of_the_smooth_l0_norm() -> None:
    r = np.array([0.0, -0.3, 1e-3, 2.0], np.float32)
    expected = jax.grad(lambda r: jnp.mean(r**2 / (r**2 + 1e-3)))(r)
    np.testing.assert_allclose(smooth_l0_grad(jnp.asarray(r), 1e-3), expected, rtol=1e-3)


def test_radius_of_fmn() -> None:
    """ε grows by one until the first success, then falls below it and around the boundary."""
    x = np.full(30, 0.5, np.float32)
    given, config, ctx = problem(x), FMN(steps=100, eps_rate=0.2, eps_rate_end=0.2), Context(lambda x: x)
    tell = jax.jit(lambda state, ev: FMN.method.tell(ctx, given, config, state, ev))
    state, seen = FMN.method.init(ctx, given, config), []
    for _ in range(30):
        point = jnp.clip(FMN.method.ask(ctx, given, config, state), 0, 1)
        count = int((np.asarray(point) != x).sum())
        assert count <= int(state.eps)
        logits = jnp.asarray([0.0, 1.0] if count >= 7 else [1.0, 0.0])
        state = tell(state, Eval(point, jnp.float32(0), -jnp.linspace(1, 2, 30), logits))
        seen.append(int(state.eps))
    # From 1 by one, or by a fifth where that is more; a success at 7 steps down to 5 (⌊0.8 · 7⌋).
    assert seen[:10] == [1, 2, 3, 4, 5, 6, 7, 5, 6, 7]
    assert set(seen[10:]) == {5, 6, 7}
    assert state.best.score == 7


# ---------------------------------------------------------------------------------------------------------------------
# Units
# ---------------------------------------------------------------------------------------------------------------------
def test_windows() -> None:
    """Sums over windows and what they cover, against loops."""
    rng = np.random.default_rng(5)
    shape, size = (5, 4, 2), 3
    ops, a = windows(shape, size), rng.normal(size=shape).astype(np.float32)
    chosen = np.zeros((3, 2, 1), bool)
    chosen[0, 1], chosen[2, 0] = True, True
    covered, sums = np.zeros(shape, bool), np.zeros((3, 2, 1))
    for i, j in np.ndindex(3, 2):
        sums[i, j, 0] = a[i : i + 3, j : j + 3].sum()
        covered[i : i + 3, j : j + 3] |= chosen[i, j, 0]
    np.testing.assert_allclose(ops.total(jnp.asarray(a)), sums, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(ops.spread(jnp.asarray(chosen)), covered)
    assert ops.shape == (3, 2, 1)
    assert windows((2, 9, 1), 4).shape == (1, 6, 1)  # a picture lower than the window


def test_group_masks_of_spgd() -> None:
    """At most k of the given groups change, and none that the mask closes; other groups do not compile."""
    rng = np.random.default_rng(6)
    quarters = (np.arange(8)[:, None] // 2 * 4 + np.arange(8) // 2)[:, :, None].astype(np.int32)
    scattered = rng.permutation(quarters.reshape(-1)).reshape(SHAPE)
    config = SparsePGD(k=5, steps=40, unit="group")
    mask = quarters != 5
    for turn, groups in enumerate((quarters, scattered)):
        with nets.compilations() as names:
            result = solve(task(), config, groups=groups, mask=mask, target=task().target)
        assert turn == 0 or names == []
        check(task(), result, task().target)
        tried = np.asarray(result.attempt) != task().x
        touched = np.array([[one[groups == g].any() for g in range(16)] for one in tried])
        assert touched.sum(1).max() == 5
        assert not (tried & ~mask).any()
        assert np.asarray(result.found).mean() > 0.3


def test_window_masks_of_spgd() -> None:
    """Two 3x3 squares anywhere: the changed pixels are covered by two, and not always by squares of a grid."""
    result = solve(task(), SparsePGD(k=2, steps=40, unit="window", patch=3))
    check(task(), result, None)
    assert np.asarray(result.found).any()
    squares = []
    for i, j in np.ndindex(6, 6):
        cover = np.zeros((8, 8), bool)
        cover[i : i + 3, j : j + 3] = True
        squares.append(cover)
    for row in np.flatnonzero(np.asarray(result.found))[:8]:
        changed = (np.asarray(result.delta)[row] != 0).any(-1)
        assert any(not (changed & ~(a | b)).any() for a, b in itertools.combinations(squares, 2))


def test_draws_of_spgd() -> None:
    """By the key and the example's id alone."""
    config = CONFIGS["spgd"]
    one, again = (solve(task(), config, key=jax.random.key(1)) for _ in range(2))
    nets.same(one, again)
    other = solve(task(), config, key=jax.random.key(2))
    assert (np.asarray(other.attempt) != np.asarray(one.attempt)).any()
    order = np.random.default_rng(0).permutation(COUNT).astype(np.int32)
    moved = nets.Task(task().net, task().x[order], task().label[order], task().target[order])
    nets.same(solve(moved, config, key=jax.random.key(1), ids=order), one[order])


def test_units() -> None:
    x = np.full((4, 4, 3), 0.5, np.float32)
    moved = x.copy()
    moved[0, 0, :2], moved[3, 3, 0] = 0.1, 0.2
    given = problem(x)
    counts = {unit: int(units.count(units.grouping_of(given, unit, 2), moved - x)) for unit in get_args(units.Unit)}
    assert counts == {"feature": 3, "pixel": 2, "group": 2}
    given = given._replace(groups=jnp.zeros(x.shape, jnp.int32))
    assert int(units.count(units.grouping_of(given, "group"), jnp.asarray(moved - x))) == 1


@pytest.mark.parametrize("method", [PGD0(), SigmaMap(), SparsePGD(), FMN(unit="group"), SparsePGD(unit="window")])
def test_images_are_asked_for(method: Any) -> None:
    net = nets.linear((6,))
    x = np.full((2, 6), 0.5, np.float32)
    with pytest.raises(ValueError, match="x must be images"):
        invjax.solve(net, x, np.zeros(2, np.int32), method=method, progress=False)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: FMN(eps_rate=1.0), r"FMN.eps_rate must be in \[0, 1\), was 1.0"),
        (lambda: SigmaZero(smoothing=0.0), "SigmaZero.smoothing must be above 0"),
        (lambda: PGD0(unit="patch"), "PGD0.unit must be one of"),
        (lambda: SigmaMap(unit="group"), "SigmaMap.unit must be one of"),
        (lambda: SparsePGD(k=0), "SparsePGD.k must be at least 1"),
        (lambda: EAD(growth=1.0), "EAD.growth must be above 1"),
    ],
)
def test_constants_are_checked(build: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        invjax.solve(task().net, task().x, task().label, method=build(), progress=False)
