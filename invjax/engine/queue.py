"""``run_queue``: a list of any length through a fixed number of lanes.

A host loop dispatches chunks of iterations; whenever a few lanes have ended their results are read and the lanes get
the next problems, so that the device stays full and memory grows with the lanes, not with the list. Progress,
interruption and saving happen between chunks, while the device is at work on the next one. With a mesh the chunk runs
inside ``shard_map`` over the lane axis: devices stop independently, there is no collective in the loop, and any lane
can be refilled from the host.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from typing import NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh

from invjax.core.errors import BadArgument, Words
from invjax.core.host import own_work
from invjax.core.layout import automatic_mesh
from invjax.core.precision import Precision, products_are_rounded
from invjax.engine import checks
from invjax.engine.confirm import confirmed
from invjax.engine.crews import Crews, Ran, first, num_crews
from invjax.engine.evaluate import white_box
from invjax.engine.pace import Pace
from invjax.engine.programs import Programs, split
from invjax.engine.waiting import Waiting
from invjax.types import Array, Config, Context, Evaluator, Method, Problem, Result

_LEAST = 4  # lanes of a narrower program
_ANEW = 64  # lanes of the rows that are solved again: as many for few rows too, so that one program is compiled


class Part(NamedTuple):
    """Some examples that have ended, and where the run stands."""

    index: np.ndarray  # [n] rows of the list that ``result`` answers
    result: Result  # leading axis [n], on the host
    done: int  # examples ended so far
    total: int  # examples in the list
    steps: int  # batched evaluations so far, summed over devices
    issued: int  # lane evaluations so far: steps x lanes per device


class _Piece(NamedTuple):
    """Rows that have ended, on their way to the host."""

    index: np.ndarray  # [n] rows of the list
    own: np.ndarray  # [n] where they stand in ``result``
    result: Result


class _Floor:
    """The lanes of a crew, and which row of the list each of them works on."""

    def __init__(self, programs: Programs, waiting: Waiting, lanes: int, chunk: int | None) -> None:
        self.programs, self.waiting = programs, waiting
        self.devices = 1 if programs.mesh is None else programs.mesh.size
        # The host's own copy: begun lanes may share memory with these rows, and lanes are donated.
        self.problems, self.state = programs.begin(waiting.rows(lanes))
        self.owner = np.full(lanes, -1)  # row of the list; -1: none
        self._hold(lanes)
        self.pace = Pace(self.per_device, chunk)
        self._turned = self._began = self._called = time.perf_counter()  # when the device had ended, when it was asked
        self._new = False

    def _hold(self, lanes: int) -> None:
        self.per_device = lanes // self.devices
        self.length = -(-self.per_device // 8)  # of a piece: most visits find an eighth of the lanes or fewer

    def fill(self) -> None:
        """Give rows to the lanes that are free."""
        free = np.flatnonzero(self.owner < 0)
        while len(free) and len(self.waiting):
            rows, place = self.waiting.take(min(len(free), self.length * self.devices))
            slots, free = free[: len(rows)], free[len(rows) :]
            self.owner[slots] = rows
            for piece in split(slots, self.per_device, self.length, self.devices):
                lane = piece + self.per_device * np.arange(self.devices)[:, None]
                source = place + np.searchsorted(slots, lane.ravel())  # those of no lane are dropped
                self.problems, self.state = self.programs.refill(
                    self.waiting.window, self.problems, self.state, piece.ravel(), source.astype(np.int32)
                )

    def run(self, crews: Crews, least: int) -> Future[Ran]:
        """Iterate while more than ``least`` lanes are active. Nothing is waited for."""
        self._began = time.perf_counter()
        self.pace.visited(self._began - self._turned)
        future = crews.run(self.problems, self.state, self.pace.limit, least)
        self._called = time.perf_counter()
        name = _loop(self.programs, self.problems, len(self.owner))
        self._new = name not in _first_call
        if self._new:
            _first_call[name] = self._called - self._began
        return future

    def turn(self, ran: Ran, asked: float) -> tuple[np.ndarray, list[_Piece]]:
        """The iterations of each device, and what has ended in them. asked: when waiting for them began."""
        self.state, taken = ran.lanes, np.asarray(ran.taken)
        now = time.perf_counter()
        if ran.began is not None and ran.ended is not None:
            seconds, self._turned = ran.ended - ran.began, ran.ended
        else:
            # Where the consumer of the parts took longer than the device, nobody knows how long the device took.
            whole = now - self._began
            seen = not self._new and (now - asked > 0.1 * whole or asked - self._called < 0.1 * whole)
            seconds, self._turned = whole if seen else None, now
        pending = self.ended()
        self.pace.ran(seconds, int(taken.max()), sum(len(piece.index) for piece in pending) // self.devices)
        return taken, pending

    def ended(self) -> list[_Piece]:
        """The rows that have ended, in pieces."""
        slots = np.flatnonzero((self.owner >= 0) & ~np.asarray(self.state.active))
        found = []
        for piece in split(slots, self.per_device, self.length, self.devices) if len(slots) else ():
            result = self.programs.collect(self.problems, self.state, piece.ravel())
            own = np.flatnonzero(piece.ravel() < self.per_device)
            lane = (piece + self.per_device * np.arange(self.devices)[:, None]).ravel()[own]
            found.append(_Piece(self.owner[lane], own, result))
        self.owner[slots] = -1
        return found

    @property
    def busy(self) -> int:
        """Lanes at work."""
        return int((self.owner >= 0).sum())

    def narrow(self, lanes: int) -> None:
        """Go on with ``lanes`` lanes, which must be enough for those at work."""
        index = np.argsort(self.owner < 0, kind="stable")[:lanes]
        self.problems, self.state = self.programs.narrower(self.problems, self.state, index)
        self.owner = self.owner[index]
        self._hold(lanes)


_first_call: dict[int, float] = {}  # seconds of the first call of a loop: what compiling it took


def _loop(programs: Programs, problems: Problem, lanes: int) -> int:
    """What names the compiled loop in ``_first_call``, which holds on to nothing."""
    statics = (programs.method, programs.evaluator, programs.mesh, programs.precision)
    structure = jax.tree.structure((programs.ctx, programs.config))
    return hash((*statics, structure, problems.x.shape[1:], str(problems.x.dtype), lanes))


def _narrow(floor: _Floor, fixed_s: float, known: Callable[[int], float | None], wide_s: float) -> None:
    """Fewer lanes for the last examples, where that saves more than compiling takes.

    An iteration of s seconds costs (s - fixed) / B a lane. The last examples are expected to need as many iterations
    again as an example needs on average. wide_s: seconds that the wide program took to compile.
    """
    pace, lanes = floor.pace, len(floor.owner)
    fewer = max(_LEAST, 1 << (floor.busy - 1).bit_length())
    if pace.step_s is None or fewer > lanes // 2:
        return
    saved = max(pace.step_s - fixed_s, 0.0) * (1 - fewer / lanes) * pace.mean_steps
    if _pays(saved, wide_s if known(fewer) is None else 0.0):
        floor.narrow(fewer)


def _pays(saved_s: float, cost_s: float) -> bool:
    return saved_s > cost_s


def stream(
    ctx: Context,
    problems: Problem,
    config: Config,
    *,
    method: Method,
    key: Array,
    lanes: int,
    evaluator: Evaluator = white_box,
    mesh: Mesh | None = None,
    todo: np.ndarray | None = None,
    chunk: int | None = None,
    precision: Precision | None = None,
    fixed_s: float | None = None,
) -> Iterator[Part]:
    """Solve the rows ``todo`` of ``problems`` (all by default), yielding each group of examples as it ends.

    lanes: B, over all devices of the mesh together. The order of the parts depends on who ends first; the answer of
    an example does not depend on its lane, its neighbours or the order. chunk: iterations of each dispatch; by default
    as many as fit in a second. precision: as for :func:`invjax.solve`. fixed_s: seconds of an iteration that do not
    depend on the lanes; given, the last examples go on in fewer lanes where that pays.
    """
    checks.check_lanes(lanes, mesh)
    if mesh is not None:  # newer jax makes meshes with explicit axes, on which plain vmap and convolutions fail
        mesh = automatic_mesh(mesh)
    queue = np.arange(problems.label.shape[0]) if todo is None else np.asarray(todo)
    total, done, steps, issued = len(queue), 0, 0, 0
    if total == 0:
        return

    programs = Programs(ctx, config, key, method, evaluator, mesh, precision)
    with Crews(programs, num_crews(programs, problems, lanes)) as crews:
        lanes = -(-lanes // crews.count)  # of a crew
        waiting = Waiting(programs, problems, queue, lanes)
        wide = _loop(programs, problems, lanes)

        def dispatch(floor: _Floor) -> Future[Ran]:
            """New rows for the lanes that are free, and the loop runs on."""
            floor.fill()
            least = floor.per_device - floor.pace.idle
            if not len(waiting):
                least = 0
                if fixed_s is not None and mesh is None:
                    _narrow(
                        floor, fixed_s, lambda fewer: _first_call.get(_loop(programs, problems, fewer)),
                        _first_call.get(wide, 0.0),
                    )  # fmt: skip
                    least = floor.busy // 2
            return floor.run(crews, least)

        running: dict[Future[Ran], _Floor] = {}
        for _ in range(crews.count):
            if len(waiting):
                floor = _Floor(programs, waiting, lanes, chunk)
                running[dispatch(floor)] = floor
        while running:
            asked = time.perf_counter()
            future = first(running)
            floor = running.pop(future)
            ran, pending = floor.turn(future.result(), asked)
            steps, issued = steps + int(ran.sum()), issued + int(ran.sum()) * floor.per_device
            done += sum(len(piece.index) for piece in pending)
            if floor.busy or len(waiting):
                running[dispatch(floor)] = floor
            yield from _parts(pending, done, total, steps, issued)  # the device is at work meanwhile


def _parts(pending: list[_Piece], done: int, total: int, steps: int, issued: int) -> Iterator[Part]:
    """What has ended as one Part, or a Part of nothing for those who watch."""
    if not pending:
        yield Part(np.empty(0, int), _empty(), done, total, steps, issued)
        return
    index = np.concatenate([piece.index for piece in pending])
    pieces = [jax.tree.map(lambda field, own=piece.own: np.asarray(field)[own], piece.result) for piece in pending]
    yield Part(index, jax.tree.map(lambda *fields: np.concatenate(fields), *pieces), done, total, steps, issued)


def _empty() -> Result:
    return Result(*[np.empty(0)] * 6)


def _solved(total: int, parts: Iterator[Part], on_part: Callable[[Part], None] | None = None) -> Result:
    """The parts of a list of ``total``, in its order."""
    results: Result | None = None
    for part in parts:
        if on_part is not None:
            on_part(part)
        if not len(part.index):
            continue
        if results is None:
            results = jax.tree.map(lambda rows: np.empty((total, *rows.shape[1:]), rows.dtype), part.result)
        for name, rows in vars(part.result).items():
            getattr(results, name)[part.index] = rows
    assert results is not None
    return results


def in_full_precision(
    ctx: Context,
    problems: Problem,
    config: Config,
    *,
    method: Method,
    key: Array,
    evaluator: Evaluator = white_box,
    precision: Precision | None = None,
) -> Callable[[np.ndarray], Result] | None:
    """Solves rows [n] of the problems anew in full float32; None where ``precision`` is that already."""
    if not products_are_rounded(precision):
        return None

    def again(rows: np.ndarray) -> Result:
        own = jax.tree.map(lambda leaf: np.asarray(leaf)[rows], problems._replace(key=None))
        parts = stream(ctx, own, config, method=method, key=key, lanes=_ANEW, evaluator=evaluator, precision="highest")
        return _solved(len(rows), parts)

    return again


@own_work()
def run_queue(
    ctx: Context,
    problems: Problem,
    config: Config,
    *,
    method: Method,
    key: Array,
    lanes: int,
    evaluator: Evaluator = white_box,
    mesh: Mesh | None = None,
    on_part: Callable[[Part], None] | None = None,
    precision: Precision | None = None,
    fixed_s: float | None = None,
) -> Result:
    """Solve a list of N problems on a fixed number of lanes; the same answers as ``run_batch``, on the host.

    problems: every leaf with leading axis [N] (``key`` None: each example's key is folded from ``key`` and its id).
    precision, fixed_s: as for :func:`stream`.
    """
    if checks.is_traced(ctx, problems, config, key):
        hint = "inside jit, vmap or grad use run_batch"
        raise BadArgument("problems", "be concrete arrays for run_queue", Words("traced"), hint=hint)
    run = {"method": method, "key": key, "evaluator": evaluator, "precision": precision}
    parts = stream(ctx, problems, config, lanes=lanes, mesh=mesh, fixed_s=fixed_s, **run)
    results = _solved(problems.label.shape[0], parts, on_part)
    again = in_full_precision(ctx, problems, config, **run)
    return confirmed(results, ctx, problems, config, method=method, evaluator=evaluator, key=key, again=again)
