"""``invjax demo | attack | explain``: the command line. Options: :mod:`invjax.cli.options`.

Exit codes: 0 done; 1 out of memory; 2 bad input, said in one line on stderr, with nothing written; 130 interrupted
(Ctrl-C) and 143 terminated (SIGTERM), with the finished part kept where the command keeps anything.
"""

from __future__ import annotations

import codecs
import contextlib
import io
import os
import signal
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from invjax.cli.options import COMMANDS
from invjax.cli.parse import Refused, parse
from invjax.core import interrupts
from invjax.core.errors import BadArgument


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
    write_anything()
    try:
        with interrupts.handled():
            options = parse(words or ["--help"])
            if options is None:  # help was shown
                return 0
            enable_cache()
            _run(command, options)
    except KeyboardInterrupt:
        return _stopped(program, command, options)
    except Exception as error:
        if interrupts.came() is not None:  # of an import that was interrupted, say
            return _stopped(program, command, options)
        return _failed(program, error, options)
    return 0


def _stopped(program: str, command: str, options: Any) -> int:
    word = "terminated" if interrupts.came() == signal.SIGTERM else "interrupted"
    print(f"\n{program}: {word}{_what_is_kept(command, options)}", file=sys.stderr)
    return 143 if word == "terminated" else 130


def _failed(program: str, error: Exception, options: Any) -> int:
    """Say what was wrong in one line, if it was bad input or too large a problem; the exit code. Else raise."""
    if isinstance(error, BrokenPipeError):  # whoever read our output has gone: nobody is left to tell
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115 -- the interpreter flushes it at exit
        return 1
    if isinstance(error, MemoryError) or "RESOURCE_EXHAUSTED" in str(error):
        print(f"{program}: error: out of memory; try fewer --lanes", file=sys.stderr)
        return 1
    if not isinstance(error, Refused | ValueError | ImportError):
        raise error
    error = _as_option(error, options) if isinstance(error, BadArgument) else error
    print(f"{program}: error: {one_line(error)}", file=sys.stderr)
    return 2


def write_anything() -> None:
    """Let stdout and stderr escape what their encoding does not have: an arrow, on a console of Windows."""
    codecs.register_error("invjax", _in_ascii)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper) and stream.errors in ("strict", "backslashreplace"):
            stream.reconfigure(errors="invjax")


_ASCII = {
    "→": "->", "·": "*", "×": "x", "–": "-", "—": "-", "…": "...", "±": "+/-", "≤": "<=", "≥": ">=", "−": "-", "‖": "|",
    "’": "'", "κ": "kappa", "ε": "eps", "τ": "tau",
}  # fmt: skip


def _in_ascii(error: UnicodeError) -> tuple[str, int]:
    """The handler of codecs: words for our own signs, escapes for everything else."""
    assert isinstance(error, UnicodeEncodeError)
    text = error.object[error.start : error.end]
    return "".join(_ASCII.get(sign) or sign.encode("ascii", "backslashreplace").decode() for sign in text), error.end


def enable_cache() -> None:
    """Keep compiled programs in the user's cache folder, so that a second call compiles nothing.

    The folder is ``$XDG_CACHE_HOME/invjax`` or ``~/.cache/invjax``. INVJAX_CACHE=0 switches it off, and a cache folder
    that jax already has is left alone.
    """
    import jax

    if os.environ.get("INVJAX_CACHE") == "0" or getattr(jax.config, "jax_compilation_cache_dir", None):
        return
    with contextlib.suppress(OSError, RuntimeError):  # no home, or none to write to: compile anew
        folder = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "invjax"
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):  # whoever may not write there is warned by jax at every program
            pass
        jax.config.update("jax_compilation_cache_dir", str(folder))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)
        jax.config.update("jax_persistent_cache_min_entry_size_bytes", 0)


def one_line(error: BaseException) -> str:
    """The message of an error without its line breaks; of a very long one the two ends."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 110]} … {text[-100:]}"


_LONGEST = 450


def _as_option(error: BadArgument, options: Any) -> BadArgument:
    """About ``--max-changes`` where the argument ``max_changes`` is an option of the command."""
    return error.renamed(f"--{error.name.replace('_', '-')}") if hasattr(options, error.name) else error


def _run(command: str, options: Any) -> None:
    """Run the command; only its own module is imported."""
    if command == "demo":
        from invjax.cli.demo.main import run_demo as run
    elif command == "attack":
        from invjax.cli.attack import run_attack as run
    else:
        from invjax.cli.explain import run_explain as run
    run(options)


def _what_is_kept(command: str, options: Any) -> str:
    if command != "attack" or options is None:
        return ""
    from invjax.engine.parts import count_saved

    run = options.out / "run"
    done = count_saved(run)
    return f"; {done} pairs are kept in {run}: the same command resumes there" if done else " before any pair had ended"


if __name__ == "__main__":
    sys.exit(main())
