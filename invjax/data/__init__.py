"""Data to work on: pictures (files, TensorFlow Datasets, the digits of the demo) and tables (known ones, a CSV file).

Pictures come as :class:`ImageData`, float32 in the data range, channel last; tables as :class:`TabularData`, raw units
beside the encoded rows and what may change in them. Nothing here downloads anything.
"""

from invjax.data.images import ImageData, ImageSource, data_folder, load_images, open_images
from invjax.data.mnist import mnist_digits
from invjax.data.tabular import TabularData, load_tabular, tabular_names
from invjax.data.tabular_csv import load_csv

__all__ = [
    "ImageData",
    "ImageSource",
    "TabularData",
    "data_folder",
    "load_csv",
    "load_images",
    "load_tabular",
    "mnist_digits",
    "open_images",
    "tabular_names",
]
