"""Methods whose constants hold for features of scale 1: standardised columns, or images in [0, 1]."""

from __future__ import annotations

WIDE = 50.0  # box width from which on a feature is not taken for a standardised one


class Standardised:
    """A configuration that says so where it is used on a box of other units; its constants are never changed."""

    def advice(self, width: float | None) -> str | None:
        """What a user should know, if anything. width: that of the box in the middle feature; None: unknown."""
        if width is None or width <= WIDE:
            return None
        return (
            f"{type(self).__name__} has its constants for features of scale 1 (standardised columns, images in [0, 1]),"
            f" but the bounds are {width:.4g} wide: divide x and the bounds, or give constants in these units"
        )
