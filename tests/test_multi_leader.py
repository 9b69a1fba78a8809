"""Several leaders before followers who respond or play each other: closed forms."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jaxtyping import Array, Float

import diffgame as dg
from diffgame.games import Congestion

KEY = jax.random.key(0)


@eqx.filter_jit
def solve_and_certify(game, response, profile):
    found = dg.solve(game, response, profile, tolerance=1e-11)
    return dg.certify(game, response, found, key=KEY, starts=4, steps=30)


class Sherali(dg.AbstractCrowdGame):
    """Leaders choose quantities first, then followers play Cournot; price = a - b all quantities.

    Sherali (1984), A multiple leader Stackelberg model and analysis, the linear case.
    """

    cost: Float[Array, " providers"]
    users: Float[Array, " users"]
    mass: Float[Array, " users"]
    a: Float[Array, ""]
    b: Float[Array, ""]
    choice_set: dg.Box

    def __init__(self, cost, follower_cost, followers, a, b):
        self.cost = cost
        self.users = jnp.full(followers, follower_cost)
        self.mass = jnp.ones(followers)
        self.a, self.b = jnp.asarray(a), jnp.asarray(b)
        self.choice_set = dg.Box(jnp.zeros(1), jnp.full(1, a / b))

    def contribution(self, choice, offers, user):
        return choice[0]

    def crowd_start(self):
        return jnp.zeros(())

    def price(self, offers):
        return self.a - self.b * (jnp.sum(offers.posted) + offers.crowd)

    def user_utility(self, choice, offers, user):
        return (self.price(offers) - user) * choice[0]

    def provider_payoffs(self, choice, offers, user):
        # Every follower carries an equal part of what all of them see.
        return (self.price(offers) - self.cost) * offers.posted / self.users.shape[0]


def test_sherali_leaders_before_cournot_followers():
    """To L from leaders each of m followers of cost c answers (a - b L - c) / ((m + 1) b).

    So the price is (a - b L + m c) / (m + 1), and n leaders with costs c_i sell
    (a + m c - (m + 1) c_i) / b - L, L = (n (a + m c) - (m + 1) sum of c_i) / ((n + 1) b).
    """
    a, b, c, m = 10.0, 2.0, 1.5, 3
    cost = np.array([1.0, 1.2])
    found = solve_and_certify(
        Sherali(jnp.array(cost), c, m, a, b), dg.Nash(), dg.Constant(jnp.ones(2))
    )
    total = (2 * (a + m * c) - (m + 1) * cost.sum()) / (3 * b)
    quantities = (a + m * c - (m + 1) * cost) / b - total
    answer = (a - b * total - c) / ((m + 1) * b)
    profit = (a - b * (total + m * answer) - cost) * quantities
    assert answer > 0
    assert found.status == dg.Status.certified
    np.testing.assert_allclose(found.profile.offer, quantities, rtol=0, atol=1e-8)
    np.testing.assert_allclose(found.outcome.choices, np.full((m, 1), answer), rtol=0, atol=1e-8)
    np.testing.assert_allclose(found.outcome.payoffs, profit, rtol=0, atol=1e-8)


@pytest.mark.campaign
def test_toll_competition_on_parallel_links():
    """Acemoglu, Ozdaglar (2007), Competition and efficiency in congested markets, section 5.

    Link i takes the time f_i + r_i x_i and belongs to one firm. All links are used, so a firm's
    toll is x_i (r_i + 1 / sum of 1 / r_j over the others), and times plus tolls are equal.
    """
    free, rate = np.array([0.0, 0.1, 0.3]), np.array([1.0, 2.0, 1.5])
    game = Congestion(
        paths=jnp.eye(3),
        free=jnp.array(free),
        rate=jnp.array(rate),
        power=jnp.ones(3),
        tolled=jnp.eye(3)[:, None],
    )
    found = solve_and_certify(game, dg.Wardrop(), dg.Constant(jnp.ones((3, 1))))
    markup = rate + 1 / (np.sum(1 / rate) - 1 / rate)
    # Unknowns: three flows and the common cost.
    matrix = np.block([[np.diag(rate + markup), -np.ones((3, 1))], [np.ones((1, 3)), 0]])
    flow = np.linalg.solve(matrix, [*-free, 1.0])[:3]
    assert np.all(flow > 0)
    assert found.status == dg.Status.certified
    np.testing.assert_allclose(found.profile.offer[:, 0], markup * flow, rtol=0, atol=1e-8)
    np.testing.assert_allclose(found.outcome.interaction.crowd, flow, rtol=0, atol=1e-8)
    np.testing.assert_allclose(found.outcome.payoffs, markup * flow**2, rtol=0, atol=1e-8)


class CommonAgency(dg.AbstractGame):
    """Each principal pays one agent a piece rate w_i for effort e_i, worth v_i to it.

    Efforts cost e . C e / 2: a linear contract with quadratic cost, as in Holmstrom, Milgrom
    (1991), Multitask principal-agent analyses, without risk; several principals as in Bernheim,
    Whinston (1986), Common agency.
    """

    value: Float[Array, " providers"]
    cost: Float[Array, "providers providers"]
    choice_set: dg.Box
    users: Float[Array, "1"] = eqx.field(default_factory=lambda: jnp.zeros(1))
    mass: Float[Array, "1"] = eqx.field(default_factory=lambda: jnp.ones(1))

    def user_utility(self, choice, offers, user):
        return offers @ choice - choice @ self.cost @ choice / 2

    def provider_payoffs(self, choice, offers, user):
        return (self.value - offers) * choice


def test_linear_contracts_with_quadratic_effort_cost():
    """Effort is D w with D the inverse of C, so (D + diag D) w = diag(D) v."""
    value, cost = np.array([2.0, 1.5]), np.array([[1.0, 0.3], [0.3, 2.0]])
    efforts = dg.Box(jnp.zeros(2), jnp.full(2, 10.0))
    game = CommonAgency(jnp.array(value), jnp.array(cost), efforts)
    found = solve_and_certify(game, dg.Concave(), dg.Constant(jnp.ones(2)))
    inverse = np.linalg.inv(cost)
    own = np.diag(np.diag(inverse))
    rates = np.linalg.solve(inverse + own, own @ value)
    effort = inverse @ rates
    assert np.all(effort > 0)
    assert found.status == dg.Status.certified
    np.testing.assert_allclose(found.profile.offer, rates, rtol=0, atol=1e-8)
    np.testing.assert_allclose(found.outcome.choices[0], effort, rtol=0, atol=1e-8)
    np.testing.assert_allclose(found.outcome.payoffs, (value - rates) * effort, rtol=0, atol=1e-8)
