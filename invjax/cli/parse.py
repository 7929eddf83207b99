"""From the words of a command line to the options of a command, by argparse.

The fields of a command's dataclass say what is read: ``n: int`` is the option ``--n INT``, a bool is a switch, a tuple
takes several words. What is wrong is said in one line that names the option, and what was meant where it can be told.
"""

from __future__ import annotations

import argparse
import dataclasses
import re
import types
import typing
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal, Union

from invjax import attacks
from invjax.cli.help import Layout, description, examples, flag, is_required, metavar, summary, text_of, usage
from invjax.cli.options import COMMANDS, DESCRIPTION, GROUPS, WITHOUT_OPTION
from invjax.core.errors import BadArgument, Words
from invjax.core.meant import closest, did_you_mean

_HELP = ("-h", "--help")


class Refused(Exception):
    """The options could not be read; the message says why in one line."""


def parse(words: Sequence[str]) -> Any:
    """The options of the command in ``words``, or None if help was asked for and shown. Raises Refused."""
    if words[0] in _HELP:
        print(_overview().format_help(), end="")
        return None
    command, *rest = words
    if command not in COMMANDS:
        raise Refused(_no_command(words))
    parser = _parser(command)
    if any(word in _HELP for word in rest):
        print(parser.format_help(), end="")
        return None
    try:
        return _options(parser, command, rest)
    except (BadArgument, Refused) as error:
        raise Refused(f"{error} (see invjax {command} --help)") from None


def _options(parser: argparse.ArgumentParser, command: str, words: Sequence[str]) -> Any:
    """The dataclass of the command, filled in."""
    kind = COMMANDS[command]
    hints = typing.get_type_hints(kind)
    try:
        given, others = parser.parse_known_args([_marked(word) for word in words])
    except argparse.ArgumentError as error:
        raise _miscounted(str(error.argument_name), kind, words) from None
    if others:
        raise _unexpected(command, others[0].strip(), words, hints)
    needed = [field.name for field in dataclasses.fields(kind) if is_required(field)]
    if missing := [flag(name) for name in needed if name not in given]:
        raise BadArgument(", ".join(missing), "be given")
    return kind(**{name: tuple(value) if isinstance(value, list) else value for name, value in vars(given).items()})


def _overview() -> argparse.ArgumentParser:
    """Of the commands, for its help alone."""
    parser = argparse.ArgumentParser(
        "invjax", "%(prog)s COMMAND [options]", DESCRIPTION, examples(*COMMANDS), formatter_class=Layout, add_help=False
    )
    commands = parser.add_argument_group("commands")
    for name, kind in COMMANDS.items():
        commands.add_argument(name, help=summary(kind))
    return parser


def _parser(command: str) -> argparse.ArgumentParser:
    kind = COMMANDS[command]
    hints = typing.get_type_hints(kind)
    parser = argparse.ArgumentParser(
        f"invjax {command}", usage(kind), description(kind), examples(command), formatter_class=Layout,
        add_help=False, allow_abbrev=False, exit_on_error=False, argument_default=argparse.SUPPRESS,
    )  # fmt: skip
    for heading, names in GROUPS[command].items():
        group = parser.add_argument_group(heading)
        for name in names:
            how = _reading(flag(name), hints[name], metavar(kind, name))
            group.add_argument(flag(name), dest=name, help=text_of(kind, name), **how)
    return parser


def _reading(option: str, hint: Any, shown: str) -> dict[str, Any]:
    """How argparse reads an option of this type."""
    if hint is bool:
        return {"action": "store_true"}
    how: dict[str, Any] = {"type": partial(_value, option, hint), "metavar": shown}
    if typing.get_origin(_plain(hint)) is not tuple:
        return how
    several = typing.get_args(_plain(hint))
    if Ellipsis in several:
        return how | {"metavar": shown.split()[0], "nargs": "+", "action": "extend"}
    return how | {"metavar": tuple(shown.split()), "nargs": len(several)}


def _plain(hint: Any) -> Any:
    """A type without its None."""
    if typing.get_origin(hint) not in (types.UnionType, Union):
        return hint
    kinds = [kind for kind in typing.get_args(hint) if kind is not type(None)]
    return kinds[0] if len(kinds) == 1 else hint


def _value(option: str, hint: Any, text: str) -> Any:
    """The value of a word. Raises Refused, about the option, where it is of another kind."""
    text = text[1:] if text.startswith(" -") else text  # of _marked
    kind = _plain(hint)
    if typing.get_origin(kind) is tuple:
        kind = typing.get_args(kind)[0]
    kinds = typing.get_args(kind) if typing.get_origin(kind) in (types.UnionType, Union) else (kind,)
    for one in kinds:
        if typing.get_origin(one) is Literal:
            if text in typing.get_args(one):
                return text
            continue
        try:
            return one(text)
        except ValueError:
            continue
    words = [
        " or ".join(map(repr, typing.get_args(one))) if typing.get_origin(one) is Literal else _WORDS[one]
        for one in kinds
    ]
    raise Refused(
        str(BadArgument(option, f"be {' or '.join(words)}", text))
    )  # argparse has other words for a ValueError


_WORDS: dict[Any, str] = {int: "a whole number", float: "a number", str: "text", Path: "a path"}


def _marked(word: str) -> str:
    """``--max_changes`` as ``--max-changes``; a value that begins with a minus with a space before, for argparse."""
    if _is_option(word):
        option, equals, value = word.partition("=")
        return option.replace("_", "-") + equals + value
    return f" {word}" if word.startswith("-") else word


def _is_option(word: str) -> bool:
    """Whether a word is an option and no value: ``--out``, ``-h``, but not ``-1`` or ``-inf``."""
    if word.startswith("--"):
        return len(word) > 2
    return re.match(r"-[a-zA-Z]", word) is not None and not re.fullmatch(r"-(inf|nan|infinity)", word, re.IGNORECASE)


def _no_command(words: Sequence[str]) -> str:
    command = words[0]
    if command.startswith("-"):
        later = next((word for word in words if word in COMMANDS), None)
        near = later and f"the command comes first: invjax {later} {command}"
        why = near or did_you_mean(command, ("--help", "--version"), quoted=False)
        return f"there is no option {command} without a command; {why or f'the commands are {_COMMANDS}'}"
    meant = did_you_mean(command, (*COMMANDS, "--help"), "invjax ", quoted=False) or f"the commands are {_COMMANDS}"
    return f"there is no command {command!r}; {meant} (see invjax --help)"


_COMMANDS = ", ".join(COMMANDS)


def _unexpected(command: str, word: str, words: Sequence[str], known: dict[str, Any]) -> Refused:
    """About a word that is no option of the command, or that belongs to none."""
    if not _is_option(word):
        last = words[words.index(word) - 1] if words.index(word) else ""
        if known.get(_field(last)) is bool:
            return _switched(last, word)
        option = flag(WITHOUT_OPTION[command])
        return Refused(f"{word!r} follows no option" + ("" if option in words else f"; did you mean {option} {word}?"))
    option = word.partition("=")[0]
    near = closest(option, known)
    constant = _field(option)
    if command == "attack" and any(hasattr(getattr(attacks, name), constant) for name in attacks.__all__):
        return Refused(f"there is no option {option}; a constant of the attack is given as --set {constant}=VALUE")
    return Refused(f"there is no option {option}" + ("" if near is None else f"; did you mean {flag(near)}?"))


def _miscounted(option: str, kind: type, words: Sequence[str]) -> Exception:
    """About an option with fewer values than it takes, or a switch with one."""
    hints = typing.get_type_hints(kind)
    place = max(place for place, word in enumerate(words) if flag(_field(word.partition("=")[0])) == option)
    if hints[_field(option)] is bool:
        return _switched(option, words[place].partition("=")[2])
    rest = words[place + 1 :]
    values = list(rest[: next((n for n, word in enumerate(rest) if _is_option(word)), None)])
    hint = None
    if rest and not values and _is_option(rest[0]) and _field(rest[0]) not in hints:
        hint = f"a value that begins like an option is written {option}={rest[0]}"
    was = Words(", ".join(map(repr, values)) or "nothing")
    return BadArgument(option, f"be followed by {metavar(kind, _field(option))}", was, hint=hint)


def _switched(option: str, value: str) -> Refused:
    return Refused(f"{option} takes no value, was followed by {value!r}: leave it out to switch it off")


def _field(option: str) -> str:
    return option.strip("-").replace("-", "_")
