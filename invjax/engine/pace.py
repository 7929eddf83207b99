"""When the host looks at a running queue: seldom, so that the loop runs on, and soon, so that few lanes stand idle.

Each visit of the host costs it some time (results are asked for, lanes refilled, the loop dispatched again), and what
waits for a visit are lanes without work. Both are measured while the queue runs; answers do not depend on them.
"""

from __future__ import annotations

import math
from statistics import median

CHUNK = 64  # iterations of the first dispatch, before anything is known
WAIT = 1.0  # seconds of a dispatch: the longest wait for progress or Ctrl-C, where an iteration is not longer
_LAST = 5  # visits that are remembered: the load of a machine changes


class Pace:
    """Seconds of an iteration and of a visit, as the last ones took."""

    def __init__(self, per_device: int, chunk: int | None) -> None:
        """chunk: iterations of every dispatch, or None for as many as fit in ``WAIT``."""
        self.per_device, self.chunk = per_device, chunk
        self._steps: list[float] = []
        self._visits: list[float] = []
        self._ended = self._done = 0
        self._seen = 0

    def ran(self, seconds: float | None, steps: int, ended: int) -> None:
        """A dispatch took so long (None: nobody knows) for so many iterations, in which so many examples ended.

        All of one device.
        """
        self._seen += 1
        self._done, self._ended = self._done + steps, self._ended + ended
        if seconds is not None and steps:
            self._steps = [*self._steps[1 - _LAST :], seconds / steps]

    def visited(self, seconds: float) -> None:
        """The device had nothing to do for so long."""
        if self._seen > 2:  # the first visit after work was compiled
            self._visits = [*self._visits[1 - _LAST :], seconds]

    @property
    def step_s(self) -> float | None:
        """Seconds of an iteration; None before one is known."""
        return median(self._steps) if self._steps else None

    @property
    def limit(self) -> int:
        """Iterations of the next dispatch at most."""
        if self.chunk is not None:
            return self.chunk
        if self.step_s is None:
            return CHUNK
        return max(1, min(int(WAIT / max(self.step_s, 1e-9)), 2**20))

    @property
    def idle(self) -> int:
        """Lanes of a device that may stand idle before the host comes.

        With e examples ending per iteration of s seconds, B lanes and a visit of h seconds, waiting for f lanes costs
        h e / f + s f / 2B an iteration: least at f = sqrt(2 B e h / s).
        """
        few, most = max(1, self.per_device // 32), max(1, self.per_device // 4)
        if not (self._steps and self._visits and self._done):
            return few
        per_step = self._ended / self._done
        best = math.sqrt(2 * self.per_device * per_step * median(self._visits) / max(median(self._steps), 1e-9))
        return min(max(int(best), few), most)

    @property
    def mean_steps(self) -> float:
        """Iterations that an example takes, on average."""
        return self.per_device * self._done / max(self._ended, 1)
