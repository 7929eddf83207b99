"""Pixel support, window count and blur, against hand values, scipy, torch's definition and brute force."""

from __future__ import annotations

import importlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage

from invjax.core import windows as images

pytestmark = pytest.mark.fast

# its place differs between versions of jax
enable_x64 = jax.enable_x64 if hasattr(jax, "enable_x64") else importlib.import_module("jax.experimental").enable_x64

# compiled: one program per shape instead of one per operation
window_count = jax.jit(images.window_count, static_argnums=1)
gaussian_blur = jax.jit(images.gaussian_blur, static_argnames=("size", "sigma"))


def brute_windows(flags: np.ndarray, n: int) -> int:
    h, w = min(n, flags.shape[0]), min(n, flags.shape[1])
    count = 0
    for a in range(flags.shape[0] - h + 1):
        for b in range(flags.shape[1] - w + 1):
            count += bool(flags[a : a + h, b : b + w].any())
    return count


def test_changed_counts_any_channel_and_any_size() -> None:
    r = np.zeros((3, 4, 3), np.float32)
    r[0, 1, 2] = -1e-30
    r[2, 3] = [1.0, -1.0, 0.0]  # sums to 0 over the channels, yet is a change
    expected = np.zeros((3, 4), bool)
    expected[0, 1] = expected[2, 3] = True
    np.testing.assert_array_equal(images.changed(jnp.asarray(r)), expected)
    assert images.changed(jnp.asarray(r)).dtype == bool
    assert bool(images.changed(jnp.full((1, 1, 1), jnp.nan))[0, 0])
    assert bool(images.changed(jnp.ones((1, 1, 1), jnp.int32))[0, 0])
    with pytest.raises(ValueError, match=r"r must be one image \[H, W, C\]"):
        images.changed(jnp.zeros((2, 3, 4, 1)))


@pytest.mark.parametrize(
    ("rows", "columns", "expected"),
    [
        (slice(0, 1), slice(0, 1), 1),  # a corner pixel
        (slice(31, 32), slice(0, 1), 1),
        (slice(15, 16), slice(15, 16), 64),  # an interior pixel
        (slice(14, 17), slice(14, 17), 100),  # a 3×3 interior block
        (slice(0, 1), slice(15, 16), 8),  # the middle of an edge
        (slice(0, 32), slice(0, 32), 625),
        (slice(0, 0), slice(0, 0), 0),
    ],
)
def test_window_count_hand_values(rows: slice, columns: slice, expected: int) -> None:
    flags = np.zeros((32, 32), bool)
    flags[rows, columns] = True
    count = window_count(jnp.asarray(flags))
    assert count.dtype == jnp.int32
    assert count.shape == ()
    assert int(count) == expected


@pytest.mark.parametrize(
    ("height", "width", "window"), [(1, 1, 1), (1, 9, 3), (7, 4, 8), (14, 9, 8), (10, 10, 7), (6, 13, 5), (9, 9, 2)]
)
def test_window_count_equals_brute_force(height: int, width: int, window: int) -> None:
    generator = np.random.default_rng(height * width + window)
    flags = generator.random((40, height, width)) < generator.uniform(0, 0.4, (40, 1, 1))
    counts = jax.jit(jax.vmap(lambda f: images.window_count(f, window)))(flags)
    np.testing.assert_array_equal(counts, [brute_windows(f, window) for f in flags])


def test_window_larger_than_the_image_is_clipped() -> None:
    flags = jnp.zeros((5, 20), bool).at[2, 3].set(True)
    assert int(window_count(flags, 8)) == 4  # one row of windows; columns 0..3 of 13 start positions reach 3
    assert int(window_count(jnp.ones((3, 3), bool), 8)) == 1


def test_window_count_under_jit_and_vmap_and_of_numbers() -> None:
    flags = np.random.default_rng(0).random((6, 12, 12)) < 0.03
    expected = [brute_windows(f, 8) for f in flags]
    np.testing.assert_array_equal(jax.jit(jax.vmap(images.window_count))(flags), expected)
    np.testing.assert_array_equal(jax.vmap(images.window_count)(flags.astype(np.float32) * 0.5), expected)


@pytest.mark.parametrize(("bad", "message"), [(0, "window must be"), (-3, "was -3")])
def test_window_count_refuses(bad: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        window_count(jnp.ones((4, 4), bool), bad)
    with pytest.raises(ValueError, match=r"changed must be one plane"):
        window_count(jnp.ones((4, 4, 1), bool))


@pytest.mark.parametrize("shape", [(32, 32), (7, 3), (3, 3), (2, 9), (1, 4), (1, 1)])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_blur_equals_scipy_with_mirrored_edges(shape: tuple[int, int], dtype: type) -> None:
    with enable_x64(True):
        m = np.random.default_rng(1).random(shape).astype(dtype)
        blurred = gaussian_blur(jnp.asarray(m))
        assert blurred.dtype == dtype
        # truncate · σ = 2 keeps 5 taps; scipy calls this mode "mirror"
        expected = ndimage.gaussian_filter(m.astype(np.float64), 1.5, mode="mirror", truncate=2 / 1.5)
        np.testing.assert_allclose(blurred, expected, rtol=1e-6 if dtype is np.float32 else 1e-13)


def test_blur_of_one_pixel_is_the_kernel() -> None:
    m = jnp.zeros((9, 9)).at[4, 4].set(1.0)
    k = np.exp(-(np.arange(-2, 3) ** 2) / 4.5)
    k /= k.sum()
    expected = np.zeros((9, 9))
    expected[2:7, 2:7] = np.outer(k, k)
    np.testing.assert_allclose(gaussian_blur(m), expected, atol=1e-7)
    assert float(jnp.sum(gaussian_blur(jnp.ones((6, 5))))) == pytest.approx(30, rel=1e-6)


@pytest.mark.parametrize("shape", [(1, 1), (1, 7), (2, 2), (3, 9), (4, 5), (9, 8)])
def test_blur_is_positive_exactly_where_the_window_sees_something(shape: tuple[int, int]) -> None:
    m = np.random.default_rng(sum(shape)).random((40, *shape)) < 0.06
    blurred = np.asarray(jax.jit(jax.vmap(images.gaussian_blur))(m))
    assert blurred.dtype == np.float32
    seen = np.stack([ndimage.maximum_filter(one, size=5, mode="constant", cval=0) for one in m])
    np.testing.assert_array_equal(blurred > 0, seen)
    assert np.all(blurred[~seen] == 0)


def test_blur_equals_torch_reflect() -> None:
    torch = pytest.importorskip("torch")
    m = np.random.default_rng(2).random((10, 6)).astype(np.float32)
    k = np.exp(-(np.arange(-2, 3) ** 2) / 4.5)
    kernel = torch.tensor(np.outer(k, k) / k.sum() ** 2, dtype=torch.float32)[None, None]
    padded = torch.nn.functional.pad(torch.tensor(m)[None, None], (2, 2, 2, 2), mode="reflect")
    expected = torch.nn.functional.conv2d(padded, kernel)[0, 0].numpy()
    np.testing.assert_allclose(gaussian_blur(jnp.asarray(m)), expected, atol=1e-6)


def test_blur_in_jit_vmap_has_no_convolution_and_other_sizes_work() -> None:
    m = np.random.default_rng(3).random((3, 12, 8)).astype(np.float32)
    batched = jax.jit(jax.vmap(images.gaussian_blur))
    single = np.stack([gaussian_blur(jnp.asarray(one)) for one in m])
    np.testing.assert_allclose(batched(m), single, rtol=1e-6)
    text = batched.lower(m).as_text()
    assert "convolution" not in text
    assert "reduce_window" not in text
    np.testing.assert_array_equal(gaussian_blur(jnp.asarray(m[0]), size=1), m[0])
    wide = ndimage.gaussian_filter(m[0].astype(np.float64), 2.0, mode="mirror", truncate=4 / 2.0)
    np.testing.assert_allclose(gaussian_blur(jnp.asarray(m[0]), size=9, sigma=2.0), wide, rtol=1e-5)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda m: gaussian_blur(m, size=4), "size must be an odd"),
        (lambda m: gaussian_blur(m, size=0), "was 0"),
        (lambda m: gaussian_blur(m, sigma=0.0), "sigma must be > 0"),
        (lambda m: gaussian_blur(m[None]), "m must be one plane"),
    ],
)
def test_blur_refuses(call, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call(jnp.ones((4, 4)))
