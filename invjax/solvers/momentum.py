"""One momentum for every accelerated solver: the β sequence, the look-ahead point, adaptive restart.

With iterates r_t and β_0 = 1,

    β_{t+1} = (1 + √(1 + 4 β_t²)) / 2                                    (1)
    z_{t+1} = r_{t+1} + μ_{t+1} (r_{t+1} − r_t),   μ_{t+1} = (β_t − 1) / β_{t+1}      (2)

(Beck & Teboulle 2009, eq. 4.2 and 4.3; the first extrapolation weight is 0.) The weight is a function of
(β_t, β_{t+1}). So the averaging of the released GSE code, which accelerates nothing, is the same step with another
weight.

A solver is a :class:`Solver`, pure functions of one example in ask–tell form: the caller evaluates the gradient at
``ask(state)`` and hands it to ``tell``. Nothing here calls the objective.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, NamedTuple, get_args

import jax.numpy as jnp

from invjax.core.errors import BadArgument, unknown_name
from invjax.types import Array, ArrayLike

Restart = Literal["none", "gradient", "function"]
Weighting = Callable[[Array, Array], Array]  # (β_t, β_{t+1}) -> μ_{t+1}, all []
Prox = Callable[[Array, Array], Array]  # (v [*S], step_size []) -> argmin_u ½‖u − v‖² + step_size · g(u)


class State(NamedTuple):
    """A solver's state for one example. All solvers share it, so a method may switch from one to another."""

    x: Array  # [*S] r_t, the last iterate: a prox output, so exactly sparse and feasible where the prox is
    velocity: Array  # [*S] r_t − r_{t−1}
    weight: Array  # [] μ_t, the extrapolation weight of the next asked point
    beta: Array  # [] β_t
    value: Array  # [] objective at x if it was told, else +inf (only ever compared)


OF_PROPOSE = ("prox", "project", "support", "momentum")  # the keywords of :meth:`Solver.tell` that ``propose`` takes


class Solver(NamedTuple):
    """One algorithm in ask–tell form.

    * ``init(x0) -> State``
    * ``ask(state) -> [*S]``: where the gradient is wanted.
    * ``propose(state, grad, step_size, ...) -> [*S]``: the next iterate, unless a line search or a restart objects.
    * ``accept(state, candidate, ...) -> State``: take it.
    * ``tell(state, grad, step_size, ...) -> State``: propose and accept at once.
    """

    name: str
    init: Callable[[Array], State]
    ask: Callable[[State], Array]
    propose: Callable[..., Array]
    accept: Callable[..., State]

    def tell(
        self, state: State, grad: Array, step_size: ArrayLike, *args: Any, point: Array | None = None, **how: Any
    ) -> State:
        """``accept(state, propose(state, grad, step_size, ...), ...)``: one iteration.

        args, how: further arguments of ``propose``, and keywords of ``accept`` (restart, value, weighting). point: [*S]
        where the gradient was taken, if that was not ``ask(state)`` (clipped to a box, say).
        """
        own = {name: how.pop(name) for name in OF_PROPOSE if name in how}
        candidate = self.propose(state, grad, step_size, *args, point=point, **own)
        return self.accept(state, candidate, point=point, **how)


def init(x0: Array) -> State:
    """The state at rest: r_0 = x0, no velocity, β_0 = 1. x0: [*S], a floating dtype that everything follows."""
    x0 = jnp.asarray(x0)
    if not jnp.issubdtype(x0.dtype, jnp.floating):
        raise BadArgument("x0", "have a floating dtype", x0.dtype)
    # The explicit dtype also drops a weak type, which could not be carried through a loop.
    return State(
        x=jnp.asarray(x0, x0.dtype),
        velocity=jnp.zeros_like(x0),
        weight=jnp.zeros((), x0.dtype),
        beta=jnp.ones((), x0.dtype),
        value=jnp.full((), jnp.inf, x0.dtype),
    )


def next_beta(beta: Array) -> Array:
    """β_{t+1} of (1)."""
    return (1.0 + jnp.sqrt(1.0 + 4.0 * jnp.square(beta))) / 2.0


def extrapolation(beta: Array, beta_next: Array) -> Array:
    """μ = (β_t − 1) / β_{t+1}, in [0, 1): the acceleration of (2)."""
    return (beta - 1.0) / beta_next


def averaging(beta: Array, beta_next: Array) -> Array:
    """μ = β_t / β_{t+1} − 1, in (−1, 0): the released GSE code.

    It asks ``(β_t/β_{t+1}) r_{t+1} + (1 − β_t/β_{t+1}) r_t``, a convex average of two iterates, which is
    ``r_{t+1} + μ (r_{t+1} − r_t)`` with this negative weight.
    """
    return beta / beta_next - 1.0


def current(state: State) -> Array:
    """The iterate itself, which a solver without look-ahead asks. [*S]"""
    return state.x


def look_ahead(state: State) -> Array:
    """z_t = r_t + μ_t (r_t − r_{t−1}) of (2). [*S]"""
    return state.x + state.weight * state.velocity


def check_restart(restart: str) -> None:
    """Raise ValueError unless ``restart`` is one of the schemes."""
    if restart not in get_args(Restart):
        raise unknown_name("restart", restart, get_args(Restart))


def accept(
    state: State,
    candidate: Array,
    *,
    point: Array | None = None,
    restart: Restart = "none",
    value: ArrayLike | None = None,
    weighting: Weighting = extrapolation,
) -> State:
    """Take ``candidate`` as r_{t+1} and move the momentum on, or restart it.

    Adaptive restart (O'Donoghue & Candès 2015, section 3.2) sets β back to 1 and the velocity to 0:

    * ``"gradient"`` when ``⟨z_t − r_{t+1}, r_{t+1} − r_t⟩ > 0``: the step just taken points against the movement.
      The candidate is kept. Costs nothing.
    * ``"function"`` when ``F(r_{t+1}) > F(r_t)`` by more than rounding. Deviation from the paper: the candidate is then
      refused and r_t kept, so the objective never increases while a plain step (no extrapolation) does not increase
      it, as with a step size ≤ 1/L or back-tracking. A plain step is always taken, whatever its value, so the iteration
      cannot be stuck. A NaN counts as an increase.

    Args:
      state: the state that was asked.
      candidate: [*S] from ``propose``.
      point: [*S] where the gradient was taken, if that was not ``look_ahead(state)`` (clipped to a box, say).
      restart: the scheme; static.
      value: [] the objective h + g at the candidate; needed by ``"function"``, recorded if given.
      weighting: ``extrapolation`` or ``averaging``; static.

    Raises:
      ValueError: an unknown ``restart``; ``"function"`` without ``value``.
    """
    check_restart(restart)
    if restart == "function" and value is None:
        raise BadArgument("value", "be the objective at the candidate when restart is 'function'", None)
    dtype = state.x.dtype
    velocity = candidate - state.x
    beta = next_beta(state.beta)
    weight = weighting(state.beta, beta)
    told = jnp.full((), jnp.inf, dtype) if value is None else jnp.asarray(value, dtype)
    moved = State(candidate, velocity, weight, beta, told)
    if restart == "none":
        return moved
    if restart == "gradient":
        at = look_ahead(state) if point is None else point
        again = jnp.sum((at - candidate) * velocity) > 0
        x, kept = candidate, told
    else:
        # The first two steps after a start are plain ones (μ = 0); β_1 = 1.618 and β_2 = 2.19 lie either side of 2.
        # Without the rounding, noise in the values near the optimum would stop every acceleration there.
        rounding = 4.0 * jnp.finfo(dtype).eps * jnp.abs(state.value)
        again = (state.beta >= 2.0) & ~(told <= state.value + rounding)
        x, kept = jnp.where(again, state.x, candidate), jnp.where(again, state.value, told)
    return State(
        x=x,
        velocity=jnp.where(again, jnp.zeros_like(velocity), velocity),
        weight=jnp.where(again, jnp.zeros_like(weight), weight),
        beta=jnp.where(again, jnp.ones_like(beta), beta),
        value=kept,
    )


def replace(state: State, candidate: Array, *, point: Array | None = None, value: ArrayLike | None = None) -> State:
    """Take ``candidate`` without touching β: the ``accept`` of solvers with a constant momentum or none.

    point: has no effect here. value: [] the objective at the candidate, recorded if given.
    """
    del point
    told = jnp.full_like(state.value, jnp.inf) if value is None else jnp.asarray(value, state.value.dtype)
    return state._replace(x=candidate, velocity=candidate - state.x, value=told)
