"""Plausibility: densities of the classes, each a pytree with ``log_prob(x, label)`` of one point."""

from __future__ import annotations

from invjax.densities.features import FeatureDensity, fit_features
from invjax.densities.flow import Flow, fit_flow
from invjax.densities.gmm import GMM, fit_gmm, from_sklearn
from invjax.densities.hinge import Hinge, hinge, quantiles
from invjax.densities.kde import KDE, fit_kde
from invjax.densities.knn import KNN, fit_knn, gravity_point
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
    "gravity_point",
    "hinge",
    "quantiles",
]
