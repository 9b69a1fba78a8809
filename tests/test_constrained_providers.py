"""Constraints on providers: generalized Nash equilibria with known answers and their prices."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jaxtyping import Array, Float

import diffgame as dg
from diffgame._augmented import ascend_within
from diffgame.games import Cournot

KEY = jax.random.key(0)
PASSIVE = dg.Passive()


class Capped(Cournot):
    """Two firms and a cap of 1/2 on all they bring to market."""

    def shared_constraints(self, profile, totals):
        return dg.Constraints((jnp.sum(profile.offer) - 0.5)[None])


class River(dg.AbstractNashGame):
    """Haurie, Krawczyk (1997): three polluters, two stations that measure."""

    limit: Float[Array, "2"]

    def payoffs(self, offers):
        price = 3 - 0.01 * jnp.sum(offers)
        cost = jnp.array([0.1, 0.12, 0.15]) + jnp.array([0.01, 0.05, 0.01]) * offers
        return (price - cost) * offers

    def shared_constraints(self, profile, totals):
        decay = jnp.array([[6.5, 5.0, 5.5], [4.583, 6.25, 3.75]]) * jnp.array([[0.5, 0.25, 0.75]])
        return dg.Constraints(decay @ profile.offer - self.limit)


class Harker(dg.AbstractNashGame):
    """Harker (1991): one normalized equilibrium (5, 9), and all of (9, 6) to (10, 5)."""

    def payoffs(self, offers):
        x, y = offers
        first = 34 * x - x**2 - 8 / 3 * x * y
        return jnp.stack([first, 24.25 * y - y**2 - 5 / 4 * x * y])

    def shared_constraints(self, profile, totals):
        return dg.Constraints((jnp.sum(profile.offer) - 15)[None])


COST = jnp.array([0.0, 0.1])
ZEROS = dg.Constant(jnp.zeros(2))
HARKER = dg.Constant(jnp.zeros(2), 0.0, 10.0)


@eqx.filter_jit
def capped(weights):
    return dg.solve(Capped(COST), dg.Concave(), ZEROS, tolerance=1e-11, weights=weights)


@pytest.mark.parametrize(
    ("weights", "quantities", "prices"),
    [
        # 1 - 2 q_i - q_j - price_i = cost_i and q_1 + q_2 = 1/2 give prices that add up to 2/5.
        ((1.0, 1.0), (0.3, 0.2), (0.2, 0.2)),
        ((1.0, 2.0), (7 / 30, 8 / 30), (8 / 30, 4 / 30)),
        ((3.0, 1.0), (0.4, 0.1), (0.1, 0.3)),
    ],
)
def test_normalized_equilibria_share_one_price_up_to_the_weights(weights, quantities, prices):
    found = capped(jnp.array(weights))
    np.testing.assert_allclose(found.profile.offer, quantities, rtol=0, atol=1e-10)
    np.testing.assert_allclose(
        found.multipliers.shared.inequalities[:, 0], prices, rtol=0, atol=1e-10
    )
    assert found.solver.endswith("anticipate=True, normalized=True")


def test_a_capped_market_is_certified_and_says_how():
    found = dg.certify(Capped(COST), dg.Concave(), capped(jnp.ones(2)), key=KEY, starts=4)
    assert found.status == dg.Status.certified
    assert found.multipliers is not None
    assert "constraints kept to 1e-08" in found.certificate.scope
    # One direction each, and the cap with its price takes it.
    np.testing.assert_array_equal(found.certificate.second_order, -np.inf)


def test_what_breaks_the_cap_is_no_equilibrium_however_stationary():
    found = dg.solve(Cournot(COST), dg.Concave(), ZEROS, tolerance=1e-10)
    free = eqx.tree_at(
        lambda found: found.multipliers,
        found,
        capped(jnp.ones(2)).multipliers,
        is_leaf=lambda leaf: leaf is None,
    )
    judged = dg.certify(Capped(COST), dg.Concave(), free, key=KEY, starts=4)
    assert judged.status == dg.Status.not_stationary
    # The violation itself: 19/30 is sold where 1/2 may be.
    assert judged.certificate.residual >= 0.6 - 0.5


class Cap(dg.AbstractNashGame):
    """Cournot's duopoly at costs COST with a cap that is data."""

    cap: Float[Array, ""]

    def payoffs(self, offers):
        return (1 - jnp.sum(offers) - COST) * offers

    def shared_constraints(self, profile, totals):
        return dg.Constraints((jnp.sum(profile.offer) - self.cap)[None])


def test_the_equilibrium_is_a_function_of_the_cap():
    def quantities(cap):
        return dg.solve(Cap(cap), PASSIVE, ZEROS, tolerance=1e-11).profile.offer

    slopes = jax.jit(jax.vmap(jax.jacfwd(quantities)))(jnp.array([0.5, 0.9]))
    # Below the free total of 19/30 both give way alike, above nobody does.
    np.testing.assert_allclose(slopes, [[0.5, 0.5], [0.0, 0.0]], rtol=0, atol=1e-9)


def test_river_basin():
    start = dg.Constant(jnp.ones(3), 0.0, 1e3)
    found = dg.solve(River(jnp.full(2, 100.0)), PASSIVE, start, tolerance=1e-10)
    # Krawczyk, Uryasev (2000), table 1, to the digits printed there.
    np.testing.assert_allclose(found.profile.offer, [21.149, 16.028, 2.722], rtol=0, atol=2e-2)
    np.testing.assert_allclose(found.multipliers.shared.inequalities[0], [0.574, 0.0], atol=1e-3)
    # The same linear system by hand, with the first station's row held.
    row = np.array([6.5, 5.0, 5.5]) * np.array([0.5, 0.25, 0.75])
    curvature = 0.01 * (np.ones((3, 3)) + np.eye(3)) + 2 * np.diag([0.01, 0.05, 0.01])
    matrix = np.block([[curvature, row[:, None]], [row, np.zeros(1)]])
    x = np.linalg.solve(matrix, [2.9, 2.88, 2.85, 100])
    np.testing.assert_allclose(found.profile.offer, x[:3], rtol=1e-10)


def test_one_normalized_equilibrium_and_a_segment_of_others():
    for start in ([0.0, 0.0], [10.0, 0.0], [0.0, 10.0], [6.0, 8.0]):
        found = dg.solve(Harker(), PASSIVE, dg.Constant(jnp.array(start), 0.0, 10.0))
        np.testing.assert_allclose(found.profile.offer, [5, 9], rtol=0, atol=1e-5)
    own = dg.solve(
        Harker(),
        PASSIVE,
        dg.Constant(jnp.array([9.5, 5.5]), 0.0, 10.0),
        tolerance=1e-9,
        normalized=False,
    )
    x, y = own.profile.offer
    assert abs(x + y - 15) <= 1e-8
    assert 9 - 1e-6 <= x <= 10
    prices = own.multipliers.shared.inequalities[:, 0]
    assert (prices >= -1e-9).all()
    assert abs(prices[0] - prices[1]) >= 0.1
    assert dg.certify(Harker(), PASSIVE, own, key=KEY, starts=4).status == dg.Status.certified


class Capacity(dg.AbstractGame):
    """A seller of `capacity` seats to logit buyers: what binds it is how users respond."""

    capacity: Float[Array, ""]
    users: Float[Array, " users"]
    mass: Float[Array, " users"]
    choice_set: dg.Simplex

    def user_utility(self, choice, offers, user):
        return choice[0] * (user - offers[0])

    def provider_payoffs(self, choice, offers, user):
        return offers * choice[0], choice[0]

    def settle(self, totals):
        return totals[0]

    def provider_constraints(self, profile, totals, provider):
        return dg.Constraints((totals[1] - self.capacity)[None])


@pytest.mark.parametrize("capacity", [0.25, 5.0])
def test_constraints_may_count_how_users_respond(capacity):
    game = Capacity(jnp.array(capacity), jnp.array([2.0]), jnp.ones(1), dg.Simplex(2))
    found = dg.solve(game, dg.Logit(1.0), dg.Constant(jnp.ones(1)), tolerance=1e-11)
    (price,), sold = found.profile.offer, found.outcome.choices[0, 0]
    if capacity < 1:
        # Sold out: logit of the share is value minus price.
        assert abs(sold - capacity) <= 1e-10
        assert abs(price - (2 - np.log(capacity / (1 - capacity)))) <= 1e-9
        assert found.multipliers.own.inequalities[0, 0] > 0
    else:
        assert abs(price - 1 / (1 - sold)) <= 1e-9
        assert found.multipliers.own.inequalities[0, 0] == 0


class Split(dg.AbstractNashGame):
    """Two shares of one cake of size 1: payoffs log of the own share, an equality between both."""

    bend: float

    def payoffs(self, offers):
        return self.bend * jnp.log(offers)

    def shared_constraints(self, profile, totals):
        return dg.Constraints(equalities=(jnp.sum(profile.offer) - 1)[None])


def test_equalities_have_prices_of_any_sign():
    start = dg.Constant(jnp.array([0.2, 0.7]), 1e-3, 1.0)
    for bend in (1.0, -1.0):
        found = dg.solve(Split(bend), PASSIVE, start, dg.Newton(), tolerance=1e-10)
        np.testing.assert_allclose(found.profile.offer, [0.5, 0.5], rtol=0, atol=1e-9)
        np.testing.assert_allclose(found.multipliers.shared.equalities, 2 * bend, atol=1e-8)


class Valley(dg.AbstractNashGame):
    """Everybody is worst off where the constraint x + y <= 1 is stationary inside: at 0."""

    def payoffs(self, offers):
        return offers**2

    def shared_constraints(self, profile, totals):
        return dg.Constraints((jnp.sum(profile.offer) - 1)[None])


def test_a_minimum_inside_the_constraints_is_stationary_and_improvable():
    start = dg.Constant(jnp.zeros(2), -1.0, 1.0)
    found = dg.certify(Valley(), PASSIVE, dg.solve(Valley(), PASSIVE, start), key=KEY, starts=4)
    assert found.status == dg.Status.improvable
    np.testing.assert_allclose(found.certificate.deviation_gains, 1.0, rtol=0, atol=1e-6)
    np.testing.assert_allclose(found.certificate.second_order, 2.0, rtol=0, atol=1e-9)


class Impossible(dg.AbstractNashGame):
    def payoffs(self, offers):
        return -(offers**2)

    def shared_constraints(self, profile, totals):
        return dg.Constraints((2 - jnp.sum(profile.offer))[None])


def test_constraints_that_nobody_can_keep_end_with_an_honest_status():
    start = dg.Constant(jnp.zeros(2), 0.0, 0.5)
    found = dg.solve(Impossible(), PASSIVE, start, max_steps=40, throw=False)
    assert found.status == dg.Status.max_steps
    assert found.residual >= 0.5


def test_best_response_play_says_that_it_cannot_keep_constraints():
    with pytest.raises(TypeError, match="BestResponse: the game has constraints"):
        dg.solve(Capped(COST), dg.Concave(), ZEROS, dg.BestResponse())


def test_extragradient_climbs_prices_too():
    found = dg.solve(Capped(COST), dg.Concave(), ZEROS, dg.Extragradient(0.2), tolerance=1e-8)
    np.testing.assert_allclose(found.profile.offer, [0.3, 0.2], rtol=0, atol=1e-7)


def test_a_batch_of_constrained_games_equals_each_alone():
    limits = jnp.array([[100.0, 100.0], [60.0, 100.0], [1e4, 1e4], [jnp.nan, 100.0]])
    start = dg.Constant(jnp.ones(3), 0.0, 1e3)

    @eqx.filter_jit
    def run(limit):
        return dg.solve(River(limit), PASSIVE, start, tolerance=1e-10, max_steps=60, throw=False)

    together = eqx.filter_vmap(run)(limits)
    np.testing.assert_array_equal(
        together.status == dg.Status.stationary_only, [True, True, True, False]
    )
    assert (together.status == dg.Status.nonfinite)[3]
    for lane, limit in enumerate(limits[:3]):
        alone = run(limit).profile.offer
        np.testing.assert_allclose(together.profile.offer[lane], alone, rtol=1e-9)


def test_augmented_lagrangians_find_the_vertex_of_a_polytope():
    # max x + 2 y with x + y <= 1, x = 3 y, in the box [0, 1]: x = 3/4, y = 1/4.
    def value(point):
        x, y = point
        return x + 2 * y, dg.Constraints((x + y - 1)[None], (x - 3 * y)[None])

    @jax.jit
    def run(start):
        return ascend_within(value, lambda point: jnp.clip(point, 0, 1), start, 100, 1e-8)

    point, best = run(jnp.zeros(2))
    np.testing.assert_allclose(point, [0.75, 0.25], rtol=0, atol=1e-7)
    assert abs(best - 1.25) <= 1e-7


def test_a_search_that_ends_infeasible_counts_for_nothing():
    def value(point):
        return jnp.sum(point), dg.Constraints((2 - point[0])[None])

    _, best = ascend_within(value, lambda point: jnp.clip(point, 0, 1), jnp.zeros(1), 20, 1e-8)
    assert best == -jnp.inf
