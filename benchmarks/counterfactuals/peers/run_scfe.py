"""The released S-CFE: ``python run_scfe.py EXCHANGE.npz DIR``, DIR a clone of the authors' repository, then requests.

Network and rows are those of the file; the density is the authors' class, with bandwidths that each request gives.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import torch
from exchange import Outcome, read_exchange, write_outcome
from torch_mlp import torch_network

sys.path.append(str(Path(__file__).resolve().parents[2] / "peers"))
from serve import serve  # type: ignore[import-not-found]
from torch_network import clocked  # type: ignore[import-not-found]


def main() -> None:
    """Load once, then explain all rows as often as asked."""
    path, folder = sys.argv[1:]
    sys.path.insert(0, folder)
    from Models import GaussianKDE  # type: ignore[import-not-found]
    from SCFE import APG0_CFE_KDE  # type: ignore[import-not-found]

    given = read_exchange(path)
    network = torch_network(given.weights).requires_grad_(False)
    train_x, test_x = torch.from_numpy(given.train_x), torch.from_numpy(given.test_x)
    lower, upper = torch.from_numpy(given.lower), torch.from_numpy(given.upper)
    target = torch.from_numpy(2 * given.target.astype("int64") - 1)[:, None]
    side = torch.ones_like(lower)

    def explain(bandwidths: list[float], constants: dict[str, Any]) -> Any:
        kdes = [GaussianKDE(train_x[torch.from_numpy(given.train_y == k)], h) for k, h in enumerate(bandwidths)]
        # Without ranges the code takes the box in data units for one of scaled perturbations, where 1 is the whole box.
        ranges = {"range_min": -side, "range_max": side}
        made = APG0_CFE_KDE(network, lower, upper, numclasses=2, kdes=kdes, prox="zero_fixed", **ranges, **constants)
        return made(test_x, target)

    def run(out: str, threads: int, **asked: Any) -> dict[str, Any]:
        torch.set_num_threads(threads)
        seconds, answers = clocked(torch, lambda: explain(**asked))
        versions = {"torch": torch.__version__}
        found = ((network(answers) > 0.5) == (target > 0))[:, 0]
        write_outcome(out, Outcome(answers.double().numpy(), found.numpy(), seconds, 0.0, versions))
        return {"seconds": seconds}

    serve({"run": run})


if __name__ == "__main__":
    main()
