"""The fitted networks: the normalising flow and the variational autoencoder."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from log_probs import one, values
from sklearn.datasets import make_moons

from invjax.densities import fit_flow, fit_gmm, fit_vae, hinge

ROOT = Path(__file__).resolve().parent.parent.parent


@pytest.fixture(scope="module")
def moons():
    x, y = make_moons(900, noise=0.08, random_state=0)
    x = x.astype(np.float32)
    return x[:600], y[:600], x[600:], y[600:]


@pytest.fixture(scope="module")
def flow(moons):
    return fit_flow(*moons[:2], steps=500, layers=6, hidden=48)


@pytest.fixture(scope="module")
def vae(moons):
    return fit_vae(*moons[:2], steps=500)


def test_flow_is_a_density(flow) -> None:
    side = np.linspace(-5, 6, 500)
    grid = np.stack(np.meshgrid(side, side), -1).reshape(-1, 2).astype(np.float32)
    for label in (0, 1):
        mass = np.exp(values(flow, grid, label)).sum() * (side[1] - side[0]) ** 2
        assert mass == pytest.approx(1, abs=1e-3)


def test_flow_log_det_is_that_of_its_jacobian() -> None:
    """Change of variables from outside: in five dimensions no grid can tell."""
    from invjax.densities.flow import _standard

    draw = np.random.default_rng(0)
    x = draw.normal(size=(60, 5)).astype(np.float32)
    density = fit_flow(x, np.zeros(60, int), steps=30, layers=3, hidden=8)
    weights = density.weights

    def to_base(z):
        for layer in range(3):
            w = jax.tree.map(lambda leaf, layer=layer: leaf[layer], weights)
            mask = density.masks[layer]
            h = jnp.tanh((mask * z) @ w["in"] + w["class_in"][0])
            h = jnp.tanh(h @ w["middle"] + w["class_middle"][0])
            raw = h @ w["out"] + w["class_out"][0]
            z = mask * z + (1 - mask) * (z * jnp.exp(2 * jnp.tanh(raw[:5] / 2)) + raw[5:])
        return z

    z = jnp.asarray(x[0])
    _, log_det = np.linalg.slogdet(np.asarray(jax.jit(jax.jacobian(to_base))(z)))
    base = jax.scipy.stats.norm.logpdf(jax.jit(to_base)(z)).sum()
    got = jax.jit(_standard)(density.weights, density.masks, z, jnp.int32(0))
    assert float(got) == pytest.approx(float(base) + log_det, abs=1e-4)
    assert abs(log_det) > 1e-4


def test_flow_beats_a_gaussian_on_moons(flow, moons) -> None:
    _, _, x, y = moons
    own, other = values(flow, x, y).mean(), values(flow, x, 1 - y).mean()
    assert own > values(fit_gmm(*moons[:2], 1), x, y).mean() + 0.5
    assert own > other + 2


@pytest.mark.parametrize("name", ["flow", "vae"])
def test_gradient_far_and_hinge(name: str, request, moons) -> None:
    density = request.getfixturevalue(name)
    x, y = moons[:2]
    point, direction = jnp.asarray([0.3, 0.7]), jnp.asarray([0.6, -0.8])
    slope = float(one(density, point, jnp.int32(0))[1] @ direction)
    ahead, behind = (float(one(density, point + s * direction, jnp.int32(0))[0]) for s in (1e-3, -1e-3))
    assert slope == pytest.approx((ahead - behind) / 2e-3, rel=0.05, abs=0.05)
    far = jnp.asarray([300.0, -300.0])
    value, slope = one(density, far, jnp.int32(1))
    assert np.isfinite(value)
    assert float(slope @ far) < 0
    cut = values(hinge(density, x, y, 0.25), x, y)
    assert (cut < 0).mean() == pytest.approx(0.25, abs=0.01)


def test_vae_tells_points_of_the_class(vae, moons) -> None:
    _, _, x, y = moons
    own = values(vae, x, y)
    assert own.mean() > values(vae, x, 1 - y).mean() + 2
    assert own.mean() > values(vae, x + 2, y).mean() + 10


def test_same_key_same_fit_and_one_program(moons) -> None:
    x, y = moons[0][:60], moons[1][:60]
    for fit in (fit_flow, fit_vae):
        one, two, other = (fit(x, y, steps=3, hidden=8, key=jax.random.key(seed)) for seed in (1, 1, 2))
        assert jax.tree.structure(one) == jax.tree.structure(other)
        np.testing.assert_array_equal(values(one, x, y), values(two, x, y))
        assert not np.array_equal(values(one, x, y), values(other, x, y))


def test_vae_of_images() -> None:
    draw = np.random.default_rng(0)
    x, y = draw.random((40, 10, 7, 1)).astype(np.float32), np.arange(40) % 3
    density = fit_vae(x, y, conv=True, steps=2, hidden=8)
    value, slope = one(density, jnp.asarray(x[0]), jnp.int32(2))
    assert np.isfinite(value)
    assert slope.shape == (10, 7, 1)


def test_float64_and_odd_shapes() -> None:
    with jax.enable_x64(True):
        x, y = np.random.default_rng(0).normal(size=(30, 1)), np.zeros(30, int)
        for fit in (fit_flow, fit_vae):
            density = fit(x, y, steps=2, hidden=4)
            assert one(density, jnp.asarray(x[0]), jnp.int32(0))[0].dtype == jnp.float64


@pytest.mark.parametrize("fit", [fit_flow, fit_vae])
def test_bad_arguments(fit, moons) -> None:
    x, y = moons[0][:30], moons[1][:30]
    with pytest.raises(ValueError, match="x must be finite"):
        fit(np.full((30, 2), np.inf), y)
    with pytest.raises(ValueError, match="class 0 has 1"):
        fit(x, np.where(np.arange(30) == 0, 0, 1))
    for name, value in (("steps", 0), ("batch", 1.5), ("rate", 0.0), ("held_out", 1.0), ("hidden", 0), ("noise", -1)):
        with pytest.raises(ValueError, match=f"{name} must be"):
            fit(x, y, **{name: value})


def test_conv_needs_images(moons) -> None:
    with pytest.raises(ValueError, match=r"x must be images \[M, H, W, C\] for conv=True"):
        fit_vae(*moons[:2], conv=True)


def test_flax_is_not_loaded_before_it_is_needed() -> None:
    code = "import sys, invjax.densities; print('flax' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
