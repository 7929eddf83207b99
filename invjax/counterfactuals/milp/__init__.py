"""Exact counterfactuals of small ReLU networks by mixed-integer programs (HiGHS through SciPy), and certificates."""

from __future__ import annotations

from invjax.core.meant import suggest_names
from invjax.counterfactuals.milp.certify import Certificate, certify
from invjax.counterfactuals.milp.lof import LofModel, lof_model
from invjax.counterfactuals.milp.network import relu_layers
from invjax.counterfactuals.milp.question import Exact
from invjax.counterfactuals.milp.rows import exact_counterfactual, mip_counterfactuals

__all__ = [
    "Certificate",
    "Exact",
    "LofModel",
    "certify",
    "exact_counterfactual",
    "lof_model",
    "mip_counterfactuals",
    "relu_layers",
]

suggest_names(__name__)
