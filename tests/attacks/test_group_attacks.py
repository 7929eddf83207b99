"""StrAttack, FWnucl, Homotopy and SAIF: what each promises beyond the protocol that every attack obeys."""

from __future__ import annotations

import dataclasses
from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
import nets
import numpy as np
import pytest

import invjax
from invjax import Result, Status
from invjax.attacks import PGD, homotopy, strattack
from invjax.attacks.fwnucl import FWnucl
from invjax.attacks.homotopy import Homotopy
from invjax.attacks.parts import units
from invjax.attacks.saif import SAIF
from invjax.attacks.strattack import StrAttack
from invjax.core.groups import patch_groups
from invjax.types import Problem

COUNT = 16
CONFIGS: dict[str, Any] = {
    "strattack": StrAttack(initial_weight=1.0, steps=25, trials=4, retrain_trials=2, group_weight=0.5, l2_weight=0.2),
    "fwnucl": FWnucl(eps=2.0, steps=10, trials=4),
    "homotopy": Homotopy(eps=0.5, steps=60, inner_steps=10, initial_weight=0.5, decay=0.5, polish=3),
    "saif": SAIF(k=12, steps=20),
}
every = pytest.mark.parametrize("name", CONFIGS)


@cache
def base() -> nets.Task:
    return nets.task(nets.conv(), count=COUNT)


@cache
def batch(name: str, targeted: bool = True) -> Result:
    config = CONFIGS.get(name) or PGD(eps=0.15, step_size=0.02, steps=30)
    target = base().target if targeted else None
    return invjax.solve(base().net, base().x, base().label, target=target, method=config, lanes=COUNT, progress=False)


def check(task: nets.Task, result: Result, targeted: bool, mask: np.ndarray | None = None) -> None:
    """In range, within the mask, and of the wanted class where found; the clean input, bit for bit, elsewhere."""
    x, status = np.asarray(result.x), np.asarray(result.status)
    for rows in (x, np.asarray(result.attempt)):
        assert np.isfinite(rows).all()
        assert (rows >= 0).all()
        assert (rows <= 1).all()
        assert rows.dtype == task.x.dtype
        if mask is not None:
            assert (rows == task.x)[np.broadcast_to(~mask, rows.shape)].all()
    found = status == Status.FOUND
    assert set(status[~found].tolist()) <= {Status.NOT_FOUND}
    assert x[~found].tobytes() == task.x[~found].tobytes()
    classes = np.asarray(task.net(jnp.asarray(x))).argmax(1)
    assert ((classes == task.target) if targeted else (classes != task.label))[found].all()


@every
@pytest.mark.parametrize("targeted", [True, False])
def test_finds(name: str, targeted: bool) -> None:
    result = batch(name, targeted)
    check(base(), result, targeted)
    assert (np.asarray(result.status) == Status.FOUND).mean() >= 0.5
    config = CONFIGS[name]
    budget = {
        "strattack": lambda: (config.trials + config.retrain_trials) * config.steps,
        "fwnucl": lambda: config.trials * config.steps,
        "homotopy": lambda: config.steps + config.polish,
        "saif": lambda: config.steps + 1,
    }[name]()
    assert (np.asarray(result.evaluations) <= budget).all()


def touched(delta: np.ndarray, size: int) -> np.ndarray:
    """How many patches hold a change, example by example."""
    labels, _ = patch_groups(delta.shape[1], delta.shape[2], delta.shape[3], size)
    return np.array([len(np.unique(labels[row != 0])) for row in delta])


@every
def test_fewer_groups_than_pgd(name: str) -> None:
    both = np.asarray(batch(name).status == Status.FOUND) & np.asarray(batch("pgd").status == Status.FOUND)
    assert both.sum() >= 4
    ours, theirs = (touched(np.asarray(batch(n).delta)[both], 2).mean() for n in (name, "pgd"))
    assert ours < theirs


@every
def test_already_there_and_no_way(name: str) -> None:
    """The clean input has the wanted class; and a network whose gradients and logits are all 0."""
    there = invjax.solve(
        base().net, base().x, base().target, target=base().label, method=CONFIGS[name], lanes=COUNT, progress=False
    )
    assert (np.asarray(there.status) == Status.ALREADY_TARGET).all()
    assert (np.asarray(there.evaluations) == 1).all()
    assert (np.asarray(there.delta) == 0).all()
    flat = invjax.LogitsModel(jax.tree.map(np.zeros_like, base().net.params), base().net.apply)
    with pytest.warns(UserWarning, match="NO_GRADIENT"):
        lost = invjax.solve(
            flat, base().x, base().label, target=base().target, method=CONFIGS[name], lanes=COUNT, progress=False
        )
    assert (np.asarray(lost.status) == Status.NO_GRADIENT).all()
    assert np.isfinite(np.asarray(lost.attempt)).all()


@every
def test_new_numbers_do_not_compile(name: str) -> None:
    batch(name)
    config = jax.tree.map(lambda v: v * 1.02 if isinstance(v, float) else v + 1, CONFIGS[name])
    with nets.compilations() as names:
        result = invjax.solve(
            base().net, base().x, base().label, target=None, method=config, lanes=COUNT, progress=False
        )
    assert names == []
    check(base(), result, False)


def test_odd_size_one_channel_mask() -> None:
    """7 x 5 pixels, which no patch divides, behind a scattered mask: FWnucl, whose vertices know no mask."""
    shape = (7, 5, 1)
    task = nets.task(nets.linear(shape), shape, count=8)
    mask = np.random.default_rng(0).uniform(size=shape) < 0.6
    config = CONFIGS["fwnucl"]
    result = invjax.solve(
        task.net, task.x, task.label, target=task.target, mask=mask, method=config, lanes=8, progress=False
    )
    check(task, result, True, mask)
    assert (np.asarray(result.status) == Status.FOUND).any()


# ---------------------------------------------------------------------------------------------------------------------
# Each by itself
# ---------------------------------------------------------------------------------------------------------------------
def test_strattack_with_groups_of_a_table() -> None:
    """Rows of 12 features in 4 given groups: whole groups stay untouched; without groups it is an error."""
    task = nets.task(nets.mlp((12,)), (12,), count=6)
    groups = np.repeat(np.arange(4), 3).astype(np.int32)
    config = dataclasses.replace(CONFIGS["strattack"], group_weight=2.0)
    result = invjax.solve(
        task.net, task.x, task.label, target=None, groups=groups, method=config, lanes=8, progress=False
    )
    check(task, result, False)
    found = np.asarray(result.status) == Status.FOUND
    assert found.sum() >= 3
    assert (np.asarray(result.delta)[found].reshape(-1, 4, 3) != 0).any(2).mean() < 1
    with pytest.raises(ValueError, match="StrAttack"):
        invjax.solve(task.net, task.x, task.label, method=config)


def test_strattack_overlapping_groups() -> None:
    """Windows of 4 every 2 pixels: what is 0 is a union of windows, so changes reach to 2 x 2 cells."""
    config = dataclasses.replace(CONFIGS["strattack"], patch=4, stride=2, retrain_trials=0, group_weight=0.1)
    result = invjax.solve(base().net, base().x, base().label, target=None, method=config, lanes=COUNT, progress=False)
    check(base(), result, False)
    delta = np.asarray(result.delta)[np.asarray(result.status) == Status.FOUND]
    assert len(delta) >= 4
    assert strattack.partitions(_problem(), config)[1] == 4
    cells = delta.reshape(-1, 4, 2, 4, 2) != 0
    whole = cells.all((2, 4)) | ~cells.any((2, 4))
    assert whole.mean() > 0.9  # but for entries that the box pins to 0


def _problem(shape: tuple[int, ...] = nets.SMALL, **fields: Any) -> Problem:
    x = jnp.full(shape, 0.5, jnp.float32)
    given = {"lower": jnp.float32(0), "upper": jnp.float32(1), "mask": None, "groups": None, **fields}
    zero = jnp.int32(0)
    return Problem(x=x, label=zero, target=zero, key=zero, id=zero, **given)


@pytest.mark.fast
def test_support_drops_the_smallest_share() -> None:
    r = jnp.array([0.0, 0.5, -0.1, 0.3, 0.0, -0.2])
    np.testing.assert_array_equal(strattack.support(r, 0.0), np.asarray(r) != 0)
    np.testing.assert_array_equal(strattack.support(r, 0.4), [0, 1, 0, 1, 0, 1])
    np.testing.assert_array_equal(strattack.support(jnp.array([0.0, 2.0]), 0.9), [0, 1])
    assert not np.asarray(strattack.support(jnp.zeros(3), 0.5)).any()


def test_strattack_retraining_shortens() -> None:
    without = dataclasses.replace(CONFIGS["strattack"], retrain_trials=0)
    plain = invjax.solve(
        base().net, base().x, base().label, target=base().target, method=without, lanes=COUNT, progress=False
    )
    norms = [np.sqrt((np.asarray(r.delta) ** 2).sum((1, 2, 3))) for r in (plain, batch("strattack"))]
    both = np.asarray(plain.status) == Status.FOUND
    np.testing.assert_array_equal(both, np.asarray(batch("strattack").status) == Status.FOUND)
    assert (norms[1] <= norms[0] + 1e-6).all()
    assert (norms[1] < 0.98 * norms[0])[both].any()


def test_fwnucl_stays_in_its_ball() -> None:
    """Far from the bounds nothing is clipped: the perturbation obeys the one ε tried."""
    x = (0.5 + 0.01 * base().x).astype(np.float32)
    config = dataclasses.replace(CONFIGS["fwnucl"], eps=0.3, trials=1)
    result = invjax.solve(base().net, x, base().label, target=base().target, method=config, lanes=COUNT, progress=False)
    moved = 2 * (np.asarray(result.attempt) - x)
    cut = units.patches(nets.SMALL, 4)
    norms = []
    for row in moved:
        parts = np.moveaxis(np.asarray(cut.split(jnp.asarray(row))), -1, 1)
        norms.append(np.linalg.svd(parts, compute_uv=False).sum(-1).max(1).sum())
    assert 0.2 < max(norms) <= 0.3 * (1 + 1e-4)


@pytest.mark.parametrize("unit", ["group", "pixel", "feature"])
def test_homotopy_map_and_start(unit: str) -> None:
    """The map against all subsets of units; and λ's start is where the first step leaves 0."""
    shape = (2, 4, 2) if unit != "feature" else (2, 3, 1)
    problem, config = _problem(shape), Homotopy(eps=0.6, unit=unit, patch=2)
    rng = np.random.default_rng(0)
    labels = {
        "group": patch_groups(*shape, 2)[0], "pixel": patch_groups(*shape, 1)[0],
        "feature": np.arange(np.prod(shape)).reshape(shape),
    }[unit]  # fmt: skip
    count = labels.max() + 1
    mapped = jax.jit(lambda v, w, m: homotopy.proximal_map(problem, config, v, w, m))
    for _ in range(6):
        v, weight, limit = rng.normal(size=shape).astype(np.float32), rng.uniform(0.05, 0.6), int(rng.integers(1, 4))
        best = (np.inf, np.zeros(shape))
        for keep in range(2**count):
            chosen = np.array([keep >> i & 1 for i in range(count)])
            if chosen.sum() <= limit:
                u = np.where(chosen[labels] == 1, np.clip(v, -0.6, 0.6), 0)
                best = min(best, (0.5 * ((u - v) ** 2).sum() + weight * chosen.sum(), u), key=lambda pair: pair[0])
        np.testing.assert_allclose(mapped(v, weight, limit), best[1], atol=1e-6)
    grad, step = jnp.asarray(rng.normal(size=shape), jnp.float32), jnp.float32(0.2)
    lam = homotopy.zero_lambda(problem, config, grad, step)
    assert not np.asarray(mapped(-step * grad, step * lam * 1.001, count)).any()
    assert np.asarray(mapped(-step * grad, step * lam * 0.999, count)).any()


def test_limits_are_kept() -> None:
    size = {name: np.abs(2 * np.asarray(batch(name).delta)) for name in ("saif", "homotopy", "strattack")}
    assert (size["saif"] != 0).sum((1, 2, 3)).max() <= 12
    assert size["homotopy"].max() <= 0.5 * (1 + 1e-5)
    assert size["strattack"].max() <= 1 + 1e-5


@pytest.mark.fast
@pytest.mark.parametrize(
    ("config", "match"),
    [
        (StrAttack(patch=4, stride=3), "StrAttack.stride"),
        (StrAttack(dropped=1.0), "StrAttack.dropped"),
        (FWnucl(patch=0), "FWnucl.patch"),
        (FWnucl(eps=0.0), "FWnucl.eps"),
        (Homotopy(unit="cube"), "Homotopy.unit"),
        (Homotopy(decay=1.0), "Homotopy.decay"),
        (SAIF(k=0), "SAIF.k"),
        (SAIF(unit="group"), "SAIF.unit"),
    ],
)
def test_constants_are_checked(config: Any, match: str) -> None:
    with pytest.raises(ValueError, match=match):
        config.check()
