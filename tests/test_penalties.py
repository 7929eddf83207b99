"""Penalties: one optimality test for all of them, combinators, pytree behaviour."""

from __future__ import annotations

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracles import x64

from invjax import penalties, projections, prox
from invjax.penalties import in_box, scaled, shifted

LABELS = np.array([0, 1, 0])
LOW, HIGH = np.array([-0.6, -2.0, -0.3]), np.array([0.5, 0.8, 1.5])
SHIFT = np.array([0.4, -0.2, 0.9])
BASE = {
    "zero": lambda: penalties.zero(),
    "box": lambda: penalties.box(-0.75, 0.75),
    "l1": lambda: penalties.l1(0.6),
    "l1 weights": lambda: penalties.l1(np.array([0.1, 0.6, 2.0])),
    "l0": lambda: penalties.l0(0.4),
    "l_half": lambda: penalties.l_half(0.5),
    "l_two_thirds": lambda: penalties.l_two_thirds(0.5),
    "group_l2": lambda: penalties.group_l2(np.array([0.5, 0.9]), LABELS, num_groups=2),
    "l2": lambda: penalties.group_l2(0.7),
    "group_l0": lambda: penalties.group_l0(0.7, LABELS, num_groups=2),
    "top_m": lambda: penalties.top_m(1),
    "top_m_groups": lambda: penalties.top_m_groups(1, LABELS, num_groups=2),
}
WRAP = {
    "plain": lambda g: g,
    "boxed": lambda g: in_box(g, LOW, HIGH),
    "shifted": lambda g: shifted(g, SHIFT),
    "boxed then shifted": lambda g: shifted(in_box(g, LOW, HIGH), SHIFT),
    "shifted then boxed": lambda g: in_box(shifted(g, SHIFT), LOW - SHIFT, HIGH - SHIFT),
    "twice boxed": lambda g: in_box(in_box(g, -5.0, HIGH), LOW, 5.0),
    "scaled": lambda g: scaled(in_box(g, LOW), 0.3),
}
prox_of = jax.jit(lambda penalty, v, step: penalty.prox(v, step))
every_base = pytest.mark.parametrize("name", BASE)


@pytest.mark.parametrize("wrap", WRAP)
@every_base
def test_prox_minimises_the_value(name, wrap):
    """prox(v, step) attains the least of ½‖u − v‖² + step · value(u): nothing on a dense grid, refined, is better."""
    with x64():
        penalty = WRAP[wrap](BASE[name]())
        value = jax.jit(jax.vmap(penalty.value))
        rng = np.random.default_rng(0)
        shift = SHIFT if "shifted" in wrap else np.zeros(3)
        for step in (0.3, 1.0):
            v = rng.normal(0, 1.2, 3)
            u = np.asarray(prox_of(penalty, v, step))
            mine = 0.5 * np.sum((u - v) ** 2) + step * float(value(u[None])[0])
            assert np.isfinite(mine)
            # The grid holds the special points of every penalty: 0, the box's ends and v, in the shifted coordinates.
            z = v + shift
            axes = [
                np.unique(np.r_[np.linspace(-2.5, 2.5, 21), 0, LOW[i], HIGH[i], -0.75, 0.75, z[i]]) for i in range(3)
            ]
            near = [
                np.r_[0.0, -0.75, 0.75, LOW[i], HIGH[i], (u + shift)[i] + np.linspace(-3e-3, 3e-3, 15)]
                for i in range(3)
            ]
            for part in (axes, near):
                grid = np.array(list(itertools.product(*part))) - shift
                theirs = 0.5 * np.sum((grid - v) ** 2, axis=1) + step * np.asarray(value(grid))
                assert mine <= theirs.min() + 1e-9


def test_values_by_hand():
    u = np.float32([4, 0, -8])
    assert penalties.zero().value(u) == 0
    assert penalties.l1(0.5).value(u) == 6
    assert penalties.l1(np.float32([1, 1, 2])).value(u) == 20
    assert penalties.l0(3.0).value(u) == 6
    np.testing.assert_allclose(penalties.l_half(1.0).value(u), 2 + 8**0.5, rtol=1e-6)
    np.testing.assert_allclose(penalties.l_two_thirds(1.0).value(u), 4 ** (2 / 3) + 4, rtol=1e-6)
    np.testing.assert_allclose(penalties.group_l2(2.0, LABELS, num_groups=2).value(u), 2 * 80**0.5, rtol=1e-6)
    assert penalties.group_l0(np.float32([3, 5]), LABELS, num_groups=2).value(u) == 3
    assert penalties.top_m(2).value(u) == 0
    assert penalties.top_m(1).value(u) == np.inf
    assert penalties.top_m_groups(1, LABELS, num_groups=2).value(u) == 0
    assert penalties.box(-8.0, 4.0).value(u) == 0
    assert penalties.box(-7.0, 4.0).value(u) == np.inf
    assert in_box(penalties.l1(0.5), upper=3.0).value(u) == np.inf
    assert shifted(penalties.l0(1.0), np.float32([-4, 0, 0])).value(u) == 1
    assert scaled(penalties.l1(0.5), 2.0).value(u) == 12


def test_shift_is_exact_where_the_penalised_point_is_zero():
    """x + r = 0 must count as zero whatever the rounding: the sparse answer of a prox on x' stays sparse."""
    x = np.random.default_rng(1).normal(size=50).astype(np.float32)
    penalty = shifted(penalties.l0(0.5), x)
    r = penalty.prox(np.zeros(50, np.float32), 1.0)
    assert penalty.value(r) == 0.5 * np.count_nonzero(np.abs(x) > 1)


def test_value_accepts_what_prox_returns_in_float32():
    rng = np.random.default_rng(2)
    x = rng.random(400).astype(np.float32) * 255
    for penalty in (shifted(penalties.box(0.0, 255.0), x), in_box(shifted(penalties.l1(0.1), x), -x, 255 - x)):
        u = penalty.prox(rng.normal(0, 200, 400).astype(np.float32), 1.0)
        assert np.isfinite(penalty.value(u))


@every_base
def test_a_penalty_is_a_pytree_of_numbers(name):
    penalty = in_box(BASE[name](), -1.0, np.float32(1))
    leaves, structure = jax.tree.flatten(penalty)
    assert all(np.ndim(leaf) <= 1 for leaf in leaves)
    assert jax.tree.unflatten(structure, leaves).kind is penalty.kind
    assert hash(structure) == hash(jax.tree.structure(in_box(BASE[name](), 0.0, np.float32(2))))
    compiled = jax.jit(lambda g, v, step: (g.prox(v, step), g.value(v)))
    v = jnp.array([0.5, -2.0, 1.0])
    out, _ = compiled(penalty, v, 0.5)
    assert out.dtype == jnp.float32
    np.testing.assert_allclose(out, penalty.prox(v, 0.5), atol=1e-6)
    compiled(jax.tree.map(lambda leaf: leaf, in_box(scaled(BASE[name](), 1.0), -2.0, np.float32(3))), v, 0.7)
    compiled(jax.tree.map(lambda leaf: leaf, in_box(scaled(BASE[name](), 2.0), -2.0, np.float32(3))), v, 0.9)
    assert compiled._cache_size() <= 2  # a Python float and an array as weight at most


def test_a_sweep_over_weights_and_over_m_is_a_batch():
    v = jnp.array([0.5, -2.0, 1.0])
    weights = jnp.array([0.0, 0.6, 3.0])
    swept = jax.vmap(lambda w: penalties.l_half(w).prox(v, 1.0))(weights)
    np.testing.assert_allclose(swept, np.stack([prox.l_half(v, w) for w in weights]), rtol=1e-6)
    path = jax.vmap(lambda m: in_box(penalties.top_m(m), -1.0, 1.0).prox(v, 1.0))(jnp.arange(4))
    np.testing.assert_allclose(path, np.stack([projections.top_m(v, m, lower=-1, upper=1) for m in range(4)]))


@every_base
def test_gradients_of_value_and_prox_are_finite(name):
    penalty = BASE[name]()
    of_value = jax.jit(jax.grad(lambda g, u: g.value(u), argnums=1))
    of_prox = jax.jit(jax.grad(lambda g, v: jnp.sum(g.prox(v, 0.5)), argnums=1))
    for v in ([0.0, 0, 0], [0.7, -0.7, 0], [3.0, 1e-30, -2]):
        assert np.all(np.isfinite(of_value(penalty, jnp.array(v))))
        assert np.all(np.isfinite(of_prox(penalty, jnp.array(v))))


def test_a_penalty_of_ones_own():
    elastic = penalties.Kind(
        "elastic",
        value=lambda z, g: g.weight * jnp.sum(z**2) / 2,
        prox=lambda v, w, g: projections.box(v / (1 + w), g.lower, g.upper),
    )
    g = in_box(penalties.Penalty(weight=0.5, kind=elastic), 0.0, 1.0)
    np.testing.assert_allclose(g.prox(np.float32([1, -1, 9]), 2.0), [0.5, 0, 1])
    assert g.value(np.float32([1, 1])) == 0.5
