"""Counterfactual explanations: each method a configuration for :func:`invjax.solve`, or a plain function.

``REGISTRY`` names the methods, and :func:`frontier` gives the whole path of sparsity. :func:`pcfe`, :func:`face` and
:func:`mip_counterfactuals` are no iterations of one example, so they are plain functions that share
:class:`invjax.Result`. :func:`certify` proves how good any of the answers is.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

from invjax.core.arguments import kinds_checked
from invjax.core.config import from_registry
from invjax.core.meant import suggest_names
from invjax.counterfactuals.cem import CEM
from invjax.counterfactuals.cfe_l2 import CFEL2
from invjax.counterfactuals.dice import DiCE
from invjax.counterfactuals.dice_genetic import DiCEGenetic
from invjax.counterfactuals.face import face
from invjax.counterfactuals.fixed import FixedWeights
from invjax.counterfactuals.frontier import frontier
from invjax.counterfactuals.milp import certify, mip_counterfactuals
from invjax.counterfactuals.parts.proximity import MadL1, Mahalanobis, SquaredL2, fit_mad, fit_mahalanobis
from invjax.counterfactuals.pcfe import pcfe
from invjax.counterfactuals.scfe import DCFE, SCFE
from invjax.counterfactuals.scfe_released import SCFEReleased
from invjax.counterfactuals.wachter import Wachter

__all__ = [
    "CEM",
    "CFEL2",
    "DCFE",
    "REGISTRY",
    "SCFE",
    "DiCE",
    "DiCEGenetic",
    "FixedWeights",
    "MadL1",
    "Mahalanobis",
    "SCFEReleased",
    "SquaredL2",
    "Wachter",
    "certify",
    "face",
    "fit_mad",
    "fit_mahalanobis",
    "frontier",
    "make",
    "mip_counterfactuals",
    "pcfe",
]

MethodName = Literal[
    "s-cfe", "s-cfe-released", "wachter", "cfe-l2", "cem", "dcfe", "fixed-weights", "dice", "dice-genetic"
]  # fmt: skip
REGISTRY: dict[str, Callable[..., Any]] = {
    "s-cfe": SCFE,
    "s-cfe-released": SCFEReleased,
    "wachter": Wachter,
    "cfe-l2": CFEL2,
    "cem": CEM,
    "dcfe": DCFE,
    "fixed-weights": FixedWeights,
    "dice": DiCE,
    "dice-genetic": DiCEGenetic,
}


@kinds_checked
def make(name: MethodName, **constants: Any) -> Any:
    """The configuration of the method called ``name``, with some of its constants replaced.

    Raises ValueError for an unknown name, or a constant that the method does not have.
    """
    return from_registry(REGISTRY, "method", name, constants)


suggest_names(__name__)
