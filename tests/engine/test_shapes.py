"""A sweep over shapes: every attack keeps its promises on images of any size, list length and number of classes."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

import invjax
from invjax import Status
from invjax.attacks import REGISTRY, make

BRIEF = {
    "fgsm": {},
    "pgd": {"steps": 4},
    "forward-backward": {"steps": 4, "trials": 2},
    "gse": {"steps": 4, "patience": 2},
    "gse-released": {"steps": 4, "phase_one_steps": 2, "trials": 2},
    "gse-published": {"steps": 4, "phase_one_steps": 2, "trials": 2},
    "strattack": {"steps": 3, "trials": 2, "retrain_trials": 1, "group_weight": 0.1, "l2_weight": 0.1},
    "fwnucl": {"steps": 3, "trials": 2},
    "homotopy": {"steps": 8, "inner_steps": 3},
    "saif": {"k": 3, "steps": 3},
    "sigma-zero": {"steps": 5},
    "fmn": {"steps": 5},
    "pgd0": {"k": 3, "steps": 3, "restarts": 2},
    "sigma-map": {"k": 3, "steps": 3, "restarts": 2},
    "spgd": {"k": 3, "steps": 5},
    "ead": {"steps": 3, "trials": 2, "step_size": 0.1, "initial_weight": 1.0},
    "jsma": {"share": 0.5, "steps": 6},
    "sparsefool": {"steps": 3, "inner_steps": 4, "prune": 4},
    "sapf": {"k": 30, "steps": 3, "trials": 2, "final_steps": 2},
    "sparse-rs": {"k": 3, "queries": 8},
    "sparse-rs-patch": {"size": 3, "queries": 8},
    "sparse-rs-frame": {"width": 1, "queries": 8},
    "corner-search": {"k": 2, "samples": 2, "listed": 4, "rankings": 2},
    "one-pixel": {"population": 8, "generations": 2, "block": 4},
    "local-search": {"rounds": 2, "half_side": 1, "pixels_per_round": 2, "candidates": 6},
}


EXAMPLE = (7, 5, 3)  # the shape at which some example must succeed, whatever else is drawn


def linear(weights: jax.Array, x: jax.Array) -> jax.Array:
    return jnp.reshape(x, (x.shape[0], -1)) @ weights


def test_every_attack_is_swept() -> None:
    assert set(BRIEF) == set(REGISTRY)


# A picture of one pixel has a constant network.
@pytest.mark.filterwarnings("ignore:.* saw no gradient but zero")
@pytest.mark.parametrize("name", BRIEF)
@settings(max_examples=1)
@example(shape=EXAMPLE, count=4, lanes=2, classes=3, targeted=True)
@given(
    shape=st.tuples(st.integers(1, 11), st.integers(1, 11), st.integers(1, 4)),
    count=st.integers(1, 5),
    lanes=st.integers(1, 3),
    classes=st.integers(2, 5),
    targeted=st.booleans(),
)
def test_any_shape(
    name: str, shape: tuple[int, int, int], count: int, lanes: int, classes: int, targeted: bool
) -> None:
    rng = np.random.default_rng(sum(shape) + count)
    # Grey images on which the classes are nearly tied: a few steps, or a pixel, can be enough.
    weights = rng.normal(size=(int(np.prod(shape)), classes))
    net = jax.tree_util.Partial(linear, jnp.asarray(weights - weights.mean(0), jnp.float32))
    x = 0.4 + 0.2 * rng.random((count, *shape), dtype=np.float32)
    label = rng.integers(0, classes, count)
    target = (label + 1) % classes if targeted else None
    result = invjax.solve(net, x, label, target=target, method=make(name, **BRIEF[name]), lanes=lanes, progress=False)
    answer, status = np.asarray(result.x), np.asarray(result.status)
    assert answer.shape == np.asarray(result.delta).shape == np.asarray(result.attempt).shape == x.shape
    assert answer.dtype == np.float32
    assert answer.min() >= 0
    assert answer.max() <= 1
    np.testing.assert_array_equal(np.asarray(result.delta), answer - x)
    constant = np.prod(shape) == 1  # less their mean, the weights of one pixel are 0
    ended = {Status.FOUND, Status.NOT_FOUND, Status.ALREADY_TARGET} | ({Status.NO_GRADIENT} if constant else set())
    assert set(status.tolist()) <= ended
    unchanged = status != Status.FOUND
    np.testing.assert_array_equal(answer[unchanged], x[unchanged])
    classes_of = np.asarray(net(jnp.asarray(answer))).argmax(1)
    found = status == Status.FOUND
    if shape == EXAMPLE:  # constants under which nothing succeeds would say nothing about successes
        assert found.any(), status
    if target is None:
        assert (classes_of != label)[found].all()
    else:
        assert (classes_of == target)[found].all()
