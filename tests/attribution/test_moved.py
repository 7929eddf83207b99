"""The old names of two packages say where their contents are now."""

from __future__ import annotations

import importlib

import pytest


@pytest.mark.fast
@pytest.mark.parametrize(("old", "new"), [("explain", "attribution"), ("explaining", "recourse")])
def test_old_names_name_the_new_ones(old: str, new: str) -> None:
    with pytest.raises(ImportError, match=rf"invjax\.{old} is now invjax\.{new}"):
        importlib.import_module(f"invjax.{old}")
    importlib.import_module(f"invjax.{new}")
