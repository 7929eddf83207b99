"""Floating point operations of the matrix products and convolutions of a program, as it was traced.

A compiler's own count is no help here: on a GPU convolutions become calls of a library, which it does not look into.
"""

from __future__ import annotations

import math
from typing import Any

import jax.numpy as jnp
import numpy as np

from benchmarks.common import bare_forward, bare_gradient
from invjax.types import UNTARGETED, LogitsFn


def gradient_flops(logits: LogitsFn, x: np.ndarray, label: np.ndarray, target: np.ndarray | None) -> float:
    """Those of the value and input gradient of a batch x [B, *S], label [B], target [B] or None for untargeted."""
    other = np.full_like(label, UNTARGETED) if target is None else target
    return counted(bare_gradient.trace(logits, jnp.asarray(x), jnp.asarray(label), jnp.asarray(other)).jaxpr)


def forward_flops(logits: LogitsFn, x: np.ndarray) -> float:
    """Those of the logits of a batch x [B, *S]."""
    return counted(bare_forward.trace(logits, jnp.asarray(x)).jaxpr)


def counted(program: Any) -> float:
    """Operations of a jaxpr; each multiplication and each addition is one. The body of a while loop counts once."""
    program = getattr(program, "jaxpr", program)  # a closed one holds its constants beside it
    return float(sum(_operations(equation) for equation in program.eqns))


def _operations(equation: Any) -> float:
    name, params = equation.primitive.name, equation.params
    if name == "dot_general":
        (contracted, _), _ = params["dimension_numbers"]
        shape = equation.invars[0].aval.shape
        return 2.0 * _size(equation) * math.prod(shape[n] for n in contracted)
    if name == "conv_general_dilated":
        kernel, numbers = equation.invars[1].aval.shape, params["dimension_numbers"].rhs_spec
        # Each output sees a window of all input channels of its group. The zeros between the points of a dilated
        # input, which is what the gradient of a strided convolution reads, are no work that has to be done.
        window = math.prod(kernel[n] for n in numbers[1:])
        return 2.0 * _size(equation) * window / math.prod(params["lhs_dilation"])
    inner = [part for value in params.values() for part in (value if isinstance(value, list | tuple) else [value])]
    programs = [part for part in inner if hasattr(getattr(part, "jaxpr", part), "eqns")]
    return (params["length"] if name == "scan" else 1) * sum(map(counted, programs))


def _size(equation: Any) -> int:
    return math.prod(equation.outvars[0].aval.shape)
