"""Fixtures shared by the whole suite."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import gc
import os
from pathlib import Path

# Before jax is imported anywhere: eight host devices, so that sharded runs are tested on any machine.
os.environ.setdefault("JAX_PLATFORMS", "cpu")
if "xla_force_host_platform_device_count" not in os.environ.get("XLA_FLAGS", ""):
    os.environ["XLA_FLAGS"] = os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=8"
# Nearly all of the suite's time is compilation: LLVM's optimisation, which tiny programs do not repay, is left out
# (two fifths less). INVJAX_TEST_OPTIMIZED=1 leaves it in, as users have it.
if "xla_backend_optimization_level" not in os.environ["XLA_FLAGS"] and not os.environ.get("INVJAX_TEST_OPTIMIZED"):
    os.environ["XLA_FLAGS"] += " --xla_backend_optimization_level=0"

import jax
import numpy as np
import pytest
from hypothesis import settings

ROOT = Path(__file__).resolve().parent.parent

# Repeated compilations of the same program (across test files, workers and runs) are read back from disk. The thousands
# of small ones too: both workers compile these, and again whenever programs are forgotten: a tenth of the time.
jax.config.update("jax_compilation_cache_dir", os.environ.get("INVJAX_TEST_CACHE", str(ROOT / ".jax_cache")))
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
jax.config.update("jax_persistent_cache_min_entry_size_bytes", 0)


# The same examples on every run: a red suite means a changed program, not another draw.
settings.register_profile("invjax", derandomize=True, deadline=None)
settings.load_profile("invjax")


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The folder of real data and weights; tests that need it skip where it is absent."""
    folder = Path(os.environ.get("INVJAX_DATA", ROOT.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"no data folder: set INVJAX_DATA (looked at {folder.name})")
    return folder


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of 12 random pictures, labelled as the narrow network sees them."""
    import nets

    from invjax.models import load

    pixels = np.random.default_rng(0).integers(0, 256, (12, 32, 32, 3), dtype=np.uint8)
    logits = load("resnet20", nets.NARROW)
    labels = np.asarray(jax.jit(lambda f, x: f(x))(logits, pixels.astype(np.float32) / 255)).argmax(1)
    path = tmp_path_factory.mktemp("pictures") / "images.npz"
    np.savez(path, images=pixels, labels=labels.astype(np.int32))
    return path


# Longest first, so that the workers end together; each of these tests is a program of its own.
APART = ("test_docs", "test_notebooks", "test_protocol", "test_shapes")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests of one file, of the protocol those of one attack, share a worker and so the programs it has compiled."""

    def group(item: pytest.Item) -> str:
        if item.path.stem not in APART:
            return item.path.stem
        name = getattr(item, "callspec", None) and item.callspec.params.get("name")  # type: ignore[attr-defined]
        return f"{item.path.stem}-{name.split('/')[0]}" if isinstance(name, str) else item.nodeid

    for item in items:
        item.add_marker(pytest.mark.xdist_group(group(item)))
    items.sort(key=lambda item: APART.index(item.path.stem) if item.path.stem in APART else len(APART))


MOST_MAPS = 25_000  # Linux allows a process 65,530 memory maps; every compiled program takes some, and no one is told
MOST_MEMORY = 1_700  # MiB of a process: two workers and what they start are to fit a laptop
GROWTH = 450  # MiB more than after the last time, where what cannot be forgotten is above that already
_tests = 0  # that have ended
_after = 0  # MiB in use when programs were last forgotten


def _used() -> int:
    """MiB of this process; 0 where the system does not say."""
    try:
        with open("/proc/self/statm", "rb") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGESIZE") >> 20
    except OSError:  # no Linux
        return 0


def _maps() -> int:
    try:
        with open("/proc/self/maps", "rb") as file:
            return file.read().count(b"\n")
    except OSError:
        return 0


@pytest.hookimpl(trylast=True)
def pytest_runtest_teardown() -> None:
    """Forget compiled programs before there are too many: the suite has thousands, and XLA crashes at the limit.

    The tests' own ``@cache``s are forgotten too: what they hold was to have warmed jax's.
    """
    global _after, _tests
    _tests += 1
    if _tests % 8:  # counting maps takes milliseconds
        return
    if _used() < max(MOST_MEMORY, _after + GROWTH) and _maps() < MOST_MAPS:
        return
    for kept in gc.get_objects():
        if isinstance(kept, functools._lru_cache_wrapper) and str(getattr(kept, "__module__", "")) in TESTS:
            kept.cache_clear()
    jax.clear_caches()
    gc.collect()
    with contextlib.suppress(OSError, AttributeError):  # hand freed memory back: glibc alone does so
        ctypes.CDLL("libc.so.6").malloc_trim(0)
    _after = _used()


TESTS = {path.stem for path in Path(__file__).parent.rglob("*.py")}
