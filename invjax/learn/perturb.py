"""Perturbed data sets: a method of the library moves every example towards a class and labels it with that class.

    S = {(x_n, y_n)}  →  S̃ = {(x̃_n, ỹ_n)},     ỹ_n = policy(y_n),     x̃_n = generator(x_n, ỹ_n)                    (1)

A fresh network learns from S̃ only through the perturbations (Ilyas et al. 2019; Kumano et al. 2024), or through what
makes a counterfactual plausible (Sadiku et al. 2025). Three choices decide what such a study shows, so they are
arguments: the target policy, the treatment of failures, and the generator, which may also be a *control*, a plain
function that moves x without asking the classifier.

The set is made in shards. With a folder finished shards are kept, so a killed run resumes; a folder of another
configuration is refused. A shard holds the points as they were found: they obey the bounds, to the last bit.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

import jax
import numpy as np

from invjax.core.arguments import kinds_checked
from invjax.core.errors import BadArgument, check, check_choice, check_key, check_whole
from invjax.core.files import write_atomic, writing
from invjax.core.identity import describe, digest, digest_of_leaves, digest_of_structure
from invjax.core.images import are_pixels
from invjax.core.labels import NO_CLASS, check_indices, classes_of
from invjax.core.logits import as_logits_fn, num_classes
from invjax.data.images.source import to_range
from invjax.engine import solve, white_box
from invjax.engine.folder import as_folder
from invjax.engine.manifest import FORMAT, AnotherRun, hash_of_run, keep_later, name_of, open_folder, python
from invjax.engine.parts import packed, set_aside, unpacked
from invjax.engine.seen import seen_through
from invjax.learn.checkpoint import fingerprint
from invjax.learn.evaluate import predict
from invjax.types import Bounds, Density, LogitsFn, Method, Status

Drawn = Literal["other", "all", "next"]
Policy = Drawn | tuple[Literal["fixed"], int]
Failures = Literal["keep", "clean", "drop"]
_NO_ANSWER = ("lanes", "mesh", "progress")  # options that change none
SHARD = 1024  # examples of a shard: 0.6 GB at 224 px, three times as much while it is made


class Perturbed(NamedTuple):
    """A perturbed data set: M <= N examples, in the order of the originals."""

    x: np.ndarray  # [M, *S] float32, x̃
    y: np.ndarray  # [M] int32, ỹ: the labels to train on
    source: np.ndarray  # [M] int, row of the original
    label: np.ndarray  # [M] int32, y
    status: np.ndarray  # [M] int32, of :class:`~invjax.types.Status`
    evaluations: np.ndarray  # [M] int32, gradients spent on the example
    dropped: int  # failures left out

    @property
    def reached(self) -> float:
        """Share of all N examples that have their target, including those whose target was their own class."""
        found = np.isin(self.status, (Status.FOUND, Status.ALREADY_TARGET)).sum()
        return float(found / max(1, len(self.y) + self.dropped))

    def __repr__(self) -> str:
        moved = f"{len(self.y)} examples, {self.reached:.1%} reached their target, {self.dropped} dropped"
        return f"Perturbed({moved}; {self.evaluations.mean() if len(self.y) else 0:.4g} evaluations on average)"


@kinds_checked
def draw_targets(policy: Policy, label: Any, classes: int, key: jax.Array) -> np.ndarray:
    """ỹ of (1). [N] int -> [N] int32.

    Args:
      policy: "other" draws uniformly from the other classes. "all" draws uniformly from all classes, so that ỹ may be y
        and the example then stays as it is (half of them if there are two classes). "next" is ``(y + 1) mod K``.
        ("fixed", k) is class k.
      label: [N] int in [0, K).
      classes: K.
      key: of the draws.

    Raises ValueError: an unknown policy, or a fixed class outside [0, K).
    """
    name, *rest = (policy,) if isinstance(policy, str) else policy
    if name not in (*get_args(Drawn), "fixed") or len(rest) != (name == "fixed"):
        raise BadArgument("target_policy", "be 'other', 'all', 'next' or ('fixed', class)", policy)
    y = check_indices("label", label, None, classes)
    if name == "next":
        return (y + 1) % classes
    if name == "fixed":
        check("target_policy", rest[0], lambda k: k == int(k) and 0 <= k < classes, f"of a class in [0, {classes})")
        return np.full_like(y, int(rest[0]))
    key = check_key(key)
    if name == "all":
        return np.asarray(jax.random.randint(key, y.shape, 0, classes), np.int32)
    return ((y + np.asarray(jax.random.randint(key, y.shape, 1, classes))) % classes).astype(np.int32)


@kinds_checked
def make_perturbed_dataset(
    generator: Any,
    target_policy: Policy,
    logits: LogitsFn,
    x: Any,
    y: Any,
    *,
    failures: Failures = "keep",
    key: jax.Array | None = None,
    bounds: Bounds | tuple[Any, Any] = (0.0, 1.0),
    density: Density | None = None,
    out: str | Path | None = None,
    name: str | None = None,
    shard: int = SHARD,
    **options: Any,
) -> Perturbed:
    """S̃ of (1), made by any attack or counterfactual method of the engine, or by a control.

    Args:
      generator: a method's configuration (``PGD(eps=3.0, norm="l2", stop_early=False)``, ``FixedWeights(…)``), or a
        function ``(x [n, *S], label [n], target [n], keys [n]) -> x̃ [n, *S]``.
      target_policy: see :func:`draw_targets`.
      logits: the classifier to be fooled, [B, *S] -> [B, K].
      x: [N, *S] inputs: floats in the data range, uint8 pixels (0 … 255 then become the two bounds), or anything with
        rows that numpy can index, such as images on disk.
      y: [N] int, their classes.
      failures: the treatment of an example that misses its target. "keep" takes the last attempt, "clean" the input as
        it was (label noise, as in the released code), both with the target as label; "drop" leaves it out.
      key: of targets and methods; the draws of an example depend on its row alone.
      bounds: of the data.
      density: for methods that need one.
      out: folder that keeps finished shards.
      name: what to call the network in that folder; needed where a function cannot be told from another.
      shard: examples per shard.
      options: further arguments of :func:`invjax.solve`: lanes, mesh, evaluator, progress.

    An example whose target is its own class keeps its x and has the status ALREADY_TARGET.
    Raises ValueError: an unknown policy, lists that do not fit, or a folder that holds another run.
    """
    check_choice("failures", failures, get_args(Failures))
    shard = check_whole("shard", shard)
    if not len(x):
        raise BadArgument("x", "hold at least one example")
    key = check_key(key)
    first = _floats(x, slice(0, 1), bounds)
    network = as_logits_fn(logits)
    classes = num_classes(network, first.shape[1:], first.dtype)
    label = check_indices("y", y, len(x), classes, of="logits")
    target_key, method_key = jax.random.split(key)
    target = draw_targets(target_policy, label, classes, target_key)
    folder = run = None
    given = {"generator": generator, "bounds": tuple(bounds), "density": density, "options": options}
    if out is not None:
        folder = as_folder("out", out)
        manifest = _manifest(given, network, [fingerprint(x), digest((label, target, method_key))], name, shard)
        run = hash_of_run(open_folder(folder, manifest, parts=("shard-*.npz", "shard-*.running")))

    shards = []
    for begin in range(0, len(label), shard):
        rows = np.arange(begin, min(begin + shard, len(label)))
        path = None if folder is None else folder / f"shard-{begin // shard:06d}.npz"
        clean = _floats(x, rows, bounds)
        done = None if path is None else _read(path, run, clean)
        if done is None:
            running = None if path is None else path.with_suffix(".running")
            parts = clean, label[rows], target[rows], rows, method_key, bounds, density
            call = {**options, "out": running, "name": name}
            try:
                try:
                    done = _one_shard(generator, network, *parts, call)
                except AnotherRun:  # the folder is this run's: a function has changed since, by counting its calls
                    assert running is not None
                    _remove(running)
                    done = _one_shard(generator, network, *parts, call)
            except (BadArgument, OSError):
                done = None if path is None else _read(path, run, clean)
                if done is None:  # else another thread or process has made it, and taken its folder away
                    raise
            if path is not None and running is not None:
                with writing(path.parent):
                    write_atomic(path, packed(done, run or ""))
                _remove(running)
        shards.append(_chosen(done, clean, failures))
    if folder is not None:
        with writing(folder):
            keep_later(folder, lambda: _functions(given, network, name))
    moved, source, status, evaluations = (np.concatenate(parts) for parts in zip(*shards, strict=True))
    return Perturbed(moved, target[source], source, label[source], status, evaluations, len(label) - len(source))


def _is_method(generator: Any) -> bool:
    return isinstance(getattr(generator, "method", None), Method)


def _read(path: Path, run: str | None, x: np.ndarray) -> dict[str, np.ndarray] | None:
    """A finished shard of the inputs x, or None. A damaged file is set aside, so that its shard is made again."""
    if not path.exists():
        return None
    with writing(path.parent):
        done = unpacked(path, ("x", "status", "evaluations", "rows"), run)
    if done is None or done["x"].shape != x.shape:
        set_aside(path)
        return None
    return done


def _remove(folder: Path) -> None:
    """Take a folder away at once, also for whoever would open it now."""
    away = folder.with_name(f".{folder.name}-{os.urandom(4).hex()}")
    with contextlib.suppress(OSError):  # a control has none, and another thread may be faster
        os.replace(folder, away)
        shutil.rmtree(away, ignore_errors=True)


def _floats(x: Any, rows: Any, bounds: Any) -> np.ndarray:
    """Some rows as float32 in the data range."""
    part = np.asarray(x[rows])
    return to_range(part, Bounds(*bounds)) if are_pixels(part.dtype) else part.astype(np.float32)


def _one_shard(
    generator: Any, network: Any, x: Any, label: Any, target: Any, rows: Any, key: Any, bounds: Any, density: Any,
    options: dict[str, Any],
) -> dict[str, np.ndarray]:  # fmt: skip
    """Points, status, evaluations and rows of a shard."""
    found = x.copy()
    status = np.full(len(x), Status.ALREADY_TARGET, np.int32)
    evaluations = np.zeros(len(x), np.int32)
    moves = np.flatnonzero(target != label)
    if len(moves):
        part = x[moves], label[moves], target[moves]
        if _is_method(generator):
            result = solve(
                network, part[0], part[1], target=part[2], method=generator, bounds=bounds, density=density, key=key,
                ids=rows[moves], **options,
            )  # fmt: skip
            status[moves], evaluations[moves] = np.asarray(result.status), np.asarray(result.evaluations)
            won = status[moves] == Status.FOUND
            found[moves] = np.asarray(result.attempt)
            found[moves[won]] = np.asarray(result.x)[won]
        else:
            keys = jax.vmap(lambda row: jax.random.fold_in(key, row))(rows[moves])
            lower, upper = (np.asarray(side, x.dtype) for side in bounds)
            found[moves] = np.clip(np.asarray(generator(*part, keys), x.dtype), lower, upper)
            seen = seen_through(options.get("evaluator", white_box), network)
            said = classes_of(predict(seen, found[moves]))
            missed = np.where(said == NO_CLASS, Status.NONFINITE, Status.NOT_FOUND)
            status[moves] = np.where(said == part[2], Status.FOUND, missed)
    return {"x": found, "status": status, "evaluations": evaluations, "rows": rows}


def _chosen(done: dict[str, np.ndarray], x: np.ndarray, failures: Failures) -> tuple[np.ndarray, ...]:
    """x̃, rows, status and evaluations of a shard, with failures treated as asked."""
    failed = ~np.isin(done["status"], (Status.FOUND, Status.ALREADY_TARGET))
    moved = np.where(failed.reshape(-1, *[1] * (x.ndim - 1)), x, done["x"]) if failures == "clean" else done["x"]
    keep = ~failed if failures == "drop" else np.ones(len(x), bool)
    return tuple(field[keep] for field in (moved, done["rows"], done["status"], done["evaluations"]))


def _manifest(given: dict[str, Any], network: Any, inputs: list[str], name: str | None, shard: int) -> dict[str, Any]:
    """What identifies a run in its folder. given: the arguments by name, with the options of :func:`invjax.solve`."""
    return {
        "format": FORMAT,
        "python": python(),
        **_functions(given, network, name),
        "bounds": describe(given["bounds"]),
        "model": name_of(name),
        "weights": digest_of_leaves(network),
        "density": None if given["density"] is None else digest(given["density"], name=name),
        "inputs": inputs,
        "shard": shard,
    }


def _functions(given: dict[str, Any], network: Any, name: str | None) -> dict[str, Any]:
    """The entries that may be other ones after the run: see :func:`invjax.engine.manifest.functions`."""
    how = {key: value for key, value in given["options"].items() if key not in _NO_ANSWER and value is not None}
    evaluator, generator = how.pop("evaluator", white_box), given["generator"]
    return {
        "generator": describe(generator, name=name),
        "method": digest(generator.method, name=name) if _is_method(generator) else None,
        "evaluator": describe(evaluator, name=name),
        "options": {key: describe(value, name=name) for key, value in sorted(how.items())},
        "network": digest_of_structure(network, name=name),
    }
