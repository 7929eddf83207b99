"""What every density shares: the checks of its data, rows found again, one evaluation of many points."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from invjax.core.errors import BadArgument, Words
from invjax.core.labels import check_indices, count_classes
from invjax.core.numerics import as_float, at_least_float32, wide
from invjax.core.rows import map_rows
from invjax.types import Array, ArrayLike, Density, HeldOut

BATCH = 1024  # points evaluated at once by :func:`evaluate`


class Points(NamedTuple):
    """Checked reference points, on the host."""

    x: np.ndarray  # [M, D] float64, flattened
    y: np.ndarray  # [M] int32
    counts: np.ndarray  # [K] points of each class
    dtype: Any  # of the leaves to make: that of the given x, at least float32, as far as jax is set to hold it
    shape: tuple[int, ...]  # [*S] of one given point

    @property
    def classes(self) -> int:
        """K."""
        return len(self.counts)

    def of(self, label: int) -> np.ndarray:
        """The points of one class, [n, D]."""
        return self.x[self.y == label]

    def centers(self) -> np.ndarray:
        """The mean of each class, [K, D]."""
        return np.stack([self.of(label).mean(0) for label in range(self.classes)])

    def padded(self) -> tuple[np.ndarray, np.ndarray]:
        """All classes as one array [K, n_max, D] with zeros at the end, and which rows are points, [K, n_max] bool."""
        most = int(self.counts.max())
        rows = np.zeros((self.classes, most, self.x.shape[1]))
        real = np.arange(most) < self.counts[:, None]
        for label in range(self.classes):
            rows[label, : self.counts[label]] = self.of(label)
        return rows, real


def check_points(x: Any, y: Any, least: int = 1, why: str = "") -> Points:
    """Reference points x [M, *S] with classes y [M], each class of 0 … max(y) at least ``least`` times.

    Raises:
      BadArgument: x is not an array of finite numbers [M, *S] with M > 0, y does not hold whole numbers >= 0 of shape
        [M], or a class has fewer than ``least`` points. why: the reason for that number, for the message.
    """
    given = np.asarray(x)
    real = jnp.issubdtype(given.dtype, jnp.floating)  # bfloat16 too
    if given.ndim < 1 or given.size == 0 or not (real or given.dtype.kind in "iub"):
        raise BadArgument("x", "be numbers of shape [M, *S], M > 0", _described(given))
    flat = given.reshape(len(given), -1).astype(np.float64)
    if broken := np.count_nonzero(~np.isfinite(flat).all(1)):
        raise BadArgument("x", "be finite", hint=f"{broken} of its {len(flat)} points hold NaN or infinity")
    labels = check_indices("y", y, len(given))
    count_classes("y", labels)
    counts = np.bincount(labels)
    if few := [f"class {label} has {count}" for label, count in enumerate(counts) if count < least]:
        wanted = f"have at least {least} points of each class" + (f" ({why})" if why else "")
        raise BadArgument("y", wanted, hint=", ".join(few))
    dtype = wide(given.dtype) if real else jnp.result_type(float)
    return Points(flat, labels, counts, jax.dtypes.canonicalize_dtype(dtype), given.shape[1:])


def _described(array: np.ndarray) -> Words:
    return Words(f"{array.dtype} of shape {array.shape}")


def point(x: ArrayLike) -> Array:
    """One point as the floats that a density computes in: at least 32 bits, and floats where it has whole numbers.

    A density's constants take the type of the point. None of them is ever rounded to whole numbers or to 16 bits.
    """
    return at_least_float32(as_float(x))


def deviations(x: np.ndarray, constant: float = 1.0) -> np.ndarray:
    """The standard deviation of each feature of x [M, D], and ``constant`` times the usual one where it is constant.

    [D], > 0. Whether a feature is constant is measured by its own values, so that one in small units is not.
    """
    own = x.std(0)
    usual = float(np.sqrt(np.square(own).mean())) or 1.0
    return np.where(own > 1e-7 * np.abs(x).max(0), own, constant * usual)


def leaf(values: Any, points: Points) -> Array:
    """``values`` as a leaf in the dtype of the points."""
    return jnp.asarray(np.asarray(values), points.dtype)


def matches(stored: np.ndarray, queries: np.ndarray) -> np.ndarray:
    """For each row of ``queries`` [N, ...] the index of an equal row of ``stored`` [M, ...], or -1; [N] int32.

    Equal rows of the queries get different indices as long as there are any: each copy is paired with one.
    """
    free: dict[bytes, list[int]] = {}
    for index, row in enumerate(np.ascontiguousarray(stored) + 0.0):  # + 0.0: -0.0 is 0.0
        free.setdefault(row.tobytes(), []).append(index)
    taken: dict[bytes, int] = {}
    found = np.full(len(queries), -1, np.int32)
    for n, row in enumerate(np.ascontiguousarray(queries, stored.dtype) + 0.0):
        key = row.tobytes()
        if key in free:
            turn = taken.get(key, 0)
            found[n] = free[key][turn % len(free[key])]
            taken[key] = turn + 1
    return found


def evaluate(one: Callable[..., Array], density: Any, *rows: Any) -> np.ndarray:
    """``one(density, *row)`` for each row of ``rows``; [N, ...]. one: a function of a module (see :func:`map_rows`)."""
    return map_rows(one, density, *rows, batch=BATCH, each=True)


def log_prob_of(density: Density, x: Array, label: Array) -> Array:
    """``density.log_prob(x, label)`` as a module-level function, for :func:`evaluate`."""
    return density.log_prob(x, label)


def own_log_prob(density: Density, x: ArrayLike, y: ArrayLike) -> np.ndarray:
    """[N] log densities of points x [N, *S], y [N], each without itself where the density can leave it out."""
    if isinstance(density, HeldOut):
        return density.held_out_log_prob(x, y)
    return evaluate(log_prob_of, density, x, y)
