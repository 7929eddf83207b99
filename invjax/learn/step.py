"""A training step as one compiled program.

    x' = adversary(x)  (or x),    l_i = loss(f_w(x'_i), y_i),    c = rule(l, g, w),    w ← w + update(∇_w Σ_i c_i l_i)

A step is one call of a compiled function, not an iteration of a ``lax.scan``; :mod:`invjax.learn.train` says what that
costs and saves. All numbers (rates, radii, weights, the network itself) are arguments. Only what shapes the program
(graphs, functions, the precision) is static.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import nnx

from invjax.core.images import are_pixels, from_pixels
from invjax.core.labels import classes_of
from invjax.core.numerics import at_least_float32
from invjax.learn.optimiser import norm_of
from invjax.learn.parts import Graphs, States
from invjax.types import Array

Precision = Literal["float32", "bfloat16"]

Loss = Callable[[Array, Array], Array]  # (logits [B, K], y [B]) -> [B]
Augment = Callable[[Array, Array], Array]  # (key, x [B, *S]) -> [B, *S]


class Progress(NamedTuple):
    """The state of a training between steps; a checkpoint holds it."""

    step: Array  # [] int32, steps done
    states: States  # of the network
    memory: Any  # of the optimiser
    rule: Any  # of the rule


class Batch(NamedTuple):
    """B examples."""

    x: Any  # [B, *S] in the data range, or uint8
    y: Any  # [B] int32
    group: Any  # [B] int32
    weight: Any  # [B]


class Numbers(NamedTuple):
    """The constants of a training. They are traced, so a new value compiles nothing."""

    optimiser: Any
    rule: Any
    adversary: Any  # (logits, x, y, key) -> x', or None
    total: Array  # [] int32, T, steps in all
    key: Array  # []


@dataclass(frozen=True)
class Choices:
    """The static part of a step: it shapes the program."""

    graphs: Graphs
    loss: Loss
    augment: Augment | None
    precision: Precision


def cross_entropy(logits: Array, y: Array) -> Array:
    """``-log softmax(Z)_y``: [B, K], [B] -> [B]."""
    return optax.softmax_cross_entropy_with_integer_labels(logits, y)


def scaled(x: Array) -> Array:
    """uint8 pixels become float32 in [0, 1]; floats stay. Raises BadArgument for any other type."""
    return from_pixels(x) if are_pixels(x.dtype) else x


def narrow(tree: Any, precision: Precision) -> Any:
    """Floating leaves cast to the type in which the network computes."""
    if precision == "float32":
        return tree
    return jax.tree.map(lambda leaf: leaf.astype(precision) if jnp.issubdtype(leaf.dtype, jnp.floating) else leaf, tree)


@partial(jax.jit, static_argnames="choices", donate_argnums=0)
def train_step(
    progress: Progress, batch: Batch, numbers: Numbers, *, choices: Choices
) -> tuple[Progress, dict[str, Any]]:
    """One step: the new progress (the arrays of the old one are reused) and the measures of the step, each [].

    They are measured on the batch before the step: ``loss`` (the plain mean of l), ``objective`` (Σ c l), ``accuracy``,
    ``gradient`` (its 2-norm before clipping), and whatever the rule reports.
    """
    graphs, precision = choices.graphs, choices.precision
    states, key = progress.states, jax.random.fold_in(numbers.key, progress.step)
    x = scaled(batch.x)
    if choices.augment is not None:
        x = choices.augment(jax.random.fold_in(key, 0), x)
    frozen = narrow(states.frozen, precision)
    if numbers.adversary is not None:
        fixed = nnx.merge(graphs.evaluation, narrow(states.weights, precision), frozen, states.rest)
        x = numbers.adversary(
            lambda x: at_least_float32(fixed(narrow(x, precision))), x, batch.y, jax.random.fold_in(key, 1)
        )
        x = jax.lax.stop_gradient(x)

    def objective(weights: Any) -> tuple[Array, tuple[Any, Any, dict[str, Array]]]:
        # Rebuilt at this level of the trace: flax forbids a module to update variables that were made outside.
        rest = jax.tree.map(lambda leaf: leaf, states.rest)
        module = nnx.merge(graphs.train, narrow(weights, precision), frozen, rest)
        logits = at_least_float32(module(narrow(x, precision)))
        losses = choices.loss(logits, batch.y)
        constant = jax.lax.stop_gradient(losses)
        shares, rule = numbers.rule.weigh(progress.rule, constant, batch.group, batch.weight)
        value = jnp.sum(shares * losses)
        right = jnp.mean((classes_of(logits) == batch.y).astype(jnp.float32))
        rest = nnx.state(module, nnx.Not(nnx.Param))
        # Running statistics keep their own type, whatever the network computes in.
        rest = jax.tree.map(lambda new, old: new.astype(old.dtype), rest, states.rest)
        return value, (rest, rule, {"loss": constant.mean(), "objective": value, "accuracy": right})

    (_, (rest, rule, told)), gradient = jax.value_and_grad(objective, has_aux=True)(states.weights)
    told |= {"gradient": norm_of(gradient), **numbers.rule.report(rule)}
    updates, memory = numbers.optimiser.update(gradient, progress.memory, states.weights, progress.step, numbers.total)
    weights = optax.apply_updates(states.weights, updates)
    return Progress(progress.step + 1, States(weights, states.frozen, rest), memory, rule), told
