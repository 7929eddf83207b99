"""Configurations of methods: frozen dataclasses whose numbers are traced and whose choices are static."""

from __future__ import annotations

import dataclasses
import functools
import inspect
import math
import sys
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Literal, TypeVar, dataclass_transform, get_args, get_origin

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from invjax.core.balls import rounded_down
from invjax.core.errors import MOST, BadArgument, check, check_choice, unknown_name
from invjax.core.meant import init_explained
from invjax.core.shown import short_repr

C = TypeVar("C", bound=type)
F = TypeVar("F", bound=Callable[..., Any])


# Metadata of a field that shapes the program (a function, a name, an int of a shape): a new value compiles anew.
STATIC = {"static": True}
# Metadata of a float that may be infinite. Others are finite, unless their default is infinite.
OPEN = {"open": True}


@dataclass_transform(frozen_default=True, field_specifiers=(dataclasses.field,))
def config(cls: C) -> C:
    """Make ``cls`` a frozen dataclass and a pytree: a new value of a leaf never compiles, of a static field it does.

    Its ``check()``, which the class may define for the ranges of its constants, also asks the kind that each field is
    declared with: a ``float`` is a finite number (:data:`OPEN`: or infinite), an ``int`` is whole and fits into 32
    bits, a ``bool`` is True or False, a ``str`` is text, a ``Literal`` is one of its names. Fields of other types are
    the class's own matter.

    A class attribute ``RENAMED: ClassVar = {"old": "new"}`` names constants that were called otherwise: the old name
    is an error that gives the new one.
    """
    if "__repr__" not in vars(cls):
        cls.__repr__ = short_repr  # type: ignore[method-assign]
    made: Any = jax.tree_util.register_dataclass(dataclasses.dataclass(frozen=True)(cls))
    ranges = getattr(made, "check", None)

    def check(self: Any) -> None:
        if ranges is not None:
            ranges(self)
        typed(self)

    made.check = check
    renamed = getattr(made, "RENAMED", {})
    if not any("__call__" in vars(kind) for kind in made.__mro__):
        made.__call__ = _not_called
    made.__init__ = init_explained(made, lambda given: refuse_renamed(given, renamed, f"{made.__name__}."))
    return made


def _not_called(self: Any, *args: Any, **options: Any) -> None:
    """Other libraries call their attacks."""
    name = type(self).__name__
    runs = f"; invjax.solve(model, x, label, method={name}(...)) runs it" if hasattr(type(self), "method") else ""
    raise TypeError(f"{name!r} object is not callable{runs}")


def refuse_renamed(arguments: Iterable[str], renamed: Mapping[str, str], owner: str = "") -> None:
    """Raise BadArgument about an argument that was called otherwise: it gives the new name."""
    for old in arguments:
        if old in renamed:
            raise BadArgument(f"{owner}{old}", f"be given by its new name, {renamed[old]}")


def refuse_old_names(renamed: Mapping[str, str]) -> Callable[[F], F]:
    """Decorate a function whose keywords were called otherwise: an old name is an error that gives the new one."""

    def decorate(function: F) -> F:
        @functools.wraps(function)
        def checked(*args: Any, **arguments: Any) -> Any:
            refuse_renamed(arguments, renamed)
            return function(*args, **arguments)

        return checked  # type: ignore[return-value]

    return decorate


def require(owner: object, name: str, ok: Callable[[Any], bool], what: str) -> None:
    """Raise BadArgument unless the field ``name`` of ``owner`` fulfils ``ok``; what: read after "must be"."""
    check(f"{type(owner).__name__}.{name}", getattr(owner, name), ok, what)


def require_at_least(owner: object, least: float, *names: str) -> None:
    """Raise BadArgument unless each of these fields of ``owner`` is at least ``least``."""
    for name in names:
        require(owner, name, lambda value: value >= least, f"at least {least}")


def require_above(owner: object, limit: float, *names: str) -> None:
    """Raise BadArgument unless each of these fields of ``owner`` is above ``limit``."""
    for name in names:
        require(owner, name, lambda value: value > limit, f"above {limit}")


def inwards(owner: Any, dtype: Any) -> Any:
    """``owner`` with its radius ``eps``, where it is a Python number, rounded down to ``dtype`` instead of to nearest.

    A point within the rounded radius is then within the radius that was given.
    """
    eps = getattr(owner, "eps", None)
    if not dataclasses.is_dataclass(owner) or isinstance(owner, type) or not isinstance(eps, float):
        return owner
    return dataclasses.replace(owner, eps=rounded_down(eps, dtype))


def typed(owner: Any) -> Any:
    """``owner`` with each number in the type of its field: ``eps=1`` is ``eps=1.0``, not another program.

    Raises BadArgument for a value of another kind. Arrays [] and traced values pass as they are.
    """
    if not dataclasses.is_dataclass(owner) or isinstance(owner, type):
        return owner
    changed: dict[str, Any] = {}
    for one, kind, others, names in _kinds(type(owner)):
        value = getattr(owner, one.name)
        if names:
            check_choice(f"{type(owner).__name__}.{one.name}", value, names)
            continue
        if type(value) is kind and (kind is str or kind is bool or -MOST <= value <= MOST):  # as nearly always
            continue
        if (kept := _of_its_kind(type(owner).__name__, one, kind, others, value)) is not value:
            changed[one.name] = kept
    return dataclasses.replace(owner, **changed) if changed else owner


@functools.cache
def _kinds(owner: type) -> tuple[tuple[Any, type | None, set[str], tuple[str, ...]], ...]:
    """The fields of a configuration that have a kind, and the names that such a field may hold."""
    found = ((one, *kind_of(one)) for one in dataclasses.fields(owner))
    return tuple((one, kind, others, names_of(owner, one)) for one, kind, others in found if kind is not None)


def names_of(owner: type, one: dataclasses.Field[Any]) -> tuple[str, ...]:
    """What a field declared as a ``Literal`` may hold, in its order; () for any other field."""
    kind: Any = one.type
    if isinstance(kind, str):
        home = next(cls for cls in owner.__mro__ if one.name in inspect.get_annotations(cls))
        try:
            kind = eval(kind, vars(sys.modules[home.__module__]))
        except Exception:  # the name of a type that is known to checkers alone
            return ()
    return get_args(kind) if get_origin(kind) is Literal else ()


def kind_of(one: dataclasses.Field[Any]) -> tuple[type | None, set[str]]:
    """What a field holds, float, int, bool or str (None: anything else), and what else it may: None, arrays."""
    text = one.type.__name__ if isinstance(one.type, type) else str(one.type)
    first, *others = text.split(" | ")
    kind = _KINDS.get(first) or (str if isinstance(one.default, str) else None)  # a name of a fixed set is text
    return (None if _KINDS.keys() & others else kind), set(others)


_KINDS = {kind.__name__: kind for kind in (float, int, bool, str)}
_REAL = (jnp.floating, jnp.integer, jnp.bool_)
_LARGEST = float(np.finfo(np.float32).max)


def _of_its_kind(owner: str, one: Any, kind: type | None, others: set[str], value: Any) -> Any:
    """The value of a field in the field's kind. Raises BadArgument where it is of another, or beyond 32 bits."""
    optional, arrays = "None" in others, bool(others - {"None"})
    if isinstance(value, Tracer) or (optional and value is None):
        return value
    if arrays and not isinstance(value, int | float | complex | str):  # their shapes and values are the class's matter
        return value

    def refuse(wanted: str) -> BadArgument:
        return BadArgument(f"{owner}.{one.name}", f"be {'None or ' if optional else ''}{wanted}", value)

    if kind is str:
        if not isinstance(value, str):
            raise refuse("text")
        return value
    number = _number(value)
    if kind is bool:
        if number not in (0, 1):
            raise refuse("True or False")
        return bool(number)
    if kind is int:
        static = one.metadata.get("static", False)
        if number is None or isinstance(value, bool | np.bool_) or not _whole(number):
            raise refuse("a whole number")
        if abs(number) > MOST:
            raise refuse(f"a whole number up to {MOST}")
        counted = isinstance(value, int) or (not static and isinstance(number, int))
        return value if counted else int(number)
    unbounded = one.metadata.get("open", False) or one.default in (math.inf, -math.inf)
    if number is None or isinstance(value, bool | np.bool_) or number != number:
        raise refuse("a number" if unbounded else "a finite number")
    if abs(number) > _LARGEST and not (unbounded and abs(number) == math.inf):
        infinite = abs(number) == math.inf
        raise refuse("a finite number" if infinite else f"a number up to {_LARGEST:.4g}, the largest of float32")
    return float(number) if isinstance(value, int | np.integer) else value


def _whole(number: float | int) -> bool:
    return isinstance(number, int) or number.is_integer()


def _number(value: Any) -> float | int | None:
    """A real number, also as an array [], as Python's own; None for anything else."""
    if isinstance(value, int | float):
        return value
    if getattr(value, "shape", None) == () and any(jnp.issubdtype(value.dtype, kind) for kind in _REAL):
        return value.item()
    return None


def from_registry(registry: dict[str, Callable[..., Any]], what: str, name: str, constants: dict[str, Any]) -> Any:
    """``registry[name](**constants)``. what: "attack" or "method", for the message.

    Raises BadArgument for an unknown name or constant; it lists the known ones.
    """
    if not isinstance(name, str) or name not in registry:
        raise unknown_name(what, name, registry, f"be one of {', '.join(registry)}")
    make = registry[name]
    parameters = inspect.signature(make).parameters.values()
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):  # handed on to a configuration
        known = [field.name for field in dataclasses.fields(make())]
    else:
        known = [parameter.name for parameter in parameters]
    for constant in constants:
        if constant not in known and constant not in getattr(make, "RENAMED", {}):
            raise unknown_name("keywords", constant, known, f"name constants of {what} {name!r} ({', '.join(known)})")
    return make(**constants)
