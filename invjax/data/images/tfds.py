"""Data sets of tensorflow_datasets, read at random and without TensorFlow.

This needs a data set that was prepared as array_record; tfds' default format, tfrecord, needs TensorFlow. The user
prepares it: most of tfds' own builders need TensorFlow for that, once, on any machine.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np

from invjax.core.errors import BadArgument, unknown_name
from invjax.core.labels import check_indices
from invjax.data.folder import data_folder
from invjax.data.images.source import ImageData, ImageSource, to_range
from invjax.types import Bounds

_PREPARE = "prepare it once with tfds.builder(NAME).download_and_prepare(file_format='array_record')"


def open_tfds(name: Any, split: str, bounds: Bounds) -> ImageSource:
    """The images of one split of a prepared data set, decoded when they are read.

    Args:
      name: the name of the data set ("cifar10", "cifar10:3.0.2"), the folder of a prepared one, or a builder.
      split: "test", "train[:50%]" …
      bounds: the data range onto which the pixels are mapped.

    tfds' data folder is ``INVJAX_DATA/tensorflow_datasets`` where that exists, else its own default.

    Raises:
      BadArgument: no such data set or split, a data set that is not prepared, or one without images.
      ImportError: tfds is missing (extra ``data``).
    """
    builder = _builder(name, data_folder() / "tensorflow_datasets") if isinstance(name, str) else name
    source, shown = _data_source(builder, split, str(name) if isinstance(name, str) else type(builder).__name__)
    features = builder.info.features
    image_key, label_key = _keys(features, shown)
    names = getattr(features[label_key], "names", None) if label_key else None

    def read(start: int, stop: int) -> ImageData[np.ndarray | None]:
        rows = [source[i] for i in range(start, stop)]
        pictures = [np.asarray(row[image_key]) for row in rows]
        if len(shapes := {picture.shape for picture in pictures}) > 1:
            first = ", ".join(map(str, sorted(shapes)[:3]))
            raise BadArgument("images", "all have one shape", hint=f"{shown!r} has {first} and perhaps more")
        known = [int(row[label_key]) for row in rows] if label_key else None
        labels = None if known is None else check_indices("labels", known, len(rows))
        return ImageData(to_range(np.stack(pictures), bounds), labels, bounds, tuple(names) if names else None)

    return ImageSource(len(source), read)


def _builder(name: str, folder: Path) -> Any:
    try:
        import tensorflow_datasets as tfds
    except ImportError as error:
        raise ImportError(f"images tfds:{name} need tensorflow_datasets: pip install 'invjax[data]'") from error
    if os.path.sep in name or os.path.isdir(name):
        try:
            return tfds.builder_from_directory(name)
        except (FileNotFoundError, OSError, ValueError) as error:
            raise BadArgument("images", "be the folder of a prepared data set", name, hint=_line(error)) from error
    try:
        return tfds.builder(name, data_dir=str(folder) if os.path.isdir(folder) else None)
    except ValueError as error:  # DatasetNotFoundError lists all names there are: one line of it is enough
        raise BadArgument("images", "name a data set of tensorflow_datasets", name, hint=_line(error)) from error


def _data_source(builder: Any, split: str, shown: str) -> tuple[Any, str]:
    splits = builder.info.splits
    if not splits:
        raise BadArgument("images", "be a prepared data set", shown, hint=_PREPARE)
    form = str(getattr(getattr(builder.info, "file_format", None), "value", ""))
    if "[" in split and form == "parquet":  # tfds 4.9.10 ignores the slice and returns all rows
        raise BadArgument("split", "be a whole split for a data set kept as parquet", split)
    if split.split("[")[0] not in splits and "+" not in split:
        raise unknown_name("split", split, splits, f"be one of {', '.join(splits)} for {shown!r}")
    try:
        return builder.as_data_source(split=split), shown
    except NotImplementedError as error:
        wanted = f"be prepared as array_record to be read without TensorFlow, {shown!r} is {form or 'not'}"
        raise BadArgument("images", wanted, hint=_PREPARE) from error
    except ImportError as error:
        raise ImportError(f"images tfds:{shown} need array_record: pip install 'invjax[data]'") from error
    except ValueError as error:
        raise BadArgument("split", f"be a split of {shown!r}", split, hint=_line(error)) from error


def _keys(features: Any, shown: str) -> tuple[str, str | None]:
    """The names of the image and of the label: the usual ones, or else those of the right kind."""
    kinds = {key: type(features[key]).__name__ for key in features}
    image = "image" if "image" in kinds else next((key for key, kind in kinds.items() if kind == "Image"), None)
    if image is None:
        hint = f"{shown!r} has {', '.join(kinds) or 'nothing'}"
        raise BadArgument("images", "be a data set with an image", hint=hint)
    label = "label" if "label" in kinds else next((key for key, kind in kinds.items() if kind == "ClassLabel"), None)
    return image, label


def _line(error: Exception) -> str:
    text = str(error).strip()
    return text.splitlines()[0] if text else type(error).__name__
