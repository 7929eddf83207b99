"""Several loops at once on a CPU: who gets them, and that nothing but the time depends on them."""

from __future__ import annotations

import threading
from typing import Any

import jax
import nets
import numpy as np
import pytest
from test_engine import Descent

import invjax
from invjax import engine, models
from invjax.engine import crews
from invjax.engine.programs import Programs

pytestmark = pytest.mark.fast
METHOD = Descent(step=0.02, steps=30)


def made_of(network: Any, count: int = 40) -> Any:
    task = nets.task(network, count=count)
    return engine.prepare(network, task.x, task.label, target=task.target, method=METHOD)


def count_of(network: Any, lanes: int, mesh: Any = None) -> int:
    made = made_of(network, 20)
    programs = Programs(made.ctx, made.config, made.key, made.method, mesh=mesh)
    return crews.num_crews(programs, made.problems, lanes)


@pytest.mark.parametrize(("lanes", "expected"), [(1, 1), (7, 1), (8, 2), (15, 3), (64, 4)])
def test_a_crew_for_each_core_of_four_lanes_or_more(lanes: int, expected: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(crews, "cores", lambda: 4)
    assert count_of(nets.mlp(), lanes) == expected


def test_devices_and_black_boxes_get_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(crews, "cores", lambda: 4)
    assert count_of(nets.mlp(), 64, jax.make_mesh((2,), ("lanes",))) == 1
    task, net = nets.task(nets.linear(), count=20), nets.linear()
    box = models.black_box(lambda x: np.asarray(jax.nn.softmax(net(x))), 4)
    made = engine.prepare(net, task.x, task.label, target=task.target, method=METHOD)
    programs = Programs(made.ctx._replace(logits=box), made.config, made.key, made.method)
    assert crews.num_crews(programs, made.problems, 64) == 1
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert count_of(nets.mlp(), 64) == 1


def test_three_crews_answer_as_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """A program for all of them, as long as the lanes of each, compiled in the caller's thread with its settings."""
    made = made_of(nets.mlp())
    run: dict[str, Any] = {"method": made.method, "key": made.key}
    monkeypatch.setattr(crews, "cores", lambda: 1)
    alone = engine.run_queue(*made[:3], lanes=4, **run)
    monkeypatch.setattr(crews, "cores", lambda: 3)
    meeting, met, timed = threading.Barrier(3), set(), crews._timed

    def watched(*given: Any) -> Any:
        name = threading.current_thread().name
        if name not in met:  # a crew's first loop begins when those of the others do
            met.add(name)
            meeting.wait(timeout=60)
        return timed(*given)

    monkeypatch.setattr(crews, "_timed", watched)
    guard = jax.config.jax_transfer_guard  # type: ignore[attr-defined]
    jax.config.update("jax_transfer_guard", "disallow")  # in their threads, too
    try:
        with nets.compilations() as names:
            together = engine.run_queue(*made[:3], lanes=12, **run)
    finally:
        jax.config.update("jax_transfer_guard", guard)
    assert len(met) == 3
    assert not names, "lanes of four are known"
    nets.same(together, alone)


def test_settings_of_the_caller_hold(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(crews, "cores", lambda: 2)
    seen: set[tuple[Any, bool]] = set()
    params = nets.mlp().params

    def network(params: Any, x: jax.Array) -> jax.Array:
        here = threading.current_thread() is threading.main_thread()
        seen.add((jax.config.jax_default_matmul_precision, here))
        return x.reshape(len(x), -1)[:, :4] * 3 + params["w1"][0, :4]

    task = nets.task(invjax.LogitsModel(params, network), count=20)
    seen.clear()
    with jax.default_matmul_precision("highest"):
        invjax.solve(task.net, task.x, task.label, target=task.target, method=METHOD, lanes=8)
    assert seen == {("highest", True)}


def test_an_error_in_a_loop_is_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(crews, "cores", lambda: 2)

    def fails(*_: Any) -> Any:
        raise RuntimeError("out of memory")

    monkeypatch.setattr(crews, "_timed", fails)
    made = made_of(nets.mlp())
    with pytest.raises(RuntimeError, match="out of memory"):
        engine.run_queue(*made[:3], lanes=8, method=made.method, key=made.key)
