"""The penalties φ of one number and their exact proximal maps on an interval."""

from __future__ import annotations

import jax.numpy as jnp

from invjax import prox as maps
from invjax.core.errors import BadArgument
from invjax.core.numerics import safe_sqrt
from invjax.types import Array

PENALTIES = ("none", "l0", "l_half", "l_two_thirds", "l1")


def check_penalty(penalty: str) -> None:
    """ValueError unless it is one of PENALTIES."""
    if penalty not in PENALTIES:
        raise BadArgument("penalty", f"be one of {', '.join(map(repr, PENALTIES))}", penalty)


def phi(r: Array, penalty: str) -> Array:
    """``φ(r)`` elementwise: 0, [r ≠ 0], |r|^(1/2), |r|^(2/3), |r|."""
    if penalty == "none":
        return jnp.zeros_like(r)
    if penalty == "l0":
        return (r != 0).astype(r.dtype)
    size = jnp.abs(r)
    if penalty == "l1":
        return size
    return safe_sqrt(size) if penalty == "l_half" else jnp.square(jnp.cbrt(size))


def separable(y: Array, w: Array, low: Array, high: Array, penalty: str) -> Array:
    """``argmin_c 1/2 (c − y)² + w φ(c)`` on low <= c <= high, elementwise. w: [] or like y."""
    if penalty == "none":
        return jnp.clip(y, low, high)
    chosen = {"l0": maps.l0, "l_half": maps.l_half, "l_two_thirds": maps.l_two_thirds, "l1": maps.l1}[penalty]
    return chosen(y, w, lower=low, upper=high)
