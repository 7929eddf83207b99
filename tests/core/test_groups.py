"""Group labels of coordinates: whole numbers within their number, or an error that names the first other."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from invjax import prox

pytestmark = pytest.mark.fast
V = jnp.arange(4.0)


@pytest.mark.parametrize(
    ("groups", "was"),
    [([0, 1, 2, 1], "2 at index 2"), ([0, 0, -1, 1], "-1 at index 2"), ([0, 0.5, 1, 1], "0.5 at index 1"),
     (np.array([0, 1, 1, 2**32]), "4294967296 at index 3"), (["a"] * 4, "'a' at index 0")],
)  # fmt: skip
def test_groups_beyond_their_number(groups: Any, was: str) -> None:
    """A label beyond num_groups would fall out of every sum, and take the last group's value."""
    with pytest.raises(ValueError, match=f"groups must .*, was {was}"):
        prox.group_l2(V, 0.1, groups=groups, num_groups=2)


def test_traced_groups_are_taken() -> None:
    groups = jnp.array([0, 0, 1, 1], jnp.uint8)
    traced = jax.jit(lambda groups: prox.group_l2(V, 0.1, groups=groups, num_groups=2))(groups)
    np.testing.assert_allclose(traced, prox.group_l2(V, 0.1, groups=groups, num_groups=2), rtol=1e-6)
