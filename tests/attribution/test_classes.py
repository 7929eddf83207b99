"""Maps for a class that is none: refused where it can be looked at, NaN where it is traced. Never zeros."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from invjax import attribution
from invjax.attribution import Split
from invjax.metrics.attribution_overlap import iou, overlap, top_region

X = np.random.default_rng(0).uniform(0.1, 0.9, (4, 4, 2)).astype(np.float32)
WEIGHTS = np.random.default_rng(1).normal(size=(2, 3)).astype(np.float32)
K = 3


def features(params: Any, x: Any) -> Any:
    return jnp.tanh(x)


def head(params: Any, a: Any) -> Any:
    return a.mean((1, 2)) @ params


NET = Split(jnp.asarray(WEIGHTS), features, head)
DIVERGED = Split(jnp.full((2, K), jnp.nan), features, head)
FORMS: dict[str, Callable[[Any, Any, Any], Any]] = {
    "grad_cam": lambda net, x, label: attribution.grad_cam(net, x, label),
    "cam": lambda net, x, label: attribution.cam(net, x, label),
    "saliency label": lambda net, x, label: attribution.saliency_map(net, x, label, 1),
    "saliency target": lambda net, x, label: attribution.saliency_map(net, x, 1, label, "and"),
}


@pytest.mark.parametrize("form", FORMS)
def test_one_example(form: str) -> None:
    name = "target" if form.endswith("target") else "label"
    for bad, message in (
        (K, rf"{name} must lie in \[0, 3\), .*, was 3 at index 0"),
        (-2, f"{name} must lie in .*, was -2 at index 0"),
        (2**32 + 1, f"{name} must lie in"),
        (0.7, f"{name} must be a class index, was 0.7 at index 0"),
        ("1", f"{name} must be a class index, was '1' at index 0"),
        ([0, 1], rf"{name} must be one class index, was of shape \(2,\)"),
    ):
        with pytest.raises(ValueError, match=message):
            FORMS[form](NET, X, bad)
    for kind in (np.uint8, np.int32):
        with pytest.raises(ValueError, match=rf"x must be floating point .*, was {np.dtype(kind)}; "):
            FORMS[form](NET, (255 * X).astype(kind), 0)
    maps = jax.jit(jax.vmap(lambda label: FORMS[form](NET, X, label)))(jnp.array([0, K, -7 if name == "label" else K]))
    nan = np.isnan(maps).reshape(3, -1)
    assert not nan[0].any()
    assert nan[1:].all()
    np.testing.assert_allclose(maps[0], FORMS[form](NET, X, 0), atol=1e-5)


def test_a_network_of_nan_has_no_map() -> None:
    assert np.isnan(attribution.grad_cam(DIVERGED, X)).all()
    assert np.isnan(attribution.grad_cams(DIVERGED, X[None])).all()
    assert np.isnan(attribution.cams(DIVERGED, X[None])).all()
    assert np.isnan(attribution.saliency_maps(DIVERGED, X[None], [0], [1], "and")).all()
    m = jnp.full((4, 4), jnp.nan)
    assert np.isnan(iou(m, jnp.ones((4, 4), bool)))


def test_maps_of_whole_numbers_round_nothing() -> None:
    """A quarter of the pixels is no pixel where the share takes the type of the map."""
    whole, real = (np.arange(16).reshape(4, 4).astype(kind) for kind in (np.int32, np.float32))
    np.testing.assert_array_equal(top_region(jnp.asarray(whole)), top_region(jnp.asarray(real)))
    delta = np.array([[[0.25], [0.5]], [[0.0], [0.0]]], np.float32)
    masks = [jnp.asarray([[1, 0], [0, 0]], kind) for kind in (jnp.int32, jnp.float32)]
    measure = jax.jit(overlap)
    for got, expected in zip(*(measure(jnp.asarray(delta), mask) for mask in masks), strict=True):
        np.testing.assert_allclose(got, expected)
