"""Arrays as pixels to look at: images, signed perturbations, supports. NumPy only.

Unchanged pixels of a perturbation are transparent, so that a picture can be read on a light and on a dark page.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from invjax.core.errors import BadArgument, check_entries, of_shape
from invjax.core.images import from_pixels
from invjax.core.meant import explained
from invjax.viz.palette import LOWERED, RAISED, SUPPORT


@explained
def picture_pixels(x: Any, bounds: tuple[Any, Any] = (0.0, 1.0)) -> np.ndarray:
    """An image as RGB. [H, W, C] in the data range -> [H, W, 3] uint8; unless C is 3 the mean is shown in grey.

    Pixels of uint8 are 0 … 255, whatever the bounds. Floats outside the bounds are clipped for display, and NaN shows
    as the lower bound. Other whole numbers must lie in the bounds.
    """
    lower, upper = (np.asarray(bound, np.float64) for bound in bounds)
    if not np.all(lower < upper):
        raise BadArgument("bounds", "be (lower, upper) with lower < upper", bounds)
    image = in_range(_one_image(x, "x"), bounds).astype(np.float64)
    unit = np.clip(np.nan_to_num((image - lower) / (upper - lower), nan=0.0), 0.0, 1.0)
    if unit.shape[-1] != 3:
        unit = np.repeat(unit.mean(axis=-1, keepdims=True), 3, axis=-1)
    return np.round(255 * unit).astype(np.uint8)


def in_range(x: np.ndarray, bounds: tuple[Any, Any], name: str = "x") -> np.ndarray:
    """Images of any shape in the data range: pixels of uint8 mapped onto the bounds, all else as it is.

    Raises BadArgument about whole numbers of another type beyond the bounds: nobody can know what they are.
    """
    if x.dtype == np.uint8:
        return from_pixels(x, *bounds)
    if x.dtype.kind in "iu":
        beyond = (x < bounds[0]) | (x > bounds[1])
        check_entries(name, x, beyond, f"lie in the bounds {bounds} where it is neither uint8 nor floats")
    return x


@explained
def perturbation_pixels(delta: Any, scale: float | None = None) -> np.ndarray:
    """A signed perturbation as RGBA, transparent where nothing changes. [H, W, C] -> [H, W, 4] uint8.

    One channel is orange where the value rises and a darker blue where it falls, more opaque for a larger change but
    never so faint that a changed pixel could be missed. Three channels show ``1/2 + delta / (2 scale)`` each, so that
    grey means no change of that channel. Any other number of channels shows the largest change of each pixel like one
    channel.

    Args:
        delta: the perturbation.
        scale: the change drawn at full strength. The default is the largest of this perturbation; give a scale to make
            pictures of different perturbations comparable.
    """
    r = np.nan_to_num(_one_image(delta, "delta").astype(np.float64))
    if scale is None:
        scale = float(np.abs(r).max(initial=0.0))
    share = np.clip(r / scale, -1.0, 1.0) if scale > 0 else np.zeros_like(r)
    changed = np.any(r != 0, axis=-1)
    out = np.zeros((*r.shape[:2], 4), np.uint8)
    if r.shape[-1] == 3:
        out[..., :3] = np.round(255 * (0.5 + 0.5 * share))
        out[..., 3] = 255 * changed
    else:
        strongest = np.take_along_axis(share, np.abs(share).argmax(axis=-1)[..., None], axis=-1)[..., 0]
        out[..., :3] = np.where((strongest > 0)[..., None], RAISED, LOWERED)
        out[..., 3] = np.where(changed, np.round(100 + 155 * np.abs(strongest)), 0)
    return out


@explained
def support_pixels(delta: Any) -> np.ndarray:
    """The changed pixels in one colour as RGBA, transparent elsewhere. [H, W, C] -> [H, W, 4] uint8."""
    r = _one_image(delta, "delta")
    out = np.zeros((*r.shape[:2], 4), np.uint8)
    out[..., :3] = SUPPORT
    out[..., 3] = 255 * np.any(r != 0, axis=-1)
    return out


def _one_image(array: Any, name: str) -> np.ndarray:
    image = np.asarray(array)
    if image.ndim != 3:
        raise BadArgument(name, "be one image [H, W, C]", of_shape(image.shape))
    return image
