"""Models without a gradient: no answer is missed that one change gives, and what was done is said."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import pytest

from invjax import LogitsModel, Status
from invjax.constraints import Feature, FeatureSpace, Relation
from invjax.counterfactuals import make
from invjax.data import from_space
from invjax.engine.blackbox import surrogate
from invjax.models import with_surrogate
from invjax.recourse import explain_rows, gradients
from invjax.recourse.concluding import judge_result
from invjax.recourse.one_change import one_change, values_of
from invjax.recourse.plan import make_plan
from invjax.recourse.raw import model_of_table
from invjax.recourse.reading import read_rows

SPACE = FeatureSpace(
    [
        Feature("income", lower=0.0, upper=100.0),
        Feature("age", "integer", 18, 80, direction="up"),
        Feature("job", "category", levels=("off", "part", "full"), transitions={("off", "full"): None}),
        Feature("school", "ordinal", levels=("low", "middle", "high"), direction="up", cost=0.2),
        Feature("born", "category", levels=("here", "there"), direction="none"),
        Feature("debt", lower=0.0, upper=50.0),
    ],
    [Relation.at_most("debt", "income")],
    [50, 40, 0, 1, 0, 25], [20, 12, 1, 1, 1, 12],
)  # fmt: skip
TREES = np.random.default_rng(4)
BOXES = [(TREES.choice(4), TREES.uniform(0.2, 0.8), TREES.choice(4), TREES.uniform(0.2, 0.8)) for _ in range(3)]


def shares(table):
    """[N] probability of "yes": thresholds of pairs of features, steps everywhere."""
    columns = [
        np.asarray(table["income"], float) / 100,
        (np.asarray(table["age"], float) - 18) / 62,
        np.asarray([("off", "part", "full").index(str(level)) / 2 for level in table["job"]]),
        np.asarray([("low", "middle", "high").index(str(level)) / 2 for level in table["school"]]),
    ]
    votes = sum(((columns[f] > a) & (columns[g] > b)).astype(float) for f, a, g, b in BOXES) / len(BOXES)
    return 0.1 + 0.8 * votes


NOTHING = LogitsModel(jnp.float32(1.0), lambda w, x: jnp.stack([w + 0 * x[:, 0]] * 2, 1))


def place(name, value):
    return ("low", "middle", "high").index(value) if name == "school" else float(value)


def people(count, seed):
    draw = np.random.default_rng(seed)
    income = draw.uniform(5, 95, count)
    return {
        "income": income, "age": draw.integers(18, 80, count), "job": draw.choice(["off", "part", "full"], count),
        "school": draw.choice(["low", "middle", "high"], count), "born": draw.choice(["here", "there"], count),
        "debt": income * draw.uniform(0, 0.5, count),
    }  # fmt: skip


@pytest.fixture(scope="module")
def task():
    """A table, its model, and a network beside it that knows nothing: it always says "no"."""
    table = people(120, 0)
    data = from_space("steps", table, shares(table) > 0.5, ("no", "yes"), SPACE, (np.arange(80), np.arange(80, 120)))
    return data, with_surrogate(model_of_table(shares, SPACE, table, 2), NOTHING)


def test_values_that_are_tried():
    column = np.array([1.0, 2.0, 4.0, 4.0])
    number = values_of(Feature("a", lower=0.0, upper=5.0), column, 100)
    np.testing.assert_allclose(number, [0, 1, 1.01, 1.5, 1.99, 2, 2.02, 3, 3.98, 4, 5])
    assert values_of(Feature("a", lower=1.5, upper=3.0), column, 100).tolist() == [1.5, 1.99, 2, 2.02, 3]
    assert values_of(Feature("a", "integer", -2, 3), column, 100).tolist() == [-2, -1, 0, 1, 2, 3]
    wide = values_of(Feature("a", "integer", 0, 10**6), np.array([10, 20, 10**5]), 100)
    assert set(wide) >= {0, 10, 15, 20, 10**5, 10**6}
    assert (wide == np.rint(wide)).all()
    assert values_of(Feature("a", "ordinal", 1, 2, levels=(5, 6, 7)), column, 100).tolist() == [1, 2]
    assert len(values_of(Feature("a"), np.arange(10.0**4), 400)) <= 400


def test_the_cheapest_single_change(task):
    """Against every allowed row that differs in one feature, one by one, in raw units."""
    data, model = task
    plan = make_plan(data, model, "s-cfe", evaluator=surrogate, plausibility=0.0)
    asked = read_rows(plan, np.arange(120), None, "yes")
    todo = asked.question()[0]
    got, tried = one_change(plan, asked, todo)
    values = {
        f.name: [f.levels[int(i)] for i in values] if f.levelled else values.tolist()
        for f in SPACE.features
        for values in [values_of(f, np.asarray(data.table[f.name])[plan.train], 3333)]
    }
    for i, n in enumerate(todo):
        old = {name: column[[n]] for name, column in asked.table.items()}
        each = [(name, value) for name, own in values.items() for value in own if value != old[name][0]]
        rows = {name: np.asarray([v if at == name else old[name][0] for at, v in each], object) for name in values}
        start = {name: np.repeat(column.astype(object), len(each)) for name, column in old.items()}
        lawful = np.asarray([not broken for broken in SPACE.violations(start, rows)])
        assert tried[i] == lawful.sum()
        good = lawful & (shares(rows) > 0.5)
        assert got.accepted[i] == good.any()
        if good.any():
            won = {name: column[[i]] for name, column in got.table.items()}
            assert SPACE.violations(old, won) == [[]]
            assert shares(won) > 0.5
            unit = {f.name: f.cost / s for f, s in zip(SPACE.features, SPACE.scale, strict=True)}
            cost = [1.0 if f in ("job", "born") else unit[f] * abs(place(f, v) - place(f, old[f][0])) for f, v in each]
            np.testing.assert_allclose(got.cost[i], np.min(np.asarray(cost)[good]), rtol=1e-5)
    assert 0.3 < got.accepted.mean() < 1


def test_what_the_gradient_misses_is_found(task, monkeypatch):
    """A network that knows nothing is not trusted; where it is, every change of one feature is tried, and said."""
    data, _ = task
    space = FeatureSpace(SPACE.features, (), SPACE.center, SPACE.scale)  # its program is smaller without a relation
    data = data._replace(space=space)
    model = with_surrogate(model_of_table(shares, space, data.table, 2), NOTHING)
    config, rows = make("wachter", steps=3, trials=2), np.arange(80, 96)
    careful = explain_rows(data, model, rows, target="yes", method=config, evaluator=surrogate, plausibility=0.0)
    assert "differences of the model, because the network" in careful.settings["gradient"]
    monkeypatch.setattr(gradients, "ENOUGH", 0.0)
    trusting = explain_rows(data, model, rows, target="yes", method=config, evaluator=surrogate, plausibility=0.0)
    assert "a network that imitates the model, the same class on" in trusting.settings["gradient"]
    assert "answers" in trusting.settings["one change"]
    assert trusting.settings["agreement at the answers"].startswith("the network that imitates sees one in 0")
    plan = make_plan(data, model, config, evaluator=surrogate, plausibility=0.0)
    asked = read_rows(plan, rows, None, "yes")
    todo = asked.question()[0]
    one = set(todo[one_change(plan, asked, todo).judged.accepted].tolist())
    for got in (careful, trusting):
        found = {n for n, person in enumerate(got.people) if person.status == Status.FOUND}
        assert found >= one
        assert (shares(got.table)[list(found)] > 0.5).all()
        for n, person in enumerate(got.people):
            if person.status == Status.NOT_FOUND:
                assert "changes of one feature that were tried leads there" in person.reason
                assert n not in one
    assert judge_result(plan, asked, None, None).status.tolist() == asked.status.tolist()
