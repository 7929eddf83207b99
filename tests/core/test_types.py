"""Results: how they print, and as a table."""

from __future__ import annotations

import dataclasses
from typing import Any

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
    assert repr(_result()[0]) == "Result(x float32[3]: FOUND 1, 10 evaluations on average)"
    assert "empty" in repr(_result()[:0])


def test_a_list_of_examples() -> None:
    result = _result()
    assert len(result) == 2
    np.testing.assert_array_equal(result[1].delta, result.delta[1])
    np.testing.assert_array_equal(result[-1].x, result.x[1])
    np.testing.assert_array_equal(result[result.found].status, [Status.FOUND])
    assert [int(one.evaluations) for one in result] == [10, 31]
    assert len(jax.tree.map(jnp.asarray, result)[:1]) == 1
    pairs = _result((2, 1))
    assert pairs[:, 0].x.shape == (2, 3)
    assert pairs[1, 0].x.shape == (3,)


@pytest.mark.parametrize("as_array", [np.asarray, jnp.asarray])
def test_what_is_no_example(as_array: Any) -> None:
    result = jax.tree.map(as_array, _result())
    for index in (2, -3):
        with pytest.raises(IndexError, match=f"no example {index}: the result holds 2"):
            result[index]
    with pytest.raises(TypeError, match=r"write result\.x"):
        result["x"]
    for ask in (len, lambda one: one[0], list):
        with pytest.raises(TypeError, match="a single example has no"):
            ask(result[0])


def test_it_is_a_pytree_and_no_tuple() -> None:
    result = _result()
    assert len(jax.tree.leaves(result)) == 6
    assert not isinstance(result, tuple)
    for name in ("index", "count", "_replace"):
        assert not hasattr(result, name)
    with pytest.raises(dataclasses.FrozenInstanceError):
        result.status = 1  # type: ignore[misc]
    np.testing.assert_array_equal(dataclasses.replace(result, forwards=7).x, result.x)
    assert jax.jit(lambda one: one[0].status)(result) == Status.FOUND


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
    assert len(_result()[0].to_pandas()) == 1
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


def test_a_table_in_a_notebook() -> None:
    page = _result()._repr_html_()
    assert "x float32[2, 3]" in page
    assert "<td>FOUND</td><td>1</td><td>2</td><td>5</td><td>10</td>" in page
    assert "<td>NOT_FOUND</td><td>1</td><td>0</td><td>0</td><td>31</td>" in page
    assert "FOUND" in _result()[0]._repr_html_()
    assert "&lt;" in Result("<b>", None, 1, 2, 3, 4)._repr_html_()
    sets = Result(np.ones((2, 2, 3)), np.ones((2, 2, 3)), np.ones((2, 2), int), np.array([4, 6]), np.zeros(2), None)
    assert "<td>FOUND</td><td>4</td><td>3</td><td>1.732</td><td>5</td>" in sets._repr_html_()
