"""What a method keeps: the best valid point so far, and how an example ends.

A point is *valid* where the classifier says the target with the margin κ (logit units), or gives the target the wanted
probability. Of the valid points the one of least score (the method's own: a distance, a cost, an objective) is kept.
"""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp

from invjax import losses
from invjax.types import Array, ArrayLike, Outcome, Problem, Status


class Best(NamedTuple):
    """The best valid and feasible point of one lane."""

    x: Array  # [*S]
    score: Array  # [] its score; infinity: nothing found yet


def nothing(problem: Problem) -> Best:
    """Nothing found yet."""
    return Best(problem.x, jnp.full((), jnp.inf, problem.x.dtype))


def shortfall(problem: Problem, logits: Array, kappa: ArrayLike, probability: ArrayLike | None = None) -> Array:
    """[] how much is missing to validity, in logit units; at most 0 where the point is valid.

    kappa: the margin. probability: the wanted softmax probability of the target; None: it need only win.
    """
    if probability is None:
        return losses.gap(logits, problem.label, problem.target) + kappa
    return losses.probability_gap(logits, problem.label, problem.target, probability) + kappa


def keep(best: Best, point: Array, score: Array, valid: Array) -> Best:
    """``point`` if it is valid [] bool and better than the best. An equal score keeps the older."""
    score = jnp.asarray(score, best.score.dtype)
    better = valid & (score < best.score)
    return Best(jnp.where(better, point, best.x), jnp.where(better, score, best.score))


def ended(best: Best, clean: Array, spent: Array) -> Array:
    """The Status, int32. clean: this was the clean input and has the wanted class; spent: the budget has ended."""
    decided = jnp.where(jnp.isfinite(best.score), Status.FOUND, Status.NOT_FOUND)
    status = jnp.where(spent, decided, Status.PENDING)
    return jnp.where(clean, Status.ALREADY_TARGET, status).astype(jnp.int32)


def outcome(best: Best, status: Array, point: Array) -> Outcome:
    """The answer: what was found stands, also where the network broke later. point: what to show as the attempt."""
    found = jnp.isfinite(best.score)
    status = jnp.where(found, Status.FOUND, status).astype(jnp.int32)
    return Outcome(best.x, status, jnp.where(found, best.x, point))
