"""Configurations of methods: frozen dataclasses whose numbers are traced and whose choices are static."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, TypeVar, dataclass_transform

import jax

C = TypeVar("C", bound=type)


# Metadata of a field that shapes the program (a function, a name, an int of a shape): a new value compiles anew.
STATIC = {"static": True}


@dataclass_transform(frozen_default=True, field_specifiers=(dataclasses.field,))
def config(cls: C) -> C:
    """Make ``cls`` a frozen dataclass and a pytree: a new value of a leaf never compiles, of a static field it does."""
    return jax.tree_util.register_dataclass(dataclasses.dataclass(frozen=True)(cls))


def require(owner: object, name: str, ok: Callable[[Any], bool], what: str) -> None:
    """Raise ValueError unless the field ``name`` of ``owner`` fulfils ``ok``."""
    value = getattr(owner, name)
    if not ok(value):
        raise ValueError(f"{type(owner).__name__}.{name} must be {what}, was {value!r}")


def require_choice(owner: object, name: str, choices: tuple[str, ...]) -> None:
    """Raise ValueError unless the field ``name`` is one of ``choices``."""
    require(owner, name, lambda value: value in choices, f"one of {', '.join(map(repr, choices))}")
