"""Bare input gradients of ResNet20 in torch: ``python torch_gradients.py INPUT.npz THREADS``, then requests.

INPUT.npz is what ``read_input`` reads.
"""

from __future__ import annotations

import sys
from typing import Any

import torch
from serve import serve
from torch_network import LAYOUTS, clocked, in_layout, read_input, resnet20, value_and_gradient, weights_in


def main() -> None:
    """Load once, then time gradients as asked."""
    path, threads = sys.argv[1:]
    torch.set_num_threads(int(threads))
    task = read_input(torch, path)
    networks = {layout: resnet20(torch, weights_in(torch, task.weights, layout)) for layout in LAYOUTS}

    def check() -> dict[str, Any]:
        with torch.no_grad():
            seen = networks[LAYOUTS[0]](task.x)
        return {"difference": float((seen - task.logits).abs().max()), "version": torch.__version__}

    def gradients(layout: str, batch: int, calls: int) -> dict[str, Any]:
        rows = torch.arange(batch) % len(task.x)
        x, wanted = in_layout(torch, task.x[rows], layout), task.target[rows]

        def loop() -> None:
            for _ in range(calls):
                value_and_gradient(torch, networks[layout], x, wanted)

        return {"seconds": clocked(torch, loop)[0] / calls}

    serve({"check": check, "gradients": gradients})


if __name__ == "__main__":
    main()
