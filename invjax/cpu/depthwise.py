"""Depthwise convolutions on CPU as sums of shifted products.

A convolution with as many groups as channels filters each channel separately (MobileNet, EfficientNet):

    y[n, o, c] = Σ_i x̂[n, s o + d i, c] w[i, c]          x̂: x with L - 1 zeros between its pixels, then padded      (1)

XLA's CPU backend has no fast kernel for it. At 112 px, 32 channels and 3×3 it takes fifty times as long as the nine
multiplications and additions of (1) written out, which fuse into one pass over the image; its input gradient at stride
2 (a convolution with L = 2) takes seconds. Here (1) is written out, for L > 1 once per residue of o modulo L, so that
nothing is multiplied by an inserted zero.

The weight gradient is a convolution with as many *batch groups* as channels,

    v[i, c] = Σ_{n, a} u[c, s i + d a, n] g[a, n, c]                                                               (2)

(u, g: image and output gradient, with the channels as the batch), and is written out likewise.

:mod:`invjax.cpu.convolutions` uses these rules instead of XLA's; channels are last.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from invjax.types import Array

MOST_TAPS = 49  # taps written out at most, a 7×7 window: the program grows with them


class Windows(NamedTuple):
    """The window parameters of ``lax.conv_general_dilated``, one entry per spatial axis."""

    window_strides: Sequence[int]  # s
    padding: Sequence[tuple[int, int]]  # pixels before and after; may be negative
    lhs_dilation: Sequence[int]  # L
    rhs_dilation: Sequence[int]  # d

    def output(self, space: Sequence[int], window: Sequence[int]) -> list[int]:
        """The spatial shape of the output, 0 along an axis that the window does not fit."""
        sizes = zip(space, window, *self, strict=True)
        return [
            max(0, ((n - 1) * gap + 1 + low + high - (k - 1) * d - 1) // s + 1)
            for n, k, s, (low, high), gap, d in sizes
        ]


def written_out(
    x: jax.ShapeDtypeStruct, w: jax.ShapeDtypeStruct, dtype: Any, params: Mapping[str, Any]
) -> Callable[[Array, Array], Array] | None:
    """A function of the two operands that writes the convolution out, or None if it is not depthwise or too large.

    Args:
      x, w: shapes of the operands in canonical form, [N, *space, I] and [*window, I / groups, O].
      dtype: of the output.
      params: the parameters of ``lax.conv_general_dilated_p``.
    """
    feature_groups, batch_groups = params["feature_group_count"], params["batch_group_count"]
    if feature_groups == batch_groups == 1:
        return None
    windows = Windows(*(params[name] for name in Windows._fields))
    channels, out = w.shape[-1], windows.output(x.shape[1:-1], w.shape[:-2])
    if not (x.dtype == w.dtype == dtype and jnp.issubdtype(dtype, jnp.floating)) or 0 in (x.size, w.size, *out):
        return None
    strided, spread = math.prod(windows.window_strides) > 1, math.prod(windows.lhs_dilation) > 1
    by_channel = feature_groups == x.shape[-1] == channels and math.prod(w.shape[:-2]) <= MOST_TAPS
    if by_channel and not (strided and spread):
        return partial(depthwise, windows=windows)
    if batch_groups == x.shape[0] == channels and math.prod(out) <= MOST_TAPS and not spread:
        return partial(depthwise_weights, windows=windows)
    return None


def depthwise(x: Array, w: Array, windows: Windows) -> Array:
    """Equation (1): x [N, *space, C], w [*window, 1, C] -> [N, *out, C] in the dtype of x; sums at least float32."""
    space, window = x.shape[1:-1], w.shape[:-2]
    strides, padding, gaps, dilation = windows
    out = windows.output(space, window)
    rows = [-(-size // gap) for size, gap in zip(out, gaps, strict=True)]  # outputs of one residue
    # Per axis and residue: (tap i, the pixel of x under it at the first output), for taps that meet no inserted zero.
    taps = [
        [[(i, (p + i * d - low) // gap) for i in range(k) if (p + i * d - low) % gap == 0] for p in range(gap)]
        for k, d, (low, _), gap in zip(window, dilation, padding, gaps, strict=True)
    ]
    edges = []
    for axis, size in enumerate(space):
        starts = [start for residue in taps[axis] for _, start in residue]
        end = max(starts) + (rows[axis] - 1) * strides[axis] + 1
        edges.append((max(0, -min(starts)), max(0, end - size), 0))
    # Without the barrier the padding would be fused into the sum and decided anew for each tap of each pixel.
    padded = lax.optimization_barrier(lax.pad(x, jnp.zeros((), x.dtype), [(0, 0, 0), *edges, (0, 0, 0)]))
    wide = jnp.promote_types(x.dtype, jnp.float32)

    def part(residue: Sequence[int]) -> Array:
        total = jnp.zeros((x.shape[0], *rows, x.shape[-1]), wide)
        for picks in itertools.product(*(axis[p] for axis, p in zip(taps, residue, strict=True))):
            begin = [start + edge[0] for (_, start), edge in zip(picks, edges, strict=True)]
            end = [b + (n - 1) * s + 1 for b, n, s in zip(begin, rows, strides, strict=True)]
            piece = lax.slice(padded, (0, *begin, 0), (x.shape[0], *end, x.shape[-1]), (1, *strides, 1))
            total = total + piece.astype(wide) * w[tuple(i for i, _ in picks)][0].astype(wide)
        return total.astype(x.dtype)

    parts = [part(residue) for residue in itertools.product(*map(range, gaps))]
    return _interleave(parts, gaps)[(slice(None), *map(slice, out))]


def _interleave(parts: list[Array], gaps: Sequence[int]) -> Array:
    """Interleave the outputs of all residues, each [N, *rows, C], last axis fastest -> [N, *(rows · gaps), C]."""
    if len(parts) == 1:
        return parts[0]
    count, *rows, channels = parts[0].shape
    axes = len(rows)
    y = jnp.stack(parts, axis=axes + 1).reshape(count, *rows, *gaps, channels)
    pairs = [axis for a in range(axes) for axis in (1 + a, 1 + axes + a)]
    sizes = [n * gap for n, gap in zip(rows, gaps, strict=True)]
    return y.transpose(0, *pairs, 2 * axes + 1).reshape(count, *sizes, channels)


def depthwise_weights(u: Array, g: Array, windows: Windows) -> Array:
    """Equation (2): u [C, *space, N], g [*size, N, C] -> [1, *window, C] in the dtype of u."""
    size = g.shape[:-2]
    strides, padding, _, dilation = windows
    window = windows.output(u.shape[1:-1], size)
    padded = lax.pad(u, jnp.zeros((), u.dtype), [(0, 0, 0), *((low, high, 0) for low, high in padding), (0, 0, 0)])
    wide = jnp.promote_types(u.dtype, jnp.float32)
    # Channels last, as the arrays lie in memory before autodiff exchanges the names of their axes.
    padded = lax.optimization_barrier(jnp.moveaxis(padded, 0, -1))  # [*space, N, C]

    def of_row(total: Array, row: Array) -> tuple[Array, None]:
        """Row by row, because all taps then find their operands in the cache: five times as fast as tap by tap."""
        out = lax.dynamic_index_in_dim(g, row, keepdims=False).astype(wide)
        sums = []
        for first in range(window[0]):
            line = lax.dynamic_index_in_dim(padded, first * strides[0] + row * dilation[0], keepdims=False)
            for tap in itertools.product(*map(range, window[1:])):
                begin = [i * s for i, s in zip(tap, strides[1:], strict=True)]
                end = [b + (n - 1) * d + 1 for b, n, d in zip(begin, size[1:], dilation[1:], strict=True)]
                piece = lax.slice(line, (*begin, 0, 0), (*end, *line.shape[-2:]), (*dilation[1:], 1, 1))
                sums.append(jnp.sum(piece.astype(wide) * out, axis=tuple(range(out.ndim - 1))))
        return total + jnp.stack(sums), None

    start = jnp.zeros((math.prod(window), g.shape[-1]), wide)
    total, _ = lax.scan(of_row, start, jnp.arange(size[0]))
    return total.reshape(1, *window, g.shape[-1]).astype(u.dtype)
