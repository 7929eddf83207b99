"""Distances to the points of a class that has parts far apart: each part has a center of its own.

With A_b the anchor of block b, q_m = p_m − A_b(m) the point m in its block, and w = x − A_c from x's nearest anchor,

    ‖x − p_m‖² = ‖x − A_b(m)‖² + ‖q_m‖² − 2 (w·q_m + (A_c − A_b(m))·q_m)                                          (1)

The first term is a difference, so nothing cancels in it; the last product is a constant, 0 in x's own block. What is
lost is about eps (‖w‖ + ‖q‖)². One center for the whole class loses eps times the square of its extent: in float32,
10 nats of a kernel density whose class has two clumps of a ten-thousandth of their distance.
"""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from invjax.densities.common import Points, leaf
from invjax.types import Array

EXACT = jax.lax.Precision.HIGHEST  # of products that become distances: the three digits of TF32 are none
_EXTENT = 0.05  # a class needs no blocks while extent / scale · √eps is below: 145 scales in float32
_MOST = 64  # blocks of a class at the most, and 256 of all


class Local(NamedTuple):
    """A point as it is seen from the blocks."""

    away: Array  # [G, D] x − A
    far: Array  # [G] its square
    nearest: Array  # [] int, the nearest block of the class


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, eq=False)
class Blocks:
    """The points of all classes in blocks, G of them; made by :func:`blocks_of`."""

    anchors: Array  # [G, D] A
    owner: Array  # [G] int32, the class of each block
    block: Array  # [M] int32, the block of each point
    offsets: Array  # [M, D] q
    between: Array  # [G, M] (A_g − A_b(m))·q_m

    def local(self, x: Array, label: Array) -> Local:
        """One point x [D] as it is seen from the blocks of class ``label``."""
        away = x - self.anchors.astype(x.dtype)
        far = jnp.square(away).sum(1)
        return Local(away, far, jnp.argmin(jnp.where(self.owner == label, far, jnp.full_like(far, jnp.inf))))

    def squares(self, z: Local) -> Array:
        """Formula (1) of the module: [M], of which the points of the class count."""
        offsets = self.offsets.astype(z.away.dtype)
        inner = jnp.matmul(z.away[z.nearest], offsets.T, precision=EXACT)
        inner = inner + self.between.astype(z.away.dtype)[z.nearest]
        square = z.far[self.block] + jnp.square(offsets).sum(1) - 2 * inner
        return jnp.maximum(square, jnp.zeros_like(square))

    def away(self, weights: Array, z: Local) -> Array:
        """``x − Σ_m w_m p_m / Σ_m w_m`` [D] for weights [M]."""
        member = (self.block[:, None] == jnp.arange(len(self.owner))).astype(z.away.dtype)
        own = jnp.matmul(weights, self.offsets.astype(z.away.dtype), precision=EXACT)
        return (jnp.matmul(weights @ member, z.away, precision=EXACT) - own) / weights.sum()


def blocks_of(data: Points, scale: np.ndarray) -> Blocks | None:
    """The points in blocks, or None where no class needs them.

    scale: [K] the distances that matter in each class, such as a bandwidth; 0 where none is known, or none matters.
    A class is cut into balls of 70 scales (in float32), as far as 64 of them suffice.
    """
    dtype = np.dtype(data.dtype)
    room = _EXTENT / np.sqrt(float(jnp.finfo(dtype).eps)) * scale
    reach = [float(np.sqrt(np.square(data.of(k) - data.of(k).mean(0)).sum(1).max())) for k in range(data.classes)]
    if not np.any((scale > 0) & (np.array(reach) > room)):
        return None
    most = max(1, min(_MOST, 4 * _MOST // data.classes))
    block, anchors, owner = np.zeros(len(data.y), np.int32), [], []
    for label in range(data.classes):
        points = data.of(label)
        inside = _balls(points, room[label] / 2, most if scale[label] > 0 and reach[label] > room[label] else 1)
        block[data.y == label] = inside + len(owner)
        for ball in range(int(inside.max()) + 1):
            anchors.append(points[inside == ball].mean(0))
            owner.append(label)
    rounded = np.stack(anchors).astype(dtype).astype(np.float64)  # as they will be subtracted
    offsets = data.x - rounded[block]
    between = rounded @ offsets.T - (rounded[block] * offsets).sum(1)
    return Blocks(
        leaf(rounded, data), jnp.asarray(owner, jnp.int32), jnp.asarray(block), leaf(offsets, data), leaf(between, data)
    )


def _balls(points: np.ndarray, radius: float, most: int) -> np.ndarray:
    """[n] the ball of each point: the point farthest from all centers becomes one until all lie within ``radius``."""
    square, ball = np.square(points - points[0]).sum(1), np.zeros(len(points), np.int32)
    for number in range(1, most):
        far = int(square.argmax())
        if square[far] <= radius**2:
            break
        other = np.square(points - points[far]).sum(1)
        ball[other < square] = number
        square = np.minimum(square, other)
    return ball
