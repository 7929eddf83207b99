"""Counterfactual explanations: each method a configuration for :func:`invjax.solve`, or a plain function.

``REGISTRY`` names the methods; :func:`frontier` gives the whole path of sparsity; ``pcfe``, ``face`` and
``mip_counterfactuals`` are no iterations of one example and so plain functions that share :class:`invjax.Result`;
:func:`certify` proves how good any of the answers is.
"""

from collections.abc import Callable
from typing import Any

from invjax.core.config import from_registry
from invjax.core.errors import BadArgument
from invjax.counterfactuals.cem import CEM as CEM
from invjax.counterfactuals.cfe_l2 import CFEL2 as CFEL2
from invjax.counterfactuals.dice import DiCE as DiCE
from invjax.counterfactuals.dice_genetic import DiCEGenetic as DiCEGenetic
from invjax.counterfactuals.face import face as face
from invjax.counterfactuals.fixed import FixedWeights as FixedWeights
from invjax.counterfactuals.frontier import frontier as frontier
from invjax.counterfactuals.milp import certify as certify
from invjax.counterfactuals.milp import mip_counterfactuals as mip_counterfactuals
from invjax.counterfactuals.parts.proximity import MadL1 as MadL1
from invjax.counterfactuals.parts.proximity import Mahalanobis as Mahalanobis
from invjax.counterfactuals.parts.proximity import SquaredL2 as SquaredL2
from invjax.counterfactuals.parts.proximity import fit_mad as fit_mad
from invjax.counterfactuals.parts.proximity import fit_mahalanobis as fit_mahalanobis
from invjax.counterfactuals.pcfe import pcfe as pcfe
from invjax.counterfactuals.scfe import DCFE as DCFE
from invjax.counterfactuals.scfe import SCFEConfig as SCFEConfig
from invjax.counterfactuals.scfe_released import SCFEReleased as SCFEReleased
from invjax.counterfactuals.wachter import Wachter as Wachter


def SCFE(variant: str = "solved", **constants: Any) -> Any:
    """S-CFE: :class:`SCFEConfig` ("solved", the default) or :class:`SCFEReleased` ("released"), with these constants.

    Raises ValueError for an unknown variant.
    """
    variants = {"solved": SCFEConfig, "released": SCFEReleased}
    if variant not in variants:
        raise BadArgument("variant", f"be one of {', '.join(map(repr, variants))}", variant)
    return variants[variant](**constants)


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


def make(name: str, **constants: Any) -> Any:
    """The configuration of the method called ``name``, with some of its constants replaced.

    Raises ValueError for an unknown name, or a constant that the method does not have.
    """
    return from_registry(REGISTRY, "method", name, constants)
