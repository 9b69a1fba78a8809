"""Programs kept on disk: the same results, without tracing, and never a stale or broken one."""

import os
import shutil
import subprocess
import sys
import threading

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffgame import _stored_program
from diffgame._policy import ProbabilityTable
from diffgame._stored_program import stored_jit

TRACES = []


def scale(table: ProbabilityTable, factor, power: int = 1):
    TRACES.append(power)
    return table, {"scaled": factor * table.probability**power, "power": power}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setattr(_stored_program, "_folder", tmp_path / "programs")
    TRACES.clear()
    return tmp_path / "programs"


TABLE = ProbabilityTable(jnp.array([[[0.25, 0.75]]]))


def check(found, power):
    table, others = found
    assert isinstance(table, ProbabilityTable)
    assert others["power"] == power
    expected = 3 * np.array([[[0.25, 0.75]]]) ** power
    np.testing.assert_array_equal(others["scaled"], expected)


def test_without_a_folder_it_is_a_jitted_function():
    TRACES.clear()
    function = stored_jit(scale)
    for _ in range(2):
        check(function(TABLE, np.float64(3)), 1)
    assert TRACES == [1]


def test_a_later_process_neither_traces_nor_compiles(folder):
    check(stored_jit(scale)(TABLE, np.float64(3), power=2), 2)
    assert TRACES == [2]
    assert len(list(folder.iterdir())) == 1
    check(stored_jit(scale)(TABLE, np.float64(3), power=2), 2)
    assert TRACES == [2]


def test_other_static_arguments_and_shapes_are_other_programs(folder):
    function = stored_jit(scale)
    check(function(TABLE, np.float64(3)), 1)
    check(function(TABLE, np.float64(3), power=2), 2)
    wide = ProbabilityTable(jnp.full((1, 1, 4), 0.25))
    assert function(wide, np.float64(3))[1]["scaled"].shape == (1, 1, 4)
    assert TRACES == [1, 2, 1]
    assert len(list(folder.iterdir())) == 3


def test_other_sources_are_other_programs(folder, monkeypatch):
    stored_jit(scale)(TABLE, np.float64(3))
    monkeypatch.setattr(_stored_program, "_environment", lambda: b"after an edit")
    stored_jit(scale)(TABLE, np.float64(3))
    assert TRACES == [1, 1]


@pytest.mark.parametrize("damage", ["cut short", "other format", "empty"])
def test_a_damaged_program_is_compiled_anew(folder, damage):
    stored_jit(scale)(TABLE, np.float64(3))
    (path,) = folder.iterdir()
    whole = path.read_bytes()
    damaged = {"cut short": whole[:-10], "other format": b"x" + whole[1:], "empty": b""}
    path.write_bytes(damaged[damage])
    check(stored_jit(scale)(TABLE, np.float64(3)), 1)
    assert TRACES == [1, 1]
    check(stored_jit(scale)(TABLE, np.float64(3)), 1)
    assert TRACES == [1, 1]


def test_a_folder_that_cannot_be_made_costs_time_only(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setattr(_stored_program, "_folder", tmp_path / "file" / "programs")
    check(stored_jit(scale)(TABLE, np.float64(3)), 1)


def test_what_was_prepared_is_what_a_call_runs(folder):
    function = stored_jit(scale)
    assert function.prepare(TABLE, jax.ShapeDtypeStruct((), jnp.float64))
    check(function(TABLE, np.float64(3)), 1)
    assert TRACES == [1]
    later = stored_jit(scale)
    assert not later.prepare(TABLE, jax.ShapeDtypeStruct((), jnp.float64))
    assert later.prepare(TABLE, jax.ShapeDtypeStruct((), jnp.float64), power=2)
    check(later(TABLE, np.float64(3)), 1)
    check(later(TABLE, np.float64(3), power=2), 2)
    assert TRACES == [1, 2]


def test_without_a_folder_nothing_is_prepared(monkeypatch):
    monkeypatch.setattr(_stored_program, "_folder", None)
    assert not stored_jit(scale).prepare(TABLE, jax.ShapeDtypeStruct((), jnp.float64))


def test_what_has_not_begun_is_dropped_and_a_call_makes_it(folder):
    held = threading.Event()
    for _ in range(_stored_program.WORKERS):
        _stored_program._background().submit(held.wait)
    function = stored_jit(scale)
    function.prepare(TABLE, jax.ShapeDtypeStruct((), jnp.float64))
    _stored_program.stop_preparing()
    held.set()
    assert TRACES == []
    check(function(TABLE, np.float64(3)), 1)
    assert TRACES == [1]


def test_traced_calls_stay_inside_the_outer_program(folder):
    function = stored_jit(scale)

    @eqx.filter_jit
    def outer(factor):
        return function(TABLE, factor)[1]["scaled"]

    np.testing.assert_array_equal(outer(jnp.array(3.0)), [[[0.75, 2.25]]])
    assert not folder.exists()


def test_the_longest_unused_programs_are_removed(folder, monkeypatch):
    function = stored_jit(scale)
    function(TABLE, np.float64(3))
    (first,) = folder.iterdir()
    os.utime(first, (0, 0))
    monkeypatch.setattr(_stored_program, "_MOST_BYTES", 2 * first.stat().st_size - 1)
    function(TABLE, np.float64(3), power=2)
    assert first not in list(folder.iterdir())
    assert len(list(folder.iterdir())) == 1


PROGRAM = """
import jax
import jax.numpy as jnp
from pathlib import Path
import sys
jax.config.update("jax_enable_x64", True)
from diffgame import _stored_program
from diffgame.market._segment import unit_utility
_stored_program.keep_programs(Path(sys.argv[1]))
found = _stored_program.stored_jit(unit_utility)(jnp.array([[[0.0, 1.0], [2.0, 4.0]]]))
print([value.tolist() for value in found])
"""


def run_program(folder, **environment) -> str:
    return subprocess.run(
        [sys.executable, "-c", PROGRAM, str(folder)],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
        env=os.environ | environment,
    ).stdout


PRINTED = "[[[[0.0, 0.25], [0.5, 1.0]]], [4.0]]\n"


def test_two_processes_share_a_program(tmp_path):
    assert [run_program(tmp_path) for _ in range(2)] == [PRINTED] * 2
    assert len(list(tmp_path.iterdir())) == 1


def test_programs_are_whole_where_jax_keeps_a_cache_of_its_own(tmp_path):
    """What JAX has in its cache is compiled all the same: stored from there it would lack code."""
    programs = tmp_path / "programs"
    cache = {
        "JAX_COMPILATION_CACHE_DIR": str(tmp_path / "jax"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }
    assert run_program(programs, **cache) == PRINTED
    assert list((tmp_path / "jax").iterdir())
    # Under a name of its own it would stay there for ever.
    assert not list((tmp_path / "jax").glob("*unit_utility*"))
    shutil.rmtree(programs)
    assert [run_program(programs, **cache) for _ in range(2)] == [PRINTED] * 2


def test_only_large_or_long_programs_are_optimised():
    small, large = [jnp.zeros((2, 3))], [jnp.zeros((100, 100))]
    quick = _stored_program._options(small, long=False)
    slow = _stored_program._options(small, long=True)
    assert _stored_program._options(large, long=False) == slow != quick
    assert quick == slow | {"xla_backend_optimization_level": 0}


def test_programs_that_are_not_optimised_give_the_same_numbers(folder):
    table = np.random.default_rng(0).uniform(size=(3, 3))
    found = []
    for long in (False, True):
        function = stored_jit(lambda table: jnp.linalg.matrix_power(table, 3), long=long)
        found.append(np.asarray(function(table)))
    assert np.allclose(*found, rtol=1e-14)
    assert np.allclose(found[0], np.linalg.matrix_power(table, 3), rtol=1e-14)


def test_a_compiler_without_the_option_does_without(folder, monkeypatch):
    monkeypatch.setattr(_stored_program, "_EMITTERS", {"no_such_option": False})
    _stored_program._can_choose_emitters.cache_clear()
    try:
        assert _stored_program._options([jnp.zeros((100, 100))], long=False) == {}
        check(stored_jit(scale)(TABLE, np.float64(3)), 1)
    finally:
        _stored_program._can_choose_emitters.cache_clear()
