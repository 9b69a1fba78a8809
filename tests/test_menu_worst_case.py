"""What users can lose at most in equilibria of conversations, against HiGHS and known games."""

import numpy as np
import pytest

from diffgame.market._menu_worst_case import menu_worst_case, temptations
from diffgame.market._typed_tables import TypedTables

from .menu_outcomes import Menus
from .menus import random_game


def random_tables(seed, users, types):
    """Every second game has providers who mostly agree with users, as full alignment is rare."""
    joint, utility, objective, mass, _ = random_game(seed, users, types, 2, 2)
    if seed % 2:
        objective = 0.4 * objective + utility[None]
    return TypedTables(joint, utility, objective, mass, (types,) * users)


def reference_loss(tables, tempted, users):
    """The largest summed loss of `users` that no provider leaves for full revelation."""
    joint, utility = tables.joint[:, :, None], tables.utility
    shape = (-1, *utility.shape[2:])
    menus = Menus(tables.joint.reshape(-1, shape[-1]), utility.reshape(shape), tempted)
    best = utility.argmax(axis=2)[:, :, None]
    loss = joint * (utility.max(axis=2, keepdims=True) - utility)
    loss = loss * np.isin(np.arange(len(utility)), users)[:, None, None, None]
    gains = [
        joint * tables.mass[:, None, None, None] * (own - np.take_along_axis(own, best, 2))
        for own in tables.objective
    ]
    return menus.best(loss.reshape(shape), [(gain.reshape(shape), 0, False) for gain in gains])


@pytest.mark.parametrize("seed", range(12), ids="seed={}".format)
@pytest.mark.parametrize(("users", "types"), [(1, 2), (2, 1)], ids=["types", "users"])
def test_the_worst_case_of_pairs_equals_highs(users, types, seed):
    """Two types of one user, and two users who are told the same, keep to the same rows."""
    tables = random_tables(seed, users, types)
    both = [[False, True], [True, False]]
    found = menu_worst_case(tables, personalized=False, timing="before")
    expected = [reference_loss(tables, both, [j]) for j in range(users)]
    total = reference_loss(tables, both, range(users))
    np.testing.assert_allclose(found.per_user, expected, rtol=0, atol=1e-6, err_msg=f"{seed=}")
    assert found.total == pytest.approx(total, abs=1e-6), f"{seed=}"


def test_who_cannot_prefer_whose_branch():
    """Before she learns her type, a user with types compares providers by the sum alone."""
    before = np.array(temptations((2, 1), 2, "before"))
    after = np.array(temptations((2, 1), 2, "after"))
    never = 3  # The second user has no second type.
    np.testing.assert_array_equal(
        before,
        np.array([[0, 1, 0, 0], [1, 0, 0, 0], [1, 1, 0, 0], [0, 0, 0, 0]], bool),
    )
    assert after[:never, :never].sum() == 6
    assert not after[never].any()
    assert not after[:, never].any()


def test_users_beyond_the_limit_are_not_compared():
    many = np.array(temptations((1,) * 9, 1, "before"))
    assert not many.any()
    assert np.array(temptations((1,) * 8, 1, "before")).sum() == 56


def test_a_bound_is_never_above_what_information_can_add():
    """Providers who gain by full information nowhere: the bound is that of saying nothing."""
    tables = random_tables(0, 1, 2)
    against = tables._replace(objective=-tables.utility[None].repeat(2, 0))
    found = menu_worst_case(against, personalized=True, timing="after")
    add = tables.full_information() - tables.uninformed()
    assert add[0] > 0.01
    np.testing.assert_allclose(found.per_user, add, rtol=0, atol=1e-8)
