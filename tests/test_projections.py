"""Projections against optax, linear programs, enumeration, optimality conditions and invariances."""

from __future__ import annotations

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from oracles import x64
from scipy.optimize import linprog

from invjax import projections, prox

# Jitted: one program per shape instead of one per operation (the library itself never jits these).
BALLS = {name: jax.jit(getattr(projections, f"{name}_ball")) for name in ("l1", "l2", "linf")}
simplex = jax.jit(projections.simplex, static_argnames="axis")
ORDER = {"l1": 1, "l2": 2, "linf": np.inf}
every_ball = pytest.mark.parametrize("name", BALLS)


def instance(seed: int, n: int = 9):
    rng = np.random.default_rng(seed)
    v = rng.normal(0, 1.5, n)
    low, high = -rng.exponential(0.8, n), rng.exponential(0.8, n)
    low[rng.random(n) < 0.2] = 0
    high[rng.random(n) < 0.2] = 0
    high[rng.random(n) < 0.1] = np.inf
    return v, float(rng.exponential(1.5)), low, high


# ----------------------------------------------------------------------------------------------------- free, by optax
@pytest.mark.parametrize("radius", [1e-3, 0.4, 2.0, 100.0])
def test_free_projections_are_those_of_optax(radius):
    with x64():
        v = jnp.asarray(np.random.default_rng(0).normal(size=(4, 5)))
        p = optax.projections
        np.testing.assert_allclose(BALLS["l1"](v, radius), p.projection_l1_ball(v, radius), atol=1e-13)
        np.testing.assert_allclose(BALLS["l2"](v, radius), p.projection_l2_ball(v, radius), atol=1e-13)
        np.testing.assert_allclose(BALLS["linf"](v, radius), p.projection_linf_ball(v, radius), atol=1e-13)
        np.testing.assert_allclose(simplex(v, radius), p.projection_simplex(v, radius), atol=1e-13 * radius)
        np.testing.assert_allclose(projections.box(v, -0.5, radius), p.projection_box(v, -0.5, radius))


@pytest.mark.parametrize("radius", [1e-6, 0.4, 30.0])
def test_free_projections_in_float32(radius):
    v = np.random.default_rng(1).normal(size=500)
    with x64():
        wanted = {name: np.asarray(ball(v, radius)) for name, ball in BALLS.items()}
        wanted["simplex"] = np.asarray(simplex(v, radius))
    for name, ball in (BALLS | {"simplex": simplex}).items():
        out = np.asarray(ball(v.astype(np.float32), radius))
        assert out.dtype == np.float32
        np.testing.assert_allclose(out, wanted[name], atol=3e-6 * min(1, radius) if name in ("l2", "linf") else 1e-6)
        assert np.linalg.norm(out.astype(float), ORDER.get(name, 1)) <= radius * (1 + 3e-6)


def test_simplex_along_an_axis():
    with x64():
        v = jnp.asarray(np.random.default_rng(2).normal(size=(6, 4)))
        rows = simplex(v, jnp.arange(1.0, 7.0)[:, None], axis=1)
        for i in range(6):
            np.testing.assert_allclose(rows[i], optax.projections.projection_simplex(v[i], i + 1.0), atol=1e-13)
        np.testing.assert_allclose(rows.sum(axis=1), np.arange(1, 7), rtol=1e-14)


# --------------------------------------------------------------------------------------------------- balls with a box
def ball_box_support(name, direction, radius, low, high):
    """max ⟨direction, z⟩ over the ball and the box: a linear program (l1, linf)."""
    n = direction.size
    bounds = [(0, b) for b in high] + [(0, -a) for a in low]  # z = z⁺ − z⁻
    matrix, limit = (np.ones((1, 2 * n)), [radius]) if name == "l1" else (np.eye(2 * n), np.full(2 * n, radius))
    answer = linprog(-np.concatenate([direction, -direction]), A_ub=matrix, b_ub=limit, bounds=bounds)
    return -answer.fun


@pytest.mark.parametrize("name", ["l1", "linf"])
@pytest.mark.parametrize("seed", range(6))
def test_ball_and_box_by_the_variational_inequality(name, seed):
    """u is the projection iff ⟨v − u, z − u⟩ <= 0 for all feasible z; the worst z by a linear program."""
    v, radius, low, high = instance(seed)
    with x64():
        u = np.asarray(BALLS[name](v, radius, lower=low, upper=high))
    assert np.all((u >= low) & (u <= high))
    assert np.linalg.norm(u, ORDER[name]) <= radius * (1 + 1e-14)
    assert ball_box_support(name, v - u, radius, low, high) - (v - u) @ u <= 1e-9


@pytest.mark.parametrize("seed", range(12))
def test_l2_ball_and_box_by_the_optimality_conditions(seed):
    v, radius, low, high = instance(seed)
    with x64():
        u = np.asarray(BALLS["l2"](v, radius, lower=low, upper=high))
    norm = np.linalg.norm(u)
    assert np.all((u >= low) & (u <= high))
    assert norm <= radius * (1 + 1e-14)
    if norm < radius * (1 - 1e-12):
        np.testing.assert_array_equal(u, np.clip(v, low, high))
        return
    free = (u > low) & (u < high) & (u != 0)
    multiplier = np.sum(v[free] * u[free]) / np.sum(u[free] ** 2) - 1 if free.any() else 0.0
    assert multiplier >= -1e-12
    if free.any():  # one multiplier explains every coordinate
        np.testing.assert_allclose(u, np.clip(v / (1 + multiplier), low, high), atol=1e-12)


@settings(deadline=None, max_examples=40)
@given(seed=st.integers(0, 10_000), radius=st.floats(1e-4, 20), name=st.sampled_from(sorted(BALLS)))
@example(seed=6816, radius=1e-4, name="l1")  # was 2e-16 above its radius: the rounding of v, which is larger
def test_nothing_feasible_is_nearer(seed, radius, name):
    v, _, low, high = instance(seed)
    with x64():
        u = np.asarray(BALLS[name](v, radius, lower=low, upper=high))
    assert np.linalg.norm(u, ORDER[name]) <= radius * (1 + 1e-12)
    rng = np.random.default_rng(seed + 1)
    z = np.clip(u + rng.normal(size=(400, v.size)) * rng.exponential(0.3, (400, 1)), low, high)
    z /= np.maximum(1, np.linalg.norm(z, ORDER[name], axis=1, keepdims=True) / radius)
    assert np.max((z - u) @ (v - u)) <= 1e-10


@every_ball
def test_with_a_wide_box_and_with_a_wide_ball(name):
    v, _, low, high = instance(3)
    with x64():
        for radius in (0.1, 2.0):
            boxed = BALLS[name](v, radius, lower=-50.0, upper=50.0)
            np.testing.assert_allclose(boxed, BALLS[name](v, radius), atol=1e-13)
        np.testing.assert_array_equal(BALLS[name](v, 1e6, lower=low, upper=high), np.clip(v, low, high))


@pytest.mark.fast
def test_clipping_the_free_projection_is_not_the_projection():
    v, low, high = np.array([3.0, 2.0]), np.full(2, -0.5), np.array([0.5, 4.0])
    with x64():
        for name, expected in (("l1", [0.5, 0.5]), ("l2", [0.5, np.sqrt(0.75)])):
            np.testing.assert_allclose(BALLS[name](v, 1.0, lower=low, upper=high), expected, atol=1e-14)
            clipped = np.clip(np.asarray(BALLS[name](v, 1.0)), low, high)
            assert np.abs(clipped - expected).max() > 0.2


@every_ball
@pytest.mark.parametrize("boxed", [False, True])
def test_radius_zero_point_zero_and_tiny_radius(name, boxed):
    bounds = {"lower": -1.0, "upper": 1.0} if boxed else {}
    v = np.float32([1000, -3, 0, 0.5])
    np.testing.assert_array_equal(BALLS[name](v, 0.0, **bounds), 0)
    np.testing.assert_array_equal(BALLS[name](0 * v, 1.0, **bounds), 0)
    tiny = np.asarray(BALLS[name](v, 1e-6, **bounds))
    np.testing.assert_allclose(np.linalg.norm(tiny.astype(float), ORDER[name]), 1e-6, rtol=1e-5)


# --------------------------------------------------------------------------------------------------------------- top m
def nearest_with_m_units(v, m, low, high, units):
    """The least squared distance over all choices of at most m units, by enumeration."""
    count = units.max() + 1
    clipped = np.clip(v, low, high)
    best = np.inf
    for chosen in itertools.chain.from_iterable(itertools.combinations(range(count), k) for k in range(m + 1)):
        u = np.where(np.isin(units, chosen), clipped, 0)
        if np.all((u >= low) & (u <= high)):
            best = min(best, np.sum((u - v) ** 2))
    return best


@pytest.mark.parametrize("outside", [False, True])
@pytest.mark.parametrize("grouped", [False, True])
def test_top_m_against_enumeration(outside, grouped):
    rng = np.random.default_rng(5)
    units = np.array([0, 0, 1, 2, 2, 3]) if grouped else np.arange(6)
    if grouped:
        f = jax.jit(lambda v, m, lo, hi: projections.top_m_groups(v, m, units, num_groups=4, lower=lo, upper=hi))
    else:
        f = jax.jit(lambda v, m, lo, hi: projections.top_m(v, m, lower=lo, upper=hi))
    naive_wrong = 0
    with x64():
        for _ in range(60):
            v = rng.normal(0, 2, 6)
            low, high = -rng.exponential(1, 6), rng.exponential(1, 6)
            if outside:
                one = rng.integers(6)
                low[one], high[one] = 0.2, 0.2 + high[one]
            m = int(rng.integers(outside, 5))
            u = np.asarray(f(v, m, low, high))
            assert np.all((u >= low) & (u <= high))
            assert np.unique(units[u != 0]).size <= m
            best = nearest_with_m_units(v, m, low, high, units)
            np.testing.assert_allclose(np.sum((u - v) ** 2), best, rtol=1e-12, atol=1e-12)
            largest = np.argsort(-np.abs(v))[:m]
            naive = np.where(np.isin(np.arange(6), largest), np.clip(v, low, high), 0)
            naive_wrong += np.sum((naive - v) ** 2) > best + 1e-9
        assert f._cache_size() == 1  # m is traced
    assert naive_wrong > 5


@pytest.mark.fast
def test_top_m_by_hand():
    np.testing.assert_array_equal(
        projections.top_m(np.float32([3, 2]), 1, lower=0.0, upper=np.float32([0.5, 2])), [0, 2]
    )
    v = np.float32([1, -5, 3, 3])
    np.testing.assert_array_equal(projections.top_m(v, 2), [0, -5, 3, 0])  # a tie: the first index
    np.testing.assert_array_equal(projections.top_m(v, 0), 0)
    np.testing.assert_array_equal(projections.top_m(v, 9), v)
    # More coordinates forced than m allows: the set is empty, exactly these are kept.
    low = np.float32([0.5, -9, 0.5, -9])
    np.testing.assert_array_equal(projections.top_m(v, 1, lower=low, upper=9.0), [1, 0, 3, 0])


def test_top_m_groups_along_channels_and_over_a_batch_of_m():
    image = np.float32([[[1, 1, 1], [2, 0, 0], [0, 0, 0.5]]])
    out = projections.top_m_groups(image, 1, axis=-1)
    np.testing.assert_array_equal(out, np.float32([[[0, 0, 0], [2, 0, 0], [0, 0, 0]]]))
    path = jax.vmap(lambda m: projections.top_m_groups(image, m, axis=-1))(jnp.arange(4))
    np.testing.assert_array_equal(np.any(np.asarray(path), axis=-1).sum(axis=(1, 2)), [0, 1, 2, 3])


@pytest.mark.fast
def test_coordinate_subspace():
    v = np.float32([[1, 2], [3, 4]])
    np.testing.assert_array_equal(projections.coordinate_subspace(v, [True, False]), [[1, 0], [3, 0]])


# ------------------------------------------------------------------------------------------------------ transformations
@every_ball
def test_jit_vmap_promotion_and_no_recompilation(name):
    f = jax.jit(lambda v, r, lo, hi: BALLS[name](v, r, lower=lo, upper=hi))
    rng = np.random.default_rng(6)
    v = rng.normal(size=(5, 3, 4)).astype(np.float32)
    radii = np.float32([0.0, 0.1, 1, 3, 100])
    out = jax.vmap(f, in_axes=(0, 0, None, None))(v, radii, -0.7, 0.4)
    single = [f(v[i], radii[i], np.float32(-0.7), np.float32(0.4)) for i in range(5)]
    np.testing.assert_allclose(out, np.stack(single), atol=1e-6)
    assert f._cache_size() == 1
    with jax.numpy_dtype_promotion("strict"), jax.numpy_rank_promotion("raise"):
        assert BALLS[name](v[0], 1.0, lower=-1.0, upper=v[0] ** 2).shape == (3, 4)
        assert BALLS[name](v[0], jnp.float32(1)).dtype == jnp.float32
        assert simplex(v[0], 1.0, axis=-1).shape == (3, 4)
        assert projections.top_m(v[0], 2, lower=-1.0).shape == (3, 4)


@every_ball
@pytest.mark.parametrize("boxed", [False, True])
def test_gradients(name, boxed):
    """Exact where the projection is smooth, finite everywhere."""
    weights = np.cos(np.arange(9))

    @jax.jit
    def f(v, radius, box):
        return jnp.sum(weights[: v.size] * BALLS[name](v, radius, **box))

    gradient = jax.jit(jax.grad(f, argnums=(0, 1)))
    differences = jax.jit(
        lambda v, radius, box, h=1e-6: jax.vmap(
            lambda dv, dr: (f(v + h * dv, radius + h * dr, box) - f(v - h * dv, radius - h * dr, box)) / (2 * h)
        )(jnp.eye(v.size + 1)[:, :-1], jnp.eye(v.size + 1)[:, -1])
    )
    with x64():
        for seed in range(5):
            v, radius, low, high = instance(seed)
            box = {"lower": low, "upper": high} if boxed else {}
            slopes = gradient(v, radius, box)
            np.testing.assert_allclose(np.r_[slopes[0], slopes[1]], differences(v, radius, box), atol=1e-6)
    box = {"lower": jnp.zeros(3), "upper": jnp.array([0.0, 1.0, 1.0])} if boxed else {}
    for v in ([0.0, 0, 0], [1, 1, 1], [1e-30, 0, -1e-30], [1, 0, 0]):
        for radius in (0.0, 1.0, 1e-20):
            assert all(np.all(np.isfinite(part)) for part in gradient(jnp.array(v, jnp.float32), radius, box))


def test_gradient_of_the_simplex():
    with x64():
        v = jnp.array([0.3, 0.9, -2.0, 0.5])
        jacobian = jax.jit(jax.jacobian(simplex))(v)
    expected = np.zeros((4, 4))
    active = np.array([0, 1, 3])
    expected[np.ix_(active, active)] = np.eye(3) - 1 / 3
    np.testing.assert_allclose(jacobian, expected, atol=1e-14)


@every_ball
def test_moreau_with_the_dual_norm(name):
    """v = P_ball(v) + prox of the dual norm: l1 ↔ linf, l2 ↔ group l2 with one group."""
    with x64():
        v, radius, _, _ = instance(8)
        rest = v - np.asarray(BALLS[name](v, radius))
        if name == "linf":
            np.testing.assert_allclose(rest, prox.l1(v, radius), atol=1e-14)
        elif name == "l2":
            np.testing.assert_allclose(rest, prox.group_l2(v, radius), atol=1e-14)
        else:  # prox of the largest magnitude: what is cut off is cut at one level and sums to the radius
            level = np.abs(rest).max()
            np.testing.assert_allclose(np.maximum(np.abs(v) - level, 0).sum(), radius, rtol=1e-13)


@pytest.mark.fast
def test_nan_stays_nan():
    v = np.float32([np.nan, 1])
    for f in (*BALLS.values(), simplex):
        assert np.isnan(np.asarray(f(v, 0.5))[0])
    assert np.isnan(np.asarray(projections.top_m(v, 1, lower=-1.0))[0])
    for f in BALLS.values():
        assert np.isnan(np.asarray(f(v, 0.5, lower=-1.0, upper=1.0))[0])
