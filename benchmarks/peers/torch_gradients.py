"""Bare input gradients of ResNet20 in torch: ``python torch_gradients.py INPUT.npz THREADS``, then requests.

INPUT.npz: ``x`` [B, H, W, C] in [0, 1], ``target`` [B], ``logits`` [B, K] of our network, and ``weight NAME`` for each
weight of the state dict.
"""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import torch
from serve import serve
from torch_network import LAYOUTS, clocked, in_layout, resnet20, value_and_gradient

PREFIX = "weight "


def main() -> None:
    """Load once, then time gradients as asked."""
    path, threads = sys.argv[1:]
    torch.set_num_threads(int(threads))
    with np.load(path) as file:
        arrays = {name: torch.from_numpy(file[name]) for name in file.files}
    weights = {name.removeprefix(PREFIX): value for name, value in arrays.items() if name.startswith(PREFIX)}
    images, target = arrays["x"].permute(0, 3, 1, 2), arrays["target"].long()
    networks = {layout: resnet20(torch, _weights_in(weights, layout)) for layout in LAYOUTS}

    def check() -> dict[str, Any]:
        with torch.no_grad():
            seen = networks[LAYOUTS[0]](images)
        return {"difference": float((seen - arrays["logits"]).abs().max()), "version": torch.__version__}

    def gradients(layout: str, batch: int, calls: int) -> dict[str, Any]:
        rows = torch.arange(batch) % len(images)
        x, wanted = in_layout(torch, images[rows], layout), target[rows]

        def loop() -> None:
            for _ in range(calls):
                value_and_gradient(torch, networks[layout], x, wanted)

        return {"seconds": clocked(torch, loop)[0] / calls}

    serve({"check": check, "gradients": gradients})


def _weights_in(weights: dict[str, Any], layout: str) -> dict[str, Any]:
    """Kernels lie in memory as the images do."""
    return {name: in_layout(torch, value, layout) if value.ndim == 4 else value for name, value in weights.items()}


if __name__ == "__main__":
    main()
