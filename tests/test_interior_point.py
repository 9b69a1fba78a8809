"""The interior point against HiGHS on persuasion problems, and on programs with known optima."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffgame._interior_point import solve_by_interior_point
from diffgame._linear_program import check_optimum
from diffgame.market import persuade

from . import oracle
from .linear_programs import TRAITS, persuasion, signals, standard_form
from .markets import padded

SIZES = [(actions, states) for actions in range(2, 7) for states in range(2, 7)]


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
    seeds, problems = range(100), []
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
    solve = jax.jit(jax.vmap(solve_by_interior_point))
    primal, dual, steps = solve(stacked)
    reverse = jax.tree.map(lambda leaf: leaf[::-1], (primal, dual, steps))
    again = solve(jax.tree.map(lambda leaf: leaf[::-1], stacked))
    assert all(map(np.array_equal, jax.tree.leaves(reverse), jax.tree.leaves(again)))
    assert len(np.unique(steps)) > 3
    assert jnp.all(jax.vmap(check_optimum)(stacked, primal, dual).certified)


solve_once = jax.jit(solve_by_interior_point, static_argnames="max_steps")


def test_steps_that_were_cut_short_are_not_certified():
    program = standard_form([1, 2, 3], [[1, 1, 1]], [1])
    primal, dual, steps = solve_once(program, max_steps=1)
    assert steps == 1
    assert not check_optimum(program, primal, dual).certified
