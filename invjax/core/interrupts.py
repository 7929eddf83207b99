"""Ctrl-C, and the system's request to end (SIGTERM), from the command's first import on.

``invjax/__init__.py`` imports this module before all others, which take seconds: an interrupt there would end in a
traceback through jax. So while the command (``invjax``, ``python -m invjax``) is loaded, either signal says one line
and ends the process. Then :func:`handled` turns both into exceptions, by which a run is saved. In any other program,
and where somebody else handles a signal, nothing is touched.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Any


class Terminated(KeyboardInterrupt):
    """The system asks the process to end: what a Ctrl-C saves is saved then, too."""


CODES = {signal.SIGINT: 130, signal.SIGTERM: 143}
_DEFAULT = (signal.SIG_DFL, signal.default_int_handler)
_seen: list[int] = []  # the signals that came since the last call of ``handled``


def came() -> int | None:
    """The signal that came last inside :func:`handled`: a library may have made another error of its exception."""
    return _seen[-1] if _seen else None


@contextlib.contextmanager
def handled() -> Iterator[None]:
    """Inside, the signals are exceptions: KeyboardInterrupt and :class:`Terminated`."""
    _seen.clear()
    before = _install(_raise)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        if _seen:
            exec("")  # Python forgets that another exec was interrupted, and ends with the code that it is given


def _raise(number: int, frame: FrameType | None) -> None:
    if _is_deaf(frame):
        again = threading.Timer(0.1, _send, (threading.get_ident(), number))
        again.daemon = True
        again.start()
        return
    _seen.append(number)
    raise Terminated if number == signal.SIGTERM else KeyboardInterrupt


def _send(thread: int, number: int) -> None:
    """To the main thread, which may wait for something; Windows can only send to the process."""
    if hasattr(signal, "pthread_kill"):
        signal.pthread_kill(thread, number)
    else:
        signal.raise_signal(number)


def _is_deaf(frame: FrameType | None) -> bool:
    """Whether Python would print an exception and go on: in a finaliser, and in jax's callback of the collector."""
    while frame is not None:
        if frame.f_code.co_name in ("__del__", "_xla_gc_callback"):
            return True
        frame = frame.f_back
    return False


def _leave(number: int, frame: FrameType | None) -> None:
    """One line, and the end at once: nothing has begun that could be lost."""
    word = "terminated" if number == signal.SIGTERM else "interrupted"
    os.write(2, f"\ninvjax: {word}\n".encode())
    os._exit(CODES[signal.Signals(number)])


def _install(handler: Any) -> dict[signal.Signals, Any]:
    """Handle what nobody handles but Python and this module; what was there before."""
    before: dict[signal.Signals, Any] = {}
    if threading.current_thread() is not threading.main_thread():
        return before  # Python allows it nowhere else
    for number in CODES:
        if signal.getsignal(number) in (*_DEFAULT, _leave, _raise):
            before[number] = signal.signal(number, handler)
    return before


def _is_command() -> bool:
    """Whether this process is ``invjax`` or ``python -m invjax``."""
    words = sys.orig_argv[1:]
    as_module = sys.argv[:1] == ["-m"] and "-m" in words and words[words.index("-m") + 1 :][:1] == ["invjax"]
    return as_module or (bool(sys.argv) and Path(sys.argv[0]).name in ("invjax", "invjax.exe", "invjax-script.py"))


if _is_command():
    _install(_leave)
