"""The tree of a conversation: its size, the order of histories, and backward induction on it."""

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import diffgame as dg
from diffgame.market._conversation import Conversation
from diffgame.market._conversation_policy import ConversationTable
from diffgame.market._tree import MOST_LEAVES, Protocol, count_nodes, history_probability

SMALL = Protocol(2, 2, 2)


def random_conversation_game(
    seed, providers=2, users=2, types=2, actions=2, states=3, protocol=SMALL, **options
):
    """Random tables; every user has the same marginal over states, the last a type less."""
    rng = np.random.default_rng(seed)
    prior = rng.dirichlet(np.ones(states))
    likelihood = rng.dirichlet(np.ones(types), size=(users, states)).swapaxes(1, 2)
    if types > 1:
        likelihood[-1, 0] += likelihood[-1, -1]
        likelihood[-1, -1] = 0
    return Conversation(
        likelihood * prior,
        rng.uniform(size=(users, types, actions, states)),
        rng.uniform(size=(providers, users, types, actions, states)),
        rng.uniform(0.5, 2, size=users),
        protocol,
        **options,
    )


def random_answers(seed, game):
    """A profile of random tables by NumPy."""
    rng = np.random.default_rng(seed)
    providers, *_, states = game.objective.shape
    messages = game.protocol.provider_messages
    return ConversationTable(
        tuple(
            jnp.asarray(
                rng.dirichlet(
                    np.ones(messages),
                    size=(providers, game.observations, states, game.protocol.questions(turn)),
                )
            )
            for turn in range(1, game.protocol.rounds + 1)
        )
    )


def user_tables(game, profile, user):
    """What each provider commits to towards one user, as NumPy arrays."""
    label = int(game.observation[user])
    providers = game.objective.shape[0]
    return [[np.asarray(t[p, label]) for t in profile.tables] for p in range(providers)]


def talk(tables, weight, utility, objective, choose, protocol, turn=0, history=0):
    """Her value and the providers' from a node on, node by node, as in a textbook.

    `weight` [states] is the probability of each state and of getting here by nature's moves.
    """
    total = weight.sum()
    if turn == protocol.rounds:
        values, payoffs = utility @ weight, objective @ weight
    else:
        questions = range(protocol.user_messages)
        ends = []
        for said in questions:
            asked = history * protocol.user_messages + said
            answered = [
                talk(
                    tables,
                    weight * tables[turn][:, asked, answer],
                    utility,
                    objective,
                    choose,
                    protocol,
                    turn + 1,
                    asked * protocol.provider_messages + answer,
                )
                for answer in range(protocol.provider_messages)
            ]
            ends.append([sum(part) for part in zip(*answered, strict=True)])
        values = np.array([value for value, _ in ends])
        payoffs = np.stack([payoff for _, payoff in ends], axis=-1)
    probability = choose(values / total if total > 0 else np.zeros_like(values))
    return probability @ values, payoffs @ probability


def expected(game, profile, choose):
    """Utilities [users] and payoffs [providers], node by node."""
    utilities, payoffs = [], 0
    joint, utility = np.asarray(game.joint), np.asarray(game.utility)
    objective, mass = np.asarray(game.objective), np.asarray(game.mass)
    for user in range(len(mass)):
        # One pair (value, payoffs) per provider and type.
        found = [
            [
                talk(
                    tables,
                    joint[user, kind],
                    utility[user, kind],
                    objective[:, user, kind],
                    choose,
                    game.protocol,
                )
                for kind in range(joint.shape[1])
            ]
            for tables in user_tables(game, profile, user)
        ]
        values = np.array([[value for value, _ in row] for row in found])
        worth = np.array([[payoff for _, payoff in row] for row in found])
        if game.timing == "before":
            probability = choose(values.sum(1))[:, None] * np.ones_like(values)
        else:
            chance = joint[user].sum(1)
            posterior = np.divide(values, chance, out=np.zeros_like(values), where=chance > 0)
            probability = np.stack([choose(column) for column in posterior.T], axis=1)
        utilities.append(np.sum(probability * values))
        payoffs = payoffs + mass[user] * np.einsum("px,pxi->i", probability, worth)
    return np.array(utilities), payoffs


def exact(values):
    return np.eye(len(values))[np.argmax(values)]


def quantal(temperature):
    def choose(values):
        weights = np.exp((values - values.max()) / temperature)
        return weights / weights.sum()

    return choose


play = jax.jit(lambda game, response, profile: dg.play(game, response, profile))


@pytest.mark.parametrize("timing", ["before", "after"])
@pytest.mark.parametrize(
    ("response", "choose"),
    [
        pytest.param(dg.Argmax(), exact, id="exact"),
        pytest.param(dg.Logit(0.1), quantal(0.1), id="quantal"),
    ],
)
def test_play_is_backward_induction_node_by_node(response, choose, timing):
    for seed in range(5):
        game = random_conversation_game(seed, timing=timing)
        profile = random_answers(seed + 100, game)
        found = play(game, response, profile)
        utilities, payoffs = expected(game, profile, choose)
        assert np.asarray(found.utilities) == pytest.approx(utilities, abs=1e-12), f"seed={seed}"
        assert np.asarray(found.payoffs) == pytest.approx(payoffs, abs=1e-12), f"seed={seed}"


def pure_strategies(protocol, actions, rounds):
    """All plans: an action, or a message with one plan per answer."""
    if rounds == 0:
        return list(range(actions))
    plans = pure_strategies(protocol, actions, rounds - 1)
    answers = protocol.provider_messages
    return [
        (said, reply)
        for said in range(protocol.user_messages)
        for reply in itertools.product(plans, repeat=answers)
    ]


def follow(plan, tables, weight, utility, protocol, turn=0, history=0):
    """The value of a plan, by walking every conversation that it allows."""
    if turn == protocol.rounds:
        return utility[plan] @ weight
    said, replies = plan
    asked = history * protocol.user_messages + said
    return sum(
        follow(
            reply,
            tables,
            weight * tables[turn][:, asked, answer],
            utility,
            protocol,
            turn + 1,
            asked * protocol.provider_messages + answer,
        )
        for answer, reply in enumerate(replies)
    )


@pytest.mark.parametrize("timing", ["before", "after"])
def test_no_pure_strategy_beats_the_exact_response_and_one_attains_it(timing):
    plans = pure_strategies(SMALL, 2, SMALL.rounds)
    assert len(plans) == 128
    for seed in range(3):
        game = random_conversation_game(seed, timing=timing)
        profile = random_answers(seed + 200, game)
        found = play(game, dg.Argmax(), profile).utilities
        joint, utility = np.asarray(game.joint), np.asarray(game.utility)
        for user in range(2):
            values = np.array(
                [
                    [
                        [
                            follow(plan, tables, joint[user, x], utility[user, x], SMALL)
                            for plan in plans
                        ]
                        for x in range(2)
                    ]
                    for tables in user_tables(game, profile, user)
                ]
            )
            if timing == "before":
                # One provider for both types, then any pair of plans.
                best = np.max(values[:, 0, :, None] + values[:, 1, None, :])
            else:
                best = sum(values[:, x].max() for x in range(2))
            assert float(found[user]) == pytest.approx(best, abs=1e-12), f"seed={seed}"


def test_histories_are_numbered_with_the_last_message_changing_fastest():
    protocol = Protocol(2, 2, 3)
    game = random_conversation_game(0, users=1, protocol=protocol)
    profile = random_answers(1, game)
    first, second = (np.asarray(table[:, 0]) for table in profile.tables)
    found = history_probability((jnp.asarray(first), jnp.asarray(second)))
    assert found.shape == (2, 3, 36)
    for at, (c1, m1, c2, m2) in enumerate(np.ndindex(2, 3, 2, 3)):
        by_hand = first[:, :, c1, m1] * second[:, :, (c1 * 3 + m1) * 2 + c2, m2]
        assert np.asarray(found[..., at]) == pytest.approx(by_hand, abs=1e-15), at
    assert np.asarray(found.sum(-1)) == pytest.approx(4)


def test_sizes_are_counted():
    protocol = Protocol(3, 2, 5)
    assert [protocol.histories(t) for t in (0, 1, 3)] == [1, 10, 1000]
    assert [protocol.questions(t) for t in (1, 2, 3)] == [2, 20, 200]
    assert count_nodes((("user", 2), ("nature", 3), ("user", 4))) == 1 + 2 + 6 + 24
    game = random_conversation_game(0, providers=2, types=2, actions=3, protocol=Protocol(1, 2, 3))
    assert game.nodes == 1 + 2 + 4 + 8 + 24 + 72
    assert math.prod(game.choice_set.shape) == 72


def test_a_tree_that_is_too_large_says_its_size_and_what_to_shrink():
    zeros = np.zeros((1, 1, 1, 1, 1))
    with pytest.raises(
        ValueError, match=rf"1 users have 16777216 leaves.*{MOST_LEAVES}.*rounds=12"
    ):
        Conversation(np.ones((1, 1, 1)), zeros[0], zeros, np.ones(1), Protocol(12, 2, 2))


@pytest.mark.parametrize(
    ("field", "sizes"),
    [
        ("rounds", (0, 1, 1)),
        ("user_messages", (1, -1, 1)),
        ("provider_messages", (1, 1, 2.0)),
        ("rounds", (True, 1, 1)),
    ],
)
def test_a_protocol_needs_positive_integers(field, sizes):
    # Called inside jaxtyping's hook, so a field of another type may be refused there.
    with pytest.raises((ValueError, TypeError), match=field):
        Protocol(*sizes)
