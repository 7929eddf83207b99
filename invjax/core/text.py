"""Text from other programs: names that are bytes."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from invjax.core.errors import BadArgument


def as_names(values: Iterable[Any], name: str = "names") -> tuple[str, ...]:
    """Names as text; bytes, as CIFAR's files, HDF5 and ARFF keep them, are read as UTF-8."""
    try:
        return tuple(str(one, "utf-8") if isinstance(one, bytes) else str(one) for one in values)
    except UnicodeDecodeError as error:
        raise BadArgument(name, "be text, or bytes in UTF-8", error.object) from error
