"""Labels, groups, statuses and flags at the door, and the class that a row of scores names."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np
import pytest

from invjax.core.errors import BadArgument
from invjax.core.labels import check_flags, check_indices, check_status, classes_of, count_classes
from invjax.types import Status

pytestmark = pytest.mark.fast
NAN, INF = np.nan, np.inf


@pytest.mark.parametrize(
    "good",
    [[0, 2, 1], np.array([0, 2, 1], np.uint8), np.array([0.0, 2, 1]), np.array([0, 2, 1], object), [0, 2.0, 1]],
)  # fmt: skip
def test_whole_numbers_are_labels(good: Any) -> None:
    got = check_indices("y", good, 3, 3)
    assert got.dtype == np.int32
    np.testing.assert_array_equal(got, [0, 2, 1])


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (["0", "2", "1"], r"y must be classes 0 … 2 as whole numbers, was '0' at index 0"),
        ([0, "cat", 1], r"y must be classes 0 … 2 as whole numbers, was 'cat' at index 1"),
        (np.array([0, "cat", 1], object), r"y must be classes 0 … 2 as whole numbers, was 'cat' at index 1"),
        (np.array([0, None, 1], object), r"y must be classes 0 … 2 as whole numbers, was None at index 1"),
        ([1, 2, 3], r"y must lie in \[0, 3\), the classes of .*, was 3 at index 2; the first .* is 0: subtract 1"),
        ([0, -1, 2], r"y must lie in \[0, 3\), the classes of the model, was -1 at index 1$"),
        ([0, 0.7, 2], r"y must be classes 0 … 2 as whole numbers, was 0.7 at index 1"),
        ([0.5, 1.5, 2.5], r"y must be classes 0 … 2 as whole numbers, was 0.5 at index 0"),
        ([0, NAN, 2], r"y must be classes 0 … 2 as whole numbers, was nan at index 1"),
        ([0, 1, 2**32 + 1], r"y must lie in \[0, 3\), .*, was 4294967297 at index 2"),
        ([0, 1, 2**70], r"y must be classes 0 … 2 as whole numbers, was 1180591620717411303424 at index 2"),
        (np.array([0, 1, 2**64 - 1], np.uint64), r"y must lie in \[0, 3\), .*, was 18446744073709551615 at index 2"),
        (np.array([0, 1, 2], "datetime64[D]"), "y must be classes 0 … 2 as whole numbers, was .*1970.* at index 0"),
        ([0, 1], r"y must be classes of shape \(3,\), one per example, was of shape \(2,\)"),
        (np.eye(3, dtype=int), r"y must be classes of shape \(3,\), one per example, was of shape \(3, 3\)"),
        ([[0], [1, 2], [3]], "y must be an array of classes, was a list"),
    ],
)  # fmt: skip
def test_what_is_no_label_is_named_with_its_row(bad: Any, message: str) -> None:
    with pytest.raises(BadArgument, match=message):
        check_indices("y", bad, 3, 3)


def test_without_a_number_of_classes_nothing_wraps() -> None:
    np.testing.assert_array_equal(check_indices("g", [7, 2**31 - 1], None, what="groups"), [7, 2**31 - 1])
    for bad in (2**31, 2**32 + 1, -1):
        with pytest.raises(
            BadArgument, match=f"g must be group indices 0, 1, … as whole numbers, was {bad} at index 1"
        ):
            check_indices("g", [0, bad], 2, what="groups")
    assert count_classes("y", np.array([0, 4])) == 5
    with pytest.raises(BadArgument, match=r"y must be classes 0 … K-1, below 1000 for 2 examples, was 1000 at index 1"):
        count_classes("y", np.array([0, 1000]))


def test_statuses_and_flags() -> None:
    np.testing.assert_array_equal(check_status("status", [Status.FOUND, Status.NOT_FOUND]), [1, 2])
    np.testing.assert_array_equal(check_flags("success", [[0, 1.0], [1, 0]]), [[False, True], [True, False]])
    for bad in (["FOUND", "NOT_FOUND"], [1, 99], [1, 0.5], [1, -1]):
        with pytest.raises(BadArgument, match=r"status must hold statuses .* at index"):
            check_status("status", bad)
    for bad in (["True", "False"], [0, 2], [0, NAN]):
        with pytest.raises(BadArgument, match=r"success must be bool, or 0 and 1, was .* at index"):
            check_flags("success", bad)


def test_nan_is_no_class() -> None:
    scores = np.array(
        [[0, 2, 1], [NAN, 2, 1], [0, NAN, 1], [NAN] * 3, [-INF] * 3, [-INF, 0, -INF], [0, INF, 1]], np.float32
    )
    expected = [1, -1, -1, -1, -1, 1, 1]
    np.testing.assert_array_equal(classes_of(scores), expected)
    np.testing.assert_array_equal(jax.jit(classes_of)(scores), expected)
