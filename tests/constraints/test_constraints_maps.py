"""The maps of one row against brute force, and a property test: nothing snapped breaks the judge in raw units."""

from __future__ import annotations

import functools
import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import oracles
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.isotonic import IsotonicRegression

from invjax.constraints import Constraints, Feature, FeatureSpace, Relation, actions
from invjax.types import Problem

POWER = {"none": None, "l0": 0.0, "l_half": 0.5, "l_two_thirds": 2 / 3, "l1": 1.0}


def problem_of(x: Any, lower: Any, upper: Any, mask: Any = None, groups: Any = None) -> Problem:
    zero = jnp.zeros((), jnp.int32)
    return Problem(x, zero, zero, lower, upper, mask, groups, jax.random.key(0), zero)


def row_of(constraints: Constraints, x: jax.Array) -> Any:
    return actions(constraints, problem_of(x, *constraints.limits(x)))


@functools.partial(jax.jit, static_argnames="penalty")
@functools.partial(jax.vmap, in_axes=(None, 0, 0, 0, None, None))
def prox(constraints: Any, x: Any, v: Any, w: Any, penalty: str, m: Any) -> Any:
    row = row_of(constraints, x)
    u = row.prox(v, w, penalty, m)
    return u, row.penalty(u, penalty), row.changed(u)


@jax.jit
@functools.partial(jax.vmap, in_axes=(None, 0, 0, None))
def snap(constraints: Any, x: Any, v: Any, m: Any) -> Any:
    row = row_of(constraints, x)
    u = row.snap(v, m)
    return u, row.satisfied(u), row.changed(u), constraints.permits(x)


def prox_of(space: FeatureSpace, x: Any, v: Any, w: Any, penalty: str, m: int | None) -> Any:
    out = prox(space.compile(x.dtype), x, v, w, penalty, None if m is None else jnp.int32(m))
    return tuple(np.asarray(a) for a in out)


# ---------------------------------------------------------------------------------------------------------------------
# Brute force, feature by feature
# ---------------------------------------------------------------------------------------------------------------------
FEATURES = (
    Feature("a", lower=-2, upper=2, cost=0.5),
    Feature("c", "category", levels=("p", "q", "r", "s"), cost=0.7,
            transitions={("p", "q"): 0.2, ("q", "p"): None, ("r", "s"): 2.5}),
    Feature("b", lower=-3, upper=1, direction="up"),
    Feature("i", "integer", lower=-4, upper=4, cost=1.5),
    Feature("t", "category", levels=("x", "y")),
    Feature("n", lower=-1, upper=1, direction="none"),
    Feature("d", lower=-3, upper=3, step=0.75, direction="down"),
)  # fmt: skip
SPACE = FeatureSpace(FEATURES, scale=[1.3, 1, 0.7, 2.1, 1, 1, 0.9], center=[0.2, 0, 0.1, 0.5, 0, 0.1, -0.3])


def factuals(count: int, seed: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    rows: dict[str, np.ndarray] = {}
    for feature in FEATURES:
        if feature.levelled:
            rows[feature.name] = np.array(feature.levels)[rng.integers(0, len(feature.levels), count)]
        else:
            values = rng.uniform(feature.lower, feature.upper, count)
            low, _ = feature.range
            rows[feature.name] = (
                low + np.floor((values - low) / feature.grid) * feature.grid if feature.grid else values
            )
    return rows


def reach(feature: Feature, raw: Any, i: int) -> tuple[float, float]:
    """The interval of a number in model coordinates, from its declaration."""
    low, high = feature.range
    low = raw if feature.direction in ("up", "none") else low
    high = raw if feature.direction in ("down", "none") else high
    return (low - SPACE.center[i]) / SPACE.scale[i], (high - SPACE.center[i]) / SPACE.scale[i]


def level_costs(feature: Feature, now: Any) -> np.ndarray:
    """[K] cost of becoming each level; infinity: forbidden."""
    if feature.direction == "none":
        return np.array([0.0 if new == now else np.inf for new in feature.levels])
    found = [0.0 if new == now else feature.transitions.get((now, new), 1.0) for new in feature.levels]
    return np.array([np.inf if cost is None else cost for cost in found])


def simplex_least(v: np.ndarray, tax: np.ndarray, allowed: np.ndarray) -> float:
    """min 1/2 ‖u − v‖² + tax·u over the simplex on allowed, by every support."""
    best = np.inf
    for size in range(1, allowed.sum() + 1):
        for support in itertools.combinations(np.flatnonzero(allowed), size):
            u = np.zeros(len(v))
            free = (v - tax)[list(support)]
            u[list(support)] = free - (free.sum() - 1) / size
            if u.min() >= 0:
                best = min(best, 0.5 * np.sum((u - v) ** 2) + tax[allowed] @ u[allowed])
    return best


def least(raw: dict[str, Any], x: np.ndarray, v: np.ndarray, w: float, penalty: str, m: int | None) -> float:
    """The least objective over all choices of features that may change."""
    stay, best, at = [], [], 0
    for i, feature in enumerate(FEATURES):
        own = slice(at, at + feature.columns)
        at += feature.columns
        charge = 0.0 if penalty == "none" else w * feature.cost
        stay.append(0.5 * np.sum((x[own] - v[own]) ** 2))
        if feature.kind == "category":
            cost = level_costs(feature, raw[feature.name])
            allowed = np.isfinite(cost)
            cost = np.where(allowed, cost, 0.0)
            if penalty in ("none", "l1"):
                best.append(simplex_least(v[own], charge * cost, allowed))
            else:
                best.append(charge + simplex_least(v[own], np.where(x[own] > 0, 0.0, charge * (cost - 1)), allowed))
        else:
            low, high = (np.array([side]) - x[own] for side in reach(feature, raw[feature.name], i))
            y = v[own] - x[own]
            power = POWER[penalty]
            if power is None:
                best.append(0.5 * float((np.clip(y, low, high) - y)[0]) ** 2)
            else:
                best.append(float(oracles.least_objective(power, y, np.array([charge]), low, high)[0]))
    gain = np.maximum(np.array(stay) - np.array(best), 0)
    chosen = np.sort(gain)[::-1][: len(gain) if m is None else m]  # the sum separates, so does the choice
    return float(np.sum(stay) - chosen.sum())


@pytest.mark.parametrize("penalty", POWER)
def test_prox_is_the_least_objective(penalty: str) -> None:
    with oracles.x64():
        count = 60
        rows = factuals(count, 1)
        x = SPACE.encode(rows, np.float64)
        rng = np.random.default_rng(2)
        v = x + rng.normal(0, 1.5, x.shape)
        w = rng.exponential(0.4, count) * (rng.random(count) < 0.9)
        for m in (None, 0, 1, 3, 7):
            u, value, changed = prox_of(SPACE, x, v, w, penalty, m)
            for i in range(count):
                raw = {name: column[i] for name, column in rows.items()}
                objective = 0.5 * np.sum((u[i] - v[i]) ** 2) + w[i] * value[i]
                assert abs(objective - least(raw, x[i], v[i], w[i], penalty, m)) <= 1e-9, (i, m)
            if m is not None:
                assert changed.sum(1).max() <= m
            lower, upper = jax.vmap(SPACE.compile(np.float64).limits)(x)
            assert ((u >= lower) & (u <= upper)).all()
            np.testing.assert_allclose(u[:, 1:5].sum(1), 1, atol=1e-12)


def test_penalty_and_change_count_by_hand() -> None:
    rows = {"a": [0.0], "c": ["p"], "b": [0.0], "i": [0], "t": ["x"], "n": [0.0], "d": [0.0]}
    new = {"a": [1.3], "c": ["q"], "b": [0.0], "i": [2], "t": ["y"], "n": [0.0], "d": [0.0]}
    with oracles.x64():
        x, u = (jnp.asarray(SPACE.encode(table, np.float64)[0]) for table in (rows, new))
        row = row_of(SPACE.compile(np.float64), x)
        assert np.asarray(row.changed(u)).tolist() == [True, True, False, True, True, False, False]
        steps = 2 / 2.1
        assert float(row.penalty(u, "l0")) == pytest.approx(0.5 + 0.7 * 0.2 + 1.5 + 1)
        assert float(row.penalty(u, "l_half")) == pytest.approx(0.5 + 0.7 * 0.2 + 1.5 * steps**0.5 + 1)
        assert float(row.cost(u)) == pytest.approx(0.5 + 0.7 * 0.2 + 1.5 * steps + 1)
        assert float(row.penalty(u, "none")) == 0
        assert float(row.cost(x)) == 0
        with pytest.raises(ValueError, match="penalty must be one of"):
            row.prox(x, 1.0, "l2")


def corners(raw: dict[str, Any]) -> list[tuple[list[np.ndarray], bool]]:
    """Per feature every value it may take in model coordinates; None for an interval."""
    answer: list[Any] = []
    for i, feature in enumerate(FEATURES):
        if feature.kind == "category":
            allowed = np.isfinite(level_costs(feature, raw[feature.name]))
            answer.append([np.eye(len(allowed))[k] for k in np.flatnonzero(allowed)])
            continue
        low, high = reach(feature, raw[feature.name], i)
        if feature.grid:
            step = feature.grid / SPACE.scale[i]
            answer.append([np.array([low + k * step]) for k in range(round((high - low) / step) + 1)])
        else:
            answer.append((low, high))
    return answer


def test_snap_is_the_nearest_feasible_point() -> None:
    with oracles.x64():
        count = 80
        rows = factuals(count, 5)
        x = SPACE.encode(rows, np.float64)
        v = x + np.random.default_rng(6).normal(0, 1.2, x.shape)
        for m in (None, 0, 2, 4):
            u, good, changed, permitted = (
                np.asarray(a) for a in snap(SPACE.compile(np.float64), x, v, None if m is None else jnp.int32(m))
            )
            assert good.all()
            assert permitted.all()
            assert m is None or changed.sum(1).max() <= m
            for i in range(count):
                raw = {name: column[i] for name, column in rows.items()}
                stay, best, at = [], [], 0
                for feature, values in zip(FEATURES, corners(raw), strict=True):
                    own = slice(at, at + feature.columns)
                    at += feature.columns
                    near = [np.clip(v[i, own], *values)] if isinstance(values, tuple) else values
                    stay.append(0.5 * np.sum((x[i, own] - v[i, own]) ** 2))
                    best.append(min(0.5 * np.sum((value - v[i, own]) ** 2) for value in near))
                gain = np.sort(np.array(stay) - np.array(best))[::-1][: 7 if m is None else m]
                assert abs(0.5 * np.sum((u[i] - v[i]) ** 2) - (np.sum(stay) - gain.sum())) <= 1e-9


# ---------------------------------------------------------------------------------------------------------------------
# Relations
# ---------------------------------------------------------------------------------------------------------------------
def pair(kind: str, **more: Any) -> FeatureSpace:
    names = ("a", "b", "z")
    return FeatureSpace(
        [Feature(name, kind, lower=-3, upper=3, **more) for name in names],
        [Relation({"a": 2.0, "b": -1.0}, 1.0)],
        scale=[1.5, 0.5, 1.0],
    )


@pytest.mark.parametrize("penalty", ["none", "l1"])
def test_prox_with_a_pair_is_exact(penalty: str) -> None:
    """Against a dense scan of the multiplier-free problem: b is optimal given a, a on a fine grid and five zooms."""
    with oracles.x64():
        space, rng, count = pair("continuous"), np.random.default_rng(0), 40
        raw_b = rng.uniform(-3, 3, count)
        raw_a = np.minimum(rng.uniform(-3, 3, count), (1 + raw_b) / 2)
        x = space.encode({"a": raw_a, "b": raw_b, "z": rng.uniform(-3, 3, count)}, np.float64)
        v, w = x + rng.normal(0, 4, x.shape), rng.exponential(0.5, count)
        u, value, _ = prox_of(space, x, v, w, penalty, None)
        assert (2 * u[:, 0] * 1.5 - u[:, 1] * 0.5 <= 1 + 1e-9).all()
        charge = w if penalty == "l1" else 0 * w

        def part(u: np.ndarray, j: int, i: int) -> np.ndarray:
            return 0.5 * (u - v[i, j]) ** 2 + charge[i] * np.abs(u - x[i, j])

        def free(j: int, i: int, low: Any, high: Any) -> np.ndarray:
            y = v[i, j] - x[i, j]
            return np.clip(x[i, j] + y - np.clip(y, -charge[i], charge[i]), low, high)

        for i in range(count):
            start, end = -2.0, min(2.0, (1 + 3) / 3)
            best = np.inf
            for _ in range(8):
                a = np.linspace(start, end, 401)
                b = free(1, i, np.maximum(-6, (3 * a - 1) / 0.5), 6)
                values = part(a, 0, i) + part(b, 1, i)
                k = int(values.argmin())
                best = min(best, float(values[k]))
                start, end = a[max(k - 1, 0)], a[min(k + 1, 400)]
            best += float(part(free(2, i, -3, 3), 2, i))
            objective = 0.5 * np.sum((u[i] - v[i]) ** 2) + charge[i] * value[i]
            assert objective - best <= 1e-9, i


def test_snap_of_an_integer_pair_is_exact_and_of_numbers_near() -> None:
    with oracles.x64():
        rng, count = np.random.default_rng(3), 60
        space = FeatureSpace(
            [Feature(name, "integer", lower=0, upper=9) for name in "ab"] + [Feature("z", lower=0, upper=9)],
            [Relation.at_most("a", "b")],
        )
        first = rng.integers(0, 10, count)
        rows = {"a": first, "b": np.maximum(first, rng.integers(0, 10, count)), "z": rng.uniform(0, 9, count)}
        x = space.encode(rows, np.float64)
        v = rng.uniform(-1, 10, x.shape)
        u, good, _, _ = (np.asarray(a) for a in snap(space.compile(np.float64), x, v, None))
        assert good.all()
        grid = np.array([(a, b) for a in range(10) for b in range(a, 10)])
        least_square = np.square(grid[None] - v[:, None, :2]).sum(2).min(1)
        assert (np.square(u[:, :2] - v[:, :2]).sum(1) - least_square <= 1e-9).all()

        numbers = FeatureSpace([Feature(name, lower=0, upper=9) for name in "ab"], [Relation.at_most("a", "b")])
        x, v = x[:, :2], v[:, :2]
        u, good, _, _ = (np.asarray(a) for a in snap(numbers.compile(np.float64), x, v, None))
        inside = np.clip(v, 0, 9)
        middle = np.repeat(np.clip(v.mean(1, keepdims=True), 0, 9), 2, 1)
        want = np.where((inside[:, :1] <= inside[:, 1:]), inside, middle)
        assert good.all()
        np.testing.assert_allclose(u, want, atol=1e-9)


def test_a_chain_of_relations_is_isotonic_regression() -> None:
    with oracles.x64():
        names, rng = "abcd", np.random.default_rng(4)
        space = FeatureSpace(
            [Feature(name, lower=-5, upper=5) for name in names],
            [Relation.at_most(s, t) for s, t in itertools.pairwise(names)],
        )
        x = np.sort(rng.uniform(-5, 5, (30, 4)), axis=1)
        v = rng.normal(0, 2, x.shape)
        u, _, _ = prox_of(space, x, v, np.zeros(30), "none", None)
        want = np.stack([IsotonicRegression().fit_transform(np.arange(4), one) for one in v])
        np.testing.assert_allclose(u, want, atol=2e-3)  # as far as the fixed number of sweeps goes
        snapped, good, _, _ = (np.asarray(a) for a in snap(space.compile(np.float64), x, u, None))
        assert good.all()
        assert np.mean((snapped != x).any(1)) > 0.9  # not given up
        assert (np.diff(snapped, axis=1) >= 0).all()


def test_two_coupled_features_may_move_together_within_max_changes() -> None:
    space = FeatureSpace([Feature(name, lower=0, upper=9) for name in "abz"], [Relation.at_most("a", "b")])
    x = np.array([[3.0, 3.0, 5.0]], np.float32)
    v = np.array([[5.0, 3.0, 5.5]], np.float32)
    alone, both = (prox_of(space, x, v, np.zeros(1, np.float32), "none", m)[0][0] for m in (1, 2))
    np.testing.assert_allclose(alone, [3, 3, 5.5], atol=1e-5)
    np.testing.assert_allclose(both, [4, 4, 5], atol=1e-5)


# ---------------------------------------------------------------------------------------------------------------------
# The property: whatever is snapped obeys the judge in raw units
# ---------------------------------------------------------------------------------------------------------------------
# One layout per test, so that a program is compiled once; ranges, steps, directions, scales and coefficients are drawn.
KINDS = ("continuous", "integer", "grid", "category", "ordinal", "continuous")


def draw_space(rng: np.random.Generator, relations: str) -> FeatureSpace:
    features: list[Feature] = []
    for i, kind in enumerate(KINDS):
        name, direction = f"f{i}", str(rng.choice(["both", "both", "up", "down", "none"]))
        size = 10.0 ** rng.integers(-2, 5)
        low = size * rng.normal()
        if kind == "integer":
            low = float(rng.integers(-50, 50))
            made = Feature(name, "integer", low, low + float(rng.integers(0, 3000)), direction=direction)
        elif kind == "grid":
            made = Feature(name, lower=low, upper=low + size * 3, step=size * rng.uniform(0.01, 1), direction=direction)
        elif kind == "ordinal":
            made = Feature(name, "ordinal", levels=tuple("abcde"), direction=direction)
        elif kind == "category":
            barred = {(s, t): None for s, t in itertools.permutations("pqrs", 2) if rng.random() < 0.3}
            direction = "none" if direction == "none" else "both"
            made = Feature(name, "category", levels=tuple("pqrs"), transitions=barred, direction=direction)
        else:
            made = Feature(name, lower=low, upper=low + size * rng.exponential(), direction=direction)
        features.append(made)
    center = [size * rng.normal() for size in 10.0 ** rng.integers(-2, 4, len(features))]
    scale = 10.0 ** rng.uniform(-2, 3, len(features))
    bare = FeatureSpace(features, (), center, scale)
    if relations == "none":
        return bare
    # Relations through a drawn row: it holds there, often with equality.
    row, made_relations = draw_rows(bare, rng, 1), []
    order = rng.permutation([0, 1, 2, 4, 5])
    for chosen in (order[:2], order[2:4] if relations == "disjoint" else order[1:4]):
        coefficients = {f"f{i}": float(rng.choice([1.0, -1.0, 2.0, 0.37])) for i in chosen}
        value = sum(c * draw_values(bare, row, name) for name, c in coefficients.items())
        made_relations.append(Relation(coefficients, float(value[0] + rng.choice([0.0, 0.0, 1.0]))))
    return FeatureSpace(features, made_relations, center, scale)


def draw_values(space: FeatureSpace, rows: dict[str, np.ndarray], name: str) -> np.ndarray:
    feature = space.features[space.names.index(name)]
    if feature.levelled:
        return np.array([feature.levels.index(level) for level in rows[name].tolist()], float)
    return rows[name].astype(float)


def draw_rows(space: FeatureSpace, rng: np.random.Generator, count: int) -> dict[str, np.ndarray]:
    rows: dict[str, np.ndarray] = {}
    for feature in space.features:
        if feature.levelled:
            rows[feature.name] = np.array(feature.levels)[rng.integers(0, len(feature.levels), count)]
            continue
        low, high = feature.range
        values = rng.choice([0.0, 1.0, -1.0], count, p=[0.1, 0.1, 0.8])
        values = low + np.where(values < 0, rng.random(count), values) * (high - low)
        if feature.grid:
            values = np.clip(low + np.rint((values - low) / feature.grid) * feature.grid, low, high)
        rows[feature.name] = values
    return rows


def test_a_whole_bound_below_zero_is_not_rounded_down() -> None:
    """Integers that meet their relation exactly obey it, also where its bound is a large negative number."""
    features = [Feature("a", "integer", lower=0, upper=4), Feature("b", "integer", lower=-22, upper=2294)]
    space = FeatureSpace(features, [Relation({"a": 1, "b": -1}, -2294)])
    rows = {"a": np.array([0, 1]), "b": np.array([2294, 2294])}
    assert [said == "" for said in space.reasons(rows)] == [True, False]
    assert jax.vmap(space.compile().permits)(space.encode(rows)).tolist() == [True, False]


@pytest.mark.parametrize("relations", ["none", "disjoint", "shared"])
def test_nothing_snapped_breaks_the_judge(relations: str) -> None:
    moved = [0, 0]

    @settings(max_examples=25)
    @given(st.integers(0, 2**32 - 1), st.sampled_from([0.01, 1.0, 30.0]), st.sampled_from([1, 3, 6]))
    def check(seed: int, size: float, m: int) -> None:
        rng = np.random.default_rng(seed)
        space = draw_space(rng, relations)
        rows = draw_rows(space, rng, 24)
        lawful = np.array([said == "" for said in space.reasons(rows)])
        x = space.encode(rows)
        steps = rng.normal(0, size, x.shape) / np.where(
            rng.random(x.shape) < 0.5, 1, space.scale[space.column_features]
        )
        v = (x + steps).astype(np.float32)
        u, good, changed, permitted = (np.asarray(a) for a in snap(space.compile(), x, v, jnp.int32(m)))
        assert (permitted >= lawful).all()
        assert good[lawful].all()
        assert changed.sum(1).max() <= m
        answer = space.decode(u, rows)
        said = space.violations(rows, answer)
        assert [said[row] for row in np.flatnonzero(lawful)] == [[]] * lawful.sum()
        moved[0] += int((u != x).any(1)[lawful].sum())
        moved[1] += int(lawful.sum())

    check()
    assert moved[1] > 50
    assert moved[0] > 0.4 * moved[1]  # and it does move


def test_what_violates_is_not_satisfied() -> None:
    """The other side: points that the judge condemns, beyond rounding, are refused."""
    rows = factuals(40, 9)
    x = SPACE.encode(rows)
    rng = np.random.default_rng(1)
    u = x + (rng.random(x.shape) < 0.2) * rng.choice([-1.0, -0.4, 0.4, 1.0], x.shape)
    u = u.astype(np.float32)
    constraints = SPACE.compile()
    good = np.asarray(jax.vmap(constraints.satisfied)(x, u))
    raw = {name: column.copy() for name, column in rows.items()}
    at = 0
    for i, feature in enumerate(FEATURES):  # decoded by hand: nothing is snapped
        block = u[:, at : at + feature.columns].astype(float)
        at += feature.columns
        if feature.kind == "category":
            whole = ((block == 0) | (block == 1)).all(1) & (block.sum(1) == 1)
            raw[feature.name] = np.where(whole, np.array(feature.levels)[block.argmax(1)], "?")
        else:
            raw[feature.name] = np.where(
                (block[:, 0] == x[:, at - 1]), rows[feature.name], block[:, 0] * SPACE.scale[i] + SPACE.center[i]
            )
    said = [
        any("grid" not in one for one in row) for row in SPACE.violations(rows, raw)
    ]  # off the grid: by rounding too
    assert not good[np.array(said)].any()
    assert np.array(said).sum() > 5
    assert np.asarray(jax.vmap(constraints.satisfied)(x, x)).all()


# ---------------------------------------------------------------------------------------------------------------------
# Without constraints; compilation
# ---------------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("penalty", POWER)
@pytest.mark.parametrize("m", [None, 1, 3])
def test_plain_prox_is_the_least_objective(penalty: str, m: int | None) -> None:
    with oracles.x64():
        rng = np.random.default_rng(0)
        x = rng.uniform(0, 1, (2, 3))
        mask = np.ones((2, 3), bool)
        mask[0, 1] = False
        row = actions(None, problem_of(jnp.asarray(x), 0.0, 1.0, jnp.asarray(mask)))
        assert row.exact
        low, high = np.where(mask, -x, 0.0), np.where(mask, 1 - x, 0.0)
        for _ in range(12):
            v, w = x + rng.normal(0, 0.7, x.shape), float(rng.exponential(0.1))
            u = np.asarray(row.prox(jnp.asarray(v), w, penalty, None if m is None else jnp.int32(m)))
            stay, power = 0.5 * np.square(x - v).reshape(-1), POWER[penalty]
            y = (v - x).reshape(-1)
            if power is None:
                best = 0.5 * np.square(np.clip(y, low.reshape(-1), high.reshape(-1)) - y)
            else:
                best = oracles.least_objective(power, y, np.full(6, w), low.reshape(-1), high.reshape(-1))
            gain = np.sort(np.maximum(stay - best, 0))[::-1][: 6 if m is None else m]
            objective = 0.5 * np.sum((u - v) ** 2) + w * float(row.penalty(jnp.asarray(u), penalty))
            assert abs(objective - (stay.sum() - gain.sum())) <= 1e-9
            assert row.satisfied(jnp.asarray(u))
            assert u[0, 1] == x[0, 1]
            assert m is None or int(row.changed(jnp.asarray(u)).sum()) <= m


def test_plain_groups_are_the_units() -> None:
    with oracles.x64():
        rng = np.random.default_rng(1)
        x, groups = rng.uniform(0, 1, (3, 2)), np.array([[0, 0], [4, 4], [2, 2]], np.int32)
        row = actions(None, problem_of(jnp.asarray(x), 0.0, 1.0, groups=jnp.asarray(groups)))
        for _ in range(20):
            v, w = x + rng.normal(0, 0.5, x.shape), float(rng.exponential(0.2))
            inside = np.clip(v, 0, 1)
            gain = 0.5 * (np.square(x - v) - np.square(inside - v)).sum(1)
            u = np.asarray(row.prox(jnp.asarray(v), w, "l0", jnp.int32(2)))
            want = 0.5 * np.square(x - v).sum() - np.sort(np.maximum(gain - w, 0))[::-1][:2].sum()
            assert 0.5 * np.square(u - v).sum() + w * float(row.penalty(jnp.asarray(u), "l0")) == pytest.approx(want)
            one = np.asarray(row.snap(jnp.asarray(v), jnp.int32(1)))
            assert np.flatnonzero((one != x).any(1)).tolist() in ([], [int(gain.argmax())])
            assert int(row.changed(jnp.asarray(one)).sum()) <= 1


def test_mask_of_the_problem_holds_columns_and_whole_categories() -> None:
    rows = factuals(1, 3)
    x = jnp.asarray(SPACE.encode(rows)[0])
    constraints = SPACE.compile()
    mask = np.ones(SPACE.width, bool)
    mask[0] = False
    mask[1:5] = ~(np.asarray(x[1:5]) > 0)  # only the present level: it cannot be left
    row = actions(constraints, problem_of(x, *constraints.limits(x), mask=jnp.asarray(mask)))
    v = x + jnp.asarray(np.random.default_rng(0).normal(0, 5, x.shape), jnp.float32)
    for u in (row.prox(v, 0.0), row.snap(v), row.prox(v, 0.1, "l0", jnp.int32(5))):
        np.testing.assert_array_equal(u[:5], x[:5])
    assert row.satisfied(row.snap(v))
    assert not row.satisfied(x.at[0].add(0.5))


def test_values_do_not_recompile_and_exactness_is_static() -> None:
    count = 0

    @jax.jit
    def run(constraints: Constraints, x: jax.Array, v: jax.Array, w: jax.Array, m: jax.Array) -> jax.Array:
        nonlocal count
        count += 1
        return row_of(constraints, x).prox(v, w, "l_half", m)

    spaces = [FeatureSpace([Feature("a", lower=0, upper=top), Feature("b", lower=0, upper=1)]) for top in (1, 2)]
    x = jnp.asarray([0.5, 0.5])
    for i, space in enumerate(spaces):
        run(space.compile(), x, x + 1, jnp.float32(0.1 * i), jnp.int32(i))
    assert count == 1
    assert row_of(spaces[0].compile(), x).exact
    assert not row_of(SPACE.compile(), jnp.asarray(SPACE.encode(factuals(1, 0))[0])).exact


def test_a_broken_gradient_stays_visible() -> None:
    space = FeatureSpace([Feature("a", lower=0, upper=1), Feature("b", lower=0, upper=1)])
    row = row_of(space.compile(), jnp.asarray([0.5, 0.5]))
    v = jnp.asarray([jnp.nan, 0.7])
    assert np.isnan(np.asarray(row.prox(v, 0.1, "l0", jnp.int32(1)))).tolist() == [True, False]
    assert row.satisfied(row.snap(v))
