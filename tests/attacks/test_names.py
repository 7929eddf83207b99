"""Constants that were called otherwise: the old name is an error that gives the new one."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from invjax.attacks import REGISTRY, make
from invjax.core.errors import BadArgument

pytestmark = pytest.mark.fast
RENAMED = [(name, *pair) for name, one in REGISTRY.items() for pair in getattr(one, "RENAMED", {}).items()]


@pytest.mark.parametrize(("name", "old", "new"), RENAMED)
def test_an_old_name_gives_the_new_one(name: str, old: str, new: str) -> None:
    one: Any = REGISTRY[name]
    fields = {field.name for field in dataclasses.fields(one)}
    assert new in fields or new.startswith("the class ")  # GSE: what was a constant is a class
    assert old not in fields
    with pytest.raises(BadArgument, match=rf"{one.__name__}\.{old} must be given by its new name, {new}"):
        make(name, **{old: 1})
