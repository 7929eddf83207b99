"""From the words of a command line to the options of a command, by tyro; the only module that imports it.

tyro has no public interface for what is wrong with the words: it draws a box on stderr and exits. ``_statement`` reads
that box, so that the user gets one line like every other error. If tyro ever draws it differently, the line becomes
less exact, and the exit code stays right.
"""

from __future__ import annotations

import contextlib
import dataclasses
import io
import re
import typing
from collections.abc import Sequence
from typing import Annotated, Any

from invjax.cli.options import COMMANDS, DESCRIPTION, Meta


class Refused(Exception):
    """The options could not be read; the message says why in one line."""


def parse(words: Sequence[str]) -> Any:
    """The options of the command in ``words``, or None if help was asked for and shown.

    Raises Refused, and ImportError if tyro is missing.
    """
    try:
        import tyro
    except ImportError as error:
        raise ImportError("the command line needs tyro: pip install 'invjax[cli]'") from error
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            return tyro.extras.subcommand_cli_from_dict(
                {name: _for_tyro(kind) for name, kind in COMMANDS.items()},
                prog="invjax", description=DESCRIPTION, args=words, config=(tyro.conf.FlagCreatePairsOff,),
            )  # fmt: skip
    except SystemExit as stop:
        if not stop.code:
            return None
        command = f" {words[0]}" if words and words[0] in COMMANDS else ""
        raise Refused(f"{_statement(said.getvalue())} (see invjax{command} --help)") from None


def _for_tyro(kind: type) -> type:
    """The same options with every ``Meta`` as tyro's own mark; an empty default is not shown."""
    import tyro

    fields = []
    hints = typing.get_type_hints(kind, include_extras=True)
    for field in dataclasses.fields(kind):
        hint = hints[field.name]
        meta = next((mark for mark in getattr(hint, "__metadata__", ()) if isinstance(mark, Meta)), Meta(None))
        shown = "" if field.default in (None, (), "") else None
        mark = tyro.conf.arg(metavar=meta.metavar, help_behavior_hint=shown)
        fields.append((field.name, Annotated[typing.get_args(hint)[0] if meta.metavar else hint, mark]))
    return dataclasses.make_dataclass(
        kind.__name__, fields, bases=(kind,), namespace={"__doc__": kind.__doc__}, frozen=True
    )


def _statement(box: str) -> str:
    """What tyro drew in a box, as one line: the part above its first rule."""
    plain = re.sub(r"\x1b\[[0-9;]*m", "", box).splitlines()  # without colours
    framed = [line for line in plain if line.startswith("│")]
    lines = [line.strip("│ ") for line in framed or plain]
    if not framed:  # without UTF-8 there is no frame: the title and a rule come first
        lines = lines[next((n for n, line in enumerate(lines, 1) if _is_rule(line)), 0) :]
    lines = lines[: next((n for n, line in enumerate(lines) if _is_rule(line)), None)]
    if lines and lines[0].startswith("Missing from"):
        missing = [word for line in lines[1:] if (word := line.split(" ")[0]).startswith("--")]
        return f"{', '.join(missing)} must be given"
    said = " ".join(" ".join(lines).split())
    if wrong := re.match(r"Error parsing (--[\w-]+): .*?\[(.*?)\]", said):
        return f"{wrong[1]} must be of the kind its help says, was {wrong[2]}"
    return said or "the options could not be read"


def _is_rule(line: str) -> bool:
    return bool(line) and not line.strip("─-")
