"""How precisely products are computed: matrix products and convolutions of float32 numbers.

On a GPU of the last years they run as TF32 by default, on a TPU as bfloat16: with 10 or 7 bits of fraction in the place
of 23. That is good enough for a descent, and several times faster. It is not good enough to judge an answer that lies
close to the border of a class by construction.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any, Literal, get_args

import jax

from invjax.core.errors import unknown_name

Precision = Literal["default", "high", "highest", "bfloat16", "tensorfloat32", "float32"]
_FULL = ("highest", "float32")


def check_precision(precision: Precision | None) -> None:
    """Raise BadArgument unless it is one of jax's names for a precision of products, or None."""
    known = get_args(Precision)
    if precision is not None and precision not in known:
        raise unknown_name("precision", precision, known, f"be None or one of {', '.join(known)}")


def products_at(precision: Precision | None) -> AbstractContextManager[Any]:
    """A context in which programs are compiled with this precision; None leaves the one that is set."""
    return nullcontext() if precision is None else jax.default_matmul_precision(precision)


def products_are_rounded(precision: Precision | None = None) -> bool:
    """Whether float32 products lose digits on the default device, at this precision or the one that is set."""
    chosen = precision or jax.config.jax_default_matmul_precision  # type: ignore[attr-defined]
    return _device_rounds() and chosen not in _FULL


def _device_rounds() -> bool:
    return jax.default_backend() != "cpu"


def judging() -> AbstractContextManager[Any]:
    """A context for the programs that judge answers: full float32, where it is not what is computed anyway."""
    return products_at("highest" if products_are_rounded() else None)
