"""Attacks of adv-lib and Foolbox on a task: ``python run_attacks.py INPUT.npz THREADS``, then requests.

INPUT.npz is what ``read_input`` reads.
"""

from __future__ import annotations

import importlib.metadata
import sys
from typing import Any

import numpy as np
import torch
from serve import serve
from torch_attacks import LIBRARIES
from torch_network import LAYOUTS, Counter, clocked, module, read_input, resnet20, value_and_gradient, weights_in


def main() -> None:
    """Load once, choose the faster layout of the weights, then attack as asked."""
    path, threads = sys.argv[1:]
    torch.set_num_threads(int(threads))
    task = read_input(torch, path)
    networks = {
        layout: module(torch, resnet20(torch, weights_in(torch, task.weights, layout)), task.weights)
        for layout in LAYOUTS
    }

    def check(batch: int) -> dict[str, Any]:
        x, target = task.x[:batch], task.target[:batch]
        seconds: dict[str, list[float]] = {layout: [] for layout in LAYOUTS}
        for _ in range(4):
            for layout, taken in seconds.items():
                taken.append(clocked(torch, lambda at=layout: value_and_gradient(torch, networks[at], x, target))[0])
        with torch.no_grad():
            difference = float((networks[LAYOUTS[0]](task.x) - task.logits).abs().max())
        versions = {"torch": torch.__version__}
        for name in ("adv-lib", "foolbox"):
            try:
                versions[name] = importlib.metadata.version(name)
            except importlib.metadata.PackageNotFoundError:
                versions[name] = "not installed"
        return {
            "difference": difference,
            "layouts": {at: min(taken[1:]) for at, taken in seconds.items()},
            "versions": versions,
        }

    def run(library: str, name: str, layout: str, batch: int, out: str, constants: dict[str, Any]) -> dict[str, Any]:
        attack = LIBRARIES[library](name, constants)
        if attack is None:
            return {"missing": True}
        untargeted, network, ended = name == "sigma-zero", networks[layout], []
        classes = task.label if untargeted else task.target

        def all_batches() -> None:
            for rows in torch.arange(len(task.x)).split(batch):
                ended.append(attack(network, task.x[rows], classes[rows]))

        with Counter(torch, network) as counter:
            seconds, _ = clocked(torch, all_batches)
        adversarial = torch.cat(ended).detach()
        with torch.no_grad():
            says = network(adversarial).argmax(1)
        found = (says != classes) if untargeted else (says == classes)
        found &= adversarial.flatten(1).any(1)  # Foolbox's EAD answers with a black image where it finds nothing
        delta = (adversarial - task.x).permute(0, 2, 3, 1)
        np.savez(out, delta=delta.numpy(), found=found.numpy())
        asked = {"evaluations": counter.gradients, "forwards": counter.forwards}
        return {"seconds": seconds, **{key: number / len(task.x) for key, number in asked.items()}}

    serve({"check": check, "run": run})


if __name__ == "__main__":
    main()
