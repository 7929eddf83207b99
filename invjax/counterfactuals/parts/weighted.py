"""Counterfactuals by a weighted loss: one inner solver, and a search for the weight γ of validity around it.

    min_r  γ L(f(x + r), t) + h(x + r) + g(r),   x + r in the hull                                                 (1)

L is the classifier's loss, h smooth or almost (a distance, −τ log q), g has a proximal map (sparsity, box, simplices).
γ is raised ``grow``-fold until a trial reaches the target, and bisected afterwards: the smallest γ that is enough
gives the nearest point. Every trial starts at r = 0; all of them count towards the best point.

A method is this search with its own :class:`Parts`: pure functions of one example. The iterates live in the hull of
what is permitted (intervals, simplices). Where hull and permitted set are not the same (integers, categories), or
where the asked points are look-ahead points, the iterate's exact counterpart is probed; only feasible points count.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from invjax import constraints, losses
from invjax.core.config import require
from invjax.core.numerics import select
from invjax.solvers import search
from invjax.solvers.best import Best, nothing, shortfall
from invjax.types import Array, ArrayLike, Context, Eval, Method, Outcome, Problem, Status


class Parts(NamedTuple):
    """What a method adds to the search.

    * ``begin(problem, config) -> inner``: the inner solver's state at r = 0.
    * ``ask(row, problem, config, inner) -> [*S]``: where it wants the gradient; in the hull.
    * ``iterate(problem, inner) -> [*S]``: its answer so far, in the hull.
    * ``step(row, problem, config, inner, point, grad, k) -> inner``: take the gradient [*S] of γ L + h at ``point``;
      k: [] int32, steps already taken in this trial.
    * ``loss(config, problem, logits, margin) -> []``: L, aiming at the margin [] in logit units.
    * ``smooth(ctx, config, problem, point, aim) -> []``: h, differentiated in ``point``; None: 0. aim: [] int32, the
      target, or (untargeted) the strongest class at x that is not the label.
    * ``score(config, problem, point) -> []``: the distance by which valid points are compared.
    * ``row(ctx, problem, config)``: what may change; by default ``constraints.actions``.
    * ``probe_iterate``: static; the asked point is no iterate, so that this is probed even where every hull point is
      permitted.
    """

    begin: Callable[..., Any]
    ask: Callable[..., Array]
    iterate: Callable[..., Array]
    step: Callable[..., Any]
    loss: Callable[..., Array]
    score: Callable[..., Array]
    smooth: Callable[..., Array] | None = None
    row: Callable[..., Any] | None = None
    probe_iterate: bool = False


class WeightedState(NamedTuple):
    inner: Any  # the inner solver's state
    told: Any  # (point, gradient of L there), each [*S], from tell to tell_probe; None where nothing is probed
    g0: Array  # [*S] gradient of L at r = 0: the first step of every trial needs no evaluation
    aim: Array  # [] int32, the class a plausible answer looks like
    k: Array  # [] int32, steps taken in this trial; -1 before the clean input was seen
    gamma: search.Bracket  # the search for the smallest γ that is enough
    margin: Array  # [] the margin L aims at; kappa, more where snapping undoes what the hull's point had
    reached: Array  # [] bool, the second half of this trial has seen a valid and feasible point
    best: Best  # the valid point of least score
    status: Array  # [] int32, PENDING until decided


def check_search(config: Any) -> None:
    """The fields every config of this family has: gamma, grow, trials, iterations, kappa, probability."""
    require(config, "gamma", lambda v: v > 0, "a weight > 0")
    require(config, "grow", lambda v: v > 1, "above 1")
    require(config, "trials", lambda v: v >= 1, "at least 1")
    require(config, "iterations", lambda v: v >= 1, "at least 1")
    check_validity(config)


def check_validity(config: Any) -> None:
    """kappa and probability: what counts as valid."""
    require(config, "kappa", lambda v: v >= 0, "a margin >= 0")
    require(config, "probability", lambda v: v is None or 0 < v < 1, "None or in (0, 1)")


def is_valid(config: Any, problem: Problem, logits: Array) -> Array:
    """[] bool: the target wins by more than kappa, or has the wanted probability (with kappa to spare)."""
    return shortfall(problem, logits, config.kappa, config.probability) < 0


def is_clean(config: Any, problem: Problem, logits: Array) -> Array:
    """[] bool: there is nothing to do, kappa apart."""
    return shortfall(problem, logits, 0.0, config.probability) < 0


def hinge(config: Any, problem: Problem, logits: Array, margin: ArrayLike | None = None) -> Array:
    """``max(0, shortfall)``: on logits, so it has a gradient also where the softmax is saturated.

    margin: the margin to aim at; by default config.kappa.
    """
    missing = shortfall(problem, logits, config.kappa if margin is None else margin, config.probability)
    return jnp.where(missing > 0, missing, jnp.zeros_like(missing))


def method(name: str, parts: Parts) -> Method:
    """The :class:`Method` of the search (1) around ``parts``."""

    def row_of(ctx: Context, problem: Problem, config: Any) -> Any:
        if parts.row is not None:
            return parts.row(ctx, problem, config)
        return constraints.actions(ctx.constraints, problem)

    def probes(row: Any) -> bool:
        return parts.probe_iterate or not row.exact

    def record(
        config: Any, problem: Problem, row: Any, state: WeightedState, point: Array, logits: Array
    ) -> WeightedState:
        # The clean input is no counterfactual of itself, whatever its margin.
        seen = (state.k >= 0) & (state.status == Status.PENDING)
        valid = is_valid(config, problem, logits) & row.satisfied(point) & seen
        best = state.best.offer(point, parts.score(config, problem, point), valid)
        # A large first step may jump over the boundary at any γ: that says nothing about where the trial is going.
        return state._replace(best=best, reached=state.reached | (valid & (2 * state.k >= config.iterations)))

    def turn(
        ctx: Context, problem: Problem, config: Any, row: Any, state: WeightedState, point: Array, grad: Array
    ) -> WeightedState:
        """After an evaluation: the trial's next iterate, or the first one of the next trial."""
        first = state.k < 0
        ended = ~first & (state.k >= config.iterations)
        gamma = select(ended, search.seek_smallest(state.gamma, state.reached, config.grow), state.gamma)
        begun = (parts.begin(problem, config), problem.x, state.g0, jnp.zeros_like(state.k))
        inner, at, slope, k = select(ended | first, begun, (state.inner, point, grad, state.k))
        total = gamma.value * slope
        if parts.smooth is not None:
            smooth = parts.smooth
            total = total + jax.grad(lambda u: smooth(ctx, config, problem, u, state.aim))(at)
        # On a grid the nearest permitted point may lie on the wrong side: aim further.
        short = ended & ~jnp.isfinite(state.best.score) & (not row.exact)
        decided = state.best.status(jnp.zeros_like(first), ended & (gamma.trials >= config.trials))
        return state._replace(
            inner=parts.step(row, problem, config, inner, at, total, k),
            k=k + 1,
            gamma=gamma,
            margin=jnp.where(short, 2 * state.margin + 0.05, state.margin),
            reached=state.reached & ~ended,
            status=jnp.where(state.status == Status.PENDING, decided, state.status),
        )

    def init(ctx: Context, problem: Problem, config: Any) -> WeightedState:
        zero = jnp.zeros_like(problem.x)
        gamma = search.init(jnp.asarray(config.gamma, problem.x.dtype))
        told = (zero, zero) if probes(row_of(ctx, problem, config)) else None
        return WeightedState(
            parts.begin(problem, config), told, zero, jnp.int32(0), jnp.int32(-1), gamma,
            jnp.asarray(config.kappa, problem.x.dtype), jnp.zeros((), bool),
            nothing(problem), jnp.int32(Status.PENDING),
        )  # fmt: skip

    def ask(ctx: Context, problem: Problem, config: Any, state: WeightedState) -> Array:
        wanted = parts.ask(row_of(ctx, problem, config), problem, config, state.inner)
        return jnp.where(state.k < 0, problem.x, wanted)

    def loss(ctx: Context, problem: Problem, config: Any, state: WeightedState, point: Array, logits: Array) -> Array:
        return parts.loss(config, problem, logits, state.margin)

    def tell(ctx: Context, problem: Problem, config: Any, state: WeightedState, ev: Eval) -> WeightedState:
        row = row_of(ctx, problem, config)
        first = state.k < 0
        clean = first & is_clean(config, problem, ev.logits)
        start = state._replace(
            g0=ev.grad,
            aim=losses.wanted(ev.logits, problem.label, problem.target),
            status=jnp.where(clean, Status.ALREADY_TARGET, state.status).astype(jnp.int32),
        )
        seen = record(config, problem, row, state, ev.point, ev.logits) if row.exact else state
        state = select(first, start, seen)
        if probes(row):  # the trial is judged after them
            return state._replace(told=(ev.point, ev.grad))
        return turn(ctx, problem, config, row, state, ev.point, ev.grad)

    def probe(ctx: Context, problem: Problem, config: Any, state: WeightedState) -> Array:
        row = row_of(ctx, problem, config)
        point = parts.iterate(problem, state.inner)
        if not probes(row):
            return jnp.zeros((0, *point.shape), point.dtype)
        return (point if row.exact else row.snap(point))[None]

    def tell_probe(
        ctx: Context, problem: Problem, config: Any, state: WeightedState, points: Array, logits: Array
    ) -> WeightedState:
        row = row_of(ctx, problem, config)
        state = record(config, problem, row, state, points[0], logits[0])
        return turn(ctx, problem, config, row, state, *state.told)

    def result(ctx: Context, problem: Problem, config: Any, state: WeightedState) -> Outcome:
        return state.best.outcome(state.status, parts.iterate(problem, state.inner))

    return Method(name, init, ask, loss, tell, result=result, probe=probe, tell_probe=tell_probe)
