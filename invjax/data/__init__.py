"""Pictures to work on: files, TensorFlow Datasets, and the digits of the demo.

Everything comes as :class:`ImageData`: float32 in the data range, channel last. Nothing here downloads anything.
"""

from invjax.data.images import ImageData, ImageSource, data_folder, load_images, open_images
from invjax.data.mnist import mnist_digits

__all__ = ["ImageData", "ImageSource", "data_folder", "load_images", "mnist_digits", "open_images"]
