"""The same network and images in torch: the gradients alone, and the attacks of adv-lib.

Any torch attack pays at least one gradient per step. So the bare loop, times the gradients that our GSE asks for, is
the floor of whatever torch code has the same constants. torch is not a dependency: without it the part is left out.
"""

from __future__ import annotations

import sys
import time
import types
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from benchmarks.accelerator.log import Log
from benchmarks.accelerator.setting import RESNET20, Missing, Setting
from benchmarks.attacks.settings import Entry, configuration

BATCH = (1024, 4096)
STEPS = 40
EPS = 8 / 255
SECONDS = 3.0  # of a row's run
STATISTICS = ("running_mean", "running_var", "weight", "bias")  # in the order of torch's batch_norm
BLOCKS = [f"layer{stage}.{block}" for stage in (1, 2, 3) for block in (0, 1, 2)]


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


def run(log: Log, setting: Setting) -> None:
    """Milliseconds per gradient in torch, and adv-lib's attacks beside ours at equal steps."""
    torch, device = _torch(setting)
    from safetensors.torch import load_file

    weights = {name: value.to(device) for name, value in load_file(str(setting.file(RESNET20))).items()}
    network = resnet20(torch, weights)
    for lanes in setting.lanes(*BATCH):
        for layout in ("contiguous", "channels last"):
            if log.todo(f"gradients, batch {lanes}, {layout}", SECONDS):
                seconds = _gradients(torch, network, _inputs(torch, setting, lanes, device, layout))
                row = {"batch": lanes, "ms/gradient": 1e3 * seconds / lanes, "gradients/s": lanes / seconds}
                log.add(f"gradients, batch {lanes}, {layout}", **row)
    attacks = _adv_lib()
    (lanes,) = setting.lanes(2048)
    steps = 2 if setting.tiny else STEPS
    for name, entry in (
        ("sigma_zero", Entry("sigma-zero", {"steps": steps})),
        ("fmn", Entry("fmn", {"steps": steps})),
        ("pgd_linf", Entry("pgd", {"steps": steps, "eps": EPS, "stop_early": "false"})),
    ):
        if not log.todo(f"{name}, {steps} steps", SECONDS):
            continue
        x, label, target = _inputs(torch, setting, lanes, device, "contiguous")
        options = {
            "sigma_zero": {"num_steps": steps}, "fmn": {"steps": steps, "norm": 0, "targeted": True},
            "pgd_linf": {"steps": steps, "ε": EPS, "random_init": False, "targeted": True},
        }[name]  # fmt: skip
        targeted = "targeted" in options  # its sigma-zero is not
        call = partial(attacks[name], _module(torch, network), x, target if targeted else label, **options)
        seconds, adversarial = _clocked(torch, call)
        says = network(adversarial).argmax(1)
        reached = float((says == target if targeted else says != label).float().mean())
        pairs = setting.cifar10 if targeted else setting.cifar10._replace(target=None)
        ours = setting.timed(setting.resnet20, pairs, configuration(entry, not targeted, []), lanes, SECONDS)
        theirs = lanes / seconds
        row = {"torch pairs/s": theirs, "torch found": reached, "pairs/s": ours["pairs/s"], "found": ours["found"]}
        log.add(f"{name}, {steps} steps", lanes=lanes, **row, ratio=ours["pairs/s"] / theirs)


def _torch(setting: Setting) -> tuple[Any, Any]:
    try:
        import torch
    except ImportError as error:
        raise Missing("torch is not installed") from error
    if not torch.cuda.is_available() and not setting.tiny:
        raise Missing("torch sees no GPU")
    return torch, torch.device("cuda" if torch.cuda.is_available() else "cpu")


def _adv_lib() -> dict[str, Any]:
    """Its attacks by name. It imports visdom for pictures that are never asked for; a name in its place will do."""
    if "visdom" not in sys.modules:
        stand_in: Any = types.ModuleType("visdom")
        stand_in.Visdom = object
        sys.modules["visdom"] = stand_in
    try:
        from adv_lib import attacks
    except ImportError as error:
        raise Missing(f"adv-lib cannot be imported: {error}") from error
    return {name: getattr(attacks, name) for name in ("sigma_zero", "fmn", "pgd_linf")}


def _module(torch: Any, network: Callable[[Any], Any]) -> Any:
    class Network(torch.nn.Module):
        def forward(self, x: Any) -> Any:
            return network(x)

    return Network()


def _inputs(torch: Any, setting: Setting, count: int, device: Any, layout: str) -> tuple[Any, Any, Any]:
    pairs = setting.cifar10.first(count)
    assert pairs.target is not None
    x = torch.from_numpy(np.ascontiguousarray(pairs.x.transpose(0, 3, 1, 2))).to(device)
    if layout == "channels last":
        x = x.to(memory_format=torch.channels_last)
    return x, *(torch.from_numpy(side.astype(np.int64)).to(device) for side in (pairs.label, pairs.target))


def _clocked(torch: Any, call: Callable[[], Any]) -> tuple[float, Any]:
    """Seconds of the faster of two calls, and what the call gave."""
    times, answer = [], None
    for _ in range(2):
        begin = time.perf_counter()
        answer = call()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        times.append(time.perf_counter() - begin)
    return min(times), answer


def _gradients(torch: Any, network: Callable[[Any], Any], inputs: tuple[Any, Any, Any]) -> float:
    """Seconds of one batched input gradient of the targeted margin, the mean over a loop of attack steps."""
    x, _, target = inputs
    steps = 10

    def loop() -> Any:
        point = x.clone()
        for _ in range(steps):
            point.requires_grad_(True)
            logits = network(point)
            own = logits.gather(1, target[:, None])[:, 0]
            rest = logits.scatter(1, target[:, None], float("-inf")).amax(1)
            (gradient,) = torch.autograd.grad((rest - own).sum(), point)
            point = (point.detach() - 1e-3 * gradient.sign()).clamp_(0, 1)
        return point

    return _clocked(torch, loop)[0] / steps
