"""WaterBirds: birds of land and water before landscapes of land and water, of which 95 % agree in training.

    group = 2 y + place        0 landbird on land, 1 landbird on water, 2 waterbird on land, 3 waterbird on water   (1)

A folder (or zip) of images with a ``metadata.csv`` whose columns are ``img_id``, ``img_filename``, ``y``, ``split``
(0 train, 1 val, 2 test), ``place``, ``place_filename``. Full size: train 3498/184/56/1057, val 467/466/133/133, test
2255/2255/642/642. Source: S. Sagawa et al., ICLR 2020 (birds: CUB-200-2011; landscapes: Places).
"""

from __future__ import annotations

import csv
import dataclasses
import io
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from invjax.core.errors import BadArgument, Words
from invjax.core.files import write_atomic, writing
from invjax.core.text import as_text, inert, restored
from invjax.core.unpack import Unreadable
from invjax.data.folder import data_folder
from invjax.data.grouped.group_data import SPLITS, GroupData, group_data
from invjax.data.images.files import MARGIN, ImageFiles, MaskFiles, Store, is_companion
from invjax.data.images.pixels import pillow

CLASSES = ("landbird", "waterbird")
PLACES = ("land", "water")
_METADATA = "metadata.csv"
COLUMNS = ("img_id", "img_filename", "y", "split", "place", "place_filename")
_NEEDED = ("img_filename", "y", "split", "place")


def waterbirds(
    source: str | Path | None = None,
    *,
    size: int | None = None,
    margin: float = MARGIN,
    count: int | None = None,
    seed: int = 0,
    skip_missing: bool = False,
) -> GroupData[ImageFiles, None]:
    """WaterBirds, or any set kept the same way; the images stay files until they are read.

    Args:
      source: the folder or zip with ``metadata.csv`` (in a zip at any depth); ``INVJAX_DATA/waterbirds`` by default,
        which may also hold one such folder or zip.
      size, margin: S px by :func:`~invjax.data.images.files.ImageFiles` (1): 224 is the published protocol (resize to
        256 × 256, center crop). None keeps the files as they are: right for a copy that was resized already. To shrink
        such a copy give ``margin=1``.
      count: how many training images to keep, drawn by group (:meth:`GroupData.subset`); all by default.
      seed: of that draw.
      skip_missing: leave out rows whose file is missing and name them in ``skipped``, instead of raising. (A corrupt
        file shows only when it is read: ``decode(skip_bad=True)``.)

    Raises:
      BadArgument: no such source; columns missing; a row with an unknown split, class or place, without its file, or
        whose file is not inside the folder (also through a link; the folder itself may be one).
    """
    store = _open_waterbirds(data_folder() / "waterbirds" if source is None else Path(source))
    table = _read_metadata(store)
    names = table["img_filename"].tolist()
    _stay_inside(store, names, f"{_METADATA} of {store}")
    missing = set(store.missing(names))
    if missing and not skip_missing:
        shown = ", ".join(repr(name) for name in names if name in missing)[:300]
        raise BadArgument(
            f"{_METADATA} of {store}", "list files that are there", hint=f"{len(missing)} are not: {shown}"
        )
    kept = np.array([k for k, name in enumerate(names) if name not in missing], np.int64)
    table = {key: column[kept] for key, column in table.items()}
    data = group_data(
        "waterbirds",
        ImageFiles(store, table["img_filename"], size, margin),
        table.pop("y"),
        table.pop("place"),
        table.pop("split"),
        CLASSES,
        PLACES,
        table=table,
        skipped=[f"{name}: no such file" for name in names if name in missing],
    )
    return data if count is None else data.subset(count, seed=seed)


def with_masks(data: GroupData[ImageFiles, Any], folder: str = "segmentations") -> GroupData[ImageFiles, np.ndarray]:
    """The same with the masks of the birds, resized and cropped like the images; True where at least half is bird.

    Args:
      data: of :func:`waterbirds`, not decoded yet.
      folder: a folder of the source that holds for the image ``a/b.jpg`` the mask ``a/b.png``, as in CUB's
        segmentations. It may be a link. A mask may be grey or of one colour, from 0 to 255 or just 0 and 1
        (:func:`~invjax.data.images.pixels.mask_levels`).

    Raises:
      BadArgument: a mask is missing or cannot be decoded, or it is not known what its colours mean; or ``data`` has no
        files.
    """
    if not isinstance(data.x, ImageFiles):
        raise BadArgument("data", "be files that are not decoded yet", Words("an array"))
    store, names = data.x.store, [f"{name.rpartition('.')[0]}.png" for name in map(str, data.x.names)]
    if missing := store.missing([f"{folder}/{name}" for name in names]):
        raise BadArgument(
            "data", "have a mask for each image", hint=f"{len(missing)} are missing, the first is {missing[0]!r}"
        )
    masks = store.below(folder)
    _stay_inside(masks, names, f"masks of {masks}")
    mask = MaskFiles(masks, names, data.x.size, data.x.margin)[:][..., 0] >= 128
    if mask.shape != data.x.shape[:3]:
        raise BadArgument("masks", f"be as large as the images, {data.x.shape[1:3]}", mask.shape[1:])
    return dataclasses.replace(data, mask=mask)


def _stay_inside(store: Store, names: Sequence[str], where: str) -> None:
    """Raise BadArgument where a name leads out of the store: a list of files must not read others."""
    if outside := store.outside(names):
        hint = f"{len(outside)} are not, the first is {outside[0][:100]!r} (links that lead out of it are not followed)"
        raise BadArgument(where, "be files inside this folder", hint=hint)


def _open_waterbirds(path: Path) -> Store:
    """The folder that holds ``metadata.csv``: ``path``, or the only folder or zip in it that does.

    Raises BadArgument where there is none, or more than one.
    """
    if os.path.isdir(path) and not os.path.isfile(path / _METADATA):
        inside = sorted(p for p in path.iterdir() if (p / _METADATA).is_file() or p.suffix == ".zip")
        inside = [p for p in inside if not is_companion(p.name)]
        if len(inside) != 1:
            found = ", ".join(p.name for p in inside) or "neither"
            hint = f"{str(path)!r} has {found}"
            raise BadArgument("source", f"hold {_METADATA}, or one folder or zip that does", hint=hint)
        path = inside[0]
    store = Store(path)
    if not store.zipped:
        return store
    places = sorted((n for n in store.names() if n.rpartition("/")[2] == _METADATA), key=lambda n: (n.count("/"), n))
    if not places:
        raise BadArgument("source", f"hold {_METADATA}", hint=f"the zip {str(path)!r} does not")
    return store.below(places[0].rpartition("/")[0])


def save_waterbirds(data: GroupData, folder: str | Path) -> Path:
    """Write a group-labelled set as a WaterBirds folder: PNG images, ``metadata.csv``, masks in ``segmentations/``.

    :func:`waterbirds` reads it back: the same classes, places, splits and groups by their numbers (their names are
    WaterBirds' then), pixels rounded to 8 bits, grey ones as RGB, and the masks exactly. Columns that ``data.table``
    lacks are numbered or left empty. ``metadata.csv`` comes last, so a folder that has it is whole.

    Returns the folder, which must be new or empty.

    Raises:
      BadArgument: a set that could not be read back, because it has more than two classes or attributes, groups of its
        own, or other channels than 1 or 3; or the folder cannot be written. What was written is removed then.
    """
    folder = Path(folder)
    if os.path.exists(folder) and (not os.path.isdir(folder) or any(folder.iterdir())):
        raise BadArgument("folder", "be new or empty", str(folder))
    if max(data.y.max(), data.attribute.max()) > 1 or (data.group != 2 * data.y + data.attribute).any():
        hint = f"this one has {len(data.classes)} classes, {len(data.attributes)} attributes, {len(data.groups)} groups"
        raise BadArgument("data", "have two classes, two attributes and the groups 2 y + attribute", hint=hint)
    if data.x.shape[3] not in (1, 3):
        raise BadArgument("data", "have images of 1 or 3 channels", data.x.shape[3])
    numbers = np.arange(len(data))
    names = [f"{SPLITS[data.part[n]]}/{n:06d}.png" for n in numbers]
    columns = {
        "img_id": data.table.get("img_id", numbers + 1),
        "img_filename": names,
        "y": data.y,
        "split": data.part,
        "place": data.attribute,
        "place_filename": data.table.get("place_filename", [""] * len(data)),
    }
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(COLUMNS)
    writer.writerows(
        [inert(as_text(cell)) for cell in row] for row in zip(*(columns[key] for key in COLUMNS), strict=True)
    )
    with writing(folder, "folder"):
        try:
            for n, name in enumerate(names):
                pixels = np.asarray(data.x[n])
                pixels = pixels if pixels.dtype == np.uint8 else np.round(255 * pixels).astype(np.uint8)
                _save(np.repeat(pixels, 3, axis=2) if pixels.shape[2] == 1 else pixels, folder / name)
                if data.mask is not None:
                    _save(np.where(data.mask[n], 255, 0).astype(np.uint8), folder / "segmentations" / name)
            write_atomic(folder / _METADATA, text.getvalue().encode())
        except BaseException:
            for inside in (*SPLITS, "segmentations"):
                shutil.rmtree(folder / inside, ignore_errors=True)
            raise
    return folder


def _save(pixels: np.ndarray, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "xb") as file:
        pillow().fromarray(pixels).save(file, "png")


def _read_metadata(store: Store) -> dict[str, np.ndarray]:
    """The columns of ``metadata.csv``: y, split and place as checked integers, the others as they stand."""
    where = f"{_METADATA} of {store}"
    try:
        text = store.read(_METADATA).decode("utf-8-sig")
    except (OSError, Unreadable, UnicodeDecodeError) as error:
        raise BadArgument(where, "be readable text", hint=str(error)) from error
    try:
        header, *rows = csv.reader(io.StringIO(text))
    except (csv.Error, ValueError) as error:  # a field of 100,000 characters; no line at all
        raise BadArgument(where, "have a header and rows", hint=str(error)) from error
    if lacking := [name for name in _NEEDED if name not in header]:
        raise BadArgument(where, f"have the columns {', '.join(_NEEDED)}", hint=f"lacks {', '.join(lacking)}")
    rows = [list(map(restored, row)) for row in rows if row]
    if not rows:
        raise BadArgument(where, "list at least one image")
    for k, row in enumerate(rows):
        if len(row) != len(header):
            raise BadArgument(where, f"have {len(header)} fields in each row", hint=f"row {k + 1} has {len(row)}")
    columns = {name: [row[k] for row in rows] for k, name in enumerate(header)}
    table = {name: np.asarray(column) for name, column in columns.items() if name in COLUMNS}
    for name, names in (("y", CLASSES), ("split", SPLITS), ("place", PLACES)):
        table[name] = _numbers(columns[name], name, names, where)
    return table


def _numbers(column: Sequence[str], name: str, names: Sequence[str], where: str) -> np.ndarray:
    known = {str(k): k for k in range(len(names))}
    for k, value in enumerate(column):
        if value.strip() not in known:
            wanted = ", ".join(f"{key} ({names[number]})" for key, number in known.items())
            raise BadArgument(f"{name} in {where}", f"be one of {wanted}", Words(f"{value!r} in row {k + 1}"))
    return np.array([known[value.strip()] for value in column], np.int32)
