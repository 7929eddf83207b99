"""The methods of :func:`invjax.recourse.explain_rows`: which constants, which density, and how they are called."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import numpy as np

from invjax.core.errors import BadArgument
from invjax.counterfactuals import REGISTRY, SCFEConfig, face, frontier, make, pcfe
from invjax.data.tables.table import TabularData
from invjax.densities import fit_knn
from invjax.engine import solve
from invjax.engine.evaluate import white_box
from invjax.recourse.plausible import plausibility_of, training_rows
from invjax.recourse.wording import number
from invjax.types import Config, Result

FUNCTIONS = ("face", "pcfe")
METHODS = (*REGISTRY, *FUNCTIONS)
CUT = ("s-cfe", "cem")  # take the density cut at its quantile, with the weight of the default density
OWN_WEIGHT = ("s-cfe-released", "dcfe")  # bring the weight for the density they were written for
WHATEVER = 2**20  # so many changes are no limit


class Asked(NamedTuple):
    """What is to be run."""

    name: str
    config: Config | None  # None for the plain functions
    density: Any  # for the method; None: none
    measure: Any  # a density for the report, without a cut; None: none
    cut: Any  # the same, cut at its quantile
    train: np.ndarray | None  # the rows behind it
    most: int | None  # features that may change
    probability: float  # asked of an answer
    alpha: float
    words: dict[str, str]


def settings(
    data: TabularData,
    method: str | Config,
    max_changes: int | None,
    plausibility: float,
    tau: float | None,
    density: Any,
    evaluator: Any,
) -> Asked:
    """Check the method and its constants, and fit what it needs. Raises ValueError naming the argument."""
    name = method if isinstance(method, str) else type(method).__name__
    if isinstance(method, str) and method not in METHODS:
        raise BadArgument("method", f"be one of {', '.join(METHODS)}", method)
    if max_changes is not None and (
        isinstance(max_changes, bool) or max_changes != int(max_changes) or max_changes < 1
    ):
        raise BadArgument("max_changes", "be a whole number of features, at least 1", max_changes)
    if tau is not None and not tau >= 0:
        raise BadArgument("tau", "be a weight >= 0", tau)
    if not 0 <= plausibility < 1:
        raise BadArgument("plausibility", "be a share in (0, 1), or 0 for none", plausibility)
    if name == "pcfe" and evaluator is not white_box:
        raise BadArgument("method", "be another than 'pcfe' for a black box", hint="it needs the model's own gradient")
    train = kernels = cut = None
    weight = 0.0 if tau is None else float(tau)
    if plausibility > 0:
        train = training_rows(data)
        fitted = plausibility_of(data, plausibility, train)
        kernels, cut = fitted.kde, fitted.density
        weight = fitted.tau if tau is None else weight
    threshold = cut
    if density is not None:
        cut, weight = density, 1.0 if tau is None else weight
    words = {"method": name}
    if not isinstance(method, str):
        if max_changes is not None or tau is not None:
            which = "max_changes" if max_changes is not None else "tau"
            raise BadArgument(which, "be set in the configuration of the method, where one is given")
        most, used = getattr(method, "max_changes", None), hasattr(method, "tau")
        asked = Asked(name, method, cut if used else None, kernels, threshold, train, most, 0.0, plausibility, words)
    elif method in FUNCTIONS:
        _refuse(method, max_changes=max_changes, tau=tau)
        asked = Asked(name, None, density or kernels, kernels, threshold, train, None, 0.0, plausibility, words)
    else:
        asked = Asked(name, None, cut, kernels, threshold, train, None, 0.0, plausibility, words)
        asked = _configured(asked, data, method, max_changes, tau, weight, density)
    most = None if asked.most is None or int(asked.most) >= WHATEVER else int(asked.most)
    wanted = getattr(asked.config, "probability", None)
    words |= {"changed features": "any number" if most is None else f"at most {most}"}
    words |= {"plausibility": _plausibility_in_words(asked, plausibility, density)}
    return asked._replace(most=most, probability=float(wanted or 0.0), words=words)


def _configured(
    asked: Asked,
    data: TabularData,
    method: str,
    max_changes: int | None,
    tau: float | None,
    weight: float,
    density: Any,
) -> Asked:
    fields = {field.name for field in dataclasses.fields(make(method))}
    constants: dict[str, Any] = {}
    if max_changes is not None:
        if "max_changes" not in fields:
            _refuse(method, max_changes=max_changes)
        constants["max_changes"] = int(max_changes)
    used = asked.density
    if "tau" not in fields:
        if tau is not None:
            _refuse(method, tau=tau)
        used = None
    elif used is None:
        constants["tau"] = 0.0
    elif method in CUT or density is not None:
        constants["tau"] = weight
    else:
        assert method in OWN_WEIGHT, method
        if tau is not None:
            constants["tau"] = float(tau)
        if method == "dcfe":
            rows = asked.train
            assert rows is not None
            fewest = int(np.bincount(data.label[rows]).min())
            used = fit_knn(data.x[rows], data.label[rows], k=min(20, fewest - 1))
        else:
            used = asked.measure
    config = make(method, **constants)
    return asked._replace(config=config, density=used, most=getattr(config, "max_changes", None))


def _refuse(method: str, **given: Any) -> None:
    for name, value in given.items():
        if value is not None:
            raise BadArgument(name, f"be left out for the method {method!r}, which has no such constant")


def _plausibility_in_words(asked: Asked, alpha: float, density: Any) -> str:
    if asked.name == "pcfe":
        return f"as dense as all but {100 * alpha:g} % of the class's training rows, by a Gaussian mixture"
    if asked.density is None:
        return "not asked for" if alpha == 0 else f"{asked.name} takes no density"
    weight = getattr(asked.config, "tau", None)
    weighed = "" if weight is None else f", weight {number(float(weight))}"
    if density is not None:
        return f"a density of the caller's{weighed}"
    if asked.name == "face":
        return f"as dense as all but {100 * alpha:g} % of the class's training rows, by kernels"
    if asked.name == "dcfe":
        return f"the pull of the nearest training rows{weighed}"
    if asked.name == "s-cfe-released":
        return f"kernel density{weighed}"
    return f"as dense as all but {100 * alpha:g} % of the class's training rows, by kernels{weighed}"


def run_method(
    asked: Asked,
    data: TabularData,
    model: Any,
    x: np.ndarray,
    label: np.ndarray,
    target: np.ndarray,
    *,
    evaluator: Any,
    ids: np.ndarray,
    key: Any,
    lanes: int,
    progress: bool | None,
) -> Result:
    """Answers to rows x [n, D] that have another class, label [n], than the target [n]; all obey the schema.

    ids: [n] int, for the draws: they depend on no other row. Short lists are filled up to a power of two with rows of
    their own, so that few shapes are compiled, and so that lists of about one length give bitwise the same answers.
    """
    label, target = label.astype(np.int32), target.astype(np.int32)
    if asked.name in FUNCTIONS:
        rows = training_rows(data) if asked.train is None else asked.train
        known: dict[str, Any] = {"train_x": data.x[rows], "train_y": data.label[rows], "space": data.space}
        if asked.name == "face":
            return face(model, x, label, target, density=asked.density, alpha=asked.alpha, **known).result
        return pcfe(model, x, label, target, alpha=asked.alpha, **known)
    count = len(x)
    fill = np.resize(np.arange(count), max(count, min(lanes, max(8, 1 << (count - 1).bit_length()))))
    result = solve(
        model, x[fill], label[fill], target=target[fill], method=asked.config, density=asked.density, space=data.space,
        evaluator=evaluator, ids=ids[fill], key=key, lanes=lanes, progress=progress,
    )  # fmt: skip
    return jax.tree.map(lambda field: np.asarray(field)[:count], result)


def frontier_of(
    asked: Asked, data: TabularData, model: Any, x: np.ndarray, label: np.ndarray, target: np.ndarray, most: int,
    evaluator: Any,
) -> Iterator[tuple[int, Result]]:  # fmt: skip
    """The answers with at most 1, …, ``most`` changed features; nothing where ``most`` is 0.

    Raises ValueError: another method than S-CFE, or a black box.
    """
    if most < 0 or most != int(most):
        raise BadArgument("frontier", "be a number of features >= 0", most)
    if not most:
        return
    if not isinstance(asked.config, SCFEConfig) or evaluator is not white_box:
        raise BadArgument("frontier", "be left out", hint="it is for the method s-cfe and a model with a gradient")
    if not len(x):
        return
    counts = range(1, int(most) + 1)
    result = frontier(
        model, x, label.astype(np.int32), target=target.astype(np.int32), max_changes=list(counts),
        method=asked.config, density=asked.density, space=data.space,
    )  # fmt: skip
    for i, m in enumerate(counts):
        yield m, jax.tree.map(lambda field, i=i: np.asarray(field)[:, i], result)
