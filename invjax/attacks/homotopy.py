"""The homotopy attack: l0 sparsity by nonmonotone accelerated proximal gradient with falling λ (Zhu et al., ICML 2021).

    min_r  F(r) = L(f(x + r), t) + λ N(r)    s.t.  x + r in the box,  ‖r‖_∞ <= ε                                    (1)

with L the Carlini-Wagner margin and N(r) the number of changed units: features, pixels or groups. λ starts at a share
of the smallest value that keeps r at 0 and falls by a factor per stage. Each stage is solved by nmAPG (Li & Lin 2015,
algorithm 4) with Barzilai-Borwein steps and the exact map of λN + box + "at most N(r of the last stage) + max_update
units". The first point with the wanted class ends the search; then ‖r‖_∞ is reduced as far as the class allows.

Deviations from the released codes: the map is exact (theirs always drops groups that are not clipped); the first λ is a
formula; N counts the units that the map counts; t and c are those of the paper; step sizes are relative to ε and
‖∇L‖_∞ and probed in parallel, as a ladder; there is no refinement between stages. Their final descent along ∂‖r‖_∞, up
to 40,000 steps, is replaced by what it converges to: a bisection for the smallest level at which r may be clipped. r is
in [-1, 1] units.
"""

from __future__ import annotations

from dataclasses import field
from functools import partial
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp

from invjax import losses, projections, prox
from invjax.attacks.parts.coordinates import SIGNED, room, scale, to_data, to_units
from invjax.attacks.parts.units import Layout, Unit, count, layout_of, patch_side
from invjax.core.config import STATIC, config, require, require_above, require_at_least
from invjax.core.groups import group_gains
from invjax.core.numerics import safe_divide, safe_norm, select
from invjax.solvers.best import Best, nothing
from invjax.types import Array, Context, Eval, Method, Outcome, Problem, Status

PROBES = 4  # candidates per step: step sizes of the line search, or levels of the bisection
APG_Z, APG_X, POLISH = 0, 1, 2  # what the asked point is for


@config
class Homotopy:
    """The attack's constants, r in [-1, 1] units; the defaults are those of the GSE comparison on CIFAR-10.

    Fields:
      eps: bound on every |r|, > 0.
      initial_weight: λ of the first stage, as a share of the smallest λ that keeps r at 0, in (0, 1).
      decay: factor from the λ of one stage to the next, in (0, 1).
      max_update: units by which N may grow in a stage, >= 1.
      inner_steps: steps of nmAPG in a stage, >= 1.
      steps: steps of all stages together before the attack gives up, >= 1.
      tolerance: a stage ends when F has changed by less in two steps running, logit units, >= 0.
      step_size: how far the first step of a stage moves the steepest coordinate, as a share of eps, > 0.
      shrink: factor from one step size of a line search to the next, in (0, 1).
      sufficient_decrease: F must fall by this times the squared length of the step (δ of nmAPG), > 0.
      memory: weight of the past in the nonmonotone average, in [0, 1).
      polish: steps of the bisection for ‖r‖_∞, each of which divides its bracket by five, >= 0.
      kappa: margin of a success, logit units, >= 0.
      unit: what N counts: "group" (patches, or the problem's groups), "pixel" or "feature" (static).
      patch: side of the patches in pixels, >= 1; None stands for 3 up to 32 px and 12 above (static).

    Evaluations per example: at most steps + polish, and four times as many forwards.
    """

    eps: float = 0.1
    initial_weight: float = 0.1
    decay: float = 0.9
    max_update: int = 1
    inner_steps: int = 100
    steps: int = 1000
    tolerance: float = 1e-3
    step_size: float = 1.0
    shrink: float = 0.25
    sufficient_decrease: float = 0.3
    memory: float = 0.9
    polish: int = 4
    kappa: float = 0.0
    unit: Unit = field(default="group", metadata=STATIC)
    patch: int | None = field(default=None, metadata=STATIC)

    RENAMED: ClassVar = {"start": "initial_weight", "inner": "inner_steps", "iterations": "steps",
                         "step": "step_size", "delta": "sufficient_decrease"}  # fmt: skip
    method: ClassVar[Method]

    def check(self) -> None:
        require_above(self, 0, "eps", "step_size", "sufficient_decrease")
        require_at_least(self, 1, "max_update", "inner_steps", "steps")
        require_at_least(self, 0, "tolerance", "kappa", "polish")
        for name in ("initial_weight", "decay", "shrink"):
            require(self, name, lambda v: 0 < v < 1, "in (0, 1)")
        require(self, "memory", lambda v: 0 <= v < 1, "in [0, 1)")
        require(self, "patch", lambda v: v is None or v >= 1, "None or at least 1 pixel")


class HomotopyState(NamedTuple):
    r: Array  # [*S] the iterate x_k of nmAPG
    asked: Array  # [*S] the point asked: y_k, or x_k where z was refused, or r while polishing
    grad: Array  # [*S] ∇L there
    value: Array  # [] L there
    held: Array  # [*S] the z that was refused
    held_value: Array  # [] F there
    y: Array  # [*S] the last y_k with its gradient, for the Barzilai-Borwein step
    y_grad: Array  # [*S]
    t: Array  # [] momentum t_k
    average: Array  # [] the nonmonotone average c_k of F
    weight: Array  # [] its weight q_k
    current: Array  # [] F(r)
    size: Array  # [] the largest step size of the next line search
    first_size: Array  # [] the largest one at the beginning of a stage
    lam: Array  # [] λ
    base: Array  # [] int32, N(r) at the beginning of the stage
    low: Array  # [] bisection: a level of |r| that failed
    high: Array  # [] bisection: a level that succeeded
    count: Array  # [] int32, steps of this stage, or of the bisection; -1 before the clean input was seen
    calm: Array  # [] int32, steps running without a change of F
    spent: Array  # [] int32, evaluations
    mode: Array  # [] int32: APG_Z, APG_X or POLISH
    best: Best  # scored by the level it is clipped at; found as soon as the mode is POLISH
    status: Array  # [] int32, PENDING until decided


def _init(ctx: Context, problem: Problem, config: Homotopy) -> HomotopyState:
    _units(problem, config)  # raises where there are none
    zero, s, n = jnp.zeros_like(problem.x), jnp.zeros((), problem.x.dtype), jnp.int32(0)
    return HomotopyState(
        r=zero, asked=zero, grad=zero, value=s, held=zero, held_value=s, y=zero, y_grad=zero, t=s + 1,
        average=s, weight=s + 1, current=s, size=s, first_size=s, lam=s, base=n, low=s, high=s, count=jnp.int32(-1),
        calm=n, spent=n, mode=jnp.int32(APG_Z), best=nothing(problem), status=jnp.int32(Status.PENDING),
    )  # fmt: skip


def _units(problem: Problem, config: Homotopy) -> Layout:
    return layout_of(problem, config.unit, patch_side(problem.x.shape, config.patch, 3, 12), "Homotopy")


def _count(problem: Problem, config: Homotopy, r: Array) -> Array:
    """N(r). [] int32"""
    return count(_units(problem, config).grouping(r.shape), r)


def proximal_map(problem: Problem, config: Homotopy, v: Array, weight: Array, limit: Array) -> Array:
    """argmin_u ½‖u − v‖² + weight·N(u) within the box and with N(u) <= limit. [*S]

    Both rules order the units by what each gains, so the minimiser keeps the units that pass both.
    """
    low, high = room(problem, config.eps, SIGNED)
    cut = _units(problem, config)
    parts, low, high = cut.split(v), cut.split(low), cut.split(high)
    some = prox.group_l0(parts, weight, lower=low, upper=high, **cut.options)
    few = projections.top_m_groups(parts, limit, lower=low, upper=high, **cut.options)
    return cut.join(jnp.where(few != 0, some, 0))


def zero_lambda(problem: Problem, config: Homotopy, grad: Array, size: Array) -> Array:
    """The smallest λ with which the first proximal step, from 0, stays at 0: half the largest gain over its size."""
    low, high = room(problem, config.eps, SIGNED)
    cut = _units(problem, config)
    parts = cut.split(-size * grad)
    _, gains, _ = group_gains(parts, cut.split(low), cut.split(high), cut.sums(parts.shape))
    return safe_divide(jnp.max(gains), 2 * size)


def _ask(ctx: Context, problem: Problem, config: Homotopy, state: HomotopyState) -> Array:
    return to_data(problem, state.asked, SIGNED, config.eps)


def _loss(ctx: Context, problem: Problem, config: Homotopy, state: Any, point: Array, logits: Array) -> Array:
    return losses.margin(logits, problem.label, problem.target, config.kappa)


def _tell(ctx: Context, problem: Problem, config: Homotopy, state: HomotopyState, ev: Eval) -> HomotopyState:
    first = state.count < 0
    clean = first & losses.reached(ev.logits, problem.label, problem.target)
    grad = ev.grad * scale(problem, SIGNED)
    start = safe_divide(jnp.asarray(config.step_size * config.eps, grad.dtype), jnp.max(jnp.abs(grad)))
    first_size = jnp.where(first, start, state.first_size)
    lam = jnp.where(first, config.initial_weight * zero_lambda(problem, config, grad, start), state.lam)
    is_y = state.mode == APG_Z
    # Barzilai-Borwein along the asked y; the last size stands where the curvature says nothing, or is only rounding.
    move, turn = state.asked - state.y, grad - state.y_grad
    bend, along = jnp.sum(jnp.square(turn)), jnp.sum(move * turn)
    size, sure = safe_divide(along, bend), 1e-3 * safe_norm(move) * safe_norm(turn)
    usable = is_y & ~first & (bend > 1e-6 * jnp.sum(jnp.square(grad))) & (along > sure)
    size = jnp.where(usable, jnp.clip(size, 1e-3 * first_size, 1e3 * first_size), jnp.where(first, start, state.size))
    return state._replace(
        grad=grad,
        value=ev.value,
        lam=lam,
        current=jnp.where(first, ev.value, state.current),
        average=jnp.where(first, ev.value, state.average),
        size=size,
        first_size=first_size,
        y=jnp.where(is_y, state.asked, state.y),
        y_grad=jnp.where(is_y, grad, state.y_grad),
        count=jnp.maximum(state.count, 0).astype(jnp.int32),
        spent=state.spent + jnp.int32(1),
        status=jnp.where(clean, Status.ALREADY_TARGET, state.status).astype(jnp.int32),
    )


def _numbers(config: Homotopy, state: HomotopyState) -> tuple[Array, Array]:
    """The step sizes of the line search, and the levels of the bisection. [q] each"""
    turns = jnp.arange(PROBES).astype(state.size.dtype)
    sizes = state.size * jnp.asarray(config.shrink, state.size.dtype) ** turns
    return sizes, state.low + (state.high - state.low) * (turns + 1) / (PROBES + 1)


def _probe(ctx: Context, problem: Problem, config: Homotopy, state: HomotopyState) -> Array:
    limit = state.base + config.max_update

    def one(size: Array, level: Array) -> Array:
        u = proximal_map(problem, config, state.asked - size * state.grad, size * state.lam, limit)
        u = jnp.where(state.mode == POLISH, jnp.clip(state.r, -level, level), u)
        return to_data(problem, u, SIGNED, config.eps)

    return jax.vmap(one)(*_numbers(config, state))


def _tell_probe(
    ctx: Context, problem: Problem, config: Homotopy, state: HomotopyState, points: Array, logits: Array
) -> HomotopyState:
    clean = state.status == Status.ALREADY_TARGET
    numbers = jnp.where(state.mode == POLISH, *reversed(_numbers(config, state)))
    rows = jax.vmap(lambda point: to_units(problem, point, SIGNED))(points)
    gaps = jax.vmap(lambda z: losses.gap(z, problem.label, problem.target))(logits).astype(numbers.dtype)
    reached = ~clean & (gaps < -config.kappa) & (points != problem.x).any(tuple(range(1, points.ndim)))
    counts = jax.vmap(partial(_count, problem, config))(rows).astype(numbers.dtype)
    polish, apg = state.mode == POLISH, _apg(problem, config, state, numbers, rows, gaps, counts)

    # A success of nmAPG: the point that reached the class with the fewest units goes on to the bisection.
    got = reached.any()
    won = got & ~polish
    pick = jnp.where(polish, jnp.argmax(reached), jnp.argmin(jnp.where(reached, counts, jnp.inf)))
    level = jnp.where(polish, numbers[pick], jnp.max(jnp.abs(rows[pick])))
    gone = jnp.where(reached, -jnp.inf, numbers)
    lowest = jnp.max(jnp.where(numbers < jnp.where(got, numbers[pick], jnp.inf), gone, -jnp.inf))
    kept = jnp.where(won, rows[pick], state.r)
    bisected = state._replace(
        r=kept, asked=kept, low=jnp.where(won, 0, jnp.maximum(state.low, lowest)),
        high=jnp.where(got, level, state.high), count=jnp.where(won, 0, state.count + 1).astype(jnp.int32),
        mode=jnp.int32(POLISH), best=state.best.offer(points[pick], level, got),
    )  # fmt: skip
    state = select(polish | won, bisected, apg)

    finished = (state.mode == POLISH) & (state.count >= config.polish)
    lost = (state.mode != POLISH) & (state.spent >= config.steps)
    return state._replace(status=state.best.status(clean, finished | lost))


def _apg(
    problem: Problem, config: Homotopy, state: HomotopyState, sizes: Array, rows: Array, gaps: Array, counts: Array
) -> HomotopyState:
    """One step of nmAPG from the values probed: z from y, or, if F refuses that, the better of z and v from x."""
    values = jnp.maximum(gaps + config.kappa, 0) + state.lam * counts
    moved = jnp.sum(jnp.square(rows - state.asked), axis=tuple(range(1, rows.ndim)))
    here = state.value + state.lam * _count(problem, config, state.asked)
    # The slack keeps rounding from deciding where r is at its bounds and nothing moves.
    bar = config.sufficient_decrease * moved - 0.01 * config.tolerance
    enough = (values <= here - bar) | (values <= state.average - bar)
    index = jnp.where(enough.any(), jnp.argmax(enough), jnp.argmin(values))
    candidate, value = rows[index], values[index]
    at_y = state.mode == APG_Z
    refused = at_y & ~(value <= state.average - bar[index])

    use_held = ~at_y & (state.held_value <= value)
    fresh = jnp.where(use_held, state.held, candidate)
    fresh_value = jnp.where(use_held, state.held_value, value)
    worse = ~at_y & (fresh_value > state.average) & ~enough.any()  # neither helps: stay, with shorter steps
    fresh, fresh_value = jnp.where(worse, state.r, fresh), jnp.where(worse, state.current, fresh_value)

    t = (1 + jnp.sqrt(1 + 4 * jnp.square(state.t))) / 2
    weight = config.memory * state.weight + 1
    average = (config.memory * state.weight * state.average + fresh_value) / weight
    z = jnp.where(at_y, candidate, state.held)
    low, high = room(problem, config.eps, SIGNED)
    y = fresh + state.t / t * (z - fresh) + (state.t - 1) / t * (fresh - state.r)
    calm = jnp.where(jnp.abs(fresh_value - state.current) < config.tolerance, state.calm + 1, 0)
    done = state.count + 1

    ended = (calm >= 2) | (done >= config.inner_steps)
    lam = jnp.where(ended, state.lam * config.decay, state.lam)
    used = _count(problem, config, fresh)
    current = fresh_value + (lam - state.lam) * used
    size = jnp.where(ended, state.first_size, jnp.where(worse, sizes[-1] * config.shrink, sizes[index]))
    taken = state._replace(
        r=fresh, asked=jnp.where(ended, fresh, jnp.clip(y, low, high)),
        t=jnp.where(ended, 1, t), average=jnp.where(ended, current, average),
        weight=jnp.where(ended, 1, weight), current=current, size=size, lam=lam,
        base=jnp.where(ended, used, state.base).astype(jnp.int32), count=jnp.where(ended, 0, done).astype(jnp.int32),
        calm=jnp.where(ended, 0, calm).astype(jnp.int32), mode=jnp.int32(APG_Z),
    )  # fmt: skip
    again = state._replace(held=candidate, held_value=value, asked=state.r, mode=jnp.int32(APG_X))
    return select(refused, again, taken)


def _result(ctx: Context, problem: Problem, config: Homotopy, state: HomotopyState) -> Outcome:
    return state.best.outcome(state.status, to_data(problem, state.r, SIGNED, config.eps))


Homotopy.method = Method("homotopy", _init, _ask, _loss, _tell, result=_result, probe=_probe, tell_probe=_tell_probe)
