"""The evidence of the ``learn`` benchmark: pictures of where networks look, and the shares that lie on the object.

Called once, with the :class:`~invjax.learn.study.Study` of the first seed, after its methods have run.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from flax import nnx

from invjax.attribution import grad_cams, split
from invjax.learn import predict
from invjax.learn.evidence import CamEvidence, MassEvidence, cam_evidence, mass_evidence
from invjax.learn.study import Study
from invjax.report.text import text_table
from invjax.types import Status
from invjax.viz.learning import magnified, panels

SHOWN = ("erm", "pgd-l2", "pgd-linf", "cfe-l2", "p-cfe")  # the columns of the published slides
TITLES = {"erm": "standard", "pgd-l2": "PGD-l2", "pgd-linf": "PGD-linf", "cfe-l2": "CFE-l2", "p-cfe": "p-CFE"}
COLUMNS = 6  # at most, where fewer than two of them ran
FACTOR = 40.0  # magnification of the perturbations
BATCH = 32  # images per call of Grad-CAM


def write(folder: Path, study: Study) -> dict[str, Any]:
    """Write ``panels.png`` and ``perturbations.png`` to ``folder``, print the tables, and return the record.

    Keys: ``files``; ``cam`` and ``mass``, method -> shares on the object (:mod:`invjax.learn.evidence`). Both are None
    if the data have no masks, ``cam`` also if the network has no plane of features (an MLP).
    """
    folder.mkdir(parents=True, exist_ok=True)
    models = {name: model for name, model in study.models.items() if _has_plane(model)}
    record: dict[str, Any] = {"files": [], "cam": None, "mass": None}
    test = study.test
    if models:
        rows = _one_of_each_group(test.group)
        images = test.images(rows)
        shown = {name: models[name] for name in _columns(models)}
        figure = panels(
            images,
            {_title(name): grad_cams(model, images, batch=len(rows)) for name, model in shown.items()},
            [test.groups[g] for g in test.group[rows]],
            notes={
                _title(name): [test.classes[k] for k in predict(model, images, batch=len(rows)).argmax(1)]
                for name, model in shown.items()
            },
        )
        record["files"].append(_save(figure, folder / "panels.png"))
        if test.mask is not None:
            found = cam_evidence(models, test.images(), test.mask, batch=BATCH)
            record["cam"] = {name: one.to_dict() for name, one in found.items()}
            print(text_table([_cam_row(name, one) for name, one in found.items()]) + "\n", flush=True)
    if study.perturbed:
        drawn, moved = _moved_by_all(study)
        if len(drawn):
            aims = next(iter(study.perturbed.values()))  # all methods of a seed have the same targets
            pairs = zip(study.train.y[drawn], aims.y[np.searchsorted(aims.source, drawn)], strict=True)
            titles = [f"{study.data.classes[a]}\n→ {study.data.classes[b]}" for a, b in pairs]
            record["files"].append(
                _save(magnified(study.x[drawn], moved, FACTOR, titles=titles), folder / "perturbations.png")
            )
        if study.train.mask is not None:
            changes = {name: _changes(study, name) for name in study.perturbed}
            found = mass_evidence(changes, study.train.mask, batch=256)
            record["mass"] = {name: one.to_dict() for name, one in found.items()}
            print(text_table([_mass_row(name, one) for name, one in found.items()]) + "\n", flush=True)
    if record["files"]:
        print(f"wrote {', '.join(record['files'])}\n", flush=True)
    return record


def _has_plane(model: nnx.Module) -> bool:
    try:
        split(model)
    except ValueError:
        return False
    return True


def _title(name: str) -> str:
    return TITLES.get(name, name)


def _columns(named: Mapping[str, Any]) -> list[str]:
    """The columns of the slides that ran; the first few methods if fewer than two of them did."""
    slides = [name for name in SHOWN if name in named]
    return slides if len(slides) > 1 else list(named)[:COLUMNS]


def _one_of_each_group(group: np.ndarray, most: int = 8) -> np.ndarray:
    return np.unique(group, return_index=True)[1][:most]


def _changes(study: Study, name: str) -> tuple[np.ndarray, np.ndarray]:
    """The perturbations of a set and their rows, without the examples whose target was their own class."""
    made = study.perturbed[name]
    asked = made.status != Status.ALREADY_TARGET
    rows = made.source[asked]
    return made.x[asked] - study.x[rows], rows


def _moved_by_all(study: Study) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """One row of each group that every shown method was to move, and what each made of it."""
    names = _columns(study.perturbed)
    common = np.arange(len(study.train))
    for name in names:
        made = study.perturbed[name]
        common = np.intersect1d(common, made.source[made.status != Status.ALREADY_TARGET])
    rows = common[_one_of_each_group(study.train.group[common])] if len(common) else common
    moved = {}
    for name in names:
        made = study.perturbed[name]
        at = np.searchsorted(made.source, rows)  # in the order of the originals
        moved[_title(name)] = made.x[at]
    return rows, moved


def _save(figure: Any, path: Path) -> str:
    figure.savefig(path)
    return str(path)


def _cam_row(name: str, one: CamEvidence) -> dict[str, str]:
    return {
        "Grad-CAM on the object": name, "energy": str(one.energy), "pointing": str(one.pointing), "IoU": str(one.iou),
        "chance": _number(one.chance), "n": str(one.energy.n), "no map": str(one.undefined),
    }  # fmt: skip


def _mass_row(name: str, one: MassEvidence) -> dict[str, str]:
    return {
        "change on the object": name, "mass": str(one.mass), "chance": _number(one.chance), "n": str(one.mass.n),
        "unmoved": str(one.unmoved),
    }  # fmt: skip


def _number(value: float) -> str:
    return "–" if np.isnan(value) else f"{value:.3f}"
