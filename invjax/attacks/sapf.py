"""SAPF: the perturbation is a product of magnitudes and a binary choice of k entries (Fan et al., ECCV 2020).

    min_{δ, G}  ‖δ ⊙ G‖_2² + c L(f(x + δ ⊙ G), t) + τ Σ_g ‖G_g‖_2    s.t.  G ∈ {0, 1}^n,  Σ G = k                  (1)

with L the Carlini-Wagner margin and g superpixels (:func:`invjax.attacks.parts.superpixels.superpixels` as ``groups``),
or tiles. δ moves by proximal gradient steps. G moves by ADMM with three copies, in the unit box, on the sphere about
1/2 through the box's corners (both together mean binary: ℓp-box ADMM, Wu & Ghanem 2019) and for the group term, and
with a multiplier for the count. Let y_i be the copies, z_i their multipliers, z_4 that of the count, η_δ and η_G the
step sizes, m(G) = mean(G) − k/n, g = ∇L:

    δ ← box((δ − η_δ c G g) / (1 + 2 η_δ G²))                                                                      (2)
    y_1 = clip(G + z_1/ρ_1, 0, 1);  y_2: G + z_2/ρ_2 on the sphere;  y_3: G + z_3/ρ_3, its groups shrunk by τ/ρ_3    (3)
    G ← G − M⁻¹ (2 G δ² + c δ g + Σ_i (z_i + ρ_i (G − y_i)) + z_4 + ρ_4 m(G)),
        M = diag(1/η_G + ρ_1 + ρ_2 + ρ_3 + 2 δ²) + ρ_4/n 11ᵀ                                                        (4)
    z_i ← z_i + ρ_i (G − y_i),   z_4 ← z_4 + ρ_4 m(G),   ρ ← min(rho_growth · ρ, its limit)                         (5)

A trial of c has rounds of steps (2) and of steps (3)-(5), then G ← [G > ½], of at most k entries, and more steps (2).
A search looks for the smallest c that succeeds. Every point with a binary G is judged. Of the points with the wanted
class the attack keeps the one with the fewest changed entries, and of several such points the shortest.

Deviations from the released codes: (2) and (4) are exact in the quadratic terms, where theirs are plain gradient steps
(1 − 2 η_δ G², M = I/η_G), which are unstable once η_G (Σρ + …) passes 4/3: late in a trial, and from the 40th step on
at ImageNet's size; δ stays in the box; ρ_4 belongs to a mean and equals the published one at 32 x 32 x 3; with
``order="joint"`` one gradient moves δ and G at once, for half the evaluations; the class is checked in all of the last
steps. Where nothing may change, G is 0. r is in [-1, 1] units.
"""

from __future__ import annotations

from dataclasses import field
from typing import Any, ClassVar, Literal, NamedTuple

import jax.numpy as jnp

from invjax import losses, prox
from invjax.attacks.parts import coordinates, units
from invjax.core.config import STATIC, config, require, require_above, require_at_least
from invjax.core.numerics import replace_if, safe_divide, safe_norm, select
from invjax.core.ranks import largest
from invjax.solvers import search
from invjax.solvers.best import Best, nothing
from invjax.types import Array, Context, Eval, Method, Problem, Status

TURNS = {"joint": 1, "alternate": 2}  # evaluations for a step of δ and a step of G
LIMITS = (20.0, 20.0, 100.0, 30.72)  # ρ_1 … ρ_4 grow no further
FLOOR = 1e-3  # the step sizes fall no lower
STOP = 0.01  # the search ends where c falls below this share of its first value


@config
class SAPF:
    """The attack's constants. The defaults are cheap ones for 32 px images; :data:`PUBLISHED` has the published ones.

    Fields:
      k: entries that may change, >= 1; all of them if x has fewer. (The GSE comparison: 265 at 32 px, 19,000 at 224
        px.)
      initial_weight: c, the weight of the loss, in the first trial, > 0.
      growth: factor from one c to the next while none has succeeded, > 1.
      trials: values of c tried, >= 1.
      rounds: rounds of a trial, >= 1; the multipliers start anew in each.
      steps: steps of δ, and as many of G, in a round, >= 1.
      final_steps: steps of δ alone at the end of a trial, with G binary, >= 1.
      group_weight: τ, the weight of the group term, >= 0.
      step_size: η_δ and η_G at the beginning of a trial, > 0.
      decay: factor by which both fall, in (0, 1].
      decay_every: steps from one such fall to the next, >= 1.
      rho: ρ_1 = ρ_2 = ρ_3 at the beginning of a trial, > 0.
      rho_count: ρ_4 there, > 0.
      rho_growth: factor by which ρ_1 … ρ_4 grow in each step of G, >= 1.
      kappa: margin of a success, logit units, >= 0.
      order: "joint": a gradient moves δ and G; "alternate": a round moves δ in its first steps, then G (static).
      patch: side of the tiles in pixels, >= 1; None stands for 3 up to 32 px and 12 above. Ignored where groups are
        given (static).

    Evaluations per example: trials · (rounds · steps · (1 joint, 2 alternate) + final_steps + 1), no forwards beside
    them. A lane keeps six arrays of the example's size.
    """

    k: int = 265
    initial_weight: float = 1.0
    growth: float = 10.0
    trials: int = 5
    rounds: int = 1
    steps: int = 100
    final_steps: int = 20
    group_weight: float = 10.0
    step_size: float = 0.1
    decay: float = 0.9
    decay_every: int = 25
    rho: float = 5e-3
    rho_count: float = 0.3072
    rho_growth: float = 1.09
    kappa: float = 0.0
    order: Literal["joint", "alternate"] = field(default="joint", metadata=STATIC)
    patch: int | None = field(default=None, metadata=STATIC)

    RENAMED: ClassVar = {"c": "initial_weight", "final": "final_steps", "tau": "group_weight", "rate": "step_size"}
    method: ClassVar[Method]

    def check(self) -> None:
        require_at_least(self, 1, "k", "trials", "rounds", "steps", "final_steps", "decay_every", "rho_growth")
        require_above(self, 0, "initial_weight", "step_size", "rho", "rho_count")
        require_at_least(self, 0, "group_weight", "kappa")
        require_above(self, 1, "growth")
        require(self, "decay", lambda v: 0 < v <= 1, "in (0, 1]")
        require(self, "patch", lambda v: v is None or v >= 1, "None or at least 1 pixel")


#: The constants of the GSE comparison on CIFAR-10 (ImageNet: k = 19000, initial_weight = 0.01): 41,010 evaluations per
#: example, as many forward and backward passes as the released code has; 21,010 with ``order="joint"``.
PUBLISHED = SAPF(initial_weight=1e-3, trials=10, rounds=10, steps=200, final_steps=100, decay_every=50, rho_growth=1.01,
                 order="alternate")  # fmt: skip


class SAPFState(NamedTuple):
    delta: Array  # [*S] δ
    choice: Array  # [*S] G; binary in the last steps of a trial
    duals: Array  # [3, *S] z_1, z_2, z_3
    count_dual: Array  # [] z_4
    rho: Array  # [4] ρ
    sizes: Array  # [2] η_δ, η_G
    count: Array  # [] int32, steps of this trial
    weight: search.Bracket  # the search for the smallest c that succeeds
    hit: Array  # [] bool, this trial has succeeded
    best: Best  # scored by its changed entries, and of equal scores by ‖r‖_2
    status: Array  # [] int32, PENDING until decided


class Room(NamedTuple):
    """Where r may go, and the groups of G."""

    low: Array  # [*S] least r
    high: Array  # [*S] greatest r
    free: Array  # [*S] 1 where r may change, else 0
    n: Array  # [] how many entries may change, at least 1
    groups: units.Layout


def room_of(problem: Problem, config: SAPF) -> Room:
    """The room and the groups of one example. Raises ValueError where it has no groups."""
    low, high = coordinates.room(problem, span=coordinates.SIGNED)
    free = (low < high).astype(low.dtype)
    groups = units.layout(problem, units.patch_side(problem.x.shape, config.patch, 3, 12), "SAPF")
    return Room(low, high, free, jnp.maximum(jnp.sum(free), 1), groups)


def _trial(problem: Problem, config: SAPF, weight: search.Bracket, best: Best) -> SAPFState:
    """The beginning of a trial: δ = 0 and G = 1, so that x itself is asked first."""
    zero, s = jnp.zeros_like(problem.x), jnp.zeros((), problem.x.dtype)
    return SAPFState(
        delta=zero, choice=room_of(problem, config).free, duals=jnp.stack([zero] * 3), count_dual=s,
        rho=jnp.stack([s + config.rho] * 3 + [s + config.rho_count]), sizes=jnp.stack([s + config.step_size] * 2),
        count=jnp.int32(0), weight=weight, hit=jnp.bool_(False), best=best, status=jnp.int32(Status.PENDING),
    )  # fmt: skip


def _init(ctx: Context, problem: Problem, config: SAPF) -> SAPFState:
    weight = search.init(jnp.asarray(config.initial_weight, problem.x.dtype))
    return _trial(problem, config, weight, nothing(problem, ties=True))


def _ask(ctx: Context, problem: Problem, config: SAPF, state: SAPFState) -> Array:
    low, high, *_ = room_of(problem, config)
    return coordinates.to_data(problem, jnp.clip(state.delta * state.choice, low, high), coordinates.SIGNED)


def _loss(ctx: Context, problem: Problem, config: SAPF, state: Any, point: Array, logits: Array) -> Array:
    return losses.margin(logits, problem.label, problem.target, config.kappa)


def copies(shifted: Array, weight: Array, room: Room) -> Array:
    """(3): y_1, y_2, y_3. shifted: [3, *S] G + z_i/ρ_i; weight: [] τ/ρ_3. The sphere's center is mapped to itself."""
    off = (shifted[1] - 0.5) * room.free
    sphere = 0.5 + jnp.sqrt(room.n) / 2 * safe_divide(off, safe_norm(off))
    groups = room.groups.join(prox.group_l2(room.groups.split(shifted[2]), weight, **room.groups.options))
    return room.free * jnp.stack([jnp.clip(shifted[0], 0, 1), sphere, groups])


def move_choice(config: SAPF, state: SAPFState, room: Room, g: Array) -> tuple[Array, Array, Array, Array]:
    """(3)-(5): the next G, its multipliers z_1 … z_3, that of the count, and ρ. g: [*S] c ∇L."""
    each = state.rho[:3].reshape(3, *(1 for _ in g.shape))
    y = copies(state.choice + state.duals / each, config.group_weight / state.rho[2], room)
    aim = jnp.minimum(jnp.asarray(config.k, g.dtype), room.n) / room.n

    def excess(choice: Array) -> Array:
        return jnp.sum(choice) / room.n - aim

    pull = jnp.sum(state.duals + each * (state.choice - y), axis=0) + state.count_dual
    d = 2 * state.choice * jnp.square(state.delta) + state.delta * g + pull + state.rho[3] * excess(state.choice)
    # M⁻¹ d by Sherman-Morrison: M is diagonal except for one direction.
    diagonal = 1 / state.sizes[1] + jnp.sum(state.rho[:3]) + 2 * jnp.square(state.delta)
    along, across = room.free * d / diagonal, room.free / diagonal
    weight = state.rho[3] / room.n
    choice = state.choice - (along - across * (weight * jnp.sum(along) / (1 + weight * jnp.sum(across))))
    duals = state.duals + each * (choice - y)
    rho = jnp.minimum(state.rho * config.rho_growth, jnp.asarray(LIMITS, g.dtype))
    return choice, duals, state.count_dual + state.rho[3] * excess(choice), rho


def _round(choice: Array, k: Array | int) -> Array:
    """[G > ½] as numbers; only the k largest where more entries than that are above ½."""
    above = choice > 0.5
    return replace_if(jnp.sum(above) > k, lambda choice: above & largest(choice, k), choice, above).astype(choice.dtype)


def _last(config: SAPF) -> Array | int:
    """The steps of a trial before G is binary."""
    return config.rounds * config.steps * TURNS[config.order]


def advance(problem: Problem, config: SAPF, state: SAPFState, grad: Array) -> SAPFState:
    """One step of a trial. grad: [*S] ∇L at the asked point, with respect to r."""
    room, turns = room_of(problem, config), TURNS[config.order]
    final = state.count >= _last(config)
    second = state.count // config.steps % 2 == 1
    moves_delta, moves_choice = (True, ~final) if turns == 1 else (final | ~second, ~final & second)
    moves = jnp.stack([jnp.asarray(moves_delta), moves_choice])

    r = state.delta * state.choice
    inside = (r >= room.low) & (r <= room.high)  # the derivative of the clipping in ask
    g = state.weight.value * room.free * jnp.where(inside, grad, 0)
    shrink = 1 + 2 * state.sizes[0] * jnp.square(state.choice)
    delta = jnp.clip((state.delta - state.sizes[0] * state.choice * g) / shrink, room.low, room.high)
    moved = move_choice(config, state, room, g)
    old = (state.choice, state.duals, state.count_dual, state.rho)
    choice, duals, count_dual, rho = select(moves[1], moved, old)

    count = state.count + jnp.int32(1)
    # Each round has multipliers of its own; ρ and the step sizes run through the whole trial.
    fresh = count % (config.steps * turns) == 0
    binary = count == _last(config)
    choice = replace_if(binary, lambda choice: _round(choice, config.k), choice, choice)
    decays = moves & (state.count % config.steps % config.decay_every == 0)
    sizes = jnp.maximum(state.sizes * config.decay, jnp.minimum(state.sizes, FLOOR))
    return state._replace(
        delta=jnp.where(moves[0], delta, state.delta),
        choice=choice,
        duals=jnp.where(fresh, 0, duals),
        count_dual=jnp.where(fresh, 0, count_dual),
        rho=rho,
        sizes=jnp.where(decays, sizes, state.sizes),
        count=count,
    )


def _judge(problem: Problem, config: SAPF, state: SAPFState, ev: Eval) -> SAPFState:
    """Keep the point if G is binary, the class is the wanted one, and the point is better than the best."""
    changed = jnp.sum(ev.point != problem.x).astype(ev.point.dtype)
    reached = losses.gap(ev.logits, problem.label, problem.target) < -config.kappa
    valid = (state.count >= _last(config)) & reached & (changed > 0)
    norm = safe_norm(coordinates.to_units(problem, ev.point, coordinates.SIGNED))
    return state._replace(best=state.best.offer(ev.point, changed, valid, tie=norm), hit=state.hit | valid)


def _tell(ctx: Context, problem: Problem, config: SAPF, state: SAPFState, ev: Eval) -> SAPFState:
    first = (state.count == 0) & (state.weight.trials == 0)
    clean = first & losses.reached(ev.logits, problem.label, problem.target)
    state = _judge(problem, config, state, ev)
    moved = advance(problem, config, state, ev.grad * coordinates.scale(problem, coordinates.SIGNED))

    ended = state.count >= _last(config) + config.final_steps
    weight = search.seek_smallest(state.weight, state.hit, config.growth)
    spent = ended & ((weight.trials >= config.trials) | (weight.value < STOP * config.initial_weight))
    again = _trial(problem, config, weight, state.best)
    follows = select(ended, select(spent, state, again), moved)
    return follows._replace(status=state.best.status(clean, spent))


SAPF.method = Method("sapf", _init, _ask, _loss, _tell)
