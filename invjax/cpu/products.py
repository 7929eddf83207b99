"""Convolutions on CPU that can be computed as matrix products.

Without padding, dilation or groups, a window of one pixel is a product over the features alone,

    y[n, p, o] = Σ_c x[n, p, c] w[c, o]                                                                            (1)

and a window as large as the image is a product over the whole image. The weight gradient of (1) is of this second kind,
with the channels as the batch. XLA's CPU backend runs its convolution for both, which takes twice as long as the
product for (1), and 3 to 24 times as long for the gradient (32 images, 4 to 56 px, 16 to 1,280 channels).

:mod:`invjax.cpu.convolutions` uses these rules instead of XLA's, for any layout.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import jax
from jax import lax

from invjax.types import Array


def as_product(
    x: jax.ShapeDtypeStruct, w: jax.ShapeDtypeStruct, numbers: lax.ConvDimensionNumbers, params: Mapping[str, Any]
) -> Callable[[Array, Array], Array] | None:
    """A function of the two operands that computes the convolution as one matrix product; None if that is impossible.

    Args:
      x, w: shapes of the operands.
      numbers: the roles of their axes.
      params: the other parameters of ``lax.conv_general_dilated_p``.
    """
    n, c, *space = numbers.lhs_spec
    out, inp, *window = numbers.rhs_spec
    dilated = any(d != 1 for name in ("lhs_dilation", "rhs_dilation") for d in params[name])
    padded = any(pixels for sides in params["padding"] for pixels in sides)
    if dilated or padded or params["feature_group_count"] != 1 or params["batch_group_count"] != 1:
        return None
    sizes = [w.shape[axis] for axis in window]
    pointwise = all(size == 1 for size in sizes) and all(s == 1 for s in params["window_strides"])
    if not pointwise and sizes != [x.shape[axis] for axis in space]:
        return None
    # In the order of x, so that channels-last operands are matrices in memory without a transpose.
    partner = {c: inp} if pointwise else {c: inp, **dict(zip(space, window, strict=True))}
    inner = sorted(partner)
    left = [axis for axis in range(len(x.shape)) if axis not in inner]
    lost = () if pointwise else tuple(range(1, 1 + len(space)))  # axes of one pixel, which the product drops
    role = {n: numbers.out_spec[0], **dict(zip(space, numbers.out_spec[2:], strict=True))}  # axis of x -> of y
    order = [*(role[axis] for axis in left), *(numbers.out_spec[2:] if lost else ()), numbers.out_spec[1]]
    options = {name: params[name] for name in ("precision", "preferred_element_type")}

    def product(x: Array, w: Array) -> Array:
        if pointwise:
            w = lax.squeeze(w, window)
            over = (c,), (int(inp > out),)
        else:
            over = tuple(inner), tuple(partner[axis] for axis in inner)
        y = lax.expand_dims(lax.dot_general(x, w, (over, ((), ())), **options), lost)
        return lax.transpose(y, tuple(order.index(axis) for axis in range(len(order))))

    return product
