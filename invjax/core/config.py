"""Configurations of methods: frozen dataclasses whose numbers are traced and whose choices are static."""

from __future__ import annotations

import dataclasses
import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any, TypeVar, dataclass_transform

import jax
import numpy as np

from invjax.core.balls import rounded_down
from invjax.core.errors import BadArgument, check

C = TypeVar("C", bound=type)
F = TypeVar("F", bound=Callable[..., Any])


# Metadata of a field that shapes the program (a function, a name, an int of a shape): a new value compiles anew.
STATIC = {"static": True}


@dataclass_transform(frozen_default=True, field_specifiers=(dataclasses.field,))
def config(cls: C) -> C:
    """Make ``cls`` a frozen dataclass and a pytree: a new value of a leaf never compiles, of a static field it does.

    A class attribute ``RENAMED: ClassVar = {"old": "new"}`` names constants that were called otherwise: the old name
    is an error that gives the new one.
    """
    made = jax.tree_util.register_dataclass(dataclasses.dataclass(frozen=True)(cls))
    if renamed := getattr(made, "RENAMED", None):
        made.__init__ = refuse_old_names(renamed, f"{made.__name__}.")(made.__init__)
    return made


def refuse_old_names(renamed: Mapping[str, str], owner: str = "") -> Callable[[F], F]:
    """Decorate a function whose keywords were called otherwise: an old name is an error that gives the new one."""

    def decorate(function: F) -> F:
        @functools.wraps(function)
        def checked(*args: Any, **arguments: Any) -> Any:
            for old in arguments:
                if old in renamed:
                    raise BadArgument(f"{owner}{old}", f"be given by its new name, {renamed[old]}")
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


def require_choice(owner: object, name: str, choices: tuple[str, ...]) -> None:
    """Raise ValueError unless the field ``name`` is one of ``choices``."""
    require(owner, name, lambda value: value in choices, f"one of {', '.join(map(repr, choices))}")


def inwards(owner: Any, dtype: Any) -> Any:
    """``owner`` with its radius ``eps``, where it is a Python number, rounded down to ``dtype`` instead of to nearest.

    A point within the rounded radius is then within the radius that was given.
    """
    eps = getattr(owner, "eps", None)
    if not dataclasses.is_dataclass(owner) or isinstance(owner, type) or not isinstance(eps, float):
        return owner
    return dataclasses.replace(owner, eps=rounded_down(eps, dtype))


def typed(owner: Any) -> Any:
    """``owner`` with each number in the type of its field's default: ``eps=1`` is ``eps=1.0``, not another program.

    Raises ValueError where a count is not a whole number. Arrays and traced values pass as they are.
    """
    if not dataclasses.is_dataclass(owner) or isinstance(owner, type):
        return owner
    changed: dict[str, Any] = {}
    for field in dataclasses.fields(owner):
        value, kind = getattr(owner, field.name), type(field.default)
        if field.default is None and str(field.type).startswith("float"):  # "float | None"
            kind = float
        if kind is float and isinstance(value, int | np.integer) and not isinstance(value, bool):
            changed[field.name] = float(value)
        elif kind is int and isinstance(value, float | np.floating):
            if not float(value).is_integer():
                raise BadArgument(f"{type(owner).__name__}.{field.name}", "be a whole number", value)
            changed[field.name] = int(value)
    return dataclasses.replace(owner, **changed) if changed else owner


def from_registry(registry: dict[str, Callable[..., Any]], what: str, name: str, constants: dict[str, Any]) -> Any:
    """``registry[name](**constants)``. what: "attack" or "method", for the message.

    Raises BadArgument for an unknown name or constant; it lists the known ones.
    """
    if name not in registry:
        raise BadArgument(what, f"be one of {', '.join(registry)}", name)
    make = registry[name]
    parameters = inspect.signature(make).parameters.values()
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):  # handed on to a configuration
        known = [field.name for field in dataclasses.fields(make())]
    else:
        known = [parameter.name for parameter in parameters]
    for constant in constants:
        if constant not in known and constant not in getattr(make, "RENAMED", {}):
            raise BadArgument("keywords", f"name constants of {what} {name!r} ({', '.join(known)})", constant)
    return make(**constants)
