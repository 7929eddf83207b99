"""Each term of the fixed-weight problem against its closed form, and the whole against exhaustive search."""

from __future__ import annotations

import itertools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import invjax
from invjax import Status
from invjax.counterfactuals import FixedWeights

X = np.array([[0.8, 0.2, 0.9, 0.1], [0.7, 0.1, 0.3, 0.6]], np.float32)
W = np.array([[2.0, -1.0], [-1.5, 1.0], [0.5, 0.25], [-0.5, 1.5]], np.float32)
LABEL, TARGET = np.array([0, 0]), np.array([1, 1])


class Pull(NamedTuple):
    """log q(x | k) = −½ c ‖x − m_k‖²."""

    centers: Any
    curvature: Any

    def log_prob(self, x: Any, label: Any) -> Any:
        return -0.5 * self.curvature * jnp.sum(jnp.square(x - self.centers[label]))


NET = invjax.LogitsModel({"w": W}, lambda params, x: x @ params["w"])
PULL = Pull(jnp.asarray([[0.0] * 4, [0.9, 0.8, 0.1, 0.55]], jnp.float32), jnp.float32(3.0))


def solve(config: FixedWeights, density: Any = PULL, net: Any = NET) -> invjax.Result:
    return invjax.solve(net, X, LABEL, target=TARGET, method=config, density=density, progress=False)


def objective(config: FixedWeights, x: np.ndarray, u: np.ndarray) -> np.ndarray:
    """(1) of the module at points u [..., 4], l0."""
    z = u @ W
    loss = np.logaddexp(z[..., 0], z[..., 1]) - z[..., 1]
    density = -1.5 * np.square(u - np.asarray(PULL.centers)[1]).sum(-1)
    return np.square(u - x).sum(-1) + config.gamma * loss - config.tau * density + config.beta * (u != x).sum(-1)


def test_density_alone() -> None:
    """γ = β = 0: the weighted mean of x and the center, whatever the classifier says of it."""
    tau = 0.8
    result = solve(FixedWeights(gamma=0.0, tau=tau, steps=200))
    expected = (2 * X + 3 * tau * np.asarray(PULL.centers[1])) / (2 + 3 * tau)
    np.testing.assert_allclose(result.attempt, expected, atol=1e-5)


def test_nothing_to_do() -> None:
    """All weights 0, or too expensive a change: x stays, and is not called found."""
    with pytest.warns(UserWarning, match="NO_GRADIENT"):
        idle = solve(FixedWeights(gamma=0.0))
    dear = solve(FixedWeights(gamma=1.0, tau=1.0, beta=1e3))
    for result, status in ((idle, Status.NO_GRADIENT), (dear, Status.NOT_FOUND)):
        np.testing.assert_array_equal(result.attempt, X)
        assert (np.asarray(result.status) == status).all()


@pytest.mark.parametrize("beta", [0.0, 0.02])
def test_against_exhaustive_search(beta: float) -> None:
    """Of a grid of points no one is better; with β the right coordinates stay exactly."""
    config = FixedWeights(gamma=1.5, tau=0.3, beta=beta, steps=300)
    result = solve(config)
    side = np.linspace(0, 1, 15, dtype=np.float32)
    for row, x in enumerate(X):
        axes = [np.append(side, x[i]) for i in range(4)]
        grid = np.array(list(itertools.product(*axes)), np.float32)
        best = objective(config, x, grid).min()
        assert objective(config, x, np.asarray(result.attempt)[row]) <= best + 1e-3
    stayed = (np.asarray(result.attempt) == X).any()
    assert stayed == (beta > 0)


def test_status_says_what_the_classifier_says() -> None:
    result = solve(FixedWeights(gamma=20.0, steps=100, step_size=0.02))
    assert (np.asarray(result.status) == Status.FOUND).all()
    assert (np.asarray(NET(jnp.asarray(result.x))).argmax(1) == TARGET).all()
    np.testing.assert_array_equal(result.evaluations, 101)


def test_both_losses_reach_the_class() -> None:
    """The hinge stops at the boundary, the cross-entropy goes on."""
    distance = {}
    for loss in ("hinge", "cross_entropy"):
        result = solve(FixedWeights(gamma=4.0, loss=loss, steps=300, step_size=0.02), density=None)
        distance[loss] = np.square(np.asarray(result.attempt) - X).sum(1)
    assert (distance["hinge"] < distance["cross_entropy"]).all()


def test_untargeted_density_has_the_runner_up_as_class() -> None:
    result = invjax.solve(NET, X, LABEL, method=FixedWeights(gamma=0.0, tau=0.8, steps=100), density=PULL)
    targeted = solve(FixedWeights(gamma=0.0, tau=0.8, steps=100))
    np.testing.assert_allclose(result.attempt, targeted.attempt, atol=1e-6)


@pytest.mark.parametrize("field", [{"gamma": -1.0}, {"tau": -1.0}, {"step": 0.0}, {"iterations": 0}, {"loss": "l2"}])
def test_bad_constants(field: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=f"FixedWeights.{next(iter(field))} must be"):
        solve(FixedWeights(**field))


def test_no_recompilation_over_the_weights() -> None:
    import nets

    jax.block_until_ready(solve(FixedWeights(gamma=1.0, tau=0.5, beta=0.1)).x)
    with nets.compilations() as names:
        solve(FixedWeights(gamma=2.0, tau=0.7, beta=0.2, steps=7, step_size=0.2))
    assert names == []
