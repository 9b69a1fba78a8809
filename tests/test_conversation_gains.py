"""What an audit proves that a provider can gain by conversing, against searches and HiGHS."""

import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import linprog

from diffgame.market._menu_gains import action_sets, few_messages_gains
from diffgame.market._menu_search import find_menu_equilibria
from diffgame.market._menu_starts import grouped
from diffgame.market._typed_tables import TypedTables


def random_tables(seed, users, values, providers=2, actions=3, states=3):
    generator = np.random.default_rng(seed)
    joint = generator.dirichlet(np.ones(states)) * np.swapaxes(
        generator.dirichlet(np.ones(values), (users, states)), 1, 2
    )
    shape = users, values, actions, states
    utility, objective = generator.normal(size=shape), generator.normal(size=(providers, *shape))
    mass = generator.uniform(0.5, 2, users)
    return TypedTables(joint, utility, objective, mass, (values,) * users)


@pytest.mark.parametrize("timing", ["before", "after"])
@pytest.mark.parametrize(
    ("users", "personalized"),
    [
        (1, True),
        pytest.param(2, True, marks=pytest.mark.campaign),
        pytest.param(2, False, marks=pytest.mark.campaign),
    ],
    ids=["one", "personalized", "anonymous"],
)
@pytest.mark.parametrize("seed", range(3), ids="seed={}".format)
def test_no_random_menu_gains_more_than_is_proved(seed, users, personalized, timing):
    """Deviations from every assessed profile by 400 random menus, evaluated in plain NumPy."""
    tables = random_tables(seed, users, 2, actions=2, states=2)
    found = find_menu_equilibria(
        tables, None, personalized=personalized, timing=timing, starts=8, seed=seed
    )
    generator = np.random.default_rng(seed)
    weighted = tables.objective * tables.mass[:, None, None, None]
    assert len(found.equilibria) >= 2
    for end in found.equilibria:
        told = tables.joint[:, :, None] * end.menu
        now = np.einsum("jxay,ijxay->ijx", told, weighted)
        had = np.einsum("jxay,jxay->jx", told, tables.utility)
        np.testing.assert_allclose(end.provider_payoffs, now.sum(axis=(1, 2)), rtol=0, atol=1e-9)
        np.testing.assert_allclose(end.user_values, had.sum(axis=1), rtol=0, atol=1e-9)
        best, most = np.zeros((2, users)), np.zeros(2)
        for _ in range(400):
            raw = generator.dirichlet(np.full(2, 0.3), (4, 2))
            expected = np.einsum("jxy,jxay,cym->jxcma", tables.joint, tables.utility, raw)
            worth = expected.max(axis=-1).sum(axis=-1)
            value, paid = worth.max(axis=-1), np.zeros((2, users, 2))
            for j, x in np.ndindex(users, 2):
                branch = worth[j, x].argmax()
                act = expected[j, x, branch].argmax(axis=-1)
                sent = tables.joint[j, x][:, None] * raw[branch]
                paid[:, j, x] = np.einsum("imy,ym->i", weighted[:, j, x][:, act], sent)
            comes = value > had + 1e-6
            if timing == "before":
                comes = np.repeat((value - had).sum(axis=1, keepdims=True) > 1e-6, 2, axis=1)
            # The first provider holds them at a tie; here it keeps nobody who finds less.
            gain = np.where(comes[None], paid - now, 0).sum(axis=2)
            best, most = np.maximum(best, gain), np.maximum(most, gain.sum(axis=1))
        proved = best.sum(axis=1) if personalized else most
        assert np.all(proved <= end.upper + 1e-7), f"{seed=}, {end.start}"
        assert np.all(end.lower <= end.upper + 1e-7), f"{seed=}, {end.start}"


def limited_optimum(prior, utility, objective, messages):
    """The most that an experiment with few messages is worth to a monopolist, by HiGHS."""
    actions, states = utility.shape
    best = -np.inf
    for kept in action_sets(actions, messages):
        rows = [
            np.concatenate([prior * (utility[b] - utility[a]) * (c == a) for c in range(actions)])
            for a in range(actions)
            for b in range(actions)
        ]
        found = linprog(
            -(objective * prior).ravel(),
            A_ub=np.array(rows),
            b_ub=np.zeros(len(rows)),
            A_eq=np.tile(np.eye(states), actions),
            b_eq=np.ones(states),
            bounds=[(0, 1 if k else 0) for k in kept for _ in range(states)],
            method="highs",
        )
        best = max(best, -found.fun) if found.status == 0 else best
    return best


@pytest.mark.parametrize("seed", range(8), ids="seed={}".format)
def test_gains_of_few_messages_equal_highs(seed):
    """A monopolist with two messages for three actions, from babbling."""
    tables = random_tables(seed, 1, 1, providers=1)
    prior, utility, objective = tables.joint[0, 0], tables.utility[0, 0], tables.objective[0, 0, 0]
    quiet = np.zeros((1, 1, 3, 3))
    quiet[0, 0, (utility @ prior).argmax()] = 1
    sets, split = jnp.asarray(action_sets(3, 2)), grouped(tables, 1)
    gain = few_messages_gains(*split, jnp.asarray(quiet), sets, jnp.ones(1, bool))
    now = np.sum(objective * prior * quiet[0, 0])
    expected = tables.mass[0] * (limited_optimum(prior, utility, objective, 2) - now)
    np.testing.assert_allclose(gain, [[expected]], rtol=0, atol=1e-6, err_msg=f"{seed=}")
