"""Adversarial attacks: each a configuration for :func:`invjax.solve`.

``REGISTRY`` names them all; the protocol tests, the command line and the benchmarks walk it.
"""

from collections.abc import Callable
from typing import Any

from invjax.attacks.corner_search import CornerSearch as CornerSearch
from invjax.attacks.ead import EAD as EAD
from invjax.attacks.fmn import FMN as FMN
from invjax.attacks.forward_backward import ForwardBackward as ForwardBackward
from invjax.attacks.fwnucl import FWnucl as FWnucl
from invjax.attacks.gse import GSE as GSE
from invjax.attacks.gse import GSEConfig as GSEConfig
from invjax.attacks.gse_fast import GSEFastConfig as GSEFastConfig
from invjax.attacks.homotopy import Homotopy as Homotopy
from invjax.attacks.jsma import JSMA as JSMA
from invjax.attacks.local_search import LocalSearch as LocalSearch
from invjax.attacks.one_pixel import OnePixel as OnePixel
from invjax.attacks.pgd import FGSM as FGSM
from invjax.attacks.pgd import PGD as PGD
from invjax.attacks.pgd0 import PGD0 as PGD0
from invjax.attacks.pgd0 import SigmaMap as SigmaMap
from invjax.attacks.saif import SAIF as SAIF
from invjax.attacks.sapf import SAPF as SAPF
from invjax.attacks.sigma_zero import SigmaZero as SigmaZero
from invjax.attacks.sparse_rs import SparseRS as SparseRS
from invjax.attacks.sparse_rs_patches import SparseRSFrame as SparseRSFrame
from invjax.attacks.sparse_rs_patches import SparseRSPatch as SparseRSPatch
from invjax.attacks.sparsefool import SparseFool as SparseFool
from invjax.attacks.spgd import SparsePGD as SparsePGD
from invjax.attacks.strattack import StrAttack as StrAttack
from invjax.core.config import from_registry

REGISTRY: dict[str, Callable[..., Any]] = {
    # dense
    "fgsm": FGSM,
    "pgd": PGD,
    "forward-backward": ForwardBackward,
    # group-wise sparse
    "gse": GSE,
    "strattack": StrAttack,
    "fwnucl": FWnucl,
    "homotopy": Homotopy,
    "sapf": SAPF,
    "saif": SAIF,
    # sparse
    "sigma-zero": SigmaZero,
    "fmn": FMN,
    "pgd0": PGD0,
    "sigma-map": SigmaMap,
    "spgd": SparsePGD,
    "ead": EAD,
    "jsma": JSMA,
    "sparsefool": SparseFool,
    # by queries alone
    "sparse-rs": SparseRS,
    "sparse-rs-patch": SparseRSPatch,
    "sparse-rs-frame": SparseRSFrame,
    "corner-search": CornerSearch,
    "one-pixel": OnePixel,
    "local-search": LocalSearch,
}


def make(name: str, **constants: Any) -> Any:
    """The configuration of the attack called ``name``, with some of its constants replaced.

    Raises ValueError for an unknown name, or a constant that the attack does not have.
    """
    return from_registry(REGISTRY, "attack", name, constants)
