"""Quantal users: values, brackets and equilibria against NumPy, SciPy and closed forms."""

import itertools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import brentq, linprog, minimize
from scipy.special import lambertw, softmax

from diffgame import Logit, ProbabilityTable, play
from diffgame.market import Market, MarketStatus, babbling, full_revelation, random_profile
from diffgame.market._quantal import certify_quantal, quantal_outcome
from diffgame.market._quantal_bound import (
    curvature,
    interpolation_factor,
    lambert_w,
    market_regret_bound,
    regret_bound,
    triangulate,
)
from diffgame.market._quantal_persuasion import grid_bracket, persuade_quantal
from diffgame.market._quantal_search import find_quantal_equilibria, temperature_table
from diffgame.market._quantal_split import optimal_split

JUDGE, CONVICTION = jnp.eye(2), jnp.array([[0.0, 0.0], [1.0, 1.0]])
persuade = jax.jit(jax.vmap(persuade_quantal))
split = jax.jit(optimal_split)
outcome = eqx.filter_jit(quantal_outcome)
played_out = eqx.filter_jit(play)


def report(prior, temperature):
    found = optimal_split(prior, JUDGE, CONVICTION, temperature)
    return jnp.append(found.posteriors, found.value)


slopes = jax.jit(jax.jacrev(report, argnums=(0, 1)))
bend = jax.jit(jax.jacfwd(jax.jacfwd(report, argnums=1), argnums=1))


def payoffs(points, utility, objective, temperature):
    """Indirect payoffs of many posteriors, in NumPy."""
    chosen = softmax(points @ utility.T / temperature, axis=1)
    return np.sum(chosen * (points @ objective.T), axis=1)


def concave_closure(prior, points, values):
    """The best distribution of the given posteriors, by HiGHS."""
    rows = points.T
    found = linprog(-values, A_eq=rows, b_eq=prior, bounds=(0, None), method="highs")
    assert found.status == 0
    return -found.fun


def random_users(seed, count, states):
    rng = np.random.default_rng(seed)
    return (
        rng.dirichlet(np.ones(states), size=count),
        rng.uniform(size=(count, 3, states)),
        rng.uniform(size=(count, 3, states)),
        10 ** rng.uniform(-1.5, 0, size=count),
    )


def random_market(seed, users, states, providers=2):
    rng = np.random.default_rng(seed)
    return Market(
        rng.dirichlet(2 * np.ones(states)),
        rng.uniform(size=(users, 3, states)),
        rng.uniform(size=(providers, users, 3, states)),
        rng.uniform(0.5, 2, size=users),
    )


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
    assert max(found) == pytest.approx(claimed, abs=1e-9)
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


def test_the_logit_judge_of_t7():
    found = split(0.3, JUDGE, CONVICTION, 0.1)
    np.testing.assert_allclose(found.posteriors, [0, 0.621845], rtol=0, atol=1e-6)
    assert found.value == pytest.approx(0.443670, abs=1e-6)
    assert found.splits


@pytest.mark.parametrize("temperature", [0.03, 0.1, 0.3])
@pytest.mark.parametrize("prior", [0.1, 0.3, 0.45])
def test_the_judge_is_split_at_the_tangent_from_certain_innocence(temperature, prior):
    def convicts(p):
        return 1 / (1 + np.exp(-(2 * p - 1) / temperature))

    def tangent(p):
        rate = convicts(p)
        return 2 * rate * (1 - rate) / temperature * p - (rate - convicts(0))

    # The payoff is convex up to 1/2 and concave beyond.
    high = brentq(tangent, 0.5, 1, xtol=1e-15) if tangent(1) < 0 else 1.0
    found = split(prior, JUDGE, CONVICTION, temperature)
    np.testing.assert_allclose(found.posteriors, [0, high], rtol=0, atol=1e-9)
    weight = prior / high
    value = (1 - weight) * convicts(0) + weight * convicts(high)
    assert found.value == pytest.approx(value, abs=1e-12)
    np.testing.assert_allclose(found.weights, [1 - weight, weight], rtol=0, atol=1e-9)


def test_nothing_is_said_where_the_payoff_is_concave():
    found = split(0.9, JUDGE, CONVICTION, 0.1)
    assert not found.splits
    assert found.posteriors.tolist() == [0.9, 0.9]
    assert found.value == pytest.approx(1 / (1 + np.exp(-8)), rel=1e-12)
    slope = slopes(0.9, 0.1)[0][2]
    assert slope == pytest.approx(20 * np.exp(-8) / (1 + np.exp(-8)) ** 2, rel=1e-9)


def test_splits_attain_the_proved_value_on_random_users():
    users = random_users(13, 32, 2)
    found = jax.jit(jax.vmap(optimal_split))(users[0][:, 1], *users[1:])
    proved = persuade(*users)
    np.testing.assert_allclose(found.value, proved.upper, rtol=0, atol=1e-8)
    assert np.sum(found.splits) >= 8
    assert np.sum(np.all((found.posteriors > 0) & (found.posteriors < 1), axis=1)) >= 3


@pytest.mark.parametrize("prior", [0.3, 0.1])
def test_splits_are_differentiable_in_prior_and_temperature(prior):
    step, at = 1e-5, np.array([prior, 0.1])
    ours = slopes(*at)
    for n in range(2):
        move = step * np.eye(2)[n]
        ends = [split(p, JUDGE, CONVICTION, t) for p, t in (at + move, at - move)]
        high, low = (np.append(end.posteriors, end.value) for end in ends)
        np.testing.assert_allclose(ours[n], (high - low) / (2 * step), rtol=0, atol=1e-6)
    assert abs(ours[1][1]) > 0.1
    above, below = (slopes(prior, 0.1 + move)[1] for move in (step, -step))
    curved = bend(prior, 0.1)
    np.testing.assert_allclose(curved, (above - below) / (2 * step), rtol=1e-5, atol=1e-7)
    assert abs(curved[2]) > 0.1


@pytest.mark.parametrize("prior", [0.1, 0.3, 0.5, 0.7])
def test_cold_judges_are_the_exact_judge_of_t1(prior):
    values = [float(split(prior, JUDGE, CONVICTION, t).value) for t in (0.1, 0.01, 0.001)]
    errors = min(1, 2 * prior) - np.array(values)
    assert np.all(errors >= 0)
    assert errors[0] > errors[1] >= errors[2]
    assert errors[2] <= 0.01


@pytest.mark.parametrize("label", ["personalized", "anonymous"])
@pytest.mark.parametrize("temperature", [0.05, 0.3])
def test_values_are_those_of_play(label, temperature):
    market = getattr(random_market(3, 5, 3, providers=3), label)()
    for profile in (random_profile(market, jax.random.key(1)), babbling(market)):
        ours = outcome(market, profile, temperature)
        played = played_out(market, Logit(temperature), profile)
        np.testing.assert_allclose(ours.utilities, played.utilities, rtol=0, atol=1e-14)
        np.testing.assert_allclose(ours.payoffs, played.payoffs, rtol=0, atol=1e-14)
        np.testing.assert_allclose(ours.shares.sum(axis=0), 1, rtol=1e-14)


def search_gain(market, profile, temperature, provider, parts, levels):
    """Gain of the best deviation with posteriors on a grid and her value at one of `levels`."""
    now = outcome(market, profile, temperature)
    values, worth = np.asarray(now.values), np.asarray(now.worth)
    prior = np.asarray(market.prior)
    points, _ = triangulate(len(prior), parts)
    gain = 0.0
    for j in range(values.shape[1]):
        others = np.arange(len(values)) != provider
        weights = np.exp(values[others, j] / temperature)
        elsewhere = weights @ worth[provider, others, j] / weights.sum()
        utility, objective = (
            np.asarray(market.utility[j]),
            np.asarray(market.objective[provider, j]),
        )
        value = payoffs(points, utility, utility, temperature)
        own = payoffs(points, utility, objective, temperature) * float(market.mass[j])
        top = concave_closure(prior, points, value)
        bottom = -concave_closure(prior, points, -value)
        best = -np.inf
        for level in np.linspace(bottom + 1e-9, top - 1e-9, levels):
            rows = np.vstack([points.T, value])
            found = linprog(-own, A_eq=rows, b_eq=np.append(prior, level), method="highs")
            assert found.status == 0
            comes = np.exp(level / temperature)
            comes = comes / (comes + weights.sum())
            best = max(best, comes * -found.fun + (1 - comes) * elsewhere)
        gain += max(best - np.asarray(now.shares)[:, j] @ worth[provider, :, j], 0)
    return gain


@pytest.mark.parametrize("temperature", [0.05, 0.2])
@pytest.mark.parametrize("seed", range(2), ids="seed={}".format)
def test_gain_brackets_hold_what_a_grid_search_finds(seed, temperature):
    market = random_market(seed, 2, 2)
    profile = random_profile(market, jax.random.key(seed))
    found = certify_quantal(market, profile, temperature)
    assert np.all(found.upper - found.lower <= 1e-8)
    assert found.status is MarketStatus.exploitable
    for i in range(2):
        searched = search_gain(market, profile, temperature, i, 120, 16)
        assert searched <= found.upper[i], f"{i=}"
        assert found.lower[i] - searched <= 2e-3, f"{i=}"


def test_gain_brackets_with_three_states_hold_what_a_grid_search_finds():
    market = random_market(5, 1, 3)
    profile = random_profile(market, jax.random.key(5))
    found = certify_quantal(market, profile, 0.2)
    assert np.all(found.upper - found.lower <= 1e-6)
    for i in range(2):
        searched = search_gain(market, profile, 0.2, i, 20, 9)
        assert searched <= found.upper[i], f"{i=}"
        assert found.lower[i] - searched <= 5e-3, f"{i=}"


def test_users_who_share_a_signal_get_a_bracket_that_holds_every_deviation_tried():
    market = random_market(2, 2, 2).anonymous()
    profile = random_profile(market, jax.random.key(2))
    found = certify_quantal(market, profile, 0.1)
    assert found.status is MarketStatus.exploitable
    assert np.all(found.lower <= found.upper)
    now = play(market, Logit(0.1), profile).payoffs
    tried = jax.vmap(lambda key: random_profile(market, key).probability)(
        jax.random.split(jax.random.key(0), 300)
    )

    @jax.jit
    @jax.vmap
    def gains(table):
        moved = [ProbabilityTable(profile.probability.at[i].set(table[i])) for i in range(2)]
        return jnp.stack(
            [play(market, Logit(0.1), m).payoffs[i] - now[i] for i, m in enumerate(moved)]
        )

    assert np.all(np.max(gains(tried), axis=0) <= found.lower + 1e-6)


def test_four_states_are_local_at_best_and_one_state_is_certain():
    rng = np.random.default_rng(0)
    market = Market(np.full(4, 0.25), np.eye(4)[None], np.stack([np.eye(4)[None]] * 2), np.ones(1))
    found = certify_quantal(market, full_revelation(market), 0.1)
    assert found.status is MarketStatus.local
    assert np.all(found.lower <= 1e-6)
    # All that is left is her noise, which only full control of her action would remove.
    np.testing.assert_allclose(found.upper, 1 - found.provider_payoffs, rtol=0, atol=1e-12)
    assert np.all(found.upper > 1e-4)
    sure = Market(np.array([0.0, 1.0]), rng.uniform(size=(1, 3, 2)),
                  rng.uniform(size=(2, 1, 3, 2)), np.ones(1))  # fmt: skip
    profile = random_profile(sure, jax.random.key(0))
    assert certify_quantal(sure, profile, 0.1).status is MarketStatus.certified


def test_bad_input_is_named():
    market = random_market(0, 1, 2)
    for wrong in (0.0, -1.0, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="temperature is"):
            certify_quantal(market, babbling(market), wrong)
    with pytest.raises(ValueError, match="4 states"):
        persuade_quantal(jnp.full(4, 0.25), jnp.eye(4), jnp.eye(4), 0.1)
    with pytest.raises(ValueError, match="starts is -1"):
        find_quantal_equilibria(market, 0.1, starts=-1)


def test_the_table_over_temperature_of_a_prosecutor_and_a_defender():
    wants = jnp.stack([CONVICTION, 1 - CONVICTION])[:, None]
    market = Market(np.array([0.7, 0.3]), JUDGE[None], wants, np.ones(1))
    temperatures = (0.5, 0.2, 0.05)
    rows = temperature_table(market, temperatures, starts=0)
    for row, temperature in zip(rows, temperatures, strict=True):
        assert row["temperature"] == temperature
        assert row["status"] == "certified"
        assert row["certified"] + row["local"] + row["exploitable"] == row["found"] == 2
        assert 0 <= row["worst_gain"] <= 1e-6
        assert row["full_information"] == pytest.approx(1, abs=1e-15)
        assert row["loss"] == pytest.approx(1 - row["worst"], abs=1e-15)
        assert row["noise_bound"] == pytest.approx(2 * 0.278465 * temperature, abs=1e-6)
    losses = [row["loss"] for row in rows]
    # Her exact equilibrium value is 1, the whole of full information; colder users get nearer.
    assert all(warm > cold for warm, cold in itertools.pairwise(losses))
    assert losses[-1] <= 0.06
