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

from invjax.core.errors import BadArgument, Words
from invjax.core.numerics import select
from invjax.solvers import linesearch
from invjax.solvers.momentum import Prox, Restart, Solver, State, check_restart
from invjax.solvers.nesterov import gd, nag, pnag, within
from invjax.solvers.proximal import fista, forward_backward, gradient_mapping, identity, prox_grad
from invjax.types import Array, ArrayLike

Name = Literal["fista", "prox_grad", "nag", "pnag", "gd"]
ACCELERATED = ("fista", "nag", "pnag")
COMPOSITE = ("fista", "prox_grad")
MAX_TRIALS = 100  # back-tracking gives up there: 0.5^100 of the first step is below any use


class Proximable(Protocol):
    """The non-smooth part g: any object with these two methods, such as the penalties of this library."""

    def value(self, u: Array) -> Array:
        """g(u), []."""
        ...

    def prox(self, v: Array, step: Array) -> Array:
        """``argmin_u ½‖u − v‖² + step · g(u)``, [*S]."""
        ...


class Solution(NamedTuple):
    """What :func:`minimize` found. Under vmap every field has a leading axis."""

    x: Array  # [*S] the last iterate
    value: Array  # [] h(x) + g(x)
    steps: Array  # [] int32 iterations
    converged: Array  # [] bool, the tolerance was met within max_steps
    evaluations: Array  # [] int32 values-and-gradients of h
    forwards: Array  # [] int32 further values of h alone: line search, function restart, the final value


class _Loop(NamedTuple):
    state: State
    step: Array  # [] σ
    scale: Array  # [] max(1, ‖G(x_0)‖), what the tolerance is relative to
    steps: Array  # [] int32
    forwards: Array  # [] int32
    converged: Array  # [] bool
    broken: Array  # [] bool: NaN or infinity met, or no step accepted


def _check(
    x0: Array,
    g: Proximable | None,
    solver: str,
    step: ArrayLike | None,
    backtracking: bool | None,
    restart: str | None,
    max_steps: ArrayLike,
    support: ArrayLike | None,
) -> None:
    if solver not in get_args(Name):
        raise BadArgument("solver", f"be one of {', '.join(get_args(Name))}", solver)
    if not jnp.issubdtype(x0.dtype, jnp.floating):
        raise BadArgument("x0", "have a floating dtype", x0.dtype)
    if g is not None and solver not in COMPOSITE:
        raise BadArgument("g", f"be None for solver {solver!r} ({' and '.join(COMPOSITE)} take one)", g)
    if g is not None and not (callable(getattr(g, "value", None)) and callable(getattr(g, "prox", None))):
        raise BadArgument("g", "have the methods value(u) and prox(v, step)", g)
    if restart is not None:
        check_restart(restart)
        if restart != "none" and solver not in ACCELERATED:
            raise BadArgument("restart", f"be 'none' for solver {solver!r}, which has nothing to restart", restart)
    if step is None and backtracking is False:
        raise BadArgument("step", "be given when backtracking is False", Words("None"))
    for name, number in (("step", step), ("max_steps", max_steps)):
        # A traced number cannot be looked at; only host values are checked.
        if number is not None and not isinstance(number, Tracer) and not np.all(np.asarray(number) > 0):
            raise BadArgument(name, "be positive", Words(number))
    if (support is not None) != (solver == "pnag"):
        raise BadArgument(
            "support", "be given for solver 'pnag' and for no other", Words(f"{support!r} for {solver!r}")
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
    """The solver with what only it needs filled in: ``propose(state, grad, step)``."""
    if name in COMPOSITE:
        solver = fista if name == "fista" else prox_grad
        return solver._replace(propose=partial(solver.propose, prox=prox))
    if name == "pnag":
        return pnag._replace(propose=partial(pnag.propose, support=support))
    if name == "gd":
        return gd._replace(propose=partial(gd.propose, momentum=momentum))
    return nag


def minimize(
    fun: Callable[[Array], Array],
    x0: ArrayLike,
    *,
    g: Proximable | None = None,
    solver: Name = "fista",
    step: ArrayLike | None = None,
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
      x0: [*S] start; its floating dtype is the dtype of everything.
      g: an object with ``value(u)`` and ``prox(v, step)``, for solvers ``"fista"`` and ``"prox_grad"``.
      solver: ``"fista"``, ``"prox_grad"``, ``"nag"``, ``"pnag"`` (moves within ``support`` alone) or ``"gd"`` (with
        ``momentum``).
      step: [] σ > 0; at most 1/L guarantees convergence in the convex case without back-tracking. With back-tracking
        the first step tried; None: one is found from the curvature at x0.
      backtracking: shorten the step until the quadratic upper bound holds; None: exactly when ``step`` is None.
        For ``"gd"`` the bound is that of a plain gradient step.
      restart: ``"none"``, ``"gradient"`` or ``"function"`` for the accelerated solvers; None: ``"gradient"`` for
        them. ``"function"`` costs one more value of ``fun`` per step (none with back-tracking) and makes the
        objective non-increasing.
      tol: [] relative tolerance, > 0.
      max_steps: [] iterations at most.
      support: [*S] or broadcastable, bool: the coordinates ``"pnag"`` may change; the others keep their value in x0.
      momentum: [] in [0, 1), of ``"gd"``.
      shrink: [] in (0, 1), the factor of back-tracking.

    Returns:
      A :class:`Solution`. If a NaN or an infinity is met, ``x`` is the last iterate before it and ``converged`` False.

    Raises:
      ValueError: an unknown name, an argument the solver does not take or lacks, a shape or dtype that does not fit.
    """
    start = jnp.asarray(x0)
    _check(start, g, solver, step, backtracking, restart, max_steps, support)
    dtype = start.dtype
    prox: Prox = identity if g is None else g.prox
    scheme: Restart = restart or ("gradient" if solver in ACCELERATED else "none")
    mask = None if support is None else jnp.asarray(support)
    method = _bind(solver, prox, mask, momentum)
    search_steps = step is None if backtracking is None else backtracking
    tolerance, limit = jnp.asarray(tol, dtype), jnp.asarray(max_steps, jnp.int32)

    def smooth(x: Array) -> Array:
        return jnp.asarray(fun(x), dtype)

    def objective(x: Array, value: Array) -> Array:
        return value if g is None else value + jnp.asarray(g.value(x), dtype)

    def evaluate(x: Array) -> tuple[Array, Array]:
        value, grad = jax.value_and_grad(smooth)(x)
        return value, within(mask, grad)

    def line_search(loop: _Loop, point: Array, value: Array, grad: Array) -> tuple[Array, Array, Array, Array]:
        """-> step, r(step), h there, trials."""

        def unfinished(carry: tuple[linesearch.Backtrack, Array, Array]) -> Array:
            return ~carry[0].accepted & (carry[0].trials < MAX_TRIALS)

        def attempt(carry: tuple[linesearch.Backtrack, Array, Array]) -> tuple[linesearch.Backtrack, Array, Array]:
            search = carry[0]
            trial = linesearch.probe(search, point, grad, prox, shrink=shrink)[0]
            there = smooth(trial)
            told = linesearch.tell(search, point, value, grad, trial[None], there[None], shrink=shrink)
            return told, trial, there

        # Of a finished lane under vmap nothing is asked: it must not keep the others waiting.
        finished = loop.converged | loop.broken | ~jnp.isfinite(value)
        first = linesearch.start(loop.step)._replace(accepted=finished)
        search, trial, there = lax.while_loop(unfinished, attempt, (first, point, value))
        broken = ~search.accepted
        return search.step, trial, jnp.where(broken, jnp.full_like(there, jnp.nan), there), search.trials

    def body(loop: _Loop) -> _Loop:
        point = method.ask(loop.state)
        value, grad = evaluate(point)
        forwards, size = loop.forwards, loop.step
        if search_steps:
            size, trial, there, trials = line_search(loop, point, value, grad)
            forwards = forwards + trials
        else:
            trial, there = forward_backward(point, grad, size, prox), value
        candidate = method.propose(loop.state, grad, size)
        if scheme == "none":
            state = method.accept(loop.state, candidate)
        else:
            told = None
            if scheme == "function":
                if not search_steps:  # for the accelerated solvers the candidate is the trial, whose value is known
                    there, forwards = smooth(candidate), forwards + 1
                told = objective(candidate, there)
            state = method.accept(loop.state, candidate, restart=scheme, value=told)
        residual = gradient_mapping(point, trial, size)
        scale = jnp.where(loop.steps == 0, jnp.maximum(jnp.ones((), dtype), residual), loop.scale)
        converged = residual <= tolerance * scale
        if solver == "gd":  # its velocity may carry it straight through the solution: end at the plain step instead
            state = state._replace(x=jnp.where(converged, trial, state.x))
        sound = jnp.isfinite(value) & jnp.isfinite(there) & jnp.all(jnp.isfinite(candidate))
        return _Loop(
            state=select(sound, state, loop.state),
            step=jnp.where(sound, size, loop.step),
            scale=scale,
            steps=loop.steps + 1,
            forwards=forwards,
            converged=sound & converged,
            broken=~sound,
        )

    state, count = method.init(start), jnp.zeros((), jnp.int32)
    extra = 0
    if step is None:
        # Two gradients; the one at x0 is asked again by the loop, whose first iteration is then like any other.
        first = linesearch.first_step(lambda x: evaluate(x)[1], state.x, evaluate(state.x)[1])
        extra = 2
    else:
        first = jnp.asarray(step, dtype)
    loop = lax.while_loop(
        lambda loop: ~loop.converged & ~loop.broken & (loop.steps < limit),
        body,
        _Loop(state, first, jnp.ones((), dtype), count, count, jnp.zeros((), bool), jnp.zeros((), bool)),
    )
    x = loop.state.x
    return Solution(
        x=x,
        value=objective(x, smooth(x)),
        steps=loop.steps,
        converged=loop.converged,
        evaluations=loop.steps + extra,
        forwards=loop.forwards + 1,
    )
