"""What the public signatures say to a reader, an editor and a checker of types."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, get_args

import pytest

from invjax import attacks, counterfactuals, losses, penalties
from invjax.attacks import forward_backward, pgd, sparse_rs
from invjax.core import balls
from invjax.counterfactuals import fixed
from invjax.counterfactuals.milp import lof
from invjax.data.grouped import load as groups
from invjax.data.grouped import spuco
from invjax.data.images import fashion_mnist
from invjax.data.tables import load as tables
from invjax.learn import presets
from invjax.learn.study import tasks
from invjax.models import efficientnet_lite, registry, resnet

pytestmark = pytest.mark.fast

# A set of names is a ``Literal``; what goes with each name, where something does, is a mapping with just these keys.
NAMES: list[tuple[Any, Collection[str]]] = [
    (attacks.AttackName, attacks.REGISTRY),
    (balls.Norm, pgd.BALLS),
    (balls.Norm, pgd.DEFAULT_EPS),
    (counterfactuals.MethodName, counterfactuals.REGISTRY),
    (efficientnet_lite.EfficientNetName, efficientnet_lite.SIZES),
    (fashion_mnist.Split, fashion_mnist._FILES),
    (fixed.Loss, fixed.LOSSES),
    (groups.GroupsName, groups.LOADERS),
    (lof.Metric, lof.METRICS),
    (losses.Loss, losses.LOSSES),
    (penalties.PenaltyName, penalties.ELEMENTWISE),
    (presets.Data, presets.KUMANO_EPS),
    (presets.PresetName, presets.PRESETS),
    (registry.ModelName, registry.REGISTRY),
    (resnet.ResNetName, resnet.SIZES),
    (sparse_rs.Loss, sparse_rs.LOSSES),
    (spuco.Which, spuco._PARTS),
    (tables.TableName, tables.LOADERS),
    (tasks.TaskName, {name.partition("/")[0] for name in tasks._PROTOCOLS}),
]


@pytest.mark.parametrize(("literal", "known"), NAMES, ids=lambda value: None)
def test_names_and_what_goes_with_them(literal: Any, known: Collection[str]) -> None:
    assert sorted(get_args(literal)) == sorted(known)


def test_a_penalty_with_a_power_has_a_name() -> None:
    field = forward_backward.ForwardBackward.__dataclass_fields__["penalty"]
    from invjax.core.config import names_of

    assert names_of(forward_backward.ForwardBackward, field) == tuple(forward_backward._PENALTIES)
