"""``minimize``: a composite problem solved to a tolerance, for people who never attack anything.

    min_x h(x) + g(x)        h differentiable, g with a proximal map (0 if not given)        (1)

It drives the ask–tell solvers of this folder with ``jax.value_and_grad`` in one ``lax.while_loop``; there is no second
implementation of any step.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Literal, NamedTuple, Protocol, get_args

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.core import Tracer

from invjax.core.arguments import kinds_checked
from invjax.core.config import refuse_old_names
from invjax.core.errors import BadArgument, Words, check_number, check_whole, of_shape, unknown_name
from invjax.core.numerics import select
from invjax.core.shown import short_repr
from invjax.solvers import linesearch
from invjax.solvers.momentum import Prox, Restart, Solver, State, check_restart
from invjax.solvers.nesterov import gd, nag, pnag, within
from invjax.solvers.proximal import fista, forward_backward, gradient_mapping, identity, prox_grad
from invjax.types import Array, ArrayLike

Name = Literal["fista", "prox_grad", "nag", "pnag", "gd"]
ACCELERATED = ("fista", "nag", "pnag")
COMPOSITE = ("fista", "prox_grad")
MAX_TRIALS = 100  # where back-tracking gives up: 0.5^100 of the first step is of no use


class Proximable(Protocol):
    """The non-smooth part g: any object with these two methods, such as the penalties of this library."""

    def value(self, u: Array) -> Array:
        """g(u), []."""
        ...

    def prox(self, v: Array, step_size: Array, /) -> Array:
        """``argmin_u ½‖u − v‖² + step_size · g(u)``, [*S]."""
        ...


class Solution(NamedTuple):
    """What :func:`minimize` found. Under vmap every field has a leading axis."""

    x: Array  # [*S] the last iterate
    value: Array  # [] h(x) + g(x)
    steps: Array  # [] int32 steps taken
    converged: Array  # [] bool, the tolerance was met within max_steps
    evaluations: Array  # [] int32 values-and-gradients of h
    forwards: Array  # [] int32 further values of h alone: line search, function restart, the final value

    __repr__ = short_repr


class _Run(NamedTuple):
    """What stays the same from step to step."""

    fun: Callable[[Array], Array]  # h, in the dtype of x0
    g: Proximable | None
    prox: Prox
    solver: Solver
    restart: Restart
    support: Array | None
    search: bool  # whether the step size is searched
    shrink: ArrayLike
    tol: Array  # []

    def objective(self, x: Array, value: Array) -> Array:
        """h + g at x, where h is ``value``."""
        return value if self.g is None else value + jnp.asarray(self.g.value(x), value.dtype)

    def evaluate(self, x: Array) -> tuple[Array, Array]:
        """h and its gradient, zero where x may not move."""
        value, grad = jax.value_and_grad(self.fun)(x)
        return value, within(self.support, grad)


class _Loop(NamedTuple):
    state: State
    step_size: Array  # [] σ
    scale: Array  # [] max(1, ‖G(x_0)‖), what the tolerance is relative to
    steps: Array  # [] int32
    forwards: Array  # [] int32
    converged: Array  # [] bool
    broken: Array  # [] bool: NaN or infinity met, or no step accepted


def _check_numbers(numbers: dict[str, ArrayLike | None]) -> None:
    """Each is a number in its range; of a traced one the shape alone can be looked at."""
    for name, number in numbers.items():
        if number is not None and np.shape(number):
            raise BadArgument(name, "be a number", of_shape(np.shape(number)))
        if number is None or isinstance(number, Tracer):
            continue
        if name == "max_steps":
            check_whole(name, np.asarray(number).item() if hasattr(number, "dtype") else number)
        else:
            check_number(name, number, *_RANGES[name])


_RANGES: dict[str, tuple[Callable[[float], bool], str]] = {
    "step_size": (lambda v: v > 0, "a number > 0"),
    "tol": (lambda v: v >= 0, "a number >= 0"),
    "momentum": (lambda v: 0 <= v < 1, "a number in [0, 1)"),
    "shrink": (lambda v: 0 < v < 1, "a number in (0, 1)"),
}


def _check(
    x0: Array,
    g: Proximable | None,
    solver: str,
    step_size: ArrayLike | None,
    backtracking: bool | None,
    restart: str | None,
    support: ArrayLike | None,
) -> None:
    if solver not in get_args(Name):
        raise unknown_name("solver", solver, get_args(Name))
    if not jnp.issubdtype(x0.dtype, jnp.floating):
        raise BadArgument("x0", "have a floating dtype", x0.dtype, hint="give x0.astype(float)")
    if not isinstance(x0, Tracer) and not np.isfinite(np.asarray(x0)).all():
        raise BadArgument("x0", "be finite")
    if g is not None and solver not in COMPOSITE:
        raise BadArgument("g", f"be None for solver {solver!r} ({' and '.join(COMPOSITE)} take one)", g)
    if g is not None and not (callable(getattr(g, "value", None)) and callable(getattr(g, "prox", None))):
        raise BadArgument("g", "have the methods value(u) and prox(v, step_size)", g)
    if restart is not None:
        check_restart(restart)
        if restart != "none" and solver not in ACCELERATED:
            raise BadArgument("restart", f"be 'none' for solver {solver!r}, which has nothing to restart", restart)
    if step_size is None and backtracking is False:
        raise BadArgument("step_size", "be given when backtracking is False", None)
    if (support is not None) != (solver == "pnag"):
        raise BadArgument(
            "support", "be given for solver 'pnag' and for no other", Words(f"{type(support).__name__} for {solver!r}")
        )
    if support is not None:
        mask = jnp.asarray(support)
        try:
            fits = np.broadcast_shapes(mask.shape, x0.shape) == x0.shape
        except ValueError:
            fits = False
        if mask.dtype != jnp.bool_ or not fits:
            raise BadArgument(
                "support", f"be bool and broadcastable to x0, {x0.shape}", Words(f"{mask.dtype}, {mask.shape}")
            )


def _bind(name: str, prox: Prox, support: Array | None, momentum: ArrayLike) -> Solver:
    """The solver with its own arguments filled in: ``propose(state, grad, step_size)``."""
    if name in COMPOSITE:
        solver = fista if name == "fista" else prox_grad
        return solver._replace(propose=partial(solver.propose, prox=prox))
    if name == "pnag":
        return pnag._replace(propose=partial(pnag.propose, support=support))
    if name == "gd":
        return gd._replace(propose=partial(gd.propose, momentum=momentum))
    return nag


_Search = tuple[linesearch.Backtrack, Array, Array]  # the search, the point tried last, h there


def _line_search(run: _Run, loop: _Loop, point: Array, value: Array, grad: Array) -> tuple[Array, Array, Array, Array]:
    """Back-tracking from ``point``: the step size σ, r(σ), h there (NaN where no size passes), and the trials."""

    def unfinished(carry: _Search) -> Array:
        return ~carry[0].accepted & (carry[0].trials < MAX_TRIALS)

    def attempt(carry: _Search) -> _Search:
        search = carry[0]
        trial = linesearch.probe(search, point, grad, run.prox, shrink=run.shrink)[0]
        there = run.fun(trial)
        told = linesearch.tell(search, point, value, grad, trial[None], there[None], shrink=run.shrink)
        return told, trial, there

    # Under vmap a finished lane asks for nothing, so that the others need not wait for it.
    finished = loop.converged | loop.broken | ~jnp.isfinite(value)
    first = linesearch.start(loop.step_size)._replace(accepted=finished)
    search, trial, there = lax.while_loop(unfinished, attempt, (first, point, value))
    return search.step_size, trial, jnp.where(search.accepted, there, jnp.full_like(there, jnp.nan)), search.trials


def _step(run: _Run, loop: _Loop) -> _Loop:
    point = run.solver.ask(loop.state)
    value, grad = run.evaluate(point)
    forwards, size = loop.forwards, loop.step_size
    if run.search:
        size, trial, there, trials = _line_search(run, loop, point, value, grad)
        forwards = forwards + trials
    else:
        trial, there = forward_backward(point, grad, size, run.prox), value
    candidate = run.solver.propose(loop.state, grad, size)
    if run.restart == "none":
        state = run.solver.accept(loop.state, candidate)
    else:
        told = None
        if run.restart == "function":
            if not run.search:  # for the accelerated solvers the candidate is the trial, whose value is known
                there, forwards = run.fun(candidate), forwards + 1
            told = run.objective(candidate, there)
        state = run.solver.accept(loop.state, candidate, restart=run.restart, value=told)
    residual = gradient_mapping(point, trial, size)
    scale = jnp.where(loop.steps == 0, jnp.maximum(jnp.ones_like(residual), residual), loop.scale)
    converged = residual <= run.tol * scale
    if run.solver.name == "gd":  # its velocity may carry it through the solution: end at the plain step
        state = state._replace(x=jnp.where(converged, trial, state.x))
    sound = jnp.isfinite(value) & jnp.isfinite(there) & jnp.all(jnp.isfinite(candidate))
    return _Loop(
        state=select(sound, state, loop.state),
        step_size=jnp.where(sound, size, loop.step_size),
        scale=scale,
        steps=loop.steps + 1,
        forwards=forwards,
        converged=sound & converged,
        broken=~sound,
    )


@kinds_checked
@refuse_old_names({"step": "step_size", "iterations": "max_steps"})
def minimize(
    fun: Callable[[Array], Array],
    x0: ArrayLike,
    *,
    g: Proximable | None = None,
    solver: Name = "fista",
    step_size: ArrayLike | None = None,
    backtracking: bool | None = None,
    restart: Restart | None = None,
    tol: ArrayLike = 1e-5,
    max_steps: ArrayLike = 1000,
    support: ArrayLike | None = None,
    momentum: ArrayLike = 0.9,
    shrink: ArrayLike = 0.5,
) -> Solution:
    """Minimise ``fun(x) + g(x)`` from ``x0``.

    Stops when the gradient mapping ``G(z) = (z − prox_{σ g}(z − σ ∇h(z))) / σ`` at the asked point z, which is the
    gradient where g = 0, satisfies ``‖G(z)‖_2 ≤ tol · max(1, ‖G(x_0)‖_2)``.

    Runs under ``jit``, ``vmap`` and in any loop of the caller's. It is not compiled by itself: wrap it in ``jax.jit``,
    with the data ``fun`` needs as arguments of the jitted function, to compile once for many calls. Reverse-mode
    derivatives do not pass through it.

    Args:
      fun: h, [*S] -> [].
      x0: [*S] start; everything is computed in its floating dtype.
      g: an object with ``value(u)`` and ``prox(v, step_size)``, for solvers ``"fista"`` and ``"prox_grad"``.
      solver: ``"fista"``, ``"prox_grad"``, ``"nag"``, ``"pnag"`` (moves within ``support`` alone) or ``"gd"`` (with
        ``momentum``).
      step_size: [] σ > 0. Without back-tracking, at most 1/L guarantees convergence in the convex case. With
        back-tracking it is the first size tried, and None derives one from the curvature at x0.
      backtracking: shorten the step until the quadratic upper bound holds; by default exactly when ``step_size`` is
        None. For ``"gd"`` the bound is that of a plain gradient step.
      restart: ``"none"``, ``"gradient"`` (the default) or ``"function"``, of the accelerated solvers. ``"function"``
        costs one more value of ``fun`` per step (none with back-tracking) and makes the objective non-increasing.
      tol: [] relative tolerance, >= 0; 0 takes all steps.
      max_steps: [] steps at most.
      support: [*S] or broadcastable, bool: the coordinates that ``"pnag"`` may change;
        the others keep their value in x0.
      momentum: [] in [0, 1), of ``"gd"``.
      shrink: [] in (0, 1), the factor of back-tracking.

    Returns:
      A :class:`Solution`. If a NaN or an infinity is met, ``x`` is the last iterate before it and ``converged`` False.

    Raises:
      ValueError: an unknown name, an argument the solver does not take or lacks, a shape or dtype that does not fit.
    """
    start = jnp.asarray(x0)
    numbers = {"step_size": step_size, "max_steps": max_steps, "tol": tol, "momentum": momentum, "shrink": shrink}
    _check_numbers(numbers)
    _check(start, g, solver, step_size, backtracking, restart, support)
    dtype = start.dtype
    prox: Prox = identity if g is None else g.prox
    mask = None if support is None else jnp.asarray(support)
    run = _Run(
        fun=lambda x: jnp.asarray(fun(x), dtype),
        g=g,
        prox=prox,
        solver=_bind(solver, prox, mask, momentum),
        restart=restart or ("gradient" if solver in ACCELERATED else "none"),
        support=mask,
        search=step_size is None if backtracking is None else backtracking,
        shrink=shrink,
        tol=jnp.asarray(tol, dtype),
    )
    state, limit = run.solver.init(start), jnp.asarray(max_steps, jnp.int32)
    zero, no, extra = jnp.zeros((), jnp.int32), jnp.zeros((), bool), 0
    if step_size is None:
        # Two gradients; the loop asks the one at x0 again, so that its first step is like any other.
        first = linesearch.first_step(lambda x: run.evaluate(x)[1], state.x, run.evaluate(state.x)[1])
        extra = 2
    else:
        first = jnp.asarray(step_size, dtype)
    loop = lax.while_loop(
        lambda loop: ~loop.converged & ~loop.broken & (loop.steps < limit),
        partial(_step, run),
        _Loop(state, first, jnp.ones((), dtype), zero, zero, no, no),
    )
    x = loop.state.x
    return Solution(
        x=x,
        value=run.objective(x, run.fun(x)),
        steps=loop.steps,
        converged=loop.converged,
        evaluations=loop.steps + extra,
        forwards=loop.forwards + 1,
    )
