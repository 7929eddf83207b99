"""Networks with one output as classifiers of two classes."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax.numpy as jnp

from invjax.core.apply import Apply
from invjax.core.arguments import kinds_checked
from invjax.core.errors import BadArgument
from invjax.core.logits import LogitsModel, as_logits
from invjax.core.numerics import at_least_float32
from invjax.core.shown import shown
from invjax.types import Array


@dataclasses.dataclass(frozen=True)
class BinaryApply:
    """``(0, z)`` of a network with the one output z; equal if the network's function is."""

    inner: Apply
    probability: bool

    def __repr__(self) -> str:
        return f"binary {shown(self.inner)}"

    def __call__(self, params: Any, x: Array) -> Array:
        out = self.inner(params, x)
        if out.ndim not in (1, 2) or out.shape != (x.shape[0], 1)[: out.ndim]:  # trace-time: a shape is static
            hint = f"{x.shape} gave {out.shape}"
            raise BadArgument("model", "return one number per example, [B] or [B, 1]", hint=hint)
        z = at_least_float32(out.reshape(x.shape[0]))
        if self.probability:
            # p lies in [0, 1] up to rounding, and log p - log(1 - p) is infinite at the ends. NaN stays NaN.
            tiny = jnp.finfo(z.dtype).eps
            p = jnp.clip(z, tiny, 1 - tiny)
            z = jnp.log(p) - jnp.log1p(-p)
        return jnp.stack([jnp.zeros_like(z), z], axis=-1)


@kinds_checked
def binary(model: Any, *, probability: bool = False) -> LogitsModel:
    """A network with one output as a classifier of the classes 0 and 1.

        logits(x) = (0, z(x)),   so that   softmax(logits)_1 = sigmoid(z)   and   class 1 wins where z > 0

    Args:
      model: anything that :func:`invjax.models.as_logits` takes, but [B, *S] -> [B] or [B, 1], the logit z of class 1.
      probability: the network returns p = sigmoid(z) instead. Then ``z = log p - log(1 - p)``, with p kept one eps of
        its dtype away from 0 and 1. The gradient vanishes there, so prefer the logit if the network has it.

    Returns:
      LogitsModel, [B, *S] -> [B, 2], with the weights of ``model`` as leaves.

    Raises:
      ValueError: ``model`` is not callable, or does not return one number per example when called.
    """
    inner = as_logits(model)
    return LogitsModel(inner.params, BinaryApply(inner.apply, bool(probability)))
