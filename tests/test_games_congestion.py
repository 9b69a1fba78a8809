"""Pigou and Braess: exact users, noisy users, tolls, and derivatives of flows in tolls."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize
import scipy.special

import diffgame as dg
from diffgame._interaction import CrowdStatus
from diffgame._joint_response import Wardrop
from diffgame.games._congestion import Congestion

PIGOU, BRAESS = Congestion.pigou(), Congestion.braess()
play = eqx.filter_jit(dg.play)


def toll(*values):
    return dg.Constant(jnp.array([[*values]]))


@eqx.filter_jit
def flow_and_slope(game, response, price):
    def flow(price):
        return dg.play(game, response, dg.Constant(price)).interaction.crowd

    return flow(price), jax.jacfwd(flow)(price), jax.jacrev(flow)(price)


def test_pigou_all_take_the_congested_link():
    outcome = play(PIGOU, Wardrop(), toll(0.0))
    np.testing.assert_allclose(outcome.choices, [[1, 0]], atol=1e-10)
    np.testing.assert_allclose(outcome.utilities, [-1], rtol=1e-10)
    np.testing.assert_allclose(PIGOU.total_time(outcome.interaction.crowd), 1, rtol=1e-10)
    assert outcome.interaction.status == CrowdStatus.isolated


@pytest.mark.parametrize("power", [1.0, 2.0, 4.0])
def test_pigous_tax_attains_the_least_total_time(power: float):
    """Total time x^(p+1) + 1 - x is least at x = (1 + p)^(-1/p); the toll p x^p leads there."""
    game = Congestion.pigou(power)
    best = (1 + power) ** (-1 / power)
    flow, slope, _ = flow_and_slope(game, Wardrop(), jnp.array([[power / (power + 1)]]))
    np.testing.assert_allclose(flow, [best, 1 - best], rtol=1e-9)
    np.testing.assert_allclose(game.total_time(flow), best ** (power + 1) + 1 - best, rtol=1e-9)
    if power == 1:
        np.testing.assert_allclose(game.total_time(flow), 3 / 4, rtol=1e-9)
    # First order: the total time does not change with the toll.
    along = jax.grad(game.total_time)(flow) @ slope[:, 0, 0]
    np.testing.assert_allclose(along, 0, atol=1e-8)


def test_braess_a_shortcut_makes_everybody_slower():
    without = play(Congestion.braess(shortcut=False), Wardrop(), toll(0.0))
    np.testing.assert_allclose(without.choices, [[1 / 2, 1 / 2]], rtol=1e-10)
    np.testing.assert_allclose(without.utilities, [-3 / 2], rtol=1e-10)
    outcome = play(BRAESS, Wardrop(), toll(0.0))
    np.testing.assert_allclose(outcome.choices, [[0, 0, 1]], atol=1e-10)
    np.testing.assert_allclose(outcome.utilities, [-2], rtol=1e-10)


@pytest.mark.parametrize("price", [0.1, 0.25, 0.4])
def test_braess_a_toll_on_the_shortcut(price: float):
    """1 - 2 t take it, and everybody pays 2 - t."""
    outcome = play(BRAESS, Wardrop(), toll(price))
    np.testing.assert_allclose(outcome.choices[0], [price, price, 1 - 2 * price], rtol=1e-9)
    np.testing.assert_allclose(outcome.utilities, [price - 2], rtol=1e-10)
    np.testing.assert_allclose(outcome.payoffs, [price * (1 - 2 * price)], rtol=1e-9)


def test_the_owner_of_the_shortcut_anticipates_the_crowd():
    """Revenue t (1 - 2 t): anticipating 1 - 4 t, naive 1 - 2 t; best at 1/4."""

    @eqx.filter_jit
    def fields(price):
        return [
            dg.pseudogradient(BRAESS, Wardrop(), dg.Constant(price), anticipate=anticipate).offer
            for anticipate in (True, False)
        ]

    anticipating, naive = fields(jnp.array([[0.1]]))
    np.testing.assert_allclose(anticipating, [[0.6]], rtol=1e-9)
    np.testing.assert_allclose(naive, [[0.8]], rtol=1e-9)
    np.testing.assert_allclose(fields(jnp.array([[0.25]]))[0], [[0.0]], atol=1e-9)


def test_no_exact_user_could_do_better():
    gap = dg.user_gap(BRAESS, Wardrop(), toll(0.25))
    np.testing.assert_allclose(gap, 0, atol=1e-9)


@pytest.mark.parametrize("temperature", [0.02, 0.3, 2.0])
@pytest.mark.parametrize("price", [0.0, 0.5])
def test_logit_pigou_is_the_root_of_one_equation(temperature: float, price: float):
    outcome = play(PIGOU, dg.Logit(jnp.array(temperature)), toll(price))

    def excess(x):
        return x - scipy.special.expit((1 - x - price) / temperature)

    expected = scipy.optimize.brentq(excess, 0, 1, xtol=1e-15)
    np.testing.assert_allclose(outcome.choices[0, 0], expected, rtol=1e-9)
    assert outcome.interaction.status == CrowdStatus.isolated


def braess_paths(price, temperature):
    """Path shares by SciPy, from the costs written out."""

    def excess(share):
        first, second, cut = share
        upper, lower = (first + cut), (second + cut)
        cost = np.array([upper + 1, 1 + lower, upper + lower + price])
        return share - scipy.special.softmax(-cost / temperature)

    found = scipy.optimize.root(excess, np.full(3, 1 / 3), tol=1e-14)
    assert found.success, found.message
    return found.x


@pytest.mark.parametrize("temperature", [0.1, 0.5])
def test_logit_braess_is_scipys_root(temperature: float):
    outcome = play(BRAESS, dg.Logit(jnp.array(temperature)), toll(0.2))
    np.testing.assert_allclose(outcome.choices[0], braess_paths(0.2, temperature), rtol=1e-8)


@pytest.mark.parametrize("response", [dg.Logit(jnp.array(0.2)), Wardrop()], ids=["logit", "exact"])
def test_flows_move_with_tolls_as_differences_say(response):
    price, step = jnp.array([[0.2]]), 1e-5
    _, forward, reverse = flow_and_slope(BRAESS, response, price)
    high, _, _ = flow_and_slope(BRAESS, response, price + step)
    low, _, _ = flow_and_slope(BRAESS, response, price - step)
    np.testing.assert_allclose(forward[:, 0, 0], (high - low) / (2 * step), atol=1e-6)
    np.testing.assert_allclose(forward, reverse, atol=1e-12)


def test_flows_move_with_tolls_as_unrolled_dynamics_say():
    """Damped best responses in path shares, 2,000 times, differentiated straight through."""

    def shares(price):
        def improve(share, _):
            upper, lower = share[0] + share[2], share[1] + share[2]
            cost = jnp.stack([upper + 1, 1 + lower, upper + lower + price])
            return share + 0.1 * (jax.nn.softmax(-cost / 0.2) - share), None

        return jax.lax.scan(improve, jnp.full(3, 1 / 3), None, length=2_000)[0]

    value, slope = jax.jit(lambda p: (shares(p), jax.jacfwd(shares)(p)))(jnp.array(0.2))
    flow, found, _ = flow_and_slope(BRAESS, dg.Logit(jnp.array(0.2)), jnp.array([[0.2]]))
    paths = BRAESS.users[1][0]
    np.testing.assert_allclose(flow, value @ paths, rtol=1e-9)
    np.testing.assert_allclose(found[:, 0, 0], slope @ paths, atol=1e-6)


def test_two_values_of_time():
    """Half value time at 2, half at 1/2; the poor are indifferent where x + toll / .5 = 1."""
    game = Congestion(
        jnp.eye(2),
        PIGOU.free,
        PIGOU.rate,
        PIGOU.power,
        PIGOU.tolled,
        value=jnp.array([2.0, 0.5]),
    )
    outcome = play(game, Wardrop(), toll(0.1))
    np.testing.assert_allclose(outcome.choices, [[1, 0], [0.6, 0.4]], atol=1e-9)
    np.testing.assert_allclose(outcome.utilities, [-1.7, -0.5], rtol=1e-9)


def test_path_flows_need_not_be_unique_for_link_flows_to_move_rightly():
    """Two stages of two links each: x against 1 + toll, then 2 x against 1."""
    paths = jnp.array([[1.0, 0, 1, 0], [1.0, 0, 0, 1], [0.0, 1, 1, 0], [0.0, 1, 0, 1]])
    game = Congestion(
        paths,
        free=jnp.array([0.0, 0.5, 0.0, 1.0]),
        rate=jnp.array([1.0, 0.0, 2.0, 0.0]),
        power=jnp.ones(4),
        tolled=jnp.array([[[0.0, 1.0, 0.0, 0.0]]]),
    )
    flow, forward, reverse = flow_and_slope(game, Wardrop(), jnp.array([[0.2]]))
    np.testing.assert_allclose(flow, [0.7, 0.3, 0.5, 0.5], rtol=1e-8)
    np.testing.assert_allclose(forward[:, 0, 0], [1, -1, 0, 0], atol=1e-7)
    np.testing.assert_allclose(reverse, forward, atol=1e-7)
    assert play(game, Wardrop(), toll(0.2)).interaction.status == CrowdStatus.isolated


def test_two_hundred_and_fifty_six_games_at_once():
    prices = jnp.linspace(0.0, 0.5, 256)
    temperatures = jnp.linspace(0.05, 1.0, 256)

    @jax.jit
    @jax.vmap
    def solve(price, temperature):
        profile = dg.Constant(price[None, None])
        logit = dg.play(PIGOU, dg.Logit(temperature), profile)
        return logit.choices[0, 0], logit.interaction.status == CrowdStatus.isolated

    logit, isolated = solve(prices, temperatures)
    excess = logit - scipy.special.expit((1 - logit - prices) / temperatures)
    np.testing.assert_allclose(excess, 0, atol=1e-10)
    assert isolated.all()
    broken = solve(prices.at[7].set(jnp.nan), temperatures)[0]
    np.testing.assert_array_equal(jnp.delete(broken, 7), jnp.delete(logit, 7))
    assert jnp.isnan(broken[7])


def test_two_hundred_and_fifty_six_games_with_exact_users():
    prices = jnp.linspace(0.0, 0.6, 256)

    @jax.jit
    @jax.vmap
    def solve(price):
        return dg.play(BRAESS, Wardrop(), dg.Constant(price[None, None])).choices[0, 2]

    np.testing.assert_allclose(solve(prices), jnp.maximum(1 - 2 * prices, 0), atol=1e-9)


def test_wrong_shapes_are_named():
    with pytest.raises(ValueError, match=r"paths has shape \(2, 2, 2\) with 1 users and 2 links"):
        Congestion(jnp.ones((2, 2, 2)), jnp.ones(2), jnp.ones(2), jnp.ones(2), PIGOU.tolled)
