"""What the engine's loop adds to the network: ``gse-torch --profile``.

At each batch the same gradients are asked in four ways, in turn: by one compiled call, with and without the engine's
remedy for convolutions; by a compiled loop that does nothing else; and by the engine's loop with a method in it. Where
torch is at hand its gradients join the turns.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.common import in_turn
from benchmarks.peers.environments import Skipped
from benchmarks.peers.torch_network import LAYOUTS
from benchmarks.peers.worker import Worker
from invjax import losses
from invjax.engine import install_canonical_convolutions, prepare, uninstall_canonical_convolutions, white_box
from invjax.engine.lanes import Lanes, advance, start
from invjax.types import Array, Config, Context, LogitsFn, Method, Problem

STEPS = 16  # gradients in a turn: few enough that no example of an attack has ended
XLA, REMEDY, LOOP, ENGINE = "XLA, one call", "one call with the remedy", "a bare loop", "the engine's loop"


def _gradient(logits: LogitsFn, x: Array, label: Array, target: Array) -> tuple[Array, Array]:
    def total(x: Array) -> tuple[Array, Array]:
        values = jax.vmap(losses.gap)(logits(x), label, target)
        return values.sum(), values

    grad, values = jax.grad(total, has_aux=True)(x)
    return values, grad


def _bare_loop(logits: LogitsFn, x: Array, label: Array, target: Array) -> Array:
    def body(_: int, point: Array) -> Array:
        return jnp.clip(point - 1e-3 * _gradient(logits, point, label, target)[1], 0, 1)

    return jax.lax.fori_loop(0, STEPS, body, x)


def _engine_loop(
    ctx: Context, problems: Problem, config: Config, lanes: Lanes, method: Method, steps: int
) -> tuple[Lanes, Array]:
    """As many iterations of all lanes, as a chunk of the queue makes them."""
    return advance(method, white_box, ctx, config, problems, lanes, jnp.int32(steps))


def _timed(call: Callable[..., Any], arguments: tuple, count: int) -> float:
    """Seconds of ``count`` calls, over the gradients that they ask for."""
    begin = time.perf_counter()
    for _ in range(count):
        jax.block_until_ready(call(*arguments))
    return (time.perf_counter() - begin) / STEPS


def sides(
    logits: LogitsFn, x: np.ndarray, label: np.ndarray, target: np.ndarray, method: Config
) -> dict[str, Callable[[], float]]:
    """The four ways by name, compiled: each returns seconds per batched gradient."""
    arguments = (logits, jnp.asarray(x), jnp.asarray(label), jnp.asarray(target))
    # A function of its own for each program, because what is compiled is remembered by function.
    uninstall_canonical_convolutions()
    plain = jax.jit(lambda *given: _gradient(*given)).lower(*arguments).compile()
    install_canonical_convolutions()
    once = jax.jit(lambda *given: _gradient(*given)).lower(*arguments).compile()
    loop = jax.jit(_bare_loop).lower(*arguments).compile()

    prepared = prepare(logits, x, label, target=target, method=method)
    ctx, problems, config = prepared.batch()
    begin = jax.jit(lambda ctx, problems, config: start(prepared.method, ctx, config, problems))
    lanes = jax.block_until_ready(begin(ctx, problems, config))
    run = jax.jit(partial(_engine_loop, method=prepared.method, steps=STEPS))
    engine = run.lower(ctx, problems, config, lanes).compile()
    ended, taken = engine(ctx, problems, config, lanes)
    assert int(taken) == STEPS, "every example ended before the turn did"
    del ended
    found = {
        XLA: partial(_timed, plain, arguments, STEPS),
        REMEDY: partial(_timed, once, arguments, STEPS),
        LOOP: partial(_timed, loop, arguments, 1),
        ENGINE: partial(_timed, engine, (ctx, problems, config, lanes), 1),
    }
    for call in found.values():
        call()
    return found


def torch_sides(worker: Worker, batch: int) -> dict[str, Callable[[], float]]:
    """Torch's gradients in both layouts by name, likewise."""

    def ask(layout: str) -> float:
        return worker.ask("gradients", layout=layout, batch=batch, calls=STEPS)["seconds"]

    found = {f"torch, {layout}": partial(ask, layout) for layout in LAYOUTS}
    for call in found.values():
        call()
    return found


def profile(
    logits: LogitsFn,
    x: np.ndarray,
    label: np.ndarray,
    target: np.ndarray,
    method: Config,
    *,
    batches: tuple[int, ...],
    repeat: int,
    worker: Worker | None,
) -> list[dict[str, Any]]:
    """A row for each batch: medians, ms per example, and the ratio of the engine's loop to XLA's own call.

    x: [N, H, W, C], repeated where a batch is longer. worker: ``torch_gradients``; None without torch.
    """
    rows = []
    for batch in batches:
        index = np.resize(np.arange(len(label)), batch)
        ways = sides(logits, x[index], label[index], target[index], method)
        if worker is not None:
            try:
                ways |= torch_sides(worker, batch)
            except Skipped as reason:
                print(f"torch is left out: {reason}")
        times = {name: 1e3 * statistics.median(taken) / batch for name, taken in in_turn(ways, repeat).items()}
        rows.append({"batch": batch, "ms": times, "loop/XLA": times[ENGINE] / times[XLA]})
        _print(rows[-1], first=len(rows) == 1)
    return rows


def _print(row: dict[str, Any], first: bool) -> None:
    if first:
        print("ms per example and gradient, medians")
        print("batch  " + "  ".join(row["ms"]) + "  loop/XLA")
    cells = (f"{value:{len(name)}.3f}" for name, value in row["ms"].items())
    print(f"{row['batch']:5d}  " + "  ".join(cells) + f"  {row['loop/XLA']:8.3f}", flush=True)
