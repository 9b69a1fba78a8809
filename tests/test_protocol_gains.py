"""Gains from other policies of a protocol: known markets, and what menus alone cannot tell."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffgame import Argmax, play
from diffgame.market._conversation import Conversation
from diffgame.market._conversation_policy import (
    ConversationTable,
    babbling_conversation,
    random_conversation,
)
from diffgame.market._market import Market
from diffgame.market._menu_gains import action_sets, few_messages_gains
from diffgame.market._protocol_gains import protocol_exploitability, protocol_gains
from diffgame.market._tree import Protocol


def opposed_users(personalized):
    """E1: two users who want opposite things, a provider for each; two states never occur."""
    first = np.array([[0.0, 0.0, 0.0, 0.0], [1.0, -3.0, 0.0, 0.0], [-3.0, 1.0, 0.0, 0.0]])
    utility = np.stack([first, first[[0, 2, 1]]])
    objective = np.stack([np.stack([own] * 2) for own in utility])
    market = Market(np.array([0.5, 0.5, 0, 0]), utility, objective, np.ones(2))
    game = Conversation.from_market(market, Protocol(1, 1, 2))
    return game if personalized else game.observing(jnp.zeros(2, int))


@pytest.mark.parametrize(("personalized", "gain"), [(False, 0.0), (True, 1.0)], ids=str)
def test_the_babbling_of_opposed_users_needs_anonymity(personalized, gain):
    """Anonymous, nobody gains by informing anybody; personalized, each informs its own user."""
    game = opposed_users(personalized)
    found = protocol_exploitability(game, babbling_conversation(game))
    assert found.scope == "global"
    assert found.lower == pytest.approx(np.full(2, gain), abs=1e-8)
    assert found.upper == pytest.approx(np.full(2, gain), abs=1e-8)


def test_two_messages_are_worth_two_thirds_to_aligned_providers():
    """Three states to be guessed: from silence, worth 1/3, two messages gain 1/3, a menu 2/3."""
    matching, thirds = np.pad(np.eye(3), [(0, 0), (0, 1)]), np.array([1.0, 1.0, 1.0, 0.0]) / 3
    market = Market(thirds, matching[None], np.stack([matching[None]] * 2), np.ones(1))
    game = Conversation.from_market(market, Protocol(1, 1, 2))
    quiet = protocol_exploitability(game, babbling_conversation(game))
    split = jnp.eye(2)[jnp.array([0, 1, 1, 1])]
    told = ConversationTable((jnp.stack([split[None, :, None]] * 2),))
    assert quiet.scope == "global"
    silence = np.zeros((1, 1, 3, 4))
    silence[0, 0, 0] = 1
    tables = game.joint[None], game.utility[None], game.objective[:, None], game.mass[None]
    gains = protocol_gains(*tables, silence, game.protocol)
    assert gains.exact.all()
    for found in (quiet.lower, quiet.upper, gains.lower[0], gains.upper[0]):
        assert found == pytest.approx(np.full(2, 1 / 3), abs=1e-8)
    assert protocol_exploitability(game, told).upper == pytest.approx(np.zeros(2), abs=1e-8)


@pytest.mark.parametrize("timing", ["after", pytest.param("before", marks=pytest.mark.campaign)])
def test_no_posted_policy_gains_more(timing):
    """A user with two types; gains start from what `play` gives."""
    rng = np.random.default_rng(5)
    joint = rng.dirichlet(np.ones(8), size=1).reshape(1, 2, 4)
    utility, objective = rng.normal(size=(1, 2, 3, 4)), rng.normal(size=(2, 1, 2, 3, 4))
    game = Conversation(joint, utility, objective, np.ones(1), Protocol(1, 1, 2), timing=timing)
    profile = random_conversation(game, jax.random.key(3))
    found = protocol_exploitability(game, profile)
    assert found.scope == "global"
    assert np.all(found.upper - found.lower <= 1e-6)
    assert found.lower.max() > 1e-3
    payoffs = eqx.filter_jit(lambda profile: play(game, Argmax(), profile).payoffs)
    now = np.asarray(payoffs(profile))
    for seed in range(40):
        other = random_conversation(game, jax.random.key(seed)).tables[0]
        for i in range(2):
            tried = ConversationTable((profile.tables[0].at[i].set(other[i]),))
            gain = np.asarray(payoffs(tried))[i] - now[i]
            assert gain <= found.upper[i] + 1e-9, f"provider {i}, seed={seed}"


@pytest.mark.campaign
def test_users_without_types_gain_what_sets_of_actions_give():
    """Two users seen one by one, three actions, two messages: as `few_messages_gains` says."""
    rng = np.random.default_rng(9)
    joint = np.broadcast_to(rng.dirichlet(np.ones(4)), (2, 1, 1, 4))
    utility, objective = rng.normal(size=(2, 1, 1, 3, 4)), rng.normal(size=(2, 2, 1, 1, 3, 4))
    silence = np.zeros((2, 1, 3, 4))
    known = np.argmax(np.einsum("gjxy,gjxay->ga", joint, utility), axis=1)
    silence[np.arange(2), 0, known] = 1
    game = joint, utility, objective, np.ones((2, 1)), silence
    found = protocol_gains(*game, Protocol(1, 1, 2))
    sets = jnp.asarray(action_sets(3, 2))
    expected = few_messages_gains(*map(jnp.asarray, game), sets, jnp.ones(2, bool))
    assert found.exact.all()
    assert found.upper == pytest.approx(np.asarray(expected), abs=1e-7)
    assert found.lower == pytest.approx(found.upper, abs=1e-7)
    assert found.lower.max() > 1e-3


def test_a_limit_leaves_a_bracket_that_says_so():
    game = opposed_users(personalized=False)
    told = jnp.eye(2)[jnp.array([0, 1, 1, 1])]
    profile = ConversationTable((jnp.stack([told[None, :, None]] * 2),))
    found = protocol_exploitability(game, profile, limit=1)
    whole = protocol_exploitability(game, profile)
    assert found.scope == "bracket"
    assert whole.scope == "global"
    assert whole.upper == pytest.approx(np.zeros(2), abs=1e-8)
    assert np.all(found.upper >= whole.upper - 1e-9)
    assert np.all(found.lower <= whole.lower + 1e-9)
