"""Any predictor as a classifier: a ``predict_proba`` on NumPy arrays, and a network that imitates it.

A black box has no gradient. Either the evaluator takes finite differences
(``solve(evaluator=invjax.engine.blackbox.antithetic())``), or a distilled network lends its own
(``solve(with_surrogate(box, distill(...)), evaluator=invjax.engine.blackbox.surrogate)``). In both cases
the black box judges validity.
"""

from __future__ import annotations

import dataclasses
import operator
import sys
import weakref
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from invjax.constraints.around import points_around, rows_at
from invjax.constraints.space import FeatureSpace
from invjax.core.arguments import kinds_checked
from invjax.core.errors import BadArgument, Words, check, check_key, check_number, check_whole, of_shape, warn
from invjax.core.host import host_errors, on_host
from invjax.core.labels import classes_of
from invjax.core.logits import LogitsModel, as_logits
from invjax.core.meant import explained
from invjax.core.mixing import unlike_logits
from invjax.core.shown import short_repr, shown
from invjax.types import Array, ArrayLike, LogitsFn

Predict = Callable[[Any], Any]


@dataclasses.dataclass(frozen=True)
class BlackBoxApply:
    """Calls ``predict`` on the host; equal if the function and the options are."""

    predict: Predict
    classes: int
    log: bool
    floor: float

    def __repr__(self) -> str:
        owner = getattr(self.predict, "__self__", None)
        return f"black box {shown(self.predict) if owner is None else type(owner).__name__} -> {self.classes} classes"

    @host_errors()
    def __call__(self, params: Any, x: Array) -> Array:
        del params
        x = jnp.asarray(x)
        features = getattr(getattr(self.predict, "__self__", None), "n_features_in_", None)
        if features is not None and x.shape[1:] != (features,):
            raise BadArgument("x", f"have the {features} features that predict_proba was fitted on", x.shape[1:])
        dtype = jnp.promote_types(x.dtype, jnp.float32)
        out = jax.ShapeDtypeStruct((x.shape[0], self.classes), dtype)
        # One call for all lanes, also under vmap, which only adds leading axes.
        return jax.pure_callback(partial(self._host, shape=x.shape[1:], dtype=dtype), out, x, vmap_method="expand_dims")

    @on_host
    def _host(self, x: Any, *, shape: tuple[int, ...], dtype: Any) -> np.ndarray:
        x = np.asarray(x)
        leading = x.shape[: x.ndim - len(shape)]
        return self.scores(x.reshape(-1, *shape)).reshape(*leading, self.classes).astype(dtype)

    def scores(self, x: np.ndarray) -> np.ndarray:
        """The checked logits of x [N, *S], [N, K] float64. A row of NaN stays NaN; its example ends as NONFINITE."""
        out = asked(self.predict, _table(self.predict, x), len(x), self.classes, self.log)
        if self.log:
            return np.log(np.clip(out, self.floor, 1.0))
        _name_probabilities(self.predict, out)
        return out


def asked(predict: Predict, rows: Any, count: int, classes: int, log: bool = True) -> np.ndarray:
    """What ``predict`` says about ``count`` rows, checked: [N, K] float64, probabilities unless ``log`` is False.

    Raises BadArgument: an output of another shape or outside [0, 1]; or whatever it raised itself, in its own words.
    """
    try:
        out = np.asarray(predict(rows), np.float64)
    except BadArgument:
        raise
    except Exception as error:
        said = " ".join(str(error).split())
        wanted = "answer for every row that it is asked about"
        raise BadArgument("predict_proba", wanted, hint=f"it raised {type(error).__name__}: {said}") from error
    if classes == 2 and log and out.shape in ((count,), (count, 1)):
        own = getattr(getattr(predict, "__self__", None), "classes_", None)
        if own is not None and len(own) == 1:  # a model that was fitted on one class alone: its probability is 1
            raise BadArgument("predict_proba", "be of a model with 2 classes", Words(f"of one with {list(own)} alone"))
        out = np.stack([1 - out.reshape(-1), out.reshape(-1)], axis=1)
    if out.shape != (count, classes):
        wanted = f"return [B, {classes}], one column per class"
        raise BadArgument("predict_proba", wanted, hint=f"{count} rows gave {out.shape}")
    wrong = (out < -1e-6) | (out > 1 + 1e-6)
    if log and wrong.any():
        was = float(f"{out[wrong][0]:.6g}")
        raise BadArgument("predict_proba", "return probabilities in [0, 1]", was, hint="log=False takes logits")
    return out


_looked_at: weakref.WeakKeyDictionary[Any, bool] = weakref.WeakKeyDictionary()  # functions and their first outputs


def _name_probabilities(predict: Predict, out: np.ndarray) -> None:
    """A warning where a function whose outputs are taken as logits gives probabilities: once, at its first rows."""
    owner = getattr(predict, "__self__", predict)  # a bound method is made anew at each look
    try:
        if _looked_at.get(owner):
            return
        _looked_at[owner] = len(np.unique(out, axis=0)) > 1  # one row says nothing: look again
    except TypeError:  # what cannot be remembered is not looked at
        return
    said = unlike_logits(out)
    if said:
        warn(f"predict_proba: {said}; with log=True it may give probabilities")


def _table(predict: Predict, x: np.ndarray) -> Any:
    """x with the column names that the function was fitted on, without which scikit-learn warns at every call."""
    names = getattr(getattr(predict, "__self__", None), "feature_names_in_", None)
    pandas = sys.modules.get("pandas")
    return x if names is None or pandas is None else pandas.DataFrame(x, columns=names)


@kinds_checked
def black_box(
    predict_proba: Predict, classes: int, *, log: bool = True, floor: float = 1e-6, example: ArrayLike | None = None
) -> LogitsModel:
    """A predictor of NumPy arrays as a classifier: ``logits(x)_k = log max(predict_proba(x)_k, floor)``.

    It runs on the host, in one call per iteration for all lanes, also under ``jit`` and ``vmap``. It has no gradient,
    so solve with an evaluator of :mod:`invjax.engine.blackbox`, or with a method that needs no gradient.

    Args:
      predict_proba: [B, *S] NumPy array (the dtype of x) -> [B, K] probabilities, e.g. the bound method of a fitted
        scikit-learn forest; for K = 2 also [B] or [B, 1], the probability of class 1. Rows must be
        independent. It is static, part of the key under which compiled programs are kept: pass the same object each
        time.
      classes: K, at least 2. Labels are columns of the output: with scikit-learn, positions in ``classes_``.
      log: take the logarithm; False if the function already returns logits or log-probabilities.
      floor: the smallest probability distinguished from 0, in (0, 1 / K).
      example: one input [*S], on which the function is tried now.

    Returns:
      LogitsModel without weights, [B, *S] -> [B, K] at least float32.

    Raises:
      ValueError: a wrong argument, or an output of another shape or outside [0, 1]: at ``example``, or during a run
        inside jax's own error. NaN at ``example`` is refused; during a run it ends that row as NONFINITE.
    """
    if not callable(predict_proba):
        raise BadArgument("predict_proba", "be a function [B, *S] -> [B, K]", Words(type(predict_proba).__name__))
    check("classes", classes, lambda k: operator.index(k) >= 2 and not isinstance(k, bool), "an integer, at least 2")
    check_number("floor", floor, lambda value: 0 < value < 1 / classes, "in (0, 1 / classes)")
    apply = BlackBoxApply(predict_proba, int(classes), bool(log), float(floor))
    model = LogitsModel((), apply)
    if example is not None:
        given = np.asarray(example)
        if not np.isfinite(apply.scores(given[None])).all():
            raise BadArgument("predict_proba", "be finite", Words("NaN or infinity at example"))
    return model


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, eq=False)
class WithSurrogate:
    """A classifier with a differentiable one beside it. A call evaluates the first; the leaves are those of both."""

    model: LogitsFn  # [B, *S] -> [B, K], decides
    surrogate: LogitsFn  # [B, *S] -> [B, K], is differentiated

    __repr__ = short_repr

    def __call__(self, x: Array) -> Array:
        return self.model(x)


@explained
def with_surrogate(model: Any, surrogate: Any) -> WithSurrogate:
    """``model`` with the gradient of ``surrogate``, for the evaluator :func:`invjax.engine.blackbox.surrogate`.

    Both map [B, *S] -> [B, K] and may be anything that :func:`invjax.models.as_logits` takes. New weights of the
    surrogate compile nothing.
    """
    return WithSurrogate(as_logits(model), as_logits(surrogate))


@kinds_checked
def distill(
    predict_proba: Predict,
    x: ArrayLike,
    *,
    key: Array,
    classes: int | None = None,
    hidden: Sequence[int] = (64, 64),
    steps: int = 2000,
    batch: int = 256,
    rate: float = 3e-3,
    copies: int = 4,
    noise: float = 0.5,
    space: FeatureSpace | None = None,
    report: Callable[[str], object] | None = None,
) -> LogitsModel:
    """Train a small network to imitate a black box.

        min_w  mean_i KL(predict_proba(x_i) ‖ softmax(logits_w(x_i)))         over rows and points around them

    The points are every row of x and ``copies`` of each at ``x_i + noise · s ∘ N(0, I)``, s being the standard
    deviations of the columns. So they also lie near class boundaries and off the data, where counterfactuals are
    sought. With a space the categories of some of them are swapped, and ``predict_proba`` is asked about the row at
    each point (:mod:`invjax.constraints.around`): never about what is no row of the table.

    Args:
      predict_proba: as for :func:`black_box`; called once, on [N (1 + copies), *S].
      x: [N, *S] rows in the data range, at least 2.
      key: PRNG key of the weights, the points and the order.
      classes: K; None counts the columns of the output (2 if it has one probability per row).
      hidden: widths of the hidden layers (ReLU).
      steps, batch, rate: of Adam; the rate falls to 0 by a half cosine.
      copies, noise: see above; noise >= 0 is in standard deviations of each column.
      space: of the rows x [N, D]. A black box that refuses what is no row of its table needs it.
      report: called with one line, the agreement on the tenth of the points that is held out. A class that would have
        no other points stays in training.

    Returns:
      LogitsModel, [B, *S] -> [B, K]. :func:`agreement` measures it on your own rows.

    Raises:
      ValueError: a wrong argument, or an output of ``predict_proba`` outside [0, 1] or not finite.
    """
    from flax import nnx

    from invjax.models.mlp import MLP

    x = np.asarray(x)
    if x.ndim < 2 or len(x) < 2 or x.dtype.kind != "f" or not np.isfinite(x).all():
        raise BadArgument("x", "be finite rows [N, *S] of floats with N >= 2", Words(f"{x.dtype} {list(x.shape)}"))
    for name, value, least in (("steps", steps, 1), ("batch", batch, 1), ("copies", copies, 0)):
        check_whole(name, value, least)
    check_number("noise", noise, lambda v: v >= 0, "a number >= 0")
    check_number("rate", rate, lambda v: v > 0, "a number > 0")
    weights_key, noise_key, order_key = jax.random.split(check_key(key), 3)
    spread = x.std(0)
    if space is None:
        draws = np.asarray(jax.random.normal(noise_key, (copies, *x.shape), jnp.float32)).astype(x.dtype)
        points = np.concatenate([x[None], x + x.dtype.type(noise) * spread * draws]).reshape(-1, *x.shape[1:])
    else:
        near = [points_around(space, x, float(noise), one) for one in jax.random.split(noise_key, copies)]
        points = np.concatenate([x, *near])
    soft = _soft_labels(predict_proba, points if space is None else rows_at(space, points), classes)

    held, said = np.arange(len(points)) % 10 == 9, soft.argmax(1)
    held &= np.isin(said, said[~held])  # of rows that take turns by class, every tenth may be all there is of one
    data = (jnp.asarray(points[~held], jnp.float32), jnp.asarray(soft[~held], jnp.float32))
    mean, std = x.mean(0), np.where(spread > 0, spread, 1)  # a constant column
    net = MLP((int(np.prod(x.shape[1:])), *hidden, soft.shape[1]), rngs=nnx.Rngs(weights_key))
    model = as_logits(net, mean, std)

    optimiser = optax.adam(optax.cosine_decay_schedule(rate, steps))
    size = min(int(batch), len(data[0]))

    def loss_of(params: Any, x: Array, soft: Array) -> Array:
        return optax.softmax_cross_entropy(model.apply(params, x), soft).mean()

    @jax.jit
    def fit(params: Any, data: tuple[Array, Array], key: Array) -> Any:
        def step(carry: tuple[Any, Any], key: Array) -> tuple[tuple[Any, Any], None]:
            params, memory = carry
            rows = jax.random.randint(key, (size,), 0, len(data[0]))
            gradient = jax.grad(loss_of)(params, data[0][rows], data[1][rows])
            # The normalisation does not train.
            gradient = gradient | {name: jnp.zeros_like(gradient[name]) for name in ("mean", "std")}
            updates, memory = optimiser.update(gradient, memory, params)
            return (optax.apply_updates(params, updates), memory), None

        return jax.lax.scan(step, (params, optimiser.init(params)), jax.random.split(key, steps))[0][0]

    model = LogitsModel(fit(model.params, data, order_key), model.apply)
    if report is not None:
        same = _agreement(model, points[held], soft[held]) if held.any() else float("nan")
        report(f"surrogate: the same class as the black box on {100 * same:.1f} % of {held.sum()} held-out points")
    return model


@kinds_checked
def agreement(model: LogitsFn, predict_proba: Predict, x: ArrayLike) -> float:
    """Share of the rows of x [N, *S] for which ``model`` [B, *S] -> [B, K] and the black box predict the same class."""
    x = np.asarray(x)
    if not x.size:
        raise BadArgument("x", "hold at least one row", of_shape(x.shape))
    return _agreement(model, x, _soft_labels(predict_proba, x, None))


def _agreement(model: LogitsFn, x: np.ndarray, soft: np.ndarray) -> float:
    return float(np.mean(classes_of(np.asarray(model(jnp.asarray(x, jnp.float32)))) == soft.argmax(1)))


def _soft_labels(predict_proba: Predict, x: np.ndarray, classes: int | None) -> np.ndarray:
    """Probabilities [N, K] float64."""
    if classes is None:
        out = np.asarray(predict_proba(_table(predict_proba, x[:1])))
        classes = out.shape[-1] if out.ndim == 2 and out.shape[-1] > 1 else 2
    scores = black_box(predict_proba, classes, floor=1e-12).apply.scores(x)  # type: ignore[attr-defined]
    if not np.isfinite(scores).all():
        raise BadArgument("predict_proba", "be finite on x and around it", Words("NaN or infinity"))
    return np.exp(scores)
