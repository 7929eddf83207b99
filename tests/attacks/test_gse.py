"""GSE: the released form against an independent NumPy program, the published and the fast form by what they promise."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import nets
import numpy as np
import pytest
from oracles import x64
from scipy import ndimage

import invjax
from invjax import Status, losses
from invjax.attacks import GSE, GSEPublished, GSEReleased
from invjax.attacks.gse import open_pixels, step_length
from invjax.attacks.gse_released import half_weight, lambda_max
from invjax.core.errors import BadArgument

fast = pytest.mark.fast
SHAPE = (11, 10, 3)
WINDOW = 4


# ---------------------------------------------------------------------------------------------------------------------
# The released algorithm in NumPy, written from its description: float64, one image, coordinates [-1, 1].
# ---------------------------------------------------------------------------------------------------------------------
class Answer(NamedTuple):
    r: np.ndarray | None
    d20: float
    evaluations: int
    lambdas: list[float]


def _gap_and_gradient(params: dict, u: np.ndarray, label: int, target: int | None) -> tuple[float, np.ndarray]:
    """Of the tanh net at u in [-1, 1], whose inputs are [0, 1]."""
    p = {k: np.asarray(v, np.float64) for k, v in params.items()}
    hidden = np.tanh(((u + 1) / 2).reshape(-1) @ p["w1"] + p["b1"])
    z = hidden @ p["w2"] + p["b2"]
    aim = label if target is None else target
    others = np.where(np.arange(len(z)) == aim, -np.inf, z)
    sign = -1.0 if target is None else 1.0
    dz = np.zeros_like(z)
    dz[others.argmax()] += sign
    dz[aim] -= sign
    back = p["w1"] @ ((1 - hidden**2) * (p["w2"] @ dz)) / 2
    return sign * (others.max() - z[aim]), back.reshape(u.shape)


def _prox(w: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """argmin (y - w)² + weight sqrt|y|, the half-thresholding formula of Xu et al."""
    out, size = np.zeros_like(w), np.abs(w)
    on = size > 54 ** (1 / 3) / 4 * weight ** (2 / 3)
    angle = np.arccos(weight[on] / 8 * (size[on] / 3) ** -1.5)
    out[on] = 2 / 3 * w[on] * (1 + np.cos(2 * np.pi / 3 - 2 / 3 * angle))
    return out


def _first_zero(g: np.ndarray, sigma: float) -> float:
    """The released search: doubling from 0.001, then 50 bisections."""

    def moves(lam: float) -> bool:
        return bool(_prox(sigma * g, np.full_like(g, lam * sigma)).any())

    low, high = 0.0, 0.001
    while moves(high):
        low, high = high, 2 * high
    for _ in range(50):
        middle = (low + high) / 2
        low, high = (middle, high) if moves(middle) else (low, middle)
    return high


def _windows(mask: np.ndarray) -> int:
    rows, columns = (n - WINDOW + 1 for n in mask.shape)
    return sum(bool(mask[a : a + WINDOW, b : b + WINDOW].any()) for a in range(rows) for b in range(columns))


def released(params: dict, x: np.ndarray, label: int, target: int | None, c: dict[str, Any]) -> Answer:
    u = 2 * x.astype(np.float64) - 1
    gap, g0 = _gap_and_gradient(params, u, label, target)
    lam, low, high = c["initial_weight"] * _first_zero(g0, c["step_size"]), 0.0, np.inf
    taps = np.exp(-(np.arange(-2, 3) ** 2) / (2 * 1.5**2))
    taps /= taps.sum()
    best, best_d20, evaluations, lambdas = None, np.inf, 1, []
    for trial in range(c["trials"]):
        lambdas.append(lam)
        sigma = c["step_size"] * (10 if trial >= c["trials"] - 2 and best is None else 1)
        r, old, beta, grad, won = np.zeros_like(u), np.zeros_like(u), 1.0, g0, False
        weights = np.full(u.shape[:2], lam)
        for k in range(c["steps"]):
            total = grad + 2 * c["l2_weight"] * r
            after = (1 + np.sqrt(1 + 4 * beta**2)) / 2
            closed = weights > lam
            if k == c["phase_one_steps"]:  # the gradient is not taken anew
                r = np.where(closed[..., None], 0, r)
                old = r
            v = r - sigma * total
            if k < c["phase_one_steps"]:
                new = _prox(v, np.repeat((weights * sigma)[..., None], u.shape[2], axis=2))
            else:
                new = np.where(closed[..., None], 0, v)
            r, old = beta / after * new + (1 - beta / after) * old, new
            if k < c["phase_one_steps"]:
                m = (np.abs(r).sum(-1) > 0).astype(float)
                for axis in (0, 1):
                    m = ndimage.correlate1d(m, taps, axis=axis, mode="mirror")
                weights = weights / np.where(m > 0, m + 1, c["far_divisor"])
            r, beta = np.clip(u + r, -1, 1) - u, after
            gap, slope = _gap_and_gradient(params, u + r, label, target)
            grad = slope if gap > 0 else np.zeros_like(slope)
            evaluations += 1
            if gap < 0:
                won = True
                break
        if won:
            d20 = _windows((r != 0).any(-1))
            if d20 < best_d20:
                best, best_d20 = r, d20
            low, lam = lam, 2 * lam if np.isinf(high) else (high + lam) / 2
        else:
            high, lam = lam, 0.9 * low + 0.1 * lam
    return Answer(best, best_d20, evaluations, lambdas)


CONSTANTS = {
    "l2_weight": 0.02, "step_size": 0.2, "phase_one_steps": 8, "steps": 40, "trials": 7, "far_divisor": 0.25,
    "initial_weight": 0.01,
}  # fmt: skip


def _local_net() -> invjax.LogitsModel:
    """A tanh net that looks at two spots of the image only, so that few windows suffice."""
    net = nets.mlp(SHAPE, seed=3)
    rows, columns = np.mgrid[: SHAPE[0], : SHAPE[1]]
    spots = sum(np.exp(-((rows - a) ** 2 + (columns - b) ** 2) / 3) for a, b in ((2, 2), (8, 6)))
    w1 = net.params["w1"].reshape(*SHAPE, -1) * np.asarray(3 * spots, np.float32)[..., None, None]
    return invjax.LogitsModel({**net.params, "w1": w1.reshape(net.params["w1"].shape)}, net.apply)


@pytest.mark.parametrize("targeted", [True, False])
def test_released_is_the_released_algorithm(targeted: bool) -> None:
    """Same λ searched, same early exits (hence counts), same point, in float64."""
    net = _local_net()
    with x64():
        task = nets.task(net, SHAPE, count=8, dtype=np.float64)
        model = invjax.LogitsModel({k: np.asarray(v, np.float64) for k, v in net.params.items()}, net.apply)
        target = task.target if targeted else None
        config = GSEReleased(window=WINDOW, **CONSTANTS)
        result = invjax.solve(model, task.x, task.label, target=target, method=config, progress=False)
    answers = [
        released(net.params, x, int(label), int(t) if targeted else None, CONSTANTS)
        for x, label, t in zip(task.x, task.label, task.target, strict=True)
    ]
    assert {len(set(answer.lambdas)) for answer in answers} != {1}
    found = [answer.r is not None for answer in answers]
    assert sum(found) >= 4
    np.testing.assert_array_equal(result.status == Status.FOUND, found)
    np.testing.assert_array_equal(result.evaluations, [answer.evaluations for answer in answers])
    limit = 1 + CONSTANTS["trials"] * CONSTANTS["steps"]
    assert np.asarray(result.evaluations).min() < limit  # some trial ended early
    for delta, answer in zip(np.asarray(result.delta), answers, strict=True):
        np.testing.assert_allclose(2 * delta, 0 if answer.r is None else answer.r, atol=1e-9)
        if answer.r is not None:
            assert _windows((delta != 0).any(-1)) == answer.d20


@fast
@pytest.mark.parametrize("sigma", [0.005, 0.05])
def test_lambda_max_in_closed_form(sigma: float) -> None:
    g = np.random.default_rng(0).normal(size=(6, 5, 3))
    with x64():
        closed = float(lambda_max(GSEReleased(), jnp.asarray(g), jnp.asarray(sigma)))
        other = float(lambda_max(GSEPublished(), jnp.asarray(g), jnp.asarray(sigma)))
    np.testing.assert_allclose(closed, _first_zero(g, sigma), rtol=1e-7)
    np.testing.assert_allclose(closed, 1.0887 * np.sqrt(sigma) * np.abs(g).max() ** 1.5, rtol=1e-4)
    np.testing.assert_allclose(other, closed / 2, rtol=1e-12)  # its prox has the whole λσ where the code has half
    assert half_weight(GSEPublished(), jnp.ones(()), jnp.ones(())) == 1


def test_published_refines_to_the_end_of_each_trial() -> None:
    task = nets.task(_local_net(), SHAPE, count=8)
    common = {"steps": 40, "phase_one_steps": 8, "trials": 3, "step_size": 0.1, "l2_weight": 0.02}
    result = invjax.solve(
        task.net, task.x, task.label, target=task.target, method=GSEPublished(**common), progress=False
    )
    # No early exit: the clean input, then every iteration of every trial.
    np.testing.assert_array_equal(result.evaluations, 1 + common["steps"] * common["trials"])
    assert result.found.any()
    gap = jax.vmap(losses.gap)(task.net(jnp.asarray(result.x)), jnp.asarray(task.label), jnp.asarray(task.target))
    assert (np.asarray(gap)[np.asarray(result.found)] < 0).all()
    # Phase II of one trial only ever replaces its point by a shorter one.
    norms = []
    for steps in (20, 40):
        config = GSEPublished(**{**common, "steps": steps, "trials": 1})
        r = invjax.solve(task.net, task.x, task.label, target=task.target, method=config, progress=False)
        norms.append(np.where(r.found, np.linalg.norm(np.asarray(r.delta).reshape(8, -1), axis=1), np.inf))
    assert np.isfinite(norms[0]).any()
    assert (norms[1] <= norms[0]).all()


# ---------------------------------------------------------------------------------------------------------------------
# fast
# ---------------------------------------------------------------------------------------------------------------------
@fast
def test_open_pixels() -> None:
    rng = np.random.default_rng(0)
    potential, opened = rng.exponential(size=(9, 12)), rng.random((9, 12)) < 0.3
    config = GSE(keep=0.7, blur=5, blur_sigma=1.2)
    taps = np.exp(-(np.arange(-2, 3) ** 2) / (2 * 1.2**2))
    score = potential * (1 + 0.7 * opened)
    for axis in (0, 1):
        score = ndimage.correlate1d(score, taps / taps.sum(), axis=axis, mode="mirror")
    order = np.sort(score.ravel())[::-1]
    run = jax.jit(open_pixels)
    for n in (0.3, 1.0, 7.4, 60.0, 108.0, 500.0):
        mine = np.asarray(run(potential.astype(np.float32), opened, jnp.float32(n), config))
        count = int(np.clip(np.floor(n), 1, potential.size))
        np.testing.assert_array_equal(mine, score >= order[count - 1] * (1 - 1e-6), err_msg=str(n))
    nowhere = potential.copy()
    nowhere[:, :4] = 0  # masked pixels are not opened, however good their neighbours are
    assert not np.asarray(run(nowhere.astype(np.float32), opened, jnp.float32(108), config))[:, :4].any()
    assert not np.asarray(run(jnp.zeros((9, 12)), opened, jnp.float32(5), config)).any()


@fast
def test_step_length() -> None:
    """Exact without the box; with it the Newton steps close most of what the box takes; never beyond the cap."""
    rng = np.random.default_rng(0)
    g, r, base = (jnp.asarray(rng.normal(size=(5, 4, 3)), jnp.float32) for _ in range(3))
    far = (jnp.full_like(g, -1e6), jnp.full_like(g, 1e6))
    big = jnp.float32(1e6)

    def model(t: Any, room: Any) -> float:
        return float(jnp.sum(g * (jnp.clip(base - t * g, *room) - r)))

    goal = jnp.float32(model(0, far) - 3)
    np.testing.assert_allclose(model(step_length(g, r, goal, base, g, far, big), far), goal, rtol=1e-4)
    assert step_length(g, r, goal + 10, base, g, far, big) == 0  # nothing to do
    assert step_length(g, r, goal, base, g, far, jnp.float32(1e-3)) == np.float32(1e-3)
    assert step_length(g, r, goal, base, jnp.zeros_like(g), far, big) == 0
    near = (jnp.full_like(g, -1.0), jnp.full_like(g, 1.0))
    goal = jnp.float32(model(0, near) - 8)
    one = jnp.clip(8 / jnp.sum(g * g), 0, big)  # as if there were no box
    two = step_length(g, r, goal, base, g, near, big)
    assert abs(model(two, near) - goal) < 0.5 * abs(model(one, near) - goal)
    # What stands at a side and moves inwards is free; what moves outwards offers nothing.
    sides = (jnp.where(g > 0, -5.0, 0.0), jnp.where(g > 0, 0.0, 5.0))
    zero, goal = jnp.zeros_like(g), jnp.float32(-1)
    inwards = step_length(g, zero, goal, zero, g, sides, big)
    np.testing.assert_allclose(inwards, 1 / jnp.sum(g * g), rtol=1e-5)
    assert step_length(g, zero, goal, zero, g, (-sides[1], -sides[0]), big) == 0


FAST = {"steps": 40, "window": WINDOW, "blur": 5, "blur_sigma": 1.2}


@fast
def test_fast_on_a_small_net() -> None:
    task = nets.task(nets.conv(SHAPE), SHAPE, count=16)
    result = invjax.solve(task.net, task.x, task.label, target=task.target, method=GSE(**FAST), progress=False)
    assert (np.asarray(result.status) == Status.FOUND).all()
    # The clean input, the failures before the first success, and then 40 from that on.
    assert (np.asarray(result.evaluations) > 40).all()
    assert (np.asarray(result.evaluations) < 40 + 20).all()
    np.testing.assert_array_equal(result.forwards, 0)
    gap = jax.vmap(losses.gap)(task.net(jnp.asarray(result.x)), jnp.asarray(task.label), jnp.asarray(task.target))
    assert (np.asarray(gap) < 0).all()
    changed = (np.asarray(result.delta) != 0).any(-1)
    assert changed.sum((1, 2)).mean() < 0.25 * changed[0].size * 0.8  # well below what was open at first
    # Groups: fewer connected pieces than the same number of pixels strewn at random has.
    strewn = np.random.default_rng(0).permuted(changed.reshape(16, -1), axis=1).reshape(changed.shape)
    pieces = [np.mean([ndimage.label(mask)[1] for mask in masks]) for masks in (changed, strewn)]
    assert pieces[0] < 0.5 * pieces[1]


def test_fast_keeps_fewer_windows_for_more_iterations_and_respects_a_mask() -> None:
    task = nets.task(nets.conv(SHAPE), SHAPE, count=16)
    mask = np.ones(SHAPE, bool)
    mask[:, :4] = False

    def windows(**constants: Any) -> tuple[np.ndarray, invjax.Result]:
        method = GSE(**{**FAST, **constants})
        result = invjax.solve(
            task.net, task.x, task.label, target=task.target, method=method, mask=mask, progress=False
        )
        return np.array([_windows((d != 0).any(-1)) for d in np.asarray(result.delta)]), result

    (few, short), (many, long) = windows(steps=10), windows(steps=60)
    both = np.asarray(short.found & long.found)
    assert both.sum() >= 8
    assert many[both].mean() < few[both].mean()
    assert not np.asarray(long.delta)[..., :4, :].any()


def test_fast_goes_on_until_the_first_success() -> None:
    """An example has ``steps`` from its first success on, and patience x steps in all."""
    task = nets.task(nets.conv(SHAPE), SHAPE, count=16)
    counts = {}
    for patience in (1, 30):
        config = GSE(**{**FAST, "steps": 8, "patience": patience, "initial_share": 0.02})
        result = invjax.solve(task.net, task.x, task.label, target=task.target, method=config, progress=False)
        counts[patience] = np.asarray(result.evaluations)
    assert np.asarray(result.found).all()
    np.testing.assert_array_equal(counts[1], 8)
    assert counts[30].min() > 8
    assert counts[30].max() < 240


@fast
@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("steps", 0),
        ("initial_share", 0.0),
        ("memory", 1.5),
        ("decay", 1.0),
        ("step_size", 0.0),
        ("blur", 4),
        ("regrow", -1.0),
    ],
)
def test_constants_of_fast_are_checked(name: str, value: float) -> None:
    task = nets.task(nets.conv(), count=1)
    with pytest.raises(ValueError, match=f"GSE.{name} must be "):
        invjax.solve(task.net, task.x, task.label, target=task.target, method=GSE(**{name: value}))


@fast
def test_a_variant_is_a_class() -> None:
    for variant, name in (("released", "GSEReleased"), ("published", "GSEPublished"), ("fast", "GSE")):
        with pytest.raises(BadArgument, match=rf"GSE.variant must be chosen by class, {name}\(\), was '{variant}'"):
            GSE(variant)  # type: ignore[arg-type]
    with pytest.raises(BadArgument, match=r"GSE.variant must .* the class GSEReleased or GSEPublished"):
        GSE(variant="published")  # type: ignore[call-arg]
    with pytest.raises(BadArgument, match=r"GSEReleased.k_hat must be given by its new name, phase_one_steps"):
        GSEReleased(k_hat=3)  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="phase_one_steps"):
        GSE(phase_one_steps=3)  # type: ignore[call-arg]


# ---------------------------------------------------------------------------------------------------------------------
# Real images and the authors' network
# ---------------------------------------------------------------------------------------------------------------------
def _golden(data_dir: Path, rows: list[int]) -> tuple[Any, ...]:
    from invjax.models import load

    weights, pictures = data_dir / "weights/resnet20_cifar10_gse.safetensors", data_dir / "cifar10/test_first_1000.npz"
    golden = data_dir / "golden/gse_released_targeted_24x9.npz"
    for file in (weights, pictures, golden):
        if not file.is_file():
            pytest.skip(f"no {file.name} in the data folder")
    model = load("resnet20", weights)
    stored, record = np.load(pictures), np.load(golden)
    image, offset = np.divmod(np.array(rows), 9)
    index = record["image_index"][image]
    x, label = stored["images"][index].astype(np.float32) / 255, stored["labels"][index].astype(np.int32)
    return model, x, label, (label + offset + 1) % 10, {k: record[k][offset, image] for k in ("d20", "acp", "l2")}


def test_released_reproduces_the_authors_run(data_dir: Path) -> None:
    """Four (image, target) pairs of the recorded run of the authors' code, among the quickest."""
    model, x, label, target, golden = _golden(data_dir, [20, 142, 183, 187])
    result = invjax.solve(model, x, label, target=target, method=GSEReleased(), progress=False)
    delta = np.asarray(result.delta)
    changed = (delta != 0).any(-1)
    assert result.found.all()
    np.testing.assert_array_equal(jax.vmap(invjax.core.windows.window_count)(jnp.asarray(changed)), golden["d20"])
    np.testing.assert_array_equal(changed.sum((1, 2)), golden["acp"])
    np.testing.assert_allclose(2 * np.linalg.norm(delta.reshape(4, -1), axis=1), golden["l2"], rtol=1e-3)


def test_fast_has_the_released_quality(data_dir: Path) -> None:
    """Twelve pairs of the recorded run, every 18th: fewer windows and pixels for a ninth of the gradients."""
    model, x, label, target, golden = _golden(data_dir, list(range(4, 216, 18)))
    result = invjax.solve(model, x, label, target=target, method=GSE(), progress=False)
    delta = np.asarray(result.delta)
    changed = (delta != 0).any(-1)
    assert result.found.all()
    assert np.asarray(result.evaluations).mean() < 70
    windows = np.asarray(jax.vmap(invjax.core.windows.window_count)(jnp.asarray(changed)))
    assert windows.mean() < golden["d20"].mean()
    assert changed.sum((1, 2)).mean() < golden["acp"].mean()
    assert 2 * np.linalg.norm(delta.reshape(len(x), -1), axis=1).mean() < 1.1 * golden["l2"].mean()
