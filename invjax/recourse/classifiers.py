"""The classifier of a table by name: trained here, read from a file, or the user's own function or fitted model."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp
import numpy as np
import optax

from invjax.core.arguments import kinds_checked
from invjax.core.errors import BadArgument, check_choice, check_seed, unknown_name
from invjax.core.labels import classes_of
from invjax.core.logits import num_classes
from invjax.data.tables.table import TabularData
from invjax.engine.blackbox import surrogate
from invjax.engine.evaluate import white_box
from invjax.models import LogitsModel, as_logits, load
from invjax.models.binary import binary
from invjax.models.blackbox import black_box, distill, with_surrogate
from invjax.models.registry import imported, own_model
from invjax.recourse.fitted import TablePredictor, is_fitted, table_predictor
from invjax.recourse.gradients import differences
from invjax.recourse.raw import logits_of_table, model_of_table, rows_of
from invjax.types import Array, Evaluator, LogitsFn

_HIDDEN = (20, 20)
_PASSES, _FEWEST, _MOST = 30, 400, 3000  # passes over the rows; steps at least and at most
_BATCH, _RATE, _DECAY = 64, 5e-3, 1e-2
_IMITATED = 4000  # rows that a surrogate learns from
GradientName = Literal["surrogate", "antithetic"]


class TableClassifier(NamedTuple):
    """A classifier of a table's rows, and how to differentiate it."""

    model: LogitsFn  # [B, D] -> [B, K] logits
    evaluator: Evaluator
    words: str  # what it is
    accuracy: float = np.nan  # on ``data.test``; NaN if it is empty
    weights: LogitsModel | None = None  # what was trained here, to be kept
    predictor: TablePredictor | None = None  # a fitted model, asked in raw units

    def __repr__(self) -> str:
        right = "" if np.isnan(self.accuracy) else f"; right on {self.accuracy:.1%} of the test rows"
        return f"TableClassifier({self.words}{right})"


@kinds_checked
def classifier(
    data: TabularData,
    name: Any = "mlp",
    *,
    gradient: GradientName = "surrogate",
    classes: Any = None,
    threshold: float | None = None,
    dtypes: Mapping[str, Any] | None = None,
    seed: int = 0,
) -> TableClassifier:
    """A classifier for the rows of ``data``.

    Args:
      name: "mlp" (two hidden layers of 20) or "logistic", trained on ``data.train``; "forest", scikit-learn's with 100
        trees; a ``.npz`` of an MLP's weights; ``module:name``, an object that is imported; or an object itself. A
        function, LogitsModel, nnx.Module or pair (Linen module, variables) maps the encoded columns ``data.x``,
        [B, D] -> [B, K] logits. A fitted
        predictor (``predict_proba``, ``decision_function`` or ``predict``) is asked in raw columns, by name:
        :func:`invjax.recourse.fitted.table_predictor`.
      gradient: for a forest or predictor: "surrogate", the gradient of a network that imitates it, or "antithetic"
        differences. In both cases the predictor itself decides which class a point has.
      classes, threshold, dtypes: of a fitted predictor, see there.
      seed: of the training.

    Raises:
      ValueError: there is no such name, file or object, or it does not fit the columns and classes. ImportError:
      scikit-learn is missing (extra ``data``).
    """
    check_choice("gradient", gradient, get_args(GradientName))
    check_seed("seed", seed, 32, 0 if name == "forest" else -(2**31))
    own: Any = name
    if isinstance(name, str) and ":" in name:
        own = own_model(imported(name))
    if is_fitted(own):
        words = name if isinstance(name, str) else "the model"
        fitted = table_predictor(own, data, classes=classes, threshold=threshold, dtypes=dtypes, name=words)
        return tested(of_rows(data, fitted, gradient, seed), data)
    for argument, value in (("classes", classes), ("threshold", threshold), ("dtypes", dtypes)):
        if value is not None:
            raise BadArgument(argument, "be left out for a model that is no fitted predictor", value)
    if not isinstance(own, str):
        words = name if isinstance(name, str) else "the model"
        chosen = TableClassifier(_two_classes(as_logits(own), data), white_box, words)
    elif name in ("mlp", "logistic"):
        weights = train_mlp(data, _HIDDEN if name == "mlp" else (), seed)
        words = "a network with two hidden layers of 20" if name == "mlp" else "logistic regression"
        chosen = TableClassifier(weights, white_box, f"{words}, trained on {len(data.train)} rows", weights=weights)
    elif name == "forest":
        words = f"a forest of 100 trees, trained on {len(data.train)} rows"
        predict = _forest(data, seed).predict_proba
        box = black_box(predict, len(data.classes), floor=1e-3, example=data.x[_whole(data, data.train)[0]])
        chosen = _with_gradient(data, box, predict, words, gradient, seed)
    elif name.endswith(".npz"):
        try:
            model = load("mlp", name)
        except ValueError as error:
            raise BadArgument("model", "be the npz of an MLP's weights", hint=str(error)) from error
        chosen = TableClassifier(_two_classes(model, data), white_box, f"the network of {Path(name).name}")
    else:
        known = ("mlp", "logistic", "forest")
        raise unknown_name("model", name, known, f"be {', '.join(known)}, a .npz file or module:name")
    return tested(chosen, data)


def tested(chosen: TableClassifier, data: TabularData) -> TableClassifier:
    """The classifier with its accuracy on the test rows, after the check that it fits the data."""
    _check_fit(chosen.model, data)
    said = classes_of(logits_of_table(chosen.model, data.space, data.rows(data.test)))
    known = said >= 0
    if not known.any():
        return chosen
    return chosen._replace(accuracy=float((said == data.label[data.test])[known].mean()))


def _check_fit(model: LogitsFn, data: TabularData) -> None:
    """Raise BadArgument unless the model maps the columns of the data to its classes."""
    try:
        found = num_classes(model, data.x.shape[1:], np.float32)
    except ValueError as error:
        raise BadArgument("model", f"take the {data.x.shape[1]} columns of {data.name}", hint=str(error)) from error
    if found != len(data.classes):
        raise BadArgument("model", f"have the {len(data.classes)} classes of {data.name}", found)


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
    return binary(model) if len(data.classes) == 2 and getattr(out, "shape", None) in ((2,), (2, 1)) else model


def of_rows(data: TabularData, fitted: Any, gradient: str, seed: int) -> TableClassifier:
    """A predictor of raw rows, ``fitted`` as a :class:`TablePredictor` is, with a gradient beside it."""
    box = model_of_table(fitted, data.space, data.table, len(data.classes))
    return _with_gradient(data, box, rows_of(box), fitted.words, gradient, seed)._replace(predictor=fitted)


def _with_gradient(
    data: TabularData, box: LogitsModel, predict: Any, words: str, gradient: str, seed: int
) -> TableClassifier:
    """A black box of the encoded columns, ``predict`` [B, D] -> [B, K], with a gradient beside it."""
    if gradient == "antithetic":
        width = data.x.shape[1]
        how = differences(data.space, box)
        return TableClassifier(box, how, f"{words}; gradients by {how.calls((width,))} calls of it")
    rows = _whole(data, data.train)[:_IMITATED]
    try:
        beside = distill(predict, data.x[rows], key=jax.random.key(seed), classes=len(data.classes), space=data.space)
    except BadArgument as error:
        raise (error.renamed("model") if error.name == "predict_proba" else error) from error.__cause__
    return TableClassifier(
        with_surrogate(box, beside), surrogate, f"{words}; a network that imitates it may lend gradients"
    )


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
