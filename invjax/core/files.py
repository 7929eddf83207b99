"""Files that are whole or absent, and folders that can be written."""

from __future__ import annotations

import contextlib
import os
import tempfile
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path

from invjax.core.errors import BadArgument, Words
from invjax.core.meant import closest

_TRIED = 4096  # bytes written to see whether a folder takes any: an empty file fits on a full disk


def write_atomic(path: str | os.PathLike[str], data: bytes) -> None:
    """``data`` under a temporary name, flushed to disk, then renamed: the file is whole or absent.

    A call that is interrupted or fails leaves an older file as it was. Raises OSError where it cannot be written.
    """
    with _temporary(Path(path), data) as temporary:
        os.replace(temporary, path)


def write_new(path: str | os.PathLike[str], data: bytes) -> bool:
    """As :func:`write_atomic`, but only if nothing has the name: of several that write at once, one does.

    Returns whether it was this call. Raises OSError where it cannot be written.
    """
    with _temporary(Path(path), data) as temporary:
        try:
            os.link(temporary, path)
        except FileExistsError:
            return False
        except OSError:  # a file system without links: still one alone, but others may see a part of it for a moment
            try:
                with open(path, "xb") as file:
                    file.write(data)
            except FileExistsError:
                return False
    return True


@contextlib.contextmanager
def _temporary(path: Path, data: bytes) -> Iterator[Path]:
    """A new file with ``data`` beside ``path``, gone afterwards: no other call, thread, process or machine has it."""
    owner = f"{os.getpid()}-{threading.get_ident():x}-{os.urandom(8).hex()}"  # machines may share process ids
    temporary = path.with_name(f".{path.name[:40]}.{owner}.tmp")
    try:
        with open(temporary, "xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        yield temporary
    finally:
        with contextlib.suppress(OSError):  # it was renamed, or the folder has gone
            temporary.unlink()


def no_file(name: str, wanted: str, path: str | os.PathLike[str]) -> BadArgument:
    """The error about a file that is not there. It names the one beside it that has nearly the same name."""
    folder, own = Path(path).parent, Path(path).name
    try:
        beside = {Path(file).stem: file for file in sorted(os.listdir(folder)) if Path(file).suffix == Path(own).suffix}
    except OSError:
        beside = {}
    near = closest(Path(own).stem, beside)
    hint = None if near is None else f"did you mean {str(folder / beside[near])!r}?"
    return BadArgument(name, wanted, str(path), hint=hint)


def check_folder(path: str | os.PathLike[str], name: str = "out") -> Path:
    """``path`` as a folder that exists or can be made, and takes files now; nothing of that is left.

    Raises BadArgument about ``name``.
    """
    folder = Path(path)
    with writing(path, name):  # also for a name that is too long
        nearest = next(parent for parent in (folder.absolute(), *folder.absolute().parents) if parent.exists())
        if nearest.is_dir():
            with _temporary(nearest / "invjax", bytes(_TRIED)):
                return folder
    raise BadArgument(name, "be a folder that can be written", str(path), hint=f"{str(nearest)!r} is not a folder")


@contextlib.contextmanager
def writing(
    path: str | os.PathLike[str], name: str = "out", what: str = "folder", hint: str | None = None
) -> Iterator[None]:
    """Inside, an OSError becomes a BadArgument about ``name``, which must be a ``what`` that can be written.

    So does one about the ``path`` of a file in it.
    """
    try:
        yield
    except BadArgument as error:
        if error.name != "path":
            raise
        raise error.renamed(name) from error
    except OSError as error:
        was = Words(f"{os.fspath(path)!r}: {error.strerror or error}")
        raise BadArgument(name, f"be a {what} that can be written", was, hint=hint) from error


def write_answers(folder: str | os.PathLike[str], files: Mapping[str, bytes], name: str = "out") -> None:
    """Write ``files`` into ``folder``, which is made if need be.

    What it does not take goes into a new folder for temporary files, and the error says where: the work behind it is
    not lost. Raises BadArgument about ``name``.
    """
    lost: dict[str, bytes] = {}
    reason = ""
    for file, data in files.items():
        try:
            os.makedirs(folder, exist_ok=True)
            write_atomic(Path(folder) / file, data)
        except OSError as error:
            lost[file], reason = data, reason or str(error.strerror or error)
    if not lost:
        return
    try:
        other = Path(tempfile.mkdtemp(prefix="invjax-"))
        for file, data in lost.items():
            write_atomic(other / file, data)
        hint = f"{', '.join(lost)}: kept in {str(other)!r}"
    except OSError as error:
        hint = f"the folder for temporary files takes nothing either ({error.strerror or error})"
    raise BadArgument(name, "be a folder that can be written", Words(f"{os.fspath(folder)!r}: {reason}"), hint=hint)
