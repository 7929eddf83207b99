"""Where the perturbations of a comparison lie: interpretability score, and overlap with Grad-CAM."""

from __future__ import annotations

from typing import Any

import numpy as np

from invjax.attribution import INDICATORS, grad_cams
from invjax.campaign import ChosenImages
from invjax.campaign.pairs import Pairs
from invjax.metrics.attribution import interpretability, summarize_curve
from invjax.metrics.attribution_overlap import measure_overlap, summarize_overlap
from invjax.types import LogitsFn


def attribution_record(
    logits: LogitsFn,
    images: ChosenImages,
    pairs: Pairs,
    changes: np.ndarray,
    status: np.ndarray,
    batch: int,
    as_tried: bool,
) -> dict[str, Any]:
    """The score under each indicator, and the overlap with Grad-CAM of the label, over successes.

    changes: [N·T, H, W, C]. status: [N·T]. as_tried: failures count as well, by what they tried.
    """
    shape = pairs.shape
    delta, state = changes.reshape(*shape, *changes.shape[1:]), status.reshape(shape)
    target = None if pairs.target is None else pairs.target.reshape(shape)
    options: dict[str, Any] = {"batch": batch, "convention": "all_attempts" if as_tried else "successes_only"}
    curves = {
        indicator: interpretability(
            logits, images.images, images.labels, delta, state, target, indicator=indicator, **options
        )
        for indicator in INDICATORS
    }
    maps = grad_cams(logits, images.images, images.labels, batch=batch)
    return {
        "interpretability": {indicator: summarize_curve(curve) for indicator, curve in curves.items()},
        "grad_cam": summarize_overlap(measure_overlap(delta, maps, state, **options)),
    }


def print_scores(records: dict[str, dict[str, Any]]) -> None:
    """Both tables of :func:`attribution_record`."""
    first = next(iter(records.values()))["interpretability"]["none"]
    at = [f"{p:5.0f}" for p in first["percentiles"]]
    print(f"\ninterpretability score (no indicator)  P = {'  '.join(at)}    with 'and', P = 90    attempts")
    for name, record in records.items():
        plain, both = (record["interpretability"][indicator] for indicator in ("none", "and"))
        scores = "  ".join(f"{v:5.3f}" for v in plain["mean"])
        print(f"{name:38s}     {scores}    {both['mean'][-1]:19.3f}    {plain['counted']:8d}")
    print(f"{'chance':38s}     " + "  ".join(f"{v:5.3f}" for v in first["chance"]))
    print("\nGrad-CAM of the label: share of |r|² on the top quarter of the map, IoU of map > 0.5 and changed pixels,")
    print("whether the map's peak is changed, share of the map on changed pixels (by chance: the share of pixels)")
    for name, record in records.items():
        cam = record["grad_cam"]
        print(
            f"{name:20s}  mass {cam['mass']:.3f}  IoU {cam['iou']:.3f}  peak {cam['pointing']:.3f}  "
            f"energy {cam['energy']:.3f}  pixels {cam['support']:.3f}"
        )
