"""Files of strangers: whatever a header promises is compared with the file before memory is taken for it."""

from __future__ import annotations

import gzip
import io
import struct
import zipfile

import numpy as np
import pytest

from invjax.campaign.results import read_integers
from invjax.constraints import FeatureSpace
from invjax.core.errors import BadArgument
from invjax.core.files import check_folder
from invjax.core.unpack import Budget, Unreadable, read_idx, read_member, read_npy, read_npz
from invjax.data import load_csv, load_images, load_tabular
from invjax.data.grouped.waterbirds import waterbirds
from invjax.data.images.fashion_mnist import fashion_mnist
from invjax.models import load, load_state_dict
from invjax.models.params_file import load_arrays, save_arrays
from invjax.report import write_report

pytestmark = pytest.mark.fast
HUGE = (10**7, 2**12, 2**11)  # float32: 300 TiB


def header(shape, dtype="<f4"):
    """The bytes of an npy without its numbers."""
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(file, {"descr": dtype, "fortran_order": False, "shape": shape})
    return file.getvalue()


def packed(path, members, kind=zipfile.ZIP_DEFLATED):
    with zipfile.ZipFile(path, "w", kind) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


@pytest.mark.parametrize("shape", [HUGE, (2**32, 2**32), (2**64,), (-1,), (3, -2)])
def test_a_header_that_asks_for_more_than_the_file_holds(tmp_path, shape):
    path = packed(tmp_path / "a.npz", {"images.npy": header(shape) + bytes(12)})
    for read in (read_npz, load_arrays, load_images):
        with pytest.raises(
            ValueError, match=r"array 'images' (takes .*; the file has 12 bytes of it|has the shape .*-)"
        ):
            read(path)
    (tmp_path / "a.npy").write_bytes(header(shape, "<i8") + bytes(12))
    with pytest.raises(Unreadable, match=r"the array 'a.npy' (takes|has the shape)"):
        read_npy(tmp_path / "a.npy")
    with pytest.raises(ValueError, match=r"targets must be a .npy, .npz or text file .*array 'a.npy' (takes|has)"):
        read_integers(tmp_path / "a.npy", "targets", ())
    (tmp_path / "a.gz").write_bytes(gzip.compress(b"\0\0\x08\x02" + struct.pack(">2I", 2**31, 2**32 - 1)))
    with pytest.raises(Unreadable, match=r"would take .* TiB"):
        read_idx(tmp_path / "a.gz")


def test_what_unpacks_to_too_much(tmp_path, monkeypatch):
    """A few KiB of zeros that become MiB, at a limit of 1 MiB, and at one that allows them."""
    zeros = np.zeros(2**22, np.uint8)  # 4 MiB in 4 KiB
    np.savez_compressed(tmp_path / "a.npz", images=zeros.reshape(1, 2**11, 2**11))
    (tmp_path / "a.gz").write_bytes(gzip.compress(b"\0\0\x08\x01" + struct.pack(">I", zeros.size) + zeros.tobytes()))
    readers = {"a.npz": read_npz, "a.gz": read_idx}
    monkeypatch.setenv("INVJAX_UNPACK_GIB", str(2**-10))
    for name, read in readers.items():
        with pytest.raises(Unreadable, match=r"would take 4.0 MiB.*INVJAX_UNPACK_GIB, a number of GiB, allows more"):
            read(tmp_path / name)
    with zipfile.ZipFile(tmp_path / "a.npz") as archive, pytest.raises(Unreadable, match=r"'images.npy' would take"):
        read_member(archive, "images.npy")
    with pytest.raises(ValueError, match=r"images must be a readable .npz file, .*a.npz'; 'images.npy' would take"):
        load_images(tmp_path / "a.npz")
    monkeypatch.setenv("INVJAX_UNPACK_GIB", "0.01")
    assert read_npz(tmp_path / "a.npz")["images"].size == read_idx(tmp_path / "a.gz").size == zeros.size
    monkeypatch.delenv("INVJAX_UNPACK_GIB")
    Budget(0).take(2**30, "anything")  # as is documented
    Budget(2**30).take(2**35, "a large file")
    with pytest.raises(Unreadable, match=r"would take 2.0 GiB"):
        Budget(2**23).take(2**31, "8 MiB")
    for wrong in ("x", "0", "-1", "nan"):
        monkeypatch.setenv("INVJAX_UNPACK_GIB", wrong)
        with pytest.raises(ValueError, match="INVJAX_UNPACK_GIB must be a number > 0"):
            load_arrays(tmp_path / "a.npz")


def test_a_zip_that_says_less_than_it_holds(tmp_path):
    """The sizes of a zip's directory are its author's word: no more than that is unpacked."""
    path = packed(tmp_path / "a.zip", {"x": bytes(2**20)})
    path.write_bytes(path.read_bytes().replace(struct.pack("<I", 2**20), struct.pack("<I", 9)))
    with zipfile.ZipFile(path) as archive, pytest.raises(Unreadable, match="truncated or corrupt: Bad CRC"):
        read_member(archive, "x")


def marked(path, at, value):
    """The zip with a field of its only member changed in both of its headers; ``at``: from the local one."""
    raw = bytearray(path.read_bytes())
    for start, shift in ((raw.index(b"PK\3\4"), 0), (raw.index(b"PK\1\2"), 2)):
        raw[start + at + shift : start + at + shift + 2] = struct.pack("<H", value)
    path.write_bytes(raw)
    return path


@pytest.mark.parametrize(
    ("at", "value", "message"),
    [
        (6, 1, "locked with a password"),
        (8, 9, "packed by Deflate64"),
        (8, 1, "packed by method 1,"),
        (8, 98, "packed by PPMd"),
    ],
)
def test_zips_that_python_cannot_unpack(tmp_path, at, value, message):
    path = marked(packed(tmp_path / "a.npz", {"images.npy": header((3,)) + bytes(12)}), at, value)
    with pytest.raises(ValueError, match=rf"a.npz: 'images.npy' is {message}"):
        load_arrays(path)


def test_members_that_are_no_arrays(tmp_path):
    path = packed(tmp_path / "a.npz", {"a.npy": header((3,)) + bytes(12), "b.txt": b"words"})
    assert read_npz(path, ("a",))["a"].tolist() == [0, 0, 0]
    with pytest.raises(ValueError, match=r"'b.txt' is no array"):
        load_arrays(path)
    with pytest.raises(ValueError, match=r"'two.nlines' is no array"):
        load_arrays(packed(tmp_path / "c.npz", {"two\nlines": b""}))
    path = packed(tmp_path / "b.npz", {"a.npy": b"\x93NUMPY\1\0" + struct.pack("<H", 9000) + b"(" * 9000})
    with pytest.raises(ValueError, match="truncated or corrupt"):
        load_arrays(path)
    with pytest.raises(ValueError, match="File name too long"):
        read_npz(tmp_path / ("n" * 300 + ".npz"))


LONG = "n" * 300
READERS = {
    "weights": load_state_dict,
    "safetensors": lambda path: load_state_dict(f"{path}.safetensors"),
    "npz": load_arrays,
    "model": lambda path: load("cnn", path),
    "schema": FeatureSpace.from_json,
    "csv": lambda path: load_csv(path, "y"),
    "images": load_images,
    "tables": lambda path: load_tabular("wine", path),
    "waterbirds": waterbirds,
    "fashion": fashion_mnist,
    "integers": lambda path: read_integers(path, "targets", ()),
    "save": lambda path: save_arrays(f"{path}/w.npz", {}),
    "out": check_folder,
    "report": lambda path: write_report(path, []),
}


@pytest.mark.parametrize("read", READERS.values(), ids=READERS)
def test_a_name_of_300_characters(read):
    with pytest.raises(BadArgument, match=r"must (be|lie|end)") as caught:
        read(LONG)
    assert LONG[:50] in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (b"[" * 200_000, "it is nested too deep"),
        (b'{"features":' * 100_000, "it is nested too deep"),
        (b'{"features":[{"name":"a","lower":' + b"9" * 5000 + b"}]}", "limit .4300 digits."),
        (b'{"features":[{"name":"a","scale":' + b"9" * 400 + b"}]}", "int too large"),
        (b'{"features":[{"name":"a","center":"x"}]}', "could not convert"),
        (b'{"features":[{"name":"a","transitions":[[1]]}]}', "not enough values"),
        (b'{"features":"abc"}', "ValueError"),
        (b"\xff{", "utf-8"),
        (b"{", "Expecting"),
    ],
)
def test_json_that_is_no_schema(tmp_path, text, reason):
    (tmp_path / "s.json").write_bytes(text)
    (tmp_path / "t.csv").write_text("a,y\n1,0\n2,1\n")
    for name, read in (
        ("path", FeatureSpace.from_json),
        ("schema", lambda path: load_csv(tmp_path / "t.csv", "y", path)),
    ):
        with pytest.raises(BadArgument, match=rf"^{name} must be a feature space .*, was .*s.json'; .*{reason}"):
            read(tmp_path / "s.json")
