"""Files that are whole or absent, and folders that can be written."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from invjax.core.errors import BadArgument, Words


def write_atomic(path: str | os.PathLike[str], data: bytes) -> None:
    """``data`` under a temporary name, flushed to disk, then renamed: the file is whole or absent.

    A call that is interrupted or fails leaves an older file as it was. Raises OSError where it cannot be written.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}-{os.urandom(4).hex()}.tmp")  # machines may share pids
    try:
        with open(temporary, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def check_folder(path: str | os.PathLike[str], name: str = "out") -> Path:
    """``path`` as a folder that exists or can be made; nothing is made. Raises BadArgument about ``name``."""
    folder = Path(path)
    with writing(path, name):  # a name that is too long
        nearest = next(parent for parent in (folder.absolute(), *folder.absolute().parents) if parent.exists())
    if not nearest.is_dir() or not os.access(nearest, os.W_OK | os.X_OK):
        why = "is not a folder" if not nearest.is_dir() else "cannot be written"
        raise BadArgument(name, "be a folder that can be written", str(path), hint=f"{str(nearest)!r} {why}")
    return folder


@contextlib.contextmanager
def writing(path: str | os.PathLike[str], name: str = "out", what: str = "folder") -> Iterator[None]:
    """Inside, an OSError becomes a BadArgument about ``name``, which must be a ``what`` that can be written."""
    try:
        yield
    except OSError as error:
        was = Words(f"{os.fspath(path)!r}: {error.strerror or error}")
        raise BadArgument(name, f"be a {what} that can be written", was) from error
