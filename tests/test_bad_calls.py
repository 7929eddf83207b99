"""A wrong argument to every public function: a BadArgument in one line that says what it must be.

The functions are found, not listed: a new one fails here until it has a valid call in tests/helpers/valid_calls.py, or
a reason in ``WITHOUT``. Each argument of a valid call is then made wrong in turn, by what its annotation says it holds.
"""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from valid_calls import CALLS

import invjax
from invjax import BadArgument
from invjax.core.arguments import Kinds, kinds_checked, kinds_of
from invjax.types import ArrayLike

NAN = float("nan")

# Public functions that are not called here, and why.
WITHOUT = {
    "mathematics of one array, under jit as well": (
        "attribution.cam attribution.grad_cam attribution.saliency_map attribution.saliency_batch "
        "attribution.scale_map metrics.energy_inside metrics.interpretability_score metrics.iou "
        "metrics.mass_inside metrics.overlap metrics.pointing_game metrics.top_region solvers.averaging "
        "solvers.extrapolation solvers.forward_backward solvers.gradient_mapping solvers.identity "
        "solvers.look_ahead solvers.next_beta"
    ),
    "no arguments, or text for a person from what the library has made": (
        "campaign.constants_text campaign.median_pixels campaign.share_reached campaign.table_rows "
        "cpu.install_canonical_convolutions cpu.replaced_rule cpu.uninstall_canonical_convolutions data.data_folder "
        "data.group_names data.mnist_digits data.tabular_names learn.study.grid_names learn.study.manifest_of "
        "learn.study.over_seeds learn.study.percent learn.study.record_of learn.study.table_row metrics.attack_rows "
        "metrics.attack_table metrics.curve_rows metrics.summarize metrics.summarize_counterfactuals "
        "metrics.summarize_curve metrics.summarize_overlap models.mnist_cnn models.vit_mnist recourse.csv_text "
        "report.counterfactual_section report.write_report"
    ),
    "a part of the engine, between checked arguments and the loop": (
        "constraints.actions engine.run_queue engine.run_saved engine.run_shared engine.seen_through engine.stream "
        "engine.surrogate engine.white_box"
    ),
    "a configuration, whose constants are checked where it is used: tests/test_bad_input.py": (
        "attacks.FGSM counterfactuals.DCFE"
    ),
    "figures": (
        "viz.comparison viz.grid viz.magnified viz.panels viz.perturbation_pixels viz.perturbed viz.picture_pixels "
        "viz.show viz.plane viz.score_curves viz.sparsity viz.support_pixels viz.trace viz.ways viz.worst_groups"
    ),
    "has a file of tests with bad files or folders of its own": (
        "campaign.attack_pairs campaign.read_integers campaign.write_results data.from_space data.group_data "
        "data.load_csv densities.fit_features densities.from_sklearn engine.open_run learn.feature_network "
        "learn.study.ablation learn.study.chosen_methods learn.study.first_step learn.study.load_task "
        "learn.study.run_method learn.train_at models.preact_resnet_from_torch models.resnet_from_torch "
        "models.vgg_from_torch models.with_surrogate "
        "counterfactuals.milp.relu_layers recourse.from_predictor recourse.read_people recourse.table_predictor"
    ),
}  # fmt: skip
REASONS = {name: reason for reason, names in WITHOUT.items() for name in names.split()}


def public() -> dict[str, Callable[..., Any]]:
    """The functions that packages list in ``__all__``, each under its first name."""
    found: dict[int, tuple[str, Callable[..., Any]]] = {}
    for module in pkgutil.walk_packages(invjax.__path__, "invjax."):
        if not module.ispkg or module.name in ("invjax.explain", "invjax.explaining"):
            continue
        package = importlib.import_module(module.name)
        for name in getattr(package, "__all__", ()):
            if inspect.isfunction(one := getattr(package, name)):
                found.setdefault(id(one), (f"{module.name.removeprefix('invjax.')}.{name}", one))
    return dict(found.values())


FUNCTIONS = public()


def function_of(name: str) -> Callable[..., Any]:
    package, _, attribute = name.rpartition(".")
    return getattr(importlib.import_module(f"invjax.{package}"), attribute)


def test_every_public_function_is_called_or_has_a_reason() -> None:
    missing = set(FUNCTIONS) - set(CALLS) - set(REASONS)
    assert not missing, f"give these a valid call in tests/helpers/valid_calls.py: {sorted(missing)}"


def wrong(kinds: Kinds) -> Iterator[Any]:
    """Values that these kinds do not hold."""
    values = ["x", None, NAN, 2**40, object(), np.array(["a", "b"])]
    return (value for value in values if not kinds.hold(value))


def kinds(name: str, one: inspect.Parameter) -> Kinds | None:
    """What an argument of a public function may be."""
    return kinds_of(one.name, one.annotation, one.default, inspect.unwrap(function_of(name)).__globals__)


def bad_calls() -> list[tuple[str, str]]:
    return [
        (name, argument)
        for name in CALLS
        for argument, one in inspect.signature(function_of(name)).parameters.items()
        if one.kind not in (one.VAR_KEYWORD, one.VAR_POSITIONAL) and kinds(name, one) is not None
    ]


def check(name: str, argument: str) -> int:
    """Every wrong value of one argument; how many there were."""
    function, count = function_of(name), 0
    one = inspect.signature(function).parameters[argument]
    held = kinds(name, one)
    assert held is not None
    for value in wrong(held):
        count += 1
        with pytest.raises((BadArgument, ImportError)) as caught:
            function(**{**CALLS[name](), argument: value})
        said = str(caught.value)
        assert "\n" not in said, (name, argument, value)
        assert len(said) < 500, (name, argument, value)
    return count


@pytest.mark.parametrize("name", CALLS)
def test_each_argument(name: str) -> None:
    """Also: the function is decorated, or it would not know its annotations."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        counts = [check(name, argument) for called, argument in bad_calls() if called == name]
    assert sum(counts) >= min(1, len(counts))


MATRIX, TEXT, NONE, ROWS = np.full((2, 2), NAN), np.array(["a", "b"]), [], np.zeros((0, 3))
INF, BELOW, NEVER = float("inf"), [-1.0, float("inf")], [-1.0, 0.0, float("inf")]
# Of the right kind, and of a shape or with values that do not fit the other arguments.
MISFITS: dict[str, dict[str, list[Any]]] = {
    "campaign.classify": {"images": [NONE, MATRIX, ROWS]},
    "counterfactuals.certify": {
        "x": [NONE, ROWS], "target": [NONE, MATRIX, ROWS], "mask": [3, NAN], "tolerance": BELOW, "kappa": BELOW,
    },
    "counterfactuals.face": {"eps": NEVER, "kappa": BELOW, "quantile": BELOW, "neighbours": [0, -1]},
    "counterfactuals.fit_mahalanobis": {"ridge": NEVER},
    "counterfactuals.frontier": {"lanes": [0, -1, "some"], "max_changes": [NONE, [0]]},
    "counterfactuals.mip_counterfactuals": {"mask": [3, NAN], "workers": [-1]},
    "counterfactuals.pcfe": {"tolerance": NEVER, "kappa": NEVER},
    "counterfactuals.milp.exact_counterfactual": {"mask": [3, NAN], "target": [-2, 9], "label": [-1, 9]},
    "attacks.make": {"name": [NONE, "pdg"]},
    "data.load_images": {"split": ["nonsense", ""], "start": [-1], "count": [0]},
    "data.open_images": {"split": ["nonsense", ""]},
    "densities.fit_kde": {"bandwidth": [True, *NEVER]},
    "densities.fit_gmm": {"tolerance": BELOW, "floor": NEVER, "steps": [0]},
    "engine.antithetic": {"scale": [True, *NEVER, NONE], "samples": [0]},
    "engine.solve": {"progress": [3], "out": [""], "lanes": [0, -1]},
    "learn.afr": {"gamma": BELOW, "penalty": BELOW, "tol": BELOW, "max_steps": [-1, 0]},
    "learn.afr_weights": {"logits": [ROWS, TEXT], "gamma": BELOW},
    "learn.dfr": {"C": NEVER, "tol": BELOW, "max_steps": [-1, 0], "retrains": [0], "grid": [(), (0.0,), (INF,)]},
    "learn.fit": {"hooks": [MATRIX, TEXT]},
    "learn.group_dro": {"eta": BELOW, "adjustment": BELOW},
    "learn.jtt": {"upweight": NEVER},
    "learn.last_layer": {"example": [MATRIX]},
    "learn.predict": {"x": [MATRIX]},
    "metrics.bootstrap_worst": {"correct": [3, NONE, NAN, MATRIX], "count": [3, NAN, MATRIX, NONE]},
    "metrics.changed_pixels": {"atol": BELOW},
    "metrics.compare_counterfactuals": {"tolerance": BELOW},
    "metrics.diversity": {"tolerance": BELOW},
    "metrics.input_stability": {"tolerance": BELOW, "sd": NEVER, "x": [NONE], "seed": [-1], "repeats": [0]},
    "metrics.l2": {"bounds": [MATRIX, (1.0, 0.0)], "unit": ["pixels"]},
    "metrics.local_outlier_factor": {"train": [MATRIX], "points": [np.zeros((2, 9))]},
    "metrics.measure_counterfactuals": {
        "lof_neighbours": [-1, 0], "ynn_neighbours": [-1, 0], "retrained": [MATRIX, TEXT], "tolerance": BELOW,
    },
    "metrics.measure_overlap": {"level": BELOW, "share": NEVER},
    "metrics.neighbour_agreement": {
        "points": [MATRIX], "target": [3, NONE, NAN, MATRIX, TEXT], "train": [NONE, MATRIX], "said": [NONE, MATRIX],
    },
    "metrics.protected_flips": {"tolerance": BELOW},
    "metrics.retrained_validity": {"counterfactuals": [3, NAN], "predicts": [MATRIX, TEXT]},
    "metrics.wilson_interval": {"correct": [NONE, ROWS], "count": [NONE]},
    "models.agreement": {"x": [NONE]},
    "models.as_logits": {"mean": ["x", TEXT, {"a": 1}, NONE], "std": ["x", NONE, *NEVER], "example": [MATRIX, ROWS]},
    "models.distill": {"hidden": [MATRIX, TEXT], "rate": NEVER, "noise": BELOW, "copies": [-1]},
    "models.load": {"mean": [NONE, INF], "std": [NONE, *NEVER]},
    "recourse.explain_rows": {"lanes": [0, -1], "ids": [MATRIX, ["a"]]},
    "recourse.freeze": {"names": [MATRIX]},
    "recourse.plausibility_of": {"rows": [NAN, MATRIX, [10**6]]},
    "report.attack_section": {
        "results": [{"a": 1}], "table": [TEXT, MATRIX], "max_images": [-1], "size": [-1, 0], "unit": ["pixels", ""],
    },
    "solvers.minimize": {
        "x0": [NAN, MATRIX], "step_size": [NONE, ROWS, *NEVER], "tol": [NONE, np.ones(3), NAN, True, *BELOW],
        "max_steps": [2**40, 2**70, NONE, np.ones(3), 1.5, True, 0],
        "shrink": [NONE, np.ones(3), NAN, True, 1.0, *NEVER],
        "momentum": [np.ones(3), NAN, True, NONE, 1.0, *BELOW], "backtracking": [3],
    },
}  # fmt: skip


@pytest.mark.parametrize("name", MISFITS)
def test_what_does_not_fit(name: str) -> None:
    for argument, values in MISFITS[name].items():
        for value in values:
            with pytest.raises(BadArgument) as caught:
                function_of(name)(**{**CALLS[name](), argument: value})
            said = str(caught.value)
            assert "\n" not in said, (argument, value)
            assert len(said) < 500, (argument, value)


def test_there_are_many() -> None:
    assert len(bad_calls()) >= 300


def test_a_wrong_number_is_refused_before_the_work_and_an_array_by_the_function() -> None:
    called = []

    @kinds_checked
    def own(steps: int, value: ArrayLike = 0.0, name: str = "a", rate: float = 1.0) -> int:
        called.append(steps)
        if isinstance(value, str):
            raise BadArgument("value", "hold no text", value)
        return int(steps)

    for value, said in (
        (2.5, "steps must be a whole number, was 2.5"),
        ("x", "steps must be a whole number, was 'x'"),
        (2**40, "steps must be a whole number up to 2147483647, was 1099511627776"),
        (True, "steps must be a whole number, was True"),
    ):
        with pytest.raises(BadArgument) as caught:
            own(value)
        assert str(caught.value) == said
    with pytest.raises(BadArgument, match="rate must be a finite number, was inf"):
        own(3, rate=INF)
    assert not called
    with pytest.raises(BadArgument, match="value must hold no text, was 'a'"):  # its own words come first
        own(3, "a")
    with pytest.raises(BadArgument, match="value must be an array of numbers, was <obj"):  # though it takes this
        own(3, object())  # type: ignore[arg-type]
    with pytest.raises(BadArgument, match="name must be text, was 3"):
        own(3, name=3)  # type: ignore[arg-type]
    for value in (3, 3.0, np.int64(3), jnp.int32(3)):
        assert own(value) == 3  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="unexpected keyword"):
        own(3, wrong=1)  # type: ignore[call-arg]
    assert jax.jit(lambda x: own(3, x) + x)(1.0) == 4


@pytest.mark.parametrize("name", ["campaign.classify", "learn.errors_of", "learn.predict", "solvers.minimize"])
def test_arrays_over_a_mesh(name: str) -> None:
    """On explicit axes, which ``jax.make_mesh`` makes: the answers of plain arrays. ``solve``: test_evaluator.py."""
    mesh = jax.make_mesh((2,), ("data",), axis_types=(jax.sharding.AxisType.Explicit,))
    over = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("data"))
    given = CALLS[name]()
    laid = {
        key: jax.device_put(jnp.asarray(value), over) if isinstance(value, np.ndarray) else value
        for key, value in given.items()
    }
    plain, sharded = (jax.tree.leaves(function_of(name)(**arguments)) for arguments in (given, laid))
    for one, other in zip(plain, sharded, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-6)
