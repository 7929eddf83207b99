"""Executors, their book-keeping, and methods of every kind the engine knows."""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import nets
import numpy as np
import pytest

import invjax
from invjax import Eval, Method, Outcome, Status, engine, losses
from invjax.attacks import GSE, PGD, ForwardBackward, GSEReleased
from invjax.engine import checks, prepare
from invjax.engine import lanes as lanes_module
from invjax.engine.pace import CHUNK

pytestmark = pytest.mark.fast
SHAPE = (6,)


class Walk(NamedTuple):
    point: Any  # [*S]
    k: Any  # [] int32
    status: Any  # [] int32


def _init(ctx: Any, problem: Any, config: Any) -> Walk:
    return Walk(problem.x, jnp.int32(0), jnp.int32(Status.PENDING))


def _ask(ctx: Any, problem: Any, config: Any, state: Walk) -> Any:
    return state.point


def _loss(ctx: Any, problem: Any, config: Any, state: Walk, point: Any, logits: Any) -> Any:
    return losses.gap(logits, problem.label, problem.target)


def _status(config: Any, problem: Any, state: Walk, logits: Any) -> Any:
    reached = losses.reached(logits, problem.label, problem.target)
    won = jnp.where(state.k == 0, Status.ALREADY_TARGET, Status.FOUND)
    lost = jnp.where(state.k >= config.steps, Status.NOT_FOUND, Status.PENDING)
    return jnp.where(reached, won, lost).astype(jnp.int32)


def _done(ctx: Any, problem: Any, config: Any, state: Walk) -> Any:
    return state.status != Status.PENDING


def _result(ctx: Any, problem: Any, config: Any, state: Walk) -> Outcome:
    return Outcome(state.point, state.status, state.point)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Descent:
    """x <- x - step ∇gap until it wins or ``steps`` are spent: the smallest method there is."""

    step: float = 0.05
    steps: int = 20
    method: ClassVar[Method]


def _tell(ctx: Any, problem: Any, config: Any, state: Walk, ev: Eval) -> Walk:
    assert ev.point.shape == ev.grad.shape == problem.x.shape
    status = _status(config, problem, state, ev.logits)
    moved = jnp.where(status == Status.PENDING, ev.point - config.step * ev.grad, ev.point)
    return Walk(moved, state.k + 1, status)


Descent.method = Method("descent", _init, _ask, _loss, _tell, _done, _result)


class Pair(Descent):
    """Two points at once, the step and its half."""


jax.tree_util.register_dataclass(Pair, data_fields=["step", "steps"], meta_fields=[])


def _ask_pair(ctx: Any, problem: Any, config: Any, state: Any) -> Any:
    walk, grad = state
    share = jnp.array([1.0, 0.5], problem.x.dtype)[:, None]
    return walk.point - config.step * share * grad


def _tell_pair(ctx: Any, problem: Any, config: Any, state: Any, ev: Eval) -> Any:
    assert ev.point.shape == ev.grad.shape == (2, *problem.x.shape)
    assert ev.value.shape == (2,)
    walk, _ = state
    best = jnp.argmin(ev.value)
    status = _status(config, problem, walk, ev.logits[best])
    return Walk(ev.point[best], walk.k + 1, status), ev.grad[best]


Pair.method = Method(
    "pair", lambda *a: (_init(*a), jnp.zeros_like(a[1].x)), _ask_pair, _loss, _tell_pair,
    lambda c, p, g, s: _done(c, p, g, s[0]), lambda c, p, g, s: _result(c, p, g, s[0]), width=2,
)  # fmt: skip


class Probing(Descent):
    """After each gradient three lengths of step are tried forward-only; the first that wins is the answer."""


jax.tree_util.register_dataclass(Probing, data_fields=["step", "steps"], meta_fields=[])
LENGTHS = (1.0, 4.0, 16.0)


def _tell_probing(ctx: Any, problem: Any, config: Any, state: Any, ev: Eval) -> Any:
    walk, _ = state
    return Walk(ev.point, walk.k + 1, _status(config, problem, walk, ev.logits)), ev.grad


def _probe(ctx: Any, problem: Any, config: Any, state: Any) -> Any:
    walk, grad = state
    return walk.point - config.step * jnp.array(LENGTHS, problem.x.dtype)[:, None] * grad


def _tell_probe(ctx: Any, problem: Any, config: Any, state: Any, points: Any, logits: Any) -> Any:
    walk, grad = state
    assert points.shape == (3, *problem.x.shape)
    won = jax.vmap(losses.reached, (0, None, None))(logits, problem.label, problem.target)
    first = jnp.argmax(won)
    over = walk.status != Status.PENDING
    status = jnp.where(over, walk.status, jnp.where(won.any(), Status.FOUND, Status.PENDING)).astype(jnp.int32)
    point = jnp.where(over, walk.point, points[jnp.where(won.any(), first, 0)])
    return Walk(point, walk.k, status), grad


Probing.method = Pair.method._replace(
    name="probing", ask=lambda c, p, g, s: s[0].point, tell=_tell_probing, probe=_probe, tell_probe=_tell_probe,
    width=None,
)  # fmt: skip


class Query(Descent):
    """Random points around x, without gradients."""


jax.tree_util.register_dataclass(Query, data_fields=["step", "steps"], meta_fields=[])


def _tell_query(ctx: Any, problem: Any, config: Any, state: Walk, ev: Eval) -> Walk:
    status = _status(config, problem, state, ev.logits)
    noise = jax.random.normal(jax.random.fold_in(problem.key, state.k), problem.x.shape, problem.x.dtype)
    # The gradient must be exactly zero: otherwise the point is far away and the test of x fails.
    moved = problem.x + config.step * noise + 1e6 * ev.grad
    return Walk(jnp.where(status == Status.PENDING, moved, ev.point), state.k + 1, status)


Query.method = Method("query", _init, _ask, _loss, _tell_query, _done, _result, needs_grad=False)

TASK = nets.task(nets.linear(SHAPE), SHAPE, count=30)


def prepared(config: Any, count: int = 30) -> tuple[Any, Any, Any, dict]:
    ctx, problems, numbers, method, key, _ = engine.prepare(
        TASK.net, TASK.x[:count], TASK.label[:count], method=config, target=TASK.target[:count]
    )
    return ctx, problems, numbers, {"method": method, "key": key}


def solve(config: Any, **options: Any) -> invjax.Result:
    return invjax.solve(TASK.net, TASK.x, TASK.label, target=TASK.target, method=config, **options)


def test_run_batch_inside_the_users_jit() -> None:
    ctx, problems, config, common = prepared(Descent())
    problems = engine.checks.with_keys(problems, common["key"])
    plain = engine.run_batch(ctx, problems, config, method=Descent.method)
    inside = jax.jit(lambda ctx, problems: engine.run_batch(ctx, problems, config, method=Descent.method))(
        ctx, problems
    )
    nets.same(plain, inside)
    nets.same(plain, solve(Descent()))
    status = np.asarray(plain.status)
    assert {Status.FOUND, Status.NOT_FOUND} <= set(status.tolist())
    # Gradient k is asked by everyone who has not won before: found after k steps means k + 1 evaluations.
    assert (np.asarray(plain.evaluations)[status == Status.NOT_FOUND] == 21).all()
    assert (np.asarray(plain.evaluations)[status == Status.FOUND] >= 2).all()


@pytest.mark.parametrize("count", [1, 3, 4, 5, 30])
def test_queue_of_any_length(count: int) -> None:
    """Shorter than the lanes, equal, longer, much longer, one alone."""
    ctx, problems, config, common = prepared(Descent(), count)
    parts: list[engine.Part] = []
    result = engine.run_queue(ctx, problems, config, lanes=4, on_part=parts.append, **common)
    whole = solve(Descent())
    nets.alike(result, whole[:count], share=1.0)
    np.testing.assert_array_equal(result.evaluations, np.asarray(whole.evaluations)[:count])
    assert all(isinstance(field, np.ndarray) for field in jax.tree.leaves(result))
    index = np.concatenate([part.index for part in parts])
    np.testing.assert_array_equal(np.sort(index), np.arange(count))
    assert [part.done for part in parts] == np.cumsum([len(part.index) for part in parts]).tolist()
    assert {part.total for part in parts} == {count}


def test_queue_refills_and_counts() -> None:
    """Steps and issued lane evaluations, against a simulation of the refilling from the evaluations of each example."""
    ctx, problems, config, common = prepared(Descent())
    parts = list(engine.stream(ctx, problems, config, lanes=4, **common))
    used = np.asarray(solve(Descent()).evaluations)
    left, waiting, steps = list(used[:4]), list(used[4:]), 0
    while any(left):
        steps += 1
        left = [max(0, n - 1) for n in left]
        left = [n if n else (waiting.pop(0) if waiting else 0) for n in left]
    assert parts[-1].steps == steps
    assert parts[-1].issued == 4 * steps
    assert used.sum() / parts[-1].issued > 0.8
    assert parts[-1].done == 30
    locked = sum(used[i : i + 4].max() for i in range(0, 30, 4))
    assert steps < locked, "refilling must need fewer batched evaluations than lock-step batches"


def test_queue_chunks() -> None:
    """A chunk ends after ``chunk`` iterations: parts without results come in between, the answers are the same."""
    ctx, problems, config, common = prepared(Descent(), 6)
    parts = list(engine.stream(ctx, problems, config, lanes=4, chunk=3, **common))
    assert any(not len(part.index) for part in parts)
    steps = np.diff([0, *(part.steps for part in parts)])
    assert steps.max() <= 3
    whole = engine.run_queue(ctx, problems, config, lanes=4, **common)
    for part in parts:
        if len(part.index):
            nets.same(part.result, jax.tree.map(lambda field, part=part: field[part.index], whole))
    long = dataclasses.replace(config, step=jnp.float32(0.0), steps=jnp.int32(3 * CHUNK))
    assert next(engine.stream(ctx, problems, long, lanes=4, **common)).steps == CHUNK, "nothing is known yet"


def test_stream_of_chosen_rows() -> None:
    ctx, problems, config, common = prepared(Descent())
    todo = np.array([17, 3, 4, 29, 8])
    parts = [p for p in engine.stream(ctx, problems, config, lanes=4, todo=todo, **common) if len(p.index)]
    assert sorted(np.concatenate([part.index for part in parts])) == sorted(todo)
    whole = engine.run_queue(ctx, problems, config, lanes=4, **common)
    for part in parts:
        nets.same(part.result, jax.tree.map(lambda field, part=part: field[part.index], whole))
    assert list(engine.stream(ctx, problems, config, lanes=4, todo=np.array([], int), **common)) == []


def test_lanes_and_the_mesh() -> None:
    ctx, problems, config, common = prepared(Descent())
    mesh = jax.sharding.Mesh(np.array(jax.devices()[:8]), ("lanes",))
    with pytest.raises(ValueError, match=r"lanes must be a multiple of the 8 devices of the mesh, was 12"):
        engine.run_queue(ctx, problems, config, lanes=12, mesh=mesh, **common)


def test_tracers() -> None:
    """Under jit the queue says what to use; solve uses it; a folder or a mesh there is refused."""
    ctx, problems, config, common = prepared(Descent())

    def queue(x: Any) -> Any:
        return engine.run_queue(ctx, problems._replace(x=x), config, lanes=4, **common)

    with pytest.raises(
        ValueError, match="must be concrete arrays for run_queue, was traced; inside jit, vmap or grad use run_batch"
    ):
        jax.jit(queue)(TASK.x)
    inside = jax.jit(lambda x: invjax.solve(TASK.net, x, TASK.label, target=TASK.target, method=Descent(), lanes=4))
    nets.same(inside(TASK.x), solve(Descent()))
    with pytest.raises(ValueError, match="out must be None under jit and vmap"):
        jax.jit(lambda x: invjax.solve(TASK.net, x, TASK.label, method=Descent(), out="folder"))(TASK.x)


def test_hyper_parameters_as_a_batch_axis() -> None:
    """A sweep: ``vmap`` over a field of the config."""

    def sweep(step: Any) -> Any:
        return invjax.solve(TASK.net, TASK.x[:5], TASK.label[:5], target=TASK.target[:5], method=Descent(step=step))

    swept = jax.vmap(sweep)(jnp.array([0.05, 0.1], jnp.float32))
    for k, step in enumerate((0.05, 0.1)):
        alone = invjax.solve(TASK.net, TASK.x[:5], TASK.label[:5], target=TASK.target[:5], method=Descent(step=step))
        np.testing.assert_array_equal(swept.status[k], alone.status)
        np.testing.assert_allclose(swept.x[k], alone.x, atol=1e-6)


def test_whole_numbers_for_floats() -> None:
    """``eps=1`` is ``eps=1.0``: neither another program nor another answer."""
    one = solve(PGD(eps=1.0, step_size=1.0, steps=3), bounds=(-2.0, 2.0))
    with nets.compilations() as names:
        nets.same(solve(PGD(eps=1, step_size=1, steps=3), bounds=(-2, 2)), one)
        nets.same(solve(PGD(eps=np.float64(1), step_size=np.int64(1), steps=np.int64(3)), bounds=(-2, 2)), one)
    assert names == []


def test_width() -> None:
    """Two points an iteration: two evaluations each, the same in batch and queue."""
    result = solve(Pair())
    status = np.asarray(result.status)
    assert (status == Status.FOUND).any()
    assert (np.asarray(result.evaluations) % 2 == 0).all()
    assert (np.asarray(result.evaluations)[status == Status.NOT_FOUND] == 42).all()
    assert (np.asarray(result.forwards) == 0).all()
    nets.alike(solve(Pair(), lanes=4), result, share=1.0)
    # The better of a step and its half is never behind the plain descent.
    assert (status == Status.FOUND).sum() >= (np.asarray(solve(Descent()).status) == Status.FOUND).sum()


def test_probes() -> None:
    """Three forwards after each gradient that did not end the example; longer steps find more, sooner."""
    result, plain = solve(Probing()), solve(Descent())
    found = np.asarray(result.status) == Status.FOUND
    assert found.sum() > (np.asarray(plain.status) == Status.FOUND).sum()
    assert (np.asarray(result.forwards) == 3 * np.asarray(result.evaluations)).all()
    both = found & (np.asarray(plain.status) == Status.FOUND)
    assert (np.asarray(result.evaluations) <= np.asarray(plain.evaluations))[both].all()
    nets.alike(solve(Probing(), lanes=4), result, share=1.0)
    mask = np.array([True, False, True, True, False, True])
    masked = solve(Probing(), mask=mask)  # also for probes
    assert (np.asarray(masked.attempt)[:, ~mask] == TASK.x[:, ~mask]).all()
    assert (np.asarray(masked.attempt) >= 0).all()
    assert (np.asarray(masked.attempt) <= 1).all()


def test_query_methods() -> None:
    """No gradient is computed or counted: forwards are."""
    result = solve(Query(step=0.4))
    assert (np.asarray(result.evaluations) == 0).all()
    assert (np.asarray(result.forwards)[np.asarray(result.status) == Status.NOT_FOUND] == 21).all()
    assert (np.asarray(result.status) == Status.FOUND).any()
    nets.alike(solve(Query(step=0.4), lanes=4), result, share=1.0)


def differences(method: Any, ctx: Any, config: Any, problems: Any, states: Any, points: Any) -> Eval:
    """Central differences of the method's own loss, coordinate by coordinate: a black box."""

    def one(problem: Any, state: Any, point: Any) -> Eval:
        def value(u: Any) -> Any:
            return method.loss(ctx, problem, config, state, u, ctx.logits(u[None])[0])

        shift = 0.01 * jnp.eye(point.size, dtype=point.dtype).reshape(-1, *point.shape)
        grad = (jax.vmap(value)(point + shift) - jax.vmap(value)(point - shift)) / 0.02
        return Eval(point, value(point), grad.reshape(point.shape), ctx.logits(point[None])[0])

    return jax.vmap(one)(problems, states, points)


def test_what_was_tried_is_admissible() -> None:
    """Also where a run stops between two questions: the next point, not yet clipped, is no answer."""
    task, mask = nets.task(nets.conv(), count=6), np.ones(nets.SMALL, bool)
    mask[:4] = False
    method = PGD(eps=0.9, step_size=0.4, steps=20)
    result, _ = invjax.trace(task.net, task.x, task.label, target=task.target, method=method, steps=2, mask=mask)
    attempt, stopped = np.asarray(result.attempt), np.asarray(result.status) == Status.PENDING
    assert stopped.any()
    assert attempt.min() == 0
    assert attempt.max() == 1
    np.testing.assert_array_equal(attempt[:, :4], task.x[:, :4])


@pytest.mark.parametrize(
    "attack", [ForwardBackward(), GSEReleased(), GSE()], ids=["forward-backward", "gse-released", "gse"]
)
def test_a_network_that_breaks_late_keeps_what_was_found(attack: Any) -> None:
    task = nets.task(nets.conv(), count=2)
    ctx, problems, config, method, key, _ = prepare(task.net, task.x, task.label, method=attack)
    problems = checks.with_keys(problems, key)
    started = lanes_module.start(method, ctx, config, problems)
    better = jnp.clip(problems.x + 0.05, 0, 1)
    best = started.state.best._replace(x=better, score=jnp.array([64.0, jnp.inf]))
    state = started.state._replace(best=best)
    broken = started._replace(state=state, broken=jnp.ones(2, bool), active=jnp.zeros(2, bool))
    result = lanes_module.finish(method, ctx, config, problems, broken)
    assert np.asarray(result.status).tolist() == [Status.FOUND, Status.NONFINITE]
    np.testing.assert_array_equal(result.x[0], better[0])
    np.testing.assert_array_equal(result.x[1], task.x[1])


def test_another_evaluator() -> None:
    """On a linear network central differences are exact: the same answers as from the gradient."""
    exact, black_box = solve(Descent()), solve(Descent(), evaluator=differences)
    np.testing.assert_array_equal(exact.status, black_box.status)
    np.testing.assert_array_equal(exact.evaluations, black_box.evaluations)
    # Where two classes tie, differences see both: compare those that never met a kink, the found ones.
    np.testing.assert_allclose(exact.x, black_box.x, atol=1e-3)
    nets.alike(solve(Descent(), evaluator=differences, lanes=4), black_box, share=1.0)


def test_narrow_network() -> None:
    """A bfloat16 network inside: the point stays float32, the loss sees at least float32."""

    def narrow(params: Any, x: Any) -> Any:
        assert x.dtype == jnp.float32
        return (x.astype(jnp.bfloat16) @ params["w"].astype(jnp.bfloat16)).astype(jnp.bfloat16)

    net = invjax.LogitsModel(TASK.net.params, narrow)
    result = invjax.solve(net, TASK.x, TASK.label, method=Descent(step=0.1))
    assert result.x.dtype == np.float32
    assert (np.asarray(result.status) == Status.FOUND).any()


def test_ways_to_hand_in_a_network() -> None:
    """A pytree of weights, a Partial, a plain function: one answer."""
    net = TASK.net
    want = solve(Descent())
    partial = jax.tree_util.Partial(net.apply, net.params)
    for logits in (partial, lambda x: net.apply(net.params, x), jax.jit(lambda x: net(x))):
        nets.alike(invjax.solve(logits, TASK.x, TASK.label, target=TASK.target, method=Descent()), want, share=1.0)


def test_progress(capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("tqdm")
    solve(Descent(), lanes=4, progress=True)
    assert "30/30" in capsys.readouterr().err
    solve(Descent(), lanes=4, progress=False)
    solve(Descent(), lanes=4)  # no terminal: no bar
    assert capsys.readouterr().err == ""


def test_progress_in_a_notebook(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """The bar stands there before the first program is compiled; that of a long run stays, that of a short one goes."""
    pytest.importorskip("tqdm")
    monkeypatch.setattr("invjax.engine.progress.in_notebook", lambda: True)
    for short, left in ((0.0, "30/30"), (1e9, "")):
        monkeypatch.setattr("invjax.engine.progress.SHORT", short)
        solve(Descent(), lanes=4)
        shown = capsys.readouterr().err
        assert "0/30" in shown.split("\r")[1]
        last = shown.split("\r")[-1].strip()
        assert left in last if left else not last
