"""From a list of images to a list of (image, target) pairs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Generic, Literal, NamedTuple, TypeVar, overload

import numpy as np

from invjax.core.arguments import kinds_checked
from invjax.core.errors import BadArgument, check_entries, of_shape, unknown_name
from invjax.core.labels import check_indices, whole_numbers
from invjax.core.shown import short_repr
from invjax.types import UNTARGETED, ArrayLike

Targets = TypeVar("Targets", bound="np.ndarray | None")


class Pairs(NamedTuple, Generic[Targets]):
    """N·T pairs, the targets of one image in succession: ``reshape(N, T)`` gives the table of the benchmarks."""

    image: np.ndarray  # [N·T] int, row of the image
    label: np.ndarray  # [N·T] int32
    target: Targets  # [N·T] int32; None: untargeted, T = 1
    offsets: tuple[int, ...]  # the T offsets; empty if untargeted

    __repr__ = short_repr

    @property
    def shape(self) -> tuple[int, int]:
        """(N, T)."""
        each = max(1, len(self.offsets))
        return len(self.label) // each, each

    @property
    def target_table(self) -> np.ndarray:
        """[N, T] int32, the targets; ``UNTARGETED`` (-1) in an untargeted run."""
        return np.full(self.shape, UNTARGETED, np.int32) if self.target is None else self.target.reshape(self.shape)


@kinds_checked
def parse_targets(targets: str | Sequence[int], num_classes: int) -> tuple[int, ...]:
    """Offsets added to the label: "all" (1 … K-1), "untargeted" (none), "1,4,7", or the numbers themselves.

    Raises ValueError if an offset is not in 1 … K-1 (0 would be the label itself) or occurs twice.
    """
    if isinstance(targets, str):
        if targets == "all":
            return tuple(range(1, num_classes))
        if targets == "untargeted":
            return ()
        try:
            targets = [int(part) for part in targets.split(",")]
        except ValueError:
            wanted = "be 'all', 'untargeted' or offsets like '1,4,7'"
            raise unknown_name("targets", targets, ("all", "untargeted"), wanted) from None
    offsets = tuple(whole_numbers("targets", list(targets), "be offsets, whole numbers").tolist())
    wrong = [offset for offset in offsets if not 1 <= offset < num_classes]
    if wrong or not offsets or len(set(offsets)) < len(offsets):
        hint = "offsets are added to the label; listed_pairs, and a file of --targets, take classes"
        raise BadArgument("targets", f"be different offsets from 1 to {num_classes - 1}", offsets, hint=hint)
    return offsets


@overload
def make_pairs(label: ArrayLike, num_classes: int, targets: Literal["untargeted"]) -> Pairs[None]: ...
@overload
def make_pairs(
    label: ArrayLike, num_classes: int, targets: Literal["all"] | Sequence[int] = "all"
) -> Pairs[np.ndarray]: ...
@overload
def make_pairs(label: ArrayLike, num_classes: int, targets: str) -> Pairs[np.ndarray] | Pairs[None]: ...
@kinds_checked
def make_pairs(
    label: ArrayLike, num_classes: int, targets: str | Sequence[int] = "all"
) -> Pairs[np.ndarray] | Pairs[None]:
    """Every image with every target: ``target = (label + offset) mod K``.

    label: [N] int, the classes of the images. targets: see :func:`parse_targets`. Raises ValueError about either.
    """
    label = check_indices("label", label, None, num_classes, of="the network")
    offsets = parse_targets(targets, num_classes)
    each = max(1, len(offsets))
    repeated = np.repeat(label, each)
    target = (repeated + np.tile(np.asarray(offsets, np.int32), len(label))) % num_classes if offsets else None
    made: Any = Pairs(np.repeat(np.arange(len(label)), each), repeated, target, offsets)
    return made


@kinds_checked
def listed_pairs(label: ArrayLike, targets: ArrayLike, num_classes: int) -> Pairs[np.ndarray]:
    """Every image with targets of its own. label: [N] int. targets: [N, T] int, or [N] for one each.

    Raises ValueError: another shape, or a target that is no class or equals the label.
    """
    label = check_indices("label", label, None, num_classes, of="the network")
    rows = whole_numbers("targets", targets, "be classes as whole numbers")
    rows = rows[:, None] if rows.ndim == 1 else rows
    if rows.ndim != 2 or len(rows) != len(label) or not rows.shape[1]:
        raise BadArgument("targets", f"be [{len(label)}] or [{len(label)}, T]", of_shape(np.shape(targets)))
    outside = (rows < 0) | (rows >= num_classes)
    check_entries("targets", rows, outside, f"lie in [0, {num_classes}), the classes of the network")
    check_entries("targets", rows, rows == label[:, None], "differ from the label")
    each = rows.shape[1]
    image = np.repeat(np.arange(len(rows)), each)
    return Pairs(image, label[image], rows.reshape(-1).astype(np.int32), tuple(range(each)))
