"""SpuCoAnimals, SpuCoDogs and SpuCoBirds from their folders.

    spuco_dogs /{train, val, test}/{small_dogs, big_dogs}/{indoor, outdoor}/ images        group = 2 y + place    (1)
    spuco_birds/{train, val, test}/{landbirds, waterbirds}/{land, water}/    images        group = 2 y + place    (2)

SpuCoAnimals is both together, with classes and places 0, 1 from (2) and 2, 3 from (1). Birds never stand indoors, so
only 8 of the 16 pairs are groups: ``group = 2 y + place mod 2``. Published sizes of the groups (majority/minority):
dogs train 10,000/500, val 1,000/50, test 500/500; birds the same but val 500/25. Other sizes are taken as they are, and
``describe`` shows them. Source: S. Joshi et al., arXiv 2306.11957, and the folders of the package SpuCo.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np

from invjax.core.errors import BadArgument, check_choice
from invjax.data.folder import data_folder
from invjax.data.grouped.group_data import SPLITS, GroupData, group_data
from invjax.data.images.files import KINDS, MARGIN, ImageFiles, Store

_SETS = {  # folder, classes, places
    "birds": ("spuco_birds", ("landbirds", "waterbirds"), ("land", "water")),
    "dogs": ("spuco_dogs", ("small_dogs", "big_dogs"), ("indoor", "outdoor")),
}
Which = Literal["animals", "dogs", "birds"]
_PARTS: dict[Which, tuple[str, ...]] = {"animals": ("birds", "dogs"), "birds": ("birds",), "dogs": ("dogs",)}


def spuco_animals(
    source: str | Path | None = None, which: Which = "animals", *, size: int | None = 224, margin: float = MARGIN
) -> GroupData[ImageFiles, None]:
    """SpuCo's photographs of animals; the images stay files until they are read.

    Args:
      source: the folder (or zip) that holds ``spuco_birds`` and ``spuco_dogs``, or for one of them itself; by default
        ``INVJAX_DATA/spuco``.
      which: "animals", "dogs" or "birds".
      size, margin: as :func:`~invjax.data.images.files.ImageFiles`; the protocol by default.

    Raises:
      BadArgument: no such source; a split, class or place without folder or image; or an unknown folder among those
        of classes and places.
    """
    classes, attributes, groups = names(which)
    store = Store(data_folder() / "spuco" if source is None else source)
    present = [name for name in store.names() if name.lower().endswith(KINDS)]
    files: list[str] = []
    rows: list[tuple[int, int, int]] = []  # class, place, split of each file
    for offset, part in enumerate(_PARTS[which]):
        folder, own_classes, own_places = _SETS[part]
        base = _base(present, folder, str(store))
        for k, split in enumerate(SPLITS):
            known = [f"{one}/{place}" for one in own_classes for place in own_places]
            found: dict[str, list[str]] = {below: [] for below in known}
            for name in (name for name in present if name.startswith(f"{base}{split}/")):
                below = name.removeprefix(f"{base}{split}/").rpartition("/")[0]
                if below not in found:
                    wanted = f"have the images of {split} in {', '.join(known)}"
                    raise BadArgument("source", wanted, hint=f"{store} has {name!r}")
                found[below].append(name)
            for g, (below, own) in enumerate(found.items()):
                if not own:
                    raise BadArgument("source", f"have images in {base}{split}/{below}", str(store))
                files += own
                rows += [(2 * offset + g // 2, 2 * offset + g % 2, k)] * len(own)
    label, place, part_of = np.asarray(rows, np.int32).T
    return group_data(
        f"spuco-{which}",
        ImageFiles(store, files, size, margin),
        label,
        place,
        part_of,
        classes,
        attributes,
        group=2 * label + place % 2,
        groups=groups,
        table={"img_filename": files},
    )


def names(which: Which) -> tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]]:
    """The names of the classes, places and groups of "animals", "dogs" or "birds"."""
    parts = [_SETS[part][1:] for part in _PARTS[check_choice("which", which, _PARTS)]]
    groups = tuple(f"{one} on {place}" for own, places in parts for one in own for place in places)
    return sum((own for own, _ in parts), ()), sum((places for _, places in parts), ()), groups


def _base(names: list[str], folder: str, shown: str) -> str:
    """The folder of ``train``: ``folder``, at any depth, or the top."""
    for name in names:
        parts = name.split("/")
        if folder in parts[:-1]:
            return "/".join(parts[: parts.index(folder) + 1]) + "/"
    if any(name.startswith(f"{SPLITS[0]}/") for name in names):
        return ""
    raise BadArgument("source", f"hold the folder {folder} with {', '.join(SPLITS)}", shown)
