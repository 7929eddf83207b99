"""SpuCoAnimals for tensorflow_datasets: from its folders, images stored as they are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import tensorflow_datasets as tfds

from invjax.data.grouped import spuco
from invjax.data.grouped.group_data import GroupData
from invjax.data.tfds_builders import examples


def open_source(source: str | Path) -> GroupData:
    """The set, unread. Raises BadArgument where something is wrong with it."""
    return spuco.spuco_animals(source, "animals")


class SpucoAnimals(tfds.core.GeneratorBasedBuilder):
    """Features image, label (4 classes), attribute (4 places), group (8), file_name."""

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES = {"1.0.0": "Initial release."}  # noqa: RUF012 -- tfds' form
    MANUAL_DOWNLOAD_INSTRUCTIONS = "manual_dir holds the folders spuco_birds and spuco_dogs."

    source: str | Path | None = None  # instead of manual_dir

    def _info(self) -> tfds.core.DatasetInfo:
        return tfds.core.DatasetInfo(
            builder=self,
            description="Land- and waterbirds on land and water, small and big dogs indoors and outdoors.",
            features=examples.features(tfds, *spuco.names("animals")),
            supervised_keys=("image", "label"),
            homepage="https://github.com/BigML-CS-UCLA/SpuCo",
        )

    def _split_generators(self, dl_manager: Any) -> Any:
        return examples.split_generators(open_source(dl_manager.manual_dir if self.source is None else self.source))

    def _generate_examples(self, data: GroupData) -> Any:  # the base class asks for it; the splits come ready
        raise NotImplementedError
