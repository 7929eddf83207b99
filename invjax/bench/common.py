"""What every benchmark needs: timing, the machine, JSON, and a timed run of a list of pairs."""

from __future__ import annotations

import json
import platform
import statistics
import sys
import time
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from invjax import losses
from invjax.engine import Part, prepare, run_queue
from invjax.engine.folder import write_atomic
from invjax.engine.progress import progress_bar
from invjax.types import Array, Config, Result


def versions() -> dict[str, str]:
    """Versions of what the numbers depend on."""
    found = {"python": platform.python_version()}
    for name in ("invjax", "jax", "jaxlib", "flax", "numpy"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    return found


def device() -> str:
    """The device in words."""
    first = jax.devices()[0]
    return f"{first.platform}: {first.device_kind} x {len(jax.devices())}, {platform.machine()}"


def write_json(path: str | Path | None, record: dict[str, Any]) -> None:
    """The record, with versions and device, as a JSON file (whole or not at all); nothing for None."""
    if path is None:
        return
    record = {**record, "versions": versions(), "device": device(), "argv": sys.argv[1:]}
    try:
        write_atomic(Path(path), (json.dumps(record, indent=2, default=float) + "\n").encode())
    except OSError as error:
        raise ValueError(f"json must be a file that can be written, was {str(path)!r}: {error.strerror}") from error


def check_json(path: str | Path | None) -> None:
    """Refuse a JSON path before the long run, not after it."""
    if path is not None and not Path(path).absolute().parent.is_dir():
        raise ValueError(f"json must lie in an existing folder, was {str(path)!r}")


@jax.jit
def bare_gradient(logits: Callable[[Array], Array], x: Array, label: Array, target: Array) -> tuple[Array, Array]:
    """Value and gradient of the margin of B examples with respect to the input: the network and nothing else."""

    def total(x: Array) -> tuple[Array, Array]:
        values = jax.vmap(losses.gap)(logits(x), label, target)
        return values.sum(), values

    grad, values = jax.grad(total, has_aux=True)(x)
    return values, grad


class Clock:
    """Times of the bare gradient, taken between the chunks of a run: the same machine under the same load."""

    def __init__(self, logits: Any, x: Any, label: Any, target: Any, lanes: int):
        self.lanes = lanes
        rows = np.resize(np.arange(len(label)), lanes)
        other = np.full(lanes, -1) if target is None else np.asarray(target)[rows]
        self._arguments = (logits, jnp.asarray(x[rows]), jnp.asarray(label[rows]), jnp.asarray(other))
        jax.block_until_ready(bare_gradient(*self._arguments))
        self.times: list[float] = []
        self.spent = 0.0  # seconds the clock itself took

    def tick(self, repeat: int = 1) -> None:
        """Time ``repeat`` calls."""
        for _ in range(repeat):
            begin = time.perf_counter()
            jax.block_until_ready(bare_gradient(*self._arguments))
            self.times.append(time.perf_counter() - begin)
            self.spent += self.times[-1]

    @property
    def seconds(self) -> float:
        """Mean time of one batched call over the run (the run's own time is a sum, so: the mean)."""
        return statistics.fmean(self.times)


class Timed(NamedTuple):
    """A timed run."""

    result: Result
    compile_s: float  # first call: tracing, compilation and one iteration
    run_s: float  # wall time of the run, without the clock's own calls
    bare_s: float  # bare batched value-and-gradient at the same lanes
    steps: int  # batched evaluations of the run
    lanes: int  # examples worked on at once
    occupancy: float  # lane evaluations asked by unfinished lanes / lane evaluations issued

    @property
    def overhead(self) -> float:
        """Run time over the time of as many bare gradients."""
        return self.run_s / (self.steps * self.bare_s)


def timed_run(
    logits: Any, x: Any, label: Any, target: Any, *, method: Config, brief: Config, lanes: int, progress: bool | None
) -> Timed:
    """Run the list of pairs through the queue, compilation apart, with the bare gradient timed in between.

    brief: the same method with as few iterations as its numbers allow (they are traced: the programs are the same).
    x: [N, *S] of the pairs. lanes: B.
    """
    lanes = min(lanes, len(label))

    def run(config: Config, rows: slice, on_part: Callable[[Part], None] | None) -> Result:
        other = None if target is None else target[rows]
        ctx, problems, config, chosen, key, _ = prepare(logits, x[rows], label[rows], method=config, target=other)
        return run_queue(ctx, problems, config, method=chosen, key=key, lanes=lanes, on_part=on_part)

    begin = time.perf_counter()
    run(brief, slice(0, lanes + 1), None)  # one more than the lanes, so that refilling is compiled too
    compile_s = time.perf_counter() - begin

    clock = Clock(logits, x, label, target, lanes)
    clock.tick(3)
    last: list[Part] = []
    spent_before, begin = clock.spent, time.perf_counter()
    ticked = begin
    with progress_bar(progress, len(label)) as show:

        def on_part(part: Part) -> None:
            nonlocal ticked
            show(part)
            last[:] = [part]
            if time.perf_counter() - ticked > 2.0:  # a few per cent of the run at the most
                clock.tick()
                ticked = time.perf_counter()

        result = run(method, slice(None), on_part)
    run_s = time.perf_counter() - begin - (clock.spent - spent_before)
    clock.tick(3)
    useful = float((result.evaluations + result.forwards).sum())
    return Timed(result, compile_s, run_s, clock.seconds, last[0].steps, lanes, useful / last[0].issued)
