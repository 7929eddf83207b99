"""Group-robust training: each method is a dict of arguments for :func:`invjax.learn.fit`.

    model, history = fit(net, x, y, steps=1000, key=key, **group_dro(groups))

    resample      draw i with probability 1 / (G n_g(i))                                  group labels in training
    reweight      minimise Σ_i w_i l_i with w_i = N / (G n_g(i))                                       the same
    group_dro     minimise max_q Σ_g q_g L_g (:class:`invjax.learn.GroupDRO`)                          the same
    jtt           train, then train anew with the first network's errors λ times as likely     none in training

:func:`invjax.learn.dfr` and :func:`invjax.learn.afr` follow a training and retrain the last layer alone.
"""

from __future__ import annotations

from typing import Any, Literal, get_args

import jax
import numpy as np
from flax import nnx

from invjax.core.arguments import kinds_checked
from invjax.core.errors import BadArgument, Words, check_choice, check_number
from invjax.core.labels import NO_CLASS
from invjax.learn.evaluate import judged
from invjax.learn.rules import GroupDRO, start_of
from invjax.learn.train import fit
from invjax.metrics.group import Empty

Convention = Literal["released", "wilds"]
How = Literal["sampling", "weights"]


def _shares(groups: Any, num_groups: int | None, empty: Empty) -> np.ndarray:
    """1 / (G n_g(i)), [N]: the sum over each group that has examples is 1 / G."""
    present, counts = start_of(groups, num_groups, empty)
    return 1.0 / (present.sum() * counts[np.asarray(groups, np.int64)])


@kinds_checked
def resample(groups: Any, num_groups: int | None = None, empty: Empty = "error") -> dict[str, Any]:
    """Draw examples with replacement, every group equally likely in every batch.

    Args:
      groups: [N] int, of the training set.
      num_groups: G; None takes the largest index plus 1.
      empty: whether a group without examples is an "error" or to "skip".
    """
    return {"sampling": _shares(groups, num_groups, empty)}


@kinds_checked
def reweight(groups: Any, num_groups: int | None = None, empty: Empty = "error") -> dict[str, Any]:
    """Weigh the losses, with mean 1, so that every group counts the same; arguments as for :func:`resample`.

    The objective is that of :func:`resample`, but the noise of the steps differs: a rare group appears seldom, and then
    with a large weight.
    """
    shares = _shares(groups, num_groups, empty)
    return {"weights": shares * len(shares)}


@kinds_checked
def group_dro(
    groups: Any,
    num_groups: int | None = None,
    *,
    eta: float = 0.01,
    adjustment: float = 0.0,
    normalise: bool = False,
    convention: Convention = "released",
    empty: Empty = "error",
) -> dict[str, Any]:
    """GroupDRO in one of its two conventions.

    The update of q is the same in both (see :class:`invjax.learn.GroupDRO`); the batches are drawn differently:

    * "released" (Sagawa et al. 2020, the default of its code): each example in turn, so that a rare group is absent
      from most batches and its q hardly moves. The recipe in its README adds ``--reweight_groups``, which is "wilds".
    * "wilds" (Koh et al. 2021, which refuses anything else; also SpuCo): groups equally likely in every batch.

    Args:
      groups, num_groups, empty: as for :func:`resample`; under "skip" the missing groups have q = 0, as in WILDS.
      eta, adjustment, normalise: constants of the rule.
      convention: "released" or "wilds".
    """
    check_choice("convention", convention, get_args(Convention))
    for name, value in (("eta", eta), ("adjustment", adjustment)):
        check_number(name, value, lambda v: v >= 0, "a number >= 0")
    start, counts = start_of(groups, num_groups, empty)
    rule = GroupDRO(start, counts.astype(np.float32), eta, adjustment, normalise)
    sampling = resample(groups, num_groups, empty) if convention == "wilds" else {}
    return {"rule": rule, "groups": np.asarray(groups, np.int64), **sampling}


@kinds_checked
def errors_of(model: Any, x: Any, y: Any, *, batch: int = 256) -> np.ndarray:
    """[N] bool, True where ``model`` is wrong: JTT's identification set. Logits that hold NaN are wrong."""
    said, labels = judged(model, x, y, batch=batch)
    return said != labels


@kinds_checked
def jtt(
    net: nnx.Module,
    x: Any,
    y: Any,
    *,
    upweight: float = 100.0,
    how: How = "sampling",
    key: jax.Array,
    **identification: Any,
) -> dict[str, Any]:
    """Just Train Twice (Liu et al. 2021): run the first training and return the arguments of the second.

        E = {i: the first network is wrong on i},       second:  λ Σ_{i in E} l_i + Σ_{i not in E} l_i

    Args:
      net: the network of the first training; the second usually starts from the same.
      upweight: λ > 0 (100 on WaterBirds).
      how: "sampling" draws errors λ times as often, like the released code, which repeats them; "weights" gives them λ
        times the weight (with mean 1).
      key: of the first training.
      identification: the other arguments of the first training, those of ``fit``, above all ``epochs`` and
        ``optimiser`` (60 epochs on WaterBirds with a strong weight decay, so that rare examples are not memorised).

    Raises:
      ValueError: a wrong argument, or a first network that diverged, or that makes no error, so that there is nothing
        to upweight.
    """
    check_number("upweight", upweight, lambda value: value > 0, "a number > 0")
    check_choice("how", how, get_args(How))
    first = fit(net, x, y, key=key, **identification).model
    said, labels = judged(first, x, y)
    if (said == NO_CLASS).any():
        was = Words(f"NaN for {(said == NO_CLASS).sum()} of {len(said)} examples")
        raise BadArgument("identification", "train a network with finite logits", was, hint="a smaller rate may help")
    wrong = said != labels
    if not wrong.any():
        was = Words(f"right on all {len(wrong)} examples")
        raise BadArgument("identification", "leave errors", was, hint="stop it earlier")
    factors = np.where(wrong, upweight, 1.0)
    return {how: factors if how == "sampling" else factors / factors.mean()}
