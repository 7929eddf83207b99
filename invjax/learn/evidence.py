"""Do networks look at the object, and do perturbations change it? Shares of maps and changes on known masks.

For an object's mask s [H, W], a network's class activation map A >= 0 and a perturbation r [H, W, C] of the image,

    energy = Σ_s A / Σ A        pointing = [argmax A in s]        iou = |s ∩ [A > 1/2]| / |s ∪ [A > 1/2]|          (1)
    mass   = Σ_s ‖r_ij‖² / Σ ‖r_ij‖²                                                                               (2)

as defined in :mod:`invjax.metrics.attribution_overlap`. A map or change unrelated to the object has energy, pointing
and mass |s| / H W on average. This is the level of ``chance``, and only a share above it counts. An image with a
constant map, or one that a method left unchanged, has no share. Their number is reported, because they may be the hard
ones.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from invjax.attribution import grad_cams
from invjax.core.errors import BadArgument, Words
from invjax.core.rows import BATCH, map_rows
from invjax.core.shown import short_repr
from invjax.metrics.attribution_overlap import energy_inside, iou, mass_inside, pointing_game
from invjax.metrics.group import wilson_interval
from invjax.metrics.mean import Mean, bootstrap_mean
from invjax.types import Array


class CamEvidence(NamedTuple):
    """(1) of one network over a list of images."""

    energy: Mean  # bootstrap intervals
    pointing: Mean  # Wilson's interval
    iou: Mean
    above: Mean  # energy minus |s| / H W, image by image
    chance: float  # mean |s| / H W of the images that count
    undefined: int  # images with a constant map
    maps: np.ndarray  # [N, H, W] in [0, 1]

    __repr__ = short_repr

    def to_dict(self) -> dict[str, Any]:
        """All but the maps, as plain numbers."""
        return _plain_fields(self, "maps")


class MassEvidence(NamedTuple):
    """(2) of one method over a list of images."""

    mass: Mean  # bootstrap interval
    above: Mean  # mass minus |s| / H W, image by image
    chance: float  # mean |s| / H W of the images that count
    unmoved: int  # images without a change

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers."""
        return _plain_fields(self)


def _plain_fields(record: Any, *left_out: str) -> dict[str, Any]:
    """The fields as plain numbers for JSON, None for NaN."""
    fields = {name: value for name, value in record._asdict().items() if name not in left_out}
    return {
        name: value.to_dict() if isinstance(value, Mean) else None if np.isnan(value) else value
        for name, value in fields.items()
    }


def cam_evidence(
    models: Mapping[str, Any], x: Any, mask: Any, label: Any = None, *, batch: int = BATCH, confidence: float = 0.95
) -> dict[str, CamEvidence]:
    """Where each network looks, by Grad-CAM.

    Args:
      models: name -> a network with ``features`` and ``head``, see :func:`invjax.attribution.split`.
      x: [N, H, W, C] images in the data range. mask: [N, H, W] bool, True on the object.
      label: [N] int, the class in question; None takes each network's own prediction, as is usual.

    Raises:
      ValueError: shapes that do not fit, or a network that cannot be split.
    """
    images = np.asarray(x)
    objects = _masks(mask, len(images), images.shape[1:3])
    out = {}
    for name, model in models.items():
        maps = np.asarray(grad_cams(model, images, label, batch=batch))
        energy, hits, overlap = map_rows(_cam_shares, None, maps, objects, batch=batch)
        known = np.isfinite(energy)
        share = objects.mean((1, 2))
        out[name] = CamEvidence(
            energy=bootstrap_mean(energy, confidence),
            pointing=_rate(hits[np.isfinite(hits)], confidence),
            iou=bootstrap_mean(np.where(known, overlap, np.nan), confidence),
            above=bootstrap_mean(energy - share, confidence),
            chance=_chance(share, known),
            undefined=int((~known).sum()),
            maps=maps,
        )
    return out


def mass_evidence(
    changes: Mapping[str, Any], mask: Any, *, batch: int = BATCH, confidence: float = 0.95
) -> dict[str, MassEvidence]:
    """The share of each method's change that lies on the object.

    Args:
      changes: name -> (r, rows), perturbations [n, H, W, C] with their rows [n] of ``mask``; or r [N, H, W, C] alone.
      mask: [N, H, W] bool, True on the object.

    Raises ValueError: shapes that do not fit, or rows that the mask does not have.
    """
    every = np.asarray(mask)
    out = {}
    for name, change in changes.items():
        r, rows = change if isinstance(change, tuple) else (change, np.arange(len(every)))
        delta, index = np.asarray(r), np.asarray(rows, np.int64)
        if delta.ndim != 4 or index.shape != (len(delta),):
            was = Words(f"{delta.shape} with rows {index.shape}")
            raise BadArgument(f"changes[{name!r}]", "be [n, H, W, C], with a row of mask for each", was)
        if index.size and not 0 <= index.min() <= index.max() < len(every):
            raise BadArgument(f"changes[{name!r}]", f"have rows of mask, 0 to {len(every) - 1}", index.max())
        objects = _masks(every[index], len(delta), delta.shape[1:3])
        mass = map_rows(_mass, None, delta, objects, batch=batch) if len(delta) else np.zeros(0)
        known, share = np.isfinite(mass), objects.mean((1, 2))
        out[name] = MassEvidence(
            mass=bootstrap_mean(mass, confidence),
            above=bootstrap_mean(mass - share, confidence),
            chance=_chance(share, known),
            unmoved=int((~known).sum()),
        )
    return out


def _cam_shares(shared: None, m: Array, mask: Array) -> tuple[Array, Array, Array]:
    return energy_inside(m, mask), pointing_game(m, mask), iou(m, mask)


def _mass(shared: None, delta: Array, mask: Array) -> Array:
    return mass_inside(delta, mask)


def _chance(share: np.ndarray, known: np.ndarray) -> float:
    return float(share[known].mean()) if known.any() else np.nan


def _rate(hits: np.ndarray, confidence: float) -> Mean:
    if not hits.size:
        return Mean(np.nan, np.nan, np.nan, 0)
    low, high = wilson_interval(hits.sum(), hits.size, confidence)
    return Mean(float(hits.mean()), float(low), float(high), int(hits.size))


def _masks(mask: Any, count: int, size: tuple[int, ...]) -> np.ndarray:
    objects = np.asarray(mask)
    if objects.dtype != bool or objects.shape != (count, *size):
        raise BadArgument("mask", f"be bool of shape {(count, *size)}", Words(f"{objects.dtype} {objects.shape}"))
    return objects
