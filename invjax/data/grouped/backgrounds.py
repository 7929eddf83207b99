"""Two families of backgrounds, land and water, whose crops are disjoint between train, val and test.

Scenes are cut into tiles. A tile belongs to one split, and a crop never leaves its tile:

photos       scikit-learn's china.jpg (lake and sky: water; shrubs: land) and flower.jpg (leaves: land)
textures     photos and scikit-image's grass, gravel and brick (grey, tinted: land) and the sky of rocket (water)
procedural   smooth noise, upright in green and brown against level waves in blue; needs no file
"""

from __future__ import annotations

from functools import lru_cache
from typing import Literal, NamedTuple, get_args

import numpy as np

from invjax.core.errors import check_choice, check_seed

Background = Literal["auto", "photos", "textures", "procedural"]
FAMILIES = ("land", "water")
TILE = 40  # pixels
CROP = (24, 40)  # least and greatest side of a crop
_SHARES = (0.6, 0.2, 0.2)  # of a scene's tiles, for train, val, test
_PROCEDURAL = 60  # tiles of each family
# family, file, package, then (rows, columns) of the rectangles that show the scene, and the tint of a grey picture
_SCENES = (
    (0, "flower.jpg", "sklearn", (((0, 427), (0, 160)), ((0, 427), (450, 640))), None),  # leaves
    (0, "china.jpg", "sklearn", (((347, 427), (0, 150)), ((347, 427), (350, 550))), None),  # shrubs
    (1, "china.jpg", "sklearn", (((0, 190), (320, 640)),), None),  # sky
    (1, "china.jpg", "sklearn", (((220, 300), (340, 540)),), None),  # lake
    (0, "grass.png", "skimage", (((0, 512), (0, 512)),), (0.55, 0.75, 0.35)),
    (0, "gravel.png", "skimage", (((0, 512), (0, 512)),), (0.75, 0.6, 0.45)),
    (0, "brick.png", "skimage", (((0, 512), (0, 512)),), (0.8, 0.55, 0.4)),
    (1, "rocket.jpg", "skimage", (((0, 300), (40, 270)), ((0, 300), (370, 560))), None),  # evening sky
)

Tile = tuple[np.ndarray, str]  # [T, T, 3] uint8, and where it is from


class Backgrounds(NamedTuple):
    """Tiles by family, split and scene."""

    kind: str  # "photos", "textures" or "procedural"
    tiles: tuple[tuple[list[list[Tile]], ...], ...]  # [family][split][scene][tile]


def backgrounds(kind: Background = "auto", seed: int = 0) -> Backgrounds:
    """The tiles of one kind; "auto" is "photos", or "procedural" where scikit-learn is missing.

    Raises:
      BadArgument: another kind. ImportError: the package that brings the pictures is missing (extra ``data``).
    """
    check_choice("background", kind, get_args(Background))
    rng = np.random.default_rng([check_seed("seed", seed), 2])
    if kind != "procedural":
        try:
            scenes = _photographs(("sklearn", "skimage") if kind == "textures" else ("sklearn",))
        except ImportError:
            if kind != "auto":
                raise
        else:
            return Backgrounds("textures" if kind == "textures" else "photos", _dealt(scenes, rng))
    return Backgrounds("procedural", _dealt([(family, _noise(family, rng)) for family in (0, 1)], rng))


def crop(scenes: list[list[Tile]], side: int, rng: np.random.Generator) -> tuple[np.ndarray, str]:
    """A crop of a tile of a scene (all three drawn at random), mirrored or not, and resized.

    Returns float64 [side, side, 3] in 0 ... 255, and where it was taken: "file@row,column+row in the tile,column,side".
    """
    tiles = scenes[int(rng.integers(len(scenes)))]
    picture, place = tiles[int(rng.integers(len(tiles)))]
    cut = int(rng.integers(CROP[0], CROP[1] + 1))
    i, j = (int(k) for k in rng.integers(0, len(picture) - cut + 1, 2))
    taken = picture[i : i + cut, j : j + cut].astype(np.float64)
    taken = taken[:, ::-1] if rng.random() < 0.5 else taken
    return resize(taken, side, side), f"{place}+{i},{j},{cut}"


def resize(picture: np.ndarray, height: int, width: int) -> np.ndarray:
    """Bilinear in both directions, [h, w, ...] -> [height, width, ...], with pixel centers at half integers.

    A smaller result averages over the pixels that it covers (a triangle as wide as the reduction).
    """
    for axis, length in ((0, height), (1, width)):
        picture = np.moveaxis(np.tensordot(_weights(picture.shape[axis], length), picture, (1, axis)), 0, axis)
    return picture


@lru_cache(maxsize=256)
def _weights(old: int, new: int) -> np.ndarray:
    """[new, old], rows of sum 1."""
    reach = max(1.0, old / new)
    center = (np.arange(new) + 0.5) * old / new - 0.5
    weights = np.maximum(0, 1 - np.abs(np.arange(old) - center[:, None]) / reach)
    return weights / weights.sum(1, keepdims=True)


def _dealt(scenes: list[tuple[int, list[Tile]]], rng: np.random.Generator) -> tuple[tuple[list[list[Tile]], ...], ...]:
    """The tiles of each scene dealt out to train, val and test, so that every split has every scene."""
    dealt: tuple[tuple[list[list[Tile]], ...], ...] = tuple(([], [], []) for _ in FAMILIES)
    for family, tiles in scenes:
        order = rng.permutation(len(tiles))
        ends = np.round(np.cumsum(_SHARES)[:2] * len(tiles)).astype(int)
        for split, part in enumerate(np.split(order, ends)):
            dealt[family][split].append([tiles[k] for k in part])
    return dealt


def _photographs(packages: tuple[str, ...]) -> list[tuple[int, list[Tile]]]:
    scenes = []
    for family, file, package, rectangles, tint in _SCENES:
        if package not in packages:
            continue
        picture = _picture(file, package)
        if tint is not None:
            picture = np.round(picture[..., None] * np.array(tint)).astype(np.uint8)
        corners = [
            (i, j)
            for rows, columns in rectangles
            for i in range(rows[0], rows[1] - TILE + 1, TILE)
            for j in range(columns[0], columns[1] - TILE + 1, TILE)
        ]
        scenes.append((family, [(picture[i : i + TILE, j : j + TILE], f"{file}@{i},{j}") for i, j in corners]))
    return scenes


def _picture(file: str, package: str) -> np.ndarray:
    try:
        if package == "sklearn":
            from sklearn.datasets import load_sample_image

            return load_sample_image(file)  # needs pillow
        from skimage import data

        return getattr(data, file.partition(".")[0])()
    except ImportError as error:
        extra = "" if package == "sklearn" else " scikit-image"
        raise ImportError(f"the backgrounds need {file}: pip install 'invjax[data]'{extra}") from error


def _noise(family: int, rng: np.random.Generator) -> list[Tile]:
    """Tiles of noise with the spectrum 1/f, stretched: upright blades of green and brown, or level blue waves."""
    f = np.fft.fftfreq(TILE)
    up, across = np.meshgrid(f, f, indexing="ij")
    stretch = (3.0, 1.0) if family == 0 else (1.0, 4.0)
    spectrum = 1 / (0.02 + np.hypot(stretch[0] * up, stretch[1] * across))
    spectrum[0, 0] = 0
    dark, light = (((40, 55, 20), (150, 140, 80)), ((30, 70, 120), (170, 205, 225)))[family]
    tiles = []
    for k in range(_PROCEDURAL):
        field = np.fft.ifft2(np.fft.fft2(rng.standard_normal((TILE, TILE))) * spectrum).real
        t = 1 / (1 + np.exp(-1.5 * field / field.std()))[..., None]
        tint = rng.normal(0, 8, 3)
        drawn = np.clip(np.array(dark) * (1 - t) + np.array(light) * t + tint, 0, 255)
        tiles.append((drawn.astype(np.uint8), f"procedural {FAMILIES[family]} {k}@0,0"))
    return tiles
