"""The methods of the ``learn`` benchmark: one function each, from a :class:`Study` to a trained network.

Generators and controls perturb the training set, which a fresh network then learns from; peers are shown the set itself
and the groups, or find out which examples matter.
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
from invjax.core.errors import BadArgument
from invjax.counterfactuals import FixedWeights
from invjax.engine import solve
from invjax.learn import Perturbed, afr, dfr, evaluate, group_dro, jtt, resample, reweight
from invjax.learn.study.study import Outcome, Study, first_step
from invjax.learn.study.tasks import Task
from invjax.models import LogitsModel
from invjax.types import Status

AFR_GAMMAS = (0.5, 2.0, 8.0)  # chosen from by the worst group of val, as the paper does
AFR_SHARE = 0.2  # of the training set, kept from the first training


def _erm(study: Study) -> Outcome:
    model, seconds = study.erm
    return Outcome(model, study.task.steps, seconds)


def _fresh(study: Study, name: str, how: Callable[[Study], dict[str, Any]] = lambda study: {}) -> Outcome:
    """The fresh network on the training set as it is."""
    begin = time.perf_counter()
    told = how(study)
    before = time.perf_counter() - begin
    model, seconds = study.trained(name, study.fresh(), study.x, study.train.y, **told)
    return Outcome(model, study.task.steps, before + seconds)


def _generated(study: Study, name: str, generator: Callable[[Study], tuple[Any, Any]]) -> Outcome:
    """A generator of the library, or a control: what it is, and its density."""
    config, density = generator(study)
    made = study.make(name, config, density)
    return study.learn_from(name, made, study.spent(name))


def _pgd(study: Study, norm: str) -> tuple[Any, Any]:
    moves = study.task.moves
    eps = moves.eps_l2 if norm == "l2" else moves.eps_linf
    return PGD(eps=eps, step=eps / 5, steps=moves.iterations, norm=norm, stop_early=False), None


def _cfe_l2(study: Study) -> tuple[Any, Any]:
    moves = study.task.moves
    step = first_step(moves.gamma, 0.0)
    return FixedWeights(gamma=moves.gamma, iterations=moves.iterations, step=step, penalty="none"), None


def unmoved(x: np.ndarray, label: np.ndarray, target: np.ndarray, keys: jax.Array) -> np.ndarray:
    """The control "random labels": x as it is."""
    return x


@jax.jit
def _pull(knn: Any, x: jax.Array, target: jax.Array) -> jax.Array:
    return jax.vmap(knn.gravity_point)(x, target)


def _pulled(study: Study, x: np.ndarray, target: np.ndarray) -> np.ndarray:
    """g(x) [n, *S] of each x for the class ``target``, in batches of one size: their number differs by seed."""
    out, size = [], study.task.lanes
    for start in range(0, len(x), size):
        rows = np.minimum(np.arange(start, start + size), len(x) - 1)
        out.append(np.asarray(_pull(study.gravity, x[rows], target[rows]))[: len(x) - start])
    return np.concatenate(out) if out else x


def _gravity(study: Study) -> tuple[Any, Any]:
    """x is replaced by the mean of near points of the target's class: no search and no classifier."""

    def gravity(x: np.ndarray, label: np.ndarray, target: np.ndarray, keys: jax.Array) -> Any:
        return _pulled(study, x, target)

    return gravity, None


def _filtered(study: Study, name: str) -> Outcome:
    """p-CFE without the examples that did not reach their target."""
    whole = study.make("p-cfe", study.weights(), study.density)
    keep = np.flatnonzero(np.isin(whole.status, (Status.FOUND, Status.ALREADY_TARGET)))
    made = Perturbed(*(part[keep] for part in whole[:-1]), dropped=len(whole.y) - len(keep))
    return study.learn_from(name, made, study.spent("p-cfe"))


def _refuse(params: jax.Array, x: jax.Array) -> jax.Array:
    return jnp.broadcast_to(params, (len(x), len(params))).astype(x.dtype)


def _own_too(study: Study, name: str) -> Outcome:
    """The control without "-own", with the examples whose target is their own class moved as well.

    A counterfactual of an example that has its target already is the example. A density pulls it all the same: asked of
    a classifier that never says a class of the data, the search does not stop.
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


def _dfr(study: Study) -> Outcome:
    """The attacked network's last layer on balanced validation data: needs their groups."""
    model, seconds = study.erm
    begin = time.perf_counter()
    found = dfr(model, study.val.images(), study.val.y, study.val.group, key=study.key(5), batch=64)
    notes = {"C": found.report["C"], "converged": found.report["converged"]}
    return Outcome(found.model, study.task.steps, seconds + time.perf_counter() - begin, notes=notes)


def _afr(study: Study) -> Outcome:
    """Trained on four fifths; the last layer again on the fifth, γ by the worst group of val."""
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
    return Outcome(best.model, study.task.steps, time.perf_counter() - begin, notes={"gamma": gamma})


def _permuted(study: Study) -> tuple[Any, Any]:
    return study.weights(), study.permuted


CONTROLS: dict[str, Callable[[Study], tuple[Any, Any]]] = {
    "random-labels": lambda study: (unmoved, None),
    "density-only": lambda study: (study.weights(gamma=0.0), study.density),
    "gravity": _gravity,
    "permuted-density": _permuted,
}
GENERATORS: dict[str, Callable[[Study], tuple[Any, Any]]] = {
    "pgd-l2": partial(_pgd, norm="l2"),
    "pgd-linf": partial(_pgd, norm="linf"),
    "cfe-l2": _cfe_l2,
    "p-cfe": lambda study: (study.weights(), study.density),
}
GRID = "p-cfe-grid"  # stands for one method per pair of weights
OWN = ("density-only-own", "gravity-own")  # differ from those without "-own" where a target may be the own class
PEERS: dict[str, Callable[[Study], Outcome]] = {
    "resample": partial(_fresh, name="resample", how=lambda study: resample(study.train.group)),
    "reweight": partial(_fresh, name="reweight", how=lambda study: reweight(study.train.group)),
    "groupdro": partial(
        _fresh,
        name="groupdro",
        how=lambda study: group_dro(study.train.group, convention="wilds"),
    ),
    "jtt": partial(_fresh, name="jtt", how=_jtt),
    "dfr": _dfr,
    "afr": _afr,
}
WORDS = {
    "erm": "the attacked network: trained on the set as it is",
    "erm-steps": "the fresh network on the set as it is: what training alone scatters",
    "random-labels": "images as they are, labelled with the targets",
    "pgd-l2": "targeted PGD in an l2 ball",
    "pgd-linf": "targeted PGD in an linf ball",
    "cfe-l2": "‖x' − x‖² + γL",
    "p-cfe": "‖x' − x‖² + γL − τ log q + β‖x' − x‖_0",
    "density-only": "p-CFE without the classifier: γ = 0",
    "density-only-own": "the same, examples whose target is their class moved as well",
    "gravity": "x replaced by the mean of near points of the target's class",
    "gravity-own": "the same, examples whose target is their class replaced as well",
    "permuted-density": "p-CFE with the density of another class in the place of the target's",
    "success-filtered": "p-CFE, failures left out",
    "resample": "groups equally likely (group labels in training)",
    "reweight": "groups of equal weight (group labels in training)",
    "groupdro": "the worst mixture of groups (group labels in training)",
    "jtt": "trained twice, the errors of a short first training upweighted",
    "dfr": "the last layer of erm anew on balanced validation data (group labels there)",
    "afr": "the last layer anew, towards what the network gets wrong",
}


def grid_names(task: Task) -> list[str]:
    """p-CFE with each pair of the task's weights but the task's own."""
    moves = task.moves
    pairs = [(gamma, tau) for gamma in moves.gammas for tau in moves.taus]
    return [f"p-cfe gamma={g:g} tau={t:g}" for g, t in pairs if (g, t) != (moves.gamma, moves.tau)]


def chosen_methods(words: str, task: Task, policy: str) -> list[str]:
    """The methods of a comma-separated list, ``all`` and the grid written out; ``erm`` first, for all rest on it.

    Raises ValueError for an unknown name.
    """
    known = [*WORDS, GRID]
    if words == "all":
        names = list(task.methods) or [name for name in known if name not in OWN or policy == "all"]
    else:
        names = [word.strip() for word in words.split(",") if word.strip()]
    unknown = [name for name in names if name not in known and name not in grid_names(task)]
    if unknown or not names:
        raise BadArgument("methods", f"be all or some of {', '.join(known)}", words)
    written = [one for name in names for one in (grid_names(task) if name == GRID else [name])]
    return list(dict.fromkeys(["erm", *written]))


def run_method(name: str, study: Study) -> Outcome:
    """One method on one seed; the network and what it was trained on are kept in the study.

    Raises ValueError where the method cannot be carried out: nothing reached its target, JTT's first network errs not.
    """
    if name == "erm":
        outcome = _erm(study)
    elif name == "erm-steps":
        outcome = _fresh(study, name)
    elif name == "success-filtered":
        outcome = _filtered(study, name)
    elif name in OWN:
        outcome = _own_too(study, name)
    elif name in PEERS:
        outcome = PEERS[name](study)
    elif name in grid_names(study.task):
        gamma, tau = (float(word.partition("=")[2]) for word in name.split()[1:])
        outcome = _generated(study, name, lambda study: (study.weights(gamma, tau), study.density))
    else:
        outcome = _generated(study, name, (CONTROLS | GENERATORS)[name])
    study.models[name] = outcome.model
    if outcome.made is not None:
        study.perturbed[name] = outcome.made
    return outcome
