"""S-CFE against closed forms, enumeration and grids; every form of input."""

from __future__ import annotations

import itertools
from functools import cache
from typing import Any

import cf_helpers
import jax
import jax.numpy as jnp
import nets
import numpy as np
import pytest
from oracles import power, x64

import invjax
from invjax import Status, engine, losses
from invjax.core.errors import BadArgument
from invjax.counterfactuals import SCFE, MadL1, Mahalanobis, SCFEReleased
from invjax.engine import checks, lanes

D, KAPPA, BOX = 6, 0.05, cf_helpers.BOX


# ---------------------------------------------------------------------------------------------------------------------
# A linear classifier: a·r >= s in a box, at most m entries
# ---------------------------------------------------------------------------------------------------------------------
@cache
def flat() -> nets.Task:
    """Rows in [-2, 2]^6, two classes; the half-space is not always within reach of one feature."""
    rng = np.random.default_rng(0)
    net = invjax.LogitsModel(
        {"w": rng.normal(size=(D, 2)).astype(np.float32), "b": np.zeros(2, np.float32)}, nets._linear
    )
    x = rng.uniform(-1.8, 1.8, size=(24, D)).astype(np.float32)
    x[:3] = 1.7 * np.sign(net.params["w"] @ [1, -1])  # far inside
    label = np.asarray(net(jnp.asarray(x))).argmax(1).astype(np.int32)
    return nets.Task(net, x, label, 1 - label)


def half_space(task: nets.Task, kappa: float = KAPPA) -> tuple[np.ndarray, np.ndarray]:
    w = np.asarray(task.net.params["w"], np.float64)
    a = (w[:, 1] - w[:, 0]) * np.where(task.target == 1, 1, -1)[:, None]
    return a, kappa - (a * task.x).sum(1)


def onto(a: np.ndarray, s: float, low: np.ndarray, high: np.ndarray) -> np.ndarray | None:
    """The shortest r with a·r >= s in the box: r = clip(λ a), by bisection in λ."""
    if np.where(a > 0, a * high, a * low).sum() < s:
        return None
    left, right = 0.0, 1.0
    while np.clip(right * a, low, high) @ a < s:
        right *= 2
    for _ in range(80):
        middle = (left + right) / 2
        left, right = (middle, right) if np.clip(middle * a, low, high) @ a < s else (left, middle)
    return np.clip(right * a, low, high)


def sparsest(a: np.ndarray, s: float, x: np.ndarray, m: int) -> float:
    """The least ‖r‖² over all supports of m; infinity where none reaches."""
    best = np.inf
    for support in itertools.combinations(range(len(a)), m):
        keep = np.isin(np.arange(len(a)), support)
        r = onto(a, s, np.where(keep, BOX[0] - x, 0), np.where(keep, BOX[1] - x, 0))
        best = best if r is None else min(best, float(r @ r))
    return best


def solve(task: nets.Task, config: Any, **options: Any) -> invjax.Result:
    options = {"target": task.target, "bounds": BOX, "lanes": len(task.x), "progress": False, **options}
    return invjax.solve(task.net, task.x, task.label, method=config, **options)


def squares(result: invjax.Result) -> np.ndarray:
    return np.square(np.asarray(result.delta, np.float64)).reshape(len(result.status), -1).sum(1)


def check(task: nets.Task, result: invjax.Result, m: int, targeted: bool = True) -> np.ndarray:
    """In the box, at most m changed, valid with the margin; the rest the clean input. Returns who was found."""
    x, delta = np.asarray(result.x), np.asarray(result.delta).reshape(len(task.x), -1)
    assert x.dtype == task.x.dtype
    assert (x >= BOX[0]).all()
    assert (x <= BOX[1]).all()
    assert ((delta != 0).sum(1) <= m).all()
    found = np.asarray(result.status) == Status.FOUND
    assert (delta[~found] == 0).all()
    assert (cf_helpers.gaps(task, x, targeted)[found] <= -KAPPA + 1e-5).all()
    assert np.isfinite(np.asarray(result.attempt)).all()
    return found


@pytest.mark.fast
def test_l0_ball_is_the_best_support() -> None:
    task = flat()
    a, s = half_space(task)
    for m in (1, 2, 3, 6):
        result = solve(task, SCFE(max_changes=m))
        found = check(task, result, m)
        best = np.array([sparsest(*row, m) for row in zip(a, s, task.x, strict=True)])
        np.testing.assert_array_equal(found, np.isfinite(best))
        ratio = squares(result)[found] / best[found]
        # a tenth more than the margin is aimed at
        assert (np.sqrt(ratio) < 1.01 + 0.006 / s[found] * 1.5).all(), np.sqrt(ratio)
        assert (ratio > 1 - 1e-4).all()
    assert not np.isfinite([sparsest(*row, 1) for row in zip(a, s, task.x, strict=True)]).all(), "some are out of reach"


def test_margin() -> None:
    """The wanted margin; not much more."""
    task = flat()
    for kappa in (0.0, 0.5):
        result = solve(task, SCFE(kappa=kappa))
        found = np.asarray(result.status) == Status.FOUND
        gap = cf_helpers.gaps(task, result.x)[found]
        assert found.sum() >= 18
        assert (gap <= -kappa + 1e-5).all()
        assert (gap < 0).all()
        assert np.median(gap) > -1.11 * kappa - 5e-3


def test_mahalanobis_and_probability() -> None:
    """All features free: the closed form in the metric of F; the target gets what was asked, and hardly more."""
    task = flat()
    rng = np.random.default_rng(3)
    factor = (np.eye(D) + 0.3 * rng.normal(size=(D, D))).astype(np.float32)
    inverse = np.linalg.inv(factor.T.astype(float) @ factor)
    for p in (0.6, 0.9):
        config = SCFE(max_changes=6, proximity=Mahalanobis(factor), steps=40, probability=p, kappa=0.0)
        result = solve(task, config, bounds=(-50.0, 50.0))
        assert (np.asarray(result.status) == Status.FOUND).all()
        q = np.asarray(jax.nn.softmax(task.net(jnp.asarray(result.x))))[np.arange(24), task.target]
        assert (q >= p - 1e-6).all()
        assert np.median(q) < p + 0.01
        a, s = half_space(task, np.log(p / (1 - p)))
        value = np.square(np.asarray(result.delta, float) @ factor.T.astype(float)).sum(1)
        best = s**2 / np.einsum("ni,ij,nj->n", a, inverse, a)
        assert (value <= 1.02 * best).all(), value / best
        assert (value >= best * (1 - 1e-4)).all()


# ---------------------------------------------------------------------------------------------------------------------
# Penalties on a curved classifier, against a grid
# ---------------------------------------------------------------------------------------------------------------------
@cache
def plane() -> nets.Task:
    net = nets.mlp((2,), 3, seed=5)
    return nets.task(net, (2,), 16, seed=2, bounds=BOX)


@cache
def plane_grid() -> tuple[np.ndarray, np.ndarray]:
    """Points of a fine grid and their logits."""
    line = np.linspace(*BOX, 501).astype(np.float32)
    points = np.stack(np.meshgrid(line, line, indexing="ij"), -1).reshape(-1, 2)
    return points, np.asarray(plane().net(jnp.asarray(points)))


def against_the_grid(result: invjax.Result, value: Any, most: int = 2) -> Any:
    """Of each row the objective over that of the best of 250 000 points and of the lines through x."""
    task = plane()
    found = check(task, result, most)
    points, logits = plane_grid()
    line = np.linspace(*BOX, 4001).astype(np.float32)
    ratio: list[float] = []
    for i, x in enumerate(task.x):
        across, along = np.stack([line, np.full_like(line, x[1])], 1), np.stack([np.full_like(line, x[0]), line], 1)
        every = np.concatenate([points[: len(points) * (most > 1)], across, along])
        near = np.asarray(task.net(jnp.asarray(np.concatenate([across, along]))))
        z = np.concatenate([logits[: len(points) * (most > 1)], near])
        others = np.where(np.arange(3) == task.target[i], -np.inf, z).max(1)
        valid = z[:, task.target[i]] >= others + 1.1 * KAPPA + 1e-3
        assert found[i] or not valid.any(), i
        if valid.any():
            best = value((every[valid] - x).astype(float)).min()
            ratio.append(np.asarray(value(np.asarray(result.delta, float)[i])).item() / best)
    assert len(ratio) >= 12
    return np.sort(ratio)


@pytest.mark.parametrize(("penalty", "p"), [("l0", 0.0), ("l_half", 0.5), ("l_two_thirds", 2 / 3)])
def test_penalties_reach_the_grid(penalty: str, p: float) -> None:
    """``d(r) + β Σ |r|^p`` is within 1 % of the grid's best for almost all rows; once with d the l1 norm over m."""
    mad, beta = np.array([0.5, 1.5], np.float32), 0.3
    constants: dict[str, Any] = {"proximity": MadL1(mad)} if penalty == "l_two_thirds" else {}
    result = solve(plane(), SCFE(max_changes=2, penalty=penalty, beta=beta, steps=30, **constants))

    def value(r: np.ndarray) -> np.ndarray:
        near = (np.abs(r) / mad).sum(-1) if constants else np.square(r).sum(-1)
        return near + beta * power(p)(r).sum(-1)

    ratio = against_the_grid(result, value)
    assert np.mean(ratio < 1.01) >= 0.85, ratio
    assert ratio[-1] < 2, ratio


def test_the_best_valid_point_is_kept() -> None:
    """Of all points that were asked none that is valid has a lower objective than the answer. The same for the grid."""
    task = plane()
    config = SCFE(max_changes=1, penalty="l1", beta=0.3, steps=30)
    ctx, problems, config, method, key, _ = engine.prepare(
        task.net, task.x, task.label, method=config, target=task.target, bounds=BOX
    )
    problems = checks.with_keys(problems, key)

    @jax.jit
    def run() -> Any:
        def turn(at: Any, _: Any) -> Any:
            evals = lanes.look(method, engine.white_box, ctx, config, problems, at)
            told = lanes.learn(method, engine.white_box, ctx, config, problems, at, evals)
            return told, (evals.point, evals.logits, at.active)

        end, rows = jax.lax.scan(turn, lanes.start(method, ctx, config, problems), length=90)
        return lanes.finish(method, ctx, config, problems, end), rows

    def value(r: np.ndarray) -> np.ndarray:
        return np.square(r).sum(-1) + 0.3 * np.abs(r).sum(-1)

    result, (points, logits, active) = run()
    points, logits, active = np.asarray(points), np.asarray(logits), np.asarray(active)
    assert not active[-1].any()
    r = points - task.x
    gap = np.asarray(jax.vmap(jax.vmap(losses.gap), (0, None, None))(jnp.asarray(logits), task.label, task.target))
    good = active & (gap <= -KAPPA) & ((r != 0).sum(-1) <= 1)
    least = np.where(good, value(r.astype(float)), np.inf).min(0)
    found = np.asarray(result.status) == Status.FOUND
    np.testing.assert_array_equal(found, np.isfinite(least))
    np.testing.assert_allclose(value(np.asarray(result.delta, float))[found], least[found], rtol=1e-5)
    assert good.sum() > 3 * found.sum(), "there was something to choose from"
    ratio = against_the_grid(result, value, 1)
    assert np.mean(ratio < 1.01) >= 0.85, ratio


# ---------------------------------------------------------------------------------------------------------------------
# Forms of input
# ---------------------------------------------------------------------------------------------------------------------
@cache
def images(mark: float = -7.0) -> nets.Task:
    """Eight images [8, 8, 1], four classes, by a network that breaks at the mark."""
    x = np.random.default_rng(3).uniform(0.1, 0.9, (8, *nets.SMALL)).astype(np.float32)
    net = nets.fragile(mark=mark)
    label = np.asarray(net(jnp.asarray(x))).argmax(1).astype(np.int32)
    return nets.Task(net, x, label, (label + 1) % 4)


ALONE = np.arange(64, dtype=np.int32).reshape(nets.SMALL)
WHOLE = np.ones(nets.SMALL, bool)


def test_images_classes_untargeted_mask_and_groups() -> None:
    """[8, 8, 1] with four classes; any other class; a mask; groups of 2x2 as the units that are counted."""
    task, config = images(), SCFE(max_changes=6)
    mask = np.random.default_rng(1).random((8, 8, 8, 1)) < 0.6
    for aim in (task.target, None):
        result = solve(task, config, target=aim, mask=mask, groups=ALONE)
        assert check(task, result, 6, aim is not None).mean() >= 0.7
        assert (np.asarray(result.delta)[~mask] == 0).all()
        assert (np.asarray(result.attempt)[~mask] == task.x[~mask]).all()
    groups = (np.arange(8)[:, None] // 2 * 4 + np.arange(8) // 2)[..., None].astype(np.int32)
    by_group = solve(task, config, mask=WHOLE, groups=groups)
    single = solve(task, config, mask=WHOLE, groups=ALONE)
    moved = np.asarray(by_group.delta).reshape(8, -1) != 0
    touched = [len(np.unique(groups.reshape(-1)[row])) for row in moved]
    assert (np.asarray(by_group.status) == Status.FOUND).all()
    assert max(touched) <= 6
    assert moved.sum(1).max() > 6
    assert squares(by_group).sum() < squares(single).sum()


def test_already_there_and_broken() -> None:
    """A row that has the target; a row at which the network is NaN; the others bit for bit as without them."""
    task, mark = images(), np.float32(1.2345)
    config, options = SCFE(max_changes=6), {"mask": WHOLE, "groups": ALONE}
    reference = solve(task, config, **options)
    x, label, target = task.x.copy(), task.label.copy(), task.target.copy()
    x[2, 0, 0, 0] = mark
    label[5], target[5] = target[5], label[5]
    result = solve(nets.Task(nets.fragile(mark=float(mark)), x, label, target), config, **options)
    assert result.status[2] == Status.NONFINITE
    assert result.status[5] == Status.ALREADY_TARGET
    assert np.asarray(result.evaluations)[[2, 5]].tolist() == [1, 1]
    assert np.asarray(result.x)[[2, 5]].tobytes() == x[[2, 5]].tobytes()
    assert np.isfinite(np.asarray(result.attempt)).all()
    rest = np.array([0, 1, 3, 4, 6, 7])
    nets.same(cf_helpers.rows_of(result, rest), cf_helpers.rows_of(reference, rest))
    assert (np.asarray(reference.status)[rest] == Status.FOUND).all()


def test_float64_and_nothing_to_go_by() -> None:
    """The dtype follows x. Weights zero: every gradient 0, NO_GRADIENT, nothing NaN."""
    task = flat()
    with x64():
        net = invjax.LogitsModel(jax.tree.map(np.float64, task.net.params), task.net.apply)
        wide = nets.Task(net, task.x.astype(np.float64), task.label, task.target)
        result = solve(wide, SCFE(max_changes=3))
        found = check(wide, result, 3)
        a, s = half_space(task, 1.1 * KAPPA + 1e-3)
        best = np.array([sparsest(*row, 3) for row in zip(a, s, wide.x, strict=True)])
        assert (squares(result)[found] < 1.005 * best[found]).all()
    zero = task._replace(net=invjax.LogitsModel(jax.tree.map(np.zeros_like, task.net.params), task.net.apply))
    with pytest.warns(UserWarning, match="NO_GRADIENT"):
        result = solve(zero, SCFE())
    assert (np.asarray(result.status) == Status.NO_GRADIENT).all()
    assert np.isfinite(np.asarray(result.attempt)).all()


@pytest.mark.fast
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"max_changes": 0}, "max_changes must be at least 1"), ({"max_changes": 1.5}, "max_changes must be a whole"),
        ({"tau": -1.0}, "tau must be"), ({"beta": -1.0}, "beta must be"), ({"penalty": "l2"}, "penalty must be one"),
        ({"kappa": -0.1}, "kappa must be"), ({"probability": 1.0}, "probability must be"),
        ({"gamma_max": -1.0}, "gamma_max must be"), ({"step_size": 0.0}, "step_size must be"),
        ({"momentum": 1.0}, "momentum must be"),
        ({"steps": 0}, "steps must be"), ({"iterations": 9}, "new name, steps"), ({"polish": -1}, "polish must be"),
        ({"exchanges": -1}, "exchanges must be"), ({"proximity": 2.0}, "proximity must be"),
    ],
)  # fmt: skip
def test_bad_constants(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        solve(flat(), SCFE(**change))


@pytest.mark.fast
def test_variants() -> None:
    assert SCFEReleased.method.name != SCFE.method.name
    for wrong in (lambda: SCFE("released"), lambda: SCFE(variant="released")):
        with pytest.raises(BadArgument, match=r"variant must .*SCFEReleased"):
            wrong()


@pytest.mark.parametrize("penalty", ["l0", "l1"])
def test_a_large_penalty_hides_no_answer(penalty):
    """A linear model in [0, 1]^6: however large β is, all rows are answered, with few features and nearly as near."""
    draw = np.random.default_rng(0)
    slope, x = draw.normal(size=6).astype(np.float32), draw.random((30, 6)).astype(np.float32)
    middle = np.float32(slope.sum() / 2)
    model = invjax.LogitsModel((slope, middle), lambda w, x: _both(x @ w[0] - w[1]))
    z = x @ slope - middle
    label = (z > 0).astype(np.int32)
    config = SCFE(max_changes=6, penalty=penalty, beta=100.0)
    result = invjax.solve(model, x, label, target=1 - label, method=config, progress=False)
    assert (np.asarray(result.status) == Status.FOUND).all()
    r = np.asarray(result.delta)
    room = np.where((slope > 0) == (z < 0)[:, None], 1 - x, x)
    one = (np.abs(z) + 0.05)[:, None] / np.abs(slope)  # the change that a feature alone needs
    least = np.where(one <= room, one, np.inf).min(1)
    served = np.isfinite(least)
    assert served.sum() > 20
    if penalty == "l0":
        assert ((r != 0).sum(1)[served] == 1).all()
    assert np.mean((np.abs(r).sum(1) / least)[served]) < 1.2


def _both(z):
    return jnp.stack([-z / 2, z / 2], -1)
