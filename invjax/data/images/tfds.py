"""Data sets of tensorflow_datasets, read at random and without TensorFlow.

What can be read so is a data set prepared as array_record (tfds' default format, tfrecord, needs TensorFlow). Preparing
is the user's: most of tfds' own builders need TensorFlow for it, once, on any machine.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np

from invjax.core.errors import BadArgument, Words
from invjax.data.images.source import ImageData, ImageSource, data_folder, to_labels, to_range
from invjax.types import Bounds

_PREPARE = "prepare it once with tfds.builder(NAME).download_and_prepare(file_format='array_record')"


def open_tfds(name: Any, split: str, bounds: Bounds) -> ImageSource:
    """The images of one split of a prepared data set, decoded when they are read.

    Args:
      name: of the data set ("cifar10", "cifar10:3.0.2"), the folder of a prepared one, or a builder.
      split: "test", "train[:50%]" …
      bounds: data range onto which the pixels are mapped.

    tfds' data folder is ``INVJAX_DATA/tensorflow_datasets`` where that exists, else its own default.

    Raises:
      ValueError: no such data set or split, not prepared, or without images; ImportError: no tfds (extra ``data``).
    """
    builder = _builder(name, data_folder() / "tensorflow_datasets") if isinstance(name, str) else name
    source, shown = _data_source(builder, split, str(name) if isinstance(name, str) else type(builder).__name__)
    features = builder.info.features
    image_key, label_key = _keys(features, shown)
    names = getattr(features[label_key], "names", None) if label_key else None

    def read(start: int, stop: int) -> ImageData:
        rows = [source[i] for i in range(start, stop)]
        pictures = [np.asarray(row[image_key]) for row in rows]
        if len({picture.shape for picture in pictures}) > 1:
            shapes = sorted({picture.shape for picture in pictures})[:3]
            raise BadArgument(
                "images", "all have one shape", hint=f"{shown!r} has {', '.join(map(str, shapes))} and more"
            )
        labels = to_labels(np.asarray([int(row[label_key]) for row in rows]), len(rows)) if label_key else None
        return ImageData(to_range(np.stack(pictures), bounds), labels, bounds, tuple(names) if names else None)

    return ImageSource(len(source), read)


def _builder(name: str, folder: Path) -> Any:
    try:
        import tensorflow_datasets as tfds
    except ImportError as error:
        raise ImportError(f"images tfds:{name} need tensorflow_datasets: pip install 'invjax[data]'") from error
    if os.path.sep in name or Path(name).is_dir():
        try:
            return tfds.builder_from_directory(name)
        except (FileNotFoundError, OSError, ValueError) as error:
            raise BadArgument(
                "images", "be the folder of a prepared data set", Words(f"{name!r}: {_line(error)}")
            ) from error
    try:
        return tfds.builder(name, data_dir=str(folder) if folder.is_dir() else None)
    except ValueError as error:  # DatasetNotFoundError lists all names there are: one line of it is enough
        raise BadArgument(
            "images", "name a data set of tensorflow_datasets", Words(f"{name!r}: {_line(error)}")
        ) from error


def _data_source(builder: Any, split: str, shown: str) -> tuple[Any, str]:
    splits = builder.info.splits
    if not splits:
        raise BadArgument("images", "be a prepared data set", shown, hint=_PREPARE)
    form = str(getattr(getattr(builder.info, "file_format", None), "value", ""))
    if "[" in split and form == "parquet":  # tfds 4.9.10 ignores the slice and returns all rows
        raise BadArgument("split", "be a whole split for a data set kept as parquet", split)
    if split.split("[")[0] not in splits and "+" not in split:
        raise BadArgument("split", f"be one of {', '.join(splits)} for {shown!r}", split)
    try:
        return builder.as_data_source(split=split), shown
    except NotImplementedError as error:
        raise BadArgument(
            "images",
            f"be prepared as array_record to be read without TensorFlow, {shown!r} is {form or 'not'}",
            hint=_PREPARE,
        ) from error
    except ImportError as error:
        raise ImportError(f"images tfds:{shown} need array_record: pip install 'invjax[data]'") from error
    except ValueError as error:
        raise BadArgument("split", f"be one of {shown!r}", Words(f"{split!r}: {_line(error)}")) from error


def _keys(features: Any, shown: str) -> tuple[str, str | None]:
    """The names of the image and the label, by what the features are called or what they are."""
    kinds = {key: type(features[key]).__name__ for key in features}
    image = "image" if "image" in kinds else next((key for key, kind in kinds.items() if kind == "Image"), None)
    if image is None:
        raise BadArgument("images", f"be a data set with an image, {shown!r} has {', '.join(kinds) or 'nothing'}")
    label = "label" if "label" in kinds else next((key for key, kind in kinds.items() if kind == "ClassLabel"), None)
    return image, label


def _line(error: Exception) -> str:
    text = str(error).strip()
    return text.splitlines()[0] if text else type(error).__name__
