"""Densities made of the points themselves (KDE, kNN, LOF), mixtures, the hinge: against independent oracles."""

from __future__ import annotations

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from log_probs import one, values
from scipy.special import logsumexp
from scipy.stats import multivariate_normal
from sklearn.mixture import GaussianMixture
from sklearn.neighbors import KernelDensity, LocalOutlierFactor

from invjax.densities import (
    KNN,
    fit_gmm,
    fit_kde,
    fit_knn,
    fit_lof,
    from_sklearn,
    hinge,
    quantiles,
)
from invjax.densities.bandwidth import leave_one_out, silverman
from invjax.densities.reference import kth_smallest


def blobs(count: int = 80, size: int = 4, dtype: type = np.float32) -> tuple[np.ndarray, np.ndarray]:
    """Two classes of correlated points, unequal in number."""
    draw = np.random.default_rng(3)
    y = (np.arange(count) % 5 < 2).astype(np.int32)
    x = draw.normal(size=(count, size)) @ draw.normal(size=(size, size)) + 1.5 * y[:, None]
    return x.astype(dtype), y


X, Y = blobs()
QUERIES = (2 * np.random.default_rng(4).normal(size=(25, 4))).astype(np.float32)


def check_gradient(density, x, label, rtol=1e-5):
    """The derivative along a random direction against a central difference, in float64."""
    direction = np.random.default_rng(5).normal(size=x.shape)
    slope = float(np.vdot(one(density, jnp.asarray(x), jnp.int32(label))[1], direction))
    ahead, behind = (float(one(density, jnp.asarray(x + s * direction), jnp.int32(label))[0]) for s in (1e-6, -1e-6))
    assert slope == pytest.approx((ahead - behind) / 2e-6, rel=rtol, abs=1e-7)
    assert slope != 0


FITS = {
    "kde": lambda x, y: fit_kde(x, y),
    "kde-8": lambda x, y: fit_kde(x, y, neighbours=8),
    "gmm": lambda x, y: fit_gmm(x, y, 2),
    "gmm-diag": lambda x, y: fit_gmm(x, y, 2, "diag"),
    "knn": lambda x, y: fit_knn(x, y, 6),
    "lof": lambda x, y: fit_lof(x, y, 6),
}


@pytest.mark.parametrize("name", list(FITS))
def test_every_density(name: str) -> None:
    """One point or a batch, gradient against differences, dtype of x, finite and useful far away, leaves swapped."""
    density = FITS[name](X, Y)
    together = values(density, QUERIES, np.arange(25) % 2)
    alone = [float(one(density, jnp.asarray(q), jnp.int32(i % 2))[0]) for i, q in enumerate(QUERIES[:3])]
    np.testing.assert_allclose(together[:3], alone, rtol=2e-5, atol=2e-5)
    assert one(density, X[0], jnp.int32(0))[0].dtype == jnp.float32
    far = jnp.full(4, 1e4, jnp.float32)
    value, slope = one(density, far, jnp.int32(1))
    assert np.isfinite(value)
    assert np.isfinite(slope).all()
    assert float(slope @ far) < 0  # back to the data
    copies = one(density, jnp.asarray(X[0]), jnp.int32(Y[0]))  # at a reference point
    assert all(np.isfinite(part).all() for part in copies)
    with jax.enable_x64(True):
        wide = FITS[name](X.astype(np.float64), Y)
        assert one(wide, jnp.asarray(X[0], jnp.float64), jnp.int32(0))[0].dtype == jnp.float64
        check_gradient(wide, QUERIES[0].astype(np.float64), 1)
        if not name.startswith("gmm"):  # EM in another precision may end elsewhere
            np.testing.assert_allclose(together, values(wide, QUERIES.astype(np.float64), np.arange(25) % 2), rtol=1e-3)


@pytest.mark.parametrize("name", list(FITS))
def test_images_and_one_program(name: str) -> None:
    draw = np.random.default_rng(0)
    y = np.arange(30) % 2
    shape = (5, 3, 1) if name == "gmm" else (28, 28, 1)  # a full covariance of 784 pixels takes minutes
    traced = []

    @jax.jit
    def run(density, x, label):
        traced.append(1)
        return jax.value_and_grad(density.log_prob)(x, label)

    for _ in range(2):
        image = draw.random((30, *shape)).astype(np.float32)
        density = FITS[name](image, y)
        value, slope = run(density, jnp.asarray(image[0]), jnp.int32(1))
        assert value.shape == ()
        assert slope.shape == shape
        assert np.isfinite(value)
    assert len(traced) == 1


def test_kde_is_sklearns() -> None:
    """In one leaf: with several, scikit-learn stops early where all terms are small, and is off by tens of nats."""
    density = fit_kde(X, Y, bandwidth=[0.5, 0.9])
    for label, h in enumerate((0.5, 0.9)):
        oracle = KernelDensity(bandwidth=h, rtol=0, atol=0, leaf_size=1000).fit(X[label == Y].astype(float))
        expected = oracle.score_samples(QUERIES.astype(float))
        np.testing.assert_allclose(values(density, QUERIES, label), expected, rtol=1e-4)


@pytest.mark.fast
def test_kde_of_one_point_is_a_gaussian() -> None:
    """The normaliser of D dimensions: −D log h."""
    density = fit_kde(np.ones((1, 5), np.float32), [0], bandwidth=0.3)
    expected = multivariate_normal(np.ones(5), 0.09 * np.eye(5)).logpdf(np.full(5, 1.2))
    assert float(density.log_prob(jnp.full(5, 1.2), jnp.int32(0))) == pytest.approx(expected, rel=1e-5)


def test_kde_gradient_is_that_of_the_plain_formula() -> None:
    density = fit_kde(X, Y, bandwidth=0.7)

    def plain(x):
        return jax.nn.logsumexp(-jnp.square(x - X[Y == 1]).sum(1) / (2 * 0.49))

    for q in QUERIES[:5]:
        slope = one(density, jnp.asarray(q), jnp.int32(1))[1]
        np.testing.assert_allclose(slope, jax.grad(plain)(jnp.asarray(q)), rtol=1e-3, atol=1e-4)


def test_kde_far_from_the_origin() -> None:
    """Centered on the class: nothing is lost where all points lie at 1000."""
    shifted = fit_kde(X + 1024, Y, bandwidth=0.7)
    expected = values(fit_kde(X, Y, bandwidth=0.7), X, Y)
    np.testing.assert_allclose(values(shifted, X + 1024, Y), expected, atol=5e-3)


def test_kde_neighbours() -> None:
    density = fit_kde(X, Y, bandwidth=0.6, neighbours=7)
    own = X[Y == 1].astype(float)
    square = np.sort(np.square(QUERIES[:, None].astype(float) - own).sum(-1), axis=1)[:, :7]
    expected = logsumexp(-square / 0.72, axis=1) - math.log(len(own)) - 4 * math.log(0.6) - 2 * math.log(2 * math.pi)
    np.testing.assert_allclose(values(density, QUERIES, 1), expected, rtol=1e-4)


def log_likelihood(x: np.ndarray, h: float) -> float:
    """``1/n Σ_i log 1/(n−1) Σ_{j ≠ i} N(x_i; x_j, h² I)``, normalised."""
    n, d = x.shape
    square = np.square(x[:, None] - x[None]).sum(-1)
    np.fill_diagonal(square, np.inf)
    constant = d * math.log(h) + d / 2 * math.log(2 * math.pi) + math.log(n - 1)
    return float(np.mean(logsumexp(-square / (2 * h * h), axis=1))) - constant


def test_bandwidth_maximises_the_leave_one_out_likelihood() -> None:
    own = X[Y == 0].astype(float)
    h = leave_one_out(own, 1.0)
    grid = np.exp(np.linspace(-3, 2, 400))
    scores = [log_likelihood(own, g) for g in grid]
    assert h == pytest.approx(grid[int(np.argmax(scores))], rel=0.02)
    assert log_likelihood(own, h) >= max(scores) - 1e-5
    assert float(fit_kde(X, Y).bandwidth[0]) == pytest.approx(h, rel=1e-6)
    # Copies are left out with their point: doubling the data keeps h of the same size instead of sending it to 0.
    assert leave_one_out(np.repeat(own, 2, 0), 1.0) == pytest.approx(h, rel=0.02)


def test_bandwidth_where_no_points_differ() -> None:
    x = np.ones((6, 2), np.float32)
    assert leave_one_out(x.astype(float), 0.5) == pytest.approx(silverman(x.astype(float), 0.5))
    density = fit_kde(np.concatenate([x, X[:, :2]]), np.concatenate([np.ones(6, int), np.zeros(len(X), int)]))
    assert 0 < float(density.bandwidth[1]) < 10
    d, n = 3, 50
    z = np.random.default_rng(0).normal(size=(n, d))
    assert silverman(z, 1.0) == pytest.approx(np.sqrt(z.var(0).mean()) * (4 / ((d + 2) * n)) ** (1 / (d + 4)))


@pytest.mark.parametrize("neighbours", [None, 5])
def test_held_out_kde(neighbours: int | None) -> None:
    """A point of the fit is evaluated by the KDE fitted without it; a copy of it stays; another point is as ever."""
    x, y = X.copy(), Y
    x[5] = x[0]  # both of class 1
    assert y[0] == y[5] == 1
    density = fit_kde(x, y, bandwidth=0.8, neighbours=neighbours)
    got = density.held_out_log_prob(x, y)
    for i in (0, 1, 2, 5):
        rest = np.arange(len(x)) != i
        without = fit_kde(x[rest], y[rest], bandwidth=0.8, neighbours=neighbours)
        assert got[i] == pytest.approx(values(without, x[i : i + 1], y[i])[0], rel=1e-4)
    new = np.zeros(len(QUERIES), int)
    np.testing.assert_allclose(density.held_out_log_prob(QUERIES, new), values(density, QUERIES, 0), rtol=1e-5)


def test_hinge() -> None:
    density = fit_kde(X, Y)
    threshold = quantiles(density, X, Y, 0.25)
    held = density.held_out_log_prob(X, Y)
    for label in (0, 1):
        assert float(threshold[label]) == pytest.approx(np.quantile(held[label == Y], 0.25), rel=1e-5)
        assert float(threshold[label]) < np.quantile(values(density, X, Y)[label == Y], 0.25)
    cut = hinge(density, X, Y, 0.25)
    raw = values(density, QUERIES, 1)
    np.testing.assert_allclose(values(cut, QUERIES, 1), np.minimum(0, raw - float(threshold[1])), atol=1e-4)
    dense = X[Y == 1][np.argmax(values(density, X[Y == 1], 1))]
    value, slope = one(cut, jnp.asarray(dense), jnp.int32(1))
    assert float(value) == 0
    assert not np.any(slope)
    # A fitted model has no points to leave out.
    mixture = fit_gmm(X, Y, 1)
    expected = np.quantile(values(mixture, X, Y)[Y == 0], 0.1)
    assert float(quantiles(mixture, X, Y, 0.1)[0]) == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("kind", ["full", "diag", "tied", "spherical"])
def test_gmm_from_sklearn(kind: str) -> None:
    models = [GaussianMixture(2 + c, covariance_type=kind, random_state=0).fit(X[c == Y].astype(float)) for c in (0, 1)]
    density = from_sklearn(models)
    for label in (0, 1):
        expected = models[label].score_samples(QUERIES.astype(float))
        np.testing.assert_allclose(values(density, QUERIES, label), expected, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("kind", ["full", "diag"])
def test_gmm_fits_as_well_as_sklearn(kind: str) -> None:
    """On features of very different scales."""
    draw = np.random.default_rng(1)
    centers = np.array([[0, 0, 0], [4, 0, 1], [0, 5, -2]])
    x = centers[np.arange(300) % 3] + draw.normal(size=(300, 3)) @ np.diag([1, 0.5, 0.3])
    x = (x * [1e-3, 1, 1e3]).astype(np.float32)
    y = np.zeros(300, int)
    density = fit_gmm(x, y, 3, kind, floor=1e-6)
    scaled = x.astype(float) / x.std(0)
    oracle = GaussianMixture(3, covariance_type=kind, random_state=0, n_init=3, tol=1e-5).fit(scaled)
    expected = oracle.score(scaled) - np.log(x.std(0)).sum()
    assert values(density, x, 0).mean() == pytest.approx(expected, abs=0.01)


def test_gmm_of_one_component_is_the_gaussian_of_the_moments() -> None:
    density = fit_gmm(X, Y, 1, floor=1e-9)
    own = X[Y == 1].astype(float)
    expected = multivariate_normal(own.mean(0), np.cov(own.T, bias=True)).logpdf(QUERIES)
    np.testing.assert_allclose(values(density, QUERIES, 1), expected, rtol=1e-3)


def test_gmm_singular() -> None:
    """A constant feature, a feature twice, fewer points than dimensions, only copies: proper all the same."""
    x = X.copy()
    x[:, 1], x[:, 3] = 7.0, x[:, 0]
    for kind in ("full", "diag"):
        density = fit_gmm(x, Y, 3, kind)
        assert np.isfinite(values(density, x, Y)).all()
        off = x + np.array([0, 1, 0, 0], np.float32)
        assert (values(density, off, Y) < values(density, x, Y)).all()
    thin = np.random.default_rng(0).normal(size=(6, 20)).astype(np.float32)
    for points in (thin, np.repeat(thin[:2], 3, 0), np.ones_like(thin)):  # all distinct, copies, all the same
        assert np.isfinite(values(fit_gmm(points, np.zeros(6, int), 5), thin, 0)).all()


def test_gravity_by_hand() -> None:
    own, k = X[Y == 1].astype(float), 6
    density = fit_knn(X, Y, k)
    distance = np.linalg.norm(own[:, None] - own, axis=-1)
    local = k / np.sort(distance, 1)[:, 1 : k + 1].sum(1)
    for q in QUERIES[:5].astype(float):
        square = np.square(own - q).sum(1)
        weight = local * np.maximum(np.sort(square)[k] - square, 0)
        assert np.count_nonzero(weight) == k
        expected = weight @ own / weight.sum()
        got = jax.jit(KNN.gravity_point)(density, jnp.asarray(q, jnp.float32), jnp.int32(1))
        np.testing.assert_allclose(got, expected, atol=2e-4)
        value = float(one(density, jnp.asarray(q, jnp.float32), jnp.int32(1))[0])
        assert value == pytest.approx(-np.square(q - expected).sum(), rel=1e-3)


@pytest.mark.parametrize("fit", [fit_knn, fit_lof])
def test_soft_neighbours_are_continuous(fit) -> None:
    """Along a line through the data no step is larger than the slope explains; hard neighbours jump."""
    density = fit(X, Y, 4)
    t = np.linspace(-3, 3, 6001)[:, None]
    line = (X[Y == 1].mean(0) + t * np.array([1.0, -0.5, 0.3, 0.8])).astype(np.float32)
    path = values(density, line, 1)
    assert np.abs(np.diff(path)).max() < 0.03 * np.ptp(path)


def test_lof_is_sklearns() -> None:
    density = fit_lof(X, Y, 7)
    scores = jax.jit(lambda density, x, label: jax.vmap(density.score, (0, None))(x, label))
    for label in (0, 1):
        own = X[label == Y].astype(float)
        oracle = LocalOutlierFactor(n_neighbors=7, novelty=True).fit(own)
        got = scores(density, QUERIES, jnp.int32(label))
        np.testing.assert_allclose(got, -oracle.score_samples(QUERIES.astype(float)), rtol=1e-4)
        inside = LocalOutlierFactor(n_neighbors=7).fit(own).negative_outlier_factor_
        got = fit_lof(X, Y, 7, softness=1e-4).held_out_log_prob(X[label == Y], Y[label == Y])
        np.testing.assert_allclose(got, -np.maximum(0, -inside - 1), rtol=2e-3, atol=2e-3)
    hard = scores(density, QUERIES, jnp.int32(1))
    soft = values(fit_lof(X, Y, 7, softness=1e-4), QUERIES, 1)
    np.testing.assert_allclose(soft, -np.maximum(0, np.asarray(hard) - 1), rtol=2e-3, atol=2e-3)


@pytest.mark.parametrize("fit", [fit_knn, fit_lof])
def test_duplicates(fit) -> None:
    """More copies of a point than neighbours: finite values and gradients, at the copies too."""
    x = np.concatenate([np.repeat(X[:1], 9, 0), X])
    y = np.concatenate([np.full(9, Y[0]), Y])
    density = fit(x, y, 5)
    for q in (X[0], QUERIES[0]):
        value, slope = one(density, jnp.asarray(q), jnp.int32(Y[0]))
        assert np.isfinite(value)
        assert np.isfinite(slope).all()
    assert np.isfinite(density.held_out_log_prob(x, y)).all()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_kth_smallest(dtype: type) -> None:
    with jax.enable_x64(dtype == np.float64):
        draw = np.random.default_rng(0)
        for scale in (1e-30, 1.0, 1e20):
            rows = (scale * draw.random((20, 33))).astype(dtype)
            rows[:, 3:6] = rows[:, :1]  # ties
            rows[:, 7] = 0
            for k in (1, 2, 17, 33):
                got = jax.vmap(lambda row, k=k: kth_smallest(row, k))(jnp.asarray(rows))
                np.testing.assert_array_equal(got, np.sort(rows, 1)[:, k - 1])
        slope = jax.grad(lambda row: kth_smallest(row, 2))(jnp.asarray([3.0, 1.0, 2.0], dtype))
        np.testing.assert_array_equal(slope, [0, 0, 1])


@pytest.mark.parametrize("fit", [fit_kde, fit_gmm, fit_knn, fit_lof])
def test_bad_points(fit) -> None:
    with pytest.raises(ValueError, match="x must be finite; 1 of its 80 points"):
        fit(np.where(np.arange(80)[:, None] == 3, np.nan, X), Y)
    with pytest.raises(ValueError, match=r"y must be classes .* shape \(80,\)"):
        fit(X, Y[:5])
    with pytest.raises(ValueError, match="y must be classes"):
        fit(X, Y - 1)
    with pytest.raises(ValueError, match="y must be classes"):
        fit(X, Y + 0.5)
    with pytest.raises(ValueError, match="x must be numbers"):
        fit(np.zeros((0, 3)), np.zeros(0, int))
    few = np.where(np.arange(80) == 0, 2, Y)
    with pytest.raises(ValueError, match="class 2 has 1"):
        fit(X, few)
    with pytest.raises(ValueError, match="class 1 has 0"):
        fit(X, 2 * Y)


def test_bad_arguments() -> None:
    with pytest.raises(ValueError, match="bandwidth must be positive"):
        fit_kde(X, Y, bandwidth=0.0)
    with pytest.raises(ValueError, match=r"one per class \[2\]"):
        fit_kde(X, Y, bandwidth=[1.0, 2.0, 3.0])
    with pytest.raises(ValueError, match="neighbours must be"):
        fit_kde(X, Y, neighbours=0)
    with pytest.raises(ValueError, match="components must be"):
        fit_gmm(X, Y, 0)
    with pytest.raises(ValueError, match="covariance must be one of 'full', 'diag', was 'tied'"):
        fit_gmm(X, Y, covariance="tied")
    with pytest.raises(ValueError, match=r"at least 40 points of each class .40 components.; class 1 has 32"):
        fit_gmm(X, Y, 40)
    with pytest.raises(ValueError, match="k must be a whole number"):
        fit_knn(X, Y, 2.5)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"at least 41 points of each class .*; class 1 has 32"):
        fit_lof(X, Y, 40)
    with pytest.raises(ValueError, match="softness must be"):
        fit_lof(X, Y, 5, softness=0)
    with pytest.raises(ValueError, match="quantile must be"):
        hinge(fit_kde(X, Y, 1.0), X, Y, 1.5)
    with pytest.raises(ValueError, match=r"mixtures\[0\] must be a fitted GaussianMixture"):
        from_sklearn([GaussianMixture(2)])
    with pytest.raises(ValueError, match="one fitted GaussianMixture per class"):
        from_sklearn([])
    assert dataclasses.is_dataclass(fit_kde(X, Y, 1.0))
