"""Files that are whole or absent, made by one alone, and answers that outlive a full disk."""

from __future__ import annotations

import os
import tempfile
import threading
from pathlib import Path
from typing import Any

import pytest

from invjax.core.errors import BadArgument
from invjax.core.files import check_folder, write_answers, write_atomic, write_new, writing

pytestmark = pytest.mark.fast


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*"))


def no_room(monkeypatch: pytest.MonkeyPatch, below: Path) -> None:
    """The disk of ``below`` is full: what is written there fails when it is flushed to it."""
    real = os.fsync

    def full(number: int) -> None:
        if str(below) in os.readlink(f"/proc/self/fd/{number}"):
            raise OSError(28, "No space left on device")
        real(number)

    monkeypatch.setattr(os, "fsync", full)


def test_a_new_file_is_made_once(tmp_path: Path) -> None:
    assert write_new(tmp_path / "a", b"first")
    assert not write_new(tmp_path / "a", b"second")
    assert names(tmp_path) == ["a"]
    assert (tmp_path / "a").read_bytes() == b"first"


def test_threads_write_one_file(tmp_path: Path) -> None:
    """Whoever is last has it, whole; nobody meets another's temporary. A long name leaves room for the temporary's."""
    path, failed = tmp_path / ("n" * 250), []

    def write(number: int) -> None:
        try:
            for _ in range(20):
                write_atomic(path, bytes([number]) * 1000)
        except OSError as error:
            failed.append(error)

    threads = [threading.Thread(target=write, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed
    assert names(tmp_path) == ["n" * 250]
    assert len(set(path.read_bytes())) == 1
    assert len(path.read_bytes()) == 1000


def test_a_planted_link_is_not_followed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A temporary is a new file: were its name known, a link there would be refused and not written through."""
    monkeypatch.setattr(os, "urandom", lambda count: bytes(count))
    owner = f"{os.getpid()}-{threading.get_ident():x}-{bytes(8).hex()}"
    (tmp_path / "target").write_bytes(b"another's")
    (tmp_path / f".a.{owner}.tmp").symlink_to(tmp_path / "target")
    with pytest.raises(FileExistsError):
        write_atomic(tmp_path / "a", b"mine")
    assert (tmp_path / "target").read_bytes() == b"another's"


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="finds the folder of an open file there")
def test_a_full_disk_leaves_nothing_and_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    full, other = tmp_path / "full", tmp_path / "other"
    full.mkdir()
    other.mkdir()
    write_atomic(full / "a", b"old")
    no_room(monkeypatch, full)
    monkeypatch.setattr(tempfile, "tempdir", str(other))
    with pytest.raises(OSError, match="No space left"):
        write_atomic(full / "a", b"new")
    assert names(full) == ["a"]
    assert (full / "a").read_bytes() == b"old"
    with pytest.raises(
        BadArgument, match=r"^out must be a folder .*full': No space left on device; b, c: kept in "
    ) as said:
        write_answers(full, {"b": b"1", "c": b"2"})
    (kept,) = other.iterdir()
    assert str(kept) in str(said.value)
    assert {path.name: path.read_bytes() for path in kept.iterdir()} == {"b": b"1", "c": b"2"}
    no_room(monkeypatch, tmp_path)
    with pytest.raises(BadArgument, match=r"the folder for temporary files takes nothing either \(No space left"):
        write_answers(full, {"b": b"1"})
    assert names(full) == ["a"]


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="finds the folder of an open file there")
def test_a_folder_is_tried_before_the_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert check_folder(tmp_path / "new" / "one") == tmp_path / "new" / "one"
    assert not names(tmp_path)
    with pytest.raises(BadArgument, match=r"^out must be a folder that can be written, was .*File name too long"):
        check_folder(tmp_path / ("n" * 300))
    no_room(monkeypatch, tmp_path)
    with pytest.raises(BadArgument, match=r"^runs must be a folder that can be written, .*No space left on device$"):
        check_folder(tmp_path / "new", "runs")
    assert not names(tmp_path)


def test_whatever_is_wrong_with_a_file_is_said_of_its_folder(tmp_path: Path) -> None:
    for wrong in (OSError(28, "No space left on device"), BadArgument("path", "be writable, as No space left")):
        with pytest.raises(BadArgument, match=r"^out must be .*No space left"), writing(tmp_path):
            raise wrong
    with pytest.raises(BadArgument, match=r"^x must be small"), writing(tmp_path):
        raise BadArgument("x", "be small")


def test_answers_make_their_folder(tmp_path: Path) -> None:
    files: dict[str, Any] = {"a": b"1", "b": b"2"}
    write_answers(tmp_path / "new" / "one", files)
    assert {path.name: path.read_bytes() for path in (tmp_path / "new" / "one").iterdir()} == files
