"""Does a row look like data? Local outlier factor, rank of its log-density, and agreement of its neighbours.

    LOF_k(p)   mean over the k nearest rows o of lrd_k(o) / lrd_k(p),   1 inside an even cloud, larger outside       (1)
    lrd_k(p)   1 / mean_o max(k-distance(o), ‖p - o‖)
    rank(p)    share of the rows r of the class with log p(r | t) < log p(p | t)                                     (2)
    yNN(p)     share of the k nearest rows that are predicted t                                                      (3)

Source: (1) Breunig et al. 2000, as scikit-learn's LocalOutlierFactor(novelty=True) has it: -score_samples.
(3) CARLA (Pawelczyk et al. 2021). Host-side; the density is evaluated by JAX.
"""

from __future__ import annotations

import warnings
from functools import lru_cache, partial
from importlib import import_module
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from scipy.spatial.distance import cdist

from invjax.core.arguments import kinds_checked
from invjax.core.density import check_density
from invjax.core.errors import BadArgument, Words, check_entries, check_whole
from invjax.core.labels import check_indices
from invjax.core.numerics import as_float
from invjax.metrics.rows import flat
from invjax.types import HeldOut

REFERENCE = 2000  # rows of a class at most, evenly spaced, that a log-density is ranked among
BATCH = 64  # rows per density call: a kernel density holds [BATCH, M, D] numbers
NAN = float("nan")


@kinds_checked
def local_outlier_factor(points: Any, train: Any, neighbours: int = 20) -> np.ndarray:
    """The LOF (1) [n] of points [n, *S] against rows [M, *S]; k is at most M - 1. NaN if M < 2, or for a point of NaN.

    Raises ImportError: scikit-learn is missing (extra ``data``).
    """
    rows, queries = _rows_and_points(train, points)
    check_whole("neighbours", neighbours)
    factor, whole = np.full(len(queries), NAN), np.isfinite(queries).all(1)
    if len(rows) < 2 or not whole.any():
        return factor
    fitted = _fitted(rows.tobytes(), rows.shape, min(neighbours, len(rows) - 1))
    factor[whole] = -np.asarray(fitted.score_samples(queries[whole]), np.float64)
    return factor


def _rows_and_points(train: Any, points: Any) -> tuple[np.ndarray, np.ndarray]:
    """Both as [M, D] and [n, D] float64. Raises BadArgument where they differ in D, or rows are not finite."""
    rows, queries = flat(train), flat(points)
    if rows.shape[1] != queries.shape[1]:
        shapes = Words(f"{np.shape(points)} and {np.shape(train)}")
        raise BadArgument("points", "have the shape of the training rows, but for their number", shapes)
    check_entries("train", rows, ~np.isfinite(rows), "be finite")
    return rows, queries


@lru_cache(maxsize=4)
def _fitted(content: bytes, shape: tuple[int, ...], neighbours: int) -> Any:
    """scikit-learn's fitted LOF, cached because many methods are measured against the same rows."""
    try:
        module = import_module("sklearn.neighbors")
    except ImportError as error:
        raise ImportError("the local outlier factor needs scikit-learn: pip install 'invjax[data]'") from error
    with warnings.catch_warnings():  # it warns of rows that occur more than k times; the factor stays finite
        warnings.simplefilter("ignore", UserWarning)
        rows = np.frombuffer(content).reshape(shape)
        return module.LocalOutlierFactor(n_neighbors=neighbours, novelty=True).fit(rows)


@kinds_checked
def neighbour_agreement(points: Any, target: Any, train: Any, said: Any, neighbours: int = 5) -> np.ndarray:
    """yNN (3), [n]: points [n, *S], target [n], rows [M, *S] with predicted classes said [M]; k is at most M."""
    rows, queries = _rows_and_points(train, points)
    wanted, said = check_indices("target", target, len(queries)), check_indices("said", said, len(rows))
    if not len(rows):
        raise BadArgument("train", "hold at least one row")
    check_whole("neighbours", neighbours)
    k = min(neighbours, len(rows))
    share = np.full(len(queries), NAN)
    for start in range(0, len(queries), 256):
        part = slice(start, start + 256)
        nearest = np.argpartition(cdist(queries[part], rows), k - 1, axis=1)[:, :k]
        share[part] = (said[nearest] == wanted[part, None]).mean(1)
    return share


@kinds_checked
def density_rank(
    density: Any, points: Any, target: Any, train: Any = None, classes: Any = None
) -> tuple[np.ndarray, np.ndarray]:
    """Log-densities [n] (nats) of points [n, *S] under their targets [n], and their ranks (2) [n].

    density: a pytree with ``log_prob(x, label)`` of one point. train [M, *S] and classes [M]: the rows to rank against.
    Without them, or if the class has none, the rank is NaN. A density built from the rows evaluates each row without
    itself (``held_out_log_prob``), because a counterfactual has no kernel of its own either.
    """
    queries = np.asarray(points)
    wanted = check_indices("target", target, len(queries))
    if not _is_leaf(density) or not hasattr(density, "log_prob"):
        check_density(density, queries.shape[1:], as_float(queries).dtype, wanted)
    values = _log_prob(density, queries, wanted)
    ranks = np.full(len(queries), NAN)
    if train is None or classes is None:
        return values, ranks
    rows = np.asarray(train)
    known = getattr(density, "classes", None)
    labels = check_indices("classes", classes, len(rows), known if isinstance(known, int) else None, of="the density")
    for label in np.unique(wanted):
        own = rows[labels == label]
        if len(own):
            own = own[np.linspace(0, len(own) - 1, min(len(own), REFERENCE)).round().astype(int)]
            values_of = density.held_out_log_prob if isinstance(density, HeldOut) else partial(_log_prob, density)
            reference = np.sort(np.asarray(values_of(own, np.full(len(own), label)), np.float64))
            at = wanted == label
            ranks[at] = np.searchsorted(reference, values[at], side="left") / len(own)
            ranks[at & np.isnan(values)] = NAN
    return values, ranks


def _is_leaf(density: Any) -> bool:
    leaves = jax.tree.leaves(density)
    return len(leaves) == 1 and leaves[0] is density


def _log_prob(density: Any, points: np.ndarray, labels: np.ndarray) -> np.ndarray:
    if len(points) == 0:
        return np.zeros(0)
    rows, wanted = as_float(points), jnp.asarray(labels, jnp.int32)
    if _is_leaf(density):  # not a pytree, but any object with log_prob
        values = jax.lax.map(lambda one: density.log_prob(*one), (rows, wanted), batch_size=BATCH)
    else:
        values = _mapped(density, rows, wanted)
    return np.asarray(values, np.float64)


@jax.jit
def _mapped(density: Any, points: jax.Array, labels: jax.Array) -> jax.Array:
    return jax.lax.map(lambda one: density.log_prob(*one), (points, labels), batch_size=BATCH)
