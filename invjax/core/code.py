"""What a function or a class of the user's refers to by name, for :mod:`invjax.core.identity`."""

from __future__ import annotations

import dis
import functools
import itertools
import types
from typing import Any

_CALLED = ("__call__", "__init__", "__post_init__", "__new__", "__getattr__", "__getitem__", "__len__")
_FUNCTIONS = (types.FunctionType, property, staticmethod, classmethod, functools.cached_property)
_CONSTANTS = (bool, int, float, complex, str, bytes, tuple)


def looked_up(function: types.FunctionType) -> dict[str, Any]:
    """What the code of ``function`` takes from its module by name: ``SCALE``, and of modules ``constants.SCALE``."""
    found: dict[str, Any] = {}
    for code in _codes(function.__code__):
        for step, after in itertools.pairwise(dis.get_instructions(code)):  # nothing ends with a name
            name = step.argval
            if step.opname in ("LOAD_GLOBAL", "LOAD_NAME") and name in function.__globals__:
                value = function.__globals__[name]
                if isinstance(value, types.ModuleType) and after.opname in ("LOAD_ATTR", "LOAD_METHOD"):
                    name, value = f"{name}.{after.argval}", getattr(value, after.argval, value)
                found[name] = value
    return found


def _codes(code: types.CodeType) -> list[types.CodeType]:
    """A code object and those of the functions that are made inside of it."""
    inner = [one for one in code.co_consts if isinstance(one, types.CodeType)]
    return [code, *(each for one in inner for each in _codes(one))]


def own_names(owner: Any) -> dict[str, Any]:
    """What the user put on a function, or into a class: its functions, and its constants."""
    names = {name: value for name, value in vars(owner).items() if not name.startswith("__") or name in _CALLED}
    public = {name: value for name, value in names.items() if not name.startswith("_")}
    private = {n: v for n, v in names.items() if n.startswith("_") and isinstance(v, (*_FUNCTIONS, *_CONSTANTS))}
    slots = (types.MemberDescriptorType, types.GetSetDescriptorType)
    return {name: value for name, value in {**public, **private}.items() if not isinstance(value, slots)}
