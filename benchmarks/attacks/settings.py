"""The attacks of the comparison: their constants, and the cost of the released code where it is known.

An entry is a name for ``--attacks``: an attack of the registry and the constants that differ from its defaults. Each
data set has two tables. The default one asks each attack for its best answer within a budget for two CPU cores; the
``FIDELITY`` one has the constants of the released comparison (``attackParams.json`` of the GSE repository). Attacks
with a given number k of units answer another question, "are k enough?": the entry fixes their k, and ``--set`` changes
it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from invjax.campaign import configure
from invjax.core.errors import BadArgument
from invjax.types import Config


class Entry(NamedTuple):
    """One line of the comparison."""

    attack: str  # its name in the registry
    constants: dict[str, Any]  # those that differ from its defaults
    untargeted: dict[str, Any] = {}  # noqa: RUF012 - those that differ again if untargeted
    superpixels: int = 0  # segments per image that it gets as groups; 0 leaves it its own groups
    released: tuple[int, int] | None = None  # most gradients and forward passes per example of the released code


CIFAR10: dict[str, Entry] = {
    "gse": Entry("gse", {}),
    "gse-released": Entry("gse-released", {}, {"phase_one_steps": 30}, released=(2000, 4001)),
    "strattack": Entry("strattack", {"trials": 4, "steps": 60, "retrain_trials": 3}),
    "fwnucl": Entry("fwnucl", {"trials": 4, "steps": 60, "probes": 4}),
    "homotopy": Entry("homotopy", {"eps": 0.5, "steps": 200, "inner_steps": 10, "max_update": 3}),
    "sapf": Entry("sapf", {}),
    "saif": Entry("saif", {"k": 150}, {"k": 75}),
    "sigma-zero": Entry("sigma-zero", {"steps": 60}),
    "fmn": Entry("fmn", {"steps": 60}),
    "fmn-pixel": Entry("fmn", {"steps": 60, "unit": "pixel"}),
    "pgd0": Entry("pgd0", {"k": 90, "restarts": 2, "steps": 50}, {"k": 40}),
    "sigma-map": Entry("sigma-map", {"k": 512, "restarts": 2, "steps": 50}, {"k": 256}),
    "spgd": Entry("spgd", {"k": 60, "steps": 100}, {"k": 20}),
    "spgd-group": Entry("spgd", {"k": 2, "steps": 100, "unit": "window", "patch": 8}, {"k": 1}),
    "ead": Entry("ead", {"trials": 4, "steps": 50, "initial_weight": 0.01}),
    "jsma": Entry("jsma", {}),
    "sparsefool": Entry("sparsefool", {}),
    "one-pixel": Entry("one-pixel", {"k": 5, "population": 100, "generations": 30}),
    "local-search": Entry("local-search", {"rounds": 20}),
    "corner-search": Entry("corner-search", {"samples": 50}),
    "sparse-rs": Entry("sparse-rs", {"k": 90, "queries": 2000, "initial_share": 0.8}, {"k": 40}),
    "sparse-rs-patch": Entry("sparse-rs-patch", {"size": 10, "queries": 2000}, {"size": 6}),
    "sparse-rs-frame": Entry("sparse-rs-frame", {"width": 2, "queries": 2000}, {"width": 1}),
}

# The settings of the released comparison at 32 px (attackParams.json), with upper bounds of its costs.
CIFAR10_FIDELITY: dict[str, Entry] = {
    "gse": CIFAR10["gse-released"],
    "strattack": Entry("strattack", {}, released=(3200, 6400)),
    "fwnucl": Entry("fwnucl", {"eps": 5.0, "trials": 1, "stop_early": "false"}, released=(200, 10200)),
    "homotopy": Entry("homotopy", {}, superpixels=150),
    "sapf": Entry(
        "sapf",
        {
            "initial_weight": 1e-3,
            "trials": 10,
            "rounds": 10,
            "steps": 200,
            "final_steps": 100,
            "decay_every": 50,
            "rho_growth": 1.01,
            "order": "alternate",
        },
        superpixels=150,
        released=(41000, 41000),
    ),
    "saif": Entry("saif", {"k": 50}, {"k": 25}),
    "pgd0": Entry("pgd0", {"k": 90, "restarts": 5, "steps": 200}, released=(1000, 2005)),
    "sparse-rs": Entry(
        "sparse-rs", {"k": 90, "queries": 10000, "initial_share": 0.8, "restarts": 10}, released=(0, 100000)
    ),
}

# 224 px, with budgets for a handful of images on a CPU.
IMAGENET: dict[str, Entry] = {
    "gse": Entry("gse", {}),
    "strattack": Entry("strattack", {"initial_weight": 2.5, "trials": 3, "steps": 60, "retrain_trials": 2}),
    "fwnucl": Entry("fwnucl", {"eps": 5.0, "trials": 3, "steps": 40, "probes": 4}),
    "sigma-zero": Entry("sigma-zero", {"steps": 100}),
    "fmn-pixel": Entry("fmn", {"steps": 100, "unit": "pixel"}),
    "spgd": Entry("spgd", {"k": 1000, "steps": 100}),
    "spgd-group": Entry("spgd", {"k": 20, "steps": 100, "unit": "window", "patch": 8}),
    "saif": Entry("saif", {"k": 5000}),
    "sparse-rs": Entry("sparse-rs", {"k": 1000, "queries": 2000}),
}

IMAGENET_FIDELITY: dict[str, Entry] = {
    "gse": Entry(
        "gse-released",
        {"l2_weight": 0.1, "step_size": 0.05, "phase_one_steps": 50, "far_divisor": 0.9},
        released=(2000, 4001),
    ),
    "strattack": Entry("strattack", {"initial_weight": 2.5}, released=(3200, 6400)),
    "fwnucl": Entry("fwnucl", {"eps": 5.0, "trials": 1, "stop_early": "false"}, released=(200, 10200)),
}


def configuration(entry: Entry, untargeted: bool, settings: Sequence[str]) -> Config:
    """The entry's configuration with the ``NAME=VALUE`` of ``--set`` on top.

    Raises BadArgument for an unknown or bad constant.
    """
    given = {name: value for name, _, value in (setting.partition("=") for setting in settings)}
    try:
        return configure(entry.attack, {**entry.constants, **(entry.untargeted if untargeted else {}), **given})
    except BadArgument as error:
        raise error.renamed("set" if error.name == "constants" else f"--set {error.name}") from None
