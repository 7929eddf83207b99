"""``invjax demo | attack | explain``: the command line. Options: :mod:`invjax.cli.options`.

Exit codes: 0 done; 2 bad input, said in one line on stderr, with nothing written; 130 interrupted (Ctrl-C), with what
had ended kept where the command keeps anything.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

COMMANDS = ("demo", "attack", "explain")


class Refused(Exception):
    """The options could not be read; the message says why in one line."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    if words == ["--version"]:
        import invjax

        print(f"invjax {invjax.__version__}")
        return 0
    command = words[0] if words and words[0] in COMMANDS else ""
    program = f"invjax {command}".strip()
    options: Any = None
    try:
        options = _parse(words or ["--help"])
        if options is None:  # help was shown
            return 0
        enable_cache()
        RUN[command](options)
    except (Refused, ValueError, ImportError) as error:
        print(f"{program}: error: {_as_option(one_line(error), options)}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"\n{program}: interrupted{_how_to_go_on(command, options)}", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader of our output has gone: nothing to say, nobody to say it to
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115 -- the interpreter flushes it at exit
        return 1
    return 0


def enable_cache() -> None:
    """Keep compiled programs in the user's cache folder, so that a second call compiles nothing.

    ``$XDG_CACHE_HOME/invjax`` or ``~/.cache/invjax``; not with INVJAX_CACHE=0, nor where jax has a folder already.
    """
    import jax

    if os.environ.get("INVJAX_CACHE") == "0" or getattr(jax.config, "jax_compilation_cache_dir", None):
        return
    folder = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "invjax"
    with contextlib.suppress(OSError):  # no home to write to: compile anew
        folder.mkdir(parents=True, exist_ok=True)
        jax.config.update("jax_compilation_cache_dir", str(folder))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)
        jax.config.update("jax_persistent_cache_min_entry_size_bytes", 0)


def one_line(error: BaseException) -> str:
    """The message of an error without its line breaks."""
    return " ".join(str(error).split()) or type(error).__name__


def _as_option(message: str, options: Any) -> str:
    """``weights must be …`` as ``--weights must be …`` where the first word is an option of the command."""
    first = re.match(r"\w+", message)
    if options is None or first is None or not hasattr(options, first[0]):
        return message
    return f"--{first[0].replace('_', '-')}{message[first.end() :]}"


def _parse(words: list[str]) -> Any:
    """The options of a command, or None where help was asked for and shown. Raises Refused, ImportError."""
    try:
        import tyro
    except ImportError as error:
        raise ImportError("the command line needs tyro: pip install 'invjax[cli]'") from error
    from invjax.cli import options as arguments

    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            return tyro.extras.subcommand_cli_from_dict(
                arguments.COMMANDS, prog="invjax", description=arguments.DESCRIPTION, args=words
            )
    except SystemExit as stop:
        if not stop.code:
            return None
        raise Refused(_first_statement(said.getvalue(), words)) from None


def _first_statement(box: str, words: list[str]) -> str:
    """What tyro drew in a box, as one line: the part above its first rule."""
    plain = re.sub(r"\x1b\[[0-9;]*m", "", box).splitlines()  # without colours
    framed = [line for line in plain if line.startswith("│")]
    lines = [line.strip("│ ") for line in framed or plain]
    if not framed:  # the form for terminals without UTF-8: the title, a rule, and then the same
        lines = lines[next((n for n, line in enumerate(lines, 1) if _is_rule(line)), 0) :]
    lines = lines[: next((n for n, line in enumerate(lines) if _is_rule(line)), None)]
    if lines and lines[0].startswith("Missing from"):
        missing = [word for line in lines[1:] if (word := line.split(" ")[0]).startswith("--")]
        said = f"{', '.join(missing)} must be given"
    else:
        said = " ".join(" ".join(lines).split()) or "the options could not be read"
    if wrong := re.match(r"Error parsing (--[\w-]+): .*?\[(.*?)\]", said):
        said = f"{wrong[1]} must be of the kind its help says, was {wrong[2]}"
    known = words and words[0] in COMMANDS
    return f"{said} (see invjax {words[0]} --help)" if known else f"{said} (see invjax --help)"


def _is_rule(line: str) -> bool:
    return bool(line) and not line.strip("─-")


def _demo(options: Any) -> None:
    from invjax.cli.demo.main import run_demo

    progress = False if options.no_progress else None
    run_demo(
        options.out, images=options.n, seed=options.seed, lanes=options.lanes, learn=options.learn, progress=progress
    )


def _attack(options: Any) -> None:
    from invjax.cli.attack import Job, run_job

    run_job(Job(**vars(options)))


def _explain(options: Any) -> None:
    from invjax.cli.explain import ExplainJob, run_explain

    run_explain(ExplainJob(**vars(options)))


RUN = {"demo": _demo, "attack": _attack, "explain": _explain}


def _how_to_go_on(command: str, options: Any) -> str:
    if command != "attack" or options is None:
        return ""
    from invjax.cli.attack import kept

    done = kept(options.out)
    if not done:
        return " before any pair had ended"
    return f"; {done} pairs are kept in {options.out / 'run'}: the same command goes on from there"


if __name__ == "__main__":
    sys.exit(main())
