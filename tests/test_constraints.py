"""Constraints as numbers, and where a game gets a user's from."""

import jax.numpy as jnp
import numpy as np

import diffgame as dg
from diffgame.games import Cournot

from .quadratic_users import QuadraticUser


def test_nothing_is_constrained_by_default():
    none = dg.Constraints()
    assert none.inequalities.shape == none.equalities.shape == (0,)


def test_a_game_passes_on_the_constraints_of_its_choice_set():
    game = QuadraticUser(jnp.eye(2), jnp.ones(2), dg.Polytope(jnp.eye(2), jnp.ones(2)))
    found = game.user_constraints(jnp.array([0.5, 2.0]), None, None)
    np.testing.assert_array_equal(found.inequalities, [-0.5, 1])


def test_other_choice_sets_have_no_constraints():
    game = Cournot(cost=jnp.zeros(2))
    found = game.user_constraints(jnp.zeros(1), jnp.ones(2), None)
    assert found.inequalities.shape == found.equalities.shape == (0,)
