"""Optimisers as numbers: a sweep over rates, decays or clips is one compiled program.

With the gradient g (clipped to norm ``clip``), the weights w, the rate σ_t of step t = 0, 1, …, T − 1:

    sgd      v ← μ v + (g + δ w),   w ← w − σ_t v          (nesterov: the step is along g + δ w + μ v)
    adam     w ← w − σ_t Adam(g + δ w)                     adamw    w ← w − σ_t (Adam(g) + δ w)

as in torch: δ acts on every weight, biases and normalisations included, and after the clipping. Any optax
transformation can take the place of an :class:`Optimiser`.
"""

from __future__ import annotations

import math
from dataclasses import field
from typing import Any, Literal, Protocol

import jax
import jax.numpy as jnp
import optax

from invjax.core.config import STATIC, config, require, require_above, require_at_least
from invjax.core.errors import BadArgument
from invjax.types import Array, ArrayLike


def norm_of(tree: Any) -> Array:
    """The 2-norm over all leaves, [] float32."""
    return jnp.sqrt(sum(jnp.sum(jnp.square(leaf.astype(jnp.float32))) for leaf in jax.tree.leaves(tree)))


class Updates(Protocol):
    """The protocol of an optimiser: a pytree of its numbers with two functions."""

    def init(self, weights: Any) -> Any:
        """The memory for these weights."""
        ...

    def update(self, gradient: Any, memory: Any, weights: Any, step: Array, total: Array) -> tuple[Any, Any]:
        """(what to add to the weights, the new memory) at step 0, …, total − 1."""
        ...


@config
class Optimiser:
    """SGD with momentum, Adam or AdamW; see the module's head for the formulas.

    Fields:
      rate: learning rate σ, > 0.
      momentum: μ of SGD, in [0, 1); the recipes for WaterBirds use 0.9.
      weight_decay: δ >= 0, per step and unit of rate.
      clip: largest 2-norm of the whole gradient; infinity switches it off.
      warmup: steps over which the rate rises linearly to σ; 0 switches it off.
      beta1, beta2, epsilon: Adam's.
      rule: "sgd", "adam" (δ inside the gradient) or "adamw" (δ beside it); static.
      schedule: "constant", or "cosine": σ_t = σ (1 + cos(π t / T)) / 2; static.
      nesterov: Nesterov's form of SGD; static.
    """

    rate: float = 1e-3
    momentum: float = 0.9
    weight_decay: float = 0.0
    clip: float = math.inf
    warmup: int = 0
    beta1: float = 0.9
    beta2: float = 0.999
    epsilon: float = 1e-8
    rule: Literal["sgd", "adam", "adamw"] = field(default="sgd", metadata=STATIC)
    schedule: Literal["constant", "cosine"] = field(default="constant", metadata=STATIC)
    nesterov: bool = field(default=False, metadata=STATIC)

    def check(self) -> None:
        require_above(self, 0, "rate", "clip", "epsilon")
        require_at_least(self, 0, "weight_decay", "warmup")
        for name in ("momentum", "beta1", "beta2"):
            require(self, name, lambda v: 0 <= v < 1, "in [0, 1)")

    def rate_at(self, step: ArrayLike, total: ArrayLike) -> Array:
        """σ_t, [] float32."""
        now = jnp.asarray(step, jnp.float32)
        rate = self.rate * jnp.minimum(1.0, (now + 1) / jnp.maximum(self.warmup, 1))
        if self.schedule == "cosine":
            rate = rate * 0.5 * (1 + jnp.cos(jnp.pi * now / jnp.asarray(total, jnp.float32)))
        return jnp.asarray(rate, jnp.float32)

    def _directions(self) -> optax.GradientTransformation:
        if self.rule == "sgd":
            return optax.trace(self.momentum, self.nesterov)
        return optax.scale_by_adam(self.beta1, self.beta2, self.epsilon)

    def init(self, weights: Any) -> Any:
        return self._directions().init(weights)

    def update(self, gradient: Any, memory: Any, weights: Any, step: Array, total: Array) -> tuple[Any, Any]:
        norm = norm_of(gradient)
        # NaN stays NaN: a broken step must show in the loss and not become a step of length 0.
        shrink = jnp.where(norm > self.clip, self.clip / jnp.maximum(norm, 1e-30), 1.0)
        gradient = jax.tree.map(lambda g: g * shrink.astype(g.dtype), gradient)

        def decayed(tree: Any) -> Any:
            return jax.tree.map(lambda g, w: g + jnp.asarray(self.weight_decay, g.dtype) * w, tree, weights)

        if self.rule != "adamw":
            gradient = decayed(gradient)
        directions, memory = self._directions().update(gradient, memory)
        if self.rule == "adamw":
            directions = decayed(directions)
        rate = self.rate_at(step, total)
        return jax.tree.map(lambda d: -rate.astype(d.dtype) * d, directions), memory


@config
class Optax:
    """An optax transformation as it is. Each object compiles its own program, so make it once and reuse it."""

    transformation: optax.GradientTransformation = field(metadata=STATIC)

    def check(self) -> None:
        require(self, "transformation", lambda v: callable(v.init) and callable(v.update), "an optax transformation")

    def init(self, weights: Any) -> Any:
        return self.transformation.init(weights)

    def update(self, gradient: Any, memory: Any, weights: Any, step: Array, total: Array) -> tuple[Any, Any]:
        del step, total
        return self.transformation.update(gradient, memory, weights)


def as_optimiser(given: Any) -> Any:
    """An optimiser from what the user gave: None is the default, an optax transformation is wrapped."""
    if given is None:
        return Optimiser()
    if isinstance(given, optax.GradientTransformation):
        given = Optax(given)
    if not (callable(getattr(given, "init", None)) and callable(getattr(given, "update", None))):
        raise BadArgument("optimiser", "be an Optimiser or an optax transformation", given)
    return given
