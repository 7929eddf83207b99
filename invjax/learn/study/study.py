"""One seed of the study: the examples, the attacked network, the densities, and the sets and networks made from them.

    attacked network: trained on S as it is;      S̃ = perturbed S;      measured network: fresh, trained on S̃

The fresh network, the order of its batches and its number of steps are the same for every method of a seed. Methods
differ only in the examples they show it. After a seed ``Study.models`` holds the trained networks and
``Study.perturbed`` the sets they learnt from, both by method: figures and measures of evidence start from these.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from flax import nnx

from invjax.core.shown import short_repr
from invjax.counterfactuals import FixedWeights
from invjax.data.grouped.group_data import GroupData
from invjax.densities import fit_knn
from invjax.learn import Perturbed, fit, make_perturbed_dataset
from invjax.learn.study.tasks import DENSITIES, NEAREST, Task, TaskPolicy
from invjax.types import Density


class MethodRun(NamedTuple):
    """What one method leaves on one seed."""

    model: nnx.Module
    steps: int  # of its training
    train_s: float  # seconds of all training, earlier networks included
    perturb_s: float = 0.0  # seconds spent on the perturbed set
    made: Perturbed | None = None  # the perturbed set it learnt from, if there is one
    notes: dict[str, Any] = {}  # noqa: RUF012 -- never written to

    __repr__ = short_repr


@dataclass(eq=False)
class Study:
    """One seed: examples, attacked network and densities are made on first use and kept."""

    task: Task
    seed: int
    policy: TaskPolicy
    folder: Path | None = None  # keeps trainings and perturbed sets, so that a killed run resumes
    models: dict[str, nnx.Module] = field(default_factory=dict)  # trained networks by method
    perturbed: dict[str, Perturbed] = field(default_factory=dict)  # what they learnt from, by method
    made: dict[str, tuple[Perturbed, float]] = field(default_factory=dict)  # by generator, with its seconds

    __repr__ = short_repr

    @cached_property
    def data(self) -> GroupData:
        data = self.task.load(self.seed)
        data.require_groups()
        return data

    @cached_property
    def train(self) -> GroupData:
        return self.data.split("train")

    @cached_property
    def val(self) -> GroupData:
        return self.data.split("val")

    @cached_property
    def test(self) -> GroupData:
        return self.data.split("test")

    @cached_property
    def x(self) -> np.ndarray:
        """The training images, [N, H, W, C] float32 in [0, 1]."""
        return self.train.images()

    def key(self, purpose: int) -> jax.Array:
        """The key of a purpose: weights (0 attacked, 1 fresh), orders (2, 3), targets (4), last layers (5), JTT (6)."""
        return jax.random.fold_in(jax.random.key(self.seed), purpose)

    @cached_property
    def erm(self) -> tuple[nnx.Module, float]:
        """The attacked network and the seconds of its training."""
        net = self.task.build(self.key(0), self.data)
        return self.trained("erm", net, self.x, self.train.y, key=self.key(2))

    def fresh(self) -> nnx.Module:
        """An untrained network, the same for all methods."""
        return self.task.build(self.key(1), self.data)

    def trained(self, name: str, net: nnx.Module, x: Any, y: Any, **how: Any) -> tuple[nnx.Module, float]:
        """``net`` trained by the protocol of the task, and the seconds it took."""
        begin = time.perf_counter()
        how = {"key": self.key(3), "steps": self.task.steps, "batch": min(self.task.batch, len(y))} | how
        how |= {"optimiser": self.task.optimiser, "batch_norm": self.task.batch_norm}
        folder = None if self.folder is None else self.folder / file_name(name) / "training"
        model = fit(net, x, y, checkpoint=folder, **how).model
        return model, time.perf_counter() - begin

    @cached_property
    def references(self) -> np.ndarray:
        """Rows of the training set that densities are fitted on: up to ``task.references`` of each class."""
        rng = np.random.default_rng(self.seed)
        rows = [rng.permutation(np.flatnonzero(self.train.y == k)) for k in range(len(self.data.classes))]
        return np.sort(np.concatenate([one[: self.task.references] for one in rows]))

    def fit_density(self, shift: int = 0) -> Density:
        """The task's density of each class; a shift gives class k the density of class k − shift."""
        labels = (self.train.y[self.references] + shift) % len(self.data.classes)
        return DENSITIES[self.task.density].fit(self.x[self.references], labels, self.erm[0])

    @cached_property
    def density(self) -> Density:
        return self.fit_density()

    @cached_property
    def permuted(self) -> Any:
        """The density with its classes permuted: class k has that of class k − 1."""
        return self.fit_density(1)

    @cached_property
    def gravity(self) -> Any:
        """The pull towards the nearest points of a class, in pixels."""
        return fit_knn(self.x[self.references], self.train.y[self.references], NEAREST)

    def weights(self, gamma: float | None = None, tau: float | None = None) -> FixedWeights:
        """p-CFE with the task's constants; gamma and tau may be replaced."""
        moves, kind = self.task.moves, DENSITIES[self.task.density]
        gamma = moves.gamma if gamma is None else gamma
        tau = moves.tau if tau is None else tau
        return FixedWeights(
            gamma=gamma, tau=tau * kind.weight, beta=moves.beta, steps=moves.iterations,
            step_size=first_step(gamma, tau * kind.curvature),
        )  # fmt: skip

    def make(self, name: str, generator: Any, density: Any = None, policy: TaskPolicy | None = None) -> Perturbed:
        """The perturbed set of a generator, made once; its seconds are in :meth:`spent`."""
        if name not in self.made:
            attacked, begin = self.erm[0], time.perf_counter()
            folder = None if self.folder is None else self.folder / file_name(name) / "perturbed"
            made = make_perturbed_dataset(
                generator, policy or self.policy, attacked, self.x, self.train.y, key=self.key(4), density=density,
                out=folder, lanes=min(self.task.lanes, len(self.x)), progress=False,
            )  # fmt: skip
            self.made[name] = made, time.perf_counter() - begin
        return self.made[name][0]

    def spent(self, name: str) -> float:
        """Seconds of :meth:`make`."""
        return self.made[name][1]

    def learn_from(self, name: str, made: Perturbed, seconds: float, **notes: Any) -> MethodRun:
        """Train the fresh network on a perturbed set."""
        if not len(made.y):
            raise ValueError("no example reached its target: nothing is left to train on")
        model, train_s = self.trained(name, self.fresh(), made.x, made.y)
        return MethodRun(model, self.task.steps, train_s, seconds, made, notes)


def file_name(name: str) -> str:
    """The name of a method as part of a path."""
    return name.replace(" ", "_").replace("=", "-")


def first_step(gamma: float, curvature: float) -> float:
    """A first step size of the search, small enough that neither term overshoots by much."""
    return min(0.1, 0.5 / max(gamma, 1e-6), 1 / max(curvature, 1e-6))
