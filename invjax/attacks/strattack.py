"""StrAttack: structured sparsity by ADMM (Xu et al., ICLR 2019).

    min_r  c L(f(x + r), t) + γ ‖r‖_2² + τ Σ_g ‖r_g‖_2    s.t.  x + r in the box,  ‖r‖_∞ <= ε                      (1)

with L the Carlini-Wagner margin and g patches of pixels. ADMM (:mod:`invjax.solvers.admm`) on copies of r: one for the
quadratic, one for the box, one for the group term *within the box*, whose map is exact, so that this copy y is at once
group-wise sparse and admissible: it is the candidate, probed in every iteration. c is searched for the smallest that
succeeds; of all successful y the one with the smallest ‖y‖_2 is kept. Then *retraining*: the support A of that y,
less its smallest entries, is fixed and

    min_r  c L(f(x + r), t) + γ' ‖r‖_2²    s.t.  r = 0 off A,  x + r in the box,  ‖r‖_∞ <= ε                       (2)

is solved in the same way, with a search of c of its own. Groups that overlap (``stride`` < ``patch``) are (patch /
stride)² partitions, each with a copy; the candidate is the mean of the copies where none of them is 0.

Deviations from the authors' and the GSE authors' codes: the loss is the example's own (not a mean over the batch);
candidates are in the box; norms are those of the candidate; the quantile of the support is the example's; retraining
solves (2) (a weight misplaced in the GSE repository makes it another iteration). r is in [-1, 1] units.
"""

from __future__ import annotations

from dataclasses import field
from typing import Any, ClassVar, NamedTuple

import jax.numpy as jnp

from invjax import losses, prox
from invjax.attacks.parts.coordinates import SIGNED, room, scale, to_data, to_units
from invjax.attacks.parts.units import layout, overlapping
from invjax.core.config import STATIC, config, require
from invjax.core.numerics import safe_norm, select
from invjax.core.ranks import largest
from invjax.solvers import admm, search
from invjax.types import Array, Context, Eval, Method, Outcome, Problem, Status


@config
class StrAttack:
    """The attack's constants, in [-1, 1] units of r: those of the GSE comparison on CIFAR-10 (ImageNet: c = 2.5).

    Fields:
      c: weight of the loss in the first trial, > 0.
      growth: c of the next trial over this one's while none has succeeded, > 1.
      trials: values of c tried, >= 1.
      iterations: ADMM iterations of a trial, >= 1.
      tau: weight of the group term, >= 0.
      gamma: weight of the quadratic, >= 0.
      rho: ADMM's penalty, > 0.
      alpha: the proximity of iteration k is η = α √(k + 1), > 0.
      eps: bound on every |r|, > 0.
      kappa: confidence, logit units, >= 0.
      retrain_trials: values of c tried in retraining; 0: no retraining.
      retrain_c: c of its first trial, > 0.
      retrain_gamma: γ' of (2), >= 0.
      dropped: share of the nonzero entries, the smallest, that retraining sets free of change, in [0, 1).
      patch: side of the groups in pixels (static); None: 2 up to 32 px, 8 above. Ignored where groups are given.
      stride: distance of the groups in pixels, a divisor of patch (static); None: patch, no overlap.

    Evaluations per example: at most (trials + retrain_trials)·iterations, and as many forwards. It keeps about ten
    arrays of the example's size: use few lanes for large images.
    """

    c: float = 0.25
    growth: float = 5.0
    trials: int = 8
    iterations: int = 200
    tau: float = 2.0
    gamma: float = 1.0
    rho: float = 1.0
    alpha: float = 5.0
    eps: float = 1.0
    kappa: float = 0.0
    retrain_trials: int = 8
    retrain_c: float = 5.0
    retrain_gamma: float = 0.01
    dropped: float = 0.03
    patch: int | None = field(default=None, metadata=STATIC)
    stride: int | None = field(default=None, metadata=STATIC)

    method: ClassVar[Method]

    def check(self) -> None:
        for name in ("c", "rho", "alpha", "eps", "retrain_c"):
            require(self, name, lambda v: v > 0, "above 0")
        for name in ("tau", "gamma", "kappa", "retrain_gamma"):
            require(self, name, lambda v: v >= 0, "at least 0")
        require(self, "growth", lambda v: v > 1, "above 1")
        require(self, "trials", lambda v: v >= 1, "at least 1")
        require(self, "iterations", lambda v: v >= 1, "at least 1")
        require(self, "retrain_trials", lambda v: v >= 0, "at least 0")
        require(self, "dropped", lambda v: 0 <= v < 1, "a share in [0, 1)")
        require(self, "patch", lambda v: v is None or v >= 1, "None or at least 1 pixel")
        if self.stride is not None:
            require(self, "patch", lambda v: v is not None, "given where stride is")
            require(self, "stride", lambda v: 1 <= v <= self.patch and self.patch % v == 0, "a divisor of patch")


class StrAttackState(NamedTuple):
    admm: admm.State  # z [*S] the next point to ask, as a perturbation; duals [2 + partitions, *S]
    y: Array  # [*S] the candidate to probe
    k: Array  # [] int32, iterations of this trial; -1 before the clean input was seen
    c: search.Bracket  # the search for the smallest c that succeeds
    hit: Array  # [] bool, this trial has succeeded
    retrain: Array  # [] bool, in the second stage
    free: Array  # [*S] bool, the support A of the second stage
    best: Array  # [*S] the shortest candidate with the wanted class, data units
    best_norm: Array  # [] its ‖r‖_2; infinity if there is none
    status: Array  # [] int32, PENDING until decided


def _sizes(problem: Problem, config: StrAttack) -> tuple[int, int, int]:
    """Side and distance of the groups in pixels, and how many partitions have them all."""
    patch = config.patch or (2 if problem.groups is not None or max(problem.x.shape[:2]) <= 32 else 8)
    stride = patch if problem.groups is not None else config.stride or patch
    return patch, stride, (patch // stride) ** 2


def _init(ctx: Context, problem: Problem, config: StrAttack) -> StrAttackState:
    patch, _, partitions = _sizes(problem, config)
    layout(problem, patch, "StrAttack")  # raises where there are no groups to be had
    zero, scalar = jnp.zeros_like(problem.x), jnp.zeros((), problem.x.dtype)
    return StrAttackState(
        admm=admm.init(zero, 2 + partitions), y=zero, k=jnp.int32(-1), c=search.init(scalar + config.c),
        hit=jnp.bool_(False), retrain=jnp.bool_(False), free=jnp.zeros(zero.shape, bool), best=problem.x,
        best_norm=scalar + jnp.inf, status=jnp.int32(Status.PENDING),
    )  # fmt: skip


def _ask(ctx: Context, problem: Problem, config: StrAttack, state: StrAttackState) -> Array:
    return to_data(problem, state.admm.z, SIGNED)


def _loss(ctx: Context, problem: Problem, config: StrAttack, state: Any, point: Array, logits: Array) -> Array:
    return losses.margin(logits, problem.label, problem.target, config.kappa)


def _group_maps(problem: Problem, config: StrAttack, v: Array, low: Array, high: Array) -> Array:
    """The maps of τ Σ_g ‖y_g‖ / ρ within the box, of all partitions. v: [m, *S] -> [m, *S]"""
    patch, stride, partitions = _sizes(problem, config)
    weight = jnp.asarray(config.tau, v.dtype) / config.rho
    if problem.groups is not None:
        groups = layout(problem, patch, "StrAttack").options
        return prox.group_l2(v[0], weight, lower=low, upper=high, **groups)[None]
    windows = overlapping(problem.x.shape, patch, stride)
    low, high = (windows.split(jnp.broadcast_to(side, (partitions, *side.shape))) for side in (low, high))
    return windows.join(prox.group_l2(windows.split(v), weight, lower=low, upper=high, **windows.options))


def _tell(ctx: Context, problem: Problem, config: StrAttack, state: StrAttackState, ev: Eval) -> StrAttackState:
    first = state.k < 0
    clean = first & losses.reached(ev.logits, problem.label, problem.target)
    grad = state.c.value * ev.grad * scale(problem, SIGNED)
    k = jnp.maximum(state.k, 0)

    low, high = room(problem, config.eps, SIGNED)
    maps = [admm.ridge(config.gamma), admm.inside(low, high)]
    simple = admm.blocks(state.admm._replace(u=state.admm.u[:2]), maps, config.rho)
    groups = _group_maps(problem, config, state.admm.z - state.admm.u[2:], low, high)
    copies = jnp.concatenate([simple, groups])
    sparse = jnp.where((groups != 0).all(0), jnp.mean(groups, axis=0), 0)

    # Retraining has one term: the quadratic within the box and A, in the first copy's place.
    only = admm.ridge_in_box(config.retrain_gamma, jnp.where(state.free, low, 0), jnp.where(state.free, high, 0))
    fixed = only(state.admm.z - state.admm.u[0], 1 / jnp.asarray(config.rho, grad.dtype))
    copies = copies.at[0].set(jnp.where(state.retrain, fixed, copies[0]))
    active = ~state.retrain | (jnp.arange(copies.shape[0]) == 0)
    eta = config.alpha * jnp.where(state.retrain, 1, jnp.sqrt((k + 1).astype(grad.dtype)))
    moved = admm.advance(state.admm, copies, grad, config.rho, eta, active)

    status = jnp.where(clean, Status.ALREADY_TARGET, state.status).astype(jnp.int32)
    y = jnp.clip(jnp.where(state.retrain, fixed, sparse), low, high)
    return state._replace(admm=moved, y=y, k=(k + 1).astype(jnp.int32), status=status)


def _probe(ctx: Context, problem: Problem, config: StrAttack, state: StrAttackState) -> Array:
    return to_data(problem, state.y, SIGNED)[None]


def support(r: Array, dropped: Array | float) -> Array:
    """The nonzero entries of r but for the share ``dropped`` of them, the smallest. [*S] bool, never empty if r ≠ 0."""
    count = jnp.sum(r != 0)
    fewer = jnp.floor(dropped * jnp.maximum(count - 1, 0).astype(r.dtype)).astype(count.dtype)
    return (r != 0) & largest(jnp.abs(r), count - fewer)


def _tell_probe(
    ctx: Context, problem: Problem, config: StrAttack, state: StrAttackState, points: Array, logits: Array
) -> StrAttackState:
    point, pending = points[0], state.status == Status.PENDING
    r = to_units(problem, point, SIGNED)
    success = losses.gap(logits[0], problem.label, problem.target) < -config.kappa
    success &= pending & jnp.any(point != problem.x)
    norm = safe_norm(r)
    better = success & (norm < state.best_norm)
    best = jnp.where(better, point, state.best)
    best_norm = jnp.where(better, norm, state.best_norm)
    hit = state.hit | success

    ended = state.k >= config.iterations
    c = select(ended, search.seek_smallest(state.c, hit, grow=config.growth), state.c)
    found = jnp.isfinite(best_norm)
    spent = ended & (c.trials >= jnp.where(state.retrain, config.retrain_trials, config.trials))
    enter = spent & ~state.retrain & found & (config.retrain_trials > 0)
    c = select(enter, search.init(jnp.zeros_like(c.value) + config.retrain_c), c)
    retrain = state.retrain | enter
    best_r = to_units(problem, best, SIGNED)
    over = spent & ~enter
    status = jnp.where(pending & over, jnp.where(found, Status.FOUND, Status.NOT_FOUND), state.status)
    start = jnp.where(retrain, best_r, 0)  # of the next trial
    return state._replace(
        admm=select(ended, admm.init(start, state.admm.u.shape[0]), state.admm),
        k=jnp.where(ended, 0, state.k).astype(jnp.int32),
        c=c,
        hit=hit & ~ended,
        retrain=retrain,
        free=jnp.where(enter, support(best_r, config.dropped), state.free),
        best=best,
        best_norm=best_norm,
        status=status.astype(jnp.int32),
    )


def _result(ctx: Context, problem: Problem, config: StrAttack, state: StrAttackState) -> Outcome:
    found = jnp.isfinite(state.best_norm)  # also where the network broke afterwards
    status = jnp.where(found, Status.FOUND, state.status).astype(jnp.int32)
    return Outcome(state.best, status, jnp.where(found, state.best, to_data(problem, state.y, SIGNED)))


StrAttack.method = Method("strattack", _init, _ask, _loss, _tell, result=_result, probe=_probe, tell_probe=_tell_probe)
