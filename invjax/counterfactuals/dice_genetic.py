"""DiCE's genetic search: a set of different counterfactuals from queries alone, no gradient.

A population of G feasible points evolves by the cost

    γ L(f(c), t) + w₁/D d(c − x) + w₃/F ‖c − x‖₀                                                                  (1)

with L the hinge on logits and ‖·‖₀ the number of changed features. Each generation a child takes every feature from
one of two good parents or, with the probability ``mutation``, a new value, which half the time is drawn from the
feature's range and half the time is that of x. Survivors are picked greedily, valid ones first, by (1) plus w₂ times
their closeness to those picked (:func:`invjax.counterfactuals.parts.sets.pick_diverse`). The first P are the answer.

Source: the genetic mode of the DiCE library, after Schleich et al. (2021), GeCo. Deviations from it: there a mutated
number is drawn from [lower, lower] and so always is the lower bound, diversity plays no part in survival, and nothing
is put back to x before the very end. The search works for any classifier and any constraints, because each child is
exactly feasible.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp

from invjax import constraints
from invjax.core.config import STATIC, config, require, require_above, require_at_least
from invjax.core.errors import check_whole
from invjax.core.numerics import uniform
from invjax.counterfactuals.parts import proximity, sets, weighted
from invjax.counterfactuals.parts.proximity import MadL1, Proximity
from invjax.counterfactuals.parts.standard import Standardised
from invjax.types import Array, Context, Eval, Method, Outcome, Problem, Status


@config
class DiCEGenetic(Standardised):
    """The method's constants. The answer to an example is a set: Result.x [N, P, *S], Result.status [N, P].

    Fields:
      answers: P, points of a set, >= 1 (static).
      population: G, points that live at once, >= max(2, P) (static).
      proximity: d; by default the plain l1 norm.
      gamma: γ, weight of the hinge, per logit unit, > 0.
      closeness: w₁, weight of the distance to x, >= 0.
      spread: w₂, weight of the closeness to other survivors, >= 0.
      beta: w₃, weight of the share of changed features, >= 0.
      mutation: probability that a child's feature comes from neither parent, in (0, 1).
      generations: at most, >= 1.
      patience: it stops when the P best have all been valid, and their cost has changed by less than ``tolerance``, for
        this many generations in succession; >= 1.
      tolerance: change of the cost that counts as none, >= 0.
      kappa: margin of a valid answer, logit units, >= 0.
      probability: wanted probability of the target, in (0, 1); None: it need only win.

    Forward passes per example: at most G (1 + generations). Memory per lane: 3 G points.
    """

    answers: int = field(default=4, metadata=STATIC)
    population: int = field(default=40, metadata=STATIC)
    proximity: Proximity = MadL1()
    gamma: float = 1.0
    closeness: float = 0.2
    spread: float = 0.5
    beta: float = 0.2
    mutation: float = 0.2
    generations: int = 200
    patience: int = 20
    tolerance: float = 1e-4
    kappa: float = 0.05
    probability: float | None = None

    RENAMED: ClassVar[Mapping[str, str]] = {"count": "answers", "sparsity": "beta"}

    @property
    def method(self) -> Method:
        """The method of this population's size."""
        return _METHOD._replace(width=self.population)

    def check(self) -> None:
        weighted.check_validity(self)
        least = max(2, check_whole("DiCEGenetic.answers", self.answers))
        require(self, "population", lambda v: isinstance(v, int) and v >= least, f"a whole number >= {least}")
        require_at_least(self, 0, "closeness", "spread", "beta", "tolerance")
        require_at_least(self, 1, "generations", "patience")
        require_above(self, 0, "gamma")
        require(self, "mutation", lambda v: 0 < v < 1, "in (0, 1)")
        proximity.check(self)


class GeneticState(NamedTuple):
    children: Array  # [G, *S] the points to ask next
    pool: Array  # [G, *S] the survivors, best first
    score: Array  # [G] their cost (1)
    valid: Array  # [G] bool, valid and no copy of one before
    count: Array  # [] int32, generations evaluated; -1 before the clean input was seen
    idle: Array  # [] int32, generations in succession without change
    status: Array  # [] int32, PENDING until decided


def _children(
    ctx: Context, problem: Problem, config: DiCEGenetic, row: Any, pool: Array, count: Array, first: Array
) -> Array:
    """[G, *S] children of the better half of the pool [G, *S].

    In the first generation child g is x with the share (g + 1)/G of its features drawn anew.
    """
    owner, size, x = sets.owners(ctx, problem), config.population, problem.x
    features = int(owner.max()) + 1
    lower, upper = sets.spans(row, x)
    # One call draws for the whole generation: the program then holds the random generator once.
    key = jax.random.fold_in(problem.key, count + 1)
    draws = uniform(key, (size, 2 + 2 * features + x.size), x.dtype)
    share = (jnp.arange(size) + 1).astype(x.dtype) / size
    chance = jnp.where(first, share, jnp.asarray(config.mutation, x.dtype))

    def one(u: Array, chance: Array) -> Array:
        whom, gene, back, value = jnp.split(u, (2, 2 + features, 2 + 2 * features))
        parents = jnp.minimum(jnp.floor(whom * (size // 2)).astype(jnp.int32), size // 2 - 1)
        back = (back < 0.5) & ~first
        mutated, second = gene < chance, gene > (1 + chance) / 2
        child = jnp.where(second[owner], pool[parents[1]], pool[parents[0]])
        # When a category is snapped, the largest of its columns wins.
        fresh = jnp.where(back[owner], x, lower + (upper - lower) * value.reshape(x.shape))
        return row.snap(jnp.where(mutated[owner], fresh, child))

    return jax.vmap(one)(draws, chance)


def _init(ctx: Context, problem: Problem, config: DiCEGenetic) -> GeneticState:
    size, x = config.population, problem.x
    return GeneticState(
        children=jnp.broadcast_to(x, (size, *x.shape)),
        pool=jnp.broadcast_to(x, (size, *x.shape)),
        score=jnp.zeros(size, x.dtype),
        valid=jnp.zeros(size, bool),
        count=jnp.int32(-1),
        idle=jnp.int32(0),
        status=jnp.int32(Status.PENDING),
    )


def _ask(ctx: Context, problem: Problem, config: DiCEGenetic, state: GeneticState) -> Array:
    return state.children


def _loss(
    ctx: Context, problem: Problem, config: DiCEGenetic, state: GeneticState, point: Array, logits: Array
) -> Array:
    return weighted.hinge(config, problem, logits)


def _tell(ctx: Context, problem: Problem, config: DiCEGenetic, state: GeneticState, ev: Eval) -> GeneticState:
    row = constraints.actions(ctx.constraints, problem)
    first = state.count < 0
    clean = first & weighted.is_clean(config, problem, ev.logits[0])

    def cost(point: Array, loss: Array) -> Array:
        near = config.proximity.value(point - problem.x) / point.size
        changed = jnp.mean(row.changed(point).astype(point.dtype))
        return config.gamma * loss + config.closeness * near + config.beta * changed

    score = jax.vmap(cost)(ev.point, ev.value).astype(state.score.dtype)
    valid = jax.vmap(lambda z: weighted.is_valid(config, problem, z))(ev.logits)
    # The clean input is no counterfactual of itself, whatever its margin: it fills the first pool, as not valid.
    valid &= ~first & jax.vmap(row.satisfied)(ev.point) & (ev.point != problem.x).reshape(valid.shape[0], -1).any(1)
    known = jnp.where(first, score, state.score)
    everyone, scores = jnp.concatenate([state.pool, ev.point]), jnp.concatenate([known, score])
    order, good = sets.pick_diverse(
        everyone, scores, jnp.concatenate([state.valid, valid]), config.population,
        jnp.asarray(config.spread, scores.dtype), config.proximity,
    )  # fmt: skip
    pool, kept = everyone[order], scores[order]

    count, top = state.count + 1, slice(config.answers)
    change = jnp.abs(jnp.sum(kept[top]) - jnp.sum(known[top]))
    still = good[top].all() & (change < config.tolerance)
    idle = jnp.where(still, state.idle + 1, 0).astype(jnp.int32)
    spent = (count >= config.generations) | (idle >= config.patience)
    status = jnp.where(spent, jnp.where(good[top].any(), Status.FOUND, Status.NOT_FOUND), Status.PENDING)
    return GeneticState(
        children=_children(ctx, problem, config, row, pool, count, first).astype(pool.dtype),
        pool=pool,
        score=kept,
        valid=good,
        count=count,
        idle=idle,
        status=jnp.where(clean, Status.ALREADY_TARGET, status).astype(jnp.int32),
    )


def _result(ctx: Context, problem: Problem, config: DiCEGenetic, state: GeneticState) -> Outcome:
    top = slice(config.answers)
    status = jnp.where(state.status == Status.FOUND, Status.NOT_FOUND, state.status)
    return sets.outcome(state.pool[top], state.valid[top], status, state.pool[top])


_METHOD = Method("dice-genetic", _init, _ask, _loss, _tell, result=_result, width=40, needs_grad=False)
