"""From a list of images to a list of (image, target) pairs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from invjax.core.errors import BadArgument, Words
from invjax.types import ArrayLike


class Pairs(NamedTuple):
    """N·T pairs, the targets of one image in succession: ``reshape(N, T)`` gives the table of the benchmarks."""

    image: np.ndarray  # [N·T] int, row of the image
    label: np.ndarray  # [N·T] int32
    target: np.ndarray | None  # [N·T] int32; None: untargeted, T = 1
    offsets: tuple[int, ...]  # the T offsets; empty if untargeted

    @property
    def shape(self) -> tuple[int, int]:
        """(N, T)."""
        each = max(1, len(self.offsets))
        return len(self.label) // each, each


def parse_targets(targets: str | Sequence[int], num_classes: int) -> tuple[int, ...]:
    """Offsets added to the label: "all" (1 … K-1), "untargeted" (none), "1,4,7", or the numbers themselves.

    Raises ValueError if an offset is not in 1 … K-1 (0 would be the label itself) or stands twice.
    """
    if isinstance(targets, str):
        if targets == "all":
            return tuple(range(1, num_classes))
        if targets == "untargeted":
            return ()
        try:
            targets = [int(part) for part in targets.split(",")]
        except ValueError:
            raise BadArgument("targets", "be 'all', 'untargeted' or offsets like '1,4,7'", targets) from None
    offsets = tuple(int(offset) for offset in targets)
    wrong = [offset for offset in offsets if not 1 <= offset < num_classes]
    if wrong or not offsets or len(set(offsets)) < len(offsets):
        raise BadArgument("targets", f"be different offsets from 1 to {num_classes - 1}", Words(offsets))
    return offsets


def make_pairs(label: ArrayLike, num_classes: int, targets: str | Sequence[int] = "all") -> Pairs:
    """Every image with every target: ``target = (label + offset) mod K``.

    label: [N] int, the classes of the images. targets: see :func:`parse_targets`.
    """
    label = np.asarray(label, np.int32)
    offsets = parse_targets(targets, num_classes)
    each = max(1, len(offsets))
    repeated = np.repeat(label, each)
    target = (repeated + np.tile(np.asarray(offsets, np.int32), len(label))) % num_classes if offsets else None
    return Pairs(np.repeat(np.arange(len(label)), each), repeated, target, offsets)
