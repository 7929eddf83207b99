"""``invjax.solve``: the one public call, for attacks and counterfactuals alike."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import jax
import numpy as np
from jax.sharding import Mesh

from invjax.core.arguments import kinds_checked
from invjax.core.config import inwards, typed
from invjax.core.density import check_density
from invjax.core.errors import BadArgument, check_key, warn
from invjax.core.host import own_work
from invjax.core.layout import automatic
from invjax.core.logits import as_logits_fn, num_classes
from invjax.core.numerics import strong, wide
from invjax.core.precision import Precision, check_precision, products_at
from invjax.core.remedies import for_method
from invjax.cpu.convolutions import install_canonical_convolutions
from invjax.engine import checks
from invjax.engine.batch import run_batch
from invjax.engine.choosing import check_lanes, choose, crews_pay
from invjax.engine.confirm import confirmed
from invjax.engine.evaluate import white_box
from invjax.engine.gradients import warn_without_gradient
from invjax.engine.prepared import Prepared
from invjax.engine.programs import Programs
from invjax.engine.progress import progress_bar
from invjax.engine.queue import in_full_precision, run_queue
from invjax.engine.shared import run_shared
from invjax.types import (
    UNTARGETED,
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
    Values,
)


def method_of(config: Config) -> Method:
    """The method that a configuration belongs to, its constants checked."""
    check = getattr(config, "check", None)
    if check is not None and not isinstance(config, type) and not checks.is_traced(config):
        check()  # first: the method itself may depend on a constant
    method = getattr(config, "method", None)
    if isinstance(config, type) or not isinstance(method, Method):
        raise BadArgument("method", "be a method's configuration, e.g. PGD()", config, hint=for_method(config))
    return method


@kinds_checked
@own_work()
def prepare(
    logits: LogitsFn,
    x: Values,
    label: Values,
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
    _check_density(density, method, network, problems)
    dtype = wide(problems.x.dtype)
    config = strong(inwards(typed(method), dtype), dtype)
    _advise(method, problems, space)
    constraints = None if space is None else checks.compile_space(space, problems.x.dtype)
    return Prepared(Context(network, density, constraints), problems, config, chosen, check_key(key), single)


def _check_density(density: Any, config: Config, network: LogitsFn, problems: Problem) -> None:
    """Raise BadArgument unless the density fits the points and knows the classes that may be wanted."""
    if checks.is_traced(density, config, problems):
        return
    if density is None:
        if getattr(config, "wants_density", False):
            hint = "fit_kde(x, y) makes one, and tau=0 asks for none"
            raise BadArgument("density", "be given where tau > 0", None, hint=hint)
        return
    shape, dtype, labels = problems.x.shape[1:], problems.x.dtype, np.asarray(problems.target)
    if np.any(labels == UNTARGETED):
        labels = np.arange(num_classes(network, shape, dtype))
    check_density(density, shape, dtype, labels)


_prepare: Callable[..., Prepared] = inspect.unwrap(prepare)  # for ``solve``, which is a door itself


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


@kinds_checked
@own_work()
def solve(
    logits: LogitsFn,
    x: Values,
    label: Values,
    *,
    method: Config,
    target: Values | None = None,
    bounds: Bounds | tuple[ArrayLike, ArrayLike] | None = None,
    mask: Values | None = None,
    groups: Values | None = None,
    key: Array | None = None,
    ids: Values | None = None,
    density: Density | None = None,
    space: Any = None,
    evaluator: Evaluator = white_box,
    lanes: int | Literal["auto"] = "auto",
    mesh: Mesh | None = None,
    precision: Precision | None = None,
    out: str | Path | None = None,
    name: str | None = None,
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
      lanes: how many examples are worked on at once, or "auto": as many as this device needs to be busy with them, in
        rounds of equal size, as far as its memory allows (:mod:`invjax.engine.choosing`). Memory grows with lanes, not
        with N.
      mesh: devices to spread the lanes over.
      precision: of products of float32 numbers in the run, one of jax's names ("highest", "bfloat16", …); None leaves
        what jax does by default: TF32 on newer GPUs, bfloat16 on TPUs. Answers are judged in full float32 in any case,
        outside of ``jit``; a row whose answer does not hold there is solved again in it.
      out: folder in which an interrupted run keeps what it finished, and from which a second call goes on. With several
        processes nothing is gathered then: see Returns.
      name: what to call the network in that folder. It is needed where a function cannot be told from another by its
        code and what it holds (a model of a C library, an open file): the name then stands for it.
      progress: show a bar (True, False, or None for on a terminal and in a notebook).

    Returns:
      Result with leading axis [N] (none for a single example). Failure is data: see ``Result.status``. A method that
      answers with a set of P (DiCE) gives x, delta and attempt as [N, P, *S] and status as [N, P]. Outside of ``jit``
      a UserWarning says where 10 % of the answers or more ended as NO_GRADIENT.
      Of P processes without ``out`` each gets all N. With ``out`` process i gets its own rows i, i + P, … alone, and
      all N are on disk when it returns: :func:`open_run` reads them.

    Under ``jit`` or ``vmap`` everything runs as one compiled loop (``run_batch``); so does a list not longer than
    ``lanes``, unless several loops at once pay (:mod:`invjax.engine.crews`). Longer lists, a mesh or a folder go
    through the refilling queue (``run_queue``).

    On CPU the first call installs a process-wide lowering rule for convolutions (:mod:`invjax.cpu.convolutions`).

    Raises:
      ValueError: naming the argument, what it must be and what it was.
    """
    prepared = _prepare(
        logits, x, label, method=method, density=density, space=space, key=key, target=target, bounds=bounds,
        mask=mask, groups=groups, ids=ids,
    )  # fmt: skip
    check_lanes(lanes, mesh)
    checks.check_evaluator(evaluator)
    check_precision(precision)
    ctx, problems, config, chosen, key, _ = prepared
    count = problems.label.shape[0]
    traced = checks.is_traced(*prepared[:5])
    if traced and (out is not None or mesh is not None):
        name = "mesh" if out is None else "out"
        raise BadArgument(name, "be None under jit and vmap", hint="call solve outside of them")
    if traced:
        with products_at(precision):
            result = run_batch(*prepared.batch(), method=chosen, evaluator=evaluator)
    elif jax.process_count() > 1 or out is not None:
        result = run_shared(
            prepared, lanes=lanes, evaluator=evaluator, mesh=mesh, precision=precision, out=out, name=name,
            progress=progress,
        )  # fmt: skip
    else:
        programs = Programs(ctx, config, key, chosen, evaluator, mesh, precision)
        fit = choose(programs, problems, lanes)
        if count <= fit.lanes and mesh is None and not crews_pay(programs, problems, fit.lanes):
            result = _at_once(programs, problems, fit.lanes if lanes == "auto" else count)
        else:
            with progress_bar(progress, count, lanes=fit.lanes) as on_part:
                result = run_queue(
                    ctx, problems, config, method=chosen, key=key, lanes=fit.lanes, evaluator=evaluator,
                    mesh=mesh, on_part=on_part, precision=precision, fixed_s=fit.fixed_s,
                )  # fmt: skip
    if not traced:
        warn_without_gradient(result, chosen.name)
    return result[0] if prepared.single else result


def _at_once(programs: Programs, problems: Problem, lanes: int) -> Result:
    """A list in one compiled loop, filled up to ``lanes`` with rows of its own, so that few lengths are compiled."""
    ctx, config, key, method, evaluator, _, precision = programs
    count = problems.label.shape[0]
    rows = problems if lanes == count else jax.tree.map(lambda leaf: leaf[np.resize(np.arange(count), lanes)], problems)
    with products_at(precision):
        result = run_batch(ctx, checks.with_keys(rows, key), config, method=method, evaluator=evaluator)
    result = jax.tree.map(lambda field: field[:count], result)
    run = {"method": method, "key": key, "evaluator": evaluator}
    again = in_full_precision(ctx, problems, config, precision=precision, **run)
    return confirmed(result, ctx, problems, config, again=again, **run)
