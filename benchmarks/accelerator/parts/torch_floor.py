"""The same network and images in torch: the gradients alone, and the attacks of adv-lib.

Any torch attack pays at least one gradient per step. So the bare loop, times the gradients that our GSE asks for, is
the floor of whatever torch code has the same constants. torch is not a dependency: without it the part is left out.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial
from typing import Any

import numpy as np

from benchmarks.accelerator.log import Log, Missing
from benchmarks.accelerator.setting import RESNET20, SECONDS, Setting
from benchmarks.attacks.settings import Entry, configuration
from benchmarks.peers.torch_attacks import adv_lib
from benchmarks.peers.torch_network import LAYOUTS, clocked, in_layout, module, resnet20, value_and_gradient

BATCH = (4096, 1024)  # by worth, as all that follows
ATTACKS = ("sigma_zero", "fmn", "pgd_linf")
STEPS = 40
EPS = 8 / 255


def run(log: Log, setting: Setting) -> None:
    """Milliseconds per gradient in torch, and adv-lib's attacks beside ours at equal steps."""
    torch, device = _torch(setting)

    @cache
    def network() -> Callable[[Any], Any]:
        from safetensors.torch import load_file

        weights = load_file(str(setting.file(RESNET20)))
        return resnet20(torch, {name: value.to(device) for name, value in weights.items()})

    def gradients(lanes: int, layout: str) -> None:
        def measure() -> dict[str, float]:
            seconds = _gradients(torch, network(), _inputs(torch, setting, lanes, device, layout))
            return {"batch": lanes, "ms/gradient": 1e3 * seconds / lanes, "gradients/s": lanes / seconds}

        log.row(f"gradients, batch {lanes}, {layout}", 0.0, measure)

    def attack(name: str) -> None:
        steps = 2 if setting.tiny else STEPS
        (lanes,) = setting.lanes(2048)
        log.row(
            f"{name}, {steps} steps", SECONDS, lambda: _beside(name, steps, lanes, torch, device, network(), setting)
        )

    first, *others = [(lanes, layout) for lanes in setting.lanes(*BATCH) for layout in reversed(LAYOUTS)]
    gradients(*first)
    for name in ATTACKS:
        attack(name)
    for lanes, layout in others:
        gradients(lanes, layout)


def _beside(
    name: str, steps: int, lanes: int, torch: Any, device: Any, network: Callable[[Any], Any], setting: Setting
) -> dict[str, Any]:
    """Pairs per second of an attack of adv-lib and of ours, on the same images and targets, all at once."""
    theirs_of, constants = _adv_lib()[name], {"steps": steps}
    x, label, target = _inputs(
        torch, setting, lanes, device, LAYOUTS[0]
    )  # adv-lib projects views in place, which other layouts have not
    options, entry = {
        "sigma_zero": ({"num_steps": steps}, Entry("sigma-zero", constants)),
        "fmn": ({"steps": steps, "norm": 0, "targeted": True}, Entry("fmn", constants)),
        "pgd_linf": (
            {"steps": steps, "ε": EPS, "random_init": False, "targeted": True},
            Entry("pgd", constants | {"eps": EPS, "stop_early": "false"}),
        ),
    }[name]
    targeted = "targeted" in options  # its sigma-zero is not
    call = partial(theirs_of, module(torch, network), x, target if targeted else label, **options)
    seconds, adversarial = _fastest(torch, call)
    says = network(adversarial).argmax(1)
    reached = float((says == target if targeted else says != label).float().mean())
    pairs = setting.cifar10 if targeted else setting.cifar10._replace(target=None)
    ours = setting.timed(setting.resnet20, pairs, configuration(entry, not targeted, []), lanes, rounds=1)
    theirs = lanes / seconds
    return {
        "lanes": lanes, "torch pairs/s": theirs, "torch found": reached, "pairs/s": ours["pairs/s"],
        "found": ours["found"], "ratio": ours["pairs/s"] / theirs, "run s": ours["run s"],
    }  # fmt: skip


def _torch(setting: Setting) -> tuple[Any, Any]:
    try:
        import torch
    except ImportError as error:
        raise Missing("torch is not installed") from error
    if not torch.cuda.is_available() and not setting.tiny:
        raise Missing("torch sees no GPU")
    return torch, torch.device("cuda" if torch.cuda.is_available() else "cpu")


def _adv_lib() -> dict[str, Any]:
    """Its attacks by name."""
    try:
        attacks = adv_lib()
    except ImportError as error:
        raise Missing(f"adv-lib cannot be imported: {error}") from error
    return {name: getattr(attacks, name) for name in ATTACKS}


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
