"""What the public signatures say to a reader, an editor and a checker of types."""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import json
import pkgutil
import re
import subprocess
import sys
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any, get_args

import pytest
from processes import small_environment

import invjax
from invjax import attacks, counterfactuals, losses, penalties
from invjax.attacks import forward_backward, pgd, sparse_rs
from invjax.core import balls
from invjax.core.config import names_of
from invjax.counterfactuals import fixed
from invjax.counterfactuals.milp import lof
from invjax.data.grouped import load as groups
from invjax.data.grouped import spuco
from invjax.data.images import fashion_mnist
from invjax.data.tables import load as tables
from invjax.learn import presets
from invjax.learn.study import tasks
from invjax.models import efficientnet_lite, registry, resnet, vgg, vit_import

ROOT = Path(__file__).resolve().parent.parent
BLOCK = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)

# A set of names is a ``Literal``; what goes with each name, where something does, is a mapping with just these keys.
NAMES: list[tuple[Any, Collection[str]]] = [
    (attacks.AttackName, attacks.REGISTRY),
    (balls.Norm, pgd.BALLS),
    (balls.Norm, pgd.DEFAULT_EPS),
    (counterfactuals.MethodName, counterfactuals.REGISTRY),
    (efficientnet_lite.EfficientNetName, efficientnet_lite.SIZES),
    (fashion_mnist.Split, fashion_mnist._FILES),
    (fixed.Loss, fixed.LOSSES),
    (groups.GroupsName, groups.LOADERS),
    (lof.Metric, lof.METRICS),
    (losses.Loss, losses.LOSSES),
    (penalties.PenaltyName, penalties.ELEMENTWISE),
    (presets.Data, presets.KUMANO_EPS),
    (presets.PresetName, presets.PRESETS),
    (registry.ModelName, registry.REGISTRY),
    (resnet.ResNetName, resnet.SIZES),
    (sparse_rs.Loss, sparse_rs.LOSSES),
    (spuco.Which, spuco._PARTS),
    (tables.TableName, tables.LOADERS),
    (vgg.VGGName, vgg.NAMES),
    (vit_import.ViTName, registry.VITS),
    (tasks.TaskName, {name.partition("/")[0] for name in tasks._PROTOCOLS}),
]


@pytest.mark.fast
@pytest.mark.parametrize(("literal", "known"), NAMES, ids=lambda value: None)
def test_names_and_what_goes_with_them(literal: Any, known: Collection[str]) -> None:
    assert sorted(get_args(literal)) == sorted(known)


@pytest.mark.fast
def test_a_penalty_with_a_power_has_a_name() -> None:
    field = forward_backward.ForwardBackward.__dataclass_fields__["penalty"]
    assert names_of(forward_backward.ForwardBackward, field) == tuple(forward_backward._PENALTIES)


# What a checker knows of a few results, and what it refuses.
KNOWN = """
from typing import Any, assert_type

import numpy as np

import invjax
from invjax import attacks, campaign, data, learn, metrics, models

net = models.mnist_cnn()
x, label = data.mnist_digits()[:2]
assert_type(net, models.LogitsModel)
assert_type(x, np.ndarray)
assert_type(invjax.solve(net, x, label, target=[1, 2, 3], method=attacks.GSE()), invjax.Result)
assert_type(campaign.make_pairs(label, 10).target, np.ndarray)
assert_type(campaign.make_pairs(label, 10, "untargeted").target, None)
assert_type(data.load_groups("synthbirds").mask, np.ndarray)
assert_type(metrics.summarize(metrics.measure(x, label))["attempts"], int)
"""
REFUSED = """
from invjax import attacks, counterfactuals, data, learn, metrics, models

attacks.PGD(norm="l3")
attacks.make("gsf")
counterfactuals.SCFE(penalty="l2")
data.load_tabular("wines")
data.load_groups("birds")
learn.preset("ilya")
metrics.summarize(metrics.measure([], []))["attempt"].bit_length()
"""


def test_what_a_reader_copies_is_typed(tmp_path: Path) -> None:
    """The blocks of the README and of each page, and the notebooks: no error of pyright's. Wrong names are errors."""
    pytest.importorskip("pyright")
    for path in [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), *sorted((ROOT / "notebooks").glob("*.py"))]:
        text = path.read_text("utf-8")
        (tmp_path / f"{path.stem}.py").write_text(
            text if path.suffix == ".py" else "\n".join(BLOCK.findall(text)), "utf-8"
        )
    (tmp_path / "known.py").write_text(KNOWN)
    (tmp_path / "refused.py").write_text(REFUSED)
    settings = {"typeCheckingMode": "basic", "extraPaths": [str(ROOT)], "reportMissingImports": False}
    (tmp_path / "pyrightconfig.json").write_text(json.dumps(settings))
    command = [sys.executable, "-m", "pyright", "--outputjson", "--pythonpath", sys.executable, "-p", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, env=small_environment(), cwd=tmp_path)
    try:
        said = json.loads(done.stdout)["generalDiagnostics"]
    except ValueError:  # it could not be fetched, or has no node to run in
        pytest.skip(f"pyright does not run here: {done.stderr[-300:]}")
    found = [
        (Path(one["file"]).stem, one["range"]["start"]["line"], one["message"])
        for one in said
        if one["severity"] == "error"
    ]
    wrong = [at for at, line in enumerate(REFUSED.splitlines()) if line and "import" not in line]
    assert [one for one in found if one[0] != "refused"] == []
    assert sorted({line for name, line, _ in found if name == "refused"}) == wrong


# Public returns, properties and fields that are ``Any``, and why. All others say what they are.
UNTYPED = {
    "a configuration: of any method, also of the user's": (
        "attacks.make counterfactuals.make campaign.Run.config campaign.configure engine.Prepared.config "
        "engine.Prepared.batch recourse.Plan.config"
    ),
    "a pytree of the user's, or of a network's weights": (
        "LogitsModel.apply LogitsModel.params Context.constraints attribution.Split.features "
        "attribution.Split.features_apply attribution.Split.head_apply attribution.Split.params densities.VAE.graph "
        "densities.VAE.weights "
        "learn.LastLayer.path recourse.TableExplainer.own recourse.TableExplainer.parts "
        "recourse.TableExplainer.target recourse.TablePredictor.model"
    ),
    "the memory of an optimiser or a rule, a pytree of its own": (
        "learn.ERM.init learn.ERM.weigh learn.Optax.init learn.Optax.update learn.Optimiser.init "
        "learn.Optimiser.update learn.Rule.init learn.Rule.weigh"
    ),
    "a cell of a table: a number, a text, a truth value": (
        "constraints.Feature.shown recourse.Change.new recourse.Change.old"
    ),
    "keyword arguments of learn.fit": "learn.group_dro learn.jtt learn.resample learn.reweight",
    "numbers under names, for JSON or a log": (
        "learn.Retrained.report learn.Trained.history learn.study.MethodRun.notes learn.study.ablation "
        "learn.study.manifest_of learn.study.over_seeds learn.study.record_of metrics.GroupAccuracies.to_dict "
        "metrics.summarize_curve"
    ),
    "what another library does not type": "cpu.replaced_rule data.images.ImageFiles.converted",
    "typed by overloads": "metrics.Summary.__getitem__",
    "whatever is shown as text or as pixels": "report.Picture.image report.Section.facts report.Section.table",
}  # fmt: skip


def said(annotation: Any) -> str:
    if isinstance(annotation, str):
        return annotation
    return getattr(annotation, "__forward_arg__", getattr(annotation, "__name__", str(annotation)))


def of_a_class(cls: type) -> Iterator[tuple[str, Any]]:
    """(name, what it gives) of its methods, properties and fields."""
    for name, one in vars(cls).items():
        if name.startswith("_") and name not in ("__call__", "__getitem__"):
            continue
        function = one.fget if isinstance(one, property) else getattr(one, "__func__", one)
        if inspect.isfunction(function):
            yield name, inspect.signature(function).return_annotation
    if dataclasses.is_dataclass(cls) or hasattr(cls, "_fields"):
        yield from inspect.get_annotations(cls).items()


def untyped() -> Iterator[str]:
    """The public names that give ``Any``, ``object`` or nothing that is said, each by its first package."""
    seen: set[Any] = set()
    packages = [one.name for one in pkgutil.walk_packages(invjax.__path__, "invjax.") if one.ispkg]
    for path in ["invjax", *packages]:
        if path in ("invjax.explain", "invjax.explaining"):
            continue
        package = importlib.import_module(path)
        for name in getattr(package, "__all__", ()):
            one: Any = getattr(package, name)
            if not (inspect.isfunction(one) or inspect.isclass(one)) or one in seen:
                continue
            seen.add(one)
            gives = of_a_class(one) if inspect.isclass(one) else [("", inspect.signature(one).return_annotation)]
            for part, annotation in gives:
                if re.search(r"\b(Any|object|_empty|Config)\b", said(annotation)) and "ClassVar" not in said(
                    annotation
                ):
                    yield f"{path}.{name}.{part}".removeprefix("invjax.").rstrip(".")


@pytest.mark.fast
def test_public_returns_say_what_they_are() -> None:
    known = [name for names in UNTYPED.values() for name in names.split()]
    found = list(untyped())
    assert sorted(found) == sorted(known)
