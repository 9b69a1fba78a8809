"""Gains from deviations to menus: against HiGHS, and in known markets."""

import jax
import numpy as np
import pytest

from diffgame.market._menu_meeting import menu_exploitability, recommend_branches

from .menus import BATCH, flat, in_batch, random_game, reference_best_response

CAMPAIGN = pytest.mark.campaign


def deviations(timing):
    """Compiled: every provider's gain from another menu, posted tables [k, branches, states, m]."""

    @jax.jit
    @jax.vmap
    def run(joint, utility, objective, mass, tables, incumbent):
        menus = jax.vmap(lambda table: recommend_branches(joint, utility, table))(tables)
        return menu_exploitability(joint, utility, objective, mass, menus, incumbent, timing=timing)

    return run


compiled_deviations = {timing: deviations(timing) for timing in ("before", "after")}


# The reference: the definition, variable by variable, in HiGHS.
def listen(joint, utility, objective, mass, tables):
    """What each pair gets at each provider, and what that is worth to all: [k, n, x], [i, k, n, x].

    Lowest index at ties, of which random games have none.
    """
    users, types, _ = joint.shape
    values = np.zeros((len(tables), users, types))
    payoffs = np.zeros((len(objective), *values.shape))
    for k, j, x in np.ndindex(values.shape):
        joints = [joint[j, x][:, None] * experiment for experiment in tables[k]]
        worth = [np.max(utility[j, x] @ one, axis=0).sum() for one in joints]
        one = joints[int(np.argmax(worth))]
        actions = np.argmax(utility[j, x] @ one, axis=0)
        values[k, j, x] = max(worth)
        taken = objective[:, j, x][:, actions]
        payoffs[:, k, j, x] = mass[j] * np.einsum("ims,sm->i", taken, one)
    return values, payoffs


def reference_gains(joint, utility, objective, mass, tables, timing):
    users, types, _ = joint.shape
    values, payoffs = listen(joint, utility, objective, mass, tables)
    if timing == "before":
        values, payoffs = values.sum(-1), payoffs.sum(-1)
        unit = np.repeat(np.arange(users), types)
    else:
        values, payoffs = (array.reshape(*array.shape[:-2], -1) for array in (values, payoffs))
        unit = np.arange(users * types)
    chosen, units = np.argmax(values, axis=0), np.arange(values.shape[1])
    gains = []
    for i in range(len(tables)):
        others = values.copy()
        others[i] = -np.inf
        elsewhere = payoffs[i, np.argmax(others, axis=0), units]
        weight, own, payoff = flat(joint, utility, objective[i], mass)
        best = reference_best_response(
            weight, own, payoff, unit, others.max(axis=0), elsewhere, chosen == i
        )
        gains.append(max(best - payoffs[i, chosen, units].sum(), 0))
    return np.array(gains)


@pytest.mark.parametrize(
    ("count", "shape", "timing"),
    [
        (20, (2, 1, 3, 2), "before"),
        (20, (1, 2, 2, 4), "before"),
        (20, (1, 2, 2, 4), "after"),
        pytest.param(40, (2, 2, 2, 2), "before", marks=CAMPAIGN),
        pytest.param(40, (2, 2, 2, 2), "after", marks=CAMPAIGN),
        pytest.param(4, (3, 2, 2, 2), "after", marks=CAMPAIGN),
        pytest.param(20, (4, 1, 2, 2), "before", marks=CAMPAIGN),
    ],
    ids=str,
)
def test_gains_from_menus_equal_highs_on_random_games(count, shape, timing):
    """Users, types, actions, states; two providers that post two experiments each."""
    users, types, _, _ = shape
    games = [random_game(seed, *shape) for seed in range(count)]
    units = users if timing == "before" else users * types
    arrays = [np.stack(leaves) for leaves in zip(*games, strict=True)]
    nobody = np.zeros((count, units), int)
    found = in_batch(compiled_deviations[timing], [*arrays, nobody], min(count, BATCH))
    expected = np.array([reference_gains(*game, timing) for game in games])
    for end in ("lower", "upper"):
        errors = np.abs(getattr(found.gains, end) - expected).max(axis=1)
        assert errors.max() <= 1e-7, f"{end}: seed={errors.argmax()}: {errors.max()}"
    assert np.mean(expected > 1e-3) > 0.25


def degenerate_game(seed):
    """One user: types that are twins, that never occur, all revealed outside, or a lost state."""
    joint, utility, objective, mass, tables = random_game(seed, 1, 2, 2, 4)
    match seed % 4:
        case 0:
            joint[:] = joint.mean(axis=1, keepdims=True)
            utility[:, 1] = utility[:, 0]
        case 1:
            joint[:, 0] += joint[:, 1]
            joint[:, 1] = 0
        case 2:
            tables[1] = np.eye(2)[np.argmax(utility[0], axis=1)]
        case 3:
            joint[..., 3] = 0
            joint /= joint.sum()
    return joint, utility, objective, mass, tables


@pytest.mark.parametrize("timing", ["before", "after"])
def test_gains_from_menus_equal_highs_where_programs_have_no_interior(timing):
    games = [degenerate_game(seed) for seed in range(20)]
    arrays = [np.stack(leaves) for leaves in zip(*games, strict=True)]
    units = {"before": 1, "after": 2}[timing]
    found = in_batch(compiled_deviations[timing], [*arrays, np.zeros((20, units), int)])
    expected = np.array([reference_gains(*game, timing) for game in games])
    for end in ("lower", "upper"):
        errors = np.abs(getattr(found.gains, end) - expected).max(axis=1)
        assert errors.max() <= 1e-7, f"{end}: seed={errors.argmax()}: {errors.max()}"


def test_no_menu_breaks_the_babbling_of_opposed_users():
    """E1: nobody gains by a menu when all babble; with one user only, each gains 1."""
    first = np.array([[0.0, 0.0], [1.0, -3.0], [-3.0, 1.0]])
    utility = np.stack([first, first[[0, 2, 1]]])[:, None]
    objective = np.stack([np.stack([own] * 2) for own in (utility[0], utility[1])])
    joint = np.full((2, 1, 2), 0.5)
    silence = np.zeros((2, 2, 2, 2))
    silence[..., 0] = 1
    # The second market's first user has no stake, and nobody minds what she does.
    alone_utility, alone_objective = utility.copy(), objective.copy()
    alone_utility[1], alone_objective[:, 1] = utility[0], 0
    both = [
        (joint, utility, objective, np.ones(2), silence, np.zeros(2, int)),
        (joint, alone_utility, alone_objective, np.ones(2), silence, np.zeros(2, int)),
    ]
    found = in_batch(
        compiled_deviations["before"], [np.stack(leaves) for leaves in zip(*both, strict=True)]
    )
    assert found.gains.upper[0] == pytest.approx(np.zeros(2), abs=1e-9)
    assert np.all(found.gains.lower[0] >= 0)
    assert found.values[0] == pytest.approx(np.zeros((2, 2)), abs=1e-12)
    assert found.gains.lower[1] == pytest.approx([1.0, 0.0], abs=1e-7)


def two_bits():
    """Two types learn about one bit each, both 1 with probability .3; the first has double stakes.

    The competitor reveals the second bit, the deviator says nothing; it wants both to act as if
    their bit were 1. Worked out in docs/menus.md.
    """
    bits = np.array([[0, 1, 0, 1], [0, 0, 1, 1]])
    prior = np.prod(np.where(bits == 1, 0.3, 0.7), axis=0)
    utility = np.stack([1.0 - bits, bits], axis=1)[None] * np.array([2, 1])[:, None, None]
    objective = np.zeros((2, 1, 2, 2, 4))
    objective[0, :, :, 1] = 1
    tables = np.zeros((2, 2, 4, 2))
    tables[0, :, :, 0] = 1
    tables[1] = np.stack([1 - bits[1], bits[1]], axis=1)
    return np.stack([prior, prior])[None] / 2, utility, objective, np.ones(1), tables


@pytest.mark.parametrize(("timing", "payoff"), [("before", 0.525), ("after", 0.45)])
def test_a_provider_gets_more_from_users_who_choose_before_they_know_their_type(timing, payoff):
    units = {"before": 1, "after": 2}[timing]
    arrays = [array[None] for array in two_bits()]
    found = in_batch(compiled_deviations[timing], [*arrays, np.ones((1, units), int)])
    assert np.sum(found.payoffs[0, 0, 1]) == pytest.approx(0.15, abs=1e-12)
    assert found.gains.lower[0, 0] == pytest.approx(payoff - 0.15, abs=1e-7)
    assert found.gains.upper[0, 0] == pytest.approx(payoff - 0.15, abs=1e-7)


def test_choosing_late_never_helps_a_provider_that_holds_nobody():
    games = [random_game(seed, 1, 2, 2, 4) for seed in range(20)]
    arrays = [np.stack(leaves) for leaves in zip(*games, strict=True)]
    arrays[-1][:, 0] = 0.5
    gains = [
        in_batch(compiled_deviations[timing], [*arrays, np.ones((20, units), int)]).gains
        for timing, units in (("before", 1), ("after", 2))
    ]
    excess = gains[0].lower[:, 0] - gains[1].upper[:, 0]
    assert excess.min() >= -1e-7, f"seed={excess.argmin()}: {excess.min()}"
    assert np.sum(excess > 1e-3) > 0
