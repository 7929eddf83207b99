"""How plausible an answer must be: a density of the training rows, and the weight that it gets by default.

A kernel density of the rows of each class, cut at the α-quantile of the class's own rows:
:func:`invjax.densities.hinge`.
Two choices make it work on any table:

* bandwidth ``h = max(leave-one-out, ½ m₅ / √D)``, m₅ the median distance of a row to its fifth nearest in its class.
  Tables are full of copies, and of rows that differ in one unit of one feature. The leave-one-out likelihood then
  prefers kernels as narrow as those gaps, and no new row would ever be plausible;
* weight ``τ = 8 h²``. Far from the rows ``−log p ≈ d²/2h²``, d the distance to the nearest, so that the objective is
  ``‖r‖² + 4 (d² − allowed)``: a squared distance to the data beyond what the quantile allows counts four times as much
  as one from x, whatever the scale, the dimension and the bandwidth. (On Boston Housing, wine, German credit and Adult
  the outlier factor falls little beyond 8 h², and doubling h hardly matters; a fixed τ would have to differ tenfold
  between them.)
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from scipy.spatial import cKDTree  # type: ignore[attr-defined]

from invjax.core.arguments import kinds_checked
from invjax.core.errors import BadArgument, check, check_entries, check_seed
from invjax.core.labels import whole_numbers
from invjax.core.shown import short_repr
from invjax.data.tables.table import TabularData
from invjax.densities import KDE, Hinge, fit_kde, hinge

_MOST_ROWS = 2000  # of a class: more would add time, not shape
_WEIGHT = 8.0  # τ in units of h²
_NEAR = 5


class Plausibility(NamedTuple):
    """A density with its weight."""

    density: Hinge
    tau: float  # squared model units per nat
    alpha: float
    kde: KDE  # the density without the cut

    __repr__ = short_repr


def training_rows(data: TabularData, most: int = _MOST_ROWS, seed: int = 0) -> np.ndarray:
    """Rows of ``data.train`` that obey the schema's form (finite columns), at most ``most`` of each class, in order.

    Raises ValueError: a class has fewer than two such rows.
    """
    rows = data.train[np.isfinite(data.x[data.train]).all(1)]
    generator = np.random.default_rng(check_seed("seed", seed))
    kept = []
    for k, name in enumerate(data.classes):
        own = rows[data.label[rows] == k]
        if len(own) < 2:
            raise BadArgument("data", "have at least two training rows of every class", hint=f"{name!r} has {len(own)}")
        kept.append(own if len(own) <= most else generator.choice(own, most, replace=False))
    return np.sort(np.concatenate(kept))


@kinds_checked
def plausibility_of(data: TabularData, alpha: float = 0.25, rows: np.ndarray | None = None) -> Plausibility:
    """The default density of a table: see the module. rows: of the table; None: :func:`training_rows`.

    alpha: the share of each class's own rows that count as not plausible enough, in (0, 1).
    Raises ValueError: alpha, or a class with fewer than two rows.
    """
    check("alpha", alpha, lambda value: 0 < value < 1, "a share in (0, 1)")
    if rows is None:
        rows = training_rows(data)
    elif np.asarray(rows).dtype != bool:  # a mask is checked by its use
        wanted = f"be numbers of rows, 0 … {len(data.x) - 1}"
        rows = whole_numbers("rows", rows, wanted)
        check_entries("rows", rows, (rows < 0) | (rows >= len(data.x)), wanted)
    x, y = data.x[rows], data.label[rows]
    found = np.asarray(fit_kde(x, y).bandwidth, np.float64)
    least = [_floor(x[y == k]) for k in range(len(found))]
    kde = fit_kde(x, y, bandwidth=np.maximum(found, least))
    tau = _WEIGHT * float(np.mean(np.square(np.asarray(kde.bandwidth, np.float64))))
    return Plausibility(hinge(kde, x, y, alpha), tau, alpha, kde)


def _floor(x: np.ndarray) -> float:
    """``½ m₅ / √D`` of rows x [n, D]: see the module. 0 where most rows are equal to five others."""
    distance, _ = cKDTree(x).query(x, k=min(_NEAR + 1, len(x)))  # the nearest is the row itself
    return 0.5 * float(np.median(np.asarray(distance)[:, -1])) / math.sqrt(x.shape[1])
