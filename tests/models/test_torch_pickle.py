"""Weight files as programs: what a pickle could do to its reader, and does not do to this one."""

from __future__ import annotations

import inspect
import pickle
import zipfile
from collections import OrderedDict

import numpy as np
import pytest

from invjax.models import load_state_dict
from invjax.models import torch_pickle as reader

pytestmark = pytest.mark.fast
NUMBERS = np.arange(12, dtype=np.float32)
START = b"\x80\x02"  # PROTO 2
REBUILD = b"ctorch._utils\n_rebuild_tensor_v2\n"
ORDERED = b"ccollections\nOrderedDict\n"


def text(word):
    return pickle.BINUNICODE + len(word).to_bytes(4, "little") + word.encode()


def tensor(count=12):
    """The commands that rebuild the whole of the storage "0"."""
    number = pickle.BININT + count.to_bytes(4, "little")
    storage = b"(" + text("storage") + b"ctorch\nFloatStorage\n" + text("0") + text("cpu") + number + b"tQ"
    return REBUILD + b"(" + storage + b"K\0" + number + b"\x85K\x01\x85\x89" + ORDERED + b")R" + b"tR"


def write(path, program, numbers=NUMBERS):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a/data.pkl", START + program + b".")
        archive.writestr("a/data/0", numbers.tobytes())
    return path


def functions():
    """Everything in the reader that a program might change."""
    found = {name: value for name, value in vars(reader).items() if inspect.isfunction(value)}
    found |= {f"{kind.__name__}.{name}": value for kind in (reader.WeightsUnpickler, OrderedDict)
              for name, value in vars(kind).items() if inspect.isfunction(value)}  # fmt: skip
    return {name: (value.__code__, value.__defaults__, value.__kwdefaults__, dict(vars(value)))
            for name, value in found.items()}  # fmt: skip


def test_metadata_of_a_state_dict_is_left_out(tmp_path):
    """torch sets it with BUILD, the one use that a weights file has for that command."""
    entries = b"(" + text("w") + tensor() + b"u"
    path = write(tmp_path / "w.pth", ORDERED + b")R" + entries + b"}" + text("_metadata") + ORDERED + b")Rsb")
    found = load_state_dict(path)
    assert list(found) == ["w"]
    np.testing.assert_array_equal(found["w"], NUMBERS)
    found["w"][0] = 5  # weights may be written to


@pytest.mark.parametrize("target", [REBUILD, ORDERED, b"ctorch._utils\n_rebuild_parameter\n", tensor(), b"]", b"K\x01"])
@pytest.mark.parametrize("state", ["attributes", "slots"])
def test_build_changes_nothing(tmp_path, target, state):
    before = functions()
    change = b"}" + text("__defaults__") + b"N" + b"s" + b"}" + text("seen") + b"K\x01s"
    change = change + b"\x86" if state == "slots" else b"}" + text("seen") + b"K\x01s"
    path = write(tmp_path / "w.pth", b"}" + text("w") + target + change + b"bs")
    with pytest.raises(ValueError, match=r"nothing but tensors.*w.pth has a command that changes"):
        load_state_dict(path)
    assert functions() == before


@pytest.mark.parametrize(
    ("program", "message"),
    [
        (b"}N" + b"\x85" * 50_000 + b"Ns", "a key that is tuple"),  # to hash this overflows the stack
        (b"}N" + b"2\x86" * 60 + b"Ns", "a key that is tuple"),  # and this takes 2^60 steps
        (b"(" + text("storage") + b"K\1" + b"2\x86" * 60 + b"tQ", "a stored object that is no tensor but tuple"),
        (ORDERED + b"]]N" + b"\x85" * 9 + b"aNaa\x85R", "a key that is tuple"),
        (b"(N" + b"\x85" * 9 + b"Nd", "a key that is tuple"),
        (b"\x8f(N" + b"\x85" * 9 + b"\x90", "that torch.save does not write"),  # a set
        (b"(N" + b"\x85" * 9 + b"\x91", "that torch.save does not write"),
        (ORDERED + b")\x81", "that torch.save does not write"),  # NEWOBJ
        (b"(" + ORDERED + b"o", "that torch.save does not write"),  # OBJ
        (b"(icollections\nOrderedDict\n", "that torch.save does not write"),
        (b"\x82\x01", "that torch.save does not write"),  # EXT1
        (b"X\xff\xff\xff\x7fabc", "corrupt"),  # a text of 2 GiB that is not there
        (b"\x8d" + b"\xff" * 8, "corrupt"),
        (b"N0.", "corrupt"),
        (b"K\1K\2\x85R", "a call of something that is no function"),
        (b"]K\1K\2s", "an entry of something that is no dictionary"),
        (b"}" + text("state_dict") + b"K\1s", "entry 'state_dict' is int"),
        (ORDERED + b")R}" + text("get") + b"K\1sb", "hold a state dict"),
    ],
)
def test_programs_that_would_hurt_the_reader(tmp_path, program, message):
    with pytest.raises(ValueError, match=message) as caught:
        load_state_dict(write(tmp_path / "w.pth", program))
    assert len(str(caught.value).splitlines()) == 1


def test_a_place_in_the_memo_takes_no_memory(tmp_path):
    path = write(tmp_path / "w.pth", b"}" + text("w") + tensor() + b"r\xff\xff\xff\x7f" + b"s")  # LONG_BINPUT 2^31
    assert list(load_state_dict(path)) == ["w"]


def test_tensors_that_share_one_storage(tmp_path, monkeypatch):
    """Few are what tied weights look like; hundreds unfold a small file."""
    numbers = np.zeros(2**14, np.float32)  # 64 KiB

    def shared(times):
        entries = b"".join(text(f"w{n}") + tensor(numbers.size) for n in range(times))
        return write(tmp_path / "w.pth", b"}(" + entries + b"u", numbers)

    monkeypatch.setenv("INVJAX_UNPACK_GIB", str(2**-12))  # 256 KiB
    assert len(load_state_dict(shared(30))) == 30
    with pytest.raises(ValueError, match=r"the tensors that share one storage would take 64.0 KiB, too much"):
        load_state_dict(shared(500))
    monkeypatch.setenv("INVJAX_UNPACK_GIB", "1")
    assert len(load_state_dict(shared(500))) == 500


def test_storages_that_share_the_bytes_of_a_file(tmp_path, monkeypatch):
    """Members of a zip may lie within each other: each is read once, and all together are counted."""
    storage = b"(" + text("storage") + b"ctorch\nFloatStorage\n" + text("0") + text("cpu") + b"K\x0ctQ"
    program = b"(" + b"".join(storage.replace(text("0"), text(str(n))) for n in range(40)) + b"l"
    path, shared = tmp_path / "w.pth", {f"a/data/{n}": NUMBERS.tobytes() for n in range(40)}
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in {"a/data.pkl": START + program + b".", **shared}.items():
            archive.writestr(name, content)
    monkeypatch.setattr("invjax.core.unpack._RATIO", 0.01)  # as if the file were so much smaller
    monkeypatch.setenv("INVJAX_UNPACK_GIB", str(3000 / 2**30))
    with pytest.raises(ValueError, match=r"'a/data/\d+' would take 48 bytes"):
        load_state_dict(path)


def test_a_legacy_file_that_asks_for_more_than_it_is(tmp_path):
    (tmp_path / "w.pth").write_bytes(START + b"\x8d" + (2**50).to_bytes(8, "little") + b"abc.")
    with pytest.raises(ValueError, match="truncated or corrupt"):
        load_state_dict(tmp_path / "w.pth")


def test_every_command_is_known_or_refused():
    ours, theirs = reader.WeightsUnpickler.dispatch, pickle._Unpickler.dispatch
    assert set(ours) == set(theirs)
    assert all(ours[code] in (theirs[code], reader.WeightsUnpickler._refuse) or code in b"RbsUud" for code in ours)
