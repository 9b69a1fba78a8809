"""Policies as tables and as probabilities of answers, in a protocol and in a longer one."""

import itertools

import numpy as np
import pytest

from diffgame.market._protocol_answers import answers_of, babbling_tables, spoken, tables_of
from diffgame.market._tree import Protocol

STATES = 3


def random_tables(protocol, seed):
    rng = np.random.default_rng([15, seed])
    hears = protocol.provider_messages
    return tuple(
        rng.dirichlet(np.ones(hears), size=(STATES, protocol.questions(turn)))
        for turn in range(1, protocol.rounds + 1)
    )


def by_step(protocol, tables):
    """Answers [states, c1, m1, .., cR, mR]."""
    steps = (protocol.user_messages, protocol.provider_messages) * protocol.rounds
    return answers_of(protocol, tables).reshape(STATES, *steps)


@pytest.mark.parametrize("seed", range(3), ids="seed={}".format)
@pytest.mark.parametrize("protocol", [(1, 1, 2), (1, 3, 2), (2, 2, 3), (3, 2, 2)], ids=str)
def test_tables_and_answers_say_the_same(protocol, seed):
    protocol = Protocol(*protocol)
    tables = random_tables(protocol, seed)
    found = tables_of(protocol, answers_of(protocol, tables))
    for table, again in zip(tables, found, strict=True):
        assert again == pytest.approx(table, abs=1e-12)


def test_what_is_never_answered_has_the_first_answer():
    protocol = Protocol(2, 1, 2)
    silence = babbling_tables(protocol, STATES)
    for table, again in zip(
        silence, tables_of(protocol, answers_of(protocol, silence)), strict=True
    ):
        assert np.array_equal(table, again)
        assert np.all(table[..., 0] == 1)


@pytest.mark.parametrize("seed", range(3), ids="seed={}".format)
@pytest.mark.parametrize(
    ("protocol", "short"),
    [((1, 3, 4), (1, 2, 3)), ((2, 2, 3), (2, 2, 2)), ((2, 3, 3), (2, 2, 2))],
    ids=str,
)
def test_more_questions_and_answers_change_nothing(protocol, short, seed):
    """Asked as in the shorter protocol, it answers as there; new questions count as the first."""
    protocol, short = Protocol(*protocol), Protocol(*short)
    tables = random_tables(short, seed)
    longer = spoken(protocol, short, tables)
    for turn, table in enumerate(longer, 1):
        shape = STATES, protocol.questions(turn), protocol.provider_messages
        assert table.shape == shape
        assert table.sum(axis=-1) == pytest.approx(np.ones(shape[:2]), abs=1e-12)
    answers = by_step(protocol, longer)
    heard = slice(short.provider_messages)
    for asked in itertools.product(range(protocol.user_messages), repeat=protocol.rounds):
        same = [c if c < short.user_messages else 0 for c in asked]
        pick = [part for c in asked for part in (c, heard)]
        expected = by_step(short, tables)[
            (slice(None), *(part for c in same for part in (c, slice(None))))
        ]
        assert answers[(slice(None), *pick)] == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("seed", range(3), ids="seed={}".format)
@pytest.mark.parametrize(
    ("protocol", "short"),
    [((2, 1, 2), (1, 1, 4)), ((3, 2, 2), (1, 2, 3)), ((2, 3, 3), (1, 2, 3))],
    ids=str,
)
def test_a_message_is_spelled_over_the_rounds(protocol, short, seed):
    """Whatever she asks after her first question, the digits of the answers name the message."""
    protocol, short = Protocol(*protocol), Protocol(*short)
    (experiment,) = random_tables(short, seed)
    answers = by_step(protocol, spoken(protocol, short, (experiment,)))
    hears = protocol.provider_messages
    digits = next(n for n in range(1, 9) if hears**n >= short.provider_messages)
    for asked in itertools.product(range(protocol.user_messages), repeat=protocol.rounds):
        branch = asked[0] if asked[0] < short.user_messages else 0
        pick = [part for c in asked for part in (c, slice(None))]
        told = answers[(slice(None), *pick)].reshape(STATES, hears**digits, -1)
        expected = np.zeros_like(told)
        expected[:, : short.provider_messages, 0] = experiment[:, branch]
        assert told == pytest.approx(expected, abs=1e-12)
