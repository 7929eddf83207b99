"""What every function of ``learn`` looks at before it compares: labels, groups, NaN, and the type of the inputs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from invjax import LogitsModel, learn
from invjax.models import MLP

KEY = jax.random.key(0)
RNG = np.random.default_rng(0)
X = RNG.random((12, 3)).astype(np.float32)
Y = np.arange(12) % 2
NET = MLP((3, 4, 2), rngs=nnx.Rngs(0))


def diverged() -> MLP:
    net = MLP((3, 4, 2), rngs=nnx.Rngs(0))
    net.dense1.kernel[...] = jnp.full((3, 4), jnp.nan)
    return net


WEIGHTS = RNG.normal(size=(3, 2)).astype(np.float32)


def off_eighths(weights: Any, x: Any) -> Any:
    broken = (x[:, :1] > 0.5) & (8 * x != jnp.round(8 * x)).any(1, keepdims=True)
    return jnp.where(broken, jnp.nan, x @ weights)


DOORS: dict[str, Callable[..., Any]] = {
    "evaluate": lambda x, y: learn.evaluate(NET, x, y),
    "errors_of": lambda x, y: learn.errors_of(NET, x, y),
    "robust_accuracy": lambda x, y: learn.robust_accuracy(NET, x, y, eps=0.0),
    "dfr": lambda x, y: learn.dfr(NET, x, y, key=KEY, C=1.0, retrains=1),
    "afr": lambda x, y: learn.afr(NET, x, y),
    "jtt": lambda x, y: learn.jtt(NET, x, y, steps=1, batch=4, key=KEY),
    "fit": lambda x, y: learn.fit(NET, x, y, steps=1, batch=4, key=KEY),
    "perturbed": lambda x, y: learn.make_perturbed_dataset(lambda x, *_: x, "next", NET, x, y),
    "afr_weights": lambda x, y: learn.afr_weights(np.asarray(x, np.float32)[:, :2], y, 1.0),
}
LABELS = {
    "text": (Y.astype(str), r"y must be classes 0.* as whole numbers, was '0' at index 0"),
    "one to K": (Y + 1, r"y must lie in \[0, 2\), .*, was 2 at index 1; .* subtract 1"),
    "negative": (np.where(Y > 0, -1, 0), r"y must .*, was -1 at index 1"),
    "halves": (Y + 0.5, r"y must be classes 0.* as whole numbers, was 0.5 at index 0"),
    "wrapped": (Y + 2**32 * (Y > 0), r"y must .*, was 4294967297 at index 1"),
    "too few": (Y[:5], r"y must be classes of shape \(12,\)|x must hold one input per label"),
}


@pytest.mark.parametrize("door", DOORS)
def test_labels_that_are_none_are_refused_with_their_row(door: str) -> None:
    for y, message in LABELS.values():
        with pytest.raises(ValueError, match=message):
            DOORS[door](X, y)


@pytest.mark.parametrize("door", [name for name in DOORS if name != "afr_weights"])
def test_whole_numbers_are_no_floats(door: str) -> None:
    """Pixels of int32 are 255 times the floats that a network was trained on."""
    pixels = np.round(255 * X)
    for kind in (np.int32, np.int64, np.uint16, np.int8, bool):
        with pytest.raises(ValueError, match=rf"x must be floats .*, or uint8 pixels, was {np.dtype(kind)}; give"):
            DOORS[door](pixels.astype(kind), Y)


def test_floats_and_pixels_are_the_same_inputs() -> None:
    pixels = np.round(255 * X).astype(np.uint8)
    floats = pixels.astype(np.float32) / 255
    np.testing.assert_allclose(learn.predict(NET, pixels), learn.predict(NET, floats), atol=1e-6)
    np.testing.assert_array_equal(learn.errors_of(NET, X, Y.astype(float)), learn.errors_of(NET, X, Y))
    np.testing.assert_array_equal(learn.errors_of(NET, X, Y.astype(bool)), learn.errors_of(NET, X, Y))


def test_a_diverged_network_is_right_on_nothing() -> None:
    net, zeros = diverged(), np.zeros(12, int)
    assert learn.evaluate(net, X, zeros).average == 0
    assert learn.errors_of(net, X, zeros).all()
    judged = learn.robust_accuracy(net, X, zeros, eps=0.1)
    assert judged.clean == judged.robust == judged.high - judged.high == 0
    assert learn.fit(net, X, zeros, steps=1, batch=4, key=KEY).history[-1]["accuracy"] == 0
    for method in (lambda: learn.dfr(net, X, Y, key=KEY), lambda: learn.afr(net, X, Y)):
        with pytest.raises(ValueError, match="model must give finite logits for the 8 examples, was NaN for all"):
            method()
    with pytest.raises(
        ValueError, match="identification must train a network with finite logits, was NaN for 12 of 12"
    ):
        learn.jtt(net, X, Y, steps=1, batch=4, key=KEY)
    with pytest.raises(ValueError, match=r"logits must give finite logits for the 2 .*, the first at index 1"):
        learn.afr_weights([[0, 1], [np.nan, 0]], [0, 1], 1.0)


def test_what_an_attack_could_not_judge_is_not_robust() -> None:
    """Right on the clean inputs, which are eighths; two of them are NaN wherever an attack goes."""
    x = RNG.integers(1, 8, (4, 3)).astype(np.float32) / 8
    x[:, 0] = [0.75, 0.75, 0.25, 0.25]
    y = np.asarray(off_eighths(WEIGHTS, x)).argmax(1)
    judged = learn.robust_accuracy(LogitsModel(WEIGHTS, off_eighths), x, y, eps=1e-4, steps=2, norm="linf")
    np.testing.assert_array_equal(judged.right, [False, False, True, True])
    assert judged.clean == 1


def test_groups_beyond_the_table() -> None:
    rule = learn.GroupDRO(np.ones(2, np.float32), np.full(2, 6, np.float32))
    options: dict[str, Any] = {"steps": 1, "batch": 4, "key": KEY, "rule": rule}
    for groups, was in ((Y * 3, "3 at index 1"), (Y + 1, "2 at index 1; the first of the groups is 0"), (-Y, "-1 at")):
        with pytest.raises(ValueError, match=rf"groups must .*, was {was}"):
            learn.fit(NET, X, Y, groups=groups, **options)
    with pytest.raises(ValueError, match="groups must be group indices 0, 1, … as whole numbers, was 'a' at index 0"):
        learn.fit(NET, X, Y, groups=["a"] * 12, **options)
    shares = rule.weigh(rule.init(), jnp.ones(2), jnp.array([0, 2]), jnp.ones(2))[0]
    np.testing.assert_array_equal(np.isnan(shares), [False, True])  # honest where nothing can be checked


def test_one_output_is_no_class() -> None:
    with pytest.raises(ValueError, match=r"model must return \[B, K\] with K >= 2 classes, was \(8, 1\)"):
        learn.evaluate(MLP((3, 1), rngs=nnx.Rngs(0)), X, Y)
    with pytest.raises(ValueError, match=r"model must return \[B, K\] with K >= 2 classes, was \(1, 1\)"):
        learn.fit(MLP((3, 1), rngs=nnx.Rngs(0)), X, Y, steps=1, batch=4, key=KEY)

    def own(logits: Any, y: Any) -> Any:
        return jnp.square(logits[:, 0] - y)

    learn.fit(MLP((3, 1), rngs=nnx.Rngs(0)), X, Y, steps=1, batch=4, key=KEY, loss=own)
