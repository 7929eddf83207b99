"""WaterBirds from folders and zips, what may be wrong with them, and the builders for tensorflow_datasets."""

from __future__ import annotations

import csv
import io
import sys
import zipfile

import numpy as np
import pytest

from invjax.data import load_groups, load_images
from invjax.data.grouped.synthbirds import synthbirds
from invjax.data.grouped.waterbirds import save_waterbirds, waterbirds, with_masks
from invjax.data.tfds_builders import prepare
from invjax.data.tfds_builders.__main__ import main

Image = pytest.importorskip("PIL.Image", reason="pillow is an extra (data)")

HEADER = "img_id,img_filename,y,split,place,place_filename"
# (y, split, place) of each row: train 4/1/1/2, val one of each, test two of each
ROWS = [(0, 0, 0)] * 4 + [(0, 0, 1), (1, 0, 0)] + [(1, 0, 1)] * 2
ROWS += [(g // 2, split, g % 2) for split in (1, 2, 2) for g in range(4)]


def write(folder, rows=ROWS, header=HEADER, kind="jpg"):
    """A folder of pictures 14 × 14, grey of the shade of their row; subfolders as in CUB."""
    lines = [header]
    for n, (y, split, place) in enumerate(rows):
        name = f"{n % 3:03d}.Bird/Bird_{n}.{kind}"
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((14, 14, 3), 8 * n, np.uint8)).save(folder / name)
        lines.append(f"{n + 1},{name},{y},{split},{place},/o/ocean/{n}.jpg")
    (folder / "metadata.csv").write_text("\n".join(lines) + "\n")
    return folder


def pack(folder, path, prefix="waterbirds_14/"):
    with zipfile.ZipFile(path, "w") as archive:
        for file in sorted(folder.rglob("*.*")):
            archive.write(file, prefix + file.relative_to(folder).as_posix())
    return path


def change(folder, old, new):
    text = (folder / "metadata.csv").read_text()
    assert old in text
    (folder / "metadata.csv").write_text(text.replace(old, new, 1))


@pytest.fixture
def folder(tmp_path):
    return write(tmp_path / "birds")


def check(data):
    y, split, place = np.array(ROWS).T
    np.testing.assert_array_equal(data.y, y)
    np.testing.assert_array_equal(data.part, split)
    np.testing.assert_array_equal(data.group, 2 * y + place)
    assert data.x.shape == (20, 14, 14, 3)
    shades = np.asarray(data.x).astype(int).mean((1, 2, 3))
    np.testing.assert_allclose(shades, 8 * np.arange(20), atol=1)  # JPEG


@pytest.mark.fast
def test_folder_zip_and_where_they_lie(folder, tmp_path, monkeypatch):
    data = waterbirds(folder)
    check(data)
    assert data.groups == ("landbird on land", "landbird on water", "waterbird on land", "waterbird on water")
    assert {name: row.tolist() for name, row in data.counts().items()} == {
        "train": [4, 1, 1, 2],
        "val": [1] * 4,
        "test": [2] * 4,
    }
    assert data.table["img_id"][2] == "3"
    assert data.table["place_filename"][2] == "/o/ocean/2.jpg"
    for prefix in ("", "waterbirds_14/", "a/b/"):
        check(waterbirds(pack(folder, tmp_path / "one.zip", prefix)))
    (tmp_path / "data").mkdir()
    folder.rename(tmp_path / "data" / "waterbirds")
    monkeypatch.setenv("INVJAX_DATA", str(tmp_path / "data"))
    check(load_groups("waterbirds"))
    pack(tmp_path / "data" / "waterbirds", tmp_path / "two.zip")
    (tmp_path / "data" / "waterbirds").rename(tmp_path / "elsewhere")
    (tmp_path / "data" / "waterbirds").mkdir()
    (tmp_path / "two.zip").rename(tmp_path / "data" / "waterbirds" / "two.zip")
    check(waterbirds())
    pack(tmp_path / "elsewhere", tmp_path / "data" / "waterbirds" / "three.zip")
    with pytest.raises(
        ValueError, match=r"source must hold metadata.csv, or one folder or zip that does; .* three.zip, two"
    ):
        waterbirds()


@pytest.mark.fast
def test_sizes_and_a_stratified_part(folder):
    data = waterbirds(folder, size=7, count=5, seed=2)
    assert data.counts()["train"].tolist() == [2, 1, 1, 1]
    assert data.x.shape == (17, 7, 7, 3)
    assert np.asarray(data.x).shape == (17, 7, 7, 3)
    again = waterbirds(folder, size=7, count=5, seed=2)
    assert again.x.names.tolist() == data.x.names.tolist()
    assert waterbirds(folder, size=14, margin=1).decode().x.shape == (20, 14, 14, 3)


@pytest.mark.fast
@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("split", "part", "must have the columns img_filename, y, split, place; lacks split"),
        ("place,", "", "lacks place$"),
        (
            ",0,0,0,",
            ",0,3,0,",
            r"split in metadata.csv .* must be one of 0 \(train\), 1 \(val\), 2 \(test\), was '3' in row 1",
        ),
        (",0,0,1,", ",0,0,7,", r"place in .* must be one of 0 \(land\), 1 \(water\), was '7' in row 5"),
        (",1,0,0,", ",1.5,0,0,", r"y in .* must be one of 0 \(landbird\), 1 \(waterbird\), was '1.5' in row 6"),
        (",0,0,0,/o/ocean/1.jpg", ",0", "must have 6 fields in each row; row 2 has 3"),
        ("Bird_2.jpg", "Bird_99.jpg", "must list files that are there; 1 are not: '002.Bird/Bird_99.jpg'"),
    ],
)
@pytest.mark.parametrize("zipped", [False, True])
def test_wrong_metadata(folder, tmp_path, old, new, message, zipped):
    change(folder, old, new)
    source = pack(folder, tmp_path / "one.zip") if zipped else folder
    with pytest.raises(ValueError, match=message):
        waterbirds(source)


@pytest.mark.fast
def test_what_is_missing_or_corrupt(folder, tmp_path):
    (folder / "002.Bird" / "Bird_2.jpg").unlink()
    whole = (folder / "002.Bird" / "Bird_5.jpg").read_bytes()
    (folder / "002.Bird" / "Bird_5.jpg").write_bytes(whole[: len(whole) // 2])
    (folder / "001.Bird" / "Bird_10.jpg").write_bytes(b"")
    for source in (folder, pack(folder, tmp_path / "one.zip")):
        with pytest.raises(ValueError, match=r"1 are not: '002.Bird/Bird_2.jpg'"):
            waterbirds(source)
        data = waterbirds(source, skip_missing=True)
        assert data.skipped == ("002.Bird/Bird_2.jpg: no such file",)
        with pytest.raises(ValueError, match=r"must be readable; 002.Bird/Bird_5.jpg: .*, and 1 more"):
            data.decode()
        read = data.decode(skip_bad=True)
        assert len(read) == 17
        assert [line.split(":")[0] for line in read.skipped] == [
            "002.Bird/Bird_2.jpg",
            "002.Bird/Bird_5.jpg",
            "001.Bird/Bird_10.jpg",
        ]
        with pytest.raises(
            ValueError, match="train must hold an example of each group, was without 'waterbird on land'"
        ):
            read.require_groups()  # Bird_5 was the only one
    (folder / "metadata.csv").write_text(HEADER + "\n")
    with pytest.raises(ValueError, match=r"must list at least one image$"):
        waterbirds(folder)
    (folder / "metadata.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ValueError, match="must be readable text"):
        waterbirds(folder)
    (folder / "metadata.csv").unlink()
    with pytest.raises(ValueError, match=r"source must hold metadata.csv, .* has neither"):
        waterbirds(folder)
    with pytest.raises(ValueError, match=r"source must hold metadata.csv; the zip .* does not"):
        waterbirds(pack(folder, tmp_path / "none.zip"))
    (tmp_path / "cut.zip").write_bytes((tmp_path / "one.zip").read_bytes()[:500])
    with pytest.raises(ValueError, match="source must be a folder or a zip"):
        waterbirds(tmp_path / "cut.zip")
    with pytest.raises(ValueError, match="source must be an existing folder or zip"):
        waterbirds(tmp_path / "nowhere")


@pytest.mark.fast
def test_written_and_read_again(folder, tmp_path):
    data = waterbirds(folder).decode()
    copy = waterbirds(save_waterbirds(data, tmp_path / "copy"))
    np.testing.assert_array_equal(copy.x[:], data.x)
    for field in ("y", "attribute", "group", "part"):
        np.testing.assert_array_equal(getattr(copy, field), getattr(data, field))
    assert copy.table["place_filename"].tolist() == data.table["place_filename"].tolist()
    with open(tmp_path / "copy" / "metadata.csv") as file:
        assert next(csv.reader(file)) == HEADER.split(",")
    with pytest.raises(ValueError, match="folder must be new or empty"):
        save_waterbirds(data, tmp_path / "copy")


@pytest.mark.fast
def test_masks(tmp_path):
    data = synthbirds(8, held_out=1, size=16, foreground="silhouettes", background="procedural")
    lazy = waterbirds(save_waterbirds(data, tmp_path / "birds"))
    assert lazy.mask is None
    masked = with_masks(lazy)
    np.testing.assert_array_equal(masked.mask, data.mask)
    np.testing.assert_array_equal(masked.decode().x, data.x)
    half = with_masks(waterbirds(tmp_path / "birds", size=8, margin=1))
    assert half.mask.shape == (16, 8, 8)
    assert abs(half.mask.mean() - data.mask.mean()) < 0.05
    with pytest.raises(ValueError, match="data must be files that are not decoded yet"):
        with_masks(data)
    (tmp_path / "birds" / "segmentations" / "val" / "000008.png").unlink()
    with pytest.raises(
        ValueError, match=r"must have a mask for each image; 1 are missing, the first is 'segmentations/val/000008.png'"
    ):
        with_masks(lazy)


def test_the_real_ones(data_dir):
    path = data_dir / "waterbirds"
    if not path.is_dir():
        pytest.skip("no WaterBirds in the data folder")
    data = waterbirds(path, count=48, seed=1)
    whole = waterbirds(path)
    assert whole.counts()["train"].tolist() == [3498, 184, 56, 1057]
    assert whole.counts()["val"].tolist() == [467, 466, 133, 133]
    assert whole.counts()["test"].tolist() == [2255, 2255, 642, 642]
    assert data.counts()["train"].tolist() == [34, 2, 1, 11]
    read = data.split("train").decode()
    assert read.x.shape == (48, 112, 112, 3)
    assert 30 < read.x.std() < 90
    assert read.skipped == ()


def prepared(name, source, out):
    pytest.importorskip("tensorflow_datasets", reason="tfds is an extra (data)", exc_type=ImportError)
    pytest.importorskip("array_record", reason="array_record is an extra (data)", exc_type=ImportError)
    pytest.importorskip("importlib_resources", reason="tfds prepares with it (extra data)")
    return prepare(name, source, out)


@pytest.mark.filterwarnings("ignore")  # those of tfds and what it imports are not ours
def test_prepared_for_tfds(folder, tmp_path):
    grey = folder / "001.Bird" / "Bird_1.jpg"
    Image.fromarray(np.full((14, 14), 8, np.uint8)).save(grey)  # a grey file among coloured ones
    builder = prepared("waterbirds", pack(folder, tmp_path / "one.zip"), tmp_path / "out")
    import tensorflow_datasets as tfds

    assert "tensorflow" not in sys.modules
    data = waterbirds(folder)
    by_name = {name: n for n, name in enumerate(data.x.names)}
    for split in ("train", "val", "test"):
        rows = tfds.data_source("waterbirds", split=split, data_dir=str(tmp_path / "out"))
        assert len(rows) == sum(data.counts()[split])
        for row in (rows[k] for k in range(len(rows))):
            n = by_name[row["file_name"].decode()]
            np.testing.assert_array_equal(row["image"], data.x[n])
            assert (row["label"], row["attribute"], row["group"]) == (data.y[n], data.attribute[n], data.group[n])
    assert load_images(f"tfds:{builder.data_path}", "val").images.shape == (4, 14, 14, 3)
    grain = pytest.importorskip("grain", reason="grain is optional", exc_type=ImportError)
    rows = builder.as_data_source(split="test")
    batches = list(grain.MapDataset.source(rows).map(lambda row: row["image"]).batch(4).to_iter_dataset())
    assert [batch.shape for batch in batches] == [(4, 14, 14, 3)] * 2


@pytest.mark.filterwarnings("ignore")
def test_nothing_half_prepared(folder, tmp_path):
    whole = (folder / "002.Bird" / "Bird_5.jpg").read_bytes()
    (folder / "002.Bird" / "Bird_5.jpg").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match=r"002.Bird/Bird_5.jpg must be a readable image"):
        prepared("waterbirds", folder, tmp_path / "out")
    assert not list((tmp_path / "out").rglob("*.array_record*"))
    (folder / "002.Bird" / "Bird_5.jpg").write_bytes(whole)
    prepared("waterbirds", folder, tmp_path / "out")
    with pytest.raises(ValueError, match="name must be one of 'waterbirds', 'spuco_animals', was 'celeba'"):
        prepare("celeba", folder)


@pytest.mark.filterwarnings("ignore")
def test_spuco_animals_prepared(tmp_path):
    from test_data_groups import spuco_folder

    root = spuco_folder(tmp_path / "spuco")
    builder = prepared("spuco_animals", root, tmp_path / "out")
    rows = builder.as_data_source(split="val")
    assert np.bincount([rows[k]["group"] for k in range(len(rows))]).tolist() == [4, 1, 1, 4] * 2
    for row in (rows[k] for k in range(len(rows))):
        assert row["image"][0, 0, 0] == 64 + 16 * (row["label"] % 2) + 4 * (row["attribute"] % 2) + 2 * (
            row["label"] // 2
        )


@pytest.mark.filterwarnings("ignore")
def test_command_says_what_is_wrong(tmp_path, capsys):
    pytest.importorskip("tensorflow_datasets", reason="tfds is an extra (data)", exc_type=ImportError)
    assert main(["waterbirds", str(tmp_path / "nowhere")]) == 2
    said = capsys.readouterr()
    assert said.err.startswith("error: source must be an existing folder or zip")
    assert said.err.count("\n") == 1


@pytest.mark.fast
def test_prepare_without_tfds(monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorflow_datasets", None)
    with pytest.raises(ImportError, match=r"pip install 'invjax\[data\]'"):
        prepare("waterbirds", io.StringIO())
