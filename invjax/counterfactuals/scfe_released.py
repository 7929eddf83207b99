"""S-CFE as its authors released it, errors included: the yardstick, not the method to use (that is S-CFE itself).

In coordinates scaled to the data's box, w = (x' − x) / s with s = upper − lower,

    min_w  ‖w‖₂² + γ L(x + s w) − τ log p_t(x + s w) + g(w),      x + s w in the box                              (12)

with g(w) = β‖w‖_p^p, p in {0, 1/2, 1}, or w with at most m entries. L is a hinge with margin κ: for two classes on the
probability, ``max(0, κ − y (2σ(Z_1 − Z_0) − 1))`` with y = ±1 the target's side, for more on the logits. Accelerated
proximal gradient descent (FISTA) without a safeguard takes a fixed number of steps from w = 0. γ is multiplied by ten
until a trial first succeeds, and bisected afterwards. Only the LAST proximal iterate of a trial is judged, and the
answer is the one of least ‖w‖₂ among those with the target.

Source: the formulas of Sadiku, Wagner et al., S-CFE (AISTATS 2025), as their code computes them; its errors are
reproduced where they change an answer (``docs/scfe_released.md`` lists them, and what is left out).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import field
from typing import Any, ClassVar, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from invjax import losses, projections, prox
from invjax.core.config import OPEN, STATIC, config, require, require_at_least
from invjax.core.errors import BadArgument, Words, check_shape
from invjax.core.numerics import select
from invjax.penalties import elementwise
from invjax.solvers import search
from invjax.solvers.best import Best, nothing
from invjax.types import UNTARGETED, Anchored, Array, ArrayLike, Context, Eval, Method, Outcome, Problem, Status


@config
class SCFEReleased:
    """The released code's constants; the defaults are those given for Boston Housing with a kernel density.

    Fields:
      gamma: weight of the classifier's loss in the first trial, scaled units squared per unit of loss, > 0.
      tau: weight of the log density, scaled units squared per nat, >= 0; without a density it has no effect.
      beta: weight of the penalty, scaled units squared (p = 0) per entry, >= 0; no effect with ``max_changes``.
      max_changes: m, the most entries that may change, >= 1, in place of the penalty; None: the penalty.
      steps: gradient steps of a trial, >= 1.
      trials: values of γ tried, >= 1.
      step_size: length of a trial's first step, > 0.
      kappa: margin of the hinge, in [0, 1) for two classes (difference of probabilities), else logit units.
      lower, upper: [] or [*S], data units, the box that sets the scale; None: the problem's own limits.
      range_lower, range_upper: [] or [*S], scaled units, the range of the scaled x'; [0, 1] by default. The released
        code's own default is the box in DATA units.
      penalty: "l0", "l_half" or "l1": p = 0, 1/2, 1 (static).
      schedule: "released", whose factor √(1 − i/N) accumulates over the steps, or "sqrt", the factor alone (static).

    The extrapolated points at which the gradient is taken may leave the box, but the engine clips whatever is asked to
    ``bounds``. To take the gradient where the released code does, give ``lower`` and ``upper`` here and wider bounds
    there. A row that fails returns the clean input, and one that begins in the target class ALREADY_TARGET.
    Evaluations per example: trials·(steps + 1).
    """

    gamma: float = 0.1
    tau: float = 10.0
    beta: float = 2.0
    max_changes: int | Array | None = None
    steps: int = 200
    trials: int = 10
    step_size: float = 0.5
    kappa: float = 0.0
    lower: float | ArrayLike | None = None
    upper: float | ArrayLike | None = None
    range_lower: float | ArrayLike = field(default=0.0, metadata=OPEN)
    range_upper: float | ArrayLike = field(default=1.0, metadata=OPEN)
    penalty: Literal["l0", "l_half", "l1"] = field(default="l0", metadata=STATIC)
    schedule: Literal["released", "sqrt"] = field(default="released", metadata=STATIC)

    RENAMED: ClassVar[Mapping[str, str]] = {"iterations": "steps", "step": "step_size", "p": "penalty"}
    method: ClassVar[Method]

    def check(self) -> None:
        for name in ("gamma", "step_size"):
            require(self, name, lambda v: 0 < v < np.inf, "a number > 0")
        for name in ("tau", "beta", "kappa"):
            require(self, name, lambda v: 0 <= v < np.inf, "a number >= 0")
        require_at_least(self, 1, "steps", "trials")
        require(self, "max_changes", lambda v: v is None or (v >= 1 and float(v).is_integer()), "None or at least 1")
        for name in ("lower", "upper"):
            require(self, name, lambda v: v is None or _numbers(v, np.isfinite), "None or finite numbers of float32")
        for name in ("range_lower", "range_upper"):
            require(self, name, lambda v: _numbers(v, lambda one: one == one), "numbers")
        for low, high in (("lower", "upper"), ("range_lower", "range_upper")):
            a, b = getattr(self, low), getattr(self, high)
            if a is not None and b is not None and not np.all(np.asarray(a) <= np.asarray(b)):
                raise BadArgument(f"SCFEReleased.{low}", f"be at most {high} everywhere", Words(f"{a!r} and {b!r}"))


def _numbers(value: Any, each: Callable[[np.ndarray], np.ndarray]) -> bool:
    """Whether these are real numbers which obey ``each`` in float32."""
    if isinstance(value, int) and abs(value) > _MOST:
        return False
    values = np.asarray(value)
    if values.dtype.kind not in "iuf" and values.dtype != jnp.bfloat16:
        return False
    with np.errstate(over="ignore"):
        return bool(each(values.astype(np.float32)).all())


_MOST = int(np.finfo(np.float32).max)


class SCFEReleasedState(NamedTuple):
    w: Array  # [*S] the extrapolated perturbation, scaled units; where the gradient is taken
    v: Array  # [*S] the last proximal iterate
    momentum: Array  # [] FISTA's t_k
    count: Array  # [] int32, steps taken in this trial; the last point asked is v itself
    step_size: Array  # [] the length of the last step
    gamma: search.Bracket  # the search for the smallest γ that succeeds
    pull: Array  # [*S] the fixed center of gravity, data units; zeros without one
    best: Best  # least ‖w‖₂ among the judged points with the target
    status: Array  # [] int32, PENDING until decided


def half_threshold(v: ArrayLike, w: ArrayLike, lower: ArrayLike, upper: ArrayLike) -> Array:
    """The released code's map of ``1/2 (u − v)² + w |u|^(1/2)`` in a box: it halves the weight, and clips afterwards.

    It calls the formula of Xu et al. (2012) for ``(u − v)² + λ |u|^(1/2)`` with λ = w instead of 2w. Clipping is not
    the map of the boxed problem either, whose threshold the box raises (:func:`invjax.prox.l_half`).
    """
    return projections.box(prox.l_half(v, jnp.asarray(w) / 2), lower, upper)


def step_factor(count: Array, steps: ArrayLike, dtype: Any) -> Array:
    """``√(1 − i/N)`` for i = 0 … N − 1, and 0 beyond: the intended length of step i over the first one."""
    left = 1 - jnp.asarray(count, dtype) / jnp.asarray(steps, dtype)
    return jnp.sqrt(jnp.maximum(left, jnp.zeros_like(left)))


def _scale(problem: Problem, config: SCFEReleased) -> tuple[Array, Array]:
    """Lower end and width of the scaling box, [*S]; width 1 for a constant feature."""
    x = problem.x
    low = prox.floats_like(x, problem.lower if config.lower is None else config.lower)
    high = prox.floats_like(x, problem.upper if config.upper is None else config.upper)
    return low, jnp.where(high > low, high - low, jnp.ones_like(x))


def _box(problem: Problem, config: SCFEReleased) -> tuple[Array, Array]:
    """What w may be, [*S]: it always holds 0, also where x lies outside the box."""
    low, scale = _scale(problem, config)
    start = (problem.x - low) / scale
    least = jnp.maximum(jnp.asarray(config.range_lower, start.dtype) - start, (problem.lower - problem.x) / scale)
    most = jnp.minimum(jnp.asarray(config.range_upper, start.dtype) - start, (problem.upper - problem.x) / scale)
    return jnp.minimum(least, jnp.zeros_like(least)), jnp.maximum(most, jnp.zeros_like(most))


def _prox(problem: Problem, config: SCFEReleased, v: Array, step_size: Array) -> Array:
    low, high = _box(problem, config)
    if config.max_changes is not None:
        return projections.top_m(v, config.max_changes, lower=low, upper=high)
    weight = step_size * jnp.asarray(config.beta, v.dtype)
    if config.penalty == "l_half":
        return half_threshold(v, weight, low, high)
    return elementwise(config.penalty).prox(v, weight, lower=low, upper=high)


def _hinge(logits: Array, label: Array, target: Array, kappa: ArrayLike) -> Array:
    """L of (12), []. Two classes: on σ, which in float32 is exactly 1, and without a slope, above a logit of 16.6."""
    if logits.shape[-1] == 2:
        wanted = jnp.where(target >= 0, target, 1 - label)
        side = jnp.where(wanted == 1, jnp.ones_like(logits[0]), -jnp.ones_like(logits[0]))
        value = kappa - side * (2 * jax.nn.sigmoid(logits[1] - logits[0]) - 1)
    else:
        value = losses.gap(logits, label, target) + kappa
    return jnp.where(value > 0, value, jnp.zeros_like(value))


def _init(ctx: Context, problem: Problem, config: SCFEReleased) -> SCFEReleasedState:
    x = problem.x
    for name in ("lower", "upper", "range_lower", "range_upper"):
        check_shape(f"SCFEReleased.{name}", getattr(config, name), x.shape)
    zero, one = jnp.zeros_like(x), jnp.ones((), x.dtype)
    pull = zero
    if isinstance(ctx.density, Anchored):
        # Untargeted with more than two classes: the first class that is not the label.
        other = jnp.where(problem.label == 0, 1, 0)
        pull = ctx.density.anchor(x, jnp.where(problem.target == UNTARGETED, other, problem.target)).astype(x.dtype)
    return SCFEReleasedState(
        w=zero,
        v=zero,
        momentum=one,
        count=jnp.int32(0),
        step_size=one * config.step_size,
        gamma=search.init(one * config.gamma),
        pull=pull,
        best=nothing(problem),
        status=jnp.int32(Status.PENDING),
    )


def _ask(ctx: Context, problem: Problem, config: SCFEReleased, state: SCFEReleasedState) -> Array:
    _, scale = _scale(problem, config)
    return problem.x + scale * jnp.where(state.count >= config.steps, state.v, state.w)


def _loss(
    ctx: Context, problem: Problem, config: SCFEReleased, state: SCFEReleasedState, point: Array, logits: Array
) -> Array:
    _, scale = _scale(problem, config)
    value = jnp.sum(jnp.square((point - problem.x) / scale))
    value = value + state.gamma.value * _hinge(logits, problem.label, problem.target, config.kappa)
    if isinstance(ctx.density, Anchored):
        value = value + config.tau * jnp.sum(jnp.square((point - state.pull) / scale))
    elif ctx.density is not None:
        aim = losses.wanted(jax.lax.stop_gradient(logits), problem.label, problem.target)
        value = value - config.tau * ctx.density.log_prob(point, aim)
    return value


def _tell(
    ctx: Context, problem: Problem, config: SCFEReleased, state: SCFEReleasedState, ev: Eval
) -> SCFEReleasedState:
    _, scale = _scale(problem, config)
    dtype, zero = problem.x.dtype, jnp.zeros_like(problem.x)
    first = (state.gamma.trials == 0) & (state.count == 0)
    judged = state.count >= config.steps

    # The judgement of a trial's last iterate.
    reached = losses.reached(ev.logits, problem.label, problem.target)
    success = judged & reached & (_hinge(ev.logits, problem.label, problem.target, config.kappa) <= 0)
    kept = success
    # The released code knows no constraints: a point that breaks them ends a trial, but is no answer.
    if ctx.constraints is not None:
        kept = success & ctx.constraints.satisfied(problem.x, ev.point)
    found = state.best.offer(ev.point, jnp.sum(jnp.square((ev.point - problem.x) / scale)), kept)
    gamma = select(judged, search.seek_smallest(state.gamma, success, growth=10.0, shrink=0.5), state.gamma)

    # The next step of a trial.
    factor = step_factor(state.count, config.steps, dtype)
    step_size = factor * (state.step_size if config.schedule == "released" else jnp.asarray(config.step_size, dtype))
    v = _prox(problem, config, state.w - step_size * scale * ev.grad, step_size)
    momentum = 0.5 * (1 + jnp.sqrt(1 + 4 * jnp.square(state.momentum)))
    w = v + (state.momentum - 1) / momentum * (v - state.v)

    def after(reset: Array | float, going: Array) -> Array:
        return jnp.where(judged, jnp.asarray(reset, going.dtype), going)

    spent = gamma.trials >= config.trials
    return SCFEReleasedState(
        w=after(zero, w),
        v=after(state.v, v),  # a new trial does not see it: its first momentum is 0
        momentum=after(1.0, momentum),
        count=after(0, state.count + 1),
        step_size=after(config.step_size, step_size),
        gamma=gamma,
        pull=state.pull,
        best=found,
        status=found.status(first & reached, spent),
    )


def _result(ctx: Context, problem: Problem, config: SCFEReleased, state: SCFEReleasedState) -> Outcome:
    _, scale = _scale(problem, config)
    return state.best.outcome(state.status, problem.x + scale * state.v)


SCFEReleased.method = Method("scfe-released", _init, _ask, _loss, _tell, result=_result)
