"""Builders of tensorflow_datasets for group-labelled sets that its catalogue lacks; they need no TensorFlow.

    python -m invjax.data.tfds_builders waterbirds FOLDER_OR_ZIP --data-dir DIR

prepares an array_record data set that :func:`tfds.data_source`, grain and ``load_images("tfds:DIR/waterbirds/1.0.0")``
read. Images are stored as the files they are, so nothing is decoded or lost. The modules of this folder also serve
``tfds build waterbirds.py --manual_dir … --file_format array_record`` (a command that, in tensorflow_datasets 4.9.10,
does not start without TensorFlow). Importing this package does not load tfds.
"""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

from invjax.core.errors import check_choice

BUILDERS = {"waterbirds": "Waterbirds", "spuco_animals": "SpucoAnimals"}


def prepare(name: str, source: str | Path, data_dir: str | Path | None = None) -> Any:
    """Prepare a set as array_record and return its builder; what is already there is kept.

    Args:
      name: "waterbirds" or "spuco_animals".
      source: the folder or zip, as :func:`~invjax.data.grouped.waterbirds.waterbirds` and
        :func:`~invjax.data.grouped.spuco.spuco_animals` take it.
      data_dir: tfds' data folder; its default for None.

    Raises:
      BadArgument: another name, or what those functions say of the source; nothing is written then.
      ImportError: tensorflow_datasets or array_record is missing (extra ``data``).
    """
    check_choice("name", name, BUILDERS)
    try:
        import array_record  # noqa: F401
        import importlib_resources  # noqa: F401 -- tfds needs it to prepare, and does not say so
        import tensorflow_datasets as tfds
    except ImportError as error:
        raise ImportError(f"preparing {name} needs tensorflow_datasets: pip install 'invjax[data]'") from error
    module = importlib.import_module(f"{__name__}.{name}")
    module.open_source(source)
    builder_class = getattr(module, BUILDERS[name])
    builder = builder_class(data_dir=None if data_dir is None else str(data_dir), file_format="array_record")
    builder.source = source
    builder.download_and_prepare(download_config=tfds.download.DownloadConfig(manual_dir=Path(source).resolve().parent))
    return builder
