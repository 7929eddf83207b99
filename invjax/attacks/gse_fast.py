"""GSE at a tenth of the gradients: one descent that selects the pixels and shrinks the perturbation together.

The problem is that of :mod:`invjax.attacks.gse`,

    min_r  d_{2,0}(r)   over  x + r in the box and in the wanted class,  with ‖r‖_2 kept small,                    (7')

and so are its two parts: a map over the pixels that favours groups and opens a set V, and a descent of the
classifier's gap on the subspace V. The released code does one after the other, from r = 0, for each of ten λ, and most
of its gradients lie in trials that fail. Here every gradient serves both parts, and there are no trials: V shrinks
after each success and grows a little after each failure, as the radius does in FMN (Pintor et al., NeurIPS 2021).

One iteration, with g the gradient of the gap c at the asked r (r, g in [-1, 1] coordinates; n pixels are open):

1. Potential. ḡ ← (1 − ρ) ḡ + ρ g, and per pixel the first-order decrease of the gap that it can offer within the box,
   p = Σ_c |ḡ_c| room_c with room_c the way to the side of the box that −ḡ_c points to. The slow mean matters most: V
   must not follow each gradient, or r never arrives at the boundary of the class.
2. Groups. V = the n pixels of the largest blur(p · (1 + κ [pixel in V])). The blur makes one pixel speak for its
   neighbours, as the weights of phase I do; κ keeps what is open open.
3. Budget. n ← n (1 − s) if r had the wanted class, else n (1 + s · regrow); s falls on a cosine from shrink to
   shrink_end.
4. Step. m ← β m + (1 − β) g;  r ← clip((1 − α) r − t m) on V, 0 elsewhere. t is the least t >= 0 for which the linear
   model c + g·(r_new − r) reaches −aim, but the step is no longer than its cap. (1 − α) is the gradient step of ‖r‖²: r
   shrinks where the class allows it. The model also covers what closing pixels costs: no point is asked twice.

Of the iterates in the wanted class the one of least (d_{2,0}, ‖r‖_2) is kept. docs/gse_variants.md: what buys what.
"""

from __future__ import annotations

from dataclasses import field
from typing import ClassVar, NamedTuple

import jax.numpy as jnp

from invjax import losses, prox
from invjax.attacks.parts.coordinates import SIGNED, room, scale, to_data
from invjax.core import windows as images
from invjax.core.config import STATIC, config, require, require_choice
from invjax.core.errors import BadArgument, Words
from invjax.core.numerics import safe_divide, safe_norm
from invjax.types import Array, Context, Eval, Method, Outcome, Problem, Status

NEWTON_STEPS = 2  # to the step length: the model is piecewise linear in it, kinked where the box cuts in


@config
class GSEFastConfig:
    """Constants of ``GSE("fast")``. Units: [-1, 1] coordinates, pixels, logits; shares in [0, 1]."""

    iterations: int = 50  # value-and-gradients from the first success on
    trials: int = 5  # and trials x iterations in all, the clean input's included, at most
    start: float = 0.25  # share of the pixels open at first, in (0, 1]
    shrink: float = 0.3  # share of the open pixels closed after a success, at first
    shrink_end: float = 0.1  # and at the end
    regrow: float = 0.1  # what a failure opens, over what a success closes, >= 0
    memory: float = 0.05  # ρ: weight of the newest gradient in the mean that selects the pixels, in (0, 1]
    keep: float = 2.0  # κ: bonus of the open pixels, >= 0
    momentum: float = 0.4  # β, in [0, 1)
    decay: float = 0.05  # α: the share of r given back in each iteration, in [0, 1)
    step: float = 0.5  # longest step, l2, at first, > 0
    step_end: float = 0.2  # and at the end, > 0
    aim: float = 1.0  # how far beyond the boundary a step aims, logits, >= 0
    window: int = field(default=8, metadata=STATIC)  # side of the windows of d_{2,0}
    blur: int = field(default=9, metadata=STATIC)  # side of the Gaussian kernel, odd
    blur_sigma: float = field(default=2.5, metadata=STATIC)  # its standard deviation, pixels
    variant: str = field(default="fast", metadata=STATIC)

    method: ClassVar[Method]

    def check(self) -> None:
        for name in ("iterations", "trials", "window"):
            require(self, name, lambda v: v >= 1, "at least 1")
        for name in ("start", "memory"):
            require(self, name, lambda v: 0 < v <= 1, "in (0, 1]")
        for name in ("shrink", "shrink_end", "momentum", "decay"):
            require(self, name, lambda v: 0 <= v < 1, "in [0, 1)")
        for name in ("regrow", "keep", "aim"):
            require(self, name, lambda v: v >= 0, "at least 0")
        for name in ("step", "step_end", "blur_sigma"):
            require(self, name, lambda v: v > 0, "above 0")
        require(self, "blur", lambda v: v >= 1 and v % 2 == 1, "an odd number of pixels")
        require_choice(self, "variant", ("fast",))


class GSEFastState(NamedTuple):
    r: Array  # [*S] the point to ask, as a perturbation
    mean: Array  # [*S] ḡ, the slow mean of the gradients
    velocity: Array  # [*S] m, their fast mean
    opened: Array  # [H, W] bool, V
    pixels: Array  # [] n, a real number of open pixels
    k: Array  # [] int32, points asked
    age: Array  # [] int32, points asked from the first success on, that one included
    best: Array  # [*S] the best point with the wanted class, data units
    best_d20: Array  # [] its d_{2,0}; infinity if there is none
    best_norm: Array  # [] its ‖r‖_2; infinity if there is none
    status: Array  # [] int32, PENDING until decided


def _init(ctx: Context, problem: Problem, config: GSEFastConfig) -> GSEFastState:
    if problem.x.ndim != 3:
        raise BadArgument("x", "be images [N, H, W, C] for GSE", Words(f"examples of shape {problem.x.shape}"))
    zero, far = jnp.zeros_like(problem.x), jnp.full((), jnp.inf, problem.x.dtype)
    opened = jnp.zeros(problem.x.shape[:2], bool)
    pixels = jnp.asarray(config.start * opened.size, problem.x.dtype)
    return GSEFastState(
        r=zero, mean=zero, velocity=zero, opened=opened, pixels=pixels, k=jnp.int32(0), age=jnp.int32(0),
        best=problem.x, best_d20=far, best_norm=far, status=jnp.int32(Status.PENDING),
    )  # fmt: skip


def _ask(ctx: Context, problem: Problem, config: GSEFastConfig, state: GSEFastState) -> Array:
    return to_data(problem, state.r, SIGNED)


def _loss(
    ctx: Context, problem: Problem, config: GSEFastConfig, state: GSEFastState, point: Array, logits: Array
) -> Array:
    """The gap, not the margin: its gradient also says how to stay in the wanted class."""
    return losses.gap(logits, problem.label, problem.target)


def open_pixels(potential: Array, opened: Array, pixels: Array, config: GSEFastConfig) -> Array:
    """V: the ``pixels`` pixels of the largest blurred potential. [H, W], [H, W] bool, [] -> [H, W] bool.

    At least one pixel (if any has a potential); pixels that tie for the last place come in or stay out together.
    """
    score = images.gaussian_blur(potential * (1 + config.keep * opened), config.blur, config.blur_sigma)
    score = jnp.where(potential > 0, score, jnp.zeros_like(score))  # masked, or without a way to go
    # The place of the n-th largest by bisection of its value: a sort costs thirty times as much on a CPU.
    top = jnp.max(score)
    floor = prox.bisect(lambda level: jnp.sum(score >= level, dtype=pixels.dtype) > pixels, jnp.zeros_like(top), top)
    floor = jnp.minimum(floor * (1 + 4 * jnp.finfo(score.dtype).eps), top)  # the middle may have rounded down
    return (score >= floor) & (score > 0)


def step_length(
    g: Array, r: Array, goal: Array, base: Array, direction: Array, room: tuple[Array, Array], cap: Array
) -> Array:
    """The least t in [0, cap] with ``g·(clip(base − t direction) − r) <= goal``, by Newton steps; cap if there is none.

    All [*S] but the scalars goal and cap. The slope counts the values that the box has not caught yet.
    """
    low, high = room
    t = jnp.zeros_like(cap)
    size = jnp.square(direction)
    for _ in range(NEWTON_STEPS):
        u = base - t * direction
        excess = jnp.sum(g * (jnp.clip(u, low, high) - r)) - goal
        free = (u > low) & (u < high)
        # A velocity across the gradient promises nothing: the floor keeps t finite and positive.
        slope = jnp.maximum(
            jnp.sum(jnp.where(free, g * direction, jnp.zeros_like(g))),
            0.1 * jnp.sum(jnp.where(free, size, jnp.zeros_like(g))),
        )
        t = jnp.clip(t + safe_divide(excess, slope), 0, cap)
    return t


def _tell(ctx: Context, problem: Problem, config: GSEFastConfig, state: GSEFastState, ev: Eval) -> GSEFastState:
    g, first = ev.grad * scale(problem, SIGNED), state.k == 0
    sides = room(problem, span=SIGNED)
    reached = losses.reached(ev.logits, problem.label, problem.target)

    # Keep the best success.
    d20 = images.window_count(images.changed(ev.point - problem.x), config.window).astype(g.dtype)
    norm = safe_norm(state.r)
    better = (d20 < state.best_d20) | ((d20 == state.best_d20) & (norm < state.best_norm))
    better &= reached & ~first
    best_d20 = jnp.where(better, d20, state.best_d20)
    found = jnp.isfinite(best_d20)

    # The schedule, and the budget of pixels. Before the first success nothing is given back and nothing slows down:
    # how long a change must be is not known yet, and the schedule begins with the first success.
    done_share = jnp.minimum(state.age.astype(g.dtype) / config.iterations, 1)
    falling = 0.5 * (1 + jnp.cos(jnp.pi * done_share))
    rate = config.shrink_end + (config.shrink - config.shrink_end) * falling
    longest = jnp.where(found, config.step_end + (config.step - config.step_end) * falling, config.step)
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
    cap = safe_divide(longest, safe_norm(direction))
    t = step_length(g, state.r, -ev.value - config.aim, base, direction, sides, cap)
    r = jnp.clip(base - t * direction, *sides)

    k, age = state.k + 1, state.age + found.astype(jnp.int32)
    more = (age < config.iterations) & (k < config.trials * config.iterations)
    ended = jnp.where(found, Status.FOUND, Status.NOT_FOUND)
    status = jnp.where(first & reached, Status.ALREADY_TARGET, jnp.where(more, Status.PENDING, ended))
    return GSEFastState(
        r=r,
        mean=mean,
        velocity=velocity,
        opened=opened,
        pixels=pixels,
        k=k,
        age=age,
        best=jnp.where(better, ev.point, state.best),
        best_d20=best_d20,
        best_norm=jnp.where(better, norm, state.best_norm),
        status=status.astype(jnp.int32),
    )


def _result(ctx: Context, problem: Problem, config: GSEFastConfig, state: GSEFastState) -> Outcome:
    found = jnp.isfinite(state.best_d20)  # also where the network broke afterwards
    status = jnp.where(found, Status.FOUND, state.status)
    return Outcome(state.best, status, jnp.where(found, state.best, _ask(ctx, problem, config, state)))


GSEFastConfig.method = Method("gse-fast", _init, _ask, _loss, _tell, result=_result)
