"""Adversarial attacks: each a configuration for :func:`invjax.solve`.

``REGISTRY`` names them all; the protocol tests, the command line and the benchmarks walk it.
"""

from collections.abc import Callable
from typing import Any

from invjax.attacks.forward_backward import ForwardBackward as ForwardBackward
from invjax.attacks.gse import GSE as GSE
from invjax.attacks.gse import GSEConfig as GSEConfig
from invjax.attacks.gse_fast import GSEFastConfig as GSEFastConfig
from invjax.attacks.pgd import FGSM as FGSM
from invjax.attacks.pgd import PGD as PGD
from invjax.config import from_registry

REGISTRY: dict[str, Callable[..., Any]] = {
    "fgsm": FGSM,
    "pgd": PGD,
    "forward-backward": ForwardBackward,
    "gse": GSE,
}


def make(name: str, **constants: Any) -> Any:
    """The configuration of the attack called ``name``, with some of its constants replaced.

    Raises ValueError for an unknown name, or a constant that the attack does not have.
    """
    return from_registry(REGISTRY, "attack", name, constants)
