"""Data to work on: pictures (files, TensorFlow Datasets, the digits of the demo) and tables (known ones, a CSV file).

Pictures come as :class:`ImageData`, float32 in the data range, channel last. Tables come as :class:`TabularData`: raw
units, the encoded rows, and what may change in them. Images with a class and an attribute that goes with it by accident
come as :class:`GroupData`. Nothing here downloads anything.
"""

from invjax.core.meant import suggest_names
from invjax.data.folder import data_folder
from invjax.data.grouped.group_data import GroupData, group_data
from invjax.data.grouped.load import group_names, load_groups
from invjax.data.images.load import load_images, open_images
from invjax.data.images.mnist import mnist_digits
from invjax.data.images.source import ImageData, ImageSource
from invjax.data.tables.csv_file import load_csv
from invjax.data.tables.load import load_tabular, tabular_names
from invjax.data.tables.table import TabularData, from_space

__all__ = [
    "GroupData",
    "ImageData",
    "ImageSource",
    "TabularData",
    "data_folder",
    "from_space",
    "group_data",
    "group_names",
    "load_csv",
    "load_groups",
    "load_images",
    "load_tabular",
    "mnist_digits",
    "open_images",
    "tabular_names",
]

suggest_names(__name__)
