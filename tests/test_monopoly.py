"""A provider alone: public signals, menus, personalized menus, and longer conversations."""

import itertools

import jax
import numpy as np
import pytest

from diffgame.market._monopoly import monopoly_values, persuade_by_menu

from . import oracle
from .menus import converse, flat, in_batch, random_game, reference_best_response, widened

CAMPAIGN = pytest.mark.campaign


@jax.jit
@jax.vmap
def compiled_monopoly(joint, utility, objective, mass):
    return monopoly_values(joint, utility, objective, mass)


@jax.jit
@jax.vmap
def compiled_menu(joint, utility, objective, mass):
    return persuade_by_menu(joint, utility, objective, mass)


def monopoly_games(count):
    """Two users; two and three states and actions in turn; the sizes of each."""
    sizes = [(2 + seed % 2, 2 + seed // 2 % 2) for seed in range(count)]
    return [random_game(seed, 2, 1, *size, providers=1)[:4] for seed, size in enumerate(sizes)]


def monopolies(games):
    """Three brackets each, [games, 3]."""
    wide = []
    for joint, utility, objective, mass in games:
        joint, (utility, objective) = widened(joint, [utility, objective[0]], (3, 3))
        wide.append((joint, utility, objective, mass))
    return in_batch(compiled_monopoly, [np.stack(leaves) for leaves in zip(*wide, strict=True)])


@pytest.mark.parametrize("count", [40, pytest.param(200, marks=CAMPAIGN)])
def test_a_monopolist_gets_most_from_personalized_menus_and_least_from_public_signals(count):
    """`pytest -s -m campaign -k monopolist tests/test_monopoly.py` prints the counts."""
    games = monopoly_games(count)
    found = monopolies(games)
    scale = np.array([np.abs(game[2]).max() * game[3].sum() for game in games])
    assert np.all(found.upper - found.lower <= 1e-7 * scale[:, None])
    assert np.all(found.lower <= found.upper + 1e-9 * scale[:, None])
    steps = np.diff(found.lower, axis=1)
    assert np.all(steps >= -1e-7 * scale[:, None]), f"seed={steps.min(axis=1).argmin()}"
    strict = np.sum(steps > 1e-6 * scale[:, None], axis=0)
    print(f"{count} markets: menu > public in {strict[0]}, personalized > menu in {strict[1]}")
    assert np.all(strict > 0)
    for seed, (joint, utility, objective, mass) in enumerate(games[:40]):
        alone = np.full(2, -np.inf), np.zeros(2), np.zeros(2, bool)
        parts = flat(joint, utility, objective[0], mass)
        expected = reference_best_response(*parts, np.arange(2), *alone)
        assert found.lower[seed, 1] == pytest.approx(expected, abs=1e-7), f"seed={seed}"
        assert found.upper[seed, 1] == pytest.approx(expected, abs=1e-7), f"seed={seed}"


def reference_public(weight, utility, payoff):
    """The best public experiment: messages recommend one action to each pair."""
    pairs, actions, states = utility.shape
    profiles = list(itertools.product(range(actions), repeat=pairs))
    shape = len(profiles), states
    rows, cost = [], np.zeros(shape)
    for at, profile in enumerate(profiles):
        for t, a in enumerate(profile):
            cost[at] -= payoff[t, a]
            for b in range(actions):
                row = np.zeros(shape)
                row[at] = (utility[t, b] - utility[t, a]) * weight[t]
                rows.append(row.ravel())
    sums = np.tile(np.eye(states), len(profiles))
    found = oracle.lp(cost.ravel(), np.array(rows), np.zeros(len(rows)), sums, np.ones(states))
    assert found.status == 0, found.message
    return -found.fun


@CAMPAIGN
def test_a_monopolist_screens_the_types_of_one_user():
    """Public and menu against HiGHS; one user's menu is personalized."""
    games = [random_game(seed, 1, 2, 3, 3, providers=1)[:4] for seed in range(60)]
    arrays = [np.stack(leaves) for leaves in zip(*games, strict=True)]
    arrays[2] = arrays[2][:, 0]
    found = in_batch(compiled_monopoly, arrays)
    alone = np.full(2, -np.inf), np.zeros(2), np.zeros(2, bool)
    for seed, (joint, utility, objective, mass) in enumerate(games):
        parts = flat(joint, utility, objective[0], mass)
        menu = reference_best_response(*parts, np.arange(2), *alone)
        for end in (found.lower[seed], found.upper[seed]):
            expected = [reference_public(*parts), menu, menu]
            assert end == pytest.approx(expected, abs=1e-7), f"seed={seed}"
    strict = np.sum(np.diff(found.lower[:, :2], axis=1) > 1e-6)
    print(f"{len(games)} users with two types: menu > public for {strict}")
    assert strict > 0


def test_a_menu_does_not_help_the_prosecutor_of_two_judges():
    """T2: thresholds 1/2 and 3/4, prior .3: public .8, menu .8, personalized 1."""
    joint = np.array([[[0.7, 0.3]]] * 2)
    utility = np.array([np.eye(2), [[1, 0], [0, 1 / 3]]])[:, None]
    conviction = np.broadcast_to([[0.0, 0.0], [1.0, 1.0]], (1, 2, 1, 2, 2))
    found = monopolies([(joint, utility, conviction, np.ones(2))])
    assert found.lower[0] == pytest.approx([0.8, 0.8, 1.0], abs=1e-7)
    assert found.upper[0] == pytest.approx([0.8, 0.8, 1.0], abs=1e-7)


def climb(joint, utility, objective, seed, restarts=12, steps=400):
    """The best two-round policy, 2 messages a side, that hill climbing finds from random starts."""
    rng, states = np.random.default_rng([5, seed]), joint.shape[1]
    shapes = (restarts, states, 2, 2), (restarts, states, 2, 2, 2, 2)

    def normalised(tables):
        return [table / table.sum(axis=-1, keepdims=True) for table in tables]

    now = normalised([rng.dirichlet(np.ones(2), shape[:-1]) for shape in shapes])
    _, best = converse(joint, utility, objective, now)
    for step in range(steps):
        size = 0.5 * 0.01 ** (step / steps)
        # Some entries at a time, on every scale, and now and then a corner.
        moved = []
        for table in now:
            change = size * rng.normal(size=table.shape) * (rng.random(table.shape) < 0.3)
            corner = rng.random((*table.shape[:-1], 1)) < 0.02
            moved.append(np.clip(np.where(corner, np.round(table), table + change), 1e-12, 1))
        tried = normalised(moved)
        _, payoff = converse(joint, utility, objective, tried)
        better = payoff > best
        best = np.where(better, payoff, best)
        now = [
            np.where(better.reshape(-1, *[1] * (old.ndim - 1)), new, old)
            for new, old in zip(tried, now, strict=True)
        ]
    return best.max()


def as_conversation(branches):
    """Two rounds that amount to two branches: she names hers first, the answer comes last."""
    _, actions, states = branches.shape
    first = np.zeros((1, states, 2, actions))
    first[..., 0] = 1
    last = np.broadcast_to(
        branches.transpose(2, 0, 1)[None, :, :, None, None, :],
        (1, states, 2, actions, 2, actions),
    )
    return [first, last]


@pytest.mark.campaign
def test_hill_climbing_over_two_rounds_never_beats_the_best_menu():
    """One user with two types, 2 messages a side: enough of both. The menu itself is a policy."""
    games = [random_game(seed, 1, 2, 2, 2, providers=1)[:4] for seed in range(12)]
    wide = []
    for joint, utility, objective, mass in games:
        joint, (utility, objective) = widened(joint, [utility, objective[0]], (2, 4))
        wide.append((joint, utility, objective, mass))
    menus = in_batch(compiled_menu, [np.stack(leaves) for leaves in zip(*wide, strict=True)])
    shares = []
    for seed, (joint, utility, objective, mass) in enumerate(games):
        pairs = joint[0], utility[0], objective[0, 0] * mass[0]
        reached = climb(*pairs, seed)
        upper = menus.upper[seed]
        assert np.isfinite(upper)
        assert reached <= upper + 1e-9, f"seed={seed}: {reached} beats {upper}"
        told = as_conversation(menus.branches[seed][..., :2])
        _, payoff = converse(*pairs, told, tie=1e-7)
        assert payoff[0] == pytest.approx(upper, abs=1e-6), f"seed={seed}"
        silence = [np.full((1, 2, 2, 2), 0.5), np.full((1, 2, 2, 2, 2, 2), 0.5)]
        nothing = converse(*pairs, silence)[1][0]
        if upper > nothing + 1e-3:
            shares.append((reached - nothing) / (upper - nothing))
    # It does climb: on average nearly all the way from silence to the best menu.
    assert len(shares) >= 6
    assert np.mean(shares) > 0.99, shares
