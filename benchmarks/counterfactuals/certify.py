"""``cfe-certify``: the distance of S-CFE from the certified optimum, on the small networks of the cfe protocol.

    min_{x'}  ‖x' − x‖_0  or  ‖x' − x‖_1     subject to  margin of the target at x' >= κ,  x' in the box             (1)

S-CFE minimises neither norm alone, so it runs without plausibility (τ = 0). For l0 it computes the whole frontier
m = 1 … D, and the smallest m with an answer counts. For l1 it minimises ``‖r‖² + β ‖r‖_1`` with several weights β, and
the least l1 norm counts. The mixed-integer program gets the same box and the same κ.
"""

from __future__ import annotations

import argparse
import dataclasses
import time
from typing import Any

import numpy as np

import invjax
from benchmarks.common import check_json, pick, write_json
from benchmarks.counterfactuals.tasks import Task, load_task
from invjax.core.errors import check_number, check_whole
from invjax.counterfactuals import SCFE, certify, frontier
from invjax.counterfactuals.milp import Certificate
from invjax.counterfactuals.milp.domain import Objective
from invjax.types import Status

NORMS: tuple[Objective, ...] = ("l0", "l1")
# (β, first step size, steps): with a larger β the square counts less, and the step has to be shorter.
TRIED = ((10.0, 0.1, 60), (30.0, 0.01, 60), (100.0, 0.01, 200), (1000.0, 0.001, 300))
UNLIMITED = 2**30  # max_changes without a limit


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of this benchmark."""
    parser.add_argument("--data", choices=("wine", "housing"), default="wine")
    parser.add_argument("--n", type=int, default=20, help="the first N test rows")
    parser.add_argument("--norms", default="l0,l1", help="l0, l1 or both")
    parser.add_argument("--kappa", type=float, default=0.05, help="margin, logit units")
    parser.add_argument("--seed", type=int, default=0, help="seed of the network")
    parser.add_argument("--time-limit", type=float, default=60.0, help="seconds of proof per row and norm")
    parser.add_argument("--workers", type=int, default=0, help="processes for the proofs; 0 uses this one")
    parser.add_argument("--json", help="file for the record")
    parser.add_argument("--no-progress", action="store_true")


def sparsest(task: Task, kappa: float) -> tuple[np.ndarray, np.ndarray]:
    """The answers [N, D] of the frontier with the fewest changes, and which rows have one, [N]."""
    size = task.x.shape[1]
    path = frontier(
        task.model, task.x, task.label, target=task.target, max_changes=range(1, size + 1),
        method=SCFE(kappa=kappa), **task.limits,
    )  # fmt: skip
    found = np.asarray(path.status) == Status.FOUND  # [N, M]
    first = np.where(found.any(1), found.argmax(1), 0)
    return np.asarray(path.x)[np.arange(len(first)), first], found.any(1)


def least_l1(task: Task, kappa: float) -> tuple[np.ndarray, np.ndarray]:
    """The answers [N, D] with the least l1 norm over the weights β, and which rows have one, [N]."""
    best, value = task.x.copy(), np.full(len(task.x), np.inf)
    usual = SCFE(kappa=kappa, penalty="l1", max_changes=UNLIMITED, polish=30)
    for beta, size, steps in TRIED:
        config = dataclasses.replace(usual, beta=beta, step_size=size, steps=steps)
        result = invjax.solve(
            task.model, task.x, task.label, target=task.target, method=config, lanes=256, progress=False, **task.limits
        )
        norm = np.where(result.found, np.abs(np.asarray(result.delta, np.float64)).sum(1), np.inf)
        best = np.where((norm < value)[:, None], np.asarray(result.x), best)
        value = np.minimum(value, norm)
    return best, np.isfinite(value)


def judged(certificate: Certificate) -> dict[str, Any]:
    """Counts of certificates, and gaps over the proven rows that have an answer.

    Every row is proven unless its status is "unknown", and ``optimal_share`` is a share of the proven rows. Where the
    bound of a "gap" row is not tight, the gap to the bound counts, so the gaps are upper limits.
    """
    kinds = {kind: int((certificate.status == kind).sum()) for kind in ("optimal", "gap", "infeasible", "unknown")}
    proven = np.isin(certificate.status, ("optimal", "gap", "infeasible"))
    both = proven & np.isfinite(certificate.found) & np.isfinite(certificate.gap)
    gaps, excess = certificate.gap[both], certificate.found[both] - certificate.bound[both]
    good = kinds["optimal"] + kinds["infeasible"]
    return {
        "rows": len(certificate.status),
        **kinds,
        "missed": int((~np.isfinite(certificate.found) & np.isfinite(certificate.optimum)).sum()),
        "optimal_share": good / proven.sum() if proven.any() else float("nan"),
        "mean_gap": float(gaps.mean()) if gaps.size else float("nan"),
        "worst_gap": float(gaps.max()) if gaps.size else float("nan"),
        "mean_excess": float(excess.mean()) if excess.size else float("nan"),
        "worst_excess": float(excess.max()) if excess.size else float("nan"),
        "proof_s": float(certificate.seconds.mean()),
        "proof_s_worst": float(certificate.seconds.max()),
        "per_row": {
            "status": certificate.status.tolist(),
            "found": certificate.found.tolist(),
            "bound": certificate.bound.tolist(),
            "seconds": certificate.seconds.tolist(),
        },
    }


def certified(task: Task, norm: Objective, *, kappa: float, time_limit: float, workers: int = 0) -> dict[str, Any]:
    """Solve, prove and compare for one norm."""
    begin = time.perf_counter()
    points, found = (sparsest if norm == "l0" else least_l1)(task, kappa)
    solve_s = time.perf_counter() - begin
    # Where nothing was found, the row itself is passed: it misses the margin, so the certificate does not count it.
    certificate = certify(
        task.model, task.x, task.label, task.target, np.where(found[:, None], points, task.x), norm=norm, kappa=kappa,
        time_limit=time_limit, workers=workers, **task.limits,
    )  # fmt: skip
    return judged(certificate) | {"solve_s": solve_s}


def run(options: argparse.Namespace) -> int:
    """The benchmark of the command line."""
    check_json(options.json)
    norms = pick("norms", options.norms, NORMS)
    check_number("kappa", options.kappa, lambda value: value >= 0, "a margin >= 0")
    check_number("time_limit", options.time_limit, lambda value: value > 0, "a number of seconds > 0")
    check_whole("workers", options.workers, 0)
    task = load_task(options.data, n=options.n, seed=options.seed)
    sizes = "-".join(str(len(bias)) for _, bias in task.weights or ())
    print(f"{task.name}: {len(task.x)} rows, network {task.x.shape[1]}-{sizes}, accuracy {task.accuracy:.3f}\n")
    print(
        f"{'':4s} {'optimal':>9s} {'gap':>5s} {'missed':>7s} {'unknown':>8s} {'mean gap':>9s} {'worst gap':>10s} "
        f"{'s/proof':>8s} {'worst':>7s}"
    )
    record: dict[str, Any] = {}
    for norm in norms:
        row = certified(task, norm, kappa=options.kappa, time_limit=options.time_limit, workers=options.workers)
        record[norm] = row
        print(
            f"{norm:4s} {row['optimal_share']:9.1%} {row['gap']:5d} {row['missed']:7d} {row['unknown']:8d} "
            f"{row['mean_gap']:9.4f} {row['worst_gap']:10.4f} {row['proof_s']:8.2f} {row['proof_s_worst']:7.2f}",
            flush=True,
        )
    print(
        "\ngaps: (found - proven bound) / bound, over proven rows with an answer; missed: rows with an answer that was "
        "not found"
    )
    settings = {"kappa": options.kappa, "seed": options.seed, "time_limit": options.time_limit, "tried": TRIED}
    write_json(options.json, {"data": task.name, "rows": len(task.x), "settings": settings, "norms": record})
    return 0
