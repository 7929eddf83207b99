"""Python environments of other libraries: made where they do not exist, and never mixed with this one's packages."""

from __future__ import annotations

import os
import subprocess
import sys
import venv
from collections.abc import Sequence
from pathlib import Path

from invjax.core.errors import BadArgument


class Skipped(Exception):
    """A peer cannot run; the message says why."""


def interpreter(folder: Path) -> Path:
    """Where an environment keeps its Python."""
    return folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")


def variables(python: str | Path) -> dict[str, str]:
    """This process's variables, for another interpreter without the ones that would let our packages into it."""
    ours = os.path.abspath(python) == os.path.abspath(sys.executable)
    return {name: text for name, text in os.environ.items() if ours or name not in ("PYTHONPATH", "PYTHONHOME")}


def reason(output: str) -> str:
    """The line of a failed process's output that says what went wrong; empty if there is none."""
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    return ([line for line in lines if "error" in line.lower()] or lines or [""])[-1]


def call(command: Sequence[str | Path], what: str, timeout: float) -> None:
    """Run a command. Raises Skipped, with the reason in one line."""
    words = [str(word) for word in command]
    try:
        done = subprocess.run(words, capture_output=True, text=True, timeout=timeout, env=variables(words[0]))
    except subprocess.TimeoutExpired:
        raise Skipped(f"{what} took more than {timeout:.0f} s") from None
    except OSError as error:
        raise Skipped(f"{what} failed: {error}") from error
    if done.returncode:
        raise Skipped(f"{what} failed: {reason(done.stderr or done.stdout) or f'exit code {done.returncode}'}")


def environment(folder: Path, imports: str, requirements: Sequence[str] | None, *, timeout: float = 3600.0) -> Path:
    """The interpreter of an environment, which is made unless it works already.

    Args:
      folder: where it is. imports: a statement that shows whether it works.
      requirements: what pip installs there; None installs nothing.

    Raises Skipped: it cannot be made, or its packages cannot be imported.
    """
    python = interpreter(folder)
    try:
        call([python, "-c", imports], "importing", timeout)
        return python
    except Skipped as why:
        if requirements is None:
            raise Skipped(f"no working environment in {folder.name}: {why}") from None
    try:
        venv.create(folder, with_pip=True)
    except (OSError, subprocess.CalledProcessError) as error:
        raise Skipped(f"making an environment failed: {error}") from error
    call([python, "-m", "pip", "install", "--quiet", *requirements], "installing", timeout)
    call([python, "-c", imports], "importing after installing", timeout)
    return python


def python_with(option: str, path: str | None, modules: Sequence[str], timeout: float = 300.0) -> Path:
    """The interpreter that an option names (this one by default), if it can import the modules.

    Raises BadArgument, about ``option``, with what is missing there.
    """
    python = Path(path or sys.executable)
    try:
        call([python, "-c", "import " + ", ".join(modules)], "importing", timeout)
    except Skipped as why:
        hint = f"{str(why).removeprefix('importing failed: ')}; install it there, or name another one"
        wanted = f"be a Python that can import {', '.join(modules)}"
        raise BadArgument(option, wanted, str(python), hint=hint) from None
    return python


def check_clone(path: str | None, repository: str, names: Sequence[str]) -> Path:
    """The folder that ``--released`` names. Raises BadArgument, with the files of the repository that are missing."""
    wanted = f"be a clone of the authors' repository, {repository}"
    if path is None:
        raise BadArgument("released", wanted)
    missing = [name for name in names if not Path(path, name).is_file()]
    if missing:
        raise BadArgument("released", wanted, path, hint=f"missing there: {', '.join(missing)}")
    return Path(path).absolute()
