"""Train one of the small classifiers on a file of images: ``python -m invjax.models.train mnist_cnn --images FILE …``

    min_w  mean_i cross-entropy(logits_w(shifted x_i), label_i)          Adam, cosine schedule

The loop is a Python loop of jitted steps, not a ``lax.scan``: on a CPU the weight gradients of convolutions inside a
compiled loop are many times slower, and dispatch is cheap compared with a step.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import os
import platform
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from invjax.core.errors import BadArgument, Words, check_seed, check_whole, of_shape
from invjax.core.files import check_folder, write_atomic
from invjax.core.images import HINT
from invjax.core.labels import check_indices, classes_of, count_classes
from invjax.core.rows import map_rows
from invjax.models.cnn import SmallCNN
from invjax.models.mlp import MLP
from invjax.models.params_file import load_arrays, save_arrays, weights_of
from invjax.models.registry import load
from invjax.models.vit import ViT, ViTConfig
from invjax.models.vit_import import vit_arrays
from invjax.types import LogitsFn

NAMES = {
    "mnist_cnn": "cnn",
    "cnn": "cnn",
    "mlp": "mlp",
    "vit_mnist": "vit",
    "vit": "vit",
}  # model to train -> its name in the registry


class Images(NamedTuple):
    """Pictures with labels, as a file holds them."""

    images: np.ndarray  # [N, H, W, C] uint8
    labels: np.ndarray  # [N] int32


def read_images(path: str | Path, argument: str = "images") -> Images:
    """Read an npz with ``images`` (uint8, [N, H, W] or [N, H, W, C]) and ``labels`` (integers, [N]).

    Raises:
      ValueError: the file cannot be read, lacks one of the two, or they have other shapes or types.
    """
    try:
        arrays = load_arrays(path)
    except BadArgument as error:
        raise (error.renamed(argument) if error.name == "path" else error) from None
    if not {"images", "labels"} <= set(arrays):
        raise BadArgument(argument, "be an npz with 'images' and 'labels'", hint=f"{path} has {sorted(arrays)}")
    images, labels = arrays["images"], arrays["labels"]
    if images.dtype != np.uint8 or images.ndim not in (3, 4) or not len(images):
        raise BadArgument(argument, "hold uint8 [N, H, W] or [N, H, W, C]", Words(f"{images.dtype} {images.shape}"))
    labels = check_indices("labels", labels, len(images), strict=True)
    count_classes("labels", labels)
    return Images(images if images.ndim == 4 else images[..., None], labels)


def held_out(labels: np.ndarray, seed: int = 0) -> np.ndarray:
    """[N] bool: a tenth of each class (one at least, but not the only one), drawn by the seed.

    Files are often sorted by class, or take turns: then every tenth image may be all there is of a class.

    Raises:
      BadArgument: no class has two images.
    """
    draw, held = np.random.default_rng(seed), np.zeros(len(labels), bool)
    for label in np.unique(labels):
        own = draw.permutation(np.flatnonzero(labels == label))
        held[own[: max(len(own) // 10, int(len(own) > 1))]] = True
    if not held.any():
        raise BadArgument("images", "hold two images of a class", hint="one of them is held out; or give test")
    return held


def to_input(images: np.ndarray) -> np.ndarray:
    """uint8 -> float32 in [0, 1]."""
    return images.astype(np.float32) / 255


def shifted(images: np.ndarray, generator: np.random.Generator, most: int) -> np.ndarray:
    """Move each image [B, H, W, C] by up to ``most`` pixels each way and fill with zeros: a digit stays a digit."""
    if most == 0:
        return images
    count, height, width = images.shape[:3]
    wide = np.pad(images, ((0, 0), (most, most), (most, most), (0, 0)))
    dy, dx = generator.integers(0, 2 * most + 1, (2, count))
    rows = dy[:, None, None] + np.arange(height)[None, :, None]
    columns = dx[:, None, None] + np.arange(width)[None, None, :]
    return wide[np.arange(count)[:, None, None], rows, columns]


def make_step(graph: Any, optimiser: optax.GradientTransformation) -> Callable[..., tuple[Any, Any, jax.Array]]:
    """One step of the optimiser: (weights, its state, x [B, H, W, C], labels [B]) -> (weights, state, loss)."""

    def loss_of(weights: Any, x: jax.Array, labels: jax.Array) -> jax.Array:
        return optax.softmax_cross_entropy_with_integer_labels(nnx.merge(graph, weights)(x), labels).mean()

    @partial(jax.jit, donate_argnums=(0, 1))
    def step(weights: Any, memory: Any, x: jax.Array, labels: jax.Array) -> tuple[Any, Any, jax.Array]:
        loss, gradient = jax.value_and_grad(loss_of)(weights, x, labels)
        updates, memory = optimiser.update(gradient, memory, weights)
        return optax.apply_updates(weights, updates), memory, loss

    return step


def train(
    net: nnx.Module,
    data: Images,
    mean: np.ndarray,
    std: np.ndarray,
    *,
    epochs: int,
    batch: int = 128,
    rate: float = 2e-3,
    shift: int = 2,
    seed: int = 0,
    report: Callable[[str], None] = print,
) -> nnx.Module:
    """Train ``net`` on normalised images and return a module with the new weights.

    Args:
      mean, std: normalisation per channel, [C].
      epochs, batch: passes over the data, and examples per step; an incomplete last batch of a pass is left out.
      rate: peak learning rate of Adam, falling to 0 by a half cosine.
      shift: random moves of the images, in pixels.
      seed: of the order and the moves.
      report: called with one line per epoch.

    Raises BadArgument: images that are not uint8, labels that are no classes of the network, or a loss that is no
    longer finite.
    """
    if data.images.dtype != np.uint8:
        raise BadArgument("images", "be uint8 pixels", data.images.dtype, hint=HINT)
    batch = min(batch, len(data.images))
    steps = len(data.images) // batch
    optimiser = optax.adamw(optax.cosine_decay_schedule(rate, epochs * steps), weight_decay=1e-4)
    graph, weights = nnx.split(net)
    out = jax.eval_shape(nnx.merge(graph, weights), jax.ShapeDtypeStruct((1, *data.images.shape[1:]), np.float32))
    data = data._replace(labels=check_indices("labels", data.labels, len(data.images), out.shape[-1]))
    memory = optimiser.init(weights)
    step = make_step(graph, optimiser)
    generator = np.random.default_rng(check_seed("seed", seed))
    for epoch in range(epochs):
        start, losses = time.perf_counter(), []
        order = generator.permutation(len(data.images))
        for i in range(steps):
            rows = order[i * batch : (i + 1) * batch]
            x = (to_input(shifted(data.images[rows], generator, shift)) - mean) / std
            weights, memory, loss = step(weights, memory, x, data.labels[rows])
            losses.append(loss)
        seconds, mean_loss = time.perf_counter() - start, float(jnp.stack(losses).mean())
        if not math.isfinite(mean_loss):
            raise BadArgument("rate", "be smaller", rate, hint=f"the loss of epoch {epoch + 1} is {mean_loss}")
        report(f"epoch {epoch + 1}/{epochs}: loss {mean_loss:.4f}, {seconds:.1f} s")
    return nnx.merge(graph, weights)


def accuracy(model: LogitsFn, data: Images, batch: int = 500) -> float:
    """Share of images whose largest logit is that of their label; logits that hold NaN are wrong."""
    return float(np.mean(map_rows(_classes, model, to_input(data.images), batch=batch) == data.labels))


def _classes(model: LogitsFn, x: jax.Array) -> jax.Array:
    return classes_of(model(x))


def _sha256(path: str | Path) -> str:
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m invjax.models.train", description="Train a small classifier on a file of images."
    )
    parser.add_argument("model", choices=sorted(NAMES))
    parser.add_argument("--images", required=True, help="npz with images (uint8, [N,H,W] or [N,H,W,C]) and labels")
    parser.add_argument("--out", required=True, help="npz to write; a record of the run goes beside it as .json")
    parser.add_argument("--test", help="npz to measure on; without it a tenth of each class is held out")
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--rate", type=float, default=2e-3)
    parser.add_argument("--shift", type=int, default=2, help="random moves of the images, in pixels")
    parser.add_argument("--hidden", type=int, default=64, help="features of the hidden dense layer; of a ViT's tokens")
    parser.add_argument("--patch", type=int, default=4, help="side of a ViT's patches, pixels")
    parser.add_argument("--depth", type=int, default=4, help="blocks of a ViT")
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args(argv)


def run(options: argparse.Namespace) -> dict[str, Any]:
    """Train, write the weights (rounded to float16) and the record, and return the record."""
    for name in ("epochs", "batch", "hidden", "patch", "depth"):
        check_whole(name, getattr(options, name))
    check_seed("seed", options.seed, 32)
    out = Path(options.out)
    if out.suffix != ".npz" or not os.path.isdir(out.parent):
        raise BadArgument("out", "be an .npz in an existing folder", str(out))
    check_folder(out.absolute().parent)
    data = read_images(options.images)
    if options.test:
        test = read_images(options.test, "test")
    else:
        held = held_out(data.labels, options.seed)
        data, test = Images(data.images[~held], data.labels[~held]), Images(data.images[held], data.labels[held])
    if test.images.shape[1:] != data.images.shape[1:] or not len(test.images):
        raise BadArgument("test", f"hold images of shape {data.images.shape[1:]}", of_shape(test.images.shape))
    shape, classes = data.images.shape[1:], int(data.labels.max()) + 1
    check_indices("test", test.labels, len(test.labels), classes, of="the images")
    # Rounded as they are stored, so that training and use normalise alike.
    mean = np.round(data.images.mean(axis=(0, 1, 2)) / 255, 4).astype(np.float32)
    std = np.maximum(np.round(data.images.std(axis=(0, 1, 2)) / 255, 4), 1e-2).astype(np.float32)
    kind, rngs = NAMES[options.model], nnx.Rngs(options.seed)
    if kind == "cnn":
        net: nnx.Module = SmallCNN(shape, classes, hidden=options.hidden, rngs=rngs)
    elif kind == "vit":
        net = ViT(_vit_config(shape, options), classes, rngs=rngs)
    else:
        net = MLP((int(np.prod(shape)), options.hidden, options.hidden, classes), rngs=rngs)
    start, start_cpu = time.perf_counter(), time.process_time()
    choices = {name: getattr(options, name) for name in ("epochs", "batch", "rate", "shift", "seed")}
    net = train(net, data, mean, std, **choices)
    seconds, cpu = time.perf_counter() - start, time.process_time() - start_cpu
    if isinstance(net, ViT):
        arrays, sizes = vit_arrays(net, mean, std), f" --patch {options.patch} --depth {options.depth}"
    else:
        arrays, sizes = {name: np.asarray(array, np.float16) for name, array in weights_of(net).items()}, ""
        arrays |= {"input.mean": mean, "input.std": std, "input.shape": np.asarray(shape, np.int32)}
    save_arrays(out, arrays)
    record = {
        "model": kind,
        "command": f"python -m invjax.models.train {options.model} --images {Path(options.images).name}"
        + (f" --test {Path(options.test).name}" if options.test else "")
        + f" --out {out.name} --hidden {options.hidden}{sizes} "
        + " ".join(f"--{name} {value}" for name, value in choices.items()),
        "out": out.name,
        "images": {"file": Path(options.images).name, "count": len(data.images), "sha256": _sha256(options.images)},
        "test": {"file": Path(options.test or options.images).name, "count": len(test.images)}
        | ({"sha256": _sha256(options.test)} if options.test else {"rows": "a tenth of each class, by the seed"}),
        "accuracy": accuracy(load(kind, out), test),  # of the file as written
        "train_seconds": round(seconds, 1),
        "train_cpu_seconds": round(cpu, 1),
        "weights_sha256": _sha256(out),
        "versions": {"python": platform.python_version(), "jax": jax.__version__, "optax": optax.__version__},
    }
    write_atomic(out.with_suffix(".json"), (json.dumps(record, indent=2) + "\n").encode())
    return record


def _vit_config(shape: tuple[int, ...], options: argparse.Namespace) -> ViTConfig:
    """A ViT with heads of 12 to 16 numbers and hidden layers twice as wide as its tokens."""
    height, width, channels = shape
    for name, bad in (("patch", height % options.patch or width % options.patch), ("hidden", options.hidden % 4)):
        if bad:
            wanted = (
                f"divide the {height} × {width} pixels" if name == "patch" else "be a multiple of 4, the heads of a ViT"
            )
            raise BadArgument(name, wanted, getattr(options, name))
    size = {"width": options.hidden, "hidden": 2 * options.hidden, "depth": options.depth, "heads": 4}
    return ViTConfig(patch=options.patch, image=(height, width), channels=channels, **size)


def main(argv: Sequence[str] | None = None) -> int:
    """The command line; an error of the user's is one line and exit code 2."""
    try:
        record = run(_arguments(argv))
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"accuracy {record['accuracy']:.4f} on {record['test']['count']} images; wrote {record['out']}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
