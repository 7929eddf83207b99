"""The best valid point of an example so far, and how the example ends.

A point is *valid* where the classifier says the target with the margin κ (logit units), or gives the target the wanted
probability. The valid point of least score is kept; the score is the method's own: a distance, a cost, an objective.
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
    tie: Array | None = None  # [] decides between equal scores: the smaller wins. None: the older point stays

    @property
    def found(self) -> Array:
        """[] bool."""
        return jnp.isfinite(self.score)

    def offer(self, point: Array, score: ArrayLike, valid: Array, tie: ArrayLike = 0.0) -> Best:
        """``point`` [*S] if it is ``valid`` [] bool and better than the best. An equal score keeps the older.

        tie: [] of two equal scores the one with the smaller tie wins; without effect where ``self.tie`` is None.
        """
        score = jnp.asarray(score, self.score.dtype)
        better = score < self.score
        if self.tie is not None:
            better |= (score == self.score) & (tie < self.tie)
        better &= valid
        x, score = jnp.where(better, point, self.x), jnp.where(better, score, self.score)
        return Best(x, score, self.tie if self.tie is None else jnp.where(better, tie, self.tie))

    def status(self, clean: Array, spent: Array) -> Array:
        """The Status, int32. clean: this was the clean input and has the wanted class; spent: the budget has ended."""
        status = jnp.where(spent, jnp.where(self.found, Status.FOUND, Status.NOT_FOUND), Status.PENDING)
        return jnp.where(clean, Status.ALREADY_TARGET, status).astype(jnp.int32)

    def outcome(self, status: Array, point: Array) -> Outcome:
        """How one lane ends. A success stands even if the network returned values that are not finite later.

        point: [*S] reported as the attempt on failure.
        """
        status = jnp.where(self.found, Status.FOUND, status).astype(jnp.int32)
        return Outcome(self.x, status, jnp.where(self.found, self.x, point))


def nothing(problem: Problem, *, ties: bool = False) -> Best:
    """Nothing found yet. ties: equal scores are to be decided by a second one."""
    far = jnp.full((), jnp.inf, problem.x.dtype)
    return Best(problem.x, far, far if ties else None)


def there(problem: Problem, logits: Array, probability: ArrayLike | None = None) -> Array:
    """[] bool: the logits [K] are an answer, with nothing to spare. The judge of tables asks the same question.

    probability: None: the target wins strictly; otherwise it has at least this softmax probability, winning or not.
    """
    missing = shortfall(problem, logits, 0.0, probability)
    return missing < 0 if probability is None else missing <= 0


def shortfall(problem: Problem, logits: Array, kappa: ArrayLike, probability: ArrayLike | None = None) -> Array:
    """[] how much the point lacks to be valid, in logit units; at most 0 where it is valid.

    kappa: the margin. probability: the wanted softmax probability of the target; by default the target need
    only win.
    """
    if probability is None:
        return losses.gap(logits, problem.label, problem.target) + kappa
    return losses.probability_gap(logits, problem.label, problem.target, probability) + kappa
