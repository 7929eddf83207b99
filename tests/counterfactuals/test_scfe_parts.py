"""The parts of S-CFE: one step, one exchange, answers in discrete spaces by enumeration, the sparsity frontier."""

from __future__ import annotations

import itertools
from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
import nets
import numpy as np
import pytest
from test_scfe import BOX, KAPPA, D, check, flat, half_space, solve, squares

import invjax
from invjax import Status
from invjax.attacks import PGD
from invjax.constraints import Feature, FeatureSpace, actions
from invjax.counterfactuals import SCFE, frontier
from invjax.counterfactuals.parts.exchange import moves
from invjax.counterfactuals.parts.multiplier import Here, step
from invjax.types import Problem


# ---------------------------------------------------------------------------------------------------------------------
# One step, one exchange
# ---------------------------------------------------------------------------------------------------------------------
def problem_of(x: np.ndarray, low: Any, high: Any) -> Problem:
    zero = jnp.int32(0)
    lower, upper = (jnp.asarray(side, x.dtype) for side in (low, high))
    return Problem(jnp.asarray(x), zero, zero, lower, upper, None, None, jax.random.key(0), zero)


@jax.jit
@jax.vmap
def one_step(x: Any, point: Any, gap: Any, normal: Any, base: Any, size: Any, m: Any) -> Any:
    row = actions(None, problem_of(x, *BOX))
    none = jnp.zeros_like(gap)
    here = Here(point, gap, normal, none, jnp.zeros_like(x), none)
    return step(row, here, base, size, weight=none, penalty="none", max_changes=m)


def test_step_solves_for_the_multiplier() -> None:
    """Where a dense grid of γ closes the linearised gap, so does the step; its γ is hardly more than the least."""
    rng = np.random.default_rng(0)
    n = 400
    x = rng.uniform(-1.5, 1.5, (n, D)).astype(np.float32)
    point = np.clip(x + np.where(rng.random((n, D)) < 0.3, 0.3 * rng.normal(size=(n, D)), 0), -2, 2).astype(np.float32)
    normal = (rng.normal(size=(n, D)) * 10.0 ** rng.uniform(-1, 1, (n, 1))).astype(np.float32)
    gap = (rng.normal(0.5, 1, n) * np.linalg.norm(normal, axis=1)).astype(np.float32)
    size = 10.0 ** rng.uniform(-2, 0, n)
    base = (point - 0.1 * (point - x) * size[:, None]).astype(np.float32)
    m = rng.integers(1, D + 1, n).astype(np.int32)
    taken = one_step(x, point, gap, normal, base, size.astype(np.float32), m)
    u, gamma = np.asarray(taken.point, float), np.asarray(taken.gamma, float)
    assert ((u != x).sum(1) <= m).all()
    assert (u >= BOX[0]).all()
    assert (u <= BOX[1]).all()

    def at(weight: np.ndarray, i: int) -> np.ndarray:
        """[G, D] u(γ) of row i by the definition."""
        v = base[i] - size[i] * weight[:, None] * normal[i].astype(float)
        r = np.clip(v, *BOX) - x[i]
        saved = r * (2 * (v - x[i]) - r)
        order = np.argsort(-saved, axis=1)
        keep = np.zeros_like(saved, bool)
        np.put_along_axis(keep, order[:, : m[i]], True, 1)
        return x[i] + np.where(keep & (saved > 0), r, 0)

    reached, ratios = [], []
    for i in range(n):
        scale = 1e-5 * (1 + abs(gap[i]))
        end = gap[i] + normal[i] @ (u[i] - point[i])
        unit = max(abs(gap[i]), 1e-6) / (size[i] * np.square(normal[i]).max())
        weight = np.concatenate([[0.0], np.geomspace(1e-3, 1e3, 2000) * unit])
        values = gap[i] + (at(weight, i) - point[i]) @ normal[i]
        if (values <= 0).any():
            least = weight[np.argmax(values <= 0)]
            reached.append(end <= scale)
            if reached[-1] and values[0] > scale:
                ratios.append((gamma[i] + 1e-9) / (least + 1e-9))
        else:  # out of reach within m features: about as near as any γ comes
            assert end <= values.min() + 0.05 * abs(gap[i]) + scale, i
    assert np.mean(reached) > 0.97, np.mean(reached)
    assert np.median(ratios) < 1.02
    assert np.quantile(ratios, 0.9) < 1.3, np.quantile(ratios, [0.9, 0.95, 1])
    # less only where the features chosen at one γ reach with a smaller one than those that each γ chooses for itself
    assert np.mean(np.array(ratios) > 0.97) > 0.9


@cache
def levels() -> tuple[FeatureSpace, np.ndarray, nets.Task]:
    """Categories, grids and a number, and a linear network over them."""
    space = FeatureSpace(
        [
            Feature("kind", "category", levels=("p", "q", "r"), transitions={("p", "r"): None}),
            Feature("grade", "ordinal", levels=tuple("abcde")), Feature("count", "integer", 0, 6),
            Feature("size", lower=-2, upper=2), Feature("state", "category", levels=("s", "t"), direction="none"),
        ],
        center={"grade": 2, "count": 3}, scale={"grade": 1.5, "count": 2},
    )  # fmt: skip
    rng = np.random.default_rng(5)
    table = {
        "kind": rng.choice(list("pqr"), 24), "grade": rng.choice(list("abcde"), 24), "count": rng.integers(0, 7, 24),
        "size": rng.uniform(-2, 2, 24), "state": rng.choice(["s", "t"], 24),
    }  # fmt: skip
    x = space.encode(table)
    net = nets.linear((space.width,), 2, seed=6)
    label = np.asarray(net(jnp.asarray(x))).argmax(1).astype(np.int32)
    return space, x, nets.Task(net, x, label, 1 - label)


def test_moves_hold_the_best_single_change() -> None:
    """All values of all features, on a linear network: if one closes the gap, the nearest is among the moves."""
    space, x, task = levels()
    constraints = space.compile()
    a, s = half_space(task, 1.1 * KAPPA + 1e-3)

    @jax.jit
    @jax.vmap
    def probes(x: Any, gap: Any, normal: Any, target: Any) -> Any:
        lower, upper = constraints.limits(x)
        problem = problem_of(x, lower, upper)._replace(target=target)
        row = actions(constraints, problem)
        none = jnp.zeros_like(gap)
        here = Here(x, gap, normal, none, jnp.zeros_like(x), none)
        return jax.vmap(lambda u: row.snap(u, 1))(moves(row, here, 1e3, jnp.int32(1), 2 * space.width))

    asked = np.asarray(probes(x, s.astype(np.float32), -a.astype(np.float32), task.target), float)
    tried = 0
    for i, row in enumerate(x):
        single = []
        for column, values in (
            (3, (np.arange(5) - 2) / 1.5),
            (4, (np.arange(7) - 3) / 2),
            (5, np.linspace(-2, 2, 4001)),
        ):
            for value in values:
                u = row.astype(float)
                u[column] = value
                single.append(u)
        for level in range(3):
            if not (row[0] == 1 and level == 2):
                single.append(np.concatenate([np.eye(3)[level], row[3:]]).astype(float))
        single = np.array(single)
        good, mine = (single - row) @ a[i] >= s[i], (asked[i] - row) @ a[i] >= half_space(task)[1][i]
        assert mine.any() or not good.any(), i
        if good.any():
            tried += 1
            least = np.square(single - row)[good].sum(1).min()
            # Beyond the boundary by the moves' own 5 % and one grid point
            assert np.square(asked[i] - row)[mine].sum(1).min() <= 1.12 * least + 1e-3, i
    assert tried >= 12


def test_discrete_answers_are_the_best_of_all() -> None:
    """Every point with at most two changed features, the number on a fine grid: S-CFE is hardly ever worse."""
    space, x, task = levels()
    result = invjax.solve(
        task.net, x, task.label, target=task.target, method=SCFE(max_changes=2), space=space, lanes=24
    )
    a, s = half_space(task)
    found = np.asarray(result.status) == Status.FOUND
    values = [np.eye(3), (np.arange(5) - 2) / 1.5, (np.arange(7) - 3) / 2, np.linspace(-2, 2, 401)]
    exact = []
    for i, row in enumerate(x.astype(float)):
        own = [row[:3][None], row[3:4], row[4:5], row[5:6]]
        best = np.inf
        for pair in itertools.combinations(range(4), 2):
            parts = [v if f in pair else o for f, (v, o) in enumerate(zip(values, own, strict=True))]
            for k, g, c, z in itertools.product(*parts):
                if row[0] == 1 and k[2] == 1:
                    continue
                r = np.array([*(k - row[:3]), g - row[3], c - row[4], z - row[5], 0, 0])
                if r @ a[i] >= s[i]:
                    best = min(best, float(r @ r))
        assert found[i] == np.isfinite(best), i
        if found[i]:
            exact.append(float(np.square(np.asarray(result.delta, float)[i]).sum()) / best)
    assert len(exact) >= 20
    assert np.mean(np.array(exact) < 1.02) >= 0.9, np.sort(exact)
    assert np.max(exact) < 1.5, np.sort(exact)


# ---------------------------------------------------------------------------------------------------------------------
# The frontier
# ---------------------------------------------------------------------------------------------------------------------
def line() -> FeatureSpace:
    """The box as a space."""
    return FeatureSpace([Feature(f"f{i}", lower=BOX[0], upper=BOX[1]) for i in range(D)])


def test_frontier(capsys: pytest.CaptureFixture[str]) -> None:
    """Single solves or better, never worse with more features, in the order that was asked, in batches of any size."""
    task = flat()
    config = SCFE(steps=12, polish=5)
    common = {"space": line(), "method": config, "max_changes": (3, 1, 2), "lanes": 12}
    path = frontier(task.net, task.x, task.label, target=task.target, **common)
    assert path.x.shape == (24, 3, D)
    assert path.status.shape == path.evaluations.shape == (24, 3)
    square = np.square(np.asarray(path.delta, float)).sum(-1)
    value = np.where(path.status == Status.FOUND, square, np.inf)
    assert (value[:, 2] <= value[:, 1]).all()
    assert (value[:, 0] <= value[:, 2]).all()
    assert np.isinf(value[:, 1]).any()
    for j, m in enumerate((3, 1, 2)):
        check(task, path[:, j], m)
        alone = solve(task, SCFE(max_changes=m, steps=12, polish=5))
        own = np.where(np.asarray(alone.status) == Status.FOUND, squares(alone), np.inf)
        assert (value[:, j] <= own * 1.001 + 1e-6).all()
    assert capsys.readouterr().err == ""  # no terminal: no bar
    short = frontier(task.net, task.x[:7], task.label[:7], target=task.target[:7], progress=True, **common)
    shown = capsys.readouterr().err
    assert "0/7" in shown
    assert "7/7" in shown
    nets.same(short, path[:7])


def test_frontier_statuses_and_bad_input() -> None:
    """INFEASIBLE and ALREADY_TARGET rows keep their status for each m; one row alone; what is refused."""
    task = flat()
    x, label, target = task.x[3:7].copy(), task.label[3:7].copy(), task.target[3:7].copy()
    x[1, 0] = 3.0
    label[2], target[2] = target[2], label[2]
    common = {"space": line(), "max_changes": [2, 4], "lanes": 2}
    path = frontier(task.net, x, label, target=target, **common)
    assert path.status[1].tolist() == [Status.INFEASIBLE] * 2
    assert path.status[2].tolist() == [Status.ALREADY_TARGET] * 2
    assert (path.delta[[1, 2]] == 0).all()
    assert (np.asarray(path.status)[[0, 3]] == Status.FOUND).all()
    one = frontier(task.net, x[3], label[3], target=target[3], **common)
    nets.same(one, path[3])
    # More changes than there are features: no other question, and no memory for each of the counts.
    common["max_changes"] = [2, D, 100_000]
    more = frontier(task.net, x, label, target=target, **common)
    common["max_changes"] = [2, D]
    fewer = frontier(task.net, x, label, target=target, **common)
    nets.same(more[:, [0, 1, 1]], more)
    nets.same(more[:, [0, 2]], fewer)
    for wrong in ([], [0, 1], [1.5], 3, [[1, 2]]):
        with pytest.raises(ValueError, match="max_changes must be whole numbers >= 1"):
            frontier(task.net, x, label, target=target, bounds=BOX, max_changes=wrong)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="method must be an S-CFE configuration, was PGD"):
        frontier(task.net, x, label, target=target, bounds=BOX, method=PGD())  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="target must differ from label"):
        frontier(task.net, x, label, target=label, space=line())
