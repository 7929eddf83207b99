"""Everything about an explanation that does not depend on the rows explained, made once.

The network, its evaluator, the training rows, their density and the method's constants: :func:`make_plan` checks and
fits them at the door, and everything after it reads them from the :class:`Plan`.
"""

from __future__ import annotations

import dataclasses
from typing import Any, Literal, NamedTuple, cast, get_args

import numpy as np

from invjax.core.arguments import kinds_checked
from invjax.core.errors import BadArgument, Words, check, check_choice, check_number, check_whole
from invjax.core.labels import NO_CLASS, classes_of
from invjax.core.logits import as_logits_fn, num_classes
from invjax.core.mixing import ROWS
from invjax.counterfactuals import REGISTRY, MethodName, make
from invjax.data.tables.table import Table, TabularData
from invjax.densities import fit_knn
from invjax.engine.evaluate import white_box
from invjax.engine.seen import seen_through
from invjax.recourse.gradients import Gradient, chosen_gradient
from invjax.recourse.plausible import Plausibility, plausibility_of, training_rows
from invjax.recourse.raw import knowing, logits_of_table, rows_of
from invjax.recourse.wording import number
from invjax.types import Config, Density, Evaluator, LogitsFn

FunctionName = Literal["face", "pcfe"]  # methods that are plain functions
FUNCTIONS = get_args(FunctionName)
_METHODS = (*REGISTRY, *FUNCTIONS)
_CUT = ("s-cfe", "cem")  # take the density cut at its quantile, with the weight of the default density
_UNLIMITED = 2**20  # so many changes are no limit


class Plan(NamedTuple):
    """How rows of one table are explained."""

    data: TabularData
    network: LogitsFn  # [B, D] -> [B, K], with the classes of the data
    seen: LogitsFn  # the same as the evaluator sees it: what judges a row
    evaluator: Evaluator
    train: np.ndarray  # rows of the table that density, methods and measures compare with
    method: str
    config: Config | None  # None for face and pcfe, which are plain functions
    density: Density | None  # given to the method
    kernels: Density | None  # the density of the training rows, for the measures; None if none was asked for
    cut: Density | None  # the same, cut at its quantile
    alpha: float  # the share of a class's rows that is not plausible enough
    max_changes: int | None  # features that may change
    probability: float | None  # that the target must have in an answer; None: it must win
    words: dict[str, str]  # the settings, for a reader

    def __repr__(self) -> str:
        return f"Plan({self.method} on {self.data.name!r})"

    def knowing(self, table: Table) -> Plan:
        """The same for a predictor of raw rows that has to know these rows: :func:`invjax.recourse.raw.knowing`."""
        network = knowing(self.network, self.data.space, table)
        if network is self.network:
            return self
        return self._replace(network=network, seen=seen_through(self.evaluator, network))


@kinds_checked
def make_plan(
    data: TabularData,
    model: Any,
    method: MethodName | FunctionName | Config = "s-cfe",
    *,
    max_changes: int | None = None,
    plausibility: float = 0.25,
    tau: float | None = None,
    density: Density | None = None,
    evaluator: Evaluator = white_box,
    probability: float | None = None,
) -> Plan:
    """Check the model, the method and its constants, and fit what it needs.

    Arguments as in :func:`invjax.recourse.explain_rows`. Raises ValueError naming the argument.
    """
    name = check_constants(method, max_changes, plausibility, tau, probability)
    if max_changes is not None:
        max_changes = check_whole("max_changes", max_changes)
    if probability is not None and getattr(getattr(rows_of(model), "predict", None), "threshold", None) is not None:
        raise BadArgument("probability", "be left out for a model with a threshold", hint="it asks for that one")
    if name == "pcfe" and evaluator is not white_box:
        raise BadArgument("method", "be another than 'pcfe' for a black box", hint="it needs the model's own gradient")
    network = as_logits_fn(model, "model")
    if (found := num_classes(network, (data.space.width,), np.float32)) != len(data.classes):
        raise BadArgument("model", f"have the {len(data.classes)} classes of the data", found)
    train = training_rows(data)
    _check_names_classes(network, data, train)
    fitted = plausibility_of(data, plausibility, train) if plausibility > 0 else None
    kernels, cut = (None, None) if fitted is None else (fitted.kde, fitted.density)
    if method in FUNCTIONS:
        _refuse(name, max_changes=max_changes, tau=tau)
        config, used = None, kernels if density is None else density
        if name == "pcfe":
            _refuse(name, probability=probability)
    elif isinstance(method, str):
        config, used = _configured(
            cast(MethodName, method), data, train, fitted, max_changes, tau, density, probability
        )
    else:
        for constant, value in (("max_changes", max_changes), ("tau", tau), ("probability", probability)):
            if value is not None:
                raise BadArgument(constant, "be set in the configuration of the method, where one is given")
        config, used, probability = method, None, getattr(method, "probability", None)
        if hasattr(method, "tau"):
            used = cut if density is None else density
    most = getattr(config, "max_changes", None)
    most = None if most is None or int(most) >= _UNLIMITED else int(most)
    gradient = Gradient(evaluator, "")
    if config is not None and config.method.needs_grad:
        gradient = chosen_gradient(data, network, evaluator, train, probability)
        evaluator = gradient.evaluator
    seen = seen_through(evaluator, network)
    words = {
        "method": name,
        "changed features": "any number" if most is None else f"at most {most}",
        "plausibility": _plausibility_in_words(name, config, used, plausibility, density is not None),
    }
    if gradient.words:
        words["gradient"] = gradient.words
    if probability is not None:
        probability = float(probability)
        words["probability"] = f"of the target at least {probability:g}"
    return Plan(
        data, network, seen, evaluator, train, name, config, used, kernels, cut, plausibility, most, probability, words
    )


def check_constants(
    method: str | Config, max_changes: int | None, plausibility: float, tau: float | None, probability: float | None
) -> str:
    """The name of the method, after the checks that need neither data nor model: see :func:`make_plan`."""
    name = check_choice("method", method, _METHODS) if isinstance(method, str) else type(method).__name__
    if max_changes is not None:
        check_whole("max_changes", max_changes)
    if tau is not None:
        check_number("tau", tau, lambda value: value >= 0, "a weight >= 0")
    if probability is not None:
        check_number("probability", probability, lambda value: 0 < value < 1, "None or in (0, 1)")
    check("plausibility", plausibility, lambda value: 0 <= value < 1, "a share in (0, 1), or 0 for none")
    return name


def _check_names_classes(network: LogitsFn, data: TabularData, train: np.ndarray) -> None:
    """Raise BadArgument about a model that names no class for any of a few training rows, which are whole."""
    few = train[np.linspace(0, len(train) - 1, min(ROWS, len(train))).round().astype(int)]
    if (classes_of(logits_of_table(network, data.space, data.rows(few))) == NO_CLASS).all():
        was = Words(f"NaN for each of {len(few)} training rows")
        hint = "are its weights those of a training that diverged?"
        raise BadArgument("model", f"give finite numbers for the rows of {data.name}", was, hint=hint)


def _configured(
    method: MethodName,
    data: TabularData,
    train: np.ndarray,
    fitted: Plausibility | None,
    max_changes: int | None,
    tau: float | None,
    density: Density | None,
    probability: float | None,
) -> tuple[Config, Density | None]:
    """The configuration of a method by name, and the density that goes with it."""
    fields = {field.name for field in dataclasses.fields(make(method))}
    constants: dict[str, Any] = {}
    if max_changes is not None:
        if "max_changes" not in fields:
            _refuse(method, max_changes=max_changes)
        constants["max_changes"] = max_changes
    if probability is not None:
        if "probability" not in fields:
            _refuse(method, probability=probability)
        constants["probability"] = float(probability)
    if "tau" not in fields:
        _refuse(method, tau=tau)
        return make(method, **constants), None
    used = density
    if density is not None:
        constants["tau"] = 1.0 if tau is None else float(tau)
    elif fitted is None:
        constants["tau"] = 0.0
    elif method in _CUT:
        used, constants["tau"] = fitted.density, fitted.tau if tau is None else float(tau)
    else:  # the others bring the weight for the density they were written for
        if tau is not None:
            constants["tau"] = float(tau)
        used = _nearest_rows(data, train) if method == "dcfe" else fitted.kde
    return make(method, **constants), used


def _nearest_rows(data: TabularData, train: np.ndarray) -> Density:
    fewest = int(np.bincount(data.label[train]).min())
    return fit_knn(data.x[train], data.label[train], k=min(20, fewest - 1))


def _refuse(method: str, **given: Any) -> None:
    for name, value in given.items():
        if value is not None:
            raise BadArgument(name, f"be left out for the method {method!r}, which has no such constant")


def _plausibility_in_words(name: str, config: Config | None, used: Density | None, alpha: float, own: bool) -> str:
    dense = f"as dense as all but {100 * alpha:g} % of the class's training rows"
    if name == "pcfe":
        return f"{dense}, by a Gaussian mixture"
    if used is None:
        return "not asked for" if alpha == 0 else f"{name} takes no density"
    weight = getattr(config, "tau", None)
    weighed = "" if weight is None else f", weight {number(float(weight))}"
    if own:
        return f"a density of the caller's{weighed}"
    pulls = {"dcfe": "the pull of the nearest training rows", "s-cfe-released": "kernel density"}
    return f"{pulls.get(name, f'{dense}, by kernels')}{weighed}"
