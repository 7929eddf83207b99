"""FWnucl: structured perturbations by Frank–Wolfe over a group nuclear norm ball (Kazemi, Kerdreux, Pokutta 2023).

    min_R  L(f(Π(x + R)), t)    s.t.  Σ_g max_c ‖R_{g,c}‖_* <= ε                                                    (1)

with L the cross-entropy (as :func:`invjax.losses.log_odds`, which does not saturate), Π the clipping to the box (and to
the mask), g square patches, c channels. Each step moves towards one patch that has rank one in each channel
(:mod:`invjax.solvers.frank_wolfe`). The step sizes are a ladder of powers of two, all probed at once. A search per
example looks for the smallest ε that succeeds.

Deviations from the GSE authors' implementation: the linear minimisation oracle is that of the ball (theirs chooses the
patch by another norm); the output stays in the range of the data; sizes need not be multiples of the patch; a trial
stops at its first success; six parallel probes replace golden section's fifty. ``trials=1, stop_early=False`` keeps
their single ε and all their steps. R is in [-1, 1] units; ε bounds R itself, x' shows only the part inside the box.
"""

from __future__ import annotations

from dataclasses import field
from typing import ClassVar, NamedTuple

import jax
import jax.numpy as jnp

from invjax import losses
from invjax.attacks.parts.coordinates import SIGNED, room, scale, to_data
from invjax.attacks.parts.units import need_image, patch_side, patches
from invjax.core.config import STATIC, config, require, require_above, require_at_least
from invjax.core.numerics import select
from invjax.solvers import frank_wolfe, search
from invjax.solvers.best import Best, nothing
from invjax.types import Array, Context, Eval, Method, Problem, Status


@config
class FWnucl:
    """The attack's constants, R in [-1, 1] units.

    Fields:
      eps: radius of the ball in the first trial, > 0 (the GSE comparison: 5, one trial).
      growth: factor from one ε to the next while none has succeeded, > 1.
      trials: values of ε tried, >= 1.
      steps: Frank–Wolfe steps of a trial, >= 1.
      kappa: margin of a success, logit units, >= 0.
      patch: side of the patches in pixels, >= 1; None stands for 4 up to 64 px and 32 above (static).
      probes: step sizes probed in each step, >= 1 (static).
      stop_early: whether a trial ends at its first success; otherwise its last iterate counts (static).

    Evaluations per example: at most trials·steps, and ``probes`` times as many forwards.
    """

    eps: float = 2.0
    growth: float = 2.0
    trials: int = 6
    steps: int = 200
    kappa: float = 0.0
    patch: int | None = field(default=None, metadata=STATIC)
    probes: int = field(default=6, metadata=STATIC)
    stop_early: bool = field(default=True, metadata=STATIC)

    RENAMED: ClassVar = {"iterations": "steps"}
    method: ClassVar[Method]

    def check(self) -> None:
        require_above(self, 0, "eps")
        require_above(self, 1, "growth")
        require_at_least(self, 1, "trials", "steps", "probes")
        require_at_least(self, 0, "kappa")
        require(self, "patch", lambda v: v is None or v >= 1, "None or at least 1 pixel")


class FWnuclState(NamedTuple):
    r: Array  # [*S] the iterate, which may leave the box
    vertex: Array  # [*S] where the step goes
    value: Array  # [] loss at r
    top: Array  # [] the largest step size to try
    count: Array  # [] int32, steps of this trial; -1 before the clean input was seen
    eps: search.Bracket  # the search for the smallest radius that succeeds
    best: Best  # scored by its ε: each success has a smaller one than those before
    status: Array  # [] int32, PENDING until decided


def _init(ctx: Context, problem: Problem, config: FWnucl) -> FWnuclState:
    need_image(problem, "FWnucl")
    zero, scalar = jnp.zeros_like(problem.x), jnp.zeros((), problem.x.dtype)
    return FWnuclState(
        r=zero, vertex=zero, value=scalar, top=scalar + 1, count=jnp.int32(-1), eps=search.init(scalar + config.eps),
        best=nothing(problem), status=jnp.int32(Status.PENDING),
    )  # fmt: skip


def _ask(ctx: Context, problem: Problem, config: FWnucl, state: FWnuclState) -> Array:
    return to_data(problem, state.r, SIGNED)


def _loss(ctx: Context, problem: Problem, config: FWnucl, state: FWnuclState, point: Array, logits: Array) -> Array:
    return losses.log_odds(logits, problem.label, problem.target)


def _tell(ctx: Context, problem: Problem, config: FWnucl, state: FWnuclState, ev: Eval) -> FWnuclState:
    clean = (state.count < 0) & losses.reached(ev.logits, problem.label, problem.target)
    # The derivative of the clipping is 0 where R is outside the box, and at a side of it where the step leads outwards.
    low, high = room(problem, span=SIGNED)
    shown = (state.r >= low) & (state.r <= high) & jnp.where(ev.grad > 0, state.r > low, state.r < high)
    grad = jnp.where(shown, ev.grad * scale(problem, SIGNED), 0)
    cut = patches(problem.x.shape, patch_side(problem.x.shape, config.patch, small=4, large=32, most=64))
    vertex = cut.join(frank_wolfe.of_group_nuclear(cut.split(grad), state.eps.value))
    status = jnp.where(clean, Status.ALREADY_TARGET, state.status).astype(jnp.int32)
    count = (jnp.maximum(state.count, 0) + 1).astype(jnp.int32)
    return state._replace(vertex=vertex, value=ev.value, count=count, status=status)


def _probe(ctx: Context, problem: Problem, config: FWnucl, state: FWnuclState) -> Array:
    sizes = frank_wolfe.ladder(state.top, config.probes)
    return jax.vmap(lambda size: to_data(problem, frank_wolfe.move(state.r, state.vertex, size), SIGNED))(sizes)


def _tell_probe(
    ctx: Context, problem: Problem, config: FWnucl, state: FWnuclState, points: Array, logits: Array
) -> FWnuclState:
    clean = state.status == Status.ALREADY_TARGET
    sizes = frank_wolfe.ladder(state.top, config.probes)
    values = jax.vmap(lambda z: losses.log_odds(z, problem.label, problem.target))(logits)
    gaps = jax.vmap(lambda z: losses.gap(z, problem.label, problem.target))(logits)
    index, taken, top = frank_wolfe.choose(state.value, values.astype(sizes.dtype), sizes)
    reached = (gaps < -config.kappa) & (points != problem.x).any(tuple(range(1, points.ndim)))
    timeout = state.count >= config.steps
    if config.stop_early:
        success = reached.any()
        index = jnp.where(success, sizes.size - 1 - jnp.argmax(reached[::-1]), index)  # the shortest such step
    else:
        success = timeout & reached[index]
    success &= ~clean
    r = jnp.where(taken | success, frank_wolfe.move(state.r, state.vertex, sizes[index]), state.r)

    ended = success | timeout
    eps = select(ended, search.seek_smallest(state.eps, success, config.growth), state.eps)
    best = state.best.offer(points[index], state.eps.value, success)
    over = eps.trials >= config.trials
    return state._replace(
        r=jnp.where(ended & (clean | ~over), 0, r),
        top=jnp.where(ended, 1, top),
        count=jnp.where(ended, 0, state.count).astype(jnp.int32),
        eps=eps,
        best=best,
        status=best.status(clean, over),
    )


FWnucl.method = Method("fwnucl", _init, _ask, _loss, _tell, probe=_probe, tell_probe=_tell_probe)
