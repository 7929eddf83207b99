"""Timing of counterfactual methods: warm calls, and the gradient that every step of S-CFE needs."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from benchmarks.counterfactuals.tasks import Task
from invjax import losses
from invjax.types import Array, Density, LogitsFn

LOOP = 50  # gradients in the compiled loop


class Took(NamedTuple):
    """Seconds of one call."""

    wall: float
    cpu: float  # summed over the threads of this process, so other processes hardly show in it


def timed(call: Callable[[], Any]) -> tuple[Any, Took]:
    """The answer of ``call``, once it is there, and the seconds it took."""
    wall, cpu = time.perf_counter(), time.process_time()
    answer = jax.block_until_ready(call())
    return answer, Took(time.perf_counter() - wall, time.process_time() - cpu)


def median(times: list[Took]) -> Took:
    """The median wall time and the median CPU time."""
    return Took(statistics.median(t.wall for t in times), statistics.median(t.cpu for t in times))


@jax.jit
def bare_gradient(
    model: LogitsFn, density: Density | None, u: Array, x: Array, label: Array, target: Array, tau: Array
) -> tuple[Array, Array]:
    """Value and gradient of h of B rows, the function that S-CFE descends, and nothing else.

        h(u) = gap(u, t) + ‖u − x‖² − τ log q(u, t)                                                              (1)

    density None leaves out the last term. u, x: [B, *S] -> ([B], [B, *S]).
    """

    def total(u: Array) -> tuple[Array, Array]:
        values = jax.vmap(losses.gap)(model(u), label, target)
        values = values + jnp.square(u - x).reshape(len(u), -1).sum(1)
        if density is not None:
            values = values - tau * jax.vmap(density.log_prob)(u, target)
        return values.sum(), values

    grad, values = jax.grad(total, has_aux=True)(u)
    return values, grad


@partial(jax.jit, static_argnames=("count",))
def gradient_loop(
    model: LogitsFn, density: Density | None, u: Array, x: Array, label: Array, target: Array, tau: Array, count: int
) -> Array:
    """``count`` gradients in one compiled loop, each at the point that the last one moved to, free of dispatch."""

    def body(_: Array, u: Array) -> Array:
        return u - 1e-4 * bare_gradient(model, density, u, x, label, target, tau)[1]

    return jax.lax.fori_loop(0, count, body, u)


class Gradient:
    """Times the gradient (1) on the rows of a task between the runs: on the same machine, under the same load."""

    def __init__(self, task: Task, density: Density | None, tau: float):
        x = jnp.asarray(task.x)
        # Away from x itself, where distances are a special case.
        self._arguments = (
            task.model, density, x + 1e-2, x, jnp.asarray(task.label), jnp.asarray(task.target),
            jnp.asarray(tau, x.dtype),
        )  # fmt: skip
        jax.block_until_ready(bare_gradient(*self._arguments))
        jax.block_until_ready(gradient_loop(*self._arguments, count=LOOP))
        self.calls: list[Took] = []
        self.loops: list[Took] = []

    def tick(self) -> None:
        """Time :data:`LOOP` calls, and as many gradients in the loop."""
        _, took = timed(lambda: [jax.block_until_ready(bare_gradient(*self._arguments)) for _ in range(LOOP)])
        self.calls.append(Took(took.wall / LOOP, took.cpu / LOOP))
        _, took = timed(lambda: gradient_loop(*self._arguments, count=LOOP))
        self.loops.append(Took(took.wall / LOOP, took.cpu / LOOP))
