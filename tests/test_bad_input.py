"""Bad arguments of ``solve``: a ValueError that names the argument, what it must be and what it was."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import nets
import numpy as np
import pytest

import invjax
from invjax import BadArgument, attacks, counterfactuals
from invjax.attacks import FGSM, GSE, PGD, SAIF, GSEReleased, LocalSearch, SparseRS
from invjax.core.config import config as config_class
from invjax.core.config import kind_of, typed
from invjax.counterfactuals import SCFE
from invjax.learn import ERM, Adversary, GroupDRO, Optimiser

pytestmark = pytest.mark.fast

TASK = nets.task(nets.conv(), count=4)


def changed(array: np.ndarray, index: Any, value: Any) -> np.ndarray:
    array = array.copy()
    array[index] = value
    return array


def one_class(params: Any, x: Any) -> Any:
    return x.reshape(x.shape[0], -1)[:, :1]


def flat(params: Any, x: Any) -> Any:
    return x.sum((1, 2, 3))


def pooled(params: Any, x: Any) -> Any:
    return x.mean((1, 2, 3))[None, :].repeat(3, 0)


OTHER = np.flatnonzero(np.arange(4) != TASK.label[2])[0]
NAN, INF = float("nan"), float("inf")
# what changes, and what the message must hold
CASES: dict[str, tuple[dict[str, Any], str]] = {
    "label too large": ({"label": changed(TASK.label, 2, 4)}, r"label must lie in \[0, 4\), .* was 4 at index 2"),
    "label negative": ({"label": changed(TASK.label, 1, -1)}, r"label must lie in \[0, 4\), .* was -1 at index 1"),
    "labels as floats": ({"label": TASK.label.astype(float)}, "label must be integer class indices, was float64"),
    "labels as text": (
        {"label": TASK.label.astype(str)}, rf"label must be integer class indices, was '{TASK.label[0]}' at index 0",
    ),
    "labels beyond 32 bits": (
        {"label": changed(TASK.label.astype(np.int64), 2, 2**32 + 1)}, "label must lie in .*, was 4294967297 at ind",
    ),
    "labels as bool": ({"label": TASK.label > 1}, "label must be integer class indices, was bool"),
    "too few labels": ({"label": TASK.label[:3]}, r"label must have .* shape \(4,\), was of shape \(3,\)"),
    "one-hot labels": ({"label": np.eye(4, dtype=int)}, r"label must have one entry.* was of shape \(4, 4\)"),
    "target out of range": (
        {"target": changed(TASK.target, 0, 9)},
        r"target must lie in \[0, 4\), .* was 9 at index 0",
    ),
    "target -1": ({"target": changed(TASK.target, 0, -1)}, r"target must lie in \[0, 4\), .* was -1 at index 0"),
    "target equals label": (
        {"target": changed(TASK.target, 3, TASK.label[3])},
        rf"target must differ from label, was {TASK.label[3]} at index 3",
    ),
    "one target for four": ({"target": 1}, r"target must have one entry per example, shape \(4,\), was of shape \(\)"),
    "x above": ({"x": changed(TASK.x, (1, 2, 3, 0), 1.5)}, r"x must lie within bounds .*, was 1.5 at .*\(1, 2, 3, 0\)"),
    "x below": ({"x": changed(TASK.x, (0, 0, 0, 0), -0.5)}, r"x must lie within bounds .*, was -0.5 at"),
    "x outside its own bounds": (
        {"bounds": (np.full(nets.SMALL, 0.0), np.full(nets.SMALL, 0.05))}, "x must lie within bounds",
    ),
    "NaN pixel": ({"x": changed(TASK.x, (3, 0, 1, 0), NAN)}, r"x must be finite, was nan at index \(3, 0, 1, 0\)"),
    "infinite pixel": ({"x": changed(TASK.x, (3, 0, 1, 0), INF)}, "x must be finite, was inf"),
    "uint8": ({"x": (255 * TASK.x).astype(np.uint8)}, r"x must be floating point in the data range .*, was uint8"),
    "uint8 and bounds": (
        {"x": np.zeros((4, 8, 8, 1), np.uint8), "bounds": 3},
        r"bounds must be a pair|x must be float",
    ),
    "channel first": (
        {"x": TASK.x.transpose(0, 3, 1, 2)},
        r"logits must accept x of shape \[B, 1, 8, 8\] \(channel last\)",
    ),
    "another size": ({"x": TASK.x[:, :5]}, r"logits must accept x of shape \[B, 5, 8, 1\]"),
    "empty list": (
        {"x": TASK.x[:0], "label": TASK.label[:0], "target": None},
        r"x must hold at least one .* \(0, 8, 8, 1\)",
    ),
    "empty image": ({"x": TASK.x[:, :0]}, r"x must hold at least one example.*was of shape \(4, 0, 8, 1\)"),
    "no image axis": ({"x": TASK.x[:, 0, 0, 0]}, r"x must hold at least one example|logits must accept x"),
    "a string": ({"x": "digits.npz"}, "x must"),
    "bounds a number": ({"bounds": 1.0}, r"bounds must be a pair \(lower, upper\), was 1.0"),
    "bounds reversed": ({"bounds": (1.0, 0.0)}, r"bounds must have lower <= upper everywhere, was \(1.0, 0.0\)"),
    "bounds of another shape": (
        {"bounds": (np.zeros((8, 8)), 1)},
        r"bounds lower must be a scalar or of shape \(8, 8, 1\)",
    ),
    "bounds infinite": ({"bounds": (0.0, INF)}, "bounds upper must be finite, was inf"),
    "bounds NaN": ({"bounds": (NAN, 1.0)}, "bounds lower must be finite, was nan"),
    "bounds without room": ({"bounds": (0.5, 0.5)}, "bounds must leave room to move"),
    "mask of floats": ({"mask": np.ones(nets.SMALL)}, "mask must be bool, was float64"),
    "mask of another shape": ({"mask": np.ones((8, 8), bool)}, r"mask must have shape \(8, 8, 1\) or \(4, 8, 8, 1\)"),
    "mask empty": (
        {"mask": np.zeros(nets.SMALL, bool)},
        "mask must leave at least one coordinate free, was empty at index 0",
    ),
    "groups of floats": ({"groups": np.ones(nets.SMALL)}, "groups must be integer, was float64"),
    "groups of another shape": ({"groups": np.ones((4,), int)}, r"groups must have shape \(8, 8, 1\)"),
    "ids": ({"ids": np.arange(3)}, r"ids must have one entry per example, shape \(4,\), was of shape \(3,\)"),
    "ids of floats": ({"ids": np.linspace(0, 1, 4)}, "ids must be integers, was float64"),
    "ids too long": (
        {"ids": [0, 1, 2**40, 3]},
        r"ids must lie in \[-2147483648, 2147483647\], was 1099511627776 at index 2",
    ),
    "key a number": ({"key": 0}, r"key must be one PRNG key, e.g. jax.random.key\(0\), was 0"),
    "several keys": ({"key": jax.random.split(jax.random.key(0), 4)}, r"key must be one PRNG key.* shape \(4,\)"),
    "key of another type": ({"key": np.zeros(2)}, "key must be one PRNG key.* float64"),
    "rows of unequal length": (
        {"x": [TASK.x[0], TASK.x[1, :2]]},
        "x must be an array, or rows of equal shape, was a list",
    ),
    "no labels": ({"label": None}, "label must be the class of each example .*, was None"),
    "lanes 0": ({"lanes": 0}, "lanes must be a whole number >= 1, was 0"),
    "lanes half": ({"lanes": 2.5}, "lanes must be a whole number or .auto., was 2.5"),
    "logits not callable": ({"logits": 3}, "logits must be a function .*, was int"),
    "logits None": ({"logits": None}, "logits must be a function .*, was NoneType"),
    "one class": (
        {"logits": invjax.LogitsModel({}, one_class)},
        r"logits must return \[B, K\] with K >= 2 classes, was \(8, 1\) for a batch of 8",
    ),
    "no class axis": ({"logits": invjax.LogitsModel({}, flat)}, r"logits must return \[B, K\] .* was \(8,\)"),
    "mixed axes": ({"logits": invjax.LogitsModel({}, pooled)}, r"logits must return \[B, K\] .* was \(3, 8\)"),
    "two classes for labels of four": (
        {"logits": nets.conv(classes=2)},
        r"label must lie in \[0, 2\), the classes of logits",
    ),
    "method a string": ({"method": "pgd"}, r"method must be a method's configuration, e.g. PGD\(\), was 'pgd'"),
    "method a class": ({"method": PGD}, r"method must be a method's configuration"),
    "method a function": ({"method": FGSM}, r"method must be a method's configuration"),
    "method None": ({"method": None}, r"method must be a method's configuration, .* was None"),
    "eps": ({"method": PGD(eps=-1.0)}, r"PGD.eps must be a radius >= 0, was -1.0"),
    "eps NaN": ({"method": PGD(eps=NAN)}, r"PGD.eps must be a radius >= 0, was nan"),
    "eps a string": (
        {"method": PGD(eps="8/255")},
        r"PGD.eps must be a radius >= 0, was '8/255'",
    ),
    "eps several": (
        {"method": PGD(eps=np.ones(3))},
        r"PGD.eps must be a radius >= 0, was array",
    ),
    "step": ({"method": PGD(step_size=0)}, r"PGD.step_size must be above 0, was 0"),
    "steps": ({"method": PGD(steps=0)}, r"PGD.steps must be at least 1, was 0"),
    "steps a fraction": (
        {"method": PGD(steps=2.5)},
        r"PGD.steps must be a whole number, was 2.5",
    ),
    "norm": ({"method": PGD(norm="l1")}, r"PGD.norm must be one of 'linf', 'l2', was 'l1'"),
    "loss": ({"method": PGD(loss="hinge")}, r"PGD.loss must be one of 'cross_entropy', 'margin', was 'hinge'"),
    "gse step size": ({"method": GSEReleased(step_size=0.0)}, r"GSEReleased.step_size must be above 0, was 0.0"),
    "gse far divisor": ({"method": GSEReleased(far_divisor=2.0)}, r"far_divisor must be in \(0, 1\], was 2.0"),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_solve(case: str) -> None:
    arguments, message = CASES[case]
    given = {
        "logits": TASK.net, "x": TASK.x, "label": TASK.label, "target": TASK.target, "method": PGD(), **arguments,
    }  # fmt: skip
    with pytest.raises(ValueError, match=message):
        invjax.solve(given.pop("logits"), given.pop("x"), given.pop("label"), **given)


def test_flat_inputs_for_an_image_method() -> None:
    task = nets.task(nets.linear((6,)), (6,), count=3)
    with pytest.raises(ValueError, match=r"x must be images \[N, H, W, C\] for GSE, was examples of shape \(6,\)"):
        invjax.solve(task.net, task.x, task.label, method=GSE())


def test_labels_of_groups() -> None:
    """They count from 0 to the number of features less one: sums over groups would drop any other in silence."""
    tiles = np.arange(64).reshape(nets.SMALL)
    each = np.broadcast_to(tiles, (4, *nets.SMALL))
    for groups, message in (
        (changed(tiles, (0, 0, 0), -1), r"groups must hold labels in \[0, 64\), .*, was -1 at index \(0, 0, 0, 0\)"),
        (changed(tiles, (7, 7, 0), 64), r"groups must hold labels in \[0, 64\), .*, was 64 at index \(0, 7, 7, 0\)"),
        (changed(each, (2, 1, 3, 0), 99), r"groups must hold labels .*, was 99 at index \(2, 1, 3, 0\)"),
        (tiles.astype(np.uint32) - np.uint32(1), r"groups must hold labels .*, was 4294967295 at index"),
    ):
        with pytest.raises(ValueError, match=message):
            invjax.solve(TASK.net, TASK.x, TASK.label, method=PGD(), groups=groups)
    for groups in (tiles, each, tiles.astype(np.uint8)):
        invjax.solve(TASK.net, TASK.x, TASK.label, method=PGD(steps=1), groups=groups)


def test_single_examples() -> None:
    """A scalar label is one example, and is checked like a list."""
    x, label = TASK.x[2], TASK.label[2]
    with pytest.raises(ValueError, match=r"target must differ from label, was \d at index 0"):
        invjax.solve(TASK.net, x, label, target=label, method=PGD())
    with pytest.raises(ValueError, match=r"target must have one entry per example, shape \(1,\), was of shape \(4,\)"):
        invjax.solve(TASK.net, x, label, target=TASK.target, method=PGD())
    with pytest.raises(ValueError, match=r"logits must accept x of shape \[B, 4, 8, 8, 1\]"):
        invjax.solve(TASK.net, TASK.x, label, method=PGD())


def test_shapes_are_checked_under_jit_too() -> None:
    """Values are unknown there; shapes, dtypes and classes are not."""

    def run(x: Any, label: Any) -> Any:
        return invjax.solve(TASK.net, x, label, method=PGD())

    for x, label, message in (
        (TASK.x, TASK.label[:2], "label must have one entry per example"),
        (TASK.x, TASK.label.astype(np.float32), "label must be integer class indices, was float32"),
        (TASK.x.astype(np.int32), TASK.label, "x must be floating point"),
        (TASK.x[:, :4], TASK.label, "logits must accept x of shape"),
    ):
        with pytest.raises(ValueError, match=message):
            jax.jit(run)(x, label)


def test_attack_names() -> None:
    with pytest.raises(ValueError, match=r"attack must be one of .*pgd.*, was 'pdg'"):
        attacks.make("pdg")
    with pytest.raises(ValueError, match=r"keywords must name constants of attack 'pgd' \(eps, .*\), was 'epsilon'"):
        attacks.make("pgd", epsilon=1)
    with pytest.raises(ValueError, match=r"GSE.variant must be chosen by class, GSEReleased\(\), was 'released'"):
        GSE("released")  # type: ignore[arg-type]


def configurations() -> list[Any]:
    """One of every class that ``config`` has made, with its default constants."""
    adversaries = [Adversary(), Optimiser(), ERM(), GroupDRO(np.ones(2), np.ones(2))]
    made = [make() for registry in (attacks.REGISTRY, counterfactuals.REGISTRY) for make in registry.values()]
    return list({type(one): one for one in [*made, *adversaries]}.values())


# By the kind of a field: what is none, whatever its range. Floats are finite unless the field is declared OPEN.
WRONG: dict[Any, tuple[Any, ...]] = {
    float: (NAN, "x", None, True, [], np.ones(3), 1j, 1e39, 2**1100, jnp.float32(NAN)),
    int: (NAN, INF, "x", None, True, [], np.ones(3), 1j, 1.5, 2**31, 2**63, 2**1100, -(2**40), jnp.float32(1.5)),
    bool: (NAN, 2, "x", None, [], np.ones(3), 0.5),
    str: (NAN, 2, "x", None, [], np.ones(3)),
}


@pytest.mark.parametrize("config", configurations(), ids=lambda config: type(config).__name__)
def test_every_constant_is_of_its_kind(config: Any) -> None:
    """The annotation of a field says what it holds; one line names the field, and no program is made."""
    config.check()
    for field in dataclasses.fields(config):
        kind, others = kind_of(field)
        wrong = list(WRONG.get(kind, ()))
        if kind is float and not (field.metadata.get("open") or field.default == INF):
            wrong += [INF, -INF]
        for value in wrong:
            array = isinstance(value, list | np.ndarray | jax.Array)
            if (value is None and "None" in others) or (array and others - {"None"}):
                continue
            with pytest.raises(BadArgument, match=rf"^({type(config).__name__}\.\w+|variant) must ") as caught:
                dataclasses.replace(config, **{field.name: value}).check()
            assert "\n" not in str(caught.value)
            assert len(str(caught.value)) < 400


def test_numbers_keep_the_kind_of_their_field() -> None:
    """Whole floats are counts, whole numbers are floats, 0 and 1 are truth values: the same program."""
    config = typed(PGD(eps=1, steps=np.float64(4), random_start=1, restarts=np.int64(2)))  # type: ignore[arg-type]
    assert [type(value) for value in (config.eps, config.steps, config.random_start)] == [float, int, bool]
    assert typed(PGD(eps=jnp.asarray(0.1, jnp.bfloat16), steps=jnp.int32(4))).steps == 4
    whole_box = SAIF(eps=INF, steps=4), PGD(eps=INF, step_size=0.1, steps=4), SCFE(gamma_max=INF)
    for method in whole_box:
        method.check()
    for ball in (PGD(eps=INF), PGD(eps=INF, step_size=0.1, restarts=2)):
        with pytest.raises(BadArgument, match=r"PGD.eps must be finite where step_size or a random start follows"):
            ball.check()


def test_no_point_that_is_not_finite_is_found() -> None:
    """A network that ignores the pixel of a broken method: the clean input, and a status that says so."""

    class State(NamedTuple):
        count: Any
        status: Any

    def tell(ctx: Any, problem: Any, config: Any, state: State, ev: Any) -> State:
        status = jnp.where(state.count == 0, invjax.Status.PENDING, invjax.Status.FOUND).astype(jnp.int32)
        return State(state.count + 1, status)

    def outcome(ctx: Any, problem: Any, config: Any, state: State) -> invjax.Outcome:
        return invjax.Outcome(problem.x.at[0, 0].set(NAN), state.status, problem.x.at[0, 0].set(INF * 0))

    @config_class
    class Broken:
        method: ClassVar[invjax.Method]

    Broken.method = invjax.Method(
        "broken",
        lambda ctx, problem, config: State(jnp.int32(0), jnp.int32(0)),
        lambda ctx, problem, config, state: problem.x,
        lambda ctx, problem, config, state, point, logits: logits[0],
        tell,
        result=outcome,
    )
    result = invjax.solve(TASK.net, TASK.x, TASK.label, method=Broken())
    assert (np.asarray(result.status) == invjax.Status.NONFINITE).all()
    np.testing.assert_array_equal(result.x, TASK.x)
    np.testing.assert_array_equal(result.attempt, TASK.x)


def test_nothing_is_written_for_a_bad_call(tmp_path: Path) -> None:
    out = tmp_path / "run"
    with pytest.raises(ValueError, match="label must lie in"):
        invjax.solve(TASK.net, TASK.x, TASK.label + 4, method=PGD(), out=out)
    with pytest.raises(ValueError, match="lanes must be a whole number >= 1"):
        invjax.solve(TASK.net, TASK.x, TASK.label, method=PGD(), out=out, lanes=0)
    mesh = jax.sharding.Mesh(np.array(jax.devices()[:8]), ("lanes",))
    with pytest.raises(ValueError, match="lanes must be a multiple of the 8 devices"):
        invjax.solve(TASK.net, TASK.x, TASK.label, method=PGD(), out=out, mesh=mesh, lanes=4)
    assert not out.exists()


def test_a_method_that_depends_on_a_constant() -> None:
    """The number of candidates is a width of the method: it is looked at before the method is asked for."""
    for wrong in ("x", None, [], 2**31):
        with pytest.raises(BadArgument, match=r"LocalSearch.candidates must be"):
            invjax.solve(TASK.net, TASK.x, TASK.label, method=LocalSearch(candidates=wrong))  # type: ignore[arg-type]


def test_messages_name_what_was_given() -> None:
    """Every message of the table states an argument, a requirement and a value."""
    for case, (_, message) in CASES.items():
        assert re.search(r"must|bounds", message), case


def test_a_network_without_a_gradient() -> None:
    """A gradient attack says what to do instead; an attack by queries just works."""

    def answers(x: np.ndarray) -> np.ndarray:
        return np.asarray(x).reshape(len(x), -1)[:, :3].astype(np.float32)

    def net(x: jax.Array) -> jax.Array:
        return jax.pure_callback(answers, jax.ShapeDtypeStruct((x.shape[0], 3), jnp.float32), x)

    x = np.full((2, 4, 4, 1), 0.5, np.float32)
    x[:, 0, 0] = 0.6
    given = {"target": np.array([1, 2]), "progress": False}
    with pytest.raises(ValueError, match="logits must be differentiable for 'gse'"):
        invjax.solve(net, x, np.zeros(2, int), method=GSE(), **given)
    result = invjax.solve(net, x, np.zeros(2, int), method=SparseRS(k=3, queries=60), **given)
    assert (np.asarray(result.status) == invjax.Status.FOUND).all()
