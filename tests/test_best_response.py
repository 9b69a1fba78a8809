"""Exact best responses and exploitability: known markets and the independent oracle."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffgame.market import exploitability, make_segment, meet, persuade
from diffgame.market._segment import action_profiles

from . import oracle
from .markets import mixed_markets, padded, repeated

CAMPAIGN = pytest.param(300, marks=pytest.mark.campaign)
MESSAGES = 3
COUNT = 40
BATCH = 80


@jax.jit
@jax.vmap
def compiled_gains(prior, utility, objective, mass, signal):
    segment = make_segment(prior, utility, objective, mass)
    return exploitability(segment, meet(segment, signal, jnp.zeros(len(mass), int)))


def gains(*arrays):
    """In a batch of a fixed size at least, so that few programs serve all."""
    found = jax.device_get(compiled_gains(*repeated(arrays, BATCH)))
    return jax.tree.map(lambda leaf: leaf[: len(arrays[0])], found)


def tables(seed, providers, states):
    """Random signals of every provider; every fourth time some of them babble or reveal all."""
    rng = np.random.default_rng([7, seed])
    pis = list(rng.dirichlet(np.ones(MESSAGES), size=(providers, states)))
    if seed % 4 == 0:
        pis[seed % providers] = np.eye(states) if seed % 8 else np.ones((states, 1))
    return pis


def error(ours, expected):
    """The worst difference of both ends of the bracket from the oracle; NaN if any is."""
    return np.max(np.abs(np.stack([ours.lower, ours.upper]) - np.asarray(expected)))


@pytest.mark.parametrize("count", [COUNT, CAMPAIGN])
def test_personalized_exploitability_equals_the_oracle_on_random_markets(count):
    """Markets of 1 to 3 users, each a segment of her own; gains add up over users."""
    markets = mixed_markets(count, providers=(3,))
    profiles, batch, owner = action_profiles(1, 3), [], []
    for seed, (mu, mass, us, U) in enumerate(markets):
        pis = tables(seed, 3, len(mu))
        for j in range(len(us)):
            own = mu, mass[j : j + 1], us[j : j + 1], U[:, j : j + 1]
            mu_, mass_, us_, U_ = padded(own, 1, 3, 3, 3)
            wide = [np.concatenate([pi, pi[[0] * (3 - len(mu))]]) for pi in pis]
            batch.append((mu_, us_, U_, mass_, oracle.recommendations(wide, mu_, us_, profiles)))
            owner.append(seed)
    found = gains(*(np.stack(part) for part in zip(*batch, strict=True)))
    errors = []
    for seed, (mu, mass, us, U) in enumerate(markets):
        pis = [[pi] * len(us) for pi in tables(seed, 3, len(mu))]
        expected, _ = oracle.exploitability(
            pis, list(us), [list(own) for own in U], mu, "pers", mass
        )
        mine = np.asarray(owner) == seed
        total = jax.tree.map(lambda leaf, mine=mine: leaf[mine].sum(0), found)
        errors.append(error(total, expected))
        assert errors[-1] <= 1e-7, f"seed={seed}"
    assert len(errors) == count
    print(f"{count} personalized exploitabilities compared, worst difference {max(errors):.1e}")


@pytest.mark.parametrize("count", [COUNT, CAMPAIGN])
def test_anonymous_exploitability_equals_the_oracle_on_random_markets(count):
    """Two users who see the same signal, in 2 or 3 actions and states, 2 providers."""
    markets = mixed_markets(count, users=(2,), providers=(2,))
    profiles, batch = action_profiles(2, 3), []
    for seed, market in enumerate(markets):
        pis = tables(seed, 2, len(market[0]))
        mu, mass, us, U = padded(market, 2, 3, 3, 2)
        wide = [np.concatenate([pi, pi[[0] * (3 - len(pi))]]) for pi in pis]
        batch.append((mu, us, U, mass, oracle.recommendations(wide, mu, us, profiles)))
    found = gains(*(np.stack(part) for part in zip(*batch, strict=True)))
    errors = []
    for seed, (mu, mass, us, U) in enumerate(markets):
        pis = [[pi] * 2 for pi in tables(seed, 2, len(mu))]
        expected, _ = oracle.exploitability(
            pis, list(us), [list(own) for own in U], mu, "anon", mass
        )
        ours = jax.tree.map(lambda leaf, seed=seed: leaf[seed], found)
        errors.append(error(ours, expected))
        assert errors[-1] <= 1e-7, f"seed={seed}"
    assert len(errors) == count
    print(f"{count} anonymous exploitabilities compared, worst difference {max(errors):.1e}")


@pytest.mark.parametrize(
    ("missing", "width"), [(0.0, 1e-9), (1e-9, 1e-8), (1e-7, 1e-6), (1e-5, 1e-5)]
)
def test_gains_are_bounded_where_users_know_nearly_everything(missing, width):
    """Sets of users that can only just be held: programs without an interior, or nearly so."""
    markets = mixed_markets(COUNT, users=(2,), providers=(2,))
    batch = []
    for mu, mass, us, U in markets:
        pi = (1 - missing) * np.eye(len(mu)) + missing / len(mu)
        batch += [posted([(mu, mass, us, U)], pi, [0, 1])]
    found = gains(*(np.concatenate(part) for part in zip(*batch, strict=True)))
    for seed, (lower, upper) in enumerate(zip(found.lower, found.upper, strict=True)):
        assert np.all(np.isfinite(upper)), f"seed={seed}: {upper}"
        assert np.all(upper >= lower - 1e-7), f"seed={seed}: {lower} {upper}"
        assert np.all(upper <= lower + width), f"seed={seed}: {upper - lower}"


def posted(markets, pi, users):
    """What `gains` takes if all providers post the table `pi` to `users` of each market."""
    batch = []
    # One user meets three providers (the third repeats the first), as in the tests above.
    shape = len(users), 3, 3, 3 if len(users) == 1 else 2
    for mu, mass, us, U in markets:
        mu, mass, us, U = padded((mu, mass[users], us[users], U[:, users]), *shape)
        wide = np.concatenate([pi, pi[[0] * (3 - len(pi))]])
        signal = oracle.recommendations([wide] * len(U), mu, us, action_profiles(len(users), 3))
        batch.append((mu, us, U, mass, signal))
    return [np.stack(part) for part in zip(*batch, strict=True)]


def opposed(mass=(1.0, 1.0)):
    """E1: each provider wants what one of the users wants, from both of them."""
    us = np.stack(oracle.opposed_users())
    return np.full(2, 0.5), np.array(mass), us, np.stack([us[[0, 0]], us[[1, 1]]])


BABBLE, REVEAL = np.ones((2, 1)), np.eye(2)


def test_opposed_users_can_be_stuck_with_babbling_in_public():
    """E1: both extremes are anonymous equilibria."""
    for pi in (BABBLE, REVEAL):
        assert gains(*posted([opposed()], pi, [0, 1])).upper == pytest.approx(0, abs=1e-9)


def test_opposed_users_cannot_be_stuck_one_by_one():
    """E1: from babbling each provider would gain 1, by serving the user who wants the same."""
    for user, expected in ((0, [1, 0, 1]), (1, [0, 1, 0])):
        found = gains(*posted([opposed()], BABBLE, [user]))
        assert found.lower[0] == pytest.approx(expected, abs=1e-9)
        assert found.upper[0] == pytest.approx(expected, abs=1e-9)


def test_opposed_users_babble_in_equilibrium_while_masses_are_within_the_ratio_of_stakes():
    """E1 with masses (1, r): an equilibrium if and only if g/L <= r <= L/g, here 1/3 to 3."""
    ratios = np.array([0.2, 0.3, 0.34, 1, 2.9, 3.1, 5])
    found = gains(*posted([opposed((1, ratio)) for ratio in ratios], BABBLE, [0, 1]))
    stuck = (ratios >= 1 / 3) & (ratios <= 3)
    assert np.all(found.upper[stuck] <= 1e-9)
    assert np.all(found.lower[~stuck].max(1) > 1e-3)


def test_common_interest_breaks_babbling_below_kappa_1_with_gain_1_minus_kappa_over_2():
    """E2."""
    kappas, u = np.array([0.5, 0.8, 0.9, 1, 1.1, 2, 3]), np.eye(2)
    markets = [
        (np.full(2, 0.5), np.ones(2), np.stack([u, u]), np.array([[u, -k * u], [-k * u, u]]))
        for k in kappas
    ]
    found = gains(*posted(markets, BABBLE, [0, 1]))
    expected = np.maximum(0, (1 - kappas) / 2)[:, None].repeat(2, 1)
    assert found.lower == pytest.approx(expected, abs=1e-9)
    assert found.upper == pytest.approx(expected, abs=1e-9)


@jax.jit
def compiled_persuade(*market):
    return persuade(*market)


def lobby(prior, utility, objective, mass):
    """One monopolist's best signal to at most 2 users with 3 actions in 3 states."""
    market = prior, mass, utility, objective[None]
    prior, mass, utility, objective = padded(market, 2, 3, 3, 1)
    return jax.device_get(compiled_persuade(prior, utility, objective[0], mass))


@pytest.mark.parametrize("guilt", [0.1, 0.3, 0.49, 0.5, 0.8])
def test_a_prosecutor_convicts_with_probability_min_1_2p(guilt):
    """T1, Kamenica and Gentzkow (2011): the judge convicts at a posterior of one half."""
    judge, convict = np.eye(2)[None], np.array([[[0, 0], [1, 1.0]]])
    found = lobby(np.array([1 - guilt, guilt]), judge, convict, np.ones(1))
    assert found.lower == pytest.approx(min(1, 2 * guilt), abs=1e-9)
    assert found.upper == pytest.approx(min(1, 2 * guilt), abs=1e-9)


def test_a_monopolist_earns_more_with_one_signal_per_user():
    """T2: judges with thresholds 1/2 and 3/4, prior .3: personalized 1.0, anonymous .8."""
    prior, convict = np.array([0.7, 0.3]), np.array([[0, 0], [1, 1.0]])
    judges = np.stack([oracle.threshold_user(0.5), oracle.threshold_user(0.75)])
    public = lobby(prior, judges, np.stack([convict] * 2), np.ones(2))
    assert public.lower == pytest.approx(0.8, abs=1e-9)
    assert public.upper == pytest.approx(0.8, abs=1e-9)
    private = [lobby(prior, judges[[j]], convict[None], np.ones(1)) for j in range(2)]
    assert sum(one.lower for one in private) == pytest.approx(1, abs=1e-9)
    assert sum(one.upper for one in private) == pytest.approx(1, abs=1e-9)


def test_identical_users_cannot_be_told_to_act_differently():
    """A program over all profiles would earn 1.6; every signal earns 1."""
    prior, user = np.full(2, 0.5), np.eye(2)
    paid = np.array([[[0.8, 0.8], [0.2, 0.2]], [[0.2, 0.2], [0.8, 0.8]]])
    found = lobby(prior, np.stack([user, user]), paid, np.ones(2))
    assert found.lower == pytest.approx(1, abs=1e-9)
    assert found.upper == pytest.approx(1, abs=1e-9)
    nowhere = [-np.inf] * 2, [None] * 2
    naive = oracle.best_response([user, user], list(paid), prior, *nowhere)[0]
    assert naive == pytest.approx(1.6, abs=1e-9)


def test_a_best_response_is_a_signal_that_earns_what_it_says():
    rng = np.random.default_rng(3)
    prior, us = rng.dirichlet(np.ones(3)), rng.uniform(size=(2, 3, 3))
    paid, mass = 1e3 * rng.uniform(size=(2, 3, 3)), np.array([0.5, 2.0])
    found = lobby(prior, us, paid, mass)
    assert np.all(found.signal >= 0)
    assert found.signal.sum(0) == pytest.approx(np.ones(3), abs=1e-12)
    profiles = action_profiles(2, 3)
    joint = prior * np.asarray(found.signal)
    earned = sum(mass[j] * np.sum(joint * paid[j, profiles[:, j]]) for j in range(2))
    assert found.lower == pytest.approx(earned, abs=1e-9)
    for at in np.flatnonzero(joint.sum(1) > 1e-9):
        for j in range(2):
            values = us[j] @ joint[at] / joint[at].sum()
            assert values[profiles[at, j]] == pytest.approx(values.max(), abs=1e-8)
    expected = oracle.best_response(list(us), list(paid), prior, [-np.inf] * 2, [None] * 2, mass)[0]
    assert found.lower == pytest.approx(expected, abs=1e-6)
