"""``run_queue``: a list of any length through a fixed number of lanes.

A host loop dispatches chunks of iterations; whenever a few lanes have ended their results are read and the lanes get
the next problems, so that the device stays full and memory grows with the lanes, not with the list. Progress,
interruption and saving happen between chunks and cost nothing beside the network. With a mesh the chunk runs inside
``shard_map`` over the lane axis: devices stop independently, there is no collective in the loop, and any lane can be
refilled from the host.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, PartitionSpec

from invjax.core.errors import BadArgument, Words
from invjax.core.numerics import select
from invjax.engine import checks
from invjax.engine.confirm import confirmed
from invjax.engine.evaluate import white_box
from invjax.engine.lanes import Lanes, advance, finish, start
from invjax.engine.layout import automatic_mesh
from invjax.types import Array, Config, Context, Evaluator, Method, Problem, Result

CHUNK = 64  # iterations per dispatch when nothing else ends it: the longest wait for progress or Ctrl-C


class Part(NamedTuple):
    """Some examples that have ended, and where the run stands."""

    index: np.ndarray  # [n] rows of the list that ``result`` answers
    result: Result  # leading axis [n], on the host
    done: int  # examples ended so far
    total: int  # examples in the list
    steps: int  # batched evaluations so far, summed over devices
    issued: int  # lane evaluations so far: steps x lanes per device


def _over_lanes(function: Callable[..., Any], mesh: Mesh | None, lanes_in: Sequence[bool]) -> Callable[..., Any]:
    """``function`` with its lane arguments split over the mesh (and the others replicated); every output has lanes."""
    if mesh is None:
        return function
    split, whole = PartitionSpec(mesh.axis_names), PartitionSpec()
    specs = tuple(split if has_lanes else whole for has_lanes in lanes_in)
    return jax.shard_map(function, mesh=mesh, in_specs=specs, out_specs=split, check_vma=False)


@partial(jax.jit, static_argnames=("method", "mesh"))
def _begin(ctx: Context, config: Config, key: Array, rows: Problem, *, method: Method, mesh: Mesh | None) -> Any:
    def begin(ctx: Context, config: Config, key: Array, rows: Problem) -> tuple[Problem, Lanes]:
        problems = checks.with_keys(rows, key)
        return problems, start(method, ctx, config, problems)

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
    ctx: Context, config: Config, problems: Problem, lanes: Lanes, *, method: Method, mesh: Mesh | None
) -> Any:
    def collect(ctx: Context, config: Config, problems: Problem, lanes: Lanes) -> Result:
        return finish(method, ctx, config, problems, lanes)

    return _over_lanes(collect, mesh, (False, False, True, True))(ctx, config, problems, lanes)


@partial(jax.jit, static_argnames=("method", "mesh"), donate_argnames=("lanes",))
def _refill(
    ctx: Context,
    config: Config,
    key: Array,
    take: Array,
    rows: Problem,
    problems: Problem,
    lanes: Lanes,
    *,
    method: Method,
    mesh: Mesh | None,
) -> tuple[Problem, Lanes]:
    """The lanes ``take`` [B] bool begin with ``rows``; the others go on with what they have."""

    def refill(
        ctx: Context, config: Config, key: Array, take: Array, rows: Problem, problems: Problem, lanes: Lanes
    ) -> tuple[Problem, Lanes]:
        fresh = checks.with_keys(rows, key)
        return select(take, (fresh, start(method, ctx, config, fresh)), (problems, lanes))

    over = _over_lanes(refill, mesh, (False, False, False, True, True, True, True))
    return over(ctx, config, key, take, rows, problems, lanes)


def _gather(problems: Problem, index: np.ndarray) -> Problem:
    """Rows of the host's list as a batch."""
    return jax.tree.map(lambda field: np.ascontiguousarray(np.asarray(field)[index]), problems)


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
    chunk: int = CHUNK,
) -> Iterator[Part]:
    """Solve the rows ``todo`` of ``problems`` (all by default), yielding each group of examples as it ends.

    lanes: B, over all devices of the mesh together. The order of the parts depends on who ends first; the answer of
    an example does not depend on its lane, its neighbours or the order.
    """
    devices = 1 if mesh is None else mesh.size
    checks.check_lanes(lanes, mesh)
    if mesh is not None:  # newer jax makes meshes with explicit axes, on which plain vmap and convolutions fail
        mesh = automatic_mesh(mesh)
    per_device = lanes // devices
    queue = np.arange(problems.label.shape[0]) if todo is None else np.asarray(todo)
    total, ended, steps, head = len(queue), 0, 0, min(lanes, len(queue))
    if total == 0:
        return

    # Lane i works on row owner[i]; lanes without work (a list shorter than the lanes) repeat a row and are inactive.
    owner = np.resize(queue[:head], lanes)
    vacant = np.arange(lanes) >= head
    device_problems, state = _begin(ctx, config, key, _gather(problems, owner), method=method, mesh=mesh)
    state = state._replace(active=_deactivate(state.active, vacant))
    spare = max(1, per_device // 32)  # lanes that may idle before the host is asked for more work
    while ended < total:
        floor = per_device - spare if head < total else 0
        state, taken = _chunk(
            ctx, config, device_problems, state, np.int32(chunk), np.int32(max(floor, 0)),
            method=method, evaluator=evaluator, mesh=mesh,
        )  # fmt: skip
        steps += int(np.asarray(taken).sum())
        finished = ~np.asarray(state.active) & ~vacant
        if not finished.any():
            yield Part(owner[:0], _empty(), ended, total, steps, steps * per_device)
            continue
        results = _collect(ctx, config, device_problems, state, method=method, mesh=mesh)
        index, answers = owner[finished], Result(*(np.asarray(field)[finished] for field in results))
        ended += len(index)
        vacant = vacant | finished
        free = np.flatnonzero(finished)[: total - head]
        if len(free):
            owner[free] = queue[head : head + len(free)]
            head += len(free)
            vacant[free] = False
            take = np.zeros(lanes, bool)
            take[free] = True
            rows = _gather(problems, owner)
            device_problems, state = _refill(
                ctx, config, key, take, rows, device_problems, state, method=method, mesh=mesh
            )
        yield Part(index, answers, ended, total, steps, steps * per_device)


def _deactivate(active: Array, vacant: np.ndarray) -> Array:
    return jnp.where(jnp.asarray(vacant), jnp.zeros_like(active), active)


def _empty() -> Result:
    return Result(*(np.empty(0) for _ in Result._fields))


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
) -> Result:
    """Solve a list of N problems on a fixed number of lanes; the same answers as ``run_batch``, on the host.

    problems: every leaf with leading axis [N] (``key`` None: each example's key is folded from ``key`` and its id).
    """
    if checks.is_traced(ctx, problems, config, key):
        hint = "inside jit, vmap or grad use run_batch"
        raise BadArgument("problems", "be concrete arrays for run_queue", Words("traced"), hint=hint)
    results: Result | None = None
    for part in stream(ctx, problems, config, method=method, key=key, lanes=lanes, evaluator=evaluator, mesh=mesh):
        if on_part is not None:
            on_part(part)
        if not len(part.index):
            continue
        if results is None:
            results = Result(*(np.empty((part.total, *rows.shape[1:]), rows.dtype) for rows in part.result))
        for field, rows in zip(results, part.result, strict=True):
            field[part.index] = rows
    assert results is not None
    return confirmed(results, ctx, problems, config, method=method, evaluator=evaluator, key=key)
