"""Best responses where messages are few: against HiGHS, policies and known numbers."""

import jax.numpy as jnp
import numpy as np
import pytest

from diffgame.market._best_conversation import best_conversation
from diffgame.market._best_response import Outside
from diffgame.market._menu import menu_best_response
from diffgame.market._protocol_plan import OFF, joint_plans, shortened
from diffgame.market._protocol_response import protocol_best_response
from diffgame.market._tree import Protocol

from .menus import converse, flat, random_game, widened
from .protocol_reference import all_plans, reference_best_response, units_of

CAMPAIGN = pytest.mark.campaign


def alone(units):
    """No other provider."""
    nothing = jnp.zeros(units)
    return Outside(nothing - jnp.inf, nothing, jnp.zeros(units, bool), jnp.array(False))


def random_deviator(seed, users, types, actions, states, timing="before"):
    """Users who want all actions, and get a bit of information outside.

    Every other deviator holds the first unit now.
    """
    joint, utility, objective, mass, _ = random_game(seed, users, types, actions, states)
    utility = utility / 2 + 1.5 * (np.arange(states) % actions == np.arange(actions)[:, None])
    rng = np.random.default_rng([12, seed])
    axis = (1,) if timing == "before" else ()
    weight = joint if timing == "before" else joint / joint.sum(axis=2, keepdims=True)
    least = np.einsum("jxy,jxay->jxa", weight, utility).max(axis=2)
    most = np.einsum("jxy,jxy->jx", weight, utility.max(axis=2))
    value = (least + rng.uniform(0, 0.5) * (most - least)).sum(axis=axis).reshape(-1)
    payoff = rng.normal(size=value.shape) / 4 - 0.25
    held = np.arange(len(value)) < seed % 2
    outside = Outside(*map(jnp.asarray, (value, payoff, held, True)))
    return joint, utility, objective[0], mass, outside


@pytest.mark.parametrize(
    ("count", "shape", "protocol", "timing"),
    [
        (3, (2, 1, 3, 4), (1, 1, 2), "before"),
        (2, (1, 2, 3, 4), (1, 1, 2), "after"),
        (2, (1, 2, 3, 4), (1, 2, 2), "after"),
        pytest.param(12, (2, 1, 3, 3), (1, 1, 2), "before", marks=CAMPAIGN),
        pytest.param(12, (1, 2, 3, 3), (1, 1, 3), "before", marks=CAMPAIGN),
        pytest.param(12, (2, 1, 3, 3), (1, 2, 2), "before", marks=CAMPAIGN),
        pytest.param(6, (3, 1, 2, 3), (1, 1, 2), "before", marks=CAMPAIGN),
        pytest.param(4, (3, 1, 2, 2), (1, 2, 2), "before", marks=CAMPAIGN),
    ],
    ids=str,
)
def test_one_round_equals_highs_over_all_plans(count, shape, protocol, timing):
    """Users, types, actions, states; rounds, questions, answers. Symmetric plans not merged."""
    for seed in range(count):
        game = random_deviator(seed, *shape, timing)
        found = protocol_best_response(*game, Protocol(*protocol), timing=timing)
        expected = reference_best_response(*game, Protocol(*protocol), timing, all_plans)
        assert found.exact, f"seed={seed}: {found.lower} {found.upper}"
        assert found.lower == pytest.approx(expected, abs=1e-7), f"seed={seed}"
        assert found.upper == pytest.approx(expected, abs=1e-7), f"seed={seed}"


def any_plans(protocol, actions, captured, rng):
    """Plans drawn without regard to names: any question, any action, each pair by itself."""
    asks, hears = protocol.user_messages, protocol.provider_messages

    def table(rounds):
        if rounds == 0:
            return rng.integers(actions, size=1)
        after = np.full((asks, hears, (asks * hears) ** (rounds - 1)), OFF)
        after[rng.integers(asks)] = [table(rounds - 1) for _ in range(hears)]
        return after.reshape(-1)

    for _ in range(10):
        drawn = np.stack([table(protocol.rounds) for _ in captured])
        yield np.where(captured[:, None], drawn, OFF)


def listed_plans(protocol, actions, captured):
    inside = np.flatnonzero(captured)
    short = shortened(protocol, [range(actions)] * len(captured))
    assert short == protocol
    for plan in joint_plans(protocol, [range(actions)] * len(inside)):
        table = np.full((len(captured), plan.shape[1]), OFF)
        table[inside] = plan
        yield table


@pytest.mark.parametrize(
    "seed", [pytest.param(s, marks=CAMPAIGN) for s in range(7)], ids="seed={}".format
)
def test_two_rounds_equal_highs_and_no_other_plan_gives_more(seed):
    """Three users, two questions, two answers."""
    game, protocol = random_deviator(seed, 3, 1, 2, 4), Protocol(2, 2, 2)
    rng = np.random.default_rng([14, seed])
    found = protocol_best_response(*game, protocol)
    expected = reference_best_response(*game, protocol, "before", listed_plans)
    assert found.exact
    assert found.lower == pytest.approx(expected, abs=1e-7)
    assert found.upper == pytest.approx(expected, abs=1e-7)
    other = reference_best_response(
        *game, protocol, "before", lambda *given: any_plans(*given, rng)
    )
    assert other <= found.upper + 1e-7


def random_policies(rng, protocol, states, count):
    """Every other one deterministic, the rest uniform: one table per round, as `converse` reads."""
    hears, shape, tables = protocol.provider_messages, (count, states), []
    for turn in range(protocol.rounds):
        asked = (*shape, *(protocol.user_messages, hears) * turn, protocol.user_messages)
        mixed = rng.dirichlet(np.ones(hears), size=asked)
        pure = np.eye(hears)[rng.integers(hears, size=asked)]
        odd = np.arange(count) % 2 == 1
        tables.append(np.where(odd.reshape(-1, *[1] * (mixed.ndim - 1)), mixed, pure))
    return tables


def worth_of(game, policies, timing, tie):
    """What policies get the deviator and the units, [policies] and [policies, units]."""
    joint, utility, objective, mass, outside = game
    unit, share = units_of(joint, timing)
    weight, own, _ = flat(joint, utility, objective[None], mass)
    paid = objective.reshape(own.shape) * np.repeat(mass, joint.shape[1])[:, None, None]
    met = [
        converse(*(array[t : t + 1] for array in (weight, own, paid)), policies, tie)
        for t in range(len(own))
    ]
    into = np.eye(len(outside.value))[unit]
    values = np.concatenate([value for value, _ in met], axis=1) * share @ into
    payoffs = np.stack([payoff for _, payoff in met], axis=1) @ into
    least = np.where(outside.held, outside.value, outside.value + 1e-8)
    held = values >= least
    return np.where(held, payoffs, outside.payoff).sum(axis=1), values, payoffs


def climbed(game, protocol, timing, seed, count=400, steps=40):
    """The best that random policies reach by random steps."""
    rng = np.random.default_rng([13, seed])
    states = game[0].shape[-1]
    policies = random_policies(rng, protocol, states, count)
    best, *_ = worth_of(game, policies, timing, 0.0)
    for step in range(steps):
        length = 0.7 ** (step // 5)
        other = random_policies(rng, protocol, states, count)
        # Some rows only, so that good ones are kept.
        moves = [
            length * (rng.uniform(size=table.shape[:-1]) < 0.4)[..., None] for table in policies
        ]
        tried = [
            (1 - move) * table + move * aim
            for move, table, aim in zip(moves, policies, other, strict=True)
        ]
        worth, *_ = worth_of(game, tried, timing, 0.0)
        better = worth > best
        best = np.where(better, worth, best)
        policies = [
            np.where(better.reshape(-1, *[1] * (table.ndim - 1)), new, table)
            for new, table in zip(tried, policies, strict=True)
        ]
    return best.max()


def check_against_policies(game, protocol, timing, seed):
    """Nothing tried beats `upper`, and the tables that were found reach `lower`."""
    found = protocol_best_response(*game, protocol, timing=timing)
    assert found.exact, f"seed={seed}: {found}"
    tried = climbed(game, protocol, timing, seed)
    assert tried <= found.upper + 1e-9, f"seed={seed}: {tried} > {found.upper}"
    asks, hears = protocol.user_messages, protocol.provider_messages
    tables = [
        table.reshape(1, -1, *(asks, hears) * turn, asks, hears)
        for turn, table in enumerate(found.tables)
    ]
    outside = game[-1]
    # A wider tie would take for one what a message of probability 1e-6 makes of a real difference.
    _, values, payoffs = worth_of(game, tables, timing, 1e-8)
    got = np.where(found.captured, payoffs[0], outside.payoff).sum()
    assert got >= found.lower - 1e-5, f"seed={seed}"
    sign = np.where(found.captured, 1, -1)
    assert np.all(sign * (values[0] - np.asarray(outside.value)) >= -1e-7), f"seed={seed}"
    return found, tried


@pytest.mark.parametrize(
    ("seeds", "shape", "protocol", "timing"),
    [
        (range(6), (2, 1, 3, 4), (1, 1, 2), "before"),
        (range(4), (1, 2, 3, 4), (1, 2, 2), "after"),
        pytest.param(range(6, 7), (3, 1, 2, 4), (2, 2, 2), "before", marks=CAMPAIGN),
        pytest.param(range(30), (2, 1, 3, 3), (2, 1, 2), "before", marks=CAMPAIGN),
        pytest.param(range(30), (1, 3, 2, 3), (1, 2, 2), "before", marks=CAMPAIGN),
        pytest.param(range(12), (3, 1, 2, 3), (2, 2, 2), "before", marks=CAMPAIGN),
    ],
    ids=str,
)
def test_no_policy_beats_the_best_response(seeds, shape, protocol, timing):
    ahead, held = [], []
    for seed in seeds:
        game = random_deviator(seed, *shape, timing)
        found, tried = check_against_policies(game, Protocol(*protocol), timing, seed)
        ahead.append(found.lower - tried)
        held.append(found.captured.sum())
    # The search is worth comparing with: it comes close somewhere, and deviating pays.
    assert min(ahead) <= 0.1
    assert max(held) > len(found.captured) / 2


def three_bits():
    """Users who need the first bit, the second, or whether they are equal; the value is a sum."""
    bits = np.array([[0, 0, 1, 1], [0, 1, 0, 1], [0, 1, 1, 0]])
    return np.full((3, 1, 4), 0.25), np.stack([1.0 - bits, bits], axis=1)[:, None]


@pytest.mark.parametrize(("rounds", "programs", "expected"), [(1, 18, 2.5), (2, 3, 3.0)], ids=str)
def test_a_second_round_replaces_a_branch(rounds, programs, expected):
    """Three users, two questions, two answers: one round serves two of them and half the third."""
    joint, utility = three_bits()
    protocol = Protocol(rounds, 2, 2)
    found = protocol_best_response(joint, utility, utility, np.ones(3), alone(3), protocol)
    assert found.programs == programs
    assert found.exact
    assert found.lower == pytest.approx(expected, abs=1e-9)
    assert found.upper == pytest.approx(expected, abs=1e-9)
    best = best_conversation(
        joint[:, 0], utility[:, 0], rounds=rounds, user_messages=2, provider_messages=2
    )
    assert best == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(
    "seed", [pytest.param(s, marks=CAMPAIGN) for s in (0, 1, 4, 5, 8)], ids="seed={}".format
)
def test_enough_messages_make_it_the_best_menu(seed):
    """Two pairs, three actions: rounds and messages beyond (1, 2, 3) add nothing, fewer cost."""
    game = random_deviator(seed, 2, 1, 3, 4)
    menu = menu_best_response(*map(jnp.asarray, game[:-1]), game[-1])
    for protocol in (Protocol(1, 2, 3), Protocol(3, 2, 3), Protocol(2, 5, 4), Protocol(2, 2, 2)):
        found = protocol_best_response(*game, protocol)
        assert found.exact
        assert found.programs <= 3
        assert found.lower == pytest.approx(float(menu.lower), abs=1e-8), protocol
        assert found.upper == pytest.approx(float(menu.upper), abs=1e-8), protocol
    fewer = protocol_best_response(*game, Protocol(1, 1, 2))
    assert fewer.upper < menu.lower - 1e-3
    # Too many programs: a bracket, and it says so.
    part = protocol_best_response(*game, Protocol(1, 1, 2), limit=fewer.programs - 1)
    assert not part.exact
    assert part.programs == fewer.programs
    assert part.lower <= fewer.lower + 1e-9
    assert part.upper == pytest.approx(float(menu.upper), abs=1e-8)


@CAMPAIGN
@pytest.mark.parametrize("seed", [4, 6], ids="seed={}".format)
def test_a_tree_too_large_leaves_a_bracket(seed):
    """Three rounds for three pairs: at most a menu, which bounds two rounds as well."""
    game = random_deviator(seed, 3, 1, 2, 4)
    found = protocol_best_response(*game, Protocol(3, 2, 2))
    exact = protocol_best_response(*game, Protocol(2, 2, 2))
    menu = menu_best_response(*map(jnp.asarray, game[:-1]), game[-1])
    assert not found.exact
    assert found.lower <= found.upper
    assert exact.upper <= found.upper + 1e-8
    assert found.upper == pytest.approx(float(menu.upper), abs=1e-8)
    assert [table.shape for table in found.tables] == [(4, 2, 2), (4, 8, 2), (4, 32, 2)]


def two_bits():
    bits = np.array([[0, 0, 1, 1], [0, 1, 0, 1]])
    return np.full((2, 1, 4), 0.25), np.stack([1.0 - bits, bits], axis=1)[:, None]


THIRDS = np.full((1, 1, 3), 1 / 3), np.eye(3)[None, None]
XOR = np.full((1, 2, 2), 0.25), np.stack([np.eye(2), 1 - np.eye(2)])[None]


@pytest.mark.parametrize(
    ("users", "protocol", "timing", "expected"),
    [
        pytest.param(THIRDS, (1, 1, 2), "before", 2 / 3, id="three states, two messages"),
        pytest.param(XOR, (1, 1, 2), "after", 1.0, id="exclusive or"),
        pytest.param(two_bits(), (1, 1, 2), "before", 1.5, id="two bits, one public"),
        pytest.param(two_bits(), (1, 2, 2), "before", 2.0, id="two bits, a branch each"),
    ],
)
def test_an_aligned_provider_gives_the_best_conversation(users, protocol, timing, expected):
    """Widened to three actions and four states, so that all share few compiled shapes."""
    joint, (utility,) = widened(users[0], [users[1]], (3, 4))
    count = len(joint)
    units = count if timing == "before" else count * joint.shape[1]
    found = protocol_best_response(
        joint, utility, utility, np.ones(count), alone(units), Protocol(*protocol), timing=timing
    )
    assert found.exact
    assert found.lower == pytest.approx(expected, abs=1e-9)
    assert found.upper == pytest.approx(expected, abs=1e-9)
    assert found.captured.all()


@pytest.mark.parametrize(
    ("users", "types", "timing", "message"),
    [
        (5, 1, "before", "protocol_best_response: 5 users make 31 sets"),
        (1, 2, "after", "outside has 1 values where timing 'after' asks for 2"),
        (1, 1, "during", "'during' is unknown"),
    ],
)
def test_a_best_response_refuses_what_it_cannot_do(users, types, timing, message):
    joint, tables = np.full((users, types, 2), 0.5 / types), np.ones((users, types, 2, 2))
    with pytest.raises(ValueError, match=message):
        protocol_best_response(
            joint, tables, tables, np.ones(users), alone(1), Protocol(1, 1, 2), timing=timing
        )
