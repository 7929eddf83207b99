"""Published recipes for perturbed data sets: the generator, the target policy and the treatment of failures.

    recipe = preset("kumano", norm="l2", targets="rand", data="mnist")
    made = make_perturbed_dataset(*recipe[:2], logits, x, y, failures=recipe.failures, key=key)

All act in [0, 1] pixel units. The docstring of a preset says where our generator differs from the released code.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple

from invjax.attacks import PGD
from invjax.core.arguments import kinds_checked
from invjax.core.balls import Norm
from invjax.core.errors import check_choice
from invjax.core.shown import short_repr
from invjax.counterfactuals import FixedWeights, SCFEReleased
from invjax.learn.perturb import Failures, Policy


class Recipe(NamedTuple):
    """The arguments of :func:`~invjax.learn.make_perturbed_dataset` beside the data."""

    generator: PGD | FixedWeights | SCFEReleased
    target_policy: Policy
    failures: Failures

    __repr__ = short_repr


Targets = Literal["rand", "det"]


def ilyas(targets: Targets = "rand") -> Recipe:
    """D_rand and D_det of Ilyas et al. 2019 (CIFAR-10): targeted PGD-l2, ε 0.5, 100 steps of 0.1.

    targets: "rand" draws uniformly from all classes (an example whose target is its own class stays as it is); "det"
    takes the next class.
    """
    policies = {"rand": "all", "det": "next"}
    attack = PGD(eps=0.5, step_size=0.1, steps=100, norm="l2", stop_early=False)
    return Recipe(attack, _of(policies, "targets", targets), "keep")


Data = Literal["mnist", "fashion-mnist", "cifar10"]
KUMANO_EPS: dict[Data, dict[Norm, float]] = {
    "mnist": {"l2": 2.0, "linf": 0.3},
    "fashion-mnist": {"l2": 2.0, "linf": 0.3},
    "cifar10": {"l2": 0.5, "linf": 0.1},
}


def kumano(norm: Norm = "l2", targets: Targets = "rand", data: Data = "mnist") -> Recipe:
    """The natural protocol of Kumano et al. 2024: targeted PGD, 100 steps of ε/5, the point of least loss kept.

    norm: "l2" or "linf" (their code divides the gradient by its largest entry, ours takes its sign). targets: "rand"
    draws uniformly from the other classes, "det" takes the next class. data: "mnist", "fashion-mnist" or "cifar10",
    which decides ε.
    """
    eps = _of(_of(KUMANO_EPS, "data", data), "norm", norm)
    policies = {"rand": "other", "det": "next"}
    attack = PGD(eps=eps, step_size=eps / 5, steps=100, norm=norm, stop_early=False)
    return Recipe(attack, _of(policies, "targets", targets), "keep")


def pcfe_slides(gamma: float = 100.0, tau: float = 1.0, beta: float = 1e-3, steps: int = 100) -> Recipe:
    """p-CFE as defined: ‖x' − x‖² + γL − τ log q + β‖x' − x‖_0 towards another class (needs a density).

    The weights for this data set are not published. The arguments are constants of :class:`FixedWeights` in data units.
    """
    return Recipe(FixedWeights(gamma=gamma, tau=tau, beta=beta, steps=steps), "other", "keep")


def pcfe_released() -> Recipe:
    """The public code at the paper's date (WaterBirds): l0 without a density, λ doubled or halved four times.

    Targets are drawn from both classes, the right one included. A failure enters the set as the clean image with its
    random label. Ours moves pixels both ways, while the released code can only brighten them.
    """
    return Recipe(SCFEReleased(gamma=1.0, tau=0.0, beta=0.5, steps=100, trials=4, step_size=1e-3), "all", "clean")


def waterbirds(method: Literal["pgd-l2", "pgd-linf", "cfe-l2"] = "pgd-l2", steps: int = 100) -> Recipe:
    """The rivals of p-CFE on WaterBirds and SpuCo: "pgd-l2" (ε 3), "pgd-linf" (ε 0.03) or "cfe-l2"; other classes.

    steps: 100 as published, fewer for a small budget; the step size stays ε/5. CFE-l2 is ‖x' − x‖² + γ L with γ = 100
    (the released code minimises the mean of both with Adam).
    """
    recipes = {
        "pgd-l2": PGD(eps=3.0, step_size=0.6, steps=steps, norm="l2", stop_early=False),
        "pgd-linf": PGD(eps=0.03, step_size=0.006, steps=steps, stop_early=False),
        "cfe-l2": FixedWeights(gamma=100.0, steps=steps, penalty="none"),
    }
    return Recipe(_of(recipes, "method", method), "other", "keep")


PresetName = Literal["ilyas", "kumano", "pcfe_slides", "pcfe_released", "waterbirds"]
PRESETS: dict[PresetName, Callable[..., Recipe]] = {
    "ilyas": ilyas,
    "kumano": kumano,
    "pcfe_slides": pcfe_slides,
    "pcfe_released": pcfe_released,
    "waterbirds": waterbirds,
}


@kinds_checked
def preset(name: PresetName, **choices: Any) -> Recipe:
    """The recipe called ``name``. Raises ValueError for an unknown name or choice."""
    return _of(PRESETS, "name", name)(**choices)


def _of(table: Mapping[Any, Any], argument: str, value: str) -> Any:
    return table[check_choice(argument, value, table)]
