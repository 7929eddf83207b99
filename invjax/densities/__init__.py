"""Plausibility: densities of the classes, each a pytree with ``log_prob(x, label)`` of one point."""

from __future__ import annotations

from invjax.densities.hinge import Hinge, hinge, quantiles
from invjax.densities.kde import KDE, fit_kde

__all__ = ["KDE", "Hinge", "fit_kde", "hinge", "quantiles"]
