"""Spatial measures of an image perturbation: changed pixels, touched windows (d_{2,0}), Gaussian blur.

Everything here takes ONE example, is pure and of fixed shape, and so works inside ``jit``, ``vmap`` and loops. Only
slices and elementwise operations are used: a convolution inside a loop is slow on a CPU, and a windowed reduction is
no faster than a few shifted sums.

Letters: H W C image (channel last).
"""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
from jax import lax

from invjax.core.errors import BadArgument, Words, of_shape
from invjax.types import Array


def changed(r: Array) -> Array:
    """The pixels where any channel differs from 0: ``changed[i, j] = [max_c |r[i, j, c]| > 0]``.

    r: [H, W, C] float or int -> [H, W] bool. A NaN counts as a change.
    """
    if r.ndim != 3:
        raise BadArgument("r", "be one image [H, W, C]", of_shape(r.shape))
    return jnp.any(r != 0, axis=-1)


def window_count(changed: Array, window: int = 8) -> Array:
    """``d_{2,0}``: how many ``window × window`` windows hold at least one changed pixel.

    With ``W_{a,b} = {(i, j) : a <= i < a + n, b <= j < b + n}`` for all ``0 <= a <= H - n``, ``0 <= b <= W - n``
    (stride 1, only windows wholly inside the image), the count of ``(a, b)`` such that W_{a,b} meets the support. One
    changed corner pixel counts 1, one interior pixel n², a 3×3 block in the interior (n + 2)².

    Args:
        changed: [H, W] bool (or numbers: not 0 is changed).
        window: side n in pixels, static. Along an axis shorter than n the window is as long as the axis, so that a
            tiny image has one window instead of none.

    Returns:
        [] int32, at most ``(H - n + 1)(W - n + 1)``.

    Raises:
        ValueError: if ``window`` < 1 or ``changed`` is not a plane (from shapes alone, hence also under jit).

    Source: the group norm of the group-wise sparse attack GSE, with the released code's n = 8.
    """
    if window < 1:
        raise BadArgument("window", "be a number of pixels >= 1", Words(window))
    if changed.ndim != 2:
        raise BadArgument("changed", "be one plane [H, W]", of_shape(changed.shape))
    touched = changed != 0
    for axis in (0, 1):
        touched = _any_in_run(touched, min(window, touched.shape[axis]), axis)
    return jnp.sum(touched, dtype=jnp.int32)


def gaussian_blur(m: Array, size: int = 5, sigma: float = 1.5) -> Array:
    """Separable Gaussian blur with mirrored edges: ``(m ∗∗ K)[i, j] = Σ_{s,t} k_s k_t m[i + s, j + t]``.

    ``k_t = exp(-t² / (2 σ²)) / Σ_u exp(-u² / (2 σ²))`` for t = -h … h with ``size = 2 h + 1``. Beyond the edge m is
    mirrored about the last pixel, which itself is not repeated (torch's and numpy's ``reflect``); an image too small
    to be mirrored once is mirrored repeatedly, as numpy does.

    All terms are nonnegative for ``m >= 0``, so there the result is exactly 0 where m is 0 in the whole window and
    positive elsewhere (as long as ``k_s k_t m`` does not underflow). Mirroring adds nothing that the window does not
    already see. GSE reads this exact zero.

    Args:
        m: [H, W] nonnegative; bool and integers become float32.
        size: odd number of taps, static.
        sigma: standard deviation in pixels, > 0, static.

    Returns:
        [H, W] in the dtype of m.

    Raises:
        ValueError: if ``size`` is not odd and positive, ``sigma`` not positive, or m not a plane.
    """
    if size < 1 or size % 2 == 0:
        raise BadArgument("size", "be an odd number of pixels >= 1", Words(size))
    if not sigma > 0:
        raise BadArgument("sigma", "be > 0 pixels", Words(sigma))
    if m.ndim != 2:
        raise BadArgument("m", "be one plane [H, W]", of_shape(m.shape))
    if not jnp.issubdtype(m.dtype, jnp.floating):
        m = m.astype(jnp.float32)
    half = size // 2
    taps = np.exp(-(np.arange(-half, half + 1) ** 2) / (2.0 * float(sigma) ** 2))
    taps = (taps / taps.sum()).astype(m.dtype)
    for axis in (0, 1):
        length = m.shape[axis]
        padded = jnp.pad(m, [(half, half) if a == axis else (0, 0) for a in (0, 1)], mode="reflect")
        m = _shifted_sum(padded, taps, length, axis)
    return m


def _shifted_sum(padded: Array, taps: np.ndarray, length: int, axis: int) -> Array:
    """``Σ_t taps[t] · padded[t : t + length]`` along ``axis``."""
    total = taps[0] * lax.slice_in_dim(padded, 0, length, axis=axis)
    for t in range(1, len(taps)):
        total = total + taps[t] * lax.slice_in_dim(padded, t, t + length, axis=axis)
    return total


def _any_in_run(flags: Array, length: int, axis: int) -> Array:
    """``out[i] = any(flags[i : i + length])`` along ``axis``; the axis shrinks by ``length - 1``.

    By doubling: a run of 2 n is two runs of n side by side, and a run of n < m <= 2 n two that overlap; so a window
    of 8 takes three ORs per axis instead of seven.
    """
    covered = 1
    while covered < length:
        step = min(covered, length - covered)
        end = flags.shape[axis]
        flags = lax.slice_in_dim(flags, 0, end - step, axis=axis) | lax.slice_in_dim(flags, step, end, axis=axis)
        covered += step
    return flags
