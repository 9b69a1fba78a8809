"""The exact range of personalized equilibrium values of users with types, against HiGHS."""

import equinox as eqx
import jax
import numpy as np
import pytest

from diffgame.market import equilibrium_values, read_market
from diffgame.market._menu_values import menu_values
from diffgame.market._typed_tables import TypedTables, typed_tables

from .menu_outcomes import Menus
from .menus import random_game
from .test_conversation_audit import MARKETS

BOTH = [[False, True], [True, False]]


def random_tables(seed, users=1, types=2, shape=(2, 2)):
    """Providers who agree with each other more than with the user leave her a wide range."""
    joint, utility, objective, mass, _ = random_game(seed, users, types, *shape)
    if seed % 3:
        objective[1] = objective[0] + 0.3 * objective[1]
    return TypedTables(joint, utility, objective, mass, (types,) * users)


def lead_of(tables):
    """h(V) and the frontiers' rows by HiGHS, for the first user."""
    joint = tables.joint[0][:, None]
    menus = Menus(tables.joint[0], tables.utility[0], BOTH)
    user, own = joint * tables.utility[0], joint[None] * tables.objective[:, 0]

    def lead(value):
        most = [menus.best(payoff, [(user, value, False)]) for payoff in own]
        floors = [(payoff, m, True) for payoff, m in zip(own, most, strict=True)]
        return menus.best(0 * user, floors, [(user, value)], lead=True)

    return lead


@pytest.mark.parametrize("seed", range(9), ids="seed={}".format)
def test_no_value_below_the_range_stands_and_its_ends_do(seed):
    """On a grid of values, whether providers can share one is decided by HiGHS."""
    tables = random_tables(seed)
    found = menu_values(tables, [0])
    lead = lead_of(tables)
    full, nothing = tables.full_information()[0], tables.uninformed()[0]
    assert found.certified[0], f"{seed=}"
    assert found.high[0] == pytest.approx(full, abs=1e-9)
    assert nothing - 1e-9 <= found.low[0] <= full + 1e-9
    if found.low[0] < full - 1e-6:
        assert lead(found.low[0]) == pytest.approx(0, abs=1e-6), f"{seed=}"
    for value in np.linspace(nothing, full, 16)[1:-1]:
        if value < found.low[0] - 1e-3:
            assert lead(value) < -1e-6, f"{seed=}, {value=}"


@pytest.mark.parametrize("seed", range(6), ids="seed={}".format)
def test_nobody_leaves_the_worst_menu_for_any_menu_of_a_grid(seed):
    """All menus of two branches with probabilities in steps of 1/4, in plain NumPy."""
    tables = random_tables(seed)
    found = menu_values(tables, [0])
    menu, joint, utility = found.worst[0], tables.joint[0], tables.utility[0]
    now = np.einsum("xy,ixay,xay->i", joint, tables.objective[:, 0], menu)
    assert np.einsum("xy,xay,xay->", joint, utility, menu) == pytest.approx(found.low[0], abs=1e-9)
    steps = np.stack(np.meshgrid(*[np.linspace(0, 1, 5)] * 4), axis=-1).reshape(-1, 2, 2)
    told = np.stack([steps, 1 - steps], axis=-1)  # [menus, branches, states, messages]
    expected = np.einsum("xy,xay,nbym->nxbma", joint, utility, told)
    worth = expected.max(axis=-1).sum(axis=-1)
    branch = worth.argmax(axis=-1)
    value = np.take_along_axis(worth, branch[..., None], -1).sum(axis=(1, 2))
    paid = np.einsum("xy,ixay,nbym->nixbma", joint, tables.objective[:, 0], told)
    action = expected.argmax(axis=-1)
    paid = np.take_along_axis(paid, action[:, None, ..., None], -1)[..., 0].sum(axis=-1)
    paid = np.take_along_axis(paid, branch[:, None, :, None], -1)[..., 0].sum(axis=-1)
    comes = value > found.low[0] + 1e-6
    gain = np.where(comes[:, None], paid - now, 0).max()
    assert comes.any() or found.low[0] > tables.full_information()[0] - 1e-5
    assert gain <= 1e-6, f"{seed=}"


def test_the_ally_of_a_user_with_a_private_bit_leaves_her_only_full_information():
    tables = typed_tables(read_market(MARKETS / "xor.json"))
    found = menu_values(tables, [0])
    assert (found.low[0], found.high[0]) == pytest.approx((1, 1), abs=1e-7)
    assert found.certified[0]


def test_two_skeptics_leave_a_user_with_a_private_bit_anything():
    """Providers who both want the wrong answer: from what she knows herself to everything."""
    tables = typed_tables(read_market(MARKETS / "xor.json"))
    against = tables._replace(objective=tables.objective[[1, 1]])
    found = menu_values(against, [0])
    assert (found.low[0], found.high[0]) == pytest.approx((0.5, 1), abs=1e-7)
    assert found.certified[0]


@pytest.mark.campaign
def test_users_without_types_have_the_range_of_signals():
    """The exact sets of `equilibrium_values`, by another algorithm, for 60 random users."""
    tables = random_tables(7, users=60, types=1, shape=(3, 3))
    found = menu_values(tables, range(60))

    @eqx.filter_jit
    def signals(prior, utility, objective):
        def one(prior, utility, objective):
            values = equilibrium_values(prior, utility, objective)
            return values.worst()[0], values.best()[0]

        return jax.vmap(one, in_axes=(0, 0, 1))(prior, utility, objective)

    low, high = signals(tables.joint[:, 0], tables.utility[:, 0], tables.objective[:, :, 0])
    assert found.certified.sum() >= 58
    assert np.sum(found.high - found.low > 1e-3) >= 10
    sure = found.certified
    np.testing.assert_allclose(found.low[sure], low[sure], rtol=0, atol=1e-6)
    np.testing.assert_allclose(found.high[sure], high[sure], rtol=0, atol=1e-6)
