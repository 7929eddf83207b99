"""SAPF: its steps against the equations written down again, its budget, and what a trial keeps."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import nets
import numpy as np
import pytest

import invjax
from invjax import Status, engine
from invjax.attacks import sapf
from invjax.attacks.sapf import PUBLISHED, SAPF, SAPFState
from invjax.core.groups import patch_groups

CONFIG = SAPF(k=16, steps=24, trials=3, final_steps=6, rho_growth=1.4, decay_every=6, group_weight=1.0)
SIDE = 3  # the tiles of a small image


def problem_of(task: nets.Task, row: int = 0, **options: Any) -> tuple[Any, Any, Any]:
    """One example as the engine hands it to a method, with its context and configuration."""
    ctx, problems, config, *_ = engine.prepare(
        task.net, task.x, task.label, target=task.target, **{"method": CONFIG, **options}
    )
    return (
        ctx,
        jax.tree.map(lambda leaf: jnp.asarray(leaf)[row], problems._replace(key=jnp.arange(len(task.x)))),
        config,
    )


class Plain:
    """A trial in NumPy (float64) from the equations of the module: matrices in full, groups one by one."""

    def __init__(self, config: SAPF, problem: Any, mask: np.ndarray | None = None):
        x = np.asarray(problem.x, np.float64)
        labels, _ = patch_groups(*x.shape, SIDE)
        self.config, self.labels = config, labels.ravel()
        self.low, self.high = (2 * (side - x.ravel()) for side in (0.0, 1.0))
        self.free = np.ones(x.size, bool) if mask is None else mask.ravel()
        self.delta, self.G = np.zeros(x.size), self.free.astype(float)
        self.rho = np.array([config.rho] * 3 + [config.rho_count])
        self.rates = [config.step_size, config.step_size]
        self.fresh()

    def fresh(self) -> None:
        self.z, self.z4 = np.zeros((3, self.G.size)), 0.0

    def slope(self, grad: np.ndarray, factor: np.ndarray) -> np.ndarray:
        r = self.delta * self.G
        return self.config.initial_weight * factor * grad * ((r >= self.low) & (r <= self.high))

    def step_delta(self, grad: np.ndarray) -> np.ndarray:
        moved = self.delta - self.rates[0] * self.slope(grad, self.G)
        bounded = np.clip(moved / (1 + 2 * self.rates[0] * self.G**2), self.low, self.high)
        return np.where(self.free, bounded, 0)

    def step_choice(self, grad: np.ndarray) -> np.ndarray:
        free, r = np.flatnonzero(self.free), self.rho
        n, G, delta = len(free), self.G[self.free], self.delta[self.free]
        v = G + self.z[:, free] / r[:3, None]
        y = [np.clip(v[0], 0, 1), 0.5 + np.sqrt(n) / 2 * (v[1] - 0.5) / np.linalg.norm(v[1] - 0.5), v[2].copy()]
        for label in np.unique(self.labels[free]):
            own = self.labels[free] == label
            norm = np.linalg.norm(v[2][own])
            y[2][own] *= max(0.0, 1 - self.config.group_weight / (r[2] * norm)) if norm > 0 else 0.0
        aim = min(self.config.k, n) / n
        d = 2 * G * delta**2 + self.slope(grad, self.delta)[free] + self.z4 + r[3] * (G.mean() - aim)
        for i in range(3):
            d += self.z[i, free] + r[i] * (G - y[i])
        M = np.diag(1 / self.rates[1] + r[:3].sum() + 2 * delta**2) + r[3] / n * np.ones((n, n))
        new = G - np.linalg.solve(M, d)
        self.z[:, free] += r[:3, None] * (new - np.array(y))
        self.z4 += r[3] * (new.mean() - aim)
        self.rho = np.minimum(r * self.config.rho_growth, sapf.LIMITS)
        out = np.zeros(self.G.size)
        out[free] = new
        return out

    def decay(self, which: int, local: int) -> None:
        if local % self.config.decay_every == 0:
            self.rates[which] = max(self.rates[which] * self.config.decay, sapf.FLOOR)

    def binary(self) -> np.ndarray:
        chosen = np.argsort(-self.G, kind="stable")[: self.config.k]
        return np.where(np.isin(np.arange(self.G.size), chosen) & (self.G > 0.5), 1.0, 0.0)


def run_plain(plain: Plain, grads: list[np.ndarray]) -> Iterator[int]:
    """One step of a trial after the other; yields how many were taken."""
    config, given, step = plain.config, iter(grads), 0
    for _ in range(config.rounds):
        if config.order == "joint":
            for local in range(config.steps):
                g = next(given)
                plain.delta, plain.G = plain.step_delta(g), plain.step_choice(g)
                plain.decay(0, local), plain.decay(1, local)
                step += 1
                yield step
        else:
            for local in range(config.steps):
                plain.delta = plain.step_delta(next(given))
                plain.decay(0, local)
                step += 1
                yield step
            for local in range(config.steps):
                plain.G = plain.step_choice(next(given))
                plain.decay(1, local)
                step += 1
                yield step
        plain.fresh()
    plain.G = plain.binary()
    for local in range(config.final_steps):
        plain.delta = plain.step_delta(next(given))
        plain.decay(0, local)
        step += 1
        yield step


@pytest.fixture
def x64() -> Any:
    before = jax.config.jax_enable_x64
    jax.config.update("jax_enable_x64", True)
    yield
    jax.config.update("jax_enable_x64", before)


@pytest.mark.parametrize(("order", "masked"), [("joint", True), ("alternate", False)])
def test_steps_against_the_equations(order: str, masked: bool, x64: None) -> None:
    """Two rounds and the last steps, with random gradients and weights under which everything is at work."""
    config = SAPF(
        k=17, initial_weight=3.0, rounds=2, steps=9, final_steps=5, group_weight=0.3, decay_every=4, rho_growth=1.5,
        order=order,
    )  # fmt: skip
    task = nets.task(nets.linear(), count=2, dtype=np.float64)
    rng = np.random.default_rng(3)
    mask = rng.uniform(size=nets.SMALL) < 0.7 if masked else None
    ctx, problem, typed = problem_of(task, method=config, mask=mask)
    plain = Plain(config, problem, mask)
    count = config.rounds * config.steps * sapf.TURNS[order] + config.final_steps
    grads = [rng.normal(size=64) for _ in range(count)]

    @jax.jit
    def step(state: SAPFState, grad: Any) -> SAPFState:
        return sapf.advance(problem, typed, state, grad)

    state, binary = sapf.SAPF.method.init(ctx, problem, typed), count - config.final_steps
    for number in run_plain(plain, grads):
        state = step(state, jnp.asarray(grads[number - 1].reshape(nets.SMALL)))
        np.testing.assert_allclose(state.delta.ravel(), plain.delta, atol=1e-12)
        if number != binary:  # there plain has yet to round
            np.testing.assert_allclose(state.choice.ravel(), plain.G, atol=1e-12)
        np.testing.assert_allclose(state.rho, plain.rho)
    assert set(np.unique(state.choice)) == {0.0, 1.0}
    assert 0 < state.choice.sum() <= 17
    np.testing.assert_allclose(state.sizes, plain.rates)


def test_small_steps_are_the_published_ones(x64: None) -> None:
    """With rates → 0 the implicit steps (2) and (4) are the released explicit ones: δ − η ∇_δ and G − η ∇_G of (1)."""
    config = dataclasses.replace(CONFIG, step_size=1e-7, initial_weight=2.0, order="alternate", steps=1)
    task = nets.task(nets.linear(), count=2, dtype=np.float64)
    ctx, problem, config = problem_of(task, method=config)
    rng = np.random.default_rng(4)
    delta, G, grad = 0.1 * rng.normal(size=nets.SMALL), rng.uniform(size=nets.SMALL), rng.normal(size=nets.SMALL)
    z = 0.1 * rng.normal(size=(3, *nets.SMALL))
    state = sapf.SAPF.method.init(ctx, problem, config)
    state = state._replace(delta=jnp.asarray(delta), choice=jnp.asarray(G), duals=jnp.asarray(z))
    advance = jax.jit(partial(sapf.advance, problem, config))
    first = advance(state, jnp.asarray(grad))
    explicit = 2 * delta * G**2 + config.initial_weight * G * grad
    np.testing.assert_allclose((delta - first.delta) / 1e-7, explicit, atol=1e-5)
    second = advance(state._replace(count=jnp.int32(1)), jnp.asarray(grad))
    v = G + z / config.rho
    room = sapf.room_of(problem, config)
    y = np.asarray(jax.jit(lambda v: sapf.copies(v, config.group_weight / config.rho, room))(jnp.asarray(v)))
    # The released count: ρ_4 (ΣG − k), with ρ_4 = 1e-4 at 3072 entries.
    count = config.rho_count / 64 * (G.sum() - config.k)
    explicit = 2 * G * delta**2 + config.initial_weight * delta * grad + (z + config.rho * (G - y)).sum(0) + count
    # Rounding follows at once here: so the step is looked at before it.
    moved, *_ = jax.jit(lambda g: sapf.move_choice(config, state, room, g))(config.initial_weight * jnp.asarray(grad))
    np.testing.assert_allclose((G - moved) / 1e-7, explicit, atol=1e-5)
    np.testing.assert_array_equal(second.choice, np.round(np.clip(second.choice, 0, 1)))


@pytest.fixture(scope="module")
def answers() -> Any:
    """One program for all that follows: 12 examples of the small conv net."""
    task = nets.task(nets.conv(), count=12)
    stripes = np.broadcast_to((np.arange(8) // 2)[:, None, None], nets.SMALL).astype(np.int32)

    @jax.jit
    def solve(config: SAPF) -> Any:
        return invjax.solve(task.net, task.x, task.label, target=task.target, method=config, groups=stripes)

    return task, solve


def test_budget_and_evaluations(answers: Any) -> None:
    """At most k entries change; evaluations in closed form; k is traced, and all succeed where k is no limit."""
    _, solve = answers
    for k in (1, 8, 24, 1000):
        result = solve(dataclasses.replace(CONFIG, k=k))
        l0 = (np.asarray(result.delta) != 0).sum((1, 2, 3))
        assert (l0 <= k).all()
        assert (l0[np.asarray(result.status) == Status.FOUND] > 0).all()
        np.testing.assert_array_equal(result.evaluations, 3 * (24 + 6 + 1))
        np.testing.assert_array_equal(result.forwards, 0)
    assert (np.asarray(result.status) == Status.FOUND).all()
    assert solve._cache_size() == 1


def test_published_cost() -> None:
    """As many gradients as the released code has forward and backward passes, half with joint steps; none beside."""

    def cost(config: SAPF) -> int:
        steps = config.rounds * config.steps * sapf.TURNS[config.order]
        return config.trials * (steps + config.final_steps + 1)

    assert cost(PUBLISHED) == 10 * (10 * (200 + 200) + 100) + 10 == 41_010
    assert cost(dataclasses.replace(PUBLISHED, order="joint")) == 21_010
    assert cost(SAPF()) == 605


def test_what_is_kept(answers: Any) -> None:
    """More trials never give more changed entries; at equal entries never a longer change."""
    _, solve = answers
    last = None
    for trials in (1, 2, 3, 5):
        result = solve(dataclasses.replace(CONFIG, trials=trials))
        delta = np.asarray(result.delta).reshape(12, -1)
        rank = [(int((d != 0).sum()), float(np.linalg.norm(d))) for d in delta]
        ok = np.asarray(result.status) == Status.FOUND
        if last is not None:
            before, were = last
            assert ok[were].all()
            assert all(rank[row] <= before[row] for row in np.flatnonzero(were))
        last = rank, ok
    assert ok.mean() > 0.5


def test_groups(answers: Any) -> None:
    """The group term concentrates the change: fewer of the problem's groups (stripes) are touched, and these fully."""
    _, solve = answers
    touched, full = [], []
    for weight in (0.0, 10.0):
        config = SAPF(
            k=32, steps=60, trials=3, final_steps=10, rho_growth=1.15, decay_every=15, group_weight=weight
        )  # fmt: skip
        result = solve(config)
        ok = np.asarray(result.status) == Status.FOUND
        assert ok.mean() > 0.5
        share = (np.asarray(result.delta)[ok].reshape(ok.sum(), 4, 16) != 0).mean(2)
        touched.append((share > 0).sum(1).mean())
        full.append(share[share > 0].mean())
    assert touched[1] < 0.8 * touched[0], touched
    assert full[1] > 1.2 * full[0], full


def test_configuration() -> None:
    task = nets.task(nets.linear((6,)), (6,), count=2)
    with pytest.raises(ValueError, match=r"x must be images .*or come with groups.* for SAPF"):
        invjax.solve(task.net, task.x, task.label, method=SAPF())
    for name, value in (("k", 0), ("initial_weight", 0.0), ("growth", 1.0), ("decay", 1.5), ("rho_growth", 0.9),
                        ("order", "both"), ("patch", 0), ("group_weight", -1.0), ("final_steps", 0)):  # fmt: skip
        with pytest.raises(ValueError, match=rf"SAPF.{name} must be"):
            invjax.solve(task.net, task.x, task.label, method=dataclasses.replace(SAPF(), **{name: value}))
