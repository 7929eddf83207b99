"""One word for one thing: every constant of every method stands in docs/glossary.md, with its meaning and its unit."""

from __future__ import annotations

import dataclasses
import inspect
import re
from pathlib import Path

import pytest

from invjax import attacks, counterfactuals

pytestmark = pytest.mark.fast
PAGE = (Path(__file__).resolve().parent.parent / "docs" / "glossary.md").read_text("utf-8")
ROW = re.compile(r"^\| `(\w+)` \| (.+) \| (.+) \|$", re.MULTILINE)
METHODS = {**attacks.REGISTRY, **counterfactuals.REGISTRY}
CLASSES = sorted({method for method in METHODS.values() if inspect.isclass(method)}, key=lambda cls: cls.__name__)
# What was called otherwise before there was a glossary, and letters that only a paper's reader would recognise.
FORBIDDEN = {
    "alpha", "bisections", "centre", "const", "grow", "inner", "iterations", "lam", "mu", "phi", "rate", "sigma",
    "start", "step", "stepsize", "theta", "variant",
}  # fmt: skip


def constants(method) -> list[str]:
    """The fields of a configuration; FGSM and DCFE are functions that make one."""
    if dataclasses.is_dataclass(method):
        return [field.name for field in dataclasses.fields(method)]
    parameters = inspect.signature(method).parameters.values()
    return [parameter.name for parameter in parameters if parameter.kind is not parameter.VAR_KEYWORD]


def described(text: str) -> set[str]:
    """What a docstring's ``Fields:`` names: "name: what" or "one, other: what"."""
    names = re.findall(r"^\s*((?:\w+, )*\w+): ", text.partition("Fields:")[2], re.MULTILINE)
    return {name for line in names for name in line.split(", ")}


def test_every_constant_is_in_the_glossary_and_every_word_is_used():
    words = [name for name, _, _ in ROW.findall(PAGE)]
    used = {name for method in METHODS.values() for name in constants(method)}
    assert len(words) == len(set(words))
    assert set(words) - used == set(), "no method has these"
    assert used - set(words) == set(), "these need a row in docs/glossary.md"


def test_old_words_and_bare_letters_are_gone():
    used = {name for method in METHODS.values() for name in constants(method)}
    assert used & FORBIDDEN == set()
    assert {name for name in used if len(name) == 1} == {"k"}


@pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__name__)
def test_the_docstring_names_every_field(cls):
    texts = [
        base.__doc__ or "" for base in cls.__mro__ if dataclasses.is_dataclass(base)
    ]  # a variant inherits its fields
    assert set(constants(cls)) - set.union(*map(described, texts)) == set()


@pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__name__)
def test_an_old_name_is_no_field_and_the_new_one_is(cls):
    renamed = getattr(cls, "RENAMED", {})
    assert set(renamed) & set(constants(cls)) == set()
    new = {name for name in renamed.values() if not name.startswith("the class ")}
    assert new <= set(constants(cls))
