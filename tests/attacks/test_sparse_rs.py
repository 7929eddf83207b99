"""Sparse-RS: its schedule, its draws, what a query changes, patches and frames; found or not against brute force."""

from __future__ import annotations

import itertools
from typing import Any

import jax
import jax.numpy as jnp
import nets
import numpy as np
import pytest

import invjax
from invjax import Status
from invjax.attacks import sparse_rs, sparse_rs_patches
from invjax.attacks.parts import corners
from invjax.attacks.sparse_rs import Chosen, SparseRS
from invjax.attacks.sparse_rs_patches import Painted, SparseRSFrame, SparseRSPatch
from invjax.types import Problem

fast = pytest.mark.fast
PATCH_TABLE = ((10, 1), (50, 2), (200, 4), (500, 8), (1000, 16), (2000, 32), (4000, 64), (6000, 128), (8000, 256))
TABLE = ((0, 1), (50, 2), (200, 4), (500, 5), (1000, 6), (2000, 8), (4000, 10), (6000, 12), (8000, 15))


def problem_of(x: Any, mask: Any = None) -> Problem:
    zero = jnp.int32(0)
    return Problem(
        jnp.asarray(x), zero, jnp.int32(-1), jnp.float32(0), jnp.float32(1), mask, None, jax.random.key(3), zero
    )


def linear(shape: tuple[int, ...], scale: float = 0.0, seed: int = 0, lead: float = 1.0) -> invjax.LogitsModel:
    """Three classes, of which the first leads."""
    w = scale * np.random.default_rng(seed).normal(size=(int(np.prod(shape)), 3)).astype(np.float32)
    return invjax.LogitsModel({"w": w, "b": np.array([lead, 0, 0], np.float32)}, nets._linear)


# ---------------------------------------------------------------------------------------------------------------------
# Schedule and draws
# ---------------------------------------------------------------------------------------------------------------------
@fast
@pytest.mark.parametrize("form", ["units", "patch"])
def test_schedule_has_the_published_stages(form: str) -> None:
    """Against the table read query by query, on budgets longer, shorter, and of no round number."""
    table, last = (TABLE, 20) if form == "units" else (PATCH_TABLE, 512)
    tables = (
        (sparse_rs if form == "units" else sparse_rs_patches).BREAKS,
        (sparse_rs if form == "units" else sparse_rs_patches).DIVISORS,
    )
    of = jax.jit(jax.vmap(lambda i, n: sparse_rs.schedule(i, n, jnp.float32(0.8), *tables), (0, None)))
    for queries in (10_000, 1, 7, 777, 100_000, 3_000_000):
        at = np.unique(np.linspace(0, queries - 1, 4000).astype(int))
        exact = [
            next((0.8 / beta for end, beta in table if i * 10_000 // queries <= end), 0.8 / last) for i in at.tolist()
        ]
        padded = np.zeros(4000, np.int32)
        padded[: len(at)] = at
        np.testing.assert_allclose(np.asarray(of(padded, jnp.int32(queries)))[: len(at)], exact, rtol=1e-6)


@fast
def test_subset_takes_the_smallest_keys() -> None:
    rng = np.random.default_rng(0)
    pick = jax.jit(corners.subset)
    for top in (2**32, 4, 1):  # ties, and nothing but ties
        keys = rng.integers(0, top, 50, dtype=np.uint64).astype(np.uint32)
        among = rng.uniform(size=50) < 0.5
        for count in (0, 1, 7, int(among.sum()), 60):
            order = [i for i in np.argsort(keys, kind="stable") if among[i]][:count]
            np.testing.assert_array_equal(np.flatnonzero(pick(keys, among, count)), np.sort(order))
    largest = np.full(5, 2**32 - 1, np.uint32)
    assert pick(np.pad(largest, (0, 45)), np.arange(50) < 5, 3).sum() == 3


@fast
@pytest.mark.parametrize("channels", [1, 3, 40])
def test_colours_are_uniform(channels: int) -> None:
    words = corners.words(jax.random.key(0), (20_000, corners.length(channels)))
    drawn, flipped = np.asarray(corners.colours(words, channels)), np.asarray(corners.flips(words, channels))
    assert drawn.shape == flipped.shape == (20_000, channels)
    np.testing.assert_allclose(drawn.mean(0), 0.5, atol=0.02)
    np.testing.assert_allclose(np.cov(drawn.T) if channels > 1 else 0.25, np.eye(channels) / 4, atol=0.01)
    assert flipped.any(1).all()
    if channels < 32:
        counts = np.bincount(flipped @ (1 << np.arange(channels)), minlength=2**channels)
        np.testing.assert_allclose(counts[1:] / 20_000, 1 / (2**channels - 1), atol=0.02)


# ---------------------------------------------------------------------------------------------------------------------
# k units
# ---------------------------------------------------------------------------------------------------------------------
FIRST = np.zeros(1000, np.int32)
PROPOSE = jax.jit(jax.vmap(sparse_rs.propose, (None, None, None, 0, 0)))


def test_a_query_swaps_k_i_pixels() -> None:
    """k pixels at corners always; from query to query k_i of them go back to x and k_i others come; all 8 colours."""
    shape, config = (6, 7, 3), SparseRS(k=20, queries=400, initial_share=0.8)
    problem = problem_of(np.random.default_rng(1).uniform(0.1, 0.9, shape).astype(np.float32))
    queries = np.arange(400, dtype=np.int32)
    blank = sparse_rs.blank(problem, config)
    begun = jax.tree.map(lambda a: a[0], PROPOSE(problem, config, blank, FIRST[:400], queries))
    assert begun.chosen.sum() == 20
    tried = PROPOSE(problem, config, begun, FIRST[:400], queries)
    changed = np.asarray(tried.point != problem.x)
    np.testing.assert_array_equal(changed.all(-1).reshape(400, -1), tried.chosen)
    assert (changed.any((1, 2, 3)) & (changed.all(-1) == changed.any(-1)).all((1, 2))).all()
    assert (np.asarray(tried.chosen).sum(1) == 20).all()
    stage = [next((b for e, b in TABLE if i * 25 <= e), 20) for i in range(400)]
    came = (np.asarray(tried.chosen) & ~np.asarray(begun.chosen)).sum(1)
    np.testing.assert_array_equal(came[1:], [max(int(0.8 / beta * 20 + 1e-9), 1) for beta in stage[1:]])
    stayed = np.asarray(tried.chosen & begun.chosen).reshape(400, 6, 7)[1:]
    point = np.asarray(tried.point)[1:]
    np.testing.assert_array_equal(point[stayed], np.broadcast_to(begun.point, point.shape)[stayed])
    # Whom a query takes, and what it paints, is uniform.
    fresh = np.asarray(tried.chosen)[1:] & ~np.asarray(begun.chosen)
    codes = point.reshape(399, 42, 3)[fresh] @ np.array([1, 2, 4])
    counts = np.bincount(codes.astype(int), minlength=8)
    assert counts.size == 8
    np.testing.assert_allclose(counts / counts.sum(), 1 / 8, atol=0.04)
    outside = ~np.asarray(begun.chosen)
    np.testing.assert_allclose(fresh.sum(0)[outside] / fresh.sum(), 1 / 22, atol=0.025)


def test_more_units_than_pixels_and_one_channel() -> None:
    """All pixels stay changed and k_i of them change colour; on a black image every new colour is another one."""
    problem, config = problem_of(np.zeros((3, 4, 1), np.float32)), SparseRS(k=50, queries=400, initial_share=0.5)
    queries = np.arange(400, dtype=np.int32)
    begun = jax.tree.map(
        lambda a: a[0], PROPOSE(problem, config, sparse_rs.blank(problem, config), FIRST[:400], queries)
    )
    assert (np.asarray(begun.point) == 1).all()
    tried = PROPOSE(problem, config, begun, FIRST[:400], queries)
    assert np.asarray(tried.chosen).all()
    turned = (np.asarray(tried.point)[1:] != np.asarray(begun.point)).sum((1, 2, 3))
    stage = [next((b for e, b in TABLE if i * 25 <= e), 20) for i in range(1, 400)]
    np.testing.assert_array_equal(turned, [max(int(0.5 / beta * 12 + 1e-9), 1) for beta in stage])
    one = SparseRS(k=1, queries=400, initial_share=0.5)
    alone = PROPOSE(problem, one, Chosen(problem.x.at[0, 0].set(1), jnp.arange(12) == 0), FIRST[:400], queries)
    assert (np.asarray(alone.point).sum((1, 2, 3)) == 1).all()
    assert len(np.unique(np.asarray(alone.point)[1:].reshape(399, 12).argmax(1))) == 11


def test_finds_what_brute_force_finds() -> None:
    """Two pixels of 3x2 in one of 4 colours each: found exactly where some choice of them succeeds."""
    shape, count = (3, 2, 2), 24
    net = linear(shape, 1.0, lead=3.0)
    x = np.random.default_rng(2).uniform(0.2, 0.8, (count, *shape)).astype(np.float32)
    label = np.zeros(count, np.int32)
    keep = np.asarray(net(jnp.asarray(x))).argmax(1) == 0
    points = np.repeat(x.reshape(count, 1, 6, 2), 15 * 16, 1)
    choices = itertools.product(itertools.combinations(range(6), 2), itertools.product((0, 1), repeat=4))
    for row, (pair, colour) in enumerate(choices):
        points[:, row, list(pair)] = np.reshape(colour, (2, 2))
    logits = np.asarray(net(jnp.asarray(points.reshape(-1, *shape)))).reshape(count, -1, 3)
    config = SparseRS(k=2, queries=100, restarts=20)
    seen = []
    for target in (None, 1):
        possible = ((logits.argmax(-1) != 0) if target is None else (logits.argmax(-1) == target)).any(1)
        result = invjax.solve(net, x, label, target=None if target is None else label + target, method=config)
        np.testing.assert_array_equal(np.asarray(result.found)[keep], possible[keep])
        pixels = (np.asarray(result.delta) != 0).any(-1).sum((1, 2))
        assert (pixels[keep & possible] == 2).all()
        forwards = np.asarray(result.forwards)[keep]
        assert (forwards[~possible[keep]] == 1 + 20 * 100).all()
        assert (forwards[possible[keep]] < 1 + 20 * 100).all()
        seen += possible[keep].tolist()
    assert any(seen)
    assert not all(seen)
    assert (np.asarray(result.evaluations) == 0).all()


def test_losses() -> None:
    logits = jnp.asarray([2.0, 1.0, 0.5])
    margin, entropy, odds = invjax.losses.gap, invjax.losses.cross_entropy, invjax.losses.log_odds
    for name, want in (
        ("released", (margin, entropy)),
        ("margin", (margin, margin)),
        ("cross_entropy", (odds, odds)),  # ranks as the cross-entropy, without its ties
    ):
        for target, function in zip((-1, 2), want, strict=True):
            problem = problem_of(np.zeros((2, 2, 1), np.float32))._replace(target=jnp.int32(target))
            value = SparseRS.method.loss(None, problem, SparseRS(loss=name), None, problem.x, logits)
            np.testing.assert_allclose(value, function(logits, 0, target))


# ---------------------------------------------------------------------------------------------------------------------
# Patches and frames
# ---------------------------------------------------------------------------------------------------------------------
PATCH = jax.jit(jax.vmap(sparse_rs_patches.propose_patch, (None, None, None, 0, 0)))
FRAME = jax.jit(jax.vmap(sparse_rs_patches.propose_frame, (None, None, None, 0, 0)))
SHOW = jax.jit(jax.vmap(sparse_rs_patches.render_patch, (None, None, 0)))
SHOW_FRAME = jax.jit(jax.vmap(sparse_rs_patches.render_frame, (None, None, 0)))
WIDE, QUERIES = (9, 12, 3), np.arange(1000, dtype=np.int32)
MIDDLE = problem_of(np.full(WIDE, 0.5, np.float32))


def spans(changed: np.ndarray) -> np.ndarray:
    """The first row and column, and the sides, of the smallest rectangle around each [N, H, W] -> [N, 4]."""
    rows, columns = changed.any(2), changed.any(1)
    first = np.stack([rows.argmax(1), columns.argmax(1)], 1)
    last = np.stack([rows.shape[1] - rows[:, ::-1].argmax(1), columns.shape[1] - columns[:, ::-1].argmax(1)], 1)
    return np.concatenate([first, (last - first) * changed.any((1, 2))[:, None]], 1)


def test_patch() -> None:
    config = SparseRSPatch(size=4, queries=1000, initial_share=0.4, period=4)
    blank = Painted(jnp.zeros(WIDE, bool), jnp.zeros(2, jnp.int32), jnp.zeros((), bool))
    starts = PATCH(MIDDLE, config, blank, QUERIES, FIRST)
    shown = spans(np.asarray(SHOW(MIDDLE, config, starts) != MIDDLE.x).all(-1))
    assert (shown[:, 2:] == 4).all()
    assert set(shown[:, 0]) == set(range(6))
    assert set(shown[:, 1]) == set(range(9))  # the last rows and columns too
    np.testing.assert_allclose(np.asarray(starts.bits)[:, :4, :4].mean((0, 1, 2)), 0.5, atol=0.07)

    begun = jax.tree.map(lambda a: a[1], starts)._replace(place=jnp.array([2, 4], jnp.int32))
    tried = PATCH(MIDDLE, config, begun, FIRST, QUERIES)
    moved = np.asarray(tried.place != begun.place).any(1)
    painted = np.asarray(tried.bits != begun.bits).any(-1)
    assert not (moved & painted.any((1, 2)))[1:].any()
    assert set(np.flatnonzero(moved[1:]) + 1) <= set(range(4, 1000, 4))
    assert moved[4:600:4].mean() > 0.9
    assert (np.asarray(tried.place) >= 0).all()
    assert (np.asarray(tried.place) <= [5, 8]).all()
    far = np.abs(np.asarray(tried.place - begun.place)).max(1)
    assert (far[1:] <= np.floor(0.75 * (1 - QUERIES[1:] / 1000) * 12)).all()
    # Squares of the side of the schedule (in colours other than the present one they may show less), then of one pixel.
    side = np.array(
        [max(int(4 * np.sqrt(0.4 / next((b for e, b in PATCH_TABLE if i * 10 <= e), 512)) + 1e-6), 1) for i in QUERIES]
    )
    assert set(side) == {1, 2}
    paints = (QUERIES % 4 != 0) & (QUERIES > 0)
    extent = spans(painted)[:, 2:].max(1)
    assert (extent[paints] <= side[paints]).all()
    assert (painted[paints & (side == 1)].sum((1, 2)) == 1).all()
    channels = np.asarray(tried.bits != begun.bits).sum((1, 2, 3))
    late = QUERIES >= 6 + (1000 - 6) // 2
    assert (channels[paints & late] == 1).all()
    assert (channels[paints & ~late & (side == 1)] > 1).any()
    assert not painted[1:, 4:].any()
    assert not painted[1:, :, 4:].any()


def test_frame() -> None:
    config = SparseRSFrame(width=2, queries=1000, initial_share=1.0)
    edge = np.ones(WIDE[:2], bool)
    edge[2:-2, 2:-2] = False
    np.testing.assert_array_equal(np.asarray(sparse_rs_patches.frame(WIDE, 2))[..., 0], edge)
    assert np.asarray(sparse_rs_patches.frame(WIDE, 5)).all()
    blank = Painted(jnp.zeros(WIDE, bool), jnp.zeros(2, jnp.int32), jnp.zeros((), bool))
    begun = jax.tree.map(lambda a: a[0], FRAME(MIDDLE, config, blank, FIRST, QUERIES))
    np.testing.assert_allclose(np.asarray(begun.bits)[edge].mean(0), 0.5, atol=0.2)
    tried = FRAME(MIDDLE, config, begun, FIRST, QUERIES)
    point = np.asarray(SHOW_FRAME(MIDDLE, config, tried))
    np.testing.assert_array_equal((point != 0.5).all(-1), np.broadcast_to(edge, point.shape[:3]))
    changes = np.asarray(tried.bits != begun.bits)[1:]
    assert not changes[:, ~edge].any()
    side = np.maximum(3 * np.ceil((0.5 - QUERIES[1:] / 1000) * 4), 1)
    assert set(side) == {6, 3, 1}
    extent = spans(changes.any(-1))[:, 2:].max(1)
    assert (extent <= side).all()
    assert {3, 6} <= set(extent)
    assert (changes.any(-1).sum((1, 2))[side == 1] == 1).all()
    assert (changes.sum((1, 2, 3))[QUERIES[1:] >= 750] == 1).all()
    hit = changes[side == 1].any(-1).sum(0)
    assert (hit[edge] > 0).all()  # every pixel of the frame is drawn


@pytest.mark.parametrize("config", [SparseRSPatch(size=3, queries=300), SparseRSFrame(width=1, queries=300)])
def test_structured_answers(config: Any) -> None:
    """Found where the form allows it, in the form; patches larger than the image cover it."""
    shape, count = (5, 4, 1), 12
    net = linear(shape, 1.0, lead=3.0)
    x = np.random.default_rng(4).uniform(0.3, 0.7, (count, *shape)).astype(np.float32)
    x = x[np.asarray(net(jnp.asarray(x))).argmax(1) == 0]
    result = invjax.solve(net, x, np.zeros(len(x), int), method=config)
    found = np.asarray(result.found)
    assert found.mean() > 0.7
    changed = (np.asarray(result.delta) != 0).any(-1)[found]
    if isinstance(config, SparseRSPatch):
        assert (spans(changed)[:, 2:] == 3).all()
        assert (changed.sum((1, 2)) == 9).all()
        whole = invjax.solve(net, x, np.zeros(len(x), int), method=SparseRSPatch(size=50, queries=300))
        assert (np.asarray(whole.attempt) != x).all()
    else:
        assert (changed.sum((1, 2)) == 14).all()
        assert not changed[:, 1:-1, 1:-1].any()
    stuck = invjax.solve(linear(shape), x, np.zeros(len(x), int), method=config)
    assert (np.asarray(stuck.status) == Status.NOT_FOUND).all()
    assert (np.asarray(stuck.forwards) == 301).all()


def test_bad_input() -> None:
    net, x, label = linear((6,), 1.0), np.full((2, 6), 0.5, np.float32), np.zeros(2, int)
    for config in (SparseRS(), SparseRSPatch(), SparseRSFrame()):
        with pytest.raises(ValueError, match=r"images \[N, H, W, C\] for SparseRS"):
            invjax.solve(net, x, label, method=config)
    for bad, field in (
        (SparseRS(k=0), "k"), (SparseRS(initial_share=0.0), "initial_share"),
        (SparseRS(initial_share=1.5), "initial_share"), (SparseRS(queries=0), "queries"),
        (SparseRS(restarts=0), "restarts"), (SparseRS(loss="hinge"), "loss"), (SparseRS(unit="group"), "unit"),
        (SparseRSPatch(size=0), "size"), (SparseRSPatch(period=0), "period"), (SparseRSFrame(width=0), "width"),
        (SparseRSFrame(initial_share=0.0), "initial_share"), (SparseRSFrame(queries=0), "queries"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=rf"{type(bad).__name__}\.{field} must be"):
            invjax.solve(net, x, label, method=bad)
