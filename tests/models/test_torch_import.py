"""Torch weights without torch: files, mapping, and every layer against fixtures that torch computed."""

from __future__ import annotations

import io
import json
import pickle
import struct
import zipfile
from collections import OrderedDict
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from invjax.models import as_logits, load, load_state_dict, resnet20_from_torch
from invjax.models.torch_files import RefusedPickle, WeightsUnpickler

FIXTURES = Path(__file__).parent.parent / "fixtures"
LEGACY = (FIXTURES / "legacy.pth").read_bytes()  # one tensor of two zeros, as torch < 1.6 wrote it
SAFE, PTH = FIXTURES / "resnet20_width4.safetensors", FIXTURES / "resnet20_width4.pth"


@pytest.fixture(scope="module")
def expected() -> dict[str, np.ndarray]:
    with np.load(FIXTURES / "resnet20_width4.npz") as archive:
        return dict(archive)


@pytest.fixture(scope="module")
def state() -> dict[str, np.ndarray]:
    pytest.importorskip("safetensors")
    return load_state_dict(SAFE)


# Files


def test_pth_equals_safetensors(state):
    from_pth = load_state_dict(PTH)
    assert set(from_pth) == {f"module.{key}" for key in state}
    for key, value in state.items():
        other = from_pth[f"module.{key}"]
        assert other.dtype == value.dtype
        np.testing.assert_array_equal(other, value)


def test_the_old_format_of_torch(tmp_path):
    assert {k: v.tolist() for k, v in load_state_dict(FIXTURES / "legacy.pth").items()} == {"weight": [0.0, 0.0]}
    numbers = np.asarray([0.5, -3.0], np.float32).tobytes()
    (tmp_path / "w.pth").write_bytes(LEGACY[:-8] + numbers)
    assert load_state_dict(tmp_path / "w.pth")["weight"].tolist() == [0.5, -3.0]
    # A storage larger than the file is refused before any memory is taken: 2 -> 2^31 - 1 numbers, in the pickle.
    at = LEGACY.index(b"cpu") + LEGACY[LEGACY.index(b"cpu") :].index(b"K\x02")
    huge = LEGACY[:at] + b"J\xff\xff\xff\x7f" + LEGACY[at + 2 :]
    with pytest.raises(ValueError, match="2147483647 numbers, more than the file holds"):
        load_state_dict(_write(tmp_path / "w.pth", huge))


def test_npz_is_a_state_dict_too(state, tmp_path):
    np.savez(tmp_path / "w.npz", **state)
    again = load_state_dict(tmp_path / "w.npz")
    assert set(again) == set(state)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda p: p / "absent.safetensors", "path must be an existing weights file, was .*absent"),
        (lambda p: p, "path must be an existing weights file"),
        (lambda p: _write(p / "w.bin", b"x"), "path must end in one of .safetensors, .pth"),
        (lambda p: _write(p / "w.safetensors", SAFE.read_bytes()[:50_000]), "truncated or corrupt"),
        (lambda p: _write(p / "w.safetensors", b""), "truncated or corrupt"),
        (lambda p: _write(p / "w.pth", PTH.read_bytes()[:50_000]), "truncated or corrupt"),
        (lambda p: _write(p / "w.pth", b""), "truncated or corrupt"),
        (lambda p: _write(p / "w.pth", b"<html>not found</html>"), "truncated or corrupt"),
        (lambda p: _write(p / "w.npz", b"PK\x03\x04 rubbish"), "truncated or corrupt"),
        (lambda p: _write(p / "w.pth", LEGACY[:-1]), "without its 2 numbers"),
        (lambda p: _write(p / "w.pth", LEGACY[:20]), "truncated or corrupt"),
        (
            lambda p: _write(p / "w.pth", LEGACY.replace(b"\x8a\nl\xfc", b"\x8a\nl\xfd")),
            "that torch.save did not write",
        ),
        (lambda p: FIXTURES / "unsafe.pth", r"nothing but tensors.*(posix|nt)\.system"),
    ],
)
def test_bad_files(make, message, tmp_path, capfd):
    pytest.importorskip("safetensors")
    with pytest.raises(ValueError, match=message):
        load_state_dict(make(tmp_path))
    assert "must never run" not in capfd.readouterr().out


def _write(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def test_one_flipped_byte_is_noticed(tmp_path):
    content = bytearray(PTH.read_bytes())
    at = content.index(np.float32(load_state_dict(PTH)["module.conv1.weight"].flat[0]).tobytes())
    content[at] ^= 1
    with pytest.raises(ValueError, match="corrupt"):
        load_state_dict(_write(tmp_path / "w.pth", bytes(content)))


def _torch_zip(path: Path, value: object, storages: dict[str, bytes], compress: bool = False) -> Path:
    """A file like torch's around a pickle of ``value``, with ("storage", …) tuples as persistent ids."""

    class Pickler(pickle.Pickler):
        def persistent_id(self, obj: object) -> object:
            return obj if isinstance(obj, tuple) and obj[:1] == ("storage",) else None

    stream = io.BytesIO()
    Pickler(stream, protocol=2).dump(value)
    kind = zipfile.ZIP_DEFLATED if compress else zipfile.ZIP_STORED
    with zipfile.ZipFile(path, "w", kind) as archive:
        # Classes of torch cannot be pickled without torch: a stand-in is renamed in the bytes.
        archive.writestr("a/data.pkl", stream.getvalue().replace(b"c__builtin__\ncomplex", b"ctorch\nFloatStorage"))
        for key, raw in storages.items():
            archive.writestr(f"a/data/{key}", raw)
    return path


class _Tensor:
    """Pickles as the call that rebuilds a torch tensor."""

    def __init__(self, *arguments: object) -> None:
        self.arguments = arguments

    def __reduce__(self) -> tuple[object, ...]:
        return _rebuild_tensor_v2, self.arguments


def _rebuild_tensor_v2(*arguments: object) -> None:
    raise AssertionError("only its name is used")


_rebuild_tensor_v2.__module__ = "torch._utils"


@pytest.fixture
def torch_names(monkeypatch):
    """Modules under torch's names, so that the standard pickler can refer to them; torch itself is not needed."""
    import sys
    import types

    for name in ("torch", "torch._utils"):
        if name not in sys.modules:
            monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    monkeypatch.setattr(sys.modules["torch._utils"], "_rebuild_tensor_v2", _rebuild_tensor_v2, raising=False)


def _storage(count: int, key: str = "0") -> tuple[object, ...]:
    return ("storage", complex, key, "cpu", count)


NUMBERS = np.arange(12, dtype=np.float32)


def test_strided_views_and_shared_storages(torch_names, tmp_path):
    value = OrderedDict(
        whole=_Tensor(_storage(12), 0, (3, 4), (4, 1), False, OrderedDict()),
        turned=_Tensor(_storage(12), 0, (4, 3), (1, 4), False, OrderedDict()),
        part=_Tensor(_storage(12), 5, (2,), (4,), False, OrderedDict()),
        scalar=_Tensor(_storage(12), 7, (), (), False, OrderedDict()),
        empty=_Tensor(_storage(12), 0, (0, 3), (3, 1), False, OrderedDict()),
    )
    found = load_state_dict(_torch_zip(tmp_path / "w.pth", value, {"0": NUMBERS.tobytes()}))
    np.testing.assert_array_equal(found["whole"], NUMBERS.reshape(3, 4))
    np.testing.assert_array_equal(found["turned"], NUMBERS.reshape(3, 4).T)
    np.testing.assert_array_equal(found["part"], [5, 9])
    assert found["scalar"].shape == ()
    assert found["scalar"] == 7
    assert found["empty"].shape == (0, 3)


@pytest.mark.parametrize(
    ("offset", "size", "stride"),
    [
        (0, (13,), (1,)),  # beyond the storage: would read foreign memory
        (10, (2, 2), (1, 1)),
        (-1, (2,), (1,)),
        (2, (2,), (-1,)),
        (0, (10**9,), (0,)),  # a few bytes that unfold to gigabytes
        (0, (2, 2), (1,)),
        (0.0, (2,), (1,)),
    ],
)
def test_tensors_outside_their_storage_are_refused(torch_names, tmp_path, offset, size, stride):
    value = {"w": _Tensor(_storage(12), offset, size, stride, False, OrderedDict())}
    with pytest.raises(ValueError, match="nothing but tensors"):
        load_state_dict(_torch_zip(tmp_path / "w.pth", value, {"0": NUMBERS.tobytes()}))


@pytest.mark.parametrize(
    ("value", "storages", "message"),
    [
        ({"w": _Tensor(_storage(13), 0, (2,), (1,), False, OrderedDict())}, {"0": NUMBERS.tobytes()}, "48 bytes"),
        ({"w": _Tensor(_storage(12), 0, (2,), (1,), False, OrderedDict())}, {}, "truncated or corrupt"),
        ({"w": _Tensor(None, 0, (2,), (1,), False, OrderedDict())}, {}, "not made of a storage"),
        ({"w": 3.0}, {}, "entry 'w' is float"),
        ([1, 2], {}, "holds list"),
        ({}, {}, "must hold a state dict"),
    ],
)
def test_other_contents_are_refused(torch_names, tmp_path, value, storages, message):
    with pytest.raises(ValueError, match=message):
        load_state_dict(_torch_zip(tmp_path / "w.pth", value, storages))


def test_compressed_members_are_refused(torch_names, tmp_path):
    value = {"w": _Tensor(_storage(12), 0, (2,), (1,), False, OrderedDict())}
    with pytest.raises(ValueError, match="compressed"):
        load_state_dict(_torch_zip(tmp_path / "w.pth", value, {"0": NUMBERS.tobytes()}, compress=True))


@pytest.mark.parametrize("name", ["builtins.eval", "os.system", "numpy.load", "torch.load", "collections.defaultdict"])
def test_unpickler_knows_no_other_function(name):
    with pytest.raises(RefusedPickle, match=name):
        WeightsUnpickler(io.BytesIO(b"")).find_class(*name.rsplit(".", 1))


def test_file_without_safetensors_names_the_extra(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "safetensors", None)
    with pytest.raises(ImportError, match=r"invjax\[weights\]"):
        load_state_dict(SAFE)


def test_types_that_numpy_lacks(tmp_path):
    pytest.importorskip("safetensors")
    entry = {"dtype": "F8_E4M3", "shape": [4], "data_offsets": [0, 4]}
    head = json.dumps({"conv1.weight": entry}).encode()
    path = _write(tmp_path / "w.safetensors", struct.pack("<Q", len(head)) + head + bytes(4))
    with pytest.raises(ValueError, match=r"path must hold numbers of types that NumPy knows; .*float8_e4m3fn"):
        load_state_dict(path)


def test_huge_header_of_safetensors(tmp_path):
    pytest.importorskip("safetensors")
    with pytest.raises(ValueError, match="truncated or corrupt"):
        load_state_dict(_write(tmp_path / "w.safetensors", struct.pack("<Q", 2**60) + b"{}"))


# Mapping


def test_every_layer_against_torch(state, expected):
    net = resnet20_from_torch(state)
    net.eval()
    seen = jax.jit(lambda x: net.activations(x))(jnp.asarray(expected["x"]))
    assert [name for name in seen if name not in expected] == []
    assert len(seen) == 12
    for name, value in seen.items():
        theirs = expected[name]
        scale = np.max(np.abs(theirs))
        assert scale > 0.1
        np.testing.assert_allclose(value[: len(theirs)], theirs, rtol=0, atol=3e-6 * scale, err_msg=name)


@pytest.mark.parametrize("path", [SAFE, PTH], ids=lambda path: path.suffix)
def test_folded_logits_and_input_gradient_against_torch(path, expected):
    if path is SAFE:
        pytest.importorskip("safetensors")
    model = as_logits(resnet20_from_torch(path))
    x = jnp.asarray(expected["x"])
    weights = jnp.arange(7.0) - 2
    value, gradient = jax.jit(jax.value_and_grad(lambda x, m: jnp.sum(m(x) * weights)))(x, model)
    scale = np.max(np.abs(expected["logits"]))
    np.testing.assert_allclose(model(x), expected["logits"], rtol=0, atol=3e-6 * scale)
    np.testing.assert_allclose(value, np.sum(expected["logits"] * weights), rtol=1e-5)
    scale = np.max(np.abs(expected["gradient"]))
    np.testing.assert_allclose(gradient, expected["gradient"], rtol=0, atol=1e-5 * scale)


def test_keys_are_used_exactly_once(state):
    extra = {**state, "layer2.0.shortcut.0.weight": np.zeros((8, 4, 1, 1), np.float32)}
    with pytest.raises(ValueError, match=r"unknown: \['layer2.0.shortcut.0.weight'\]"):
        resnet20_from_torch(extra)
    with pytest.raises(ValueError, match=r"missing: \['layer3.2.bn2.running_var'\]"):
        resnet20_from_torch({k: v for k, v in state.items() if k != "layer3.2.bn2.running_var"})
    with pytest.raises(ValueError, match=r"must hold conv1.weight with 4 axes"):
        resnet20_from_torch({"fc.weight": np.zeros((2, 2), np.float32)})
    with pytest.raises(ValueError, match=r"conv1.weight .* was of shape \(3,\)"):
        resnet20_from_torch({**state, "conv1.weight": np.zeros(3, np.float32)})


def test_shapes_are_named(state):
    wrong = {
        **state,
        "layer1.0.conv1.weight": np.zeros((4, 4, 5, 3), np.float32),
        "linear.bias": np.zeros((7, 1), np.float32),
    }
    with pytest.raises(ValueError, match=r"layer1.0.conv1.weight must be \(4, 4, 3, 3\), was \(4, 4, 5, 3\)") as error:
        resnet20_from_torch(wrong)
    assert "linear.bias must be (7,), was (7, 1)" in str(error.value)


def test_prefixes_and_counters_do_not_matter(state, expected):
    plain, wrapped = (
        resnet20_from_torch(s)
        for s in (
            {k: v for k, v in state.items() if not k.endswith("num_batches_tracked")},
            {f"module._orig_mod.{k}": v for k, v in state.items()},
        )
    )
    x = jnp.asarray(expected["x"])
    np.testing.assert_array_equal(as_logits(plain)(x), as_logits(wrapped)(x))


def test_half_precision_weights_become_float32(state):
    net = resnet20_from_torch({k: v.astype(np.float16) for k, v in state.items()})
    assert net.stem.conv.kernel[...].dtype == jnp.float32


def test_load_resnet20(state, expected):
    model = load("resnet20", PTH)
    x = jnp.asarray(expected["x"])
    np.testing.assert_allclose(model(0.5 * x + 0.5), expected["logits"], rtol=0, atol=1e-4)  # trained on [-1, 1]
    with pytest.raises(ValueError, match=r"num_classes must be .* 7, was 10"):
        load("resnet20", PTH, 10)


# Real weights


@pytest.mark.parametrize(
    ("name", "mean", "std", "share"),
    [
        ("gse", 0.5, 0.5, 0.905),
        ("akamaster", (0.485, 0.456, 0.406), (0.229, 0.224, 0.225), 0.915),
    ],
)
def test_accuracy_of_real_weights(data_dir, name, mean, std, share):
    pytest.importorskip("safetensors")
    model = load("resnet20", data_dir / f"weights/resnet20_cifar10_{name}.safetensors", 10, mean=mean, std=std)
    with np.load(data_dir / "cifar10/test_first_1000.npz") as archive:
        images, labels = archive["images"], archive["labels"]
    run = jax.jit(lambda m, x: jnp.argmax(m(x), -1))
    found = [run(model, jnp.asarray(images[i : i + 250], jnp.float32) / 255) for i in range(0, 1000, 250)]
    assert np.mean(np.concatenate(found) == labels) == pytest.approx(share, abs=1e-9)
