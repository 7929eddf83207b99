"""The homotopy attack: l0 sparsity by nonmonotone accelerated proximal gradient, λ falling (Zhu et al., ICML 2021).

    min_r  F(r) = L(f(x + r), t) + λ N(r)    s.t.  x + r in the box,  ‖r‖_∞ <= ε                                    (1)

with L the Carlini-Wagner margin and N(r) the number of changed units: features, pixels or groups. λ starts at a share
of the smallest value that keeps r at 0 and falls by a factor per stage; a stage is solved by nmAPG (Li & Lin 2015,
algorithm 4) with Barzilai-Borwein steps and the exact map of λN + box + "at most N(r of the last stage) + max_update
units". The first point with the wanted class ends the search; then ‖r‖_∞ is reduced as far as the class allows.

Deviations from the released codes: the map is exact (theirs always drops groups that are not clipped); λ's start is a
formula; N counts the units that the map counts; t and c are those of the paper; steps are relative to ε and ‖∇L‖_∞,
in ladders of parallel probes; there is no refinement between stages; the final descent along ∂‖r‖_∞, up to 40,000
steps, is what it converges to: a bisection for the smallest level at which r may be clipped. r is in [-1, 1] units.
"""

from __future__ import annotations

from dataclasses import field
from functools import partial
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp

from invjax import losses, projections, prox
from invjax.attacks.parts.coordinates import SIGNED, room, scale, to_data, to_units
from invjax.attacks.parts.units import UNITS, Layout, count, layout_of
from invjax.core.config import STATIC, config, require, require_choice
from invjax.core.groups import group_gains
from invjax.core.numerics import safe_divide, safe_norm
from invjax.types import Array, Context, Eval, Method, Outcome, Problem, Status

PROBES = 4  # candidates per iteration: the ladder of steps, or the levels of the bisection
APG_Z, APG_X, POLISH = 0, 1, 2  # what the asked point is for


@config
class Homotopy:
    """The attack's constants, r in [-1, 1] units: those of the GSE comparison on CIFAR-10.

    Fields:
      eps: bound on every |r|; kappa: confidence in logit units, >= 0.
      start: λ of the first stage over the smallest λ that keeps r at 0, in (0, 1).
      decay: λ of a stage over that of the one before, in (0, 1).
      max_update: units by which N may grow in a stage, >= 1.
      inner: nmAPG iterations of a stage; iterations: evaluations before giving up; >= 1.
      tolerance: a stage ends when F has changed by less twice running, logit units, >= 0.
      step: the first step of a stage, as the share of eps that it moves the steepest coordinate by, > 0.
      shrink: ratio of successive steps of a line search, in (0, 1); delta: its sufficient decrease, > 0.
      memory: weight of the past in the nonmonotone average, in [0, 1).
      polish: iterations of the bisection for ‖r‖_∞, each dividing its bracket by five, >= 0.
      unit: what N counts: "group" (patches, or the problem's groups), "pixel" or "feature" (static).
      patch: side of the patches in pixels (static); None: 3 up to 32 px, 12 above.

    Evaluations per example: at most iterations + polish, and four times as many forwards.
    """

    eps: float = 0.1
    start: float = 0.1
    decay: float = 0.9
    max_update: int = 1
    inner: int = 100
    iterations: int = 1000
    tolerance: float = 1e-3
    step: float = 1.0
    shrink: float = 0.25
    delta: float = 0.3
    memory: float = 0.9
    polish: int = 4
    kappa: float = 0.0
    unit: str = field(default="group", metadata=STATIC)
    patch: int | None = field(default=None, metadata=STATIC)

    method: ClassVar[Method]

    def check(self) -> None:
        for name in ("eps", "step", "delta"):
            require(self, name, lambda v: v > 0, "above 0")
        for name in ("start", "decay", "shrink"):
            require(self, name, lambda v: 0 < v < 1, "in (0, 1)")
        for name in ("max_update", "inner", "iterations"):
            require(self, name, lambda v: v >= 1, "at least 1")
        for name in ("tolerance", "kappa", "polish"):
            require(self, name, lambda v: v >= 0, "at least 0")
        require(self, "memory", lambda v: 0 <= v < 1, "in [0, 1)")
        require_choice(self, "unit", UNITS)
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
    step: Array  # [] the longest step of the next ladder
    first_step: Array  # [] that of a stage
    lam: Array  # [] λ
    base: Array  # [] int32, N(r) at the beginning of the stage
    low: Array  # [] bisection: a level of |r| that failed
    high: Array  # [] one that succeeded
    k: Array  # [] int32, iterations of this stage, or of the bisection; -1 before the clean input was seen
    calm: Array  # [] int32, iterations without change running
    spent: Array  # [] int32, evaluations
    mode: Array  # [] int32: APG_Z, APG_X or POLISH
    best: Array  # [*S] point with the wanted class, data units
    status: Array  # [] int32, PENDING until decided


def _init(ctx: Context, problem: Problem, config: Homotopy) -> HomotopyState:
    _units(problem, config)  # raises where there are none
    zero, s, n = jnp.zeros_like(problem.x), jnp.zeros((), problem.x.dtype), jnp.int32(0)
    return HomotopyState(
        r=zero, asked=zero, grad=zero, value=s, held=zero, held_value=s, y=zero, y_grad=zero, t=s + 1,
        average=s, weight=s + 1, current=s, step=s, first_step=s, lam=s, base=n, low=s, high=s,
        k=jnp.int32(-1), calm=n, spent=n, mode=jnp.int32(APG_Z), best=problem.x, status=jnp.int32(Status.PENDING),
    )  # fmt: skip


def _units(problem: Problem, config: Homotopy) -> Layout:
    side = 0 if problem.groups is not None else max(problem.x.shape[:2], default=0)
    return layout_of(problem, config.unit, config.patch or (3 if side <= 32 else 12), "Homotopy")


def _count(problem: Problem, config: Homotopy, r: Array) -> Array:
    """N(r). [] int32"""
    return count(_units(problem, config).grouping(r.shape), r)


def _map(problem: Problem, config: Homotopy, v: Array, weight: Array, limit: Array) -> Array:
    """argmin_u ½‖u − v‖² + weight·N(u) within the box and with N(u) <= limit: by gains, hence both rules at once."""
    low, high = room(problem, config.eps, SIGNED)
    cut = _units(problem, config)
    parts, low, high = cut.split(v), cut.split(low), cut.split(high)
    some = prox.group_l0(parts, weight, lower=low, upper=high, **cut.options)
    few = projections.top_m_groups(parts, limit, lower=low, upper=high, **cut.options)
    return cut.join(jnp.where(few != 0, some, 0))


def zero_lambda(problem: Problem, config: Homotopy, grad: Array, step: Array) -> Array:
    """The smallest λ with which the first proximal step, from 0, stays at 0: half the largest gain over the step."""
    low, high = room(problem, config.eps, SIGNED)
    cut = _units(problem, config)
    parts = cut.split(-step * grad)
    _, gains, _ = group_gains(parts, cut.split(low), cut.split(high), cut.sums(parts.shape))
    return safe_divide(jnp.max(gains), 2 * step)


def _ask(ctx: Context, problem: Problem, config: Homotopy, state: HomotopyState) -> Array:
    return to_data(problem, state.asked, SIGNED)


def _loss(ctx: Context, problem: Problem, config: Homotopy, state: Any, point: Array, logits: Array) -> Array:
    return losses.margin(logits, problem.label, problem.target, config.kappa)


def _tell(ctx: Context, problem: Problem, config: Homotopy, state: HomotopyState, ev: Eval) -> HomotopyState:
    first = state.k < 0
    clean = first & losses.reached(ev.logits, problem.label, problem.target)
    grad = ev.grad * scale(problem, SIGNED)
    start = safe_divide(jnp.asarray(config.step * config.eps, grad.dtype), jnp.max(jnp.abs(grad)))
    first_step = jnp.where(first, start, state.first_step)
    lam = jnp.where(first, config.start * zero_lambda(problem, config, grad, start), state.lam)
    is_y = state.mode == APG_Z
    # Barzilai-Borwein along the asked y; the last step found stands where the curvature says nothing, or is rounding.
    move, turn = state.asked - state.y, grad - state.y_grad
    bend, along = jnp.sum(jnp.square(turn)), jnp.sum(move * turn)
    step, sure = safe_divide(along, bend), 1e-3 * safe_norm(move) * safe_norm(turn)
    usable = is_y & ~first & (bend > 1e-6 * jnp.sum(jnp.square(grad))) & (along > sure)
    step = jnp.where(usable, jnp.clip(step, 1e-3 * first_step, 1e3 * first_step), jnp.where(first, start, state.step))
    status = jnp.where(clean, Status.ALREADY_TARGET, state.status).astype(jnp.int32)
    return state._replace(
        grad=grad,
        value=ev.value,
        lam=lam,
        current=jnp.where(first, ev.value, state.current),
        average=jnp.where(first, ev.value, state.average),
        step=step,
        first_step=first_step,
        y=jnp.where(is_y, state.asked, state.y),
        y_grad=jnp.where(is_y, grad, state.y_grad),
        k=jnp.maximum(state.k, 0).astype(jnp.int32),
        spent=state.spent + jnp.int32(1),
        status=status,
    )


def _numbers(config: Homotopy, state: HomotopyState) -> tuple[Array, Array]:
    """The steps of the line search, and the levels of the bisection. [q] each"""
    turns = jnp.arange(PROBES).astype(state.step.dtype)
    steps = state.step * jnp.asarray(config.shrink, state.step.dtype) ** turns
    levels = state.low + (state.high - state.low) * (turns + 1) / (PROBES + 1)
    return steps, levels


def _probe(ctx: Context, problem: Problem, config: Homotopy, state: HomotopyState) -> Array:
    limit = state.base + config.max_update
    polish = state.mode == POLISH

    def one(step: Array, level: Array) -> Array:
        u = _map(problem, config, state.asked - step * state.grad, step * state.lam, limit)
        return to_data(problem, jnp.where(polish, jnp.clip(state.r, -level, level), u), SIGNED)

    return jax.vmap(one)(*_numbers(config, state))


def _tell_probe(
    ctx: Context, problem: Problem, config: Homotopy, state: HomotopyState, points: Array, logits: Array
) -> HomotopyState:
    pending = state.status == Status.PENDING
    numbers = jnp.where(state.mode == POLISH, *reversed(_numbers(config, state)))
    rows = jax.vmap(lambda point: to_units(problem, point, SIGNED))(points)
    dtype = numbers.dtype
    gaps = jax.vmap(lambda z: losses.gap(z, problem.label, problem.target))(logits).astype(dtype)
    reached = pending & (gaps < -config.kappa) & (points != problem.x).any(tuple(range(1, points.ndim)))
    counts = jax.vmap(partial(_count, problem, config))(rows).astype(dtype)
    apg, polish = _apg(problem, config, state, numbers, rows, gaps, counts), state.mode == POLISH

    # A success of nmAPG: of the points that reached the class the one with the fewest units, then to the bisection.
    won = reached.any() & ~polish
    pick = jnp.where(polish, jnp.argmax(reached), jnp.argmin(jnp.where(reached, counts, jnp.inf)))
    got = reached.any()
    top = jnp.max(jnp.abs(rows[pick]))
    gone = jnp.where(reached, -jnp.inf, numbers)
    lowest = jnp.max(jnp.where(numbers < jnp.where(got, numbers[pick], jnp.inf), gone, -jnp.inf))
    low = jnp.where(won, 0, jnp.maximum(state.low, lowest))
    high = jnp.where(won, top, jnp.where(got, numbers[pick], state.high))
    kept = jnp.where(won, rows[pick], state.r)
    turn = jnp.where(won, 0, state.k + 1).astype(jnp.int32)
    shown = state._replace(
        r=kept, asked=kept, low=low, high=high, k=turn, mode=jnp.int32(POLISH),
        best=jnp.where(got, points[pick], state.best),
    )  # fmt: skip
    state = jax.tree.map(lambda a, b: jnp.where(polish | won, a, b), shown, apg)

    finished = (state.mode == POLISH) & (state.k >= config.polish)
    lost = (state.mode != POLISH) & (state.spent >= config.iterations)
    status = jnp.where(finished, Status.FOUND, jnp.where(lost, Status.NOT_FOUND, Status.PENDING))
    return state._replace(status=jnp.where(pending, status, state.status).astype(jnp.int32))


def _apg(
    problem: Problem, config: Homotopy, state: HomotopyState, steps: Array, rows: Array, gaps: Array, counts: Array
) -> HomotopyState:
    """One step of nmAPG from the ladder's values: z from y, and if F refuses it, the better of z and v from x."""
    margins = jnp.maximum(gaps + config.kappa, 0)
    values = margins + state.lam * counts
    moved = jnp.sum(jnp.square(rows - state.asked), axis=tuple(range(1, rows.ndim)))
    here = state.value + state.lam * _count(problem, config, state.asked)
    # With slack: where r is at its bounds nothing moves, and rounding must not decide.
    bar = config.delta * moved - 0.01 * config.tolerance
    enough = (values <= here - bar) | (values <= state.average - bar)
    index = jnp.where(enough.any(), jnp.argmax(enough), jnp.argmin(values))
    candidate, value = rows[index], values[index]
    at_y = state.mode == APG_Z
    refused = at_y & ~(value <= state.average - bar[index])

    use_held = ~at_y & (state.held_value <= value)
    fresh = jnp.where(use_held, state.held, candidate)
    fresh_value = jnp.where(use_held, state.held_value, value)
    worse = ~at_y & (fresh_value > state.average) & ~enough.any()  # neither is any good: stay, with shorter steps
    fresh, fresh_value = jnp.where(worse, state.r, fresh), jnp.where(worse, state.current, fresh_value)

    t = (1 + jnp.sqrt(1 + 4 * jnp.square(state.t))) / 2
    weight = config.memory * state.weight + 1
    average = (config.memory * state.weight * state.average + fresh_value) / weight
    z = jnp.where(at_y, candidate, state.held)
    low, high = room(problem, config.eps, SIGNED)
    y = fresh + state.t / t * (z - fresh) + (state.t - 1) / t * (fresh - state.r)
    calm = jnp.where(jnp.abs(fresh_value - state.current) < config.tolerance, state.calm + 1, 0)
    k = state.k + 1

    ended = (calm >= 2) | (k >= config.inner)
    lam = jnp.where(ended, state.lam * config.decay, state.lam)
    used = _count(problem, config, fresh)
    current = fresh_value + (lam - state.lam) * used
    step = jnp.where(ended, state.first_step, jnp.where(worse, steps[-1] * config.shrink, steps[index]))
    taken = state._replace(
        r=fresh, asked=jnp.where(ended, fresh, jnp.clip(y, low, high)),
        t=jnp.where(ended, 1, t), average=jnp.where(ended, current, average),
        weight=jnp.where(ended, 1, weight), current=current, step=step, lam=lam,
        base=jnp.where(ended, used, state.base).astype(jnp.int32), k=jnp.where(ended, 0, k).astype(jnp.int32),
        calm=jnp.where(ended, 0, calm).astype(jnp.int32), mode=jnp.int32(APG_Z),
    )  # fmt: skip
    again = state._replace(held=candidate, held_value=value, asked=state.r, mode=jnp.int32(APG_X))
    return jax.tree.map(lambda a, b: jnp.where(refused, a, b), again, taken)


def _result(ctx: Context, problem: Problem, config: Homotopy, state: HomotopyState) -> Outcome:
    found = state.mode == POLISH  # also where the network broke afterwards
    status = jnp.where(found, Status.FOUND, state.status).astype(jnp.int32)
    return Outcome(state.best, status, jnp.where(found, state.best, to_data(problem, state.r, SIGNED)))


Homotopy.method = Method("homotopy", _init, _ask, _loss, _tell, result=_result, probe=_probe, tell_probe=_tell_probe)
