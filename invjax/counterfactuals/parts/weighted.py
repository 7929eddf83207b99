"""Counterfactuals by a weighted loss: one inner solver, and a search for the weight γ of validity around it.

    min_r  γ L(f(x + r), t) + h(x + r) + g(r),   x + r in the hull                                                 (1)

L is the classifier's loss, h smooth or almost (a distance, −τ log q), g has a proximal map (sparsity, box, simplices).
γ is multiplied by ``growth`` until a trial reaches the target, and bisected afterwards: the smallest γ that is enough
gives the nearest point. Every trial starts at r = 0, and the best point is the best of all trials.

A method is this search with its own :class:`Parts`, pure functions of one example that its configuration holds as
``parts``. The iterates live in the hull of what is permitted (intervals, simplices). Where the hull holds points that
are not permitted (integers, categories), or where the asked points are look-ahead points, the iterate's exact
counterpart is probed. Only feasible points count.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from invjax import constraints, losses
from invjax.core.config import require, require_above, require_at_least
from invjax.core.numerics import select
from invjax.solvers import search
from invjax.solvers.best import Best, nothing, shortfall, there
from invjax.types import Array, ArrayLike, Context, Eval, Method, Outcome, Problem, Status

RENAMED = {"grow": "growth", "iterations": "steps", "step": "step_size"}


def _actions(ctx: Context, problem: Problem, config: Any) -> Any:
    return constraints.actions(ctx.constraints, problem)


class Parts(NamedTuple):
    """What a method adds to the search.

    * ``begin(problem, config) -> inner``: the inner solver's state at r = 0.
    * ``ask(row, problem, config, inner) -> [*S]``: where it wants the gradient; in the hull.
    * ``iterate(problem, inner) -> [*S]``: its answer so far, in the hull.
    * ``step(row, problem, config, inner, point, grad, count) -> inner``: take the gradient [*S] of γ L + h at
      ``point``; count: [] int32, steps already taken in this trial.
    * ``loss(config, problem, logits, margin) -> []``: L, aiming at the margin [] in logit units.
    * ``score(config, problem, point) -> []``: the distance by which valid points are compared.
    * ``smooth(ctx, config, problem, point, aim) -> []``: h, differentiated in ``point``; None stands for 0. aim: []
      int32, the target, or (untargeted) the strongest class at x that is not the label.
    * ``row(ctx, problem, config)``: what may change; by default :func:`invjax.constraints.actions`.
    * ``probe_iterate``: static; the asked point is not the iterate, which is therefore probed even where every point
      of the hull is permitted.
    """

    begin: Callable[..., Any]
    ask: Callable[..., Array]
    iterate: Callable[..., Array]
    step: Callable[..., Any]
    loss: Callable[..., Array]
    score: Callable[..., Array]
    smooth: Callable[..., Array] | None = None
    row: Callable[..., Any] = _actions
    probe_iterate: bool = False


class WeightedState(NamedTuple):
    inner: Any  # the inner solver's state
    told: Any  # (point, gradient of L there), each [*S], from tell to tell_probe; None where nothing is probed
    g0: Array  # [*S] gradient of L at r = 0: the first step of every trial needs no evaluation
    aim: Array  # [] int32, the class a plausible answer looks like
    count: Array  # [] int32, steps taken in this trial; -1 before the clean input was seen
    gamma: search.Bracket  # the search for the smallest γ that is enough
    margin: Array  # [] the margin L aims at: kappa, or more where snapping loses the margin of the hull's point
    reached: Array  # [] bool, the second half of this trial has seen a valid and feasible point
    best: Best  # the valid point of least score
    status: Array  # [] int32, PENDING until decided


def check_search(config: Any) -> None:
    """The fields of every config of this family: gamma, growth, trials, steps, step_size, kappa, probability."""
    require_above(config, 0, "gamma", "step_size")
    require_above(config, 1, "growth")
    require_at_least(config, 1, "trials", "steps")
    check_validity(config)


def check_validity(config: Any) -> None:
    """kappa and probability: what counts as valid."""
    require_at_least(config, 0, "kappa")
    require(config, "probability", lambda v: v is None or 0 < v < 1, "None or in (0, 1)")


def is_valid(config: Any, problem: Problem, logits: Array) -> Array:
    """[] bool: the target wins by more than kappa, or has the wanted probability (with kappa to spare)."""
    return shortfall(problem, logits, config.kappa, config.probability) < 0


def is_clean(config: Any, problem: Problem, logits: Array) -> Array:
    """[] bool: the input itself is an answer, without kappa."""
    return there(problem, logits, config.probability)


def hinge(config: Any, problem: Problem, logits: Array, margin: ArrayLike | None = None) -> Array:
    """``max(0, shortfall)``: on logits, so it has a gradient also where the softmax is saturated.

    margin: the margin to aim at; by default config.kappa.
    """
    missing = shortfall(problem, logits, config.kappa if margin is None else margin, config.probability)
    return jnp.where(missing > 0, missing, jnp.zeros_like(missing))


def _probes(config: Any, row: Any) -> bool:
    return config.parts.probe_iterate or not row.exact


def _record(
    config: Any, problem: Problem, row: Any, state: WeightedState, point: Array, logits: Array
) -> WeightedState:
    # The clean input is no counterfactual of itself, whatever its margin.
    seen = (state.count >= 0) & (state.status == Status.PENDING)
    valid = is_valid(config, problem, logits) & row.satisfied(point) & seen
    best = state.best.offer(point, config.parts.score(config, problem, point), valid)
    # A large first step may jump over the boundary at any γ: only the second half shows where the trial is going.
    return state._replace(best=best, reached=state.reached | (valid & (2 * state.count >= config.steps)))


def _turn(
    ctx: Context, problem: Problem, config: Any, row: Any, state: WeightedState, point: Array, grad: Array
) -> WeightedState:
    """After an evaluation: the trial's next iterate, or the first one of the next trial."""
    parts, first = config.parts, state.count < 0
    ended = ~first & (state.count >= config.steps)
    gamma = select(ended, search.seek_smallest(state.gamma, state.reached, config.growth), state.gamma)
    begun = (parts.begin(problem, config), problem.x, state.g0, jnp.zeros_like(state.count))
    inner, at, slope, count = select(ended | first, begun, (state.inner, point, grad, state.count))
    total = gamma.value * slope
    if parts.smooth is not None:
        total = total + jax.grad(lambda u: parts.smooth(ctx, config, problem, u, state.aim))(at)
    # On a grid the nearest permitted point may lie on the wrong side: aim further.
    short = ended & ~state.best.found & (not row.exact)
    decided = state.best.status(jnp.zeros_like(first), ended & (gamma.trials >= config.trials))
    return state._replace(
        inner=parts.step(row, problem, config, inner, at, total, count),
        count=count + 1,
        gamma=gamma,
        margin=jnp.where(short, 2 * state.margin + 0.05, state.margin),
        reached=state.reached & ~ended,
        status=jnp.where(state.status == Status.PENDING, decided, state.status),
    )


def _init(ctx: Context, problem: Problem, config: Any) -> WeightedState:
    zero, row = jnp.zeros_like(problem.x), config.parts.row(ctx, problem, config)
    return WeightedState(
        inner=config.parts.begin(problem, config),
        told=(zero, zero) if _probes(config, row) else None,
        g0=zero,
        aim=jnp.int32(0),
        count=jnp.int32(-1),
        gamma=search.init(jnp.asarray(config.gamma, problem.x.dtype)),
        margin=jnp.asarray(config.kappa, problem.x.dtype),
        reached=jnp.zeros((), bool),
        best=nothing(problem),
        status=jnp.int32(Status.PENDING),
    )


def _ask(ctx: Context, problem: Problem, config: Any, state: WeightedState) -> Array:
    wanted = config.parts.ask(config.parts.row(ctx, problem, config), problem, config, state.inner)
    return jnp.where(state.count < 0, problem.x, wanted)


def _loss(ctx: Context, problem: Problem, config: Any, state: WeightedState, point: Array, logits: Array) -> Array:
    return config.parts.loss(config, problem, logits, state.margin)


def _tell(ctx: Context, problem: Problem, config: Any, state: WeightedState, ev: Eval) -> WeightedState:
    row, first = config.parts.row(ctx, problem, config), state.count < 0
    clean = first & is_clean(config, problem, ev.logits)
    start = state._replace(
        g0=ev.grad,
        aim=losses.wanted(ev.logits, problem.label, problem.target),
        status=jnp.where(clean, Status.ALREADY_TARGET, state.status).astype(jnp.int32),
    )
    seen = _record(config, problem, row, state, ev.point, ev.logits) if row.exact else state
    state = select(first, start, seen)
    if _probes(config, row):  # the trial is judged after the probes
        return state._replace(told=(ev.point, ev.grad))
    return _turn(ctx, problem, config, row, state, ev.point, ev.grad)


def _probe(ctx: Context, problem: Problem, config: Any, state: WeightedState) -> Array:
    row, point = config.parts.row(ctx, problem, config), config.parts.iterate(problem, state.inner)
    if not _probes(config, row):
        return jnp.zeros((0, *point.shape), point.dtype)
    return (point if row.exact else row.snap(point))[None]


def _tell_probe(
    ctx: Context, problem: Problem, config: Any, state: WeightedState, points: Array, logits: Array
) -> WeightedState:
    row = config.parts.row(ctx, problem, config)
    state = _record(config, problem, row, state, points[0], logits[0])
    return _turn(ctx, problem, config, row, state, *state.told)


def _result(ctx: Context, problem: Problem, config: Any, state: WeightedState) -> Outcome:
    return state.best.outcome(state.status, config.parts.iterate(problem, state.inner))


def method(name: str) -> Method:
    """The :class:`Method` of the search (1) for configurations that have ``parts``."""
    return Method(name, _init, _ask, _loss, _tell, result=_result, probe=_probe, tell_probe=_tell_probe)
