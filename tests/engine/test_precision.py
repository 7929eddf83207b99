"""Images in 16 bits, and jax's strict flags: what every method obeys, mostly seen without compiling anything."""

from __future__ import annotations

from typing import Any

import cf_helpers
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import invjax
from invjax import attacks, counterfactuals
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
