"""Position embeddings of a ViT on another grid, as the source of the weights would have resized them.

    P' = R P Cᵀ,        P [h, w, D] on the old grid,   R [h', h] and C [w', w] one-dimensional interpolations       (1)

The libraries differ in the kernel, in how pixels of the two grids are laid over each other, and in whether a kernel
widens where the grid shrinks. With x the place of new pixel i on the old grid and s = old / new,

    half     x = s (i + ½) − ½                 torch, align_corners=False
    corners  x = i (old − 1) / (new − 1)       torch, align_corners=True; scipy.ndimage.zoom
    offset   half with s = old / (new + 0.1)   the first DINOv2                                                     (2)

Cubic convolution has the parameter a = −0.75 in torch, and −0.5 where torch smooths (antialias=True, as PIL does).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal

import numpy as np

Resize = Literal["bicubic", "bicubic_corners", "bicubic_offset", "bicubic_antialias", "bilinear_corners"]
OFFSET = 0.1


def resize_positions(positions: np.ndarray, old: tuple[int, int], new: tuple[int, int], how: Resize) -> np.ndarray:
    """Equation (1) for [1, h·w, D] -> [1, h'·w', D], in the dtype of ``positions``."""
    if old == new:
        return positions
    rows, columns = (resize_matrix(o, n, how) for o, n in zip(old, new, strict=True))
    plane = positions.astype(np.float64).reshape(*old, -1)
    resized = np.einsum("ih,jw,hwd->ijd", rows, columns, plane, optimize=True)
    return resized.reshape(1, new[0] * new[1], -1).astype(positions.dtype)


def resize_matrix(old: int, new: int, how: Resize) -> np.ndarray:
    """R of (1), [new, old]; each row sums to 1."""
    if how == "bicubic_antialias":
        return _smooth(old, new)
    index = np.arange(new)
    if how.endswith("corners"):
        place = index * ((old - 1) / (new - 1) if new > 1 else 0.0)
    else:
        place = old / (new + (OFFSET if how == "bicubic_offset" else 0.0)) * (index + 0.5) - 0.5
    kernel, reach = (_linear, 1) if how.startswith("bilinear") else (_cubic(-0.75), 2)
    out, low = np.zeros((new, old)), np.floor(place).astype(int)
    for tap in range(1 - reach, 1 + reach):
        at = np.clip(low + tap, 0, old - 1)  # beyond the edge the outermost pixel is repeated
        np.add.at(out, (index, at), kernel(np.abs(place - (low + tap))))
    return out


def _smooth(old: int, new: int) -> np.ndarray:
    """Cubic, a = −0.5, as wide as s where the grid shrinks; what lies beyond the edge is left out of the mean."""
    scale = old / new
    wide = max(scale, 1.0)
    center = scale * (np.arange(new) + 0.5)
    first = np.maximum(np.floor(center - 2 * wide + 0.5), 0)[:, None]
    last = np.minimum(np.floor(center + 2 * wide + 0.5), old)[:, None]
    pixel = np.arange(old)[None]
    weights = _cubic(-0.5)(np.abs(pixel + 0.5 - center[:, None]) / wide) * ((pixel >= first) & (pixel < last))
    return weights / weights.sum(1, keepdims=True)


def _linear(t: np.ndarray) -> np.ndarray:
    return np.maximum(1 - t, 0)


def _cubic(a: float) -> Callable[[np.ndarray], np.ndarray]:
    def kernel(t: np.ndarray) -> np.ndarray:
        near = ((a + 2) * t - (a + 3)) * t * t + 1
        far = a * (((t - 5) * t + 8) * t - 4)
        return np.where(t <= 1, near, np.where(t < 2, far, 0.0))

    return kernel


def sine_positions(grid: tuple[int, int], width: int) -> np.ndarray:
    """Fixed positions [1, h·w, D]: sines and cosines of the column, then of the row, at D/4 frequencies from 1 to 1e-4.

    Source: MoCo v3 (Chen et al. 2021), as big_vision has them.
    """
    frequency = 10_000.0 ** -(np.arange(width // 4) / (width // 4 - 1))
    row, column = (axis.reshape(-1, 1) * frequency for axis in np.mgrid[: grid[0], : grid[1]])
    waves = [np.sin(column), np.cos(column), np.sin(row), np.cos(row)]
    return np.concatenate(waves, axis=1)[None].astype(np.float32)


def square(count: int) -> tuple[int, int] | None:
    """The square grid of so many patches; None where there is none."""
    side = math.isqrt(count)
    return (side, side) if side * side == count and count > 0 else None
