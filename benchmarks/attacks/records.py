"""The record of one attack on N images with T targets each, which the attack benchmarks print and write as JSON."""

from __future__ import annotations

from typing import Any

import numpy as np

from benchmarks.common import Timed
from invjax.campaign.pairs import Pairs
from invjax.metrics.attack import measure, summarize
from invjax.types import Result

SHOWN = ("asr", "acp", "anc", "l2", "d20")


def record_of(timed: Timed, pairs: Pairs, x: np.ndarray | None = None) -> dict[str, Any]:
    """The JSON record of a run.

    x: [N·T, *S] the clean inputs, if failures are to count by what was attempted (``Result.attempt``); None counts
      them by their status, as the unchanged image.
    """
    result = timed.result
    count = len(pairs.label)
    changes = result.delta if x is None else attempted(result, x)
    shape = (*pairs.shape, *changes.shape[1:])
    attempts = measure(changes.reshape(shape), result.status.reshape(pairs.shape))
    summary = summarize(attempts)
    evaluations = result.evaluations.reshape(pairs.shape)
    return {
        **summary["all_attempts"],
        "per_example": {
            name: np.asarray(rows).tolist() for name, rows in {**attempts._asdict(), "evaluations": evaluations}.items()
        },
        "successes_only": summary["successes_only"],
        "failures": "as attempted" if x is not None else "by status: the unchanged image",
        "images": pairs.shape[0],
        "targets": list(pairs.offsets) or "untargeted",
        "attempts": summary["attempts"],
        "failed": summary["failed"],
        "already_target": summary["already_target"],
        "evaluations": float(result.evaluations.mean()),
        "forwards": float(result.forwards.mean()),
        "bare_gradient_s": timed.bare_s / timed.lanes,
        "occupancy": timed.occupancy,
        "overhead": timed.overhead,
        "compile_s": timed.compile_s,
        "run_s": timed.run_s,
        "per_example_s": timed.run_s / count,
        "per_example_in_gradients": timed.run_s / timed.bare_s * timed.lanes / count,
    }


def table_of(record: dict[str, Any]) -> dict[str, dict[str, float]]:
    """The part of a record that :func:`invjax.metrics.attack_table` shows."""
    return {name: record[name] for name in SHOWN}


def attempted(result: Result, x: np.ndarray) -> np.ndarray:
    """[N·T, *S]: the change of each success, and the change that each failure last tried."""
    found = np.asarray(result.found).reshape(-1, *(1,) * (np.ndim(x) - 1))
    return np.where(found, result.delta, result.attempt - x)
