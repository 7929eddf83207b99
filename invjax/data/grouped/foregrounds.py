"""Two classes of small objects without a background: grey pictures that are 0 outside the object.

fashion       tops (0 T-shirt, 2 pullover, 4 coat, 6 shirt) against footwear (5 sandal, 7 sneaker, 9 boot)
digits        0 ... 4 against 5 ... 9
silhouettes   birds drawn here of ellipses and strokes: a round one on legs against a long-necked swimmer
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal, NamedTuple, get_args

import numpy as np

from invjax.core.errors import check_choice, check_seed
from invjax.data.images.fashion_mnist import fashion_folder, missing, read_idx
from invjax.data.images.mnist import mnist_digits

Foreground = Literal["auto", "fashion", "digits", "silhouettes"]
_SIDE = 28
_FASHION = ((0, 2, 4, 6), (5, 7, 9))
_DIGITS = ((0, 1, 2, 3, 4), (5, 6, 7, 8, 9))
_SILHOUETTES = 1500  # of each class


class Foregrounds(NamedTuple):
    """Objects of two classes."""

    kind: str  # "fashion", "digits" or "silhouettes"
    objects: tuple[np.ndarray, np.ndarray]  # of class 0 and 1: [M, 28, 28] uint8, 0 outside


def foregrounds(kind: Foreground = "auto", fashion: str | Path | None = None, seed: int = 0) -> Foregrounds:
    """The objects of one kind; "auto" takes the first that is there (the silhouettes always are).

    Args:
      fashion: the folder of Fashion-MNIST's idx files (``train-images-idx3-ubyte.gz`` …); by default
        ``INVJAX_DATA/fashion-mnist``, then where Debian's package ``dataset-fashion-mnist`` puts them.
      seed: of the silhouettes.

    Raises:
      BadArgument: another kind, or no Fashion-MNIST where it was asked for.
      ImportError: no digits (extra ``demo``).
    """
    check_choice("foreground", kind, get_args(Foreground))
    if kind in ("auto", "fashion"):
        folder = fashion_folder(fashion)
        if folder is not None:
            images, labels = (read_idx(folder / f"train-{part}-ubyte.gz") for part in ("images-idx3", "labels-idx1"))
            return Foregrounds("fashion", _by_class(images, labels, _FASHION))
        if kind == "fashion" or fashion is not None:
            raise missing(fashion)
    if kind in ("auto", "digits"):
        try:
            data = mnist_digits()
        except ImportError:
            if kind == "digits":
                raise
        else:
            assert data.labels is not None
            grey = np.round(255 * data.images[..., 0]).astype(np.uint8)
            return Foregrounds("digits", _by_class(grey, data.labels, _DIGITS))
    rng = np.random.default_rng([check_seed("seed", seed), 1])
    return Foregrounds("silhouettes", (_birds(_SILHOUETTES, False, rng), _birds(_SILHOUETTES, True, rng)))


def _by_class(images: np.ndarray, labels: np.ndarray, lists: tuple[tuple[int, ...], tuple[int, ...]]):
    first, second = (images[np.isin(labels, one)] for one in lists)
    return first, second


def _birds(count: int, swims: bool, rng: np.random.Generator) -> np.ndarray:
    """[count, 28, 28] uint8 silhouettes with soft edges, shaded from back to belly, looking left or right.

    A union of ellipses (body, head, tail) and strokes (neck, beak, legs), each by its distance in pixels.
    """
    axis = np.arange(_SIDE, dtype=np.float32) - (_SIDE - 1) / 2
    v, u = np.meshgrid(axis, axis, indexing="ij")  # down, right
    u, v = u[None], v[None]

    def draw(low: float, high: float) -> np.ndarray:
        return rng.uniform(low, high, (count, 1, 1)).astype(np.float32)

    def ellipse(cu, cv, a, b, turn):
        du, dv = u - cu, v - cv
        p, q = du * np.cos(turn) + dv * np.sin(turn), dv * np.cos(turn) - du * np.sin(turn)
        return (1 - np.sqrt((p / a) ** 2 + (q / b) ** 2 + 1e-9)) * np.minimum(a, b)  # about the depth inside

    def stroke(au, av, bu, bv, width):
        du, dv = bu - au, bv - av
        t = np.clip(((u - au) * du + (v - av) * dv) / (du**2 + dv**2 + 1e-9), 0, 1)
        return width / 2 - np.sqrt((u - au - t * du) ** 2 + (v - av - t * dv) ** 2)

    if swims:
        a, b, cv = draw(7.0, 9.5), draw(3.2, 4.4), draw(3.0, 5.5)
        hu, hv, r = -a * draw(0.7, 1.0), cv - draw(9.0, 12.0), draw(1.6, 2.2)
        parts = [
            ellipse(0, cv, a, b, draw(-0.1, 0.1)),
            ellipse(hu, hv, r * 1.2, r, 0),
            stroke(-0.6 * a, cv, hu, hv, 2.4),
        ]
        parts += [
            stroke(hu, hv, hu - draw(3.0, 5.0), hv + draw(0.0, 1.0), 1.5),
            stroke(0.7 * a, cv, a + 2, cv - b, 2.5),
        ]
    else:
        a, b, cv = draw(5.0, 7.0), draw(4.2, 5.6), draw(-1.5, 1.0)
        hu, hv, r = -a * draw(0.7, 0.95), cv - b * draw(0.7, 1.0), draw(2.3, 3.2)
        parts = [
            ellipse(0, cv, a, b, draw(0.1, 0.4)),
            ellipse(hu, hv, r, r, 0),
            stroke(0.6 * a, cv, a + draw(3, 5), cv + 3, 3),
        ]
        parts += [stroke(hu, hv, hu - r - draw(1.0, 2.5), hv, 1.6)]
        foot = cv + b + draw(3.0, 5.0)
        parts += [stroke(side * a, cv + 0.6 * b, side * a + draw(-1, 1), foot, 1.3) for side in (-0.2, 0.2)]
    depth = np.max([np.broadcast_to(part, (count, _SIDE, _SIDE)) for part in parts], axis=0)
    shade = (
        1 - 0.35 * np.clip((v - cv + b) / (2 * b), 0, 1) + 0.08 * rng.standard_normal((count, _SIDE, _SIDE), np.float32)
    )
    grey = np.clip(depth + 0.5, 0, 1) * np.clip(shade, 0.3, 1)
    grey = np.where(rng.random((count, 1, 1)) < 0.5, grey[..., ::-1], grey)
    return np.round(255 * grey).astype(np.uint8)
