"""Figures from results. matplotlib is loaded by the first figure, not by this import (extra ``demo``)."""

from invjax.core.meant import suggest_names
from invjax.viz.attacks import comparison, score_curves
from invjax.viz.counterfactuals import plane, sparsity, ways
from invjax.viz.figures import grid, trace
from invjax.viz.learning import magnified, panels, perturbed, worst_groups
from invjax.viz.pixels import perturbation_pixels, picture_pixels, support_pixels
from invjax.viz.showing import show

__all__ = [
    "comparison",
    "grid",
    "magnified",
    "panels",
    "perturbation_pixels",
    "perturbed",
    "picture_pixels",
    "plane",
    "score_curves",
    "show",
    "sparsity",
    "support_pixels",
    "trace",
    "ways",
    "worst_groups",
]

suggest_names(__name__)
