"""Weights below 0, boxes without a point and radii below 0 are refused wherever their numbers are known."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from invjax import BadArgument, penalties, projections, prox

pytestmark = pytest.mark.fast

V = np.array([0.5, -2.0, 1.0], np.float32)
ELEMENTWISE = [prox.l1, prox.l0, prox.l_half, prox.l_two_thirds, prox.group_l2, prox.group_l0]
BALLS = [projections.linf_ball, projections.l2_ball, projections.l1_ball, projections.top_m]
KINDS = [penalties.l1, penalties.l0, penalties.l_half, penalties.l_two_thirds, penalties.group_l2, penalties.group_l0]
BAD: list[tuple[Callable[[], object], str]] = [
    *[(lambda f=f: f(V, -0.1), "w must be >= 0, was -0.1") for f in ELEMENTWISE],
    *[(lambda f=f: f(V, float("nan")), "w must be >= 0, was nan") for f in ELEMENTWISE],
    *[(lambda f=f: f(V, 0.1, lower=1.0, upper=-1.0), "lower must be at most upper, was 1.0") for f in ELEMENTWISE],
    *[(lambda f=f: f(V, -1), "must be >= 0, was -1") for f in BALLS],
    *[(lambda f=f: f(V, 1, lower=0.5, upper=0.0), "lower must be at most upper, was 0.5") for f in BALLS],
    *[(lambda f=f: f(-1.0), "weight must be >= 0, was -1.0") for f in KINDS],
    (lambda: prox.l1(V, jnp.array([0.1, -0.2, 0.3])), r"w must be >= 0, was -0\.2.* at index 1"),
    (lambda: prox.l1(V, 0.1, lower=[0, 2, 0], upper=[1, 1, 1]), "lower must be at most upper, was 2.0 at index 1"),
    (lambda: prox.l1(V, 0.1, lower=float("nan")), "lower must be numbers, was nan"),
    (lambda: prox.threshold(-1.0, 0.5), "w must be >= 0"),
    (lambda: prox.zero_weight(-1.0, 0.5), "magnitude must be >= 0"),
    (lambda: projections.box(V, 1.0, 0.0), "lower must be at most upper"),
    (lambda: projections.simplex(V, 0.0), "total must be > 0, was 0.0"),
    (lambda: projections.top_m_groups(V, -1, np.arange(3), num_groups=3), "m must be >= 0"),
    (lambda: penalties.top_m(-1), "m must be >= 0"),
    (lambda: penalties.top_m_groups(-1), "m must be >= 0"),
    (lambda: penalties.box(1.0, 0.0), "lower must be at most upper"),
    (lambda: penalties.in_box(penalties.l1(1.0), 1.0, 0.0), "lower must be at most upper"),
    (lambda: penalties.in_box(penalties.box(0.0, 1.0), 2.0, 3.0), "lower must be at most upper"),
    (lambda: penalties.scaled(penalties.l1(1.0), -1.0), "factor must be >= 0"),
    (lambda: penalties.l1(1.0).prox(V, -1.0), "step must be >= 0"),
]  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_bad_numbers_are_named(case: tuple[Callable[[], object], str]) -> None:
    call, message = case
    with pytest.raises(BadArgument, match=message):
        call()


def test_what_is_traced_is_not_looked_at() -> None:
    assert jax.jit(prox.l1)(V, -0.1).shape == (3,)
    np.testing.assert_array_equal(prox.l1(V, 0.0, lower=0.5, upper=0.5), [0.5] * 3)
    np.testing.assert_array_equal(prox.l1(V, np.inf), [0.0] * 3)
