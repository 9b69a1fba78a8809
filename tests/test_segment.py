"""Action profiles, and which of them users ever play."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffgame.market import playable_profiles
from diffgame.market._segment import action_profiles

from . import oracle
from .markets import batched, repeated

playable = jax.jit(jax.vmap(playable_profiles, in_axes=(0, 0, None)))


COUNT = 200


def alone(priors, utilities):
    """Which of 4 actions each user plays, in 3 states; one batch size, so one program for all."""
    markets = [
        (prior, np.ones(1), utility[None], utility[None, None])
        for prior, utility in zip(priors, utilities, strict=True)
    ]
    prior, _, utility, _ = batched(markets, (1, 4, 3, 1), COUNT)
    return np.asarray(playable(prior, utility, action_profiles(1, 4)))[: len(markets)].tolist()


def test_profiles_list_the_last_users_actions_fastest():
    assert action_profiles(2, 3).tolist() == [[a, b] for a in range(3) for b in range(3)]
    assert action_profiles(3, 2).shape == (8, 3)


def test_actions_of_one_user_are_playable_where_highs_says_so():
    """Integer payoffs, so ties, twins and dominated actions abound; some states impossible."""
    rng = np.random.default_rng(0)
    count, A, Y = COUNT, 4, 3
    prior = rng.dirichlet(np.ones(Y), count) * (rng.uniform(size=(count, Y)) > 0.2)
    prior[prior.sum(1) == 0, 0] = 1
    prior /= prior.sum(1, keepdims=True)
    utility = rng.integers(0, 3, (count, A, Y)) * 10 ** rng.uniform(-6, 6, (count, 1, 1))
    found = alone(prior, utility)
    expected = np.array([oracle.playable(prior[b], utility[b]) for b in range(count)])
    assert 0.3 < expected.mean() < 0.9
    for b in range(count):
        assert found[b] == expected[b].tolist(), f"market {b} of seed 0"


@pytest.mark.parametrize(
    ("utility", "expected"),
    [
        pytest.param([[1, 0], [0, 1], [0.4, 0.4], [0, 0]], [1, 1, 0, 0], id="dominated"),
        pytest.param([[1, 0], [0, 1], [0.5, 0.5], [0, 0]], [1, 1, 0, 0], id="ties, never leads"),
        pytest.param([[0.5, 0.5], [1, 0], [0, 1], [0, 0]], [1, 1, 1, 0], id="ties, comes first"),
        pytest.param([[1, 0], [1, 0], [0, 1], [0, 1]], [1, 0, 1, 0], id="twins"),
        pytest.param([[0, 0]] * 4, [1, 0, 0, 0], id="indifferent"),
        pytest.param([[1, 0], [1, 1], [0, 1], [0, 0]], [1, 1, 0, 0], id="weakly dominated"),
    ],
)
def test_an_action_is_playable_if_the_tie_rule_ever_selects_it(utility, expected):
    assert alone(np.full((1, 2), 0.5), [np.array(utility, float)]) == [[e == 1 for e in expected]]


def test_states_of_probability_zero_make_nothing_playable():
    assert alone(np.eye(2), [np.eye(4, 2)] * 2) == [
        [True, False] + 2 * [False],
        [False, True] + 2 * [False],
    ]


def together(utilities):
    """Which profiles of 2 users with 3 actions are played in 2 states, by number."""
    prior, utility = repeated([np.full((len(utilities), 2), 0.5), utilities], 40)
    profiles = action_profiles(2, 3)
    found = np.asarray(playable(prior, utility, profiles))[: len(utilities)]
    return [{tuple(p) for p in profiles[row].tolist()} for row in found]


def test_identical_users_always_act_alike():
    user = np.array([[1, 0], [0, 1], [0, 0.0]])
    assert together(np.stack([user, user])[None]) == [{(0, 0), (1, 1)}]


def test_profiles_of_two_users_are_playable_where_a_grid_of_posteriors_says_so():
    """Two states: the posterior is one number, and a fine grid sees every interval."""
    utility = np.random.default_rng(1).uniform(size=(40, 2, 3, 2))
    posterior = np.linspace(0, 1, 20001)
    posterior = np.stack([posterior, 1 - posterior])
    for b, found in enumerate(together(utility)):
        seen = {tuple(pair) for pair in np.argmax(utility[b] @ posterior, axis=1).T.tolist()}
        assert seen == found, f"market {b} of seed 1"


def test_users_who_never_occur_play_the_first_actions():
    utility = jnp.asarray(np.random.default_rng(0).random((2, 3, 2)))
    playable = playable_profiles(jnp.zeros(2), utility, jnp.asarray(action_profiles(2, 3)))
    assert playable.tolist() == [True] + [False] * 8
