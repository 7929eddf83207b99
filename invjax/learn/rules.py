"""Rules: how the losses of a batch become one number.

    objective = Σ_i c_i l_i,        (c, state) = rule.weigh(state, l, g, w)

with the losses l [B], the groups g [B] and the weights w [B] of the examples. No gradient flows through the
coefficients. A rule is a pytree of its numbers with pure functions, like every argument of a compiled step.
"""

from __future__ import annotations

from dataclasses import field
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from invjax.core.config import STATIC, config, require, require_at_least
from invjax.core.errors import BadArgument, Words, check_choice
from invjax.core.labels import check_indices
from invjax.core.numerics import safe_divide
from invjax.metrics.group import EMPTY, group_counts
from invjax.types import Array, ArrayLike


class Rule(Protocol):
    """The protocol of a rule; the head of this module has the formula.

    It may also have ``check()``, and ``check_groups(groups [N])``, which raise BadArgument: :func:`invjax.learn.fit`
    calls them before the first step.
    """

    def init(self) -> Any:
        """The state before the first step: a pytree of arrays."""
        ...

    def weigh(self, state: Any, losses: Array, groups: Array, weights: Array) -> tuple[Array, Any]:
        """(c [B], state). losses [B] carry no gradient here, groups [B] int32, weights [B]."""
        ...

    def report(self, state: Any) -> dict[str, Array]:
        """The part of the state that belongs in the history: arrays by name."""
        ...


@config
class ERM:
    """The mean: ``c_i = w_i / B``."""

    def init(self) -> Any:
        return ()

    def weigh(self, state: Any, losses: Array, groups: Array, weights: Array) -> tuple[Array, Any]:
        del groups
        return weights / losses.shape[0], state

    def report(self, state: Any) -> dict[str, Array]:
        del state
        return {}


@config
class GroupDRO:
    """Group distributionally robust optimisation (Sagawa et al. 2020, algorithm 1): the loss of a mixture of groups
    whose weights q grow where the loss is high.

        L_g = Σ_{i in g} w_i l_i / Σ_{i in g} w_i  (0 if the batch has none of g)
        q_g ← q_g exp(η (L_g + C / sqrt(n_g))),  q ← q / Σ q,        objective = Σ_g q_g L_g

    Fields:
      start: [G] q before the first step, >= 0. A group that starts at 0 stays at 0.
      counts: [G] n_g, training examples of each group; used only if C > 0.
      eta: step size η >= 0 (0.01 in the released code).
      adjustment: C >= 0, the generalisation adjustment.
      normalise: divide ``L_g + C / sqrt(n_g)`` by its sum before the exponential, an option of the released code;
        static.

    The update is the same in the released code, in WILDS (Koh et al. 2021), SpuCo and SubpopBench: multiplying by
    exp(η 0) leaves a group without examples unchanged, and a common factor of the first q cancels. They differ in the
    batches that feed it; see :func:`invjax.learn.group_dro`. One deliberate departure: in the released code C acts
    only if it is positive for all groups, and in place, so that the reported losses include it.
    """

    start: ArrayLike
    counts: ArrayLike
    eta: float = 0.01
    adjustment: float = 0.0
    normalise: bool = field(default=False, metadata=STATIC)

    def check(self) -> None:
        require_at_least(self, 0, "eta", "adjustment")
        require(self, "start", lambda v: np.ndim(v) == 1 and np.min(v) >= 0 < np.sum(v), "weights [G] >= 0, not all 0")
        require(self, "counts", lambda v: np.shape(v) == np.shape(self.start), "one number per group")

    def check_groups(self, groups: np.ndarray) -> None:
        """Raise BadArgument about ``groups`` [N] where one is beyond the table, which has no weight for it."""
        check_indices("groups", groups, len(groups), len(np.asarray(self.start)), what="groups", of="the rule")

    def init(self) -> Array:
        start = jnp.asarray(self.start, jnp.float32)
        return jnp.log(start / start.sum())

    def weigh(self, state: Array, losses: Array, groups: Array, weights: Array) -> tuple[Array, Array]:
        member = (groups[:, None] == jnp.arange(state.shape[0])).astype(losses.dtype) * weights[:, None]  # [B, G]
        mass = member.sum(0)
        group_loss = safe_divide(losses @ member, mass)
        counts = jnp.asarray(self.counts, losses.dtype)
        driven = group_loss + jnp.where(counts > 0, self.adjustment / jnp.sqrt(jnp.maximum(counts, 1)), 0.0)
        if self.normalise:
            driven = safe_divide(driven, driven.sum())
        state = jax.nn.log_softmax(state + self.eta * driven.astype(state.dtype))
        share = safe_divide(jnp.exp(state).astype(losses.dtype), mass)
        return weights * share.at[groups].get(mode="fill", fill_value=jnp.nan), state  # NaN beyond the table

    def report(self, state: Array) -> dict[str, Array]:
        return {"group_weights": jnp.exp(state)}


def start_of(groups: Any, num_groups: int | None, empty: str) -> tuple[np.ndarray, np.ndarray]:
    """(1 for each group with training examples, else 0; number of examples of each group), both [G].

    Raises ValueError if a group has no example, unless ``empty`` is "skip".
    """
    check_choice("empty", empty, EMPTY)
    counts = group_counts(groups, num_groups)
    if empty == "error" and not (counts.size and counts.all()):
        none = Words(f"without any of {np.flatnonzero(counts == 0).tolist()}")
        raise BadArgument("groups", f"have training examples of each of the {len(counts)} groups", none)
    return (counts > 0).astype(np.float32), counts
