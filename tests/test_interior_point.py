"""The interior point against HiGHS on persuasion problems, and on programs with known optima."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffgame._interior_point import solve_by_interior_point as solve_linear_program
from diffgame._linear_program import LinearProgram, check_optimum
from diffgame.market import persuade

from . import oracle
from .markets import padded

SIZES = [(actions, states) for actions in range(2, 7) for states in range(2, 7)]
TRAITS = ("generic", "integers", "twin actions", "impossible states", "rare states")


def persuasion(seed, actions, states):
    """Prior, utility [A, Y], objective [A, Y]: payoffs scaled by 1e-6 to 1e6, one trait each."""
    rng = np.random.default_rng(seed)
    trait = TRAITS[seed % len(TRAITS)]
    prior = rng.dirichlet(np.ones(states))
    u, U = rng.uniform(-1, 1, (2, actions, states))
    if trait == "integers":
        u, U = rng.integers(-1, 2, (2, actions, states)).astype(float)
        prior = np.full(states, 1 / states)
    elif trait == "twin actions":
        u[-1] = u[rng.integers(actions - 1)]
    elif trait == "impossible states":
        prior[rng.integers(states)] = 0
        prior /= prior.sum()
    elif trait == "rare states":
        prior[0] = 1e-6
        prior /= prior.sum()
    scale, offset = 10 ** rng.uniform(-6, 6, 2), rng.uniform(-1, 1, 2)
    return prior, scale[0] * (u + offset[0]), scale[1] * (U + offset[1])


def solve(problems):
    """Values between `lower` and `upper` of one batch, compiled for its shape."""
    prior, u, U = (np.stack(part) for part in zip(*problems, strict=True))
    batch = jax.jit(jax.vmap(lambda prior, u, U: persuade(prior, u[None], U[None], jnp.ones(1))))
    found = batch(prior, u, U)
    return np.asarray(found.lower), np.asarray(found.upper)


def compare(seeds, problems):
    """Errors against HiGHS relative to the payoff range, of the certified ones."""
    lower, upper = solve(problems)
    errors = []
    for at, (seed, (prior, u, U)) in enumerate(zip(seeds, problems, strict=True)):
        size = np.ptp(U[:, prior > 0]) or 1.0
        expected = oracle.persuasion(prior, u, U)
        certified = np.isfinite(upper[at]) and abs(upper[at] - lower[at]) <= 1e-8 * size
        error = max(abs(lower[at] - expected), abs(upper[at] - expected)) / size
        assert not certified or error <= 1e-8, f"seed={seed}, {TRAITS[seed % 5]}, error {error}"
        errors.append(error if certified else np.nan)
    return np.array(errors)


def test_persuasion_of_mixed_sizes_equals_highs():
    """All sizes in one shape: added actions repeat the first, added states have probability 0."""
    seeds, problems = range(300), []
    for seed in seeds:
        prior, u, U = persuasion(seed, *SIZES[seed % len(SIZES)])
        market = prior, np.ones(1), u[None], U[None, None]
        prior, _, us, Us = padded(market, 1, 6, 6, 1)
        problems.append((prior, us[0], Us[0, 0]))
    errors = compare(seeds, problems)
    assert np.all(np.isfinite(errors)), f"seeds not certified: {np.flatnonzero(np.isnan(errors))}"


@pytest.mark.campaign
def test_ten_thousand_persuasion_problems_equal_highs():
    """Run with `pytest -s -m campaign tests/test_interior_point.py` (ten minutes)."""
    errors = []
    for at, size in enumerate(SIZES):
        seeds = range(1000 + 400 * at, 1400 + 400 * at)
        errors.append(compare(seeds, [persuasion(seed, *size) for seed in seeds]))
    errors = np.concatenate(errors)
    missing = np.isnan(errors)
    print(
        f"\n{len(errors)} persuasion problems, {missing.sum()} not certified, "
        f"worst error {np.nanmax(errors):.1e} of the payoff range"
    )
    assert not np.any(missing), f"seeds not certified: {1000 + np.flatnonzero(missing)}"


def signals(seed, actions, states, *, as_rows):
    """A persuasion program with total probabilities as `sums`, or as rows of `coupling`."""
    prior, u, U = persuasion(5 * seed, actions, states)
    u, U = (u - u.min()) / np.ptp(u), (U - U.min()) / np.ptp(U)
    others = np.array([[b for b in range(actions) if b != a] for a in range(actions)])
    one_per_state = np.broadcast_to(np.eye(states)[:, None], (states, actions, states))
    return LinearProgram(
        jnp.asarray(-U * prior),
        jnp.zeros(0),
        jnp.asarray((u[:, None] - u[others]) * prior),
        jnp.asarray(one_per_state) if as_rows else jnp.zeros((0, actions, states)),
        jnp.zeros((states, 0)),
        jnp.ones(states),
        None if as_rows else jnp.ones(actions),
    )


@pytest.mark.parametrize(
    ("actions", "states"),
    [
        pytest.param(4, 3, id="written out"),
        pytest.param(9, 8, id="loops and matrix products"),
        pytest.param(14, 4, id="more rows than can be tight"),
    ],
)
def test_sums_mean_the_same_as_rows_of_coupling(actions, states):
    for seed in range(3):
        found = []
        for as_rows in (False, True):
            program = signals(seed, actions, states, as_rows=as_rows)
            primal, dual, _ = solve_once(program)
            optimum = check_optimum(program, primal, dual)
            assert optimum.certified, f"{seed=}, {as_rows=}"
            found.append(float(optimum.value))
        assert found[0] == pytest.approx(found[1], abs=1e-9), f"{seed=}"


def test_more_programs_than_lanes_each_get_their_own_answer():
    """Lanes take up new programs: the answers are bit for bit those of the reversed batch."""
    programs = [signals(seed, 3, 3, as_rows=False) for seed in range(100)]
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *programs)
    solve = jax.jit(jax.vmap(solve_linear_program))
    primal, dual, steps = solve(stacked)
    reverse = jax.tree.map(lambda leaf: leaf[::-1], (primal, dual, steps))
    again = solve(jax.tree.map(lambda leaf: leaf[::-1], stacked))
    assert all(map(np.array_equal, jax.tree.leaves(reverse), jax.tree.leaves(again)))
    assert len(np.unique(steps)) > 3
    assert jnp.all(jax.vmap(check_optimum)(stacked, primal, dual).certified)


solve_once = jax.jit(solve_linear_program, static_argnames="max_steps")


def standard_form(cost, rows, target):
    """Minimise cost @ z with rows @ z = target, z >= 0, as a program without blocks."""
    cost, rows, target = (jnp.asarray(part, float) for part in (cost, rows, target))
    count = len(target)
    return LinearProgram(
        jnp.zeros((0, 1)), cost, jnp.zeros((0, 0, 1)), jnp.zeros((count, 0, 1)), rows, target
    )


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
def test_programs_without_blocks(cost, rows, target, value):
    program = standard_form(cost, rows, target)
    primal, dual, _ = solve_once(program)
    optimum = check_optimum(program, primal, dual)
    assert optimum.certified
    assert optimum.value == pytest.approx(value, rel=1e-9, abs=1e-9)


def test_a_batch_gives_each_program_its_own_answer():
    costs = jnp.array([[1.0, 2.0, 3.0], [3.0, 1.0, 2.0], [3.0, 2.0, 1.0]])
    programs = [standard_form(cost, [[1, 1, 1]], [1]) for cost in costs]
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *programs)
    primal, _, steps = jax.jit(jax.vmap(solve_linear_program))(stacked)
    assert jnp.allclose(primal.z, jnp.eye(3), atol=1e-9)
    for at, program in enumerate(programs):
        alone, _, count = solve_once(program)
        assert jnp.allclose(primal.z[at], alone.z, atol=1e-12)
        assert steps[at] == count


@pytest.mark.parametrize(
    ("cost", "rows", "target"),
    [
        pytest.param([1, 1], [[1, 1]], [-1], id="infeasible"),
        pytest.param([-1, 0], [[1, -1]], [0], id="unbounded"),
        pytest.param([np.nan, 0], [[1, 1]], [1], id="NaN"),
    ],
)
def test_a_program_without_optimum_ends_and_is_not_certified(cost, rows, target):
    program = standard_form(cost, rows, target)
    primal, dual, steps = solve_once(program)
    assert steps <= 60
    assert not check_optimum(program, primal, dual).certified


def test_steps_that_were_cut_short_are_not_certified():
    program = standard_form([1, 2, 3], [[1, 1, 1]], [1])
    primal, dual, steps = solve_once(program, max_steps=1)
    assert steps == 1
    assert not check_optimum(program, primal, dual).certified
