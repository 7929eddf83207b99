"""What the tests of the counterfactual methods share: small tasks, a space of all kinds, the protocol."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import nets
import numpy as np

import invjax
from invjax import Result, Status, engine
from invjax.constraints import Feature, FeatureSpace, Relation

BOX = (-2.0, 2.0)
SHAPE = (3, 2, 1)


def mlp_task(count: int = 12, seed: int = 1, classes: int = 3) -> nets.Task:
    """Images of six numbers in [-2, 2] and a random network of three classes."""
    return nets.task(nets.mlp(SHAPE, classes, seed=2), SHAPE, count, seed=seed, bounds=BOX)


def solve(task: nets.Task, config: Any, *, targeted: bool = True, **options: Any) -> Result:
    options = {"bounds": BOX, "lanes": len(task.x), "progress": False, **options}
    if targeted:
        options.setdefault("target", task.target)
    return invjax.solve(task.net, task.x, task.label, method=config, **options)


def gaps(task: nets.Task, x: Any, targeted: bool = True) -> np.ndarray:
    """[...] gap of each point of x [N, *S] or [N, P, *S]; negative where it has the wanted class."""
    x = np.asarray(x)
    each = x.size // task.x.size
    rows = x.reshape(-1, *task.x.shape[1:])
    aim = task.target if targeted else np.full(len(task.x), invjax.UNTARGETED)
    label, aim = (np.repeat(a, each) for a in (task.label, aim))
    gap = jax.vmap(invjax.losses.gap)(task.net(jnp.asarray(rows)), jnp.asarray(label), jnp.asarray(aim))
    return np.asarray(gap).reshape(x.shape[: x.ndim - task.x.ndim + 1])


def check_contract(task: nets.Task, result: Result, kappa: float, targeted: bool = True) -> None:
    """FOUND: valid with the margin, in the box, changed. Not FOUND: the clean input, bit for bit."""
    x, delta, status = np.asarray(result.x), np.asarray(result.delta), np.asarray(result.status)
    clean = np.broadcast_to(task.x[:, None] if status.ndim == 2 else task.x, x.shape)
    assert x.dtype == delta.dtype == np.asarray(result.attempt).dtype == task.x.dtype
    assert x.shape == delta.shape == np.asarray(result.attempt).shape
    assert np.isfinite(np.asarray(result.attempt)).all()
    assert (x >= BOX[0]).all()
    assert (x <= BOX[1]).all()
    np.testing.assert_array_equal(delta, x - clean)
    found = status == Status.FOUND
    assert set(status[~found].tolist()) <= {Status.NOT_FOUND}
    np.testing.assert_array_equal(x[~found], clean[~found])
    assert (gaps(task, x, targeted)[found] <= -kappa + 1e-5).all()


def rows_of(result: Result, index: Any) -> Result:
    return jax.tree.map(lambda field: np.asarray(field)[index], result)


def check_protocol(task: nets.Task, config: Any, other: Any) -> None:
    """Alone, in a batch, in the refilled queue, in another order: bit for bit the same. ``other``: no new program."""
    count, lanes = len(task.x), 4
    ctx, problems, typed, method, key, _ = engine.prepare(
        task.net, task.x, task.label, method=config, target=task.target, bounds=BOX
    )

    def queue(index: Any) -> Result:
        chosen = jax.tree.map(lambda field: np.asarray(field)[index], problems)
        return engine.run_queue(ctx, chosen, typed, method=method, key=key, lanes=lanes)

    first = nets.Task(task.net, *(field[:lanes] for field in task[1:]))
    batch, everyone = solve(first, config), queue(np.arange(count))
    nets.same(rows_of(everyone, slice(lanes)), rows_of(batch, slice(lanes)))
    with nets.compilations() as names:
        order = np.random.default_rng(0).permutation(count)
        nets.same(queue(order), rows_of(everyone, order))
        nets.same(queue(np.arange(1)), rows_of(everyone, slice(1)))
        changed = solve(first, other)
    assert not names
    assert (np.asarray(changed.attempt) != np.asarray(batch.attempt)).any(), "the other numbers must matter"


class Census(NamedTuple):
    space: FeatureSpace
    table: dict[str, np.ndarray]
    task: nets.Task


def census(count: int = 10, related: bool = False) -> Census:
    """Rows of a table with ranges, grids, directions, an immutable feature, a category and, if wanted, a relation."""
    space = FeatureSpace(
        [
            Feature("age", "integer", 18, 90, direction="up"),
            Feature("income", lower=0, upper=100, step=2.5),
            Feature("debt", lower=0, upper=100, direction="down"),
            Feature("born", "category", levels=("here", "there"), direction="none"),
            Feature("work", "category", levels=("none", "part", "full"), transitions={("full", "none"): None}),
            Feature("school", "ordinal", levels=("low", "middle", "high"), direction="up"),
        ],
        relations=[Relation({"debt": 1.0, "income": -2.0}, 0.0)] if related else [],
        center={"age": 50.0, "income": 50.0, "debt": 50.0},
        scale={"age": 20.0, "income": 25.0, "debt": 25.0},
    )
    rng = np.random.default_rng(3)
    income = 2.5 * rng.integers(16, 38, count)
    table = {
        "age": rng.integers(20, 60, count), "income": income, "debt": income * rng.uniform(0.3, 1.0, count),
        "born": rng.choice(["here", "there"], count), "work": rng.choice(["none", "part", "full"], count),
        "school": rng.choice(["low", "middle"], count),
    }  # fmt: skip
    x = space.encode(table)
    net = nets.linear((space.width,), 2, seed=4)
    label = np.asarray(net(jnp.asarray(x))).argmax(1).astype(np.int32)
    return Census(space, table, nets.Task(net, x, label, 1 - label))


def census_solve(people: Census, config: Any, **options: Any) -> Result:
    task = people.task
    return invjax.solve(
        task.net, task.x, task.label, target=task.target, method=config, space=people.space, progress=False, **options
    )
