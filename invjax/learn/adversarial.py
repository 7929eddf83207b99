"""Adversarial training (Madry et al. 2018) in an l2 or linf ball, and accuracy under an attack in such a ball.

    min_w  E max_{‖r‖_p <= ε, x + r in the box}  l(f_w(x + r), y)

The inner maximum is approximated inside the compiled step by projected gradient ascent from a random point of the ball,
with a fixed number of steps of length ``ratio · ε / steps``. No example stops early, unlike in the attack
:class:`invjax.attacks.PGD`, which only needs a wrong answer. The length 2.5 ε / steps and the 7 steps are those of
Engstrom et al. 2019 (robustness), who also run the network in evaluation mode here.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable
from dataclasses import field
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from invjax.attacks.pgd import BALLS, PGD, direction, random_in_ball
from invjax.core.arguments import kinds_checked
from invjax.core.balls import Norm, within_ball
from invjax.core.config import STATIC, config, require, require_above, require_at_least
from invjax.core.errors import check_key, check_number, check_whole
from invjax.core.shown import short_repr
from invjax.engine import solve
from invjax.learn.evaluate import judged
from invjax.learn.step import scaled
from invjax.learn.train import Trained, fit
from invjax.losses import log_odds
from invjax.metrics.group import wilson_interval
from invjax.models import as_logits
from invjax.types import UNTARGETED, Array, Bounds, Status


@config
class Adversary:
    """The inner maximum, for ``fit(…, adversary=Adversary(eps=0.5))``. Its numbers are traced: a sweep compiles once.

    Fields:
      eps: radius ε >= 0, data units. At 0 training is plain training at the cost of adversarial training.
      steps: steps of ascent, >= 1.
      ratio: > 0; a step has the length ``ratio · ε / steps``.
      lower, upper: the box of the data.
      norm: "l2" or "linf"; static.
      random_start: begin at a random point of the ball; static.
    """

    eps: float = 0.5
    steps: int = 7
    ratio: float = 2.5
    lower: float = 0.0
    upper: float = 1.0
    norm: Norm = field(default="l2", metadata=STATIC)
    random_start: bool = field(default=True, metadata=STATIC)

    def check(self) -> None:
        require_at_least(self, 0, "eps")
        require_at_least(self, 1, "steps")
        require_above(self, 0, "ratio")
        require(self, "upper", lambda v: v > self.lower, f"above lower, {self.lower!r}")

    def __call__(self, logits: Callable[[Array], Array], x: Array, y: Array, key: Array) -> Array:
        """The moved inputs [B, *S]; each depends on its own row alone. x [B, *S], y [B]."""
        # The direction of the cross-entropy's gradient, without its saturation: sure examples are attacked, too.
        rise = jax.grad(lambda point: -jnp.sum(jax.vmap(log_odds, (0, 0, None))(logits(point), y, UNTARGETED)))
        eps, length = jnp.asarray(self.eps, x.dtype), jnp.asarray(self.ratio * self.eps / self.steps, x.dtype)

        def inside(point: Array) -> Array:
            ball = x + jax.vmap(lambda r: BALLS[self.norm](r, eps))(point - x)
            ball = jax.vmap(lambda x, point: within_ball(x, point, eps, self.norm))(x, ball)
            return jnp.clip(ball, self.lower, self.upper).astype(x.dtype)

        def climb(_: Any, point: Array) -> Array:
            return inside(point + length * jax.vmap(lambda g: direction(g, self.norm))(rise(point)))

        start = x
        if self.random_start:
            keys = jax.random.split(check_key(key), x.shape[0])
            start = inside(jax.vmap(lambda key, row: random_in_ball(key, row, eps, self.norm))(keys, x))
        return jax.lax.fori_loop(0, self.steps, climb, start)


class RobustAccuracy(NamedTuple):
    """Accuracy on clean inputs and under attack."""

    clean: float  # accuracy on x itself
    robust: float  # share that is right and stays right under the attack
    low: float  # Wilson interval of ``robust``
    high: float
    right: np.ndarray  # [N] bool, right under the attack

    __repr__ = short_repr


@kinds_checked
def robust_accuracy(
    model: Any,
    x: Any,
    y: Any,
    *,
    eps: float,
    norm: Norm = "l2",
    steps: int = 20,
    restarts: int = 1,
    ratio: float = 2.5,
    bounds: Bounds | tuple[Any, Any] = (0.0, 1.0),
    key: Array | None = None,
    lanes: int | Literal["auto"] = "auto",
    confidence: float = 0.95,
) -> RobustAccuracy:
    """The share of x [N, *S] that is classified as y [N] and stays so under untargeted PGD of radius ``eps``.

    Like every attack, it gives an upper bound of the true robust accuracy. steps, restarts, ratio: of the attack, whose
    steps have length ``ratio · eps / steps``. Its first start is random if a key is given; further ones always are.
    An example whose logits hold NaN is not right, and one at which the attack met NaN (``Status.NONFINITE``) is not
    robust: neither was judged.
    """
    check_whole("steps", steps)
    check_number("eps", eps, lambda radius: radius >= 0, "a radius >= 0")
    said, labels = judged(model, x, y)
    right = said == labels
    stays = right.copy()
    if eps > 0 and right.any():
        rows = np.flatnonzero(right)
        attack = PGD(
            eps=eps,
            step_size=ratio * eps / steps,
            steps=steps,
            restarts=restarts,
            norm=norm,
            random_start=key is not None,
        )
        inputs = np.asarray(scaled(jnp.asarray(np.asarray(x[rows]))))
        result = solve(
            as_logits(model), inputs, labels[rows], method=attack, bounds=Bounds(*bounds),
            key=key, lanes=lanes, progress=False,
        )  # fmt: skip
        stays[rows] = ~np.isin(np.asarray(result.status), (Status.FOUND, Status.NONFINITE))
    low, high = wilson_interval(stays.sum(), len(stays), confidence)
    return RobustAccuracy(float(right.mean()), float(stays.mean()), float(low), float(high), stays)


def train_at(
    make: Callable[[], nnx.Module],
    x: Any,
    y: Any,
    *,
    eps: Iterable[float],
    adversary: Adversary | None = None,
    **fitted: Any,
) -> dict[float, Trained]:
    """One network per radius, ``fit(make(), x, y, adversary=… with this eps, …)``; the step is compiled once.

    Args:
      make: gives the fresh network, the same one every time if only the radius is to differ.
      eps: radii, data units. Radius 0 trains without an adversary.
      adversary: its other numbers; None takes the defaults.
      fitted: the other arguments of :func:`invjax.learn.fit`.
    """
    form = Adversary() if adversary is None else adversary
    return {
        radius: fit(make(), x, y, adversary=dataclasses.replace(form, eps=radius) if radius else None, **fitted)
        for radius in map(float, eps)
    }
