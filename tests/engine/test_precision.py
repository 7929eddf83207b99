"""Images in 16 bits, and jax's strict flags: what every method obeys, mostly seen without compiling anything."""

from __future__ import annotations

from typing import Any

import cf_helpers
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import invjax
from invjax import BadArgument, attacks, counterfactuals, metrics, penalties, projections
from invjax.core import windows
from invjax.densities import fit_kde
from invjax.engine.lanes import start, step
from invjax.engine.solve import prepare
from invjax.types import Array

SHAPE = (8, 8, 1)


def _linear(w: Array, x: Array) -> Array:
    return (x - jnp.full_like(x, 0.5)).reshape(x.shape[0], -1) @ w.astype(x.dtype)


def linear(shape: tuple[int, ...], classes: int = 4) -> invjax.LogitsModel:
    rng = np.random.default_rng(0)
    return invjax.LogitsModel(rng.normal(size=(int(np.prod(shape)), classes)).astype(np.float32), _linear)


def traced(x: Any, config: Any, **options: Any) -> tuple[Any, Any]:
    """Shapes and dtypes of the state after one iteration, and of the result; nothing is compiled."""

    def run(x: Array) -> Any:
        label = np.zeros(len(x), np.int32)
        prepared = prepare(linear(x.shape[1:]), x, label, method=config, target=label + 1, **options)
        ctx, problems, constants = prepared.batch()
        lanes = start(prepared.method, ctx, constants, problems)
        return lanes.state, step(prepared.method, invjax.engine.white_box, ctx, constants, problems, lanes).state

    with jax.numpy_dtype_promotion("strict"), jax.numpy_rank_promotion("raise"):
        before, after = jax.eval_shape(run, x)
    assert jax.tree.map(lambda a: (a.shape, a.dtype), before) == jax.tree.map(lambda a: (a.shape, a.dtype), after)
    return before, after


def wide(state: Any) -> bool:
    floats = [leaf.dtype for leaf in jax.tree.leaves(state) if jnp.issubdtype(leaf.dtype, jnp.floating)]
    return all(jnp.finfo(dtype).bits >= 32 for dtype in floats)


@pytest.mark.parametrize("name", attacks.REGISTRY)
def test_states_of_attacks(name: str) -> None:
    """Each runs under both strict flags; of images in 16 bits its state has at least float32."""
    assert wide(traced(np.full((2, *SHAPE), 0.5, jnp.float16), attacks.make(name)))


@pytest.mark.parametrize("name", counterfactuals.REGISTRY)
def test_states_of_counterfactuals(name: str) -> None:
    rng = np.random.default_rng(0)
    density = fit_kde(rng.normal(size=(8, 4)).astype(np.float32), np.arange(8, dtype=np.int32) % 4, 0.8)
    x = np.full((2, 4), 0.5, jnp.float16)
    assert wide(traced(x, counterfactuals.make(name), density=density, bounds=cf_helpers.BOX))
    people = cf_helpers.census(2)
    if name in ("s-cfe", "dice-genetic"):
        traced(people.task.x, counterfactuals.make(name), space=people.space)


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float16, jnp.bfloat16], ids=lambda dtype: dtype.__name__)
def test_pgd_stays_in_its_ball(dtype: Any, norm: str) -> None:
    """As measured in float64 from the arrays, whatever the dtype; and the success of float32 at 64 pixels a side."""
    net, rng = linear((64, 64, 3)), np.random.default_rng(1)
    x = rng.uniform(size=(4, 64, 64, 3)).astype(dtype)
    label = np.asarray(net(jnp.asarray(x, jnp.float32))).argmax(1)
    for eps in (0.02, 0.0713) if norm == "linf" else (3.0, 0.777):
        attack = attacks.PGD(eps=eps, step_size=eps / 4, steps=6, norm=norm, restarts=2)
        result = invjax.solve(net, x, label, method=attack, progress=False)
        assert result.x.dtype == dtype
        for point in (result.x, result.attempt):
            r = (np.asarray(point).astype(np.float64) - x.astype(np.float64)).reshape(4, -1)
            assert (np.linalg.norm(r, np.inf if norm == "linf" else 2, axis=1) <= eps).all()
        assert result.found.all() or eps == 0.777


def test_many_pixels() -> None:
    """300 × 300 changed pixels, more than float16 can count and bfloat16 can tell apart."""
    x = np.full((1, 300, 300, 1), 0.25)
    for dtype in (jnp.float16, jnp.bfloat16):
        r = jnp.asarray(x[0], dtype)
        assert float(penalties.l0(1.0).value(r)) == float(penalties.group_l0(1.0, axis=-1).value(r)) == 90_000
        assert float(penalties.l1(1.0).value(r)) == 22_500
        assert float(penalties.group_l2(1.0).value(r)) == 75
        assert int(windows.window_count(windows.changed(r))) == int(metrics.d20(r)) == 293**2
        assert int(metrics.changed_pixels(r)) == 90_000
        assert float(metrics.l2(r)) == 75
        u = projections.l2_ball(r, 8.0)
        assert u.dtype == dtype
        assert 7.5 < np.linalg.norm(np.asarray(u).astype(np.float64)) <= 8


def test_a_table_needs_32_bits() -> None:
    people = cf_helpers.census(2)
    with pytest.raises(BadArgument, match="float32 or float64"):
        traced(people.task.x.astype(np.float16), counterfactuals.SCFE(), space=people.space)
