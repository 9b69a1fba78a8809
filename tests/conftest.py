"""What every test runs under: float64, strict shapes, no numerical surprise, fixed randomness."""

import gc
import os
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

import hypothesis
import jax
import jaxtyping
import numpy as np
import pytest

# Most of a test's time is compilation: optimise less, and leave out the slow fusion emitters where
# jaxlib knows the switch. Without the concurrent scheduler, LAPACK calls cannot block each other.
_FLAGS = [
    os.environ.get("XLA_FLAGS", ""),
    "--xla_backend_optimization_level=0",
    "--xla_cpu_enable_concurrency_optimized_scheduler=false",
]
if version("jaxlib").startswith("0.10."):
    _FLAGS.append("--xla_cpu_use_fusion_emitters=false")
os.environ["XLA_FLAGS"] = " ".join(_FLAGS).strip()

# Before any import of the package, so that tests and docstring examples see checked signatures.
jaxtyping.install_import_hook("diffgame", "beartype.beartype")

from diffgame import _stored_program  # noqa: E402

jax.config.update("jax_enable_x64", True)
jax.config.update("jax_numpy_rank_promotion", "raise")
np.seterr(divide="raise", over="raise", invalid="raise")

hypothesis.settings.register_profile("fixed", derandomize=True, deadline=None)
hypothesis.settings.load_profile("fixed")


@pytest.fixture(scope="session", autouse=True)
def _cache_of_this_run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Commands keep compiled programs for each other, for all workers, and none after the run."""
    shared = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        shared = shared.parent
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(shared / "cache"))
        yield


@pytest.fixture(autouse=True)
def _no_stored_programs(monkeypatch: pytest.MonkeyPatch) -> None:
    """A command that ran in this process leaves no cache to the tests after it."""
    monkeypatch.setattr(_stored_program, "_folder", None)


@pytest.fixture(params=[0, 1, 2], ids="seed={}".format)
def key(request: pytest.FixtureRequest) -> jax.Array:
    """A random key from each of three fixed seeds; the test's id shows which one failed."""
    return jax.random.key(request.param)


# Every compiled program holds memory maps, and a process may have 65,530 of them (Linux): beyond,
# the compiler crashes. Programs are dropped long before, between two modules.
_MOST_MAPS = 20_000


@pytest.fixture(scope="module", autouse=True)
def _few_memory_maps() -> Iterator[None]:
    yield
    maps = Path("/proc/self/maps")
    if maps.exists() and maps.read_bytes().count(b"\n") > _MOST_MAPS:
        jax.clear_caches()
        gc.collect()
