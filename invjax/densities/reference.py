"""The points that a density is made of: by class, with their distances to one point and the nearest of them."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from invjax.core.errors import BadArgument, of_shape
from invjax.core.labels import check_indices
from invjax.core.shown import many
from invjax.densities.blocks import EXACT, Blocks, Local, blocks_of
from invjax.densities.common import Points, leaf, matches
from invjax.types import Array, ArrayLike

FAR = 1e30  # the squared distance of a point that does not count: finite, and its square root too
ROWS, ENTRIES = 1024, 2**20  # rows of a matrix of distances, and numbers of differences, that are held at once


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, eq=False)
class Reference:
    """The points of all classes as one array, each less the mean of its class.

    There is one array and a comparison, not one array per class: under ``vmap`` a class gathered per lane would copy
    its points for every lane, while all distances are one matrix product.
    """

    points: Array  # [M, D]
    classes: Array  # [M] int32
    centers: Array  # [K, D] the mean of each class
    counts: Array  # [K] points of each class
    blocks: Blocks | None = None  # where a class has parts so far apart that its mean is no center for distances

    def __repr__(self) -> str:
        return f"Reference({self.words})"

    @property
    def words(self) -> str:
        """How much it holds: ``178 points of 13 features in 2 classes``."""
        shape = np.shape(self.points)
        points, features = shape[-2:] if len(shape) > 1 else (0, 0)  # not of arrays, as inside jax
        return f"{many(points, 'point')} of {many(features, 'feature')} in {many(np.size(self.counts), 'class')}"

    @classmethod
    def of(cls, data: Points, scale: ArrayLike) -> Reference:
        """The reference points of checked data. scale: [K] the distances that matter in each class; 0: not known."""
        dtype = np.dtype(data.dtype)
        centers = data.centers().astype(dtype)
        return cls(
            points=leaf(data.x.astype(dtype) - centers[data.y], data),
            classes=jnp.asarray(data.y),
            centers=leaf(centers, data),
            counts=leaf(data.counts, data),
            blocks=blocks_of(data, np.asarray(scale, np.float64)),
        )

    def local(self, x: Array, label: Array) -> Array | Local:
        """One point x [D] of floats in the coordinates of class ``label``, for the two methods below, in its dtype."""
        if self.blocks is not None:
            return self.blocks.local(x, label)
        return x - self.centers.astype(x.dtype)[label]

    def squares(self, z: Array | Local, times: float = 1.0) -> Array:
        """``times ‖x − p_m‖²`` [M] to the points of the class, z from :meth:`local`; under ``vmap`` one matrix product.

        Centered on the class, ``‖z‖² − 2 z·p + ‖p‖²`` loses hardly a digit; where it would, the class is in blocks. The
        numbers of other classes mean nothing.
        """
        if self.blocks is not None and isinstance(z, Local):
            return times * self.blocks.squares(z)
        assert not isinstance(z, Local)
        points = self.points.astype(z.dtype)
        norms = times * jnp.square(points).sum(1)  # constant in a loop: computed once before it
        sizes = norms + times * jnp.square(z).sum()
        return jnp.maximum(sizes - 2 * times * jnp.matmul(z, points.T, precision=EXACT), jnp.zeros_like(norms))

    def away(self, weights: Array, z: Array | Local) -> Array:
        """``x − Σ_m w_m p_m / Σ_m w_m`` [D] for weights [M] that are 0 outside of the class, z from :meth:`local`."""
        if self.blocks is not None and isinstance(z, Local):
            return self.blocks.away(weights, z)
        assert not isinstance(z, Local)
        return z - jnp.matmul(weights, self.points.astype(z.dtype), precision=EXACT) / weights.sum()

    def mine(self, label: Array, skip: Array | None = None) -> Array:
        """[M] bool: the points of one class, without that of index ``skip``; -1 and None leave out none."""
        own = self.classes == label
        return own if skip is None else own & (jnp.arange(len(self.classes)) != skip)

    def find(self, x: ArrayLike, y: ArrayLike) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Points x [N, *S] and classes y [N] as arrays, and the reference point that each is: [N] int32, or -1.

        Raises BadArgument about y that are no classes of the density.
        """
        y = check_indices("y", y, len(np.asarray(x)), len(self.centers), of="the density")
        centers, points = np.asarray(self.centers), np.asarray(self.points)
        x = np.asarray(x, centers.dtype)
        if x.size != len(x) * centers.shape[1]:
            raise BadArgument("x", f"be points of {centers.shape[1]} numbers", of_shape(x.shape))
        # The same subtraction as in `of`: a point of the fit is found again bit for bit.
        queries = np.hstack([y[:, None].astype(points.dtype), x.reshape(len(y), -1) - centers[y]])
        stored = np.hstack([np.asarray(self.classes)[:, None].astype(points.dtype), points])
        return x, y, matches(stored, queries)


def kth_smallest(values: Array, k: int) -> Array:
    """The k-th smallest of ``values`` [M], all >= 0, counting from 1; the derivative is that of where it stands.

    Nonnegative floats are ordered as their bits are, so the bits of the answer are found one by one, by counting how
    many values lie below. That takes 31 passes (63 in float64) of one comparison, ten times faster on a CPU than a
    batched ``top_k`` or sort (100 x 400: 0.5 ms and 5 ms).
    """
    fixed = jax.lax.stop_gradient(values)
    integer = jnp.int32 if values.dtype.itemsize == 4 else jnp.int64
    width = 8 * values.dtype.itemsize
    bits = jax.lax.bitcast_convert_type(fixed, integer)

    def set_bit(turn: Array, found: Array) -> Array:
        larger = found | jnp.left_shift(jnp.ones((), integer), (width - 2 - turn).astype(integer))
        # Counted in float32, which a CPU adds faster than integers; exact below 2^24.
        return jnp.where((bits < larger).astype(jnp.float32).sum() < k, larger, found)

    found = jax.lax.fori_loop(0, width - 1, set_bit, jnp.zeros((), integer))
    kth = jax.lax.bitcast_convert_type(found, values.dtype)
    hit = (fixed == kth).astype(values.dtype)
    hit = hit / jnp.maximum(hit.sum(), jnp.ones_like(kth))
    slope = hit @ values
    return kth + slope - jax.lax.stop_gradient(slope)


def neighbours_of(points: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """The k nearest other points of each of ``points`` [n, D], n > k: indices [n, k] and distances, ascending."""
    n = len(points)
    index, distance = np.empty((n, k), np.int64), np.empty((n, k))
    for start in range(0, n, ROWS):
        rows = np.arange(start, min(n, start + ROWS))
        square = squared_distances(points, rows)
        square[np.arange(len(rows)), rows] = np.inf
        near = np.argpartition(square, k - 1, axis=1)[:, :k]
        exact = np.sqrt(_differences(points, np.repeat(rows, k), near.reshape(-1)).reshape(near.shape))
        order = np.argsort(exact, axis=1, kind="stable")
        index[rows] = np.take_along_axis(near, order, 1)
        distance[rows] = np.take_along_axis(exact, order, 1)
    return index, distance


def small_distance(distances: np.ndarray) -> float:
    """The distance that one of ten of these [n] is below, copies (at 0) left out; 0 where there are only copies."""
    apart = distances[distances > 0]
    return float(np.quantile(apart, 0.1)) if apart.size else 0.0


def squared_distances(points: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """[r, n] squared distances of ``points[rows]`` to all of ``points`` [n, D], in float64.

    They are expanded into one matrix product; pairs so close that this would lose more than six digits of theirs are
    subtracted. Copies have the distance 0.
    """
    z = points - points.mean(0)
    norms = np.square(z).sum(1)
    square = norms[rows, None] - 2 * z[rows] @ z.T + norms
    close = np.flatnonzero(square <= 2e-9 * norms[rows, None])
    square.flat[close] = _differences(points, rows[close // len(points)], close % len(points))
    return square


def _differences(points: np.ndarray, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """[n] squared distances of the pairs of points with these indices, a block at a time."""
    square, each = np.empty(len(first)), max(1, ENTRIES // points.shape[1])
    for start in range(0, len(first), each):
        part = slice(start, start + each)
        square[part] = np.square(points[first[part]] - points[second[part]]).sum(1)
    return square
