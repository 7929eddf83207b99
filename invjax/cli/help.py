"""What ``invjax --help`` and ``invjax COMMAND --help`` say; argparse lays it out."""

from __future__ import annotations

import argparse
import ast
import dataclasses
import functools
import inspect
import shutil
import textwrap
import typing
from pathlib import Path
from typing import Any, Literal

from invjax.cli import options
from invjax.cli.options import EXAMPLES, Meta

_WIDEST = 100


class Layout(argparse.RawDescriptionHelpFormatter):
    """Paragraphs and examples as they stand, and the texts of options in a column of their own."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=22, width=_width())


def usage(kind: type) -> str:
    """How a command is called: with what it must have."""
    needed = [f"{flag(one.name)} {metavar(kind, one.name)}" for one in dataclasses.fields(kind) if is_required(one)]
    return " ".join(["%(prog)s", *needed, "[options]"])


def description(kind: type) -> str:
    """What a command does and writes: the docstring of its options."""
    return "\n\n".join(textwrap.fill(part, _width()) for part in _paragraphs(kind))


def summary(kind: type) -> str:
    """The same in one paragraph."""
    return _paragraphs(kind)[0]


def examples(*commands: str) -> str:
    """The examples of a command, or the first of each of several."""
    lines = EXAMPLES[commands[0]] if len(commands) == 1 else [EXAMPLES[command][0] for command in commands]
    return "\n".join(["examples:", *(f"  {line}" for line in lines)])


def text_of(kind: type, name: str) -> str:
    """The help of an option: the text under its field, and what it is if it is not given."""
    field = next(field for field in dataclasses.fields(kind) if field.name == name)
    return (_texts()[kind.__name__][name] + _default(field)).replace("%", "%%")


def metavar(kind: type, name: str) -> str:
    """The word for the value of an option; none for a switch."""
    hint = typing.get_type_hints(kind, include_extras=True)[name]
    for mark in getattr(hint, "__metadata__", ()):
        if isinstance(mark, Meta) and mark.metavar:
            return mark.metavar
    kinds = typing.get_args(hint) or (hint,)
    return "|".join(text for one in kinds for text in _words(one))


def flag(name: str) -> str:
    """The option of a field."""
    return f"--{name.replace('_', '-')}"


def is_required(field: dataclasses.Field[Any]) -> bool:
    """Whether an option must be given."""
    return field.default is dataclasses.MISSING


def _words(kind: Any) -> list[str]:
    if typing.get_origin(kind) is Literal:
        return list(typing.get_args(kind))
    return {int: ["INT"], float: ["NUMBER"], str: ["NAME"], Path: ["PATH"]}.get(kind, [])


def _default(field: dataclasses.Field[Any]) -> str:
    if is_required(field):
        return " (required)"
    if field.default in (None, (), "") or isinstance(field.default, bool):
        return ""
    value = field.default
    return f" (default: {' '.join(f'{one:g}' for one in value) if isinstance(value, tuple) else value})"


def _paragraphs(kind: type) -> list[str]:
    return [" ".join(part.split()) for part in inspect.cleandoc(kind.__doc__ or "").split("\n\n")]


@functools.cache
def _texts() -> dict[str, dict[str, str]]:
    """The text under each field of each class of :mod:`invjax.cli.options`."""
    found: dict[str, dict[str, str]] = {}
    for node in ast.parse(inspect.getsource(options)).body:
        if isinstance(node, ast.ClassDef):
            own = found.setdefault(node.name, {})
            for field, text in zip(node.body, node.body[1:], strict=False):
                if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name):
                    value = getattr(getattr(text, "value", None), "value", "")
                    own[field.target.id] = " ".join(str(value).split())
    return found


def _width() -> int:
    return min(shutil.get_terminal_size().columns, _WIDEST)
