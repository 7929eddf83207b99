"""One rule for the numbers of an image: uint8 is 0 … 255, floats are in the data range, all else is refused.

    x = lower + (upper - lower) · pixel / 255                      pixels of 8 bits                              (1)

Any other integers may be pixels, counts or levels of grey of 16 bits. Taken for floats they are far outside of the data
range, where a network still answers, so they are refused by name.
"""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np

from invjax.core.errors import BadArgument

HINT = "give pixels 0 … 255 as uint8, and anything else as floats in the data range"


def are_pixels(dtype: Any, name: str = "x") -> bool:
    """Whether numbers of this type are pixels 0 … 255; False for floats. Raises BadArgument for any other type."""
    if dtype == np.uint8:
        return True
    if not jnp.issubdtype(dtype, jnp.floating):
        raise BadArgument(name, "be floats in the data range, or uint8 pixels", np.dtype(dtype), hint=HINT)
    return False


def check_floats(dtype: Any, name: str = "x", bounds: Any = None) -> None:
    """Raise BadArgument unless numbers of this type are floats, for whoever takes no pixels."""
    if not jnp.issubdtype(dtype, jnp.floating):
        where = "in the data range" if bounds is None else f"in the data range {bounds!r}"
        hint = "of pixels 0 … 255 give x.astype(np.float32) / 255" if dtype == np.uint8 else HINT
        if np.dtype(dtype).kind in "OSU":
            hint = "tables with text go through invjax.recourse.from_predictor, or space.encode of a FeatureSpace"
        raise BadArgument(name, f"be floating point {where}", np.dtype(dtype), hint=hint)


def from_pixels(pixels: Any, lower: Any = 0.0, upper: Any = 1.0) -> Any:
    """(1): uint8 of any shape -> float32 in [lower, upper]. Traceable."""
    xp: Any = np if isinstance(pixels, np.ndarray) else jnp
    lower, upper = (xp.asarray(side, xp.float32) for side in (lower, upper))
    return lower + (upper - lower) * (pixels.astype(xp.float32) / xp.float32(255))
