"""Examples with a class and an attribute that goes with it by accident: the container of every group-labelled set.

    g_n = A · y_n + a_n          group of example n, its class y_n < K and its attribute a_n < A                   (1)

A classifier that reads the attribute does well on the groups in which both agree and badly on the others, so everything
is counted by group. A set whose attributes do not cross with all classes (SpuCoAnimals) numbers its groups itself.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Literal, TypeVar, cast, get_args

import numpy as np

from invjax.core.errors import BadArgument, Words, check_choice, check_seed, in_range
from invjax.core.images import are_pixels
from invjax.core.labels import check_indices
from invjax.core.meant import explained, fields_told
from invjax.core.text import as_names
from invjax.data.images.files import ImageFiles
from invjax.data.images.source import to_range
from invjax.types import Bounds

Split = Literal["train", "val", "test"]
Pixels = TypeVar("Pixels", bound="np.ndarray | ImageFiles")
Mask = TypeVar("Mask", bound="np.ndarray | None")
SPLITS: tuple[Split, ...] = get_args(Split)  # WaterBirds' numbers 0, 1, 2


@dataclass(frozen=True, eq=False, repr=False)
@fields_told
class GroupData(Generic[Pixels, Mask]):
    """N examples with classes, attributes and groups; made by :func:`group_data`, which checks them.

    ``x`` is an array, or :class:`~invjax.data.images.files.ImageFiles`, which are decoded when they are read; either is
    indexed with an int, a slice or an array of rows. ``table`` holds further columns ("img_filename" …).
    """

    name: str
    x: Pixels  # [N, H, W, C] uint8 pixels or float32 in [0, 1]
    y: np.ndarray  # [N] int32 class, K of them
    attribute: np.ndarray  # [N] int32, A of them
    group: np.ndarray  # [N] int32, (1) or the set's own numbers, G of them
    part: np.ndarray  # [N] int32 index into SPLITS
    classes: tuple[str, ...]  # K names
    attributes: tuple[str, ...]  # A names
    groups: tuple[str, ...]  # G names
    mask: Mask  # [N, H, W] bool, True on the object; None where it is not known
    table: dict[str, np.ndarray]  # name of a column -> [N]
    skipped: tuple[str, ...]  # "file: reason" of what was left out

    def __len__(self) -> int:
        return len(self.y)

    def __repr__(self) -> str:
        few = len(self.groups) <= 8
        counts = "; ".join(
            f"{split} {'/'.join(map(str, row)) if few else row.sum()}"
            for split, row in self.counts().items()
            if row.any()
        )
        lazy = ", read when asked for" if isinstance(self.x, ImageFiles) else ""
        return f"GroupData({self.name!r}: {len(self)} examples{lazy}; {len(self.groups)} groups; {counts})"

    def split(self, name: Split) -> GroupData[Pixels, Mask]:
        """The examples of "train", "val" or "test". Raises BadArgument for another name, or where there are none."""
        return self.take(np.flatnonzero(self.part == self._index(name)))

    def take(self, index: Any) -> GroupData[Pixels, Mask]:
        """The rows that an index array, mask or slice selects, in its order; files stay unread."""
        rows = np.arange(len(self))[index]
        if rows.ndim != 1:
            raise BadArgument("index", "select rows: a slice, mask or array of ints", index)
        x = self.x.take(rows) if isinstance(self.x, ImageFiles) else self.x[rows]
        return dataclasses.replace(
            self,
            x=x,
            y=self.y[rows],
            attribute=self.attribute[rows],
            group=self.group[rows],
            part=self.part[rows],
            mask=None if self.mask is None else self.mask[rows],
            table={key: column[rows] for key, column in self.table.items()},
        )

    def counts(self) -> dict[Split, np.ndarray]:
        """The number of examples of each group in each split: {split: [G] int}."""
        size = len(self.groups)
        return {name: np.bincount(self.group[self.part == k], minlength=size) for k, name in enumerate(SPLITS)}

    def describe(self) -> str:
        """The counts as a table, a line per group."""
        counts = self.counts()
        width = max(map(len, (*self.groups, "all")))
        lines = [f"{'group':{width}}" + "".join(f"{name:>8}" for name in counts)]
        for g, name in enumerate(self.groups):
            lines.append(f"{name:{width}}" + "".join(f"{row[g]:8d}" for row in counts.values()))
        return "\n".join([*lines, f"{'all':{width}}" + "".join(f"{row.sum():8d}" for row in counts.values())])

    def require_groups(self, split: Split = "train") -> None:
        """Raise BadArgument unless ``split`` holds two classes and every group that any split has."""
        rows = self.part == self._index(split)
        if len(present := np.unique(self.y[rows])) < 2:
            only = ", ".join(self.classes[k] for k in present) or "no example"
            raise BadArgument(split, "hold at least two classes", Words(f"only of {only}"))
        if len(absent := np.setdiff1d(self.group, self.group[rows])):
            names = ", ".join(repr(self.groups[g]) for g in absent)
            raise BadArgument(split, "hold an example of each group", Words(f"without {names}"))

    def subset(
        self, count: int, split: Split = "train", *, seed: int = 0, equal: bool = False
    ) -> GroupData[Pixels, Mask]:
        """``count`` examples of ``split``, drawn by group, and all examples of the other splits, in their order.

        Groups keep their shares (by largest remainders, so that no group vanishes); with ``equal`` they get one size as
        far as they reach.

        Raises:
          BadArgument: ``count`` is below the number of groups or above the number of examples.
        """
        rows = np.flatnonzero(self.part == self._index(split))
        members = [rows[self.group[rows] == g] for g in range(len(self.groups))]
        sizes = np.array([len(one) for one in members])
        least = np.count_nonzero(sizes)
        if not least <= count <= len(rows):
            wanted = f"be from {least}, the groups of {split}, to {len(rows)}, its examples"
            raise BadArgument("count", wanted, count)
        shares = equal_shares(count, sizes) if equal else proportional_shares(count, sizes)
        rng = np.random.default_rng(check_seed("seed", seed))
        drawn = [rng.permutation(one)[:share] for one, share in zip(members, shares, strict=True)]
        others = np.flatnonzero(self.part != self._index(split))
        return self.take(np.sort(np.concatenate([others, *drawn])))

    def images(self, index: Any = slice(None), bounds: Bounds = Bounds()) -> np.ndarray:  # noqa: B008 -- a tuple
        """float32 [n, H, W, C] of some rows, mapped onto ``bounds``: from 0 … 255 where uint8, else from [0, 1]."""
        pixels = np.asarray(self.x[np.arange(len(self))[index].reshape(-1)])
        if pixels.dtype == np.uint8:
            return to_range(pixels, bounds)
        lower, upper = (np.asarray(side, np.float32) for side in bounds)
        return lower + (upper - lower) * to_range(pixels, Bounds())

    def decode(self, skip_bad: bool = False) -> GroupData[np.ndarray, Mask]:
        """The same with all files read into one array.

        Args:
          skip_bad: leave out the rows whose file cannot be decoded and list them in ``skipped``, instead of raising.

        Raises:
          BadArgument: a file cannot be decoded, or none can; or sizes differ.
        """
        if not isinstance(self.x, ImageFiles):
            return cast(GroupData[np.ndarray, Mask], self)
        pixels, kept, bad = self.x.read(np.arange(len(self)), skip_bad)
        if not len(kept):
            raise BadArgument(self.name, "hold an image that can be read", hint=bad[0])
        made: Any = dataclasses.replace(self.take(kept), x=pixels, skipped=(*self.skipped, *bad))
        return made

    def _index(self, name: Split) -> int:
        k = SPLITS.index(check_choice("split", name, SPLITS))
        if not np.any(self.part == k):
            raise BadArgument("split", f"be one of which {self.name} has examples", name)
        return k


@explained
def group_data(
    name: str,
    x: np.ndarray | ImageFiles,
    y: Any,
    attribute: Any,
    part: Any,
    classes: Sequence[str],
    attributes: Sequence[str],
    *,
    group: Any = None,
    groups: Sequence[str] | None = None,
    mask: np.ndarray | None = None,
    table: Mapping[str, Any] | None = None,
    skipped: Sequence[str] = (),
) -> GroupData:
    """A checked :class:`GroupData`; ``group`` and its names follow (1) where they are not given.

    Args:
      x: [N, H, W, C] (or [N, ...]) uint8, or floats in [0, 1]; or ImageFiles.
      y, attribute, part: [N] integers: class, attribute, index into ``SPLITS``.

    Raises:
      BadArgument: lengths, kinds or ranges do not fit.
    """
    count = len(x)
    if count < 1:
        raise BadArgument("x", "hold at least one example", hint=f"{name} has none")
    classes, attributes = as_names(classes, "classes"), as_names(attributes, "attributes")
    checked = {
        key: check_indices(key, values, count, len(names), what=what, of=name, strict=True)
        for key, what, values, names in (
            ("y", "classes", y, classes),
            ("attribute", "attributes", attribute, attributes),
            ("part", "splits", part, SPLITS),
        )
    }
    if group is None:
        group = checked["attribute"] + len(attributes) * checked["y"]
        groups = [f"{one} on {other}" for one in classes for other in attributes]
    checked["group"] = check_indices("group", group, count, len(groups or ()), what="groups", of=name, strict=True)
    if isinstance(x, np.ndarray) and not are_pixels(x.dtype):
        if not (x.min() >= 0 and x.max() <= 1):
            raise BadArgument("x", "lie in [0, 1]", in_range(x), hint="give pixels 0 ... 255 as uint8")
        x = x.astype(np.float32, copy=False)
    if mask is not None and (mask.dtype != bool or mask.shape != tuple(x.shape[:3])):
        raise BadArgument(
            "mask", f"be bool of shape {tuple(x.shape[:3])}", Words(f"{mask.dtype} of shape {mask.shape}")
        )
    further = {key: np.asarray(column) for key, column in (table or {}).items()}
    for key, column in further.items():
        if len(column) != count:
            raise BadArgument(f"table[{key!r}]", f"be {count} rows long", len(column))
    return GroupData(
        name,
        x,
        **checked,
        classes=classes,
        attributes=attributes,
        groups=as_names(groups or (), "groups"),
        mask=mask,
        table=further,
        skipped=tuple(skipped),
    )


def proportional_shares(total: int, weights: Any) -> np.ndarray:
    """[G] int with sum ``total``, in proportion to the nonnegative weights, by largest remainders.

    Where the total allows, no positive weight gets 0: such a group takes one from the largest.
    """
    weights = np.asarray(weights, np.float64)
    exact = total * weights / weights.sum()
    shares = np.floor(exact).astype(int)
    shares[np.argsort(shares - exact, kind="stable")[: total - shares.sum()]] += 1
    for g in np.flatnonzero((weights > 0) & (shares == 0)):
        if shares.max() > 1:
            shares[shares.argmax()] -= 1
            shares[g] = 1
    return shares


def equal_shares(total: int, sizes: Any) -> np.ndarray:
    """[G] int with sum ``min(total, sum sizes)``: as equal as they can be while none exceeds its size."""
    sizes = np.asarray(sizes, int)
    shares = np.zeros_like(sizes)
    for done, g in enumerate(np.argsort(sizes, kind="stable")):  # the smallest first: the others get what it lacks
        shares[g] = min(sizes[g], (total - shares.sum()) // (len(sizes) - done))
    return shares
