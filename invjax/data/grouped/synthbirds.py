"""synthbirds: WaterBirds' protocol without its images, built in seconds from installed pieces, with exact masks.

    x = α ∘ colour + (1 − α) ∘ b,      b = m + c (crop − m)                                                         (1)

A small object of class y lies somewhere before a crop of land or water (the attribute); ``scale`` is its size. α in
[0, 1] is the opacity of the object, and the mask is exactly α > 0: elsewhere the image is its background. m is the mean
grey of all backgrounds. A smaller ``contrast`` c weakens the spurious feature; 0 leaves one flat grey. Training has the
group counts of WaterBirds, scaled; val and test are balanced. Objects (:mod:`~invjax.data.grouped.foregrounds`) and
tiles of background (:mod:`~invjax.data.grouped.backgrounds`) are disjoint between the splits.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from invjax.core.errors import BadArgument, check, check_seed
from invjax.data.grouped.backgrounds import FAMILIES, Background, backgrounds, crop, resize
from invjax.data.grouped.foregrounds import Foreground, Foregrounds, foregrounds
from invjax.data.grouped.group_data import SPLITS, GroupData, group_data, proportional_shares

_WATERBIRDS_TRAIN = (3498, 184, 56, 1057)  # by group 2 y + place
CLASSES = {
    "fashion": ("top", "footwear"),
    "digits": ("digit 0-4", "digit 5-9"),
    "silhouettes": ("landbird", "waterbird"),
}
_GREY = 128.0  # m of (1)
_OPAQUE = 0.12  # the grey of an object from which on it is opaque


def synthbirds(
    count: int = 2400,
    *,
    size: int = 40,
    held_out: int = 100,
    contrast: float = 0.2,
    scale: float = 0.8,
    foreground: Foreground = "auto",
    background: Background = "auto",
    fashion: str | Path | None = None,
    seed: int = 0,
) -> GroupData[np.ndarray, np.ndarray]:
    """The set as uint8 images [N, size, size, 3] with the object as mask, and WaterBirds' columns as ``table``.

    Args:
      count: training images, in the proportions of WaterBirds' 3498/184/56/1057; no group is empty.
      size: of an image in pixels, 16 to 128; 32 to 48 suits the objects.
      held_out: images of each group in val, and again in test.
      contrast: c of (1), in [0, 1]: how strong the background is. By default a small convolutional network, trained on
        the set as it is, gets a third to a half of the worst group right; at 1, as photographed, next to none of it.
      scale: side of the object by that of the image, in (0, 1], within ±15 % by chance: how visible the object is.
      foreground: "fashion", "digits", "silhouettes", or "auto" for the first that is installed.
      background: "photos", "textures", "procedural", or "auto" for photos, else procedural.
      fashion: the folder of Fashion-MNIST, where it is not in its usual place.
      seed: draws everything. The same seed gives the same objects, places and crops whatever the contrast.

    Raises:
      BadArgument: an argument is out of its range. ImportError: a package that was asked for is missing.
    """
    limits = (("size", size, 16, 128), ("count", count, 4, 10**6), ("held_out", held_out, 1, 10**5))
    for name, value, least, most in limits:
        if not least <= value <= most:
            raise BadArgument(name, f"be from {least} to {most}", value)
    check("contrast", contrast, lambda strength: 0 <= strength <= 1, "in [0, 1]")
    check("scale", scale, lambda share: 0 < share <= 1, "in (0, 1]")
    things, places = foregrounds(foreground, fashion, seed), backgrounds(background, seed)
    rng = np.random.default_rng(check_seed("seed", seed))
    counts = np.stack([proportional_shares(count, _WATERBIRDS_TRAIN), *[np.full(4, held_out)] * 2])  # [split, group]
    part, group = (np.repeat(index.reshape(-1), counts.reshape(-1)) for index in np.indices(counts.shape))
    y, place = group // 2, group % 2
    chosen = _objects(things, y, part, rng)

    images = np.empty((len(y), size, size, 3), np.uint8)
    mask = np.empty((len(y), size, size), bool)
    taken = []
    for n in range(len(y)):
        own = np.random.default_rng([seed, 3, n])  # its own, so that one image's draws move no other
        behind, where = crop(places.tiles[place[n]][part[n]], size, own)
        thing = things.objects[y[n]][chosen[n]]
        if things.kind != "digits" and own.random() < 0.5:  # a mirrored digit is no digit
            thing = thing[:, ::-1]
        images[n], mask[n] = _composite(thing, _GREY + contrast * (behind - _GREY), scale, own)
        taken.append(where)
    number = np.arange(len(y))
    table = {
        "img_id": number + 1,
        "img_filename": np.array([f"{SPLITS[part[n]]}/{n:06d}.png" for n in number]),
        "y": y,
        "split": part,
        "place": place,
        "place_filename": np.array(taken),
        "object": chosen,
    }
    name = f"synthbirds/{things.kind}-{places.kind}"
    return group_data(name, images, y, place, part, CLASSES[things.kind], FAMILIES, mask=mask, table=table)


def _objects(things: Foregrounds, y: np.ndarray, part: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """[N] which object of its class each image shows: each split has its own, repeated only when they run out."""
    chosen = np.zeros(len(y), np.int64)
    for k in (0, 1):
        members = [np.flatnonzero((y == k) & (part == split)) for split in range(3)]
        pool = rng.permutation(len(things.objects[k]))
        ends = np.cumsum(proportional_shares(len(pool), list(map(len, members))))[:2]
        for rows, own in zip(members, np.split(pool, ends), strict=True):
            chosen[rng.permutation(rows)] = np.resize(own, len(rows))
    return chosen


def _composite(
    thing: np.ndarray, behind: np.ndarray, scale: float, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """(image [S, S, 3] uint8, mask [S, S]) by (1): the object cut to its outline, resized, tinted, put anywhere."""
    rows, columns = (np.flatnonzero(thing.any(axis)) for axis in (1, 0))
    cut = thing[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1] / 255.0
    size, factor = len(behind), scale * rng.uniform(0.85, 1.15) / max(cut.shape)
    height, width = (min(size, max(2, round(size * factor * side))) for side in cut.shape)
    grey = np.clip(resize(cut, height, width), 0, 1)
    tint = rng.uniform(0.45, 1.0, 3)
    i, j = int(rng.integers(size - height + 1)), int(rng.integers(size - width + 1))
    alpha = np.where(grey < 0.02, 0.0, np.minimum(1, grey / _OPAQUE))[..., None]
    image = behind.copy()
    window = image[i : i + height, j : j + width]
    window[:] = alpha * 255 * tint * (0.35 + 0.65 * grey[..., None]) + (1 - alpha) * window
    mask = np.zeros((size, size), bool)
    mask[i : i + height, j : j + width] = alpha[..., 0] > 0
    return np.round(np.clip(image, 0, 255)).astype(np.uint8), mask
