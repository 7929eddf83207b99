"""``lanes="auto"``, narrower programs at the end of a list, and when the host looks at the device."""

from __future__ import annotations

import itertools
import json
import sys
from pathlib import Path
from typing import Any

import jax
import nets
import numpy as np
import pytest
from test_engine import Descent

import invjax
from invjax import BadArgument, engine, models
from invjax.attacks import PGD
from invjax.engine import choosing, crews
from invjax.engine import queue as queue_module
from invjax.engine.pace import CHUNK, WAIT, Pace
from invjax.engine.programs import Programs

pytestmark = pytest.mark.fast
ATTACK = PGD(eps=0.2, steps=20)


@pytest.fixture(autouse=True)
def two_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (choosing, crews):
        monkeypatch.setattr(module, "cores", lambda: 2)


def programs_of(network: Any, count: int, method: Any = ATTACK, shape: tuple[int, ...] = nets.SMALL) -> Any:
    task = nets.task(network, shape, count=min(count, 20))
    x, label = (np.resize(a, (count, *a.shape[1:])) for a in (task.x, task.label))
    made = engine.prepare(network, x, label, target=(label + 1) % 4, method=method)
    return Programs(made.ctx, made.config, made.key, made.method), made.problems


def choose(network: Any, count: int, **more: Any) -> int:
    programs, problems = programs_of(network, count)
    return choosing.choose(programs._replace(**more), problems, "auto").lanes


def heavy(monkeypatch: pytest.MonkeyPatch, call_s: float) -> None:
    """A network of 10^8 operations whose eight rows take ``call_s``."""
    monkeypatch.setattr(choosing, "_count", lambda programs, problems: choosing._Work(3, 1e8))
    monkeypatch.setattr(choosing, "_seconds", lambda logits, x: call_s)
    monkeypatch.setattr(choosing, "_work", {})
    monkeypatch.setattr(choosing, "_calls", {})


@pytest.mark.parametrize(("count", "lanes"), [(5, 5), (24, 24), (36, 18), (72, 24), (300, 24)])
def test_a_network_that_keeps_a_cpu_busy_gets_few_lanes_in_equal_rounds(
    count: int, lanes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    heavy(monkeypatch, 4e-3)
    assert choose(nets.mlp(), count) == lanes


def test_each_core_gets_a_crew_of_twelve(monkeypatch: pytest.MonkeyPatch) -> None:
    heavy(monkeypatch, 4e-3)
    monkeypatch.setattr(choosing, "cores", lambda: 16)
    assert [choose(nets.mlp(), count) for count in (100, 192, 300)] == [100, 192, 160]


@pytest.mark.parametrize(("work", "lanes", "crews"), [(1e8, 16, True), (1e6, 16, False), (1e8, 7, False)])
def test_a_list_that_fits_into_the_lanes_is_split_where_it_takes_long(
    work: float, lanes: int, crews: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    heavy(monkeypatch, 4e-3)
    monkeypatch.setattr(choosing, "_count", lambda programs, problems: choosing._Work(3, work))
    ran = []

    def watched(*given: Any, **more: Any) -> Any:
        ran.append(more["lanes"])
        return engine.run_queue(*given, **more)

    monkeypatch.setattr(sys.modules["invjax.engine.solve"], "run_queue", watched)
    task = nets.task(nets.mlp(), count=lanes)
    answers = [invjax.solve(task.net, task.x, task.label, method=ATTACK, lanes=given) for given in ("auto", 64)]
    assert ran == [lanes, lanes] * crews
    assert all((answer.status == answers[0].status).all() for answer in answers)


def test_rows_of_a_small_network_are_worked_on_together() -> None:
    assert choose(nets.mlp(), 40) == 40
    lanes = choose(nets.mlp(), 1000)
    assert lanes >= 256
    assert choose(nets.mlp(), 1001) == lanes, "lists of about one length share a compiled program"


def test_a_short_list_is_not_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(logits: Any, x: Any) -> float:
        raise AssertionError("measured")

    monkeypatch.setattr(choosing, "_seconds", refuse)
    task = nets.task(nets.mlp(), count=60)
    result = invjax.solve(task.net, task.x, task.label, target=task.target, method=ATTACK)
    assert result.found.any()


def test_a_network_is_measured_once(monkeypatch: pytest.MonkeyPatch) -> None:
    heavy(monkeypatch, 4e-3)
    calls = []
    monkeypatch.setattr(choosing, "_seconds", lambda logits, x: calls.append(1) or 4e-3)
    for seed in (0, 1, 2):
        choose(nets.mlp(seed=seed), 40)
    assert len(calls) == 1, "new weights are nothing new"
    choose(nets.conv(), 40)
    assert len(calls) == 2


def test_black_boxes_are_not_asked() -> None:
    """Each row of a black box is a query: two rounds of equal size, and not one question for the choice."""
    asked = []

    def predict(x: np.ndarray) -> np.ndarray:
        asked.append(len(x))
        share = 1 / (1 + np.exp(-x.reshape(len(x), -1)[:, :4]))
        return share / share.sum(1, keepdims=True)

    count = 100
    x = np.random.default_rng(0).uniform(size=(count, *nets.SMALL)).astype(np.float32)
    label = predict(x).argmax(1)
    made = engine.prepare(models.black_box(predict, 4), x, label, target=(label + 1) % 4, method=ATTACK)
    asked.clear()
    programs = Programs(made.ctx, made.config, made.key, made.method)
    assert choosing.choose(programs, made.problems, "auto").lanes == 50
    assert not asked


def test_a_loop_compiled_for_its_memory_is_not_narrowed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The queue would see a first call that compiles nothing, and take narrower programs for free."""
    programs, problems = programs_of(nets.mlp(), 1000)
    many = choosing.choose(programs, problems, "auto")
    assert many.lanes > choosing.FEW
    assert many.fixed_s is None
    heavy(monkeypatch, 4e-3)
    assert choosing.choose(programs, problems, "auto").fixed_s is not None


def test_memory_halves_the_lanes(monkeypatch: pytest.MonkeyPatch) -> None:
    programs, problems = programs_of(nets.mlp(), 1000)
    free = choosing.choose(programs, problems, "auto").lanes
    needed = programs.memory(problems, free)
    assert needed is not None
    assert needed > free * 4 * 64
    monkeypatch.setattr(choosing, "_room", lambda: needed // 3)
    fewer = choosing.choose(programs, problems, "auto").lanes
    assert programs.memory(problems, fewer) <= needed // 3
    assert fewer >= free // 8


def test_an_accelerator_gets_more_lanes(monkeypatch: pytest.MonkeyPatch) -> None:
    """ResNet20 on an H200: calls of eight rows take .4 ms; about 1,000 lanes were the fastest of 7,168 pairs."""
    heavy(monkeypatch, 4e-4)
    monkeypatch.setattr(choosing, "_device", lambda: choosing._ACCELERATOR)
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    monkeypatch.setattr(choosing, "_room", lambda: None)
    programs, problems = programs_of(nets.mlp(), 20)
    lanes = {count: choosing.choose_lanes(programs, problems, count).lanes for count in (20, 200, 7168, 10**6)}
    assert lanes[20] == 20
    assert 64 <= lanes[200] <= 200
    assert 256 <= lanes[7168] <= 2048
    assert lanes[7168] < lanes[10**6] <= 8192


def test_lanes_of_a_mesh_are_a_multiple_of_its_devices() -> None:
    mesh = jax.sharding.Mesh(np.array(jax.devices()[:4]), ("lanes",))
    assert choose(nets.mlp(), 30, mesh=mesh) % 4 == 0


def test_answers_do_not_depend_on_the_choice(monkeypatch: pytest.MonkeyPatch) -> None:
    task = nets.task(nets.conv(), count=40)
    call: dict[str, Any] = {"target": task.target, "method": ATTACK, "key": jax.random.key(1)}
    whole = invjax.solve(task.net, task.x, task.label, **call)
    heavy(monkeypatch, 4e-3)
    for lanes in ("auto", 7):
        nets.alike(invjax.solve(task.net, task.x, task.label, lanes=lanes, **call), whole)


@pytest.mark.parametrize("lanes", [0, -1, 2.5, True, "many", "8"])
def test_lanes_that_are_none(lanes: Any) -> None:
    task = nets.task(nets.mlp(), count=2)
    with pytest.raises(BadArgument, match=r"lanes must be a whole number (>= 1|or .auto.)"):
        invjax.solve(task.net, task.x, task.label, method=ATTACK, lanes=lanes)


def test_a_network_that_cannot_be_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(logits: Any, x: Any) -> float:
        raise RuntimeError("RESOURCE_EXHAUSTED:\n out of memory")

    heavy(monkeypatch, 4e-3)
    monkeypatch.setattr(choosing, "_seconds", refuse)
    task = nets.task(nets.mlp(), count=40)
    with pytest.raises(BadArgument, match=r"lanes must be a number for this network, was 'auto'; trying .* memory$"):
        invjax.solve(task.net, task.x, task.label, method=ATTACK)
    assert invjax.solve(task.net, task.x, task.label, method=ATTACK, lanes=40).found.any()


def test_a_run_goes_on_with_its_lanes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    heavy(monkeypatch, 4e-3)
    task = nets.task(nets.mlp(), count=40)

    def run() -> int:
        invjax.solve(task.net, task.x, task.label, method=ATTACK, out=tmp_path)
        return json.loads((tmp_path / "manifest.json").read_text())["lanes"]

    assert run() == 20
    for part in tmp_path.rglob("*.npz"):
        part.unlink()
    monkeypatch.setattr(choosing, "_best", lambda cost, count: 5)
    assert run() == 20, "chosen once, whatever would be chosen now"


def test_the_last_examples_go_on_in_a_narrower_program(monkeypatch: pytest.MonkeyPatch) -> None:
    """Some examples take twenty times as long. Their lanes move together where compiling is believed to be free."""
    task = nets.task(nets.mlp(), count=36)
    x = np.where(np.arange(36)[:, None, None, None] % 9 == 8, 0.5, task.x).astype(np.float32)
    label = np.asarray(task.net(x)).argmax(1).astype(np.int32)
    config = Descent(step=0.02, steps=400)
    made = engine.prepare(task.net, x, label, target=(label + 1) % 4, method=config)
    run: dict[str, Any] = {"method": made.method, "key": made.key}
    whole = engine.run_queue(*made[:3], lanes=32, **run)
    widths: dict[int, list[int]] = {}
    narrow = queue_module._Floor.narrow

    def watched(self: Any, lanes: int) -> None:
        widths.setdefault(id(self), []).append(lanes)
        narrow(self, lanes)

    monkeypatch.setattr(queue_module._Floor, "narrow", watched)
    monkeypatch.setattr(queue_module, "_pays", lambda *_: True)
    parts = list(engine.stream(*made[:3], lanes=32, fixed_s=0.0, **run))
    assert widths
    for of_crew in widths.values():
        assert of_crew[0] <= 16
        assert all(a > b for a, b in itertools.pairwise(of_crew))
    assert parts[-1].issued < 32 * parts[-1].steps
    index = np.concatenate([part.index for part in parts])
    assert sorted(index) == list(range(36))
    status = np.concatenate([part.result.status for part in parts if len(part.index)])
    np.testing.assert_array_equal(status, whole.status[index])
    widths.clear()
    engine.run_queue(*made[:3], lanes=32, **run)
    assert not widths, "an explicit number stays"


def test_a_fast_device_is_seldom_interrupted() -> None:
    """20,000 iterations of a network that costs nothing: as many dispatches as its time takes seconds, and a few."""
    task = nets.task(nets.linear(), count=4)
    made = engine.prepare(task.net, task.x, task.label, target=task.target, method=Descent(step=0.0, steps=20_000))
    parts = list(engine.stream(*made[:3], lanes=4, method=made.method, key=made.key))
    assert 20_000 <= parts[-1].steps <= 20_001
    assert len(parts) < 0.1 * 20_000 / CHUNK


def test_pace() -> None:
    """Dispatches of a second; lanes wait for the host as long as an idle lane costs less than a visit."""
    pace = Pace(64, None)
    assert (pace.limit, pace.idle) == (CHUNK, 2)
    for _ in range(6):
        pace.ran(1e-3 * 10, 10, 5)
        pace.visited(2e-3)
    assert pace.limit == round(WAIT / 1e-3)
    assert pace.idle == int((2 * 64 * 0.5 * 2) ** 0.5) == 11
    pace.ran(None, 10, 5)  # the consumer was slower
    assert pace.limit == round(WAIT / 1e-3)
    assert pace.mean_steps == 64 * 70 / 35
    assert Pace(64, 3).limit == 3
    slow = Pace(64, None)
    slow.ran(20.0, 10, 0)
    assert slow.limit == 1
