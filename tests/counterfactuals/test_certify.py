"""Exact counterfactuals and certificates, against enumeration, grids and scikit-learn."""

from __future__ import annotations

import itertools
from dataclasses import replace

import jax
import numpy as np
import pytest
from flax import nnx
from sklearn.neighbors import LocalOutlierFactor

from invjax.constraints import Feature, FeatureSpace, Relation
from invjax.core.logits import LogitsModel, as_logits
from invjax.counterfactuals.milp import (
    certify,
    exact_counterfactual,
    lof_model,
    mip_counterfactuals,
    relu_layers,
)
from invjax.counterfactuals.milp.domain import box_domain
from invjax.counterfactuals.milp.encode import tightened
from invjax.counterfactuals.milp.network import interval, margin, pre_activations
from invjax.models.mlp import MLP
from invjax.types import Result, Status


def random_layers(sizes: tuple[int, ...], seed: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """A random network whose last layer is centered, so that all classes occur in [0, 1]^D."""
    random = np.random.default_rng(seed)
    layers = []
    points = random.random((2000, sizes[0]))
    for i, (rows, columns) in enumerate(itertools.pairwise(sizes)):
        weight = random.normal(size=(rows, columns)) * np.sqrt(2 / rows) * (1.5 if i == 0 else 1.0)
        z = points @ weight
        layers.append((weight, -z.mean(0) + (0 if i == len(sizes) - 2 else 0.3 * random.normal(size=columns))))
        points = np.maximum(z + layers[-1][1], 0)
    return layers


GRID = np.stack(np.meshgrid(*[np.linspace(0, 1, 201)] * 2), -1).reshape(-1, 2)


def costs(points: np.ndarray, x: np.ndarray, objective: str, mad: np.ndarray) -> np.ndarray:
    far = np.abs(points - x)
    return {
        "l1": far.sum(-1),
        "l0": (far > 0).sum(-1).astype(float),
        "linf": far.max(-1),
        "mad_l1": (far / mad).sum(-1),
    }[objective]


def with_lines(x: np.ndarray) -> np.ndarray:
    """The grid, and the points that keep one coordinate of x: what changes one feature only."""
    line = np.linspace(0, 1, 2001)
    own = [np.stack([line, np.full_like(line, x[1])], 1), np.stack([np.full_like(line, x[0]), line], 1)]
    return np.concatenate([GRID, *own])


@pytest.mark.fast
def test_layers_are_the_network() -> None:
    model = MLP((3, 5, 4, 3), rngs=nnx.Rngs(0))
    x = np.random.default_rng(0).random((7, 3)).astype(np.float32)
    wrapped = as_logits(model, mean=[0.1, 0.5, 0.3], std=[0.5, 2.0, 1.0])
    for one in (model, wrapped):
        expected = np.asarray(one(jax.numpy.asarray(x)))
        np.testing.assert_allclose(pre_activations(relu_layers(one), x)[-1], expected, atol=1e-5)
    single = MLP((3, 4, 1), rngs=nnx.Rngs(1))
    logits = pre_activations(relu_layers(as_logits(single, mean=0.5)), x)[-1]
    np.testing.assert_allclose(logits[:, 1], np.asarray(single(jax.numpy.asarray(x - 0.5)))[:, 0], atol=1e-5)
    assert not logits[:, 0].any()
    weight, bias = np.ones((3, 1)), np.zeros(1)
    np.testing.assert_array_equal(relu_layers([(weight, bias)])[0][0], [[0, 1]] * 3)

    class Other:
        def relu_layers(self) -> list:
            return [(weight, bias)]

    assert len(relu_layers(Other())) == 1


@pytest.mark.parametrize(
    "model",
    [
        lambda x: x,
        LogitsModel((), lambda params, x: x),
        [],
        [(np.ones((2, 3)), np.ones(2))],
        [(np.ones((2, 3)), np.ones(3)), (np.ones((2, 2)), np.ones(2))],
        [(np.full((2, 2), np.nan), np.ones(2))],
        "mlp",
    ],
)
def test_other_models_are_refused(model: object) -> None:
    with pytest.raises(ValueError, match="model must"):
        relu_layers(model)


@pytest.mark.parametrize("method", ["ibp", "lp", "milp"])
def test_bounds_hold_and_tighten(method: str) -> None:
    layers = random_layers((3, 6, 6, 2), 0)
    lower, upper = np.array([0.1, 0.0, 0.4]), np.array([0.5, 0.6, 0.4])
    boxes = tightened(layers, box_domain([0.3, 0.3, 0.4], lower, upper), method)
    points = lower + np.random.default_rng(0).random((20000, 3)) * (upper - lower)
    total, plain = 0.0, 0.0
    for box, first, z in zip(boxes, interval(layers, lower, upper), pre_activations(layers, points), strict=True):
        assert (z >= box.lower - 1e-9).all()
        assert (z <= box.upper + 1e-9).all()
        total += (box.upper - box.lower).sum()
        plain += (first.upper - first.lower).sum()
    assert total <= plain if method == "ibp" else total < 0.9 * plain


@pytest.mark.parametrize("objective", ["l1", "l0", "linf", "mad_l1"])
@pytest.mark.parametrize("seed", [1, 3])
def test_optimum_against_a_grid(objective: str, seed: int) -> None:
    layers = random_layers((2, 6, 6, 3), seed)
    random, mad = np.random.default_rng(seed), np.array([0.2, 0.7])
    for x in random.random((1, 2)):
        label = int(pre_activations(layers, x)[-1].argmax())
        for target in ((label + 1) % 3, -1):
            answer = exact_counterfactual(layers, x, target, objective=objective, mad=mad, kappa=0.1)
            points = with_lines(x)
            valid = margin(layers, points, label, target) >= 0.1
            if not valid.any():
                assert answer.status == "infeasible" or answer.objective > 0
                continue
            least = costs(points[valid], x, objective, mad).min()
            assert answer.status == "optimal"
            assert answer.objective <= least + 1e-6  # nothing on the grid is better
            assert answer.bound <= answer.objective + 1e-12
            assert answer.objective - answer.bound <= 1e-4
            # The answer is what it says: valid, in the box, of that cost.
            assert margin(layers, answer.x, label, target) >= 0.1
            assert ((answer.x >= 0) & (answer.x <= 1)).all()
            assert costs(answer.x, x, objective, mad) == pytest.approx(answer.objective, abs=1e-12)


def test_logistic_regression_has_a_closed_form() -> None:
    weight, x = np.array([1.0, -4.0, 2.0]), np.array([0.5, 0.5, 0.5])
    answer = exact_counterfactual([(weight[:, None], np.array([0.0]))], x, 1, kappa=0.1)
    # z = w x = -0.5; the cheapest way to z = 0.1 is the coordinate of the largest |w|.
    np.testing.assert_allclose(answer.x, [0.5, 0.5 - 0.6 / 4, 0.5], atol=1e-8)
    assert answer.objective == pytest.approx(0.15, abs=1e-8)
    np.testing.assert_array_equal(answer.x[[0, 2]], x[[0, 2]])
    rounded = exact_counterfactual([(weight[:, None], np.array([0.0]))], x, 1, kappa=0.1, dtype=np.float32)
    assert rounded.x.astype(np.float32).astype(np.float64) @ weight >= 0.1
    held = exact_counterfactual([(weight[:, None], np.array([0.0]))], x, 1, mask=[True, False, True], kappa=0.1)
    assert held.objective == pytest.approx(0.5 * 0.6 + 0.0, abs=1e-7)  # 0.3 of the third coordinate
    few = exact_counterfactual([(weight[:, None], np.array([0.0]))], x, 1, max_changes=0)
    assert few.status == "infeasible"


def test_nothing_exists_is_proven() -> None:
    layers = random_layers((2, 6, 6, 2), 4)
    x = np.array([[0.3, 0.6]], np.float32)
    label = pre_activations(layers, x)[-1].argmax(1)
    most = margin(layers, GRID, int(label[0]), 1 - int(label[0])).max()
    kappa = most + 0.5
    answer = exact_counterfactual(layers, x[0], int(1 - label[0]), kappa=kappa)
    assert (answer.status, answer.objective, answer.bound) == ("infeasible", np.inf, np.inf)
    result = mip_counterfactuals(layers, x, label, 1 - label, kappa=kappa)
    assert result.status.tolist() == [Status.INFEASIBLE]
    np.testing.assert_array_equal(result.x, x)
    proof = certify(layers, x, label, 1 - label, result, kappa=kappa, norm="l1")
    assert proof.status.tolist() == ["infeasible"]
    assert proof.bound[0] == np.inf
    easier = exact_counterfactual(layers, x[0], int(1 - label[0]), kappa=most - 1e-3)
    assert easier.status == "optimal"


def clusters(seed: int) -> np.ndarray:
    random = np.random.default_rng(seed)
    return np.concatenate([random.normal(c, s, (8, 2)) for c, s in (((0.25, 0.3), 0.08), ((0.75, 0.7), 0.12))])


@pytest.mark.parametrize(("k", "metric"), [(1, "l1"), (1, "linf"), (2, "l1"), (3, "linf")])
def test_lof_is_that_of_scikit_learn_and_is_kept(k: int, metric: str) -> None:
    points = np.clip(clusters(0), 0, 1)[:: 1 if k == 1 else 2]
    theta = 1.1
    model = lof_model(points, theta, neighbours=k, metric=metric)
    names = {"l1": "manhattan", "linf": "chebyshev"}
    judge = LocalOutlierFactor(k, metric=names[metric], novelty=True).fit(points)
    factors = -judge.score_samples(GRID)
    np.testing.assert_allclose([model.factor(point) for point in GRID[::97]], factors[::97], rtol=1e-6)

    layers = random_layers((2, 5, 2), 7)
    x = np.array([0.45, 0.55])
    label = int(pre_activations(layers, x)[-1].argmax())
    valid = margin(layers, GRID, label, 1 - label) >= 0.05
    kept = valid & (factors <= theta - 1e-3)
    assert 0 < kept.sum() < valid.sum()
    least = np.abs(GRID[kept] - x).sum(1).min()
    answer = exact_counterfactual(layers, x, 1 - label, lof=model)
    assert answer.status == "optimal"
    assert -judge.score_samples(answer.x[None])[0] <= theta + 1e-9
    assert margin(layers, answer.x, label, 1 - label) >= 0.05
    assert answer.objective <= least + 1e-6
    assert answer.objective >= exact_counterfactual(layers, x, 1 - label).objective - 1e-9
    quick = exact_counterfactual(layers, x, 1 - label, lof=model, method="polytopes")
    assert quick.status == "feasible"
    assert model.factor(quick.x) <= theta
    assert quick.objective >= answer.objective - 1e-6


def test_polytopes_are_valid_and_never_better() -> None:
    layers = random_layers((4, 5, 5, 2), 5)
    random = np.random.default_rng(5)
    data = random.random((60, 4))
    for x in random.random((2, 4)):
        label = int(pre_activations(layers, x)[-1].argmax())
        exact = exact_counterfactual(layers, x, 1 - label)
        quick = exact_counterfactual(layers, x, 1 - label, method="polytopes", references=data)
        assert quick.status == "feasible"
        assert quick.objective >= exact.objective - 1e-6
        assert margin(layers, quick.x, label, 1 - label) >= 0.05
        # It stays in a polytope of the data.
        seen = {np.concatenate([z > 0 for z in pre_activations(layers, row)[:-1]]).tobytes() for row in data}
        near = pre_activations(layers, quick.x)[:-1]
        if min(np.abs(z).min() for z in near) > 1e-6:
            assert np.concatenate([z > 0 for z in near]).tobytes() in seen


def test_certificate_of_planted_answers() -> None:
    layers = random_layers((2, 6, 6, 2), 4)
    random = np.random.default_rng(1)
    x = random.random((40, 2)).astype(np.float32)
    label = pre_activations(layers, x)[-1].argmax(1)
    reachable = [margin(layers, GRID, int(one), 1 - int(one)).max() > 0.1 for one in label]
    x, label = x[reachable][:5], label[reachable][:5]
    best = mip_counterfactuals(layers, x, label, 1 - label, objective="l1")
    assert (best.status == Status.FOUND).all()
    assert best.x.dtype == np.float32
    np.testing.assert_array_equal(best.delta, best.x - x)
    assert not best.evaluations.any()
    # 0: the optimum; 1: a valid answer that is dear; 2: not valid; 3: not found; 4: the row has the target.
    far = GRID[[margin(layers, GRID, int(label[1]), 1 - int(label[1])).argmax()]]
    points, status = best.x.copy(), best.status.copy()
    points[1], points[2], points[3], status[3] = far, x[2], x[3], Status.NOT_FOUND
    target = 1 - label
    target[4] = label[4]
    result = replace(best, x=points, status=status)
    proof = certify(layers, x, label, target, result, norm="l1")
    assert proof.status.tolist() == ["optimal", "gap", "gap", "gap", "already"]
    optimum = np.abs(best.delta.astype(np.float64)).sum(1)
    np.testing.assert_allclose(proof.optimum[:4], optimum[:4], atol=1e-5)
    np.testing.assert_allclose(proof.bound[:4], optimum[:4], atol=1e-4)
    found = np.abs(far[0] - x[1]).sum()
    assert proof.found[1] == pytest.approx(found, abs=1e-6)
    assert proof.gap[1] == pytest.approx((found - optimum[1]) / optimum[1], rel=1e-3)
    assert np.isinf(proof.found[[2, 3]]).all()
    assert np.isinf(proof.gap[[2, 3]]).all()
    assert proof.gap[[0, 4]].tolist() == [0, 0]
    assert "gap 3" in repr(proof)


def discrete_space() -> FeatureSpace:
    return FeatureSpace(
        [
            Feature("count", "integer", 0, 4, direction="up"),
            Feature("job", "category", levels=("a", "b", "c"), transitions={("a", "b"): None, ("a", "c"): 0.5}),
            Feature("grade", "ordinal", levels=("low", "mid", "high"), cost=2.0),
            Feature("limit", "integer", 0, 6, step=2),
            Feature("fixed", "integer", 0, 3, direction="none"),
        ],
        relations=[Relation.at_most("count", "limit")],
        center=[1.3, 0, 0, 1.7, 0],
        scale=[1.4, 1, 0.8, 2.1, 1],
    )


@pytest.mark.parametrize("objective", ["l1", "l0"])
def test_space_against_enumeration(objective: str) -> None:
    space = discrete_space()
    names, levels = space.names, [range(5), "abc", ("low", "mid", "high"), range(0, 7, 2), range(4)]
    every = list(itertools.product(*levels))
    table = {name: np.array([row[i] for row in every]) for i, name in enumerate(names)}
    coded = space.encode(table)
    layers = random_layers((7, 6, 5, 2), 4)
    start = {name: np.array([value]) for name, value in zip(names, (1, "a", "mid", 2, 2), strict=True)}
    x = space.encode(start)
    label = pre_activations(layers, x)[-1].argmax(1)
    wins = margin(layers, coded.astype(np.float64), int(label[0]), 1 - int(label[0]))
    repeated = {name: np.repeat(value, len(every)) for name, value in start.items()}
    allowed = np.array([not said for said in space.violations(repeated, table)])
    kappa = float(np.quantile(wins[allowed], 0.9))
    constraints = space.compile()
    weights = np.array([1.0, 1.0, 2.0, 1.0, 1.0])
    numbers = np.abs(coded.astype(np.float64) - x)[:, [0, 4, 5, 6]]
    numbers = numbers * weights[[0, 2, 3, 4]] if objective == "l1" else (numbers > 0) * weights[[0, 2, 3, 4]]
    cost = numbers.sum(1) + 0.5 * (table["job"] == "c")
    good = allowed & (wins >= kappa)
    answer = exact_counterfactual(layers, x[0], 1 - int(label[0]), space=space, kappa=kappa, objective=objective)
    assert answer.status == "optimal"
    assert answer.objective == pytest.approx(cost[good].min(), abs=1e-5)
    result = mip_counterfactuals(layers, x, label, 1 - label, space=space, kappa=kappa, objective=objective)
    assert space.violations(start, space.decode(result.x, start)) == [[]]
    assert bool(constraints.satisfied(x[0], result.x[0]))
    none = exact_counterfactual(layers, x[0], 1 - int(label[0]), space=space, kappa=float(wins[allowed].max()) + 1e-3)
    assert none.status == "infeasible"


def test_space_with_continuous_relations_and_bad_rows() -> None:
    space = FeatureSpace(
        [
            Feature("a", lower=0, upper=10),
            Feature("b", lower=0, upper=10),
            Feature("c", lower=0, upper=5, direction="down"),
        ],
        relations=[Relation.at_most("a", "b"), Relation({"a": 1.0, "c": 2.0}, 12.0)],
        center=[5, 5, 2],
        scale=[2.5, 2.5, 1.5],
    )
    random = np.random.default_rng(0)
    a = random.uniform(0, 6, 6)
    table = {"a": a, "b": a + np.array([0, 0, 1, 2, 3, 4]), "c": random.uniform(0, 3, 6)}
    table["a"][5] = table["b"][5] + 1  # breaks its own schema
    x = space.encode(table)
    layers = random_layers((3, 6, 2), 2)
    label = pre_activations(layers, x)[-1].argmax(1)
    result = mip_counterfactuals(layers, x, label, 1 - label, space=space)
    assert result.status[5] == Status.INFEASIBLE
    assert (result.status == Status.FOUND).sum() >= 3
    rows = {name: value[:5] for name, value in table.items()}
    assert not any(space.violations(rows, space.decode(result.x[:5], rows)))
    compiled = space.compile()
    for i in np.flatnonzero(result.status == Status.FOUND):
        assert bool(compiled.satisfied(x[i], result.x[i]))
    again = mip_counterfactuals(layers, x, label, 1 - label, space=compiled)
    assert again.status.tolist() == result.status.tolist()
    np.testing.assert_allclose(np.abs(again.delta).sum(1), np.abs(result.delta).sum(1), atol=1e-4)


def test_statuses_and_single_rows() -> None:
    layers = random_layers((2, 4, 2), 1)
    x = np.array([[0.2, 0.3], [np.nan, 0.1], [0.9, 0.1]], np.float32)
    label = pre_activations(layers, np.nan_to_num(x))[-1].argmax(1)
    target = 1 - label
    target[2] = label[2]
    result = mip_counterfactuals(layers, x, label, target)
    assert result.status[1:].tolist() == [Status.NONFINITE, Status.ALREADY_TARGET]
    np.testing.assert_array_equal(result.delta[2], 0)
    alone = mip_counterfactuals(layers, x[0], label[0], target[0])
    assert isinstance(alone, Result)
    assert alone.x.shape == (2,)
    np.testing.assert_array_equal(alone.x, result.x[0])


def test_other_processes_give_the_same() -> None:
    layers = random_layers((2, 4, 2), 1)
    x = np.random.default_rng(0).random((3, 2)).astype(np.float32)
    label = pre_activations(layers, x)[-1].argmax(1)
    one = mip_counterfactuals(layers, x, label, workers=0)
    two = mip_counterfactuals(layers, x, label, workers=1)
    np.testing.assert_array_equal(one.x, two.x)


@pytest.mark.parametrize(
    ("named", "options"),
    [
        ("objective", {"objective": "l2"}),
        ("mad", {"objective": "mad_l1"}),
        ("mad", {"objective": "mad_l1", "mad": [1.0, 0.0]}),
        ("method", {"method": "gurobi"}),
        ("references", {"method": "polytopes"}),
        ("bounds", {"bounds": (0, np.inf)}),
        ("bounds", {"bounds": (0, [1, 1, 1])}),
        ("target", {"target": 2}),
        ("kappa", {"kappa": -1.0}),
        ("kappa", {"kappa": np.inf}),
        ("kappa", {"kappa": "a"}),
        ("start", {"start": [0.1]}),
        ("start", {"start": [np.nan, 0.1]}),
        ("mad", {"objective": "mad_l1", "mad": "x"}),
        ("lof", {"lof": 3}),
        ("dtype", {"dtype": int}),
        ("max_changes", {"max_changes": 1.5}),
        ("time_limit", {"time_limit": 0}),
        ("tighten", {"tighten": "no"}),
        ("max_changes", {"max_changes": -1}),
        ("space", {"space": 3}),
    ],
)
def test_bad_arguments_are_named(named: str, options: dict) -> None:
    layers = random_layers((2, 4, 2), 1)
    with pytest.raises(ValueError, match=named):
        exact_counterfactual(layers, [0.1, 0.2], **{"target": 1, **options})
    for wrong in ({"neighbours": 0}, {"neighbours": 5}, {"metric": "l2"}, {"threshold": 0.0}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            lof_model(np.random.default_rng(0).random((5, 2)), **wrong)


@pytest.mark.parametrize("objective", ["l1", "l0"])
def test_the_size_of_a_tabular_net(objective: str) -> None:
    layers = random_layers((13, 20, 20, 1), 0)
    x = np.random.default_rng(0).random(13).astype(np.float32)
    label = int(pre_activations(relu_layers(layers), x)[-1].argmax())
    answer = exact_counterfactual(layers, x, 1 - label, objective=objective, time_limit=30, dtype=np.float32)
    assert answer.status in ("optimal", "feasible")  # optimal in 1 s on an idle core
    assert answer.bound > 0
    assert margin(relu_layers(layers), answer.x.astype(np.float32), label, 1 - label) >= 0.05
