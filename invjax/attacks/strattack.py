"""StrAttack: structured sparsity by ADMM (Xu et al., ICLR 2019).

    min_r  c L(f(x + r), t) + γ ‖r‖_2² + τ Σ_g ‖r_g‖_2    s.t.  x + r in the box,  ‖r‖_∞ <= ε                      (1)

with L the Carlini-Wagner margin and g patches of pixels. ADMM (:mod:`invjax.solvers.admm`) keeps copies of r: one for
the quadratic, one for the box, and one for the group term *within the box*. The map of the last is exact, so this copy
y is group-wise sparse and admissible at once: it is the candidate, probed in every step. A search looks for the
smallest c that succeeds; the successful y with the smallest ‖y‖_2 is kept. Then comes *retraining*: the support A of
that y, less its smallest entries, is fixed and

    min_r  c L(f(x + r), t) + γ' ‖r‖_2²    s.t.  r = 0 off A,  x + r in the box,  ‖r‖_∞ <= ε                       (2)

is solved in the same way, with a search of its own for c. Groups that overlap (``stride`` < ``patch``) form
(patch / stride)² partitions, each with a copy; the candidate is the mean of the copies where none of them is 0.

Deviations from the authors' and the GSE authors' codes: the loss is the example's own (not a mean over the batch);
candidates are in the box; norms are those of the candidate; the quantile of the support is the example's; retraining
solves (2) (in the GSE repository a misplaced weight makes it another problem). r is in [-1, 1] units.
"""

from __future__ import annotations

from dataclasses import field
from typing import Any, ClassVar, NamedTuple

import jax.numpy as jnp

from invjax import losses, prox
from invjax.attacks.parts.coordinates import SIGNED, room, scale, to_data, to_units
from invjax.attacks.parts.units import Layout, layout, overlapping, patch_side
from invjax.core.config import OPEN, STATIC, config, require, require_above, require_at_least
from invjax.core.numerics import safe_norm, select
from invjax.core.ranks import largest
from invjax.solvers import admm, search
from invjax.solvers.best import Best, nothing
from invjax.types import Array, Context, Eval, Method, Outcome, Problem, Status


@config
class StrAttack:
    """The attack's constants, r in [-1, 1] units; the defaults are those of the GSE comparison on CIFAR-10.

    Fields:
      initial_weight: c, the weight of the loss, in the first trial, > 0 (ImageNet: 2.5).
      growth: factor from one c to the next while none has succeeded, > 1.
      trials: values of c tried, >= 1.
      steps: steps of ADMM in a trial, >= 1.
      group_weight: τ, the weight of the group term, >= 0.
      l2_weight: γ, the weight of the quadratic, >= 0.
      rho: ρ, ADMM's penalty on the distance between r and its copies, > 0.
      inertia: α, > 0; the weight of the distance to the last iterate is η = α √(i + 1) in step i.
      eps: bound on every |r|, > 0.
      kappa: margin of a success, logit units, >= 0.
      retrain_trials: values of c tried in retraining, >= 0; 0 switches retraining off.
      retrain_weight: c in the first trial of retraining, > 0.
      retrain_l2_weight: γ' of (2), >= 0.
      dropped: share of the nonzero entries that retraining sets to 0, the smallest first, in [0, 1).
      patch: side of the groups in pixels; None stands for 2 up to 32 px and 8 above. Ignored where groups are given
        (static).
      stride: distance of the groups in pixels, a divisor of patch; None stands for patch: no overlap (static).

    Evaluations per example: at most (trials + retrain_trials)·steps, and as many forwards. A lane keeps about ten
    arrays of the example's size: use few lanes for large images.
    """

    initial_weight: float = 0.25
    growth: float = 5.0
    trials: int = 8
    steps: int = 200
    group_weight: float = 2.0
    l2_weight: float = 1.0
    rho: float = 1.0
    inertia: float = 5.0
    eps: float = field(default=1.0, metadata=OPEN)
    kappa: float = 0.0
    retrain_trials: int = 8
    retrain_weight: float = 5.0
    retrain_l2_weight: float = 0.01
    dropped: float = 0.03
    patch: int | None = field(default=None, metadata=STATIC)
    stride: int | None = field(default=None, metadata=STATIC)

    RENAMED: ClassVar = {
        "c": "initial_weight", "iterations": "steps", "tau": "group_weight", "gamma": "l2_weight",
        "alpha": "inertia", "retrain_c": "retrain_weight", "retrain_gamma": "retrain_l2_weight",
    }  # fmt: skip
    method: ClassVar[Method]

    def check(self) -> None:
        require_above(self, 0, "initial_weight", "rho", "inertia", "eps", "retrain_weight")
        require_at_least(self, 0, "group_weight", "l2_weight", "kappa", "retrain_l2_weight", "retrain_trials")
        require_above(self, 1, "growth")
        require_at_least(self, 1, "trials", "steps")
        require(self, "dropped", lambda v: 0 <= v < 1, "a share in [0, 1)")
        require(self, "patch", lambda v: v is None or v >= 1, "None or at least 1 pixel")
        if self.stride is not None:
            require(self, "patch", lambda v: v is not None, "given where stride is")
            require(self, "stride", lambda v: 1 <= v <= self.patch and self.patch % v == 0, "a divisor of patch")


class StrAttackState(NamedTuple):
    admm: admm.State  # z [*S] the next point to ask, as a perturbation; duals [2 + partitions, *S]
    y: Array  # [*S] the candidate to probe
    count: Array  # [] int32, steps of this trial; -1 before the clean input was seen
    weight: search.Bracket  # the search for the smallest c that succeeds
    hit: Array  # [] bool, this trial has succeeded
    retrain: Array  # [] bool, in the second stage
    free: Array  # [*S] bool, the support A of the second stage
    best: Best  # scored by ‖r‖_2
    status: Array  # [] int32, PENDING until decided


def partitions(problem: Problem, config: StrAttack) -> tuple[Layout, int]:
    """The groups, in a layout of one array per partition, and the number m of partitions. split: [m, *S] -> groups."""
    patch = patch_side(problem.x.shape, config.patch, 2, 8)
    one = layout(problem, patch, "StrAttack")  # raises where there are no groups
    if problem.groups is not None:
        return one._replace(split=lambda a: a[0], join=lambda a: a[None]), 1
    stride = config.stride or patch
    return overlapping(problem.x.shape, patch, stride), (patch // stride) ** 2


def _init(ctx: Context, problem: Problem, config: StrAttack) -> StrAttackState:
    _, several = partitions(problem, config)
    zero, no = jnp.zeros_like(problem.x), jnp.bool_(False)
    weight = search.init(jnp.asarray(config.initial_weight, zero.dtype))
    return StrAttackState(
        admm=admm.init(zero, 2 + several), y=zero, count=jnp.int32(-1), weight=weight, hit=no, retrain=no,
        free=jnp.zeros(zero.shape, bool), best=nothing(problem), status=jnp.int32(Status.PENDING),
    )  # fmt: skip


def _ask(ctx: Context, problem: Problem, config: StrAttack, state: StrAttackState) -> Array:
    return to_data(problem, state.admm.z, SIGNED, config.eps)


def _loss(ctx: Context, problem: Problem, config: StrAttack, state: Any, point: Array, logits: Array) -> Array:
    return losses.margin(logits, problem.label, problem.target, config.kappa)


def _group_maps(problem: Problem, config: StrAttack, v: Array, low: Array, high: Array) -> Array:
    """The maps of τ Σ_g ‖y_g‖ / ρ within the box, one for each partition. v: [m, *S] -> [m, *S]"""
    cut, several = partitions(problem, config)
    weight = jnp.asarray(config.group_weight, v.dtype) / config.rho
    low, high = (cut.split(jnp.broadcast_to(side, (several, *side.shape))) for side in (low, high))
    return cut.join(prox.group_l2(cut.split(v), weight, lower=low, upper=high, **cut.options))


def _tell(ctx: Context, problem: Problem, config: StrAttack, state: StrAttackState, ev: Eval) -> StrAttackState:
    clean = (state.count < 0) & losses.reached(ev.logits, problem.label, problem.target)
    grad = state.weight.value * ev.grad * scale(problem, SIGNED)
    count = jnp.maximum(state.count, 0)

    low, high = room(problem, config.eps, SIGNED)
    maps = [admm.ridge(config.l2_weight), admm.inside(low, high)]
    simple = admm.blocks(state.admm._replace(u=state.admm.u[:2]), maps, config.rho)
    groups = _group_maps(problem, config, state.admm.z - state.admm.u[2:], low, high)
    copies = jnp.concatenate([simple, groups])
    sparse = jnp.where((groups != 0).all(0), jnp.mean(groups, axis=0), 0)

    # Retraining has a single term, the quadratic within the box and A, which takes the first copy's place.
    only = admm.ridge_in_box(config.retrain_l2_weight, jnp.where(state.free, low, 0), jnp.where(state.free, high, 0))
    fixed = only(state.admm.z - state.admm.u[0], 1 / jnp.asarray(config.rho, grad.dtype))
    copies = copies.at[0].set(jnp.where(state.retrain, fixed, copies[0]))
    active = ~state.retrain | (jnp.arange(copies.shape[0]) == 0)
    eta = config.inertia * jnp.where(state.retrain, 1, jnp.sqrt((count + 1).astype(grad.dtype)))
    moved = admm.advance(state.admm, copies, grad, config.rho, eta, active)

    status = jnp.where(clean, Status.ALREADY_TARGET, state.status).astype(jnp.int32)
    y = jnp.clip(jnp.where(state.retrain, fixed, sparse), low, high)
    return state._replace(admm=moved, y=y, count=(count + 1).astype(jnp.int32), status=status)


def _probe(ctx: Context, problem: Problem, config: StrAttack, state: StrAttackState) -> Array:
    return to_data(problem, state.y, SIGNED, config.eps)[None]


def support(r: Array, dropped: Array | float) -> Array:
    """The nonzero entries of r, less the share ``dropped`` of the smallest ones. [*S] bool, never empty if r ≠ 0."""
    count = jnp.sum(r != 0)
    fewer = jnp.floor(dropped * jnp.maximum(count - 1, 0).astype(r.dtype)).astype(count.dtype)
    return (r != 0) & largest(jnp.abs(r), count - fewer)


def _tell_probe(
    ctx: Context, problem: Problem, config: StrAttack, state: StrAttackState, points: Array, logits: Array
) -> StrAttackState:
    point, clean = points[0], state.status == Status.ALREADY_TARGET
    success = losses.gap(logits[0], problem.label, problem.target) < -config.kappa
    success &= ~clean & jnp.any(point != problem.x)
    best = state.best.offer(point, safe_norm(to_units(problem, point, SIGNED)), success)
    hit = state.hit | success

    ended = state.count >= config.steps
    weight = select(ended, search.seek_smallest(state.weight, hit, config.growth), state.weight)
    spent = ended & (weight.trials >= jnp.where(state.retrain, config.retrain_trials, config.trials))
    enter = spent & ~state.retrain & best.found & (config.retrain_trials > 0)
    weight = select(enter, search.init(jnp.zeros_like(weight.value) + config.retrain_weight), weight)
    retrain = state.retrain | enter
    best_r = to_units(problem, best.x, SIGNED)
    start = jnp.where(retrain, best_r, 0)  # of the next trial
    return state._replace(
        admm=select(ended, admm.init(start, state.admm.u.shape[0]), state.admm),
        count=jnp.where(ended, 0, state.count).astype(jnp.int32),
        weight=weight,
        hit=hit & ~ended,
        retrain=retrain,
        free=jnp.where(enter, support(best_r, config.dropped), state.free),
        best=best,
        status=best.status(clean, spent & ~enter),
    )


def _result(ctx: Context, problem: Problem, config: StrAttack, state: StrAttackState) -> Outcome:
    return state.best.outcome(state.status, to_data(problem, state.y, SIGNED, config.eps))


StrAttack.method = Method("strattack", _init, _ask, _loss, _tell, result=_result, probe=_probe, tell_probe=_tell_probe)
