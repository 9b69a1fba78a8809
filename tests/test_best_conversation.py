"""The best conversations of few messages and rounds: known users, all policies, refusals."""

import itertools

import jax
import numpy as np
import pytest

from diffgame.market._best_conversation import best_conversation

from .menus import converse


def value(joint, utility, protocol):
    rounds, asks, answers = protocol
    return best_conversation(
        joint, utility, rounds=rounds, user_messages=asks, provider_messages=answers
    )


def own_bits(count):
    """Users who each need one bit of a uniform state of `count` bits; the value is their sum."""
    bits = np.arange(2**count)[None] >> np.arange(count)[:, None] & 1
    return np.full(bits.shape, 2.0**-count), np.stack([1.0 - bits, bits], axis=1)


@pytest.mark.parametrize(
    ("count", "protocol", "expected"),
    [
        (2, (1, 1, 2), 1.5),
        (2, (1, 2, 2), 2),
        (2, (2, 1, 2), 2),
        (3, (1, 2, 2), 2.5),
        (3, (1, 3, 2), 3),
        (3, (2, 2, 2), 3),
        (3, (2, 1, 2), 2.5),
        (3, (3, 1, 2), 3),
    ],
    ids=str,
)
def test_rounds_help_where_messages_bind(count, protocol, expected):
    """Two users: 1.5 anonymous, 2 with a menu or two rounds. Three: a round replaces a branch."""
    assert value(*own_bits(count), protocol) == pytest.approx(expected, abs=1e-12)


def test_two_rounds_of_two_questions_serve_three_users_who_need_different_bits():
    """The policy that attains 3 where one round attains 2.5: by name, user 1, else user 2 or 3."""
    joint, utility = own_bits(3)
    bits = utility[:, 1].astype(int)
    first, last = np.zeros((1, 8, 2, 2)), np.zeros((1, 8, 2, 2, 2, 2))
    for state in range(8):
        first[0, state, 0, bits[0, state]] = 1
        first[0, state, 1, 0] = 1
        for asked in range(2):
            last[0, state, :, :, asked, bits[1 + asked, state]] = 1
    values, _ = converse(joint, utility, utility, [first, last])
    assert values[0] == pytest.approx(np.ones(3), abs=1e-12)


def test_three_states_and_two_messages_are_worth_two_thirds():
    matching, thirds = np.eye(3)[None], np.full((1, 3), 1 / 3)
    assert value(thirds, matching, (1, 1, 2)) == pytest.approx(2 / 3, abs=1e-12)
    assert value(thirds, matching, (2, 1, 2)) == pytest.approx(1, abs=1e-12)


def test_a_private_bit_is_worth_nothing_without_the_other():
    """The state is x_A xor x_B: .5 uninformed, 1 when the provider's bit is revealed."""
    matching = np.stack([np.eye(2), 1 - np.eye(2)])
    assert value(np.full((2, 2), 0.25), matching, (1, 1, 1)) == pytest.approx(0.5, abs=1e-12)
    assert value(np.full((2, 2), 0.25), matching, (1, 1, 2)) == pytest.approx(1, abs=1e-12)


@pytest.mark.parametrize(
    ("protocol", "states"),
    [((1, 1, 2), 4), ((1, 2, 2), 4), ((1, 2, 3), 4), ((2, 1, 2), 5)],
    ids=str,
)
def test_best_conversations_equal_the_best_of_all_deterministic_policies(protocol, states, key):
    rounds, asks, answers = protocol
    rng = np.random.default_rng(np.asarray(jax.random.key_data(key)))
    joint = rng.dirichlet(np.ones(2 * states)).reshape(2, states)
    utility = rng.normal(size=(2, 3, states))
    shapes = [(states, *(asks, answers) * t, asks) for t in range(rounds)]
    sizes = [int(np.prod(shape)) for shape in shapes]
    # In the first state every answer is 0, up to the names of messages.
    free = np.concatenate([np.arange(size) >= size // states for size in sizes])
    entries = np.array(list(itertools.product(range(answers), repeat=int(free.sum()))))
    code = np.zeros((len(entries), len(free)), int)
    code[:, free] = entries
    tables = [
        np.eye(answers)[part.reshape(-1, *shape)]
        for part, shape in zip(np.split(code, np.cumsum(sizes)[:-1], axis=1), shapes, strict=True)
    ]
    values, _ = converse(joint, utility, utility, tables)
    assert value(joint, utility, protocol) == pytest.approx(values.sum(axis=1).max(), abs=1e-12)


def test_one_user_with_few_messages_uses_as_many_actions(key):
    """Without types: the best set of as many actions as there are sequences of answers."""
    rng = np.random.default_rng(np.asarray(jax.random.key_data(key)))
    joint, utility = rng.dirichlet(np.ones(6))[None], rng.normal(size=(1, 5, 6))
    for protocol, sequences in (((1, 1, 2), 2), ((1, 2, 3), 3), ((2, 2, 2), 4)):
        expected = max(
            joint[0] @ utility[0, list(used)].max(axis=0)
            for used in itertools.combinations(range(5), sequences)
        )
        assert value(joint, utility, protocol) == pytest.approx(expected, abs=1e-12)


def test_rounds_add_nothing_when_messages_suffice(key):
    """3 types, 2 actions: 3 questions and 2 answers give in one round what any protocol gives."""
    rng = np.random.default_rng(np.asarray(jax.random.key_data(key)))
    joint = rng.dirichlet(np.ones(18)).reshape(3, 6)
    utility = rng.normal(size=(3, 2, 6))
    full = np.sum(joint * utility.max(axis=1))
    assert value(joint, utility, (1, 3, 2)) == pytest.approx(full, abs=1e-12)
    assert value(joint, utility, (3, 4, 4)) == pytest.approx(full, abs=1e-12)
    assert value(joint, utility, (1, 1, 2)) < full - 1e-6


@pytest.mark.parametrize(
    ("shape", "protocol", "message"),
    [
        ((1, 2), (0, 1, 2), "rounds is 0"),
        ((1, 2), (1, 1, 0), "provider_messages is 0"),
        ((8, 12), (1, 2, 2), "8 types and 12 states make .* Merge types or states"),
    ],
)
def test_best_conversation_refuses_what_it_cannot_do(shape, protocol, message):
    types, states = shape
    with pytest.raises(ValueError, match=message):
        value(np.ones(shape), np.ones((types, 2, states)), protocol)
