"""The same network and images in torch: the gradients alone, and the attacks of adv-lib.

Any torch attack pays at least one gradient per step. So the bare loop, times the gradients that our GSE asks for, is
the floor of whatever torch code has the same constants. torch is not a dependency: without it the part is left out.
"""

from __future__ import annotations

import sys
import types
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from benchmarks.accelerator.log import Log
from benchmarks.accelerator.setting import RESNET20, Missing, Setting
from benchmarks.attacks.settings import Entry, configuration
from benchmarks.peers.torch_network import LAYOUTS, clocked, in_layout, module, resnet20, value_and_gradient

BATCH = (1024, 4096)
STEPS = 40
EPS = 8 / 255
SECONDS = 3.0  # of a row's run


def run(log: Log, setting: Setting) -> None:
    """Milliseconds per gradient in torch, and adv-lib's attacks beside ours at equal steps."""
    torch, device = _torch(setting)
    from safetensors.torch import load_file

    weights = {name: value.to(device) for name, value in load_file(str(setting.file(RESNET20))).items()}
    network = resnet20(torch, weights)
    for lanes in setting.lanes(*BATCH):
        for layout in LAYOUTS:
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
        x, label, target = _inputs(torch, setting, lanes, device, LAYOUTS[0])
        options = {
            "sigma_zero": {"num_steps": steps}, "fmn": {"steps": steps, "norm": 0, "targeted": True},
            "pgd_linf": {"steps": steps, "ε": EPS, "random_init": False, "targeted": True},
        }[name]  # fmt: skip
        targeted = "targeted" in options  # its sigma-zero is not
        call = partial(attacks[name], module(torch, network), x, target if targeted else label, **options)
        seconds, adversarial = _fastest(torch, call)
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


def _inputs(torch: Any, setting: Setting, count: int, device: Any, layout: str) -> tuple[Any, Any, Any]:
    pairs = setting.cifar10.first(count)
    assert pairs.target is not None
    x = torch.from_numpy(np.ascontiguousarray(pairs.x.transpose(0, 3, 1, 2))).to(device)
    return in_layout(torch, x, layout), *(
        torch.from_numpy(side.astype(np.int64)).to(device) for side in (pairs.label, pairs.target)
    )


def _fastest(torch: Any, call: Callable[[], Any]) -> tuple[float, Any]:
    """Seconds of the faster of two calls, and what the call gave."""
    (first, _), (second, answer) = clocked(torch, call), clocked(torch, call)
    return min(first, second), answer


def _gradients(torch: Any, network: Callable[[Any], Any], inputs: tuple[Any, Any, Any]) -> float:
    """Seconds of one batched input gradient of the targeted margin, the mean over a loop of attack steps."""
    x, _, target = inputs
    steps = 10

    def loop() -> Any:
        point = x
        for _ in range(steps):
            _, gradient = value_and_gradient(torch, network, point, target)
            point = (point - 1e-3 * gradient.sign()).clamp_(0, 1)
        return point

    return _fastest(torch, loop)[0] / steps
