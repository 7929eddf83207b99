"""The compiled programs of a queue, bound to one run: begin, iterate, collect, refill, move to fewer lanes.

Rows travel between host and device only where something is asked of them. The next rows of the list wait on the device
(a *window* as long as the lanes), and a piece of fixed length takes some of them to the lanes that are free, or brings
results back. So each program has one shape, and a refill costs what it moves, not what there is.
With a mesh every program runs inside ``shard_map`` over the lane axis, and each device has its own piece.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from invjax.core.precision import Precision, products_at
from invjax.engine import checks
from invjax.engine.batch import run_batch
from invjax.engine.evaluate import white_box
from invjax.engine.lanes import Lanes, advance, finish, start
from invjax.types import Array, Config, Context, Evaluator, Method, Problem, Result


def _over_lanes(function: Callable[..., Any], mesh: Mesh | None, lanes_in: Sequence[bool]) -> Callable[..., Any]:
    """``function`` with its lane arguments split over the mesh (and the others replicated); every output has lanes."""
    if mesh is None:
        return function
    split, whole = PartitionSpec(mesh.axis_names), PartitionSpec()
    specs = tuple(split if has_lanes else whole for has_lanes in lanes_in)
    return jax.shard_map(function, mesh=mesh, in_specs=specs, out_specs=split, check_vma=False)


def _rows(tree: Any, index: Array) -> Any:
    return jax.tree.map(lambda leaf: leaf[index], tree)


@partial(jax.jit, static_argnames=("method", "mesh"))
def _begin(ctx: Context, config: Config, key: Array, rows: Problem, *, method: Method, mesh: Mesh | None) -> Any:
    """Lanes that hold ``rows`` and work on none of them."""

    def begin(ctx: Context, config: Config, key: Array, rows: Problem) -> tuple[Problem, Lanes]:
        problems = checks.with_keys(rows, key)
        lanes = start(method, ctx, config, problems)
        return problems, lanes._replace(active=jnp.zeros_like(lanes.active))

    return _over_lanes(begin, mesh, (False, False, False, True))(ctx, config, key, rows)


@partial(jax.jit, static_argnames=("method", "evaluator", "mesh"), donate_argnames=("lanes",))
def _chunk(
    ctx: Context,
    config: Config,
    problems: Problem,
    lanes: Lanes,
    limit: Array,
    floor: Array,
    *,
    method: Method,
    evaluator: Evaluator,
    mesh: Mesh | None,
) -> tuple[Lanes, Array]:
    def chunk(
        ctx: Context, config: Config, problems: Problem, lanes: Lanes, limit: Array, floor: Array
    ) -> tuple[Lanes, Array]:
        lanes, steps = advance(method, evaluator, ctx, config, problems, lanes, limit, floor)
        return lanes, steps[None]

    over = _over_lanes(chunk, mesh, (False, False, True, True, False, False))
    return over(ctx, config, problems, lanes, limit, floor)


@partial(jax.jit, static_argnames=("method", "mesh"))
def _collect(
    ctx: Context, config: Config, problems: Problem, lanes: Lanes, piece: Array, *, method: Method, mesh: Mesh | None
) -> Any:
    """Results of the lanes ``piece``."""

    def collect(ctx: Context, config: Config, problems: Problem, lanes: Lanes, piece: Array) -> Result:
        return finish(method, ctx, config, *_rows((problems, lanes), piece))

    return _over_lanes(collect, mesh, (False, False, True, True, True))(ctx, config, problems, lanes, piece)


@partial(jax.jit, static_argnames=("method", "mesh"), donate_argnames=("lanes",))
def _refill(
    ctx: Context,
    config: Config,
    key: Array,
    window: Problem,
    problems: Problem,
    lanes: Lanes,
    piece: Array,
    source: Array,
    *,
    method: Method,
    mesh: Mesh | None,
) -> tuple[Problem, Lanes]:
    """The lanes ``piece`` begin with the rows ``source`` of the window; a lane beyond the last one is no lane."""

    def refill(
        ctx: Context, config: Config, key: Array, window: Problem, problems: Problem, lanes: Lanes, piece: Array,
        source: Array,
    ) -> tuple[Problem, Lanes]:  # fmt: skip
        fresh = checks.with_keys(_rows(window, source), key)
        begun = fresh, start(method, ctx, config, fresh)
        return jax.tree.map(lambda old, new: old.at[piece].set(new, mode="drop"), (problems, lanes), begun)

    over = _over_lanes(refill, mesh, (False, False, False, False, True, True, True, True))
    return over(ctx, config, key, window, problems, lanes, piece, source)


@jax.jit
def _take(tree: Any, index: Array) -> Any:
    return _rows(tree, index)


class Programs(NamedTuple):
    """The programs with what stays the same in a run."""

    ctx: Context
    config: Config
    key: Array
    method: Method
    evaluator: Evaluator = white_box
    mesh: Mesh | None = None
    precision: Precision | None = None

    def _at(self) -> AbstractContextManager[Any]:
        return products_at(self.precision)

    def put(self, rows: Problem) -> Problem:
        """Rows on the device, on all of a mesh; the call does not wait for them."""
        return jax.device_put(rows, None if self.mesh is None else NamedSharding(self.mesh, PartitionSpec()))

    def begin(self, rows: Problem) -> tuple[Problem, Lanes]:
        """As many idle lanes as rows."""
        with self._at():
            return _begin(self.ctx, self.config, self.key, rows, method=self.method, mesh=self.mesh)

    def chunk(self, problems: Problem, lanes: Lanes, limit: int, floor: int) -> tuple[Lanes, Array]:
        """Iterate; also the number of iterations of each device."""
        with self._at():
            return _chunk(
                self.ctx, self.config, problems, lanes, np.int32(limit), np.int32(floor), method=self.method,
                evaluator=self.evaluator, mesh=self.mesh,
            )  # fmt: skip

    def loop(self, problems: Problem, lanes: Lanes) -> Callable[[Problem, Lanes, int, int], tuple[Lanes, Array]]:
        """:meth:`chunk` for lanes of these shapes, compiled. Any thread may call it: its own settings do not matter."""
        one = jax.ShapeDtypeStruct((), np.int32)
        with self._at():
            compiled = _chunk.lower(
                self.ctx, self.config, problems, lanes, one, one, method=self.method, evaluator=self.evaluator,
                mesh=self.mesh,
            ).compile()  # fmt: skip

        def call(problems: Problem, lanes: Lanes, limit: int, floor: int) -> tuple[Lanes, Array]:
            return compiled(self.ctx, self.config, problems, lanes, np.int32(limit), np.int32(floor))

        return call

    def collect(self, problems: Problem, lanes: Lanes, piece: np.ndarray) -> Result:
        """Results of some lanes, on their way to the host."""
        with self._at():
            found = _collect(self.ctx, self.config, problems, lanes, piece, method=self.method, mesh=self.mesh)
        for field in jax.tree.leaves(found):
            field.copy_to_host_async()
        return found

    def refill(
        self, window: Problem, problems: Problem, lanes: Lanes, piece: np.ndarray, source: np.ndarray
    ) -> tuple[Problem, Lanes]:
        """Some lanes begin with rows of the window."""
        with self._at():
            return _refill(
                self.ctx, self.config, self.key, window, problems, lanes, piece, source, method=self.method,
                mesh=self.mesh,
            )  # fmt: skip

    def narrower(self, problems: Problem, lanes: Lanes, index: np.ndarray) -> tuple[Problem, Lanes]:
        """The lanes ``index`` alone."""
        return _take((problems, lanes), index)

    def memory(self, problems: Problem, lanes: int) -> int | None:
        """Bytes that the compiled loop needs at ``lanes`` lanes, without the network; None where nobody knows.

        problems: the list, of which only the shapes count. The program that is compiled here is the one of the run.
        """
        with self._at():
            shapes = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct((lanes, *leaf.shape[1:]), leaf.dtype), problems)
            words = {"method": self.method, "mesh": self.mesh}
            held = jax.eval_shape(partial(_begin, **words), self.ctx, self.config, self.key, shapes)
            one = jax.ShapeDtypeStruct((), np.int32)
            lowered = _chunk.lower(self.ctx, self.config, *held, one, one, evaluator=self.evaluator, **words)
            return _needed(lowered)

    def batch_memory(self, problems: Problem, lanes: int) -> int | None:
        """As :meth:`memory`, of the loop that takes all of a list at once."""
        with self._at():
            shapes = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct((lanes, *leaf.shape[1:]), leaf.dtype), problems)
            keyed = jax.eval_shape(checks.with_keys, shapes, self.key)
            return _needed(run_batch.lower(self.ctx, keyed, self.config, method=self.method, evaluator=self.evaluator))


def _needed(lowered: Any) -> int | None:
    plan = lowered.compile().memory_analysis()
    return None if plan is None else plan.temp_size_in_bytes + plan.output_size_in_bytes


def split(slots: np.ndarray, per_device: int, length: int, devices: int) -> list[np.ndarray]:
    """Lanes in pieces [devices, length] of each device's own numbering; ``per_device``, which is no lane, fills up."""
    own = [slots[slots // per_device == device] % per_device for device in range(devices)]
    pieces = []
    for begin in range(0, max(map(len, own)), length):
        piece = np.full((devices, length), per_device, np.int32)
        for device, some in enumerate(own):
            some = some[begin : begin + length]
            piece[device, : len(some)] = some
        pieces.append(piece)
    return pieces
