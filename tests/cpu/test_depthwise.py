"""Depthwise convolutions written out on CPU: the values and derivatives of jax's own rule, and no convolution left."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from invjax import engine
from invjax.cpu.depthwise import MOST_TAPS, Windows, depthwise

pytestmark = pytest.mark.skipif(jax.default_backend() != "cpu", reason="the remedy is for the CPU backend alone")
NHWC, NCHW = ("NHWC", "HWIO", "NHWC"), ("NCHW", "OIHW", "NCHW")
# (height, width, channels), kernel, stride, dilation, padding
CASES = {
    "same": ((9, 7, 5), 3, 1, 1, "SAME"),
    "strided": ((9, 8, 5), 3, 2, 1, "SAME"),
    "strided, 5": ((8, 8, 4), 5, 2, 1, "SAME"),
    "stride 3, pixels left over": ((10, 7, 3), 3, 3, 1, "VALID"),
    "dilated": ((11, 12, 4), 3, 1, 2, "SAME"),
    "strided, dilated, lopsided": ((11, 9, 4), 3, 2, 2, ((2, 1), (0, 3))),
    "kernel 1": ((6, 6, 4), 1, 2, 1, "VALID"),
    "kernel larger than the image": ((4, 4, 3), 5, 1, 1, "SAME"),
    "negative padding": ((4, 4, 3), 3, 2, 1, ((-1, 2), (0, 1))),
}


@pytest.fixture(autouse=True)
def in_force() -> Any:
    cache = jax.config.jax_enable_compilation_cache
    jax.config.update("jax_enable_compilation_cache", False)
    assert engine.install_canonical_convolutions()
    yield
    assert engine.install_canonical_convolutions()
    jax.config.update("jax_enable_compilation_cache", cache)


def program(case: str, numbers: Any, dtype: Any = np.float32) -> tuple[Any, tuple[jax.Array, jax.Array]]:
    """A function of (image, kernel) that gives the output and every kind of derivative; and arguments for it."""
    shape, k, stride, dilation, padding = CASES[case]
    rng = np.random.default_rng(0)
    x, w = rng.normal(size=(2, *shape)), rng.normal(size=(k, k, 1, shape[-1]))
    if numbers == NCHW:
        x, w = x.transpose(0, 3, 1, 2), w.transpose(3, 2, 0, 1)

    def convolve(x: Any, w: Any) -> Any:
        return lax.conv_general_dilated(
            x, w, (stride, stride), padding, rhs_dilation=(dilation, dilation), dimension_numbers=numbers,
            feature_group_count=shape[-1],
        )  # fmt: skip

    def run(x: Any, w: Any) -> Any:
        gradient = jax.grad(lambda x, w: jnp.sum(jnp.sin(convolve(x, w))), (0, 1))
        tangent = jnp.cos(x)
        return {
            "value": convolve(x, w),
            "gradients, second order": jax.jvp(lambda x: gradient(x, w), (x,), (tangent,)),
            "vmap": jax.vmap(lambda one: convolve(one[None], w)[0])(x),
        }

    return run, (jnp.asarray(x, dtype), jnp.asarray(w, dtype))


@pytest.mark.parametrize(
    ("case", "numbers"), [*((case, NHWC) for case in CASES), ("strided", NCHW)], ids=[*CASES, "strided nchw"]
)
def test_like_the_default(case: str, numbers: Any) -> None:
    run, arguments = program(case, numbers)
    ours = jax.jit(run).lower(*arguments)
    assert "stablehlo.convolution" not in ours.as_text()
    got = ours.compile()(*arguments)
    engine.uninstall_canonical_convolutions()
    want = jax.jit(lambda *a: run(*a))(*arguments)
    for name in want:
        for u, v in zip(jax.tree.leaves(got[name]), jax.tree.leaves(want[name]), strict=True):
            assert u.dtype == v.dtype
            np.testing.assert_allclose(u, v, rtol=1e-5, atol=2e-5, err_msg=name)


@pytest.mark.fast
def test_in_a_loop_of_bfloat16() -> None:
    """Sums are in float32: the result is the rounded exact one, and of the same type."""
    x, w = (np.random.default_rng(1).normal(size=s) for s in ((1, 6, 6, 3), (3, 3, 1, 3)))
    x, w = jnp.asarray(x, jnp.bfloat16), jnp.asarray(w, jnp.bfloat16)
    run = jax.jit(
        lambda x, w: lax.fori_loop(
            0, 1,
            lambda _, y: lax.conv_general_dilated(
                y, w, (1, 1), "SAME", dimension_numbers=NHWC, feature_group_count=3
            ),
            x,
        )
    )  # fmt: skip
    exact = depthwise(x.astype(jnp.float32), w.astype(jnp.float32), Windows((1, 1), ((1, 1), (1, 1)), (1, 1), (1, 1)))
    assert run(x, w).dtype == jnp.bfloat16
    np.testing.assert_array_equal(np.asarray(run(x, w), np.float32), np.asarray(exact.astype(jnp.bfloat16), np.float32))


@pytest.mark.fast
@pytest.mark.parametrize(
    ("channels", "inputs", "outputs", "kernel"),
    [(4, 2, 4, 3), (4, 1, 8, 3), (3, 3, 5, 3), (2, 1, 2, MOST_TAPS + 1)],
    ids=["groups of two", "two outputs per channel", "one group", "too many taps"],
)
def test_others_stay_convolutions(channels: int, inputs: int, outputs: int, kernel: int) -> None:
    x, w = jnp.zeros((1, 5, 60, channels)), jnp.zeros((1, kernel, inputs, outputs))
    convolve = lambda x, w: lax.conv_general_dilated(  # noqa: E731
        x, w, (1, 1), "SAME", dimension_numbers=NHWC, feature_group_count=channels // inputs
    )
    assert "stablehlo.convolution" in jax.jit(convolve).lower(x, w).as_text()
