"""Superpixels: connected regions of like colour, as groups of coordinates that follow the image.

The labels are what ``solve(groups=…)`` takes: each image's own regions, all channels of a pixel in one group.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from invjax.core.errors import BadArgument, check_number, check_whole, of_shape


def superpixels(x: Any, segments: int = 150, compactness: float = 10.0) -> np.ndarray:
    """Superpixels of each image by SLIC (Achanta et al. 2012), as scikit-image has it.

    Each image is first brought to [0, 1] by its own least and greatest value, whatever its range and type. One or three
    channels are compared as lightness and colour (CIELAB, 0 to 100), any other number of channels as they are, times
    100. The result is deterministic and depends on the image alone.

    Args:
      x: images [N, H, W, C], or one [H, W, C]; real numbers.
      segments: about how many regions to make, in [1, H·W]. (The GSE comparison of SAPF: 150 at 32 px, 350 at 224 px.)
      compactness: weight of distance against colour, > 0.

    Returns:
      int32 labels of the shape of x. An image with S regions has the labels 0 … S − 1, each of them in use.

    Raises:
      ImportError: scikit-image is missing.
      ValueError: an argument is not as above.
    """
    images = np.asarray(x)
    if images.ndim not in (3, 4) or 0 in images.shape:
        raise BadArgument("x", "be images [N, H, W, C] or one image [H, W, C]", of_shape(images.shape))
    if images.dtype.kind not in "fiub":
        raise BadArgument("x", "be real numbers", images.dtype)
    images = images.astype(np.float64)
    if not np.isfinite(images).all():
        raise BadArgument("x", "be finite")
    height, width = images.shape[-3:-1]
    segments = check_whole("segments", segments, 1, height * width)
    compactness = check_number("compactness", compactness, lambda v: v > 0, "a number above 0")
    if images.ndim == 3:
        return _one(images, segments, compactness)
    return np.stack([_one(image, segments, compactness) for image in images])


def _one(image: np.ndarray, segments: int, compactness: float) -> np.ndarray:
    """Labels [H, W, C] int32 of one image [H, W, C]."""
    try:
        from skimage.segmentation import slic
    except ImportError as error:
        raise ImportError("superpixels needs scikit-image: pip install 'invjax[images]'") from error
    span = image.max() - image.min()
    unit = (image - image.min()) / (span if span > 0 else 1.0)
    if image.shape[-1] == 1:
        unit = np.repeat(unit, 3, axis=2)
    lab = unit.shape[-1] == 3
    # Without CIELAB the channels differ by a hundredth as much, so the weight of distance is a hundredth as large.
    weight = compactness if lab else compactness / 100
    found = slic(unit, n_segments=segments, compactness=weight, channel_axis=-1, convert2lab=lab)
    labels = np.unique(found, return_inverse=True)[1].reshape(image.shape[:2]).astype(np.int32)
    return np.repeat(labels[:, :, None], image.shape[-1], axis=2)
