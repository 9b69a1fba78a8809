"""Nash, zero-sum, correlated and commitment: known games, and other solvers' answers."""

import functools

import equinox as eqx
import jax
import jax.numpy as jnp
import nashpy
import numpy as np
import pytest
import quantecon.game_theory as quantecon_games
import scipy.optimize
from quantecon.optimize import minmax

from diffgame.finite import (
    NashStatus,
    NormalForm,
    check_nash,
    correlated_equilibrium,
    lemke_howson,
    nash_limit,
    stackelberg_commitment,
    zero_sum_equilibrium,
)

ROCK = np.array([[0.0, -1, 1], [1, 0, -1], [-1, 1, 0]])
CHICKEN = np.array([[[0.0, 7], [2, 6]], [[0, 2], [7, 6]]])


def batched(function):
    return eqx.filter_jit(jax.vmap(lambda tables: function(NormalForm(tables))))


pivot = batched(lemke_howson)
limit = batched(nash_limit)
correlate = batched(correlated_equilibrium)
commit = batched(stackelberg_commitment)
matrix = eqx.filter_jit(jax.vmap(zero_sum_equilibrium))


@functools.cache
def games() -> np.ndarray:
    """A third normal, a third with many ties, and textbook games with three actions."""
    random = np.random.default_rng(0)
    normal = random.normal(size=(24, 2, 3, 3))
    ties = random.integers(-1, 2, (24, 2, 3, 3)).astype(float)
    known = np.stack([np.stack([ROCK, -ROCK]), np.stack([np.eye(3)] * 2), np.zeros((2, 3, 3))])
    return np.concatenate([normal, ties, known])


def test_pivoting_certifies_every_game_ties_included():
    found = pivot(jnp.asarray(games()))
    assert found.check.certified.all()
    assert (found.status == NashStatus.certified).all()


def test_pivoting_ends_where_quantecon_ends_in_games_without_ties():
    found = pivot(jnp.asarray(games()))
    for index in range(24):
        first, second = games()[index]
        theirs = quantecon_games.lemke_howson(
            quantecon_games.NormalFormGame(
                [quantecon_games.Player(first), quantecon_games.Player(second.T)]
            ),
            init_pivot=0,
        )
        for own, other in zip(found.profile, theirs, strict=True):
            np.testing.assert_allclose(own[index], other, atol=1e-9, err_msg=str(index))


def test_pivoting_finds_the_same_in_any_company():
    """Five times as many games leave and join the lanes in another order."""
    found, tables = pivot(jnp.asarray(games())), jnp.asarray(games()[::-1])
    many = pivot(jnp.concatenate([tables] * 5))
    for alone, together in zip(jax.tree.leaves(found), jax.tree.leaves(many), strict=True):
        for part in np.split(together, 5):
            np.testing.assert_array_equal(part[::-1], alone)


def test_pivoting_stops_at_max_steps():
    found = pivot(jnp.asarray(games()))
    short = batched(functools.partial(lemke_howson, max_steps=2))(jnp.asarray(games()))
    longer = np.asarray(found.steps > 2)
    assert 0 < longer.sum() < len(longer)
    np.testing.assert_array_equal(short.steps, np.minimum(found.steps, 2))
    # Some are at an equilibrium before their path says so.
    lost = longer & ~np.asarray(short.check.certified)
    assert lost.any()
    np.testing.assert_array_equal(short.status == NashStatus.max_steps, lost)


def test_equilibria_are_among_those_that_nashpy_enumerates():
    tables = games()[:24]
    for found in (pivot(jnp.asarray(games())), limit(jnp.asarray(tables))):
        for index, (first, second) in enumerate(tables):
            known = list(nashpy.Game(first, second).vertex_enumeration())
            gaps = [
                max(
                    np.abs(own[index] - other).max()
                    for own, other in zip(found.profile, pair, strict=True)
                )
                for pair in known
            ]
            assert min(gaps) < 1e-8, index


def test_the_limit_of_the_logit_path_is_certified():
    found = limit(jnp.asarray(games()[:24]))
    assert found.check.certified.all(), found.status


def test_limits_of_three_players():
    random = np.random.default_rng(4)
    found = limit(jnp.asarray(random.normal(size=(24, 3, 2, 2, 2))))
    assert found.check.certified.all(), found.status


def test_a_broken_game_is_said_to_be_so():
    tables = games().copy()
    tables[5, 0, 0, 0] = np.nan
    for solver, count in ((pivot, len(tables)), (limit, 24)):
        found = solver(jnp.asarray(tables[:count]))
        np.testing.assert_array_equal(np.flatnonzero(found.status == NashStatus.nonfinite), [5])
        assert not found.check.certified[5]
        assert found.check.certified.sum() == count - 1


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: lemke_howson(NormalForm(np.zeros((3, 2, 2, 2)))),
            "has 3 players; give one of two",
        ),
        (lambda: lemke_howson(NormalForm(CHICKEN), label=4), "^label: 4 is no action"),
        (lambda: stackelberg_commitment(NormalForm(np.zeros((1, 2)))), "has 1 players"),
    ],
)
def test_games_that_a_method_cannot_solve_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_labels_lead_to_different_equilibria_of_chicken():
    ends = [lemke_howson(NormalForm(CHICKEN), label=label).profile[0] for label in (0, 1)]
    assert sorted(np.asarray(end).round(9).tolist() for end in ends) == [[0, 1], [1, 0]]


def test_matrix_games_have_the_values_of_quantecon():
    random = np.random.default_rng(1)
    tables = np.concatenate([random.normal(size=(20, 3, 3)), random.integers(-1, 2, (20, 3, 3))])
    tables = np.concatenate([tables, ROCK[None], np.zeros((1, 3, 3)), 1e8 * ROCK[None] + 5])
    found = matrix(jnp.asarray(tables))
    assert found.check.certified.all()
    for table, value in zip(tables, found.value, strict=True):
        assert value == pytest.approx(minmax(table)[0], abs=1e-8 * max(1, np.abs(table).max()))


def best_correlated_welfare(tables) -> float:
    """The same program by HiGHS, its rows written out cell by cell."""
    actions, rows = tables.shape[1:], []
    for player in range(len(tables)):
        for advised in range(actions[player]):
            for instead in range(actions[player]):
                row = np.zeros(actions)
                for cell in np.ndindex(*actions):
                    if cell[player] == advised:
                        other = (*cell[:player], instead, *cell[player + 1 :])
                        row[cell] = tables[player][other] - tables[player][cell]
                rows.append(row.ravel())
    cost = -tables.sum(axis=0).ravel()
    answer = scipy.optimize.linprog(
        cost, np.array(rows), np.zeros(len(rows)), np.ones((1, cost.size)), [1.0]
    )
    return -answer.fun


def test_correlated_equilibria_reach_the_welfare_that_highs_finds():
    chosen = games()[[0, 1, 2, 24, 25, 26, -3, -2, -1]][:, :, :2]
    # Chicken with a third action that its column player never takes.
    chosen[-1] = np.concatenate([CHICKEN, [[[0], [0]], [[-10], [-10]]]], axis=2)
    found = correlate(jnp.asarray(chosen))
    assert found.certified.all()
    # Aumann's advice: both yield half the time, one of them dares otherwise.
    assert found.welfare[-1] == pytest.approx(10.5, abs=1e-9)
    lottery = [[0, 0.25, 0], [0.25, 0.5, 0]]
    np.testing.assert_allclose(found.distribution[-1], lottery, atol=1e-8)
    for table, welfare in zip(chosen, found.welfare, strict=True):
        assert welfare == pytest.approx(best_correlated_welfare(table), abs=1e-7)


def best_commitment(tables) -> float:
    """One program of HiGHS per reply, as Conitzer and Sandholm have it."""
    leader, follower = tables
    values = []
    for reply in range(leader.shape[1]):
        gains = (follower - follower[:, [reply]]).T
        answer = scipy.optimize.linprog(
            -leader[:, reply], gains, np.zeros(len(gains)), np.ones((1, len(leader))), [1.0]
        )
        if answer.status == 0:
            values.append(-answer.fun)
    return max(values)


def test_commitments_are_worth_what_one_program_per_reply_finds():
    found = commit(jnp.asarray(games()))
    assert found.certified.all()
    for index, table in enumerate(games()):
        assert found.value[index] == pytest.approx(best_commitment(table), abs=1e-7), index


def test_leading_is_worth_no_less_than_any_equilibrium():
    """Von Stengel, Zamir (2010): a leader gets at least its best Nash payoff."""
    found = commit(jnp.asarray(games()))
    played = pivot(jnp.asarray(games()))
    for index, table in enumerate(games()):
        payoff = (
            np.asarray(played.profile[0][index]) @ table[0] @ np.asarray(played.profile[1][index])
        )
        assert found.value[index] >= payoff - 1e-9
        assert check_nash(
            NormalForm(table), tuple(mixed[index] for mixed in played.profile)
        ).certified
