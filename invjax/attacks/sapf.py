"""SAPF: a perturbation as a product, magnitudes times a binary choice of k entries (Fan et al., ECCV 2020).

    min_{δ, G}  ‖δ ⊙ G‖_2² + c L(f(x + δ ⊙ G), t) + τ Σ_g ‖G_g‖_2    s.t.  G ∈ {0, 1}^n,  Σ G = k                  (1)

with L the Carlini-Wagner margin and g superpixels (:func:`invjax.attacks.parts.superpixels.superpixels` as ``groups``),
or tiles. δ moves by proximal gradient steps; G by ADMM, with copies in the unit box and on the sphere about 1/2 through
the box's corners, which together mean binary (ℓp-box ADMM, Wu & Ghanem 2019), one for the group term, and a multiplier
for the count. With y_i the copies, z_i their multipliers, z_4 that of the count, m(G) = mean(G) − k/n, η_δ, η_G rates,
g = ∇L:

    δ ← box((δ − η_δ c G g) / (1 + 2 η_δ G²))                                                                      (2)
    y_1 = clip(G + z_1/ρ_1, 0, 1);  y_2: G + z_2/ρ_2 on the sphere;  y_3: G + z_3/ρ_3, its groups shrunk by τ/ρ_3    (3)
    G ← G − M⁻¹ (2 G δ² + c δ g + Σ_i (z_i + ρ_i (G − y_i)) + z_4 + ρ_4 m(G)),
        M = diag(1/η_G + ρ_1 + ρ_2 + ρ_3 + 2 δ²) + ρ_4/n 11ᵀ                                                        (4)
    z_i ← z_i + ρ_i (G − y_i),   z_4 ← z_4 + ρ_4 m(G),   ρ ← min(growth · ρ, its limit)                             (5)

A trial of c has rounds of steps (2) and of steps (3)-(5), then G ← [G > ½], of at most k entries, and more steps (2).
c is searched for the smallest that succeeds. Every point with a binary G is judged; of those that have the wanted class
the one with the fewest changed entries is kept, then the shortest.

Deviations from the released codes: (2) and (4) are exact in the quadratic terms, where theirs are plain gradient steps
(1 − 2 η_δ G², M = I/η_G), which are unstable once η_G (Σρ + …) passes 4/3: late in a trial, and from the 40th step on
at ImageNet's size; δ stays in the box; ρ_4 is that of a mean, the published one at 32 x 32 x 3; in ``order="joint"``
one gradient moves δ and G at once, for half the evaluations; the class is looked at in all of the last steps. Where
nothing may change G is 0. r is in [-1, 1] units.
"""

from __future__ import annotations

from dataclasses import field
from typing import Any, ClassVar, NamedTuple

import jax.numpy as jnp

from invjax import losses, prox
from invjax.attacks.parts import coordinates, units
from invjax.core.config import STATIC, config, require, require_choice
from invjax.core.numerics import replace_if, safe_divide, safe_norm, select
from invjax.core.ranks import largest
from invjax.solvers import search
from invjax.solvers.best import Best, nothing
from invjax.types import Array, Context, Eval, Method, Problem, Status

TURNS = {"joint": 1, "alternate": 2}  # evaluations for a step of δ and a step of G
LIMITS = (20.0, 20.0, 100.0, 30.72)  # ρ_1 … ρ_4 grow no further
FLOOR = 1e-3  # the rates fall no lower
STOP = 0.01  # the search ends where c falls below this share of its start


@config
class SAPF:
    """The attack's constants. The defaults are cheap ones for 32 px images; :data:`PUBLISHED` are the published ones.

    Fields:
      k: how many entries may change, >= 1; above n: all. (The GSE comparison: 265 at 32 px, 19,000 at 224 px.)
      c: weight of the loss in the first trial, > 0; growth: that of the next over it while none has succeeded, > 1.
      trials: values of c tried, >= 1.
      rounds: rounds of a trial; steps: of δ, and of G, in a round; final: of δ alone, with G binary; each >= 1.
      tau: weight of the group term, >= 0.
      rate: η_δ and η_G at the start of a trial, > 0.
      decay: what both are multiplied by, in (0, 1]; decay_every: in every how many of their steps, >= 1.
      rho: ρ_1 = ρ_2 = ρ_3 at the start; rho_count: ρ_4; > 0.
      rho_growth: what they are multiplied by in each step of G, >= 1.
      kappa: confidence, logit units, >= 0.
      order: "joint": a gradient serves both; "alternate": first δ's steps of a round, then G's (static).
      patch: side of the tiles in pixels (static); None: 3 up to 32 px, 12 above. Ignored where groups are given.

    Evaluations per example: trials · (rounds · steps · (1 joint, 2 alternate) + final + 1), no forwards beside them. It
    keeps six arrays of the example's size.
    """

    k: int = 265
    c: float = 1.0
    growth: float = 10.0
    trials: int = 5
    rounds: int = 1
    steps: int = 100
    final: int = 20
    tau: float = 10.0
    rate: float = 0.1
    decay: float = 0.9
    decay_every: int = 25
    rho: float = 5e-3
    rho_count: float = 0.3072
    rho_growth: float = 1.09
    kappa: float = 0.0
    order: str = field(default="joint", metadata=STATIC)
    patch: int | None = field(default=None, metadata=STATIC)

    method: ClassVar[Method]

    def check(self) -> None:
        for name in ("k", "trials", "rounds", "steps", "final", "decay_every"):
            require(self, name, lambda v: v >= 1, "at least 1")
        for name in ("c", "rate", "rho", "rho_count"):
            require(self, name, lambda v: v > 0, "above 0")
        for name in ("tau", "kappa"):
            require(self, name, lambda v: v >= 0, "at least 0")
        require(self, "growth", lambda v: v > 1, "above 1")
        require(self, "decay", lambda v: 0 < v <= 1, "in (0, 1]")
        require(self, "rho_growth", lambda v: v >= 1, "at least 1")
        require_choice(self, "order", tuple(TURNS))
        require(self, "patch", lambda v: v is None or v >= 1, "None or at least 1 pixel")


#: The constants of the GSE comparison on CIFAR-10 (ImageNet: k = 19000, c = 0.01): 41,010 evaluations per example, as
#: many forward and backward passes as the released code; 21,010 with ``order="joint"``.
PUBLISHED = SAPF(
    c=1e-3, trials=10, rounds=10, steps=200, final=100, decay_every=50, rho_growth=1.01, order="alternate"
)  # fmt: skip


class SAPFState(NamedTuple):
    delta: Array  # [*S] δ
    choice: Array  # [*S] G; binary in the last steps of a trial
    duals: Array  # [3, *S] z_1, z_2, z_3
    count_dual: Array  # [] z_4
    rho: Array  # [4] ρ
    rates: Array  # [2] η_δ, η_G
    k: Array  # [] int32, steps of this trial
    c: search.Bracket  # the search for the smallest c that succeeds
    hit: Array  # [] bool, this trial has succeeded
    best: Best  # scored by its changed entries
    norm: Array  # [] ‖r‖_2 of it; infinity if there is none
    status: Array  # [] int32, PENDING until decided


class Room(NamedTuple):
    """Where r may go, and the groups of G."""

    low: Array  # [*S] least r
    high: Array  # [*S] greatest r
    free: Array  # [*S] 1 where r may change, else 0
    n: Array  # [] how many may
    groups: units.Layout


def _room(problem: Problem, config: SAPF) -> Room:
    side = 0 if problem.groups is not None else max(problem.x.shape[:2], default=0)
    low, high = coordinates.room(problem, span=coordinates.SIGNED)
    free = (low < high).astype(low.dtype)
    groups = units.layout(problem, config.patch or (3 if side <= 32 else 12), "SAPF")
    return Room(low, high, free, jnp.maximum(jnp.sum(free), 1), groups)


def _trial(problem: Problem, config: SAPF, c: search.Bracket, best: Best, norm: Array) -> SAPFState:
    """The beginning of a trial: δ = 0 and G = 1, so that x itself is asked first."""
    zero, s = jnp.zeros_like(problem.x), jnp.zeros((), problem.x.dtype)
    return SAPFState(
        delta=zero, choice=_room(problem, config).free, duals=jnp.stack([zero] * 3), count_dual=s,
        rho=jnp.stack([s + config.rho] * 3 + [s + config.rho_count]), rates=jnp.stack([s + config.rate] * 2),
        k=jnp.int32(0), c=c, hit=jnp.bool_(False), best=best, norm=norm, status=jnp.int32(Status.PENDING),
    )  # fmt: skip


def _init(ctx: Context, problem: Problem, config: SAPF) -> SAPFState:
    s = jnp.zeros((), problem.x.dtype)
    return _trial(problem, config, search.init(s + config.c), nothing(problem), s + jnp.inf)


def _ask(ctx: Context, problem: Problem, config: SAPF, state: SAPFState) -> Array:
    low, high, *_ = _room(problem, config)
    return coordinates.to_data(problem, jnp.clip(state.delta * state.choice, low, high), coordinates.SIGNED)


def _loss(ctx: Context, problem: Problem, config: SAPF, state: Any, point: Array, logits: Array) -> Array:
    return losses.margin(logits, problem.label, problem.target, config.kappa)


def copies(shifted: Array, tau: Array, room: Room) -> Array:
    """(3): y_1, y_2, y_3. shifted: [3, *S] the G + z_i/ρ_i; tau: [] τ/ρ_3. The center of the sphere goes to itself."""
    off = (shifted[1] - 0.5) * room.free
    sphere = 0.5 + jnp.sqrt(room.n) / 2 * safe_divide(off, safe_norm(off))
    groups = room.groups.join(prox.group_l2(room.groups.split(shifted[2]), tau, **room.groups.options))
    return room.free * jnp.stack([jnp.clip(shifted[0], 0, 1), sphere, groups])


def _move_choice(config: SAPF, state: SAPFState, room: Room, g: Array) -> tuple[Array, Array, Array, Array]:
    """(3)-(5): G, its duals, that of the count, and ρ. g: [*S] c ∇L."""
    each = state.rho[:3].reshape(3, *(1 for _ in g.shape))
    y = copies(state.choice + state.duals / each, config.tau / state.rho[2], room)
    aim = jnp.minimum(jnp.asarray(config.k, g.dtype), room.n) / room.n

    def excess(choice: Array) -> Array:
        return jnp.sum(choice) / room.n - aim

    pull = jnp.sum(state.duals + each * (state.choice - y), axis=0) + state.count_dual
    d = 2 * state.choice * jnp.square(state.delta) + state.delta * g + pull + state.rho[3] * excess(state.choice)
    # M⁻¹ d by Sherman-Morrison, M being diagonal but for one direction.
    diagonal = 1 / state.rates[1] + jnp.sum(state.rho[:3]) + 2 * jnp.square(state.delta)
    along, across = room.free * d / diagonal, room.free / diagonal
    weight = state.rho[3] / room.n
    choice = state.choice - (along - across * (weight * jnp.sum(along) / (1 + weight * jnp.sum(across))))
    duals = state.duals + each * (choice - y)
    rho = jnp.minimum(state.rho * config.rho_growth, jnp.asarray(LIMITS, g.dtype))
    return choice, duals, state.count_dual + state.rho[3] * excess(choice), rho


def _round(choice: Array, k: Array | int) -> Array:
    """[G > ½] as numbers, the k largest of them where they are more."""
    above = choice > 0.5

    def some(choice: Array) -> Array:
        return above & largest(choice, k)

    return replace_if(jnp.sum(above) > k, some, choice, above).astype(choice.dtype)


def _last(config: SAPF) -> Array | int:
    """The steps of a trial before G is binary."""
    return config.rounds * config.steps * TURNS[config.order]


def advance(problem: Problem, config: SAPF, state: SAPFState, grad: Array) -> SAPFState:
    """One step of a trial. grad: [*S] ∇L at the asked point, with respect to r."""
    room, turns = _room(problem, config), TURNS[config.order]
    final = state.k >= _last(config)
    second = state.k // config.steps % 2 == 1
    moves_delta, moves_choice = (True, ~final) if turns == 1 else (final | ~second, ~final & second)
    moves = jnp.stack([jnp.asarray(moves_delta), moves_choice])

    r = state.delta * state.choice
    inside = (r >= room.low) & (r <= room.high)  # the derivative of the clipping in ask
    g = state.c.value * room.free * jnp.where(inside, grad, 0)
    shrink = 1 + 2 * state.rates[0] * jnp.square(state.choice)
    delta = jnp.clip((state.delta - state.rates[0] * state.choice * g) / shrink, room.low, room.high)
    moved = _move_choice(config, state, room, g)
    old = (state.choice, state.duals, state.count_dual, state.rho)
    choice, duals, count_dual, rho = select(moves[1], moved, old)

    k = state.k + jnp.int32(1)
    # Each round has multipliers of its own; ρ and the rates go on through the trial.
    fresh = k % (config.steps * turns) == 0
    binary = k == _last(config)
    choice = replace_if(binary, lambda choice: _round(choice, config.k), choice, choice)
    decays = moves & (state.k % config.steps % config.decay_every == 0)
    rates = jnp.maximum(state.rates * config.decay, jnp.minimum(state.rates, FLOOR))
    return state._replace(
        delta=jnp.where(moves[0], delta, state.delta),
        choice=choice,
        duals=jnp.where(fresh, 0, duals),
        count_dual=jnp.where(fresh, 0, count_dual),
        rho=rho,
        rates=jnp.where(decays, rates, state.rates),
        k=k,
    )


def _judge(problem: Problem, config: SAPF, state: SAPFState, ev: Eval) -> SAPFState:
    """Keep the point where G is binary, it has the wanted class, and is better than the best."""
    changed = jnp.sum(ev.point != problem.x).astype(ev.point.dtype)
    reached = losses.gap(ev.logits, problem.label, problem.target) < -config.kappa
    valid = (state.k >= _last(config)) & reached & (changed > 0)
    norm = safe_norm(coordinates.to_units(problem, ev.point, coordinates.SIGNED))
    fewer = (changed < state.best.score) | ((changed == state.best.score) & (norm < state.norm))
    best, norm = select(valid & fewer, (Best(ev.point, changed), norm), (state.best, state.norm))
    return state._replace(best=best, norm=norm, hit=state.hit | valid)


def _tell(ctx: Context, problem: Problem, config: SAPF, state: SAPFState, ev: Eval) -> SAPFState:
    first = (state.k == 0) & (state.c.trials == 0)
    clean = first & losses.reached(ev.logits, problem.label, problem.target)
    state = _judge(problem, config, state, ev)
    moved = advance(problem, config, state, ev.grad * coordinates.scale(problem, coordinates.SIGNED))

    ended = state.k >= _last(config) + config.final
    c = search.seek_smallest(state.c, state.hit, grow=config.growth)
    spent = ended & ((c.trials >= config.trials) | (c.value < STOP * config.c))
    again = _trial(problem, config, c, state.best, state.norm)
    follows = select(ended, select(spent, state, again), moved)
    return follows._replace(status=state.best.status(clean, spent))


SAPF.method = Method("sapf", _init, _ask, _loss, _tell)
