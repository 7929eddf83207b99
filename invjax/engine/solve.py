"""``invjax.solve``: the one public call, for attacks and counterfactuals alike."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh

from invjax.core.config import inwards, typed
from invjax.core.errors import BadArgument, check_key, warn
from invjax.core.host import host_errors
from invjax.core.logits import as_logits_fn
from invjax.core.numerics import strong, wide
from invjax.cpu.convolutions import install_canonical_convolutions
from invjax.engine import checks
from invjax.engine.batch import run_batch
from invjax.engine.confirm import confirm, confirmed, warn_withdrawn
from invjax.engine.evaluate import white_box
from invjax.engine.folder import RunFolder, make_manifest
from invjax.engine.gradients import warn_without_gradient
from invjax.engine.lanes import finish, start
from invjax.engine.layout import automatic
from invjax.engine.progress import progress_bar
from invjax.engine.queue import Part, run_queue, stream
from invjax.types import (
    Array,
    ArrayLike,
    Bounds,
    Config,
    Context,
    Density,
    Evaluator,
    LogitsFn,
    Method,
    Problem,
    Result,
    Status,
)

LANES = 64
_SETTLED = 448  # ended examples that wait to be confirmed together


class Prepared(NamedTuple):
    """Checked and normalised arguments of an executor: ``run_batch(*prepared.batch(), method=prepared.method)``."""

    ctx: Context
    problems: Problem  # leaves [N, ...]; ``key`` None
    config: Config
    method: Method
    key: Array  # []
    single: bool  # one example was given, without the axis [N]

    def batch(self) -> tuple[Context, Problem, Config]:
        """What :func:`run_batch` takes: each problem with its own key."""
        return self.ctx, checks.with_keys(self.problems, self.key), self.config


def method_of(config: Config) -> Method:
    """The method that a configuration belongs to, its constants checked."""
    method = getattr(config, "method", None)
    if isinstance(config, type) or not isinstance(method, Method):
        raise BadArgument("method", "be a method's configuration, e.g. PGD()", config)
    check = getattr(config, "check", None)
    if check is not None and not checks.is_traced(config):
        check()
    return method


def prepare(
    logits: LogitsFn,
    x: ArrayLike,
    label: ArrayLike,
    *,
    method: Config,
    density: Density | None = None,
    space: Any = None,
    key: Array | None = None,
    **problem: Any,
) -> Prepared:
    """Check and normalise the arguments of :func:`solve`, once, for any executor."""
    if jax.default_backend() == "cpu":
        install_canonical_convolutions()
    chosen = method_of(method)
    network = automatic("logits", as_logits_fn(logits))
    problem = {name: automatic(name, value) for name, value in problem.items()}
    label, density, key = automatic("label", label), automatic("density", density), automatic("key", key)
    problems, single = checks.make_problems(network, automatic("x", x), label, space=space, **problem)
    checks.check_unmixed(network, problems)
    dtype = wide(problems.x.dtype)
    config = strong(inwards(typed(method), dtype), dtype)
    _advise(method, problems, space)
    constraints = None if space is None else checks.compile_space(space, problems.x.dtype)
    return Prepared(Context(network, density, constraints), problems, config, chosen, check_key(key), single)


def _advise(config: Config, problems: Problem, space: Any) -> None:
    """A UserWarning with what a configuration has to say (``advice(width of the box)``) about its constants."""
    advice = getattr(config, "advice", None)
    if advice is None or checks.is_traced(config):
        return
    sides = problems.lower, problems.upper
    known = space is None and not checks.is_traced(sides)
    text = advice(float(np.median(np.asarray(sides[1])[0] - np.asarray(sides[0])[0])) if known else None)
    if text is not None:
        warn(text)


@host_errors()
def solve(
    logits: LogitsFn,
    x: ArrayLike,
    label: ArrayLike,
    *,
    method: Config,
    target: ArrayLike | None = None,
    bounds: Bounds | tuple[ArrayLike, ArrayLike] | None = None,
    mask: ArrayLike | None = None,
    groups: ArrayLike | None = None,
    key: Array | None = None,
    ids: ArrayLike | None = None,
    density: Density | None = None,
    space: Any = None,
    evaluator: Evaluator = white_box,
    lanes: int = LANES,
    mesh: Mesh | None = None,
    out: str | Path | None = None,
    name: str = "model",
    progress: bool | None = None,
) -> Result:
    """Find the smallest change that makes the classifier say something else, for one example or a list.

        min_r  h(r) + g(r),   x + r within bounds,   logits(x + r) in the wanted class                            (1)

    Args:
      logits: [B, *S] -> [B, K]. A pytree with the weights as leaves (``LogitsModel``, an nnx.Module) does not compile
        again for new weights; a plain function holds its weights as constants.
      x: [N, *S] clean inputs in the data range, or [*S] with a scalar ``label``. Images are channel-last.
      label: [N] class of each input, int.
      method: the configuration of a method, e.g. ``GSE()`` or ``PGD(eps=8 / 255)``.
      target: [N] wanted class of each input; None for any class but the label.
      bounds: (lower, upper) of the data, each a scalar or [*S]; [0, 1] by default.
      mask: bool, [*S] or [N, *S], True where x may change.
      groups: int, [*S] or [N, *S], for methods that work on given groups of coordinates.
      key: PRNG key. Each example's own key is folded from it and its id: a draw depends on neither batch nor order.
      ids: [N] int, the examples' identities for the keys; by default their positions. Under ``vmap`` every example
        is number 0: pass ids where a method draws random numbers.
      density: a plausibility model, for methods that use one.
      space: a :class:`invjax.constraints.FeatureSpace` (or its compiled form) instead of bounds: what each feature may
        become. An answer that violates it is never returned, whatever the method.
      evaluator: how the network is looked at; the exact gradient by default.
      lanes: how many examples are worked on at once. Memory grows with lanes, not with N.
      mesh: devices to spread the lanes over.
      out: folder in which an interrupted run keeps what it finished, and from which a second call goes on.
      name: what to call the network in that folder (its weights are hashed, its code cannot be).
      progress: show a bar (True, False, or None for only on a terminal).

    Returns:
      Result with leading axis [N] (none for a single example). Failure is data: see ``Result.status``. A method that
      answers with a set of P (DiCE) gives x, delta and attempt as [N, P, *S] and status as [N, P]. Outside of ``jit``
      a UserWarning says where 10 % of the answers or more ended as NO_GRADIENT.

    Under ``jit`` or ``vmap`` everything runs as one compiled loop (``run_batch``); so does a list not longer than
    ``lanes``. Longer lists, a mesh or a folder go through the refilling queue (``run_queue``).

    On CPU the first call installs a process-wide lowering rule for convolutions (:mod:`invjax.cpu.convolutions`).

    Raises:
      ValueError: naming the argument, what it must be and what it was.
    """
    prepared = prepare(
        logits, x, label, method=method, density=density, space=space, key=key, target=target, bounds=bounds,
        mask=mask, groups=groups, ids=ids,
    )  # fmt: skip
    checks.check_lanes(lanes, mesh)
    count = prepared.problems.label.shape[0]
    traced = checks.is_traced(*prepared[:5])
    if traced and (out is not None or mesh is not None):
        name = "mesh" if out is None else "out"
        raise BadArgument(name, "be None under jit and vmap", hint="call solve outside of them")
    if traced or (count <= lanes and out is None and mesh is None and jax.process_count() == 1):
        with host_errors():
            result = run_batch(*prepared.batch(), method=prepared.method, evaluator=evaluator)
            result = confirmed(
                result, prepared.ctx, prepared.problems, prepared.config, method=prepared.method, evaluator=evaluator,
                key=prepared.key,
            )  # fmt: skip
            if not traced:
                warn_without_gradient(result, prepared.method.name)
        return result.rows(0) if prepared.single else result

    options = {"lanes": min(lanes, count) if mesh is None else lanes, "evaluator": evaluator, "mesh": mesh}
    if jax.process_count() > 1 or out is not None:
        result = run_shared(prepared, out=out, name=name, progress=progress, **options)
    else:
        ctx, problems, config, chosen, key, _ = prepared
        with progress_bar(progress, count) as on_part, host_errors():
            result = run_queue(ctx, problems, config, method=chosen, key=key, on_part=on_part, **options)
    warn_without_gradient(result, prepared.method.name)
    return result.rows(0) if prepared.single else result


@host_errors()
def run_shared(
    prepared: Prepared,
    *,
    lanes: int,
    evaluator: Evaluator = white_box,
    mesh: Mesh | None = None,
    out: str | Path | None = None,
    name: str = "model",
    progress: bool | None = None,
    watch: Callable[[Part], None] | None = None,
) -> Result:
    """A run with a folder, or one process of several: each solves every ``process_count``-th example.

    lanes, evaluator, mesh, out, name, progress: as for :func:`solve`. watch: sees each part, as the progress bar does.
    """
    ctx, problems, config, method, key, _ = prepared
    count, process, processes = problems.label.shape[0], jax.process_index(), jax.process_count()
    todo = np.arange(process, count, processes)
    results = _blank(ctx, problems, config, method)
    folder = None
    if out is not None:
        manifest = make_manifest(ctx, problems, config, method, key, name, evaluator=evaluator)
        folder = RunFolder(out, manifest, process)
        saved = folder.load()
        if saved is not None:
            _store(results, *saved)
            todo = np.setdiff1d(todo, saved[0])
    waiting: list[Part] = []  # ended, not confirmed yet
    withdrawn = total = 0

    def settle() -> None:
        nonlocal withdrawn, total
        if not waiting:
            return
        index = np.concatenate([part.index for part in waiting])
        rows = Result(*(np.concatenate(fields) for fields in zip(*(part.result for part in waiting), strict=True)))
        own = jax.tree.map(lambda leaf: np.asarray(leaf)[index], problems)
        rows, wrong, found = confirm(rows, ctx, own, config, method=method, evaluator=evaluator, key=key)
        withdrawn, total = withdrawn + wrong, total + found
        _store(results, index, rows)
        if folder is not None:
            folder.add(index, rows)
        waiting.clear()

    parts = stream(
        ctx, problems, config, method=method, key=key, lanes=lanes, evaluator=evaluator, mesh=mesh, todo=todo
    )
    try:
        with progress_bar(progress, count, start=count - len(todo)) as on_part:
            for part in parts:
                on_part(part)
                if watch is not None:
                    watch(part)
                if len(part.index):
                    waiting.append(part)
                    if sum(len(one.index) for one in waiting) >= _SETTLED or (folder is not None and folder.due):
                        settle()
    finally:  # also on Ctrl-C: what has ended is kept
        settle()
        if folder is not None:
            folder.flush()
    warn_withdrawn(withdrawn, total)
    return _exchange(results) if processes > 1 else results


def _blank(ctx: Context, problems: Problem, config: Config, method: Method) -> Result:
    """All pending: the clean inputs, P times where the method answers with sets of P."""

    def shapes(ctx: Context, problems: Problem, config: Config) -> Result:
        keyed = checks.with_keys(problems, jax.random.key(0))
        return finish(method, ctx, config, keyed, start(method, ctx, config, keyed))

    form = jax.eval_shape(shapes, ctx, problems, config)
    x = np.asarray(problems.x)
    x = np.array(np.broadcast_to(x[:, None] if form.status.ndim == 2 else x, form.x.shape))
    status = np.full(form.status.shape, Status.PENDING, np.int32)
    zeros = np.zeros(len(x), np.int32)
    return Result(x, np.zeros_like(x), status, zeros, zeros.copy(), x.copy())


def _store(results: Result, index: np.ndarray, rows: Result) -> None:
    for field, values in zip(results, rows, strict=True):
        field[index] = values


def _exchange(results: Result) -> Result:
    """Every process's rows, on every process. Row i belongs to process ``i mod process_count``."""
    from jax.experimental import multihost_utils

    processes = jax.process_count()
    owner = np.arange(len(results.status)) % processes
    everyone = multihost_utils.process_allgather(tuple(results))  # each field [processes, N, ...]
    return Result(*(np.asarray(field)[owner, np.arange(len(owner))] for field in everyone))
