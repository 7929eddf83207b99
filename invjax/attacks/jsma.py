"""JSMA: the features of greatest saliency, two or one at a time (Papernot et al., EuroS&P 2016).

    min ‖r‖_0,   x + r in the box and in the wanted class,   greedily                                              (1)

Each step reads two gradients at the point, for the class c = t (targeted) or y (untargeted), with s = 1 or −1:

    a = s ∇Z_c,   b = −s Σ_{j≠c} ∇Z_j                                                                              (2)

and moves by θ (``step_size``) those features p, q for which

    (a_p + a_q)(b_p + b_q)   is greatest, with both sums positive:                                                 (3)

so that the class becomes stronger and the others together weaker (untargeted: the reverse, the non-targeted form of
Wiyatno & Xu, 2018). A feature that moves down enters with −a, −b. ``form="one"`` moves the single feature of greatest
a_p b_p. With ``scores="probabilities"`` the outputs are softmax probabilities, which sum to 1: then b = a up to one
positive factor, and one gradient gives both, here that of ``Z_c − log Σ_{j≠c} e^{Z_j}``, which does not saturate.

The pair search (:func:`best_pair`) needs no table over D² pairs: it looks at those among the ``candidates`` features of
highest bound (5). It is exact where 2 D is at most ``candidates``, and wherever the bound of the first feature
left out is at most the product found.

Deviations from the paper: a pair may be one feature alone, where no second one helps; a feature that moved up never
moves down again; the budget counts features that changed (the paper counts steps, which is the same for θ = 1). Unit:
the feature. Coordinates: the box has width 1 (:mod:`invjax.attacks.parts.coordinates`).
"""

from __future__ import annotations

from dataclasses import field
from typing import ClassVar, Literal, NamedTuple

import jax
import jax.numpy as jnp

from invjax import losses
from invjax.attacks.parts import coordinates
from invjax.core.config import STATIC, config, require, require_above, require_at_least
from invjax.solvers.best import Best, nothing
from invjax.types import Array, Context, Eval, Method, Problem, Status


@config
class JSMA:
    """The attack's constants; step_size, form and scores are the published ones. Targeted and untargeted.

    Fields:
      step_size: θ, how far a feature moves in one step, box widths, > 0; from 1 on it moves to the side of the box.
      share: Υ, the largest share of the D features that may change, in [0, 1].
      k: the largest number of features that may change, >= 0; the smaller of the two limits holds.
      steps: >= 1.
      form: "pair" or "one" (static).
      direction: "both", "up" (the paper's θ > 0) or "down" (θ < 0) (static).
      scores: "logits" or "probabilities" (static).
      candidates: features (each up and down) among which pairs are sought, >= 2 (static).

    Evaluations per example, whatever the number of classes: 1 + 2 a step for logits, 1 + 1 a step for probabilities.
    """

    step_size: float = 1.0
    share: float = 0.145
    k: int = 1_000_000
    steps: int = 10_000
    form: Literal["pair", "one"] = field(default="pair", metadata=STATIC)
    direction: Literal["both", "up", "down"] = field(default="both", metadata=STATIC)
    scores: Literal["logits", "probabilities"] = field(default="logits", metadata=STATIC)
    candidates: int = field(default=128, metadata=STATIC)

    method: ClassVar[Method]
    RENAMED: ClassVar = {"theta": "step_size", "max_changes": "k", "iterations": "steps"}

    def check(self) -> None:
        require_above(self, 0, "step_size")
        require(self, "share", lambda v: 0 <= v <= 1, "in [0, 1]")
        require_at_least(self, 0, "k")
        require_at_least(self, 1, "steps")
        require_at_least(self, 2, "candidates")


class JSMAState(NamedTuple):
    r: Array  # [*S] the point to ask, as a perturbation
    a: Array  # [*S] the first gradient of (2) there, where the second one is still to come
    half: Array  # [] bool, the second gradient comes next
    count: Array  # [] int32, steps taken
    best: Best  # the first point with the wanted class
    status: Array  # [] int32, PENDING until decided


def best_pair(a: Array, b: Array, cost: Array, left: Array, width: int) -> tuple[Array, Array]:
    """The two moves that maximise (3), or one where no second helps: ``(pair [2] int32, product [])``.

        (a_p + a_q)(b_p + b_q),   a_p + a_q > 0,   b_p + b_q > 0,   cost_p + cost_q <= left                        (4)

    a, b: [2, D], the moves of D features up and down; a is −infinity where a move is not allowed. cost: [2, D], what a
    move takes of the budget ``left`` []. The pair indexes the flat moves. Two equal indices stand for that move alone,
    the product 0 for none. A feature is never paired with its own reverse.

    Every pair with the move i has at most the product

        (a_i + max a)_+ (b_i + max b)_+                                                                            (5)

    and the ``width`` moves of the highest bound are all paired with each other.
    """
    size = a.shape[1]
    a, b, cost = a.reshape(-1), b.reshape(-1), cost.reshape(-1)
    allowed = jnp.isfinite(a) & (cost <= left)
    top_a, top_b = (jnp.max(jnp.where(allowed, v, -jnp.inf)) for v in (a, b))
    bound = jnp.where(allowed, jnp.maximum(a + top_a, 0) * jnp.maximum(b + top_b, 0), -1)
    bound, best = jax.lax.top_k(bound, min(width, bound.size))
    a, b, cost, open_ = (jnp.where(bound >= 0, v[best], 0) for v in (a, b, cost, allowed))
    alone = jnp.eye(best.size, dtype=bool)

    def sums(v: Array) -> Array:
        return jnp.where(alone, v[:, None], v[:, None] + v[None, :])

    good = (sums(a) > 0) & (sums(b) > 0) & (sums(cost) <= left) & (open_[:, None] > 0) & (open_[None, :] > 0)
    good &= alone | (best[:, None] % size != best[None, :] % size)
    product = jnp.where(good, sums(a) * sums(b), 0).reshape(-1)
    first = jnp.argmax(product)
    return best[jnp.stack([first // best.size, first % best.size])].astype(jnp.int32), product[first]


def best_one(a: Array, b: Array, cost: Array, left: Array) -> tuple[Array, Array]:
    """The one move with a_p > 0, b_p > 0 of the greatest product, in the form of :func:`best_pair`. Exact."""
    a, b, cost = a.reshape(-1), b.reshape(-1), cost.reshape(-1)
    good = jnp.isfinite(a) & (a > 0) & (b > 0) & (cost <= left)
    product = jnp.where(good, jnp.where(good, a, 0) * b, 0)
    first = jnp.argmax(product).astype(jnp.int32)
    return jnp.stack([first, first]), product[first]


def _init(ctx: Context, problem: Problem, config: JSMA) -> JSMAState:
    zero = jnp.zeros_like(problem.x)
    return JSMAState(zero, zero, jnp.asarray(False), jnp.int32(0), nothing(problem), jnp.int32(Status.PENDING))


def _ask(ctx: Context, problem: Problem, config: JSMA, state: JSMAState) -> Array:
    return jnp.clip(coordinates.to_data(problem, state.r), problem.lower, problem.upper)


def _loss(ctx: Context, problem: Problem, config: JSMA, state: JSMAState, point: Array, logits: Array) -> Array:
    """What has the gradient −a, or in the second half −b."""
    if config.scores == "probabilities":
        return losses.probability_gap(logits, problem.label, problem.target, 0.5)
    targeted = problem.target >= 0
    own = jnp.arange(logits.size) == jnp.where(targeted, problem.target, problem.label)
    part = jnp.sum(jnp.where(own == state.half, jnp.zeros_like(logits), losses.grounded(logits)))
    return jnp.where(targeted == state.half, part, -part)


def _move(problem: Problem, config: JSMA, r: Array, a: Array, b: Array) -> tuple[Array, Array]:
    """The next r, and whether there was a move. a, b: [*S] per unit of r, as in (2)."""
    low, high = coordinates.room(problem)
    used = r != 0
    up = (r >= 0) & (r < high) & (config.direction != "down")
    down = (r <= 0) & (r > low) & (config.direction != "up")
    allowed = jnp.stack([up.reshape(-1), down.reshape(-1)])
    limit = jnp.minimum(jnp.floor(config.share * r.size).astype(jnp.int32), config.k)
    left = limit - jnp.sum(used, dtype=jnp.int32)
    cost = jnp.stack([~used.reshape(-1)] * 2).astype(jnp.int32)
    # The size of a gradient says nothing here: scaled, no product overflows or vanishes.
    a, b = (v.reshape(-1) / jnp.where(jnp.any(v != 0), jnp.max(jnp.abs(v)), 1) for v in (a, b))
    moves = jnp.where(allowed, jnp.stack([a, -a]), -jnp.inf), jnp.stack([b, -b]), cost, left
    pair, product = best_one(*moves) if config.form == "one" else best_pair(*moves, config.candidates)
    found = product > 0
    sign = jnp.where(pair < r.size, 1, -1).astype(r.dtype)
    flat = r.reshape(-1).at[pair % r.size].set(r.reshape(-1)[pair % r.size] + config.step_size * sign)
    moved = jnp.clip(flat.reshape(r.shape), low, high)
    return jnp.where(found, moved, r).astype(r.dtype), found


def _tell(ctx: Context, problem: Problem, config: JSMA, state: JSMAState, ev: Eval) -> JSMAState:
    reached = losses.reached(ev.logits, problem.label, problem.target) & ~state.half
    gradient = -ev.grad * coordinates.scale(problem)
    both = config.scores == "probabilities"  # one gradient gives both halves
    whole = jnp.asarray(True) if both else state.half
    r, found = _move(problem, config, state.r, gradient if both else state.a, gradient)
    step = whole & ~reached & (state.count < config.steps) & found
    over = whole & ~reached & ~step
    clean = jnp.all(state.r == 0)
    best = state.best.offer(ev.point, 0.0, reached & ~clean)
    return JSMAState(
        r=jnp.where(step, r, state.r), a=gradient.astype(state.a.dtype), half=~whole & ~reached,
        count=(state.count + step).astype(jnp.int32), best=best, status=best.status(reached & clean, best.found | over),
    )  # fmt: skip


JSMA.method = Method("jsma", _init, _ask, _loss, _tell)
