"""FOUND means found as the evaluator in force sees it: asked points and probes alike, for every registered method."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import nets
import numpy as np
import pytest

import invjax
from invjax import Status, attacks, counterfactuals
from invjax.engine import antithetic, prepare
from invjax.engine.lanes import num_probes, start, step
from invjax.engine.seen import seen_through
from invjax.types import Eval

SHAPE = (8, 8, 3)
COUNT = 3
LEVELS = 4  # so coarse that a class often differs from that of the point itself
EVERY = [
    *(pytest.param(attacks.make(name), id=name) for name in attacks.REGISTRY),
    *(pytest.param(counterfactuals.make(name), id=name) for name in counterfactuals.REGISTRY),
]
NET = nets.linear(SHAPE)
LOOKS: list[int] = []  # how many points of each lane the evaluator looked at, call by call, while it was traced
INSIDE: list[bool] = []  # not empty while the evaluator looks


def rounding(method: Any, ctx: Any, config: Any, problems: Any, states: Any, points: Any) -> Eval:
    """Rounds the input, passes the gradient straight through, and counts its points."""
    LOOKS.append(1 if method.width is None else points.shape[1])
    INSIDE.append(True)
    rounded = jnp.round(points * LEVELS) / LEVELS
    seen = invjax.white_box(method, ctx, config, problems, states, rounded)
    INSIDE.pop()
    return Eval(points, seen.value, seen.grad, seen.logits)


def _guarded(params: Any, x: Any) -> Any:
    assert INSIDE or x.shape[0] == 2, "the network was asked beside the evaluator"  # two rows: how many classes
    return NET.apply(params, x)


@pytest.mark.parametrize("config", EVERY)
def test_every_look_goes_through_the_evaluator(config: Any) -> None:
    """One iteration of every method, traced only: nobody else asks the network, and as many points as are counted."""
    task = nets.task(NET, SHAPE, COUNT)
    guarded = invjax.LogitsModel(NET.params, _guarded)
    prepared = prepare(guarded, task.x, task.label, method=config, target=task.target)
    ctx, problems, numbers = prepared.batch()

    def iteration(ctx: Any, problems: Any, numbers: Any) -> Any:
        lanes = start(prepared.method, ctx, numbers, problems)
        return step(prepared.method, rounding, ctx, numbers, problems, lanes)

    LOOKS.clear()
    jax.eval_shape(iteration, ctx, problems, numbers)
    probes = num_probes(prepared.method, ctx, numbers, problems)
    assert [prepared.method.width or 1, *([probes] if probes else [])] == LOOKS


def test_found_holds_as_the_evaluator_sees_it() -> None:
    """Behind a coarse rounding, where the network itself says otherwise of some answers."""
    task = nets.task(NET, SHAPE, 16)
    seen = seen_through(rounding, NET)
    label = np.asarray(seen(jnp.asarray(task.x))).argmax(1)
    method = attacks.make("ead", beta=0.05, initial_weight=0.1, trials=3, steps=12, step_size=0.05)
    result = invjax.solve(NET, task.x, label, method=method, evaluator=rounding)
    found = np.asarray(result.status) == Status.FOUND
    assert found.any()
    assert (np.asarray(seen(jnp.asarray(result.x))).argmax(1) != label)[found].all()
    assert (np.asarray(NET(jnp.asarray(result.x))).argmax(1) == label)[found].any(), "the rounding must matter"


def test_black_box() -> None:
    """Its logits are the network's own, and every answer holds there."""
    task, blind = nets.task(NET, SHAPE, COUNT), antithetic(samples=2, scale=0.05)
    assert seen_through(blind, NET) is NET
    method = attacks.make("saif", k=12, steps=12)
    result = invjax.solve(NET, task.x, task.label, method=method, evaluator=blind)
    found = np.asarray(result.status) == Status.FOUND
    assert found.any()
    assert (np.asarray(NET(jnp.asarray(result.x))).argmax(1) != task.label)[found].all()
