"""Convolutions on CPU that stay fast inside loops.

XLA's CPU pass rewrites convolutions into the one form with a fast kernel (NHWC x HWIO -> NHWC), but it visits only the
entry computation. In the body of a loop or a branch the input gradient (kernel labels ``01oi``), the weight gradient
and every NCHW convolution keep their own labels and fall back to the naive emitter, which is 5-70 times slower
(jax-ml/jax #12868). The remedy is a lowering rule for the CPU platform that transposes the operands, so that every
convolution starts in the fast form, whatever the model, layout or transformation. Convolutions of single pixels become
matrix products (:mod:`invjax.cpu.products`). Depthwise convolutions have no fast form;
:mod:`invjax.cpu.depthwise` writes them out as sums. The lowerings of GPU and TPU are not touched.

**The rule is process-wide.** The first ``solve`` or ``fit`` on CPU installs it, and everything that the process
compiles afterwards uses it, your own training included: results agree up to rounding, and convolutions in loops are
faster. ``INVJAX_CANONICAL_CONV=0`` in the environment switches it off, :func:`uninstall_canonical_convolutions` takes
it back. It relies on one private name of jax. Where that name is missing, a warning says so, nothing is installed, and
everything still works, only slower.
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
    """The fast form as positions in the operands: N, spatial..., C of the data and spatial..., I, O of the kernel."""
    spatial = tuple(range(1, ndim - 1))
    data = (0, ndim - 1, *spatial)
    kernel = (ndim - 1, ndim - 2, *range(ndim - 2))
    return lax.ConvDimensionNumbers(data, kernel, data)


def _lowering(default: Any) -> Any:
    """The CPU rule. Matrix products and depthwise convolutions get forms of their own; canonical convolutions go to
    ``default``, all others to a canonical one between transposes."""

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
    """Install the rule for the CPU platform, once per process. Returns whether it is in force afterwards."""
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
    """Put jax's own rule back. Programs that are already compiled stay as they are."""
    global _previous
    if _previous is not None:
        mlir.register_lowering(lax.conv_general_dilated_p, _previous, platform="cpu")
        _previous = None


def replaced_rule() -> Any:
    """jax's own rule, which is set aside while ours is in force; None if ours is not installed."""
    return _previous
