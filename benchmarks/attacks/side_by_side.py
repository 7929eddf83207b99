"""Attacks of several codes on the same pairs, in turn: their times, and what their answers are worth."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

import numpy as np

import invjax
from benchmarks.attacks.torch_task import Task
from benchmarks.common import in_turn
from benchmarks.peers.worker import Worker
from invjax.engine import prepare
from invjax.engine.choosing import choose
from invjax.engine.programs import Programs
from invjax.metrics.attack import measure, summarize
from invjax.types import Config, Status


class Answer(NamedTuple):
    """What one side gave for N pairs; gradients and forward passes are means per example, None where not counted."""

    seconds: float
    delta: np.ndarray  # [N, H, W, C], in data units
    found: np.ndarray  # [N] bool, by the side's own network
    evaluations: float | None
    forwards: float | None


Side = Callable[[], Answer]


def ours(task: Task, method: Config, *, targeted: bool = True, **options: Any) -> Side:
    """:func:`invjax.solve` as a user calls it, NumPy to NumPy; options: its ``lanes`` and the like."""
    target = task.target if targeted else None

    def run() -> Answer:
        begin = time.perf_counter()
        result = invjax.solve(
            task.logits, task.x, task.pairs.label, target=target, method=method, progress=False, **options
        )
        delta, found = np.asarray(result.delta), np.asarray(result.found)
        seconds = time.perf_counter() - begin
        return Answer(seconds, delta, found, float(result.evaluations.mean()), float(result.forwards.mean()))

    return run


def lanes_used(task: Task, method: Config, lanes: int | str) -> int:
    """How many examples :func:`ours` works on at once; what ``"auto"`` has chosen is remembered by the engine."""
    prepared = prepare(task.logits, task.x, task.pairs.label, target=task.target, method=method)
    programs = Programs(prepared.ctx, prepared.config, prepared.key, prepared.method)
    return choose(programs, prepared.problems, lanes).lanes


def theirs(worker: Worker, what: str, **values: Any) -> Side:
    """A request of a worker whose answer has ``seconds``, and ``delta`` and ``found`` in a file."""

    def run() -> Answer:
        out = worker.folder / "answer.npz"
        says = worker.ask(what, out=str(out), **values)
        with np.load(out) as file:
            delta, found = file["delta"], file["found"]
        return Answer(says["seconds"], delta, found, says.get("evaluations"), says.get("forwards"))

    return run


def compare(sides: Mapping[str, Side], repeat: int) -> tuple[dict[str, list[float]], dict[str, Answer]]:
    """Seconds of each side in each of ``repeat`` turns, and its last answers."""
    answers: dict[str, Answer] = {}

    def turn(name: str) -> float:
        answers[name] = sides[name]()
        print(f"  {name}: {answers[name].seconds:.2f} s", flush=True)
        return answers[name].seconds

    return in_turn({name: partial(turn, name) for name in sides}, repeat), answers


def record_of(task: Task, times: list[float], answer: Answer) -> dict[str, Any]:
    """The record of a side: seconds per example (median, and all), success, and the measures of GSE's tables.

    Failures count as the unchanged image. l2 is in [-1, 1] units.
    """
    found = np.asarray(answer.found, bool)
    delta = np.where(found[:, None, None, None], answer.delta, 0)
    status = np.where(found, Status.FOUND, Status.NOT_FOUND)
    shape = task.pairs.shape
    attempts = measure(delta.reshape(*shape, *delta.shape[1:]), status.reshape(shape))
    means = {name: row["average"] for name, row in summarize(attempts)["all_attempts"].items()}
    return {
        "per_example_s": statistics.median(times) / len(found),
        "seconds": times,
        **means,
        "evaluations": answer.evaluations,
        "forwards": answer.forwards,
    }
