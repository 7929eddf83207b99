"""Adversarial saliency maps against formulas, jacobians and brute force; no example sees another."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import nets
import numpy as np
import pytest

from invjax import attribution
from invjax.core.rows import Picked, map_rows
from invjax.types import UNTARGETED

N, K = 10, 4


@pytest.fixture(scope="module")
def task() -> nets.Task:
    return nets.task(nets.conv(), count=N)


@pytest.fixture(scope="module")
def jacobian(task: nets.Task) -> np.ndarray:
    """[N, K, *S] of each example by itself, one row of the network at a time."""
    one = jax.jit(jax.jacrev(lambda x: task.net(x[None])[0]))
    return np.stack([np.asarray(one(x)) for x in task.x])


def by_hand(jacobian: np.ndarray, label: np.ndarray, target: np.ndarray, indicator: str) -> np.ndarray:
    maps = np.zeros_like(jacobian[:, 0])
    for n in range(len(jacobian)):
        for at in np.ndindex(*jacobian.shape[2:]):
            up, own = float(jacobian[n, target[n]][at]), float(jacobian[n, label[n]][at])
            allowed = {"none": True, "or": up >= 0 or own <= 0, "and": up >= 0 and own <= 0}[indicator]
            maps[n][at] = up * abs(own) if allowed else 0.0
    return maps


@pytest.mark.fast
@pytest.mark.parametrize("indicator", attribution.INDICATORS)
def test_equals_the_formula_entry_by_entry(
    task: nets.Task, jacobian: np.ndarray, indicator: attribution.saliency.Indicator
):
    maps = attribution.saliency_maps(task.net, task.x, task.label, task.target, indicator)
    expected = by_hand(jacobian, task.label, task.target, indicator)
    assert maps.shape == task.x.shape
    assert maps.dtype == np.float32
    np.testing.assert_allclose(maps, expected, atol=1e-6 * np.abs(expected).max())
    share = (maps == 0).mean()
    assert {"none": share < 0.1, "or": 0.1 < share < 0.5, "and": share > 0.5}[indicator]


def test_linear_classifier_is_exact():
    net = nets.linear(classes=K)
    x = np.random.default_rng(0).uniform(size=(2, *nets.SMALL)).astype(np.float32)
    w = np.asarray(net.params["w"])
    maps = attribution.saliency_maps(net, x, [0, 1], [2, 3])
    np.testing.assert_array_equal(maps.reshape(2, -1), [w[:, 2] * abs(w[:, 0]), w[:, 3] * abs(w[:, 1])])


def test_untargeted_is_towards_the_strongest_other_class(task: nets.Task):
    logits = np.array(task.net(task.x))
    logits[np.arange(N), task.label] = -np.inf
    maps = attribution.saliency_maps(task.net, task.x, task.label)
    np.testing.assert_array_equal(maps, attribution.saliency_maps(task.net, task.x, task.label, logits.argmax(1)))
    mixed = np.where(np.arange(N) % 2 == 0, UNTARGETED, task.target)
    some = attribution.saliency_maps(task.net, task.x, task.label, mixed)
    np.testing.assert_array_equal(some[::2], maps[::2])
    np.testing.assert_array_equal(
        some[1::2], attribution.saliency_maps(task.net, task.x, task.label, task.target)[1::2]
    )


def test_a_map_does_not_depend_on_its_batch(task: nets.Task):
    """The released code's does: it seeds every row with the classes of all rows."""
    maps = attribution.saliency_maps(task.net, task.x, task.label, task.target)
    order = np.random.default_rng(1).permutation(N)
    others = attribution.saliency_maps(task.net, task.x[order], task.label[order], task.target[order])
    np.testing.assert_array_equal(others, maps[order])  # bit for bit, at the same size of batch
    scale = np.abs(maps).max()
    one = jax.jit(attribution.saliency_map)
    for n in range(3):
        alone = one(task.net, jnp.asarray(task.x[n]), task.label[n], task.target[n])
        np.testing.assert_allclose(alone, maps[n], atol=1e-6 * scale)
    # The defect, reproduced: with the gradients of summed logits the map of a row is another one.
    seeds = np.zeros((N, K), np.float32)
    seeds[:, task.target] = 1
    summed = jax.vjp(task.net, jnp.asarray(task.x))[1](jnp.asarray(seeds))[0]
    assert np.abs(np.asarray(summed * jnp.abs(summed)) - maps).max() > 0.1 * scale


def test_under_jit_and_vmap(task: nets.Task):
    run = jax.jit(jax.vmap(attribution.saliency_map, (None, 0, 0, 0)))
    maps = attribution.saliency_maps(task.net, task.x, task.label, task.target)
    np.testing.assert_allclose(run(task.net, task.x, task.label, task.target), maps, atol=1e-6 * np.abs(maps).max())


def test_lists_go_map_rows_of_one_program(task: nets.Task):
    maps = attribution.saliency_maps(task.net, task.x, task.label, task.target, batch=4)
    whole = attribution.saliency_maps(task.net, task.x, task.label, task.target)
    np.testing.assert_allclose(maps, whole, atol=1e-6 * np.abs(whole).max())
    with nets.compilations() as compiled:
        seven = attribution.saliency_maps(nets.conv(seed=3), task.x[:7], task.label[:7], task.target[:7], batch=4)
    assert seven.shape == (7, *nets.SMALL)
    assert not [name for name in compiled if "_run" in name], compiled


def _plus(shared: jax.Array, a: jax.Array, b: jax.Array | None, times: int) -> tuple[jax.Array, jax.Array]:
    return shared + a * times, a if b is None else b


@pytest.mark.parametrize("count", [1, 3, 4, 5, 9])
def test_map_rows_keeps_the_order(count: int):
    a, b = np.arange(count, dtype=np.float32), 10 + np.arange(20, dtype=np.float32)
    index = np.arange(count)[::-1] + 3
    first, second = map_rows(_plus, np.float32(1), a, Picked(b, index), static=(2,), batch=4)
    np.testing.assert_array_equal(first, 1 + 2 * a)
    np.testing.assert_array_equal(second, b[index])
    np.testing.assert_array_equal(map_rows(_plus, np.float32(1), a, None, static=(2,), batch=4)[1], a)


def test_finite_where_the_network_is_flat():
    flat = attribution.saliency_map(lambda x: jnp.zeros((x.shape[0], 3)) + x.sum() * 0, jnp.ones((2, 2, 1)), 0, 1)
    np.testing.assert_array_equal(flat, 0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"indicator": "xor"}, "indicator must be one of 'none', 'or', 'and', was 'xor'"),
        ({"label": [0, 9]}, r"label must lie in \[0, 4\).*was 9 at index 1"),
        ({"label": [0, 1, 2]}, r"label must have one entry per example, shape \(2,\), was of shape \(3,\)"),
        ({"target": [0, -2]}, r"target must lie in \[0, 4\).*was -2"),
        ({"target": [0]}, r"target must have one entry per example"),
        ({"x": np.zeros((0, 8, 8, 1), np.float32)}, "x must hold at least one example"),
        ({"x": np.zeros((2, 8, 8, 1), np.uint8)}, "x must be floating point in the data range, was uint8"),
        ({"x": np.zeros((2, 3, 3, 1), np.float32)}, "logits must accept x of shape"),
        ({"batch": 0}, "batch must be a whole number >= 1, was 0"),
    ],
)
def test_bad_arguments(change: dict, message: str):
    given = {"x": np.zeros((2, *nets.SMALL), np.float32), "label": [0, 1], "target": [1, 0], **change}
    with pytest.raises(ValueError, match=message):
        attribution.saliency_maps(nets.linear(classes=K), **given)
