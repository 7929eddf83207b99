"""No proof that is false: columns of any range, ties, bounds that cross, solvers that are wrong, and limits of time."""

from __future__ import annotations

import itertools
import time

import numpy as np
import pytest

from invjax.counterfactuals.milp import certify, exact_counterfactual, mip_counterfactuals, program
from invjax.counterfactuals.milp.network import Layers, margin, pre_activations
from invjax.counterfactuals.milp.program import Program, Solution
from invjax.types import Status


def network(sizes: tuple[int, ...], seed: int) -> Layers:
    """Random layers, the last one centered, so that all classes occur in [0, 1]^D."""
    draw = np.random.default_rng(seed)
    layers = [(draw.normal(size=(a, b)), draw.normal(size=b) / 4) for a, b in itertools.pairwise(sizes)]
    logits = pre_activations(layers, draw.random((500, sizes[0])))[-1]
    return [*layers[:-1], (layers[-1][0], layers[-1][1] - logits.mean(0))]


def moved(layers: Layers, center: np.ndarray, scale: np.ndarray) -> Layers:
    """The same network of x · scale + center."""
    (weight, bias), *rest = layers
    return [(weight / scale[:, None], bias - (center / scale) @ weight), *rest]


@pytest.mark.parametrize("objective", ["mad_l1", "l0", "linf"])
@pytest.mark.parametrize(
    ("center", "scale"),
    [((0, 0), (1e9, 1)), ((0, 0), (1e-9, 1)), ((0, 0), (1e12, 1e-6)), ((1.6e9, -3), (1e4, 2e4))],
    ids=["wide", "narrow", "both", "time stamp"],
)
def test_units_of_the_columns_change_no_proof(objective: str, center: tuple, scale: tuple) -> None:
    """HiGHS sets coefficients up to 1e-9 to 0: 1 of 3 such networks was "infeasible", or "optimal" too dear."""
    base, unit = np.array(center, float), np.array(scale, float)
    mad = {"objective": objective, "mad": unit} if objective == "mad_l1" else {"objective": objective}
    for seed in range(3):
        layers, x = network((2, 6, 2), seed), np.random.default_rng(seed).random(2)
        target = int(margin(layers, x, 0, 1) <= 0)
        plain = exact_counterfactual(layers, x, target, **{**mad, "mad": np.ones(2)} if "mad" in mad else mad)
        there = moved(layers, base, unit)
        answer = exact_counterfactual(there, x * unit + base, target, bounds=(base, base + unit), **mad)
        assert answer.status == plain.status
        if plain.status == "optimal":
            assert margin(there, answer.x, 1 - target, target) >= 0.05
            if objective != "linf":  # which adds up columns of other units
                assert answer.objective == pytest.approx(plain.objective, abs=2e-5)
                assert answer.bound == pytest.approx(plain.bound, abs=2e-5)


def test_a_small_weight_of_a_wide_column() -> None:
    one = exact_counterfactual([(np.array([[0, 2e-10]]), np.array([0.0, -1]))], [1e9], 1, bounds=(0.0, 1e10))
    assert one.status == "optimal"
    np.testing.assert_allclose(one.x, 5.25e9, rtol=1e-6)


def test_what_the_solver_would_drop_is_refused() -> None:
    weight = np.full((1301, 1), 9e-10)
    weight[0] = 1.0
    with pytest.raises(ValueError, match=r"model must have neurons.*rescale the columns"):
        exact_counterfactual([(weight, np.array([-0.5]))], np.zeros(1301), 1)
    weight[2:] = 0.0  # so little is the solver's own tolerance
    assert exact_counterfactual([(weight, np.array([-0.5]))], np.zeros(1301), 1).status == "optimal"


@pytest.mark.parametrize("method", ["mip", "polytopes"])
def test_a_tie_is_no_win(method: str) -> None:
    """With κ = 0 the nearest point lies on the boundary, where the class of the lower index wins."""
    flat = [(np.array([[1.0]]), np.zeros(1)), (np.array([[0.0, 1.0]]), np.array([0.5, 0.0]))]  # logits (0.5, x)
    for layers in (flat, network((6, 12, 3), 1), network((6, 12, 3), 2)):
        narrow = [(weight.astype(np.float32), bias.astype(np.float32)) for weight, bias in layers]
        x = np.random.default_rng(0).random((3, len(layers[0][0]))).astype(np.float32) * (0.4 if layers is flat else 1)

        def classes(rows: np.ndarray, narrow: list = narrow) -> np.ndarray:
            (a, b), (c, d) = narrow
            return (np.maximum(rows @ a + b, 0) @ c + d).argmax(1)

        label = classes(x)
        target = (label + 1) % layers[-1][0].shape[1]
        result = mip_counterfactuals(narrow, x, label, target, kappa=0.0, method=method, references=1 - x)
        found = result.status == Status.FOUND
        assert found.any() or method == "polytopes"
        np.testing.assert_array_equal(classes(result.x)[found], target[found])
    # The certificate of an answer on the boundary says that it is none, and that one a little further is.
    proof = certify(flat, [[0.2], [0.2]], [0, 0], [1, 1], np.array([[0.5], [0.5 + 1e-6]]), kappa=0.0, norm="l1")
    assert proof.status.tolist() == ["gap", "optimal"]
    assert np.isinf(proof.found[0])


@pytest.mark.fast
def test_bounds_that_cross_prove_nothing() -> None:
    layers, x = network((2, 4, 2), 0), np.full((1, 2), 0.5, np.float32)
    for bounds in ((1.0, 0.0), ([0, 0.6], [1, 0.4])):
        with pytest.raises(ValueError, match="bounds must have lower <= upper"):
            exact_counterfactual(layers, x[0], 1, bounds=bounds)
        with pytest.raises(ValueError, match="bounds must have lower <= upper"):
            mip_counterfactuals(layers, x, [0], bounds=bounds)
        with pytest.raises(ValueError, match="bounds must have lower <= upper"):
            certify(layers, x, [0], [1], x, bounds=bounds)


def test_a_solver_that_is_wrong_proves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its word is checked on the network: a point below the bound refutes it."""
    layers, x = network((3, 8, 2), 3), np.array([0.4, 0.5, 0.6])
    target = int(margin(layers, x, 0, 1) <= 0)
    honest = exact_counterfactual(layers, x, target, objective="linf")
    assert honest.status == "optimal"
    for kind, bound in (("infeasible", np.inf), ("error", -np.inf)):
        solution = Solution(kind, None, np.inf, bound)
        monkeypatch.setattr(Program, "solve", lambda *_, solution=solution, **__: solution)
        wrong = exact_counterfactual(layers, x, target, objective="linf")
        assert wrong.status == "feasible"  # one of the points that were drawn, and no bound
        assert (wrong.bound, kind) == (0.0, kind)
        assert honest.objective <= wrong.objective < np.inf
        assert margin(layers, wrong.x, 1 - target, target) >= 0.05
    # Nothing was found, and no proof was given.
    assert exact_counterfactual(layers, x, target, kappa=50.0).status == "unproven"
    result = mip_counterfactuals(layers, x[None], [1 - target], kappa=50.0)
    assert result.status.tolist() == [Status.NOT_FOUND]


def test_all_programs_share_the_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each program takes .2 s of a clock: of one second there are five, and what SPARE allows to finish an answer."""
    now, calls, solver, clock = [0.0], [], program.milp, time.monotonic

    def milp(*args: object, **options: object) -> object:
        now[0] += 0.2
        calls.append(options["options"]["time_limit"])  # type: ignore[index]
        return solver(*args, **options)

    monkeypatch.setattr(program, "milp", milp)
    monkeypatch.setattr(time, "monotonic", lambda: clock() + now[0])
    layers, x = network((4, 24, 24, 2), 0), np.full(4, 0.5)
    target = int(margin(layers, x, 0, 1) <= 0)
    for tighten in ("lp", "milp"):
        calls.clear()
        answer = exact_counterfactual(layers, x, target, time_limit=1.0, tighten=tighten)
        assert 0 < len(calls) <= 9  # 50 and more, had the bounds of the neurons no limit
        assert max(calls) <= 1.0
        assert answer.seconds < 2.5
