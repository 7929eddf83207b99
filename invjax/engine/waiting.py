"""The list of a queue: rows that no lane has begun, a window of them on the device ahead of time."""

from __future__ import annotations

import jax
import numpy as np

from invjax.engine.programs import Programs
from invjax.types import Problem


def _gather(problems: Problem, index: np.ndarray) -> Problem:
    """Rows of the host's list as a batch."""
    return jax.tree.map(lambda field: np.ascontiguousarray(np.asarray(field)[index]), problems)


class Waiting:
    """The rows of the list that no lane has begun: the next of them wait on the device, the ones after are on the way.

    A window is as long as the lanes; its last rows repeat where the list ends.
    """

    def __init__(self, programs: Programs, problems: Problem, queue: np.ndarray, length: int) -> None:
        self._programs, self._problems, self.queue, self._length = programs, problems, queue, length
        self.head = self._end = 0
        self._next = self._put(0)
        self._turn()

    def _put(self, begin: int) -> Problem | None:
        if begin >= len(self.queue):
            return None
        return self._programs.put(self.rows(self._length, begin))

    def rows(self, count: int, begin: int = 0) -> Problem:
        """``count`` rows of the list on the host, from ``begin`` on; the last ones repeat where it ends."""
        return _gather(self._problems, np.resize(self.queue[begin : begin + count], count))

    def _turn(self) -> None:
        assert self._next is not None
        self.window, self._next = self._next, self._put(self._end + self._length)
        self._end += self._length

    def __len__(self) -> int:
        return len(self.queue) - self.head

    def take(self, count: int) -> tuple[np.ndarray, int]:
        """Up to ``count`` rows, and where in ``window`` the first of them stands."""
        if self.head == self._end and len(self):
            self._turn()
        place = self.head - (self._end - self._length)
        rows = self.queue[self.head : min(self.head + count, self._end)]
        self.head += len(rows)
        return rows, place
