"""Results: how they print, and as a table."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from invjax import Result, Status
from invjax.constraints import Feature, FeatureSpace
from invjax.core.errors import BadArgument

pytestmark = pytest.mark.fast

DELTA = np.array([[0.0, 3.0, -4.0], [0.0, 0.0, 0.0]], np.float32)


def _result(shape: tuple[int, ...] = (2,)) -> Result:
    status = np.array([Status.FOUND, Status.NOT_FOUND], np.int32)
    counts = np.array([10, 31], np.int32)
    fields = DELTA + 1, DELTA, status, counts, counts * 0, DELTA + 1
    return Result(*(field.reshape(*shape, *field.shape[1:]) for field in fields))


def test_printing_counts_instead_of_listing() -> None:
    assert repr(_result()) == "Result(x float32[2, 3]: FOUND 1, NOT_FOUND 1, 20.5 evaluations on average)"
    assert "FOUND 1" in str(jax.tree.map(jnp.asarray, _result()))
    assert repr(_result().rows(0)) == "Result(x float32[3]: FOUND 1, 10 evaluations on average)"
    assert "empty" in repr(_result().rows(slice(0, 0)))


def test_printing_inside_a_trace_and_of_trees() -> None:
    seen: list[str] = []

    @jax.jit
    def run(result: Result) -> jax.Array:
        seen.append(repr(result))
        return result.status

    run(_result())
    assert seen[0].startswith("Result(x=")
    assert "Tracer" in seen[0]
    assert (
        repr(Result(0, None, 1, 2, 3, 4)) == "Result(x=0, delta=None, status=1, evaluations=2, forwards=3, attempt=4)"
    )


def test_table() -> None:
    pytest.importorskip("pandas")
    table = _result().to_pandas()
    assert table["status"].tolist() == ["FOUND", "NOT_FOUND"]
    assert table["found"].tolist() == [True, False]
    assert table["evaluations"].tolist() == [10, 31]
    assert table["l0"].tolist() == [2, 0]
    np.testing.assert_array_equal(table[["l2", "linf"]], [[5.0, 4.0], [0.0, 0.0]])
    assert table.index.tolist() == [0, 1]
    assert len(_result().rows(0).to_pandas()) == 1
    with pytest.raises(BadArgument, match="result must have the 1 columns of the space, was 3 columns"):
        FeatureSpace([Feature("a")]).to_pandas(_result())
    several = _result((1, 2)).to_pandas()
    assert several.index.tolist() == [(0, 0), (0, 1)]
    np.testing.assert_array_equal(several["l2"], table["l2"])


def test_table_in_raw_units() -> None:
    """A category counts as one change; unchanged cells come back as they were; a set has a row per member."""
    pytest.importorskip("pandas")
    space = FeatureSpace(
        [Feature("l2", lower=0.0, upper=10.0), Feature("work", "category", levels=("no", "yes"))], scale=[3.0, 1.0]
    )
    factual = {"l2": np.array([0.1, 7.0]), "work": np.array(["no", "yes"])}
    x = space.encode(factual)
    new = np.stack([x, x + np.array([1.0, 0.0, 0.0], np.float32)], 1)  # [2, 2, 3]
    new[1, 1] = [2.0, 1.0, 0.0]
    status = np.full((2, 2), Status.FOUND, np.int32)
    result = Result(new, new - x[:, None], status, np.ones(2, np.int32), np.ones(2, np.int32), new)
    table = space.to_pandas(result, factual)
    assert table["l0"].tolist() == [0, 1, 0, 2]
    assert table["work"].tolist() == ["no", "no", "yes", "no"]
    assert table["l2 (feature)"].tolist()[::2] == [0.1, 7.0]
    np.testing.assert_allclose(table["l2 (feature)"].tolist()[1::2], [3.1, 6.0], rtol=1e-6)
    plain = space.to_pandas(result)
    np.testing.assert_allclose(plain["l2 (feature)"], table["l2 (feature)"], rtol=1e-6)
    assert "work" not in result.to_pandas()
    assert result.to_pandas()["l0"].tolist() == [0, 1, 0, 3]
