"""The contract of S-CFE (solved, DCFE and as released): what tests/test_cf_baselines.py asks of the other methods.

Without constraints. That no method leaves a feature space: tests/test_cf_spaces.py.
"""

from __future__ import annotations

import contextlib
import dataclasses
from functools import cache
from typing import Any

import cf_helpers
import jax
import jax.numpy as jnp
import nets
import numpy as np
import pytest
from oracles import x64

import invjax
from invjax import Result, Status, engine
from invjax.counterfactuals import DCFE, SCFE, FixedWeights, SCFEReleased
from invjax.densities import fit_kde, fit_knn

COUNT = 12
# Beside each the same method with other numbers: the same program.
CONFIGS: dict[str, Any] = {
    "s-cfe": SCFE(max_changes=2, tau=0.05, steps=8, polish=4),
    "dcfe": DCFE(tau=0.5, beta=0.1, steps=8, polish=4),
    "s-cfe-released": SCFEReleased(tau=0.01, gamma=1.0, beta=0.05, steps=12, trials=4),
    "fixed-weights": FixedWeights(gamma=10.0, tau=0.05, beta=0.1, steps=15),
}
OTHER: dict[str, Any] = {
    "s-cfe": SCFE(max_changes=3, tau=0.1, steps=9, polish=5, kappa=0.1, step_size=0.2, momentum=0.5, gamma_max=9.0),
    "dcfe": DCFE(tau=1.0, beta=0.3, steps=9, polish=5, max_changes=4),
    "s-cfe-released": SCFEReleased(tau=0.05, gamma=2.0, beta=0.3, steps=15, trials=5, step_size=0.3),
    "fixed-weights": FixedWeights(gamma=11.0, tau=0.1, beta=0.2, steps=17, step_size=0.15),
}
every = pytest.mark.parametrize("name", CONFIGS)


@cache
def task() -> nets.Task:
    return cf_helpers.mlp_task(COUNT)


@cache
def density(name: str) -> Any:
    """Of three blobs of images, one per class."""
    rng = np.random.default_rng(8)
    y = np.repeat(np.arange(3), 20).astype(np.int32)
    points = rng.normal(size=(3, *cf_helpers.SHAPE))[y] + 0.5 * rng.normal(size=(60, *cf_helpers.SHAPE))
    points = np.clip(points, *cf_helpers.BOX).astype(np.float32)
    return fit_knn(points, y, 5) if name == "dcfe" else fit_kde(points, y, 0.8)


def solve(name: str, config: Any = None, given: nets.Task | None = None, **options: Any) -> Result:
    given, config = given or task(), config or CONFIGS[name]
    return cf_helpers.solve(given, config, density=density(name), **options)


@cache
def batch(name: str) -> Result:
    return solve(name)


def queue(name: str, given: nets.Task, index: Any, lanes: int = 4, mesh: Any = None) -> Result:
    ctx, problems, config, method, key, _ = engine.prepare(
        given.net, given.x, given.label, method=CONFIGS[name], target=given.target, bounds=cf_helpers.BOX,
        density=density(name),
    )  # fmt: skip
    chosen = jax.tree.map(lambda field: np.asarray(field)[index], problems)
    return engine.run_queue(ctx, chosen, config, method=method, key=key, lanes=lanes, mesh=mesh)


@every
def test_contract(name: str) -> None:
    """In range, valid with the margin, or the clean input; targeted and untargeted by one program."""
    kappa = 0.0 if name in ("s-cfe-released", "fixed-weights") else 0.05
    for targeted in (True, False):
        result = batch(name) if targeted else solve(name, targeted=False)
        cf_helpers.check_contract(task(), result, kappa, targeted)
        found = np.asarray(result.status) == Status.FOUND
        assert found.mean() >= 0.4, result
        assert (np.asarray(result.delta)[found].reshape(found.sum(), -1) != 0).any(1).all()
        assert (np.asarray(result.forwards) == 0).all()  # nothing has to be snapped
    most = {"s-cfe": 2 * 8 + 12 + 4, "dcfe": 2 * 8 + 12 + 4, "s-cfe-released": 4 * 13, "fixed-weights": 16}[name]
    assert (np.asarray(batch(name).evaluations) <= most).all()


@every
def test_under_jax_s_guards(name: str) -> None:
    """Implicit transfers, infinities and NaN are errors in the user's own code, not in a call of the library's."""
    expected = batch(name)
    with jax.transfer_guard("disallow"), jax.debug_infs(True), jax.debug_nans(True):
        result = solve(name)
    nets.same(result, expected)


@every
def test_already_there(name: str) -> None:
    """One evaluation, nothing changed; the others bit for bit as before."""
    label, target = task().label.copy(), task().target.copy()
    label[3], target[3] = target[3], label[3]
    result = solve(name, given=task()._replace(label=label, target=target))
    assert result.status[3] == Status.ALREADY_TARGET
    assert result.evaluations[3] == 1
    np.testing.assert_array_equal(np.asarray(result.delta)[3], 0)
    rest = np.arange(COUNT) != 3
    nets.same(cf_helpers.rows_of(result, rest), cf_helpers.rows_of(batch(name), rest))


@pytest.mark.parametrize("name", ["s-cfe", "dcfe"])  # tests/test_scfe_released.py has its own
def test_alone_batch_and_queue(name: str) -> None:
    """In four refilled lanes: bit for bit whatever the order and the list's length; up to last bits as the batch."""
    everyone = queue(name, task(), np.arange(COUNT))
    nets.alike(everyone, batch(name), 0.9)
    np.testing.assert_allclose(everyone.x, batch(name).x, atol=0.05)
    order = np.random.default_rng(0).permutation(COUNT)
    nets.same(queue(name, task(), order), cf_helpers.rows_of(everyone, order))
    nets.same(queue(name, task(), np.arange(1)), cf_helpers.rows_of(everyone, slice(1)))


@pytest.mark.parametrize("name", ["s-cfe"])
def test_alone_and_sharded(name: str) -> None:
    """One example by itself; four lanes on each of eight devices: one device's answers bit for bit."""
    given = task()
    one = invjax.solve(
        given.net, given.x[1], given.label[1], target=given.target[1], method=CONFIGS[name], ids=1,
        bounds=cf_helpers.BOX, density=density(name),
    )  # fmt: skip
    assert one.status == batch(name).status[1]
    np.testing.assert_allclose(one.x, batch(name).x[1], atol=1e-3)
    many = cf_helpers.mlp_task(36, seed=9)
    mesh = jax.sharding.Mesh(np.array(jax.devices()[:8]), ("lanes",))
    sharded = queue(name, many, np.arange(36), 32, mesh)
    nets.same(sharded, queue(name, many, np.arange(36)))


@every
def test_new_numbers_do_not_compile(name: str) -> None:
    """Weights, targets, bounds, the density, floats and counts of the configuration: leaves of one program."""
    before = batch(name)
    other = nets.task(nets.mlp(cf_helpers.SHAPE, 3, seed=7), cf_helpers.SHAPE, COUNT, seed=5, bounds=cf_helpers.BOX)
    moved = jax.tree.map(lambda leaf: leaf * 1 if leaf.dtype.kind in "iu" else leaf * 1.01, density(name))
    with nets.compilations() as names:
        result = solve(name, OTHER[name])
        cf_helpers.solve(other, OTHER[name], density=moved, bounds=(-2.5, 2.5))
        solve(name, given=task()._replace(target=(task().label + 2) % 3))
    assert names == []
    assert (np.asarray(result.attempt) != np.asarray(before.attempt)).any(), "the other numbers must matter"


@pytest.mark.parametrize("name", ["s-cfe"])  # tests/test_scfe_released.py has its own
def test_float64(name: str) -> None:
    """The dtype follows x, through configuration, density and network; much the same answers."""
    given = task()
    with x64():
        net = invjax.LogitsModel(jax.tree.map(np.float64, given.net.params), given.net.apply)
        wide = nets.Task(net, given.x.astype(np.float64), given.label, given.target)
        result = solve(name, given=wide)
        cf_helpers.check_contract(wide, result, 0.05)
        assert result.x.dtype == np.float64
        np.testing.assert_array_equal(result.status, batch(name).status)


@every
def test_nothing_to_go_by(name: str) -> None:
    """Weights zero: no gradient of the network at r = 0 and after. Nothing NaN."""
    given = task()
    net = invjax.LogitsModel(jax.tree.map(np.zeros_like, given.net.params), given.net.apply)
    pulled = name in ("s-cfe-released", "fixed-weights")  # the density has a gradient, if the network has none
    with contextlib.nullcontext() if pulled else pytest.warns(UserWarning, match="NO_GRADIENT"):
        result = solve(name, given=given._replace(net=net))
    assert (np.asarray(result.status) == (Status.NOT_FOUND if pulled else Status.NO_GRADIENT)).all()
    assert np.isfinite(np.asarray(result.attempt)).all()
    np.testing.assert_array_equal(result.x, given.x)


@every
def test_a_class_ruled_out(name: str) -> None:
    """A logit of −infinity is as a class that never wins; as a target it is NOT_FOUND."""
    params, answers = task().net.params, []
    for bias in (-np.inf, -1e6):
        net = invjax.LogitsModel({**params, "b2": params["b2"] + np.float32([bias, 0, 0])}, task().net.apply)
        label = np.asarray(net(task().x)).argmax(1).astype(np.int32)
        given = task()._replace(net=net, label=label, target=3 - label)
        answers.append(solve(name, given=given))
    nets.same(*answers)
    assert (np.asarray(answers[0].status) == Status.FOUND).any()
    asked = solve(name, given=given._replace(net=net, target=np.zeros_like(label)))
    assert (np.asarray(asked.status) == Status.NOT_FOUND).all()


def test_small_logits() -> None:
    """A thousandth of the logits, and κ = 0: S-CFE finds as many."""
    params, config = task().net.params, dataclasses.replace(CONFIGS["s-cfe"], kappa=0.0)
    small = {**params, "w2": params["w2"] / 1000, "b2": params["b2"] / 1000}
    found = [
        (np.asarray(solve("s-cfe", config, given).status) == Status.FOUND).sum()
        for given in (task(), task()._replace(net=invjax.LogitsModel(small, task().net.apply)))
    ]
    assert found[1] >= found[0] > 0


@every
def test_broken_network(name: str) -> None:
    """Weights NaN: NONFINITE after one evaluation, the clean input."""
    given = task()
    net = invjax.LogitsModel(jax.tree.map(lambda w: np.full_like(w, np.nan), given.net.params), given.net.apply)
    result = solve(name, given=given._replace(net=net))
    assert (np.asarray(result.status) == Status.NONFINITE).all()
    assert (np.asarray(result.evaluations) == 1).all()
    np.testing.assert_array_equal(result.x, given.x)
    assert np.isfinite(np.asarray(result.attempt)).all()
    assert jnp.isfinite(result.delta).all()
