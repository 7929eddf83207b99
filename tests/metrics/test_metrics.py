"""Attack metrics against hand values, scipy, flood fill, brute force and the golden numbers."""

from __future__ import annotations

from pathlib import Path

import jax
import numpy as np
import pytest
from scipy import ndimage, signal

from invjax import metrics
from invjax.core import windows as images
from invjax.types import Status

pytestmark = pytest.mark.fast


@pytest.fixture(scope="module")
def deltas() -> np.ndarray:
    """[30, 12, 15, 3], from empty to half full, signs mixed so that channel sums often cancel."""
    generator = np.random.default_rng(0)
    mask = generator.random((30, 12, 15)) < np.linspace(0, 0.5, 30)[:, None, None]
    r = generator.choice([-0.5, 0.0, 0.5], (30, 12, 15, 3)) * mask[..., None]
    return r.astype(np.float32)


def flood_fill_count(flags: np.ndarray, diagonal: bool) -> int:
    steps = [(a, b) for a in (-1, 0, 1) for b in (-1, 0, 1) if (a, b) != (0, 0) and (diagonal or a == 0 or b == 0)]
    left = {(int(i), int(j)) for i, j in np.argwhere(flags)}
    count = 0
    while left:
        count += 1
        stack = [left.pop()]
        while stack:
            i, j = stack.pop()
            for a, b in steps:
                if (i + a, j + b) in left:
                    left.remove((i + a, j + b))
                    stack.append((i + a, j + b))
    return count


def test_changed_pixels(deltas: np.ndarray) -> None:
    counts = metrics.changed_pixels(deltas)
    assert counts.dtype == np.int64
    expected = [sum(any(deltas[n, i, j]) for i in range(12) for j in range(15)) for n in range(30)]
    np.testing.assert_array_equal(counts, expected)
    assert metrics.changed_pixels(np.array([[[0.1, 0.0], [-0.3, 0.0]]]), atol=0.1) == 1  # strictly more than atol
    assert metrics.changed_pixels(np.array([[[np.nan, 0.0]]])) == 1
    assert metrics.changed_pixels(deltas.reshape(5, 6, 12, 15, 3)).shape == (5, 6)


@pytest.mark.parametrize("connectivity", [4, 8])
def test_clusters_equal_flood_fill(deltas: np.ndarray, connectivity: int) -> None:
    counts = metrics.num_clusters(deltas, connectivity)
    np.testing.assert_array_equal(counts, [flood_fill_count(d.any(-1), connectivity == 8) for d in deltas])
    assert counts.max() > 3


def test_clusters_hand_values() -> None:
    r = np.zeros((5, 5, 1))
    r[0, 0] = r[1, 1] = r[4, 4] = 1  # a diagonal pair and a single pixel
    assert metrics.num_clusters(r) == 3
    assert metrics.num_clusters(r, connectivity=8) == 2
    assert metrics.num_clusters(np.zeros((5, 5, 1))) == 0
    assert metrics.num_clusters(np.ones((5, 5, 2))) == 1
    assert metrics.num_clusters(np.stack([r, r])[None]).shape == (1, 2)


def test_l2_units(deltas: np.ndarray) -> None:
    flat = np.linalg.norm(deltas.reshape(30, -1).astype(np.float64), axis=1)
    np.testing.assert_allclose(metrics.l2(deltas), flat, rtol=1e-12)
    np.testing.assert_allclose(metrics.l2(deltas, "model"), 2 * flat, rtol=1e-12)
    np.testing.assert_allclose(metrics.l2(deltas, "model", (-1, 1)), flat, rtol=1e-12)
    np.testing.assert_allclose(metrics.l2(deltas * 255, "model", (0, 255)), 2 * flat, rtol=1e-6)
    per_channel = (np.zeros(3), np.array([1.0, 2.0, 4.0]))
    np.testing.assert_allclose(metrics.l2(np.ones((1, 1, 3)), "model", per_channel), np.sqrt(4 + 1 + 0.25))
    assert metrics.l2(np.ones((2, 2, 3), np.float16) * 200) == pytest.approx(200 * np.sqrt(12))  # no overflow
    assert metrics.l2(np.full((1, 1, 3), 200, np.uint8)) == pytest.approx(200 * np.sqrt(3))  # no wrap-around


@pytest.mark.parametrize("window", [1, 3, 8, 12, 13, 40])
def test_d20_equals_convolution_and_the_compiled_form(deltas: np.ndarray, window: int) -> None:
    counts = metrics.d20(deltas, window)
    kernel = np.ones((min(window, 12), min(window, 15)))
    expected = [(signal.convolve2d(d.any(-1).astype(int), kernel, "valid") > 0).sum() for d in deltas]
    np.testing.assert_array_equal(counts, expected)
    compiled = jax.jit(jax.vmap(lambda r: images.window_count(images.changed(r), window)))
    np.testing.assert_array_equal(counts, compiled(deltas))


def test_d20_hand_values() -> None:
    def one(rows: slice, columns: slice, size: float = 1e-6) -> int:
        r = np.zeros((32, 32, 3))
        r[rows, columns, 1] = size
        return int(metrics.d20(r))

    assert one(slice(0, 1), slice(31, 32)) == 1
    assert one(slice(15, 16), slice(15, 16)) == 64
    assert one(slice(14, 17), slice(14, 17)) == 100
    assert one(slice(0, 32), slice(0, 32)) == 625
    assert one(slice(0, 0), slice(0, 0)) == 0


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: metrics.num_clusters(np.zeros((2, 2, 1)), 6), "connectivity must be 4 or 8, was 6"),
        (lambda: metrics.l2(np.zeros((2, 2, 1)), "pixel"), "unit must be"),  # pyright: ignore[reportArgumentType]
        (lambda: metrics.l2(np.zeros((2, 2, 1)), "model", (1, 1)), "bounds must be"),
        (lambda: metrics.d20(np.zeros((2, 2, 1)), 0), "window must be"),
        (lambda: metrics.changed_pixels(np.zeros((2, 2))), r"delta must be images \[..., H, W, C\]"),
        (lambda: metrics.changed_pixels(np.zeros((2, 2, 1)), -1), "atol must be"),
        (
            lambda: metrics.measure(np.zeros((2, 4, 4, 1)), np.zeros(3)),
            r"delta must be .*, was \(2, 4, 4, 1\)",
        ),
        (lambda: metrics.best_average_worst(np.ones(3), {}), "success must be"),
        (lambda: metrics.best_average_worst(np.ones((3, 2)), {"acp": np.ones(3)}), r"measures\['acp'\] must"),
        (lambda: metrics.best_average_worst(np.ones((3, 2)), {}, already=np.ones(3)), "already must"),
        (lambda: metrics.best_average_worst(np.ones((3, 2)), {}, convention="x"), "convention must"),
    ],
)
def test_bad_arguments_are_named(call, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()


SUCCESS = np.array([[1, 1, 1], [1, 0, 1], [0, 0, 0]], bool)
ACP = np.array([[3, 1, 2], [5, 90, 7], [0, 0, 0]])  # a failed iterate (90), and an image handed back unchanged (0)


def test_best_average_worst_by_hand() -> None:
    table = metrics.best_average_worst(SUCCESS, {"acp": ACP})
    assert table["asr"] == pytest.approx({"best": 2 / 3, "average": 5 / 9, "worst": 1 / 3})
    assert table["acp"] == pytest.approx({"best": (1 + 5) / 2, "average": 108 / 9, "worst": 3.0})
    only = metrics.best_average_worst(SUCCESS, {"acp": ACP}, convention="successes_only")
    assert only["acp"] == pytest.approx({"best": 3.0, "average": 18 / 5, "worst": 3.0})
    assert only["asr"] == table["asr"]


def test_each_measure_has_its_own_best_target() -> None:
    table = metrics.best_average_worst([[True, True]], {"acp": [[1, 2]], "l2": [[4.0, 3.0]]})
    assert table["acp"]["best"] == 1
    assert table["l2"]["best"] == 3


def test_already_target_is_neither_success_nor_failure() -> None:
    already = np.array([[0, 0, 1], [0, 1, 0], [1, 1, 1]], bool)
    table = metrics.best_average_worst(SUCCESS & ~already, {"acp": ACP}, already=already)
    assert table["asr"] == {"best": 1.0, "average": 1.0, "worst": 1.0}
    assert table["acp"] == pytest.approx({"best": (1 + 5) / 2, "average": (3 + 1 + 5 + 7) / 4, "worst": (3 + 7) / 2})


@pytest.mark.parametrize("convention", ["all_attempts", "successes_only"])
def test_means_over_nothing_are_nan(convention) -> None:
    failed = metrics.best_average_worst(np.zeros((2, 2)), {"acp": np.full((2, 2), 4)}, convention=convention)
    assert failed["asr"] == {"best": 0.0, "average": 0.0, "worst": 0.0}
    assert np.isnan(failed["acp"]["best"])
    assert np.isnan(failed["acp"]["worst"])
    assert np.isnan(failed["acp"]["average"]) == (convention == "successes_only")
    for shape in [(0, 9), (3, 0)]:
        empty = metrics.best_average_worst(np.zeros(shape), {"acp": np.zeros(shape)}, convention=convention)
        assert all(np.isnan(v) for row in empty.values() for v in row.values())


def test_an_attempt_without_a_number_does_not_hide_the_others() -> None:
    nan = float("nan")
    won = np.array([[True, True], [True, False], [False, False]])
    cost = {"l2": np.array([[1.0, nan], [4.0, nan], [nan, 10.0]])}
    table = metrics.best_average_worst(won, cost)["l2"]
    assert (table["best"], table["average"]) == (2.5, 5.0)
    assert np.isnan(table["worst"])  # the only image whose every target was reached has a cost that is not known
    assert metrics.best_average_worst(won, cost, convention="successes_only")["l2"]["average"] == 2.5
    delta = np.zeros((2, 4, 4, 1))
    delta[0, 0, 0], delta[1] = 0.5, nan
    summary = metrics.summarize(metrics.measure(delta, [Status.FOUND, Status.NONFINITE]))
    assert summary["all_attempts"]["l2"]["average"] == 1.0  # in the units of [-1, 1]
    assert (summary["attempts"], summary["failed"], summary["undefined"]) == (2, 1, 1)


def test_against_a_plain_loop() -> None:
    generator = np.random.default_rng(5)
    won, values = generator.random((50, 4)) < 0.8, generator.random((50, 4))
    table = metrics.best_average_worst(won, {"l2": values})
    best = [
        min(v for v, ok in zip(row, oks, strict=True) if ok) for row, oks in zip(values, won, strict=True) if any(oks)
    ]
    worst = [max(row) for row, oks in zip(values, won, strict=True) if all(oks)]
    assert table["l2"]["best"] == pytest.approx(sum(best) / len(best))
    assert table["l2"]["worst"] == pytest.approx(sum(worst) / len(worst))
    assert 0 < len(worst) < 50


def test_measure_and_summarize(deltas: np.ndarray) -> None:
    status = np.full((10, 3), Status.FOUND)
    status[0, 0] = Status.NOT_FOUND  # its delta is empty
    status[1, 1] = Status.ALREADY_TARGET
    status[2, 2] = Status.NONFINITE
    attempts = metrics.measure(deltas.reshape(10, 3, 12, 15, 3), status, window=4, connectivity=8)
    np.testing.assert_array_equal(attempts.acp.ravel(), metrics.changed_pixels(deltas))
    np.testing.assert_array_equal(attempts.anc.ravel(), metrics.num_clusters(deltas, 8))
    np.testing.assert_allclose(attempts.l2.ravel(), metrics.l2(deltas, "model"))
    np.testing.assert_array_equal(attempts.d20.ravel(), metrics.d20(deltas, 4))
    summary = metrics.summarize(attempts)
    assert (summary["attempts"], summary["failed"], summary["already_target"]) == (29, 2, 1)
    assert summary["all_attempts"]["asr"]["average"] == pytest.approx(27 / 29)
    assert set(summary["successes_only"]) == {"asr", "acp", "anc", "l2", "d20"}
    single = metrics.measure(deltas, np.full(30, Status.FOUND))
    assert single.success.shape == (30, 1)
    table = metrics.summarize(single)["all_attempts"]["acp"]
    assert table["best"] == table["average"] == table["worst"]


def test_golden_numbers_reproduce_the_recorded_table(data_dir: Path) -> None:
    """The stored per-attempt numbers of the released GSE, summed up our way, give the harness's own summary."""
    golden = np.load(data_dir / "golden" / "gse_released_targeted_24x9.npz")
    table = metrics.best_average_worst(golden["success"].T, {k: golden[k].T for k in ("acp", "anc", "l2", "d20")})
    recorded = {
        "acp": (33.4, 100.3, 170.7, 0.05),
        "anc": (1.17, 2.06, 3.92, 0.005),
        "l2": (0.686, 1.180, 1.661, 0.0005),
        "d20": (142.0, 288.0, 411.6, 0.05),
    }
    assert table["asr"] == {"best": 1.0, "average": 1.0, "worst": 1.0}
    for name, (best, average, worst, rounding) in recorded.items():
        found = [table[name][case] for case in ("best", "average", "worst")]
        np.testing.assert_allclose(found, (best, average, worst), atol=1.01 * rounding, err_msg=name)


def test_golden_failures_enter_as_they_were_returned(data_dir: Path) -> None:
    golden = np.load(data_dir / "golden" / "fwnucl_released_targeted_24x1.npz")
    table = metrics.best_average_worst(golden["success"].T, {k: golden[k].T for k in ("acp", "anc", "l2", "d20")})
    assert table["asr"]["average"] == 0.75
    found = [table[name]["average"] for name in ("acp", "anc", "l2", "d20")]
    np.testing.assert_allclose(found, [384.3, 3.08, 2.54, 575.4], rtol=2e-3)
    only = metrics.best_average_worst(golden["success"].T, {"acp": golden["acp"].T}, convention="successes_only")
    assert only["acp"]["average"] != pytest.approx(table["acp"]["average"])


def test_table_text() -> None:
    ours = metrics.best_average_worst(SUCCESS, {"acp": ACP, "d20": ACP * 100})
    read = {"asr": {"best": 1.0, "average": 0.858, "worst": 0.0}, "acp": {"best": 29.6, "average": 12014}}
    text = metrics.attack_table({"GSE": ours}, published={"GSE": read})
    assert [line.split() for line in text.splitlines()] == [
        ["attack", "ASR", "%", "ACP", "d2,0"],
        ["-" * len(text.splitlines()[1])],
        ["best"],
        ["GSE", "66.7", "3.0", "300.0"],
        ["GSE", "(published)", "100.0", "29.6", "–"],
        ["average"],
        ["GSE", "55.6", "12.0", "1200"],
        ["GSE", "(published)", "85.8", "12014", "–"],
        ["worst"],
        ["GSE", "33.3", "3.0", "300.0"],
        ["GSE", "(published)", "0.0", "–", "–"],
    ]
    assert len({len(line) for line in text.splitlines() if "." in line}) == 1  # aligned
    assert metrics.attack_rows({"GSE": ours}, cases=("average",)) == [
        {"case": "average", "attack": "GSE", "ASR %": "55.6", "ACP": "12.0", "d2,0": "1200"}
    ]
    assert metrics.attack_table({}) == "(no attacks)"


def test_scipy_label_is_the_oracle_for_whole_lists(deltas: np.ndarray) -> None:
    for connectivity, structure in [(4, None), (8, np.ones((3, 3)))]:
        expected = [ndimage.label(np.abs(d).sum(-1) > 0, structure)[1] for d in deltas]
        np.testing.assert_array_equal(metrics.num_clusters(deltas, connectivity), expected)


def test_statuses_and_successes_are_looked_at(deltas: np.ndarray) -> None:
    """Text compares as a failure with every status, and "False" is true."""
    for bad, was in ((["FOUND"] * len(deltas), "'FOUND' at index 0"), (np.full(len(deltas), 99), "99 at index 0")):
        with pytest.raises(ValueError, match=f"status must hold statuses .*, was {was}"):
            metrics.measure(deltas, bad)
    for name in ("success", "already"):
        flags: dict = {"success": [[True, False]], "already": [[False, False]], name: [["True", "False"]]}
        with pytest.raises(ValueError, match=rf"{name} must be bool, or 0 and 1, was 'True' at index \(0, 0\)"):
            metrics.best_average_worst(flags["success"], {}, already=flags["already"])
    ones = metrics.best_average_worst([[1, 0]], {})  # numbers that mean it stay fine
    assert ones["asr"]["average"] == 0.5
    assert metrics.changed_pixels(np.full((1, 1, 1), -128, np.int8)) == 1  # it has no absolute value in 8 bits
