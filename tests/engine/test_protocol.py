"""What every attack obeys, whatever it does inside. A new attack needs one line in ``CONFIGS``."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterable, Iterator
from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
import nets
import numpy as np
import pytest

import invjax
from invjax import Result, Status, engine
from invjax.attacks import (
    EAD,
    FGSM,
    FMN,
    GSE,
    JSMA,
    PGD,
    PGD0,
    REGISTRY,
    SAIF,
    SAPF,
    CornerSearch,
    ForwardBackward,
    FWnucl,
    GSEPublished,
    GSEReleased,
    Homotopy,
    LocalSearch,
    OnePixel,
    SigmaMap,
    SigmaZero,
    SparseFool,
    SparsePGD,
    SparseRS,
    SparseRSFrame,
    SparseRSPatch,
    StrAttack,
)

# Cheap constants under which some of the examples succeed; the argument is the width of the box.
CONFIGS: dict[str, Callable[[float], Any]] = {
    "fgsm": lambda s: FGSM(eps=0.1 * s),
    "pgd": lambda s: PGD(eps=0.08 * s, step_size=0.03 * s, steps=4, restarts=2),
    "forward-backward": lambda s: ForwardBackward(step_size=0.05, steps=20, trials=4),
    "gse": lambda s: GSE(steps=12, patience=3, window=4, blur=5, blur_sigma=1.2),
    "gse-released": lambda s: GSEReleased(steps=40, phase_one_steps=8, trials=4, step_size=0.02, l2_weight=0.1),
    "gse-published": lambda s: GSEPublished(steps=24, phase_one_steps=8, trials=3, step_size=0.02, l2_weight=0.1),
    "strattack": lambda s: StrAttack(
        initial_weight=1.0, steps=20, trials=3, retrain_trials=2, group_weight=0.5, l2_weight=0.2
    ),
    "fwnucl": lambda s: FWnucl(steps=10, trials=3),
    "homotopy": lambda s: Homotopy(
        eps=0.5, steps=60, inner_steps=10, initial_weight=0.5, decay=0.5, polish=2, unit="pixel"
    ),
    "saif": lambda s: SAIF(k=6, steps=15),
    "sigma-zero": lambda s: SigmaZero(steps=30),
    "fmn": lambda s: FMN(steps=30),
    "pgd0": lambda s: PGD0(k=6, steps=6, restarts=2),
    "sigma-map": lambda s: SigmaMap(k=40, steps=6, restarts=2),
    "spgd": lambda s: SparsePGD(k=6, steps=20),
    "ead": lambda s: EAD(beta=0.05, initial_weight=0.1, trials=3, steps=12, step_size=0.05),
    "jsma": lambda s: JSMA(share=0.5),
    "sparsefool": lambda s: SparseFool(steps=4, inner_steps=5, prune=6),
    "sapf": lambda s: SAPF(k=16, steps=24, trials=3, final_steps=6, rho_growth=1.4, decay_every=6, group_weight=1.0),
    "sparse-rs": lambda s: SparseRS(k=12, queries=60, initial_share=0.8),
    "sparse-rs-patch": lambda s: SparseRSPatch(size=4, queries=80),
    "sparse-rs-frame": lambda s: SparseRSFrame(width=1, queries=80),
    "corner-search": lambda s: CornerSearch(k=4, samples=20, listed=16, rankings=4),
    "one-pixel": lambda s: OnePixel(k=5, generations=10, population=32, block=8, recombination=0.9),
    "local-search": lambda s: LocalSearch(rounds=10, half_side=2, pixels_per_round=4, candidates=24),
}
# Those of the fast part. The others run in the whole suite.
QUICK = {"fgsm", "pgd", "forward-backward", "gse"}
# One attack of each kind (with probes, with several looks per step, by queries, in blocks of queries): enough for what
# the engine promises and the attack has no part in.
KINDS = (*sorted(QUICK), "strattack", "sparsefool", "sparse-rs", "one-pixel")
# More paths through the same attacks.
CONFIGS |= {
    "homotopy/groups": lambda s: Homotopy(eps=0.5, steps=60, inner_steps=10, initial_weight=0.5, decay=0.5, polish=2),
    "pgd/random-l2": lambda s: PGD(eps=0.5 * s, step_size=0.2 * s, steps=3, restarts=2, norm="l2", random_start=True),
    "pgd/margin": lambda s: PGD(eps=0.08 * s, step_size=0.03 * s, steps=4, loss="margin"),
    "pgd/to-the-end": lambda s: PGD(eps=0.08 * s, step_size=0.03 * s, steps=4, stop_early=False),
}
COUNT = 24
fast = pytest.mark.fast
MAIN = [name for name in CONFIGS if "/" not in name]


def over(names: Iterable[str]) -> Any:
    """A test of each of these attacks; of the quick ones in the fast part too."""
    marked = [pytest.param(name, marks=fast) if name in QUICK else name for name in names]
    return pytest.mark.parametrize("name", marked)


every, main = over(CONFIGS), over(MAIN)
slowly = pytest.mark.parametrize("name", MAIN)  # not in the fast part
kinds = pytest.mark.parametrize("name", KINDS)


def make(name: str, width: float = 1.0) -> Any:
    return CONFIGS[name](width)


@cache
def base() -> nets.Task:
    return nets.task(nets.conv(), count=COUNT)


def solve(task: nets.Task, name: str, *, width: float = 1.0, **options: Any) -> Result:
    options = {"target": task.target, "progress": False, **options}
    return invjax.solve(task.net, task.x, task.label, method=make(name, width), **options)


@cache
def batch(name: str, targeted: bool = True) -> Result:
    """All examples together: the program and the answers that most tests share."""
    return solve(base(), name, lanes=COUNT, **({} if targeted else {"target": None}))


def queue(task: nets.Task, name: str, lanes: int, mesh: Any = None, **options: Any) -> Result:
    ctx, problems, config, method, key, _ = engine.prepare(
        task.net, task.x, task.label, method=make(name), target=task.target, **options
    )
    return engine.run_queue(ctx, problems, config, method=method, key=key, lanes=lanes, mesh=mesh)


def pick(task: nets.Task, index: np.ndarray) -> nets.Task:
    return nets.Task(task.net, task.x[index], task.label[index], task.target[index])


def keep(result: Result, index: Any) -> Result:
    return jax.tree.map(lambda field: np.asarray(field)[index], result)


def first_looks(name: str, result: Result) -> np.ndarray:
    """[N] how often the classifier was asked, in iterations: of a query method, over the points of one."""
    method = make(name).method
    counts = result.evaluations if method.needs_grad else result.forwards
    return np.asarray(counts) / (method.width or 1)


def check_contract(task: nets.Task, result: Result, target: np.ndarray | None, bounds: Any = (0.0, 1.0)) -> None:
    count = len(task.x)
    x, delta, status = np.asarray(result.x), np.asarray(result.delta), np.asarray(result.status)
    assert x.dtype == delta.dtype == np.asarray(result.attempt).dtype == task.x.dtype
    assert x.shape == delta.shape == result.attempt.shape == task.x.shape
    for counts in (result.status, result.evaluations, result.forwards):
        assert counts.dtype == np.int32
        assert counts.shape == (count,)
    assert (x >= bounds[0]).all()
    assert (x <= bounds[1]).all()
    assert np.isfinite(np.asarray(result.attempt)).all()
    assert (np.asarray(result.attempt) >= bounds[0]).all()
    assert (np.asarray(result.attempt) <= bounds[1]).all()
    np.testing.assert_array_equal(delta, x - task.x)
    assert set(status.tolist()) <= {Status.FOUND, Status.NOT_FOUND}, status
    failed = status != Status.FOUND
    assert x[failed].tobytes() == task.x[failed].tobytes()
    np.testing.assert_array_equal(np.asarray(result.found), ~failed)
    assert (np.asarray(result.evaluations) + np.asarray(result.forwards) >= 1).all()
    # What is reported as found has the wanted class (up to the last bits of another batch size).
    aim = np.full(count, invjax.UNTARGETED) if target is None else target
    gap = jax.vmap(invjax.losses.gap)(task.net(jnp.asarray(x)), jnp.asarray(task.label), jnp.asarray(aim))
    scale = float(np.abs(np.asarray(task.net(jnp.asarray(x)))).max())
    assert (np.asarray(gap)[~failed] < 1e-5 * scale).all()
    assert (delta[~failed].reshape(-1, task.x[0].size) != 0).any(1).all()


@fast
def test_every_attack_is_tested() -> None:
    missing = set(REGISTRY) - set(CONFIGS)
    assert not missing, f"give these attacks a cheap configuration in CONFIGS: {sorted(missing)}"
    for name, config in ((name, make(name)) for name in MAIN):
        assert type(config) is type(REGISTRY[name]())
        leaves = jax.tree.leaves(config)
        assert all(isinstance(leaf, int | float) for leaf in leaves), "numbers are traced, choices are static"


@every
@pytest.mark.parametrize("targeted", [True, False])
def test_contract(name: str, targeted: bool) -> None:
    result = batch(name, targeted)
    check_contract(base(), result, base().target if targeted else None)
    assert (np.asarray(result.status) == Status.FOUND).any(), "the table's constants must let some examples succeed"


@every
def test_neighbours_and_order_do_not_matter(name: str) -> None:
    """Bit for bit: another order, and other examples in half of the lanes."""
    order = np.random.default_rng(0).permutation(COUNT).astype(np.int32)
    moved = solve(pick(base(), order), name, lanes=COUNT, ids=order)
    nets.same(moved, keep(batch(name), order))
    other = nets.task(base().net, count=COUNT, seed=77)
    half = COUNT // 2
    x, label, target = (np.concatenate([u[:half], v[half:]]) for u, v in zip(base()[1:], other[1:], strict=True))
    mixed = solve(nets.Task(base().net, x, label, target), name, lanes=COUNT)
    nets.same(keep(mixed, slice(half)), keep(batch(name), slice(half)))


@every
def test_queue(name: str) -> None:
    """In 8 refilled lanes: the same whatever the order and the list's length; and the same answers as the batch."""
    result = queue(base(), name, 8)
    nets.alike(result, batch(name))
    order = np.random.default_rng(1).permutation(COUNT).astype(np.int32)
    nets.same(queue(pick(base(), order), name, 8, ids=order), keep(result, order))
    short = np.arange(5)
    nets.same(queue(pick(base(), short), name, 8), keep(result, short))  # three lanes without work


@pytest.mark.parametrize("name", ["gse", "sigma-zero"])
def test_other_numbers_of_lanes(name: str) -> None:
    """Not bit for bit: XLA adds the products of a larger batch in another order, and a sparse descent ranks by them."""
    many = nets.task(nets.mlp(hidden=64), count=200, seed=8)
    whole = solve(many, name, lanes=200)
    for lanes in (3, 64):
        nets.alike(queue(many, name, lanes), whole)


@kinds
def test_batch_equals_queue_at_the_same_lanes(name: str) -> None:
    nets.same(queue(base(), name, COUNT), batch(name))


@slowly
def test_alone(name: str) -> None:
    ones = [
        invjax.solve(base().net, base().x[i], base().label[i], target=base().target[i], method=make(name), ids=i)
        for i in range(8)
    ]
    assert ones[0].x.shape == nets.SMALL
    assert ones[0].status.shape == ()
    nets.alike(jax.tree.map(lambda *rows: np.stack(rows), *ones), keep(batch(name), slice(8)))


@pytest.mark.parametrize("name", ["pgd/random-l2", "gse", "strattack", "sparse-rs"])
def test_sharded(name: str) -> None:
    """Four lanes on each of eight devices: one device's answers bit for bit, in any order, on any kind of mesh.

    (Four, not two: XLA's code for two rows was seen to round the two rows differently, by one unit in the last place.)
    """
    devices = np.array(jax.devices()[:8])
    assert len(devices) == 8
    many = nets.task(base().net, count=2 * COUNT, seed=8)
    mesh = jax.sharding.Mesh(devices, ("lanes",))
    result = queue(many, name, 32, mesh=mesh)
    order = np.random.default_rng(2).permutation(2 * COUNT).astype(np.int32)
    moved = queue(pick(many, order), name, 32, mesh=jax.make_mesh((8,), ("lanes",)), ids=order)
    nets.same(moved, keep(result, order))
    few = np.arange(3)  # seven devices without work
    nets.same(queue(pick(many, few), name, 32, mesh=mesh), keep(result, few))
    nets.same(queue(many, name, 4), result)  # the same program, on one device
    nets.alike(queue(many, name, 8), result)


@main
def test_new_numbers_do_not_compile(name: str) -> None:
    """New weights, targets, labels, bounds and hyper-parameters: no program is compiled a second time."""
    solve(base(), name, lanes=COUNT, key=jax.random.key(2))
    config = jax.tree.map(lambda v: v * 1.01 if isinstance(v, float) else v + 1, make(name))
    other = nets.task(nets.conv(seed=9), count=COUNT, seed=5)
    with nets.compilations() as names:
        result = invjax.solve(other.net, other.x, other.label, target=other.target, method=config, bounds=(-0.5, 1.5))
        solve(other, name, target=None, key=jax.random.key(3))
    assert names == []
    assert (np.asarray(result.delta) != np.asarray(batch(name).delta)).any()
    queue(base(), name, 8)
    with nets.compilations() as names:
        queue(other, name, 8)
        queue(pick(other, np.arange(20)), name, 8)  # another length of the list
    assert names == []


@main
def test_under_jax_s_guards(name: str) -> None:
    """Implicit transfers, infinities and NaN are errors in the user's own code, not in a call of the library's."""
    task, expected = base(), batch(name)
    with jax.transfer_guard("disallow"), jax.debug_infs(True), jax.debug_nans(True):
        result = solve(task, name, lanes=COUNT)
    nets.same(result, expected)


@fast
def test_guards_are_as_they_were() -> None:
    """Also those that are set for all threads."""
    values = {"jax_debug_infs": True, "jax_transfer_guard": "disallow"}
    before = {name: getattr(jax.config, name) for name in values}
    task, large, broken = base(), jnp.full((), 1e9), jax.jit(lambda x: jnp.exp(x))
    try:
        for name, value in values.items():
            jax.config.update(name, value)
        solve(task, "pgd", lanes=4)
        assert {name: getattr(jax.config, name) for name in values} == values
        with pytest.raises(FloatingPointError):
            broken(large)
        with pytest.raises(Exception, match="Disallowed host-to-device"):
            jnp.sin(np.float32(2))
    finally:
        for name, value in before.items():
            jax.config.update(name, value)
    assert jnp.sin(np.float32(0)) == 0


@main
def test_already_target(name: str) -> None:
    """The clean input has the wanted class: nothing changes, one evaluation; the others do not notice."""
    done = np.array([0, 7])
    task = base()._replace(label=base().label.copy(), target=base().target.copy())
    task.target[done], task.label[done] = base().label[done], base().target[done]
    result = solve(task, name, lanes=COUNT)
    assert (np.asarray(result.status)[done] == Status.ALREADY_TARGET).all()
    assert (first_looks(name, result)[done] == 1).all()
    assert np.asarray(result.found)[done].all()
    assert np.asarray(result.x)[done].tobytes() == task.x[done].tobytes()
    rest = np.setdiff1d(np.arange(COUNT), done)
    nets.same(keep(result, rest), keep(batch(name), rest))


@pytest.mark.parametrize("name", [pytest.param(n, marks=fast) if n == "pgd" else n for n in KINDS])
def test_nan_of_one_example(name: str) -> None:
    """A network that breaks at one input: NONFINITE there, and not one bit different anywhere else."""
    mark, row = np.float32(0.9875), 3
    healthy = base()._replace(net=nets.fragile(mark=-7.0))
    broken = healthy._replace(net=nets.fragile(mark=mark), x=base().x.copy())
    broken.x[row, 0, 0, 0] = mark
    rest = np.setdiff1d(np.arange(COUNT), [row])
    reference, result = solve(healthy, name), solve(broken, name)
    assert result.status[row] == Status.NONFINITE
    assert first_looks(name, result)[row] == 1
    assert not result.found[row]
    assert np.asarray(result.x)[row].tobytes() == broken.x[row].tobytes()
    assert np.isfinite(np.asarray(result.attempt)).all()
    nets.same(keep(result, rest), keep(reference, rest))


def test_nan_in_the_queue() -> None:
    """The broken example's lane is refilled; those that follow it there do not notice."""
    mark, row, name = np.float32(0.9875), 3, "pgd"
    healthy = base()._replace(net=nets.fragile(mark=-7.0))
    broken = healthy._replace(net=nets.fragile(mark=mark), x=base().x.copy())
    broken.x[row, 0, 0, 0] = mark
    reference, result = queue(healthy, name, 8), queue(broken, name, 8)
    assert result.status[row] == Status.NONFINITE
    rest = np.setdiff1d(np.arange(COUNT), [row])
    nets.same(keep(result, rest), keep(reference, rest))


@pytest.mark.parametrize("name", ["fgsm", "pgd"])
def test_nan_midway(name: str) -> None:
    """The clean input is fine, the first step is not."""
    mark, row = np.float32(0.9875), 3
    x, mask = base().x.copy(), np.ones(nets.SMALL, bool)
    x[row, 0, 0, 0], mask[0, 0] = mark, False  # the mark stays
    calm = x[row].reshape(-1)[1]
    healthy = base()._replace(net=nets.fragile(mark=-7.0), x=x)
    broken = healthy._replace(net=nets.fragile(mark=mark, calm=calm))
    reference, result = solve(healthy, name, mask=mask), solve(broken, name, mask=mask)
    assert result.status[row] == Status.NONFINITE
    assert result.evaluations[row] == 2
    assert np.asarray(result.x)[row].tobytes() == x[row].tobytes()
    rest = np.setdiff1d(np.arange(COUNT), [row])
    nets.same(keep(result, rest), keep(reference, rest))


@main
def test_nothing_to_go_by(name: str) -> None:
    """Weights zero: every gradient is exactly 0, every logit equal. Said so, nothing NaN, at r = 0 throughout."""
    net, blind = invjax.LogitsModel(jax.tree.map(np.zeros_like, base().net.params), base().net.apply), make(name).method
    expected = pytest.warns(UserWarning, match="NO_GRADIENT") if blind.needs_grad else contextlib.nullcontext()
    with expected:
        result = solve(base()._replace(net=net), name, lanes=COUNT)
    ended = Status.NO_GRADIENT if blind.needs_grad else Status.NOT_FOUND
    assert (np.asarray(result.status) == ended).all()
    assert np.isfinite(np.asarray(result.attempt)).all()


@slowly
def test_mask(name: str) -> None:
    mask = np.random.default_rng(4).uniform(size=base().x.shape) < 0.5
    result = solve(base(), name, mask=mask, target=None)
    check_contract(base(), result, None)
    assert (np.asarray(result.status) == Status.FOUND).any()
    assert (np.asarray(result.delta)[~mask] == 0).all()
    assert (np.asarray(result.attempt)[~mask] == base().x[~mask]).all()
    shared = solve(base(), name, mask=mask[0], target=None)
    assert (np.asarray(shared.delta)[:, ~mask[0]] == 0).all()


LOW, HIGH = 0.25, 1.25  # away from 0, where the network's units stand at the kink of their ReLU
# Budgets with which those attacks that follow a gradient reach another class of flat pictures, too.
STRONG: dict[str, dict[str, Any]] = {
    "fgsm": {"eps": 1.0, "step_size": 1.0},
    "pgd": {"eps": 1.0, "step_size": 0.3},
    "forward-backward": {"step_size": 2.0},
    "gse-released": {"step_size": 0.2, "l2_weight": 0.0, "steps": 120},
    "gse-published": {"step_size": 0.2},
    "homotopy": {"eps": 2.0},
    "sapf": {"initial_weight": 10.0},
    "saif": {"k": 32, "eps": 2.0},
    "sigma-map": {"sigma_scale": 20.0},
}


def run(task: nets.Task, config: Any, **options: Any) -> Result:
    """Untargeted, with this configuration."""
    return invjax.solve(task.net, task.x, task.label, method=config, lanes=COUNT, progress=False, **options)


def saturated() -> tuple[np.ndarray, np.ndarray]:
    """Six pictures of black and white pixels, six black ones, six white ones; six of which only such pixels may change.

    (x, mask)
    """
    rng = np.random.default_rng(5)
    bits, mask = rng.uniform(size=(2, COUNT, *nets.SMALL)) < 0.5
    bits[6:12], bits[12:18], mask[:18] = False, True, True
    return np.where(mask, np.where(bits, HIGH, LOW), base().x + LOW).astype(np.float32), mask


def classes_of(net: invjax.LogitsModel, x: np.ndarray) -> np.ndarray:
    return np.asarray(net(jnp.asarray(x))).argmax(1).astype(np.int32)


@main
def test_sides_of_the_box(name: str) -> None:
    """Every free pixel stands at a side. What moves inwards is free: no attack stays at the clean image."""
    (x, mask), config = saturated(), dataclasses.replace(make(name), **STRONG.get(name, {}))
    result = run(base()._replace(x=x, label=classes_of(base().net, x)), config, mask=mask, bounds=(LOW, HIGH))
    moved = (np.asarray(result.attempt) != x).reshape(COUNT, -1)
    assert not moved[~mask.reshape(COUNT, -1)].any()
    # By (2) of the sigma-map nothing may change in flat pictures, which have no texture.
    flat = np.arange(COUNT) // 6 % 3 > 0 if name == "sigma-map" else np.zeros(COUNT, bool)
    assert (moved.any(1) | flat).all()
    if config.method.needs_grad:
        found = (np.asarray(result.status) == Status.FOUND) | flat
        assert (found.reshape(4, 6).mean(1)[:3] > 0.6).all(), found  # behind a mask there need be no answer


def _steep(params: Any, x: Any) -> Any:
    return jnp.stack([jnp.zeros_like(x[:, 0]), x @ params["w"] - params["b"]], axis=1)


def test_l2_steps_at_a_side_of_the_box() -> None:
    """The steepest feature cannot move any more. It takes no length from the others: (1, .3, .3, .3) is in the ball."""
    net = invjax.LogitsModel({"w": np.float32([30, 1, 1, 1]), "b": np.float32(30.9)}, _steep)
    config = PGD(eps=0.6, step_size=0.1, steps=40, norm="l2")
    result = invjax.solve(net, np.float32([1, 0, 0, 0]), 0, target=1, method=config)
    assert result.status == Status.FOUND
    assert np.linalg.norm(result.delta) <= 0.6


# Those that search for the weight of the loss come to any scale of it, in as many trials as that takes.
SEARCHED = {name: {"trials": 6, "growth": 20.0} for name in ("ead", "strattack", "sapf")}


def scaled(factor: float) -> nets.Task:
    net = base().net
    params = {**net.params, "w": np.float32(factor) * net.params["w"]}
    return base()._replace(net=invjax.LogitsModel(params, net.apply))


@main
def test_multiples_of_the_logits(name: str) -> None:
    """Logits times 1000 or a thousandth: the classes are the same, and as many examples are found.

    The released and the published GSE keep their loss. An eighth is left to those that weigh the rivals by softmax.
    """
    if name in ("gse-released", "gse-published"):
        return
    config = dataclasses.replace(make(name), **SEARCHED.get(name, {}))
    ordinary = run(base(), config) if name in SEARCHED else batch(name, False)
    plain, large, small = (
        (np.asarray(one.status) == Status.FOUND).mean()
        for one in (ordinary, run(scaled(1000), config), run(scaled(0.001), config))
    )
    assert plain > 0.5
    assert abs(large - plain) <= 1 / 8, (plain, large)
    assert abs(small - plain) <= 1 / 8, (plain, small)


def without(value: float, ruled_out: int = 0) -> nets.Task:
    """The logit of one class moved by this value; the labels are other classes."""
    net = base().net
    bias = np.where(np.arange(4) == ruled_out, value, 0).astype(np.float32)
    task = base()._replace(net=invjax.LogitsModel({**net.params, "b": net.params["b"] + bias}, net.apply))
    return task._replace(label=classes_of(task.net, task.x))


@main
def test_a_class_ruled_out(name: str) -> None:
    """A logit of −infinity: as a class that never wins; and asked for, it is not found, and nothing else happens."""
    task = without(-np.inf)
    result = solve(task, name, lanes=COUNT, target=None)
    assert (np.asarray(result.status) != Status.NONFINITE).all()
    if name in KINDS:
        never = solve(without(-1e6), name, lanes=COUNT, target=None)
        np.testing.assert_array_equal(result.status, never.status)
        np.testing.assert_array_equal(result.x, never.x)
    asked = solve(task, name, lanes=COUNT, target=np.zeros(COUNT, np.int32))
    assert (np.asarray(asked.status) == Status.NOT_FOUND).all()
    assert np.isfinite(np.asarray(asked.attempt)).all()


@pytest.mark.parametrize("name", ["fmn", "jsma", "sparsefool", "corner-search"])
@pytest.mark.parametrize("targeted", [True, False])
def test_a_class_ruled_out_as_without_it(name: str, targeted: bool) -> None:
    """What chooses among classes: bit for bit what the network of three classes gives, at the same cost."""
    task, net = without(-np.inf, ruled_out=3), base().net
    params = {**net.params, "w": net.params["w"][:, :3], "b": net.params["b"][:3]}
    target = (task.label + 1) % 3 if targeted else None
    three = task._replace(net=invjax.LogitsModel(params, net.apply))
    nets.same(*(solve(one, name, lanes=COUNT, target=target) for one in (task, three)))


@slowly
def test_vmap_over_targets(name: str) -> None:
    """``jit(vmap(solve_one, in_axes=(None, None, 0)))``: the flat list's answers from one compilation."""
    config = make(name)

    def solve_one(x: Any, label: Any, target: Any) -> Result:
        return invjax.solve(base().net, x, label, target=target, method=config)

    over_targets = jax.jit(jax.vmap(solve_one, in_axes=(None, None, 0)))
    for row in (0, 1):
        label = base().label[row]
        targets = np.setdiff1d(np.arange(4, dtype=np.int32), label)
        result = over_targets(base().x[row], label, targets)
        # Filled up to the lanes of the other tests: their program serves.
        filled = nets.Task(
            base().net, np.repeat(base().x[row][None], COUNT, 0), np.repeat(label, COUNT), np.resize(targets, COUNT)
        )
        flat = keep(solve(filled, name, lanes=COUNT, ids=np.zeros(COUNT, int)), slice(3))
        nets.alike(result, flat, share=1.0)
        np.testing.assert_allclose(result.x, flat.x, atol=1e-5)
        np.testing.assert_array_equal(result.evaluations, flat.evaluations)
    assert over_targets._cache_size() == 1


@pytest.fixture
def x64() -> Iterator[None]:
    before = jax.config.jax_enable_x64
    jax.config.update("jax_enable_x64", True)
    yield
    jax.config.update("jax_enable_x64", before)


@pytest.mark.parametrize("name", CONFIGS)
def test_float64(name: str, x64: None) -> None:
    """The dtype follows x, and so do the answers; with 64 bits allowed a float32 input stays float32."""
    single = base()
    wide = nets.Task(
        invjax.LogitsModel(jax.tree.map(np.float64, single.net.params), single.net.apply),
        single.x.astype(np.float64), single.label, single.target,
    )  # fmt: skip
    result = solve(wide, name)
    check_contract(wide, result, wide.target)
    if "random" not in name:  # the draws of the two dtypes differ
        agree = np.asarray(result.status) == np.asarray(batch(name).status)
        assert agree.mean() >= 0.9
    if name in QUICK:
        check_contract(single, solve(single, name), single.target)


@pytest.mark.parametrize("name", sorted(QUICK))  # the others: tests/test_shapes.py
@pytest.mark.parametrize("shape", [(7, 5, 1), (9, 13, 3), (1, 3, 2)])
def test_odd_shapes(name: str, shape: tuple[int, ...]) -> None:
    task = nets.task(nets.linear(shape), shape, count=6)
    check_contract(task, solve(task, name), task.target)


@slowly
@pytest.mark.parametrize("bounds", [(-1.0, 1.0), (0.0, 255.0)])
def test_bounds(name: str, bounds: tuple[float, float]) -> None:
    """The same problem in other units: the same share, and the same answers but for the units."""
    low, width = bounds[0], bounds[1] - bounds[0]
    unit = nets.task(nets.linear(), count=12)
    constant = -np.float32(low / width) * unit.net.params["w"].sum(0)
    net = invjax.LogitsModel({"w": unit.net.params["w"] / np.float32(width), "b": constant}, unit.net.apply)
    task = unit._replace(net=net, x=(low + width * unit.x).astype(np.float32))
    result, there = solve(task, name, width=width, bounds=bounds), solve(unit, name)
    check_contract(task, result, task.target, bounds)
    assert (np.asarray(result.status) == Status.FOUND).any()
    np.testing.assert_array_equal(result.status, there.status)
    np.testing.assert_allclose((np.asarray(result.x) - low) / width, there.x, atol=1e-3)


@pytest.mark.parametrize("method", [PGD(), PGD(norm="l2", random_start=True)], ids=["linf", "l2"])
def test_default_radius_is_a_share_of_the_box(method: PGD) -> None:
    """Also where the features have boxes of their own. And the steps reach the radius."""
    task = nets.task(nets.linear(), count=12)
    width = np.random.default_rng(5).uniform(1, 300, nets.SMALL).astype(np.float32)
    weights = {"w": task.net.params["w"] / width.reshape(-1, 1), "b": task.net.params["b"]}
    wide = task._replace(net=invjax.LogitsModel(weights, task.net.apply), x=task.x * width)
    there, result = (
        invjax.solve(one.net, one.x, one.label, target=one.target, method=method, bounds=(np.zeros_like(width), upper))
        for one, upper in ((task, np.ones_like(width)), (wide, width))
    )
    np.testing.assert_array_equal(result.status, there.status)
    np.testing.assert_allclose(np.asarray(result.attempt) / width, there.attempt, atol=1e-4)
    moved = (np.asarray(there.attempt) - task.x).reshape(12, -1)
    radius = np.abs(moved).max() if method.norm == "linf" else np.sqrt((moved**2).sum(1)).max()
    assert radius == pytest.approx(8 / 255 if method.norm == "linf" else 0.5, rel=1e-3)


def test_steps_follow_the_radius() -> None:
    """A radius of any size is reached in any number of steps, by one program; constants that cannot reach it say so."""
    task = nets.task(nets.linear(), count=12)
    norms = []
    for eps in (0.05, 0.4):
        result = invjax.solve(task.net, task.x, task.label, method=PGD(eps=eps, norm="l2", steps=7, stop_early=False))
        norms.append(np.sqrt(((np.asarray(result.attempt) - task.x) ** 2).sum((1, 2, 3))).max())
    np.testing.assert_allclose(norms, [0.05, 0.4], rtol=1e-3)
    with pytest.warns(UserWarning, match="3 steps of 0.1, so from x it cannot reach its radius 0.4"):
        engine.prepare(task.net, task.x, task.label, method=PGD(eps=0.4, step_size=0.1, norm="l2", steps=3))


@slowly
def test_bounds_of_each_feature(name: str) -> None:
    rng = np.random.default_rng(6)
    task = nets.task(nets.linear(), count=12)
    lower = (task.x.min(0) - 0.2 * rng.uniform(size=nets.SMALL)).astype(np.float32)
    upper = (task.x.max(0) + 0.2 * rng.uniform(size=nets.SMALL)).astype(np.float32)
    lower[0, 0], upper[0, 0] = task.x[:, 0, 0].min(0), task.x[:, 0, 0].max(0)
    fixed = (2, 3, 0)  # no room at all in one coordinate
    task.x[(slice(None), *fixed)] = lower[fixed] = upper[fixed] = 0.5
    result = solve(task, name, bounds=(lower, upper), target=None)
    check_contract(task, result, None, (lower, upper))
    assert (np.asarray(result.status) == Status.FOUND).any()
    assert (np.asarray(result.delta)[(slice(None), *fixed)] == 0).all()


def _python_pgd(net: Any, x: np.ndarray, label: int, target: int, config: PGD) -> tuple[int, bool, np.ndarray]:
    """PGD (linf, no random start, one start) on one example, written down again, counting gradients."""

    @jax.jit
    def look(point: Any) -> Any:
        def loss(point: Any) -> Any:
            logits = net(point[None])[0]
            return jax.nn.logsumexp(logits) - logits[target], logits

        return jax.grad(loss, has_aux=True)(point)

    point, count = x.copy(), 0
    for step in range(config.steps + 1):
        grad, logits = look(point)
        count += 1
        if np.asarray(logits).argmax() == target:
            return count, True, point
        if step < config.steps:
            moved = x + np.clip(point - config.step_size * np.sign(grad) - x, -config.eps, config.eps)
            point = np.clip(moved, 0, 1).astype(np.float32)
    return count, False, point


@fast
def test_evaluations_are_counted_exactly() -> None:
    """Against PGD in plain Python, on a list through the queue; and its attempt is the last point looked at."""
    config = PGD(eps=0.08, step_size=0.03, steps=4)
    result = invjax.solve(base().net, base().x, base().label, target=base().target, method=config, lanes=8)
    for row in range(12):
        count, found, point = _python_pgd(base().net, base().x[row], base().label[row], base().target[row], config)
        assert result.evaluations[row] == count
        assert (result.status[row] == Status.FOUND) == found
        np.testing.assert_allclose(result.attempt[row], point, atol=1e-6)
    assert (np.asarray(result.forwards) == 0).all()


@pytest.mark.parametrize("random_start", [pytest.param(False, marks=fast), True])
def test_evaluations_in_closed_form(random_start: bool) -> None:
    """eps = 0 never succeeds: the clean input, then every step of every start."""
    config = PGD(eps=0.0, steps=4, restarts=3, random_start=random_start)
    task = nets.task(nets.linear((5,)), (5,), count=4)
    result = invjax.solve(task.net, task.x, task.label, target=task.target, method=config)
    assert (np.asarray(result.status) == Status.NOT_FOUND).all()
    np.testing.assert_array_equal(result.evaluations, 1 + 3 * 5 - (not random_start))
    fgsm = batch("fgsm")
    np.testing.assert_array_equal(fgsm.evaluations, 2)


def test_key_and_ids() -> None:
    """A draw depends on the key and the example's id, and on nothing else."""
    name, few = "pgd/random-l2", np.arange(6)
    again = batch(name)
    other = solve(base(), name, key=jax.random.key(1))
    assert (np.asarray(other.attempt) != np.asarray(again.attempt)).any()
    twice = pick(base(), np.concatenate([few] * 4))
    result = solve(twice, name, ids=np.concatenate([few, few, few + 50, few + 50]))
    nets.same(keep(result, slice(0, 6)), keep(result, slice(6, 12)))
    nets.same(keep(result, slice(12, 18)), keep(result, slice(18, 24)))
    assert (np.asarray(result.attempt)[:6] != np.asarray(result.attempt)[12:18]).any()


@main
def test_config_is_a_frozen_pytree(name: str) -> None:
    config = make(name)
    assert dataclasses.is_dataclass(config)
    first = dataclasses.fields(config)[0].name
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(config, first, 1.0)
    assert hash(jax.tree.structure(config)) == hash(jax.tree.structure(make(name)))
