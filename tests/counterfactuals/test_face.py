"""FACE: paths on hand-made graphs, the density's detour, and what a FeatureSpace forbids."""

from __future__ import annotations

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from invjax import LogitsModel, Status
from invjax.constraints import Feature, FeatureSpace
from invjax.counterfactuals.face import face, near


def _by_first(params, x):
    z = 20 * (x[:, 0] - params)
    return jnp.stack([jnp.zeros_like(z), z], axis=1)


NET = LogitsModel(jnp.float32(0.7), _by_first)  # class 1 right of 0.7


class Flat:
    """The same density everywhere."""

    def log_prob(self, x, label):
        return jnp.zeros((), x.dtype)


jax.tree_util.register_static(Flat)


def _run(x, train, **options):
    train = np.asarray(train, np.float32)
    y = (train[:, 0] > 0.7).astype(np.int32)
    x = np.asarray(x, np.float32)
    return face(NET, x, np.zeros(len(x), np.int32), np.ones(len(x), np.int32), train_x=train, train_y=y,
                **{"density": Flat(), "quantile": 0.0, **options})  # fmt: skip


CHAIN = [[0.1, 0.5], [0.3, 0.5], [0.5, 0.5], [0.7, 0.5], [0.9, 0.5], [0.9, 0.9]]


def test_chain_is_walked_step_by_step() -> None:
    got = _run([[0.0, 0.5]], CHAIN, graph="epsilon", eps=0.25)
    assert got.result.status[0] == Status.FOUND
    assert got.path[0].tolist() == [0, 1, 2, 3, 4]
    np.testing.assert_allclose(got.length[0], 0.9, atol=1e-6)
    np.testing.assert_array_equal(got.result.x[0], np.float32([0.9, 0.5]))
    far = _run([[0.0, 0.5]], CHAIN, graph="epsilon", eps=0.15)
    assert far.result.status[0] == Status.NOT_FOUND
    assert not len(far.path[0])
    np.testing.assert_array_equal(far.result.x[0], np.float32([0.0, 0.5]))


def test_shortest_path_is_that_of_all_paths() -> None:
    draw = np.random.default_rng(0)
    train = draw.uniform(size=(7, 2)).astype(np.float32)
    train[:2, 0] = [0.85, 0.9]
    x = np.float32([[0.05, 0.5]])
    got = _run(x, train, graph="knn", neighbours=2)
    nodes = np.concatenate([train, x]).astype(np.float64)
    distance = np.linalg.norm(nodes[:, None] - nodes[None], axis=-1)
    order = np.argsort(distance[:, :7] + np.where(np.eye(8, 7, dtype=bool), 99, 0), axis=1)[:, :2]
    edge = np.zeros((8, 7), bool)
    for i, j in itertools.product(range(8), range(2)):
        edge[i, order[i, j]] = True
        if i < 7:
            edge[order[i, j], i] = True
    best = np.inf
    for size in range(1, 8):
        for path in itertools.permutations(range(7), size):
            steps = list(zip((7, *path), path, strict=False))
            if train[path[-1], 0] > 0.7 and all(edge[a, b] for a, b in steps):
                best = min(best, sum(distance[a, b] for a, b in steps))
    assert np.isfinite(best)
    np.testing.assert_allclose(got.length[0], best, rtol=1e-6)


def test_density_prefers_the_way_round() -> None:
    """A direct way of two steps through emptiness, and a longer one among many rows."""
    draw = np.random.default_rng(0)
    arc = np.stack([0.5 - 0.4 * np.cos(np.linspace(0, np.pi, 40)), 0.1 + 0.5 * np.sin(np.linspace(0, np.pi, 40))], 1)
    crowd = np.concatenate([arc + 0.01 * draw.normal(size=arc.shape) for _ in range(6)])
    train = np.concatenate([crowd, [[0.5, 0.1]]])
    x = [[0.1, 0.1]]
    options = {"graph": "epsilon", "eps": 0.42, "quantile": 0.0}
    straight = _run(x, train, weight="distance", **options)
    round_ = _run(x, train, weight="density", density=None, **options)
    assert (straight.result.status == Status.FOUND).all()
    assert (round_.result.status == Status.FOUND).all()
    assert train[straight.path[0]][:, 1].max() < 0.3  # along the floor
    assert train[round_.path[0]][:, 1].max() > 0.4  # over the top


def test_space_forbids_edges() -> None:
    # The second column may only rise: the path down is forbidden although its end is an allowed change.
    space = FeatureSpace([Feature("a", lower=0, upper=1), Feature("b", lower=0, upper=1, direction="up")])
    train = [[0.3, 0.6], [0.5, 0.2], [0.8, 0.4], [0.35, 0.35], [0.6, 0.5], [0.9, 0.6]]
    free = _run([[0.1, 0.2]], train, graph="epsilon", eps=0.45)
    held = _run([[0.1, 0.2]], train, graph="epsilon", eps=0.45, space=space)
    assert held.length[0] >= free.length[0]
    walk = np.concatenate([[[0.1, 0.2]], np.float32(train)[held.path[0]]])
    assert (np.diff(walk[:, 1]) >= -1e-6).all()
    assert held.result.status[0] == Status.FOUND
    table = space.decode(np.float32([[0.1, 0.2]]))
    assert not any(space.violations(table, space.decode(held.result.x, table)))
    fixed = FeatureSpace([Feature("a", direction="none", lower=0, upper=1), Feature("b", lower=0, upper=1)])
    assert _run([[0.1, 0.2]], train, graph="epsilon", eps=0.45, space=fixed).result.status[0] == Status.NOT_FOUND


def test_thresholds_choose_the_end() -> None:
    train = [[0.5, 0.5], [0.72, 0.5], [0.95, 0.5]]
    lax = _run([[0.4, 0.5]], train, graph="epsilon", eps=0.3, probability=0.5)
    sure = _run([[0.4, 0.5]], train, graph="epsilon", eps=0.3, probability=0.95)
    assert lax.path[0].tolist()[-1] == 1
    assert sure.path[0].tolist()[-1] == 2
    assert _run([[0.4, 0.5]], train, graph="epsilon", eps=0.3, kappa=50.0).result.status[0] == Status.NOT_FOUND


def test_alpha_refuses_lonely_rows() -> None:
    draw = np.random.default_rng(0)
    crowd = np.concatenate(
        [[0.3, 0.5] + 0.03 * draw.normal(size=(30, 2)), [0.9, 0.5] + 0.02 * draw.normal(size=(30, 2))]
    )
    train = np.concatenate([crowd, [[0.71, 0.9]]])
    options = {"density": None, "graph": "knn", "neighbours": 40}
    assert _run([[0.5, 0.9]], train, quantile=0.0, weight="distance", **options).path[0].tolist() == [60]
    assert 60 not in _run([[0.5, 0.9]], train, quantile=0.2, weight="distance", **options).path[0].tolist()[-1:]


def test_rows_are_independent_and_statuses() -> None:
    draw = np.random.default_rng(1)
    train, x = draw.uniform(size=(60, 2)), draw.uniform(0, 0.6, size=(4, 2))
    both = _run(x, train, neighbours=5)
    for i in range(4):
        one = _run(x[i : i + 1], train, neighbours=5)
        np.testing.assert_array_equal(one.result.x[0], both.result.x[i])
        assert one.path[0].tolist() == both.path[i].tolist()
    already = _run([[0.9, 0.5]], train)
    assert already.result.status[0] == Status.ALREADY_TARGET
    assert not already.result.delta.any()
    train_y = (train[:, 0] > 0.7).astype(np.int32)
    single = face(NET, np.float32(x[0]), 0, 1, train_x=train, train_y=train_y, density=Flat())
    assert single.result.x.shape == (2,)


def test_copies_and_self_are_no_neighbours() -> None:
    rows = np.array([[0.0], [0.0], [1.0], [3.0]])
    edges = near(rows, rows, "knn", 2, None)
    assert (edges.distance > 0).all()
    assert set(zip(edges.start.tolist(), edges.end.tolist(), strict=True)) >= {(0, 2), (1, 2), (3, 2)}


@pytest.mark.parametrize("wrong", [
    {"graph": "tree"}, {"graph": "epsilon"}, {"neighbours": 0}, {"weight": "kde"}, {"probability": 1.0},
    {"quantile": 1.0}, {"kappa": -1.0}, {"train_x": np.ones((6, 3))},
])  # fmt: skip
def test_bad_arguments(wrong: dict) -> None:
    arguments = {"train_x": np.float32(CHAIN), "train_y": np.array([0, 0, 0, 0, 1, 1]), "density": Flat(), **wrong}
    with pytest.raises(ValueError, match="eps" if wrong == {"graph": "epsilon"} else next(iter(wrong))):
        face(NET, np.float32([[0.0, 0.5]]), np.array([0]), np.array([1]), **arguments)
