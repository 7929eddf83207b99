"""Figures of the attack comparison: curves of the interpretability score, and a grid of pictures."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.attacks import published
from invjax.campaign import ChosenImages
from invjax.campaign.pairs import Pairs
from invjax.viz import comparison, score_curves

SHOWN = 4  # images of the grid, each with one target
TITLES = {"gse": "GSE", "strattack": "StrAttack", "fwnucl": "FWnucl", "saif": "SAIF"}  # those of the published curves


def write(
    folder: Path,
    images: ChosenImages,
    pairs: Pairs,
    changes: dict[str, np.ndarray],
    records: dict[str, dict[str, Any]],
    maps: np.ndarray | None,
    names: Sequence[str] | None = None,
) -> list[Path]:
    """Write ``scores.png`` (if the records have scores) and ``pictures.png`` to ``folder``; return their paths.

    changes: attack -> [N·T, H, W, C]. maps: [n, H, W] Grad-CAM of the first n <= :data:`SHOWN` images, or None.
    """
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    scores = {
        name: record["interpretability"]["none"] for name, record in records.items() if "interpretability" in record
    }
    if scores:
        first = next(iter(scores.values()))
        figure = score_curves(
            {TITLES.get(name, name): one["mean"] for name, one in scores.items()},
            first["percentiles"], first["chance"], published.CIFAR10_IS if images.images.shape[1] == 32 else None,
        )  # fmt: skip
        written.append(folder / "scores.png")
        figure.savefig(written[-1])
    rows = np.arange(min(SHOWN, pairs.shape[0]))
    picked = rows * pairs.shape[1] + rows % pairs.shape[1]  # another target for each image
    figure = comparison(
        images.images[rows],
        {TITLES.get(name, name): change[picked] for name, change in changes.items()},
        titles=[_title(images, pairs, int(row), int(pair), names) for row, pair in zip(rows, picked, strict=True)],
        maps=maps,
    )
    written.append(folder / "pictures.png")
    figure.savefig(written[-1])
    return written


def _title(images: ChosenImages, pairs: Pairs, row: int, pair: int, names: Sequence[str] | None) -> str:
    def name(label: int) -> str:
        return names[label] if names is not None else str(label)

    own = name(int(images.labels[row]))
    return own if pairs.target is None else f"{own}\n→ {name(int(pairs.target[pair]))}"
