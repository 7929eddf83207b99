"""Files of a campaign: labels and targets in, answers and measures out."""

from __future__ import annotations

import csv
import io
import os
from pathlib import Path

import numpy as np

from invjax.campaign.attack import Run
from invjax.campaign.images import ChosenImages
from invjax.campaign.pairs import Pairs
from invjax.core.errors import BadArgument, Words
from invjax.core.files import no_file, write_atomic
from invjax.core.meant import explained
from invjax.core.unpack import Unreadable, read_npy, storable
from invjax.data.images.source import read_npz
from invjax.types import UNTARGETED, Status

_COLUMNS = ("index", "label", "target", "status", "evaluations", "pixels", "clusters", "l2", "d20")


def read_integers(path: str | Path, name: str, keys: tuple[str, ...]) -> np.ndarray:
    """Integers of a ``.npy``, of one of the ``keys`` of an ``.npz``, or of a text file. ValueError naming ``name``."""
    path = Path(path)
    if not os.path.isfile(path):
        raise no_file(name, "be an existing file", path)
    if path.suffix == ".npz":
        arrays = read_npz(path, name, keys)
        if not arrays:
            raise BadArgument(name, f"be an npz with an array {keys[0]!r}", hint=f"{str(path)!r} has none")
        values = next(iter(arrays.values()))
    else:
        try:
            values = read_npy(path) if path.suffix == ".npy" else _read_text(path)
        except (OSError, ValueError) as error:
            reason = str(error) if isinstance(error, Unreadable) else None
            raise BadArgument(name, "be a .npy, .npz or text file of integers", str(path), hint=reason) from error
    if not np.issubdtype(values.dtype, np.integer):
        raise BadArgument(name, "be integers", Words(values.dtype))
    return values


@explained
def write_results(folder: str | Path, run: Run, chosen: ChosenImages, pairs: Pairs) -> None:
    """Write ``results.npz`` and ``results.csv`` (a row per image and target) into an existing ``folder``.

    The npz, for N images and T targets: ``index`` [N] rows of the source, ``label`` [N], ``target`` [N, T] (-1:
    untargeted), ``status`` [N, T], ``evaluations``, ``forwards``, ``acp``, ``anc``, ``l2`` (in [-1, 1] units), ``d20``
    [N, T], ``x`` and ``delta`` [N, T, H, W, C]. Raises OSError where they cannot be written.
    """
    write_atomic(Path(folder) / "results.npz", _npz(run, chosen, pairs.target_table))
    write_atomic(Path(folder) / "results.csv", _csv(run, chosen, pairs.target_table).encode())


def _npz(run: Run, chosen: ChosenImages, target: np.ndarray) -> bytes:
    result, numbers = run.result, run.attempts
    arrays = {
        "index": chosen.index, "label": chosen.labels, "target": target, "status": result.status,
        "evaluations": result.evaluations, "forwards": result.forwards, "acp": numbers.acp, "anc": numbers.anc,
        "l2": numbers.l2, "d20": numbers.d20, "x": result.x, "delta": result.delta,
    }  # fmt: skip
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **{name: storable(name, array) for name, array in arrays.items()})
    return buffer.getvalue()


def _csv(run: Run, chosen: ChosenImages, target: np.ndarray) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(_COLUMNS)
    numbers = run.attempts
    for i, t in np.ndindex(*target.shape):
        wanted = "any" if target[i, t] == UNTARGETED else int(target[i, t])
        status = Status(int(run.result.status[i, t])).name.lower()
        measures = (int(numbers.acp[i, t]), int(numbers.anc[i, t]), f"{numbers.l2[i, t]:.6g}", int(numbers.d20[i, t]))
        writer.writerow(
            (int(chosen.index[i]), int(chosen.labels[i]), wanted, status, int(run.result.evaluations[i, t]), *measures)
        )
    return text.getvalue()


def _read_text(path: Path) -> np.ndarray:
    rows = [[int(word) for word in line.replace(",", " ").split()] for line in path.read_text().splitlines()]
    rows = [row for row in rows if row]
    return np.asarray([row[0] for row in rows] if all(len(row) == 1 for row in rows) else rows)
