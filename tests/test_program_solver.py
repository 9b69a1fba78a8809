"""What every solver of linear programs must do, and what the simplex method adds."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffgame._interior_point import solve_by_interior_point
from diffgame._linear_program import LinearProgram, check_optimum
from diffgame._program_solver import are_few, solve_linear_program
from diffgame._ray_solver import solve_by_rays
from diffgame._row_solver import solve_by_rows

from .linear_programs import signals, standard_form

solve_once = {
    "interior points": jax.jit(solve_by_interior_point),
    "rays": jax.jit(solve_by_rays),
    "rows": jax.jit(solve_by_rows),
}
each_solver = pytest.mark.parametrize("solver", solve_once)


@each_solver
@pytest.mark.parametrize(
    ("cost", "rows", "target", "value"),
    [
        pytest.param([1, 2, 3], [[1, 1, 1]], [1], 1, id="a vertex"),
        pytest.param([1, 1, 3], [[1, 1, 1]], [1], 1, id="an edge of optima"),
        pytest.param([1, 2, 0], [[1, 1, -1], [2, 2, -2]], [1, 2], 1, id="a redundant row"),
        pytest.param([1, 2], [[1, 1], [0, 0]], [1, 0], 1, id="a row of zeros"),
        pytest.param([0, 0], [[1, 1]], [1], 0, id="no cost"),
        pytest.param([1e6, 2e6], [[1e-6, 1e-6]], [1e-6], 1e6, id="units far from one"),
    ],
)
def test_programs_without_blocks(solver, cost, rows, target, value):
    program = standard_form(cost, rows, target)
    primal, dual, _ = solve_once[solver](program)
    optimum = check_optimum(program, primal, dual)
    assert optimum.certified
    assert optimum.value == pytest.approx(value, rel=1e-9, abs=1e-9)


@each_solver
def test_a_batch_gives_each_program_its_own_answer(solver):
    costs = jnp.array([[1.0, 2.0, 3.0], [3.0, 1.0, 2.0], [3.0, 2.0, 1.0]])
    programs = [standard_form(cost, [[1, 1, 1]], [1]) for cost in costs]
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *programs)
    primal, _, steps = jax.jit(jax.vmap(solve_once[solver]))(stacked)
    assert jnp.allclose(primal.z, jnp.eye(3), atol=1e-9)
    for at, program in enumerate(programs):
        alone, _, count = solve_once[solver](program)
        assert jnp.allclose(primal.z[at], alone.z, atol=1e-12)
        assert steps[at] == count


@each_solver
@pytest.mark.parametrize(
    ("cost", "rows", "target"),
    [
        pytest.param([1, 1], [[1, 1]], [-1], id="infeasible"),
        pytest.param([-1, 0], [[1, -1]], [0], id="unbounded"),
        pytest.param([np.nan, 0], [[1, 1]], [1], id="NaN"),
    ],
)
def test_a_program_without_optimum_ends_and_is_not_certified(solver, cost, rows, target):
    program = standard_form(cost, rows, target)
    primal, dual, steps = solve_once[solver](program)
    assert steps <= 60
    assert not check_optimum(program, primal, dual).certified


def test_few_rays_are_those_of_few_states_and_actions():
    assert are_few(3, 2, 3)
    assert are_few(9, 4, 3)
    assert not are_few(5, 4, 5)
    assert not are_few(200, 2, 2)


@pytest.mark.parametrize(("actions", "states"), [(5, 2), (6, 3), (4, 5)])
def test_all_solvers_certify_the_same_value(actions, states):
    """Every trait of `persuasion` in turn: ties, twin actions, impossible and rare states."""
    programs = [signals(seed, actions, states, as_rows=False) for seed in range(40)]
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *programs)
    values = []
    for name, solver in solve_once.items():
        if name == "rays" and states > 3:
            continue
        primal, dual, _ = jax.vmap(solver)(stacked)
        found = jax.vmap(check_optimum)(stacked, primal, dual)
        assert jnp.all(found.certified), f"{name}: seeds {np.flatnonzero(~found.certified)}"
        values.append(found.value)
    assert np.all(np.ptp(values, axis=0) <= 1e-9)


@pytest.mark.parametrize(("actions", "states"), [(3, 3), (4, 5)])
def test_a_batch_of_any_size_gives_the_same_bits(actions, states):
    programs = [signals(seed, actions, states, as_rows=False) for seed in range(100)]
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *programs)
    solve = jax.jit(jax.vmap(solve_linear_program))
    found = solve(stacked)
    reverse = solve(jax.tree.map(lambda leaf: leaf[::-1], stacked))
    some = solve(jax.tree.map(lambda leaf: leaf[:7], stacked))
    for leaf, other, few in zip(*map(jax.tree.leaves, (found, reverse, some)), strict=True):
        assert np.array_equal(leaf, other[::-1])
        assert np.array_equal(leaf[:7], few)
    assert len(np.unique(found[2])) > 2


@pytest.mark.parametrize("solver", ["rays", "rows"])
def test_a_program_that_makes_dantzigs_rule_cycle_ends(solver):
    """Beale (1955): every step is degenerate, and the rule alone comes back to where it began."""
    rows = [
        [0.25, -60, -1 / 25, 9, 1, 0, 0],
        [0.5, -90, -1 / 50, 3, 0, 1, 0],
        [0, 0, 1, 0, 0, 0, 1],
    ]
    program = standard_form([-0.75, 150, -0.02, 6, 0, 0, 0], rows, [0, 0, 1])
    primal, dual, pivots = solve_once[solver](program)
    found = check_optimum(program, primal, dual)
    assert found.certified
    assert found.value == pytest.approx(-0.05, abs=1e-12)
    assert pivots < 10


@pytest.mark.parametrize("solver", ["rays", "rows"])
def test_a_block_that_allows_nothing_stays_empty(solver):
    """The second action is dominated: a multiplier of its rows has to prove that it never pays."""
    lead = jnp.array([[[0.5, 0.25]], [[-0.5, -0.25]]])
    program = LinearProgram(
        jnp.array([[0.0, 0.0], [-1.0, -1.0]]),
        jnp.zeros(0),
        lead,
        jnp.zeros((0, 2, 2)),
        jnp.zeros((2, 0)),
        jnp.ones(2),
        jnp.ones(2),
    )
    primal, dual, _ = solve_once[solver](program)
    found = check_optimum(program, primal, dual)
    assert found.certified
    assert found.value == 0
    assert np.array_equal(primal.x, [[1, 1], [0, 0]])
    assert dual.within[1, 0] >= 4 * (1 - 1e-12)
