"""Host-side checks: every bad argument is a ``BadArgument``, which names it, says what it must be and what it was.

Compiled code never raises; under ``jit``/``vmap`` (tracers) only shapes and dtypes can be checked here.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.sharding import Mesh

from invjax.core.errors import BadArgument, Words, check_entries, check_key, check_whole, of_shape, warn
from invjax.core.images import check_floats
from invjax.core.labels import whole_numbers
from invjax.core.logits import num_classes
from invjax.core.mixing import check_network
from invjax.core.remedies import for_mask, for_no_classes, for_values
from invjax.types import UNTARGETED, Array, LogitsFn, Problem

_BLOCK = 2**20  # entries that are checked at once
_SEEN = 64  # examples that a hint is based on


def is_traced(*trees: Any) -> bool:
    """True if any leaf is a tracer, i.e. its value is not known yet."""
    return any(isinstance(leaf, Tracer) for leaf in jax.tree.leaves(trees))


def check_evaluator(evaluator: Any) -> None:
    """Raise unless ``evaluator`` can be called as the engine calls it (:class:`invjax.types.Evaluator`)."""
    wanted = "be invjax.engine.white_box, antithetic(...), surrogate(...), or a function with their six arguments"
    if isinstance(evaluator, type) or not callable(evaluator):
        raise BadArgument("evaluator", wanted, evaluator)
    if str(getattr(evaluator, "__module__", "")).startswith("invjax."):
        return
    call = evaluator if inspect.isroutine(evaluator) else evaluator.__call__  # inspect takes a static one for a method
    try:
        inspect.signature(call).bind(*[None] * 6)
    except TypeError as error:
        raise BadArgument("evaluator", wanted, evaluator, hint=str(error)) from None
    except ValueError:
        return  # nothing is known about its arguments


def check_lanes(lanes: Any, mesh: Any) -> None:
    """Raise unless ``lanes`` is a number of lanes that the devices of this process can share."""
    check_whole("lanes", lanes)
    if mesh is None:
        return
    if not isinstance(mesh, Mesh):
        raise BadArgument("mesh", 'be a jax.sharding.Mesh, such as jax.make_mesh((2,), ("lanes",))', mesh)
    if lanes % mesh.size:
        raise BadArgument("lanes", f"be a multiple of the {mesh.size} devices of the mesh", lanes)
    if any(device.process_index != jax.process_index() for device in mesh.devices.flat):
        why = "processes share the list of examples, not their devices"
        raise BadArgument("mesh", "hold devices of this process alone (jax.local_devices())", mesh, hint=why)


def _per_example(name: str, value: Any, count: int, what: str = "integers") -> np.ndarray | Array:
    """Integers [N], one per example; of a single example also []."""
    value = value if is_traced(value) else _array(name, value)
    if isinstance(value, np.ndarray) and value.dtype.kind in "OSUMm":
        try:
            value = whole_numbers(name, value, f"be {what}")  # names the first entry that is none
        except BadArgument as error:
            raise BadArgument(name, error.wanted, error.was, error.index, hint=for_no_classes(value)) from None
    if not jnp.issubdtype(value.dtype, jnp.integer):
        hint = None if is_traced(value) else for_no_classes(value)
        raise BadArgument(name, f"be {what}", value.dtype, hint=hint)
    if value.shape != (count,) and (value.shape, count) != ((), 1):
        hint = f"np.full({count}, {name}) gives all the same" if value.ndim == 0 else None
        if value.ndim > 1 and not is_traced(value):
            hint = for_no_classes(value)
        elif value.shape == (1,) and name == "label":
            hint = "a single example is x[None], with the label in a list"
        raise BadArgument(name, f"have one entry per example, shape ({count},)", of_shape(value.shape), hint=hint)
    return value.reshape(count)


def check_labels(name: str, value: Any, count: int, classes: int) -> np.ndarray | Array:
    """Class indices [N] as int32."""
    value = _per_example(name, value, count, "integer class indices")
    if isinstance(value, np.ndarray):
        from_one = value.min() == 1 and value.max() == classes
        hint = "the first class is 0: subtract 1" if from_one else None
        wanted = f"lie in [0, {classes}), the classes of logits"
        check_entries(name, value, (value < 0) | (value >= classes), wanted, hint)
    return value.astype(np.int32)


def _check_ids(ids: Any, count: int) -> np.ndarray | Array:
    """Identities [N] as int32; any int32, negative ones too."""
    ids, kept = _per_example("ids", ids, count), np.iinfo(np.int32)
    if isinstance(ids, np.ndarray):
        check_entries("ids", ids, (ids < kept.min) | (ids > kept.max), f"lie in [{kept.min}, {kept.max}]")
    return ids.astype(np.int32)


def _bounds(bounds: Any, shape: tuple[int, ...], dtype: Any) -> tuple[Any, Any]:
    try:
        lower, upper = bounds
    except (TypeError, ValueError):
        raise BadArgument("bounds", "be a pair (lower, upper)", bounds) from None
    sides = []
    for name, side in (("bounds lower", lower), ("bounds upper", upper)):
        side = side if is_traced(side) else np.asarray(side, dtype)
        if side.ndim and side.shape != shape:
            raise BadArgument(name, f"be a scalar or of shape {shape}", of_shape(side.shape))
        if not is_traced(side) and not np.isfinite(side).all():
            raise BadArgument(name, "be finite", side[~np.isfinite(side)][0])
        sides.append(side)
    if not is_traced(sides):
        if not np.all(sides[0] <= sides[1]):
            raise BadArgument("bounds", "have lower <= upper everywhere", bounds)
        if not np.any(sides[0] < sides[1]):
            raise BadArgument("bounds", "leave room to move (lower < upper somewhere)", bounds)
    return sides[0], sides[1]


def compile_space(space: Any, dtype: Any) -> Any:
    """A FeatureSpace in its compiled form, which passes as it is."""
    from invjax.constraints.space import FeatureSpace, check_space  # ``import invjax`` does without it

    space = check_space(space, compiled=True)
    return space.compile(dtype) if isinstance(space, FeatureSpace) else space


@jax.jit
def _row_limits(constraints: Any, x: Array) -> tuple[Array, Array]:
    return jax.vmap(constraints.limits)(x)


def _limits(space: Any, x: Any) -> tuple[Any, Any]:
    """What each row's columns may become: lower and upper [N, D]."""
    constraints = compile_space(space, x.dtype)
    if x.shape[1:] != (constraints.width,):
        raise BadArgument("x", f"have the {constraints.width} columns of the space, [N, D]", of_shape(x.shape))
    sides = _row_limits(constraints, x)
    return sides if is_traced(sides) else tuple(np.asarray(side) for side in sides)  # type: ignore[return-value]


def _spread(name: str, value: Any, count: int, shape: tuple[int, ...], kinds: str) -> Any:
    """An array of shape [*S], or [N, *S], as [N, *S] without a copy."""
    if value is None:
        return None
    value = value if is_traced(value) else np.asarray(value)
    if np.dtype(value.dtype).kind not in kinds:
        hint = f"{name}.astype({'bool' if kinds == 'b' else 'int'})"
        raise BadArgument(name, f"be {'bool' if kinds == 'b' else 'integer'}", value.dtype, hint=hint)
    if value.shape not in (shape, (count, *shape)):
        hint = for_mask(value, shape)
        raise BadArgument(name, f"have shape {shape} or {(count, *shape)}", Words(value.shape), hint=hint)
    broadcast = jnp.broadcast_to if is_traced(value) else np.broadcast_to
    return broadcast(value, (count, *shape))


def _warn_of_units(values: np.ndarray, lower: Any, upper: Any) -> None:
    """A UserWarning where images in [0, 1] come with the bounds of pixels, which leave them all the room to 255."""
    pixels = np.ndim(lower) == np.ndim(upper) == 0 and (lower, upper) == (0, 255)
    if pixels and values.ndim == 4 and values[:_SEEN].max() <= 1 and values.max() <= 1:
        warn("bounds are (0, 255), but x lies in [0, 1]: leave them out, or give pixels")


def _check_rows(name: str, values: np.ndarray, bad: Callable[[np.ndarray], np.ndarray], wanted: str) -> None:
    """:func:`check_entries` of [N, *S], a block of rows at a time: a list on disk never stands in memory."""
    each = max(1, _BLOCK // max(1, values[0].size))
    for begin in range(0, len(values), each):
        wrong = bad(values[begin : begin + each])
        if wrong.any():
            first, *rest = np.argwhere(wrong)[0].tolist()
            at = (begin + first, *rest)
            raise BadArgument(name, wanted, values[at], at)


def _array(name: str, value: Any) -> np.ndarray:
    try:
        return np.asarray(value)
    except ValueError as error:  # rows of unequal length
        raise BadArgument(name, "be an array, or rows of equal shape", Words(f"a {type(value).__name__}")) from error


def make_problems(
    logits: LogitsFn,
    x: Any,
    label: Any,
    *,
    target: Any = None,
    bounds: Any = None,
    mask: Any = None,
    groups: Any = None,
    ids: Any = None,
    space: Any = None,
) -> tuple[Problem, bool]:
    """Checked problems with leading axis [N] (``key`` still None), and whether a single example was given.

    A scalar ``label`` means one example: x is [*S]. Otherwise x is [N, *S].
    """
    traced_x = is_traced(x)
    x = x if isinstance(x, jax.Array) else _array("x", x)
    if label is None:
        raise BadArgument("label", "be the class of each example (if need be, the one the network gives it)", None)
    label = label if hasattr(label, "ndim") else _array("label", label)
    single = label.ndim == 0
    if single:
        x = x[None]
    if x.ndim < 2 or x.shape[0] == 0 or 0 in x.shape:
        raise BadArgument("x", "hold at least one example, [N, *S] with N >= 1", of_shape(x.shape))
    count, shape = x.shape[0], x.shape[1:]
    if space is not None and not jnp.issubdtype(x.dtype, jnp.floating):
        raise BadArgument(
            "x", "be rows as the model takes them, floats", x.dtype, hint="space.encode(table) makes them"
        )
    check_floats(x.dtype, "x", (0.0, 1.0) if bounds is None else bounds)
    dtype = jax.dtypes.canonicalize_dtype(x.dtype)
    x = x if x.dtype == dtype else x.astype(dtype)
    if space is not None and jnp.finfo(dtype).bits < 32:
        raise BadArgument("x", "be float32 or float64 with a space", dtype, hint="16 bits do not hold a table's cells")
    if space is not None and bounds is not None:
        raise BadArgument("bounds", "be None where a space is given", hint="the space has its own ranges")
    bounds = (0.0, 1.0) if bounds is None else bounds
    lower, upper = _bounds(bounds, shape, dtype) if space is None else _limits(space, x)

    if not single and label.ndim == 1 and len(label) != count:
        check_labels("label", label, count, len(label))  # before the network is asked in a shape that nobody meant
    try:
        classes = num_classes(logits, shape, dtype)
    except BadArgument as error:
        if not single or error.__cause__ is None:
            raise
        hint = "a scalar label means one example: give N examples N labels"
        raise BadArgument(error.name, error.wanted, error.was, hint=f"{error.hint}; {hint}") from error
    label = check_labels("label", label, count, classes)
    if target is None:
        target = np.full(count, UNTARGETED, np.int32)
    else:
        target = check_labels("target", target, count, classes)
        if not is_traced(label, target):
            same = np.asarray(label) == np.asarray(target)
            check_entries("target", target, same, "differ from label", "target=None takes any other class")

    if not traced_x:
        values = np.asarray(x)
        _check_rows("x", values, lambda rows: ~np.isfinite(rows), "be finite")
        if space is None and not is_traced(lower, upper):
            outside = f"lie within bounds {bounds!r}"
            try:
                _check_rows("x", values, lambda rows: (rows < lower) | (rows > upper), outside)
            except BadArgument as error:
                first = error.index[0]  # a list on disk never stands in memory
                error.hint = for_values(np.asarray(values[first : first + _SEEN]), lower, upper)
                raise
            _warn_of_units(values, lower, upper)

    mask = _spread("mask", mask, count, shape, "b")
    if isinstance(mask, np.ndarray):
        empty = ~mask.any(axis=tuple(range(1, mask.ndim)))
        if empty.any():
            raise BadArgument("mask", "leave at least one coordinate free", Words("empty"), int(np.argmax(empty)))
    groups = _spread("groups", groups, count, shape, "iu")
    if isinstance(groups, np.ndarray):
        size = int(np.prod(shape))
        wanted = f"hold labels in [0, {size}), as many as x has features"
        _check_rows("groups", groups, lambda rows: (rows < 0) | (rows >= size), wanted)
    ids = np.arange(count, dtype=np.int32) if ids is None else _check_ids(ids, count)

    def per_example(side: Any) -> Any:
        if space is not None:  # each row has its own limits; and a masked column has none to go to
            where = jnp.where if is_traced(side, mask, x) else np.where
            return side if mask is None else where(mask, side, x)
        broadcast = jnp.broadcast_to if is_traced(side) else np.broadcast_to
        return broadcast(side, (count, *side.shape))

    problem = Problem(x, label, target, per_example(lower), per_example(upper), mask, groups, None, ids)  # type: ignore[arg-type]
    return problem, single


def check_unmixed(logits: LogitsFn, problems: Problem, name: str = "logits") -> None:
    """Raise where the network mixes the examples of a batch (:mod:`invjax.core.mixing`); traced ones are not asked."""
    if not is_traced(logits, problems):
        check_network(logits, problems.x, problems.lower, problems.upper, name)


def with_keys(problems: Problem, key: Array) -> Problem:
    """Each example's own key: ``fold_in(key, id)``, whatever its lane, its batch, its device or the key's kind."""
    return problems._replace(key=jax.vmap(jax.random.fold_in, (None, 0))(check_key(key), jnp.asarray(problems.id)))
