"""The figures that compare attacks: what is drawn, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest

from invjax.viz import comparison, score_curves

pytest.importorskip("matplotlib")


def test_score_curves() -> None:
    figure = score_curves({"a": [0.7, 0.6], "b": [0.5, 0.4]}, [50, 60], [0.71, 0.63], {"a": [0.6, 0.5]})
    (axis,) = figure.axes
    drawn = {line.get_label(): line.get_ydata() for line in axis.lines}
    assert set(drawn) == {"a", "b", "a (published)", "chance, √(1 - P/100)".replace("-", "−")}
    np.testing.assert_allclose(drawn["b"], [0.5, 0.4])
    with pytest.raises(ValueError, match=r"curves\['\w+'\] must be of shape \(2,\)"):
        score_curves({"a": [0.7]}, [50, 60], [0.71, 0.63])


@pytest.mark.parametrize("channels", [1, 3])
def test_comparison(channels: int) -> None:
    rng = np.random.default_rng(0)
    images = rng.random((3, 8, 8, channels), dtype=np.float32)
    change = np.zeros_like(images)
    change[:2, 2:4, 2:4] = 0.2
    figure = comparison(
        images, {"one": change, "two": change}, titles=["a", "b", "c"], maps=rng.random((3, 8, 8), dtype=np.float32)
    )
    assert len(figure.axes) == 6 * 3
    said = [text.get_text() for axis in figure.axes for text in axis.texts]
    assert said == ["not found", "not found"]
    with pytest.raises(ValueError, match="changes\\['one'\\] must be of shape"):
        comparison(images, {"one": change[:2]})
