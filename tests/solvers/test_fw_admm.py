"""Frank–Wolfe's oracles against brute force and LAPACK; ADMM against problems solved in closed form."""

from __future__ import annotations

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from invjax import prox
from invjax.attacks.parts import units
from invjax.core.groups import patch_groups
from invjax.solvers import admm, frank_wolfe

fast = pytest.mark.fast


def draw(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


# ---------------------------------------------------------------------------------------------------------------------
# Oracles
# ---------------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("shape", [(30, 4, 4), (6, 3, 7), (6, 7, 3), (5, 1, 4), (3, 16, 16)])
def test_top_pair_is_the_largest_singular_one(shape: tuple[int, ...]) -> None:
    a = draw(0, *shape) * np.float32(3.0) ** np.arange(-10, shape[0] - 10)[:, None, None].astype(np.float32)
    left, size, right = map(np.asarray, jax.jit(frank_wolfe.top_pair)(a))
    exact = np.linalg.svd(a.astype(np.float64), compute_uv=False)[:, 0]
    np.testing.assert_allclose(size, exact, rtol=2e-6)
    np.testing.assert_allclose(np.einsum("bi,bij,bj->b", left, a, right), exact, rtol=5e-6)
    np.testing.assert_allclose(np.linalg.norm(left, axis=1), 1, rtol=2e-6)
    np.testing.assert_allclose(np.linalg.norm(right, axis=1), 1, rtol=2e-6)


def test_top_pair_of_nothing_and_of_ties() -> None:
    """Zero, the identity (every direction is a top one), two equal blocks, and numbers whose squares underflow."""
    a = np.stack([np.zeros((4, 4)), np.eye(4), np.kron(np.eye(2), np.ones((2, 2))), 1e-30 * draw(1, 4, 4)])
    a = a.astype(np.float32)
    left, size, right = map(np.asarray, jax.jit(frank_wolfe.top_pair)(a))
    exact = np.linalg.svd(a.astype(np.float64), compute_uv=False)[:, 0]
    np.testing.assert_allclose(size, exact, rtol=2e-6)
    np.testing.assert_allclose(np.einsum("bi,bij,bj->b", left, a, right), exact, rtol=5e-6)
    assert (left[0] == 0).all()
    assert (right[0] == 0).all()


def dual_norm(patches: np.ndarray) -> np.ndarray:
    """max over patches of the sum over channels of spectral norms, by LAPACK. [G, n, m, C] -> []"""
    return np.linalg.svd(np.moveaxis(patches, -1, 1), compute_uv=False)[..., 0].sum(1).max()


def ball_norm(patches: np.ndarray) -> np.ndarray:
    """The group nuclear norm: sum over patches of the largest nuclear norm of a channel."""
    return np.linalg.svd(np.moveaxis(patches, -1, 1), compute_uv=False).sum(-1).max(1).sum()


def test_group_nuclear_oracle_is_optimal() -> None:
    """It attains minus the dual norm within the ball; no random point of the ball is better, nor the nuclear choice."""
    oracle, worse = jax.jit(frank_wolfe.of_group_nuclear), 0
    for seed in range(30):
        grad, radius = draw(seed, 9, 4, 4, 3), 0.5 + seed
        vertex = np.asarray(oracle(grad, radius))
        value = float((grad * vertex).sum())
        np.testing.assert_allclose(value, -radius * dual_norm(grad), rtol=1e-5)
        np.testing.assert_allclose(ball_norm(vertex), radius, rtol=1e-5)
        assert (vertex != 0).any((1, 2, 3)).sum() == 1
        other = draw(1000 + seed, 50, 9, 4, 4, 3)
        for point in other:
            assert (grad * point).sum() / ball_norm(point) * radius > value - 1e-4 * abs(value)
        spectra = np.linalg.svd(np.moveaxis(grad, -1, 1), compute_uv=False)
        worse += spectra[..., 0].sum(1)[spectra.sum((1, 2)).argmax()] < 0.999 * dual_norm(grad)
    assert worse > 10  # the patch of the largest nuclear norm, as released, is often another


@fast
@pytest.mark.parametrize("k", [0, 1, 2, 5])
def test_capped_simplex_oracle(k: int) -> None:
    for seed in range(5):
        grad = draw(seed, 5)
        corners = [np.array(c) for c in itertools.product((0, 1), repeat=5) if sum(c) <= k]
        best = min(corners, key=lambda c: float(grad @ c))
        np.testing.assert_array_equal(frank_wolfe.of_capped_simplex(jnp.asarray(grad), k), best)


@fast
def test_box_oracle_and_steps() -> None:
    grad, low, high = jnp.array([1.0, -1.0, 0.0]), jnp.array([-1.0, -2.0, -3.0]), jnp.array([4.0, 5.0, 6.0])
    vertex = frank_wolfe.of_box(grad, low, high, otherwise=jnp.array([9.0, 9.0, 0.5]))
    np.testing.assert_array_equal(vertex, [-1.0, 5.0, 0.5])
    r = jnp.array([0.1, 0.2, 0.3])
    np.testing.assert_array_equal(frank_wolfe.move(r, vertex, 1.0), vertex)
    np.testing.assert_allclose(frank_wolfe.gap(r, vertex, grad), 1.1 + 4.8, rtol=1e-6)
    steps = frank_wolfe.ladder(jnp.float32(1.0), 3)
    np.testing.assert_array_equal(steps, [1, 0.5, 0.25])
    index, taken, top = frank_wolfe.choose(jnp.float32(2.0), jnp.array([3.0, 2.5, 1.0]), steps)
    assert (int(index), bool(taken), float(top)) == (2, True, 1.0)
    _, taken, top = frank_wolfe.choose(jnp.float32(1.0), jnp.array([3.0, 2.5, 1.0]), steps)
    assert (bool(taken), float(top)) == (False, 0.125)


def test_frank_wolfe_projects_onto_the_ball() -> None:
    """h = ½‖r − a‖²: inside the ball the minimiser is a; outside, the gap certifies the value to the end."""
    cut = units.patches((10, 6, 2), 4)
    a = jnp.asarray(draw(3, 10, 6, 2))

    @jax.jit
    def run(radius: jax.Array) -> tuple[jax.Array, jax.Array]:
        def step(_: int, r: jax.Array) -> jax.Array:
            vertex = cut.join(frank_wolfe.of_group_nuclear(cut.split(r - a), radius))
            direction = vertex - r
            exact = frank_wolfe.gap(r, vertex, r - a) / jnp.maximum(jnp.sum(direction**2), 1e-12)
            return frank_wolfe.move(r, vertex, jnp.clip(exact, 0, 1))

        r = jax.lax.fori_loop(0, 400, step, jnp.zeros_like(a))
        vertex = cut.join(frank_wolfe.of_group_nuclear(cut.split(r - a), radius))
        return r, frank_wolfe.gap(r, vertex, r - a)

    norm = ball_norm(np.asarray(cut.split(a)))
    r, _ = run(jnp.float32(3 * norm))
    assert np.abs(np.asarray(r - a)).max() < 0.1
    r, gap = run(jnp.float32(0.1 * norm))
    assert ball_norm(np.asarray(cut.split(r))) <= 0.1 * norm * (1 + 1e-4)
    assert -1e-3 < float(gap) < 0.02 * float(jnp.sum(a**2) / 2)


# ---------------------------------------------------------------------------------------------------------------------
# ADMM
# ---------------------------------------------------------------------------------------------------------------------
def consensus(a: np.ndarray, maps: list, rho: float, eta: float, steps: int = 1500) -> tuple[jax.Array, jax.Array]:
    """ADMM on h(z) = ½‖z − a‖²: the last z and copies."""

    @jax.jit
    def run(a: jax.Array) -> tuple[jax.Array, jax.Array]:
        def step(_: int, carry: tuple[admm.State, jax.Array]) -> tuple[admm.State, jax.Array]:
            state, _copies = carry
            copies = admm.blocks(state, maps, rho)
            return admm.advance(state, copies, state.z - a, rho, eta), copies

        start = admm.init(jnp.zeros_like(a), len(maps))
        state, copies = jax.lax.fori_loop(0, steps, step, (start, start.u))
        return state.z, copies

    return run(jnp.asarray(a))


@pytest.mark.parametrize(("rho", "eta"), [(1.0, 1.0), (0.3, 4.0)])
def test_admm_reaches_the_closed_form(rho: float, eta: float) -> None:
    """½‖z − a‖² + γ‖z‖² + τ Σ‖z_g‖ in a box is one proximal map, of a / (1 + 2γ) with weight τ / (1 + 2γ)."""
    labels, count = patch_groups(5, 7, 2, 2)
    a, gamma, tau, low, high = draw(5, 5, 7, 2), 0.3, 1.1, -0.4, 0.7

    def group(v: jax.Array, weight: jax.Array) -> jax.Array:
        return prox.group_l2(v, tau * weight, labels, num_groups=count)

    z, copies = consensus(a, [admm.ridge(gamma), admm.inside(low, high), group], rho, eta)
    whole = 1 + 2 * gamma
    exact = prox.group_l2(a / whole, tau / whole, labels, num_groups=count, lower=low, upper=high)
    assert 0 < (np.asarray(exact) != 0).mean() < 1
    np.testing.assert_allclose(z, exact, atol=2e-4)
    np.testing.assert_allclose(copies, np.broadcast_to(exact, copies.shape), atol=2e-4)
    assert float(jnp.sqrt(jnp.sum(jnp.square(copies - z)))) < 2e-3


@fast
def test_a_term_that_is_not_active_does_not_count() -> None:
    state = admm.State(jnp.asarray(draw(0, 3)), jnp.asarray(draw(1, 2, 3)))
    copies, grad = jnp.asarray(draw(2, 2, 3)), jnp.asarray(draw(3, 3))
    some = admm.advance(state, copies, grad, 0.7, 2.0, jnp.array([True, False]))
    alone = admm.advance(admm.State(state.z, state.u[:1]), copies[:1], grad, 0.7, 2.0)
    np.testing.assert_allclose(some.z, alone.z, rtol=1e-6)
    np.testing.assert_allclose(some.u[0], alone.u[0], rtol=1e-6)
    np.testing.assert_array_equal(some.u[1], state.u[1])
    by_hand = (2.0 * state.z + 0.7 * (copies[0] + state.u[0]) - grad) / 2.7
    np.testing.assert_allclose(some.z, by_hand, rtol=1e-6)


@pytest.mark.parametrize(
    ("shape", "size", "offset"), [((5, 7, 2), 3, (0, 0)), ((5, 7, 1), 4, (1, 3)), ((2, 3, 3), 8, (0, 0))]
)
def test_patches_of_any_size(shape: tuple[int, int, int], size: int, offset: tuple[int, int]) -> None:
    cut = units.patches(shape, size, offset)
    a = jnp.asarray(draw(0, *shape))
    parts = cut.split(a)
    assert parts.shape[1:] == (size, size, shape[2])
    np.testing.assert_array_equal(cut.join(parts), a)
    np.testing.assert_allclose(float(jnp.sum(parts**2)), float(jnp.sum(a**2)), rtol=1e-6)
    # Pixels share a patch where rounding down from the offset says so.
    index = cut.join(jnp.broadcast_to(jnp.arange(len(parts))[:, None, None, None], parts.shape))[..., 0]
    rows, columns = ((np.arange(n) - o) // size for n, o in zip(shape[:2], offset, strict=True))
    index = np.asarray(index)
    for i, j, k, m in itertools.product(range(shape[0]), range(shape[1]), repeat=2):
        together = rows[i] == rows[k] and columns[j] == columns[m]
        assert (int(index[i, j]) == int(index[k, m])) == together
