"""DiCE: a set of different counterfactuals by gradient descent (Mothilal, Sharma, Tan 2020).

    min_{c_1 … c_P}  γ/P Σ_i L(f(c_i), t) + w₁/(P D) Σ_i d(c_i − x) − w₂ det K,   K_ij = 1 / (1 + d(c_i − c_j))     (1)

their eq. 4 with the averages of the released code: L is the hinge on logits, d the l1 norm in units of the median
absolute deviations. Adam moves all points together, from random starts near x. Then, as they do, features are put back
to x greedily, smallest change first, as long as the point stays valid.

Deviations. Categories stay in their simplex (the hull) instead of a penalty ``(Σ one-hot − 1)²``. Every set is judged
on its exactly feasible points. The set kept is not the last one but the one with the most valid points, and with the
least (1) among equals. Any number of classes is possible. A point that ends equal to another of its set is NOT_FOUND.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field
from typing import ClassVar, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from invjax import constraints
from invjax.core.config import STATIC, config, require, require_above, require_at_least
from invjax.core.errors import check_whole
from invjax.core.numerics import select, uniform
from invjax.counterfactuals.parts import proximity, sets, weighted
from invjax.counterfactuals.parts.proximity import MadL1, Proximity
from invjax.counterfactuals.parts.standard import Standardised
from invjax.counterfactuals.wachter import Adam, adam_begin, adam_step, tangent
from invjax.types import Array, Context, Eval, Method, Outcome, Problem, Status


@config
class DiCE(Standardised):
    """The method's constants. The answer to an example is a set: Result.x [N, P, *S], Result.status [N, P].

    Fields:
      answers: P, points of a set, >= 1 (static).
      proximity: d; by default the plain l1 norm. ``fit_mad(x_train)`` gives the paper's.
      gamma: γ, weight of the hinge, per logit unit, > 0 (1 in the released code, which lets points stay invalid).
      closeness: w₁, weight of the distance to x, >= 0.
      spread: w₂, weight of the diversity, >= 0.
      start_width: width of the random starts around x, as a share of each feature's range, in (0, 1].
      step_size: Adam's step, data units, > 0.
      steps: gradient steps at most, >= 1.
      min_steps: steps before it may stop for convergence, >= 0.
      tolerance: it stops when (1) changes by less than this and every point is valid, >= 0.
      restorations: features tried to put back in each point, >= 0.
      kappa: margin of a valid answer, logit units, >= 0.
      probability: wanted probability of the target, in (0, 1); None: it need only win.
      diversity: "det" as in (1), or "logdet", whose pull on close points does not fade (static).

    Evaluations per example: at most P (1 + steps + restorations).
    """

    answers: int = field(default=4, metadata=STATIC)
    proximity: Proximity = MadL1()
    gamma: float = 4.0
    closeness: float = 0.5
    spread: float = 1.0
    start_width: float = 0.2
    step_size: float = 0.05
    steps: int = 300
    min_steps: int = 50
    tolerance: float = 1e-5
    restorations: int = 30
    kappa: float = 0.05
    probability: float | None = None
    diversity: Literal["det", "logdet"] = field(default="det", metadata=STATIC)

    RENAMED: ClassVar[Mapping[str, str]] = {
        "count": "answers", "start": "start_width", "step": "step_size", "iterations": "steps", "least": "min_steps",
    }  # fmt: skip

    @property
    def method(self) -> Method:
        """The method of this set's size."""
        return _METHOD._replace(width=self.answers)

    def check(self) -> None:
        weighted.check_validity(self)
        check_whole("DiCE.answers", self.answers)
        require_above(self, 0, "gamma", "step_size")
        require_at_least(self, 0, "closeness", "spread", "min_steps", "tolerance", "restorations")
        require_at_least(self, 1, "steps")
        require(self, "start_width", lambda v: 0 < v <= 1, "in (0, 1]")
        proximity.check(self)


class Trial(NamedTuple):
    """The points with one feature more put back."""

    points: Array  # [P, *S]
    feature: Array  # [P] int32, which
    left: Array  # [P] bool, whether there was one


class DiCEState(NamedTuple):
    adam: Adam  # [P, *S] the points in the hull
    count: Array  # [] int32, steps taken; -1 before the clean input was seen
    value: Array  # [] (1) at the last points asked
    points: Array  # [P, *S] the best set so far, feasible
    valid: Array  # [P] bool
    score: Array  # [] (1) of that set
    tries: Array  # [] int32, features tried to put back; -1 while (1) is being minimised
    tried: Array  # [P, F] bool
    trial: Trial  # what to try next
    status: Array  # [] int32, PENDING until decided


def _regulariser(config: DiCE, problem: Problem, points: Array) -> Array:
    """[] (1) without its first term. points: [P, *S]."""
    near = jnp.sum(jax.vmap(lambda c: config.proximity.value(c - problem.x))(points)) / points.size
    return config.closeness * near - config.spread * sets.diversity(points, config.proximity, config.diversity)


def _validity(config: DiCE, problem: Problem, logits: Array) -> tuple[Array, Array]:
    """[P] hinges and [P] bool valid of the logits [P, K]."""
    loss = jax.vmap(lambda z: weighted.hinge(config, problem, z))(logits)
    return loss, jax.vmap(lambda z: weighted.is_valid(config, problem, z))(logits)


def _init(ctx: Context, problem: Problem, config: DiCE) -> DiCEState:
    row = constraints.actions(ctx.constraints, problem)
    x, size = problem.x, config.answers
    lower, upper = sets.spans(row, x)
    noise = uniform(problem.key, (size, *x.shape), x.dtype, -1, 1)
    begin = jax.vmap(row.project)(x + config.start_width * noise * (upper - lower))
    features = int(sets.owners(ctx, problem).max()) + 1
    infinite, copies = jnp.full((), jnp.inf, x.dtype), jnp.broadcast_to(x, (size, *x.shape))
    return DiCEState(
        adam=adam_begin(begin.astype(x.dtype)),
        count=jnp.int32(-1),
        value=infinite,
        points=copies,
        valid=jnp.zeros(size, bool),
        score=infinite,
        tries=jnp.int32(-1),
        tried=jnp.zeros((size, features), bool),
        trial=Trial(copies, jnp.zeros(size, jnp.int32), jnp.zeros(size, bool)),
        status=jnp.int32(Status.PENDING),
    )


def _change_sizes(owner: np.ndarray, change: Array) -> Array:
    """[F] how much of each feature changed: the l1 norm of its coordinates."""
    size, features = jnp.abs(change).reshape(-1), int(owner.max()) + 1
    return size if features == owner.size else jax.ops.segment_sum(size, owner.reshape(-1), features)


def _trial(ctx: Context, problem: Problem, state: DiCEState) -> Trial:
    """Put back, of the features not yet tried, the one that changed least as a share of its range."""
    owner = sets.owners(ctx, problem)
    lower, upper = sets.spans(constraints.actions(ctx.constraints, problem), problem.x)
    share = jnp.where(upper > lower, upper - lower, jnp.ones_like(upper))

    def one(point: Array, tried: Array, valid: Array) -> Trial:
        size = _change_sizes(owner, (point - problem.x) / share)
        open_ = (size > 0) & ~tried & valid
        feature = jnp.argmin(jnp.where(open_, size, jnp.inf)).astype(jnp.int32)
        left = open_.any()
        return Trial(jnp.where((owner == feature) & left, problem.x, point), feature, left)

    return jax.vmap(one)(state.points, state.tried, state.valid)


def _ask(ctx: Context, problem: Problem, config: DiCE, state: DiCEState) -> Array:
    asked = jnp.where(state.tries >= 0, state.trial.points, state.adam.u)
    return jnp.where(state.count < 0, problem.x, asked)


def _loss(ctx: Context, problem: Problem, config: DiCE, state: DiCEState, point: Array, logits: Array) -> Array:
    return weighted.hinge(config, problem, logits)


def _consider(
    ctx: Context, problem: Problem, config: DiCE, state: DiCEState, points: Array, logits: Array
) -> DiCEState:
    """Keep this set [P, *S] if it has more valid points than the best, or as many and a smaller (1)."""
    row = constraints.actions(ctx.constraints, problem)
    loss, valid = _validity(config, problem, logits)
    valid = sets.distinct(points, valid & jax.vmap(row.satisfied)(points))
    score = (config.gamma * jnp.mean(loss) + _regulariser(config, problem, points)).astype(state.score.dtype)
    more, as_many = valid.sum() > state.valid.sum(), valid.sum() == state.valid.sum()
    better = (more | (as_many & (score < state.score))) & (state.tries < 0) & (state.status == Status.PENDING)
    return select(better, state._replace(points=points, valid=valid, score=score), state)


def _descended(ctx: Context, problem: Problem, config: DiCE, state: DiCEState, ev: Eval, first: Array) -> DiCEState:
    """One step of Adam on (1), and whether it was the last."""
    row = constraints.actions(ctx.constraints, problem)
    value, grad = jax.value_and_grad(lambda points: _regulariser(config, problem, points))(ev.point)
    value = (config.gamma * jnp.mean(ev.value) + value).astype(state.value.dtype)
    grad = config.gamma / config.answers * ev.grad + grad
    grad = jax.vmap(lambda point, one: tangent(row, point, one, config.step_size))(ev.point, grad)
    adam = adam_step(state.adam, ev.point, grad, config.step_size)
    adam = adam._replace(u=jax.vmap(row.project)(adam.u))
    still = jnp.abs(value - jnp.where(first, value, state.value)) < config.tolerance
    last = ~first & ((state.count >= config.steps) | (still & state.valid.all() & (state.count >= config.min_steps)))
    return state._replace(
        adam=select(first, state.adam, adam),
        count=jnp.where(first, 0, state.count) + 1,
        value=jnp.where(first, jnp.inf, value),
        tries=jnp.where(last, 0, state.tries).astype(jnp.int32),
    )


def _restored(ctx: Context, problem: Problem, config: DiCE, state: DiCEState, ev: Eval) -> DiCEState:
    """Take the points that stayed valid with one feature more put back."""
    row = constraints.actions(ctx.constraints, problem)
    _, feature, left = state.trial
    _, valid = _validity(config, problem, ev.logits)
    taken = left & valid & jax.vmap(row.satisfied)(ev.point) & sets.apart(ev.point, state.points)
    tried = state.tried | ((jnp.arange(state.tried.shape[1]) == feature[:, None]) & left[:, None])
    return state._replace(points=select(taken, ev.point, state.points), tried=tried, tries=state.tries + 1)


def _tell(ctx: Context, problem: Problem, config: DiCE, state: DiCEState, ev: Eval) -> DiCEState:
    row = constraints.actions(ctx.constraints, problem)
    first, restoring = state.count < 0, state.tries >= 0
    clean = first & weighted.is_clean(config, problem, ev.logits[0])
    looked = state
    if row.exact:
        looked = select(first, state, _consider(ctx, problem, config, state, ev.point, ev.logits))
    moved = _descended(ctx, problem, config, looked, ev, first)
    state = select(restoring, _restored(ctx, problem, config, state, ev), moved)
    state = state._replace(trial=_trial(ctx, problem, state))
    spent = (state.tries >= 0) & ((state.tries >= config.restorations) | ~state.trial.left.any())
    status = jnp.where(spent, jnp.where(state.valid.any(), Status.FOUND, Status.NOT_FOUND), Status.PENDING)
    return state._replace(status=jnp.where(clean, Status.ALREADY_TARGET, status).astype(jnp.int32))


def _probe(ctx: Context, problem: Problem, config: DiCE, state: DiCEState) -> Array:
    row = constraints.actions(ctx.constraints, problem)
    if row.exact:
        return jnp.zeros((0, *problem.x.shape), problem.x.dtype)
    return jax.vmap(row.snap)(state.adam.u)


def _result(ctx: Context, problem: Problem, config: DiCE, state: DiCEState) -> Outcome:
    status = jnp.where(state.status == Status.FOUND, Status.NOT_FOUND, state.status)
    return sets.outcome(state.points, state.valid, status, state.adam.u)


_METHOD = Method("dice", _init, _ask, _loss, _tell, result=_result, probe=_probe, tell_probe=_consider, width=4)
