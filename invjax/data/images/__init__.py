"""Pictures: containers and pixels (``source``), loaders (``load``, ``files``, ``tfds``), and two known sets.

The sets are :mod:`~invjax.data.images.mnist` and :mod:`~invjax.data.images.fashion_mnist`.
"""

from invjax.data.images.files import ImageFiles, Store
from invjax.data.images.load import load_images, open_images
from invjax.data.images.mnist import mnist_digits
from invjax.data.images.source import ImageData, ImageSource

__all__ = ["ImageData", "ImageFiles", "ImageSource", "Store", "load_images", "mnist_digits", "open_images"]
