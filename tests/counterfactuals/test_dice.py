"""DiCE, by gradient and genetic: sets that are valid, different, feasible and reproducible."""

from __future__ import annotations

from typing import Any

import cf_helpers
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from invjax import Status
from invjax.counterfactuals.dice import DiCE
from invjax.counterfactuals.dice_genetic import DiCEGenetic
from invjax.counterfactuals.parts import sets
from invjax.counterfactuals.parts.proximity import MadL1, SquaredL2

KAPPA = 0.05
CONFIGS = {"dice": DiCE(steps=120), "dice-genetic": DiCEGenetic(generations=60)}
OTHER = {"dice": DiCE(steps=100, gamma=2.0), "dice-genetic": DiCEGenetic(generations=40, mutation=0.4)}
every = pytest.mark.parametrize("name", CONFIGS)


def least_distance(points: np.ndarray) -> np.ndarray:
    """[N] the least l1 distance between two of a set [N, P, *S]."""
    flat = points.reshape(*points.shape[:2], -1)
    distance = np.abs(flat[:, :, None] - flat[:, None]).sum(-1)
    return (distance + 1e9 * np.eye(points.shape[1])).min((1, 2))


@pytest.mark.fast
def test_diversity() -> None:
    rng = np.random.default_rng(0)
    points = jnp.asarray(rng.normal(size=(4, 2, 3)), jnp.float32)
    for d in (MadL1(0.5), SquaredL2()):
        each = [[float(d.value(a - b)) for b in points] for a in points]
        k = 1 / (1 + np.array(each))
        assert np.linalg.eigvalsh(k).min() > 0
        np.testing.assert_allclose(sets.kernel(points, d), k, rtol=1e-5)
        det = np.linalg.det(k + 1e-4 * np.eye(4))
        np.testing.assert_allclose(sets.diversity(points, d, "det"), det, rtol=1e-4)
        np.testing.assert_allclose(sets.diversity(points, d, "logdet"), np.log(det), rtol=1e-3)
    for kind in ("det", "logdet"):  # all points equal: finite
        grad = jax.grad(lambda p, kind=kind: sets.diversity(p, MadL1(), kind))(jnp.zeros((4, 3)))
        assert np.isfinite(grad).all()


@pytest.mark.fast
def test_pick_diverse() -> None:
    """Valid before invalid, a copy last, closeness against cost."""
    points = jnp.asarray([[0.0], [0.0], [0.1], [3.0], [9.0]])
    score, valid = jnp.asarray([0.0, 0.0, 0.1, 0.5, 0.0]), jnp.asarray([True, True, True, True, False])
    order, good = sets.pick_diverse(points, score, valid, 5, jnp.asarray(1.0), MadL1())
    assert order.tolist() == [0, 3, 2, 4, 1]
    assert good.tolist() == [True, True, True, False, False]
    greedy, _ = sets.pick_diverse(points, score, valid, 3, jnp.asarray(0.0), MadL1())
    assert greedy.tolist() == [0, 2, 3]
    new, old = jnp.asarray([[1.0], [2.0], [2.0]]), jnp.asarray([[5.0], [1.0], [2.0]])
    assert sets.apart(new, old).tolist() == [False, False, False]
    assert sets.apart(new, jnp.asarray([[5.0], [6.0], [7.0]])).tolist() == [True, True, False]
    assert sets.distinct(old[jnp.array([0, 1, 1])], jnp.asarray([True, True, True])).tolist() == [True, True, False]


@pytest.mark.fast
def test_bad_constants() -> None:
    for config, message in [
        (DiCE(answers=0), "DiCE.answers must be a whole number >= 1"),
        (DiCE(diversity="dpp"), "DiCE.diversity must be one of 'det', 'logdet'"),
        (DiCE(start_width=0.0), "DiCE.start_width must be in"),
        (DiCEGenetic(population=3), "DiCEGenetic.population must be a whole number >= 4"),
        (DiCEGenetic(mutation=1.0), "DiCEGenetic.mutation must be in"),
    ]:
        with pytest.raises(ValueError, match=message):
            cf_helpers.solve(cf_helpers.mlp_task(), config)


@every
def test_contract(name: str, tmp_path: Any) -> None:
    """Sets of 4 different valid points; from a folder too; a table has a row per point."""
    task, config = cf_helpers.mlp_task(), CONFIGS[name]
    result = cf_helpers.solve(task, config, targeted=False)
    assert result.x.shape == (12, 4, *cf_helpers.SHAPE)
    assert result.status.shape == result.found.shape == (12, 4)
    assert result.evaluations.shape == (12,)
    cf_helpers.check_contract(task, result, KAPPA, targeted=False)
    assert np.asarray(result.found).mean() > 0.9, result
    whole = np.asarray(result.found).all(1)
    assert (least_distance(np.asarray(result.x))[whole] > 0.01).all()
    assert len(result.to_pandas()) == 48
    saved = [cf_helpers.solve(task, config, targeted=False, out=tmp_path, lanes=12) for _ in range(2)]
    for again in saved:
        np.testing.assert_array_equal(again.x, result.x)
        np.testing.assert_array_equal(again.status, result.status)

    # Towards one class, one program; and one row has it already.
    label, target = task.label.copy(), task.target.copy()
    label[3], target[3] = target[3], label[3]
    result = cf_helpers.solve(task._replace(label=label, target=target), config)
    assert (np.asarray(result.status)[3] == Status.ALREADY_TARGET).all()
    np.testing.assert_array_equal(np.asarray(result.delta)[3], 0)
    found = np.asarray(result.status) == Status.FOUND
    assert (cf_helpers.gaps(task, result.x)[found] <= -KAPPA + 1e-5).all()
    assert found.mean() > 0.4


@every
def test_protocol(name: str) -> None:
    cf_helpers.check_protocol(cf_helpers.mlp_task(count=8), CONFIGS[name], OTHER[name])


def test_the_determinant_spreads() -> None:
    task = cf_helpers.mlp_task()
    options = {"targeted": False, "key": jax.random.key(1)}
    with_, without = (
        least_distance(np.asarray(cf_helpers.solve(task, DiCE(steps=120, spread=w), **options).x)) for w in (1.0, 0)
    )
    assert np.median(with_) > 1.2 * np.median(without)


def test_features_are_put_back() -> None:
    """The same search without putting back: no fewer changes anywhere, more in sum, as many valid."""
    task = cf_helpers.mlp_task()
    full, thin = (cf_helpers.solve(task, DiCE(steps=120, restorations=n), targeted=False) for n in (0, 30))
    np.testing.assert_array_equal(full.status, thin.status)
    l0 = [(np.asarray(r.delta).reshape(12, 4, -1) != 0).sum(-1) for r in (full, thin)]
    assert (l0[1] <= l0[0]).all()
    assert l0[1].sum() < 0.9 * l0[0].sum()
    kept = np.asarray(thin.delta) != 0
    np.testing.assert_array_equal(np.asarray(thin.x)[kept], np.asarray(full.x)[kept])


@every
def test_constraints(name: str) -> None:
    people = cf_helpers.census()
    result = cf_helpers.census_solve(people, CONFIGS[name])
    found = np.asarray(result.status) == Status.FOUND
    assert found.mean() >= 0.9, result
    for p in range(4):
        answer = people.space.decode(np.asarray(result.x)[:, p], people.table)
        assert people.space.violations(people.table, answer) == [[]] * len(found)
    assert (cf_helpers.gaps(people.task, result.x)[found] <= -KAPPA + 1e-5).all()
    assert (least_distance(np.asarray(result.x))[found.all(1)] > 0).all()


def test_genetic_draws_the_whole_range() -> None:
    """Mutations are not always the lower bound; another key, other sets; no gradient is asked."""
    task = cf_helpers.mlp_task()
    one, two = (cf_helpers.solve(task, CONFIGS["dice-genetic"], targeted=False, key=jax.random.key(k)) for k in (0, 1))
    assert (np.asarray(one.evaluations) == 0).all()
    assert (np.asarray(one.forwards) <= 40 * 61).all()
    assert (np.asarray(one.x) != np.asarray(two.x)).any()
    values = np.asarray(one.x)[np.asarray(one.delta) != 0]
    assert (values > cf_helpers.BOX[0]).mean() > 0.95
    assert values.max() > 0.8
    assert values.min() < -0.8
