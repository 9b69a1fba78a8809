"""Textbook games: the numbers of the textbooks, found by solving."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import scipy.special

import diffgame as dg
from diffgame.games import Cournot, LinearBertrand, LogitBertrand, StackelbergDuopoly

NEWTON = dg.Newton()


def test_stackelberg_in_numbers():
    game = StackelbergDuopoly()
    np.testing.assert_allclose(game.equilibrium(), [1 / 2, 1 / 4], rtol=1e-15)
    found = dg.solve(game, dg.Concave(), dg.Constant(jnp.zeros(1)), NEWTON, tolerance=1e-12)
    np.testing.assert_allclose(found.profile.offer, [1 / 2], rtol=1e-12)
    np.testing.assert_allclose(found.outcome.choices, [[1 / 4]], rtol=1e-12)
    np.testing.assert_allclose(found.outcome.payoffs, [1 / 8], rtol=1e-12)
    np.testing.assert_allclose(found.outcome.utilities, [1 / 16], rtol=1e-12)


def test_cournot_in_numbers():
    game = Cournot(jnp.zeros(2))
    np.testing.assert_allclose(game.equilibrium(), [1 / 3, 1 / 3], rtol=1e-15)
    found = dg.solve(game, dg.Concave(), dg.Constant(jnp.zeros(2)), NEWTON, tolerance=1e-12)
    np.testing.assert_allclose(found.profile.offer, [1 / 3, 1 / 3], rtol=1e-12)
    np.testing.assert_allclose(found.outcome.payoffs, [1 / 9, 1 / 9], rtol=1e-12)
    # The buyer consumes all that is sold, at the price 1/3.
    np.testing.assert_allclose(found.outcome.choices, [[2 / 3]], rtol=1e-12)
    np.testing.assert_allclose(found.outcome.utilities, [2 / 9], rtol=1e-12)


@eqx.filter_jit
def solve_stackelberg(numbers):
    game = StackelbergDuopoly(numbers[0], numbers[1], numbers[2])
    found = dg.solve(game, dg.Concave(), dg.Constant(jnp.zeros(1)), NEWTON, tolerance=1e-11)
    return jnp.append(found.profile.offer, found.outcome.choices), found.outcome, game.equilibrium()


@pytest.mark.parametrize("numbers", [(2.0, 0.3, 0.4), (1.0, 0.2, 0.0), (10.0, 3.0, 4.0)])
def test_stackelberg_with_costs(numbers):
    found, outcome, expected = solve_stackelberg(jnp.array(numbers))
    np.testing.assert_allclose(found, expected, rtol=1e-10)
    a, leader, follower = numbers
    np.testing.assert_allclose(outcome.payoffs, [(a - 2 * leader + follower) ** 2 / 8])
    np.testing.assert_allclose(outcome.utilities, [(a + 2 * leader - 3 * follower) ** 2 / 16])


def test_a_leader_cheap_enough_keeps_the_follower_out():
    """Follower's cost .7: from q1 = .3 on she stays out, so the leader posts .3 up to .5."""
    game = StackelbergDuopoly(follower_cost=0.7)
    found = dg.solve(
        game, dg.Concave(), dg.Constant(jnp.array([0.6])), dg.GradientPlay(optax.sgd(0.3))
    )
    np.testing.assert_allclose(found.profile.offer, [0.5], atol=1e-6)
    np.testing.assert_allclose(found.outcome.choices, [[0.0]], atol=1e-12)


def test_cournot_with_many_firms_and_buyers():
    cost = jnp.array([0.1, 0.2, 0.15, 0.0])
    buyers, mass = jnp.array([1.5, 2.0, 2.5]), jnp.array([2.0, 1.0, 3.0])
    game = Cournot(cost, buyers, mass, slope=0.7)
    start = dg.Constant(jnp.zeros(4))
    found = eqx.filter_jit(dg.solve)(game, dg.Concave(), start, NEWTON, tolerance=1e-11)
    np.testing.assert_allclose(found.profile.offer, game.equilibrium(), rtol=1e-10)
    # First-order condition: price - cost = slope * quantity; and the market clears.
    price = jnp.sum(mass * buyers) / 6 - 0.7 * jnp.sum(found.profile.offer)
    np.testing.assert_allclose(price - cost, 0.7 * found.profile.offer, rtol=1e-10)
    supply, demand = 6 * jnp.sum(found.profile.offer), mass @ found.outcome.choices[:, 0]
    np.testing.assert_allclose(demand, supply, rtol=1e-12)


def test_linear_bertrand_closed_form():
    game = LinearBertrand(
        jnp.array([0.5, 0.8, 0.2]),
        jnp.array([[1.0, 0.4, 0.1], [0.4, 1.2, 0.3], [0.1, 0.3, 0.9]]),
        jnp.array([[3.0, 3.0, 2.5], [4.0, 3.5, 3.0]]),
        jnp.array([1.0, 3.0]),
    )
    start = dg.Constant(jnp.ones(3))
    found = eqx.filter_jit(dg.solve)(game, dg.Concave(), start, NEWTON, tolerance=1e-11)
    np.testing.assert_allclose(found.profile.offer, game.equilibrium(), rtol=1e-10)
    assert jnp.all(found.outcome.choices > 0)
    # First-order condition: markup = quantity sold / slope of own demand.
    demand = jnp.linalg.inv(game.substitution)
    sold = game.mass @ found.outcome.choices
    markup = sold / (4 * jnp.diagonal(demand))
    np.testing.assert_allclose(found.profile.offer - game.cost, markup, rtol=1e-10)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_logit_bertrand_first_order_condition(temperature: float):
    game = LogitBertrand(jnp.array([0.5, 0.8]), jnp.array([2.0, 2.5]), jnp.array([1.3]))
    start = dg.Constant(jnp.array([1.0, 1.0]))
    found = dg.solve(game, dg.Logit(jnp.array(temperature)), start, NEWTON, tolerance=1e-11)
    share = found.outcome.choices[0, :2]
    markup = temperature / (1.3 * (1 - share))
    np.testing.assert_allclose(found.profile.offer - game.cost, markup, rtol=1e-10)


def test_a_logit_monopolist_by_lamberts_function():
    """Price = c + (1 + W(exp(quality - s c - 1))) / s at temperature 1."""
    cost, quality, sensitivity = 0.4, 2.0, 1.5
    game = LogitBertrand(jnp.array([cost]), jnp.array([quality]), jnp.array([sensitivity]))
    found = dg.solve(game, dg.Logit(1.0), dg.Constant(jnp.ones(1)), NEWTON, tolerance=1e-12)
    lambert = scipy.special.lambertw(np.exp(quality - sensitivity * cost - 1)).real
    np.testing.assert_allclose(found.profile.offer, [cost + (1 + lambert) / sensitivity])


@pytest.mark.parametrize(
    "game",
    [
        StackelbergDuopoly(),
        Cournot(jnp.zeros(3)),
        LogitBertrand(jnp.zeros(2), jnp.ones(2), jnp.ones(4)),
        LinearBertrand(jnp.zeros(2), jnp.eye(2), jnp.ones((5, 2))),
    ],
    ids=lambda game: type(game).__name__,
)
def test_users_count_one_in_total_by_default(game):
    np.testing.assert_allclose(jnp.sum(game.mass), 1, rtol=1e-15)
    assert all(leaf.shape[0] == game.mass.shape[0] for leaf in jax.tree.leaves(game.users))
