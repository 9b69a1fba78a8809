"""Best responses where messages are few: against HiGHS, policies and known numbers."""

import itertools

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
from .oracle import lp

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


def units_of(joint, timing):
    """The unit of each pair, and the weight of the pair's value in that of its unit."""
    users, types, _ = joint.shape
    if timing == "before":
        return np.repeat(np.arange(users), types), np.ones(users * types)
    return np.arange(users * types), 1 / joint.sum(axis=2).reshape(-1)


# The reference: the definition, history by history, in HiGHS.
def reference_value(pairs, payoff, unit, outside, protocol, captured, plan, widest):
    """Optimum of the program in which the units `captured` follow `plan`; None: there is none.

    Variables: answers [leaves, states], then what each stage and leaf is worth to each pair that
    acts optimally, then the margin. `pairs`: weighted utilities [pairs, actions, states].
    """
    rounds, asks, hears = protocol.rounds, protocol.user_messages, protocol.provider_messages
    steps = list(itertools.product(range(asks), range(hears)))
    nodes = [past for turn in range(rounds + 1) for past in itertools.product(steps, repeat=turn)]
    count, _, states = pairs.shape
    columns = {}
    for past in nodes:
        for y in range(states):
            columns["r", past, y] = len(columns)
        for t in range(count):
            columns["v", past, t] = len(columns)
    columns["margin"] = len(columns)
    upper, equal, bound, target = [], [], [], []

    def row(*entries):
        table = np.zeros(len(columns))
        for name, entry in entries:
            table[columns[name]] += entry
        return table

    def act(t, a, past):
        return row(*((("r", past, y), pairs[t, a, y]) for y in range(states)))

    for past in nodes:
        if len(past) == rounds:
            for t, own in enumerate(pairs):
                for a in range(len(own)):
                    upper.append(act(t, a, past) - row((("v", past, t), 1)))
                    bound.append(0)
            continue
        for c in range(asks):
            later = [(*past, (c, m)) for m in range(hears)]
            for y in range(states):
                equal.append(row((("r", past, y), -1), *((("r", one, y), 1) for one in later)))
                target.append(0)
            for t in range(count):
                upper.append(row((("v", past, t), -1), *((("v", one, t), 1) for one in later)))
                bound.append(0)
    for y in range(states):
        equal.append(row((("r", (), y), 1)))
        target.append(1)
    leaves = [past for past in nodes if len(past) == rounds]
    worth = [np.zeros(len(columns)) for _ in pairs]
    gain = np.zeros(len(columns))
    for t in np.flatnonzero(captured[unit]):
        for past, action in zip(leaves, plan[t], strict=True):
            if action != OFF:
                worth[t] += act(t, action, past)
                gain += row(*((("r", past, y), payoff[t, action, y]) for y in range(states)))
        upper.append(row((("v", (), t), 1)) - worth[t])
        bound.append(0)
    for u, value in enumerate(np.asarray(outside.value)):
        fresh = captured[u] and not outside.held[u]
        inside = [t for t in range(len(pairs)) if unit[t] == u]
        if captured[u] and np.isfinite(value):
            upper.append(row(("margin", float(fresh))) - sum(worth[t] for t in inside))
            bound.append(-value)
        elif not captured[u]:
            upper.append(sum(row((("v", (), t), 1)) for t in inside))
            bound.append(value)
    limits = [(0, 1) if name[0] == "r" else (None, None) for name in columns]
    limits[-1] = (0, 1) if widest else (0, 0)
    cost = -row(("margin", 1.0)) if widest else -gain
    found = lp(cost, np.array(upper), bound, np.array(equal), target, limits)
    assert found.status in (0, 2), found.message
    return None if found.status == 2 else -found.fun


def all_plans(protocol, actions, captured):
    """Every plan of one round: a question, and an action after each answer."""
    asks, hears = protocol.user_messages, protocol.provider_messages
    own = []
    for c, taken in itertools.product(range(asks), itertools.product(range(actions), repeat=hears)):
        table = np.full((asks, hears), OFF)
        table[c] = taken
        own.append(table.reshape(-1))
    silent = [np.full(asks * hears, OFF)]
    return itertools.product(*(own if inside else silent for inside in captured))


def reference_best_response(joint, utility, objective, mass, outside, protocol, timing, plans):
    unit, share = units_of(joint, timing)
    weight, own, payoff = flat(joint, utility, objective, mass)
    pairs = own * weight[:, None] * share[:, None, None]
    elsewhere = np.asarray(outside.payoff)
    best = elsewhere.sum() if outside.exists else -np.inf
    for captured in itertools.product([False, True], repeat=len(elsewhere)):
        captured = np.array(captured)
        if not captured.any() or not np.all(captured | np.isfinite(outside.value)):
            continue
        for plan in plans(protocol, own.shape[1], captured[unit]):
            arguments = pairs, payoff, unit, outside, protocol, captured, plan
            value = reference_value(*arguments, widest=False)
            if value is None or value + elsewhere[~captured].sum() <= best:
                continue
            if np.any(captured & ~np.asarray(outside.held)):
                margin = reference_value(*arguments, widest=True)
                if margin is None or margin <= 1e-9:
                    continue
            best = value + elsewhere[~captured].sum()
    return best


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
    _, values, payoffs = worth_of(game, tables, timing, 1e-6)
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
