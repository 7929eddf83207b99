"""PCFE: the convex solver against SLSQP, the whole against what a linear problem's optimum must be."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import minimize

from invjax import LogitsModel, Status
from invjax.constraints import Feature, FeatureSpace, PlainRow
from invjax.counterfactuals.parts import convex
from invjax.counterfactuals.pcfe import components, pcfe
from invjax.densities import fit_gmm, quantiles

D, N, M = 5, 8, 2


def _case(draw: np.random.Generator) -> tuple[np.ndarray, ...]:
    """x, A, b, μ, basis, variance, r; the box cuts some of them; μ need not be in the halfspaces."""
    root = draw.normal(size=(D, D))
    variance, basis = np.linalg.eigh(root @ root.T / D + 0.1 * np.eye(D))
    x, mean, normal = draw.normal(size=D), 1.5 * draw.normal(size=D), draw.normal(size=(M, D))
    return x, normal, normal @ mean + 0.3 * draw.normal(size=M), mean, basis, variance, 4 + 4 * draw.uniform(size=())


CASES = [_case(np.random.default_rng(seed)) for seed in range(N)]


def _reference(case: tuple[np.ndarray, ...], norm: str, box: float) -> float:
    """The optimal value by SLSQP; l1 by auxiliary variables."""
    x, normal, offset, mean, basis, variance, radius = case
    precision = basis / variance @ basis.T

    def sets(u: np.ndarray) -> np.ndarray:
        return np.concatenate([normal @ u - offset, [radius - (u - mean) @ precision @ (u - mean)]])

    options = {"ftol": 1e-13, "maxiter": 500}
    limits = list(zip(x - box, x + box, strict=True))
    start = np.clip(mean, x - box, x + box)
    if norm == "l2":
        got = minimize(lambda u: 0.5 * np.sum((u - x) ** 2), start, constraints={"type": "ineq", "fun": sets},
                       bounds=limits, method="SLSQP", options=options)  # fmt: skip
        return got.fun if got.success else np.nan

    def all_of(v: np.ndarray) -> np.ndarray:
        return np.concatenate([sets(v[:D]), v[D:] - (v[:D] - x), v[D:] + (v[:D] - x)])

    got = minimize(
        lambda v: v[D:].sum(), np.r_[start, np.abs(start - x) + 0.1], constraints={"type": "ineq", "fun": all_of},
        jac=lambda v: np.r_[np.zeros(D), np.ones(D)], bounds=[*limits, *[(0, None)] * D], method="SLSQP",
        options=options,
    )  # fmt: skip
    return got.fun if got.success else np.nan


@pytest.mark.parametrize("norm", ["l1", "l2"])
@pytest.mark.parametrize(("dtype", "tol", "close"), [(np.float64, 1e-8, 1e-7), (np.float32, 2e-6, 2e-5)])
def test_convex_solver_against_slsqp(norm: str, dtype: type, tol: float, close: float) -> None:
    with jax.enable_x64(dtype == np.float64):
        box = 2.5

        def one(x, normal, offset, mean, basis, variance, radius):
            row = PlainRow(x, x - box, x + box, None)
            h = convex.unit_rows(convex.Halfspaces(normal, offset))
            e = convex.Ellipsoid(mean, basis, variance, radius)
            got = convex.solve(row, h, e, mean, jnp.asarray(tol, dtype), jnp.int32(3000), norm)
            return got, convex.polish(row, h, e, got.u, jnp.asarray(tol, dtype), norm)

        got, u = jax.jit(jax.vmap(one))(*(jnp.asarray(np.stack(part), dtype) for part in zip(*CASES, strict=True)))
        u, rough = np.asarray(u, np.float64), np.asarray(got.u, np.float64)
        judged = 0
        for i, case in enumerate(CASES):
            want = _reference(case, norm, box)
            if np.isnan(want) or np.asarray(got.residual)[i] > tol:
                continue
            judged += 1
            x, normal, offset, mean, basis, variance, radius = case
            for point, allowed in ((rough[i], 30 * close), (u[i], close)):
                value = np.abs(point - x).sum() if norm == "l1" else 0.5 * np.sum((point - x) ** 2)
                assert abs(value - want) < allowed
                assert (normal @ point >= offset - allowed).all()
                assert np.sum(np.square((point - mean) @ basis) / variance) <= radius + 10 * allowed
        assert judged >= 5


def test_onto_ellipsoid_is_the_projection() -> None:
    with jax.enable_x64(True):
        draw = np.random.default_rng(0)
        for case in CASES[:4]:
            e = convex.Ellipsoid(*(jnp.asarray(part) for part in case[3:]))
            v = jnp.asarray(30 * draw.normal(size=D))
            p = convex.onto_ellipsoid(e, v)
            assert abs(float(convex.distance(e, p)) - float(e.radius)) < 1e-9
            # Of a projection onto a convex set: no point of the set makes an acute angle with v - p.
            others = np.asarray(e.mean) + draw.normal(size=(200, D)) @ np.asarray(e.basis).T
            inside = [u for u in others if convex.distance(e, jnp.asarray(u)) <= e.radius]
            assert len(inside) > 5
            assert max(float((v - p) @ (u - np.asarray(p))) for u in inside) < 1e-7
            inner = e.mean + 1e-3
            np.testing.assert_array_equal(convex.onto_ellipsoid(e, inner), inner)


# ---------------------------------------------------------------------------------------------------------------------
# The whole
# ---------------------------------------------------------------------------------------------------------------------
def _linear(params, x):
    return x @ params["w"] + params["b"]


def _curved(params, x):
    return jax.nn.relu(x @ params["u"]) @ params["w"] + params["b"]


@pytest.fixture(scope="module")
def blobs():
    """Three classes of two clusters each in [0, 1]^4, and a linear classifier of them."""
    draw = np.random.default_rng(0)
    centers = draw.uniform(0.25, 0.75, size=(3, 2, 4))
    y = np.repeat(np.arange(3), 80).astype(np.int32)
    x = np.clip(centers[y, draw.integers(0, 2, len(y))] + 0.04 * draw.normal(size=(len(y), 4)), 0, 1)
    from sklearn.linear_model import LogisticRegression

    fitted = LogisticRegression(C=100.0, max_iter=2000).fit(x, y)
    net = LogitsModel(
        {"w": jnp.asarray(fitted.coef_.T, jnp.float32), "b": jnp.asarray(fitted.intercept_, jnp.float32)}, _linear
    )
    return x.astype(np.float32), y, net, fit_gmm(x.astype(np.float32), y, components=2)


def _rows(blobs, count: int = 8):
    x, _, net, _ = blobs
    rows = x[:: len(x) // count][:count]
    label = np.asarray(jnp.argmax(net(rows), 1)).astype(np.int32)
    return rows, label, ((label + 1) % 3).astype(np.int32)


def test_linear_answers_are_valid_dense_and_optimal(blobs) -> None:
    x, y, net, gmm = blobs
    rows, label, target = _rows(blobs)
    got = pcfe(net, rows, label, target, train_x=x, train_y=y, gmm=gmm, quantile=0.5)
    assert (got.status == Status.FOUND).all(), got
    logits = np.asarray(net(got.x), np.float64)
    others = np.where(np.arange(3) == target[:, None], -np.inf, logits).max(1)
    assert (logits[np.arange(len(rows)), target] - others >= 0.05 * 0.98).all()
    delta = np.asarray(quantiles(gmm, x, y, 0.5))
    density = np.array([gmm.log_prob(jnp.asarray(u), t) for u, t in zip(got.x, target, strict=True)])
    assert (density >= delta[target] - 1e-2).all()
    np.testing.assert_array_equal(got.delta, got.x - rows)

    parts = components(gmm, delta)
    w, b = (np.asarray(net.params[name], np.float64) for name in ("w", "b"))
    judged = 0
    for i in range(len(rows)):
        values, missed = [], False
        for c in parts.of(int(target[i])):
            mean, basis, variance, radius = (np.asarray(field[c]) for field in parts.ellipsoid)
            normal = np.delete((w[:, target[i], None] - w).T, target[i], 0)
            offset = 0.05 - np.delete(b[target[i]] - b, target[i])

            def sets(v: np.ndarray, normal=normal, offset=offset, m=mean, q=basis, s=variance, r=radius, x=rows[i]):
                u = v[:4]
                inside = r - np.sum(np.square((u - m) @ q) / s)
                return np.concatenate([normal @ u - offset, [inside], v[4:] - (u - x), v[4:] + (u - x)])

            start = np.r_[mean, np.abs(mean - rows[i]) + 0.01]
            best = minimize(lambda v: v[4:].sum(), start, constraints={"type": "ineq", "fun": sets}, method="SLSQP",
                            bounds=[(0, 1)] * 8, options={"ftol": 1e-12, "maxiter": 300})  # fmt: skip
            if best.success and sets(best.x).min() > -1e-7:
                values.append(best.fun)
            else:  # SLSQP gave up: its components are then an upper bound only
                missed = True
        ours = np.abs(got.delta[i]).sum()
        assert ours < min(values, default=np.inf) + 2e-3
        if not missed:
            judged += 1
            assert ours > min(values) - 2e-3
    assert judged >= 4


def test_higher_alpha_is_denser_and_farther(blobs) -> None:
    x, y, net, gmm = blobs
    rows, label, target = _rows(blobs)
    loose, tight = (
        pcfe(net, rows, label, target, train_x=x, train_y=y, gmm=gmm, quantile=alpha, norm="l2")
        for alpha in (0.05, 0.8)
    )
    near, far = (np.square(np.asarray(r.delta)).sum(1) for r in (loose, tight))
    assert (far >= near - 1e-6).all()
    assert far.mean() > near.mean()


def test_network_with_a_hidden_layer(blobs) -> None:
    x, y, _, gmm = blobs
    from sklearn.neural_network import MLPClassifier

    fitted = MLPClassifier((16,), max_iter=300, solver="lbfgs", random_state=0).fit(x, y)
    u, w = fitted.coefs_
    u = np.concatenate([u, -np.asarray(fitted.intercepts_[0])[None]])  # the bias as a fifth column
    params = {"u": u, "w": w, "b": fitted.intercepts_[1]}
    params = {name: jnp.asarray(value, jnp.float32) for name, value in params.items()}

    def apply(params, x):
        return _curved(params, jnp.concatenate([x, -jnp.ones((x.shape[0], 1), x.dtype)], axis=1))

    net = LogitsModel(params, apply)
    rows, label, target = x[::30], y[::30], (y[::30] + 1) % 3
    np.testing.assert_allclose(jax.nn.softmax(net(rows)), fitted.predict_proba(rows), atol=1e-3)
    label = np.asarray(net(rows)).argmax(1).astype(np.int32)
    target = ((label + 1) % 3).astype(np.int32)
    got = pcfe(net, rows, label, target, train_x=x, train_y=y, gmm=gmm, quantile=0.3)
    assert (got.status == Status.FOUND).all(), got
    np.testing.assert_array_equal(fitted.predict(np.asarray(got.x)), target)
    # Nearer than the nearest training row that is as good: else the means would do.
    delta = np.asarray(quantiles(gmm, x, y, 0.3))
    dense = np.array([float(gmm.log_prob(jnp.asarray(a), b)) for a, b in zip(x, y, strict=True)]) >= delta[y]
    for i, row in enumerate(rows):
        near = np.abs(x[dense & (fitted.predict(x) == target[i]) & (y == target[i])] - row).sum(1).min()
        assert np.abs(got.delta[i]).sum() <= near + 1e-4


def test_feature_space_is_obeyed(blobs) -> None:
    x, y, net, gmm = blobs
    space = FeatureSpace([
        Feature("a", lower=0, upper=1, direction="none"), Feature("b", lower=0, upper=1, step=0.02),
        Feature("c", lower=0, upper=1), Feature("d", lower=0, upper=1, cost=2.0),
    ])  # fmt: skip
    rows, label, target = _rows(blobs)
    rows = rows.copy()
    rows[:, 1] = np.round(rows[:, 1] / 0.02) * 0.02
    label = np.asarray(jnp.argmax(net(rows), 1)).astype(np.int32)
    target = ((label + 1) % 3).astype(np.int32)
    got = pcfe(net, rows, label, target, train_x=x, train_y=y, gmm=gmm, quantile=0.01, space=space)
    found = got.status == Status.FOUND
    assert found.sum() >= 2, got
    x0 = space.decode(rows)
    assert not any(space.violations(x0, space.decode(got.x, x0)))
    np.testing.assert_array_equal(np.asarray(net(got.x)).argmax(1)[found], target[found])
    np.testing.assert_array_equal(got.x[:, 0], rows[:, 0])


def test_statuses(blobs) -> None:
    x, y, net, gmm = blobs
    rows, label, target = _rows(blobs, 3)
    already = pcfe(net, rows, target, label, gmm=gmm, threshold=np.zeros(3) - 50)
    assert (already.status == Status.ALREADY_TARGET).all()
    np.testing.assert_array_equal(already.x, rows)
    nowhere = pcfe(net, rows, label, target, gmm=gmm, threshold=np.full(3, 1e6))
    assert (nowhere.status == Status.INFEASIBLE).all()
    far = pcfe(net, rows[:1], label[:1], target[:1], gmm=gmm, threshold=np.full(3, -1.0), kappa=1e4, linearisations=2,
               inner_steps=200)  # fmt: skip
    assert far.status[0] == Status.NOT_FOUND
    np.testing.assert_array_equal(far.x, rows[:1])
    one = pcfe(net, rows[0], label[0], target[0], train_x=x, train_y=y, gmm=gmm)
    assert one.x.shape == (4,)
    for wrong in ({"quantile": 1.0}, {"kappa": 0.0}, {"norm": "l0"}, {"linearisations": 0}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            pcfe(net, rows, label, target, train_x=x, train_y=y, gmm=gmm, **wrong)
    with pytest.raises(ValueError, match="train_x"):
        pcfe(net, rows, label, target)
    with pytest.raises(ValueError, match="columns"):
        pcfe(lambda x: x[:, :2], rows[:, :3], label * 0, label * 0 + 1, gmm=gmm, threshold=np.zeros(3))
