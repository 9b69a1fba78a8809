"""What noise may cost, and how fine a grid must be: against SciPy, formulas and random users."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.special import lambertw, softmax

from diffgame.market import random_profile
from diffgame.market._quantal_bound import (
    curvature,
    interpolation_factor,
    lambert_w,
    market_regret_bound,
    regret_bound,
    triangulate,
)

from .quantal import outcome, payoffs, random_market, random_users


def test_lambert_w_is_that_of_scipy_over_all_magnitudes():
    x = np.concatenate([[0.0], 10.0 ** np.linspace(-300, 300, 2001)])
    np.testing.assert_allclose(lambert_w(jnp.asarray(x)), lambertw(x).real, rtol=1e-12, atol=0)
    assert np.isnan(lambert_w(jnp.array(-0.1)))


@pytest.mark.parametrize("x", [0.0, 0.3, 2.0, 50.0])
def test_lambert_w_has_the_derivatives_of_its_equation(x):
    w = lambertw(x).real
    assert jax.grad(lambert_w)(x) == pytest.approx(np.exp(-w) / (1 + w), rel=1e-12)
    second = -np.exp(-2 * w) * (w + 2) / (1 + w) ** 3
    assert jax.grad(jax.grad(lambert_w))(x) == pytest.approx(second, rel=1e-12)


@pytest.mark.parametrize(
    ("options", "bound"), [(2, 0.278465), (3, 0.463056), (5, 0.717825)], ids="m={}".format
)
def test_the_regret_bound_is_the_largest_regret(options, bound):
    temperature = 0.7
    claimed = float(regret_bound(options, temperature))
    assert claimed == pytest.approx(bound * temperature, abs=1e-6 * temperature)
    assert claimed < temperature * np.log(options)

    def regret(values):
        return values.max() - values @ softmax(values / temperature)

    rng = np.random.default_rng(options)
    starts = rng.uniform(-3, 0, size=(8, options - 1))
    found = [
        -minimize(lambda gaps: -regret(np.append(gaps, 0)), start, method="Nelder-Mead",
                  options={"xatol": 1e-9, "fatol": 1e-13, "maxiter": 10_000}).fun
        for start in starts
    ]  # fmt: skip
    assert np.max(found) == pytest.approx(claimed, abs=1e-9)
    assert all(regret(v) <= claimed + 1e-12 for v in rng.normal(size=(5_000, options)))


def test_decisions_in_a_row_add_their_bounds():
    parts = [regret_bound(m, 0.2) for m in (3, 4, 4, 2)]
    total = market_regret_bound(3, 2, 0.2, user_messages=4, rounds=2)
    assert total == pytest.approx(float(sum(parts)), rel=1e-14)
    with pytest.raises(ValueError, match="options is 0"):
        regret_bound(0, 1.0)
    with pytest.raises(ValueError, match="rounds is -1"):
        market_regret_bound(1, 2, 0.1, rounds=-1)


@pytest.mark.parametrize("seed", range(3), ids="seed={}".format)
def test_quantal_users_never_lose_more_than_the_bound(seed):
    market = random_market(seed, 40, 3, providers=3)
    profile = random_profile(market, jax.random.key(seed))
    joint = market.prior[None, None, :, None] * profile.probability
    best = np.einsum("jas,kjsm->kjam", market.utility, joint).max(axis=2).sum(axis=2).max(axis=0)
    for temperature in jnp.array([0.02, 0.1, 0.5]):
        quantal = outcome(market, profile, temperature).utilities
        assert np.all(best - quantal <= market_regret_bound(3, 3, temperature))


@pytest.mark.parametrize("states", [2, 3])
def test_the_curvature_bound_holds_in_every_direction_of_a_cell(states):
    prior, utility, objective, temperature = random_users(states, 40, states)
    rng = np.random.default_rng(9)
    bound = jax.jit(jax.vmap(curvature))
    slack = []
    for size in (1.0, 0.2, 0.02):
        cells = size * np.eye(states)[None] + (1 - size) * prior[:, None]
        claimed = bound(cells, utility, objective, temperature)
        for n in range(len(prior)):
            corners = rng.dirichlet(np.ones(states), size=(200, 2)) @ cells[n]
            first, last = corners[:, 0], corners[:, 1]
            # Ends of a segment in the cell; the second difference at a random place on it.
            place = rng.uniform(size=(200, 1))
            middle = place * first + (1 - place) * last
            step = 1e-3 * (last - first)
            around = [middle - step, middle, middle + step]
            around = [payoffs(p, utility[n], objective[n], temperature[n]) for p in around]
            second = np.abs(around[0] - 2 * around[1] + around[2]) / 1e-6
            assert np.all(second <= claimed[n] + 1e-6), f"{n=}, {size=}"
            slack.append(second.max() / claimed[n])
    # A bound that is never within a factor of five would not be worth its formula.
    assert max(slack) > 0.2


@pytest.mark.parametrize(("states", "factor"), [(2, 1 / 8), (3, 2 / 9)])
def test_the_interpolation_factor_is_the_largest_of_its_formula(states, factor):
    assert interpolation_factor(states) == pytest.approx(factor, rel=1e-14)
    weights = np.random.default_rng(0).dirichlet(np.ones(states), size=20_000)
    formula = (weights * (1 - weights) ** 2).sum(axis=1) / 2
    assert formula.max() <= factor
    assert formula.max() == pytest.approx(factor, rel=1e-3)


def test_a_triangulation_covers_the_simplex_once():
    points, cells = triangulate(3, 7)
    assert points.shape == (36, 3)
    areas = np.abs(np.linalg.det(cells))
    np.testing.assert_allclose(areas, areas[0], rtol=1e-12)
    assert areas.sum() == pytest.approx(1, rel=1e-12)
    edges = cells - np.roll(cells, 1, axis=1)
    np.testing.assert_allclose(np.abs(edges).max(axis=2), 1 / 7, rtol=1e-12)
    with pytest.raises(ValueError, match="4 states"):
        triangulate(4, 3)
