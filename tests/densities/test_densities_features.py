"""The density in a network's features: against linear features, where everything is known in closed form."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from oracles import x64

from invjax.counterfactuals import FixedWeights
from invjax.densities import fit_features, fit_gmm, fit_knn
from invjax.engine import solve
from invjax.learn import feature_network, last_layer, penultimate
from invjax.models import MLP, LogitsModel, as_logits

K = 5


def project(matrix, x):
    return x.reshape(len(x), -1) @ matrix


def curved(params, x):
    return jnp.tanh(x @ params)[:, :, None]  # [B, 3, 1]: features of any shape are flattened


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(0)
    y = np.repeat([0, 1], 40)
    x = rng.standard_normal((80, 6)) + 2.0 * y[:, None]
    return x.astype(np.float32), y, rng.standard_normal((6, 3)).astype(np.float32)


@jax.jit
def one(density, x, label):
    return jax.value_and_grad(density.log_prob)(x, label)


@pytest.mark.parametrize("fit", [fit_knn, fit_gmm])
def test_linear_features(data, fit):
    """Value and gradient are those of the density of the projected points, by the chain rule."""
    x, y, matrix = data
    options = {"k": K} if fit is fit_knn else {"components": 2, "restarts": 1}
    density = fit_features(LogitsModel(jnp.asarray(matrix), project), fit, x, y, **options)
    seen = x.astype(np.float64) @ matrix
    mean, scale = seen.mean(0), seen.std(0) * np.sqrt(3)
    inner = fit(((seen - mean) / scale).astype(np.float32), y, **options)
    for n, label in ((0, 1), (50, 0)):
        value, gradient = one(density, x[n], jnp.int32(label))
        z = ((seen[n] - mean) / scale).astype(np.float32)
        wanted, slope = one(inner, z, jnp.int32(label))
        np.testing.assert_allclose(value, wanted, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(gradient, matrix @ (np.asarray(slope) / scale), rtol=2e-3, atol=2e-4)


def test_standardised_to_length_one(data):
    x, y, matrix = data
    density = fit_features(LogitsModel(jnp.asarray(matrix), curved), fit_knn, x, y, k=K, batch=32)
    z = np.stack([density.standard(row) for row in x[:80]])
    assert z.shape == (80, 3)
    np.testing.assert_allclose(np.square(z).sum(1).mean(), 1.0, rtol=1e-4)
    np.testing.assert_allclose(z.mean(0), 0.0, atol=1e-5)


def test_of_a_network_and_in_a_search(data):
    """The features before the last layer; a search with γ = 0 climbs the density, in the class that is asked for."""
    x, y, _ = data
    net = MLP((6, 8, 2), rngs=nnx.Rngs(0))
    layer = last_layer(net, x[:4])
    seen = as_logits(feature_network(net, layer))
    np.testing.assert_allclose(seen(x), penultimate(net, x, layer), rtol=1e-5, atol=1e-6)
    density = fit_features(seen, fit_knn, x, y, k=K)
    label = np.asarray(as_logits(net)(x[:6])).argmax(1)
    found = solve(
        net, x[:6], label, target=1 - label, method=FixedWeights(gamma=0.0, tau=50.0, steps=15, step_size=0.02),
        density=density, bounds=(-9.0, 9.0),
    )  # fmt: skip
    value = jax.vmap(density.log_prob)
    before, after = (np.asarray(value(jnp.asarray(at), jnp.asarray(1 - label))) for at in (x[:6], found.attempt))
    assert np.all(after > before)
    assert after.mean() > before.mean() + 0.1


def test_weights_are_leaves(data):
    """Another network of the same form is the same program; float64 stays float64."""
    x, y, matrix = data
    traces = []

    @jax.jit
    def value(density, x):
        traces.append(1)
        return density.log_prob(x, jnp.int32(0))

    for factor in (1.0, 2.0):
        features = LogitsModel(factor * jnp.asarray(matrix), project)
        numbers = value(fit_features(features, fit_knn, x, y, k=K), x[0])
        assert np.isfinite(numbers)
    assert len(traces) == 1
    with x64():
        wide = fit_features(LogitsModel(jnp.asarray(matrix, jnp.float64), project), fit_knn, x.astype(float), y, k=K)
        assert wide.log_prob(jnp.asarray(x[0], jnp.float64), jnp.int32(1)).dtype == jnp.float64


def test_a_plain_function(data):
    x, y, matrix = data
    plain = fit_features(lambda points: project(jnp.asarray(matrix), points), fit_knn, x, y, k=K)
    known = fit_features(LogitsModel(jnp.asarray(matrix), project), fit_knn, x, y, k=K)
    values = [one.log_prob(jnp.asarray(x[0]), jnp.int32(0)) for one in (plain, known)]
    np.testing.assert_allclose(*values, rtol=1e-6)


def test_refuses(data):
    x, y, matrix = data
    features = LogitsModel(jnp.asarray(matrix), project)
    with pytest.raises(ValueError, match="features must be a function"):
        fit_features("net", fit_knn, x, y)
    with pytest.raises(ValueError, match="x must be floats"):
        fit_features(features, fit_knn, (9 * x).astype(np.uint8), y)
    with pytest.raises(ValueError, match="batch must be a whole number >= 1"):
        fit_features(features, fit_knn, x, y, batch=0)
    with pytest.raises(ValueError, match="features must give finite numbers"):
        fit_features(LogitsModel(jnp.full((6, 3), jnp.inf), project), fit_knn, x, y)
    with pytest.raises(ValueError, match="y must have at least"):
        fit_features(features, fit_knn, x, y, k=40)
