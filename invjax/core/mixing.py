"""Does a network mix the examples of its batch? Asked once for each network, with the user's own rows.

The engine works on many examples at once and believes what it sees: the logits of a row must not depend on the rows
beside it (batch statistics do) nor on its place in the batch (noise of a fixed key does). So the network is asked for
the same rows twice, in other places and among other rows, and all logits are compared.

Every question about a network goes through :func:`look` on batches of ``ROWS`` rows. It is the only program that these
checks compile, whatever the method, the lanes and the length of the list.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from invjax.core.errors import BadArgument, Words, warn
from invjax.core.labels import NO_CLASS, classes_of
from invjax.core.precision import judging
from invjax.types import Array, LogitsFn

ROWS = 8  # rows of each question: few, because a question is asked with at least so many
OWN = 4  # of the six rows compared, those that are the user's
_FIRST = np.array([0, 1, 2, 3, 4, 5, 0, 1])  # which of the six stand where
_SECOND = np.array([5, 4, 3, 2, 1, 0, 5, 4])  # each in another place, and other ones twice: another mean of the batch


@jax.jit
def _look(logits: LogitsFn, x: Array) -> Array:
    return logits(x)


def look(logits: LogitsFn, x: Any) -> Array:
    """The network as it is: [B, *S] -> [B, K], in full float32 also where products are rounded by default."""
    with judging():
        return _look(logits, x)


def shape_of(logits: LogitsFn, shape: tuple[int, ...], dtype: Any) -> Any:
    """Shape and dtype of what :func:`look` gives; the program is traced, not run."""
    with judging():
        return _look.eval_shape(logits, jax.ShapeDtypeStruct((ROWS, *shape), dtype))


def _program(logits: LogitsFn, shape: tuple[int, ...], dtype: Any) -> Any:
    """What :func:`look` traces, which is not run."""
    with judging():
        return _look.trace(logits, jax.ShapeDtypeStruct((ROWS, *shape), dtype))


def lowered(logits: LogitsFn, shape: tuple[int, ...], dtype: Any) -> Any:
    """The program of ``ROWS`` rows before the compiler has seen it: its ``cost_analysis()`` counts operations."""
    return _program(logits, shape, dtype).lower()


_traced = 0  # how often _mark was


@jax.jit
def _mark(logits: LogitsFn, x: Array) -> Array:
    global _traced
    _traced += 1
    return jnp.zeros(())


def is_new(logits: LogitsFn, shape: tuple[int, ...], dtype: Any) -> bool:
    """Whether this is the first question about a network of this structure at inputs of this shape.

    It is remembered by jax itself, beside the compiled programs and under their key: the structure with its static
    parts (a plain function by its identity), shapes and dtypes. So new weights are nothing new, and nothing is kept
    alive that the programs do not keep; ``jax.clear_caches()`` forgets both.
    """
    before = _traced
    _mark.eval_shape(logits, jax.ShapeDtypeStruct((ROWS, *shape), dtype))
    return _traced > before


class Traits(NamedTuple):
    """What the program of a network shows."""

    calls_host: bool  # it is a black box, or has one inside: each row is a query that may cost something
    rounding: float  # how far the same row may differ between two batches, as a share of the largest logit


def traits(logits: LogitsFn, shape: tuple[int, ...], dtype: Any) -> Traits:
    """Read off the traced program, which is not run. It is the one that :func:`look` compiles."""
    return traits_of(_program(logits, shape, dtype).jaxpr)


def traits_of(program: Any) -> Traits:
    """The traits of a traced program."""
    calls, eps = False, 0.0
    for equation in _equations(program):
        calls |= "callback" in equation.primitive.name
        for out in equation.outvars:
            dtype = getattr(out.aval, "dtype", None)
            if dtype is not None and jnp.issubdtype(dtype, jnp.floating):
                eps = max(eps, float(jnp.finfo(dtype).eps))
    # Other batches round differently: by about 1e-6, a bfloat16 network by 1e-2. Mixed examples differ by order one.
    return Traits(calls, max(2e-3, 4 * eps))


def _equations(program: Any) -> Iterator[Any]:
    program = getattr(program, "jaxpr", program)
    for equation in program.eqns:
        yield equation
        for value in equation.params.values():
            for one in value if isinstance(value, list | tuple) else (value,):
                if hasattr(one, "eqns") or hasattr(one, "jaxpr"):
                    yield from _equations(one)


def staging() -> bool:
    """Whether jax is writing down a program (``jit``, ``scan``): then nothing can be computed now."""
    return isinstance(jnp.zeros(()), Tracer)


def six_rows(x: Any, lower: Any, upper: Any) -> np.ndarray:
    """Four rows of x [N, *S] from all over the list, and two as far from them as the box [N, *S] (or []) allows.

    The far ones are all bright beside a dark example, or all dark: the mean over the batch moves however alike the
    user's rows are. Between them and the other side of the box there is some noise, so that they are not constant.
    """
    x = np.asarray(x)
    own = x[np.linspace(0, len(x) - 1, OWN).round().astype(int)]
    row = x[0].astype(np.float64)
    lower, upper = (np.broadcast_to(np.asarray(side[0] if np.ndim(side) else side, float), row.shape)
                    for side in (lower, upper))  # fmt: skip
    lower, upper = np.where(np.isfinite(lower), lower, row - 1), np.where(np.isfinite(upper), upper, row + 1)
    near, far = (lower, upper) if (row - lower).mean() < (upper - row).mean() else (upper, lower)
    noise = np.random.default_rng(1).uniform(size=(2, *row.shape))
    return np.concatenate([own, np.clip(far + 0.2 * noise * (near - far), lower, upper).astype(x.dtype)])


def check_unmixed(logits: LogitsFn, rows: np.ndarray, name: str = "logits") -> None:
    """Raise BadArgument, about ``name``, where the logits of a row depend on its place or on the rows beside it.

    rows: those of :func:`six_rows`. Two calls of the network. Outputs that are no logits are named in a warning.
    """
    outs = []
    try:
        for order in (_FIRST, _SECOND):
            outs.append(np.asarray(look(logits, rows[order])))
    except Exception as error:
        if type(error).__name__ != "TraceContextError":
            raise
        # flax's word for a module captured by a function, which updates its statistics when it is called.
        hint = "is BatchNorm in eval mode? Give the nnx.Module itself rather than a function around it"
        raise BadArgument(name, "not change its own state when called", hint=hint) from error
    if any(out.ndim != 2 or len(out) != ROWS for out in outs):
        gave = f"{(ROWS, *rows.shape[1:])} gave {outs[0].shape}"
        raise BadArgument(name, "map [B, *S] to logits [B, K]", hint=gave)
    alone = outs[0][: len(rows)].astype(np.float64)  # one answer for each of the rows
    tolerance = traits(logits, rows.shape[1:], rows.dtype).rounding * largest(alone)
    for order, out in zip((_FIRST, _SECOND), outs, strict=True):
        apart = _apart(out.astype(np.float64), alone[order])
        if apart.max(initial=0.0) > tolerance:
            why = f"logits of one input in two batches differ by {apart.max():.3g}"
            hint = f"{why}; is BatchNorm in eval mode? Is there noise inside?"
            raise BadArgument(name, "not mix the examples of a batch", hint=hint)
    said = unlike_logits(alone, rows)
    if said:
        warn(f"{name}: {said}")


def check_network(logits: LogitsFn, x: Any, lower: Any, upper: Any, name: str = "logits") -> None:
    """:func:`check_unmixed` with rows of the list x [N, *S], at the first call with a network of this structure.

    Not inside a traced program, where nothing can be computed; and not of a black box, whose every row is a query.
    """
    if staging() or not is_new(logits, x.shape[1:], x.dtype):
        return
    try:
        if not traits(logits, x.shape[1:], x.dtype).calls_host:
            check_unmixed(logits, six_rows(x, lower, upper), name)
    except BaseException:
        _mark.clear_cache()  # type: ignore[attr-defined]  # ask again next time
        raise


def check_names_classes(logits: LogitsFn, x: Any, name: str = "logits") -> None:
    """Raise BadArgument, about ``name``, where a network names no class for any of the first rows of x [N, *S].

    Its weights are then those of a training that diverged, or of another network: no work on it has a meaning.
    """
    few = min(ROWS, len(x))
    said = classes_of(np.asarray(look(logits, x[np.resize(np.arange(few), ROWS)])).astype(np.float32))
    if (said == NO_CLASS).all():
        was = Words(f"NaN for each of the first {few} inputs")
        raise BadArgument(name, "give finite logits", was, hint="are its weights those of a training that diverged?")


def _apart(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """|a − b|, 0 where both are the same infinity or NaN, infinity where only one is finite."""
    with np.errstate(invalid="ignore"):
        apart = np.where((a == b) | (np.isnan(a) & np.isnan(b)), 0.0, np.abs(a - b))
    return np.where(np.isnan(apart), np.inf, apart)


def largest(logits: np.ndarray) -> float:
    """The largest finite magnitude."""
    return float(np.max(np.abs(logits), where=np.isfinite(logits), initial=1e-6))


def unlike_logits(out: np.ndarray, x: np.ndarray | None = None) -> str | None:
    """What outputs [B, K] of inputs [B, *S] look like, if not like logits: probabilities, classes or rounded scores.

    One row may add up to 1 by chance, so two different ones are needed. Scores may be whole numbers where the inputs
    are, so that nothing is said of rounding without inputs that are not.
    """
    out = np.asarray(out, np.float64)
    if len(np.unique(out, axis=0)) < 2 or not np.isfinite(out).all():
        return None
    shares = out.min() >= 0 and out.max() <= 1 and np.allclose(out.sum(1), 1, rtol=0, atol=1e-3)
    whole = bool((out == np.round(out)).all())
    if shares and not whole:
        return (
            "the outputs look like probabilities (all in [0, 1], each row adding up to 1). Give logits or log "
            "probabilities: losses take a softmax of what they get, and sure probabilities have no gradient"
        )
    if whole and (shares or (x is not None and (x != np.round(x)).any())):
        what = "classes (0 and 1 alone)" if shares else "rounded scores (whole numbers alone)"
        return f"the outputs look like {what}. They have no gradient: give logits, or take a method by queries"
    return None
