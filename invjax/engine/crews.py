"""Crews: the lanes of a queue on a CPU work in several loops at once, each in a thread of its own.

A compiled program of XLA's CPU backend does not keep all cores busy. Some of its operations run on one core whatever
their size (in jaxlib 0.10 every convolution of more than 16 channels), and operations that depend on each other wait
for the slowest part of each. Two loops of half the lanes need no more work, have nothing to wait for in each other, and
share one compiled program. On two cores ResNet20's gradients then take .6 of the time, with jaxlib 0.7.2 .75.

An accelerator runs one loop: it is parallel inside. So does a mesh, whose devices are the crews. A network that calls
the host is asked by one loop too, because nobody knows whether its function may be called by two threads.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from types import TracebackType
from typing import Any, NamedTuple

import jax
import numpy as np

from invjax.core.host import own_thread
from invjax.core.mixing import traits
from invjax.engine.lanes import Lanes
from invjax.engine.programs import Programs
from invjax.types import Array, Problem

LEAST = 4  # lanes of a crew: below, the cost of an example rises


def cores() -> int:
    """How many cores this process may use."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # only Linux has it
        return os.cpu_count() or 1


def num_crews(programs: Programs, problems: Problem, lanes: int) -> int:
    """How many loops share ``lanes`` lanes."""
    most = min(cores(), lanes // LEAST)
    if jax.default_backend() != "cpu" or programs.mesh is not None or most < 2:
        return 1
    x = problems.x
    return 1 if traits(programs.ctx.logits, x.shape[1:], x.dtype).calls_host else most


class Ran(NamedTuple):
    """A dispatch of the loop."""

    lanes: Lanes
    taken: Array | np.ndarray  # iterations of each device; of a single crew on their way
    began: float | None = None  # clock; None: nobody has waited for the loop yet
    ended: float | None = None


class Crews:
    """Runs the loops. A context, because threads have to end."""

    def __init__(self, programs: Programs, count: int) -> None:
        self.count, self._programs = count, programs
        self._threads = ThreadPoolExecutor(count, "crew", own_thread) if count > 1 else None

    def run(self, problems: Problem, lanes: Lanes, limit: int, floor: int) -> Future[Ran]:
        """Iterate, without waiting for it; ``lanes`` are donated.

        The loop is compiled here and now. So it obeys the settings of this thread (precision of products, dtypes),
        which a crew's own thread knows nothing of.
        """
        if self._threads is not None:
            loop = self._programs.loop(problems, lanes)
            return self._threads.submit(_timed, loop, problems, lanes, limit, floor)
        future: Future[Ran] = Future()
        future.set_result(Ran(*self._programs.chunk(problems, lanes, limit, floor)))
        return future

    def __enter__(self) -> Crews:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._threads is not None:
            self._threads.shutdown()


def first(running: Iterable[Future[Ran]]) -> Future[Ran]:
    """The first that has ended."""
    return next(iter(wait(running, return_when=FIRST_COMPLETED).done))


def _timed(loop: Callable[..., Any], problems: Problem, lanes: Lanes, limit: int, floor: int) -> Ran:
    began = time.perf_counter()
    after, taken = loop(problems, lanes, limit, floor)
    taken = np.asarray(taken)
    return Ran(after, taken, began, time.perf_counter())
