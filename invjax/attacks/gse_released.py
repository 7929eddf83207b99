"""GSE as its authors released it and as they published it: group-wise sparse perturbations (ICLR 2025).

    min_r  L(f(x + r), t) + λ ‖r‖_{1/2}^{1/2} + regulariser,   x + r in the box,                                  (7)

with L the Carlini-Wagner margin. Phase I runs proximal steps with one weight λ per pixel, which falls near changed
pixels and grows elsewhere, so that changes gather in groups. Phase II minimises L + regulariser on the subspace V that
the weights have opened. λ is searched per example by bracketing and bisection. Of the trials that reach the wanted
class the one with the fewest touched 8x8 windows (d_{2,0}) is kept.

Source: Sadiku, Wagner, Pokutta. ``GSEReleased`` follows the authors' code step for step: its regulariser is μ‖r‖_2² in
both phases, its "acceleration" averages the last two iterates, and a trial ends at its first success.
``GSEPublished`` follows the paper: μ‖r‖_2 in phase II alone (10), extrapolation, and each trial is refined to its end.
:class:`invjax.attacks.GSE` is ours, at a tenth of the gradients.

Coordinates: r is measured in units in which the box has width 2, i.e. [-1, 1]: the paper's. All constants are in
these units, whatever the bounds of the data.
"""

from __future__ import annotations

from dataclasses import field
from typing import ClassVar, NamedTuple

import jax.numpy as jnp

from invjax import losses, prox
from invjax.attacks.parts.coordinates import SIGNED, scale, to_data, to_units
from invjax.attacks.parts.units import need_image
from invjax.core import windows
from invjax.core.config import STATIC, config, require, require_above, require_at_least
from invjax.core.numerics import safe_divide, safe_norm, select
from invjax.solvers import momentum, search
from invjax.solvers.best import Best, nothing
from invjax.types import Array, ArrayLike, Context, Eval, Method, Problem, Status


@config
class GSEReleased:
    """The constants of the authors' code, for 32x32 images. Targeted and untargeted; for images.

    Fields:
      l2_weight: μ, weight of the regulariser, >= 0.
      step_size: σ, > 0.
      phase_one_steps: k̂, steps of phase I, >= 1 (the released settings: 50 targeted, 30 untargeted).
      steps: steps of a trial, both phases, >= 1.
      trials: values of λ tried, >= 1.
      far_divisor: q, what λ is divided by in each step where no change is near, in (0, 1].
      growth: λ of the next trial over this one's while no trial has failed, > 1.
      initial_weight: λ of the first trial over λ_max, the smallest λ at which r never leaves 0; > 0.
      window: side of the windows of d_{2,0}, pixels (static).

    Evaluations per example: at most 1 + trials·steps.
    """

    l2_weight: float = 1.0
    step_size: float = 0.005
    phase_one_steps: int = 50
    steps: int = 200
    trials: int = 10
    far_divisor: float = 0.25
    growth: float = 2.0
    initial_weight: float = 0.01
    window: int = field(default=8, metadata=STATIC)

    method: ClassVar[Method]
    RENAMED: ClassVar = {
        "variant": "the class GSEReleased or GSEPublished", "mu": "l2_weight", "sigma": "step_size",
        "k_hat": "phase_one_steps", "iterations": "steps", "q": "far_divisor", "start": "initial_weight",
    }  # fmt: skip

    def check(self) -> None:
        require_at_least(self, 0, "l2_weight")
        require_at_least(self, 1, "phase_one_steps", "steps", "trials", "window")
        require_above(self, 0, "step_size", "initial_weight")
        require_above(self, 1, "growth")
        require(self, "far_divisor", lambda v: 0 < v <= 1, "in (0, 1]")


@config
class GSEPublished(GSEReleased):
    """The constants of the paper's algorithm: the same fields and defaults, another method.

    Evaluations per example: 1 + trials·steps, as no trial ends early.
    """

    method: ClassVar[Method]


class GSEState(NamedTuple):
    z: Array  # [*S] the next point to ask, as a perturbation
    r: Array  # [*S] the last iterate (after the proximal or gradient step, before averaging or extrapolation)
    g0: Array  # [*S] gradient at r = 0: the first step of every trial needs no evaluation
    weights: Array  # [H, W] λ per pixel
    beta: Array  # [] momentum sequence
    count: Array  # [] int32, steps taken in this trial; -1 before the clean input was seen
    lam: search.Bracket  # the search for the largest λ that succeeds; ``lam.value`` is this trial's
    hit: Best  # of this trial: the first point with the wanted class (released) or the shortest (published)
    best: Best  # of all trials, scored by d_{2,0}
    status: Array  # [] int32, PENDING until decided


def _init(ctx: Context, problem: Problem, config: GSEReleased) -> GSEState:
    need_image(problem, "GSE")
    zero, scalar = jnp.zeros_like(problem.x), jnp.zeros((), problem.x.dtype)
    return GSEState(
        z=zero, r=zero, g0=zero, weights=zero[..., 0], beta=scalar + 1, count=jnp.int32(-1), lam=search.init(scalar),
        hit=nothing(problem), best=nothing(problem), status=jnp.int32(Status.PENDING),
    )  # fmt: skip


def _ask(ctx: Context, problem: Problem, config: GSEReleased, state: GSEState) -> Array:
    return to_data(problem, state.z, SIGNED)


def _loss(ctx: Context, problem: Problem, config: GSEReleased, state: GSEState, point: Array, logits: Array) -> Array:
    """The margin alone: the regulariser needs no network, and its gradient is exact where r is (see ``_tell``)."""
    return losses.margin(logits, problem.label, problem.target)


def _in_phase_one(config: GSEReleased, state: GSEState) -> Array:
    return state.count < config.phase_one_steps


def _regulariser_grad(config: GSEReleased, state: GSEState) -> Array:
    """The gradient of the regulariser at the asked z."""
    if isinstance(config, GSEPublished):
        direction = safe_divide(state.z, safe_norm(state.z))
        return jnp.where(_in_phase_one(config, state), 0, config.l2_weight) * direction
    return 2 * config.l2_weight * state.z


def half_weight(config: GSEReleased, lam: Array, step_size: Array) -> Array:
    """Weight w of ``prox(v, w) = argmin ½(u-v)² + w √|u|`` that stands for λ.

    The released code solves (u-v)² + λσ√|u|, without the ½: w = λσ/2. The published form has w = λσ.
    """
    return lam * step_size * (1.0 if isinstance(config, GSEPublished) else 0.5)


def lambda_max(config: GSEReleased, g: Array, step_size: Array) -> Array:
    """The smallest λ for which the first proximal step, from 0 along the gradient g, stays at 0 (closed form).

    Released: 1.0887 √σ ‖g‖_inf^{3/2}; its code searches for it by doubling and 50 bisections.
    """
    least = prox.zero_weight(step_size * jnp.max(jnp.abs(g)), 1 / 2)
    return least / half_weight(config, jnp.ones_like(step_size), step_size)


def _next_weights(weights: Array, r: Array, far_divisor: ArrayLike) -> Array:
    """λ_{t+1} = λ_t / M̄: M̄ = blur + 1 near changed pixels (λ falls), q elsewhere (λ grows). [H, W]."""
    near = windows.gaussian_blur(windows.changed(r).astype(weights.dtype))
    return weights / jnp.where(near > 0, near + 1, far_divisor)


def _step(config: GSEReleased, problem: Problem, state: GSEState, grad: Array, step_size: Array) -> GSEState:
    """One step from the asked point z with its gradient."""
    # In [-1, 1] coordinates, so that r is rounded as in the released code: this is its only rounding that matters.
    u = safe_divide(problem.x - (problem.upper + problem.lower) / 2, scale(problem, SIGNED))

    def clip(r: Array) -> Array:
        return jnp.clip(u + r, -1, 1) - u

    beta = momentum.next_beta(state.beta)
    first_phase = _in_phase_one(config, state)
    w = half_weight(config, state.weights, step_size)[..., None]
    count = state.count + 1
    if not isinstance(config, GSEPublished):
        # V keeps λ <= λ_0. At the switch z is restricted but its gradient is not taken anew, as in the released code.
        closed = (state.weights > state.lam.value)[..., None] & ~first_phase
        at_switch = state.count == config.phase_one_steps
        z = jnp.where(closed & at_switch, 0, state.z)
        old = jnp.where(at_switch, z, state.r)
        v = z - step_size * grad
        r = jnp.where(first_phase, prox.l_half(v, w), jnp.where(closed, 0, v))
        # The released "acceleration" is a convex average of the last two iterates, not an extrapolation.
        share = state.beta / beta
        z = share * r + (1 - share) * old
        weights = jnp.where(first_phase, _next_weights(state.weights, z, config.far_divisor), state.weights)
        return state._replace(z=clip(z), r=r, weights=weights, beta=beta, count=count)
    v = state.z - step_size * grad
    opened = (state.weights < state.lam.value)[..., None]
    r = clip(jnp.where(first_phase, prox.l_half(v, w), jnp.where(opened, v, 0)))
    weights = jnp.where(first_phase, _next_weights(state.weights, r, config.far_divisor), state.weights)
    # Phase II begins at the restriction of r to V = {λ < λ_0}, with fresh momentum.
    at_switch = count == config.phase_one_steps
    restricted = jnp.where((weights < state.lam.value)[..., None], r, 0)
    z = clip(jnp.where(at_switch, restricted, r + momentum.extrapolation(state.beta, beta) * (r - state.r)))
    r, beta = jnp.where(at_switch, restricted, r), jnp.where(at_switch, jnp.ones_like(beta), beta)
    return state._replace(z=z, r=r, weights=weights, beta=beta, count=count)


def _judge(config: GSEReleased, problem: Problem, state: GSEState, ev: Eval, reached: Array) -> tuple[Best, Array]:
    """The trial's best point, and whether the trial has ended."""
    over = state.count >= config.steps
    if isinstance(config, GSEPublished):
        norm = safe_norm(to_units(problem, ev.point, SIGNED))
        return state.hit.offer(ev.point, norm, reached & ~_in_phase_one(config, state)), over
    # The first success ends the trial, in either phase.
    return state.hit.offer(ev.point, 0.0, reached), reached | over


def _tell(ctx: Context, problem: Problem, config: GSEReleased, state: GSEState, ev: Eval) -> GSEState:
    grad = ev.grad * scale(problem, SIGNED) + _regulariser_grad(config, state)
    first = state.count < 0
    reached = losses.reached(ev.logits, problem.label, problem.target)

    hit, ended = _judge(config, problem, state, ev, reached)
    ended &= ~first
    success = ended & hit.found
    d20 = windows.window_count(windows.changed(hit.x - problem.x), config.window).astype(grad.dtype)
    best = state.best.offer(hit.x, d20, success)

    g0 = jnp.where(first, grad, state.g0)
    step_size = jnp.asarray(config.step_size, grad.dtype)
    lam = select(ended, search.seek_largest(state.lam, success, config.growth), state.lam)
    lam = select(first, search.init(config.initial_weight * lambda_max(config, g0, step_size)), lam)
    # The last two trials of an example without a success take ten times the step.
    bold = (lam.trials >= config.trials - 2) & ~best.found
    step_size = step_size * jnp.where(bold, 10, 1).astype(step_size.dtype)

    fresh = first | ended
    state = GSEState(
        z=jnp.where(fresh, 0, state.z), r=jnp.where(fresh, 0, state.r), g0=g0,
        weights=jnp.where(fresh, lam.value, state.weights), beta=jnp.where(fresh, 1, state.beta),
        count=jnp.where(fresh, 0, state.count), lam=lam, hit=select(fresh, nothing(problem), hit), best=best,
        status=best.status(first & reached, lam.trials >= config.trials),
    )  # fmt: skip
    return _step(config, problem, state, jnp.where(fresh, g0, grad), step_size)


GSEReleased.method = Method("gse-released", _init, _ask, _loss, _tell)
GSEPublished.method = GSEReleased.method._replace(name="gse-published")
