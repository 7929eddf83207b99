"""``lanes="auto"``: how many examples are worked on at once, from what an iteration costs on this device.

An iteration of B lanes takes about ``fixed + B · lane`` seconds. ``fixed`` is what calling the operations costs,
whatever their size; ``lane`` is the network's and the method's arithmetic for one example. From ``B = 20 · fixed /
lane`` on the cost of an example is within 5 % of the best, and more lanes only make the end of a list longer, where
some still work and most stand idle. So this many are taken, in rounds of equal size, as far as memory allows.

Three calls of the network with eight rows are measured, which is a program that the engine has anyway, and the
operations of the network are counted. Nothing is compiled in order to choose.
"""

from __future__ import annotations

import os
import time
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh

from invjax.core.errors import BadArgument
from invjax.core.mixing import ROWS, look, lowered, traits
from invjax.engine import checks
from invjax.engine.crews import cores, num_crews
from invjax.engine.lanes import num_probes
from invjax.engine.programs import Programs
from invjax.types import Problem

FEW = 64  # lanes of a list that ends within a second, and where nothing can be known
_MOST = 8192  # on a CPU: rows of a table, whose state fits the caches no longer
_STEPS = 50  # iterations that an example is expected to take
_SHORT = 1.0  # seconds of a list for which nothing is measured
_REPEAT = 3


class Device(NamedTuple):
    """What a device needs, in round numbers: measured ones are within a factor of two of these."""

    flops: float  # a second, in a network's convolutions and products
    entry_s: float  # of an iteration, for each entry of an example: the method's own arithmetic
    call_s: float  # of an iteration at least, whatever the lanes
    least: int  # lanes


_CPU = Device(2e10, 5e-8, 1e-4, 16)  # two cores; more of them are faster, and then the measured call says so
_CREW = 12  # lanes of each core's crew: from 8 on an example costs the same, and its visits by the host less
_ACCELERATOR = Device(2e13, 5e-11, 1e-3, 64)


class Cost(NamedTuple):
    """Seconds of an iteration of B lanes: ``fixed + B · lane``."""

    fixed: float
    lane: float


class Choice(NamedTuple):
    """The number of lanes, and what an iteration costs beside the lanes (None: not known)."""

    lanes: int
    fixed_s: float | None


def check_lanes(lanes: Any, mesh: Mesh | None) -> None:
    """Raise BadArgument unless it is a number of lanes that the devices can share, or "auto"."""
    if isinstance(lanes, str) and lanes != "auto":
        raise BadArgument("lanes", "be a whole number >= 1, or 'auto'", lanes)
    checks.check_lanes(getattr(mesh, "size", 1), mesh) if isinstance(lanes, str) else checks.check_lanes(lanes, mesh)


def choose(programs: Programs, problems: Problem, lanes: int | str, count: int | None = None) -> Choice:
    """``lanes`` as given, but no more than ``count`` (all problems by default), or chosen."""
    count = problems.label.shape[0] if count is None else count
    if isinstance(lanes, str):
        return choose_lanes(programs, problems, count)
    return Choice(lanes if programs.mesh is not None else max(min(lanes, count), 1), None)


def choose_lanes(programs: Programs, problems: Problem, count: int) -> Choice:
    """Lanes for ``count`` of the problems, over all devices of the mesh together.

    Raises BadArgument, about lanes, where the network cannot be compiled or run.
    """
    devices = 1 if programs.mesh is None else programs.mesh.size
    share = -(-count // devices)
    if share <= _device().least:
        return Choice(devices * max(share, 1), None)
    try:
        cost = _cost(programs, problems, share)
    except Exception as error:
        hint = f"trying the network failed with {type(error).__name__}: {' '.join(str(error).split())[:200]}"
        raise BadArgument("lanes", "be a number for this network", "auto", hint=hint) from error
    if cost is None:
        return Choice(devices * _rounds(share, FEW), None)
    lanes = _rounds(share, _best(cost, share))
    # Beyond FEW the loop is compiled here, to ask for its memory, so that the queue cannot see what compiling takes: an
    # H200 spent 29 s on narrower programs that saved less than one.
    fixed_s = cost.fixed if lanes <= FEW else None
    return Choice(devices * _fitting(programs, problems, lanes, share, devices), fixed_s)


def _device() -> Device:
    if jax.default_backend() != "cpu":
        return _ACCELERATOR
    return _CPU._replace(least=max(_CPU.least, _CREW * cores()))


def _cost(programs: Programs, problems: Problem, share: int) -> Cost | None:
    """What an iteration costs; None where nothing is known of it, and for a short list that ends at once."""
    logits, shape, dtype = programs.ctx.logits, problems.x.shape[1:], problems.x.dtype
    work = _work_of(programs, problems)
    if work is None:
        return None
    device = _device()
    entries = int(np.prod(shape)) * device.entry_s
    counted = work.flops / device.flops
    if share * _STEPS * (work.passes * counted + entries) < _SHORT:
        return None if share <= FEW else Cost(device.call_s, work.passes * counted + entries)
    name = _name(logits, shape, dtype)
    if name not in _calls:
        _calls[name] = _seconds(logits, problems.x)
    call = _calls[name]
    if jax.default_backend() == "cpu":  # eight rows keep a CPU busy; an accelerator they do not
        return Cost(device.call_s, work.passes * min(call / ROWS, counted) + entries)
    return Cost(max(device.call_s, 3 * call), work.passes * counted + entries)


def crews_pay(programs: Programs, problems: Problem, lanes: int) -> bool:
    """Whether a list of as many problems as lanes is better split among crews than taken by one loop.

    So it is where the network alone takes more than a second: the queue compiles more, if little.
    """
    if num_crews(programs, problems, lanes) == 1:
        return False
    try:
        work = _work_of(programs, problems)
    except Exception:  # the loop will say it better
        return False
    return work is not None and lanes * _STEPS * work.passes * work.flops / _device().flops >= _SHORT


class _Work(NamedTuple):
    """What an iteration asks of the network."""

    passes: int  # through it, of each lane; a gradient counts as three
    flops: float  # of a pass


# Once for each structure and shape. The names are hashes: nothing is kept alive, and a wrong one costs time at most.
_work: dict[int, _Work | None] = {}
_calls: dict[int, float] = {}  # seconds of eight rows


def _name(tree: Any, *more: Any) -> int:
    shapes = tuple((np.shape(leaf), str(getattr(leaf, "dtype", ""))) for leaf in jax.tree.leaves(tree))
    return hash((jax.tree.structure(tree), shapes, *map(str, more), jax.default_backend()))


def _work_of(programs: Programs, problems: Problem) -> _Work | None:
    x = problems.x
    name = _name((programs.ctx, programs.config), programs.method, x.shape[1:], x.dtype)
    if name not in _work:
        _work[name] = _count(programs, problems)
    return _work[name]


def _count(programs: Programs, problems: Problem) -> _Work | None:
    """None for a black box, whose every row is a query."""
    ctx, method, x = programs.ctx, programs.method, problems.x
    if traits(ctx.logits, x.shape[1:], x.dtype).calls_host:
        return None
    passes = (3 if method.needs_grad else 1) * (method.width or 1)
    if method.probe is not None:
        one = jax.tree.map(lambda leaf: np.asarray(leaf[:1]), problems._replace(key=None))
        passes += num_probes(method, ctx, programs.config, jax.eval_shape(checks.with_keys, one, programs.key))
    counted = lowered(ctx.logits, x.shape[1:], x.dtype).cost_analysis() or {}
    return _Work(passes, counted.get("flops", 0.0) / ROWS)


def _seconds(logits: Any, x: Any) -> float:
    """Seconds of a call with eight rows, the fastest of three."""
    points = np.asarray(x[np.resize(np.arange(len(x)), ROWS)])
    jax.block_until_ready(look(logits, points))
    times = []
    for _ in range(_REPEAT):
        begin = time.perf_counter()
        jax.block_until_ready(look(logits, points))
        times.append(time.perf_counter() - begin)
    return min(times)


def _best(cost: Cost, count: int) -> int:
    """Lanes of one device for a list of ``count``, were there memory without end.

    An accelerator at fixed / lane in the thousands would take all of a list at once; but then all wait for the slowest.
    With examples that take up to three times the mean, ``sqrt(count · fixed / 2 lane)`` lanes end first.
    """
    device = _device()
    enough = 20 * cost.fixed / max(cost.lane, 1e-12)
    if jax.default_backend() == "cpu":
        return int(min(max(enough, device.least), _MOST))
    soonest = (count * cost.fixed / max(2 * cost.lane, 1e-12)) ** 0.5
    return int(max(min(enough, soonest), device.least))


def _rounds(count: int, lanes: int) -> int:
    """At most ``lanes``, so that a list of ``count`` takes rounds of about equal size.

    Above 64 lanes there are four sizes in an octave, so that lists of about one length share a compiled program.
    """
    lanes = -(-count // -(-count // max(lanes, 1)))
    if lanes <= FEW:
        return lanes
    step = 1 << (lanes.bit_length() - 3)
    return -(-lanes // step) * step


def _fitting(programs: Programs, problems: Problem, lanes: int, share: int, devices: int) -> int:
    """Half as many lanes until the compiled loop fits into the memory of a device. It is the loop that will run."""
    room = _room() if lanes > FEW else None
    while room is not None and lanes > 1:
        alone = programs.mesh is None and share <= lanes
        needed = programs.batch_memory(problems, lanes) if alone else programs.memory(problems, lanes * devices)
        if needed is None or needed <= room:
            break
        lanes = _rounds(share, lanes // 2)
    return lanes


def _room() -> int | None:
    """Bytes that a run may take: most of what is free on an accelerator, a quarter of the host's memory on a CPU."""
    if jax.default_backend() == "cpu":
        try:
            return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 4
        except (AttributeError, OSError, ValueError):
            return None
    try:
        stats = jax.devices()[0].memory_stats() or {}
    except Exception:  # not every runtime has them
        return None
    limit = stats.get("bytes_limit")
    return None if limit is None else int(0.8 * (limit - stats.get("bytes_in_use", 0)))
