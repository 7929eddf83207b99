"""GSE at a tenth of the gradients: one descent selects the pixels and shrinks the perturbation at the same time.

The problem is that of the paper (Sadiku, Wagner, Pokutta, ICLR 2025; :mod:`invjax.attacks.gse_released`),

    min_r  d_{2,0}(r)   over  x + r in the box and in the wanted class,  with ‖r‖_2 kept small,                    (7')

and so are its two parts: a map over the pixels that favours groups and opens a set V, and a descent of the
classifier's gap on the subspace V. The released code runs one after the other, from r = 0, for each of ten λ, and
spends most of its gradients in trials that fail. Here every gradient serves both parts, and there are no trials: V
shrinks after each success and grows a little after each failure, as the radius does in FMN (Pintor et al., NeurIPS
2021).

One step, with g the gradient of the gap c at the asked r (r, g in [-1, 1] coordinates; n pixels are open):

1. Potential. ḡ ← (1 − ρ) ḡ + ρ g. A pixel's potential is the first-order decrease of the gap that it can offer within
   the box, p = Σ_c |ḡ_c| room_c, where room_c is the way to the side of the box that −ḡ_c points to. The slow mean
   matters most: if V followed each gradient, r would never arrive at the boundary of the class.
2. Groups. V = the n pixels of the largest blur(p · (1 + keep · [pixel in V])). The blur makes one pixel speak for
   its neighbours, as the weights of phase I do; the bonus keeps open pixels open.
3. Budget. n ← n (1 − s) if r had the wanted class, else n (1 + s · regrow); s falls on a cosine from shrink to
   shrink_end.
4. Step. m ← β m + (1 − β) g;  r ← clip((1 − α) r − t m) on V, 0 elsewhere. t is the least t >= 0 for which the linear
   model c + g·(r_new − r) reaches −aim, but a step is never longer than its cap. The factor 1 − α is the gradient step
   of ‖r‖²: it shrinks r where the class allows it. The model includes what closing pixels costs, so no point is asked
   twice.

The answer is the iterate of least (d_{2,0}, ‖r‖_2) in the wanted class. docs/gse_variants.md measures what each part
contributes.
"""

from __future__ import annotations

from dataclasses import field
from typing import ClassVar, NamedTuple

import jax.numpy as jnp

from invjax import losses, prox
from invjax.attacks.parts.coordinates import SIGNED, room, scale, to_data
from invjax.attacks.parts.units import need_image
from invjax.core import windows
from invjax.core.config import STATIC, config, require, require_above, require_at_least
from invjax.core.errors import BadArgument
from invjax.core.numerics import safe_divide, safe_norm
from invjax.solvers.best import Best, nothing
from invjax.types import Array, Context, Eval, Method, Problem, Status

_NEWTON_STEPS = 2  # towards the step length: the model is piecewise linear in it, with kinks where the box cuts in

MOST_ACROSS = 20_000.0  # what the gap of most networks changes by across the box at most, to first order, logits


@config
class GSE:
    """The attack's constants, tuned on 32x32 images. Targeted and untargeted; for images.

    Units: [-1, 1] coordinates, pixels, logits; shares in [0, 1].

    Fields:
      steps: value-and-gradients from the first success on, >= 1.
      patience: an example without a success is given up after patience·steps evaluations, >= 1; no example has more.
      initial_share: share of the pixels that are open at first, in (0, 1].
      shrink: share of the open pixels that a success closes, at first, in [0, 1).
      shrink_end: the same at the end, in [0, 1).
      regrow: what a failure opens over what a success closes, >= 0.
      memory: ρ, weight of the newest gradient in the mean that selects the pixels, in (0, 1].
      keep: bonus of the open pixels, >= 0.
      momentum: β, in [0, 1).
      decay: α, the share of r given back in each step, in [0, 1).
      step_size: the longest step, l2, at first, > 0.
      step_size_end: the same at the end, > 0.
      aim: how far beyond the boundary a step aims, logits, >= 0; in proportion more where the gap could change by more
        than 20,000 logits across the box, to first order, for there one logit is next to nothing.
      window: side of the windows of d_{2,0}, pixels (static).
      blur: side of the Gaussian kernel, an odd number of pixels (static).
      blur_sigma: its standard deviation, pixels (static).

    Evaluations per example: from steps (where the first perturbed point succeeds) to patience·steps.
    """

    steps: int = 50
    patience: int = 5
    initial_share: float = 0.25
    shrink: float = 0.3
    shrink_end: float = 0.1
    regrow: float = 0.1
    memory: float = 0.05
    keep: float = 2.0
    momentum: float = 0.4
    decay: float = 0.05
    step_size: float = 0.5
    step_size_end: float = 0.2
    aim: float = 1.0
    window: int = field(default=8, metadata=STATIC)
    blur: int = field(default=9, metadata=STATIC)
    blur_sigma: float = field(default=2.5, metadata=STATIC)

    method: ClassVar[Method]
    RENAMED: ClassVar = {
        "variant": "the class GSEReleased or GSEPublished", "iterations": "steps", "trials": "patience",
        "start": "initial_share", "step": "step_size", "step_end": "step_size_end",
    }  # fmt: skip

    def __post_init__(self) -> None:
        if isinstance(self.steps, str):  # GSE("released")
            named = {"released": "GSEReleased", "published": "GSEPublished"}.get(self.steps, "GSE")
            raise BadArgument("GSE.variant", f"be chosen by class, {named}()", self.steps)

    def check(self) -> None:
        require_at_least(self, 1, "steps", "patience", "window")
        require_at_least(self, 0, "regrow", "keep", "aim")
        require_above(self, 0, "step_size", "step_size_end", "blur_sigma")
        for name in ("initial_share", "memory"):
            require(self, name, lambda v: 0 < v <= 1, "in (0, 1]")
        for name in ("shrink", "shrink_end", "momentum", "decay"):
            require(self, name, lambda v: 0 <= v < 1, "in [0, 1)")
        require(self, "blur", lambda v: v >= 1 and v % 2 == 1, "an odd number of pixels")


class GSEState(NamedTuple):
    r: Array  # [*S] the point to ask, as a perturbation
    mean: Array  # [*S] ḡ, the slow mean of the gradients
    velocity: Array  # [*S] m, their fast mean
    opened: Array  # [H, W] bool, V
    pixels: Array  # [] n, a real number of open pixels
    aim: Array  # [] logits beyond the boundary
    count: Array  # [] int32, points asked
    age: Array  # [] int32, points asked from the first success on, that one included
    best: Best  # scored by d_{2,0}, ties by ‖r‖_2
    status: Array  # [] int32, PENDING until decided


def _init(ctx: Context, problem: Problem, config: GSE) -> GSEState:
    need_image(problem, "GSE")
    zero, opened = jnp.zeros_like(problem.x), jnp.zeros(problem.x.shape[:2], bool)
    pixels = jnp.asarray(config.initial_share * opened.size, zero.dtype)
    return GSEState(
        r=zero, mean=zero, velocity=zero, opened=opened, pixels=pixels, aim=jnp.zeros_like(pixels),
        count=jnp.int32(0), age=jnp.int32(0), best=nothing(problem, ties=True), status=jnp.int32(Status.PENDING),
    )  # fmt: skip


def _ask(ctx: Context, problem: Problem, config: GSE, state: GSEState) -> Array:
    return to_data(problem, state.r, SIGNED)


def _loss(ctx: Context, problem: Problem, config: GSE, state: GSEState, point: Array, logits: Array) -> Array:
    """The gap, not the margin: its gradient also says how to stay in the wanted class."""
    return losses.gap(logits, problem.label, problem.target)


def open_pixels(potential: Array, opened: Array, pixels: Array, config: GSE) -> Array:
    """V: the ``pixels`` pixels of the largest blurred potential. [H, W], [H, W] bool, [] -> [H, W] bool.

    At least one pixel (if any has a potential); pixels that tie for the last place come in or stay out together.
    """
    score = windows.gaussian_blur(potential * (1 + config.keep * opened), config.blur, config.blur_sigma)
    score = jnp.where(potential > 0, score, jnp.zeros_like(score))  # masked pixels and those at their side stay out
    # Bisection of the value of the n-th largest: a sort costs thirty times as much on a CPU.
    top = jnp.max(score)
    floor = prox.bisect(lambda level: jnp.sum(score >= level, dtype=pixels.dtype) > pixels, jnp.zeros_like(top), top)
    floor = jnp.minimum(floor * (1 + 4 * jnp.finfo(score.dtype).eps), top)  # the middle may have rounded down
    return (score >= floor) & (score > 0)


def step_length(
    g: Array, r: Array, goal: Array, base: Array, direction: Array, room: tuple[Array, Array], cap: Array
) -> Array:
    """The least t in [0, cap] with ``g·(clip(base − t direction) − r) <= goal``, by Newton steps; cap if there is none.

    All [*S] but the scalars goal and cap. The slope counts the values that the box leaves free: those strictly inside,
    and those at a side from which they move inwards, as every value of a black or white image does.
    """
    low, high = room
    t = jnp.zeros_like(cap)
    size = jnp.square(direction)
    for _ in range(_NEWTON_STEPS):
        u = base - t * direction
        excess = jnp.sum(g * (jnp.clip(u, low, high) - r)) - goal
        free = jnp.where(direction > 0, u > low, u < high)
        # A velocity across the gradient promises nothing: the floor keeps t finite and positive.
        along, floor = (jnp.sum(jnp.where(free, v, jnp.zeros_like(g))) for v in (g * direction, size))
        slope = jnp.maximum(along, 0.1 * floor)
        t = jnp.clip(t + safe_divide(excess, slope), 0, cap)
    return t


def _tell(ctx: Context, problem: Problem, config: GSE, state: GSEState, ev: Eval) -> GSEState:
    g, first = ev.grad * scale(problem, SIGNED), state.count == 0
    sides = room(problem, span=SIGNED)
    reached = losses.reached(ev.logits, problem.label, problem.target)
    d20 = windows.window_count(windows.changed(ev.point - problem.x), config.window).astype(g.dtype)
    best = state.best.offer(ev.point, d20, reached & ~first, safe_norm(state.r))
    found = best.found

    # The schedule, and the budget of pixels. Before the first success nothing is given back and nothing slows down:
    # how long a change must be is not known yet, and the schedule begins with the first success.
    done_share = jnp.minimum(state.age.astype(g.dtype) / config.steps, 1)
    falling = 0.5 * (1 + jnp.cos(jnp.pi * done_share))
    rate = config.shrink_end + (config.shrink - config.shrink_end) * falling
    longest = config.step_size_end + (config.step_size - config.step_size_end) * falling
    grown = state.pixels * (1 + config.regrow * jnp.where(found, rate, config.shrink))
    pixels = jnp.where(reached, state.pixels * (1 - rate), jnp.minimum(grown, state.opened.size))
    pixels = jnp.where(first, state.pixels, jnp.maximum(pixels, 1))

    # Which pixels.
    mean = jnp.where(first, g, state.mean + config.memory * (g - state.mean))
    ahead = jnp.where(mean > 0, -sides[0], sides[1])
    potential = jnp.sum(jnp.abs(mean) * ahead, axis=-1)
    opened = open_pixels(potential, state.opened, pixels, config)

    # Where to.
    velocity = jnp.where(first, g, g + config.momentum * (state.velocity - g))
    inside = opened[..., None]
    base = jnp.where(inside, jnp.where(found, 1 - config.decay, 1) * state.r, jnp.zeros_like(g))
    direction = jnp.where(inside, velocity, jnp.zeros_like(g))
    cap = safe_divide(jnp.where(found, longest, config.step_size), safe_norm(direction))
    across = SIGNED * jnp.sum(jnp.abs(g))
    aim = jnp.where(first, config.aim * jnp.maximum(1, across / MOST_ACROSS), state.aim)
    t = step_length(g, state.r, -ev.value - aim, base, direction, sides, cap)
    r = jnp.clip(base - t * direction, *sides)

    count, age = state.count + 1, state.age + found.astype(jnp.int32)
    spent = (age >= config.steps) | (count >= config.patience * config.steps)
    status = best.status(first & reached, spent)
    return GSEState(r, mean, velocity, opened, pixels, aim.astype(g.dtype), count, age, best, status)


GSE.method = Method("gse", _init, _ask, _loss, _tell)
