"""Group-robust training: the rules against loops, the convex fits against optimality conditions and scikit-learn."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from invjax import learn
from invjax.models import MLP, ResNet20, SmallCNN
from invjax.models.normalised import Normalised

KEY = jax.random.key(3)


def blobs(seed: int, count: int, minority: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Two classes told apart by two noisy coordinates, and by two clean ones that lie for the ``minority``."""
    rng = np.random.default_rng(seed)
    y = rng.integers(0, 2, count)
    a = np.where(rng.random(count) >= minority, y, 1 - y)
    core = (2 * y - 1)[:, None] + 0.8 * rng.normal(size=(count, 2))
    spurious = 2.0 * (2 * a - 1)[:, None] + 0.3 * rng.normal(size=(count, 2))
    return np.concatenate([core, spurious, rng.normal(size=(count, 2))], 1).astype(np.float32), y, 2 * y + a


TRAIN, HELD, TEST = blobs(0, 800, 0.05), blobs(1, 400, 0.5), blobs(2, 1500, 0.5)


def net(seed: int = 0) -> MLP:
    return MLP((6, 16, 2), rngs=nnx.Rngs(seed))


RUN: dict[str, Any] = {
    "key": KEY, "steps": 200, "batch": 100, "optimiser": learn.Optimiser(rate=0.05, weight_decay=1e-3)
}  # fmt: skip


def worst(model: nnx.Module) -> float:
    return learn.evaluate(model, *TEST).worst


@pytest.fixture(scope="module")
def erm() -> nnx.Module:
    return learn.fit(net(), *TRAIN[:2], **RUN).model


# ---------------------------------------------------------------------------------------------------------------------
# Draws and weights
# ---------------------------------------------------------------------------------------------------------------------
@pytest.mark.fast
def test_draws_and_weights_balance_the_groups() -> None:
    groups = np.array([0] * 6 + [1] * 1 + [2] * 3)
    share = learn.resample(groups)["sampling"]
    weight = learn.reweight(groups)["weights"]
    for g in range(3):
        assert share[groups == g].sum() == pytest.approx(1 / 3)
        assert weight[groups == g].mean() * (groups == g).sum() == pytest.approx(10 / 3)
    assert weight.mean() == pytest.approx(1)


@pytest.mark.fast
def test_a_group_absent_from_training() -> None:
    groups = np.array([0, 0, 2])
    for method in (learn.resample, learn.reweight, learn.group_dro):
        with pytest.raises(
            ValueError, match=r"groups must have training examples of each of the 4 groups, was without any of \[1, 3\]"
        ):
            method(groups, 4)
        with pytest.raises(ValueError, match="empty must be"):
            method(groups, 4, empty="zero")
    np.testing.assert_allclose(learn.resample(groups, 4, "skip")["sampling"], [0.25, 0.25, 0.5])
    rule = learn.group_dro(groups, 4, empty="skip")["rule"]
    np.testing.assert_allclose(rule.report(rule.init())["group_weights"], [0.5, 0, 0.5, 0], atol=1e-6)


# ---------------------------------------------------------------------------------------------------------------------
# GroupDRO
# ---------------------------------------------------------------------------------------------------------------------
def _loops(q: np.ndarray, losses: np.ndarray, groups: np.ndarray, n: np.ndarray, eta: float, c: float, normal: bool):
    """The update of the paper, group by group; a group without examples has the loss 0."""
    loss = np.array([losses[groups == g].mean() if (groups == g).any() else 0.0 for g in range(len(q))])
    driven = loss + c / np.sqrt(n)
    driven = driven / driven.sum() if normal else driven
    q = np.array([q[g] * np.exp(eta * driven[g]) for g in range(len(q))])
    q = q / q.sum()
    return q, float(q @ loss)


@pytest.mark.fast
@pytest.mark.parametrize(("c", "normal"), [(0.0, False), (2.0, False), (1.0, True)])
def test_group_dro_against_loops(c: float, normal: bool) -> None:
    """Twenty batches, in some of which groups are absent: q and the objective."""
    rng = np.random.default_rng(0)
    n = np.array([60.0, 3.0, 5.0, 32.0])
    rule = learn.GroupDRO(np.ones(4), n, eta=0.3, adjustment=c, normalise=normal)
    state, q = rule.init(), np.full(4, 0.25)
    absent = 0
    for _ in range(20):
        groups = rng.choice(4, 8, p=[0.7, 0.02, 0.08, 0.2])
        losses = rng.exponential(size=8)
        absent += len(np.unique(groups)) < 4
        share, state = rule.weigh(state, jnp.asarray(losses), jnp.asarray(groups), jnp.ones(8))
        q, value = _loops(q, losses, groups, n, 0.3, c, normal)
        np.testing.assert_allclose(rule.report(state)["group_weights"], q, rtol=1e-5)
        assert float(jnp.sum(share * losses)) == pytest.approx(value, rel=1e-5)
    assert absent > 10


@pytest.mark.fast
def test_group_dro_without_steps_is_the_mean_of_groups() -> None:
    rule = learn.GroupDRO(np.ones(2), np.ones(2), eta=0.0)
    share, _ = rule.weigh(rule.init(), jnp.ones(4), jnp.asarray([0, 0, 0, 1]), jnp.asarray([1.0, 1.0, 2.0, 5.0]))
    np.testing.assert_allclose(share, [0.125, 0.125, 0.25, 0.5], rtol=1e-6)  # weights act within a group


@pytest.mark.fast
def test_conventions_differ_in_the_draw() -> None:
    released, wilds = (learn.group_dro(TRAIN[2], convention=name) for name in ("released", "wilds"))
    assert "sampling" not in released
    np.testing.assert_array_equal(wilds["sampling"], learn.resample(TRAIN[2])["sampling"])
    np.testing.assert_array_equal(wilds["rule"].counts, np.bincount(TRAIN[2]))
    with pytest.raises(ValueError, match="convention must be one of"):
        learn.group_dro(TRAIN[2], convention="spuco")


def test_peers_raise_the_worst_group(erm: nnx.Module) -> None:
    """The network that reads the clean coordinates fails where they lie; each peer fails less."""
    base = worst(erm)
    x, y, groups = TRAIN
    told = {
        "resample": learn.resample(groups),
        "reweight": learn.reweight(groups),
        "released": learn.group_dro(groups, eta=0.1),
        "wilds": learn.group_dro(groups, eta=0.1, convention="wilds"),
        "jtt": learn.jtt(net(), x, y, upweight=5, **{**RUN, "steps": 20}),
    }
    trained = {name: learn.fit(net(), x, y, **RUN, **arguments) for name, arguments in told.items()}
    better = {name: worst(one.model) for name, one in trained.items()}
    assert base < 0.85
    assert all(value > base + 0.02 for value in better.values()), (base, better)
    record = trained["released"].history[-1]
    assert len(record["group_weights"]) == 4
    assert sum(record["group_weights"]) == pytest.approx(1, abs=1e-5)
    lied = np.bincount(groups)[[1, 2]].sum() / len(groups)
    assert record["group_weights"][1] + record["group_weights"][2] > 5 * lied  # where the clean coordinates lie


def test_jtt_marks_the_errors(erm: nnx.Module) -> None:
    """λ on the errors of the first network, 1 elsewhere; of mean 1 as weights."""
    x, y, _ = TRAIN
    wrong = np.asarray(erm(x)).argmax(1) != y
    np.testing.assert_array_equal(learn.errors_of(erm, x, y), wrong)
    drawn = learn.jtt(net(), x, y, upweight=7, **RUN)["sampling"]  # the same first training as erm's
    np.testing.assert_array_equal(drawn, np.where(wrong, 7, 1))
    weights = learn.jtt(net(), x, y, upweight=7, how="weights", **RUN)["weights"]
    np.testing.assert_allclose(weights, drawn / drawn.mean())
    with pytest.raises(ValueError, match="upweight must be a number > 0"):
        learn.jtt(net(), x, y, upweight=0, **RUN)
    with pytest.raises(ValueError, match="how must be"):
        learn.jtt(net(), x, y, how="copies", **RUN)
    with pytest.raises(ValueError, match="identification must leave errors"):
        learn.jtt(net(), x, (x[:, 2] > 0).astype(int), **RUN)


# ---------------------------------------------------------------------------------------------------------------------
# The last layer
# ---------------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("make", "shape", "size"),
    [
        (lambda: MLP((6, 16, 2), rngs=nnx.Rngs(0)), (6,), 16),
        (lambda: SmallCNN((8, 8, 1), 2, (2, 3), 2, rngs=nnx.Rngs(0)), (8, 8, 1), 2),
        (lambda: Normalised(ResNet20(3, 2, rngs=nnx.Rngs(0)), 0.5, 0.5), (8, 8, 3), 8),
    ],
)
def test_last_layer_is_found(make: Any, shape: tuple[int, ...], size: int) -> None:
    """features @ W + b are the logits; another layer gives other logits, the module itself stays."""
    model, x = make(), np.random.default_rng(0).random((5, *shape)).astype(np.float32)
    layer = learn.last_layer(model, x)
    features = learn.penultimate(model, x, layer)
    assert features.shape == (5, size)
    logits = learn.predict(model, x)
    np.testing.assert_allclose(features @ layer.kernel + layer.bias, logits, atol=1e-5)
    other = learn.with_last_layer(model, layer, 2 * layer.kernel, layer.bias + 1)
    np.testing.assert_allclose(learn.predict(other, x), 2 * (logits - layer.bias) + layer.bias + 1, atol=1e-5)
    np.testing.assert_array_equal(learn.predict(model, x), logits)


def test_no_last_layer() -> None:
    class Squashed(nnx.Module):
        def __init__(self) -> None:
            self.dense = nnx.Linear(6, 2, rngs=nnx.Rngs(0))

        def __call__(self, x: jax.Array) -> jax.Array:
            return jnp.tanh(self.dense(x))

    with pytest.raises(ValueError, match=r"model must end in an nnx.Linear .*, was Squashed"):
        learn.last_layer(Squashed(), TEST[0][:4])
    layer = learn.last_layer(net(), TEST[0][:4])
    with pytest.raises(ValueError, match="kernel must be of shape"):
        learn.with_last_layer(net(), layer, np.zeros((3, 2)), np.zeros(2))


def _objective(z: np.ndarray, y: np.ndarray, w: np.ndarray, b: np.ndarray, c: float) -> float:
    """Of scikit-learn, C Σ l + ‖W‖_1, divided by C n."""
    scores = z @ w + b
    top = scores.max(1, keepdims=True)
    loss = np.log(np.exp(scores - top).sum(1)) + top[:, 0] - scores[np.arange(len(y)), y]
    return float(loss.mean() + np.abs(w).sum() / (c * len(y)))


@pytest.mark.parametrize("classes", [2, 3])
def test_l1_logistic_is_optimal(classes: int) -> None:
    """The optimality conditions of the l1 problem, and no worse a value than scikit-learn's."""
    linear = pytest.importorskip("sklearn.linear_model")
    rng = np.random.default_rng(classes)
    z = rng.normal(size=(120, 6)).astype(np.float32)
    y = (z[:, :classes] + 0.8 * rng.normal(size=(120, classes))).argmax(1)
    c = 0.3
    got = learn.l1_logistic(jnp.asarray(z), jnp.asarray(y), c, classes=classes, tol=1e-6)
    assert bool(got.converged)
    w, b = np.asarray(got.kernel, np.float64), np.asarray(got.bias, np.float64)
    p = np.exp(z @ w + b)
    p /= p.sum(1, keepdims=True)
    slope = z.T @ (p - np.eye(classes)[y]) / 120  # of the smooth part
    limit = 1 / (c * 120)
    np.testing.assert_allclose((p - np.eye(classes)[y]).mean(0), 0, atol=1e-4)  # the bias is free
    np.testing.assert_allclose(slope[w != 0], -limit * np.sign(w[w != 0]), atol=1e-4)
    assert np.abs(slope[w == 0]).max(initial=0) <= limit + 1e-4
    assert 0 < (w == 0).mean() < 1
    kwargs = {"l1_ratio": 1.0} if "l1_ratio" in linear.LogisticRegression().get_params() else {"penalty": "l1"}
    other = linear.LogisticRegression(C=c, solver="saga", tol=1e-7, max_iter=20000, **kwargs).fit(z, y)
    if classes == 2:  # one column there: its l1 norm is that of our two halves
        theirs_w = np.concatenate([-other.coef_ / 2, other.coef_ / 2]).T
        theirs_b = np.concatenate([-other.intercept_ / 2, other.intercept_ / 2])
    else:
        theirs_w, theirs_b = other.coef_.T, other.intercept_
    theirs = _objective(z, y, theirs_w, theirs_b, c)
    assert _objective(z, y, w, b, c) == pytest.approx(theirs, abs=2e-5)


def test_dfr(erm: nnx.Module) -> None:
    """Balanced held-out data raise the worst group far; the scaler is inside the layer that comes back."""
    x, y, groups = HELD
    got = learn.dfr(erm, x, y, groups, key=KEY, retrains=5)
    assert worst(got.model) > max(0.9, worst(erm) + 0.1)
    assert got.report["C"] in got.report["worst_by_C"]
    assert got.report["converged"] == 1
    assert got.report["examples"] == 4 * np.bincount(groups).min()

    # On a set that is balanced, one retrain is the plain fit: features, scaler and solver put together by hand.
    rows = np.concatenate([np.flatnonzero(groups == g)[:80] for g in range(4)])
    one = learn.dfr(erm, x[rows], y[rows], groups[rows], key=KEY, C=0.3, retrains=1)
    layer = learn.last_layer(erm, x[:4])
    features = learn.penultimate(erm, x[rows], layer)
    std = np.where(features.std(0) > 1e-8, features.std(0), 1)
    z = (features - features.mean(0)) / std
    fitted = learn.l1_logistic(jnp.asarray(z), jnp.asarray(y[rows]), 0.3, classes=2)
    np.testing.assert_allclose(
        learn.predict(one.model, x[rows]), z @ np.asarray(fitted.kernel) + np.asarray(fitted.bias), atol=2e-2
    )
    by_class = learn.dfr(erm, x[rows], y[rows], key=KEY, C=0.3, retrains=1)  # all of it again: classes are balanced
    assert by_class.report["examples"] == 320
    np.testing.assert_allclose(learn.predict(by_class.model, x), learn.predict(one.model, x), atol=2e-2)


def test_afr(erm: nnx.Module) -> None:
    """The weights are their formula, the solution has no slope left, a large λ changes nothing."""
    x, y, _ = blobs(4, 300, 0.1)
    layer = learn.last_layer(erm, x[:4])
    features = learn.penultimate(erm, x, layer).astype(np.float64)
    logits = features @ layer.kernel + layer.bias
    p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    raw = np.array([np.exp(-5 * p[i, y[i]]) / np.sum(y == y[i]) for i in range(300)])
    mu = learn.afr_weights(logits, y, 5.0)
    np.testing.assert_allclose(mu, raw / raw.sum())

    got = learn.afr(erm, x, y, gamma=5, penalty=0.1, max_steps=3000)
    assert got.report["converged"]
    assert got.report["effective"] == pytest.approx(1 / (300 * np.sum(mu**2)))
    new = learn.last_layer(got.model, x[:4])
    p = np.exp(features @ new.kernel + new.bias)
    p /= p.sum(1, keepdims=True)
    residual = mu[:, None] * (p - np.eye(2)[y])
    np.testing.assert_allclose(features.T @ residual + 0.2 * (new.kernel - layer.kernel), 0, atol=1e-3)
    np.testing.assert_allclose(residual.sum(0) + 0.2 * (new.bias - layer.bias), 0, atol=1e-3)
    assert worst(got.model) > worst(erm) + 0.02
    held = learn.last_layer(learn.afr(erm, x, y, penalty=1e4).model, x[:4])
    np.testing.assert_allclose(held.kernel, layer.kernel, atol=1e-3)


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda m: learn.dfr(m, *HELD, key=KEY, retrains=0), "retrains must be a whole number >= 1, was 0"),
        (lambda m: learn.dfr(m, *HELD, key=KEY, C=-1.0), "C must be None or a number > 0, was -1.0"),
        (lambda m: learn.dfr(m, *HELD, key=KEY, grid=()), "grid must hold at least one number"),
        (lambda m: learn.dfr(m, HELD[0], HELD[1][:3], key=KEY), r"y must be classes of shape \(400,\).* \(3,\)"),
        (lambda m: learn.dfr(m, *HELD, key=KEY, num_groups=5), "groups must have training examples"),
        (lambda m: learn.dfr(m, HELD[0][:4], HELD[1][:4], [0, 1, 2, 3], key=KEY), "at least 2 examples each"),
        (lambda m: learn.afr(m, *HELD[:2], gamma=-1), "gamma must be a number >= 0"),
        (lambda m: learn.afr(m, HELD[0], HELD[1][:3]), r"y must be classes of shape \(400,\)"),
        (lambda m: learn.dfr(lambda x: x, *HELD, key=KEY), "model must be an nnx.Module"),
        (
            lambda m: learn.fit(m, *HELD[:2], rule=learn.GroupDRO(np.zeros(2), np.ones(2)), key=KEY, steps=1),
            "GroupDRO.start",
        ),
    ],
)
def test_bad_input(erm: nnx.Module, call: Any, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        call(erm)


def test_adversarial_training_trusts_what_cannot_be_moved() -> None:
    """One strong coordinate that is right 9 times of 10, five weak ones that together are right nearly always: within
    ε the weak ones can be turned round. Trained against that, a network gives them up (Tsipras et al. 2019)."""
    rng = np.random.default_rng(0)
    y = rng.integers(0, 2, 1200)
    sign = (2 * y - 1)[:, None]
    strong = sign * np.where(rng.random((1200, 1)) < 0.9, 1.0, -1.0)
    x = np.concatenate([strong, 0.25 * sign + 0.15 * rng.normal(size=(1200, 5))], 1).astype(np.float32)
    box = learn.Adversary(norm="linf", lower=-3, upper=3, steps=3)
    grid = learn.train_at(net, x[:800], y[:800], eps=(0, 0.3), adversary=box, **RUN)
    assert list(grid) == [0.0, 0.3]
    got = {
        eps: learn.robust_accuracy(one.model, x[800:], y[800:], eps=0.3, norm="linf", bounds=(-3.0, 3.0))
        for eps, one in grid.items()
    }
    assert got[0.0].clean > 0.97 > got[0.3].clean > 0.85
    assert got[0.3].robust > got[0.0].robust + 0.2
    assert got[0.3].low > got[0.0].high
