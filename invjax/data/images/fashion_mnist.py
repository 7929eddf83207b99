"""Fashion-MNIST from its gzipped idx files, as Debian's package ``dataset-fashion-mnist`` and the authors ship them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal

import numpy as np

from invjax.core import unpack
from invjax.core.errors import BadArgument, Words, check_choice
from invjax.data.folder import data_folder
from invjax.data.images.source import ImageData
from invjax.types import Bounds

_NAMES = ("T-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "boot")
Split = Literal["train", "test"]
_FILES: dict[Split, str] = {"train": "train", "test": "t10k"}


def fashion_mnist(folder: str | Path | None = None, split: Split = "train") -> ImageData[np.ndarray]:
    """60,000 (train) or 10,000 (test) garments: images [N, 28, 28, 1] float32 in [0, 1], labels [N] int32 0 … 9.

    Args:
      folder: holds the idx files (``train-images-idx3-ubyte.gz`` …); by default :func:`fashion_folder` looks for it.
      split: "train" or "test".

    Raises:
      BadArgument: another split, no such files, or files that are damaged.
    """
    check_choice("split", split, _FILES)
    found = fashion_folder(folder)
    if found is None:
        raise missing(folder)
    paths = [found / f"{_FILES[split]}-{part}-ubyte.gz" for part in ("images-idx3", "labels-idx1")]
    if lacking := [path.name for path in paths if not os.path.isfile(path)]:
        raise BadArgument("fashion", f"be a folder with {lacking[0]}", str(found))
    images, labels = map(read_idx, paths)
    return ImageData((images[..., None] / 255).astype(np.float32), labels.astype(np.int32), Bounds(0.0, 1.0), _NAMES)


def fashion_folder(given: str | Path | None = None) -> Path | None:
    """``given``, else ``INVJAX_DATA/fashion-mnist``, else Debian's place; None unless the training files are there."""
    shares = os.environ.get("XDG_DATA_DIRS", "/usr/local/share:/usr/share").split(":")
    places = [data_folder(), *(Path(share) / "datasets" for share in shares if share)]
    for folder in [place / "fashion-mnist" for place in places] if given is None else [Path(given)]:
        if all(os.path.isfile(folder / f"train-{part}-ubyte.gz") for part in ("images-idx3", "labels-idx1")):
            return folder
    return None


def missing(given: str | Path | None) -> BadArgument:
    """The error where :func:`fashion_folder` finds nothing."""
    was = Words("in no known place") if given is None else str(given)
    hint = "Debian has them in the package dataset-fashion-mnist"
    return BadArgument("fashion", "be a folder with Fashion-MNIST's idx files", was, hint=hint)


def read_idx(path: Path) -> np.ndarray:
    """A gzipped idx file of bytes. Raises BadArgument with the name of the file."""
    try:
        return unpack.read_idx(path)
    except unpack.Unreadable as error:
        raise BadArgument(path.name, "be a readable gzipped idx file", hint=str(error)) from error
