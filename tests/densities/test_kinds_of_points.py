"""A density's constants are never rounded to the type of the point that it is asked about."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from invjax.densities import fit_flow, fit_gmm, fit_kde, fit_knn, fit_lof, fit_vae, hinge
from invjax.densities.released import fit_released_gmm, fit_released_gravity, fit_released_kde
from invjax.metrics import density_rank

X = np.random.default_rng(0).integers(0, 6, (60, 3))
Y = (X[:, 0] > 2).astype(int)
FLOATS = X.astype(np.float32)
FEW: dict[str, Any] = {"steps": 2, "hidden": 4}
FITS: dict[str, Callable[[Any, Any], Any]] = {
    "kde": lambda x, y: fit_kde(x, y, 0.7),
    "kde of the nearest": lambda x, y: fit_kde(x, y, 0.7, 5),
    "gmm": lambda x, y: fit_gmm(x, y, 2, restarts=1, steps=2),
    "knn": lambda x, y: fit_knn(x, y, 5),
    "lof": lambda x, y: fit_lof(x, y, 5),
    "vae": lambda x, y: fit_vae(x, y, **FEW),
    "flow": lambda x, y: fit_flow(x, y, **FEW),
    "hinge": lambda x, y: hinge(fit_kde(x, y, 0.7), x, y),
    "released kde": lambda x, y: fit_released_kde(x, y, 0.7),
    "released gmm": lambda x, y: fit_released_gmm(x, y, 2, steps=2),
    "released gravity": lambda x, y: fit_released_gravity(x, y, 5),
}


KINDS = (jnp.float32, jnp.int32, jnp.bfloat16)


@jax.jit
def values_of(density: Any, rows: list[Any]) -> list[Any]:
    return [density.log_prob(row, jnp.asarray(1)) for row in rows]


@pytest.mark.parametrize("name", FITS)
def test_the_same_value_at_the_same_numbers(name: str) -> None:
    density = FITS[name](X, Y)
    expected, *values = values_of(density, [jnp.asarray(FLOATS[3], kind) for kind in KINDS])
    for got in values:
        assert got.dtype == jnp.float32
        assert float(got) == pytest.approx(float(expected), rel=1e-6, abs=1e-6)


@pytest.mark.parametrize("fit", [fit_kde, fit_knn, fit_lof])
def test_points_of_16_bits_are_kept_as_float32(fit: Callable[..., Any]) -> None:
    for kind in (np.float16, jnp.bfloat16):
        narrow, wide = fit(FLOATS.astype(kind), Y), fit(FLOATS, Y)
        for got, expected in zip(jax.tree.leaves(narrow), jax.tree.leaves(wide), strict=True):
            np.testing.assert_array_equal(got, expected)
        held = narrow.held_out_log_prob(FLOATS[:9].astype(kind), Y[:9])
        np.testing.assert_array_equal(held, wide.held_out_log_prob(FLOATS[:9], Y[:9]))


def test_ranks_of_a_table_of_whole_numbers() -> None:
    density = FITS["gmm"](X, Y)
    whole, real = (density_rank(density, rows[:4], Y[:4], rows, Y) for rows in (X, FLOATS))
    np.testing.assert_allclose(whole, real, rtol=1e-6)
    with pytest.raises(ValueError, match=r"classes must lie in \[0, 2\), the classes of the density, was 2 at index"):
        density_rank(density, X[:4], Y[:4], X, Y + 1)


def test_classes_that_a_density_does_not_have() -> None:
    density = FITS["kde"](X, Y)
    for y, message in (
        (Y + 1, r"y must lie in \[0, 2\), the classes of the density, was 2 at index .*; the first .* subtract 1"),
        (Y + 0.5, r"y must be classes 0 … 1 as whole numbers, was .5 at index 0|was 1.5 at index 0"),
        (Y.astype(str), "y must be classes 0 … 1 as whole numbers, was '.' at index 0"),
    ):
        with pytest.raises(ValueError, match=message):
            density.held_out_log_prob(X, y)
    with pytest.raises(ValueError, match="y must be classes 0, 1, … as whole numbers, was 4294967297 at index 1"):
        fit_kde(X, np.where(np.arange(60) == 1, 2**32 + 1, 0), 0.7)
