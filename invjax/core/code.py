"""Whose a function, a class or an object is, and what the user's own refer to: for :mod:`invjax.core.identity`."""

from __future__ import annotations

import argparse
import dis
import functools
import itertools
import sys
import types
from pathlib import Path
from typing import Any

_CALLED = ("__call__", "__init__", "__post_init__", "__new__", "__getattr__", "__getitem__", "__len__")
_FUNCTIONS = (types.FunctionType, property, staticmethod, classmethod, functools.cached_property)
_NAMESPACES = (types.SimpleNamespace, argparse.Namespace)
_CONSTANTS = (bool, int, float, complex, str, bytes, tuple)


def looked_up(function: types.FunctionType) -> dict[str, Any]:
    """What the code of ``function`` takes from its module by name: ``SCALE``; of options ``options.scale`` alone."""
    found: dict[str, Any] = {}
    for code in _codes(function.__code__):
        for step, after in itertools.pairwise(dis.get_instructions(code)):  # nothing ends with a name
            name = step.argval
            if step.opname in ("LOAD_GLOBAL", "LOAD_NAME") and name in function.__globals__:
                value = function.__globals__[name]
                own = isinstance(value, types.ModuleType) and not is_a_package(value.__name__)
                if (own or isinstance(value, _NAMESPACES)) and after.opname in ("LOAD_ATTR", "LOAD_METHOD"):
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


def is_of_a_package(value: Any) -> bool:
    """Whether ``value`` is what an installed package has under its name."""
    module, name = getattr(value, "__module__", None), getattr(value, "__qualname__", None)
    if not (isinstance(module, str) and isinstance(name, str) and is_a_package(module)):
        return False
    if isinstance(value, type) and "<locals>" not in name:  # some of C are not where they say they are
        return True
    found: Any = sys.modules.get(module)
    for part in name.split("."):
        found = getattr(found, part, None)
    return found is value


def constant_of_a_package(value: Any) -> str | None:
    """The name of an object that a package keeps beside its class (``jax.config``); None for any other."""
    module = type(value).__module__
    if not is_a_package(module):
        return None
    names = sorted(name for name, one in vars(sys.modules.get(module, types)).items() if one is value)
    return f"{module}.{names[0]}" if names else None


@functools.cache
def is_a_package(module: str | None) -> bool:
    """Whether a module is Python's, ours or installed: not the user's own code."""
    if module is None or module == "__main__":
        return False
    top = module.partition(".")[0]
    if top in sys.stdlib_module_names or top in ("builtins", "invjax"):
        return True
    file = getattr(sys.modules.get(module), "__file__", None) or ""
    return not {"site-packages", "dist-packages"}.isdisjoint(Path(file).parts)
