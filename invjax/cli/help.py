"""What ``invjax --help`` and ``invjax COMMAND --help`` print: a few lines, or the options by groups."""

from __future__ import annotations

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
from invjax.cli.options import COMMANDS, DESCRIPTION, EXAMPLES, GROUPS, Meta

_INDENT = 22  # columns before the text of an option
_WIDEST = 100


def general_help() -> str:
    """The commands, a line each, and what to type first."""
    lines = ["usage: invjax COMMAND [options]", "", *_wrapped(DESCRIPTION), "", "commands:"]
    for name, kind in COMMANDS.items():
        lines += _entry(name, _paragraphs(kind)[0], 11)
    lines += ["", "examples:", *(f"  {examples[0]}" for examples in EXAMPLES.values()), ""]
    return "\n".join([*lines, "invjax COMMAND --help shows the options of a command, invjax --version the version."])


def command_help(command: str) -> str:
    """How a command is called, what it writes, examples, and its options by groups."""
    kind = COMMANDS[command]
    fields = {field.name: field for field in dataclasses.fields(kind)}
    required = [f"--{name} {metavar(kind, name)}" for name, field in fields.items() if _is_required(field)]
    lines = [" ".join(["usage: invjax", command, *required, "[options]"])]
    for paragraph in _paragraphs(kind):
        lines += ["", *_wrapped(paragraph)]
    lines += ["", "examples:", *(f"  {example}" for example in EXAMPLES[command])]
    texts = _texts()[kind.__name__]
    for heading, names in GROUPS[command].items():
        lines += ["", f"{heading}:"]
        for name in names:
            flag = f"--{name.replace('_', '-')} {metavar(kind, name)}".rstrip()
            lines += _entry(flag, texts[name] + _default(fields[name]), _INDENT)
    return "\n".join(lines)


def metavar(kind: type, name: str) -> str:
    """The word for the value of an option; none for a switch."""
    hint = typing.get_type_hints(kind, include_extras=True)[name]
    for mark in getattr(hint, "__metadata__", ()):
        if isinstance(mark, Meta) and mark.metavar:
            return mark.metavar
    kinds = typing.get_args(hint) or (hint,)
    words = [text for one in kinds for text in _words(one)]
    return "|".join(words)


def _words(kind: Any) -> list[str]:
    if typing.get_origin(kind) is Literal:
        return list(typing.get_args(kind))
    return {int: ["INT"], float: ["NUMBER"], str: ["NAME"], Path: ["PATH"]}.get(kind, [])


def _is_required(field: dataclasses.Field[Any]) -> bool:
    return field.default is dataclasses.MISSING


def _default(field: dataclasses.Field[Any]) -> str:
    """What an option is if it is not given, where that says something."""
    if _is_required(field):
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


def _wrapped(text: str, indent: str = "") -> list[str]:
    return textwrap.wrap(
        text, _width(), initial_indent=indent, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False
    )


def _entry(head: str, text: str, indent: int) -> list[str]:
    """``  head  text``, the text in a column of its own; below the head where that is long."""
    lines = _wrapped(text, " " * indent)
    if len(head) + 4 > indent:
        return [f"  {head}", *lines]
    return [f"  {head}".ljust(indent) + lines[0][indent:], *lines[1:]]
