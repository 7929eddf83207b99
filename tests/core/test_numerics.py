"""Arithmetic that stays finite, and work that is done only where it is needed."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from invjax.core.numerics import replace_if, safe_divide, safe_norm, strong
from invjax.types import Array

pytestmark = pytest.mark.fast


def _noise(seed: Array) -> Array:
    return jax.random.normal(jax.random.key(seed), (50,))


def test_norm_and_division_at_zero() -> None:
    zero = jnp.zeros(3)
    assert float(safe_norm(zero)) == 0
    assert not np.asarray(jax.grad(safe_norm)(zero)).any()
    np.testing.assert_array_equal(safe_divide(jnp.array([1.0, 2.0]), jnp.array([0.0, 4.0])), [0.0, 0.5])
    gradient = jax.grad(lambda b: safe_divide(jnp.ones(2), b).sum())(jnp.array([0.0, 2.0]))
    np.testing.assert_allclose(gradient, [0.0, -0.25])


def test_strong_leaves_have_one_type() -> None:
    made = strong({"a": 1.0, "b": 2, "c": np.float64(3), "d": True}, jnp.float32)
    assert [leaf.dtype.name for leaf in made.values()] == ["float32", "int32", "float32", "bool"]
    assert not any(leaf.aval.weak_type for leaf in made.values())


def test_replace_if_makes_what_is_needed() -> None:
    needed, seeds, other = jnp.array([True, False, True]), jnp.arange(3), jnp.full((3, 50), 7.0)
    made = jax.jit(jax.vmap(lambda n, s, o: replace_if(n, _noise, s, o)))(needed, seeds, other)
    expected = jnp.where(needed[:, None], jax.vmap(_noise)(seeds), other)
    np.testing.assert_allclose(made, expected, rtol=1e-6)


@pytest.mark.skipif(jax.default_backend() != "cpu", reason="reads the program as compiled for CPU")
def test_replace_if_draws_inside_its_loop_only() -> None:
    """Without the barrier the compiler moves the draw in front of the loop, where it is done at every call."""
    batched = jax.jit(jax.vmap(lambda n, s, o: replace_if(n, _noise, s, o)))
    text = batched.lower(jnp.array([True, False]), jnp.arange(2), jnp.zeros((2, 50))).compile().as_text()
    assert text is not None
    entry = text[text.index("ENTRY") :]
    assert text.count(" while(") > 1, "drawing is a loop of its own"
    assert entry.count(" while(") == 1
