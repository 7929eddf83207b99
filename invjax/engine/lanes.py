"""One batched iteration of any method: ask every lane, call the network once, tell every lane.

This is the only code that sees both a method (written for one example) and a batch. The executors (``batch``,
``queue``) loop over :func:`step`; the evaluator (``evaluate``) can be replaced.

Only points have the dtype of x. A method computes in at least float32 whatever that is: of images in 16 bits it is
told the exact float32 values, and its points are rounded when they are asked. So no count and no sum overflows.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from invjax.core.numerics import lifted, narrowed_towards, promoting, select
from invjax.types import Array, Config, Context, Eval, Evaluator, Method, Outcome, Problem, Result, State, Status


class Lanes(NamedTuple):
    """What the engine keeps beside the method's own state. Every leaf has the lane axis [B] in front."""

    state: State  # the method's state
    evaluations: Array  # [B] int32, value-and-gradients asked while unfinished
    forwards: Array  # [B] int32, forward-only evaluations while unfinished
    broken: Array  # [B] bool, the network gave a value that is not finite
    sloped: Array  # [B] bool, some gradient was not zero, in a coordinate that may change
    active: Array  # [B] bool, unfinished


def start(method: Method, ctx: Context, config: Config, problems: Problem) -> Lanes:
    """Fresh lanes for ``problems``."""
    state = jax.vmap(lambda problem: promoting(method.init)(ctx, problem, config))(lifted(problems))
    count = problems.label.shape[0]
    zeros = jnp.zeros(count, jnp.int32)
    no = jnp.zeros(count, bool)
    return Lanes(state, zeros, zeros, no, no, _permitted(ctx, problems))


def _permitted(ctx: Context, problems: Problem) -> Array:
    """[B] bool: the row obeys its own schema, and something of it may change."""
    if ctx.constraints is None:
        return jnp.ones(problems.label.shape[0], bool)
    free = (problems.lower < problems.upper).reshape(problems.label.shape[0], -1).any(1)
    return free & jax.vmap(promoting(ctx.constraints.permits))(problems.x)


def _room(problems: Problem, grad: Array) -> Array:
    """Where the box leaves room, to go with gradients [B, *S] or [B, P, *S] (which are zero where the mask forbids)."""
    room = problems.lower < problems.upper  # [B] or [B, *S]
    if room.ndim == 1:
        room = room.reshape(-1, *(1 for _ in problems.x.shape[1:]))
    return room if grad.ndim == problems.x.ndim else room[:, None]


@promoting
def _admissible(problem: Problem, point: Array) -> Array:
    """The point in the dtype of x, inside the box, and equal to the clean input where it may not change."""
    point = jnp.clip(narrowed_towards(point, problem.x), problem.lower, problem.upper)
    return point if problem.mask is None else jnp.where(problem.mask, point, problem.x)


def look(method: Method, evaluator: Evaluator, ctx: Context, config: Config, problems: Problem, lanes: Lanes) -> Eval:
    """Ask every lane and evaluate all the points in one call of the network. Fields [B, ...] or [B, P, ...]."""

    def ask(problem: Problem, state: State) -> Array:
        return _admissible(problem, promoting(method.ask)(ctx, lifted(problem), config, state))

    points = jax.vmap(ask)(problems, lanes.state)  # [B, *S] or [B, P, *S]
    return evaluator(method, ctx, config, problems, lanes.state, points)


def learn(
    method: Method, evaluator: Evaluator, ctx: Context, config: Config, problems: Problem, lanes: Lanes, evals: Eval
) -> Lanes:
    """Tell every lane, and probe. Finished lanes are computed too, but their state and counters stay frozen.

    evals: what :func:`look` saw. The probes are seen through the same evaluator, so FOUND means one thing.
    """
    finite = ~jnp.isnan(evals.logits).any(tuple(range(1, evals.logits.ndim)))
    finite &= jnp.isfinite(evals.value).reshape(finite.shape[0], -1).all(1)
    sloped = lanes.sloped
    if method.needs_grad:  # without: zeros of the points' size, which XLA would take seconds to fold
        each = tuple(range(1, evals.grad.ndim))
        finite &= jnp.isfinite(evals.grad).all(each)
        sloped |= lanes.active & ((evals.grad != 0) & _room(problems, evals.grad)).any(each)
    told = jax.vmap(lambda problem, state, ev: promoting(method.tell)(ctx, problem, config, state, ev))(
        lifted(problems), lanes.state, lifted(evals)
    )
    useful = lanes.active & finite
    state = select(useful, told, lanes.state)

    issued = lanes.active.astype(jnp.int32) * (method.width or 1)
    evaluations = lanes.evaluations + (issued if method.needs_grad else 0)
    forwards = lanes.forwards + issued * (differences(evaluator, problems) if method.needs_grad else 1)

    if method.probe is not None and method.tell_probe is not None:
        probe, tell_probe = promoting(method.probe), promoting(method.tell_probe)

        def candidates(problem: Problem, state: State) -> Array:
            return _admissible(problem, probe(ctx, lifted(problem), config, state))

        probes = jax.vmap(candidates)(problems, state)  # [B, q, *S]
        if probes.shape[1]:  # none: with these constraints there is nothing to look at beside the asked points
            looking = method._replace(needs_grad=False, width=probes.shape[1])
            logits = evaluator(looking, ctx, config, problems, state, probes).logits  # [B, q, K]
            finite &= ~jnp.isnan(logits).any((1, 2))
            told = jax.vmap(lambda p, s, x, z: tell_probe(ctx, p, config, s, x, z))(
                lifted(problems), state, lifted(probes), logits
            )
            forwards = forwards + useful.astype(jnp.int32) * probes.shape[1]
            state = select(lanes.active & finite, told, state)

    finished = jax.vmap(lambda problem, state: promoting(method.done)(ctx, problem, config, state))(
        lifted(problems), state
    )
    return Lanes(
        state=state,
        evaluations=evaluations,
        forwards=forwards,
        broken=lanes.broken | (lanes.active & ~finite),
        sloped=sloped,
        active=lanes.active & finite & ~finished,
    )


def num_probes(method: Method, ctx: Context, config: Config, problems: Problem) -> int:
    """How many forward-only candidates the method has in each iteration; its ``probe`` is traced, not run."""
    if method.probe is None:
        return 0
    probe = promoting(method.probe)

    def candidates(ctx: Context, config: Config, problems: Problem) -> Array:
        return jax.vmap(lambda problem: probe(ctx, problem, config, promoting(method.init)(ctx, problem, config)))(
            lifted(problems)
        )

    return jax.eval_shape(candidates, ctx, config, problems).shape[1]


def step(method: Method, evaluator: Evaluator, ctx: Context, config: Config, problems: Problem, lanes: Lanes) -> Lanes:
    """One iteration of all lanes."""
    evals = look(method, evaluator, ctx, config, problems, lanes)
    return learn(method, evaluator, ctx, config, problems, lanes, evals)


def differences(evaluator: Evaluator, problems: Problem) -> int:
    """Forward passes per asked point beyond the one: an evaluator that needs more has ``calls(shape) -> int``."""
    calls = getattr(evaluator, "calls", None)
    return 0 if calls is None else calls(problems.x.shape[1:]) - 1


def advance(
    method: Method,
    evaluator: Evaluator,
    ctx: Context,
    config: Config,
    problems: Problem,
    lanes: Lanes,
    limit: Array | None = None,
    floor: Array | int = 0,
) -> tuple[Lanes, Array]:
    """Iterate while more than ``floor`` lanes are active (and at most ``limit`` times).

    Returns the lanes and the number of iterations done. The predicate reads flags only: a forward pass inside a loop
    condition would be paid twice under ``vmap``.
    """

    def keep_on(carry: tuple[Lanes, Array]) -> Array:
        lanes, count = carry
        on = lanes.active.sum() > floor
        return on if limit is None else on & (count < limit)

    def body(carry: tuple[Lanes, Array]) -> tuple[Lanes, Array]:
        lanes, count = carry
        return step(method, evaluator, ctx, config, problems, lanes), count + 1

    return jax.lax.while_loop(keep_on, body, (lanes, jnp.int32(0)))


@promoting
def finish(method: Method, ctx: Context, config: Config, problems: Problem, lanes: Lanes) -> Result:
    """Results of all lanes. Whatever was not found returns the clean input, bit for bit.

    A method that answers with a set hands back an Outcome with x and attempt [P, *S] and status [P]: then Result.x,
    delta and attempt are [B, P, *S] and Result.status [B, P], each answer against the same clean input.
    """

    def one(problem: Problem, state: State) -> Outcome:
        wide = lifted(problem)
        if method.result is None:
            outcome = state.best.outcome(state.status, method.ask(ctx, wide, config, state))
        else:
            outcome = method.result(ctx, wide, config, state)
        # A lane that stopped in mid-run hands back what it would have asked next: as it would have been asked.
        attempt = _admissible(problem, outcome.attempt)
        return outcome._replace(x=narrowed_towards(outcome.x, problem.x), attempt=attempt)

    outcome = jax.vmap(one)(problems, lanes.state)
    status = outcome.status.astype(jnp.int32)
    several = status.ndim == 2

    def of_each(row: Array) -> Array:
        """What belongs to a row, for each answer of its set."""
        return row[:, None] if several else row

    status = jnp.where(of_each(lanes.broken) & (status != Status.FOUND), Status.NONFINITE, status)
    if method.needs_grad:
        status = jnp.where((status == Status.NOT_FOUND) & ~of_each(lanes.sloped), Status.NO_GRADIENT, status)
    status = jnp.where(of_each(lanes.active), Status.PENDING, status).astype(jnp.int32)
    if ctx.constraints is not None:
        satisfied = ctx.constraints.satisfied
        kept = jax.vmap(jax.vmap(satisfied, (None, 0)) if several else satisfied)(problems.x, outcome.x)
        status = jnp.where((status == Status.FOUND) & ~kept, Status.NOT_FOUND, status)
        status = jnp.where(of_each(_permitted(ctx, problems)), status, Status.INFEASIBLE).astype(jnp.int32)
    # A network may ignore the very feature that is not finite.
    each = tuple(range(status.ndim, outcome.x.ndim))
    status = jnp.where((status == Status.FOUND) & ~jnp.isfinite(outcome.x).all(each), Status.NONFINITE, status)
    clean = of_each(problems.x)
    attempt = select(
        jnp.isfinite(outcome.attempt).all(each), outcome.attempt, jnp.broadcast_to(clean, outcome.attempt.shape)
    )
    x = select(status == Status.FOUND, outcome.x, jnp.broadcast_to(clean, outcome.x.shape))
    return Result(x, x - clean, status, lanes.evaluations, lanes.forwards, attempt)
