"""Tables, in raw units and encoded: the container (``table``), CSV files (``csv_file``) and known sets (``load``)."""

from invjax.data.tables.csv_file import load_csv
from invjax.data.tables.load import load_tabular, tabular_names
from invjax.data.tables.table import TabularData

__all__ = ["TabularData", "load_csv", "load_tabular", "tabular_names"]
