"""The methods of the study: each takes a :class:`Study` and gives a trained network.

Generators and controls perturb the training set, and a fresh network learns from the result. Peers train on the set
itself: some are given the groups, others find out which examples matter.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from invjax.attacks import PGD
from invjax.core.balls import Norm
from invjax.core.errors import BadArgument
from invjax.core.logits import LogitsModel
from invjax.core.meant import explained
from invjax.core.rows import map_rows
from invjax.counterfactuals import FixedWeights
from invjax.engine import solve
from invjax.learn import Perturbed, afr, dfr, evaluate, group_dro, jtt, resample, reweight
from invjax.learn.study.study import MethodRun, Study, first_step
from invjax.learn.study.tasks import Task, TaskPolicy
from invjax.types import Status

AFR_GAMMAS = (0.5, 2.0, 8.0)  # the best worst group of val decides, as in the paper
AFR_SHARE = 0.2  # of the training set, held back from the first training


def _erm(study: Study) -> MethodRun:
    model, seconds = study.erm
    return MethodRun(model, study.task.steps, seconds)


def _fresh(study: Study, name: str, how: Callable[[Study], dict[str, Any]] = lambda study: {}) -> MethodRun:
    """Train the fresh network on the training set as it is; ``how`` gives further arguments of ``fit``."""
    begin = time.perf_counter()
    told = how(study)
    before = time.perf_counter() - begin
    model, seconds = study.trained(name, study.fresh(), study.x, study.train.y, **told)
    return MethodRun(model, study.task.steps, before + seconds)


def _generated(study: Study, name: str, generator: Callable[[Study], tuple[Any, Any]]) -> MethodRun:
    """Perturb the set by ``generator``, a configuration or a function with its density, and learn from it."""
    config, density = generator(study)
    made = study.make(name, config, density)
    return study.learn_from(name, made, study.spent(name))


def _pgd(study: Study, norm: Norm) -> tuple[Any, Any]:
    moves = study.task.moves
    eps = moves.eps_l2 if norm == "l2" else moves.eps_linf
    return PGD(eps=eps, step_size=eps / 5, steps=moves.iterations, norm=norm, stop_early=False), None


def _cfe_l2(study: Study) -> tuple[Any, Any]:
    moves = study.task.moves
    step = first_step(moves.gamma, 0.0)
    return FixedWeights(gamma=moves.gamma, steps=moves.iterations, step_size=step, penalty="none"), None


def unmoved(x: np.ndarray, label: np.ndarray, target: np.ndarray, keys: jax.Array) -> np.ndarray:
    """The control "random labels": x as it is."""
    return x


def _gravity_point(knn: Any, x: jax.Array, target: jax.Array) -> jax.Array:
    return knn.gravity_point(x, target)


def _pulled(study: Study, x: np.ndarray, target: np.ndarray) -> np.ndarray:
    """The gravity point [n, *S] of each x for the class ``target``; n differs from seed to seed."""
    if not len(x):
        return x
    return map_rows(_gravity_point, study.gravity, x, target, batch=study.task.lanes, each=True, few_shapes=True)


def _gravity(study: Study) -> tuple[Any, Any]:
    """The control that replaces x by the mean of the nearest points of the target's class: no search, no classifier."""

    def gravity(x: np.ndarray, label: np.ndarray, target: np.ndarray, keys: jax.Array) -> Any:
        return _pulled(study, x, target)

    return gravity, None


def _filtered(study: Study, name: str) -> MethodRun:
    """p-CFE without the examples that missed their target."""
    whole = study.make("p-cfe", study.weights(), study.density)
    keep = np.flatnonzero(np.isin(whole.status, (Status.FOUND, Status.ALREADY_TARGET)))
    made = Perturbed(*(part[keep] for part in whole[:-1]), dropped=len(whole.y) - len(keep))
    return study.learn_from(name, made, study.spent("p-cfe"))


def _refuse(params: jax.Array, x: jax.Array) -> jax.Array:
    return jnp.broadcast_to(params, (len(x), len(params))).astype(x.dtype)


def _own_too(study: Study, name: str) -> MethodRun:
    """The control named without "-own", but the examples whose target is their own class are moved, too.

    The counterfactual of an example that already has its target is the example itself. A density pulls it all the same
    if the search never stops: therefore the classifier here answers with a class outside the data.
    """
    base = name.removesuffix("-own")
    begin = time.perf_counter()
    made = study.make(base, *CONTROLS[base](study))
    own = np.flatnonzero(made.y == made.label)
    x = made.x.copy()
    if base == "gravity":
        x[own] = np.clip(_pulled(study, study.x[own], made.y[own]), 0, 1)
    else:
        classes = len(study.data.classes)
        nobody = LogitsModel(jnp.eye(classes + 1)[classes], _refuse)
        found = solve(
            nobody, study.x[own], np.full(len(own), classes), target=made.y[own], method=study.weights(gamma=0.0),
            density=study.density, lanes=min(study.task.lanes, len(own)), progress=False,
        )  # fmt: skip
        x[own] = np.asarray(found.attempt)
    return study.learn_from(name, made._replace(x=x), study.spent(base) + time.perf_counter() - begin)


def _jtt(study: Study) -> dict[str, Any]:
    task = study.task
    return jtt(
        study.fresh(), study.x, study.train.y, upweight=task.upweight, key=study.key(6), steps=task.warmup,
        batch=min(task.batch, len(study.x)), optimiser=task.optimiser, batch_norm=task.batch_norm,
    )  # fmt: skip


def _dfr(study: Study) -> MethodRun:
    """Retrain the attacked network's last layer on balanced validation data, whose groups must be known."""
    model, seconds = study.erm
    begin = time.perf_counter()
    found = dfr(model, study.val.images(), study.val.y, study.val.group, key=study.key(5), batch=64)
    notes = {"C": found.report["C"], "converged": found.report["converged"]}
    return MethodRun(found.model, study.task.steps, seconds + time.perf_counter() - begin, notes=notes)


def _afr(study: Study) -> MethodRun:
    """Train on four fifths, then the last layer on the rest; the worst group of val chooses γ."""
    begin = time.perf_counter()
    count, held = len(study.train), round(AFR_SHARE * len(study.train))
    order = np.random.default_rng(study.seed).permutation(count)
    first, rest = np.sort(order[held:]), np.sort(order[:held])
    model, _ = study.trained("afr", study.fresh(), study.x[first], study.train.y[first])
    val = study.val.images(), study.val.y, study.val.group
    tried = []
    for gamma in AFR_GAMMAS:
        found = afr(model, study.x[rest], study.train.y[rest], gamma=gamma, batch=64)
        worst = evaluate(found.model, *val, batch=64, empty="skip").worst
        tried.append((worst, gamma, found))
    _, gamma, best = max(tried, key=lambda one: one[:2])
    return MethodRun(best.model, study.task.steps, time.perf_counter() - begin, notes={"gamma": gamma})


CONTROLS: dict[str, Callable[[Study], tuple[Any, Any]]] = {
    "random-labels": lambda study: (unmoved, None),
    "density-only": lambda study: (study.weights(gamma=0.0), study.density),
    "gravity": _gravity,
    "permuted-density": lambda study: (study.weights(), study.permuted),
}
GENERATORS: dict[str, Callable[[Study], tuple[Any, Any]]] = {
    "pgd-l2": partial(_pgd, norm="l2"),
    "pgd-linf": partial(_pgd, norm="linf"),
    "cfe-l2": _cfe_l2,
    "p-cfe": lambda study: (study.weights(), study.density),
}
GRID = "p-cfe-grid"  # stands for one method per pair of weights
OWN = ("density-only-own", "gravity-own")  # differ from those without "-own" only if a target may be the own class
PEERS: dict[str, Callable[[Study], MethodRun]] = {
    "resample": partial(_fresh, name="resample", how=lambda study: resample(study.train.group)),
    "reweight": partial(_fresh, name="reweight", how=lambda study: reweight(study.train.group)),
    "groupdro": partial(_fresh, name="groupdro", how=lambda study: group_dro(study.train.group, convention="wilds")),
    "jtt": partial(_fresh, name="jtt", how=_jtt),
    "dfr": _dfr,
    "afr": _afr,
}
DESCRIPTIONS = {
    "erm": "the attacked network, trained on the set as it is",
    "erm-steps": "the fresh network on the set as it is: how much training alone varies",
    "random-labels": "images as they are, labelled with the targets",
    "pgd-l2": "targeted PGD in an l2 ball",
    "pgd-linf": "targeted PGD in an linf ball",
    "cfe-l2": "‖x' − x‖² + γL",
    "p-cfe": "‖x' − x‖² + γL − τ log q + β‖x' − x‖_0",
    "density-only": "p-CFE without the classifier: γ = 0",
    "density-only-own": "the same, and examples whose target is their own class are moved, too",
    "gravity": "x replaced by the mean of the nearest points of the target's class",
    "gravity-own": "the same, and examples whose target is their own class are replaced, too",
    "permuted-density": "p-CFE with the density of another class instead of the target's",
    "success-filtered": "p-CFE, failures left out",
    "resample": "groups equally likely (group labels in training)",
    "reweight": "groups of equal weight (group labels in training)",
    "groupdro": "the worst mixture of groups (group labels in training)",
    "jtt": "trained twice, the errors of a short first training upweighted",
    "dfr": "the last layer of erm retrained on balanced validation data (group labels there)",
    "afr": "the last layer retrained, weighted towards the errors of the network",
}


def grid_names(task: Task) -> list[str]:
    """p-CFE with each pair (γ, τ) of the task's grid except the task's own pair."""
    moves = task.moves
    pairs = [(gamma, tau) for gamma in moves.gammas for tau in moves.taus]
    return [f"p-cfe gamma={g:g} tau={t:g}" for g, t in pairs if (g, t) != (moves.gamma, moves.tau)]


@explained
def chosen_methods(words: str, task: Task, policy: TaskPolicy) -> list[str]:
    """Expand a comma-separated list, ``all`` and the grid included; ``erm`` comes first: the others build on it.

    Raises ValueError for an unknown name.
    """
    known = [*DESCRIPTIONS, GRID]
    if words == "all":
        names = list(task.methods) or [name for name in known if name not in OWN or policy == "all"]
    else:
        names = [word.strip() for word in words.split(",") if word.strip()]
    unknown = [name for name in names if name not in known and name not in grid_names(task)]
    if unknown or not names:
        raise BadArgument("methods", f"be all or some of {', '.join(known)}", words)
    written = [one for name in names for one in (grid_names(task) if name == GRID else [name])]
    return list(dict.fromkeys(["erm", *written]))


@explained
def run_method(name: str, study: Study) -> MethodRun:
    """Run one method on one seed. The study keeps the network and the perturbed set it learnt from.

    Raises ValueError if the method cannot be carried out: no example reached its target, or the first network of JTT
    makes no error.
    """
    if name == "erm":
        run = _erm(study)
    elif name == "erm-steps":
        run = _fresh(study, name)
    elif name == "success-filtered":
        run = _filtered(study, name)
    elif name in OWN:
        run = _own_too(study, name)
    elif name in PEERS:
        run = PEERS[name](study)
    elif name in grid_names(study.task):
        gamma, tau = (float(word.partition("=")[2]) for word in name.split()[1:])
        run = _generated(study, name, lambda study: (study.weights(gamma, tau), study.density))
    else:
        run = _generated(study, name, (CONTROLS | GENERATORS)[name])
    study.models[name] = run.model
    if run.made is not None:
        study.perturbed[name] = run.made
    return run
