"""Hashable functions ``(params, x) -> logits``: the static half of a :class:`invjax.core.logits.LogitsModel`."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp

from invjax.core.errors import BadArgument
from invjax.core.shown import shown
from invjax.types import Array

Apply = Callable[[Any, Any], Array]  # (params, x [B, *S] in the data range) -> logits [B, K]


@dataclasses.dataclass(frozen=True)
class FunctionApply:
    """A plain function ``logits(x)`` in the place of ``apply``; equal exactly where the function is the same."""

    function: Callable[[Array], Array]

    def __call__(self, params: Any, x: Array) -> Array:
        del params
        return self.function(x)

    def __repr__(self) -> str:
        return shown(self.function)


def has_halves(model: Any) -> bool:
    """Whether ``model`` has methods ``features`` and ``head``, one after the other its logits."""
    return all(callable(getattr(model, name, None)) for name in ("features", "head"))


@dataclasses.dataclass(frozen=True)
class PytreeApply:
    """For a callable that is itself a pytree of weights: params(x), or another of its methods."""

    method: str = "__call__"

    def __call__(self, params: Any, x: Array) -> Array:
        return getattr(params, self.method)(x)

    def split(self, params: Any) -> tuple[Apply, Apply] | None:
        """Its methods ``features`` and ``head`` (:mod:`invjax.attribution.split`); None where it has them not."""
        return (PytreeApply("features"), PytreeApply("head")) if has_halves(params) else None


@dataclasses.dataclass(frozen=True)
class InnerApply:
    """``apply(params["inner"], x)``: behind a normalisation, what no longer sees the input."""

    inner: Apply

    def __call__(self, params: Any, x: Array) -> Array:
        return self.inner(params["inner"], x)


@dataclasses.dataclass(frozen=True)
class NormalisedApply:
    """``apply(params["inner"], (x - params["mean"]) / params["std"])``, computed in the dtype of x."""

    inner: Apply

    def __repr__(self) -> str:
        return f"{shown(self.inner)}, normalised"

    def __call__(self, params: Any, x: Array) -> Array:
        x = jnp.asarray(x)
        if not jnp.issubdtype(x.dtype, jnp.floating):  # trace-time: a dtype is static
            raise BadArgument("x", "be a floating-point array in the data range (images: [0, 1])", x.dtype)
        return self.inner(params["inner"], (x - params["mean"].astype(x.dtype)) / params["std"].astype(x.dtype))

    def split(self, params: Any) -> tuple[Apply, Apply] | None:
        """Normalisation and features, and the head; None where the inner model is not to be split."""
        divide = getattr(self.inner, "split", None)
        halves = divide(params["inner"]) if divide else None
        return halves and (NormalisedApply(halves[0]), InnerApply(halves[1]))
