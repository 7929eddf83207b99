"""S-CFE as released: each reproduced error by its number, the whole loop against NumPy, and the library's own protocol.

``python tests/test_scfe_released.py [SEED ...]`` prints the table of docs/scfe_released.md (INVJAX_DATA set).
"""

from __future__ import annotations

import dataclasses
import os
import sys
import time
from functools import cache
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import nets
import numpy as np
import optax
import pytest
from scipy.special import logsumexp

import invjax
from invjax import Status, prox
from invjax.counterfactuals import scfe_released as released
from invjax.counterfactuals.scfe_released import SCFEReleased
from invjax.densities.released import fit_released_gmm, fit_released_gravity, fit_released_kde

WIDE = (-1e4, 1e4)


# ---------------------------------------------------------------------------------------------------------------------
# The errors, one by one
# ---------------------------------------------------------------------------------------------------------------------
@pytest.mark.fast
def test_half_threshold_has_half_the_weight() -> None:
    """y = 1.6, 1.4 and w = 1: 1.387783, 1.168752 where the proximal map is 1.129545, 0."""
    got = released.half_threshold(jnp.array([1.6, 1.4]), 1.0, -9.0, 9.0)
    np.testing.assert_allclose(got, [1.387783, 1.168752], atol=2e-6)
    np.testing.assert_allclose(prox.l_half(jnp.array([1.6, 1.4]), 1.0), [1.129545, 0.0], atol=2e-6)


def test_half_threshold_is_clipped_afterwards() -> None:
    """In a box up to .25 the map of the sum is 0; the released one stops at the wall, at a larger objective."""
    assert float(released.half_threshold(1.6, 1.0, -0.25, 0.25)) == 0.25
    assert float(prox.l_half(1.6, 1.0, lower=-0.25, upper=0.25)) == 0.0


def _lengths(schedule: str, count: int = 200) -> np.ndarray:
    """The lengths of a trial's steps, read off the states that the method passes through."""
    config = SCFEReleased(steps=count, step_size=1.0, schedule=schedule, lower=0.0, upper=1.0)
    x = jnp.zeros(1)
    problem = invjax.types.Problem(
        x, jnp.int32(0), jnp.int32(1), jnp.float32(0), jnp.float32(1), None, None, jax.random.key(0), jnp.int32(0)
    )
    ctx, method = invjax.types.Context(lambda x: x), SCFEReleased.method
    ev = invjax.types.Eval(x, jnp.float32(0), x, jnp.array([1.0, 0.0]))

    def turn(state: Any, _: None) -> tuple[Any, jax.Array]:
        state = method.tell(ctx, problem, config, state, ev)
        return state, state.step_size

    return np.asarray(jax.lax.scan(turn, method.init(ctx, problem, config), None, length=count)[1])


def test_step_decay_compounds() -> None:
    """Over 200 steps 24.4 first steps instead of 133.8: a tenth from step 41, a hundredth from 58, 1e-6 from 95."""
    length = _lengths("released")
    np.testing.assert_allclose(length.sum(), 24.396, atol=2e-3)
    assert [int(np.argmax(length < limit)) for limit in (0.1, 0.01, 1e-6)] == [41, 58, 95]
    intended = _lengths("sqrt")
    np.testing.assert_allclose(intended.sum(), 133.819, atol=2e-3)
    np.testing.assert_allclose(intended, np.sqrt(1 - np.arange(200) / 200), rtol=1e-5)


@pytest.mark.fast
def test_loss_is_dead_where_the_probability_saturates() -> None:
    """Above a logit of 16.6 float32 has σ = 1: no slope, whatever γ; the same row far on the other side has one."""
    slope = jax.grad(lambda z: released._hinge(jnp.stack([0.0 * z, z]), jnp.int32(1), jnp.int32(0), 0.0))
    assert float(slope(17.0)) == 0.0
    assert float(slope(15.0)) > 0
    slope = jax.grad(lambda z: released._hinge(jnp.stack([0.0 * z, z]), jnp.int32(0), jnp.int32(1), 0.0))
    assert float(slope(-17.0)) < 0


def test_hinge_formulas() -> None:
    """Two classes ``max(0, c − y(2σ − 1))``; more ``max(0, max_{j≠t} Z_j − Z_t + c)``."""
    for z, target, c in [(1.2, 0, 0.0), (1.2, 1, 0.9), (-0.3, 1, 0.1), (0.4, 0, 0.0)]:
        want = max(0.0, c - (2 * target - 1) * (2 / (1 + np.exp(-z)) - 1))
        got = released._hinge(jnp.array([0.5, 0.5 + z]), jnp.int32(1 - target), jnp.int32(target), c)
        np.testing.assert_allclose(got, want, rtol=1e-5)
    three = jnp.array([0.2, 1.5, -1.0])
    np.testing.assert_allclose(released._hinge(three, jnp.int32(1), jnp.int32(2), 0.5), 3.0, rtol=1e-6)
    assert float(released._hinge(three, jnp.int32(0), jnp.int32(1), 0.5)) == 0.0


# ---------------------------------------------------------------------------------------------------------------------
# The densities
# ---------------------------------------------------------------------------------------------------------------------
def _cloud(count: int = 60, width: int = 13) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(3)
    y = (np.arange(count) % 2).astype(np.int32)
    return (rng.normal(size=(count, width)) + y[:, None]).astype(np.float32), y


def test_kde_formula() -> None:
    x, y = _cloud()
    kde = fit_released_kde(x, y, bandwidth=np.array([0.7, 1.3]))
    point = np.random.default_rng(0).normal(size=13).astype(np.float32)
    for label, h in ((0, 0.7), (1, 1.3)):
        own = x[y == label]
        want = logsumexp(-np.square(point - own).sum(1) / (2 * h * h)) - np.log(len(own) * h * np.sqrt(2 * np.pi))
        np.testing.assert_allclose(kde.log_prob(jnp.asarray(point), label), want, rtol=1e-5)


def test_kde_normaliser_widens_the_bandwidth() -> None:
    """With ``−h`` for ``−d h`` in the normaliser cross-validation takes a kernel several times too wide."""
    x, y = _cloud()
    own = x[y == 0].astype(np.float64)

    def likelihood(h: float) -> float:
        """Of the held-out rows, with the right normaliser."""
        total = 0.0
        for held in np.array_split(np.arange(len(own)), 5):
            rest = np.delete(own, held, 0)
            square = np.square(own[held, None] - rest).sum(2)
            total += (logsumexp(-square / (2 * h * h), axis=1) - own.shape[1] * np.log(h)).sum()
        return total

    right = max(np.linspace(0.1, 6, 60).tolist(), key=likelihood)
    coded = float(fit_released_kde(x, y).bandwidth[0])
    assert coded > 3 * right, (coded, right)
    # The mean over five folds of points of the grid of 20 in [h/2, 2h] around a coarse 5.
    fifths = (coded - 2.5) / (7.5 / 19 / 5)
    assert abs(fifths - round(fifths)) < 1e-4


def test_bandwidths_of_housing(data_dir: Path) -> None:
    """What the coded cross-validation chooses on the 406 training rows; a right one is about .5."""
    x, y, _, _ = _housing(data_dir)
    np.testing.assert_allclose(fit_released_kde(x, y).bandwidth, [4.23684, 3.52632], atol=1e-4)


def test_gmm_has_more_components_than_asked() -> None:
    x, y = _cloud(160, 4)
    gmm = fit_released_gmm(x, y)
    assert gmm.mean.shape == (2, 7, 4)
    np.testing.assert_allclose(np.exp(gmm.log_weight).sum(1), 1, rtol=1e-5)
    # An independent evaluation, and a fit better than one Gaussian's.
    point = x[0].astype(np.float64)
    mean, variance = np.asarray(gmm.mean[0], np.float64), np.asarray(gmm.variance[0], np.float64)
    joint = np.asarray(gmm.log_weight[0]) - 0.5 * (
        np.square(point - mean) / variance + np.log(2 * np.pi * variance)
    ).sum(1)
    np.testing.assert_allclose(gmm.log_prob(jnp.asarray(x[0]), 0), logsumexp(joint), rtol=1e-4)
    own = x[y == 0]
    single = -0.5 * (np.square(own - own.mean(0)) / own.var(0) + np.log(2 * np.pi * own.var(0))).sum(1)
    assert float(jax.vmap(lambda p: gmm.log_prob(p, 0))(jnp.asarray(own)).mean()) > single.mean()


def test_gravity_formula() -> None:
    x, y = _cloud(40, 3)
    gravity = fit_released_gravity(x, y, k=4)
    factual = x[0]
    own = x[y == 1].astype(np.float64)
    near = np.argsort(np.linalg.norm(own - factual, axis=1))[:4]
    among = np.sort(np.linalg.norm(own[:, None] - own, axis=2), axis=1)[:, 1:5]
    weight = (4 / among.sum(1))[near]
    want = (weight[:, None] * own[near]).sum(0) / weight.sum()
    np.testing.assert_allclose(gravity.anchor(jnp.asarray(factual), 1), want, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("fit", "options", "message"),
    [
        (fit_released_kde, {"y": np.zeros(3, int)}, r"shape \(8,\)"),
        (fit_released_kde, {"y": np.full(8, 0.5)}, "y must be classes"),
        (fit_released_kde, {"y": np.array([0, 0, 0, 0, 0, 0, 2, 2])}, "class 1 has 0"),
        (
            fit_released_kde,
            {"y": np.array([0, 0, 0, 0, 0, 0, 0, 1])},
            r"at least 5 points .*; class 1 has 1",
        ),
        (fit_released_kde, {"bandwidth": 0.0}, "bandwidth must be positive"),
        (fit_released_kde, {"x": np.full((8, 2), np.nan)}, "x must be finite"),
        (fit_released_gmm, {}, r"at least 7 points of each class .*class 0 has 4"),
        (fit_released_gmm, {"components": 1}, "components must be"),
        (fit_released_gravity, {"k": 4}, r"at least 5 points of each class .k = 4 others"),
    ],
)
def test_bad_reference_points(fit: Any, options: dict[str, Any], message: str) -> None:
    given = {"x": np.arange(16.0).reshape(8, 2), "y": np.array([0, 1] * 4), **options}
    with pytest.raises(ValueError, match=message):
        fit(**given)


# ---------------------------------------------------------------------------------------------------------------------
# The whole loop against NumPy
# ---------------------------------------------------------------------------------------------------------------------
def _apply(params: dict, x: jax.Array) -> jax.Array:
    z = x @ params["a"] + params["b"]
    return jnp.stack([jnp.zeros_like(z), z], axis=-1)


SLOPE = np.array([1.0, -0.7, 0.4, 0.2])
NET = invjax.LogitsModel({"a": np.float32(SLOPE), "b": np.float32(0.3)}, _apply)
LOWER, UPPER = np.full(4, -2.0, np.float32), np.array([3.0, 2.0, 2.0, 4.0], np.float32)


def _rows(count: int = 12) -> tuple[np.ndarray, np.ndarray]:
    x = np.random.default_rng(5).uniform(LOWER * 0.9, UPPER * 0.9, (count, 4)).astype(np.float32)
    return x, (x @ SLOPE + 0.3 > 0).astype(np.int32)


@cache
def _kde() -> Any:
    x, y = _rows(80)
    return fit_released_kde(x, y, bandwidth=1.5)


def _by_hand(x: np.ndarray, target: int, config: SCFEReleased) -> np.ndarray | None:
    """(12) in float64, one row: loops, and every formula written out again."""
    s, y = (UPPER - LOWER).astype(np.float64), 2 * target - 1
    start = (x - LOWER) / s
    points, labels = _rows(80)
    own, h = points[labels == target].astype(np.float64), 1.5
    gamma, low, high, found = config.gamma, 0.0, None, None
    for _ in range(config.trials):
        w, v, t, step = np.zeros(4), np.zeros(4), 1.0, config.step_size
        for i in range(config.steps):
            factor = np.sqrt(1 - i / config.steps)
            step = step * factor if config.schedule == "released" else config.step_size * factor
            z = LOWER + s * (start + w)
            q = 1 / (1 + np.exp(-(z @ SLOPE + 0.3)))
            slope = -y * 2 * q * (1 - q) * SLOPE if -y * (2 * q - 1) + config.kappa > 0 else np.zeros(4)
            weight = np.exp(-np.square(z - own).sum(1) / (2 * h * h))
            density = weight @ (own - z) / weight.sum() / h**2
            u = w - step * (2 * w + s * (gamma * slope - config.tau * density))
            clipped = np.clip(u, -start, 1 - start)
            gain, lam = u**2 - (clipped - u) ** 2, step * config.beta
            if config.max_changes is not None:
                new = np.where(np.argsort(np.argsort(-gain)) < config.max_changes, clipped, 0)
            elif config.penalty == "l0":
                new = np.where(gain < 2 * lam, 0, clipped)
            elif config.penalty == "l1":
                new = np.clip(np.sign(u) * np.maximum(abs(u) - lam, 0), -start, 1 - start)
            else:  # Xu's map of (z − u)² + lam |z|^½, then the box
                safe = np.maximum(abs(u), 1e-9)
                angle = np.arccos(np.clip(lam / 8 * (safe / 3) ** -1.5, -1, 1))
                root = 2 / 3 * safe * (1 + np.cos(2 * np.pi / 3 - 2 / 3 * angle))
                jump = 54 ** (1 / 3) / 4 * lam ** (2 / 3)
                new = np.clip(np.where(abs(u) > jump, np.sign(u) * root, 0), -start, 1 - start)
            grown = (1 + np.sqrt(1 + 4 * t * t)) / 2
            w, v, t = new + (t - 1) / grown * (new - v), new, grown
        q = 1 / (1 + np.exp(-((LOWER + s * (start + v)) @ SLOPE + 0.3)))
        if y * (2 * q - 1) > config.kappa:
            found = v if found is None or np.square(v).sum() < np.square(found).sum() else found
            high, gamma = gamma, (low + gamma) / 2
        else:
            low, gamma = gamma, 10 * gamma if high is None else (gamma + high) / 2
    return None if found is None else x + s * found


BASE = SCFEReleased(steps=25, trials=5, step_size=0.1, beta=0.02, tau=0.01, kappa=0.05, lower=LOWER, upper=UPPER)


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"max_changes": 2},
        {"penalty": "l_half"},
        {"penalty": "l1"},
        {"max_changes": 1, "schedule": "sqrt", "tau": 0.05},
    ],
    ids=["l0", "ball", "half", "l1", "sqrt"],
)  # fmt: skip
def test_equals_the_formulas(change: dict[str, Any]) -> None:
    """Row by row the answer of a NumPy loop in float64; rounding may tip a row whose trials end on the boundary."""
    config = dataclasses.replace(BASE, **change)
    x, label = _rows()
    got = invjax.solve(NET, x, label, target=1 - label, method=config, bounds=WIDE, density=_kde())
    want = [_by_hand(row, 1 - c, config) for row, c in zip(x.astype(np.float64), label, strict=True)]
    solved = np.array([one is not None for one in want])
    assert solved.sum() >= 6
    np.testing.assert_array_equal(np.asarray(got.status) == Status.FOUND, solved)
    off = [np.abs(np.asarray(got.x[i]) - want[i]).max() for i in np.flatnonzero(solved)]
    assert np.sum(np.array(off) < 2e-3) >= solved.sum() - 1, off
    assert (np.asarray(got.evaluations) == 5 * 26).all()
    if config.max_changes is not None:
        assert ((np.asarray(got.delta) != 0).sum(1) <= config.max_changes).all()
    assert ((got.x >= LOWER - 1e-5) & (got.x <= UPPER + 1e-5)).all()


def test_gravity_pulls_to_the_point_of_the_factual() -> None:
    """τ ‖(x' − g)/s‖² with g fixed: without a loss on the classifier the answer is the mean of x and g at τ = 1."""
    points, labels = _rows(80)
    gravity = fit_released_gravity(points, labels, k=5)
    x, label = _rows()
    config = dataclasses.replace(BASE, beta=0.0, tau=1.0, gamma=1e-9, trials=1, steps=60, kappa=0.0)
    got = invjax.solve(NET, x, label, target=1 - label, method=config, bounds=WIDE, density=gravity)
    center = jax.vmap(gravity.anchor)(jnp.asarray(x), jnp.asarray(1 - label))
    np.testing.assert_allclose(got.attempt[~got.found], ((x + center) / 2)[~got.found], atol=5e-3)
    assert (~np.asarray(got.found)).sum() >= 3


# ---------------------------------------------------------------------------------------------------------------------
# The library's protocol
# ---------------------------------------------------------------------------------------------------------------------
def _solve(config: SCFEReleased = BASE, **options: Any) -> invjax.Result:
    x, label = _rows()
    options = {"target": 1 - label, "bounds": WIDE, "density": _kde(), "progress": False, **options}
    return invjax.solve(NET, x, label, method=config, **options)


def test_alone_in_a_batch_and_in_the_queue() -> None:
    x, label = _rows()
    batch = _solve()
    nets.same(batch, _solve(lanes=12))
    nets.alike(batch, _solve(lanes=4), 0.9)
    one = invjax.solve(NET, x[3], label[3], target=1 - label[3], method=BASE, bounds=WIDE, density=_kde())
    assert int(one.status) == int(batch.status[3])
    np.testing.assert_allclose(one.x, batch.x[3], atol=1e-3)


def test_already_target_and_failure_return_the_clean_input() -> None:
    x, label = _rows()
    said = np.where(np.arange(12) < 4, 1 - label, label)  # the first four are misclassified already
    hopeless = dataclasses.replace(BASE, tau=0.0, gamma=1e-9, trials=2)
    got = invjax.solve(NET, x, said, target=1 - said, method=hopeless, bounds=WIDE, density=_kde())
    assert (np.asarray(got.status)[:4] == Status.ALREADY_TARGET).all()
    assert (np.asarray(got.evaluations)[:4] == 1).all()
    assert (np.asarray(got.status)[4:] == Status.NOT_FOUND).all()
    np.testing.assert_array_equal(got.x, x)
    assert not np.asarray(got.delta).any()


def test_a_broken_row_disturbs_no_other() -> None:
    x, label = _rows()
    good = _solve()
    poisoned = invjax.LogitsModel({**NET.params, "at": x[2]}, _poisoned)
    got = invjax.solve(poisoned, x, label, target=1 - label, method=BASE, bounds=WIDE, density=_kde())
    assert int(got.status[2]) == Status.NONFINITE
    others = np.arange(12) != 2
    np.testing.assert_array_equal(np.asarray(got.status)[others], np.asarray(good.status)[others])
    np.testing.assert_allclose(np.asarray(got.x)[others], np.asarray(good.x)[others], atol=1e-3)


def _poisoned(params: dict, x: jax.Array) -> jax.Array:
    bad = (x == params["at"]).all(-1, keepdims=True)
    return jnp.where(bad, jnp.full((), jnp.nan), _apply(params, x))


def test_new_numbers_do_not_compile() -> None:
    _solve(dataclasses.replace(BASE, max_changes=2))
    with nets.compilations() as names:
        _solve(dataclasses.replace(BASE, max_changes=1, gamma=0.3, tau=0, beta=0.1, steps=7, trials=2, step_size=0.2))
    assert "run_batch" not in " ".join(names), names


def test_box_mask_and_default_limits() -> None:
    """Without limits of its own the scale and box are the problem's; masked features stay, bit for bit."""
    x, _ = _rows()
    mask = np.array([True, False, True, True])
    config = dataclasses.replace(BASE, lower=None, upper=None)
    got = _solve(config, bounds=(LOWER, UPPER), mask=mask)
    assert got.found.sum() >= 6
    np.testing.assert_array_equal(np.asarray(got.x)[:, 1], x[:, 1])
    assert ((got.x >= LOWER) & (got.x <= UPPER)).all()


def test_range_in_the_wrong_unit_leaves_the_box() -> None:
    """The released defaults take the box in data units for one of scaled values: features leave their range."""
    pushing = dataclasses.replace(BASE, tau=0.0, kappa=0.99, trials=8)
    inside = _solve(pushing)
    outside = _solve(dataclasses.replace(pushing, range_lower=LOWER, range_upper=UPPER))
    assert ((inside.x >= LOWER - 1e-5) & (inside.x <= UPPER + 1e-5)).all()
    assert ((outside.x < LOWER - 0.1) | (outside.x > UPPER + 0.1)).any()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_dtype_follows_x(dtype: Any) -> None:
    """With densities fitted in float32; nothing is promoted on the way in float32."""
    x, label = _rows()
    reference, classes = _rows(80)
    density = fit_released_gmm(reference, classes, components=2, steps=5)
    enable_x64 = jax.enable_x64 if hasattr(jax, "enable_x64") else jax.experimental.enable_x64
    wide = dtype == np.float64
    with enable_x64(wide), jax.numpy_dtype_promotion("standard" if wide else "strict"):
        net = invjax.LogitsModel({"a": SLOPE.astype(dtype), "b": dtype(0.3)}, _apply)
        got = invjax.solve(net, x.astype(dtype), label, target=1 - label, method=BASE, bounds=WIDE, density=density)
    assert got.x.dtype == dtype
    assert np.asarray(got.found).sum() >= 6


def test_several_classes_and_untargeted() -> None:
    task = nets.task(nets.conv(), count=6)
    config = SCFEReleased(penalty="l1", beta=1e-3, step_size=0.2, steps=15, trials=4)
    got = invjax.solve(task.net, task.x, task.label, target=task.target, method=config)
    free = invjax.solve(task.net, task.x, task.label, method=config)
    for result, target in ((got, task.target), (free, None)):
        predicted = np.asarray(task.net(jnp.asarray(result.x))).argmax(1)
        found = np.asarray(result.status) == Status.FOUND
        assert found.sum() >= 3
        assert (
            (predicted[found] == target[found]).all() if target is not None else (predicted != task.label)[found].all()
        )


@pytest.mark.parametrize(
    "wrong",
    [
        {"gamma": 0.0}, {"step_size": -1.0}, {"tau": -1.0}, {"beta": np.inf}, {"kappa": -0.1}, {"steps": 0},
        {"trials": 0}, {"max_changes": 0}, {"max_changes": 1.5}, {"penalty": "l_two_thirds"}, {"schedule": "cosine"},
        {"lower": np.ones(4), "upper": np.zeros(4)}, {"lower": np.nan}, {"range_lower": 2.0},
    ],
)  # fmt: skip
def test_bad_constants(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        SCFEReleased(**wrong).check()


# ---------------------------------------------------------------------------------------------------------------------
# Boston Housing
# ---------------------------------------------------------------------------------------------------------------------
@cache
def _housing(folder: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Train 406 and test 100 rows: CHAS dropped, z-scored over all rows, label MEDV >= median, permuted by seed 1."""
    table = np.loadtxt(folder / "tabular" / "boston_housing_mlxtend.csv", delimiter=",")
    x, y = np.delete(table[:, :13], 3, axis=1), (table[:, 13] >= np.median(table[:, 13])).astype(np.int32)
    x = ((x - x.mean(0)) / x.std(0)).astype(np.float32)
    order = np.random.RandomState(1).permutation(len(x))  # the split of the published comparison
    return x[order[:406]], y[order[:406]], x[order[406:]], y[order[406:]]


def _network(params: list, x: jax.Array) -> jax.Array:
    """Two logits (0, z) of a network with one output."""
    for w, b in params[:-1]:
        x = jax.nn.relu(x @ w + b)
    z = (x @ params[-1][0] + params[-1][1])[..., 0]
    return jnp.stack([jnp.zeros_like(z), z], axis=-1)


def _train(x: np.ndarray, y: np.ndarray, seed: int, epochs: int = 80) -> list:
    """12-20-20-1, Adam .005 falling linearly to a hundredth, batches of 32, cross-entropy."""
    rng = np.random.default_rng(seed)
    sizes = [(x.shape[1], 20), (20, 20), (20, 1)]
    params = [
        tuple(jnp.asarray(rng.uniform(-1, 1, shape) / np.sqrt(a), jnp.float32) for shape in ((a, b), (b,)))
        for a, b in sizes
    ]
    adam = optax.adam(optax.linear_schedule(0.005, 5e-5, epochs * -(-len(x) // 32)))

    @jax.jit
    def step(params: list, state: Any, rows: jax.Array, labels: jax.Array) -> tuple[list, Any]:
        def loss(params: list) -> jax.Array:
            return optax.softmax_cross_entropy_with_integer_labels(_network(params, rows), labels).mean()

        update, state = adam.update(jax.grad(loss)(params), state)
        return optax.apply_updates(params, update), state  # type: ignore[return-value]

    state = adam.init(params)
    for _ in range(epochs):
        order = rng.permutation(len(x))
        for part in np.array_split(order, np.arange(32, len(x), 32)):
            params, state = step(params, state, x[part], y[part])
    return params


def test_housing_reaches_the_released_code(data_dir: Path) -> None:
    """A few rows, the l0 ball: most valid, l0 as asked, a median LOF near real rows'; shorter than the table's."""
    neighbors = pytest.importorskip("sklearn.neighbors")
    x, y, test, _ = _housing(data_dir)
    net = invjax.LogitsModel(_train(x, y, seed=0, epochs=15), _network)
    test = test[:24]
    label = np.asarray(net(jnp.asarray(test))).argmax(1).astype(np.int32)
    low, high = np.minimum(x.min(0), test.min(0)), np.maximum(x.max(0), test.max(0))
    config = SCFEReleased(max_changes=3, step_size=0.05, lower=low, upper=high, steps=80, trials=5)
    got = invjax.solve(
        net, test, label, target=1 - label, method=config, bounds=WIDE, density=fit_released_kde(x, y), progress=False
    )
    found = np.asarray(got.found)
    assert found.sum() >= 21
    assert ((np.asarray(got.delta) != 0).sum(1) <= 3).all()
    outlier = [
        -neighbors.LocalOutlierFactor(n_neighbors=20, novelty=True).fit(x[y == c]).score_samples(
            np.asarray(got.x)[found & (label != c)]
        )
        for c in (0, 1)
    ]  # fmt: skip
    assert 0.95 < np.median(np.concatenate(outlier)) < 1.2


def _table(seeds: list[int]) -> None:
    """The table of docs/scfe_released.md."""
    from sklearn.neighbors import LocalOutlierFactor

    x, y, test, truth = _housing(Path(os.environ["INVJAX_DATA"]))
    low, high = np.minimum(x.min(0), test.min(0)), np.maximum(x.max(0), test.max(0))
    kde, gmm = fit_released_kde(x, y), fit_released_gmm(x, y)
    ball = SCFEReleased(step_size=0.05, lower=low, upper=high)
    lines = {f"l0 ball m = {m}": (dataclasses.replace(ball, max_changes=m), kde) for m in (1, 2, 3)}
    lines["p = 0"] = (SCFEReleased(lower=low, upper=high), kde)
    lines["m = 3, GMM"] = (dataclasses.replace(ball, max_changes=3), gmm)
    lines["m = 3, no density"] = (dataclasses.replace(ball, max_changes=3), None)
    lines["p = 0, sqrt"] = (SCFEReleased(lower=low, upper=high, schedule="sqrt"), kde)
    lines["p = 1/2"] = (dataclasses.replace(ball, penalty="l_half"), kde)
    lines["p = 1"] = (dataclasses.replace(ball, penalty="l1"), kde)
    for seed in seeds:
        net = invjax.LogitsModel(_train(x, y, seed), _network)
        logit = np.asarray(net(jnp.asarray(test)))[:, 1]
        label = (logit >= 0).astype(np.int32)
        lof = [LocalOutlierFactor(n_neighbors=20, novelty=True).fit(x[y == c]) for c in (0, 1)]
        print(f"seed {seed}: accuracy {(label == truth).mean():.2f}, {(abs(logit) > 16.6).sum()} logits beyond 16.6")
        for name, (config, density) in lines.items():
            for _ in range(2):  # the second call is warm
                begin = time.perf_counter()
                got = invjax.solve(
                    net, test, label, target=1 - label, method=config, bounds=WIDE, density=density, lanes=100
                )
                found = np.asarray(got.found)
                seconds = time.perf_counter() - begin
            delta, answer = np.asarray(got.delta)[found], np.asarray(got.x)[found]
            score = [-lof[1 - c].score_samples(row[None])[0] for row, c in zip(answer, label[found], strict=True)]
            print(
                f"  {name:18} valid {found.sum():3d}  l2 {np.sqrt(np.square(delta).sum(1)).mean():.2f}  "
                f"l0 {(abs(delta) > 1e-4).sum(1).mean():.2f}  LOF {np.mean(score):.3f}  rows/s {100 / seconds:.0f}"
            )


if __name__ == "__main__":
    _table([int(a) for a in sys.argv[1:]] or [0])
