"""Wrong calls that a newcomer makes, each answered by one line that says what to write instead.

What whoever comes from torch, Foolbox, ART, DiCE or scikit-learn writes first: other names, other layouts, other units.
On the command line: ``MEANT`` in tests/cli/test_bad_options.py.
"""

from __future__ import annotations

import dataclasses
import functools
import re
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest

import invjax
from invjax import BadArgument, Result, attacks, campaign, counterfactuals, data, learn, metrics, models, recourse, viz
from invjax.attacks import GSE, PGD
from invjax.constraints import Feature, FeatureSpace

W = np.random.default_rng(0).normal(size=(75, 4)).astype(np.float32)
X = np.random.default_rng(1).uniform(size=(3, 5, 5, 3)).astype(np.float32)
Y = np.array([0, 1, 2])
FILTERS = np.ones((1, 1, 3, 4), np.float32)
FRAME = pd.DataFrame({"income": [10.0, 80, 30, 60], "debt": [50.0, 5, 40, 3], "paid": ["no", "yes", "no", "yes"]})
Call = Callable[[], Any]


def net(x: Any) -> Any:
    return x.reshape(len(x), -1) @ W


def conv(x: Any) -> Any:
    return jax.lax.conv_general_dilated(x, FILTERS, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")).mean(
        (1, 2)
    )


class Torch:
    """As a torch.nn.Module looks from outside."""

    def __call__(self, x: Any) -> Any:
        raise TypeError("linear(): argument 'input' must be Tensor")


Torch.__module__ = "torch.nn.modules.linear"


class Fitted:
    """As an estimator of scikit-learn looks from outside."""

    classes_ = np.array(["no", "yes"])
    feature_names_in_ = np.array(["income", "debt"])

    def predict_proba(self, rows: Any) -> np.ndarray:
        share = 1 / (1 + np.exp(-(np.asarray(rows, float) @ [1, -1]) / 10))
        return np.stack([1 - share, share], 1)


solve = functools.partial(invjax.solve, net, X, Y, method=PGD(eps=0.1))
result = Result(X, np.zeros_like(X), np.full(3, 2, np.int32), *np.zeros((2, 3), np.int32), X)
of_rows = functools.partial(invjax.solve, lambda x: x @ W[:2], method=PGD(eps=0.1))


def with_model(model: Any, x: Any = X) -> Call:
    return lambda: invjax.solve(model, x, Y[: len(x)], method=PGD(eps=0.1))


def explained(**given: Any) -> Call:
    return lambda: recourse.from_predictor(**{"model": Fitted(), "frame": FRAME, "label": "paid", **given})


PYTHON: dict[str, tuple[Call, str]] = {
    # the classifier
    "images with the channel first": (with_model(conv, X.transpose(0, 3, 1, 2)), "x.transpose(0, 2, 3, 1)"),
    "a torch module": (with_model(Torch()), "invjax.models.load reads torch's weights"),
    "a torch module, wrapped": (
        lambda: invjax.solve(invjax.as_logits(Torch(), 0.5), X, Y, method=GSE()),
        "models.black_box",
    ),
    "an estimator": (with_model(Fitted()), "invjax.recourse.from_predictor takes fitted models"),
    "a class": (with_model(models.SmallCNN), "it is a class: make a network of it, SmallCNN(...)"),
    "a path of weights": (with_model("resnet20.pth"), 'invjax.models.load("resnet20", path)'),
    "x before the network": (lambda: invjax.solve(X, net, Y, method=GSE()), "the network comes first"),  # type: ignore
    "outputs in a tuple": (with_model(lambda x: (net(x), x)), "lambda x: model(x)[0]"),
    "outputs in a dict": (with_model(lambda x: {"logits": net(x)}), "lambda x: model(x)['logits']"),
    "the class alone": (with_model(lambda x: net(x).argmax(-1)), "return the scores of all classes"),
    "one logit": (with_model(lambda x: net(x)[:, :1]), "invjax.models.binary makes two classes"),
    "a network of NumPy": (with_model(lambda x: np.asarray(x).reshape(8, -1) @ W), "write it with jax.numpy"),
    "a network of one example": (with_model(lambda x: x.reshape(-1) @ W), "jax.vmap(model) takes a batch"),
    "a network with a switch": (with_model(lambda x, train: net(x)), "lambda x: model(x, ...)"),
    "architecture, in other letters": (lambda: models.load("ResNet-20"), "did you mean 'resnet20'?"),  # type: ignore
    "a file as the architecture": (
        lambda: models.load("r.pth"),  # type: ignore
        "is given as weights, beside the arch",
    ),
    # images
    "pixels of 8 bits": (
        lambda: invjax.solve(net, (X * 255).astype(np.uint8), Y, method=GSE()),
        "x.astype(np.float32) / 255",
    ),
    "pixels as floats": (
        lambda: invjax.solve(net, X * 255, Y, method=GSE()),
        "divide pixels by 255, or give bounds=(0, 255)",
    ),
    "normalised images": (lambda: invjax.solve(net, X * 4 - 2, Y, method=GSE()), "as_logits(model, mean, std)"),
    "a little above 1": (
        lambda: invjax.solve(net, X / X.max() * np.float32(1 + 1e-6), Y, method=GSE()),
        "np.clip(x, 0, 1)",
    ),
    "an image without a batch": (lambda: invjax.solve(net, X[0], [1], method=GSE()), "a single example is x[None]"),
    "a batch with one label": (lambda: invjax.solve(net, X, 1, method=GSE()), "give N examples N labels"),
    "a table with text": (lambda: of_rows(FRAME, [0, 1, 0, 1]), "invjax.recourse.from_predictor"),
    "a mask without channels": (lambda: solve(mask=np.ones((5, 5), bool)), "np.repeat(mask[..., None], 3, -1)"),
    "a mask of floats": (lambda: solve(mask=np.ones((5, 5, 3))), "mask.astype(bool)"),
    # labels and targets
    "one-hot labels": (lambda: invjax.solve(net, X, np.eye(4)[Y], method=GSE()), "rows.argmax(1)"),
    "labels as floats": (lambda: invjax.solve(net, X, [0.0, 1.0, 2.0], method=GSE()), "np.asarray(label, int)"),
    "labels as names": (
        lambda: invjax.solve(net, X, ["cat", "dog", "ox"], method=GSE()),  # type: ignore
        "np.unique(names, return_inverse",
    ),
    "labels from 1": (lambda: invjax.solve(net, X, [1, 2, 4], method=GSE()), "the first class is 0: subtract 1"),
    "one target for all": (lambda: solve(target=3), "np.full(3, target)"),
    "the target is the label": (lambda: solve(target=Y), "target=None takes any other class"),
    "offsets that are classes": (lambda: campaign.make_pairs(Y, 4, [4]), "offsets are added to the label"),
    # the method and its constants
    "no method": (lambda: invjax.solve(net, X, Y), "call solve(logits, x, label, method=...)"),  # type: ignore
    "the method by place": (
        lambda: invjax.solve(net, X, Y, GSE()),  # type: ignore
        "call solve(logits, x, label, method=...)",
    ),
    "the method by name": (lambda: solve(method="gse"), "invjax.attacks.make('gse')"),  # type: ignore
    "the class of a method": (lambda: solve(method=GSE), "GSE() is its configuration"),
    "the attack is called": (
        lambda: PGD(eps=0.1)(net, X, Y),  # type: ignore
        "invjax.solve(model, x, label, method=PGD(...))",
    ),
    "epsilon": (lambda: PGD(epsilon=0.1), "did you mean 'eps'?"),  # type: ignore
    "a constant, nearly": (lambda: GSE(steps_max=3), "did you mean 'steps'?"),  # type: ignore
    "a constant that there is not": (lambda: GSE(lambda_=3), "it takes steps, patience, "),  # type: ignore
    "a radius in quotes": (lambda: solve(method=PGD(eps="8/255")), "without quotes"),  # type: ignore
    "a negative radius": (lambda: solve(method=PGD(eps=-0.1)), "PGD.eps must be a radius >= 0"),
    "a norm in other letters": (
        lambda: solve(method=PGD(eps=0.1, norm="Linf")),  # type: ignore
        "did you mean 'linf'?",
    ),
    "a norm as a number": (lambda: solve(method=PGD(eps=0.1, norm=np.inf)), "did you mean 'linf'?"),  # type: ignore
    "a name of an attack, nearly": (lambda: attacks.make("sigma_zero"), "did you mean 'sigma-zero'?"),
    # arguments and names
    "an argument, nearly": (lambda: invjax.solve(net, X, Y, metod=GSE()), "did you mean 'method'?"),
    "targets": (lambda: solve(targets=Y), "did you mean 'target'?"),
    "model": (lambda: invjax.solve(model=net, x=X, label=Y, method=GSE()), "did you mean 'logits'?"),  # type: ignore
    "batch_size": (lambda: solve(batch_size=64), "did you mean 'lanes'?"),
    "a seed as the key": (lambda: solve(key=0), "jax.random.key(0)"),  # type: ignore
    "a class of a module, nearly": (lambda: attacks.GES, "did you mean 'GSE'?"),  # type: ignore
    "a name at the wrong place": (lambda: invjax.mnist_cnn, "it is invjax.models.mnist_cnn"),  # type: ignore
    # results
    "adversarials": (lambda: result.adversarials, "it has x (the answers)"),  # type: ignore
    "fields by name": (lambda: result["delta"], "write result.delta"),
    "an example too far": (lambda: result[3], "the result holds 3, counted from 0"),
    "a summary of a result": (
        lambda: metrics.summarize(result),  # type: ignore
        "summarize(measure(result.delta, result.status))",
    ),
    "measures of a result": (lambda: metrics.measure(result), "call measure(delta, status)"),  # type: ignore
    "a table of measures": (
        lambda: metrics.attack_table(metrics.measure(X, Y * 0)),  # type: ignore
        '["all_attempts"]',
    ),
    "a picture of an array": (lambda: viz.show(X), "viz.grid(x, result)"),  # type: ignore
    "digits.x": (lambda: data.mnist_digits().x, "it has bounds, images, labels, names"),  # type: ignore
    # tables
    "a column in other letters": (explained(label="Paid"), "did you mean 'paid'?"),
    "a class in other letters": (explained(target="Yes"), "did you mean 'yes'?"),
    "a path as the frame": (explained(frame="loans.csv"), "pandas.read_csv(path)"),
    "frame and model swapped": (explained(frame=Fitted(), model=FRAME), "the model comes first"),
    "a feature that is misspelt": (explained(immutable=["Debt"]), "did you mean 'debt'?"),
    "one feature as text": (explained(immutable="debt"), "write ['debt']"),
    "a data set, nearly": (lambda: data.load_tabular("Adult"), "did you mean 'adult'?"),  # type: ignore
    "a file that is not there": (lambda: data.load_csv("lones.csv", "paid"), "did you mean 'loans.csv'?"),
    "another separator": (lambda: data.load_csv("pipes.csv", "paid"), "is its delimiter '|'?"),
    "sep": (lambda: data.load_csv("loans.csv", "paid", sep=";"), "did you mean 'delimiter'?"),  # type: ignore
    "a field of a feature": (lambda: Feature("age", dirction="up"), "did you mean 'direction'?"),  # type: ignore
    "an immutable feature": (lambda: Feature("age", immutable=True), "did you mean 'direction'?"),  # type: ignore
    "a way to go": (lambda: Feature("age", direction="increase"), "did you mean 'up'?"),
    "a least value": (lambda: Feature("age", min=0), "did you mean 'lower'?"),  # type: ignore
    "table.columns": (lambda: data.load_csv("loans.csv", "paid").columns, "; it has class_of, classes, "),  # type: ignore
    "a key of a schema": (lambda: data.load_csv("loans.csv", "paid", "schema.json"), "did you mean 'direction'?"),
    "a table in other letters": (
        lambda: FeatureSpace([Feature("debt")]).encode({"Debt": [1.0]}), "'Debt' is close: rename it",
    ),
    "whole numbers in a space": (
        lambda: of_rows([[1, 2]], [0], space=FeatureSpace([Feature("a"), Feature("b")])), "space.encode(table)",
    ),
    "a density by name": (
        lambda: solve(method=counterfactuals.SCFE(), density="kde"),  # type: ignore
        "such as fit_kde(x, y)",
    ),
    "a preset, nearly": (lambda: learn.preset("waterbird"), "did you mean 'waterbirds'?"),  # type: ignore
    "a solver of optax": (
        lambda: invjax.minimize(jnp.sum, X, solver="adam"),  # type: ignore
        "one of 'fista', 'prox_grad'",
    ),
    "whole numbers to minimise": (lambda: invjax.minimize(jnp.sum, Y), "x0.astype(float)"),
}  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("newcomers")
    FRAME.to_csv(folder / "loans.csv", index=False)
    FRAME.to_csv(folder / "pipes.csv", index=False, sep="|")
    FeatureSpace([Feature("debt")]).to_json(folder / "schema.json")
    schema = (folder / "schema.json").read_text()
    (folder / "schema.json").write_text(schema.replace('"direction"', '"direcion"'))
    return folder


@pytest.mark.parametrize("call", PYTHON)
def test_says_what_to_write_instead(call: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    wrong, remedy = PYTHON[call]
    with pytest.raises((BadArgument, TypeError, AttributeError, IndexError)) as caught:
        wrong()
    said = str(caught.value)
    assert remedy in said
    assert "\n" not in said
    assert len(said) < 500


def test_what_is_refused_has_its_digits(folder: Path) -> None:
    """A number just beyond a limit is not shown as the limit."""
    above = np.nextafter(np.float32(1), np.float32(2))
    np.savez(folder / "above.npz", images=np.full((2, 4, 4), above), labels=[0, 1])
    with pytest.raises(BadArgument, match=r"lie in the bounds \[0, 1\], was in \[1.0000001192\d*, 1.0000001192\d*\]"):
        data.open_images(str(folder / "above.npz")).read(0, 2)
    space = FeatureSpace([Feature("debt", upper=0.3 - 1e-8)])
    assert space.reasons({"debt": [0.3]}) == ["debt is 0.3, outside [-inf, 0.29999999]"]


@pytest.mark.parametrize(
    ("options", "remedy"),
    [
        ({"bounds": (0, 255)}, "x lies in [0, 1]: leave them out"),
        ({"method": PGD(eps=8)}, "for images in [0, 1] it is eps / 255"),
    ],
)
def test_what_can_be_meant_is_warned_about(options: dict[str, Any], remedy: str) -> None:
    with pytest.warns(UserWarning, match=re.escape(remedy)):
        invjax.engine.prepare(net, X, Y, **{"method": PGD(eps=0.1), **options})


def test_what_is_right_still_is() -> None:
    """The same calls, put right, as far as they need no solver; and lists, frames and torch-like arrays."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for x, label in ((X.tolist(), Y.tolist()), (list(X), pd.Series(Y).to_numpy()), (X, np.float32(Y).astype(int))):
            prepared = invjax.engine.prepare(net, x, label, method=PGD(eps=0.1))
            assert prepared.problems.x.shape == X.shape
        assert not prepared.single
        assert invjax.engine.prepare(net, X[0], 1, method=PGD(eps=0.1)).single
    assert dataclasses.replace(result, x=X * 2).x.max() > 1
