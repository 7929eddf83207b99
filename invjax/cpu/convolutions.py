"""Convolutions on CPU that stay fast inside loops.

XLA's CPU pass that rewrites convolutions into the one form with a fast kernel (NHWC x HWIO -> NHWC) walks only the
entry computation. In the body of a loop or a branch the input gradient (kernel labels ``01oi``), the weight gradient
and every NCHW convolution keep their own labels and fall to the naive emitter, 5-70 times slower (jax-ml/jax #12868).
The remedy is a lowering rule for the CPU platform that transposes the operands, so that each convolution is born in
the fast form, whatever the user's model, layout, or transformation. Convolutions of single pixels are matrix products
(:mod:`invjax.cpu.products`). Depthwise ones have no fast form; they are written out as sums by
:mod:`invjax.cpu.depthwise`. GPU and TPU lowerings are not touched.

The rule is process-wide and stands on one private name of jax; where that name is gone nothing is installed and
everything still works, only slower. ``INVJAX_CANONICAL_CONV=0`` in the environment switches it off.
"""

from __future__ import annotations

import os
import warnings
from functools import partial
from typing import Any

import jax
from jax import lax
from jax.interpreters import mlir

from invjax.cpu import depthwise
from invjax.cpu.products import as_product

_ENV = "INVJAX_CANONICAL_CONV"
_previous: Any = None


def canonical_dimensions(ndim: int) -> lax.ConvDimensionNumbers:
    """N, spatial..., C for the input and output and spatial..., I, O for the kernel, as positions in the operands."""
    spatial = tuple(range(1, ndim - 1))
    data = (0, ndim - 1, *spatial)
    kernel = (ndim - 1, ndim - 2, *range(ndim - 2))
    return lax.ConvDimensionNumbers(data, kernel, data)


def _lowering(default: Any) -> Any:
    """The CPU rule: ``default`` for canonical convolutions, transposes around a canonical one for all others; where a
    convolution is a matrix product, or depthwise, that in the place of either."""

    def rule(ctx: Any, lhs: Any, rhs: Any, *, dimension_numbers: lax.ConvDimensionNumbers, **params: Any) -> Any:
        product = as_product(ctx.avals_in[0], ctx.avals_in[1], dimension_numbers, params)
        if product is not None:
            return mlir.lower_fun(product, multiple_results=False)(ctx, lhs, rhs)
        canonical = canonical_dimensions(len(dimension_numbers.lhs_spec))
        # A spec lists (batch, feature, spatial...) or (out, in, spatial...) as axes of the operand.
        n, c, *space = dimension_numbers.lhs_spec
        out, inp, *window = dimension_numbers.rhs_spec
        axes = (n, *space, c), (*window, inp, out)
        x, w = (
            jax.ShapeDtypeStruct(tuple(aval.shape[a] for a in order), aval.dtype)
            for aval, order in zip(ctx.avals_in, axes, strict=True)
        )
        convolution = depthwise.written_out(x, w, ctx.avals_out[0].dtype, params)
        if convolution is None:
            if dimension_numbers == canonical:
                return default(ctx, lhs, rhs, dimension_numbers=dimension_numbers, **params)
            convolution = partial(lax.conv_general_dilated_p.bind, dimension_numbers=canonical, **params)

        def transposed(lhs: jax.Array, rhs: jax.Array) -> jax.Array:
            y = convolution(lax.transpose(lhs, axes[0]), lax.transpose(rhs, axes[1]))
            # y has axes (N, spatial..., C); axis k of the wanted output is the axis that out_spec assigns to k.
            n, c, *space = dimension_numbers.out_spec
            order = (n, *space, c)
            return lax.transpose(y, tuple(order.index(k) for k in range(len(order))))

        return mlir.lower_fun(transposed, multiple_results=False)(ctx, lhs, rhs)

    return rule


def install_canonical_convolutions() -> bool:
    """Install the rule for the CPU platform (once per process). True if it is in force afterwards."""
    global _previous
    if _previous is not None:
        return True
    if os.environ.get(_ENV, "1") == "0":
        return False
    try:
        entry = mlir._platform_specific_lowerings["cpu"][lax.conv_general_dilated_p]
    except (AttributeError, KeyError):
        warnings.warn(
            "this version of jax hides its convolution lowering: convolutions inside loops will be slow on CPU",
            RuntimeWarning,
            stacklevel=2,
        )
        return False
    rule = getattr(entry, "rule", entry)
    mlir.register_lowering(lax.conv_general_dilated_p, _lowering(rule), platform="cpu")
    _previous = rule
    return True


def uninstall_canonical_convolutions() -> None:
    """Put jax's own rule back (programs compiled before keep what they have)."""
    global _previous
    if _previous is not None:
        mlir.register_lowering(lax.conv_general_dilated_p, _previous, platform="cpu")
        _previous = None
