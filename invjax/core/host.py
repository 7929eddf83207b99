"""Errors of functions that compiled code calls on the host, told by whoever ran the program.

jax wraps what a callback raises in an error of its own, whose message is a traceback, and logs it once more. Here the
error keeps its identity: ``on_host`` marks it inside the callback, and ``host_errors`` raises the original outside.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import re
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import wraps
from typing import Any

import jax

_KEPT = 16  # errors that wait for someone to raise them
_numbers = itertools.count()
_raised: dict[int, Exception] = {}
_threads = threading.local()


class HostError(RuntimeError):
    """What a callback raised, with a number by which the original is found again."""


def on_host(function: Callable[..., Any]) -> Callable[..., Any]:
    """``function`` for a callback: what it raises reaches :func:`host_errors`."""

    @wraps(function)
    def call(*args: Any, **options: Any) -> Any:
        try:
            return function(*args, **options)
        except Exception as error:
            number = next(_numbers)
            _raised[number] = error
            _raised.pop(number - _KEPT, None)
            raise HostError(f"{error} [host error {number}]") from error

    return call


@contextlib.contextmanager
def host_errors() -> Iterator[None]:
    """Raise what a callback raised in its own words; also a decorator (``@host_errors()``)."""
    try:
        yield
    except (jax.errors.JaxRuntimeError, HostError) as error:
        found = re.findall(r"\[host error (\d+)\]", str(error))
        original = _raised.pop(int(found[-1]), None) if found else None
        if original is None:
            raise
        raise original from original.__cause__


@contextlib.contextmanager
def own_work() -> Iterator[None]:
    """:func:`host_errors` for a whole call of the library; also a decorator (``@own_work()``).

    A person's guards over transfers and infinities watch their own code, so both are off inside: the library moves
    NumPy's arrays to the device where it wants them, and "nothing found yet" is an infinite score.
    """
    guarded = any(getattr(jax.config, name) not in (None, "allow") for name in _GUARDS)
    with jax.transfer_guard("allow") if guarded else _NONE, _infinities_allowed(), host_errors():
        yield


_GUARDS = tuple(f"jax_transfer_guard_{way}" for way in ("host_to_device", "device_to_device", "device_to_host"))
_NONE = contextlib.nullcontext()


def own_thread() -> None:
    """The initialiser of a thread that moves arrays: no guard of the person's watches it."""
    _threads.guard = jax.transfer_guard("allow")  # left with the thread; a context that nobody holds is left at once
    _threads.guard.__enter__()


@contextlib.contextmanager
def _infinities_allowed() -> Iterator[None]:
    """``jax_debug_infs`` off, where it is on."""
    if not jax.config.jax_debug_infs:  # type: ignore[attr-defined]
        yield
        return
    with ThreadPoolExecutor(1) as other:  # which knows no context of this thread
        everywhere = other.submit(lambda: jax.config.jax_debug_infs).result()  # type: ignore[attr-defined]
    if not everywhere:
        with jax.debug_infs(False):
            yield
        return
    # Not by the context: after it jax would not look at this thread's programs any more.
    jax.config.update("jax_debug_infs", False)
    try:
        yield
    finally:
        jax.config.update("jax_debug_infs", True)


def _foreign(record: logging.LogRecord) -> bool:
    """Whether jax should log it: an error of ours is raised again, in one line."""
    return not (record.exc_info and isinstance(record.exc_info[1], HostError))


logging.getLogger("jax._src.callback").addFilter(_foreign)
