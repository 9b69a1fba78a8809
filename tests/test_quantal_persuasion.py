"""Brackets of what a provider gets from a quantal user: against much finer grids by HiGHS."""

import jax
import numpy as np
import pytest

from diffgame.market._quantal_bound import triangulate
from diffgame.market._quantal_persuasion import grid_bracket

from .quantal import concave_closure, payoffs, persuade, random_users


@pytest.mark.parametrize(("states", "parts", "finer"), [(2, 32, 2000), (3, 8, 48)])
def test_grid_brackets_hold_much_finer_grids_and_quarter_with_the_step(states, parts, finer):
    users = random_users(11 + states, 32, states)
    coarse, halved = (
        jax.vmap(lambda *args, n=n: grid_bracket(*args, n))(*users) for n in (parts, 2 * parts)
    )
    points, _ = triangulate(states, finer)
    for n, (prior, utility, objective, temperature) in enumerate(zip(*users, strict=True)):
        value = concave_closure(prior, points, payoffs(points, utility, objective, temperature))
        assert coarse.lower[n] <= value + 1e-9, f"{n=}"
        assert value <= halved.upper[n] <= coarse.upper[n] + 1e-12, f"{n=}"
    ratio = (coarse.upper - coarse.lower) / (halved.upper - halved.lower)
    np.testing.assert_allclose(ratio, 4, rtol=1e-3)


@pytest.mark.parametrize(("states", "finer", "width"), [(2, 4000, 1e-9), (3, 48, 1e-6)])
def test_refined_brackets_are_narrow_and_hold_finer_grids(states, finer, width):
    users = random_users(11 + states, 32, states)
    found = persuade(*users)
    assert np.all(found.upper - found.lower <= width)
    points, _ = triangulate(states, finer)
    for n, (prior, utility, objective, temperature) in enumerate(zip(*users, strict=True)):
        value = concave_closure(prior, points, payoffs(points, utility, objective, temperature))
        assert value <= found.upper[n], f"{n=}"
        # A grid of this step falls short by less than its own error bound.
        assert found.lower[n] - value <= 0.01, f"{n=}"
        mean = found.weights[n] @ found.posteriors[n]
        np.testing.assert_allclose(mean, prior, rtol=0, atol=1e-12)
        attained = found.weights[n] @ payoffs(found.posteriors[n], utility, objective, temperature)
        assert attained == pytest.approx(float(found.lower[n]), abs=1e-12)
