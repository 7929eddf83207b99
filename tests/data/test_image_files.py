"""Pictures and masks in files: what their pixels mean, which files count, and which must not be read."""

from __future__ import annotations

import io
import os
import struct
import zipfile
import zlib
from itertools import product

import numpy as np
import pytest

from invjax.constraints import FeatureSpace
from invjax.data import group_data, load_images
from invjax.data.grouped.spuco import spuco_animals
from invjax.data.grouped.waterbirds import save_waterbirds, waterbirds, with_masks
from invjax.data.images.files import ImageFiles, Store
from invjax.data.images.pixels import mask_levels
from invjax.data.images.source import to_range
from invjax.data.tfds_builders.examples import _rgb, split_generators
from invjax.types import Bounds

Image = pytest.importorskip("PIL.Image", reason="pillow is an extra (data)")
pytestmark = pytest.mark.fast
HEADER = "img_filename,y,split,place\n"


@pytest.fixture
def folder(tmp_path):
    """A WaterBirds folder of one picture, beside a picture that is none of its own."""
    (tmp_path / "birds" / "segmentations").mkdir(parents=True)
    for name in ("birds/a.jpg", "secret.png"):
        Image.fromarray(np.full((16, 16, 3), 200, np.uint8)).save(tmp_path / name)
    (tmp_path / "birds/metadata.csv").write_text(HEADER + "a.jpg,0,0,0\n")
    return tmp_path / "birds"


def encoded(picture, kind="png"):
    file = io.BytesIO()
    picture.save(file, kind)
    return file.getvalue()


# Pixels


def test_greys_of_16_bits(tmp_path):
    ramp = np.linspace(0, 65535, 32 * 32).reshape(32, 32).astype(np.uint16)
    for kind in ("png", "tiff"):
        Image.fromarray(ramp).save(tmp_path / f"deep.{kind}")
    (tmp_path / "deep.ppm").write_bytes(b"P5 32 32 65535\n" + ramp.astype(">u2").tobytes())
    files = ImageFiles(Store(tmp_path), ["deep.png", "deep.ppm", "deep.tiff"])
    for read in files:
        np.testing.assert_array_equal(read, np.repeat(np.round(ramp / 257)[..., None], 3, 2))
    small = ImageFiles(Store(tmp_path), ["deep.png"], size=8, margin=1)[0]
    assert abs(small.mean() - 127.5) < 1
    stored = np.asarray(Image.open(io.BytesIO(_rgb((tmp_path / "deep.png").read_bytes(), "deep"))))  # for tfds
    np.testing.assert_array_equal(stored, files[0])


@pytest.mark.parametrize("dtype", [np.int32, np.float32])
def test_greys_of_32_bits_have_no_known_range(tmp_path, dtype):
    Image.fromarray(np.ones((4, 4), dtype)).save(tmp_path / "deep.tiff")
    with pytest.raises(ValueError, match=r"deep.tiff: its pixels have 32 bits, .* save it with 8 or 16"):
        ImageFiles(Store(tmp_path), ["deep.tiff"])[0]


def square(inside, outside=0, dtype=np.uint8):
    return np.pad(np.full((8, 8), inside, dtype), 4, constant_values=outside)


def palette(*colours):
    picture = Image.fromarray(square(1), "L").convert("P")
    picture.putpalette([level for colour in colours for level in colour])
    return picture


def colours(inside, outside):
    return Image.fromarray(np.where(square(1)[..., None] == 1, inside, outside).astype(np.uint8))


@pytest.mark.parametrize(
    "mask",
    [
        Image.fromarray(square(255)),
        Image.fromarray(square(1)),
        Image.fromarray(square(100)),
        Image.fromarray(square(1) > 0),
        Image.fromarray(square(1, dtype=np.uint16)),
        Image.fromarray(square(65535, dtype=np.uint16)),
        palette((0, 0, 0), (0, 200, 0)),
        palette((0, 0, 0), (128, 0, 0)),
        colours((0, 0, 255), (0, 0, 0)),
        colours((253, 231, 37), (68, 1, 84)),  # as matplotlib's imsave writes a mask
        Image.fromarray(np.where(square(1) == 1, 255, np.arange(16, dtype=np.uint8))),  # soft
    ],
)
def test_masks(folder, mask):
    mask.save(folder / "segmentations/a.png")
    np.testing.assert_array_equal(with_masks(waterbirds(folder)).mask[0], square(1) == 1)


@pytest.mark.parametrize(
    ("mask", "reason"),
    [
        (Image.fromarray(np.tile(np.arange(4, dtype=np.uint8), (4, 1))), "a mask of the values 0, 1, 2, 3: neither"),
        (Image.fromarray(square(1, 2)), "a mask of the values 1, 2: neither"),
        (colours((0, 200, 0), (0, 0, 200)), "a mask of 2 colours: it is not known which"),
        (Image.fromarray(np.eye(3, dtype=np.uint8)[None].repeat(3, 0) * 200), "a mask of 3 colours"),
    ],
)
def test_masks_that_could_mean_anything(folder, mask, reason):
    mask.save(folder / "segmentations/a.png")
    with pytest.raises(ValueError, match=rf"a.png: {reason}"):
        with_masks(waterbirds(folder))


def test_masks_with_soft_edges_are_cut_at_half():
    edge = np.tile(np.linspace(0, 255, 16).astype(np.uint8), (16, 1))
    np.testing.assert_array_equal(mask_levels(Image.fromarray(edge)), edge)
    coloured = Image.fromarray(edge[..., None] * np.array([0, 1, 0], np.uint8))
    np.testing.assert_array_equal(mask_levels(coloured), edge)
    assert mask_levels(Image.fromarray(np.zeros((4, 4), np.uint8))).max() == 0  # no object
    soft = encoded(Image.fromarray(np.repeat(edge[..., None], 3, 2)), "jpeg")
    assert abs(mask_levels(Image.open(io.BytesIO(soft))).astype(int) - edge).max() < 12


# What is too large, and what is no picture


def declared(width, height):
    """A PNG that says that it is so large."""
    head = struct.pack(">2I5B", width, height, 8, 2, 0, 0, 0)
    chunks = ((b"IHDR", head), (b"IDAT", zlib.compress(bytes(9))), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body)) for kind, body in chunks
    )


def test_pictures_that_declare_too_much(tmp_path, monkeypatch):
    (tmp_path / "a.png").write_bytes(declared(60_000, 60_000))
    (tmp_path / "b.png").write_bytes(declared(9_000, 9_000))
    (tmp_path / "c.jpg").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n")
    files = ImageFiles(Store(tmp_path), ["a.png", "b.png", "c.jpg"])
    monkeypatch.setenv("INVJAX_UNPACK_GIB", "0.1")
    kept, _, bad = files.read(np.arange(3), skip_bad=True)
    assert len(kept) == 0
    assert "exceeds limit of" in bad[0]  # pillow's own
    assert bad[0].endswith("PIL.Image.MAX_IMAGE_PIXELS allows more")
    assert "a picture of 9000 × 9000 would take 231.7 MiB" in bad[1]
    assert bad[2] == "c.jpg: EPS is a program, not a picture"
    with pytest.raises(ValueError, match=r"a.png must be a readable image; .*exceeds limit of"):  # for tfds
        _rgb(declared(60_000, 60_000), "a.png")


def test_zips_that_are_locked_or_too_large(folder, tmp_path, monkeypatch):
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("metadata.csv", HEADER + "a.jpg,0,0,0\n")
        archive.writestr("a.jpg", bytes(2**21))
    data = waterbirds(tmp_path / "a.zip")
    monkeypatch.setenv("INVJAX_UNPACK_GIB", str(2**-10))
    with pytest.raises(ValueError, match=r"be readable; a.jpg: 'a.jpg' would take 2.0 MiB"):
        data.decode()
    raw = (tmp_path / "a.zip").read_bytes()
    for value, message in ((9, "packed by Deflate64, which this Python cannot unpack"), (8, "locked with a password")):
        changed = bytearray(raw)
        for mark, at in ((b"PK\3\4", 6), (b"PK\1\2", 8)):
            start = raw.index(mark) + at
            changed[start : start + 4] = struct.pack("<2H", value == 8, value)
        (tmp_path / "a.zip").write_bytes(changed)
        with pytest.raises(ValueError, match=rf"must be readable text; 'metadata.csv' is {message}"):
            waterbirds(tmp_path / "a.zip")


# Which files count


def animals(folder):
    for n, below in enumerate(product(("train", "val", "test"), ("landbirds", "waterbirds"), ("land", "water"))):
        (place := folder.joinpath(*below)).mkdir(parents=True)
        (place / "1.jpg").write_bytes(encoded(Image.fromarray(np.full((8, 8, 3), 9 * n, np.uint8)), "jpeg"))


def test_linked_folders_and_companions(tmp_path):
    animals(tmp_path / "big")
    (tmp_path / "elsewhere").mkdir()
    moved = tmp_path / "elsewhere" / "land"
    (tmp_path / "big/train/landbirds/land").rename(moved)
    os.symlink(moved, tmp_path / "big/train/landbirds/land")
    os.symlink(tmp_path / "big", tmp_path / "big/val/waterbirds/land/again")  # no end, if it is entered
    (tmp_path / "data").mkdir()
    os.symlink(tmp_path / "big", tmp_path / "data/spuco_birds")
    for name in ("._1.jpg", ".DS_Store", "Thumbs.db"):
        (moved / name).write_bytes(b"\0\5\x16\7")
    data = spuco_animals(tmp_path / "data", "birds", size=8)
    assert len(data) == 12
    assert np.asarray(data.x).shape == (12, 8, 8, 3)
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        for name in Store(tmp_path / "data").names():
            archive.write(tmp_path / "data" / name, name)
            archive.writestr(f"__MACOSX/{name.replace('1.jpg', '._1.jpg')}", b"\0\5\x16\7")
    assert len(spuco_animals(tmp_path / "a.zip", "birds", size=8)) == 12


def test_links_that_never_end(tmp_path):
    """Folders of two links each to the next: every way is short, but there are 2^20 of them."""
    for n in range(21):
        (tmp_path / str(n)).mkdir()
        for name in "ab":
            os.symlink(tmp_path / str(n + 1), tmp_path / str(n) / name)
    (tmp_path / "21").mkdir()
    with pytest.raises(ValueError, match=r"source must be a folder that can be read.*more than 100 ways lead"):
        Store(tmp_path / "0").names()


def test_a_zip_beside_its_companion(folder, tmp_path):
    (tmp_path / "data").mkdir()
    with zipfile.ZipFile(tmp_path / "data/birds.zip", "w") as archive:
        for name in Store(folder).names():
            archive.write(folder / name, f"birds/{name}")
        archive.writestr("__MACOSX/metadata.csv", "rubbish")
    (tmp_path / "data/._birds.zip").write_bytes(b"\0\5\x16\7")
    assert len(waterbirds(tmp_path / "data")) == 1


@pytest.mark.parametrize("name", ["../secret.png", "/etc/hosts", "link.png", "out/secret.png", "segmentations/../../x"])
def test_names_in_a_file_stay_in_its_folder(folder, name):
    os.symlink(folder.parent / "secret.png", folder / "link.png")
    os.symlink(folder.parent, folder / "out")
    (folder / "metadata.csv").write_text(f"{HEADER}a.jpg,0,0,0\n{name},0,0,0\n")
    with pytest.raises(ValueError, match=r"metadata.csv of .* must be files inside this folder; 1 are not, "):
        waterbirds(folder, skip_missing=True)


def test_links_that_lead_nowhere_else(folder, tmp_path):
    """The folder itself, the folder of masks, and what stays inside may be links."""
    (folder / "segmentations").rename(tmp_path / "masks")
    Image.fromarray(square(1)).save(tmp_path / "masks/a.png")
    os.symlink(tmp_path / "masks", folder / "segmentations")
    (folder / "a.jpg").rename(folder / "real.jpg")
    os.symlink("real.jpg", folder / "a.jpg")
    os.symlink(folder, tmp_path / "linked")
    assert with_masks(waterbirds(tmp_path / "linked")).mask.sum() == 64
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        for name in Store(folder).names():
            archive.write(folder / name, f"birds/{name}")
    assert with_masks(waterbirds(tmp_path / "a.zip")).mask.sum() == 64


def test_tables_of_files_that_cannot_be_read(folder):
    for text, message in ((f"{HEADER}{'a' * 200_000},0,0,0\n", "field larger"), ("", "not enough values")):
        (folder / "metadata.csv").write_text(text)
        with pytest.raises(ValueError, match=rf"metadata.csv of .* must have a header and rows; {message}"):
            waterbirds(folder)


def test_a_file_that_is_listed_twice_is_no_key(folder):
    (folder / "metadata.csv").write_text(HEADER + 2 * "a.jpg,0,0,0\n")
    assert len(waterbirds(folder)) == 2
    with pytest.raises(ValueError, match=r"waterbirds must list each file once; 'a.jpg' is listed twice"):
        split_generators(waterbirds(folder))


# Names, shapes, and sets that come back


def test_names_of_bytes(tmp_path):
    pixels, labels = np.zeros((2, 4, 4, 1), np.uint8), np.array([0, 1])
    np.savez(tmp_path / "a.npz", images=pixels, labels=labels, names=np.array(["Vögel".encode(), b"cat"]))
    assert load_images(tmp_path / "a.npz").names == ("Vögel", "cat")
    np.savez(tmp_path / "a.npz", images=pixels, labels=labels, names=np.array([b"\xff", b"cat"]))
    with pytest.raises(ValueError, match="names must be text, or bytes in UTF-8"):
        load_images(tmp_path / "a.npz")
    data = group_data("set", pixels, labels, labels, labels, (b"dog", b"cat"), (b"land", b"water"))
    assert data.classes == ("dog", "cat")
    assert data.groups[1] == "dog on water"
    space = FeatureSpace.infer({"colour": np.array([b"red", b"blue"])})  # the cells that a model was fitted on
    assert space.features[0].describe() == "one of blue, red"
    np.testing.assert_array_equal(space.encode({"colour": np.array(["red", b"red"], object)}), [[0, 1], [0, 1]])


@pytest.mark.parametrize("shape", [(32, 32, 3), (32, 24, 1), (9, 8, 4)])
def test_one_picture_is_no_list_of_greys(shape):
    with pytest.raises(ValueError, match=r"images must be \[N, H, W, C\] where it might be one pic.*images\[None\]"):
        to_range(np.zeros(shape, np.uint8), Bounds())
    assert to_range(np.zeros(shape, np.uint8)[None], Bounds()).shape == (1, *shape)


def test_floats_of_a_set_are_scaled_as_its_bytes():
    pixels = np.arange(48, dtype=np.uint8).reshape(4, 4, 3, 1)
    for bounds in (Bounds(), Bounds(-1.0, 1.0), Bounds(0.0, 255.0)):
        first, second = (
            group_data("set", x, [0, 0, 1, 1], [0, 1, 0, 1], [0] * 4, "ab", "cd").images(bounds=bounds)
            for x in (pixels, (pixels / 255).astype(np.float32))
        )
        np.testing.assert_allclose(first, second, rtol=0, atol=3e-7 * max(1, bounds.upper))


def test_a_set_that_is_written_comes_back_or_is_refused(tmp_path):
    rng = np.random.default_rng(0)
    y, place, part = [0, 0, 1, 1], [0, 1, 0, 1], [0, 0, 1, 2]

    def made(shape=(4, 8, 8, 3), classes="ab", **options):
        x = rng.integers(0, 256, shape).astype(np.uint8)
        return group_data("set", x, y, place, part, classes, "cd", mask=x[..., 0] > 128, **options)

    data = made(table={"place_filename": ["/o/1.jpg", "", "x,y", 'a"b']})
    again = with_masks(waterbirds(save_waterbirds(data, tmp_path / "set")))
    for name in ("x", "y", "attribute", "group", "part", "mask"):
        np.testing.assert_array_equal(np.asarray(getattr(again, name)), getattr(data, name), err_msg=name)
    assert again.table["place_filename"].tolist() == data.table["place_filename"].tolist()
    grey = made((4, 8, 8, 1))
    np.testing.assert_array_equal(waterbirds(save_waterbirds(grey, tmp_path / "grey")).x[0], grey.x[0].repeat(3, 2))
    three = made(classes="abc")
    three.y[3] = 2
    for wrong, message in (
        (three, "have two classes, two attributes and .* 3 classes, 2 attributes"),
        (made((4, 8, 8, 4)), "have images of 1 or 3 channels, was 4"),
        (made(group=[0, 0, 1, 1], groups="gh"), "have .* the groups 2 y . attribute; .* 2 groups"),
    ):
        with pytest.raises(ValueError, match=f"data must {message}"):
            save_waterbirds(wrong, tmp_path / "wrong")
        assert not (tmp_path / "wrong").exists()
    (tmp_path / "file").write_text("")
    for place_ in (tmp_path / "file", tmp_path / "file" / "below", tmp_path / ("n" * 300)):
        with pytest.raises(ValueError, match="folder must be"):
            save_waterbirds(data, place_)
