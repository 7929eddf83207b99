"""What a schema that was inferred from a file cannot know, put into sentences for the person who can.

An inferred schema lets people grow younger and change their sex, and it takes another outcome of the same case (the
grade of a loan beside its default) for a cause.
"""

from __future__ import annotations

import re

import numpy as np

from invjax.constraints import Feature
from invjax.constraints.table import numbers
from invjax.data.tables.table import TabularData

_GROWS = {"age", "tenure", "seniority", "experience", "year", "years", "months", "since"}
_STAYS = {
    "sex", "gender", "race", "ethnicity", "ethnic", "nationality", "native", "foreign", "religion", "birth", "born",
    "birthday", "birthdate", "dob", "marital", "disability",
}  # fmt: skip
_BINS, _PER_BIN = 20, 10  # of the numbers of a feature; rows in each at least
_TELLS = 0.8  # share of the errors of the commonest class that a feature alone takes away


def unknowns(data: TabularData) -> list[str]:
    """One sentence for each thing to set by hand before the schema is used, the most harmful first."""
    said = []
    for feature in data.space.features:
        if right := _tells(data, feature):
            said.append(
                f"{feature.name} alone tells the class of {100 * right:.0f} % of the rows: if it is another outcome, "
                f"or becomes known only afterwards, --drop {feature.name}"
            )
    moving = [feature for feature in data.space.features if feature.direction == "both"]
    for feature in moving:
        words = set(re.findall(r"[a-z]+", re.sub(r"([a-z])([A-Z])", r"\1 \2", feature.name).lower()))
        dated = feature.notation is not None and feature.notation.date
        if words & _STAYS or dated:
            said.append(f"{feature.name} may change: if it cannot, --immutable {feature.name}")
        elif words & _GROWS and feature.kind != "category":
            said.append(f'{feature.name} may fall: set its direction to "up" in the schema')
    if moving and len(moving) == len(data.space.features):
        said.append(
            "every feature may move both ways, within the range of the rows: --immutable A,B names those that cannot, "
            "and --save-schema writes a draft to correct"
        )
    return said


def _tells(data: TabularData, feature: Feature) -> float:
    """The share of rows whose class the feature alone tells, if it takes most errors of the commonest class away; or 0.

    Numbers are cut into at most 20 bins with about equally many rows, and each bin or level says its commonest class.
    """
    count, classes = len(data.label), len(data.classes)
    if count < 2 * _PER_BIN * classes:
        return 0.0
    values = numbers(feature, data.table[feature.name])
    if feature.kind != "category":
        bins = min(_BINS, count // _PER_BIN)
        values = np.searchsorted(np.unique(np.quantile(values, np.arange(1, bins) / bins)), values, side="right")
    cells = np.unique(values, return_inverse=True)[1]
    hits = np.zeros((cells.max() + 1, classes))
    np.add.at(hits, (cells, data.label), 1)
    common, right = np.bincount(data.label).max(), hits.max(1).sum()
    return float(right / count) if right - common >= _TELLS * (count - common) else 0.0
