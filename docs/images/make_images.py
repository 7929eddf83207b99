"""The pictures of the gallery and of the README: python docs/images/make_images.py [NAME ...], by default all of them.

Each is made by a function of invjax.viz from a small run; three are figures of the demo's page. They are written beside
this file. Needs the extra ``demo``; a few minutes on two CPU cores, most of it for ``worst_groups``.
"""

from __future__ import annotations

import functools
import sys
from pathlib import Path
from typing import Any

import numpy as np

import invjax
from invjax import viz
from invjax.attacks import GSE, PGD, make
from invjax.attribution import grad_cams
from invjax.cli.demo import digits
from invjax.cli.demo.counterfactuals import in_the_plane, plane_figure
from invjax.cli.demo.learn import learn_section
from invjax.counterfactuals import frontier
from invjax.data import load_tabular, mnist_digits
from invjax.metrics import interpretability
from invjax.models import mnist_cnn
from invjax.recourse import classifier

HERE = Path(__file__).resolve().parent


@functools.cache
def attacked(count: int) -> tuple[Any, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
    """Digits towards the next class but one, by three attacks."""
    model, data = mnist_cnn(), mnist_digits()
    x, label = data.images[:: 5000 // count], data.labels[:: 5000 // count]
    target = (label + 2) % 10
    methods = {"GSE": GSE(), "σ-zero": make("sigma-zero"), "PGD": PGD(eps=0.3, step_size=2 / 255)}
    results = {name: invjax.solve(model, x, label, target=target, method=how) for name, how in methods.items()}
    return model, x, label, target, results


def comparison() -> Any:
    """Three digits, three attacks, and where the network looks."""
    model, x, label, target, results = attacked(20)
    rows = [0, 8, 18]
    changes = {name: np.asarray(result.delta)[rows] for name, result in results.items()}
    titles = [f"{label[n]} → {target[n]}" for n in rows]
    return viz.comparison(x[rows], changes, titles=titles, maps=np.asarray(grad_cams(model, x, label))[rows])


def score_curves() -> Any:
    """The interpretability score of the same attacks on twenty digits, beside chance."""
    model, x, label, target, results = attacked(20)
    curves = {name: interpretability(model, x, label, r.delta, r.status, target) for name, r in results.items()}
    first = next(iter(curves.values()))
    return viz.score_curves({name: curve.mean for name, curve in curves.items()}, first.percentiles, first.chance)


def trace() -> Any:
    """GSE on eight digits, step by step."""
    model, x, label, target, _ = attacked(20)
    steps = invjax.trace(model, x[:8], label[:8], target=target[:8], method=GSE(), steps=30)[1]
    support, gap = (np.where(steps.active, field, np.nan).T for field in (steps.support, steps.gap))
    return viz.trace(support, gap, total=784)


def sparsity() -> Any:
    """What one more change buys the suburbs of the test rows."""
    data = load_tabular("housing").without("B")
    model = classifier(data, "mlp").model
    rows = data.test[data.label[data.test] == 0][:30]
    counts = np.arange(1, 7)
    path = frontier(
        model, data.x[rows], data.label[rows], target=np.ones_like(rows), max_changes=counts, space=data.space
    )
    length = np.linalg.norm(np.asarray(path.delta), axis=-1)
    return viz.sparsity(counts, np.where(np.asarray(path.found), length, np.nan), ylabel="l2, standard deviations")


def nine_to_four() -> Any:
    """The demo's nines made fours, in three ways."""
    made = digits.nine_to_four(mnist_cnn())
    return viz.ways(made.x, {name: made.results[name] for name in digits.WAYS})


def plane() -> Any:
    """The demo's wines in the plane."""
    data = load_tabular("wine")
    return plane_figure(in_the_plane(data), data)


@functools.cache
def learned() -> Any:
    """The figures of ``invjax demo --learn``."""
    return [picture.image for picture in learn_section(print)[0].figures]


def worst_groups() -> Any:
    """Accuracy, and that of the worst group, of networks trained on counterfactuals."""
    return learned()[0]


def perturbed() -> Any:
    """What these networks were trained on."""
    return learned()[1]


PICTURES = (comparison, score_curves, trace, sparsity, nine_to_four, plane, worst_groups, perturbed)


def main(names: list[str]) -> None:
    """Make the pictures of these names, or all."""
    for make_picture in PICTURES:
        if not names or make_picture.__name__ in names:
            figure = make_picture()
            figure.savefig(HERE / f"{make_picture.__name__}.png", dpi=110, bbox_inches="tight")
            print(make_picture.__name__)


if __name__ == "__main__":
    main(sys.argv[1:])
