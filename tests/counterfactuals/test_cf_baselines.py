"""Wachter, CFE-l2 and CEM: against closed forms on linear networks, and what every counterfactual method obeys."""

from __future__ import annotations

from functools import cache
from typing import Any

import cf_helpers
import jax
import jax.numpy as jnp
import nets
import numpy as np
import optax
import pytest
from oracles import x64
from scipy.optimize import brentq

import invjax
from invjax import Status, engine
from invjax.counterfactuals.cem import CEM
from invjax.counterfactuals.cfe_l2 import CFEL2
from invjax.counterfactuals.parts import proximity
from invjax.counterfactuals.parts.proximity import MadL1, Mahalanobis, SquaredL2
from invjax.counterfactuals.wachter import Wachter, adam_begin, adam_step

CONFIGS = {"wachter": Wachter(), "cfe-l2": CFEL2(), "cem": CEM()}
QUICK = {
    "wachter": Wachter(steps=30, trials=4, step_size=0.2),
    "cfe-l2": CFEL2(steps=30, trials=5),
    "cem": CEM(steps=30, trials=5),
}
OTHER = {
    "wachter": Wachter(steps=20, trials=3, step_size=0.1),
    "cfe-l2": CFEL2(trials=4, step_size=0.3),
    "cem": CEM(beta=1),
}
every = pytest.mark.parametrize("name", CONFIGS)
D, KAPPA = 8, 0.05


# ---------------------------------------------------------------------------------------------------------------------
# Distances
# ---------------------------------------------------------------------------------------------------------------------
@pytest.mark.fast
def test_distances() -> None:
    rng = np.random.default_rng(0)
    r, mad, factor = rng.normal(size=(2, 3)), rng.uniform(0.5, 2, (2, 3)), rng.normal(size=(6, 6))
    flat = r.reshape(-1)
    np.testing.assert_allclose(SquaredL2().value(jnp.asarray(r)), (r**2).sum(), rtol=1e-6)
    np.testing.assert_allclose(MadL1(mad).value(jnp.asarray(r)), (np.abs(r) / mad).sum(), rtol=1e-6)
    np.testing.assert_allclose(MadL1(mad).weights, 1 / mad, rtol=1e-6)
    np.testing.assert_allclose(Mahalanobis(factor).value(jnp.asarray(r)), flat @ factor.T @ factor @ flat, rtol=1e-5)
    for d in (SquaredL2(), MadL1(), Mahalanobis(factor)):
        np.testing.assert_array_equal(jax.grad(d.value)(jnp.zeros((2, 3))), 0)


@pytest.mark.fast
def test_fits() -> None:
    rng = np.random.default_rng(1)
    x = rng.normal(size=(400, 4)) @ rng.normal(size=(4, 4))
    x[:, 2], x[:, 3] = rng.uniform(size=400) < 0.1, 7.0
    mad = np.asarray(proximity.fit_mad(x).mad)
    np.testing.assert_allclose(mad[:2], np.median(np.abs(x - np.median(x, 0)), 0)[:2], rtol=1e-6)
    np.testing.assert_allclose(mad[2:], [x[:, 2].mean(), 1.0], rtol=1e-6)
    d, r = proximity.fit_mahalanobis(x[:, :3], ridge=1e-6), rng.normal(size=3)
    np.testing.assert_allclose(
        d.value(jnp.asarray(r)), r @ np.linalg.inv(np.cov(x[:, :3], rowvar=False)) @ r, rtol=1e-3
    )
    assert np.isfinite(proximity.fit_mahalanobis(np.ones((5, 3))).factor).all()
    with pytest.raises(ValueError, match="x must be finite reference points"):
        proximity.fit_mad(np.full((3, 2), np.nan))
    with pytest.raises(ValueError, match="ridge must be a number > 0"):
        proximity.fit_mahalanobis(x, ridge=0.0)


@pytest.mark.fast
def test_adam_is_optax_s() -> None:
    rng = np.random.default_rng(2)
    state, theirs = adam_begin(jnp.asarray(rng.normal(size=5), jnp.float32)), optax.adam(0.03)
    point, memory = state.u, theirs.init(state.u)
    for _ in range(6):
        grad = jnp.asarray(rng.normal(size=5), jnp.float32)
        state = adam_step(state, state.u, grad, 0.03)
        update, memory = theirs.update(grad, memory)
        point = point + update
        np.testing.assert_allclose(state.u, point, rtol=2e-5, atol=1e-6)


@pytest.mark.fast
@pytest.mark.parametrize(
    ("config", "message"),
    [
        (Wachter(gamma=0.0), "Wachter.gamma must be above 0, was 0.0"),
        (Wachter(loss="l2"), "Wachter.loss must be one of 'hinge', 'squared', was 'l2'"),
        (Wachter(proximity=MadL1(np.zeros(3))), "MadL1.mad must be finite and > 0"),
        (Wachter(proximity=3), "Wachter.proximity must be a SquaredL2, MadL1 or Mahalanobis"),  # type: ignore[arg-type]
        (CFEL2(step_size=-1.0), "CFEL2.step_size must be above 0"),
        (CEM(probability=1.5), "CEM.probability must be None or in"),
        (CEM(beta=-1.0), "CEM.beta must be at least 0"),
    ],
)
def test_bad_constants(config: Any, message: str) -> None:
    task = linear_task()
    with pytest.raises(ValueError, match=message):
        invjax.solve(task.net, task.x, task.label, method=config, bounds=(-20, 20))


# ---------------------------------------------------------------------------------------------------------------------
# Closed forms: two classes, Z_t − Z_y = a·x, so the wanted half-space is a·r >= s
# ---------------------------------------------------------------------------------------------------------------------
@cache
def linear_task() -> nets.Task:
    rng = np.random.default_rng(0)
    net = invjax.LogitsModel(
        {"w": rng.normal(size=(D, 2)).astype(np.float32), "b": np.zeros(2, np.float32)}, nets._linear
    )
    x = rng.normal(size=(16, D)).astype(np.float32)
    label = np.asarray(net(jnp.asarray(x))).argmax(1).astype(np.int32)
    return nets.Task(net, x, label, 1 - label)


def half_space() -> tuple[np.ndarray, np.ndarray]:
    """a [N, D] and s [N] of each row."""
    task = linear_task()
    w = np.asarray(task.net.params["w"], np.float64)
    a = (w[:, 1] - w[:, 0]) * np.where(task.label == 0, 1, -1)[:, None]
    return a, KAPPA - (a * task.x).sum(1)


def to_half_space(config: Any) -> np.ndarray:
    task, (a, s) = linear_task(), half_space()
    result = invjax.solve(task.net, task.x, task.label, target=task.target, method=config, bounds=(-20, 20))
    assert (np.asarray(result.status) == Status.FOUND).all()
    r = np.asarray(result.delta, np.float64)
    assert ((a * r).sum(1) >= s - 1e-5).all()
    return r


def test_cfe_l2_finds_the_nearest_point() -> None:
    a, s = half_space()
    np.testing.assert_allclose(np.linalg.norm(to_half_space(CFEL2()), axis=1), s / np.linalg.norm(a, axis=1), rtol=0.01)


def test_wachter_finds_the_nearest_point() -> None:
    """All of the change in the one coordinate that pays most per deviation."""
    a, s = half_space()
    mad = np.random.default_rng(5).uniform(0.5, 2, D)
    length = (np.abs(to_half_space(Wachter(proximity=MadL1(mad.astype(np.float32))))) / mad).sum(1)
    least = s / np.max(np.abs(a) * mad, axis=1)
    assert np.median(length / least) < 1.02
    assert (length < least + 0.1).all()  # Adam cannot stop within less than its step


def test_cem_solves_the_elastic_net() -> None:
    """r = soft(λ a, β) / 2 with the λ for which a·r = s."""
    beta = 1.0
    r = to_half_space(CEM(beta=beta, steps=200))

    def answer(weight: float, a: np.ndarray) -> np.ndarray:
        return np.sign(a) * np.maximum(weight * np.abs(a) - beta, 0) / 2

    for row, a, s in zip(r, *half_space(), strict=True):
        weight = brentq(lambda w, a=a, s=s: a @ answer(w, a) - s, 0, 1e3)
        best = answer(weight, a)  # type: ignore[arg-type]
        objective = [beta * np.abs(u).sum() + (u**2).sum() for u in (row, best)]
        assert objective[0] <= 1.01 * objective[1] + 1e-3
        assert not row[np.abs(weight * a) < 0.9 * beta].any()


def test_cem_away_from_no_information() -> None:
    task = linear_task()
    r = to_half_space(CEM(away=True))
    assert (np.sign(task.x) * r >= 0).all()
    assert (np.sign(task.x) * to_half_space(CEM()) < 0).any()


def test_cem_density() -> None:
    """With −log q of a Gaussian at the origin: more plausible, and still valid."""
    task = linear_task()
    result = invjax.solve(
        task.net, task.x, task.label, target=task.target, method=CEM(tau=0.5), bounds=(-20, 20), density=Bell()
    )
    assert (np.asarray(result.status) == Status.FOUND).all()
    without = task.x + to_half_space(CEM())
    assert np.square(result.x).sum() < 0.9 * np.square(without).sum()


@jax.tree_util.register_static
class Bell:
    def log_prob(self, x: Any, label: Any) -> Any:
        return -0.5 * jnp.sum(jnp.square(x)) + 0.0 * label

    def __hash__(self) -> int:
        return 0

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Bell)


# ---------------------------------------------------------------------------------------------------------------------
# What every method obeys
# ---------------------------------------------------------------------------------------------------------------------
@every
def test_contract(name: str) -> None:
    """Targeted and untargeted (one program), images, a margin."""
    task, config = cf_helpers.mlp_task(), CONFIGS[name]
    for targeted in (True, False):
        result = cf_helpers.solve(task, config, targeted=targeted)
        cf_helpers.check_contract(task, result, KAPPA, targeted)
        assert np.asarray(result.found).mean() >= (0.5 if targeted else 0.9), result
        assert (np.asarray(result.evaluations) <= 1 + config.trials * config.steps).all()


@every
def test_already_there(name: str) -> None:
    """The clean input has the target already: nothing to do, one evaluation, no lane disturbed."""
    task = cf_helpers.mlp_task()
    label, target = task.label.copy(), task.target.copy()
    label[3], target[3] = target[3], label[3]
    result = cf_helpers.solve(task._replace(label=label, target=target), CONFIGS[name])
    assert result.status[3] == Status.ALREADY_TARGET
    assert result.evaluations[3] == 1
    np.testing.assert_array_equal(np.asarray(result.delta)[3], 0)
    rest = np.arange(len(label)) != 3
    nets.same(cf_helpers.rows_of(result, rest), cf_helpers.rows_of(cf_helpers.solve(task, CONFIGS[name]), rest))


@every
def test_protocol(name: str) -> None:
    cf_helpers.check_protocol(cf_helpers.mlp_task(), QUICK[name], OTHER[name])


@every
def test_constraints(name: str) -> None:
    """Ranges, grids, directions, categories (and once a relation): not one violation in raw units."""
    people = cf_helpers.census(related=name == "cfe-l2")
    result = cf_helpers.census_solve(people, CONFIGS[name])
    found = np.asarray(result.status) == Status.FOUND
    assert found.mean() >= 0.9, result
    answer = people.space.decode(np.asarray(result.x), people.table)
    assert people.space.violations(people.table, answer) == [[]] * len(found)
    assert (cf_helpers.gaps(people.task, result.x)[found] <= -KAPPA + 1e-5).all()
    assert (np.asarray(result.forwards) > 0).all()  # integers and categories: the hull's points had to be snapped


def test_probability() -> None:
    """probability=0.9 is what the target gets."""
    task = linear_task()
    result = invjax.solve(
        task.net, task.x, task.label, target=task.target, method=CFEL2(probability=0.9), bounds=(-20, 20)
    )
    p = jax.nn.softmax(task.net(jnp.asarray(result.x)))[np.arange(len(task.x)), task.target]
    assert (np.asarray(result.status) == Status.FOUND).all()
    assert (np.asarray(p) >= 0.9).all()
    assert np.median(p) < 0.91


def test_saturated_network() -> None:
    """Logits a thousand times larger: no gradient is left in the probability, the default does not notice."""
    task = linear_task()
    net = invjax.LogitsModel({"w": 1e3 * task.net.params["w"], "b": task.net.params["b"]}, nets._linear)

    def solve(loss: str) -> invjax.Result:
        method = Wachter(loss=loss, proximity=MadL1(np.ones(D, np.float32)))
        return invjax.solve(net, task.x, task.label, target=task.target, bounds=(-20, 20), method=method)

    assert (np.asarray(solve("hinge").status) == Status.FOUND).all()
    with pytest.warns(UserWarning, match="saw no gradient but zero"):
        squared = solve("squared")
    assert (np.asarray(squared.status) == Status.NO_GRADIENT).any()


@pytest.mark.parametrize("name", ["wachter", "cem"])
def test_float64(name: str) -> None:
    task = cf_helpers.mlp_task()
    net = invjax.LogitsModel(jax.tree.map(np.float64, task.net.params), task.net.apply)
    wide = nets.Task(net, task.x.astype(np.float64), task.label, task.target)
    with x64():
        cf_helpers.check_contract(wide, cf_helpers.solve(wide, QUICK[name]), KAPPA)


@every
def test_nothing_to_go_by(name: str) -> None:
    """Weights zero: every gradient is 0. Said so, nothing NaN."""
    task = cf_helpers.mlp_task()
    net = invjax.LogitsModel(jax.tree.map(np.zeros_like, task.net.params), task.net.apply)
    with pytest.warns(UserWarning, match="NO_GRADIENT"):
        result = cf_helpers.solve(task._replace(net=net), CONFIGS[name])
    assert (np.asarray(result.status) == Status.NO_GRADIENT).all()
    assert np.isfinite(np.asarray(result.attempt)).all()


def test_run_folder(tmp_path: Any) -> None:
    """A configuration that holds a distance stands in the manifest; a second call reads the answers."""
    task, config = cf_helpers.mlp_task(), Wachter(proximity=MadL1(2.0), steps=10, trials=2)
    first = cf_helpers.solve(task, config, out=tmp_path, lanes=4)
    assert "MadL1" in (tmp_path / "manifest.json").read_text()
    nets.same(cf_helpers.solve(task, config, out=tmp_path, lanes=4), first)


def test_constants_for_other_units_are_said() -> None:
    """On pixels of 0 … 255; not on a box of standardised features."""
    task = cf_helpers.mlp_task()
    given = {"label": task.label, "method": Wachter(), "target": task.target}
    with pytest.warns(UserWarning, match="Wachter has its constants for features of scale 1 .* 255 wide"):
        engine.prepare(task.net, np.abs(task.x), bounds=(0, 255), **given)
    engine.prepare(task.net, task.x, bounds=cf_helpers.BOX, **given)
