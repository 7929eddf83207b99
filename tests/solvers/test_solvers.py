"""The solvers against closed forms, against scikit-learn, against their rates and against each other."""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import jax
import jax.experimental
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.linear_model import Lasso

from invjax import solvers
from invjax.solvers import fista, gd, linesearch, minimize, momentum, nag, pnag, prox_grad

# The context manager moved out of jax.experimental after the oldest jax that is supported.
enable_x64 = jax.enable_x64 if hasattr(jax, "enable_x64") else jax.experimental.enable_x64


@pytest.fixture
def x64():
    with enable_x64(True):
        yield


class L1(NamedTuple):
    """λ‖u‖₁, with the methods of a penalty."""

    weight: jax.Array | float

    def value(self, u):
        return self.weight * jnp.sum(jnp.abs(u))

    def prox(self, v, step):
        return jnp.sign(v) * jnp.maximum(jnp.abs(v) - step * self.weight, 0.0)


def lasso(n=40, d=60, weight=0.02, seed=0):
    rng = np.random.default_rng(seed)
    a = rng.normal(size=(n, d))
    truth = np.zeros(d)
    truth[:6] = rng.normal(size=6) * 3
    b = a @ truth + 0.01 * rng.normal(size=n)
    # scikit-learn minimises ‖b − Ax‖²/(2n) + weight ‖x‖₁: the same h and g.
    reference = Lasso(alpha=weight, fit_intercept=False, tol=1e-14, max_iter=1_000_000).fit(a, b).coef_
    lipschitz = float(np.linalg.norm(a, 2) ** 2 / n)
    a, b = jnp.asarray(a), jnp.asarray(b)
    return (lambda x: jnp.sum(jnp.square(a @ x - b)) / (2 * n)), L1(weight), reference, lipschitz


def quadratic(d=8, condition=100.0, seed=1):
    rng = np.random.default_rng(seed)
    q = np.linalg.qr(rng.normal(size=(d, d)))[0]
    h = (q * np.geomspace(1.0, condition, d)) @ q.T
    c = rng.normal(size=d)
    hj, cj = jnp.asarray(h), jnp.asarray(c)
    return (lambda x: 0.5 * x @ (hj @ x) - cj @ x), h, c, np.linalg.solve(h, c)


def solved(fun, x0, **how):
    """``minimize`` under jit."""
    return jax.jit(lambda x: minimize(fun, x, **how))(x0)


def trajectory(solver, fun, x0, step, count, **how):
    """The iterates r_1 … r_count, [count, *S], by ask and tell."""

    def body(state, _):
        state = solver.tell(state, jax.grad(fun)(solver.ask(state)), step, **how)
        return state, state.x

    return np.asarray(jax.lax.scan(body, solver.init(x0), None, length=count)[1])


# ---- FISTA, proximal gradient ----


def test_beta_sequence(x64):
    beta = jnp.ones(())
    for expected in [1.618033988749895, 2.193527085331054, 2.749791340120853]:
        beta = solvers.next_beta(beta)
        assert float(beta) == pytest.approx(expected, rel=1e-14)


@pytest.mark.fast
def test_lasso_rate_on_every_iterate_and_limit(x64):
    fun, g, reference, lipschitz = lasso()
    best = float(fun(reference) + g.value(reference))
    values = jax.vmap(lambda x: fun(x) + g.value(x))
    x0 = jnp.zeros(reference.shape)
    distance = float(np.sum(reference**2))
    k = np.arange(1, 3001)
    accelerated = trajectory(fista, fun, x0, 1 / lipschitz, 3000, prox=g.prox)
    gaps = np.asarray(values(accelerated)) - best
    assert np.all(gaps <= 2 * lipschitz * distance / (k + 1) ** 2 + 1e-12)
    assert np.all(gaps >= -1e-10)
    plain = trajectory(prox_grad, fun, x0, 1 / lipschitz, 3000, prox=g.prox)
    slow = np.asarray(values(plain)) - best
    assert np.all(slow <= lipschitz * distance / (2 * k) + 1e-12)
    assert np.all(np.diff(slow) <= 1e-14)  # proximal gradient never increases
    assert np.all(gaps[20:60] < slow[20:60])  # and FISTA is what the name says
    np.testing.assert_allclose(accelerated[-1], reference, atol=1e-6)
    # The prox output is exactly sparse.
    np.testing.assert_array_equal(accelerated[-1] != 0, reference != 0)


@pytest.mark.parametrize(
    ("name", "restart"), [("fista", "none"), ("fista", "gradient"), ("fista", "function"), ("prox_grad", "none")]
)
@pytest.mark.parametrize("given", [True, False])
def test_minimize_agrees_with_sklearn(x64, name, restart, given):
    fun, g, reference, lipschitz = lasso()
    step = 1 / lipschitz if given else None
    solution = solved(fun, jnp.zeros(60), g=g, solver=name, step_size=step, restart=restart, tol=1e-11, max_steps=20000)
    assert bool(solution.converged)
    np.testing.assert_allclose(solution.x, reference, atol=1e-8)
    assert float(solution.value) == pytest.approx(float(fun(reference) + g.value(reference)), rel=1e-12)
    assert int(solution.evaluations) == int(solution.steps) + (0 if given else 2)
    values = int(solution.steps) if restart == "function" else 0
    assert int(solution.forwards) == values + 1 if given else int(solution.forwards) >= int(solution.steps) + 1


def test_restart_is_faster_on_a_strongly_convex_problem(x64):
    fun, _, _, x = quadratic(condition=1e4)
    steps = {}
    for restart in ("none", "gradient", "function"):
        solution = solved(fun, jnp.zeros(8), solver="nag", step_size=1e-4, restart=restart, tol=3e-5, max_steps=20000)
        assert bool(solution.converged)
        np.testing.assert_allclose(solution.x, x, atol=1e-3)
        steps[restart] = int(solution.steps)
    assert steps["gradient"] < 0.6 * steps["none"], steps
    assert steps["function"] < 0.6 * steps["none"], steps
    exact = solved(fun, jnp.zeros(8), solver="nag", step_size=1e-4, tol=1e-9, max_steps=3000)
    assert bool(exact.converged)
    np.testing.assert_allclose(exact.x, x, atol=1e-7)


def told_by_value(solver, fun, g, x0, step, count, prox):
    """The objective of every iterate under the function scheme."""

    def body(state, _):
        grad = jax.grad(fun)(solver.ask(state))
        candidate = solver.propose(state, grad, step, prox)
        state = solver.accept(state, candidate, restart="function", value=fun(candidate) + g.value(candidate))
        return state, fun(state.x) + g.value(state.x)

    return np.asarray(jax.lax.scan(body, solver.init(x0), None, length=count)[1])


def test_function_restart_never_increases_the_objective(x64):
    fun, g, _, lipschitz = lasso()
    x0 = jnp.zeros(60)
    values = told_by_value(fista, fun, g, x0, 1 / lipschitz, 400, g.prox)
    assert np.all(np.diff(values) <= 1e-13)
    free = trajectory(fista, fun, x0, 1 / lipschitz, 400, prox=g.prox)
    unguarded = np.asarray(jax.vmap(lambda x: fun(x) + g.value(x))(free))
    assert np.any(np.diff(unguarded) > 1e-10)  # there was something to guard against


def test_restart_resets_the_momentum_and_keeps_the_right_iterate():
    state = momentum.State(jnp.ones(2), jnp.ones(2), jnp.float32(0.5), jnp.float32(3.0), jnp.float32(1.0))
    point, worse = momentum.look_ahead(state), jnp.asarray([0.0, 0.0])
    back = momentum.accept(state, worse, restart="gradient")  # ⟨z − r', r' − r⟩ = ⟨1.5, −1⟩ < 0: no restart
    assert float(back.beta) > 3.0
    forward = momentum.accept(state, jnp.full(2, 1.25), restart="gradient")  # ⟨.25, .25⟩ > 0: restart
    assert float(forward.beta) == 1.0
    np.testing.assert_array_equal(momentum.look_ahead(forward), jnp.full(2, 1.25))
    clipped = momentum.accept(state, jnp.full(2, 1.25), point=point - 0.5, restart="gradient")
    assert float(clipped.beta) > 3.0
    refused = momentum.accept(state, worse, restart="function", value=2.0)
    np.testing.assert_array_equal(momentum.look_ahead(refused), state.x)
    assert (float(refused.beta), float(refused.value)) == (1.0, 1.0)
    plain = momentum.accept(refused, worse, restart="function", value=2.0)  # a plain step is taken whatever it does
    np.testing.assert_array_equal(plain.x, worse)
    broken = momentum.accept(state, worse, restart="function", value=jnp.nan)
    np.testing.assert_array_equal(broken.x, state.x)


def test_averaging_is_the_step_of_the_released_gse_code(x64):
    fun, *_ = quadratic()
    x0, step = np.zeros(8), 0.005
    state, r, old, beta = fista.init(jnp.asarray(x0)), x0, x0, 1.0
    for _ in range(12):
        point = fista.ask(state)
        np.testing.assert_allclose(point, r, rtol=1e-12, atol=1e-14)
        grad = np.asarray(jax.grad(fun)(jnp.asarray(r)))
        following = (1 + np.sqrt(1 + 4 * beta**2)) / 2
        u = r - step * grad
        r, old, beta = beta / following * u + (1 - beta / following) * old, u, following
        state = fista.tell(state, jnp.asarray(grad), step, point=point, weighting=solvers.averaging)


# ---- NAG, projected NAG ----


@pytest.mark.fast
def test_fista_without_g_is_nag_in_velocity_form(x64):
    fun, h, c, _ = quadratic()
    x0, step = jnp.asarray(np.random.default_rng(3).normal(size=8)), 0.008
    x, v, beta, mu, expected = np.asarray(x0), np.zeros(8), 1.0, 0.0, []
    for _ in range(200):
        v = mu * v - step * (h @ (x + mu * v) - c)
        x = x + v
        following = (1 + np.sqrt(1 + 4 * beta**2)) / 2
        mu, beta = (beta - 1) / following, following
        expected.append(x)
    for solver in (fista, nag):
        np.testing.assert_allclose(trajectory(solver, fun, x0, step, 200), expected, rtol=1e-10, atol=1e-12)
    zero = L1(0.0)
    np.testing.assert_allclose(trajectory(fista, fun, x0, step, 200, prox=zero.prox), expected, rtol=1e-10, atol=1e-12)


@pytest.mark.fast
def test_projected_nag_is_nag_in_the_reduced_coordinates(x64):
    """The lemma, with the example in R^5: coordinates 2, 3 and 5 (from 1) are held at zero."""
    rng = np.random.default_rng(5)
    w1, w2, x = (jnp.asarray(rng.normal(size=s)) for s in ((7, 5), (3, 7), (5,)))
    mu, target, step = 0.1, 2, 0.05

    def loss(r):  # a small network; the norm is differentiated away from 0 only
        logits = w2 @ jnp.tanh(w1 @ (x + r))
        return -jax.nn.log_softmax(logits)[target] + mu * jnp.sqrt(jnp.sum(r**2) + 1e-12)

    a = np.zeros((3, 5))
    a[[0, 1, 2], [1, 2, 4]] = 1
    z = np.eye(5)[:, [0, 3]]
    support = jnp.asarray(np.all(a == 0, axis=0))
    np.testing.assert_array_equal(z @ z.T, np.diag(np.asarray(support, float)))  # Z Zᵀ = P_V
    np.testing.assert_array_equal(a @ z, 0)
    full = trajectory(pnag, loss, jnp.zeros(5), step, 300, support=support)
    reduced = trajectory(nag, lambda u: loss(jnp.asarray(z) @ u), jnp.zeros(2), step, 300)
    np.testing.assert_allclose(full, reduced @ z.T, rtol=1e-9, atol=1e-12)
    np.testing.assert_array_equal(full[:, [1, 2, 4]], 0.0)
    assert np.linalg.norm(full[-1]) > 0.1
    unrestricted = trajectory(nag, loss, jnp.zeros(5), step, 300)
    assert np.abs(unrestricted[:, [1, 2, 4]]).max() > 1e-2  # the restriction did something


@pytest.mark.parametrize("restart", ["none", "gradient", "function"])
def test_minimize_within_a_support(x64, restart):
    fun, h, c, _ = quadratic()
    x0 = jnp.asarray(np.random.default_rng(6).normal(size=8))
    keep = np.array([1, 0, 0, 1, 1, 0, 1, 0], bool)
    solution = solved(fun, x0, solver="pnag", support=keep, restart=restart, tol=1e-10, max_steps=5000)
    assert bool(solution.converged)
    rest = c[keep] - h[np.ix_(keep, ~keep)] @ np.asarray(x0)[~keep]
    np.testing.assert_allclose(np.asarray(solution.x)[keep], np.linalg.solve(h[np.ix_(keep, keep)], rest), atol=1e-7)
    np.testing.assert_array_equal(np.asarray(solution.x)[~keep], np.asarray(x0)[~keep])


def test_a_projection_keeps_nag_in_a_box(x64):
    fun, _, _, _ = quadratic()
    lower, upper = -0.05, 0.05
    clip = lambda v, step: jnp.clip(v, lower, upper)  # noqa: E731
    for solver, how in ((nag, {}), (pnag, {"support": jnp.ones(8, bool)})):
        steps = trajectory(solver, fun, jnp.zeros(8), 0.008, 2000, project=clip, **how)
        assert steps.min() >= lower
        assert steps.max() <= upper
        grad = np.asarray(jax.grad(fun)(jnp.asarray(steps[-1])))
        np.testing.assert_allclose(np.clip(steps[-1] - grad, lower, upper), steps[-1], atol=1e-8)


# ---- heavy ball ----


@pytest.mark.parametrize("m", [0.0, 0.5, 0.9])
def test_momentum_on_a_quadratic_has_its_closed_form(x64, m):
    fun, h, _, solution = quadratic()
    x0, step = np.random.default_rng(7).normal(size=8), 0.01
    # e_{t+1} = (1 + m − σ h) e_t − m e_{t−1} in each eigendirection: powers of a 2×2 matrix.
    eigenvalues, q = np.linalg.eigh(h)
    start = q.T @ (x0 - solution)
    steps = trajectory(gd, fun, jnp.asarray(x0), step, 60, momentum=m)
    for t in (1, 2, 7, 60):
        error = [
            (np.linalg.matrix_power(np.array([[1 + m - step * e, -m], [1.0, 0.0]]), t) @ np.array([s, s]))[0]
            for e, s in zip(eigenvalues, start, strict=True)
        ]
        np.testing.assert_allclose(steps[t - 1], solution + q @ np.array(error), rtol=1e-9, atol=1e-11)
    answer = solved(fun, jnp.asarray(x0), solver="gd", momentum=m, step_size=step, tol=1e-10, max_steps=10000)
    assert bool(answer.converged)
    np.testing.assert_allclose(answer.x, solution, atol=1e-7)
    unaided = solved(fun, jnp.asarray(x0), solver="gd", momentum=m, tol=1e-10, max_steps=10000)
    assert bool(unaided.converged)
    np.testing.assert_allclose(unaided.x, solution, atol=1e-7)


# ---- back-tracking ----


@pytest.mark.parametrize("q", [1, 4])
def test_back_tracking_by_ask_and_tell(x64, q):
    """Steps never grow, end at no less than s/L, and the accelerated rate holds with the constant L/s."""
    fun, g, reference, lipschitz = lasso()
    shrink, best = 0.5, float(fun(reference) + g.value(reference))

    def body(carry, _):
        state, step = carry
        point = fista.ask(state)
        value, grad = jax.value_and_grad(fun)(point)

        def attempt(carry):
            search, _ = carry
            probes = linesearch.probe(search, point, grad, g.prox, shrink=shrink, q=q)
            told = linesearch.tell(search, point, value, grad, probes, jax.vmap(fun)(probes), shrink=shrink)
            return told, probes[told.index]

        search, candidate = jax.lax.while_loop(
            lambda c: ~c[0].accepted & (c[0].trials < 100), attempt, (linesearch.start(step), point)
        )
        state = fista.accept(state, candidate)
        return (state, search.step_size), (search.step_size, search.trials, fun(state.x) + g.value(state.x))

    first = (fista.init(jnp.zeros(60)), jnp.asarray(40 / lipschitz))
    _, (steps, trials, values) = jax.lax.scan(body, first, None, length=300)
    steps = np.asarray(steps)
    assert np.all(np.diff(steps) <= 0)
    assert steps[-1] >= shrink / lipschitz
    assert steps[0] < 40 / lipschitz
    assert np.all(np.asarray(trials) % q == 0)
    assert int(np.sum(trials)) <= (300 + 6) * q
    k = np.arange(1, 301)
    bound = 2 * (lipschitz / shrink) * np.sum(reference**2) / (k + 1) ** 2
    assert np.all(np.asarray(values) - best <= bound + 1e-12)


def test_parallel_probes_find_the_step_of_single_ones(x64):
    fun, g, *_ = lasso()
    point = jnp.zeros(60)
    value, grad = jax.value_and_grad(fun)(point)

    @partial(jax.jit, static_argnames="q")
    def attempt(search, q):
        probes = linesearch.probe(search, point, grad, g.prox, q=q)
        return linesearch.tell(search, point, value, grad, probes, jax.vmap(fun)(probes))

    found = []
    for q in (1, 3, 8):
        search, evaluated = linesearch.start(jnp.asarray(7.0)), 0
        while not bool(search.accepted) and evaluated < 100:
            search, evaluated = attempt(search, q=q), evaluated + q
        assert int(search.trials) == evaluated
        found.append(float(search.step_size))
    assert found[0] == found[1] == found[2]
    assert found[0] < 7.0


def test_no_step_given_and_a_badly_scaled_problem(x64):
    """The step comes from the problem: scaling the objective by 10^±6 changes nothing but the units."""
    _, h, c, x = quadratic()

    @jax.jit
    def solve(factor, tol):
        fun = lambda u: factor * (0.5 * u @ (jnp.asarray(h) @ u) - jnp.asarray(c) @ u)  # noqa: E731
        return minimize(fun, jnp.zeros(8), solver="nag", tol=tol, max_steps=5000)

    for factor in (1e-6, 1.0, 1e6):
        solution = solve(factor, 1e-8 * min(1.0, factor))
        assert bool(solution.converged)
        np.testing.assert_allclose(solution.x, x, atol=1e-5)
        assert int(solution.forwards) <= int(solution.steps) + 12


def test_a_non_smooth_growth_is_met_by_back_tracking():
    """x⁴ has no global Lipschitz constant: a fixed step that is too long breaks, back-tracking does not."""
    fun = lambda x: jnp.sum(x**4) + jnp.sum(jnp.square(x - 1.0))  # noqa: E731
    x0 = jnp.full((3,), 10.0)
    broken = solved(fun, x0, solver="nag", step_size=0.5, max_steps=200)
    assert not bool(broken.converged)
    assert np.all(np.isfinite(broken.x))
    for name in ("fista", "gd"):
        solution = solved(fun, x0, solver=name, step_size=0.5, backtracking=True, momentum=0.5)
        assert bool(solution.converged), name
        np.testing.assert_allclose(4 * solution.x**3 + 2 * (solution.x - 1), 0, atol=5e-2)


# ---- jit, vmap, dtypes, bad numbers ----


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_dtype_follows_the_start(x64, dtype):
    fun = lambda x: jnp.sum(jnp.square(x - jnp.asarray([1.0, -2.0], dtype)))  # noqa: E731
    x0 = jnp.zeros(2, dtype)
    keep = jnp.asarray([True, True])
    for solver, how in ((fista, {}), (prox_grad, {}), (nag, {}), (pnag, {"support": keep}), (gd, {"momentum": 0.5})):
        state = solver.init(x0)
        # A Python float, and an array wider than the state: neither may widen it.
        for step in (0.1, jnp.asarray(0.1, "float64")):
            tell = jax.jit(lambda s, solver=solver, how=how, step=step: solver.tell(s, solver.ask(s), step, **how))
            state = tell(state)
        assert {leaf.dtype for leaf in state} == {x0.dtype}
        assert not any(leaf.weak_type for leaf in state)
        with jax.numpy_dtype_promotion("strict"), jax.numpy_rank_promotion("raise"):
            state = jax.jit(lambda s, g, solver=solver, how=how: solver.tell(s, g, 0.1, **how))(state, state.x)
    for step in (0.5, None):
        answer = solved(fun, x0, step_size=step)
        assert answer.x.dtype == answer.value.dtype == x0.dtype
        assert bool(answer.converged)
        np.testing.assert_allclose(answer.x, [1.0, -2.0], atol=1e-4)


def test_jit_and_vmap_equal_one_by_one():
    rng = np.random.default_rng(8)
    starts = jnp.asarray(rng.normal(size=(5, 4)), jnp.float32)
    centers = jnp.asarray(rng.normal(size=(5, 4)), jnp.float32)
    scales = jnp.asarray([0.1, 1.0, 10.0, 100.0, 3.0], jnp.float32)

    def solve(x0, center, scale):
        fun = lambda x: scale * jnp.sum(jnp.square(x - center) * jnp.arange(1.0, 5.0))  # noqa: E731
        return minimize(fun, x0, g=L1(0.3 * scale), restart="function", tol=1e-4, max_steps=300)

    single = jax.jit(solve)
    batch = jax.jit(jax.vmap(solve))(starts, centers, scales)
    assert bool(jnp.all(batch.converged))
    assert len(set(np.asarray(batch.steps).tolist())) > 1
    for i in range(5):
        alone = single(starts[i], centers[i], scales[i])
        np.testing.assert_allclose(batch.x[i], alone.x, atol=2e-4)
        exact = L1(0.3).prox(centers[i], 1 / (2 * jnp.arange(1.0, 5.0)))
        np.testing.assert_allclose(batch.x[i], exact, atol=2e-3)


def test_a_broken_lane_leaves_its_neighbours_alone():
    def solve(scale):
        return minimize(lambda x: scale * jnp.sum(jnp.square(x - 2.0)), jnp.zeros(3), max_steps=50)

    solution = jax.jit(jax.vmap(solve))(jnp.asarray([1.0, jnp.nan, 2.0]))
    np.testing.assert_array_equal(solution.converged, [True, False, True])
    np.testing.assert_allclose(solution.x, [[2.0] * 3, [0.0] * 3, [2.0] * 3], atol=1e-4)
    assert int(solution.steps[1]) == 1


def test_finite_where_attacks_start():
    """At r = 0 with a zero gradient: nothing to do, and nothing that is not a number."""
    flat = lambda r: jnp.sum(jnp.square(r))  # noqa: E731
    keep = jnp.ones(4, bool)
    with jax.debug_nans(True):
        for name in ("fista", "pnag", "gd"):
            solution = solved(flat, jnp.zeros(4), solver=name, support=keep if name == "pnag" else None)
            assert bool(solution.converged)
            np.testing.assert_array_equal(solution.x, 0)
        linear = solved(lambda r: jnp.sum(r), jnp.zeros(4), solver="nag", max_steps=3)  # unbounded below, no curvature
    assert np.all(np.isfinite(linear.x))
    assert not bool(linear.converged)


def test_one_compilation_for_all_numbers():
    traces = []

    @jax.jit
    def solve(x0, weight, step, tol, limit, shrink):
        traces.append(1)
        fun = lambda x: jnp.sum(jnp.square(x - 1.0))  # noqa: E731
        return minimize(
            fun, x0, g=L1(weight), step_size=step, backtracking=True, tol=tol, max_steps=limit, shrink=shrink
        )

    for weight, step, tol, limit, shrink in [(0.1, 1.0, 1e-5, 10, 0.5), (0.5, 0.3, 1e-3, 50, 0.8)]:
        solution = solve(jnp.zeros(3), weight, step, tol, limit, shrink)
        np.testing.assert_allclose(solution.x, 1 - weight / 2, atol=1e-2)
    assert len(traces) == 1


def test_the_objective_appears_once_per_kind_in_the_program():
    """A fixed step: one value-and-gradient in the loop and one value after it, whatever the number of steps."""
    calls = []

    def fun(x):
        calls.append(1)
        return jnp.sum(jnp.square(x))

    jax.make_jaxpr(lambda x0: minimize(fun, x0, step_size=0.1))(jnp.ones(3))
    assert len(calls) == 2


@pytest.mark.fast
def test_bad_arguments():
    fun, x0 = (lambda x: jnp.sum(x**2)), jnp.ones(3)
    for how, message in [
        ({"solver": "adam"}, "solver must be one of 'fista', 'prox_grad', 'nag', 'pnag', 'gd', was 'adam'"),
        ({"solver": "nag", "g": L1(1.0)}, "g must be None for solver 'nag'"),
        ({"g": abs}, "g must have the methods value"),
        ({"restart": "often"}, "restart must be one of 'none', 'gradient', 'function', was 'often'"),
        ({"solver": "gd", "restart": "gradient"}, "restart must be 'none' for solver 'gd'"),
        ({"backtracking": False}, "step_size must be given when backtracking is False, was None"),
        ({"step_size": -1.0}, "step_size must be a number > 0, was -1.0"),
        ({"max_steps": 0}, "max_steps must be a whole number >= 1, was 0"),
        ({"solver": "pnag"}, "support must be given for solver 'pnag'"),
        ({"support": jnp.ones(3, bool)}, "support must be given for solver 'pnag' and for no other"),
        ({"solver": "pnag", "support": jnp.ones(3)}, "support must be bool"),
        ({"solver": "pnag", "support": jnp.ones(2, bool)}, "support must be bool and broadcastable"),
        ({"solver": "pnag", "support": jnp.ones((2, 3), bool)}, "support must be bool and broadcastable"),
    ]:
        with pytest.raises(ValueError, match=message.replace("(", r"\(")):
            minimize(fun, x0, **how)
    with pytest.raises(ValueError, match="x0 must have a floating dtype, was int32"):
        minimize(fun, jnp.ones(3, jnp.int32))
    with pytest.raises(ValueError, match="x0 must have a floating dtype"):
        fista.init(jnp.ones(3, jnp.int32))
    with pytest.raises(ValueError, match="value must be the objective"):
        fista.tell(fista.init(x0), x0, 0.1, restart="function")
