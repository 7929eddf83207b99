"""What the torch scripts share: their input, ResNet20 by hand, its input gradients, a clock and a counter.

torch is given, so that no import needs it.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

LAYOUTS = ("contiguous", "channels last")
STATISTICS = ("running_mean", "running_var", "weight", "bias")  # in the order of torch's batch_norm
BLOCKS = [f"layer{stage}.{block}" for stage in (1, 2, 3) for block in (0, 1, 2)]
PREFIX = "weight "


class Input(NamedTuple):
    """The npz that a script is given, as tensors."""

    x: Any  # [N, C, H, W] in [0, 1], contiguous
    label: Any  # [N] int64
    target: Any  # [N] int64
    logits: Any  # [N, K] of our network
    weights: dict[str, Any]  # the state dict


def read_input(torch: Any, path: str) -> Input:
    """Read ``x`` [N, H, W, C], ``label``, ``target``, ``logits`` and, for each weight, ``weight NAME``."""
    with np.load(path) as file:
        arrays = {name: torch.from_numpy(file[name]) for name in file.files}
    weights = {name.removeprefix(PREFIX): value for name, value in arrays.items() if name.startswith(PREFIX)}
    x = arrays["x"].permute(0, 3, 1, 2).contiguous()
    return Input(x, arrays["label"].long(), arrays["target"].long(), arrays["logits"], weights)


def resnet20(torch: Any, weights: dict[str, Any]) -> Callable[[Any], Any]:
    """ResNet20 with option A from a state dict, as a function [B, 3, H, W] in [0, 1] -> logits, in evaluation mode."""
    f = torch.nn.functional

    def conv_bn(x: Any, conv: str, norm: str, stride: int = 1) -> Any:
        x = f.conv2d(x, weights[f"{conv}.weight"], stride=stride, padding=1)
        return f.batch_norm(x, *(weights[f"{norm}.{name}"] for name in STATISTICS))

    def network(x: Any) -> Any:
        x = f.relu(conv_bn((x - 0.5) / 0.5, "conv1", "bn1"))
        for name in BLOCKS:
            stride = 2 if name in ("layer2.0", "layer3.0") else 1
            y = f.relu(conv_bn(x, f"{name}.conv1", f"{name}.bn1", stride))
            y = conv_bn(y, f"{name}.conv2", f"{name}.bn2")
            if stride == 2:
                low = x.shape[1] // 2
                x = f.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, low, low))
            x = f.relu(x + y)
        return f.linear(x.mean((2, 3)), weights["linear.weight"], weights["linear.bias"])

    return network


def module(torch: Any, network: Callable[[Any], Any], weights: dict[str, Any] | None = None) -> Any:
    """A function as a torch module; the weights are its buffers, for code that asks a model for its device."""

    class Network(torch.nn.Module):
        def forward(self, x: Any) -> Any:
            return network(x)

    made = Network()
    for name, value in (weights or {}).items():
        made.register_buffer(name.replace(".", "_"), value)
    return made.eval()


def in_layout(torch: Any, x: Any, layout: str) -> Any:
    """An image batch [B, C, H, W] in one of the memory layouts."""
    return x.contiguous(memory_format=torch.channels_last if layout == LAYOUTS[1] else torch.contiguous_format)


def weights_in(torch: Any, weights: dict[str, Any], layout: str) -> dict[str, Any]:
    """Kernels lie in memory as the images do; convolutions follow their layout."""
    return {name: in_layout(torch, value, layout) if value.ndim == 4 else value for name, value in weights.items()}


def value_and_gradient(torch: Any, network: Callable[[Any], Any], x: Any, target: Any) -> tuple[Any, Any]:
    """The targeted margin of B examples and its input gradient: what one step of any attack costs at least."""
    point = x.detach().requires_grad_(True)
    logits = network(point)
    own = logits.gather(1, target[:, None])[:, 0]
    rest = logits.scatter(1, target[:, None], float("-inf")).amax(1)
    values = rest - own
    (gradient,) = torch.autograd.grad(values.sum(), point)
    return values.detach(), gradient


def clocked(torch: Any, call: Callable[[], Any]) -> tuple[float, Any]:
    """Seconds of a call, and its answer; a GPU has ended its work."""
    begin = time.perf_counter()
    answer = call()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - begin, answer


class Counter:
    """Counts what a module is asked: rows that somebody wants a gradient of, and rows that are only looked at."""

    def __init__(self, torch: Any, network: Any) -> None:
        self._torch, self._network = torch, network
        self.gradients = self.forwards = 0

    def __enter__(self) -> Counter:
        self._handle = self._network.register_forward_pre_hook(self._count)
        return self

    def __exit__(self, *error: object) -> None:
        self._handle.remove()

    def _count(self, network: Any, arguments: tuple[Any, ...]) -> None:
        x = arguments[0]
        if self._torch.is_grad_enabled() and x.requires_grad:
            self.gradients += len(x)
        else:
            self.forwards += len(x)
