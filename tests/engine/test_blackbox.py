"""Black boxes: the wrapper, both evaluators against the exact gradient, and scikit-learn's forest end to end."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
import nets
import numpy as np
import pytest
from oracles import x64

import invjax
from invjax import losses
from invjax.attacks.pgd import PGD
from invjax.core.config import config
from invjax.engine.blackbox import antithetic, surrogate
from invjax.engine.evaluate import white_box
from invjax.models.binary import binary
from invjax.models.blackbox import agreement, black_box, distill, with_surrogate
from invjax.types import Context, Method, Problem

D, K, B = 6, 3, 4


@config
class Bare:
    """The arguments an evaluator needs, and a loss with a part of its own in the point."""


def _loss(ctx, problem, config, state, point, logits):
    return losses.cross_entropy(logits, problem.label, problem.target) + jnp.sum(jnp.sin(3 * point) * problem.x)


def _method(width: int | None = None, needs_grad: bool = True) -> Method:
    return Method("bare", None, None, _loss, None, None, None, width=width, needs_grad=needs_grad)  # type: ignore[arg-type]


def _problems(dtype=np.float64, lower: float = -9.0, upper: float = 9.0, mask=None) -> Problem:
    draw = np.random.default_rng(0)
    keys = jax.vmap(jax.random.fold_in, (None, 0))(jax.random.key(3), jnp.arange(B))
    side = jnp.ones((B, D), dtype)
    return Problem(
        jnp.asarray(draw.normal(size=(B, D)), dtype), jnp.zeros(B, jnp.int32), jnp.array([1, 2, 1, -1], jnp.int32),
        lower * side, upper * side, mask, None, keys, jnp.arange(B, dtype=jnp.int32),
    )  # fmt: skip


def _points(width: int | None, dtype=np.float64):
    shape = (B, D) if width is None else (B, width, D)
    return jnp.asarray(np.random.default_rng(1).normal(size=shape), dtype)


def _smooth(dtype=np.float64) -> invjax.LogitsModel:
    draw = np.random.default_rng(2)
    params = {"a": jnp.asarray(draw.normal(size=(D, K)), dtype), "b": jnp.asarray(draw.normal(size=(D, D)), dtype)}
    return invjax.LogitsModel(params, _smooth_apply)


def _smooth_apply(params, x):
    return jnp.tanh(x @ params["b"]) @ params["a"]


@partial(jax.jit, static_argnames=("evaluator", "width", "needs_grad"))
def _look(evaluator, logits, problems, points, width=None, needs_grad=True):
    return evaluator(_method(width, needs_grad), Context(logits), Bare(), problems, jnp.zeros(B), points)


# ---------------------------------------------------------------------------------------------------------------------
# Finite differences
# ---------------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("width", "options"), [(None, {"coordinates": True}), (2, {"samples": D}), (None, {"samples": 2 * D})]
)
def test_differences_of_a_linear_classifier_are_exact(width: int | None, options: dict) -> None:
    with x64():
        net = nets.linear((D,), K)
        scale = np.linspace(0.1, 0.7, D)
        problems, points = _problems(), _points(width)
        exact = _look(white_box, net, problems, points, width)
        got = _look(antithetic(scale=scale, **options), net, problems, points, width)
        for name in ("point", "value", "logits"):
            np.testing.assert_allclose(getattr(got, name), getattr(exact, name), rtol=1e-14)
        np.testing.assert_allclose(got.grad, exact.grad, rtol=0, atol=1e-7)  # the weights are float32


def test_differences_of_a_smooth_classifier_converge() -> None:
    with x64():
        problems, points = _problems(), _points(None)
        exact = _look(white_box, _smooth(), problems, points).grad
        errors = [
            float(jnp.abs(_look(antithetic(scale=h, coordinates=True), _smooth(), problems, points).grad - exact).max())
            for h in (1e-1, 1e-2, 1e-3)
        ]
        assert errors[0] > 50 * errors[1] > 2500 * errors[2]  # of second order in h
        assert errors[2] < 1e-5


def test_few_directions_are_unbiased() -> None:
    with x64():
        net, problems, points = nets.linear((D,), K), _problems(), _points(None)
        exact = _look(white_box, net, problems, points).grad
        evaluator = antithetic(samples=2, scale=0.1)
        means = jax.jit(
            jax.vmap(lambda i: _look(evaluator, net, problems._replace(key=jax.vmap(jax.random.fold_in, (0, None))(
                problems.key, i)), points).grad)
        )(jnp.arange(3000)).mean(0)  # fmt: skip
        assert float(jnp.abs(means - exact).max()) < 0.1 * float(jnp.abs(exact).max())


def test_probes_stay_in_the_limits_and_leave_frozen_columns_alone() -> None:
    asked = []

    def spy(x: np.ndarray) -> np.ndarray:
        asked.append(x.copy())
        return np.exp(x @ np.ones((D, K)) * 1e-3) / 9

    mask = jnp.ones((B, D), bool).at[:, 2].set(False)
    problems, points = _problems(np.float32, -1.0, 1.0, mask), jnp.clip(_points(None, np.float32), -1, 1)
    problems = problems._replace(upper=problems.upper.at[:, 4].set(-0.9))
    points = points.at[:, 4].set(-0.95)
    for options in ({"coordinates": True}, {"samples": 5}):
        asked.clear()
        grad = _look(antithetic(scale=0.5, **options), black_box(spy, K), problems, points).grad
        assert len(asked) == 1  # one call for everything
        rows = asked[0].reshape(B, -1, D)
        assert rows.shape[1] == antithetic(scale=0.5, **options).calls((D,))
        assert (rows >= problems.lower[:, None]).all()
        assert (rows <= problems.upper[:, None] + 1e-7).all()
        assert (rows[..., 2] == points[:, None, 2]).all()
        assert not np.asarray(grad[:, 2]).any()
        assert np.isfinite(grad).all()


def test_directions_depend_on_key_and_point_alone() -> None:
    net, problems, points = _smooth(np.float32), _problems(np.float32), _points(None, np.float32)
    evaluator = antithetic(samples=2, scale=0.5)
    grad = _look(evaluator, net, problems, points).grad
    np.testing.assert_array_equal(grad, _look(evaluator, net, problems, points).grad)
    order = jnp.array([2, 0, 3, 1])
    swapped = jax.tree.map(lambda leaf: leaf[order], problems)
    np.testing.assert_allclose(_look(evaluator, net, swapped, points[order]).grad, grad[order], rtol=2e-5, atol=1e-6)
    moved = _look(evaluator, nets.linear((D,), K), problems, points + 1e-3).grad
    assert float(jnp.abs(moved - _look(evaluator, nets.linear((D,), K), problems, points).grad).max()) > 1e-2


def test_no_gradient_asked_no_differences() -> None:
    calls = []

    def spy(x: np.ndarray) -> np.ndarray:
        calls.append(len(x))
        return np.full((len(x), K), 1 / K)

    ev = _look(antithetic(), black_box(spy, K), _problems(np.float32), _points(None, np.float32), needs_grad=False)
    assert calls == [B]
    assert not np.asarray(ev.grad).any()


@pytest.mark.parametrize(("wrong", "name"), [
    ({"samples": 0}, "samples"), ({"samples": 2.5}, "samples"),
    ({"scale": 0.0}, "scale"), ({"scale": [1, -1]}, "scale"),
])  # fmt: skip
def test_bad_options(wrong: dict, name: str) -> None:
    with pytest.raises(ValueError, match=name):
        antithetic(**wrong)


def test_scale_of_another_length() -> None:
    with pytest.raises(ValueError, match="scale"):
        _look(antithetic(scale=(1.0, 2.0)), _smooth(np.float32), _problems(np.float32), _points(None, np.float32))


# ---------------------------------------------------------------------------------------------------------------------
# The surrogate
# ---------------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("width", [None, 2])
def test_a_perfect_surrogate_gives_the_exact_gradient(width: int | None) -> None:
    with x64():
        net, problems, points = _smooth(), _problems(), _points(width)
        box = black_box(lambda x: np.asarray(jnp.tanh(x @ net.params["b"]) @ net.params["a"]), K, log=False)
        exact = _look(white_box, net, problems, points, width)
        got = _look(surrogate, with_surrogate(box, net), problems, points, width)
        for name in ("value", "grad", "logits"):
            np.testing.assert_allclose(getattr(got, name), getattr(exact, name), rtol=1e-12, atol=1e-12)


def test_surrogate_needs_one() -> None:
    with pytest.raises(ValueError, match="with_surrogate"):
        _look(surrogate, _smooth(np.float32), _problems(np.float32), _points(None, np.float32))


def test_new_weights_of_the_surrogate_do_not_compile() -> None:
    net = nets.linear((D,), 2)

    def predict(x: np.ndarray) -> np.ndarray:
        return 1 / (1 + np.exp(-x[:, 0] + x[:, 1]))

    box = black_box(predict, 2)
    x = np.full((2, D), 0.5, np.float32)
    x[:, 0] = 0.3

    def run(weights: float) -> invjax.Result:
        other = jax.tree.map(lambda leaf: leaf * weights, net)
        return invjax.solve(
            with_surrogate(box, other), x, np.zeros(2, np.int32), target=np.ones(2, np.int32),
            method=PGD(eps=0.4, steps=3), evaluator=surrogate,
        )  # fmt: skip

    run(1.0)
    with nets.compilations() as names:
        run(2.0)
    assert not [name for name in names if "run_batch" in name], names


# ---------------------------------------------------------------------------------------------------------------------
# A forest, end to end
# ---------------------------------------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def forest():
    from sklearn.datasets import load_wine
    from sklearn.ensemble import RandomForestClassifier

    x, y = load_wine(return_X_y=True)
    x = ((x - x.min(0)) / np.ptp(x, axis=0)).astype(np.float32)
    return RandomForestClassifier(10, max_depth=5, random_state=0).fit(x, y), x, y


@pytest.mark.parametrize("route", ["coordinates", "directions", "surrogate"])
def test_forest(forest, route: str) -> None:
    model, x, _ = forest
    label = model.predict(x[:12]).astype(np.int32)
    target = ((label + 1) % 3).astype(np.int32)
    logits = black_box(model.predict_proba, 3, example=x[0])
    evaluator = antithetic(samples=26, scale=0.3, coordinates=route == "coordinates")
    if route == "surrogate":
        net = distill(model.predict_proba, x, key=jax.random.key(0), steps=300, copies=2)
        logits, evaluator = with_surrogate(logits, net), surrogate
    result = invjax.solve(
        logits, x[:12], label, target=target, method=PGD(eps=0.6, steps=12, step_size=0.1), evaluator=evaluator
    )
    found = np.asarray(result.status) == invjax.Status.FOUND
    assert found.mean() >= 0.9, result
    # The judge is the forest itself, on what came back.
    np.testing.assert_array_equal(model.predict_proba(np.asarray(result.x)[found]).argmax(1), target[found])


def test_forest_of_another_width(forest) -> None:
    model, x, _ = forest
    with pytest.raises(ValueError, match="13 features"):
        invjax.solve(black_box(model.predict_proba, 3), x[:2, :5], np.zeros(2, np.int32), method=PGD())


# ---------------------------------------------------------------------------------------------------------------------
# The wrapper
# ---------------------------------------------------------------------------------------------------------------------
def _predict(x: np.ndarray) -> np.ndarray:
    p = 1 / (1 + np.exp(-x.sum(tuple(range(1, x.ndim)), dtype=np.float64)))
    return np.stack([1 - p, p], axis=1)


@pytest.mark.parametrize("x64", [False, True])
def test_logarithm_batching_and_dtype(x64: bool) -> None:
    with jax.enable_x64(x64):
        box = black_box(_predict, 2)
        x = jnp.asarray(np.random.default_rng(0).normal(size=(3, 5, 4)), np.float64 if x64 else np.float32)
        want = np.log(_predict(np.asarray(x).reshape(-1, 4))).reshape(3, 5, 2)
        for got in (jax.vmap(box)(x), jax.jit(jax.vmap(box))(x), box(x.reshape(15, 4)).reshape(3, 5, 2)):
            assert got.dtype == x.dtype
            np.testing.assert_allclose(got, want, rtol=1e-15 if x64 else 1e-6)
        assert box(x).shape == (3, 2)  # *S of any rank


def test_one_call_under_vmap() -> None:
    sizes = []

    def spy(x: np.ndarray) -> np.ndarray:
        sizes.append(x.shape)
        return _predict(x)

    jax.block_until_ready(jax.jit(jax.vmap(black_box(spy, 2)))(jnp.ones((7, 3, 4))))
    assert sizes == [(21, 4)]


def test_probability_of_class_one_alone() -> None:
    x = jnp.linspace(-1, 1, 8).reshape(4, 2)
    for shape in ((-1,), (-1, 1)):
        one = black_box(lambda x, shape=shape: _predict(x)[:, 1].reshape(shape), 2)
        np.testing.assert_allclose(one(x), black_box(_predict, 2)(x), rtol=1e-6)


def test_the_one_column_of_a_model_of_one_class() -> None:
    """It is the probability of that class, which is 1, not that of class 1."""

    class Fitted:
        classes_ = np.array([0])

        def predict_proba(self, x: np.ndarray) -> np.ndarray:
            return np.ones((len(x), 1))

    with pytest.raises(ValueError, match=r"predict_proba must be of a model with 2 classes, was of one with .* alone"):
        black_box(Fitted().predict_proba, 2, example=np.zeros(3))


def test_floor() -> None:
    box = black_box(lambda x: np.tile([0.0, 1.0], (len(x), 1)), 2, floor=1e-3)
    np.testing.assert_allclose(box(jnp.ones((1, 2)))[0], [np.log(1e-3), 0.0], rtol=1e-6)


def test_wrong_output_says_what_was_wrong() -> None:
    with pytest.raises(ValueError, match=r"return \[B, 3\]"):
        black_box(_predict, 3, example=np.ones(2))
    with pytest.raises(ValueError, match="NaN"):
        black_box(lambda x: np.full((len(x), 2), np.nan), 2, example=np.ones(2))
    with pytest.raises(ValueError, match="probabilities"):
        black_box(lambda x: 3 * np.ones((len(x), 2)), 2, example=np.ones(2))
    with pytest.raises(Exception, match=r"return \[B, 3\]"):
        jax.block_until_ready(jax.jit(black_box(_predict, 3))(jnp.ones((2, 2))))
    for wrong in ({"classes": 1}, {"classes": 2, "floor": 0.5}, {"classes": 2.0}):
        with pytest.raises(ValueError, match=r"classes|floor"):
            black_box(_predict, **wrong)
    with pytest.raises(ValueError, match="predict_proba"):
        black_box(3, 2)  # type: ignore[arg-type]


def test_a_row_of_nan_disturbs_no_other() -> None:
    def predict(x: np.ndarray) -> np.ndarray:
        return np.where(x[:, :1] > 0.9, np.nan, _predict(x - 0.5))

    x = np.full((3, 2), 0.4, np.float32)
    x[1, 0] = 0.95
    result = invjax.solve(
        black_box(predict, 2), x, np.zeros(3, np.int32), target=np.ones(3, np.int32),
        method=PGD(eps=0.3, steps=5, step_size=0.1), evaluator=antithetic(scale=0.05, coordinates=True),
    )  # fmt: skip
    status = [invjax.Status.FOUND, invjax.Status.NONFINITE, invjax.Status.FOUND]
    np.testing.assert_array_equal(result.status, status)


def test_named_columns_raise_no_warning() -> None:
    pandas = pytest.importorskip("pandas")
    from sklearn.linear_model import LogisticRegression

    x = np.random.default_rng(0).normal(size=(30, 2))
    model = LogisticRegression().fit(pandas.DataFrame(x, columns=["a", "b"]), x[:, 0] > 0)
    got = black_box(model.predict_proba, 2)(jnp.asarray(x, jnp.float32))
    np.testing.assert_allclose(got, model.predict_log_proba(pandas.DataFrame(x, columns=["a", "b"])), atol=1e-4)


def test_distill_learns_every_class() -> None:
    """Of rows that take turns by class every tenth is one class: it had been held out as a whole."""
    turn, lines = np.arange(40) % 10, []
    x = np.eye(10, dtype=np.float32)[turn]
    for rows in (x, x[np.argsort(turn, kind="stable")]):
        distill(lambda x: x, rows, key=jax.random.key(0), steps=1, copies=0, hidden=(4,), report=lines.append)
    assert lines[0].endswith("of 0 held-out points")
    assert lines[1].endswith("of 4 held-out points")


def test_distill_agrees_and_is_reproducible() -> None:
    draw = np.random.default_rng(0)
    x = draw.normal(size=(200, 2), scale=1.0) * [1, 50] + [0, 900]
    x = np.concatenate([x, np.full((200, 1), 4.0)], axis=1)  # a constant column
    lines: list[str] = []

    def predict(x: np.ndarray) -> np.ndarray:
        return np.where((x[:, 0] > 0) ^ (x[:, 1] > 900), 0.9, 0.2)

    made = [distill(predict, x, key=jax.random.key(1), steps=500, report=lines.append) for _ in range(2)]
    assert agreement(made[0], predict, x) > 0.93
    assert "%" in lines[0]
    np.testing.assert_array_equal(made[0](jnp.asarray(x[:5])), made[1](jnp.asarray(x[:5])))
    for wrong in ({"steps": 0}, {"noise": -1.0}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            distill(predict, x, key=jax.random.key(1), **wrong)
    with pytest.raises(ValueError, match="finite"):
        distill(lambda x: np.full(len(x), np.nan), x, key=jax.random.key(1))


# ---------------------------------------------------------------------------------------------------------------------
# Networks of one output
# ---------------------------------------------------------------------------------------------------------------------
def _one(params: dict, x: jax.Array) -> jax.Array:
    return x @ params["w"]


@pytest.mark.parametrize("flat", [False, True])
@pytest.mark.parametrize("probability", [False, True])
def test_binary(flat: bool, probability: bool) -> None:
    def apply(params: dict, x: jax.Array) -> jax.Array:
        z = _one(params, x)
        z = jax.nn.sigmoid(z) if probability else z
        return z[:, 0] if flat else z

    x = jnp.asarray(np.random.default_rng(0).normal(size=(5, 3)), jnp.float32)
    params = {"w": jnp.array([[1.0], [-2.0], [0.5]])}
    net = binary(invjax.LogitsModel(params, apply), probability=probability)
    np.testing.assert_allclose(net(x), np.concatenate([np.zeros((5, 1)), _one(params, x)], axis=1), atol=2e-5)
    assert jax.tree.leaves(net)[0] is params["w"]


def test_binary_at_the_ends_and_bad_shapes() -> None:
    ends = binary(lambda x: x, probability=True)
    z, grad = jax.value_and_grad(lambda x: ends(x)[:, 1].sum())(jnp.array([0.0, 0.5, 1.0]))
    assert np.isfinite(z)
    assert np.isfinite(grad).all()
    with pytest.raises(ValueError, match="one number"):
        binary(lambda x: jnp.ones((x.shape[0], 2)))(jnp.ones((3, 2)))
    assert binary(_equal).apply == binary(_equal).apply


def _equal(x: jax.Array) -> jax.Array:
    return x[:, 0]
