"""FOUND means found as the evaluator in force sees it: asked points and probes alike, for every registered method."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import nets
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

import invjax
from invjax import Status, attacks, counterfactuals
from invjax.core.mixing import ROWS
from invjax.engine import antithetic, prepare
from invjax.engine.lanes import num_probes, start, step
from invjax.engine.seen import seen_through
from invjax.types import Eval

SHAPE = (8, 8, 3)
COUNT = 3
LEVELS = 4  # so coarse that a class often differs from that of the point itself
EVERY = [
    *(pytest.param(attacks.make(name), id=name) for name in attacks.REGISTRY),
    *(
        pytest.param(counterfactuals.make(name, **({"tau": 0.0} if name == "dcfe" else {})), id=name)  # no density here
        for name in counterfactuals.REGISTRY
    ),
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
    # Eight rows: how many classes, and whether they are mixed, before the run.
    assert INSIDE or x.shape[0] == ROWS, "the network was asked beside the evaluator"
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


def test_images_laid_over_a_mesh() -> None:
    """On automatic and explicit axes, with labels and masks beside them: the answers of the plain arrays."""
    task, method = nets.task(NET, SHAPE, 4), attacks.make("pgd", eps=0.1, steps=2)
    mask = np.broadcast_to(np.arange(3) > 0, task.x.shape)
    expected = invjax.solve(NET, task.x, task.label, target=task.target, method=method, mask=mask)
    for kind in (AxisType.Auto, AxisType.Explicit):
        mesh = jax.make_mesh((2,), ("data",), axis_types=(kind,))
        over = NamedSharding(mesh, PartitionSpec("data"))
        x, label, target, moves = (jax.device_put(jnp.asarray(a), over) for a in (*task[1:], mask))
        result = invjax.solve(NET, x, label, target=target, method=method, mask=moves)
        np.testing.assert_array_equal(result.status, expected.status)
        np.testing.assert_allclose(result.attempt, expected.attempt, atol=1e-6)
    with jax.set_mesh(mesh), pytest.raises(ValueError, match="x must not be laid over explicit axes"):
        invjax.solve(NET, x, task.label, target=task.target, method=method)


def test_black_box() -> None:
    """Its logits are the network's own, and every answer holds there."""
    task, blind = nets.task(NET, SHAPE, COUNT), antithetic(samples=2, scale=0.05)
    assert seen_through(blind, NET) is NET
    method = attacks.make("saif", k=12, steps=12)
    result = invjax.solve(NET, task.x, task.label, method=method, evaluator=blind)
    found = np.asarray(result.status) == Status.FOUND
    assert found.any()
    assert (np.asarray(NET(jnp.asarray(result.x))).argmax(1) != task.label)[found].all()


def _steps(params: Any, x: Any) -> Any:
    """Piecewise constant: a network that rounds its input."""
    return NET.apply(params, jnp.round(x * 4) / 4)


@pytest.mark.fast
def test_no_gradient_is_said(tmp_path: Any) -> None:
    """In a batch, in the queue with a folder, and read back from it; where the mask hides the gradient as well."""
    task, method = nets.task(NET, SHAPE, COUNT), attacks.make("pgd", eps=0.1, steps=2)
    blind = invjax.LogitsModel(NET.params, _steps)
    label = np.asarray(blind(jnp.asarray(task.x))).argmax(1)
    with pytest.warns(UserWarning, match=f"pgd .*{COUNT} of {COUNT} answers") as caught:
        alone = invjax.solve(blind, task.x, label, method=method)
    assert [warning.filename for warning in caught] == [__file__]
    for _ in range(2):
        with pytest.warns(UserWarning, match="NO_GRADIENT"):
            saved = invjax.solve(blind, task.x, label, method=method, out=tmp_path, lanes=2)
        np.testing.assert_array_equal(saved.status, alone.status)
    assert (np.asarray(alone.status) == Status.NO_GRADIENT).all()
    assert not np.asarray(alone.found).any()
    assert alone.to_pandas()["status"].tolist() == ["NO_GRADIENT"] * COUNT
    np.testing.assert_array_equal(alone.x, task.x)

    weights = NET.params["w"].reshape(*SHAPE, -1).copy()
    weights[:4] = 0  # the upper half does not matter
    half = invjax.LogitsModel(NET.params | {"w": weights.reshape(-1, weights.shape[-1])}, NET.apply)
    mask, upper = np.zeros(SHAPE, bool), np.ones(SHAPE, np.float32)
    mask[:4] = True
    x = np.where(mask, task.x, 0.5).astype(np.float32)
    label = np.asarray(half(jnp.asarray(x))).argmax(1)
    for options in ({"mask": mask}, {"bounds": (np.where(mask, 0, 0.5), np.where(mask, upper, 0.5))}):
        with pytest.warns(UserWarning, match="NO_GRADIENT"):
            hidden = invjax.solve(half, x, label, method=method, **options)
        assert (np.asarray(hidden.status) == Status.NO_GRADIENT).all()
