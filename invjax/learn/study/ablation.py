"""The study over seeds: each method on the same examples, its record, and what is done already read back.

For each seed a network is trained on the set as it is, every method moves the training examples towards the targets
that the policy draws, and a fresh network is trained on what came out, labelled with the targets. It is measured on
the untouched test set. ``other`` (ỹ ≠ y) is the definition of the paper (arXiv 2505.16583): what is learnt comes from
the perturbations alone. ``all`` (ỹ uniform over all classes, so that with two classes half of the examples stay as they
are, rightly labelled) is what its public code does, and what the published tables are to be compared with.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from invjax.core.files import write_atomic
from invjax.engine.folder import describe, digest, open_folder
from invjax.learn.study.methods import run_method
from invjax.learn.study.records import over_seeds, record_of
from invjax.learn.study.study import Study, file_name
from invjax.learn.study.tasks import Task

POLICIES = ("all", "other")


def ablation(
    task: Task,
    names: Sequence[str],
    *,
    seeds: Iterable[int] = (0, 1, 2),
    policy: str = "all",
    folder: Path | None = None,
    keep_networks: bool = False,
    say: Callable[[str], None] = print,
    look: Callable[[Study], None] | None = None,
) -> dict[str, dict[str, Any]]:
    """The methods ``names`` over the seeds: {method: record}, see :func:`invjax.learn.study.records.over_seeds`.

    Args:
      folder: where every training, perturbed set and record stays, and is read from when it is there.
      keep_networks: also make those networks whose records were there, for ``look``.
      say: takes a line per method and seed. look: called with the :class:`Study` of each seed.
    """
    if folder is not None:
        open_folder(folder, manifest_of(task, policy), "runs")
    cells: dict[str, list[dict[str, Any]]] = {name: [] for name in names}
    for seed in seeds:
        own = None if folder is None else folder / f"seed-{seed}"
        study = Study(task, seed, policy, own)
        for name in names:
            path = None if own is None else own / "records" / f"{file_name(name)}.json"
            cell = _read(path)
            if cell is None or keep_networks:
                again, cell = cell, _cell(name, study)
                if again is None:
                    say(_line(name, seed, cell))
                    _save(path, cell)
                cell = cell if again is None else again  # the times of the first run
            cells[name].append(cell)
        if look is not None:
            look(study)
    return {name: over_seeds(rows) for name, rows in cells.items()}


def _cell(name: str, study: Study) -> dict[str, Any]:
    """One method, one seed. What fails is told: the others' numbers are not lost."""
    try:
        return record_of(run_method(name, study), study)
    except ValueError as error:
        if name == "erm":  # all rest on it
            raise
        return {"error": str(error)}


def _read(path: Path | None) -> dict[str, Any] | None:
    return json.loads(path.read_text()) if path is not None and path.is_file() else None


def _save(path: Path | None, cell: dict[str, Any]) -> None:
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, json.dumps(cell, default=float).encode())


def _line(name: str, seed: int, cell: dict[str, Any]) -> str:
    if "error" in cell:
        return f"seed {seed}  {name:24s} failed: {cell['error']}"
    reached = "" if cell["reached"] is None else f"  reached {100 * cell['reached']:.0f} %"
    return (
        f"seed {seed}  {name:24s} accuracy {100 * cell['accuracy']:5.1f}  worst group {100 * cell['wga']:5.1f}"
        f"  {cell['seconds']:6.1f} s{reached}"
    )


def manifest_of(task: Task, policy: str) -> dict[str, Any]:
    """What makes two runs the same; further seeds and methods may join."""
    return {
        "format": 1,
        "task": task.name,
        "policy": policy,
        "moves": task.moves._asdict() | {"gammas": list(task.moves.gammas), "taus": list(task.moves.taus)},
        "optimiser": {name: None if value == math.inf else value for name, value in describe(task.optimiser).items()},
        **{
            name: getattr(task, name)
            for name in ("steps", "batch", "density", "warmup", "upweight", "references", "train")
        },
        **_file_of_weights(task),
    }


def _file_of_weights(task: Task) -> dict[str, Any]:
    if task.weights is None:
        return {}
    return {"size": task.size, "weights": digest(np.frombuffer(task.weights.read_bytes(), np.uint8))}
