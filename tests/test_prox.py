"""Proximal maps against brute force, published values, invariances; gradients; groups."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from oracles import cases, least_objective, objective, x64

from invjax import prox

pytestmark = pytest.mark.fast

# Jitted: one program per shape instead of one per operation (the library itself never jits these).
MAPS = {0.0: jax.jit(prox.l0), 1 / 2: jax.jit(prox.l_half), 2 / 3: jax.jit(prox.l_two_thirds), 1.0: jax.jit(prox.l1)}
group_l2, group_l0 = (jax.jit(f, static_argnames=("num_groups", "axis")) for f in (prox.group_l2, prox.group_l0))
KINDS = ("free", "inside", "outside")
every_map = pytest.mark.parametrize("p", MAPS, ids=["l0", "l_half", "l_two_thirds", "l1"])


def bounds_of(kind: str, low: np.ndarray, high: np.ndarray) -> dict[str, np.ndarray]:
    return {} if kind == "free" else {"lower": low, "upper": high}


# --------------------------------------------------------------------------------------------------- brute force
@pytest.mark.parametrize("kind", KINDS)
@every_map
def test_minimises_in_float64(p, kind):
    v, w, low, high = cases(kind, 1, 800)
    with x64():
        u = np.asarray(MAPS[p](v, w, **bounds_of(kind, low, high)))
    assert u.dtype == np.float64
    assert np.all((u >= low) & (u <= high))
    excess = objective(p, u, v, w) - least_objective(p, v, w, low, high)
    assert excess.max() <= 1e-12 * (1 + np.abs(v) + w).max()
    assert excess.max() <= 1e-9


@pytest.mark.parametrize("kind", KINDS)
@every_map
def test_minimises_in_float32(p, kind):
    v, w, low, high = (a.astype(np.float32) for a in cases(kind, 2, 800))
    u = np.asarray(MAPS[p](v, w, **bounds_of(kind, low, high)))
    assert u.dtype == np.float32
    assert np.all((u >= low) & (u <= high))
    v, w, low, high = (a.astype(np.float64) for a in (v, w, low, high))
    excess = objective(p, u, v, w) - least_objective(p, v, w, low, high)
    assert np.max(excess / (1 + v**2 + w)) <= 1e-6


@pytest.mark.parametrize("p", [1 / 2, 2 / 3])
def test_the_jump_lies_where_it_must_with_zero_outside_the_box(p):
    v = np.linspace(1.2, 1.6, 4001)  # one of these is within 1e-4 of the tie between the lower end and the root
    low, high = np.full_like(v, 0.05), np.full_like(v, 3.0)
    with x64():
        u = np.asarray(MAPS[p](v, 1.0, lower=low, upper=high))
    assert u[0] == 0.05
    assert u[-1] > 0.5
    excess = objective(p, u, v, np.ones_like(v)) - least_objective(p, v, np.ones_like(v), low, high)
    assert excess.max() <= 1e-9


@settings(deadline=None, max_examples=60)
@given(
    v=st.floats(-8, 8, width=32),
    w=st.floats(0, 20, width=32),
    a=st.floats(-4, 4, width=32),
    b=st.floats(-4, 4, width=32),
    p=st.sampled_from(list(MAPS)),
)
def test_minimises_for_any_numbers(v, w, a, b, p):
    low, high = min(a, b), max(a, b)
    with x64():
        u = np.asarray(MAPS[p](np.full(1, v), np.full(1, w), lower=np.full(1, low), upper=np.full(1, high)))
    assert low <= u[0] <= high
    arguments = (np.array([x], np.float64) for x in (v, w, low, high))
    v, w, low, high = arguments
    assert objective(p, u, v, w) - least_objective(p, v, w, low, high) <= 1e-9


def test_mixed_boxes_in_one_call_agree_with_single_calls():
    parts = [cases(kind, 3, 20) for kind in KINDS]
    v, w, low, high = (np.concatenate(column).astype(np.float32) for column in zip(*parts, strict=True))
    for f in MAPS.values():
        whole = f(v, w, lower=low, upper=high)
        single = [f(v[i], w[i], lower=low[i], upper=high[i]) for i in range(0, v.size, 7)]
        np.testing.assert_allclose(whole[::7], np.stack(single), rtol=1e-6)


# ---------------------------------------------------------------------------------------------------- known values
@pytest.mark.parametrize(
    ("p", "v", "w", "expected"),
    [
        (1 / 2, 1.6, 1.0, 1.129544798853),
        (1 / 2, 2.0, 1.0, 1.605377940480),
        (1 / 2, 3.0, 1.0, 2.695453151016),
        (2 / 3, 1.6, 1.0, 0.912728776938),
        (2 / 3, 2.0, 1.0, 1.404734587307),
        (2 / 3, 3.0, 1.0, 2.509410594475),
        (1 / 2, 0.5, 0.1, 0.423134630540),
        (2 / 3, 0.5, 0.1, 0.410281628041),
        (1 / 2, 0.3, 0.05, 0.25),
        (2 / 3, 0.3, 0.05, 0.246863477190),
        (0.0, 0.3, 0.05, 0.0),
        (1.0, -0.3, 0.05, -0.25),
    ],
)
def test_known_values(p, v, w, expected):
    with x64():
        np.testing.assert_allclose(MAPS[p](v, w), expected, rtol=0, atol=6e-13)
        np.testing.assert_allclose(MAPS[p](-v, w), -expected, rtol=0, atol=6e-13)


@pytest.mark.parametrize(
    ("p", "thresholds"),
    [
        (0.0, (10.05, 4.125, 2.25, 1.561111)),
        (1 / 2, (3.212278, 2.125, 1.664214, 1.504093)),
        (2 / 3, (2.204435, 1.712401, 1.509921, 1.475576)),
    ],
)
@pytest.mark.parametrize("index", range(4))
def test_a_box_raises_the_threshold(p, thresholds, index):
    high, tau = (0.1, 0.25, 0.5, 0.9)[index], thresholds[index]
    with x64():
        assert MAPS[p](tau - 1e-5, 1.0, lower=-1.0, upper=high) == 0
        above = float(MAPS[p](tau + 1e-5, 1.0, lower=-1.0, upper=high))
    assert 0 < above <= high


def test_clipping_the_free_map_is_not_the_map_with_the_box():
    with x64():
        for p, high, naive in ((1 / 2, 0.25, 1.41125), (2 / 3, 0.3, 1.29314)):
            clipped = np.minimum(np.asarray(MAPS[p](1.6, 1.0)), high)
            assert clipped == high
            np.testing.assert_allclose(objective(p, clipped, 1.6, 1.0), naive, atol=1e-5)
            assert MAPS[p](1.6, 1.0, lower=0.0, upper=high) == 0
            assert objective(p, np.zeros(()), 1.6, 1.0) < naive
        assert prox.l_half(2.12, 1.0, lower=0, upper=0.25) == 0
        assert prox.l_half(2.13, 1.0, lower=0, upper=0.25) == 0.25


@pytest.mark.parametrize(
    ("v", "low", "high", "expected"), [(2.0, 0.3, 0.9, 0.9), (0.2, 0.3, 0.9, 0.3), (1.45, 0.05, 3.0, 0.932111824)]
)
def test_box_without_zero(v, low, high, expected):
    with x64():
        np.testing.assert_allclose(prox.l_half(v, 1.0, lower=low, upper=high), expected, atol=1e-9)
        np.testing.assert_allclose(prox.l_half(-v, 1.0, lower=-high, upper=-low), -expected, atol=1e-9)


def test_half_weight_gives_the_form_of_xu_et_al():
    """argmin (u − v)² + λ |u|^½ in their closed form, with threshold (54^⅓ / 4) λ^⅔."""
    v, lam = np.linspace(-3, 3, 601), 0.8
    with np.errstate(divide="ignore", invalid="ignore"):
        angle = np.arccos(np.clip(lam / 8 * (np.abs(v) / 3) ** -1.5, -1, 1))
    theirs = np.where(
        np.abs(v) > 54 ** (1 / 3) / 4 * lam ** (2 / 3), 2 / 3 * v * (1 + np.cos(2 / 3 * (np.pi - angle))), 0
    )
    with x64():
        np.testing.assert_allclose(prox.l_half(v, lam / 2), theirs, atol=1e-14)


# ------------------------------------------------------------------------------------------------------ limits, scale
@every_map
def test_weight_zero_is_the_projection_onto_the_box_to_the_bit(p):
    v = np.float32([0, 1e-30, -3e-20, 1e-7, 0.3, -1, 5e8, -1e25])
    np.testing.assert_array_equal(MAPS[p](v, 0.0), v)
    np.testing.assert_array_equal(MAPS[p](v, 0.0, lower=-0.5, upper=2.0), np.clip(v, np.float32(-0.5), np.float32(2)))


@pytest.mark.parametrize("w", [1e12, 1e38, np.inf])
@every_map
def test_a_huge_weight_gives_the_least_magnitude(p, w):
    v = np.float32([0, 1e-30, 1, -5, 100])
    np.testing.assert_array_equal(MAPS[p](v, w), 0)
    if p > 0:
        np.testing.assert_array_equal(MAPS[p](v, w, lower=0.5, upper=2.0), np.float32(0.5))


def test_l0_with_zero_outside_the_box_pays_whatever_it_does():
    assert prox.l0(1.5, np.inf, lower=1.0, upper=2.0) == 1.5


@pytest.mark.parametrize("scale", [1e-25, 1e-12, 1e-4, 1e6, 1e12])
@every_map
def test_scaling(p, scale):
    """prox(s v, s^(2−p) w) = s prox(v, w), also far from 1 in float32."""
    v = np.float32([0.2, 1.4, 1.6, -1.9, 2.5, 40])
    weight = np.float32(scale ** (2 - p))
    if weight < np.finfo(np.float32).tiny:
        pytest.skip("the weight underflows")
    np.testing.assert_allclose(MAPS[p](v * np.float32(scale), weight) / np.float32(scale), MAPS[p](v, 1.0), rtol=2e-5)


@every_map
def test_threshold_and_zero_weight_are_inverse_and_sharp(p):
    with x64():
        w = jnp.array([1e-6, 0.3, 1.0, 7.0])
        tau = prox.threshold(w, p)
        np.testing.assert_allclose(prox.zero_weight(tau, p), w, rtol=1e-13)
        assert not np.any(MAPS[p](tau * (1 - 1e-9), w))
        assert np.all(np.asarray(MAPS[p](tau * (1 + 1e-9), w)) > 0)
        v = jnp.array([0.1, -0.7, 0.4])
        least = prox.zero_weight(jnp.max(jnp.abs(v)), p)
        assert not np.any(MAPS[p](v, least * (1 + 1e-9)))
        assert np.count_nonzero(MAPS[p](v, least * (1 - 1e-9))) == 1
        np.testing.assert_allclose(prox.zero_weight(0.7, 1 / 2), (2 / 3 * 0.7) ** 1.5, rtol=1e-14)


def test_threshold_refuses_other_powers():
    with pytest.raises(ValueError, match=r"p must be in \[0, 1\], was 2"):
        prox.threshold(1.0, 2)


@every_map
def test_nan_stays_nan_and_stays_alone(p):
    u = np.asarray(MAPS[p](np.float32([np.nan, 1.0]), 0.1, lower=-2.0, upper=2.0))
    assert np.isnan(u[0])
    assert np.isfinite(u[1])


# --------------------------------------------------------------------------------------------------- transformations
@every_map
def test_jit_vmap_dtype_and_promotion(p):
    f = MAPS[p]
    v, w, low, high = (jnp.asarray(a, jnp.float32) for a in cases("inside", 4, 24))
    expected = f(v, w, lower=low, upper=high)
    jitted = jax.jit(lambda v, w, low, high: f(v, w, lower=low, upper=high))
    np.testing.assert_allclose(jitted(v, w, low, high), expected, rtol=1e-6, atol=1e-7)
    mapped = jax.vmap(jitted)(*(a.reshape(4, 6) for a in (v, w, low, high)))
    np.testing.assert_allclose(mapped.reshape(-1), expected, rtol=1e-6, atol=1e-7)
    with jax.numpy_dtype_promotion("strict"), jax.numpy_rank_promotion("raise"):
        out = f(v.reshape(2, 3, 4), 0.1, lower=-1.0, upper=jnp.float32(1))
    assert out.shape == (2, 3, 4)
    assert not f(1.0, 0.1).weak_type
    assert f(1, 0.1).dtype == jnp.float32
    f(v, 0.1)
    compiled = jax.jit(lambda v, w: f(v, w))
    compiled(v, 0.1)
    compiled(v, 0.2)
    assert compiled._cache_size() == 1


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@every_map
def test_gradients_are_finite_everywhere(p, dtype):
    tau = float(prox.threshold(1.0, p))
    edge = [0.0, -0.0, 1e-30, 1e-12, 0.25, 1.0, tau, np.nextafter(tau, 9), 1.19055, 1.2408, 2.0, 1e10]
    axes = np.meshgrid(edge + [-e for e in edge], [0.0, 1e-30, 1e-3, 1.0, 1e10], [0.0, 0.25, 1.0], indexing="ij")
    with x64():
        v, w, size = (jnp.asarray(a.reshape(-1), dtype) for a in axes)

        def total(v, w, low, high):
            return jnp.sum(MAPS[p](v, w, lower=low, upper=high))

        gradient = jax.jit(jax.grad(total, argnums=(0, 1, 2, 3)))
        for low, high in ((-size, size), (jnp.zeros_like(size), size), (size, size + 1), (-size - 1, -size)):
            for part in gradient(v, w, low, high):
                assert np.all(np.isfinite(part))
        for part in jax.grad(lambda v, w: jnp.sum(MAPS[p](v, w)), argnums=(0, 1))(v, w):
            assert np.all(np.isfinite(part))


@pytest.mark.parametrize("kind", KINDS)
@every_map
def test_gradients_are_those_of_finite_differences(p, kind):
    arguments = cases(kind, 5, 300)
    with x64():
        v, w, low, high = (jnp.asarray(a) for a in arguments)
        w = w + 0.05

        def f(v, w):
            return MAPS[p](v, w, lower=low, upper=high)

        h = 1e-6
        for index, exact in enumerate(jax.jit(jax.grad(lambda v, w: jnp.sum(f(v, w)), argnums=(0, 1)))(v, w)):
            step = [h * (index == 0), h * (index == 1)]
            up, down = f(v + step[0], w + step[1]), f(v - step[0], w - step[1])
            smooth = np.abs(up - 2 * f(v, w) + down) < 1e-8  # not at a jump or a kink
            assert smooth.mean() > 0.8
            np.testing.assert_allclose(exact[smooth], ((up - down) / (2 * h))[smooth], atol=2e-3, rtol=2e-4)


def test_second_derivative_of_the_root():
    with x64():
        for f in (MAPS[1 / 2], MAPS[2 / 3]):
            second = jax.jit(jax.grad(jax.grad(f)))(2.3, 0.7)
            h = 1e-4
            np.testing.assert_allclose(second, (f(2.3 + h, 0.7) - 2 * f(2.3, 0.7) + f(2.3 - h, 0.7)) / h**2, rtol=1e-4)


# ---------------------------------------------------------------------------------------------------------- groups
def test_patch_groups_covers_the_image_also_where_the_size_does_not_divide():
    labels, count = prox.patch_groups(5, 7, 3, 2)
    assert labels.shape == (5, 7, 3)
    assert labels.dtype == np.int32
    assert count == 3 * 4
    assert set(labels.reshape(-1)) == set(range(count))
    assert np.all(labels[0, 0] == labels[1, 1])
    assert labels[0, 0, 0] != labels[0, 2, 0]
    assert np.sum(labels == count - 1) == 3  # the corner patch is one pixel
    assert prox.patch_groups(4, 6, 1, (2, 3))[1] == 4
    with pytest.raises(ValueError, match="size must be at least 1, was 0"):
        prox.patch_groups(4, 4, 1, 0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"groups": np.zeros(3, int)}, "num_groups must be a positive int"),
        ({"groups": np.zeros(3, int), "num_groups": 0}, "num_groups must be a positive int"),
        ({"groups": np.zeros(4, int), "num_groups": 1}, r"groups must have the shape of v, \(3,\)"),
        ({"groups": np.zeros(3, int), "num_groups": 1, "axis": 0}, "axis must be None"),
        ({"num_groups": 2}, "num_groups must be None without integer labels"),
    ],
)
def test_group_arguments_are_checked(arguments, message):
    for f in (group_l2, group_l0):
        with pytest.raises(ValueError, match=message):
            f(np.zeros(3, np.float32), 1.0, **arguments)


@pytest.mark.parametrize("f", [group_l2, group_l0])
def test_labels_and_axes_say_the_same(f):
    rng = np.random.default_rng(0)
    v = rng.normal(size=(4, 5, 3)).astype(np.float32)
    labels, count = prox.patch_groups(4, 5, 3, 1)
    w = rng.exponential(1, count).astype(np.float32)
    low, high = -rng.exponential(1, v.shape).astype(np.float32), np.float32(0.7)
    for box in ({}, {"lower": low, "upper": high}):
        by_label = f(v, w, labels, num_groups=count, **box)
        by_axis = f(v, w.reshape(4, 5, 1), axis=-1, **box)
        np.testing.assert_allclose(by_label, by_axis, atol=2e-6)
        assert 0 < np.count_nonzero(np.any(by_axis, axis=-1)) < count
        one = f(v, 0.5, **box)
        np.testing.assert_allclose(one, f(v, 0.5, np.zeros(v.shape, int), num_groups=1, **box), atol=2e-6)


def test_free_group_l2_is_block_soft_thresholding():
    v = np.float32([[3, 4], [0.3, 0.4], [0, 0], [1e-30, 0]])
    out = np.asarray(group_l2(v, 1.0, axis=1))
    np.testing.assert_allclose(out, [[2.4, 3.2], [0, 0], [0, 0], [0, 0]], rtol=1e-6)
    np.testing.assert_array_equal(group_l2(v, 0.0, axis=1), v)


def group_problem(kind: str, seed: int, groups: int = 60, size: int = 4):
    rng = np.random.default_rng(seed)
    v = rng.normal(0, 1.5, (groups, size))
    low, high = (a.reshape(groups, size) for a in cases(kind, seed, groups * size)[2:])
    if kind == "outside":  # only some coordinates
        keep = rng.random(v.shape) < 0.5
        low, high = np.where(keep, low, -0.4), np.where(keep, high, 0.9)
        low, high = np.minimum(low, high), np.maximum(low, high)
    w = rng.exponential(2, (groups, 1))
    w[::9] = 0
    w[1::9] = 1e3
    return v, w, low, high


@pytest.mark.parametrize("kind", KINDS)
def test_group_l2_with_box_fulfils_the_optimality_conditions(kind):
    """A convex problem: a zero projected gradient (u ≠ 0), or no direction of descent (u = 0), proves the answer."""
    v, w, low, high = group_problem(kind, 6)
    with x64():
        u = np.asarray(group_l2(v, w, axis=1, lower=low, upper=high))
    assert np.all((u >= low) & (u <= high))
    norm = np.linalg.norm(u, axis=1, keepdims=True)
    gone = norm[:, 0] == 0
    assert (gone.any() and not gone.all()) or kind == "outside"
    gradient = u - v + w * u / np.where(norm == 0, 1, norm)
    np.testing.assert_allclose((np.clip(u - gradient, low, high) - u)[~gone], 0, atol=1e-11)
    # At 0 the steepest feasible direction d falls at the rate v·d − w ‖d‖, best along the part of v that may move.
    feasible = np.where(((v > 0) & (high > 0)) | ((v < 0) & (low < 0)), v, 0)
    assert np.all(np.linalg.norm(feasible, axis=1)[gone] <= w[gone, 0] * (1 + 1e-12))
    np.testing.assert_array_equal(u[::9], np.clip(v, low, high)[::9])


def test_group_l2_with_box_against_a_grid():
    v, w = np.array([3.0, -0.7]), 1.0
    low, high = np.array([-1.0, -1.0]), np.array([0.5, 1.0])
    with x64():
        u = np.asarray(group_l2(v, w, lower=low, upper=high))

    def value(u):
        return 0.5 * np.sum((u - v) ** 2, axis=-1) + w * np.linalg.norm(u, axis=-1)

    grid = np.stack(np.meshgrid(*(np.linspace(a, b, 901) for a, b in zip(low, high, strict=True))), axis=-1)
    assert value(u) <= value(grid).min() + 1e-12
    clipped = np.clip(v * max(0, 1 - w / np.linalg.norm(v)), low, high)  # the free map, clipped: not the answer
    assert value(u) < value(clipped) - 1e-4


@pytest.mark.parametrize("kind", KINDS)
def test_group_l0_against_both_choices(kind):
    v, w, low, high = group_problem(kind, 7)
    with x64():
        u = np.asarray(group_l0(v, w, axis=1, lower=low, upper=high))
    clipped = np.clip(v, low, high)
    zero_allowed = np.all((low <= 0) & (high >= 0), axis=1)
    kept = 0.5 * np.sum((clipped - v) ** 2, axis=1) + w[:, 0] * np.any(clipped, axis=1)
    zero = np.where(zero_allowed, 0.5 * np.sum(v**2, axis=1), np.inf)
    mine = 0.5 * np.sum((u - v) ** 2, axis=1) + w[:, 0] * np.any(u, axis=1)
    np.testing.assert_allclose(mine, np.minimum(kept, zero), atol=1e-12)
    assert np.all((u >= low) & (u <= high))


@pytest.mark.parametrize("kind", KINDS)
def test_group_maps_in_float32_under_jit_and_vmap(kind):
    v, w, low, high = group_problem(kind, 8)
    with x64():
        wanted = [np.asarray(f(v, w, axis=1, lower=low, upper=high)) for f in (group_l2, group_l0)]
    for f, expected in zip((group_l2, group_l0), wanted, strict=True):
        single = jax.jit(jax.vmap(lambda v, w, low, high, f=f: f(v, w, lower=low, upper=high)))
        out = single(*(a.astype(np.float32) for a in (v, w[:, 0], low, high)))
        assert out.dtype == jnp.float32
        np.testing.assert_allclose(out, expected, atol=3e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_group_l2_gradients(kind):
    v, w, low, high = group_problem(kind, 9)
    w[w == 0] = 0.01
    box = bounds_of(kind, low, high)
    with x64():
        v, w = jnp.asarray(v), jnp.asarray(w)

        def f(v, w):
            return group_l2(v, w, axis=1, **box)

        jvp = jax.jit(lambda v, w, dv, dw: jax.jvp(f, (v, w), (dv, dw))[1])
        direction = jnp.cos(jnp.arange(v.size, dtype=v.dtype)).reshape(v.shape)
        h = 1e-6
        for index, tangent in enumerate((direction, jnp.ones_like(w))):
            moves = (tangent, 0 * w) if index == 0 else (0 * v, tangent)
            exact = jvp(v, w, *moves)
            up, down = (f(v + s * h * moves[0], w + s * h * moves[1]) for s in (1, -1))
            smooth = np.abs(up - 2 * f(v, w) + down) < 1e-9
            assert smooth.mean() > 0.8
            np.testing.assert_allclose(exact[smooth], ((up - down) / (2 * h))[smooth], atol=1e-5)


@pytest.mark.parametrize("f", [group_l2, group_l0])
def test_group_gradients_are_finite_at_zero_and_at_edges(f):
    v = jnp.array([[0.0, 0, 0], [3, 4, 0], [1e-30, 0, 0], [0.6, 0.8, 0], [1, -1, 5]])
    gradient = jax.jit(jax.grad(lambda v, w, box: jnp.sum(f(v, w, axis=1, **box)), argnums=(0, 1)))
    for box in ({}, {"lower": -1.0, "upper": 1.0}, {"lower": 0.0, "upper": 0.0}, {"lower": 0.25, "upper": 0.5}):
        for w in (0.0, 1.0, 5.0, 1e20):
            for part in gradient(v, w, box):
                assert np.all(np.isfinite(part))
