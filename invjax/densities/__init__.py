"""Plausibility: densities of the classes, each a pytree with ``log_prob(x, label)`` of one point.

That method is all that a method of :mod:`invjax` asks for (:class:`invjax.types.Density`). Some densities can do more:

===============================  ===================================================================================
``held_out_log_prob(x, y)``      KDE, KNN, LOF: of many points, each without the reference point that it is
                                 (:class:`invjax.types.HeldOut`); thresholds and ranks of training points need it
``classes``                      all: how many classes they know; ``solve`` refuses a target beyond them
``gravity_point(x, label)``      KNN: the centroid that pulls x
``score(x, label)``              LOF: the hard factor
``anchor(x, label)``             the gravity of the released S-CFE code (:mod:`invjax.densities.released`): the point
                                 that pulls a row throughout its run (:class:`invjax.types.Anchored`)
===============================  ===================================================================================
"""

from __future__ import annotations

from invjax.core.meant import suggest_names
from invjax.densities.features import FeatureDensity, fit_features
from invjax.densities.flow import Flow, fit_flow
from invjax.densities.gmm import GMM, fit_gmm, from_sklearn
from invjax.densities.hinge import Hinge, hinge, quantiles
from invjax.densities.kde import KDE, fit_kde
from invjax.densities.knn import KNN, fit_knn
from invjax.densities.lof import LOF, fit_lof
from invjax.densities.vae import VAE, fit_vae

__all__ = [
    "GMM",
    "KDE",
    "KNN",
    "LOF",
    "VAE",
    "FeatureDensity",
    "Flow",
    "Hinge",
    "fit_features",
    "fit_flow",
    "fit_gmm",
    "fit_kde",
    "fit_knn",
    "fit_lof",
    "fit_vae",
    "from_sklearn",
    "hinge",
    "quantiles",
]

suggest_names(__name__)
