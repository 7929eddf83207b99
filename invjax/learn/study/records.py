"""The records of the study: one method on one seed, and the same method over several seeds."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy import special

from invjax.core.errors import BadArgument
from invjax.learn import evaluate
from invjax.learn.study.study import MethodRun, Study
from invjax.metrics import wilson_interval

RATES = ("accuracy", "wga", "group_mean", "train_weighted")
COSTS = ("steps", "seconds", "perturb_s", "train_s", "evaluations", "reached", "dropped")


def record_of(run: MethodRun, study: Study) -> dict[str, Any]:
    """The record of one method on one seed: accuracies on the test set with their intervals, and costs."""
    test, made = study.test, run.made
    found = evaluate(
        run.model, test.x, test.y, test.group, num_groups=len(test.groups), train_groups=study.train.group,
        batch=64, empty="skip",
    )  # fmt: skip
    return {
        **found.to_dict(test.groups),
        "steps": run.steps,
        "seconds": run.perturb_s + run.train_s,
        "perturb_s": run.perturb_s,
        "train_s": run.train_s,
        "evaluations": 0.0 if made is None else float(made.evaluations.mean()),
        "reached": None if made is None else made.reached,
        "dropped": 0 if made is None else made.dropped,
        "examples": len(study.train) if made is None else len(made.y),
        **run.notes,
    }


def t_interval(values: Sequence[float], confidence: float = 0.95) -> tuple[float, float]:
    """Student's t interval for the mean of N >= 2 shares, clipped to [0, 1]."""
    count = len(values)
    if count < 2:
        raise BadArgument("values", "hold at least 2 numbers", count)
    half = special.stdtrit(count - 1, (1 + confidence) / 2) * np.std(values, ddof=1) / math.sqrt(count)
    mean = float(np.mean(values))
    return max(0.0, mean - float(half)), min(1.0, mean + float(half))


def over_seeds(cells: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Merge the records of one method: means over its seeds with Student's t intervals. One seed keeps its own.

    Keys: ``accuracy``, ``wga`` (worst-group accuracy), ``group_mean`` and ``train_weighted``, each with an interval
    ``…_ci`` (None if unknown); ``groups`` (name -> accuracy, interval, count); ``worst_groups`` (one per seed); costs;
    and ``seeds``, the records given. A seed that failed has the key ``error``. If all failed, so has the result.
    """
    good = [cell for cell in cells if "error" not in cell]
    if not good:
        return {"error": cells[0]["error"], "seeds": list(cells)}
    merged: dict[str, Any] = {}
    for name in RATES:
        values = [cell[name] for cell in good if cell[name] is not None]
        merged[name] = float(np.mean(values)) if values else None
        merged[f"{name}_ci"] = list(t_interval(values)) if len(values) > 1 else None
    if len(good) == 1:
        correct, count = (sum(g[key] for g in good[0]["groups"].values()) for key in ("correct", "count"))
        merged["accuracy_ci"] = [float(end) for end in wilson_interval(correct, count)]
        merged["wga_ci"] = good[0]["wga_ci"]
    merged["groups"] = {name: _group([cell["groups"][name] for cell in good]) for name in good[0]["groups"]}
    merged["worst_groups"] = [cell["worst_group"] for cell in good]
    for name in COSTS:
        values = [cell[name] for cell in good if cell[name] is not None]
        merged[name] = float(np.mean(values)) if values else None
    merged["steps"] = int(merged["steps"])
    return merged | {"seeds": list(cells)}


def _group(cells: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """One group over the seeds."""
    known = [cell for cell in cells if cell["accuracy"] is not None]
    if not known:
        return {"accuracy": None, "interval": [None, None], "count": 0}
    values = [cell["accuracy"] for cell in known]
    interval = known[0]["interval"] if len(known) == 1 else list(t_interval(values))
    return {"accuracy": float(np.mean(values)), "interval": interval, "count": int(known[0]["count"])}


def percent(value: float | None, interval: Sequence[float | None] | None, seeds: int) -> str:
    """``85.7 ± 1.4`` for several seeds, ``85.7 [83.1, 88.0]`` for one."""
    if value is None:
        return "–"
    if interval is None or None in interval:
        return f"{100 * value:.1f}"
    low, high = (100 * float(end) for end in interval if end is not None)
    # Clipped at 0 or 1 the interval is lopsided: show its wider side.
    if seeds > 1:
        return f"{100 * value:.1f} ± {max(high - 100 * value, 100 * value - low):.1f}"
    return f"{100 * value:.1f} [{low:.1f}, {high:.1f}]"


def table_row(name: str, merged: dict[str, Any]) -> dict[str, str]:
    """One method as a line of the table, formatted."""
    if "error" in merged:
        return {"method": name, "accuracy %": "failed", "worst group %": "", "note": merged["error"]}
    seeds = sum("error" not in cell for cell in merged["seeds"])
    reached = merged["reached"]
    return {
        "method": name,
        "accuracy %": percent(merged["accuracy"], merged["accuracy_ci"], seeds),
        "worst group %": percent(merged["wga"], merged["wga_ci"], seeds),
        "group mean": percent(merged["group_mean"], None, seeds),
        "as in training": percent(merged["train_weighted"], None, seeds),
        "reached": "" if reached is None else f"{100 * reached:.0f} %",
        "gradients": f"{merged['evaluations']:.0f}" if merged["evaluations"] else "",
        "steps": str(merged["steps"]),
        "perturb, s": f"{merged['perturb_s']:.1f}" if merged["perturb_s"] else "",
        "train, s": f"{merged['train_s']:.1f}",
    }
