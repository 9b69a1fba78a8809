"""Markets of quantal users: outcomes against play, brackets of gains against grid searches."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffgame import Logit, ProbabilityTable, play
from diffgame.market import Market, MarketStatus, babbling, full_revelation, random_profile
from diffgame.market._quantal import certify_quantal
from diffgame.market._quantal_persuasion import persuade_quantal
from diffgame.market._quantal_search import find_quantal_equilibria

from .quantal import outcome, random_market, search_gain

played_out = eqx.filter_jit(play)


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


@pytest.mark.parametrize(("seed", "temperature"), [(0, 0.05), (1, 0.2)], ids=str)
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


@pytest.mark.campaign
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
