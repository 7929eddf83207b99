"""Answers are judged in full float32 where the device rounds products: a network that mimics bfloat16 products."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import nets
import numpy as np
import pytest

import invjax
from invjax import BadArgument, Status
from invjax.attacks import GSE, PGD
from invjax.core import precision as precision_module
from invjax.engine.queue import in_full_precision
from invjax.engine.solve import prepare

pytestmark = pytest.mark.fast


def _product(a: jax.Array, b: jax.Array) -> jax.Array:
    """A float32 product as a TPU computes it: of operands in bfloat16 unless more is asked for."""
    if jax.config.jax_default_matmul_precision in ("highest", "float32"):  # type: ignore[attr-defined]
        return a @ b
    return a.astype(jnp.bfloat16).astype(jnp.float32) @ b.astype(jnp.bfloat16).astype(jnp.float32)


def _rounded(params: dict, x: jax.Array) -> jax.Array:
    hidden = jnp.tanh(_product(x.reshape(x.shape[0], -1), params["w1"]) + params["b1"])
    return _product(hidden, params["w2"]) + params["b2"]


TASK = nets.task(invjax.LogitsModel(nets.mlp().params, _rounded), count=40)
METHODS = {"gse": GSE(steps=60), "pgd": PGD(eps=1.5, steps=30, norm="l2")}


def exactly(result: invjax.Result) -> np.ndarray:
    """Which answers reach their target in float32."""
    with jax.default_matmul_precision("highest"):
        return np.asarray(TASK.net(jnp.asarray(result.x))).argmax(1) == TASK.target


@pytest.fixture
def rounding(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precision_module, "_device_rounds", lambda: True)


def solve(name: str, **options: Any) -> invjax.Result:
    return invjax.solve(TASK.net, TASK.x, TASK.label, target=TASK.target, method=METHODS[name], **options)


@pytest.mark.parametrize("lanes", [40, 8])
@pytest.mark.parametrize("name", METHODS)
def test_what_is_found_holds_in_full_precision(name: str, lanes: int, rounding: None) -> None:
    result = solve(name, lanes=lanes)
    found = np.asarray(result.found)
    assert exactly(result)[found].all()
    full = np.asarray(solve(name, lanes=lanes, precision="highest").found)
    assert found.sum() >= full.sum() - 1


def test_without_the_second_look_some_do_not(monkeypatch: pytest.MonkeyPatch) -> None:
    """The fault is real: believed as they are, answers that the rounded network gives are none in float32."""
    result = solve("gse", lanes=40)
    assert not exactly(result)[np.asarray(result.found)].all()


def test_rows_that_are_solved_again_count_both_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    believed = solve("gse", lanes=40)
    wrong = np.asarray(believed.found) & ~exactly(believed)
    monkeypatch.setattr(precision_module, "_device_rounds", lambda: True)
    judged = solve("gse", lanes=40)
    more = np.asarray(judged.evaluations) - np.asarray(believed.evaluations)
    assert (more[wrong] > 0).all()
    assert (more[~wrong] == 0).all()
    assert set(np.asarray(judged.status)[wrong]) <= {Status.FOUND, Status.NOT_FOUND}


def test_one_program_solves_any_number_of_rows_again(rounding: None) -> None:
    """Compiling it takes longer than the rows do: one row or all of them, it is the same program."""
    prepared = prepare(TASK.net, TASK.x, TASK.label, method=METHODS["gse"], target=TASK.target)
    again = in_full_precision(*prepared[:3], method=prepared.method, key=prepared.key)
    assert again is not None
    alone = again(np.array([7]))
    with nets.compilations() as names:
        some = again(np.array([3, 7, 20, 31, 39]))
    assert names == []
    np.testing.assert_array_equal(alone.x[0], some.x[1])


def test_folders_too(tmp_path: Any, rounding: None) -> None:
    result = solve("gse", out=tmp_path, lanes=8)
    assert exactly(result)[np.asarray(result.found)].all()
    with pytest.raises(BadArgument, match="another precision"):
        solve("gse", out=tmp_path, lanes=8, precision="highest")


def test_the_precision_of_the_run(rounding: None) -> None:
    """It is that of the descent, and one program is compiled for each."""
    low, high = solve("pgd"), solve("pgd", precision="highest")
    assert low.found.any()
    assert (np.asarray(low.x) != np.asarray(high.x)).any()
    with nets.compilations() as names:
        solve("pgd"), solve("pgd", precision="highest")
    assert names == []


@pytest.mark.parametrize("precision", ["double", 32, ""])
def test_unknown_precisions(precision: Any) -> None:
    with pytest.raises(BadArgument, match=r"precision must be (None or )?one of"):
        solve("pgd", precision=precision)
