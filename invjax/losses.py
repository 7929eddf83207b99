"""Losses of one example on its logits; ``target = UNTARGETED`` asks for any class but the label.

With Z the logits, y the label and t the target, all of these losses rest on the *gap*

    targeted    gap = max_{j≠t} Z_j - Z_t          untargeted    gap = Z_y - max_{j≠y} Z_j                       (7)

which is negative exactly where the example has the wanted class.

A class whose logit is −infinity is *ruled out*: all losses leave it aside, exactly as if the network did not have it. A
target that is ruled out is merely far away, so that an example which asks for it ends NOT_FOUND. NaN and +infinity mean
a broken network, and stay what they are.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import jax
import jax.numpy as jnp

from invjax.core.meant import suggest_names
from invjax.types import Array, ArrayLike

FAR_BELOW = 1e3  # where a class that is ruled out counts as standing: e^-1000 is 0


def allowed(logits: Array) -> Array:
    """[K] bool: the classes that are not ruled out by a logit of −infinity."""
    return logits != -jnp.inf


def grounded(logits: Array) -> Array:
    """[K] the logits; those of classes that are ruled out far below all others, and constant."""
    possible = allowed(logits)
    lowest = jax.lax.stop_gradient(jnp.min(jnp.where(possible, logits, jnp.full_like(logits, jnp.inf))))
    floor = jnp.where(jnp.any(possible), lowest, jnp.zeros_like(lowest)) - FAR_BELOW
    return jnp.where(possible, logits, floor)


def rivals(logits: Array, label: ArrayLike) -> Array:
    """[] int32: how many classes beside the label are not ruled out."""
    return jnp.sum(allowed(logits) & (jnp.arange(logits.shape[-1]) != label), dtype=jnp.int32)


def gap(logits: Array, label: ArrayLike, target: ArrayLike) -> Array:
    """How far the logits are from the wanted class; negative where it is reached.

    logits: [K]; label, target: [] int -> [] in logit units. K = 1 has no other class and is refused by the engine.
    """
    logits = grounded(logits)
    targeted = jnp.asarray(target) >= 0
    aim = jnp.where(targeted, target, label)
    own = jnp.arange(logits.shape[-1]) == aim
    aimed = jnp.sum(jnp.where(own, logits, jnp.zeros_like(logits)))
    other = jnp.max(jnp.where(own, jnp.full_like(logits, -jnp.inf), logits))
    return jnp.where(targeted, other - aimed, aimed - other)


def lead(logits: Array, label: ArrayLike, place: ArrayLike) -> Array:
    """The label's logit less that of its ``place``-th strongest rival, counted from 0. place: [] int, traced. []

    Classes that are ruled out come last: ``place`` below :func:`rivals` never meets one.
    """
    logits = grounded(logits)
    others = jnp.where(jnp.arange(logits.size) == label, -jnp.inf, jax.lax.stop_gradient(logits))
    rival = jnp.take(jnp.argsort(-others), place, mode="clip")
    return jnp.take(logits, label, mode="clip") - jnp.take(logits, rival, mode="clip")


def reached(logits: Array, label: ArrayLike, target: ArrayLike) -> Array:
    """[] bool: the wanted class wins strictly. NaN logits: False."""
    return gap(logits, label, target) < 0


def wanted(logits: Array, label: ArrayLike, target: ArrayLike) -> Array:
    """[] int32: the target; without one the strongest class that is not the label."""
    rest = jnp.where(jnp.arange(logits.shape[-1]) == label, jnp.full_like(logits, -jnp.inf), grounded(logits))
    return jnp.where(jnp.asarray(target) >= 0, target, jnp.argmax(rest)).astype(jnp.int32)


def margin(logits: Array, label: ArrayLike, target: ArrayLike, kappa: ArrayLike = 0.0) -> Array:
    """Carlini-Wagner margin ``max(0, gap + κ)``. kappa: confidence in logit units, >= 0.

    Source: Carlini & Wagner 2017, the f_6 objective, here with the outer maximum at 0 for every κ.
    """
    value = gap(logits, label, target) + kappa
    return jnp.where(value > 0, value, jnp.zeros_like(value))


def log_odds(logits: Array, label: ArrayLike, target: ArrayLike) -> Array:
    """``log Σ_{j≠t} e^{Z_j} − Z_t`` targeted, ``Z_y − log Σ_{j≠y} e^{Z_j}`` untargeted. [] in logit units.

    A monotone function of :func:`cross_entropy`, so it ranks points alike, and its gradient has the same direction. But
    it never saturates: the softmax of a sure network rounds to 0 and 1, where cross-entropy is constant and its
    gradient exactly 0, as if nothing could move the network.
    """
    logits = grounded(logits)
    targeted = jnp.asarray(target) >= 0
    own = jnp.arange(logits.shape[-1]) == jnp.where(targeted, target, label)
    aimed = jnp.sum(jnp.where(own, logits, jnp.zeros_like(logits)))
    others = jax.nn.logsumexp(jnp.where(own, jnp.full_like(logits, -jnp.inf), logits))
    return jnp.where(targeted, others - aimed, aimed - others)


def cross_entropy(logits: Array, label: ArrayLike, target: ArrayLike) -> Array:
    """``-log softmax(Z)_t`` targeted; ``+log softmax(Z)_y`` (to be minimised: the negated loss of y) untargeted.

    It saturates where the network is sure; :func:`log_odds` does not.
    """
    log_p = jax.nn.log_softmax(grounded(logits))
    targeted = jnp.asarray(target) >= 0
    aim = jnp.where(targeted, target, label)
    picked = jnp.take(log_p, aim, mode="clip")
    return jnp.where(targeted, -picked, picked)


def probability_gap(logits: Array, label: ArrayLike, target: ArrayLike, probability: ArrayLike) -> Array:
    """How far the wanted class is from this softmax probability, [] in logit units; at most 0 where it has it.

        targeted    log Σ_{j≠t} e^{Z_j} − Z_t + log(p / (1 − p))

    Untargeted, the probability is that of all classes but y together.

    probability: p in (0, 1). For two classes and p = 1/2 this is :func:`gap`.
    """
    p = jnp.asarray(probability, logits.dtype)
    return log_odds(logits, label, target) + jnp.log(p) - jnp.log1p(-p)


# What attacks with an option ``loss`` choose from. They use no more of it than its order and the direction of its
# gradient, so the log-odds stand for cross-entropy: the same steps, without its saturation.
Loss = Literal["cross_entropy", "margin"]
LOSSES: dict[Loss, Callable[..., Array]] = {"cross_entropy": log_odds, "margin": gap}


suggest_names(__name__)
