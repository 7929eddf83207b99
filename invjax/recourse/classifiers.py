"""The classifier of a table by name: trained here, read from a file, or the user's own function."""

from __future__ import annotations

import importlib
import os
import sys
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from invjax.core.errors import BadArgument, Words
from invjax.core.logits import num_classes
from invjax.data.tables.table import TabularData
from invjax.engine.blackbox import antithetic, surrogate
from invjax.engine.evaluate import white_box
from invjax.models import LogitsModel, as_logits, load
from invjax.models.binary import binary
from invjax.models.blackbox import black_box, distill, with_surrogate
from invjax.recourse.judging import predictor
from invjax.types import Array

HIDDEN = (20, 20)
PASSES, FEWEST, MOST = 30, 400, 3000  # passes over the rows; steps at least and at most
BATCH, RATE, DECAY = 64, 5e-3, 1e-2
GRADIENTS = ("surrogate", "antithetic")


class Chosen(NamedTuple):
    """A classifier, and how its gradient is had."""

    model: Any  # [B, D] -> [B, K] logits
    evaluator: Any
    words: str  # what it is
    accuracy: float  # on ``data.test``
    weights: LogitsModel | None = None  # what was trained here, to be kept


def classifier(data: TabularData, name: str = "mlp", *, gradient: str = "surrogate", seed: int = 0) -> Chosen:
    """A classifier for the columns of ``data.x``.

    Args:
      name: "mlp" (two hidden layers of 20) or "logistic", trained on ``data.train``; "forest", scikit-learn's with 100
        trees; a ``.npz`` of an MLP's weights; or ``module:name``, an object that is imported: a function or nnx.Module
        [B, D] -> [B, K] logits, or a fitted predictor with ``predict_proba``.
      gradient: of a forest or predictor: "surrogate", that of a network that imitates it, or "antithetic" differences.
        What has the wanted class is in both cases decided by the predictor itself.
      seed: of the training.

    Raises:
      ValueError: no such name, file or object, or not for these columns and classes. ImportError: scikit-learn is
      missing (extra ``data``).
    """
    if gradient not in GRADIENTS:
        raise BadArgument("gradient", f"be one of {', '.join(GRADIENTS)}", gradient)
    classes, weights = len(data.classes), None
    if name in ("mlp", "logistic"):
        weights = train(data, HIDDEN if name == "mlp" else (), seed)
        words = "a network with two hidden layers of 20" if name == "mlp" else "logistic regression"
        chosen = Chosen(weights, white_box, f"{words}, trained on {len(data.train)} rows", np.nan, weights)
    elif name == "forest":
        words = f"a forest of 100 trees, trained on {len(data.train)} rows"
        chosen = _predictor(data, _forest(data, seed).predict_proba, words, gradient, seed)
    elif name.endswith(".npz"):
        try:
            model = load("mlp", name)
        except ValueError as error:
            raise BadArgument("model", "be the npz of an MLP's weights", hint=str(error)) from error
        chosen = Chosen(_two_classes(model, data), white_box, f"the network of {Path(name).name}", np.nan)
    elif ":" in name:
        found = _imported(name)
        if hasattr(found, "predict_proba"):
            chosen = _predictor(data, found.predict_proba, name, gradient, seed)
        else:
            chosen = Chosen(_two_classes(as_logits(found), data), white_box, name, np.nan)
    else:
        raise BadArgument("model", "be mlp, logistic, forest, a .npz file or module:name", name)
    try:
        found = num_classes(chosen.model, data.x.shape[1:], np.float32)
    except ValueError as error:
        raise BadArgument("model", f"take the {data.x.shape[1]} columns of {data.name}", hint=str(error)) from error
    if found != classes:
        raise BadArgument("model", f"have the {classes} classes of {data.name}", Words(found))
    test = data.test[np.isfinite(data.x[data.test]).all(1)]
    right = predictor(chosen.model)(data.x[test]) == data.label[test]
    return chosen._replace(accuracy=float(right.mean()) if len(test) else np.nan)


def train(data: TabularData, hidden: tuple[int, ...] = HIDDEN, seed: int = 0) -> LogitsModel:
    """An MLP [D, *hidden, K] on ``data.train``: 30 passes of AdamW on cross-entropy, batches of 64, cosine rate.

    At least 400 and at most 3,000 steps. More passes make the small data sets' networks sure of everything.


    Raises ValueError: fewer than two rows, or one class alone.
    """
    from flax import nnx

    from invjax.models.mlp import MLP

    rows = data.train[np.isfinite(data.x[data.train]).all(1)]
    x, y = data.x[rows], data.label[rows]
    if len(np.unique(y)) < 2:
        raise BadArgument(
            "data", "have training rows of at least two classes", Words(f"{len(rows)} of {len(np.unique(y))}")
        )
    net = MLP((data.x.shape[1], *hidden, len(data.classes)), rngs=nnx.Rngs(seed))
    model = as_logits(net)
    steps = int(np.clip(PASSES * len(x) // BATCH, FEWEST, MOST))
    optimiser = optax.adamw(optax.cosine_decay_schedule(RATE, steps), weight_decay=DECAY)

    def loss_of(params: Any, x: Array, y: Array) -> Array:
        return optax.softmax_cross_entropy_with_integer_labels(model.apply(params, x), y).mean()

    @jax.jit
    def fit(params: Any, x: Array, y: Array, key: Array) -> Any:
        def step(carry: tuple[Any, Any], key: Array) -> tuple[tuple[Any, Any], None]:
            params, memory = carry
            drawn = jax.random.randint(key, (BATCH,), 0, len(x))
            updates, memory = optimiser.update(jax.grad(loss_of)(params, x[drawn], y[drawn]), memory, params)
            return (optax.apply_updates(params, updates), memory), None  # type: ignore[return-value]

        return jax.lax.scan(step, (params, optimiser.init(params)), jax.random.split(key, steps))[0][0]

    return LogitsModel(fit(model.params, jnp.asarray(x), jnp.asarray(y), jax.random.key(seed)), model.apply)


def save(model: LogitsModel, path: str | os.PathLike[str]) -> None:
    """Write what :func:`train` made as the npz that ``classifier(data, "….npz")`` reads."""
    from invjax.models.params_file import save_arrays

    arrays: dict[str, np.ndarray] = {}
    for where, leaf in jax.tree_util.tree_leaves_with_path(model.params):
        names = [str(getattr(part, "key", getattr(part, "name", ""))) for part in where]
        arrays[".".join(name for name in names if name not in ("", "value"))] = np.asarray(leaf)
    save_arrays(path, arrays)


def _two_classes(model: LogitsModel, data: TabularData) -> LogitsModel:
    """A network with one output is one of two classes."""
    try:
        out = jax.eval_shape(model, jax.ShapeDtypeStruct((2, data.x.shape[1]), np.float32))
    except Exception:  # said better by num_classes
        return model
    return binary(model) if len(data.classes) == 2 and out.shape in ((2,), (2, 1)) else model


def _predictor(data: TabularData, predict_proba: Any, words: str, gradient: str, seed: int) -> Chosen:
    rows = data.train[np.isfinite(data.x[data.train]).all(1)][:4000]
    box = black_box(predict_proba, len(data.classes), floor=1e-3, example=data.x[rows[0]])
    if gradient == "antithetic":
        width = data.x.shape[1]
        how = antithetic(samples=max(16, width), scale=0.3)
        return Chosen(box, how, f"{words}; gradients by {how.calls((width,))} calls of it", np.nan)
    beside = distill(predict_proba, data.x[rows], key=jax.random.key(seed), classes=len(data.classes))
    return Chosen(with_surrogate(box, beside), surrogate, f"{words}; gradients of a network that imitates it", np.nan)


def _forest(data: TabularData, seed: int) -> Any:
    try:
        from sklearn.ensemble import RandomForestClassifier
    except ImportError as error:
        raise ImportError("the forest needs scikit-learn: pip install 'invjax[data]'") from error
    rows = data.train[np.isfinite(data.x[data.train]).all(1)]
    if len(np.unique(data.label[rows])) < len(data.classes):
        raise BadArgument("data", "have training rows of every class")
    forest = RandomForestClassifier(n_estimators=100, min_samples_leaf=3, random_state=seed)
    return forest.fit(data.x[rows], data.label[rows])


def _imported(name: str) -> Any:
    """The object ``module:name``; modules of the working folder too."""
    module, _, attribute = name.partition(":")
    here = os.getcwd()
    sys.path.insert(0, here)
    try:
        found: Any = importlib.import_module(module)
        for part in attribute.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError, ValueError) as error:
        raise BadArgument(
            "model", "be module:name of something that can be imported", Words(f"{name!r}: {error}")
        ) from error
    finally:
        sys.path.remove(here)
    return found
