"""Images with a class and an attribute that goes with it by accident: the container (``group_data``) and known sets."""

from invjax.data.grouped.group_data import GroupData
from invjax.data.grouped.load import group_names, load_groups

__all__ = ["GroupData", "group_names", "load_groups"]
