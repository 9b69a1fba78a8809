"""Programs of the hot path lower for platforms that are not at hand, without calls of the CPU."""

import jax
import jax.numpy as jnp
import pytest

from benchmarks import lowering

SHOWN = ("pseudogradient, chunk", "finite: lemke_howson", "linear program, rows")


@pytest.fixture(scope="module")
def programs():
    return lowering.programs()


@pytest.mark.parametrize("platform", lowering.PLATFORMS)
@pytest.mark.parametrize("name", SHOWN)
def test_it_lowers_without_calls_of_the_cpu(programs, name: str, platform: str):
    found = lowering.lower(*programs[name], platform)
    assert found.error == ""
    assert found.size > 1000
    assert found.calls == ()


def test_a_decomposition_is_the_platforms_own():
    matrix = jnp.eye(3)
    found = {
        platform: lowering.lower(lambda matrix: jnp.linalg.eigh(matrix), (matrix,), platform)
        for platform in lowering.PLATFORMS
    }
    assert any(name.startswith("lapack_") for name in found["cpu"].calls)
    assert found["cpu"].wrong == found["cpu"].calls
    assert found["cuda"].calls != ()
    assert lowering.failures(found) == []


def test_a_call_of_the_cpu_and_a_refusal_are_failures():
    found = {
        "cpu": lowering.Lowered(10, ("lapack_dgesdd_ffi",)),
        "cuda": lowering.Lowered(10, ("cusolver_gesvdj_ffi", "lapack_dgesdd_ffi")),
        "tpu": lowering.Lowered(0, (), "no rule"),
    }
    assert lowering.failures(found) == ["cuda: lapack_dgesdd_ffi", "tpu: no rule"]


def test_what_does_not_lower_says_why():
    def speaks(x):
        return jax.pure_callback(lambda x: x, jax.ShapeDtypeStruct((), x.dtype), x)

    found = lowering.lower(speaks, (jnp.ones(()),), "cuda")
    assert found.size == 0
    assert "\n" not in found.error
    assert found.error != ""
