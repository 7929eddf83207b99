"""Training that minds the groups: what :func:`invjax.learn.fit` is to be told for it.

Each function gives a dict of arguments of ``fit``, so that a method is what it is and no more:

    model, history = fit(net, x, y, steps=1000, key=key, **group_dro(groups))

    resample      draw i with probability 1 / (G n_g(i))                                  group labels in training
    reweight      minimise Σ_i w_i l_i with w_i = N / (G n_g(i))                                       the same
    group_dro     minimise max_q Σ_g q_g L_g (:class:`invjax.learn.GroupDRO`)                          the same
    jtt           train, then train anew with the errors of the first λ times as likely        none in training

After training come :func:`invjax.learn.dfr` and :func:`invjax.learn.afr`, which retrain the last layer alone.
"""

from __future__ import annotations

from typing import Any

import jax
import numpy as np
from flax import nnx

from invjax.core.errors import BadArgument
from invjax.learn.evaluate import predict
from invjax.learn.rules import GroupDRO, start_of
from invjax.learn.train import fit
from invjax.metrics.group import Empty

CONVENTIONS = ("released", "wilds")


def _shares(groups: Any, num_groups: int | None, empty: Empty) -> np.ndarray:
    """1 / (G n_g(i)), [N]: sums to 1, every group that is there to 1 / G."""
    present, counts = start_of(groups, num_groups, empty)
    return 1.0 / (present.sum() * counts[np.asarray(groups)])


def resample(groups: Any, num_groups: int | None = None, empty: Empty = "error") -> dict[str, Any]:
    """Groups equally likely in every batch, examples drawn with replacement.

    Args:
      groups: [N] int, of the training set.
      num_groups: G; None: the largest index plus 1. empty: what a group without examples is, "error" or "skip".
    """
    return {"sampling": _shares(groups, num_groups, empty)}


def reweight(groups: Any, num_groups: int | None = None, empty: Empty = "error") -> dict[str, Any]:
    """The loss of every group counts the same, by weights of mean 1; arguments as for :func:`resample`.

    The same objective as :func:`resample`, with steps of another noise: a rare group comes seldom, and then with force.
    """
    shares = _shares(groups, num_groups, empty)
    return {"weights": shares * len(shares)}


def group_dro(
    groups: Any,
    num_groups: int | None = None,
    *,
    eta: float = 0.01,
    adjustment: float = 0.0,
    normalise: bool = False,
    convention: str = "released",
    empty: Empty = "error",
) -> dict[str, Any]:
    """GroupDRO in one of its two conventions.

    The update of q is the same in both (see :class:`invjax.learn.GroupDRO`); what differs is how batches are drawn:

    * "released" (Sagawa et al. 2020, the code's default): each example in turn, so that a rare group is absent from
      most batches and its q hardly moves. The recipe in its README adds ``--reweight_groups``, which is "wilds".
    * "wilds" (Koh et al. 2021, where anything else is refused; also SpuCo): groups equally likely in every batch.

    Args:
      groups, num_groups, empty: as for :func:`resample`; under "skip" the missing groups have q = 0, as in WILDS.
      eta, adjustment, normalise: of the rule.
    """
    if convention not in CONVENTIONS:
        raise BadArgument("convention", f"be one of {', '.join(map(repr, CONVENTIONS))}", convention)
    start, counts = start_of(groups, num_groups, empty)
    rule = GroupDRO(start, counts.astype(np.float32), eta, adjustment, normalise)
    sampling = resample(groups, num_groups, empty) if convention == "wilds" else {}
    return {"rule": rule, "groups": np.asarray(groups), **sampling}


def errors_of(model: Any, x: Any, y: Any, *, batch: int = 256) -> np.ndarray:
    """[N] bool, where ``model`` is wrong: JTT's identification set."""
    return predict(model, x, batch=batch).argmax(1) != np.asarray(y)


def jtt(
    net: nnx.Module,
    x: Any,
    y: Any,
    *,
    upweight: float = 100.0,
    how: str = "sampling",
    key: jax.Array,
    **identification: Any,
) -> dict[str, Any]:
    """Just Train Twice (Liu et al. 2021): what the second training is to be told, after the first has been run.

        E = {i: the first network is wrong on i},       second:  λ Σ_{i in E} l_i + Σ_{i not in E} l_i

    Args:
      net: the network of the first training; the second usually starts from the same.
      upweight: λ > 0 (100 on WaterBirds).
      how: "sampling": errors are drawn λ times as often, as in the released code, which repeats them; "weights": they
        weigh λ times as much (of mean 1).
      key: of the first training. identification: its other arguments, those of ``fit``: ``epochs`` and ``optimiser``
        above all (60 epochs on WaterBirds, and a strong weight decay, so that it does not learn the rare by heart).

    Raises:
      ValueError: a wrong argument, or a first network that makes no error: then there is nothing to tell.
    """
    if not upweight > 0:
        raise BadArgument("upweight", "be positive", upweight)
    if how not in ("sampling", "weights"):
        raise BadArgument("how", 'be "sampling" or "weights"', how)
    first = fit(net, x, y, key=key, **identification).model
    wrong = errors_of(first, x, y)
    if not wrong.any():
        raise BadArgument(
            "identification", "leave errors", hint=f"its network is right on all {len(wrong)} examples: stop earlier"
        )
    factors = np.where(wrong, upweight, 1.0)
    return {how: factors if how == "sampling" else factors / factors.mean()}
