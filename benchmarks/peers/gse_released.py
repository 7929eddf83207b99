"""The released GSE: ``python gse_released.py INPUT.npz THREADS DIR``, DIR a clone of the authors' repository.

INPUT.npz is what ``read_input`` reads. The network is the authors' ResNet20 and the constants are those of their
``attackParams.json`` for targeted CIFAR-10. Images are in [-1, 1], as in their ``main.py``.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from serve import serve
from torch_network import LAYOUTS, Counter, clocked, read_input

FORMATS: dict[str, Any] = dict(zip(LAYOUTS, (torch.contiguous_format, torch.channels_last), strict=True))
TRIAL = {"search_steps": 1, "iters": 12}  # enough of the attack to see which layout is faster


def main() -> None:
    """Load once, then check, choose a layout and attack as asked."""
    path, threads, folder = sys.argv[1:]
    torch.set_num_threads(int(threads))
    task = read_input(torch, path)
    sys.path.insert(0, folder)
    from attacks import GSEAttack  # type: ignore[import-not-found]
    from models import ResNet20  # type: ignore[import-not-found]

    constants = json.loads(Path(folder, "attackParams.json").read_text())["GSE"]["targeted"]["CIFAR10"]
    network = ResNet20()
    network.load_state_dict(task.weights)
    network.eval()
    clean, target = 2 * task.x - 1, task.target

    def attack(layout: str, frozen: bool, batch: int, count: int, **brief: int) -> tuple[float, Any, Counter]:
        # Only the weights change their layout, which convolutions follow: the attack takes views of contiguous images.
        network.requires_grad_(not frozen).to(memory_format=FORMATS[layout])
        made, ended = GSEAttack(network, targeted=True, **{**constants, **brief}), []
        with Counter(torch, network) as counter:

            def all_batches() -> None:
                for rows in torch.arange(count).split(batch):
                    ended.append(made(clean[rows], target[rows]))

            seconds, _ = clocked(torch, all_batches)
        return seconds, torch.cat(ended), counter

    def check() -> dict[str, Any]:
        with torch.no_grad():
            difference = float((network(clean) - task.logits).abs().max())
        return {"difference": difference, "version": torch.__version__, "constants": constants}

    def choose(batch: int) -> dict[str, Any]:
        """Seconds of a short attack on one batch in each layout: the faster of two, after one that warms up."""
        tried: dict[str, list[float]] = {layout: [] for layout in LAYOUTS}
        for _ in range(3):
            for layout, seconds in tried.items():
                seconds.append(attack(layout, True, batch, min(batch, len(clean)), **TRIAL)[0])
        return {"seconds": {layout: min(seconds[1:]) for layout, seconds in tried.items()}}

    def run(layout: str, frozen: bool, batch: int, out: str) -> dict[str, Any]:
        seconds, adversarial, counter = attack(layout, frozen, batch, len(clean))
        with torch.no_grad():
            found = network(adversarial).argmax(1) == target
        delta = (adversarial - clean) / 2  # zero where nothing changed, which a difference in [0, 1] would not be
        np.savez(out, delta=delta.permute(0, 2, 3, 1).numpy(), found=found.numpy())
        return {
            "seconds": seconds,
            "evaluations": counter.gradients / len(clean),
            "forwards": counter.forwards / len(clean),
        }

    serve({"check": check, "choose": choose, "run": run})


if __name__ == "__main__":
    main()
