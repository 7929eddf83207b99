"""Perturbed data sets: every example moved towards another class by a method of the library, labelled with that class.

    S = {(x_n, y_n)}  →  S̃ = {(x̃_n, ỹ_n)},     ỹ_n = policy(y_n),     x̃_n = generator(x_n, ỹ_n)                    (1)

What a fresh network learns from S̃ it learns from the perturbations alone (Ilyas et al. 2019; Kumano et al. 2024), or
from what makes a counterfactual plausible (Sadiku et al. 2025). Three choices decide what such a study says, so they
are arguments: the target policy, what becomes of failures, and the generator, which may also be a *control*, a plain
function that moves x without asking the classifier.

The set is made in shards, and what is done stays in a folder: a killed run goes on, another configuration is refused.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from invjax.core.errors import BadArgument
from invjax.core.files import write_atomic
from invjax.core.logits import as_logits_fn, num_classes
from invjax.data.images.source import to_range
from invjax.engine import solve
from invjax.engine.folder import describe, digest, open_folder, packed
from invjax.learn.checkpoint import fingerprint
from invjax.learn.evaluate import predict
from invjax.types import Bounds, Method, Status

POLICIES = ("other", "all", "next", "fixed")
FAILURES = ("keep", "clean", "drop")
SHARD = 1024  # examples of a shard: at 224 px 0.6 GB, three times while it is made

Control = Callable[[np.ndarray, np.ndarray, np.ndarray, jax.Array], Any]


class Perturbed(NamedTuple):
    """A perturbed data set: M <= N examples, in the order of the originals."""

    x: np.ndarray  # [M, *S] float32, x̃
    y: np.ndarray  # [M] int32, ỹ: what to train on
    source: np.ndarray  # [M] int, row of the original
    label: np.ndarray  # [M] int32, y
    status: np.ndarray  # [M] int32, of :class:`~invjax.types.Status`
    evaluations: np.ndarray  # [M] int32, gradients that the example cost
    dropped: int  # failures that were left out

    @property
    def reached(self) -> float:
        """Share of all N attempts that have their target, those whose target was their class before included."""
        found = np.isin(self.status, (Status.FOUND, Status.ALREADY_TARGET)).sum()
        return float(found / max(1, len(self.y) + self.dropped))

    def __repr__(self) -> str:
        moved = f"{len(self.y)} examples, {self.reached:.1%} reached their target, {self.dropped} dropped"
        return f"Perturbed({moved}; {self.evaluations.mean() if len(self.y) else 0:.4g} evaluations on average)"


def draw_targets(policy: str | tuple[str, int], label: Any, classes: int, key: jax.Array) -> np.ndarray:
    """ỹ of (1). [N] int -> [N] int32.

    Args:
      policy: "other": uniform over the other classes. "all": uniform over all classes, so that ỹ may be y and the
        example then stays as it is (with two classes: half of them). "next": ``(y + 1) mod K``. ("fixed", k): class k.
      label: [N] int in [0, K). classes: K. key: of the draws.

    Raises ValueError: an unknown policy, or a fixed class that is none.
    """
    name, *rest = (policy,) if isinstance(policy, str) else policy
    if name not in POLICIES or len(rest) != (name == "fixed"):
        raise BadArgument("target_policy", "be 'other', 'all', 'next' or ('fixed', class)", policy)
    y = np.asarray(label, np.int32)
    if name == "next":
        return (y + 1) % classes
    if name == "fixed":
        if not 0 <= int(rest[0]) < classes:
            raise BadArgument("target_policy", f"be of a class in [0, {classes})", policy)
        return np.full_like(y, int(rest[0]))
    if name == "all":
        return np.asarray(jax.random.randint(key, y.shape, 0, classes), np.int32)
    return ((y + np.asarray(jax.random.randint(key, y.shape, 1, classes))) % classes).astype(np.int32)


def make_perturbed_dataset(
    generator: Any,
    target_policy: str | tuple[str, int],
    logits: Any,
    x: Any,
    y: Any,
    *,
    failures: str = "keep",
    key: jax.Array | None = None,
    bounds: Bounds | tuple[Any, Any] = (0.0, 1.0),
    density: Any = None,
    out: str | Path | None = None,
    name: str = "model",
    shard: int = SHARD,
    **options: Any,
) -> Perturbed:
    """S̃ of (1), by any attack or counterfactual method on the engine, or by a control.

    Args:
      generator: a method's configuration (``PGD(eps=3.0, norm="l2", stop_early=False)``, ``FixedWeights(…)``), or a
        function ``(x [n, *S], label [n], target [n], keys [n]) -> x̃ [n, *S]``.
      target_policy: see :func:`draw_targets`.
      logits: the classifier to be fooled, [B, *S] -> [B, K].
      x: [N, *S] inputs: floats in the data range, uint8 pixels (then 0 … 255 become the bounds' first and last), or
        anything with rows that numpy can index, such as images on disk.
      y: [N] int, their classes.
      failures: what becomes of an example that does not reach its target: "keep" what was tried last, with its
        target; "clean": the input as it was, with its target (label noise, as the released code makes it); "drop" it.
      key: of targets and methods; each example's draws depend on its row alone.
      bounds: of the data. density: for methods with one.
      out: folder in which finished shards stay. name: what to call the network there.
      shard: examples per shard.
      options: further arguments of :func:`invjax.solve`: lanes, mesh, evaluator, progress.

    Examples whose target is their own class keep their x and have the status ALREADY_TARGET.
    Raises ValueError: an unknown policy, lists that do not fit, or a folder that holds another run.
    """
    if failures not in FAILURES:
        raise BadArgument("failures", f"be one of {', '.join(map(repr, FAILURES))}", failures)
    if shard < 1:
        raise BadArgument("shard", "be a number of examples >= 1", shard)
    label = np.asarray(y, np.int32)
    if label.ndim != 1 or len(label) != len(x) or not len(label):
        raise ValueError(f"x and y must be lists of one length >= 1; had {len(x)} and shape {label.shape}")
    key = jax.random.key(0) if key is None else key
    first = _floats(x, slice(0, 1), bounds)
    network = as_logits_fn(logits)
    classes = num_classes(network, first.shape[1:], first.dtype)
    target_key, method_key = jax.random.split(key)
    target = draw_targets(target_policy, label, classes, target_key)
    folder = None
    if out is not None:
        folder = Path(out)
        open_folder(folder, _manifest(generator, network, x, label, target, method_key, density, name, shard))

    shards = []
    for begin in range(0, len(label), shard):
        rows = np.arange(begin, min(begin + shard, len(label)))
        path = None if folder is None else folder / f"shard-{begin // shard:06d}.npz"
        done = None if path is None else _read(path)
        if done is None:
            clean = _floats(x, rows, bounds)
            running = None if path is None else path.with_suffix(".running")
            done = _one_shard(
                generator, network, clean, label[rows], target[rows], rows, method_key, bounds, density,
                {**options, "out": running, "name": name},
            )  # fmt: skip
            if path is not None and running is not None:
                write_atomic(path, packed(done))
                shutil.rmtree(running, ignore_errors=True)
        shards.append(_chosen(done, _floats(x, rows, bounds), failures))
    joined = [np.concatenate(parts) for parts in zip(*shards, strict=True)]
    moved, source, status, evaluations = joined
    return Perturbed(moved, target[source], source, label[source], status, evaluations, len(label) - len(source))


def _read(path: Path) -> dict[str, np.ndarray] | None:
    """A shard that is done, or None. A damaged file counts as none: the shard is made again."""
    try:
        with np.load(path) as file:
            return {name: file[name] for name in ("delta", "status", "evaluations", "rows")}
    except Exception:  # damaged bytes fail in many ways
        return None


def _floats(x: Any, rows: Any, bounds: Any) -> np.ndarray:
    """Some rows as float32 in the data range."""
    part = np.asarray(x[rows])
    return to_range(part, Bounds(*bounds)) if part.dtype == np.uint8 else part.astype(np.float32)


def _one_shard(
    generator: Any, network: Any, x: Any, label: Any, target: Any, rows: Any, key: Any, bounds: Any, density: Any,
    options: dict[str, Any],
) -> dict[str, np.ndarray]:  # fmt: skip
    """Perturbation, status, evaluations and rows of a shard."""
    delta = np.zeros_like(x)
    status = np.full(len(x), Status.ALREADY_TARGET, np.int32)
    evaluations = np.zeros(len(x), np.int32)
    moves = np.flatnonzero(target != label)
    if len(moves):
        part = x[moves], label[moves], target[moves]
        if isinstance(getattr(generator, "method", None), Method):
            found = solve(
                network, part[0], part[1], target=part[2], method=generator, bounds=bounds, density=density, key=key,
                ids=rows[moves], **options,
            )  # fmt: skip
            delta[moves] = np.asarray(found.attempt) - part[0]
            status[moves], evaluations[moves] = np.asarray(found.status), np.asarray(found.evaluations)
            won = np.asarray(found.status) == Status.FOUND
            delta[moves[won]] = np.asarray(found.delta)[won]
        else:
            keys = jax.vmap(lambda row: jax.random.fold_in(key, row))(rows[moves])
            delta[moves] = np.clip(np.asarray(generator(*part, keys), x.dtype), *bounds) - part[0]
            classes = predict(network, part[0] + delta[moves]).argmax(1)
            status[moves] = np.where(classes == part[2], Status.FOUND, Status.NOT_FOUND)
    return {"delta": delta, "status": status, "evaluations": evaluations, "rows": rows}


def _chosen(done: dict[str, np.ndarray], x: np.ndarray, failures: str) -> tuple[np.ndarray, ...]:
    """x̃, rows, status and evaluations of a shard, failures as they are to be."""
    failed = ~np.isin(done["status"], (Status.FOUND, Status.ALREADY_TARGET))
    moved = x + done["delta"]
    if failures == "clean":
        moved[failed] = x[failed]
    keep = ~failed if failures == "drop" else np.ones(len(x), bool)
    return tuple(field[keep] for field in (moved, done["rows"], done["status"], done["evaluations"]))


def _manifest(
    generator: Any, network: Any, x: Any, label: Any, target: Any, key: Any, density: Any, name: str, shard: int
) -> dict[str, Any]:
    """What makes two runs the same."""
    plain = not isinstance(getattr(generator, "method", None), Method)
    return {
        "format": 1,
        "generator": getattr(generator, "__qualname__", type(generator).__name__),
        "constants": {} if plain else describe(generator),
        "model": name,
        "weights": digest((network, density)),
        "inputs": [fingerprint(x), digest((label, target, key))],
        "shard": shard,
    }
