"""Convolutions that stay in the fast form inside loops on CPU: read off the compiled program, without a clock.

(XLA swaps the operands of a convolution whose kernel is larger than its image: so 16 pixels and small kernels.)
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import nets
import numpy as np
import pytest
from jax import lax

import invjax
from invjax import engine
from invjax.attacks import GSE, PGD
from invjax.cpu import convolutions as cpu

fast = pytest.mark.fast
pytestmark = pytest.mark.skipif(jax.default_backend() != "cpu", reason="the remedy is for the CPU backend alone")
CANONICAL = "b01f_01io->b01f"
NHWC, NCHW = ("NHWC", "HWIO", "NHWC"), ("NCHW", "OIHW", "NCHW")


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    """Own programs (none read back from disk or memory), and the rule in force before and after."""
    cache = jax.config.jax_enable_compilation_cache
    jax.config.update("jax_enable_compilation_cache", False)
    assert engine.install_canonical_convolutions()
    yield
    assert engine.install_canonical_convolutions()
    jax.config.update("jax_enable_compilation_cache", cache)


def labels(compiled: Any) -> list[str]:
    return re.findall(r"dim_labels=(\S+?)[,\s]", compiled.as_text())


def network(numbers: tuple[str, str, str], stride: int = 1, groups: int = 1, dilation: int = 1) -> Callable[..., Any]:
    """Two convolutions with a relu between, summed up: [B, 16, 16, 4] (or [B, 4, 16, 16]) -> []."""

    def loss(x: Any, kernels: Any) -> Any:
        for kernel in kernels:
            x = lax.conv_general_dilated(
                x, kernel, (stride, stride), "SAME", rhs_dilation=(dilation, dilation), dimension_numbers=numbers,
                feature_group_count=groups,
            )  # fmt: skip
            x = jax.nn.relu(x)
        return jnp.sum(x**2)

    return loss


def arrays(numbers: tuple[str, str, str], groups: int = 1) -> tuple[Any, list[Any]]:
    rng = np.random.default_rng(0)
    x, kernels = rng.normal(size=(2, 16, 16, 4)), rng.normal(size=(2, 3, 3, 4 // groups, 4)) / 6
    if numbers == NCHW:
        x, kernels = x.transpose(0, 3, 1, 2), kernels.transpose(0, 4, 3, 1, 2)
    return jnp.asarray(x, jnp.float32), list(jnp.asarray(kernels, jnp.float32))


def descend(loss: Callable[..., Any], argnums: int = 0) -> Callable[..., Any]:
    """Two steps of gradient descent in a loop, where XLA's own pass does not reach."""

    def run(x: Any, kernels: Any) -> Any:
        def body(_: Any, carry: Any) -> Any:
            grads = jax.grad(loss, argnums)(*carry)
            moved = jax.tree.map(lambda u, g: u - 0.05 * g, carry[argnums], grads)
            return (moved, carry[1]) if argnums == 0 else (carry[0], moved)

        return lax.fori_loop(0, 2, body, (x, kernels))[argnums]

    return run


CASES = {
    "nhwc": (NHWC, {}),
    "nchw": (NCHW, {}),
    "strided": (NHWC, {"stride": 2}),
    "strided nchw": (NCHW, {"stride": 2}),
    "dilated": (NHWC, {"dilation": 2}),
    "grouped": (NHWC, {"groups": 2}),
}


@fast
@pytest.mark.parametrize("case", CASES)
def test_input_gradient_in_a_loop(case: str) -> None:
    """Every convolution is canonical, and the values are those of jax's own rule."""
    numbers, options = CASES[case]
    x, kernels = arrays(numbers, options.get("groups", 1))
    run = descend(network(numbers, **options))
    ours = jax.jit(run).lower(x, kernels).compile()
    found = labels(ours)
    assert len(found) >= 3
    assert set(found) == {CANONICAL}, found

    engine.uninstall_canonical_convolutions()
    plain = jax.jit(lambda *a: run(*a)).lower(x, kernels).compile()
    assert set(labels(plain)) != {CANONICAL}, "the remedy is no longer needed here"
    want, got = np.asarray(plain(x, kernels)), np.asarray(ours(x, kernels))
    assert np.abs(want - np.asarray(x)).max() > 1e-2
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-6)


PRODUCTS = {
    "pixel": (NHWC, (2, 5, 6, 3), (1, 1, 3, 4)),
    "pixel nchw": (NCHW, (2, 3, 5, 6), (4, 3, 1, 1)),
    "pixel odd layout": (("HNWC", "OHWI", "CWNH"), (5, 2, 6, 3), (4, 1, 1, 3)),
    "whole": (NHWC, (2, 5, 6, 3), (5, 6, 3, 4)),
    "whole nchw": (NCHW, (2, 3, 5, 6), (4, 3, 5, 6)),
    "sequence": (("NWC", "WIO", "NWC"), (2, 7, 3), (1, 3, 4)),
}


@pytest.mark.parametrize("case", PRODUCTS)
def test_matrix_products(case: str) -> None:
    """Values and both gradients are those of jax's own rule, without a convolution."""
    numbers, x_shape, w_shape = PRODUCTS[case]
    rng = np.random.default_rng(0)
    x, w = (jnp.asarray(rng.normal(size=shape), jnp.float32) for shape in (x_shape, w_shape))

    def conv(x: Any, w: Any) -> Any:
        return lax.conv_general_dilated(x, w, (1,) * (x.ndim - 2), "VALID", dimension_numbers=numbers)

    g = jnp.asarray(rng.normal(size=jax.eval_shape(conv, x, w).shape), jnp.float32)
    engine.uninstall_canonical_convolutions()
    want = jax.jit(lambda x, w: conv(x, w)), jax.jit(lambda x, w, g: jax.vjp(conv, x, w)[1](g))
    want = want[0](x, w), want[1](x, w, g)
    engine.install_canonical_convolutions()
    run = jax.jit(conv).lower(x, w).compile()
    assert not labels(run)
    np.testing.assert_allclose(run(x, w), want[0], rtol=1e-5, atol=1e-5)
    both = jax.jit(lambda x, w, g: jax.vjp(conv, x, w)[1](g)).lower(x, w, g).compile()
    assert bool(labels(both)) == case.startswith("whole")  # the input gradient of a whole window is padded
    for ours, theirs in zip(both(x, w, g), want[1], strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-5)


def test_no_product_of_what_is_strided_padded_or_grouped() -> None:
    x, w = jnp.ones((2, 6, 6, 4)), jnp.ones((1, 1, 4, 4))
    for options in (
        {"window_strides": (2, 2)},
        {"padding": [(1, 0), (0, 0)]},
        {"lhs_dilation": (2, 1)},
        {"feature_group_count": 2},
    ):
        how = {"window_strides": (1, 1), "padding": [(0, 0), (0, 0)], "dimension_numbers": NHWC, **options}
        kernel = w[:, :, :2] if "feature_group_count" in options else w
        run = jax.jit(lambda x, w, how=how: lax.conv_general_dilated(x, w, **how))
        assert labels(run.lower(x, kernel).compile())
        np.testing.assert_allclose(np.asarray(run(x, kernel)).max(), 2 if "feature_group_count" in options else 4)


@pytest.mark.parametrize(("numbers", "groups"), [(NHWC, 1), (NCHW, 1), (NCHW, 2)], ids=["nhwc", "nchw", "grouped"])
def test_other_transformations(numbers: tuple[str, str, str], groups: int) -> None:
    """Weight gradients, vmap, forward mode and second order go through the same rule."""
    x, kernels = arrays(numbers, groups)
    loss = network(numbers, groups=groups)
    programs = {
        "weights": descend(loss, argnums=1),
        "vmap": lambda x, kernels: jax.vmap(lambda u: jax.grad(loss)(u[None], kernels)[0])(x),
        "forward": lambda x, kernels: jax.jvp(lambda u: loss(u, kernels), (x,), (jnp.ones_like(x),))[1],
        "second": lambda x, kernels: jax.jvp(lambda u: jax.grad(loss)(u, kernels), (x,), (jnp.ones_like(x),))[1],
    }
    compiled = {name: jax.jit(program).lower(x, kernels).compile() for name, program in programs.items()}
    if groups == 1:  # XLA itself gives the weight gradient of a grouped convolution another dimension
        assert set(labels(compiled["weights"])) == {CANONICAL}
    engine.uninstall_canonical_convolutions()
    for name, program in programs.items():
        want = jax.jit(lambda *a, program=program: program(*a))(x, kernels)
        for u, v in zip(jax.tree.leaves(compiled[name](x, kernels)), jax.tree.leaves(want), strict=True):
            np.testing.assert_allclose(u, v, rtol=2e-4, atol=1e-4, err_msg=name)


def _image_net(params: Any, x: Any) -> Any:
    hidden = x.transpose(0, 3, 1, 2)
    for k, kernel in enumerate(params["kernels"]):
        hidden = lax.conv_general_dilated(hidden, kernel, (k + 1, k + 1), "SAME", dimension_numbers=NCHW)
        hidden = jax.nn.relu(hidden)
    return hidden.mean((2, 3)) @ params["w"]


def image_task() -> nets.Task:
    """A channel-first network of two convolutions on 16x16 images."""
    rng = np.random.default_rng(1)
    params = {
        "kernels": [rng.normal(size=s).astype(np.float32) / 3 for s in ((5, 1, 3, 3), (6, 5, 3, 3))],
        "w": rng.normal(size=(6, 3)).astype(np.float32),
    }
    return nets.task(invjax.LogitsModel(params, _image_net), (16, 16, 1), count=3)


def forms(compiled: Any, operation: str) -> list[tuple[str, str]]:
    """Shape and layout of what each ``operation`` gives, with its window or its order of axes."""
    found = re.findall(rf" = (\S+) {operation}\([^)]*\), ((?:window|dimensions)=\{{[^}}]*\}})", compiled.as_text())
    return sorted(found)


def convolutions(text: str) -> int:
    """Convolutions in StableHLO text; a function called twice is counted once, as it stands."""
    return len(re.findall(r"stablehlo\.convolution", text))


@pytest.mark.parametrize("method", [pytest.param(PGD(steps=3), marks=fast), GSE(patience=2)], ids=["pgd", "gse"])
def test_the_engine_calls_the_network_once(method: Any) -> None:
    """The program of a whole run holds the convolutions of one value-and-gradient, all canonical."""
    task = image_task()
    ctx, problems, config, chosen, key, _ = engine.prepare(
        task.net, task.x, task.label, method=method, target=task.target
    )
    problems = engine.checks.with_keys(problems, key)

    def value(x: Any, net: Any) -> Any:
        logits = net(x)
        return jax.vmap(invjax.losses.margin)(logits, task.label, task.target).sum(), logits

    bare = jax.jit(jax.value_and_grad(value, has_aux=True)).lower(jnp.asarray(task.x), task.net)
    whole = engine.run_batch.lower(ctx, problems, config, method=chosen)
    assert convolutions(bare.as_text()) == 4  # two forward, two backward
    assert convolutions(whole.as_text()) == 4
    loop, once = whole.compile(), bare.compile()
    compiled = labels(loop)
    assert len(compiled) == 4
    assert set(compiled) == {CANONICAL}
    # In the body of the loop XLA finds what it finds in a program of one call, and adds nothing around it.
    for operation in ("convolution", "transpose"):
        assert forms(loop, operation) == forms(once, operation)
    # The queue's chunk is the same loop.
    _, lanes = engine.programs._begin(ctx, config, key, problems._replace(key=None), method=chosen, mesh=None)
    chunk = engine.programs._chunk.lower(
        ctx, config, problems, lanes, np.int32(4), np.int32(0), method=chosen, evaluator=engine.white_box, mesh=None
    )
    assert convolutions(chunk.as_text()) == 4


def test_solve_installs_the_rule() -> None:
    """Nobody has to ask for it; and it is installed once."""
    engine.uninstall_canonical_convolutions()
    assert cpu.replaced_rule() is None
    task = image_task()
    invjax.solve(task.net, task.x, task.label, method=PGD(steps=1))
    rule = cpu.replaced_rule()
    assert rule is not None
    invjax.solve(task.net, task.x, task.label, method=PGD(steps=1))
    assert cpu.replaced_rule() is rule, "installed twice, the rule would wrap itself"


@fast
def test_off_switch(monkeypatch: pytest.MonkeyPatch) -> None:
    engine.uninstall_canonical_convolutions()
    monkeypatch.setenv("INVJAX_CANONICAL_CONV", "0")
    assert not engine.install_canonical_convolutions()
    assert cpu.replaced_rule() is None
    x, kernels = arrays(NCHW)
    compiled = jax.jit(descend(network(NCHW))).lower(x, kernels).compile()
    assert set(labels(compiled)) != {CANONICAL}


@fast
def test_without_the_private_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """A jax that hides its lowerings: a warning, no rule, and everything still works."""
    engine.uninstall_canonical_convolutions()
    with monkeypatch.context() as patch:
        patch.setattr(cpu, "mlir", object())
        with pytest.warns(RuntimeWarning, match="convolutions inside loops will be slow on CPU"):
            assert not engine.install_canonical_convolutions()
    assert cpu.replaced_rule() is None
