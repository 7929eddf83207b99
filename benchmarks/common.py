"""What all benchmarks share: the machine in words, JSON records, and the timed run of a list of pairs."""

from __future__ import annotations

import dataclasses
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Collection, Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

import invjax
from invjax import losses
from invjax.core.errors import BadArgument
from invjax.core.files import check_folder, write_atomic
from invjax.core.meant import did_you_mean
from invjax.core.mixing import look
from invjax.engine import Part, Prepared, prepare, run_queue, run_shared, white_box
from invjax.engine.choosing import choose
from invjax.engine.confirm import asked_at_once
from invjax.engine.lanes import num_probes
from invjax.engine.programs import Programs
from invjax.engine.progress import progress_bar
from invjax.engine.queue import in_full_precision
from invjax.types import Array, Config, LogitsFn, Result, Status

T = TypeVar("T", bound=str)


def versions() -> dict[str, str]:
    """Versions of the packages that the numbers depend on."""
    found = {"python": platform.python_version()}
    for name in ("invjax", "jax", "jaxlib", "flax", "numpy"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:  # a checkout that is not installed knows its number itself
            found[name] = invjax.__version__ if name == "invjax" else "not installed"
    return found


def device() -> str:
    """The device in words."""
    first = jax.devices()[0]
    return f"{first.platform}: {first.device_kind} x {len(jax.devices())}, {platform.machine()}"


def threads() -> int:
    """The cores that this process may use: XLA takes all of them, and torch gets as many."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def note_load() -> float | None:
    """The machine's load, None where it is unknown; a busy machine gets a warning in print.

    torch's threads wait for each other in every operation: beside other work they were seen to be ten times slower.
    """
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    if load is not None and load > 0.5:
        print(f"the load of this machine is {load:.1f} already: ratios of times mean something only on an idle one")
    return load


def write_json(path: str | Path | None, record: dict[str, Any]) -> None:
    """Write the record, with versions, device and command line, to a JSON file; None writes nothing."""
    if path is None:
        return
    record = {**record, "versions": versions(), "device": device(), "argv": sys.argv[1:]}
    text = json.dumps(record, indent=2, default=float) + "\n"
    try:
        write_atomic(Path(path), text.encode())
    except OSError as error:
        print(text)  # what was measured is not lost
        raise BadArgument("json", "be a file that can be written", str(path), hint=error.strerror) from error


def check_json(path: str | Path | None) -> None:
    """Refuse a JSON path before the long run rather than after it."""
    if path is None:
        return
    if not Path(path).absolute().parent.is_dir():
        raise BadArgument("json", "lie in an existing folder", str(path))
    if Path(path).is_dir():
        raise BadArgument("json", "name a file", str(path))
    check_folder(Path(path).absolute().parent, "json")


def pick(option: str, text: str, known: Collection[T]) -> list[T]:
    """The names of a comma-separated list, each once, in the given order; "all" stands for every known name.

    Raises BadArgument, about ``option``, for an unknown name or none.
    """
    words: Any = known if text.strip() == "all" else [word.strip() for word in text.split(",") if word.strip()]
    if not words or not set(words) <= set(known):
        strange = next((word for word in words if word not in known), None)
        hint = did_you_mean(strange, known)
        raise BadArgument(option, f"be 'all' or some of {', '.join(known)}", text, hint=hint)
    return list(dict.fromkeys(words))


def in_turn(sides: Mapping[str, Callable[[], float]], repeat: int) -> dict[str, list[float]]:
    """What each side returns (its seconds), called in turn ``repeat`` times: a change of the load hits all of them.

    Every second round goes backwards, so that no side always follows the same other one.
    """
    times: dict[str, list[float]] = {name: [] for name in sides}
    for turn in range(repeat):
        for name in list(sides)[:: 1 if turn % 2 == 0 else -1]:
            times[name].append(sides[name]())
    return times


@jax.jit
def bare_gradient(logits: LogitsFn, x: Array, label: Array, target: Array) -> tuple[Array, Array]:
    """Value and input gradient of the margin of B examples: the network and nothing else."""

    def total(x: Array) -> tuple[Array, Array]:
        values = jax.vmap(losses.gap)(logits(x), label, target)
        return values.sum(), values

    grad, values = jax.grad(total, has_aux=True)(x)
    return values, grad


@jax.jit
def bare_forward(logits: LogitsFn, x: Array) -> Array:
    """The logits of B examples."""
    return logits(x)


class Clock:
    """Times the bare network before and after a run. While a run goes on, the device has no time to spare for it."""

    def __init__(self, logits: LogitsFn, x: np.ndarray, label: np.ndarray, target: np.ndarray | None, lanes: int):
        self.lanes = lanes
        rows = np.resize(np.arange(len(label)), lanes)
        other = np.full(lanes, -1) if target is None else np.asarray(target)[rows]
        self._x = jnp.asarray(x[rows])
        self._gradient = (logits, self._x, jnp.asarray(label[rows]), jnp.asarray(other))
        jax.block_until_ready((bare_gradient(*self._gradient), bare_forward(logits, self._x)))
        self.gradients: list[float] = []
        self.forwards: list[float] = []
        self.spent = 0.0  # seconds the clock itself took

    def tick(self, repeat: int = 1) -> None:
        """Time ``repeat`` calls of the gradient and as many of the forward pass."""
        for _ in range(repeat):
            for times, call, arguments in (
                (self.gradients, bare_gradient, self._gradient),
                (self.forwards, bare_forward, (self._gradient[0], self._x)),
            ):
                begin = time.perf_counter()
                jax.block_until_ready(call(*arguments))
                times.append(time.perf_counter() - begin)
                self.spent += times[-1]

    @property
    def gradient_s(self) -> float:
        """Mean, not median, time of a batched value-and-gradient: it is compared with the run's total."""
        return statistics.fmean(self.gradients)

    @property
    def forward_s(self) -> float:
        """Mean time of a batched forward pass."""
        return statistics.fmean(self.forwards)


def brief(config: Config) -> Config:
    """The same program with as few iterations as its numbers allow: it is run once to compile."""
    counts = ("steps", "queries", "generations", "trials", "restarts", "rounds", "patience")
    static = {field.name for field in dataclasses.fields(config) if field.metadata.get("static")}
    known = {field.name for field in dataclasses.fields(config)} - static
    return dataclasses.replace(config, **{name: 1 for name in counts if name in known})


class Timed(NamedTuple):
    """A timed run."""

    result: Result
    compile_s: float  # first call: tracing, compilation and one iteration
    run_s: float  # wall time of the run
    bare_s: float  # time of one bare batched value-and-gradient at the same lanes
    step_s: float  # time that the network alone needs for one iteration: its gradients and forward passes
    steps: int  # iterations of the run with all lanes; those of fewer lanes count as the share of one
    lanes: int  # examples worked on at once
    occupancy: float  # evaluations and forward passes of unfinished lanes / all that were computed
    loop_s: float  # of run_s: from the first dispatch until the last example has ended
    second_look_s: float  # of run_s: asking for the answers again and handing them over; with ``out`` part of loop_s
    again_s: float  # of second_look_s: solving the refused rows again in full precision
    refused: int  # answers that were FOUND in the loop and did not hold at the second look

    @property
    def overhead(self) -> float:
        """Run time / the time that the network alone needs for as many gradients and forward passes."""
        return self.run_s / (self.steps * self.step_s) if self.steps else float("nan")


def timed_run(
    logits: LogitsFn,
    x: np.ndarray,
    label: np.ndarray,
    target: np.ndarray | None,
    *,
    method: Config,
    lanes: int | Literal["auto"],
    progress: bool | None,
    out: Path | None = None,
    **problem: Any,
) -> Timed:
    """Run N pairs through the queue, compilation apart, and time the bare network in between.

    Args:
      logits: [B, *S] -> [B, K]. x: [N, *S] inputs of the pairs. label, target: [N] (target None: untargeted).
      method: the configuration that is timed.
      lanes: B, or "auto": chosen as by :func:`invjax.solve`, and fewer for the last examples where that pays, compiled
        within the run.
      progress: as in :func:`invjax.solve`.
      out: folder that keeps what has ended and from which an interrupted run resumes; the times are then those of
        this call alone.
      problem: further arguments of :func:`invjax.solve` (groups, key).
    """
    groups = problem.pop("groups", None)

    def prepared(config: Config, rows: slice) -> Prepared:
        return prepare(
            logits, x[rows], label[rows], method=config, target=None if target is None else target[rows],
            groups=None if groups is None else groups[rows], **problem,
        )  # fmt: skip

    begin = time.perf_counter()
    listed = prepared(method, slice(None))
    programs = Programs(listed.ctx, listed.config, listed.key, listed.method, white_box, None, None)
    lanes, fixed_s = choose(programs, listed.problems, lanes)
    first = prepared(brief(method), slice(0, lanes + 1))  # one more than the lanes, so that refilling is compiled too
    run_queue(*first[:3], method=first.method, key=first.key, lanes=lanes)
    again = in_full_precision(*first[:3], method=first.method, key=first.key)
    if again is not None:  # rows that are solved again have a program of their own; many answers are asked at once
        again(np.arange(1))
        rows = np.resize(np.arange(len(x)), asked_at_once(len(x), x[0].size))
        jax.block_until_ready(look(logits, x[rows]))
    compile_s = time.perf_counter() - begin
    ctx, problems, config = first.batch()
    probes = num_probes(first.method, ctx, config, problems)

    clock = Clock(logits, x, label, target, lanes)
    clock.tick(5)
    last: list[Part] = []
    begin = time.perf_counter()
    counted = {"evaluations": 0, "forwards": 0}
    believed: list[tuple[np.ndarray, np.ndarray]] = []  # rows FOUND in the loop, and their evaluations

    def watch(part: Part) -> None:
        nonlocal parted
        last[:] = [part]
        if len(part.index):
            found = (part.result.status == Status.FOUND).reshape(len(part.index), -1).any(1)
            believed.append((part.index[np.asarray(found)], np.asarray(part.result.evaluations)[found]))
        for name in counted if len(part.index) else ():
            counted[name] += int(getattr(part.result, name).sum())
        parted = time.perf_counter()

    whole = prepared(method, slice(None))
    started = parted = time.perf_counter()
    chosen = whole.method
    if out is not None:
        result = run_shared(whole, lanes=lanes, out=out, progress=progress, watch=watch)
    else:
        with progress_bar(progress, len(label)) as show:

            def on_part(part: Part) -> None:
                show(part)
                watch(part)

            result = run_queue(*whole[:3], method=chosen, key=whole.key, lanes=lanes, on_part=on_part, fixed_s=fixed_s)
    over = time.perf_counter()
    lost, again_s = refused(result, believed), 0.0
    again = in_full_precision(*whole[:3], method=chosen, key=whole.key)
    if again is not None and len(lost):
        again(lost)  # once more, alone, to time it
        again_s = time.perf_counter() - over
    clock.tick(5)
    asked = chosen.width or 1
    step_s = asked * (clock.gradient_s if chosen.needs_grad else clock.forward_s) + probes * clock.forward_s
    issued = last[0].issued if last else 0
    occupancy = sum(counted.values()) / (issued * (asked + probes)) if issued else float("nan")
    return Timed(
        result, compile_s, over - begin, clock.gradient_s, step_s, -(-issued // lanes), lanes, occupancy,
        parted - started, over - parted, again_s, len(lost),
    )  # fmt: skip


def refused(result: Result, believed: list[tuple[np.ndarray, np.ndarray]]) -> np.ndarray:
    """Rows that were FOUND and are not any more, or had to be solved again, which counts evaluations."""
    if not believed:
        return np.empty(0, int)
    rows, evaluations = map(np.concatenate, zip(*believed, strict=True))
    held = np.asarray(result.status)[rows] == Status.FOUND
    lost = ~held.any(axis=tuple(range(1, held.ndim)))  # of a set of answers: all
    return rows[lost | (np.asarray(result.evaluations)[rows] != evaluations)]
