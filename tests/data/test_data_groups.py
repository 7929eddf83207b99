"""The container of group-labelled sets, files that are read when asked for, SpuCo's folders, the spurious digits."""

from __future__ import annotations

import pickle
import sys
import zipfile

import numpy as np
import pytest

from invjax.data import group_data, group_names, load_groups
from invjax.data.grouped.digits_spurious import digits_spurious
from invjax.data.grouped.group_data import equal_shares, proportional_shares
from invjax.data.grouped.spuco import spuco_animals
from invjax.data.images.files import ImageFiles, Store
from invjax.types import Bounds

Image = pytest.importorskip("PIL.Image", reason="pillow is an extra (data)")
pytestmark = pytest.mark.fast


def small(count=60, seed=0):
    """Three classes, two attributes; float images whose pixels are their row."""
    rng = np.random.default_rng(seed)
    y, attribute, part = rng.integers(0, 3, count), rng.integers(0, 2, count), np.arange(count) % 3
    x = np.broadcast_to(np.arange(count)[:, None, None, None] / count, (count, 2, 3, 1)).copy()
    mask = np.zeros((count, 2, 3), bool)
    return group_data("small", x, y, attribute, part, "abc", ("l", "r"), mask=mask, table={"row": np.arange(count)})


def test_groups_splits_and_counts():
    data = small()
    np.testing.assert_array_equal(data.group, 2 * data.y + data.attribute)
    assert data.groups == ("a on l", "a on r", "b on l", "b on r", "c on l", "c on r")
    assert data.x.dtype == np.float32
    for k, name in enumerate(("train", "val", "test")):
        one = data.split(name)
        np.testing.assert_array_equal(one.table["row"], np.arange(k, 60, 3))
        np.testing.assert_allclose(one.x[:, 0, 0, 0], one.table["row"] / 60, rtol=1e-6)
        assert len(one) == len(one.mask) == 20
        assert data.counts()[name].tolist() == [sum((data.part == k) & (data.group == g)) for g in range(6)]
    assert data.describe().splitlines()[-1].split() == ["all", "20", "20", "20"]
    assert "60 examples; 6 groups; train" in repr(data)
    assert data.take(data.y == 1).y.tolist() == [1] * sum(data.y == 1)
    assert data.take([3, 1]).table["row"].tolist() == [3, 1]


def test_images_in_a_range():
    pixels = np.array([0, 255], np.uint8).reshape(2, 1, 1, 1)
    data = group_data("two", pixels, [0, 1], [0, 1], [0, 0], "ab", "lr")
    assert data.images(bounds=Bounds(-1.0, 1.0)).reshape(-1).tolist() == [-1, 1]
    assert data.images([1]).reshape(-1).tolist() == [1]
    assert data.decode() is data  # nothing to decode


@pytest.mark.parametrize("equal", [False, True])
def test_subset_is_stratified(equal):
    data = small(300)
    part = data.subset(40, seed=3, equal=equal)
    counts, whole = part.counts(), data.counts()
    assert counts["train"].sum() == 40
    expected = equal_shares(40, whole["train"]) if equal else proportional_shares(40, whole["train"])
    np.testing.assert_array_equal(counts["train"], expected)
    for other in ("val", "test"):
        np.testing.assert_array_equal(counts[other], whole[other])
    assert np.all(np.diff(part.table["row"]) > 0)  # nothing twice, order kept
    np.testing.assert_array_equal(part.table["row"], data.subset(40, seed=3, equal=equal).table["row"])
    assert part.table["row"].tolist() != data.subset(40, seed=4, equal=equal).table["row"].tolist()


def test_shares():
    assert proportional_shares(960, (3498, 184, 56, 1057)).tolist() == [700, 37, 11, 212]
    assert proportional_shares(4795, (3498, 184, 56, 1057)).tolist() == [3498, 184, 56, 1057]
    assert proportional_shares(10, (3498, 184, 56, 1057)).tolist() == [6, 1, 1, 2]  # no group vanishes
    assert proportional_shares(5, (1, 0, 1)).tolist() == [3, 0, 2]
    assert equal_shares(10, (1, 9, 9)).tolist() == [1, 4, 5]
    rng = np.random.default_rng(0)
    for _ in range(200):
        sizes = rng.integers(0, 40, 5)
        total = int(rng.integers(1, sizes.sum() + 1)) if sizes.any() else 0
        if total >= np.count_nonzero(sizes) > 0:
            for shares in (proportional_shares(total, sizes), equal_shares(total, sizes)):
                assert shares.sum() == total
                assert np.all(shares <= sizes)
            exact = total * sizes / sizes.sum()
            if np.all(exact[sizes > 0] >= 1):
                assert np.all(np.abs(proportional_shares(total, sizes) - exact) < 1)


def test_groups_that_are_absent():
    data = small()
    data.require_groups()
    with pytest.raises(ValueError, match="train must hold an example of each group, was without 'b on l'"):
        data.take((data.group != 2) | (data.part != 0)).require_groups()
    with pytest.raises(ValueError, match="val must hold at least two classes, was only of c"):
        data.take((data.y == 2) | (data.part != 1)).require_groups("val")
    with pytest.raises(ValueError, match="split must be one of 'train', 'val', 'test', was 'dev'"):
        data.split("dev")
    with pytest.raises(ValueError, match="split must be one of which small has examples, was 'val'"):
        data.take(data.part != 1).split("val")
    for count in (5, 21):
        with pytest.raises(ValueError, match=rf"count must be from 6, the groups of train, to 20.*was {count}"):
            data.subset(count)


X = np.zeros((2, 1, 1, 1), np.uint8)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"y": [0]}, r"y must be classes of shape \(2,\), one per example, was of shape \(1,\)"),
        ({"y": [0, 2]}, r"y must lie in \[0, 2\), the classes of .*, was 2 at index 1"),
        ({"y": ["0", "1"]}, "y must be classes 0 … 1 as whole numbers, was '0' at index 0"),
        ({"attribute": [0, -1]}, r"attribute must lie in \[0, 2\), the attributes of .*, was -1 at index 1"),
        ({"part": [0, 3]}, r"part must lie in \[0, 3\), the splits of .*, was 3 at index 1"),
        ({"x": X[:0]}, "x must hold at least one example"),
        ({"x": X.astype(np.int32)}, "x must be floats in the data range, or uint8 pixels, was int32; give pixels"),
        ({"x": X + 2.0}, r"x must lie in \[0, 1\], was in \[2, 2\]; give pixels 0 ... 255 as uint8"),
        ({"x": X + np.nan}, r"x must lie in \[0, 1\], was in \[nan, nan\]"),
        ({"mask": np.zeros((2, 1, 2), bool)}, r"mask must be bool of shape \(2, 1, 1\), was bool of shape \(2, 1, 2\)"),
        ({"table": {"file": ["a"]}}, r"table\['file'\] must be 2 rows long, was 1"),
        ({"group": [0, 4], "groups": "abcd"}, r"group must lie in \[0, 4\)"),
    ],
)
def test_wrong_data(change, message):
    arguments = {
        "x": X,
        "y": [0, 1],
        "attribute": [0, 1],
        "part": [0, 0],
        "classes": "ab",
        "attributes": "lr",
        **change,
    }
    with pytest.raises(ValueError, match=message):
        group_data("two", **arguments)


def save(path, pixels):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


@pytest.fixture
def files(tmp_path):
    """Twenty pictures of noise, 12 × 10, in a folder and the same in a zip below "deep/"."""
    pixels = np.random.default_rng(0).integers(0, 256, (20, 12, 10, 3), dtype=np.uint8)
    names = [f"{n // 10}/{n:02d}.png" for n in range(20)]
    for name, one in zip(names, pixels, strict=True):
        save(tmp_path / "folder" / name, one)
    with zipfile.ZipFile(tmp_path / "all.zip", "w") as archive:
        for name in names:
            archive.write(tmp_path / "folder" / name, f"deep/{name}")
    return tmp_path, names, pixels


def test_files_read_like_an_array(files):
    root, names, pixels = files
    for store in (Store(root / "folder"), Store(root / "all.zip").below("deep"), Store(root / "all.zip", "deep/")):
        assert store.names() == names
        assert store.missing([*names[:2], "0/none.png"]) == ["0/none.png"]
        lazy = pickle.loads(pickle.dumps(ImageFiles(store, names)))
        assert (len(lazy), lazy.shape, lazy.dtype) == (20, (20, 12, 10, 3), np.uint8)
        np.testing.assert_array_equal(lazy[:], pixels)
        np.testing.assert_array_equal(np.asarray(lazy), pixels)
        np.testing.assert_array_equal(lazy[3], pixels[3])
        np.testing.assert_array_equal(lazy[[7, 2]], pixels[[7, 2]])
        np.testing.assert_array_equal(lazy.take(np.array([5, 6]))[-1], pixels[6])
        assert lazy[:0].shape == (0, 12, 10, 3)


def test_files_are_resized_and_cropped(tmp_path):
    """A picture whose left and right fourteenth differ: the crop of the protocol removes exactly these."""
    picture = np.zeros((64, 64, 3), np.uint8)
    picture[:, :4] = picture[:, -4:] = 255
    save(tmp_path / "a.png", picture)
    store = Store(tmp_path)
    middle = ImageFiles(store, ["a.png"], 56)[0]  # 64 · 7/8: resized to 64, that is as it is
    np.testing.assert_array_equal(middle, picture[4:-4, 4:-4])
    half = ImageFiles(store, ["a.png"], 32, 1)[0]
    assert half.shape == (32, 32, 3)
    assert abs(float(half.mean()) - float(picture.mean())) < 1  # resized alone: nothing is cut away
    save(tmp_path / "wide.png", np.full((20, 90, 3), 7, np.uint8))
    both = ImageFiles(store, ["a.png", "wide.png"], 224)[:]
    assert both.shape == (2, 224, 224, 3)
    with pytest.raises(
        ValueError, match=r"size must be given where files differ; 'wide.png' is 20×90, others are 64×64"
    ):
        ImageFiles(store, ["a.png", "wide.png"])[:]
    for arguments, message in (((0,), "size must be at least 1"), ((8, 0.5), "margin must be a factor >= 1")):
        with pytest.raises(ValueError, match=message):
            ImageFiles(store, ["a.png"], *arguments)


def test_kinds_of_pictures(tmp_path):
    """Grey, palette, transparent and CMYK files all come as RGB."""
    grey = np.arange(64, dtype=np.uint8).reshape(8, 8)
    Image.fromarray(grey).save(tmp_path / "l.png")
    Image.fromarray(np.stack([grey] * 3, -1)).convert("P").save(tmp_path / "p.png")
    Image.fromarray(np.stack([grey] * 4, -1)).save(tmp_path / "rgba.png")
    Image.fromarray(np.stack([grey] * 3, -1)).convert("CMYK").save(tmp_path / "cmyk.jpg")
    files = ImageFiles(Store(tmp_path), ["l.png", "p.png", "rgba.png", "cmyk.jpg"])
    assert files.shape == (4, 8, 8, 3)
    np.testing.assert_array_equal(files[0], np.stack([grey] * 3, -1))
    assert files[:].dtype == np.uint8


def test_bad_files(files):
    root, names, pixels = files
    whole = (root / "folder" / names[4]).read_bytes()
    (root / "folder" / names[4]).write_bytes(whole[: len(whole) // 2])
    (root / "folder" / names[9]).write_bytes(b"no picture")
    (root / "folder" / names[0]).unlink()
    part, y = np.zeros(20, int), np.arange(20) % 2
    data = group_data("noise", ImageFiles(Store(root / "folder"), names), y, y, part, "ab", "lr")
    with pytest.raises(ValueError, match=r"images of .*folder must be readable; 0/00.png: no such file, and 2 more"):
        data.decode()
    read = data.decode(skip_bad=True)
    good = [n for n in range(20) if n not in (0, 4, 9)]
    np.testing.assert_array_equal(read.x, pixels[good])
    assert read.y.tolist() == y[good].tolist()
    assert (read.skipped[0], read.skipped[2]) == ("0/00.png: no such file", "0/09.png: not an image")
    assert read.skipped[1].startswith("0/04.png: ")
    assert data.x.shape == (20, 12, 10, 3)  # the first file that can be read tells
    with pytest.raises(
        ValueError,
        match=r"noise must hold an image that can be read; 0/04.png: OSError image file is truncated",
    ):
        data.take([4, 9]).decode(skip_bad=True)
    with pytest.raises(ValueError, match=r"source must be an existing folder or zip, was .*nowhere"):
        Store(root / "nowhere")
    with pytest.raises(ValueError, match=r"source must be a folder or a zip, was .*01.png'"):
        Store(root / "folder" / names[1])


def test_without_pillow(files, monkeypatch):
    root, names, _ = files
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(ImportError, match=r"pip install 'invjax\[data\]'"):
        ImageFiles(Store(root / "folder"), names)[0]


def spuco_folder(root):
    """SpuCo's folders, four pictures in groups that agree and one in others; pixels tell class, place and split."""
    sets = {"spuco_birds": ("landbirds", "waterbirds", "land", "water")}
    sets["spuco_dogs"] = ("small_dogs", "big_dogs", "indoor", "outdoor")
    for folder, names in sets.items():
        for k, split in enumerate(("train", "val", "test")):
            for a in (0, 1):
                for b in (0, 1):
                    for n in range(4 if a == b else 1):
                        shade = np.full((9, 8, 3), 64 * k + 16 * a + 4 * b + 2 * (folder == "spuco_dogs"), np.uint8)
                        save(root / folder / split / names[a] / names[2 + b] / f"{n}.png", shade)
    return root


def test_spuco_folders(tmp_path):
    root = spuco_folder(tmp_path / "spuco")
    data = spuco_animals(root, size=8)
    assert data.groups[:3] == ("landbirds on land", "landbirds on water", "waterbirds on land")
    assert data.classes == ("landbirds", "waterbirds", "small_dogs", "big_dogs")
    for counts in data.counts().values():
        assert counts.tolist() == [4, 1, 1, 4] * 2
    shade = np.asarray(data.x)[:, 0, 0, 0]
    np.testing.assert_array_equal(
        shade, 64 * data.part + 16 * (data.y % 2) + 4 * (data.attribute % 2) + 2 * (data.y // 2)
    )
    np.testing.assert_array_equal(data.group, 2 * data.y + data.attribute % 2)
    np.testing.assert_array_equal(data.attribute // 2, data.y // 2)
    dogs = load_groups("spuco-dogs", source=root, size=None)
    assert (dogs.classes, dogs.x.shape) == (("small_dogs", "big_dogs"), (30, 9, 8, 3))
    again = spuco_animals(root / "spuco_dogs", "dogs", size=None)
    np.testing.assert_array_equal(again.x[:], dogs.x[:])
    with zipfile.ZipFile(tmp_path / "dogs.zip", "w") as archive:
        for path in (root / "spuco_dogs").rglob("*.png"):
            archive.write(path, path.relative_to(root))
    np.testing.assert_array_equal(spuco_animals(tmp_path / "dogs.zip", "dogs", size=None).x[:], dogs.x[:])

    with pytest.raises(ValueError, match="which must be one of 'animals', 'birds', 'dogs', was 'cats'"):
        spuco_animals(root, "cats")
    with pytest.raises(ValueError, match="source must hold the folder spuco_birds"):
        spuco_animals(tmp_path / "dogs.zip", "birds")
    save(root / "spuco_dogs" / "val" / "cats" / "indoor" / "0.png", np.zeros((9, 8, 3), np.uint8))
    with pytest.raises(
        ValueError, match=r"source must have the images of val in .*has 'spuco_dogs/val/cats/indoor/0.png'"
    ):
        spuco_animals(root)
    for path in (root / "spuco_birds" / "test" / "landbirds" / "water").iterdir():
        path.unlink()
    with pytest.raises(ValueError, match="source must have images in spuco_birds/test/landbirds/water"):
        spuco_animals(root, "birds")


def test_spurious_digits():
    pytest.importorskip("sklearn", reason="the digits come with scikit-learn (extra data)")
    from sklearn.datasets import load_digits

    data = digits_spurious()
    assert (data.x.shape, data.x.dtype) == ((1797, 10, 8, 1), np.float32)
    pixels, digits = load_digits(return_X_y=True)
    np.testing.assert_array_equal(data.x[:, :8, :, 0], pixels.reshape(-1, 8, 8) / 16)
    np.testing.assert_array_equal(data.y, digits >= 5)
    np.testing.assert_array_equal(data.x[:, 8:, :, 0], np.broadcast_to(data.attribute[:, None, None], (1797, 2, 8)))
    assert data.mask[:, :8].all()
    assert not data.mask[:, 8:].any()
    for name, rho in (("train", 0.95), ("val", 0.5), ("test", 0.5)):
        one = data.split(name)
        for k in (0, 1):
            agree = one.attribute[one.y == k] == k
            assert abs(agree.sum() - rho * len(agree)) <= 0.5
    np.testing.assert_array_equal(digits_spurious().x, data.x)
    assert np.any(digits_spurious(seed=1).part != data.part)
    faint = digits_spurious(strip=0.5, noise=0.1)
    np.testing.assert_array_equal(faint.attribute, data.attribute)
    strip = faint.x[:, 8:]
    assert 0.4 < strip[data.attribute == 1].mean() < 0.6
    assert strip.std() > 0.2
    for change, message in (
        ({"correlation": 1.5}, r"correlation must be in \[0, 1\]"),
        ({"strip": 0}, r"strip must be in \(0, 1\]"),
        ({"noise": -1}, "noise must be >= 0"),
        ({"held_out": (0.5, 0.5)}, "held_out must be two positive shares"),
    ):
        with pytest.raises(ValueError, match=message):
            digits_spurious(**change)


def test_sets_by_name():
    assert group_names()[:4] == ("digits-spurious", "spuco-mnist", "synthbirds", "waterbirds")
    with pytest.raises(ValueError, match=r"name must be one of 'digits-spurious', .*, was 'celeba'"):
        load_groups("celeba")


def test_groups_are_not_counted_in_the_type_of_the_labels():
    """300 is 44 in 8 bits."""
    names = [f"a{k}" for k in range(100)]
    columns = {"y": np.array([0, 3], np.uint8), "attribute": np.array([5, 0], np.uint8), "part": np.zeros(2, np.int8)}
    made = group_data("wide", X, **columns, classes="abcd", attributes=names)
    np.testing.assert_array_equal(made.group, [5, 300])
