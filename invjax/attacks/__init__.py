"""Adversarial attacks: each a configuration for :func:`invjax.solve`.

``REGISTRY`` names them all; the protocol tests, the command line and the benchmarks walk it.
"""

from collections.abc import Callable
from typing import Any, Literal

from invjax.attacks.corner_search import CornerSearch
from invjax.attacks.ead import EAD
from invjax.attacks.fmn import FMN
from invjax.attacks.forward_backward import ForwardBackward
from invjax.attacks.fwnucl import FWnucl
from invjax.attacks.gse import GSE
from invjax.attacks.gse_released import GSEPublished, GSEReleased
from invjax.attacks.homotopy import Homotopy
from invjax.attacks.jsma import JSMA
from invjax.attacks.local_search import LocalSearch
from invjax.attacks.one_pixel import OnePixel
from invjax.attacks.pgd import FGSM, PGD
from invjax.attacks.pgd0 import PGD0, SigmaMap
from invjax.attacks.saif import SAIF
from invjax.attacks.sapf import SAPF
from invjax.attacks.sigma_zero import SigmaZero
from invjax.attacks.sparse_rs import SparseRS
from invjax.attacks.sparse_rs_patches import SparseRSFrame, SparseRSPatch
from invjax.attacks.sparsefool import SparseFool
from invjax.attacks.spgd import SparsePGD
from invjax.attacks.strattack import StrAttack
from invjax.core.arguments import kinds_checked
from invjax.core.config import from_registry
from invjax.core.meant import suggest_names

__all__ = [
    "EAD", "FGSM", "FMN", "GSE", "JSMA", "PGD", "PGD0", "REGISTRY", "SAIF", "SAPF", "CornerSearch", "FWnucl",
    "ForwardBackward", "GSEPublished", "GSEReleased", "Homotopy", "LocalSearch", "OnePixel", "SigmaMap", "SigmaZero",
    "SparseFool", "SparsePGD", "SparseRS", "SparseRSFrame", "SparseRSPatch", "StrAttack", "make",
]  # fmt: skip

AttackName = Literal[
    "fgsm", "pgd", "forward-backward", "gse", "gse-released", "gse-published", "strattack", "fwnucl", "homotopy",
    "sapf", "saif", "sigma-zero", "fmn", "pgd0", "sigma-map", "spgd", "ead", "jsma", "sparsefool", "sparse-rs",
    "sparse-rs-patch", "sparse-rs-frame", "corner-search", "one-pixel", "local-search",
]  # fmt: skip
REGISTRY: dict[str, Callable[..., Any]] = {
    # dense
    "fgsm": FGSM,
    "pgd": PGD,
    "forward-backward": ForwardBackward,
    # group-wise sparse
    "gse": GSE,
    "gse-released": GSEReleased,
    "gse-published": GSEPublished,
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


@kinds_checked
def make(name: AttackName, **constants: Any) -> Any:
    """The configuration of the attack called ``name``, with some of its constants replaced.

    Raises BadArgument for an unknown name or a constant that the attack does not have; it lists the known ones.
    """
    return from_registry(REGISTRY, "attack", name, constants)


suggest_names(__name__)
