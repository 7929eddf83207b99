"""Attacks of adv-lib and Foolbox, as functions (network, images [B, C, H, W] in [0, 1], classes) -> images.

They are called with the constants of ours: equal steps, equal step lengths, no random start, no early end. The classes
are the targets, or the labels where an attack is untargeted. torch is given, so that no import needs it.
"""

from __future__ import annotations

import importlib.util
import sys
import types
from collections.abc import Callable
from typing import Any

Attack = Callable[[Any, Any, Any], Any]


def adv_lib() -> Any:
    """Its module of attacks. It imports two packages that these never use; names in their place will do.

    Raises ImportError.
    """
    for package, name in (("visdom", "Visdom"), ("torchvision", "models")):
        if package not in sys.modules and importlib.util.find_spec(package) is None:
            stand_in: Any = types.ModuleType(package)
            setattr(stand_in, name, object)
            sys.modules[package] = stand_in
    from adv_lib import attacks

    return attacks


def of_adv_lib(name: str, constants: dict[str, Any]) -> Attack | None:
    """One of adv-lib's; None for an attack that it does not have."""
    attacks, steps = adv_lib(), constants["steps"]
    if name == "sigma-zero":
        return lambda network, x, label: attacks.sigma_zero(network, x, label, num_steps=steps)
    if name == "fmn":
        return lambda network, x, target: attacks.fmn(network, x, target, norm=0, targeted=True, steps=steps)
    if name == "pgd-linf":
        options = {"steps": steps, "random_init": False, "relative_step_size": constants["relative_step"]}
        return lambda network, x, target: attacks.pgd_linf(
            network, x, target, constants["eps"], targeted=True, **options
        )
    return None


def of_foolbox(name: str, constants: dict[str, Any]) -> Attack | None:
    """One of Foolbox's; None for an attack that it does not have."""
    import foolbox

    steps = constants["steps"]
    if name == "fmn":
        return _foolbox(foolbox, foolbox.attacks.L0FMNAttack(steps=steps), None)
    if name in ("pgd-linf", "pgd-l2"):
        kind = foolbox.attacks.LinfPGD if name == "pgd-linf" else foolbox.attacks.L2PGD
        made = kind(steps=steps, rel_stepsize=constants["relative_step"], random_start=False)
        return _foolbox(foolbox, made, constants["eps"])
    if name == "ead":
        made = foolbox.attacks.EADAttack(
            binary_search_steps=constants["trials"],
            steps=steps,
            initial_stepsize=constants["step_size"],
            initial_const=constants["initial_weight"],
            regularization=constants["beta"],
            abort_early=False,
        )
        return _foolbox(foolbox, made, None)
    return None


def _foolbox(foolbox: Any, attack: Any, eps: float | None) -> Attack:
    def run(network: Any, x: Any, target: Any) -> Any:
        model = foolbox.PyTorchModel(network, bounds=(0, 1), device=x.device)
        criterion = foolbox.criteria.TargetedMisclassification(target)
        return attack(model, x, criterion, epsilons=eps)[1]

    return run


LIBRARIES = {"adv-lib": of_adv_lib, "Foolbox": of_foolbox}
