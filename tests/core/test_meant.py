"""The closest known name: what is near, what other libraries call it, and what is neither."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from typing import Any

import numpy as np
import pytest

import invjax
from invjax import BadArgument
from invjax.attacks import GSE, PGD
from invjax.core.errors import check_choice
from invjax.core.meant import call_explained, closest, did_you_mean


@pytest.mark.parametrize(
    ("word", "names", "meant"),
    [
        ("steps_max", ["patience", "steps"], "steps"),
        ("Linf", ["linf", "l2"], "linf"),
        ("resnet-20", ["resnet18", "resnet20"], "resnet20"),
        ("sigma_zero", ["sigma-map", "sigma-zero"], "sigma-zero"),
        (np.inf, ["linf", "l2"], "linf"),
        (2, ["linf", "l2"], "l2"),
        ("n_iter", ["eps", "steps"], "steps"),
        ("n_iter", ["eps", "tolerance"], None),
        ("lambda_", ["steps", "patience"], None),
        ("", ["a"], None),
        ("?", ["!"], None),
        (None, ["none"], None),
        (True, ["true"], None),
        (-(10**50), ["1"], None),
        ("9" * 5000, ["9"], None),
        ("steps", [3, "step"], "step"),
    ],
)
def test_closest(word: Any, names: list[Any], meant: str | None) -> None:
    assert closest(word, names) == meant
    assert did_you_mean(word, names) == (None if meant is None else f"did you mean {meant!r}?")


def test_a_choice_and_a_constant() -> None:
    with pytest.raises(BadArgument, match=r"be one of 'linf', 'l2', was 'l_2'; did you mean 'l2'\?$"):
        check_choice("norm", "l_2", ("linf", "l2"))
    with pytest.raises(
        TypeError, match=r"^GSE\(\) got an unexpected keyword argument 'step_sise'; did you mean 'step_size'"
    ):
        GSE(step_sise=3)  # type: ignore[call-arg]
    with pytest.raises(TypeError, match=r"'lambda_'; it takes eps, step_size, steps, "):
        PGD(lambda_=3)  # type: ignore[call-arg]
    assert str(inspect.signature(PGD)).startswith("(eps: ")


def test_calls_are_explained_and_errors_inside_stay() -> None:
    def one(a: int, b: int = 1, *, c: int) -> None: ...

    inside = TypeError("mine")
    signature = inspect.signature(one)
    assert call_explained(inside, "one", signature, (1,), {"c": 3}) is inside
    assert str(call_explained(inside, "one", signature, (), {"a": 1})) == "mine; call one(a, c=...)"
    given = {"cc": 3, "c": 3}  # what is given is not offered again
    assert "; it takes a, b, c" in str(call_explained(inside, "one", signature, (1,), given))


def test_every_public_module_suggests() -> None:
    """A new package needs ``suggest_names(__name__)``."""
    private = ("invjax.core", "invjax.cli", "invjax.cpu", "invjax.explain", "invjax.explaining", "invjax.types")
    packages = [one.name for one in pkgutil.iter_modules(invjax.__path__, "invjax.") if one.name not in private]
    for name in packages:
        if name == "invjax.__main__":
            continue
        module = importlib.import_module(name)
        known = next(one for one in (*getattr(module, "__all__", ()), *dir(module)) if len(one) > 3)
        with pytest.raises(
            AttributeError, match=rf"module '{name}' has no attribute '{known}_'; did you mean '{known}'"
        ):
            getattr(module, f"{known}_")
    assert len(packages) > 15
    assert not hasattr(invjax.attacks, "_nothing")


def test_a_name_of_a_part_is_told() -> None:
    for name, place in (("GSE", "attacks"), ("load_csv", "data"), ("grad_cam", "attribution")):
        with pytest.raises(AttributeError, match=rf"has no attribute '{name}'; it is invjax\.{place}\.{name}$"):
            getattr(invjax, name)
