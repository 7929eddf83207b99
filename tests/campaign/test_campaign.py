"""Labels, targets and networks of a campaign, looked at before a pair is attacked."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import nets
import numpy as np
import pytest

from invjax import LogitsModel, campaign
from invjax.data import ImageData, ImageSource
from invjax.types import Bounds

pytestmark = pytest.mark.fast
TASK = nets.task(nets.linear(), count=6)


def source(labels: Any, images: np.ndarray = TASK.x) -> ImageSource:
    def read(start: int, stop: int) -> ImageData:
        return ImageData(images[start:stop], None if labels is None else labels[start:stop], Bounds(), None)

    return ImageSource(len(images), read)


def nan_where_bright(params: Any, x: Any) -> Any:
    """The task's network, NaN for images whose first pixel is above the limit."""
    flat = x.reshape(x.shape[0], -1)
    return jnp.where(flat[:, :1] > params["limit"], jnp.nan, flat @ params["w"])


def test_labels_that_are_none() -> None:
    labels_of_other_kinds = (
        (
            np.where(TASK.label == TASK.label[1], 4, 0),
            r"must lie in \[0, 4\), the classes of the network, was 4 at index ",
        ),
        (TASK.label.astype(str), "must be classes 0 … 3 as whole numbers, was '.' at index 0"),
        (TASK.label + 0.5, "must be classes 0 … 3 as whole numbers, was .* at index 0"),
        (TASK.label[:3], r"must be classes of shape \(6,\)"),
    )
    for labels, was in labels_of_other_kinds:
        with pytest.raises(ValueError, match=f"labels {was}"):
            campaign.choose(TASK.net, source(None), labels)
    with pytest.raises(ValueError, match=r"labels must lie in .*, was -1 at index 4"):
        campaign.choose(TASK.net, source(np.where(np.arange(6) == 4, -1, TASK.label)))
    assert len(campaign.choose(TASK.net, source(None), TASK.label.astype(np.uint8)).index) == 6


def test_nan_is_no_class() -> None:
    """Such images are misclassified; a network that says nothing else is refused, also where all are taken."""
    params = {"w": TASK.net.params["w"], "limit": np.sort(TASK.x[:, 0, 0, 0])[2]}
    net = LogitsModel(params, nan_where_bright)
    broken = TASK.x[:, 0, 0, 0] > params["limit"]
    np.testing.assert_array_equal(campaign.classify(net, TASK.x), np.where(broken, -1, TASK.label))
    chosen = campaign.choose(net, source(np.where(broken, 0, TASK.label)))
    np.testing.assert_array_equal(chosen.index, np.flatnonzero(~broken))
    diverged = LogitsModel(params | {"limit": np.float32(-1)}, nan_where_bright)
    for everything in (False, True):
        with pytest.raises(ValueError, match="logits must give finite logits, was NaN for each of the first 6 inputs"):
            campaign.choose(diverged, source(TASK.label), everything=everything)
    with pytest.raises(ValueError, match="images must be floating point in the data range, was uint8"):
        campaign.classify(net, (255 * TASK.x).astype(np.uint8))


def test_pairs() -> None:
    for make in (lambda label: campaign.make_pairs(label, 4), lambda label: campaign.listed_pairs(label, [1, 2], 4)):
        for label, was in (
            ([0, 4], "4 at index 1"),
            ([0, 1.5], "1.5 at index 1"),
            (np.array([0, 2**32]), "4294967296"),
        ):
            with pytest.raises(ValueError, match=f"label must .*, was {was}"):
                make(label)
    for targets, was in (([1.5, 2], "1.5 at index 0"), (["a", "b"], "'a' at index 0")):
        for pairs in (lambda t: campaign.listed_pairs([0, 0], t, 4), lambda t: campaign.make_pairs([0, 0], 4, t)):
            with pytest.raises(ValueError, match=f"targets must be .*, was {was}"):
                pairs(targets)
    assert campaign.make_pairs(np.array([3], np.uint8), 4).target.tolist() == [0, 1, 2]  # no sum wraps around
