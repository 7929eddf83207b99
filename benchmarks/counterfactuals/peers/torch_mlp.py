"""The network of an exchange file in torch."""

from __future__ import annotations

from typing import Any


def torch_network(weights: Any) -> Any:
    """[B, D] or [D] -> probability of class 1, [B, 1] or [1]."""
    import torch

    layers: list[Any] = []
    for kernel, bias in weights:
        layer = torch.nn.Linear(*kernel.shape)
        with torch.no_grad():
            layer.weight.copy_(torch.from_numpy(kernel.T.copy()))
            layer.bias.copy_(torch.from_numpy(bias))
        layers += [layer, torch.nn.ReLU()]
    return torch.nn.Sequential(*layers[:-1], torch.nn.Sigmoid())
