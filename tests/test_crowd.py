"""Segments of many users: what users do, and that the bracket holds the exact gain."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffgame.market import Market
from diffgame.market._crowd import bound_gains, meet_crowd, search_deviation

from . import oracle
from .markets import random_market

USERS, ACTIONS, STATES, PROVIDERS, MESSAGES = 3, 2, 3, 2, 4
SEEDS = range(12)


@jax.jit
@jax.vmap
def bracket(mu, us, U, mass, tables, key):
    market = Market(mu, us, U, mass, jnp.zeros(USERS, int), observations=1, messages=MESSAGES)
    incumbent = jnp.zeros(USERS, int)
    meeting = meet_crowd(market, tables, incumbent)
    lower, deviations = jax.vmap(
        lambda provider: search_deviation(market, tables, incumbent, provider, key, 4)
    )(jnp.arange(PROVIDERS))
    return meeting, lower, bound_gains(market, meeting), deviations


@pytest.fixture(scope="module")
def found():
    markets = [random_market(seed, USERS, ACTIONS, STATES, PROVIDERS) for seed in SEEDS]
    mu, mass, us, U = map(np.stack, zip(*markets, strict=True))
    # In units of one, like the search: its annealing and its prices count on them.
    U = U / (mass.sum(axis=1)[:, None, None, None, None])
    rng = np.random.default_rng(5)
    tables = rng.dirichlet(np.ones(MESSAGES), size=(len(SEEDS), PROVIDERS, STATES))
    tables[::3] = np.eye(MESSAGES)[[0] * STATES]
    keys = jax.random.split(jax.random.key(0), len(SEEDS))
    return (mu, us, U, mass, tables), jax.device_get(bracket(mu, us, U, mass, tables, keys))


def exact_gains(mu, us, U, mass, tables):
    return oracle.exploitability([[t] * USERS for t in tables], us, U, mu, "anon", mass)


def test_users_do_what_the_oracle_says(found):
    arrays, (meeting, *_) = found
    for b, (mu, us, U, mass, tables) in enumerate(zip(*arrays, strict=True)):
        chosen, values, outcomes = oracle.market_state([[t] * USERS for t in tables], us, mu)
        assert meeting.chosen[b].tolist() == chosen, f"seed={SEEDS[b]}"
        for j, (i, value, x) in enumerate(zip(chosen, values, outcomes, strict=True)):
            assert meeting.values[b, i, j] == pytest.approx(value, abs=1e-12), f"seed={SEEDS[b]}"
            payoff = mass[j] * (x * U[:, j]).sum(axis=(1, 2))
            np.testing.assert_allclose(meeting.payoffs[b, :, i, j], payoff, rtol=0, atol=1e-12)


def test_the_bracket_holds_the_exact_gain(found):
    arrays, (_, lower, upper, _) = found
    reached, closed = 0, 0
    for b, arrays_b in enumerate(zip(*arrays, strict=True)):
        exact, _ = exact_gains(*arrays_b)
        assert np.all(lower[b] >= 0), f"seed={SEEDS[b]}"
        assert np.all(lower[b] <= exact + 1e-8), f"seed={SEEDS[b]}: {lower[b]}, exact {exact}"
        assert np.all(exact <= upper[b] + 1e-8), f"seed={SEEDS[b]}: exact {exact}, {upper[b]}"
        reached += np.sum(lower[b] > 0.5 * exact)
        closed += np.sum(upper[b] - lower[b] < 1e-6)
    count = PROVIDERS * len(SEEDS)
    assert reached > count // 2
    print(f"search finds over half of the exact gain for {reached} of {count}, all for {closed}")


def test_a_deviation_found_gains_what_is_said(found):
    arrays, (meeting, lower, _, deviations) = found
    for b, i in itertools.product(range(len(SEEDS)), range(PROVIDERS)):
        mu, us, U, mass, tables = (array[b] for array in arrays)
        moved = [[deviations[b, i] if h == i else tables[h]] * USERS for h in range(PROVIDERS)]
        before = sum(meeting.payoffs[b, i, h, j] for j, h in enumerate(meeting.chosen[b]))
        values = np.array(
            [[oracle.user_value(pi[j], mu, us[j]) for pi in moved] for j in range(USERS)]
        )
        after = 0.0
        for j, old in enumerate(meeting.chosen[b]):
            best = values[j].max() - 1e-9
            h = old if values[j, old] >= best else int(np.argmax(values[j] >= best))
            after += mass[j] * (oracle.outcome(moved[h][j], mu, us[j]) * U[i, j]).sum()
        assert lower[b, i] == pytest.approx(max(after - before, 0), abs=1e-9), f"seed={SEEDS[b]}"
