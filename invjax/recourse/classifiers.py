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

from invjax.core.errors import BadArgument, check_choice
from invjax.core.logits import as_logits_fn, num_classes
from invjax.data.tables.table import TabularData
from invjax.engine.blackbox import antithetic, surrogate
from invjax.engine.evaluate import white_box
from invjax.models import LogitsModel, as_logits, load
from invjax.models.binary import binary
from invjax.models.blackbox import black_box, distill, with_surrogate
from invjax.recourse.judging import predictor
from invjax.types import Array, Evaluator, LogitsFn

_HIDDEN = (20, 20)
_PASSES, _FEWEST, _MOST = 30, 400, 3000  # passes over the rows; steps at least and at most
_BATCH, _RATE, _DECAY = 64, 5e-3, 1e-2
_IMITATED = 4000  # rows that a surrogate learns from
_GRADIENTS = ("surrogate", "antithetic")


class TableClassifier(NamedTuple):
    """A classifier of a table's rows, and how to differentiate it."""

    model: LogitsFn  # [B, D] -> [B, K] logits
    evaluator: Evaluator
    words: str  # what it is
    accuracy: float = np.nan  # on ``data.test``; NaN if it is empty
    weights: LogitsModel | None = None  # what was trained here, to be kept


def classifier(data: TabularData, name: str = "mlp", *, gradient: str = "surrogate", seed: int = 0) -> TableClassifier:
    """A classifier for the columns of ``data.x``.

    Args:
      name: "mlp" (two hidden layers of 20) or "logistic", trained on ``data.train``; "forest", scikit-learn's with 100
        trees; a ``.npz`` of an MLP's weights; or ``module:name``, an object that is imported: a function or nnx.Module
        [B, D] -> [B, K] logits, or a fitted predictor with ``predict_proba``.
      gradient: for a forest or predictor: "surrogate", the gradient of a network that imitates it, or "antithetic"
        differences. In both cases the predictor itself decides which class a point has.
      seed: of the training.

    Raises:
      ValueError: there is no such name, file or object, or it does not fit the columns and classes. ImportError:
      scikit-learn is missing (extra ``data``).
    """
    check_choice("gradient", gradient, _GRADIENTS)
    if name in ("mlp", "logistic"):
        weights = train_mlp(data, _HIDDEN if name == "mlp" else (), seed)
        words = "a network with two hidden layers of 20" if name == "mlp" else "logistic regression"
        chosen = TableClassifier(weights, white_box, f"{words}, trained on {len(data.train)} rows", weights=weights)
    elif name == "forest":
        words = f"a forest of 100 trees, trained on {len(data.train)} rows"
        chosen = _predictor(data, _forest(data, seed).predict_proba, words, gradient, seed)
    elif name.endswith(".npz"):
        try:
            model = load("mlp", name)
        except ValueError as error:
            raise BadArgument("model", "be the npz of an MLP's weights", hint=str(error)) from error
        chosen = TableClassifier(_two_classes(model, data), white_box, f"the network of {Path(name).name}")
    elif ":" in name:
        found = _imported(name)
        if hasattr(found, "predict_proba"):
            chosen = _predictor(data, found.predict_proba, name, gradient, seed)
        else:
            chosen = TableClassifier(_two_classes(as_logits(found), data), white_box, name)
    else:
        raise BadArgument("model", "be mlp, logistic, forest, a .npz file or module:name", name)
    try:
        found = num_classes(chosen.model, data.x.shape[1:], np.float32)
    except ValueError as error:
        raise BadArgument("model", f"take the {data.x.shape[1]} columns of {data.name}", hint=str(error)) from error
    if found != len(data.classes):
        raise BadArgument("model", f"have the {len(data.classes)} classes of {data.name}", found)
    test = _whole(data, data.test)
    if not len(test):
        return chosen
    right = predictor(as_logits_fn(chosen.model))(data.x[test]) == data.label[test]
    return chosen._replace(accuracy=float(right.mean()))


def train_mlp(data: TabularData, hidden: tuple[int, ...] = _HIDDEN, seed: int = 0) -> LogitsModel:
    """An MLP [D, *hidden, K] on ``data.train``: 30 passes of AdamW on cross-entropy, batches of 64, cosine rate.

    At least 400 and at most 3,000 steps: with more passes networks of small data sets become sure of everything.

    Raises ValueError: fewer than two rows, or one class alone.
    """
    from flax import nnx

    from invjax.models.mlp import MLP

    rows = _whole(data, data.train)
    x, y = data.x[rows], data.label[rows]
    if len(np.unique(y)) < 2:
        raise BadArgument("data", "have training rows of at least two classes", len(np.unique(y)))
    net = MLP((data.x.shape[1], *hidden, len(data.classes)), rngs=nnx.Rngs(seed))
    model = as_logits(net)
    steps = int(np.clip(_PASSES * len(x) // _BATCH, _FEWEST, _MOST))
    optimiser = optax.adamw(optax.cosine_decay_schedule(_RATE, steps), weight_decay=_DECAY)

    def loss_of(params: Any, x: Array, y: Array) -> Array:
        return optax.softmax_cross_entropy_with_integer_labels(model.apply(params, x), y).mean()

    @jax.jit
    def fit(params: Any, x: Array, y: Array, key: Array) -> Any:
        def step(carry: tuple[Any, Any], key: Array) -> tuple[tuple[Any, Any], None]:
            params, memory = carry
            drawn = jax.random.randint(key, (_BATCH,), 0, len(x))
            updates, memory = optimiser.update(jax.grad(loss_of)(params, x[drawn], y[drawn]), memory, params)
            return (optax.apply_updates(params, updates), memory), None  # type: ignore[return-value]

        return jax.lax.scan(step, (params, optimiser.init(params)), jax.random.split(key, steps))[0][0]

    return LogitsModel(fit(model.params, jnp.asarray(x), jnp.asarray(y), jax.random.key(seed)), model.apply)


def save_mlp(model: LogitsModel, path: str | os.PathLike[str]) -> None:
    """Write what :func:`train_mlp` made as the npz that ``classifier(data, "….npz")`` reads."""
    from invjax.models.params_file import save_arrays

    arrays: dict[str, np.ndarray] = {}
    for where, leaf in jax.tree_util.tree_leaves_with_path(model.params):
        names = [str(getattr(part, "key", getattr(part, "name", ""))) for part in where]
        arrays[".".join(name for name in names if name not in ("", "value"))] = np.asarray(leaf)
    save_arrays(path, arrays)


def _whole(data: TabularData, rows: np.ndarray) -> np.ndarray:
    """Those of the rows that have no missing number."""
    return rows[np.isfinite(data.x[rows]).all(1)]


def _two_classes(model: LogitsModel, data: TabularData) -> LogitsModel:
    """A network with one output as one with two classes."""
    try:
        out = jax.eval_shape(model, jax.ShapeDtypeStruct((2, data.x.shape[1]), np.float32))
    except Exception:  # num_classes says it better
        return model
    return binary(model) if len(data.classes) == 2 and out.shape in ((2,), (2, 1)) else model


def _predictor(data: TabularData, predict_proba: Any, words: str, gradient: str, seed: int) -> TableClassifier:
    rows = _whole(data, data.train)[:_IMITATED]
    box = black_box(predict_proba, len(data.classes), floor=1e-3, example=data.x[rows[0]])
    if gradient == "antithetic":
        width = data.x.shape[1]
        how = antithetic(samples=max(16, width), scale=0.3)
        return TableClassifier(box, how, f"{words}; gradients by {how.calls((width,))} calls of it")
    beside = distill(predict_proba, data.x[rows], key=jax.random.key(seed), classes=len(data.classes))
    return TableClassifier(with_surrogate(box, beside), surrogate, f"{words}; gradients of a network that imitates it")


def _forest(data: TabularData, seed: int) -> Any:
    try:
        from sklearn.ensemble import RandomForestClassifier
    except ImportError as error:
        raise ImportError("the forest needs scikit-learn: pip install 'invjax[data]'") from error
    rows = _whole(data, data.train)
    if len(np.unique(data.label[rows])) < len(data.classes):
        raise BadArgument("data", "have training rows of every class")
    forest = RandomForestClassifier(n_estimators=100, min_samples_leaf=3, random_state=seed)
    return forest.fit(data.x[rows], data.label[rows])


def _imported(name: str) -> Any:
    """The object ``module:name``, also from a module in the working folder."""
    module, _, attribute = name.partition(":")
    here = os.getcwd()
    sys.path.insert(0, here)
    try:
        found: Any = importlib.import_module(module)
        for part in attribute.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError, ValueError) as error:
        raise BadArgument("model", "be module:name of an object that can be imported", name, hint=str(error)) from error
    finally:
        sys.path.remove(here)
    return found
