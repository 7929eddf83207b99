"""The bracket against plain Python: the released rule digit by digit, and thresholds that are known."""

from __future__ import annotations

import math

import jax
import jax.experimental
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from invjax.solvers import search

pytestmark = pytest.mark.fast

# The context manager moved out of jax.experimental after the oldest jax that is supported.
enable_x64 = jax.enable_x64 if hasattr(jax, "enable_x64") else jax.experimental.enable_x64


def released(value, outcomes, growth=2.0, dtype=np.float64):
    """The search of the released GSE code: every weight tried, in order."""
    lam, lb, ub = dtype(value), dtype(0), math.inf
    tried = []
    for success in outcomes:
        tried.append(lam)
        if success:
            lb = lam
            lam = dtype(growth) * lam if math.isinf(ub) else (dtype(ub) + lam) / dtype(2)
        else:
            ub = lam
            lam = dtype(0.9) * lb + dtype(0.1) * lam
    return [*tried, lam], lb, ub


def usual(value, outcomes, growth=10.0):
    """The search of StrAttack and S-CFE, with their 1e10 for an upper end that is not known."""
    lam, lb, ub = value, 0.0, 1e10
    tried = []
    for success in outcomes:
        tried.append(lam)
        if success:
            ub = min(ub, lam)
            lam = (lb + ub) / 2
        else:
            lb = max(lb, lam)
            lam = (lb + ub) / 2 if ub < 1e9 else growth * lam
    return [*tried, lam], lb, ub


def run(rule, value, outcomes, **how):
    bracket, tried = search.init(value), []
    for success in outcomes:
        tried.append(float(bracket.value))
        bracket = rule(bracket, jnp.asarray(success), **how)
    return [*tried, float(bracket.value)], bracket


OUTCOMES = st.lists(st.booleans(), min_size=1, max_size=10)


@settings(deadline=None, max_examples=25)
@given(outcomes=OUTCOMES, value=st.floats(1e-4, 10.0))
def test_released_rule_exactly(outcomes, value):
    with enable_x64(True):
        tried, bracket = run(search.seek_largest, value, outcomes)
        assert bracket.value.dtype == jnp.float64
    expected, lb, ub = released(value, outcomes)
    assert tried == expected  # the same rounding, not just close
    assert float(bracket.lower) == lb
    assert float(bracket.upper) == ub
    assert int(bracket.trials) == len(outcomes)


@settings(deadline=None, max_examples=15)
@given(outcomes=OUTCOMES, value=st.integers(1, 2560).map(lambda i: i / 256))
def test_released_rule_in_single_precision(outcomes, value):
    tried, bracket = run(search.seek_largest, np.float32(value), outcomes)
    expected, lb, ub = released(value, outcomes, dtype=np.float32)
    np.testing.assert_allclose(tried, expected, rtol=3e-7)
    assert bracket.value.dtype == jnp.float32
    np.testing.assert_allclose(float(bracket.lower), lb, rtol=3e-7)
    np.testing.assert_allclose(float(bracket.upper), ub, rtol=3e-7)


@settings(deadline=None, max_examples=25)
@given(outcomes=OUTCOMES, value=st.floats(1e-4, 1.0), growth=st.sampled_from([5.0, 10.0]))
def test_usual_rule_exactly(outcomes, value, growth):
    with enable_x64(True):
        tried, bracket = run(search.seek_smallest, value, outcomes, growth=growth)
    expected, lb, ub = usual(value, outcomes, growth)
    if max(expected) < 1e9:  # beyond that the released code takes any weight for "no upper end"
        assert tried == expected
        assert float(bracket.lower) == lb
        assert float(bracket.upper) == (math.inf if ub >= 1e9 else ub)


@pytest.mark.parametrize("threshold", [3e-3, 0.7, 1.0, 42.0, 9e4])
def test_finds_a_known_threshold(threshold):
    with enable_x64(True):
        largest, smallest = search.init(1.0), search.init(1.0)
        for _ in range(60):
            largest = search.seek_largest(largest, largest.value <= threshold, 2.0, 0.5)
            smallest = search.seek_smallest(smallest, smallest.value >= threshold)
            for bracket in (largest, smallest):
                assert float(bracket.lower) <= threshold <= float(bracket.upper)
    assert float(largest.lower) == pytest.approx(threshold, rel=1e-9)
    assert float(smallest.upper) == pytest.approx(threshold, rel=1e-9)


def test_lanes_do_not_disturb_each_other():
    thresholds = jnp.asarray([0.03, 0.5, 8.0, 300.0])

    def trial(bracket, threshold):
        return search.seek_largest(bracket, bracket.value <= threshold)

    lanes, flat = search.Bracket(*(jnp.broadcast_to(f, (4,)) for f in search.init(1.0))), search.init(jnp.ones(4))
    alone = [search.init(1.0) for _ in range(4)]
    step = jax.jit(jax.vmap(trial))
    for _ in range(10):
        lanes, flat = step(lanes, thresholds), trial(flat, thresholds)
        alone = [trial(b, t) for b, t in zip(alone, thresholds, strict=True)]
    for field in search.Bracket._fields:
        single = np.array([getattr(b, field) for b in alone])
        np.testing.assert_allclose(getattr(lanes, field), single, rtol=3e-7)
        np.testing.assert_array_equal(getattr(flat, field), single)


def test_no_recompilation_and_a_steady_carry():
    traces = []

    @jax.jit
    def ten(value, threshold, growth, shrink):
        traces.append(1)

        def body(_, bracket):
            return search.seek_largest(bracket, bracket.value <= threshold, growth, shrink)

        return jax.lax.fori_loop(0, 10, body, search.init(value))

    for growth, shrink in [(2.0, 0.1), (4.0, 0.1), (2.0, 0.5)]:
        ten(jnp.float32(0.5), 3.0, growth, shrink)
    assert len(traces) == 1
    assert not any(leaf.weak_type for leaf in jax.tree.leaves(search.init(0.5)))
    assert search.init(1).value.dtype == search.init(1.0).value.dtype
    assert search.init(jnp.bfloat16(1)).value.dtype == jnp.bfloat16


def test_never_not_finite():
    bracket = search.init(jnp.float32(1e37))
    with jax.debug_nans(True), jax.debug_infs(False):
        for _ in range(5):
            bracket = search.seek_smallest(bracket, jnp.asarray(False))
            assert np.isfinite(bracket.value)
            assert not jnp.isfinite(bracket.upper)
    assert float(bracket.value) == float(jnp.finfo(jnp.float32).max)
    down = search.init(jnp.float32(1.0))
    for _ in range(80):
        down = search.seek_largest(down, jnp.asarray(False))
    assert np.isfinite(down.value)
    assert bool(jnp.isfinite(down.upper))

    # Gradients, too: nobody asks for them, but a derivative through a search must not be NaN.
    def after(value):
        return search.seek_largest(search.init(value), jnp.asarray(True)).value

    assert float(jax.grad(after)(0.5)) == 2.0


def test_strict_promotion():
    with jax.numpy_dtype_promotion("strict"), jax.numpy_rank_promotion("raise"):
        bracket = search.init(jnp.float32(1.0))
        for success in (True, False, True):
            bracket = search.seek_largest(bracket, jnp.asarray(success))
    assert bracket.value.dtype == jnp.float32
