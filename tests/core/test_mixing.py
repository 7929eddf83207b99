"""Networks that mix their batch are refused, or at the latest their answers are taken back; asked once, one program."""

from __future__ import annotations

import gc
import re
import warnings
import weakref
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import nets
import numpy as np
import pytest
from flax import nnx

import invjax
from invjax import Status, engine
from invjax.attacks import FGSM, PGD
from invjax.core.mixing import check_names_classes
from invjax.counterfactuals import face
from invjax.models import MLP, as_logits, black_box, load

pytestmark = pytest.mark.fast
SHAPE = (6,)
TASK = nets.task(nets.linear(SHAPE), SHAPE, count=12)
W = TASK.net.params["w"]


def plain(w: Any, x: Any) -> Any:
    return (x - 0.5) @ w


def batch_statistics(w: Any, x: Any) -> Any:
    """BatchNorm in training mode, as Linen has it with use_running_average=False."""
    h = plain(w, x)
    return (h - h.mean(0)) / jnp.sqrt(h.var(0) + 1e-5)


def fixed_noise(w: Any, x: Any) -> Any:
    return plain(w, x + 0.3 * jax.random.normal(jax.random.key(0), x.shape, x.dtype))


def last_row(w: Any, x: Any) -> Any:
    return plain(w, x.at[-1].add(0.05))


def a_little(w: Any, x: Any) -> Any:
    return plain(w, x + 0.05 * x.mean())


def of_the_size(w: Any, x: Any) -> Any:
    """Mixes what is not a batch of eight: the first check cannot see it."""
    return plain(w, x) if x.shape[0] == 8 else batch_statistics(w, x)


def narrow(w: Any, x: Any) -> Any:
    """bfloat16 inside, float32 outside."""
    hidden = jax.nn.relu(x.astype(jnp.bfloat16) @ w.astype(jnp.bfloat16))
    return (hidden @ w.T.astype(jnp.bfloat16)).astype(jnp.float32)


def minus_infinity(w: Any, x: Any) -> Any:
    return plain(w, x).at[:, 3].set(-jnp.inf)


def solve(logits: Any, method: Any = None, **options: Any) -> invjax.Result:
    method = FGSM(eps=0.1) if method is None else method
    return invjax.solve(logits, TASK.x, TASK.label, method=method, progress=False, **options)


MIXES = [batch_statistics, fixed_noise, last_row, a_little]


@pytest.mark.parametrize("apply", MIXES)
def test_refused(apply: Any) -> None:
    """However it is handed in, at every call, and of one example too."""
    for _ in range(2):
        with pytest.raises(ValueError, match="logits must not mix the examples of a batch"):
            solve(invjax.LogitsModel(W, apply))
    with pytest.raises(ValueError, match="logits must not mix"):
        invjax.solve(partial(apply, W), TASK.x[0], TASK.label[0], method=FGSM(eps=0.1))
    with pytest.raises(ValueError, match="model must not mix"):
        as_logits(invjax.LogitsModel(W, apply), example=SHAPE)
    with pytest.raises(ValueError, match="model must not mix"):
        face(invjax.LogitsModel(W, apply), TASK.x, TASK.label, TASK.target, train_x=TASK.x, train_y=TASK.label)


@pytest.mark.parametrize("apply", [narrow, minus_infinity])
def test_accepted(apply: Any) -> None:
    solve(invjax.LogitsModel(W, apply))


def test_residual_network_is_accepted() -> None:
    as_logits(load("resnet20", nets.NARROW), example=(32, 32, 3))


def test_once_per_structure(monkeypatch: pytest.MonkeyPatch) -> None:
    """The second call neither compiles nor asks; new weights do not either; a network of another structure does."""
    asked = []
    real = invjax.core.mixing.check_unmixed
    monkeypatch.setattr(invjax.core.mixing, "check_unmixed", lambda *args: asked.append(real(*args)))
    for seed in range(3):
        net = MLP((6, 13, 4), rngs=nnx.Rngs(seed))
        with nets.compilations() as names:
            solve(net)
        assert len(asked) == 1
        assert names.count("jit(_look)") == (seed == 0), names  # the check and the end share one program
        assert names == [] or seed == 0
    solve(net, PGD(eps=0.1, steps=2))
    solve(net, lanes=5)
    assert len(asked) == 1
    solve(MLP((6, 14, 4), rngs=nnx.Rngs(0)))
    assert len(asked) == 2


def test_inside_a_program_nothing_is_asked() -> None:
    """And it does not count as asked."""
    model = invjax.LogitsModel(W, lambda w, x: batch_statistics(w, x))
    jax.jit(lambda x: invjax.solve(model, x, TASK.label, method=FGSM(eps=0.1)).status)(TASK.x)
    jax.jit(lambda eps: solve(model, FGSM(eps=eps)).status)(0.1)
    with pytest.raises(ValueError, match="must not mix"):
        solve(model)


def test_no_weights_are_kept() -> None:
    w = jnp.asarray(W) + 1
    kept = weakref.ref(w)
    solve(invjax.LogitsModel(w, plain))
    del w
    gc.collect()
    assert kept() is None


@pytest.mark.parametrize("lanes", [12, 5])
def test_answers_that_do_not_hold_are_taken_back(lanes: int, tmp_path: Any) -> None:
    model = invjax.LogitsModel(W, of_the_size)
    label = np.asarray(model(TASK.x)).argmax(1).astype(np.int32)
    for out in (None, tmp_path / "run"):
        with pytest.warns(UserWarning, match=r"\d+ of \d+ answers were FOUND .* do not hold in another batch"):
            result = invjax.solve(model, TASK.x, label, method=PGD(eps=0.1, steps=5), lanes=lanes, out=out)
        status = np.asarray(result.status)
        back = (status == Status.NOT_FOUND) & (np.asarray(model(result.attempt)).argmax(1) != label)
        assert back.any()
        np.testing.assert_array_equal(np.asarray(result.x)[back], TASK.x[back])
        np.testing.assert_array_equal(np.asarray(result.delta)[back], 0)
        found = status == Status.FOUND
        logits = np.array(plain(W, np.asarray(result.x)[found]))
        own = logits[np.arange(len(logits)), label[found]].copy()
        logits[np.arange(len(logits)), label[found]] = -np.inf
        assert (own - logits.max(1)).max() < 2e-3 * np.abs(own).max()  # answers on the very boundary are kept
    again = invjax.solve(model, TASK.x, label, method=PGD(eps=0.1, steps=5), lanes=lanes, out=out)
    nets.same(again, result)  # the folder has confirmed answers: read back without a word


def off(method: Any, ctx: Any, config: Any, problems: Any, states: Any, points: Any) -> Any:
    """Noise of the lane."""
    shift = 0.2 * jax.random.normal(jax.random.key(0), points.shape, points.dtype)
    return invjax.white_box(method, ctx, config, problems, states, points + shift)._replace(point=points)


def own(method: Any, ctx: Any, config: Any, problems: Any, states: Any, points: Any) -> Any:
    """Noise of the example."""
    shift = 0.2 * jax.vmap(lambda key: jax.random.normal(key, points.shape[1:], points.dtype))(problems.key)
    return invjax.white_box(method, ctx, config, problems, states, points + shift)._replace(point=points)


def test_the_evaluator_in_force_is_asked() -> None:
    """What it found by the example's own noise is confirmed with that noise; noise of the lane is found out."""
    attack = PGD(eps=0.3, step_size=0.1, steps=4)
    assert (np.asarray(solve(TASK.net, attack, evaluator=own).status) == Status.FOUND).any()
    with pytest.warns(UserWarning, match="do not hold in another batch"):
        solve(TASK.net, attack, evaluator=off)

    class Loose:
        repeatable = False
        __call__ = staticmethod(off)

    solve(TASK.net, attack, evaluator=Loose())


def test_a_black_box_is_not_asked_more_often() -> None:
    rows: list[int] = []

    def predict(x: np.ndarray) -> np.ndarray:
        rows.append(len(x))
        z = (x - 0.5) @ np.asarray(W)
        return np.exp(z) / np.exp(z).sum(1, keepdims=True)

    result = solve(black_box(predict, 4), FGSM(eps=0.1), evaluator=engine.antithetic(coordinates=True))
    assert (np.asarray(result.status) == Status.FOUND).any()
    assert sum(rows) == 2 * 12 * 13  # the clean inputs and the step: each 1 + 2 D points of twelve rows


@pytest.mark.parametrize(
    ("output", "message"),
    [
        (jax.nn.softmax, "look like probabilities"),
        (lambda z: jax.nn.one_hot(z.argmax(1), 4), r"look like classes \(0 and 1 alone\)"),
        (lambda z: jnp.round(9 * z), "look like rounded scores"),
    ],
)
def test_outputs_that_are_no_logits_are_named(output: Any, message: str) -> None:
    model = invjax.LogitsModel(W, lambda w, x: output(plain(w, x)))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        solve(model)
        solve(model)  # once
    said = [warning for warning in caught if re.search(message, str(warning.message))]
    assert [warning.filename for warning in said] == [__file__], "at the line of the user's call"
    solve(invjax.LogitsModel(W, lambda w, x: jax.nn.log_softmax(plain(w, x))))


def test_whole_numbers() -> None:
    """Integer outputs are refused. Whole logits of whole inputs are nothing to speak of; nor is one sum of 1."""
    with pytest.raises(ValueError, match="logits must return floating-point logits, was int32"):
        solve(invjax.LogitsModel(W, lambda w, x: (9 * plain(w, x)).astype(jnp.int32)))
    said = invjax.core.mixing.unlike_logits
    assert said(np.array([[1.0, 2.0], [3.0, 0.0]]), np.array([[0.0], [1.0]])) is None
    assert said(np.array([[0.25, 0.75]])) is None
    assert said(np.array([[0.25, 0.75], [0.5, 0.6]])) is None


def test_probabilities_of_a_black_box_without_log() -> None:
    def predict(x: np.ndarray) -> np.ndarray:
        z = np.exp((x - 0.5) @ np.asarray(W))
        return z / z.sum(1, keepdims=True)

    with pytest.warns(UserWarning, match="predict_proba: the outputs look like probabilities"):
        black_box(predict, 4, log=False)(TASK.x).block_until_ready()
    black_box(predict, 4, log=False)(TASK.x).block_until_ready()  # once per function
    black_box(lambda x: predict(x), 4)(TASK.x).block_until_ready()
    black_box(lambda x: np.log(predict(x)), 4, log=False)(TASK.x).block_until_ready()


@pytest.mark.parametrize("kind", ["rbg", "unsafe_rbg"])
def test_keys_of_every_kind(kind: str) -> None:
    """Draws of these kinds depend on the batch under vmap: they are turned into threefry, which stays as it is."""
    attack = PGD(eps=0.3, step_size=0.1, steps=3, random_start=True)
    key, order = jax.random.key(5, impl=kind), np.random.default_rng(0).permutation(12).astype(np.int32)
    result = solve(TASK.net, attack, key=key)
    words = {"method": attack, "key": key}
    moved = invjax.solve(TASK.net, TASK.x[order], TASK.label[order], ids=order, **words)
    nets.same(moved, result[order])
    alone = invjax.solve(TASK.net, TASK.x[7:8], TASK.label[7:8], ids=order[order == 7], **words)
    np.testing.assert_allclose(alone.attempt[0], result.attempt[7], atol=1e-6)
    other = solve(TASK.net, attack, key=jax.random.key(6, impl=kind))
    assert (np.asarray(other.attempt) != np.asarray(result.attempt)).any()

    three = jax.random.key(5)
    assert invjax.core.errors.check_key(three) is three
    plain_answers = solve(TASK.net, attack, key=three)
    nets.same(solve(TASK.net, attack, key=jax.random.key_data(three)), plain_answers)  # a key of the old kind
    with jax.default_prng_impl(kind):
        nets.same(solve(TASK.net, attack), solve(TASK.net, attack, key=jax.random.key(0, impl="threefry2x32")))


def test_a_network_of_nan_names_no_class() -> None:
    """Some NaN is the business of single rows; NaN for all of the first rows is that of the network."""
    x = np.zeros((20, 3), np.float32)
    x[0] = 1
    for broken, refused in ((0, False), (0.5, False), (2, True)):
        net = invjax.LogitsModel(np.float32(broken), _nan_below)
        if refused:
            with pytest.raises(ValueError, match="net must give finite logits, was NaN for each of the first 8 inputs"):
                check_names_classes(net, x, "net")
        else:
            check_names_classes(net, x, "net")


def _nan_below(limit, x):
    return jnp.where(x[:, :2] < limit, jnp.nan, x[:, :2])
