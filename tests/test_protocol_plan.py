"""Joint plans of users in a conversation: how many kinds there are, and that each is one."""

import itertools
import math

import numpy as np
import pytest

from diffgame.market._protocol_plan import (
    OFF,
    count_plans,
    draw_plan,
    joint_plans,
    one_experiment,
    shortened,
)
from diffgame.market._tree import Protocol


def check_plan(protocol, plan, actions):
    """She asks one question wherever her answers lead her, and knows what to do at each end."""
    asks, hears = protocol.user_messages, protocol.provider_messages
    for own, table in zip(actions, plan, strict=True):
        assert set(table[table != OFF]) <= set(own)
        reached = (table != OFF).reshape(-1, asks, hears)
        for _ in range(protocol.rounds):
            whole, some = reached.all(axis=2), reached.any(axis=2)
            assert np.array_equal(whole, some), "an answer that she does not expect"
            assert some.sum(axis=1).max() <= 1, "two questions at once"
            reached = some.any(axis=1)
            if reached.size > 1:
                reached = reached.reshape(-1, asks, hears)
        assert reached.all(), "no question at first"


def renamed(protocol, plan):
    """All tables that a plan of one round becomes by other names for questions and answers."""
    asks, hears = protocol.user_messages, protocol.provider_messages
    table = plan.reshape(len(plan), asks, hears)
    for order in itertools.permutations(range(asks)):
        for names in itertools.product(itertools.permutations(range(hears)), repeat=asks):
            moved = [table[:, c, list(own)] for c, own in zip(order, names, strict=True)]
            yield np.stack(moved, axis=1).tobytes()


@pytest.mark.parametrize(
    ("protocol", "sizes", "expected"),
    [
        ((1, 1, 2), (3,), 3),
        ((1, 1, 3), (3,), 1),
        ((1, 1, 2), (3, 3), math.comb(9, 2)),
        ((1, 2, 2), (3, 3), 9),
        ((1, 2, 3), (3, 3), 1),
        ((1, 2, 2), (2, 2, 2), 3 * math.comb(4, 2)),
        ((2, 2, 2), (2, 2, 2), 3),
        ((2, 2, 2), (3, 3, 3), 3 * math.comb(9, 2)),
        ((2, 2, 2), (2, 2, 2, 2), 3 + 4 * math.comb(18, 2)),
        ((2, 1, 2), (2, 2), 1),
    ],
    ids=str,
)
def test_plans_are_counted_before_they_are_listed(protocol, sizes, expected):
    """The last but one: two and two (each alone in the end), or one and three."""
    protocol, actions = Protocol(*protocol), [tuple(range(size)) for size in sizes]
    plans = list(joint_plans(protocol, actions))
    assert count_plans(protocol, actions) == len(plans) == expected
    assert len({plan.tobytes() for plan in plans}) == expected
    for plan in plans:
        check_plan(protocol, plan, actions)


@pytest.mark.parametrize("protocol", [(1, 1, 2), (1, 2, 2), (1, 2, 3)], ids=str)
def test_every_plan_without_idle_messages_is_listed_once_up_to_names(protocol):
    """Two pairs, three actions: all plans with questions of their own and no answer repeated."""
    protocol, actions = Protocol(*protocol), [(0, 1, 2)] * 2
    asks, hears = protocol.user_messages, protocol.provider_messages
    kinds = [min(renamed(protocol, plan)) for plan in joint_plans(protocol, actions)]
    assert len(set(kinds)) == len(kinds)
    wanted = set()
    for questions in itertools.product(range(asks), repeat=2):
        if len(set(questions)) < asks:
            continue
        for taken in itertools.product(range(3), repeat=2 * hears):
            table = np.full((2, asks, hears), OFF)
            for t, c in enumerate(questions):
                table[t, c] = taken[t * hears : (t + 1) * hears]
            columns = {c: {tuple(table[:, c, m]) for m in range(hears)} for c in range(asks)}
            if all(len(own) == hears for own in columns.values()):
                wanted.add(min(renamed(protocol, table.reshape(2, -1))))
    assert set(kinds) == wanted


@pytest.mark.parametrize("seed", range(5), ids="seed={}".format)
@pytest.mark.parametrize("protocol", [(1, 1, 3), (1, 2, 2), (2, 2, 2), (3, 2, 2)], ids=str)
def test_a_drawn_plan_is_a_plan(protocol, seed):
    protocol, actions = Protocol(*protocol), [(0, 2), (1, 2, 3), (0, 1), (0, 3)]
    plan = draw_plan(protocol, actions, np.random.default_rng(seed))
    check_plan(protocol, plan, actions)


@pytest.mark.parametrize(
    ("protocol", "sizes", "expected"),
    [
        ((1, 5, 9), (2, 3), (1, 2, 3)),
        ((3, 2, 2), (4, 4), (1, 2, 4)),
        ((2, 1, 2), (2, 2, 2), (1, 1, 4)),
        ((40, 1, 2), (2, 2), (1, 1, 4)),
        ((2, 2, 2), (2, 2, 2), (2, 2, 2)),
        ((2, 2, 99), (2, 2, 2), (2, 2, 8)),
        ((7, 3, 1), (2, 2, 2), (1, 3, 1)),
    ],
    ids=str,
)
def test_messages_that_add_nothing_are_dropped(protocol, sizes, expected):
    actions = [tuple(range(size)) for size in sizes]
    assert shortened(Protocol(*protocol), actions) == Protocol(*expected)


def test_a_long_conversation_holds_an_experiment_of_all_its_answers():
    actions = [(0, 1, 2)] * 3
    assert one_experiment(Protocol(2, 2, 2), actions) == Protocol(1, 2, 4)
    assert one_experiment(Protocol(5, 2, 4), actions) == Protocol(1, 2, 27)
