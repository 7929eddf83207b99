"""From the words of a command line to the options of a command.

The fields of a command's dataclass say what is read: ``n: int`` is the option ``--n INT``, a bool is a switch, a tuple
takes several words. What is wrong is said in one line that names the option, and what was meant where it can be told.
"""

from __future__ import annotations

import dataclasses
import re
import types
import typing
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any, Literal, Union

from invjax import attacks
from invjax.cli.help import command_help, general_help, metavar
from invjax.cli.options import COMMANDS, WITHOUT_OPTION
from invjax.core.errors import BadArgument, Words
from invjax.core.meant import closest, did_you_mean

_HELP = ("-h", "--help")


class Refused(Exception):
    """The options could not be read; the message says why in one line."""


def parse(words: Sequence[str]) -> Any:
    """The options of the command in ``words``, or None if help was asked for and shown. Raises Refused."""
    if words[0] in _HELP:
        print(general_help())
        return None
    command, *rest = words
    if command not in COMMANDS:
        raise Refused(_no_command(words))
    try:
        options = _options(command, rest)
    except (BadArgument, Refused) as error:
        raise Refused(f"{error} (see invjax {command} --help)") from None
    if options is None:
        print(command_help(command))
    return options


def _options(command: str, words: Sequence[str]) -> Any:
    """The dataclass of the command, filled in; None where help is asked for."""
    kind = COMMANDS[command]
    hints = typing.get_type_hints(kind)
    given: dict[str, Any] = {}
    place = 0
    while place < len(words):
        word, place = words[place], place + 1
        if word in _HELP:
            return None
        flag, equals, first = word.partition("=")
        name = flag[2:].replace("-", "_") if flag.startswith("--") else ""
        if name not in hints:
            raise _unexpected(command, word, hints, given)
        after = place
        while after < len(words) and not _is_option(words[after]):
            after += 1
        values = [*([first] if equals else []), *words[place:after]]
        taken = _count(hints[name], len(values))
        if hints[name] is bool and equals:
            raise Refused(f"{flag} takes no value, was followed by {first!r}: leave it out to switch it off")
        if taken > len(values) or (not taken and hints[name] is not bool):
            raise _too_few(flag, metavar(kind, name), values, words[place:], hints)
        read = [_value(flag, hints[name], text) for text in values[:taken]]
        several = typing.get_origin(_plain(hints[name])) is tuple
        before = given.get(name, ()) if _is_open(hints[name]) else ()
        given[name] = (*before, *read) if several else (True if hints[name] is bool else read[0])
        place += taken - bool(equals)
    required = [field.name for field in dataclasses.fields(kind) if field.default is dataclasses.MISSING]
    if missing := [_flag(name) for name in required if name not in given]:
        raise BadArgument(", ".join(missing), "be given")
    return kind(**given)


def _count(hint: Any, available: int) -> int:
    """How many of the ``available`` words an option takes."""
    if hint is bool:
        return 0
    if typing.get_origin(_plain(hint)) is not tuple:
        return 1
    return available if _is_open(hint) else len(typing.get_args(_plain(hint)))


def _is_open(hint: Any) -> bool:
    """Whether an option takes any number of words."""
    return Ellipsis in typing.get_args(_plain(hint))


def _plain(hint: Any) -> Any:
    """A type without its None."""
    if typing.get_origin(hint) not in (types.UnionType, Union):
        return hint
    kinds = [kind for kind in typing.get_args(hint) if kind is not type(None)]
    return kinds[0] if len(kinds) == 1 else hint


def _value(flag: str, hint: Any, text: str) -> Any:
    """The value of a word. Raises BadArgument, about the option, where it is of another kind."""
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
    raise BadArgument(flag, f"be {' or '.join(words)}", text)


_WORDS: dict[Any, str] = {int: "a whole number", float: "a number", str: "text", Path: "a path"}


def _is_option(word: str) -> bool:
    """Whether a word is an option and no value: ``--out``, ``-h``, but not ``-1`` or ``-inf``."""
    if word.startswith("--"):
        return len(word) > 2
    return re.match(r"-[a-zA-Z]", word) is not None and not re.fullmatch(r"-(inf|nan|infinity)", word, re.IGNORECASE)


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"


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


def _unexpected(command: str, word: str, known: dict[str, Any], given: dict[str, Any]) -> Refused:
    """About a word that is no option of the command, or that belongs to none."""
    if not _is_option(word):
        last, name = next(reversed(given), None), WITHOUT_OPTION[command]
        if last is not None and known[last] is bool:
            return Refused(f"{_flag(last)} takes no value, was followed by {word!r}: leave it out to switch it off")
        meant = "" if name in given else f"; did you mean {_flag(name)} {word}?"
        return Refused(f"{word!r} follows no option{meant}")
    flag = word.partition("=")[0]
    near = closest(flag, known)
    constant = flag.strip("-").replace("-", "_")
    if command == "attack" and any(hasattr(getattr(attacks, name), constant) for name in attacks.__all__):
        return Refused(f"there is no option {flag}; a constant of the attack is given as --set {constant}=VALUE")
    return Refused(f"there is no option {flag}" + ("" if near is None else f"; did you mean {_flag(near)}?"))


def _too_few(flag: str, shown: str, values: list[str], rest: Sequence[str], known: Collection[str]) -> BadArgument:
    """About an option with fewer values than it takes."""
    hint = None
    if rest and _is_option(rest[0]) and rest[0][2:].replace("-", "_") not in known and not values:
        hint = f"a value that begins like an option is written {flag}={rest[0]}"
    return BadArgument(flag, f"be followed by {shown}", Words(", ".join(map(repr, values)) or "nothing"), hint=hint)
