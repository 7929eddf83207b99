"""What makes two runs the same run, as it stands in the ``manifest.json`` of a folder that keeps one.

Every argument that can change an answer has an entry: settings so that a reader knows them, arrays and functions by
their hash (:mod:`invjax.core.identity`). A folder that holds another run is refused, and so is one whose parts no
manifest explains. The manifest of a new folder is made by one process alone, whoever else comes at the same moment.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import FunctionType
from typing import Any

from invjax.core.code import is_a_package
from invjax.core.errors import BadArgument, Words
from invjax.core.files import write_atomic, write_new, writing
from invjax.core.identity import describe, digest, digest_of_leaves, digest_of_structure
from invjax.types import Context, Method, Problem

FORMAT = 2
NAME = "model"  # of a network that the user has not named
PARTS = ("p[0-9]*-*.npz", "p[0-9]*/p[0-9]*-*.npz")  # the part files of a run, as patterns
_BESIDE = ("lanes", "devices", "python", "later")  # written down, but no part of what a run is
_TRIES, _PAUSE_S = 10, 0.02  # a manifest that another process is just writing, where it cannot be made at once


class AnotherRun(BadArgument):
    """A folder holds another run."""


def make_manifest(
    ctx: Context, problems: Problem, config: Any, method: Method, key: Any, name: str | None, **how: Any
) -> dict[str, Any]:
    """The manifest of a run of :func:`invjax.solve`. how: evaluator, precision.

    Raises BadArgument about ``name`` where it is None and a function cannot be told from another.
    """
    return {
        "format": FORMAT,
        "python": python(),
        **functions(ctx, config, method, name, **how),
        "model": name_of(name),
        "weights": digest_of_leaves(ctx.logits),
        "density": None if ctx.density is None else digest(ctx.density, name=name),
        "space": None if ctx.constraints is None else digest(ctx.constraints, name=name),
        "inputs": digest((problems, key)),
        "examples": int(problems.label.shape[0]),
    }


def name_of(name: str | None) -> str:
    """What the network is called in a manifest. Raises BadArgument for what is no text."""
    if name is not None and not isinstance(name, str):
        raise BadArgument("name", "be text or None", name)
    return NAME if name is None else name


def functions(ctx: Context, config: Any, method: Method, name: str | None, **how: Any) -> dict[str, Any]:
    """The entries of a manifest that may be other ones after the run: a function may count its calls."""
    parts = [part for part in method if callable(part)]
    ours = all(isinstance(part, FunctionType) and is_a_package(part.__module__) for part in parts)  # known by its name
    own = "" if ours else digest(parts, name=name)[:12]
    return {
        "method": f"{method.name} {own}".strip(),
        **{key: describe(value, name=name) for key, value in how.items()},
        "config": describe(config, name=name),
        "network": digest_of_structure(ctx.logits, name=name),
    }


def python() -> str:
    """The version whose byte code stands for functions."""
    return f"{sys.version_info.major}.{sys.version_info.minor}"


def hash_of_run(manifest: dict[str, Any]) -> str | None:
    """What goes into the checksums of its parts; None for a run of an earlier version, whose parts have none."""
    if manifest.get("format") == 1:
        return None
    return digest({name: value for name, value in as_saved(manifest).items() if name not in _BESIDE})


def as_saved(manifest: dict[str, Any]) -> dict[str, Any]:
    """A manifest as it comes back from its file: tuples are lists there."""
    return json.loads(json.dumps(manifest))


def differences(saved: dict[str, Any], manifest: dict[str, Any]) -> list[str]:
    """The entries in which two runs differ, in order. What a run has left of its functions is the same run, too."""
    names = [name for name in {**manifest, **saved} if name not in _BESIDE]
    same = {name: [json.dumps(saved.get(name))] for name in names}
    for name, value in saved.get("later", {}).items():
        same.get(name, []).append(json.dumps(value))
    return [name for name in names if json.dumps(manifest.get(name)) not in same[name]]


def keep_later(folder: Path, functions: Callable[[], dict[str, Any]]) -> None:
    """Write down what has become of a run's functions while it ran, so that the same call is still the same run."""
    path = folder / "manifest.json"
    try:
        saved, now = json.loads(path.read_text()), as_saved(functions())
    except BadArgument:  # it holds by now what cannot be told apart
        return
    later = {name: value for name, value in now.items() if saved.get(name) != value}
    if later != saved.get("later", {}):
        write_atomic(path, json.dumps({**saved, "later": later}, indent=2).encode())


def open_folder(
    folder: Path,
    manifest: dict[str, Any],
    argument: str = "out",
    parts: tuple[str, ...] = PARTS,
) -> dict[str, Any]:
    """Make ``folder`` that of the run with this manifest, or check that it is. Returns what is written there.

    parts: patterns of the names that parts have below it.

    Raises:
      ValueError: it cannot be written, holds another run, or parts of one without a manifest; about ``argument``.
    """
    path, here = folder / "manifest.json", repr(str(folder))
    with writing(folder, argument):
        folder.mkdir(parents=True, exist_ok=True)
        if not path.exists():
            kept = [found.name for pattern in parts for found in folder.glob(pattern)]
            if kept and not path.exists():  # not even now: parts come after the manifest
                hint = f"{here} has parts of a run ({min(kept)}), but no manifest.json that says of which"
                raise BadArgument(argument, "be a new folder or one of the same run", hint=hint)
            write_new(path, json.dumps(manifest, indent=2).encode())
        saved = _read(path, argument)
    manifest = as_saved(manifest)
    if saved.get("format") != manifest.get("format"):
        hint = f"{here} was made by another version of invjax, which wrote down other things about a run"
        raise BadArgument(argument, "be a new folder or one of the same run", hint=hint)
    if differs := differences(saved, manifest):
        hint = f"{here} holds a run with another {', '.join(differs)}"
        if saved.get("python", python()) != python():
            hint += f" (of Python {saved['python']}; functions are compared by their code in one version)"
        raise AnotherRun(argument, "be a new folder or one of the same run", hint=hint)
    if not os.access(folder, os.W_OK):
        raise BadArgument(argument, "be a folder that can be written", str(folder))
    return saved


def _read(path: Path, argument: str) -> dict[str, Any]:
    reason = ""
    for _ in range(_TRIES):
        try:
            saved = json.loads(path.read_text())
            if isinstance(saved, dict):
                return saved
            reason = "manifest.json is not a run's"
            break
        except (ValueError, RecursionError) as error:
            reason = f"manifest.json is not JSON ({error})"
            time.sleep(_PAUSE_S)
    raise BadArgument(argument, "be a folder that can be written", Words(f"{str(path.parent)!r}: {reason}"))
