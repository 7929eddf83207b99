"""SparseFool: a sparse way across the boundary that DeepFool finds (Modas et al., CVPR 2019), untargeted and targeted.

    min ‖r‖_0,   x + r in the box and in the wanted class                                                          (1)

One step starts at the point x_i (x_0 is the clean input). f_k = Z_y − Z_k is the lead over class k; with a target there
is only f = max_{j≠t} Z_j − Z_t:

1. DeepFool: inner steps ``p ← p + (1 + ε) max(f_k(p) / ‖w‖, 1e-4) w / ‖w‖``, ``w = −∇f_k(p)`` where p has room, to the
   first p in the wanted class; k is the class that seems nearest.
2. The boundary is taken to be the plane through ``x_B = x_i + λ (p − x_i)`` with the normal w there.
3. The linear solver crosses that plane with few coordinates: one after the other, each goes towards sign(w_i) as far as
   the box allows, until ``⟨w, x − x_B⟩ = 0``. Then ``x_{i+1} = x_0 + (1 + ε)(x − x_0)``.

Step 3 in closed form: with u_i the room of coordinate i, and c_j the sum of the gains |w_i| u_i of the first j
coordinates, the j-th gives ``clip(⟨w, x_B − x_i⟩ − c_{j−1}, 0, |w_j| u_j)``: one sort and one cumulative sum.

``order="slope"`` takes the coordinates by |w_i|, and the class at the least distance f_k / ‖w‖, as published.
``order="gain"`` takes them by what they gain within the box, |w_i| u_i, never turns a change back, and takes the class
that needs the fewest: on a linear classifier with λ = 1 that is the exact minimum.

Since λ > 1 goes too far, a last stage (:mod:`invjax.attacks.parts.pruning`) looks for fewer changes from the first
success on. The paper does not have it; ``prune=0`` switches it off.

Deviations from the released code: every p is within the box, and its last gradient is asked at the overshot p (so no
point is evaluated twice); where DeepFool ends early the released code divides 0 by 0. ``SparseFool(order="slope",
prune=0, compare=1_000_000)`` is the published form. Unit: the feature. Coordinates: the box has width 1
(:mod:`invjax.attacks.parts.coordinates`).
"""

from __future__ import annotations

from dataclasses import field
from typing import ClassVar, Literal, NamedTuple

import jax
import jax.numpy as jnp

from invjax import losses
from invjax.attacks.parts import coordinates
from invjax.attacks.parts.pruning import Pruning, before, bisect, ends, offered
from invjax.core.config import STATIC, config, require_at_least
from invjax.core.numerics import safe_divide, safe_norm, select
from invjax.core.ranks import portions
from invjax.solvers.best import Best, nothing
from invjax.types import Array, Context, Eval, Method, Problem, Status

SHORTEST = 1e-4  # the least length of a DeepFool step, box widths, as released
BEYOND = 1e-3  # how far behind the plane the linear solver aims, box widths, as released


@config
class SparseFool:
    """The attack's constants; steps, classes, λ and overshoot are the released ones. Targeted and untargeted.

    Fields:
      steps: linear crossings, each after a run of DeepFool, >= 1.
      inner_steps: DeepFool's steps before a crossing, >= 1.
      classes: the label and its strongest rivals, among which the nearest is looked for (untargeted), >= 2.
      compare: DeepFool points, from the first on, at which rivals are compared, >= 1; later the strongest is taken.
      prune: points asked by the last stage, >= 0.
      factor: λ, >= 1; a smaller one means fewer changes and more steps.
      overshoot: ε, >= 0.
      order: "gain" or "slope" (static).

    Evaluations per example: one for each inner step and one for the end of a step, min(classes, K) − 2 more for each
    point at which rivals are compared, and at most ``prune``.
    """

    steps: int = 20
    inner_steps: int = 50
    classes: int = 10
    compare: int = 1
    prune: int = 20
    factor: float = 3.0
    overshoot: float = 0.02
    order: Literal["gain", "slope"] = field(default="gain", metadata=STATIC)

    RENAMED: ClassVar = {"iterations": "steps", "inner": "inner_steps"}
    method: ClassVar[Method]

    def check(self) -> None:
        require_at_least(self, 1, "steps", "inner_steps", "compare", "factor")
        require_at_least(self, 2, "classes")
        require_at_least(self, 0, "prune", "overshoot")


class Rival(NamedTuple):
    """The nearest class so far among those compared at one point."""

    w: Array  # [*S] minus the gradient of the lead over it
    lead: Array  # [] that lead
    distance: Array  # [] how far it is: box widths, or coordinates


class SparseFoolState(NamedTuple):
    r: Array  # [*S] the point to ask, as a perturbation
    start: Array  # [*S] x_i of this step, likewise
    rival: Rival  # the class that DeepFool aims at
    candidate: Array  # [] int32, classes compared at r
    inner: Array  # [] int32, DeepFool's steps since x_i
    points: Array  # [] int32, DeepFool's points in all
    count: Array  # [] int32, steps done
    pruning: Pruning  # the last stage
    best: Best  # scored by its changed features
    status: Array  # [] int32, PENDING until decided


class Way(NamedTuple):
    """Coordinates that may go from ``base`` to ``end``, in the order of ``score``; the whole way is worth ``gain``."""

    base: Array  # [*S]
    end: Array  # [*S]
    gain: Array  # [*S] >= 0
    score: Array  # [*S]


def go(way: Way, need: Array) -> tuple[Array, Array]:
    """Take the fewest coordinates that are together worth ``need`` [], the last one in part: (r, the parts), [*S]."""
    gain = way.gain.reshape(-1)
    share = portions(jax.lax.stop_gradient(way.score).reshape(-1), gain, need)
    part = safe_divide(share, gain).reshape(way.gain.shape)
    return jnp.where(part >= 1, way.end, way.base + part * (way.end - way.base)), part


def _room(problem: Problem) -> tuple[Array, Array]:
    return coordinates.room(problem, coordinates.FAR)


def _init(ctx: Context, problem: Problem, config: SparseFool) -> SparseFoolState:
    zero, none, best = jnp.zeros_like(problem.x), jnp.int32(0), nothing(problem)
    return SparseFoolState(
        r=zero, start=zero, rival=Rival(zero, jnp.zeros_like(best.score), best.score), candidate=none, inner=none,
        points=none, count=none, pruning=before(zero), best=best, status=jnp.int32(Status.PENDING),
    )  # fmt: skip


def _ask(ctx: Context, problem: Problem, config: SparseFool, state: SparseFoolState) -> Array:
    return jnp.clip(coordinates.to_data(problem, state.r), problem.lower, problem.upper)


def _compares(problem: Problem, config: SparseFool, state: SparseFoolState) -> Array:
    """[] bool: several classes are compared at the point asked."""
    return (problem.target < 0) & (state.points < config.compare) & (state.pruning.asked < 0)


def _loss(
    ctx: Context, problem: Problem, config: SparseFool, state: SparseFoolState, point: Array, logits: Array
) -> Array:
    """The lead over the candidate, each of the strongest rivals in turn; over the strongest where none are compared."""
    gap = losses.gap(logits, problem.label, problem.target)
    lead = losses.lead(logits, problem.label, state.candidate)
    one = _compares(problem, config, state) & ~losses.reached(logits, problem.label, problem.target)
    return jnp.where(one, lead, gap)


def _onwards(problem: Problem, config: SparseFool, base: Array, w: Array) -> Way:
    """From ``base`` along sign(w), to the sides of the box."""
    low, high = _room(problem)
    end = jnp.where(w > 0, high, jnp.where(w < 0, low, base))
    if config.order == "slope":
        gain = jnp.abs(w) * jnp.abs(end - base)
        return Way(base, end, gain, jnp.where(gain > 0, jnp.abs(w), 0))
    end = jnp.where(base * w < 0, base, end)  # turning a change back could make a steep network oscillate for ever
    gain = jnp.abs(w) * jnp.abs(end - base)
    free = (base != 0) & (gain > 0)  # continuing a change adds no new one
    return Way(base, end, gain, gain + jnp.where(free, jnp.max(gain), 0))


def _pruned(problem: Problem, pruning: Pruning, best: Array) -> Way:
    """What the last stage offers from the clean input, each change worth 1."""
    end = offered(pruning, best, *_room(problem))
    changed = end != 0
    return Way(jnp.zeros_like(end), end, changed.astype(end.dtype), jnp.where(changed, pruning.w * end, -jnp.inf))


def _distance(problem: Problem, config: SparseFool, way: Way, w: Array, part: Array, lead: Array) -> Array:
    """[] how far a class is: box widths to its plane ("slope"), or changes that reach it; infinite without a way."""
    if config.order == "slope":
        norm = safe_norm(jnp.where(way.end != way.base, w, 0))
        return jnp.where(norm > 0, safe_divide(lead, norm), jnp.inf)
    total = jnp.sum(way.gain)
    changes = jnp.sum(jnp.where(way.base == 0, part, 0))
    beyond = jnp.where(total < lead, part.size * safe_divide(lead, total), 0)  # the box is too small for it
    return jnp.where(total > 0, changes + beyond, jnp.inf)


def _tell(ctx: Context, problem: Problem, config: SparseFool, state: SparseFoolState, ev: Eval) -> SparseFoolState:
    dtype, ahead = problem.x.dtype, 1 + config.overshoot
    reached = losses.reached(ev.logits, problem.label, problem.target)
    fresh = (state.candidate == 0) & (state.pruning.asked < 0)
    begins = fresh & (state.inner == 0)  # r is x_i
    first = begins & (state.count == 0)
    won = begins & ~first & reached
    prunes = won | (state.pruning.asked >= 0)
    crosses = fresh & (state.inner > 0) & (reached | (state.inner >= config.inner_steps))

    w, lead = -ev.grad * coordinates.scale(problem), ev.value
    l0 = jnp.sum(ev.point != problem.x).astype(dtype)
    best = state.best.offer(ev.point, l0, reached & prunes)
    most = jnp.where(jnp.isfinite(best.score), best.score, 0).astype(jnp.int32)
    pruning = bisect(state.pruning, w, won, best.score < state.best.score, most)

    # Comparing starts at r, crossing at x_i, pruning at 0: one sort serves all three.
    onwards = _onwards(problem, config, jnp.where(crosses, state.start, state.r), w)
    fewer = _pruned(problem, pruning, coordinates.to_units(problem, best.x))
    way = select(prunes, fewer, onwards)
    behind = jnp.maximum(config.factor * jnp.sum(w * (state.r - state.start)), 0) + BEYOND * safe_norm(w)
    r, part = go(way, jnp.where(prunes, pruning.m.astype(dtype), jnp.where(crosses, behind, lead)))

    distance = _distance(problem, config, onwards, w, part, lead)
    nearer = fresh | (distance < state.rival.distance)
    rival = select(nearer, Rival(w, lead, distance), state.rival)
    rivals = jnp.minimum(config.classes - 1, losses.rivals(ev.logits, problem.label))
    rivals = jnp.where(_compares(problem, config, state), rivals, 1)
    last = state.candidate + 1 >= rivals

    low, high = _room(problem)
    free = jnp.where(jnp.where(rival.w > 0, state.r < high, state.r > low), rival.w, 0)
    norm = safe_norm(free)
    length = ahead * jnp.maximum(safe_divide(rival.lead, norm), SHORTEST)
    stepped = jnp.clip(state.r + length * safe_divide(free, norm), low, high)
    crossed = jnp.clip(ahead * r, low, high)

    steps = ~crosses & ~prunes & last
    inner = jnp.where(norm > 0, state.inner + 1, config.inner_steps)  # without a way on, DeepFool ends here
    still = (crosses & jnp.all(crossed == state.start)) | (steps & (norm == 0) & (state.inner == 0))
    spent = begins & ~reached & (state.count >= config.steps)
    leaves = prunes & ends(pruning, most, config.prune)
    return SparseFoolState(
        r=jnp.where(prunes, r, jnp.where(crosses, crossed, jnp.where(last, stepped, state.r))).astype(dtype),
        start=jnp.where(crosses, crossed, state.start).astype(dtype),
        rival=rival,
        candidate=jnp.where(crosses | last, 0, state.candidate + 1).astype(jnp.int32),
        inner=jnp.where(crosses, 0, jnp.where(steps, inner, state.inner)).astype(jnp.int32),
        points=(state.points + (crosses | steps)).astype(jnp.int32),
        count=(state.count + crosses).astype(jnp.int32),
        pruning=pruning,
        best=best,
        status=best.status(first & reached, leaves | spent | still),
    )


SparseFool.method = Method("sparsefool", _init, _ask, _loss, _tell)
