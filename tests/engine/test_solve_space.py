"""``solve(space=...)``: rows that break their own schema, rows without freedom, masks, transformations; any method."""

from __future__ import annotations

from functools import cache
from typing import Any

import cf_helpers
import cf_spaces
import jax
import jax.numpy as jnp
import nets
import numpy as np
import pytest
from oracles import x64

import invjax
from invjax import Status
from invjax.attacks import PGD
from invjax.constraints import Feature, FeatureSpace, Relation
from invjax.counterfactuals import CFEL2

# An attack that knows nothing of spaces, and a method that does.
CONFIGS = {"pgd": PGD(eps=1.0, step_size=0.3, steps=6, restarts=1), "cfe-l2": CFEL2(steps=15, trials=4)}
every = pytest.mark.parametrize("name", CONFIGS)
COUNT = 10


@cache
def census() -> cf_helpers.Census:
    return cf_helpers.census(COUNT)


def solve(people: Any, name: str, x: np.ndarray | None = None, **options: Any) -> invjax.Result:
    task = people.task
    options = {"target": task.target, "space": people.space, "progress": False, **options}
    return invjax.solve(task.net, task.x if x is None else x, task.label, method=CONFIGS[name], **options)


def lawful(people: Any, result: invjax.Result, clean: np.ndarray | None = None) -> None:
    """No breach in the columns as they are, no violation in raw units. clean: where it is not the table's own."""
    x = np.asarray(result.x)
    assert cf_spaces.breaches(people.space, people.task.x if clean is None else clean, x) == [""] * len(x)
    table = people.table if clean is None else people.space.decode(clean)
    assert people.space.violations(table, people.space.decode(x, table)) == [[]] * len(x)


def test_the_judge_of_these_tests_judges() -> None:
    """One wrong column at a time: breaches names it."""
    people = cf_helpers.census(4, related=True)
    x = people.task.x
    assert cf_spaces.breaches(people.space, x, x) == [""] * 4
    work = x[0, 5:8]
    for column, value, what in (
        (0, x[0, 0] - 0.05, "age may not go"), (0, x[0, 0] + 0.02, "off its grid"), (0, 2.05, "outside"),
        (1, x[0, 1] + 0.05, "off its grid"), (2, x[0, 2] + 1e-3, "debt may not go"), (3, 1 - x[0, 3], "no level"),
        (5, work[0] + 0.5, "no level"), (8, 0.5, "off its grid"),
    ):  # fmt: skip
        u = x.copy()
        u[0, column] = value
        said = cf_spaces.breaches(people.space, x, u)
        assert what in said[0], (column, said)
        assert said[1:] == [""] * 3
    u = x.copy()
    u[0, 1] = -2.0  # income 0, debt as it was
    assert "debt" in cf_spaces.breaches(people.space, x, u)[0]
    fired, row = x.copy(), 0
    fired[:, 5:8] = [0, 0, 1]
    u = fired.copy()
    u[row, 5:8] = [1, 0, 0]
    assert "forbidden" in cf_spaces.breaches(people.space, fired, u)[row]


@every
def test_rows_outside_their_own_schema(name: str) -> None:
    """INFEASIBLE, the clean input, nothing evaluated; the other rows bit for bit as without them."""
    people = census()
    x = people.task.x.copy()
    x[1, 0] = 3.0  # age 110
    x[3, 5:8] = 1.0  # every level of work at once
    x[4, 5:8] = 0.0  # none
    x[6, 1] += 0.03  # income off its grid
    x[8, 8] = -1.0  # below the lowest school
    wrong = np.array([1, 3, 4, 6, 8])
    result, reference = solve(people, name, x), solve(people, name)
    assert (np.asarray(result.status)[wrong] == Status.INFEASIBLE).all()
    assert not np.asarray(result.found)[wrong].any()
    np.testing.assert_array_equal(np.asarray(result.x)[wrong], x[wrong])
    assert (np.asarray(result.evaluations)[wrong] == 0).all()
    assert np.isfinite(np.asarray(result.attempt)).all()
    rest = np.setdiff1d(np.arange(COUNT), wrong)
    nets.same(cf_helpers.rows_of(result, rest), cf_helpers.rows_of(reference, rest))
    if name == "cfe-l2":
        assert (np.asarray(reference.status)[rest] == Status.FOUND).all()
    lawful(people, reference)


def test_broken_rows_in_the_queue() -> None:
    """Their lanes are given to the next row at once; the answers are those of the batch without them."""
    people = census()
    x = people.task.x.copy()
    x[:3, 0] = 3.0
    result = solve(people, "cfe-l2", x, lanes=4)
    reference = solve(people, "cfe-l2", lanes=4)
    assert (np.asarray(result.status)[:3] == Status.INFEASIBLE).all()
    nets.same(cf_helpers.rows_of(result, slice(3, None)), cf_helpers.rows_of(reference, slice(3, None)))
    nets.alike(reference, solve(people, "cfe-l2"))


@every
def test_nothing_may_change(name: str) -> None:
    """Each feature immutable, or at the end of the only way it may go: INFEASIBLE for that row alone."""
    people = census()
    old = people.space.features
    features = [
        Feature("age", "integer", 18, 90, direction="up"),
        Feature("income", lower=0, upper=100, step=2.5, direction="none"),
        old[2], old[3], Feature("work", "category", levels=old[4].levels, direction="none"), old[5],
    ]  # fmt: skip
    space = FeatureSpace(features, (), people.space.center, people.space.scale)
    table = {key: column.copy() for key, column in people.table.items()}
    for row, age, debt, school in (
        (2, 90, 0.0, "high"),
        (4, 89, 0.0, "high"),
        (5, 90, 0.0, "middle"),
        (7, 90, 0.5, "high"),
    ):
        table["age"][row], table["debt"][row], table["school"][row] = age, debt, school
    people = cf_helpers.Census(space, table, people.task._replace(x=space.encode(table)))
    result = solve(people, name)
    status = np.asarray(result.status)
    assert status[2] == Status.INFEASIBLE
    assert (np.delete(status, 2) != Status.INFEASIBLE).all(), result
    lawful(people, result)


def test_a_mask_that_leaves_nothing() -> None:
    """The mask's free columns are immutable in the space: INFEASIBLE."""
    people = census()
    mask = np.zeros((COUNT, people.space.width), bool)
    mask[:, 0] = True
    mask[2] = False
    mask[2, 3:5] = True  # "born" may not change
    result = solve(people, "cfe-l2", mask=mask)
    status = np.asarray(result.status)
    assert status[2] == Status.INFEASIBLE
    assert (np.delete(status, 2) != Status.INFEASIBLE).all()


def test_mask_and_space() -> None:
    """Only what both allow changes; a row's own mask too."""
    people, name = census(), "cfe-l2"
    mask = np.ones((COUNT, people.space.width), bool)
    mask[:, 0] = False
    mask[::2, 5:8] = False
    result = solve(people, name, mask=mask)
    delta = np.asarray(result.delta)
    assert (delta[~mask] == 0).all()
    assert (np.asarray(result.attempt)[~mask] == people.task.x[~mask]).all()
    lawful(people, result)
    assert (np.asarray(result.status) == Status.FOUND).any()
    assert (np.asarray(solve(people, name).delta)[~mask] != 0).any(), "the mask must matter"


def test_an_answer_is_lawful_whatever_the_method() -> None:
    """PGD on categories and grids: what it finds is seldom admissible, and then it is no answer."""
    people = census()
    result = solve(people, "pgd")
    lawful(people, result)
    reached = cf_helpers.gaps(people.task, result.attempt) < 0
    refused = np.asarray(result.status) == Status.NOT_FOUND
    assert (reached & refused).any()
    assert (np.asarray(result.x)[refused] == people.task.x[refused]).all()


@pytest.mark.parametrize("related", [False, True])
def test_pgd_in_a_continuous_space_never_violates(related: bool) -> None:
    """Ranges and directions per row are its box; a relation is judged at the end, and of each row at the start."""
    for seed in range(4):
        rng = np.random.default_rng(seed)
        ways = rng.choice(["both", "both", "up", "down", "none"], 3)
        features = [
            Feature(name, lower=-(10.0**k), upper=10.0**k, direction=str(ways[k])) for k, name in enumerate("abc")
        ] + [Feature("d", lower=0, upper=5)]
        relations = [Relation({"a": 1.0, "d": 1.0}, 4.0)] if related else []
        space = FeatureSpace(features, relations, center=[0.3, -2, 30, 2], scale=[0.5, 4, 60, 1.5])
        table = {f.name: rng.uniform(f.lower, f.upper, 24) for f in features}
        table["d"] = np.minimum(table["d"], 3.99 - table["a"])
        if related:
            table["d"][5], table["a"][5] = 4.5, 0.5
        x = space.encode(table)
        net = nets.mlp((4,), 3, seed=seed)
        label = np.asarray(net(jnp.asarray(x))).argmax(1).astype(np.int32)
        people = cf_helpers.Census(space, table, nets.Task(net, x, label, label))
        result = solve(people, "pgd", target=None)
        status = np.asarray(result.status)
        broken = np.array([said != "" for said in space.reasons(table)])
        assert broken.sum() == related
        np.testing.assert_array_equal(status == Status.INFEASIBLE, broken)
        found = status == Status.FOUND
        assert found.sum() >= 5, result
        assert (cf_helpers.gaps(people.task, result.x, targeted=False)[found] < 0).all()
        assert cf_spaces.breaches(space, x, np.asarray(result.x)) == [""] * 24
        said = space.violations(table, space.decode(np.asarray(result.x), table))
        assert [said[row] for row in np.flatnonzero(~broken)] == [[]] * (~broken).sum()


@pytest.mark.fast
def test_bad_arguments() -> None:
    people = census()
    width = people.space.width
    x = people.task.x
    with pytest.raises(ValueError, match="bounds must be None where a space is given"):
        solve(people, "pgd", bounds=(0, 1))
    for wrong in (np.zeros((COUNT, width + 1), np.float32), x[:, :-1], x.reshape(COUNT, 3, 3)):
        with pytest.raises(ValueError, match=f"x must have the {width} columns of the space"):
            solve(people, "pgd", wrong)
    with pytest.raises(ValueError, match="x must be finite"):
        solve(people, "pgd", np.where(np.arange(width) == 2, np.float32(np.nan), x))
    with pytest.raises(ValueError, match="mask must have shape"):
        solve(people, "pgd", mask=np.ones(width - 1, bool))


@pytest.mark.parametrize("name", ["pgd"])
def test_single_rows_and_the_compiled_form(name: str) -> None:
    """Alone as in the batch; ``space.compile()`` instead of the space: the same."""
    people = census()
    batch = solve(people, name)
    nets.same(solve(people, name, space=people.space.compile()), batch)
    task = people.task
    ones = [
        invjax.solve(
            task.net, task.x[i], task.label[i], target=task.target[i], method=CONFIGS[name], space=people.space, ids=i
        )
        for i in range(3)
    ]
    assert ones[0].x.shape == (people.space.width,)
    nets.alike(jax.tree.map(lambda *rows: np.stack(rows), *ones), cf_helpers.rows_of(batch, slice(3)))


@pytest.mark.parametrize("name", ["cfe-l2"])
def test_jit_and_vmap(name: str) -> None:
    """One compilation for every row and every space of this layout; the answers of the list; INFEASIBLE as data."""
    people = census()
    task, config = people.task, CONFIGS[name]

    def one(x: Any, label: Any, target: Any, space: Any) -> invjax.Result:
        return invjax.solve(task.net, x, label, target=target, method=config, space=space)

    many = jax.jit(jax.vmap(one, in_axes=(0, 0, 0, None)))

    x = task.x.copy()
    x[1, 0] = 3.0
    result = many(x, task.label, task.target, people.space.compile())
    assert result.status[1] == Status.INFEASIBLE
    reference = solve(people, name, x)
    np.testing.assert_array_equal(result.status, reference.status)
    np.testing.assert_allclose(result.x, reference.x, atol=1e-4)
    lawful(people, result, x)


def test_other_numbers_do_not_compile() -> None:
    """Ranges, units, directions, costs and transitions are numbers of the program."""
    people = census()
    solve(people, "cfe-l2")
    old = people.space.features
    changed = [
        Feature("age", "integer", 16, 95), Feature("income", lower=-10, upper=200, step=5.0, cost=2.0), old[2],
        Feature("born", "category", levels=("here", "there")),
        Feature("work", "category", levels=old[4].levels), old[5],
    ]  # fmt: skip
    space = FeatureSpace(changed, (), people.space.center, people.space.scale * 1.5)
    x = space.encode({**people.table, "income": np.float32(5 * (people.table["income"] // 5))})
    with nets.compilations() as names:
        result = solve(people, "cfe-l2", x, space=space)
    assert names == []
    assert (np.asarray(result.status) != Status.INFEASIBLE).all()


def test_float64() -> None:
    people = census()
    with x64():
        task = people.task
        net = invjax.LogitsModel(jax.tree.map(np.float64, task.net.params), task.net.apply)
        x = people.space.encode(people.table, np.float64)
        wide = people._replace(task=nets.Task(net, x, task.label, task.target))
        result = solve(wide, "cfe-l2")
        assert result.x.dtype == np.float64
        assert (np.asarray(result.status) == Status.FOUND).all()
        lawful(wide, result)


def test_the_schema_comes_before_the_class() -> None:
    """A row that has the target but breaks its schema is INFEASIBLE, not ALREADY_TARGET."""
    people = census()
    task = people.task._replace(label=people.task.target, target=people.task.label)
    x = task.x.copy()
    x[0, 6] = 0.5
    status = np.asarray(solve(people._replace(task=task), "pgd", x).status)
    assert status[0] == Status.INFEASIBLE
    assert (status[1:] == Status.ALREADY_TARGET).all()


def test_a_category_that_may_not_leave_its_level() -> None:
    """Every transition forbidden, and nothing else may change: INFEASIBLE, not a search without an end in sight."""
    barred = {(old, new): None for old in "abc" for new in "abc" if old != new and old == "a"}
    space = FeatureSpace([Feature("kind", "category", levels=("a", "b", "c"), transitions=barred)])
    x = space.encode({"kind": np.array(["a", "b"])})
    net = nets.linear((3,), 2)
    label = np.asarray(net(jnp.asarray(x)).argmax(1), np.int32)
    result = invjax.solve(net, x, label, target=1 - label, method=CONFIGS["cfe-l2"], space=space)
    assert np.asarray(result.status)[0] == Status.INFEASIBLE
    assert np.asarray(result.status)[1] != Status.INFEASIBLE
