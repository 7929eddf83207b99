"""Runs that are shared among processes, and runs whose answers go to a folder: ``run_shared`` and ``run_saved``.

Process i of P solves the examples i, i + P, …; no process waits for another before the end. With a folder every process
writes its answers below it (:mod:`invjax.engine.folder`), and none gathers those of the others.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import jax
import numpy as np
from jax.sharding import Mesh

from invjax.core.files import writing
from invjax.core.host import own_work
from invjax.core.precision import Precision
from invjax.engine import checks
from invjax.engine.choosing import choose
from invjax.engine.confirm import confirm, warn_withdrawn
from invjax.engine.evaluate import white_box
from invjax.engine.folder import PART_BYTES, RunFolder, as_folder, bytes_of
from invjax.engine.lanes import finish, start
from invjax.engine.manifest import functions, keep_later, make_manifest
from invjax.engine.prepared import Prepared
from invjax.engine.programs import Programs
from invjax.engine.progress import count_found, progress_bar
from invjax.engine.queue import Part, in_full_precision, stream
from invjax.engine.saved import SavedRun, open_run
from invjax.types import Config, Context, Evaluator, Problem, Result, Status

_SETTLED = 448  # ended examples that wait to be confirmed together
_LONG_MS = 30 * 24 * 3600 * 1000  # a month: a dead process is noticed by its silence, not by this
Store = Callable[[np.ndarray, Result], None]  # what to do with the answers of some rows [n]


@own_work()
def run_shared(
    prepared: Prepared,
    *,
    lanes: int | Literal["auto"],
    evaluator: Evaluator = white_box,
    mesh: Mesh | None = None,
    precision: Precision | None = None,
    out: str | Path | None = None,
    name: str | None = None,
    progress: bool | None = None,
    watch: Callable[[Part], None] | None = None,
) -> Result:
    """A run with a folder, or one process of several.

    lanes, evaluator, mesh, precision, out, name, progress: as for :func:`solve`. watch: sees each part, as the progress
    bar does.

    Returns all rows [N] on every process. With a folder, process i of P gets only its own, ``result[i::P]`` so to
    speak; the others are on disk. A single example is on every process in any case.
    """
    process, processes = jax.process_index(), jax.process_count()
    results = _blank(prepared)

    def store(index: np.ndarray, rows: Result) -> None:
        mine = index % processes == process
        for name, values in vars(rows).items():
            getattr(results, name)[index[mine] // processes] = values[mine]

    folder = _run(
        prepared, store, lanes=lanes, evaluator=evaluator, mesh=mesh, precision=precision, out=out, name=name,
        progress=progress, watch=watch,
    )  # fmt: skip
    if processes > 1:
        _wait_for_all()
    if processes > 1 and (folder is None or prepared.single):
        return _exchange(results, len(prepared.problems.label))
    return results


@own_work()
def run_saved(
    prepared: Prepared,
    *,
    lanes: int | Literal["auto"],
    out: str | Path,
    evaluator: Evaluator = white_box,
    mesh: Mesh | None = None,
    precision: Precision | None = None,
    name: str | None = None,
    progress: bool | None = None,
    watch: Callable[[Part], None] | None = None,
) -> SavedRun:
    """As :func:`run_shared`, but the answers stay on disk, for lists whose answers do not fit in memory.

    Memory grows with the lanes and by some bytes per example, whatever the size of an example. x may be a memory map
    (``numpy.load(file, mmap_mode="r")``), of which the rows in the lanes alone are copied. When it returns, all rows of
    all processes are written.
    """
    checks.check_evaluator(evaluator)
    out = as_folder("out", out)
    _run(
        prepared, None, lanes=lanes, evaluator=evaluator, mesh=mesh, precision=precision, out=out, name=name,
        progress=progress, watch=watch,
    )  # fmt: skip
    if jax.process_count() > 1:
        _wait_for_all()
    return open_run(out)


def _run(
    prepared: Prepared,
    store: Store | None,
    *,
    lanes: int | Literal["auto"],
    evaluator: Evaluator,
    mesh: Mesh | None,
    precision: Precision | None,
    out: str | Path | None,
    name: str | None,
    progress: bool | None,
    watch: Callable[[Part], None] | None,
) -> RunFolder | None:
    """Solve this process's share, less what the folder has, and hand every answer to the folder and to ``store``."""
    ctx, problems, config, method, key, _ = prepared
    run: dict[str, Any] = {"method": method, "key": key, "evaluator": evaluator}
    count, process, processes = problems.label.shape[0], jax.process_index(), jax.process_count()
    open_rows = np.zeros(count, bool)
    open_rows[process::processes] = True
    own = int(open_rows.sum())
    folder, known = None, 0
    if out is not None:
        manifest = make_manifest(ctx, problems, config, method, key, name, evaluator=evaluator, precision=precision)
        folder = RunFolder(out, manifest, process, processes)
        for index, rows in folder.parts():
            known += count_found(np.asarray(rows.status)[open_rows[index]])
            open_rows[index] = False
            if store is not None:
                store(index, rows)
    todo = np.flatnonzero(open_rows)
    waiting: list[Part] = []  # ended, not confirmed yet
    withdrawn = total = 0

    def settle() -> None:
        nonlocal withdrawn, total
        if not waiting:
            return
        index = np.concatenate([part.index for part in waiting])
        rows = jax.tree.map(lambda *fields: np.concatenate(fields), *(part.result for part in waiting))
        asked = jax.tree.map(lambda leaf: np.asarray(leaf)[index], problems)
        again = in_full_precision(ctx, asked, config, precision=precision, **run)
        rows, wrong, found = confirm(rows, ctx, asked, config, again=again, **run)
        withdrawn, total = withdrawn + wrong, total + found
        if store is not None:
            store(index, rows)
        if folder is not None:
            folder.add(index, rows)
        waiting.clear()

    def full() -> bool:
        few = sum(len(part.index) for part in waiting) < _SETTLED
        return not few or sum(bytes_of(part.result) for part in waiting) >= PART_BYTES

    fit = choose(Programs(ctx, config, key, method, evaluator, mesh, precision), problems, lanes, len(todo))
    if folder is not None and len(todo):
        devices = 1 if mesh is None else mesh.size
        fit = fit._replace(lanes=folder.keep_lanes(fit.lanes, isinstance(lanes, str), devices))
    parts = stream(
        ctx, problems, config, lanes=fit.lanes, mesh=mesh, todo=todo, precision=precision, fixed_s=fit.fixed_s, **run
    )
    try:
        with progress_bar(progress, own, start=own - len(todo), lanes=fit.lanes, found=known) as on_part:
            for part in parts:
                on_part(part)
                if watch is not None:
                    watch(part)
                if len(part.index):
                    waiting.append(part)
                    if full() or (folder is not None and folder.due):
                        settle()
    finally:  # also on Ctrl-C: what has ended is kept
        try:
            settle()
        finally:
            if folder is not None:
                folder.close()
                with writing(folder.folder):
                    keep_later(folder.folder, lambda: functions(ctx, config, method, name, evaluator=evaluator))
    warn_withdrawn(withdrawn, total)
    return folder


def _blank(prepared: Prepared) -> Result:
    """This process's rows, all pending: the clean inputs, P times where the method answers with sets of P."""

    def shapes(ctx: Context, problems: Problem, config: Config) -> Result:
        keyed = checks.with_keys(problems, jax.random.key(0))
        return finish(prepared.method, ctx, config, keyed, start(prepared.method, ctx, config, keyed))

    one = jax.tree.map(lambda leaf: np.asarray(leaf)[:1], prepared.problems)
    form = jax.eval_shape(shapes, prepared.ctx, one, prepared.config)
    x = np.asarray(prepared.problems.x)[jax.process_index() :: jax.process_count()]
    x = np.array(np.broadcast_to(x[:, None] if form.status.ndim == 2 else x, (len(x), *form.x.shape[1:])))
    status = np.full((len(x), *form.status.shape[1:]), Status.PENDING, np.int32)
    zeros = np.zeros(len(x), np.int32)
    return Result(x, np.zeros_like(x), status, zeros, zeros.copy(), x.copy())


def _exchange(own: Result, count: int) -> Result:
    """All ``count`` rows on every process. Row i belongs to process ``i mod process_count``."""
    from jax.experimental import multihost_utils

    each = -(-count // jax.process_count())

    def pad(field: np.ndarray) -> np.ndarray:
        return np.concatenate([field, np.zeros((each - len(field), *field.shape[1:]), field.dtype)])

    def in_order(field: Any) -> np.ndarray:
        return np.moveaxis(np.asarray(field), 0, 1).reshape(-1, *field.shape[2:])[:count]

    everyone = multihost_utils.process_allgather(jax.tree.map(pad, own))  # each field [processes, each, ...]
    return jax.tree.map(in_order, everyone)


_waits = itertools.count()


def _wait_for_all() -> None:
    """Until every process has come here, however long it takes.

    One that ended before the others would take them with it, and a collective operation on CPU fails where one process
    is half a minute late. jax's coordination service waits as long as it is told, but has no public name.
    """
    from jax._src import distributed
    from jax.experimental import multihost_utils

    client, name = getattr(distributed.global_state, "client", None), f"invjax-{next(_waits)}"
    if client is not None and hasattr(client, "wait_at_barrier"):
        client.wait_at_barrier(name, timeout_in_ms=_LONG_MS)
    else:
        multihost_utils.sync_global_devices(name)
