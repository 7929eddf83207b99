"""A network in two halves, between which class activation maps are read.

    logits(x) = head(features(x)),      features: [B, *S] -> [B, h, w, F],   head: [B, h, w, F] -> [B, K]        (1)

A head may need more than the plane: then ``features`` gives a pair, [B, h, w, F] and the rest, and ``head`` takes it.
The maps are of the plane (a :class:`~invjax.models.ViT` gives its patches, and its tokens as the rest).

Your own model takes part if it has the two methods of (1), be it an ``nnx.Module`` or any other callable pytree. Any
other model enters as ``Split(params, features, head)``.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import jax

from invjax.core.arguments import kinds_checked
from invjax.core.errors import BadArgument, Words
from invjax.core.logits import as_logits
from invjax.core.shown import short_repr
from invjax.types import Array


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, eq=False)
class Split:
    """A classifier in the halves of (1), as a pytree. It is itself a classifier, so every attack takes it.

    Args:
      params: a pytree of arrays, the weights of both halves.
      features_apply: ``(params, x [B, *S] in the data range) -> [B, h, w, F]``, or a pair of it and the rest.
      head_apply: ``(params, features) -> logits [B, K]``. Both functions are static, part of the key under which
        compiled programs are kept. So define them once; they must be hashable.

    Raises:
      ValueError: a function is not callable or not hashable.
    """

    params: Any
    features_apply: Any = dataclasses.field(metadata={"static": True})
    head_apply: Any = dataclasses.field(metadata={"static": True})

    __repr__ = short_repr

    def __post_init__(self) -> None:
        for name in ("features_apply", "head_apply"):
            value = getattr(self, name)
            if not callable(value) or type(value).__hash__ is None:
                raise BadArgument(name, "be a hashable function (params, array) -> array", value)

    def features(self, x: Array) -> Any:
        """[B, *S] -> [B, h, w, F], or a pair of it and what else the head needs."""
        return self.features_apply(self.params, x)

    def head(self, features: Any) -> Array:
        """What :meth:`features` gives -> [B, K]."""
        return self.head_apply(self.params, features)

    def __call__(self, x: Array) -> Array:
        """Logits of a batch: [B, *S] -> [B, K]."""
        return self.head(self.features(x))


@kinds_checked
def split(model: Any) -> Split:
    """The halves of a model whose class has methods ``features`` and ``head``.

    model: an ``nnx.Module`` (of which a copy in evaluation mode is made, as by :func:`invjax.models.as_logits`), the
    result of ``as_logits`` or ``load``, with or without a normalisation, or a callable pytree. A :class:`Split` is
    returned as it is.

    Models of one architecture give equal tree structures, so new weights compile nothing.
    Raises ValueError if the model has no such methods.
    """
    if isinstance(model, Split):
        return model
    logits = as_logits(model)
    divide = getattr(logits.apply, "split", None)
    halves = divide(logits.params) if divide else None
    if halves is None:
        raise BadArgument(
            "model",
            "have methods features(x) -> [B, h, w, F] and head(features) -> logits [B, K]",
            Words(f"a {type(model).__name__} without them"),
            hint="any other model enters as Split(params, features, head)",
        )
    return Split(logits.params, *halves)
