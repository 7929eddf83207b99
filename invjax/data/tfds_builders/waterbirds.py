"""WaterBirds for tensorflow_datasets: from its folder or zip, at any size, images stored as they are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import tensorflow_datasets as tfds

from invjax.data.grouped.group_data import GroupData
from invjax.data.grouped.waterbirds import CLASSES, PLACES, waterbirds
from invjax.data.tfds_builders import examples


def open_source(source: str | Path) -> GroupData:
    """The set, unread. Raises BadArgument where something is wrong with it."""
    return waterbirds(source)


class Waterbirds(tfds.core.GeneratorBasedBuilder):
    """Features image, label (land- or waterbird), attribute (place), group = 2 label + attribute, file_name."""

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES = {"1.0.0": "Initial release."}  # noqa: RUF012 -- tfds' form
    MANUAL_DOWNLOAD_INSTRUCTIONS = "manual_dir holds metadata.csv, or one folder or zip (waterbirds*) that does."

    source: str | Path | None = None  # instead of manual_dir

    def _info(self) -> tfds.core.DatasetInfo:
        groups = tuple(f"{one} on {place}" for one in CLASSES for place in PLACES)
        return tfds.core.DatasetInfo(
            builder=self,
            description="Birds of land and water before landscapes of land and water; in training 95 % agree.",
            features=examples.features(tfds, CLASSES, PLACES, groups),
            supervised_keys=("image", "label"),
            homepage="https://github.com/kohpangwei/group_DRO",
        )

    def _split_generators(self, dl_manager: Any) -> Any:
        return examples.split_generators(open_source(dl_manager.manual_dir if self.source is None else self.source))

    def _generate_examples(self, data: GroupData) -> Any:  # the base class asks for it; the splits come ready
        raise NotImplementedError
