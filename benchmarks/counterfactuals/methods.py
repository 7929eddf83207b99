"""The methods of the counterfactual benchmark and their constants, each as a call from NumPy rows to answers."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

import jax
import numpy as np

import invjax
from benchmarks.common import pick
from benchmarks.counterfactuals.tasks import Task
from invjax.counterfactuals import (
    CEM,
    CFEL2,
    DCFE,
    SCFE,
    DiCE,
    DiCEGenetic,
    SCFEReleased,
    Wachter,
    face,
    fit_mad,
    mip_counterfactuals,
    pcfe,
)
from invjax.densities import fit_gmm, fit_kde, fit_knn
from invjax.densities.released import fit_released_kde
from invjax.metrics import nearest_accepted_row
from invjax.types import Config, Density, Result, Status

NEAREST = "nearest"  # the baseline: the nearest training row of the target class that the network accepts
TABLES = ("housing", "wine", "adult", "german")
EXACT_ROWS = 10  # most rows for methods that need seconds per row
WIDE = (-1e4, 1e4)  # box of the released code, which takes gradients outside of the data's


class Settings(NamedTuple):
    """The options that methods read."""

    max_changes: int
    tau: float
    bandwidth: float | None  # width of the kernels; None chooses it by leave-one-out likelihood
    seed: int = 0
    progress: bool | None = None


class Defaults(NamedTuple):
    """Constants of a data set for the options that are not given."""

    max_changes: int
    tau: float
    bandwidth: float | None


DEFAULTS = {
    "housing": Defaults(3, 10.0, 1.0),
    "wine": Defaults(3, 10.0, 1.0),
    "adult": Defaults(3, 1.0, 1.0),
    "german": Defaults(3, 1.0, 1.0),
    "mnist": Defaults(30, 0.1, None),
}


class Fitted:
    """The densities of a task, each fitted when a method asks for it first."""

    def __init__(self, task: Task, settings: Settings):
        self._rows = (task.reference_x, task.reference_y)
        counts = np.bincount(task.reference_y)
        self._fewest = int(counts[counts > 0].min())
        self._name, self._bandwidth = task.name, settings.bandwidth
        self.kde = cache(lambda: fit_kde(*self._rows, bandwidth=self._bandwidth))
        self.knn = cache(lambda: fit_knn(*self._rows, k=min(20, self._fewest - 1)))
        self.released = cache(lambda: fit_released_kde(*self._rows))
        self.gmm = cache(self._gmm)

    def _gmm(self) -> Any:
        count = min(5, self._fewest)
        if self._name == "mnist":  # without the floor a pixel of small variance would outweigh all others
            return fit_gmm(*self._rows, components=count, covariance="diag", floor=0.1)
        return fit_gmm(*self._rows, components=count)

    def plausible(self) -> Any:
        """The density that S-CFE gets: kernels on tables, a diagonal mixture on pictures."""
        return self.gmm() if self._name == "mnist" else self.kde()


class Prepared(NamedTuple):
    """A method with everything fitted, so that only ``call`` is timed."""

    call: Callable[[], Result | np.ndarray]  # a Result, or answers [N, *S]
    rows: int  # how many of the task's rows it answers, the first ones
    density: Density | None = None  # that of S-CFE
    config: Any = None


Maker = Callable[[Task, Fitted, Settings], Prepared]


def _engine(config: Config, density: Density | None = None, **changed: Any) -> Callable[[Task, Settings], Prepared]:
    """The maker of a method that :func:`invjax.solve` runs."""

    def make(task: Task, settings: Settings) -> Prepared:
        rows = len(task.x)
        words = {
            **task.limits, "density": density, "lanes": min(rows, 256), "key": jax.random.key(settings.seed),
            "progress": settings.progress, **changed,
        }  # fmt: skip

        def call() -> Result:
            return invjax.solve(task.model, task.x, task.label, target=task.target, method=config, **words)

        return Prepared(call, rows, density, config)

    return make


def _scfe(m: int | None = None, tau: float | None = None, mixture: bool = False) -> Maker:
    def make(task: Task, fitted: Fitted, settings: Settings) -> Prepared:
        weight = settings.tau if tau is None else tau
        config = SCFE(max_changes=settings.max_changes if m is None else m, tau=weight)
        density = None if weight == 0 else fitted.gmm() if mixture else fitted.plausible()
        return _engine(config, density)(task, settings)

    return make


def _released(task: Task, fitted: Fitted, settings: Settings) -> Prepared:
    box = task.limits.get("bounds", (task.train_x.min(0), task.train_x.max(0)))
    low, high = (np.broadcast_to(np.asarray(side, np.float32), task.x.shape[1:]) for side in box)
    config = SCFEReleased(
        max_changes=settings.max_changes, step_size=0.05, tau=10.0, gamma=0.1, lower=low, upper=high
    )  # fmt: skip
    wide = {"bounds": WIDE} if "bounds" in task.limits else {}
    return _engine(config, fitted.released(), **wide)(task, settings)


def _wachter(task: Task, fitted: Fitted, settings: Settings) -> Prepared:
    # On pictures most deviations are 0 or close to it, so the plain l1 norm measures proximity.
    config = Wachter() if task.space is None else Wachter(proximity=fit_mad(task.train_x))
    return _engine(config)(task, settings)


def _plain(config: Config) -> Maker:
    return lambda task, fitted, settings: _engine(config)(task, settings)


def _dcfe(task: Task, fitted: Fitted, settings: Settings) -> Prepared:
    return _engine(DCFE(), fitted.knn())(task, settings)


def _dice(kind: Any) -> Maker:
    def make(task: Task, fitted: Fitted, settings: Settings) -> Prepared:
        return _engine(kind(proximity=fit_mad(task.train_x)))(task, settings)

    return make


def _pcfe(task: Task, fitted: Fitted, settings: Settings) -> Prepared:
    # A convex program per component, with all columns of a category, takes seconds per row.
    count = min(len(task.x), EXACT_ROWS) if "space" in task.limits else len(task.x)
    given = {"gmm": fitted.gmm(), "train_x": task.reference_x, "train_y": task.reference_y, **task.limits}
    rows = (task.x[:count], task.label[:count], task.target[:count])
    return Prepared(lambda: pcfe(task.model, *rows, **given), count)


def _face(task: Task, fitted: Fitted, settings: Settings) -> Prepared:
    given = {"density": fitted.kde(), "train_x": task.reference_x, "train_y": task.reference_y, **task.limits}
    return Prepared(lambda: face(task.model, task.x, task.label, task.target, **given).result, len(task.x))


def _mip(task: Task, fitted: Fitted, settings: Settings) -> Prepared:
    count = min(len(task.x), EXACT_ROWS)
    given = {"objective": "l1", "max_changes": settings.max_changes, "time_limit": 20.0, **task.limits}
    rows = (task.x[:count], task.label[:count], task.target[:count])
    return Prepared(lambda: mip_counterfactuals(task.model, *rows, **given), count)


def _nearest(task: Task, fitted: Fitted, settings: Settings) -> Prepared:
    def call() -> np.ndarray:
        return nearest_accepted_row(task.x, task.target, task.train_x, task.train_y, task.predict)

    return Prepared(call, len(task.x))


METHODS: dict[str, Maker] = {
    "scfe": _scfe(),
    "scfe-m1": _scfe(m=1),
    "scfe-m2": _scfe(m=2),
    "scfe-nodensity": _scfe(tau=0.0),
    "scfe-gmm": _scfe(mixture=True),
    "scfe-released": _released,
    "wachter": _wachter,
    "cfe-l2": _plain(CFEL2()),
    "cem": _plain(CEM()),
    "dcfe": _dcfe,
    "dice": _dice(DiCE),
    "dice-genetic": _dice(DiCEGenetic),
    "pcfe": _pcfe,
    "face": _face,
    "mip": _mip,
}
PICTURES = ("scfe", "scfe-nodensity", "wachter", "cfe-l2", "cem", "dcfe")  # the methods of mnist


def chosen_methods(names: str, data: str) -> list[str]:
    """The methods of ``--methods`` ("all", or names separated by commas), in the given order, the baseline last.

    Raises BadArgument for no name, an unknown one, or one that does not run on pictures.
    """
    possible = METHODS if data in TABLES else PICTURES
    return [*(name for name in pick("methods", names, (*possible, NEAREST)) if name != NEAREST), NEAREST]


def prepare_method(name: str, task: Task, fitted: Fitted, settings: Settings) -> Prepared:
    """The method called ``name``, fitted to the task."""
    maker = _nearest if name == NEAREST else METHODS[name]
    return maker(task, fitted, settings)


def found_rows(answer: Result | np.ndarray, x: np.ndarray) -> int:
    """How many rows have an answer by the method's own account; of a set one member is enough."""
    if isinstance(answer, Result):
        found = np.asarray(answer.status) == Status.FOUND
        return int((found.any(1) if found.ndim == 2 else found).sum())
    return int((answer != x).reshape(len(x), -1).any(1).sum())
