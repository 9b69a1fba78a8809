"""Conversations: closed forms, the one-shot market as a special case, derivatives, refusals."""

import itertools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import diffgame as dg
from diffgame.market import Market, random_profile
from diffgame.market._conversation import Conversation
from diffgame.market._conversation_policy import (
    ConversationTable,
    babbling_conversation,
    network_conversation,
    random_conversation,
    revealing_conversation,
)
from diffgame.market._conversation_value import provider_values
from diffgame.market._tree import Protocol

from .markets import random_market
from .test_tree import SMALL, random_conversation_game

play = eqx.filter_jit(dg.play)
field_of = eqx.filter_jit(dg.pseudogradient)
values_of = eqx.filter_jit(provider_values)
payoffs_of = eqx.filter_jit(dg.provider_payoffs)


def exclusive_or(timing="before"):
    """She knows the bit a, the provider the state b; she must name a xor b. Two equal providers."""
    utility = np.stack([np.eye(2), 1 - np.eye(2)])[None]
    return Conversation(
        np.full((1, 2, 2), 0.25),
        utility,
        np.broadcast_to(utility, (2, *utility.shape)),
        np.ones(1),
        Protocol(1, 1, 2),
        timing=timing,
    )


def matching(states, protocol):
    """One provider, one user, equiprobable states; both want her to name the state."""
    utility = np.eye(states)[None, None]
    joint = np.full((1, 1, states), 1 / states)
    return Conversation(joint, utility, utility[None], np.ones(1), protocol)


def two_bits(labels, protocol):
    """A uniform 2-bit state; user 0 must name its first bit, user 1 its second."""
    bits = np.array([[0, 0, 1, 1], [0, 1, 0, 1]])
    utility = np.stack([bits == 0, bits == 1], axis=1).astype(float)[:, None]
    return Conversation(
        np.full((2, 1, 4), 0.25),
        utility,
        utility[None],
        np.ones(2),
        protocol,
        np.array(labels),
        observations=max(labels) + 1,
    )


def deterministic_tables(game):
    """Every deterministic profile of a game with one provider and one round, in one batch."""
    messages = game.protocol.provider_messages
    rows = game.observations * game.joint.shape[-1] * game.protocol.user_messages
    answers = np.array(list(itertools.product(range(messages), repeat=rows)))
    shape = (len(answers), 1, game.observations, -1, game.protocol.user_messages, messages)
    return ConversationTable((jnp.asarray(np.eye(messages)[answers].reshape(shape)),))


def best_by_enumeration(game):
    """The largest sum of utilities; utilities are convex in each row, so a vertex is best."""
    found = jax.jit(jax.vmap(lambda profile: dg.play(game, dg.Argmax(), profile).utilities))(
        deterministic_tables(game)
    )
    return float(jnp.max(jnp.sum(found, axis=1)))


def climb(game, starts, temperature=0.1):
    """Gradient play from random starts, then exact users: the sums of utilities reached."""
    solver = dg.GradientPlay(optax.sgd(0.5))

    def one(key):
        start = random_conversation(game, key)
        found = dg.solve(
            game,
            dg.Logit(temperature),
            start,
            solver,
            tolerance=1e-8,
            max_steps=2000,
            throw=False,
        )
        return jnp.sum(dg.play(game, dg.Argmax(), found.profile).utilities)

    return jax.jit(jax.vmap(one))(jax.random.split(jax.random.key(0), starts))


@pytest.mark.parametrize("timing", ["before", "after"])
def test_a_bit_of_her_own_and_a_bit_of_the_provider(timing):
    game = exclusive_or(timing)
    assert game.uninformed() == pytest.approx(0.5, abs=1e-15)
    assert game.full_information() == pytest.approx(1, abs=1e-15)
    silent = play(game, dg.Argmax(), babbling_conversation(game))
    told = play(game, dg.Argmax(), revealing_conversation(game))
    assert float(silent.utilities[0]) == pytest.approx(0.5, abs=1e-15)
    assert float(told.utilities[0]) == pytest.approx(1, abs=1e-15)
    assert np.asarray(told.payoffs) == pytest.approx(1, abs=1e-15)


def test_two_messages_for_three_states_are_worth_two_thirds():
    game = matching(3, Protocol(1, 1, 2))
    assert best_by_enumeration(game) == pytest.approx(2 / 3, abs=1e-15)
    reached = climb(game, 8)
    assert float(reached.max()) == pytest.approx(2 / 3, abs=1e-9)
    assert np.all(np.asarray(reached) <= 2 / 3 + 1e-12)


@pytest.mark.parametrize(
    ("labels", "protocol", "best"),
    [
        pytest.param([0, 0], Protocol(1, 1, 2), 1.5, id="anonymous"),
        pytest.param([0, 1], Protocol(1, 1, 2), 2, id="personalized"),
        pytest.param([0, 0], Protocol(1, 2, 2), 2, id="anonymous, she may ask"),
    ],
)
def test_two_users_who_need_different_bits(labels, protocol, best):
    game = two_bits(labels, protocol)
    assert best_by_enumeration(game) == pytest.approx(best, abs=1e-15)
    reached = climb(game, 16)
    assert float(reached.max()) == pytest.approx(best, abs=1e-9)
    assert np.all(np.asarray(reached) <= best + 1e-12)


def test_a_second_round_tells_the_second_bit():
    game = two_bits([0, 0], Protocol(2, 1, 2))
    found = play(game, dg.Argmax(), revealing_conversation(game))
    assert np.asarray(found.utilities) == pytest.approx(1, abs=1e-15)


LABELS = {"anonymous": [0, 0, 0], "segments": [0, 1, 0], "personalized": [0, 1, 2]}


@pytest.mark.parametrize("labels", LABELS.values(), ids=LABELS.keys())
@pytest.mark.parametrize("response", [dg.Argmax(), dg.Logit(0.2)], ids=["exact", "quantal"])
def test_one_round_without_questions_or_secrets_is_the_market(labels, response):
    for seed in range(3):
        mu, mass, us, U = random_market(seed, 3, 3, 3, 3)
        market = Market(mu, us, U, mass, np.array(labels), observations=max(labels) + 1)
        game = Conversation.from_market(market, Protocol(1, 1, 3))
        signals = random_profile(market, jax.random.key(seed))
        answers = ConversationTable((signals.probability[..., None, :],))
        found, wanted = play(game, response, answers), play(market, response, signals)
        assert np.asarray(found.utilities) == pytest.approx(
            np.asarray(wanted.utilities), abs=1e-14
        ), f"seed={seed}"
        assert np.asarray(found.payoffs) == pytest.approx(np.asarray(wanted.payoffs), abs=1e-14), (
            f"seed={seed}"
        )
        if isinstance(response, dg.Logit):
            (field,) = field_of(game, response, answers).tables
            slope = field_of(market, response, signals).probability
            assert np.asarray(field[..., 0, :]) == pytest.approx(np.asarray(slope), abs=1e-13)


@pytest.mark.parametrize("timing", ["before", "after"])
def test_silence_is_worth_the_uninformed_value_and_revelation_the_full_one(timing):
    for seed in range(3):
        game = random_conversation_game(seed, states=3, timing=timing)
        silent = play(game, dg.Argmax(), babbling_conversation(game)).utilities
        told = play(game, dg.Argmax(), revealing_conversation(game)).utilities
        anything = play(game, dg.Argmax(), random_conversation(game, jax.random.key(seed)))
        assert np.asarray(silent) == pytest.approx(np.asarray(game.uninformed()), abs=1e-12)
        assert np.asarray(told) == pytest.approx(np.asarray(game.full_information()), abs=1e-12)
        assert np.all(np.asarray(anything.utilities >= silent - 1e-12)), f"seed={seed}"
        assert np.all(np.asarray(anything.utilities <= told + 1e-12)), f"seed={seed}"


def test_she_picks_her_provider_once_or_once_per_secret():
    """Her secret says which of two bits she must name; each provider tells one of them."""
    bits = np.array([[0, 0, 1, 1], [0, 1, 0, 1]])
    utility = np.stack([bits == 0, bits == 1], axis=1).astype(float)[None]
    tables = ConversationTable((jnp.asarray(np.eye(2)[bits])[:, None, :, None, :],))
    for timing, best in (("before", 0.75), ("after", 1.0)):
        game = Conversation(
            np.full((1, 2, 4), 0.125),
            utility,
            np.zeros((2, *utility.shape)),
            np.ones(1),
            Protocol(1, 1, 2),
            timing=timing,
        )
        assert game.uninformed() == pytest.approx(0.5, abs=1e-15)
        found = play(game, dg.Argmax(), tables).utilities
        assert float(found[0]) == pytest.approx(best, abs=1e-15), timing
        assert np.asarray(values_of(game, dg.Argmax(), tables)) == pytest.approx(0.75, abs=1e-15)


def test_before_she_learns_anything_the_best_provider_is_worth_her_utility():
    for seed in range(5):
        game = random_conversation_game(seed)
        profile = random_conversation(game, jax.random.key(seed))
        utilities = play(game, dg.Argmax(), profile).utilities
        values = values_of(game, dg.Argmax(), profile)
        assert np.asarray(values.max(axis=1)) == pytest.approx(np.asarray(utilities), abs=1e-12), (
            f"seed={seed}"
        )


def differences(game, response, profile):
    """Central differences of each provider's payoff in its own parameters, entry by entry."""
    step = 1e-5
    varied, fixed = eqx.partition(profile, profile.parameters())
    leaves, structure = jax.tree.flatten(varied)
    slopes = []
    for number, leaf in enumerate(leaves):
        slope = np.zeros(leaf.shape)
        for at in np.ndindex(leaf.shape):
            ends = []
            for sign in (1, -1):
                moved = list(leaves)
                moved[number] = leaf.at[at].add(sign * step)
                shifted = eqx.combine(jax.tree.unflatten(structure, moved), fixed)
                ends.append(float(payoffs_of(game, response, shifted)[at[0]]))
            slope[at] = (ends[0] - ends[1]) / (2 * step)
        slopes.append(slope)
    return slopes


@pytest.mark.parametrize("timing", ["before", "after"])
@pytest.mark.parametrize("labels", [[0, 0], [0, 1]], ids=["anonymous", "personalized"])
def test_gradients_of_tables_equal_finite_differences(timing, labels):
    game = random_conversation_game(3, timing=timing, states=2).observing(labels)
    profile, response = random_conversation(game, jax.random.key(1)), dg.Logit(0.2)
    field = jax.tree.leaves(field_of(game, response, profile))
    slopes = differences(game, response, profile)
    assert len(field) == len(slopes) == 2
    for found, slope in zip(field, slopes, strict=True):
        assert np.asarray(found) == pytest.approx(slope, rel=1e-6, abs=1e-8)
        assert np.max(np.abs(slope)) > 1e-4


def test_gradients_of_networks_equal_finite_differences():
    game = random_conversation_game(4, states=2)
    profile = network_conversation(game, jax.random.key(0), width=3)
    field = jax.tree.leaves(field_of(game, dg.Logit(0.2), profile))
    slopes = differences(game, dg.Logit(0.2), profile)
    assert len(field) == len(slopes) == 4
    for found, slope in zip(field, slopes, strict=True):
        assert np.asarray(found) == pytest.approx(slope, rel=1e-6, abs=1e-8)
    assert max(np.max(np.abs(slope)) for slope in slopes) > 1e-4


def test_a_networks_answers_depend_on_state_history_and_observation():
    game = random_conversation_game(0)
    profile = network_conversation(game, jax.random.key(2), width=32)
    offers = dg.play(game, dg.Argmax(), profile).offers
    assert [table.shape for table in offers] == [(2, 2, 3, 2, 2), (2, 2, 3, 8, 2)]
    for table in offers:
        assert np.asarray(table.sum(-1)) == pytest.approx(1, abs=1e-12)
        rows = np.asarray(table[..., 0]).ravel()
        # Other user, provider, state or history: another answer.
        assert len(np.unique(rows.round(12))) == rows.size


def test_climbing_a_network_finds_what_to_tell():
    game = matching(2, Protocol(1, 1, 2))
    start = network_conversation(game, jax.random.key(0))
    settings = {"tolerance": 1e-6, "max_steps": 300, "throw": False}
    found = dg.solve(game, dg.Logit(0.1), start, dg.GradientPlay(optax.adam(0.05)), **settings)
    assert float(found.outcome.utilities[0]) > 0.95
    reached = play(game, dg.Argmax(), found.profile).utilities
    assert float(reached[0]) > float(play(game, dg.Argmax(), start).utilities[0]) + 0.1


@pytest.mark.parametrize("timing", ["before", "after"])
def test_quantal_users_become_exact_as_the_temperature_falls(timing):
    for seed in range(3):
        game = random_conversation_game(seed, timing=timing)
        profile = random_conversation(game, jax.random.key(seed))
        exact = play(game, dg.Argmax(), profile)
        losses = []
        for temperature in (1e-1, 1e-2, 1e-3):
            loss = exact.utilities - play(game, dg.Logit(temperature), profile).utilities
            # At most 0.2785 temperatures per decision among two: provider, two messages, action.
            assert np.all(np.asarray(loss) <= 4 * 0.278465 * temperature), f"seed={seed}"
            assert np.all(np.asarray(loss) >= -1e-12), f"seed={seed}"
            losses.append(float(jnp.max(loss)))
        assert losses[0] > losses[1] > losses[2], f"seed={seed}"
        frozen = play(game, dg.Logit(1e-7), profile)
        assert np.asarray(frozen.utilities) == pytest.approx(np.asarray(exact.utilities), abs=1e-9)
        assert np.asarray(frozen.payoffs) == pytest.approx(np.asarray(exact.payoffs), abs=1e-6)


def test_ties_go_to_the_lowest_index():
    # Powers of two, so that every comparison is exact.
    utility = np.ones((1, 1, 2, 2))
    objective = np.array([[[[[1.0, 1], [0, 0]]]], [[[[0.0, 0], [1, 1]]]]])
    joint = np.full((1, 1, 2), 0.5)
    game = Conversation(joint, utility, objective, np.ones(1), Protocol(2, 2, 2))
    found = play(game, dg.Argmax(), revealing_conversation(game))
    leaves = np.argwhere(np.asarray(found.choices[0]) > 0)
    # provider, type, c_1, m_1, c_2, m_2, action
    assert set(map(tuple, leaves[:, [0, 2, 4, 6]])) == {(0, 0, 0, 0)}
    assert np.asarray(found.payoffs) == pytest.approx([1, 0], abs=1e-15)


def test_a_batch_of_conversations_and_chunks_of_users_give_the_same():
    games = [random_conversation_game(seed, users=4) for seed in range(3)]
    batch = jax.tree.map(lambda *leaves: jnp.stack(leaves), *games)
    profiles = jax.vmap(random_conversation)(batch, jax.random.split(jax.random.key(0), 3))
    response = dg.Logit(0.1)
    found = jax.jit(jax.vmap(lambda g, p: dg.provider_payoffs(g, response, p)))(batch, profiles)
    streamed = jax.jit(
        jax.vmap(lambda g, p: dg.provider_payoffs(g, response, p, chunk=2)),
    )(batch, profiles)
    for at, game in enumerate(games):
        alone = play(game, response, jax.tree.map(lambda leaf, at=at: leaf[at], profiles)).payoffs
        assert np.asarray(found[at]) == pytest.approx(np.asarray(alone), abs=1e-13)
        assert np.asarray(streamed[at]) == pytest.approx(np.asarray(alone), abs=1e-13)


def test_exact_choices_refuse_to_be_differentiated():
    game = random_conversation_game(0)
    with pytest.raises(ValueError, match="differentiate through Logit"):
        field_of(game, dg.Argmax(), babbling_conversation(game))


def test_revelation_needs_messages_for_every_state():
    game = random_conversation_game(0, states=5)
    with pytest.raises(ValueError, match=r"2 rounds of 2 messages spell at most 4.*5 states"):
        revealing_conversation(game)


RIGHT = {
    "joint": np.full((2, 2, 2), 0.25),
    "utility": np.zeros((2, 2, 3, 2)),
    "objective": np.zeros((1, 2, 2, 3, 2)),
    "mass": np.ones(2),
    "protocol": SMALL,
}


@pytest.mark.parametrize(
    ("message", "wrong"),
    [
        ("utility has shape", {"utility": np.zeros((2, 3, 2))}),
        ("joint has shape", {"joint": np.full((2, 2), 0.25)}),
        ("objective has shape", {"objective": np.zeros((1, 2, 2, 2, 2))}),
        ("mass has shape", {"mass": np.ones(3)}),
        ("observation has shape", {"observation": np.zeros(3, int), "observations": 1}),
        ("timing is 'later'; give 'before' or 'after'", {"timing": "later"}),
        (r"joint\[0\] sums to 2.0.*rescale", {"joint": np.full((2, 2, 2), 0.5)}),
        ("negative", {"joint": np.full((2, 2, 2), 0.25) * np.array([3, -1])}),
        ("not finite", {"joint": np.full((2, 2, 2), np.nan)}),
        (
            r"joint\[1\] gives the states.*share one prior",
            {"joint": np.array([[[0.25, 0.25]] * 2, [[0.3, 0.2]] * 2])},
        ),
    ],
)
def test_a_wrong_field_is_named(message, wrong):
    Conversation(**RIGHT)
    with pytest.raises(ValueError, match=f"^Conversation: .*{message}"):
        Conversation(**(RIGHT | wrong))
