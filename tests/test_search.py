"""The search: known equilibria from every start, and certified ends in random markets."""

import time
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffgame.market import Market, MarketStatus, _search, find_equilibria
from diffgame.market._settle import settle_user_starts, settle_users, smooth

from . import oracle
from .markets import random_market

STARTS = 64
POSTED = ["babbling, as posted", "full revelation, as posted"]


def opposed_users():
    u = np.stack(oracle.opposed_users())
    return Market(np.array([0.5, 0.5]), u, np.stack([u[[0, 0]], u[[1, 1]]]), np.ones(2))


def common_interest(kappa):
    """E2; a copy of the first action brings it to the shape of E1, one compilation for both."""
    u = np.eye(2)[[0, 1, 0]]
    objective = np.array([[u, -kappa * u], [-kappa * u, u]])
    return Market(np.array([0.5, 0.5]), np.stack([u, u]), objective, np.ones(2))


def by_start(found):
    return {end.start: end for end in found.equilibria}


@pytest.fixture(scope="module")
def personalized():
    return find_equilibria(opposed_users(), starts=STARTS)


@pytest.fixture(scope="module")
def anonymous():
    return find_equilibria(opposed_users().anonymous(), starts=STARTS)


def test_opposed_users_are_left_uninformed_in_public(anonymous):
    """E1: from every random start the search ends at the babbling values (0, 0)."""
    ends = by_start(anonymous)
    assert len([name for name in ends if name.startswith("random")]) == STARTS
    for name, end in ends.items():
        assert end.status is MarketStatus.certified, name
        if name.startswith("random") or name == "babbling":
            np.testing.assert_allclose(end.user_values, 0, rtol=0, atol=1e-7, err_msg=name)
    assert anonymous.babbling.status is MarketStatus.certified
    np.testing.assert_allclose(ends[POSTED[1]].user_values, 1, rtol=0, atol=1e-9)
    np.testing.assert_allclose(anonymous.best().user_values, 1, rtol=0, atol=1e-9)
    np.testing.assert_allclose(anonymous.worst().user_values, 0, rtol=0, atol=1e-7)


def test_opposed_users_learn_everything_one_by_one(personalized):
    """E1: (1, 1) from every start; from babbling each provider gains 1."""
    ends = by_start(personalized)
    assert set(ends) > {"babbling", "full revelation", "exact worst", "exact best"}
    assert POSTED[0] not in ends  # it is no equilibrium, and was not searched for
    for name, end in ends.items():
        assert end.status is MarketStatus.certified, name
        np.testing.assert_allclose(end.user_values, 1, rtol=0, atol=1e-7, err_msg=name)
    assert personalized.babbling.status is MarketStatus.exploitable
    np.testing.assert_allclose(personalized.babbling.lower, 1, rtol=0, atol=1e-7)
    np.testing.assert_allclose(personalized.babbling.upper, 1, rtol=0, atol=1e-7)


def test_a_reported_profile_is_a_signal_with_optimal_actions(personalized, anonymous):
    for market, found in (
        (opposed_users(), personalized),
        (opposed_users().anonymous(), anonymous),
    ):
        observation = np.asarray(market.observation)
        for end in found.equilibria:
            for j, (i, said) in enumerate(zip(end.chosen, end.actions, strict=True)):
                table = end.tables[i][observation[j]]
                np.testing.assert_allclose(table.sum(axis=1), 1, rtol=0, atol=1e-12)
                joint = np.asarray(market.prior)[:, None] * table
                expected = np.asarray(market.utility[j]) @ joint
                taken = expected[said[i], np.arange(table.shape[1])]
                assert np.all(taken >= expected.max(axis=0) - 1e-8), end.start
                assert taken.sum() == pytest.approx(end.user_values[j], abs=1e-12), end.start


@pytest.mark.parametrize("kappa", [0.5, 0.8, 0.9, 1.0, 1.1, 2.0, 3.0])
def test_common_interest_changes_phase_at_kappa_1(kappa, monkeypatch):
    """E2: in public, babbling stands from kappa = 1 on; one by one it never does."""
    # A third profile, never played, for the shape of E1.
    profiles = np.array([[0, 0], [1, 1], [0, 1]])
    monkeypatch.setattr(_search, "played_profiles", lambda market: profiles)
    public = find_equilibria(common_interest(kappa).anonymous(), starts=STARTS)
    gain = max(0.0, (1 - kappa) / 2)
    np.testing.assert_allclose(public.babbling.lower, gain, rtol=0, atol=1e-7)
    np.testing.assert_allclose(public.babbling.upper, gain, rtol=0, atol=1e-7)
    stands = public.babbling.status is MarketStatus.certified
    assert stands == (kappa >= 1)
    assert all(end.status is MarketStatus.certified for end in public.equilibria)
    np.testing.assert_allclose(public.best().user_values, 1, rtol=0, atol=1e-7)
    worst = 0.5 if kappa >= 1 else 1.0
    np.testing.assert_allclose(public.worst().user_values, worst, rtol=0, atol=1e-7)
    single = find_equilibria(common_interest(kappa), starts=STARTS)
    assert single.babbling.status is MarketStatus.exploitable
    np.testing.assert_allclose(single.babbling.lower, 0.5, rtol=0, atol=1e-7)
    for end in single.equilibria:
        assert end.status is MarketStatus.certified, end.start
        np.testing.assert_allclose(end.user_values, 1, rtol=0, atol=1e-7, err_msg=end.start)


def test_the_same_seed_finds_the_same(anonymous):
    again = find_equilibria(opposed_users().anonymous(), starts=STARTS)
    for one, other in zip(anonymous.equilibria, again.equilibria, strict=True):
        np.testing.assert_array_equal(one.user_values, other.user_values)
        np.testing.assert_array_equal(one.upper, other.upper)


def test_single_precision_is_refused():
    parts = [jnp.ones(2, jnp.float32) / 2, jnp.ones((1, 2, 2), jnp.float32)]
    market = Market(*parts, jnp.ones((1, 1, 2, 2), jnp.float32), jnp.ones(1, jnp.float32))
    with pytest.raises(ValueError, match="float32; certificates need float64"):
        find_equilibria(market)


def test_a_segment_in_between_is_searched_like_a_market_by_herself():
    """The same user behind a label of her own: nothing depends on the labels' names."""
    relabelled = opposed_users().observing(np.array([1, 0]))
    found = find_equilibria(relabelled, starts=STARTS)
    assert all(end.status is MarketStatus.certified for end in found.equilibria)
    for end in found.equilibria:
        np.testing.assert_allclose(end.user_values, 1, rtol=0, atol=1e-7)


@pytest.mark.campaign
def test_monopolist_of_two_thresholds():
    """T1, T2: paid per conviction, prior .3: one by one .6 + .4, in public .8."""
    u = np.stack([oracle.threshold_user(0.5), oracle.threshold_user(0.75)])
    objective = np.array([[[0.0, 0.0], [1.0, 1.0]]] * 2)[None]
    market = Market(np.array([0.7, 0.3]), u, objective, np.ones(2))
    single = find_equilibria(market, starts=8)
    public = find_equilibria(market.anonymous(), starts=8)
    for found, payoff in ((single, 1.0), (public, 0.8)):
        for end in found.equilibria:
            assert end.status is MarketStatus.certified, end.start
            assert end.provider_payoffs[0] == pytest.approx(payoff, abs=1e-7), end.start
    prior, judge = np.array([0.7, 0.3]), u[:1]
    (posterior,) = {round(float(end.provider_payoffs[0]), 7) for end in single.equilibria}
    assert posterior == 1.0
    alone = find_equilibria(Market(prior, judge, objective[:, :1], np.ones(1)), starts=8)
    assert alone.best().provider_payoffs[0] == pytest.approx(0.6, abs=1e-7)


def aligned_market(seed, users, actions, states, providers):
    mu, mass, us, U = random_market(seed, users, actions, states, providers, aligned=True)
    weights = [oracle.align_dist(u, list(U[:, j]), "hull", "none") for j, u in enumerate(us)]
    assert all(distance <= 1e-9 for distance, _ in weights), f"{seed=}"
    return mu, mass, us, U, np.array([w for _, w in weights])


class Counts(NamedTuple):
    """Of one market; gains as shares of a provider's range, values above the exact worst."""

    smooth: int
    largest_gain: float
    nearest_value: float
    incomplete: int


def check_ends(seed, market, settled, values, tolerance=1e-6):
    """Every end of one market is certified and as good as full information.

    `settled` and `values` have a leading axis of users; exploitability is the sum over users.
    """
    mu, mass, us, U, weights = market
    size = np.ptp(U, axis=(2, 3)) @ mass
    upper = settled.upper.sum(axis=0)  # [ends, providers]
    starts = settled.smooth.shape[1]
    # Not what is merely posted: babbling and full revelation.
    searched = np.r_[:starts, starts + 2 : len(upper)]
    certified = np.isfinite(upper) & (upper >= 0) & (upper <= tolerance * size)
    assert np.all(certified[searched]), f"{seed=}: {upper[searched].max(axis=0) / size}"
    early = settled.smooth.sum(axis=0)
    alone = np.all(np.isfinite(early) & (early >= 0) & (early <= tolerance * size), axis=1)
    nearest = np.inf
    for j, u in enumerate(us):
        value = np.einsum("epas,as->ep", settled.signal[j] * mu, u)
        held = np.take_along_axis(value, settled.incumbent[j], axis=1)[:, 0]
        missed = upper.max(axis=1) / mass[j] * weights[j].sum()
        promised = oracle.full_value(mu, u) - missed - 1e-7
        counts = np.all(certified, axis=1)
        assert np.all(held[counts] >= promised[counts]), f"{seed=}, user {j}: {held}"
        low = values.low[j][values.valid[j]].min()
        above = (held[searched] - low).min()
        assert above >= -1e-7, f"{seed=}, user {j}: {held[searched]}, exact worst {low}"
        nearest = min(nearest, above)
    largest = (upper[searched] / size).max()
    return Counts(alone.sum(), largest, nearest, np.sum(~values.complete))


def summary(counts, searches, seconds):
    smooth, largest, nearest, incomplete = zip(*counts, strict=True)
    return (
        f"{len(counts)} markets, {searches} searches, all certified (largest gain "
        f"{max(largest):.1e} of the range); the smooth stage alone certified {sum(smooth)}; lowest "
        f"value found {min(nearest):.1e} above the exact worst; exact worst of {sum(incomplete)} "
        f"users not certified; {seconds:.0f} s with compilation"
    )


def test_aligned_markets_end_certified_at_full_information():
    """8 markets of the shape of E1; the campaign below takes 1,000 of three providers."""
    counts, clock = [], time.perf_counter()
    for seed in range(8):
        market = aligned_market(seed, 2, 3, 2, 2)
        mu, mass, us, U, _ = market
        game = Market(mu, us, U, mass)
        rng = np.random.default_rng([3, seed])
        tables = rng.dirichlet(np.ones(3), size=(STARTS + 2, 2, 2, 2))
        tables[0], tables[1] = np.eye(3)[[0, 0]], np.eye(3)[:2]
        annealed = smooth(game, jnp.asarray(tables))
        settled, values = jax.device_get(settle_users(game, annealed))
        counts.append(check_ends(seed, market, settled, values))
    assert sum(count.incomplete for count in counts) == 0
    print(summary(counts, 8 * (STARTS + 2), time.perf_counter() - clock))


@jax.jit
@jax.vmap
def search_user(mu, u, U, mass, tables):
    """One user of a personalized market, which is a sum over its users."""
    market = Market(mu, u[None], U[:, None], mass[None], messages=tables.shape[-1])
    annealed = smooth(market, tables[:, :, None])
    return settle_user_starts(mu, u, U, mass, annealed[:, :, 0])


@pytest.mark.campaign
def test_campaign_of_1000_aligned_markets():
    """1,000 markets, 3 providers, 1-3 users, 3 states, 3 actions, from babbling and 7 random.

    pytest -m campaign -rP tests/test_search.py -k campaign
    """
    random_starts, counts, clock = 7, [], time.perf_counter()
    for first in range(0, 1000, 100):
        seeds = range(first, first + 100)
        batch = [aligned_market(seed, 1 + seed % 3, 3, 3, 3) for seed in seeds]
        single = []
        for seed, (mu, mass, us, U, _) in zip(seeds, batch, strict=True):
            rng = np.random.default_rng([4, seed])
            for j, u in enumerate(us):
                tables = rng.dirichlet(np.ones(3), size=(random_starts + 1, 3, 3))
                tables[0] = np.eye(3)[[0, 0, 0]]
                single.append((mu, u, U[:, j], mass[j], tables))
        # Filled up to the most users that 100 markets have: one compilation.
        filled = single + [single[0]] * (201 - len(single))
        found = jax.device_get(search_user(*map(np.stack, zip(*filled, strict=True))))
        at = 0
        for seed, market in zip(seeds, batch, strict=True):
            users = slice(at, at + len(market[1]))
            own = jax.tree.map(lambda leaf, users=users: leaf[users], found)
            counts.append(check_ends(seed, market, *own))
            at = users.stop
    assert sum(count.incomplete for count in counts) <= 20
    print(summary(counts, 1000 * (random_starts + 1), time.perf_counter() - clock))


def test_what_no_program_proved_is_bounded_by_the_range_of_payoffs(anonymous, monkeypatch):
    """Nothing infinite is reported, and nothing unproved called certified."""
    original = _search.settle_group

    def unproved(*arguments):
        settled = original(*arguments)
        nothing = jnp.full_like(settled.upper, jnp.inf).at[0].set(jnp.nan)
        return eqx.tree_at(lambda settled: settled.upper, settled, nothing)

    monkeypatch.setattr(_search, "settle_group", unproved)
    found = find_equilibria(opposed_users().anonymous(), starts=STARTS)
    ranges = np.ptp(opposed_users().objective, axis=(2, 3)).sum(axis=1)
    for end in found.equilibria:
        np.testing.assert_array_equal(end.upper, ranges)
        assert end.status is not MarketStatus.certified
    assert len(found.equilibria) >= len(anonymous.equilibria) - 2
