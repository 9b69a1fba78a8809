"""Best-response dynamics of one segment: values never fall, and what the moves are made of."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffgame.market import Segment, exploitability, meet
from diffgame.market._best_response import Exploitability
from diffgame.market._dynamics import (
    NEGLIGIBLE,
    best_response_dynamics,
    propose,
    recommend,
    settle_together,
)
from diffgame.market._segment import action_profiles, make_segment, unit_utility

from . import oracle
from .markets import random_market

ROUNDS = 12
SEEDS = range(60)


def make(mu, us, U, mass, profiles, playable):
    unit, _ = unit_utility(jnp.asarray(us))
    return Segment(
        jnp.asarray(mu), unit, jnp.asarray(U), jnp.asarray(mass), jnp.asarray(profiles), playable
    )


@jax.jit
@jax.vmap
def run(mu, u, U, playable, tables):
    """Values of one user after every round, and what is proposed from the same start."""
    unit, _ = unit_utility(U)
    profiles = action_profiles(1, u.shape[0])
    segment = make(mu, u[None], unit[:, None], np.ones(1), profiles, playable)
    start = jax.vmap(lambda table: recommend(segment, table))(tables), jnp.zeros(1, int)

    def turn(here, _):
        there = best_response_dynamics(segment, *here, rounds=1)
        return there, jnp.max(meet(segment, *there).values)

    end, values = jax.lax.scan(turn, start, length=ROUNDS)
    before = jnp.max(meet(segment, *start).values)
    signals, incumbents = propose(segment, start[0])
    proposed = jax.vmap(lambda signal, user: jnp.max(meet(segment, signal, user).values))
    return (
        jnp.concatenate([before[None], values]),
        start[0],
        end[0],
        signals,
        proposed(signals, incumbents),
    )


@pytest.fixture(scope="module")
def runs():
    """Every third market is aligned; starts babble, reveal or are random."""
    cases = []
    for seed in SEEDS:
        mu, _, us, U = random_market(seed, 1, 3, 3, 3, aligned=seed % 3 == 0)
        rng = np.random.default_rng([1, seed])
        tables = rng.dirichlet(np.ones(3), size=(3, 3))
        tables[0] = [tables[0], np.eye(3), np.eye(3)[[0, 0, 0]]][seed % 3]
        if seed % 4 == 0:
            tables[:] = np.eye(3)[[0, 0, 0]]
        cases.append((mu, us[0], U[:, 0], oracle.playable(mu, us[0]), tables))
    return cases, jax.device_get(run(*map(np.stack, zip(*cases, strict=True))))


def test_with_one_user_values_never_fall(runs):
    _, (values, *_) = runs
    falls = -np.diff(values, axis=1).min(axis=1)
    worst = int(np.argmax(falls))
    assert falls[worst] <= 1e-9, f"seed={SEEDS[worst]}: {values[worst]}"
    rises = np.sum(values[:, -1] > values[:, 0] + 1e-3)
    assert rises > len(SEEDS) // 4
    print(f"values rise in {rises} of {len(SEEDS)} runs; largest fall {falls.max():.1e}")


def test_with_one_user_the_run_ends_or_closes_in_on_full_information(runs):
    """Captures need the margin of .02, or half of what is left to full information."""
    cases, (values, *_) = runs
    full = np.array([oracle.full_value(mu, u) for mu, u, *_ in cases])
    low, high = (np.array([f(u) for _, u, *_ in cases]) for f in (np.min, np.max))
    left = (full - low) / (high - low) - values[:, -1]
    moving = np.abs(values[:, -1] - values[:, -2]) > 1e-9
    assert np.all(~moving | (left <= 0.04)), f"seeds {np.array(SEEDS)[moving & (left > 0.04)]}"
    print(f"{np.sum(~moving)} of {len(SEEDS)} runs ended within {ROUNDS} rounds")


def test_proposals_begin_with_the_start_and_the_end_of_the_dynamics(runs):
    cases, (values, starts, ends, signals, proposed) = runs
    providers = len(cases[0][2])
    assert signals.shape[1] == 2 + 2 * providers
    np.testing.assert_array_equal(signals[:, 0], starts)
    np.testing.assert_allclose(proposed[:, 0], values[:, 0], rtol=0, atol=1e-12)
    np.testing.assert_allclose(proposed[:, 1], values[:, -1], rtol=0, atol=1e-9)
    common = signals[:, 2:]
    for n, (own, moved) in enumerate(((starts, 0), (ends, providers))):
        for i in range(providers):
            everybody = np.broadcast_to(own[:, i : i + 1], own.shape)
            if n == 0:
                np.testing.assert_array_equal(common[:, moved + i], everybody)
            else:
                assert np.all(common[:, moved + i] == common[:, moved + i, :1])


def test_what_is_posted_stays_a_signal(runs):
    _, (_, _, ends, signals, _) = runs
    for signal in (ends, signals):
        assert signal.min() >= 0
        np.testing.assert_allclose(signal.sum(axis=-2), 1, rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("gap", "action"), [(0.0, 0), (5e-13, 0), (1e-10, 1)], ids=["tie", "rounding", "better"]
)
def test_recommendations_break_ties_to_the_lowest_action(gap, action):
    utility = np.array([[[0.0, 1.0], [1.0 + gap, 0.0]]])
    playable = jnp.ones(2, bool)
    prior, objective = np.array([0.5, 0.5]), np.zeros((1, 1, 2, 2))
    segment = make(prior, utility, objective, np.ones(1), action_profiles(1, 2), playable)
    told = recommend(segment, jnp.ones((2, 1)))
    np.testing.assert_array_equal(told, np.eye(2)[[action]].T.repeat(2, axis=1))


def test_recommendations_of_several_users_are_profiles_of_their_actions():
    us = oracle.opposed_users()
    mu, mass, profiles = np.array([0.5, 0.5]), np.ones(2), action_profiles(2, 3)
    segment = make(mu, us, np.zeros((1, 2, 3, 2)), mass, profiles, jnp.ones(9, bool))
    table = np.array([[0.9, 0.1, 0.0], [0.1, 0.4, 0.5]])
    told = recommend(segment, jnp.asarray(table))
    np.testing.assert_array_equal(told, oracle.recommendations([table], mu, us, profiles)[0])
    # First message: state 0 with probability .9; second: state 1 with .8; third: surely.
    assert told.tolist()[5] == pytest.approx([0.9, 0.1])
    assert told.tolist()[7] == pytest.approx([0.1, 0.9])


def two_users(mu, us, U, mass):
    """A segment of the shares of each provider's payoffs, all of whose signals babble."""
    segment = make_segment(mu, us, U / len(us), mass)
    silent = recommend(segment, jnp.ones((len(mu), 1)))
    return segment, jnp.broadcast_to(silent, (len(U), *silent.shape))


def test_of_what_is_proposed_the_first_that_nobody_leaves_is_kept():
    """Against all proposals assessed at once; else the one that is left for the least."""

    @jax.jit
    @jax.vmap
    def both(*market):
        segment, silent = two_users(*market)
        _, gains = settle_together(segment, silent)
        proposals = propose(segment, silent)
        upper = jax.vmap(lambda *own: exploitability(segment, meet(segment, *own)).upper)(
            *proposals
        )
        return jnp.max(gains.upper), jnp.max(upper, axis=1)

    markets = [random_market(seed, 2, 2, 2, 2) for seed in range(40)]
    markets = [(mu, us, U, np.ones(2)) for mu, _, us, U in markets]
    kept, proposed = map(np.asarray, both(*map(np.stack, zip(*markets, strict=True))))
    stands = proposed <= NEGLIGIBLE
    first = np.take_along_axis(proposed, stands.argmax(axis=1)[:, None], axis=1)[:, 0]
    expected = np.where(stands.any(axis=1), first, proposed.min(axis=1))
    wrong = np.flatnonzero(np.abs(kept - expected) > 1e-9)
    assert len(wrong) == 0, f"seeds {wrong}"
    assert np.any(stands[:, 0])
    assert np.any(~stands[:, 0])


def test_lower_bounds_are_kept_where_no_upper_bound_is_finite(monkeypatch):
    unbounded = Exploitability(jnp.array([0.25, 0.5]), jnp.full(2, jnp.inf))
    monkeypatch.setattr(
        "diffgame.market._dynamics.exploitability", lambda segment, meeting: unbounded
    )
    mu, mass, us, U = random_market(0, 2, 2, 2, 2)
    _, gains = settle_together(*two_users(*map(jnp.asarray, (mu, us, U, mass))))
    assert gains.lower.tolist() == [0.25, 0.5]
    assert np.all(np.isposinf(gains.upper))
