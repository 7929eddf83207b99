"""Peak resident memory while PGD pairs go through 64 lanes: ``python measure_memory.py PAIRS``."""

from __future__ import annotations

import json
import resource
import sys
from pathlib import Path
from typing import Any

import numpy as np

import invjax
from invjax.attacks import PGD
from invjax.models import mnist_cnn


def peak_mib() -> float:
    """Peak resident set of this process, MiB.

    Linux hands ``ru_maxrss`` of the parent process down to its children, so there the kernel's own count is read.
    """
    status = Path("/proc/self/status")
    if status.exists():
        lines = (line.split() for line in status.read_text().splitlines())
        return next(int(words[1]) for words in lines if words[0] == "VmHWM:") / 2**10
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**20 if sys.platform == "darwin" else peak / 2**10


def main(count: int) -> dict[str, Any]:
    """The radius is too small for most pairs, so that nearly every lane works to the end."""
    x = np.random.default_rng(0).random((count, 28, 28, 1), dtype=np.float32)
    label = (np.arange(count) % 10).astype(np.int32)
    result = invjax.solve(
        mnist_cnn(),
        x,
        label,
        target=(label + 1) % 10,
        method=PGD(eps=0.01, step_size=2 / 255),
        lanes=64,
        progress=False,
    )
    exact = {"evaluations": int(np.asarray(result.evaluations).sum()), "found": int(np.asarray(result.found).sum())}
    return {"measured": {"peak_mib": peak_mib()}, "exact": exact}


if __name__ == "__main__":
    print(json.dumps({"where": invjax.__file__, **main(int(sys.argv[1]))}))
