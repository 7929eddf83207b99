"""Sparse-RS: random search over k pixels at corners of the colour cube (Croce et al., AAAI 2022).

    min_{M, r}  L(f(x + r))   over sets M of k units and r that sends each unit of M to a corner of the box          (1)

Query i changes (M, r) in k_i = max(⌊α_i k⌋, 1) random units of M, which return to x, and in k_i random others, which
get a random corner each. The candidate is kept if L is smaller. α_i = α / β_i falls in ten stages, on a scale of
10,000 queries:

    from query           0   1  51  201  501  1001  2001  4001  6001  8001
    β                    1   2   4    5    6     8    10    12    15    20                                           (2)

As released, L is the gap of the logits without a target and the cross-entropy of the target with one; either may serve
both. The search stops at the first point that has the wanted class. Each start draws a new M. Queries only.

Deviations from the released code: a new corner always differs from the value it replaces (theirs does only where
k_i = 1, by drawing until it does); where fewer than k_i units are left outside of M, the remaining ones of the k_i stay
in M and get a new corner, so that k may be as large as the image; the stages begin at exact shares of the budget. The
re-implementation in the GSE repository draws nothing but black, can loop forever, and delays the first halving.

:func:`random_search` builds the method, because patches and frames (:mod:`invjax.attacks.sparse_rs_patches`) run in the
same loop.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import field
from typing import Any, ClassVar, Literal, NamedTuple

import jax
import jax.numpy as jnp

from invjax import losses
from invjax.attacks.parts import corners
from invjax.core.config import STATIC, config, require, require_at_least
from invjax.core.numerics import select
from invjax.types import Array, ArrayLike, Context, Eval, Method, Outcome, Problem, Status

Ints = tuple[int, ...]
SCALE = 10_000  # queries to which the published breakpoints belong
BREAKS = (0, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)  # the last query of each stage but the last
DIVISORS = (1, 2, 4, 5, 6, 8, 10, 12, 15, 20)


def _released(logits: Array, label: Array, target: Array) -> Array:
    return jnp.where(target >= 0, losses.cross_entropy(logits, label, target), losses.gap(logits, label, target))


# Candidates are only compared: the log-odds rank them as the cross-entropy does, and never tie by saturation.
Loss = Literal["released", "margin", "cross_entropy"]
LOSSES: dict[Loss, Callable[..., Array]] = {
    "released": _released,
    "margin": losses.gap,
    "cross_entropy": losses.log_odds,
}


@config
class SparseRS:
    """The attack's constants; the defaults are the published ones for untargeted attacks at 224 px.

    Fields:
      k: units that may change, >= 1; all of them if x has fewer. (The GSE comparison: 90 at 32 px, 6600 at 224 px, with
        initial_share 0.8 and 10 restarts.)
      queries: the budget of one start, >= 1, to which (2) is scaled. Targeted: 100,000 with initial_share 0.1.
      initial_share: α, the share of M that the first query would change, in (0, 1].
      restarts: starts, >= 1.
      loss: "released" (margin untargeted, cross-entropy targeted), "margin" or "cross_entropy" (static).
      unit: what k counts: "pixel" or "feature" (static).

    Forward evaluations per example: 1 (the clean input) + at most restarts·queries; no gradients.
    """

    k: int = 150
    queries: int = 10_000
    initial_share: float = 0.3
    restarts: int = 1
    loss: Loss = field(default="released", metadata=STATIC)
    unit: corners.Unit = field(default="pixel", metadata=STATIC)

    RENAMED: ClassVar = {"alpha": "initial_share"}
    method: ClassVar[Method]

    def check(self) -> None:
        require_at_least(self, 1, "k")
        require(self, "initial_share", lambda v: 0 < v <= 1, "in (0, 1]")
        check_search(self)


def check_search(owner: Any) -> None:
    """Check the constants that every form of the search has."""
    require_at_least(owner, 1, "queries", "restarts")


def starts(queries: ArrayLike, breaks: Ints) -> Array:
    """[J] int32: the first query of each later stage, ``⌈(break + 1) queries / 10,000⌉``, without overflow."""
    whole, rest = jnp.asarray(queries) // SCALE, jnp.asarray(queries) % SCALE
    after = jnp.asarray(breaks, jnp.int32) + 1
    return (after * whole + (after * rest + SCALE - 1) // SCALE).astype(jnp.int32)


def schedule(query: Array, queries: ArrayLike, share: Array, breaks: Ints = BREAKS, divisors: Ints = DIVISORS) -> Array:
    """α_i of (2). query: [] int32 in [0, queries), queries: [] int32, share: [] float, α -> [] float."""
    stage = jnp.sum(query >= starts(queries, breaks))
    return jnp.asarray(share) / jnp.asarray(divisors, jnp.result_type(share))[stage]


def whole(value: Array) -> Array:
    """``max(⌊value⌋, 1)``, int32, of a product that rounding may have taken just below a whole number."""
    return jnp.maximum(jnp.floor(value * (1 + 1e-5)), 1).astype(jnp.int32)


# ---------------------------------------------------------------------------------------------------------------------
# The loop
# ---------------------------------------------------------------------------------------------------------------------
class SearchState(NamedTuple):
    tried: Any  # the pattern to ask next: a pytree of arrays
    kept: Any  # the best pattern of this start, or of the last one
    loss: Array  # [] its loss; infinity at a start
    query: Array  # [] int32, queries of this start told; -1 before the clean input was seen
    trial: Array  # [] int32, starts used up
    status: Array  # [] int32, PENDING until decided


def random_search(
    name: str,
    blank: Callable[[Problem, Any], Any],
    propose: Callable[[Problem, Any, Any, Array, Array], Any],
    render: Callable[[Problem, Any, Any], Array],
) -> Method:
    """The method that keeps the pattern with the smallest loss. It keeps a pattern where others keep a point (a Best).

    Args:
      name: the method's name.
      blank: ``blank(problem, config)`` gives a pattern of the right shapes, which renders as x.
      propose: ``propose(problem, config, kept, trial, query)`` gives the candidate of this query; at query 0 a first
        one, whatever ``kept`` is. Its randomness comes from the problem's key, the trial and the query alone.
      render: ``render(problem, config, pattern)`` gives the point [*S].
    """

    def init(ctx: Context, problem: Problem, config: Any) -> SearchState:
        pattern = blank(problem, config)
        infinite = jnp.full((), jnp.inf, problem.x.dtype)
        return SearchState(pattern, pattern, infinite, jnp.int32(-1), jnp.int32(0), jnp.int32(Status.PENDING))

    def ask(ctx: Context, problem: Problem, config: Any, state: SearchState) -> Array:
        return render(problem, config, state.tried)

    def loss(ctx: Context, problem: Problem, config: Any, state: Any, point: Array, logits: Array) -> Array:
        return LOSSES[config.loss](logits, problem.label, problem.target)

    def tell(ctx: Context, problem: Problem, config: Any, state: SearchState, ev: Eval) -> SearchState:
        first = state.query < 0
        reached = losses.reached(ev.logits, problem.label, problem.target)
        better = ~first & (reached | (ev.value < state.loss))
        kept = select(better, state.tried, state.kept)
        query = state.query + 1
        ended = query >= config.queries
        trial = (state.trial + ended).astype(jnp.int32)
        won = jnp.where(first, Status.ALREADY_TARGET, Status.FOUND)
        lost = jnp.where(trial >= config.restarts, Status.NOT_FOUND, Status.PENDING)
        query = jnp.where(ended, 0, query).astype(jnp.int32)
        return SearchState(
            tried=propose(problem, config, kept, trial, query),
            kept=kept,
            loss=jnp.where(ended, jnp.inf, jnp.where(better, ev.value, state.loss)).astype(state.loss.dtype),
            query=query,
            trial=trial,
            status=jnp.where(reached, won, lost).astype(jnp.int32),
        )

    def result(ctx: Context, problem: Problem, config: Any, state: SearchState) -> Outcome:
        point = render(problem, config, state.kept)
        return Outcome(point, state.status, point)

    return Method(name, init, ask, loss, tell, result=result, needs_grad=False)


def key_of(problem: Problem, config: Any, trial: Array, query: Array) -> Array:
    """The key of one query: each query has its own."""
    return jax.random.fold_in(problem.key, trial * config.queries + query)


# ---------------------------------------------------------------------------------------------------------------------
# k units
# ---------------------------------------------------------------------------------------------------------------------
class Chosen(NamedTuple):
    point: Array  # [*S] x + r, data units
    chosen: Array  # [U] bool, M


def blank(problem: Problem, config: SparseRS) -> Chosen:
    """No unit is chosen."""
    count, _ = corners.shape_of(problem, config.unit, "SparseRS")
    return Chosen(problem.x, jnp.zeros(count, bool))


def propose(problem: Problem, config: SparseRS, kept: Chosen, trial: Array, query: Array) -> Chosen:
    """The candidate of a query, from the best pattern so far."""
    shape = corners.shape_of(problem, config.unit, "SparseRS")
    low, high, x, point = (a.reshape(shape) for a in (*corners.ends(problem), problem.x, kept.point))
    size = corners.length(shape[1])
    words = corners.words(key_of(problem, config, trial, query), (shape[0], 1 + 2 * size))
    order, colour, other = words[:, 0], words[:, 1 : 1 + size], words[:, 1 + size :]
    start = query == 0
    inside = kept.chosen & ~start
    point = jnp.where(start, x, point)
    free = jnp.any(low < high, axis=-1)

    outside = free & ~inside
    k = jnp.minimum(config.k, jnp.sum(free))
    update = whole(schedule(query, config.queries, jnp.asarray(config.initial_share)) * k)
    swapped = jnp.minimum(update, jnp.sum(outside))
    # At a start M is empty: all k units come in, and none can leave.
    among = jnp.stack([inside, inside, outside])
    counts = jnp.stack([update, swapped, jnp.where(start, k, swapped)])
    touched, back, new = jax.vmap(corners.subset, (None, 0, 0))(order, among, counts)

    bits = corners.colours(colour, shape[1])
    same = jnp.all(jnp.where(bits, high, low) == point, axis=-1, keepdims=True)
    bits ^= same & corners.flips(other, shape[1])
    coloured = (new | (touched & ~back))[:, None]
    moved = jnp.where(coloured, jnp.where(bits, high, low), jnp.where(back[:, None], x, point))
    return Chosen(moved.reshape(problem.x.shape), (inside & ~back) | new)


SparseRS.method = random_search("sparse-rs", blank, propose, lambda problem, config, pattern: pattern.point)
