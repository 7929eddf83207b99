"""The study over seeds: every method sees the same examples and leaves one record per seed.

The policy draws the targets. "other" (ỹ ≠ y) is the definition of the paper (arXiv 2505.16583): whatever is learnt
comes from the perturbations alone. "all" draws ỹ uniformly over all classes, so that with two classes half of the
examples stay as they are and keep their right label. The paper's public code does that, so "all" is what its published
tables compare with.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from invjax.core.errors import check_seed
from invjax.core.files import write_atomic, writing
from invjax.core.identity import describe, digest
from invjax.core.meant import explained
from invjax.engine.manifest import FORMAT, open_folder, python
from invjax.engine.parts import set_aside
from invjax.learn.study.methods import run_method
from invjax.learn.study.records import over_seeds, record_of
from invjax.learn.study.study import Study, file_name
from invjax.learn.study.tasks import Task, TaskPolicy


@explained
def ablation(
    task: Task,
    names: Sequence[str],
    *,
    seeds: Iterable[int] = (0, 1, 2),
    policy: TaskPolicy = "all",
    folder: Path | None = None,
    keep_networks: bool = False,
    say: Callable[[str], object] = print,
    look: Callable[[Study], None] | None = None,
) -> dict[str, dict[str, Any]]:
    """Run the methods ``names`` over the seeds: {method: record}, see :func:`invjax.learn.study.over_seeds`.

    Args:
      task: the data set with its protocol, from :func:`load_task`.
      names: methods, keys of ``DESCRIPTIONS`` or names of :func:`grid_names`; "erm" must come first.
      seeds: each draws the data, the weights, the order and the targets.
      policy: of the targets, "all" or "other" (see the head of this module).
      folder: keeps every training, perturbed set and record; a later call with the same task reads them back.
      keep_networks: rebuild the networks whose records were read back, because ``look`` needs them.
      say: takes a line per method and seed.
      look: called with the :class:`Study` of each seed after its methods have run.

    Raises:
      ValueError: the folder holds another study, or the first network cannot be trained. A later method that fails is
        reported under the key "error" of its record.
    """
    if folder is not None:
        open_folder(folder, manifest_of(task, policy), "runs", parts=("seed-*",))
    cells: dict[str, list[dict[str, Any]]] = {name: [] for name in names}
    for seed in [check_seed("seeds", seed, 32) for seed in seeds]:
        own = None if folder is None else folder / f"seed-{seed}"
        study = Study(task, seed, policy, own)
        for name in names:
            path = None if own is None else own / "records" / f"{file_name(name)}.json"
            cell = _read(path)
            if cell is None or keep_networks:
                again, cell = cell, one_record(name, study)
                if again is None:
                    say(_line(name, seed, cell))
                    _save(path, cell)
                cell = cell if again is None else again  # the times of the first run
            cells[name].append(cell)
        if look is not None:
            look(study)
    return {name: over_seeds(rows) for name, rows in cells.items()}


def one_record(name: str, study: Study) -> dict[str, Any]:
    """The record of one method on one seed. A failure becomes ``{"error": ...}``, so the other methods go on."""
    try:
        return record_of(run_method(name, study), study)
    except ValueError as error:
        if name == "erm":  # every other method needs its network
            raise
        return {"error": str(error)}


def _read(path: Path | None) -> dict[str, Any] | None:
    """A record, or None. A damaged one is set aside, so that its method is run again."""
    if path is None or not path.is_file():
        return None
    try:
        kept = json.loads(path.read_text())
        if kept["check"] == digest(json.dumps(kept["record"])):
            return kept["record"]
    except (ValueError, KeyError, TypeError, RecursionError):
        pass
    set_aside(path)
    return None


def _save(path: Path | None, cell: dict[str, Any]) -> None:
    if path is not None:
        cell = json.loads(json.dumps(cell, default=float))
        with writing(path.parent, "runs"):
            path.parent.mkdir(parents=True, exist_ok=True)
            write_atomic(path, json.dumps({"record": cell, "check": digest(json.dumps(cell))}).encode())


def _line(name: str, seed: int, cell: dict[str, Any]) -> str:
    if "error" in cell:
        return f"seed {seed}  {name:24s} failed: {cell['error']}"
    reached = "" if cell["reached"] is None else f"  reached {100 * cell['reached']:.0f} %"
    return (
        f"seed {seed}  {name:24s} accuracy {100 * cell['accuracy']:5.1f}  worst group {100 * cell['wga']:5.1f}"
        f"  {cell['seconds']:6.1f} s{reached}"
    )


def manifest_of(task: Task, policy: TaskPolicy) -> dict[str, Any]:
    """What identifies a study in a folder. Further seeds and methods may be added to it."""
    return {
        "format": FORMAT,
        "python": python(),
        "task": task.name,
        "data": digest(task.load, name=task.name),
        "network": digest(_without_paths(task.build), name=task.name),
        "policy": policy,
        "moves": task.moves._asdict() | {"gammas": list(task.moves.gammas), "taus": list(task.moves.taus)},
        "optimiser": {name: None if value == math.inf else value for name, value in describe(task.optimiser).items()},
        **{
            name: getattr(task, name)
            for name in ("steps", "batch", "batch_norm", "density", "warmup", "upweight", "references", "train")
        },
        **_file_of_weights(task),
    }


def _without_paths(build: Callable[..., Any]) -> Any:
    """What builds the network without the place of its weights: their bytes count, below."""
    if not isinstance(build, partial):
        return build
    keywords = {name: value for name, value in build.keywords.items() if not isinstance(value, Path)}
    return build.func, build.args, keywords


def _file_of_weights(task: Task) -> dict[str, Any]:
    if task.weights is None:
        return {}
    return {"size": task.size, "weights": digest(np.frombuffer(task.weights.read_bytes(), np.uint8))}
