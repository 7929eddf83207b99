"""``fit``: a network trained on arrays.

    min_w  Σ_i c_i l(f_w(x_i), y_i)            c from a rule (:mod:`invjax.learn.rules`): the mean, GroupDRO, yours

A Python loop of compiled steps, metrics as plain dicts. Everything random comes from ``key``, the order of the examples
is a pure function of the key and the step; so a run that was killed goes on from its checkpoint to the very same bits.

A step is one call of a compiled program, not a turn of a ``lax.scan``. Measured on two CPU cores, steps one by one
against ten in a scan: SmallCNN at 28 px, batch 128, 78 ms against 99 ms (1,900 ms without the remedy of
:mod:`invjax.cpu.convolutions`); an MLP of three layers 0.8 ms against 0.4 ms: a scan saves what a step costs to
dispatch, and nothing that is worth a program compiled for its length. An adversary of seven steps is a loop inside the
step: there the remedy counts (SmallCNN, 0.5 s a step against 2.5 s).
"""

from __future__ import annotations

import dataclasses
import math
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from invjax.core.config import typed
from invjax.core.errors import BadArgument, Words
from invjax.core.numerics import strong
from invjax.cpu.convolutions import install_canonical_convolutions
from invjax.engine.folder import describe, digest
from invjax.learn import parts
from invjax.learn.checkpoint import Checkpoints, fingerprint
from invjax.learn.optimiser import Optax, Optimiser, as_optimiser
from invjax.learn.order import Order
from invjax.learn.rules import ERM, Rule
from invjax.learn.step import PRECISIONS, Augment, Batch, Choices, Loss, Numbers, Progress, cross_entropy, train_step
from invjax.types import Array

AHEAD = 4  # steps that may wait on the device: more would pile up batches in its memory

Hook = Callable[[dict[str, Any]], None]
Measure = Callable[[nnx.Module], dict[str, Any]]


class Trained(NamedTuple):
    """What :func:`fit` gives back."""

    model: nnx.Module  # a new module in evaluation mode
    history: list[dict[str, Any]]  # one record per report


def fit(
    model: nnx.Module,
    x: Any,
    y: Any,
    *,
    key: Array,
    steps: int | None = None,
    epochs: float | None = None,
    batch: int = 128,
    optimiser: Any = None,
    weights: Any = None,
    sampling: Any = None,
    groups: Any = None,
    rule: Rule | None = None,
    adversary: Any = None,
    augment: Augment | None = None,
    loss: Loss = cross_entropy,
    freeze: parts.Freeze | None = None,
    batch_norm: str = "train",
    precision: str = "float32",
    mesh: Any = None,
    every: int | None = None,
    measure: Measure | None = None,
    hooks: Sequence[Hook] = (),
    checkpoint: Any = None,
) -> Trained:
    """Train (or go on training) ``model``; the module itself is not changed.

    Args:
      model: an NNX module, [B, *S] -> logits [B, K]; its weights are where training starts. For inputs that the network
        wants normalised see :class:`invjax.models.Normalised`.
      x: [N, *S] floats in the data range, or uint8 pixels, which become [0, 1]; anything with a length that gives rows
        for an array of indices will do (files that are read when asked for).
      y: [N] int, classes.
      key: a typed key: of the order, of augmentation, adversary and dropout.
      steps: how many. epochs: or how many passes, ``steps = ceil(epochs · N / batch)``. Exactly one of the two.
      batch: B, at most N. Batches go on from one pass into the next: no example is left out.
      optimiser: an :class:`invjax.learn.Optimiser` (its numbers are traced: a sweep compiles once) or an optax
        transformation. None: SGD, rate 1e-3, momentum 0.9.
      weights: [N] >= 0, factors of the losses, as they are (mean 1 keeps the rate's meaning). None: 1.
      sampling: [N] >= 0: examples are drawn with replacement, with probability proportional to it. None: each in turn.
      groups: [N] int, for a rule that reads them.
      rule: how losses become one number; None: :class:`invjax.learn.ERM`.
      adversary: a pytree ``(logits, x, y, key) -> x'`` that moves the inputs before each step, such as
        :class:`invjax.learn.Adversary`; it sees the network in evaluation mode.
      augment: ``(key, x [B, *S]) -> [B, *S]`` inside the step, before the adversary. Define it once: another function
        is another program. The same holds for ``loss`` and ``freeze``.
      loss: ``(logits [B, K], y [B]) -> [B]``.
      freeze: which weights stay, by attribute path: ``lambda name: not name.startswith("classifier.")``.
      batch_norm: "train", or "frozen": the running statistics are used and stay.
      precision: "float32", or "bfloat16": the network computes in it; weights, statistics, logits, losses and the
        optimiser stay float32.
      mesh: devices over which each batch is split; its size divides ``batch``. The weights are on all of them, and
        sums over the batch (batch normalisation too) are sums over all devices: the result is that of one device up to
        rounding.
      every: steps between reports; None: an epoch, at most all steps. The last step always reports.
      measure: ``model -> {name: number}`` at each report, put into its record; the model is in evaluation mode.
      hooks: each is called with each record.
      checkpoint: a folder (needs orbax): the training is saved there at each report, and goes on from there when called
        again in the same way; a finished one gives its result at once. The mesh, ``every``, ``measure`` and ``hooks``
        may differ; anything else is refused.

    Returns:
      :class:`Trained`. A record of the history: ``step``, ``epoch``, ``rate`` of the optimiser where known, ``seconds``
      since the start of this call, and means since the last report of ``loss`` (unweighted), ``objective``,
      ``accuracy`` (of the training batches), ``gradient`` (norm before clipping) and what the rule reports. A training
      that diverges ends with NaN in its history, it does not raise.

    Raises:
      ValueError: a wrong argument, or a checkpoint of another training. ImportError: a checkpoint without orbax.
    """
    y, groups, weights, sampling = _check_data(x, y, groups, weights, sampling)
    count, total = len(y), _total(steps, epochs, len(y), batch)
    if precision not in PRECISIONS:
        raise BadArgument("precision", f"be one of {', '.join(map(repr, PRECISIONS))}", precision)
    if not 1 <= batch <= count:
        raise BadArgument("batch", f"be from 1 to the {count} examples", batch)
    every = min(total, math.ceil(count / batch)) if every is None else every
    if every < 1:
        raise BadArgument("every", "be at least 1 step", every)
    told_parts = (as_optimiser(optimiser), ERM() if rule is None else rule, adversary)
    for part in told_parts:
        check = getattr(part, "check", None)
        if check is not None:
            check()
    install_canonical_convolutions()  # for loops inside a step: an adversary's, a network's own

    streams = jax.random.split(key, 3)
    graphs, states = parts.split(model, streams[0], batch_norm, freeze)
    numeric: tuple[Any, Any, Any] = strong(tuple(map(typed, told_parts)), jnp.float32)  # 1 and 1.0 are one program
    numbers = Numbers(*numeric, total=jnp.asarray(total, jnp.int32), key=streams[1])
    progress = Progress(jnp.zeros((), jnp.int32), states, numbers.optimiser.init(states.weights), numbers.rule.init())
    choices = Choices(graphs, loss, augment, precision)
    place, replicate = _placing(mesh, batch)
    # A copy: the step uses up what it is given, and the first weights are the user's own arrays.
    progress, numbers = replicate(jax.tree.map(jnp.copy, progress)), replicate(numbers)

    saved = None
    if checkpoint is not None:
        manifest = {
            "format": 1,
            "kind": "training",
            "model": type(model).__name__,
            "start": digest(states),
            "inputs": fingerprint(x),
            **{name: digest(array) for name, array in (("labels", y), ("groups", groups), ("weights", weights))},
            "sampling": "in turn" if sampling is None else digest(sampling),
            **{name: _described(getattr(numbers, name)) for name in ("optimiser", "rule", "adversary")},
            **{name: _named(one) for name, one in (("augment", augment), ("loss", loss), ("freeze", freeze))},
            **{"batch_norm": batch_norm, "precision": precision, "steps": total, "batch": batch, "key": digest(key)},
        }
        saved = Checkpoints(checkpoint, manifest)
    history: list[dict[str, Any]] = []
    try:
        if saved is not None and (found := saved.restore(progress)) is not None:
            progress, history = found
            progress = replicate(progress)
        order = Order(streams[2], count, batch, sampling)
        begin, pending = time.perf_counter(), deque()
        for step in range(int(progress.step), total):
            rows = order.rows(step)
            given = Batch(np.asarray(x[rows]), y[rows], groups[rows], weights[rows])
            progress, told = train_step(progress, place(given), numbers, choices=choices)
            pending.append(told)
            if len(pending) > AHEAD:
                jax.block_until_ready(pending[-AHEAD])
            if (step + 1) % every and step + 1 < total:
                continue
            record = {"step": step + 1, "epoch": (step + 1) * batch / count, **_means(pending)}
            if isinstance(numbers.optimiser, Optimiser):
                record["rate"] = float(numbers.optimiser.rate_at(step, total))
            if measure is not None:
                # A copy: the next step uses these arrays up, and whoever measures may keep the model.
                record |= measure(parts.trained(model, jax.tree.map(jnp.copy, progress.states)))
            record["seconds"] = time.perf_counter() - begin
            history.append(record)
            pending.clear()
            if saved is not None:
                saved.save(step + 1, progress, history)
            for hook in hooks:
                hook(record)
    finally:
        if saved is not None:
            saved.close()
    return Trained(parts.trained(model, progress.states), history)


def _check_data(x: Any, y: Any, groups: Any, weights: Any, sampling: Any) -> tuple[np.ndarray, ...]:
    """The lists as arrays [N]; None stays None for ``sampling`` alone."""
    labels = np.asarray(y)
    if labels.ndim != 1 or not np.issubdtype(labels.dtype, np.integer) or not len(labels) or labels.min() < 0:
        raise BadArgument("y", "be classes [N], integers >= 0", Words(f"{labels.dtype} {labels.shape}"))
    count = len(labels)
    if len(x) != count:
        raise BadArgument("x", f"hold one input per label, {count}", hint=f"it held {len(x)}")
    dtype = np.asarray(x[:1]).dtype
    if dtype != np.uint8 and not jnp.issubdtype(dtype, jnp.floating):
        raise BadArgument("x", "be floats in the data range, or uint8", dtype)
    member = np.zeros(count, np.int32) if groups is None else np.asarray(groups)
    if member.shape != (count,) or not np.issubdtype(member.dtype, np.integer) or member.min() < 0:
        raise BadArgument(
            "groups", f"be integers >= 0 of shape ({count},)", hint=f"they were {member.dtype} {member.shape}"
        )

    def factors(name: str, values: Any) -> np.ndarray:
        array = np.asarray(values, np.float64)
        if array.shape != (count,) or not np.all(np.isfinite(array)) or array.min() < 0 or not array.sum() > 0:
            raise BadArgument(
                name, f"be {count} finite numbers >= 0, not all 0", hint=f"they were of shape {array.shape}"
            )
        return array

    weight = np.ones(count) if weights is None else factors("weights", weights)
    drawn = None if sampling is None else factors("sampling", sampling)
    return labels.astype(np.int32), member.astype(np.int32), weight.astype(np.float32), drawn  # type: ignore[return-value]


def _total(steps: int | None, epochs: float | None, count: int, batch: int) -> int:
    if (steps is None) == (epochs is None):
        raise ValueError(f"steps or epochs must be given, one of the two; they were {steps!r} and {epochs!r}")
    if steps is None:
        assert epochs is not None
        if not epochs > 0:
            raise BadArgument("epochs", "be positive", epochs)
        return math.ceil(epochs * count / batch)
    if isinstance(steps, bool) or int(steps) != steps or steps < 1:
        raise BadArgument("steps", "be a whole number >= 1", steps)
    return int(steps)


def _placing(mesh: Any, batch: int) -> tuple[Callable[[Any], Any], Callable[[Any], Any]]:
    """(where a batch goes, where everything else goes)."""
    if mesh is None:
        return (lambda tree: tree), (lambda tree: tree)
    if batch % mesh.size:
        raise BadArgument("batch", f"be a multiple of the {mesh.size} devices of the mesh", batch)
    # Automatic axes, whatever the caller's mesh has: the compiler splits the program by what the batch shows it.
    mesh = Mesh(mesh.devices, mesh.axis_names, axis_types=(AxisType.Auto,) * len(mesh.axis_names))
    rows = NamedSharding(mesh, PartitionSpec(mesh.axis_names))
    everywhere = NamedSharding(mesh, PartitionSpec())

    def split(leaf: np.ndarray) -> Array:
        # Each process hands over the rows of its own devices: every process holds the whole list.
        return jax.make_array_from_callback(leaf.shape, rows, lambda index: leaf[index])

    return (lambda tree: jax.tree.map(split, tree)), (lambda tree: jax.device_put(tree, everywhere))


def _means(told: Sequence[dict[str, Array]]) -> dict[str, Any]:
    """Means over the steps, as Python numbers; of an array (weights of groups) a list."""
    records = jax.device_get(list(told))
    means = {name: np.mean([record[name] for record in records], axis=0) for name in records[0]}
    return {name: value.tolist() for name, value in means.items()}


def _described(part: Any) -> Any:
    """A configuration in the words of a manifest. Of optax's transformations only the name of a function is known."""
    if part is None:
        return None
    if isinstance(part, Optax):
        return {"class": "Optax", "transformation": _named(part.transformation.update)}
    fields = describe(part) if dataclasses.is_dataclass(part) else {"leaves": digest(part)}
    return {"class": type(part).__name__, **fields}


def _named(function: Any) -> str | None:
    return None if function is None else getattr(function, "__qualname__", type(function).__name__)
