"""Finite games: tables that are refused, metrics by definition, and checks that can fail."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffgame.finite import (
    NormalForm,
    check_logit,
    check_nash,
    expected_payoffs,
    exploitability,
    nash_conv,
    regrets,
)

PENNIES = np.array([[1.0, -1.0], [-1.0, 1.0]])


@pytest.mark.parametrize(
    ("payoffs", "message"),
    [
        ([], "no tables; give one table per player"),
        ([PENNIES, PENNIES[:1]], "the table of player 1 has shape"),
        (np.zeros(3), "is not \\[players, \\*actions\\]"),
        (np.zeros((3, 2, 2)), "is not \\[players, \\*actions\\]"),
        (np.zeros((2, 2, 0)), "player 1 has no actions"),
        ([PENNIES, np.array([[1.0, np.nan], [0, 0]])], r"entry at \(1, 0, 1\) is nan"),
        ([PENNIES, np.array([[1.0, 2], [np.inf, 0]])], r"entry at \(1, 1, 0\) is inf"),
    ],
)
def test_bad_tables_are_refused_in_one_line(payoffs, message):
    with pytest.raises(ValueError, match=f"^payoffs: .*{message}") as refused:
        NormalForm(payoffs)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("played", [(0,), (0, 2), (-1, 0), (0, 0, 0)])
def test_actions_that_do_not_exist_are_refused(played):
    with pytest.raises(ValueError, match=r"^played: .*give 2 indices"):
        NormalForm([PENNIES, -PENNIES]).pure_profile(*played)


def test_profiles_of_another_game_are_refused():
    game = NormalForm([PENNIES, -PENNIES])
    with pytest.raises(ValueError, match=r"^profile: .*\(2, 2\) actions"):
        expected_payoffs(game, (jnp.ones(1), jnp.ones(2) / 2))


@pytest.mark.parametrize("shape", [(1, 3), (2, 2, 3), (3, 2, 3, 1), (4, 2, 2, 3, 2)], ids=str)
@pytest.mark.parametrize("seed", range(2))
def test_metrics_are_those_of_the_definition(shape, seed):
    random = np.random.default_rng(seed)
    tables = random.normal(size=shape)
    profile = [random.dirichlet(np.ones(count)) for count in shape[1:]]
    expected = np.zeros(shape[0])
    deviating = [np.zeros(count) for count in shape[1:]]
    for cell in itertools.product(*map(range, shape[1:])):
        chance = np.array([mixed[action] for mixed, action in zip(profile, cell, strict=True)])
        for player, action in enumerate(cell):
            expected[player] += np.prod(chance) * tables[player][cell]
            others = np.prod(np.delete(chance, player))
            deviating[player][action] += others * tables[player][cell]
    gains = [best.max() - own for best, own in zip(deviating, expected, strict=True)]
    game, mixed = NormalForm(tables), tuple(map(jnp.asarray, profile))
    np.testing.assert_allclose(expected_payoffs(game, mixed), expected, atol=1e-13)
    np.testing.assert_allclose(regrets(game, mixed), gains, atol=1e-13)
    assert nash_conv(game, mixed) == pytest.approx(sum(gains), abs=1e-13)
    assert exploitability(game, mixed) == pytest.approx(np.mean(gains), abs=1e-13)


def test_a_constant_added_to_payoffs_changes_no_regret():
    game, moved = (NormalForm([PENNIES + add, -PENNIES + add]) for add in (0.0, 1e12))
    np.testing.assert_array_equal(
        regrets(game, game.pure_profile(0, 0)), regrets(moved, game.pure_profile(0, 0))
    )


EQUILIBRIA = [
    ("matching pennies", [PENNIES, -PENNIES], ([0.5, 0.5], [0.5, 0.5])),
    ("prisoners' dilemma", [[[3, 0], [5, 1]], [[3, 5], [0, 1]]], ([0, 1], [0, 1])),
    ("battle of the sexes", [[[2, 0], [0, 1]], [[1, 0], [0, 2]]], ([2 / 3, 1 / 3], [1 / 3, 2 / 3])),
    ("chicken", [[[0, 7], [2, 6]], [[0, 2], [7, 6]]], ([1 / 3, 2 / 3], [1 / 3, 2 / 3])),
]


@pytest.mark.parametrize(("name", "tables", "profile"), EQUILIBRIA, ids=lambda x: str(x)[:20])
def test_textbook_equilibria_pass_and_their_neighbours_do_not(name, tables, profile):
    game = NormalForm([np.array(table, float) for table in tables])
    mixed = tuple(jnp.array(own, float) for own in profile)
    assert check_nash(game, mixed).certified, name
    moved = (jnp.array([0.4, 0.6]), mixed[1])
    assert not check_nash(game, (moved[0], moved[0])).certified, name


@pytest.mark.parametrize(
    "spoilt",
    [[0, 0], [np.nan, np.nan], [np.inf, -np.inf], [1.5, -0.5], [0.5, 0.5 + 1e-6], [0.5, np.nan]],
    ids=str,
)
def test_what_is_no_probability_is_never_certified(spoilt):
    game = NormalForm(np.zeros((2, 2, 2)))
    fair = jnp.array([0.5, 0.5])
    assert check_nash(game, (fair, fair)).certified
    assert check_logit(game, (fair, fair), 1.0).certified
    for profile in ((jnp.array(spoilt, float), fair), (fair, jnp.array(spoilt, float))):
        assert not check_nash(game, profile).certified
        assert not check_logit(game, profile, 1.0).certified


def test_games_of_a_batch_are_made_by_vmap():
    tables = jnp.asarray(np.random.default_rng(0).normal(size=(3, 2, 2, 3)))
    games = jax.vmap(NormalForm)(tables)
    sums = jax.vmap(lambda game: nash_conv(game, game.uniform_profile()))(games)
    alone = [nash_conv(NormalForm(table), NormalForm(table).uniform_profile()) for table in tables]
    np.testing.assert_allclose(sums, alone, atol=1e-14)
