"""One door for what is written and one for what is unpacked, so that their care is taken everywhere."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import invjax

pytestmark = pytest.mark.fast
PACKAGE = Path(invjax.__file__).parent
WRITES = {"write_text", "write_bytes", "to_csv", "tofile", "savetxt", "memmap", "mkstemp", "NamedTemporaryFile"}
UNPACKS = {"np.load", "gzip.decompress", "gzip.open", "zlib.decompress", "bz2.open", "lzma.open", "pickle.load"}
UNPACKS |= {"pickle.loads", "json.load", "tarfile.open", "Image.open"}
ALLOWED = {
    ("core/files.py", "open(wb)"),  # write_atomic
    ("core/files.py", "open(xb)"),
    ("core/unpack.py", "gzip.open"),
    ("cli/main.py", "open(w)"),  # of the null device
    ("data/grouped/waterbirds.py", "open(xb)"),  # thousands of pictures in a new folder, not flushed one by one
    ("data/images/mnist.py", "gzip.decompress"),  # of an installed package
    ("engine/parts.py", "np.load"),  # of a run's own parts, whose checksums it compares
}


def calls(path):
    """The calls of a module that write or unpack a file, as they are named in ALLOWED."""
    text = path.read_text()
    if not any(f"{word}(" in text for word in (*WRITES, *UNPACKS, "open")):  # most need not be parsed
        return
    for node in ast.walk(ast.parse(text)):
        if not isinstance(node, ast.Call):
            continue
        name = ast.unparse(node.func)
        last = name.rpartition(".")[2]
        if last == "open" and name not in UNPACKS:
            words = [word.value for word in (*node.args, *(keyword.value for keyword in node.keywords))
                     if isinstance(word, ast.Constant) and isinstance(word.value, str)]  # fmt: skip
            mode = next((word for word in words if set(word) <= set("rwaxbt+") and set(word) & set("wax+")), None)
            if mode is not None and not name.startswith("archive."):
                yield f"open({mode})"
        elif name in UNPACKS or last in WRITES:
            yield name


def test_files_are_written_and_unpacked_in_one_place():
    found = {(path.relative_to(PACKAGE).as_posix(), call) for path in PACKAGE.rglob("*.py") for call in calls(path)}
    assert found <= ALLOWED
    assert ("core/unpack.py", "gzip.open") in found
    assert any(file == "core/files.py" for file, _ in found)


def test_the_search_sees_what_it_should(tmp_path):
    lines = ("open('name', 'w')", "open(path, mode='ab')", "path.open('r+')", "path.write_text('')", "np.load(path)")
    (tmp_path / "a.py").write_text("\n".join((*lines, "open(path)", "open(path, 'rb')")))
    assert sorted(calls(tmp_path / "a.py")) == ["np.load", "open(ab)", "open(r+)", "open(w)", "path.write_text"]
