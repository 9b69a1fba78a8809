"""The worst and the best common menu for users: closed forms, HiGHS, and exact ranges."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffgame.market import (
    Market,
    equilibrium_values,
    find_extremes,
    menu_exploitability,
    persuade_by_menu,
    recommend_branches,
)
from diffgame.market._menu_extremes import find_menu_extremes

from . import oracle
from .markets import padded, random_market
from .menus import random_game
from .oracle_menu import best_response_menu_poly

CAMPAIGN = pytest.mark.campaign
TOLERANCE = 1e-6
# One number of starts and one shape of market: one compilation.
STARTS = 4
COIN = np.array([0.5, 0.5])
CONVICTION = np.array([[0.0, 0.0], [1.0, 1.0]])


def opposed_market(mass=(1.0, 1.0)):
    users = oracle.opposed_users()
    return Market(COIN, np.stack(users), np.stack([[u, u] for u in users]), np.array(mass))


def third_action(utility, objective):
    """The same market with an action that nobody takes: all markets here are of one shape."""
    wide = np.pad(utility, ((0, 0), (0, 1), (0, 0)), constant_values=utility.min() - 1)
    return wide, np.pad(objective, ((0, 0), (0, 0), (0, 1), (0, 0)))


def judges_market():
    """T2: two providers paid per conviction; judges convict from 1/2 and from 3/4."""
    judges = np.array([[[0.0, 0.0], [-1.0, 1.0]], [[0.0, 0.0], [-3.0, 1.0]]])
    utility, objective = third_action(judges, np.broadcast_to(CONVICTION, (2, 2, 2, 2)))
    return Market(np.array([0.7, 0.3]), utility, objective, np.ones(2))


@pytest.mark.campaign
def test_opposed_users_get_nothing_at_worst_and_everything_at_best():
    found = find_menu_extremes(opposed_market(), starts=STARTS)
    assert (found.worst.status.value, found.best.status.value) == ("certified", "certified")
    np.testing.assert_allclose(found.worst.user_values, [0, 0], rtol=0, atol=1e-8)
    np.testing.assert_allclose(found.best.user_values, [1, 1], rtol=0, atol=1e-8)
    np.testing.assert_allclose(found.worst.provider_payoffs, [0, 0], rtol=0, atol=1e-8)
    np.testing.assert_allclose(found.best.provider_payoffs, [-2, -2], rtol=0, atol=1e-8)
    assert found.loss == pytest.approx(2, abs=1e-7)
    assert found.bound == pytest.approx(2, abs=1e-7)


def test_loss_and_bound_are_counted_by_mass():
    found = find_menu_extremes(opposed_market((1.0, 2.5)), starts=STARTS)
    assert found.worst.status.value == "certified"
    assert found.loss == pytest.approx(3.5, abs=1e-7)
    assert found.bound == pytest.approx(3.5, abs=1e-7)


def test_two_judges_are_left_what_a_monopolist_leaves_them():
    """Both convict at posterior 3/4: .4 each, worth .2 to the first, whom no branch can mislead."""
    found = find_menu_extremes(judges_market(), starts=STARTS)
    assert (found.worst.status.value, found.best.status.value) == ("certified", "certified")
    np.testing.assert_allclose(found.worst.user_values, [0.2, 0], rtol=0, atol=1e-8)
    np.testing.assert_allclose(found.worst.provider_payoffs, [0.8, 0.8], rtol=0, atol=1e-8)
    np.testing.assert_allclose(found.worst.branches[:, 1], [[1 / 7, 1]] * 2, rtol=0, atol=1e-7)
    np.testing.assert_allclose(found.best.user_values, [0.3, 0.3], rtol=0, atol=1e-8)


def test_stages_are_told_and_the_same_seed_finds_the_same():
    told = []
    first = find_menu_extremes(judges_market(), starts=STARTS, seed=3, progress=told.append)
    assert told == ["moving 12 menus"]
    second = find_menu_extremes(judges_market(), starts=STARTS, seed=3)
    np.testing.assert_array_equal(first.worst.branches, second.worst.branches)
    assert (first.certified, first.searched) == (second.certified, second.searched)
    assert first.searched == 14


@functools.cache
def random_case(seed):
    """Two users, two states, two providers; every third market with two actions."""
    actions = 2 if seed % 3 == 2 else 3
    mu, mass, us, U = random_market(seed, 2, actions, 2, 2, aligned=seed % 2 == 0)
    if actions == 2:
        us, U = third_action(us, U)
    market = Market(mu, us, U, mass)
    return mu, mass, us, U, market, find_menu_extremes(market, starts=STARTS)


def check_menu(mu, us, branches):
    """Columns sum to 1, users follow, and nobody prefers another's branch."""
    np.testing.assert_allclose(branches.sum(axis=1), 1, rtol=0, atol=1e-12)
    assert np.all(branches >= 0)
    expected = np.einsum("y,jby,kay->jkab", mu, us, branches)
    own = np.array([np.trace(expected[j, j]) for j in range(len(us))])
    at_best = expected.max(axis=3).sum(axis=2)
    assert np.all(at_best <= own[:, None] + 1e-9), at_best - own[:, None]
    return own


def reference_gains(mu, mass, us, U, branches):
    """What each provider gains by its best menu, by HiGHS: all sets of users count."""
    x = branches * mu
    value = np.einsum("jay,jay->j", us, x)
    now = np.einsum("j,ijay,jay->i", mass, U, x)
    best = [best_response_menu_poly(us, own, mu, value, x, mass)[0] for own in U]
    return np.array(best) - now


@pytest.mark.parametrize("count", [8, pytest.param(100, marks=CAMPAIGN)])
def test_certified_ends_of_random_markets_stand_in_highs(count):
    losses = []
    for seed in range(count):
        mu, mass, us, U, _, found = random_case(seed)
        full = mass @ [oracle.full_value(mu, u) for u in us]
        for end in (found.worst, found.best):
            assert end.status.value == "certified", f"seed={seed}: {end}"
            values = check_menu(mu, us, end.branches)
            np.testing.assert_allclose(values, end.user_values, atol=1e-9, err_msg=f"{seed=}")
            gains = reference_gains(mu, mass, us, U, end.branches)
            assert np.all(np.abs(gains) <= 2 * TOLERANCE * mass.sum()), f"seed={seed}: {gains}"
            assert mass @ end.user_values <= full + 1e-9, f"seed={seed}"
        assert found.loss == pytest.approx(full - mass @ found.worst.user_values, abs=1e-9)
        assert -1e-9 <= found.loss <= found.bound + TOLERANCE, f"seed={seed}: {found.loss}"
        assert mass @ found.best.user_values >= full - TOLERANCE, f"seed={seed}: G and F"
        losses.append(found.loss)
    bad = np.array(losses) > 1e-3
    assert bad.any()
    print(f"worst menu below full information in {bad.sum()} of {count} markets")


@pytest.mark.campaign
def test_losses_of_menus_beside_losses_of_signals():
    """No order is a theorem; both are below the bound that is proved for both."""
    losses = []
    for seed in range(60):
        *_, market, menus = random_case(seed)
        signals = find_extremes(market.anonymous(), starts=16)
        assert signals.loss <= signals.bound + TOLERANCE, f"seed={seed}"
        assert menus.bound == pytest.approx(signals.bound, abs=1e-7), f"seed={seed}"
        losses.append((menus.loss, signals.loss))
    apart = np.subtract(*np.array(losses).T)
    print(
        f"of {len(apart)} markets, menus lose more in {np.sum(apart > 1e-6)} (at most "
        f"{apart.max():.4f}), signals in {np.sum(apart < -1e-6)} (at most {-apart.min():.4f})"
    )


def with_idle_user(market):
    """Beside her a user without a stake in anything: menus add nothing then."""
    mu, _, us, U = padded(market, 2, 3, 2, 2)
    return Market(mu, us, U, np.ones(2))


def test_a_judge_whom_both_providers_want_to_acquit_hears_nothing_at_worst():
    acquittal = np.broadcast_to(CONVICTION[::-1], (2, 1, 2, 2))
    market = with_idle_user((np.array([0.7, 0.3]), np.ones(1), np.eye(2)[None], acquittal))
    found = find_menu_extremes(market, starts=STARTS)
    assert (found.worst.status.value, found.best.status.value) == ("certified", "certified")
    assert found.worst.user_values[0] == pytest.approx(0.7, abs=1e-8)
    assert found.best.user_values[0] == pytest.approx(1.0, abs=1e-8)


@pytest.mark.campaign
def test_of_one_user_the_search_finds_the_exact_worst():
    count = 100
    cases = [random_market(seed, 1, 3, 2, 2) for seed in range(100)]
    for *_, U in cases:
        # Providers of much the same mind leave her little.
        U[1] += 4 * U[0]
    mu, _, us, U = (np.stack(part) for part in zip(*cases, strict=True))
    exact = jax.jit(jax.vmap(lambda *user: equilibrium_values(*user).worst()[0]))
    worst = np.asarray(exact(mu, us[:, 0], U[:, :, 0]))
    for seed, case in enumerate(cases):
        found = find_menu_extremes(with_idle_user(case), starts=STARTS).worst
        assert found.status.value == "certified", f"seed={seed}"
        assert found.user_values[0] == pytest.approx(worst[seed], abs=1e-6), f"seed={seed}"
    full = np.array([oracle.full_value(m, u[0]) for m, _, u, _ in cases])
    below = np.sum(worst < full - 1e-6)
    assert below >= 2
    print(f"exact worst found for {count} of {count}; below full information: {below}")


@jax.jit
def meetings(joint, utility, objective, mass, menus, incumbent):
    return jax.vmap(menu_exploitability)(joint, utility, objective, mass, menus, incumbent)


def union(chosen, menus):
    """All providers post all menus; users keep their branch (and their provider)."""
    games, users = np.indices(chosen.shape)
    return np.repeat(menus[games, chosen, users][:, None], menus.shape[1], axis=1)


def common_menu(games, menus, incumbent):
    """The meeting before and after every menu is replaced by the union of all."""
    before = jax.device_get(meetings(*games, menus, incumbent))
    shared = union(before.chosen, menus)
    after = jax.device_get(meetings(*games, shared, before.chosen))
    np.testing.assert_array_equal(after.chosen, before.chosen)
    np.testing.assert_allclose(after.values[:, 0], before.values.max(axis=1), rtol=0, atol=1e-9)
    own = np.arange(before.chosen.shape[1])
    was, is_now = (
        np.stack([found.payoffs[g][:, found.chosen[g], own].sum(axis=1) for g in range(len(own))])
        for found in (before, after)
    )
    np.testing.assert_allclose(is_now, was, rtol=0, atol=1e-9)
    return before, after


COUNT = 20


@functools.cache
def random_profiles():
    """Random games with one type, and what users make of random menus of two branches."""
    games = [random_game(seed, 2, 1, 3, 2) for seed in range(COUNT)]
    *games, tables = (np.stack(leaves) for leaves in zip(*games, strict=True))
    direct = jax.jit(jax.vmap(jax.vmap(recommend_branches, (None, None, 0))))
    return games, np.asarray(direct(games[0], games[1], tables))


def test_the_union_of_all_menus_leaves_nobody_more_to_gain():
    """Result Y holds provider by provider, for any menus at all."""
    games, menus = random_profiles()
    before, after = common_menu(games, menus, np.zeros((COUNT, 2), int))
    more = np.max(after.gains.upper - before.gains.lower, axis=1)
    assert np.all(more <= 1e-7), f"seeds {np.flatnonzero(more > 1e-7)}: {more.max()}"
    # Better outside options take gains away from those who held somebody.
    assert np.any(after.gains.upper < before.gains.lower - 1e-3)
    assert np.any(before.chosen[:, 0] != before.chosen[:, 1])


def test_different_menus_in_equilibrium_make_a_common_one():
    """Providers of nearly one objective: one posts its monopoly menu, the other says nothing."""
    (joint, utility, objective, mass), _ = random_profiles()
    objective = objective[:, :1] + 0.02 * (objective - objective[:, :1])
    monopoly = jax.jit(jax.vmap(persuade_by_menu))
    first = np.asarray(monopoly(joint, utility, objective[:, 0], mass).branches)
    silence = np.asarray(
        jax.jit(jax.vmap(recommend_branches))(joint, utility, np.ones((COUNT, 1, 2, 1)))
    )
    menus = np.stack([first, silence], axis=1)
    games = joint, utility, objective, mass
    before, after = common_menu(games, menus, np.zeros((COUNT, 2), int))
    limit = 1e-7 * np.ptp(objective, axis=(2, 3, 4, 5)) * mass.sum(axis=1)[:, None]
    stands = np.all(before.gains.upper <= limit, axis=1)
    informative = np.any(before.values[:, 0] > before.values[:, 1] + 1e-3, axis=1)
    assert np.sum(stands & informative) >= 3
    stays = np.all(after.gains.upper <= limit, axis=1)
    assert np.all(stays[stands]), f"seeds {np.flatnonzero(stands & ~stays)}"


def test_one_provider_many_users_and_single_precision_are_refused():
    users = np.tile(np.eye(2), (5, 1, 1))
    crowd = Market(COIN, users, np.stack([users, users]), np.ones(5))
    with pytest.raises(ValueError, match="find_menu_extremes: 5 users make 31 sets to hold"):
        find_menu_extremes(crowd)
    alone = Market(COIN, users[:2], users[None, :2], np.ones(2))
    with pytest.raises(ValueError, match="objective has 1 provider; a common menu needs two"):
        find_menu_extremes(alone)
    single = jax.tree.map(
        lambda leaf: leaf.astype("float32") if leaf.dtype == jnp.float64 else leaf, crowd
    )
    with pytest.raises(ValueError, match="float32; certificates need float64"):
        find_menu_extremes(single)
