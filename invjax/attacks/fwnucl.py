"""FWnucl: structured perturbations by Frank–Wolfe over a group nuclear norm ball (Kazemi, Kerdreux, Pokutta 2023).

    min_R  L(f(Π(x + R)), t)    s.t.  Σ_g max_c ‖R_{g,c}‖_* <= ε                                                    (1)

with L the cross-entropy, Π the clipping to the box (and to the mask), g square patches, c channels. Each step moves
towards one patch of rank one per channel (:mod:`invjax.solvers.frank_wolfe`); step sizes are a ladder of powers of two,
probed at once. ε is searched per example: the smallest that succeeds.

Deviations from the GSE authors' implementation: the linear minimisation oracle is that of the ball (their patch is
chosen by another norm); the output is in the range of the data; sizes need not be multiples of the patch; a trial
stops at its first success; six parallel probes instead of golden section's fifty. ``trials=1, stop_early=False`` keeps
their one ε and all their iterations. R is in [-1, 1] units; ε bounds R, of which x' shows what lies in the box.
"""

from __future__ import annotations

from dataclasses import field
from typing import ClassVar, NamedTuple

import jax
import jax.numpy as jnp

from invjax import losses
from invjax.attacks.parts.coordinates import SIGNED, room, scale, to_data
from invjax.attacks.parts.units import need_image, patches
from invjax.core.config import STATIC, config, require
from invjax.core.numerics import select
from invjax.solvers import frank_wolfe, search
from invjax.types import Array, Context, Eval, Method, Outcome, Problem, Status


@config
class FWnucl:
    """The attack's constants, R in [-1, 1] units.

    Fields:
      eps: radius of the ball in the first trial, > 0 (the GSE comparison: 5, one trial).
      growth: ε of the next trial over this one's while none has succeeded, > 1.
      trials: values of ε tried, >= 1.
      iterations: steps of a trial, >= 1.
      kappa: confidence, logit units, >= 0.
      patch: side of the patches in pixels (static); None: 4 up to 64 px, 32 above.
      steps: step sizes probed per iteration, >= 1 (static).
      stop_early: a trial ends at its first success; otherwise its last iterate counts (static).

    Evaluations per example: at most trials·iterations, and ``steps`` times as many forwards.
    """

    eps: float = 2.0
    growth: float = 2.0
    trials: int = 6
    iterations: int = 200
    kappa: float = 0.0
    patch: int | None = field(default=None, metadata=STATIC)
    steps: int = field(default=6, metadata=STATIC)
    stop_early: bool = field(default=True, metadata=STATIC)

    method: ClassVar[Method]

    def check(self) -> None:
        require(self, "eps", lambda v: v > 0, "a radius > 0")
        require(self, "growth", lambda v: v > 1, "above 1")
        require(self, "trials", lambda v: v >= 1, "at least 1")
        require(self, "iterations", lambda v: v >= 1, "at least 1")
        require(self, "kappa", lambda v: v >= 0, "a margin >= 0")
        require(self, "patch", lambda v: v is None or v >= 1, "None or at least 1 pixel")
        require(self, "steps", lambda v: v >= 1, "at least 1")


class FWnuclState(NamedTuple):
    r: Array  # [*S] the iterate, which may stand out of the box
    vertex: Array  # [*S] where the step goes
    value: Array  # [] loss at r
    top: Array  # [] the largest step size to try
    k: Array  # [] int32, steps of this trial; -1 before the clean input was seen
    eps: search.Bracket  # the search for the smallest radius that succeeds
    best: Array  # [*S] the point of the smallest ε, data units
    found: Array  # [] bool
    status: Array  # [] int32, PENDING until decided


def _init(ctx: Context, problem: Problem, config: FWnucl) -> FWnuclState:
    need_image(problem, "FWnucl")
    zero, scalar = jnp.zeros_like(problem.x), jnp.zeros((), problem.x.dtype)
    return FWnuclState(
        r=zero, vertex=zero, value=scalar, top=scalar + 1, k=jnp.int32(-1), eps=search.init(scalar + config.eps),
        best=problem.x, found=jnp.bool_(False), status=jnp.int32(Status.PENDING),
    )  # fmt: skip


def _ask(ctx: Context, problem: Problem, config: FWnucl, state: FWnuclState) -> Array:
    return to_data(problem, state.r, SIGNED)


def _loss(ctx: Context, problem: Problem, config: FWnucl, state: FWnuclState, point: Array, logits: Array) -> Array:
    return losses.cross_entropy(logits, problem.label, problem.target)


def _tell(ctx: Context, problem: Problem, config: FWnucl, state: FWnuclState, ev: Eval) -> FWnuclState:
    first = state.k < 0
    clean = first & losses.reached(ev.logits, problem.label, problem.target)
    # The derivative of the clipping is 0 where R stands out of the box (and where x may not change).
    low, high = room(problem, span=SIGNED)
    shown = (state.r >= low) & (state.r <= high) & (low < high)
    grad = jnp.where(shown, ev.grad * scale(problem, SIGNED), 0)
    size = config.patch or (4 if max(problem.x.shape[:2]) <= 64 else 32)
    cut = patches(problem.x.shape, size)
    vertex = cut.join(frank_wolfe.of_group_nuclear(cut.split(grad), state.eps.value))
    status = jnp.where(clean, Status.ALREADY_TARGET, state.status).astype(jnp.int32)
    k = (jnp.maximum(state.k, 0) + 1).astype(jnp.int32)
    return state._replace(vertex=vertex, value=ev.value, k=k, status=status)


def _probe(ctx: Context, problem: Problem, config: FWnucl, state: FWnuclState) -> Array:
    steps = frank_wolfe.ladder(state.top, config.steps)
    return jax.vmap(lambda gamma: to_data(problem, frank_wolfe.move(state.r, state.vertex, gamma), SIGNED))(steps)


def _tell_probe(
    ctx: Context, problem: Problem, config: FWnucl, state: FWnuclState, points: Array, logits: Array
) -> FWnuclState:
    pending = state.status == Status.PENDING
    steps = frank_wolfe.ladder(state.top, config.steps)
    values = jax.vmap(lambda z: losses.cross_entropy(z, problem.label, problem.target))(logits)
    gaps = jax.vmap(lambda z: losses.gap(z, problem.label, problem.target))(logits)
    index, taken, top = frank_wolfe.choose(state.value, values.astype(steps.dtype), steps)
    reached = (gaps < -config.kappa) & (points != problem.x).any(tuple(range(1, points.ndim)))
    timeout = state.k >= config.iterations
    if config.stop_early:
        success = reached.any()
        index = jnp.where(success, steps.shape[0] - 1 - jnp.argmax(reached[::-1]), index)  # the shortest such step
    else:
        success = timeout & reached[index]
    success &= pending
    r = jnp.where(taken | success, frank_wolfe.move(state.r, state.vertex, steps[index]), state.r)

    ended = success | timeout
    eps = select(ended, search.seek_smallest(state.eps, success, grow=config.growth), state.eps)
    found = state.found | success
    decided = jnp.where(found, Status.FOUND, Status.NOT_FOUND)
    over = pending & (eps.trials >= config.trials)
    return state._replace(
        r=jnp.where(ended & ~over, 0, r),
        top=jnp.where(ended, 1, top),
        k=jnp.where(ended, 0, state.k).astype(jnp.int32),
        eps=eps,
        best=jnp.where(success, points[index], state.best),  # each success has a smaller ε than those before
        found=found,
        status=jnp.where(over, decided, state.status).astype(jnp.int32),
    )


def _result(ctx: Context, problem: Problem, config: FWnucl, state: FWnuclState) -> Outcome:
    status = jnp.where(state.found, Status.FOUND, state.status).astype(jnp.int32)
    return Outcome(state.best, status, jnp.where(state.found, state.best, to_data(problem, state.r, SIGNED)))


FWnucl.method = Method("fwnucl", _init, _ask, _loss, _tell, result=_result, probe=_probe, tell_probe=_tell_probe)
