"""Users who interact: the crowd they make, who counts it, how it is selected and reported."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jaxtyping import Array, Float

import diffgame as dg
from diffgame._crowd_equilibria import crowd_equilibria
from diffgame._crowd_game import AbstractCrowdGame
from diffgame._interaction import CrowdStatus
from diffgame._joint_response import Nash, Wardrop
from diffgame.games import Adoption

play = eqx.filter_jit(dg.play)
NEWTON = dg.Newton()


class Followers(AbstractCrowdGame):
    """Leaders post quantities, followers add theirs; the price is 1 minus all of them.

    The crowd is a pytree: quantities sold, and how many there are.
    """

    users: Float[Array, " users"]
    mass: Float[Array, " users"]
    choice_set: dg.Box

    def contribution(self, choice, offers, user):
        return {"quantity": choice[0], "number": jnp.ones(())}

    def crowd_start(self):
        return {"quantity": jnp.zeros(()), "number": jnp.zeros(())}

    def price(self, offers):
        return 1 - jnp.sum(offers.posted) - offers.crowd["quantity"]

    def user_utility(self, choice, offers, user):
        return (self.price(offers) - user) * choice[0]

    def provider_payoffs(self, choice, offers, user):
        # Followers weigh 1 each: every one of them accounts for an equal part.
        return self.price(offers) * offers.posted / offers.crowd["number"]


def followers(number, cost=0.0):
    box = dg.Box(jnp.zeros(1), jnp.ones(1))
    return Followers(jnp.full(number, cost), jnp.ones(number), box)


def test_leaders_before_cournot_followers():
    """Sherali (1984): m leaders sell 1/(m + 1) each, n followers each 1/(n + 1) of the rest."""
    number, leaders = 4, 2
    game = followers(number)
    found = dg.solve(game, Nash(), dg.Constant(jnp.full(leaders, 0.1)), NEWTON, tolerance=1e-9)
    np.testing.assert_allclose(found.profile.offer, 1 / (leaders + 1), rtol=1e-7)
    left = 1 - leaders / (leaders + 1)
    np.testing.assert_allclose(found.outcome.choices[:, 0], left / (number + 1), rtol=1e-7)
    price = left / (number + 1)
    np.testing.assert_allclose(found.outcome.payoffs, price / (leaders + 1), rtol=1e-7)
    assert found.outcome.interaction.status == CrowdStatus.isolated


def test_own_effects_are_what_divides_nash_from_wardrop():
    """Price takers sell until the price is their cost; the user gap of each response is zero."""
    game, profile = followers(4, cost=0.2), dg.Constant(jnp.array([0.3]))
    takers, makers = play(game, Wardrop(), profile), play(game, Nash(), profile)
    np.testing.assert_allclose(jnp.sum(takers.choices), 0.5, rtol=1e-9)
    np.testing.assert_allclose(takers.payoffs, [0.3 * 0.2], rtol=1e-9)
    np.testing.assert_allclose(makers.choices[:, 0], 0.1, rtol=1e-9)
    for response in (Wardrop(), Nash()):
        np.testing.assert_allclose(dg.user_gap(game, response, profile), 0, atol=1e-9)


class Network(AbstractCrowdGame):
    """Followers who affect each other pair by pair: the crowd holds the choice of each."""

    users: Float[Array, "users users"]
    weights: Float[Array, "users users"]
    mass: Float[Array, " users"]
    choice_set: dg.Box = dg.Box(jnp.full(1, -10.0), jnp.full(1, 10.0))

    def contribution(self, choice, offers, user):
        return user * choice[0]

    def crowd_start(self):
        return jnp.zeros(self.mass.shape[0])

    def user_utility(self, choice, offers, user):
        others = (user @ self.weights) @ offers.crowd
        return choice[0] * (offers.posted[0] + others) - choice[0] ** 2 / 2

    def provider_payoffs(self, choice, offers, user):
        return choice


@pytest.mark.parametrize("response", [Nash(), dg.Concave()], ids=["jointly", "by-the-crowd"])
def test_followers_who_affect_each_other_directly(response, key: jax.Array):
    """Choices solve y = offer + W y, whichever way they are found."""
    weights = 0.3 * jax.random.normal(key, (3, 3)) * (1 - jnp.eye(3))
    value, slope = direct_choices(weights, response)
    unit = np.linalg.solve(np.eye(3) - np.asarray(weights), np.ones(3))
    np.testing.assert_allclose(value, unit / 2, rtol=1e-8)
    np.testing.assert_allclose(slope[:, 0], unit, rtol=1e-8)


@eqx.filter_jit
def direct_choices(weights, response):
    game = Network(jnp.eye(3), weights, jnp.ones(3))

    def choices(offer):
        return dg.play(game, response, dg.Constant(offer)).choices[:, 0]

    return choices(jnp.array([0.5])), jax.jacrev(choices)(jnp.array([0.5]))


class Population(AbstractCrowdGame):
    """One population plays a matrix game against its own average."""

    payoff: Float[Array, "options options"]
    begin: Float[Array, " options"]
    users: Float[Array, " users"]
    mass: Float[Array, " users"]
    choice_set: dg.Simplex

    def contribution(self, choice, offers, user):
        return choice

    def crowd_start(self):
        return self.begin

    def user_utility(self, choice, offers, user):
        return choice @ (self.payoff @ offers.crowd) + offers.posted[0] * choice[0]

    def provider_payoffs(self, choice, offers, user):
        return offers.posted * choice[0]


def population(payoff, begin):
    payoff, begin = jnp.array(payoff), jnp.array(begin)
    return Population(payoff, begin, jnp.zeros(1), jnp.ones(1), dg.Simplex(begin.size))


# Losing costs more than winning gains: responses circle away from the middle.
CIRCLE = [[0.0, -3.0, 1.0], [1.0, 0.0, -3.0], [-3.0, 1.0, 0.0]]
NOTHING = dg.Constant(jnp.zeros(1))
SHARP = dg.Logit(jnp.array(0.1))


def test_responses_that_circle_settle_nowhere_and_say_so():
    outcome = play(population(CIRCLE, [0.5, 0.3, 0.2]), SHARP, NOTHING)
    assert outcome.interaction.status == CrowdStatus.unsettled
    assert outcome.interaction.residual > 1e-3
    # Nothing that is built on it passes for a number.
    assert jnp.isnan(outcome.payoffs).all()
    assert jnp.isnan(outcome.utilities).all()
    assert jnp.isnan(outcome.interaction.crowd).all()


def test_a_crowd_that_users_would_leave_is_called_unstable():
    outcome = play(population(CIRCLE, [1 / 3, 1 / 3, 1 / 3]), SHARP, NOTHING)
    np.testing.assert_allclose(outcome.choices, 1 / 3, rtol=1e-9)
    assert outcome.interaction.status == CrowdStatus.unstable
    # Softmax has the derivative (I - 11'/3) / (3 t) in the middle.
    tangent = np.asarray(CIRCLE) - np.mean(CIRCLE, axis=0)
    expected = np.max(np.abs(np.linalg.eigvals(tangent))) / 0.3
    np.testing.assert_allclose(outcome.interaction.spectral_radius, expected, rtol=1e-8)


def test_a_crowd_that_is_not_finite_is_called_so():
    outcome = play(population([[jnp.nan, 0.0], [0.0, 1.0]], [0.5, 0.5]), SHARP, NOTHING)
    assert outcome.interaction.status == CrowdStatus.nonfinite
    assert jnp.isnan(outcome.payoffs).all()


@pytest.mark.parametrize("response", [Wardrop(), SHARP], ids=["exact", "logit"])
def test_every_crowd_of_a_coordination_game_is_listed(response):
    """Two options, each worth its own share: everybody at one, everybody at the other, or half."""
    game = population([[1.0, 0.0], [0.0, 1.0]], [0.4, 0.6])
    found = crowd_equilibria(game, response, NOTHING, key=jax.random.key(1), starts=16)
    shares = np.array([row.crowd[0] for row in found])
    assert len(found) == 3
    edge = 0.0 if isinstance(response, Wardrop) else np.sort(shares)[0]
    np.testing.assert_allclose(np.sort(shares), [edge, 0.5, 1 - edge], atol=1e-9)
    assert edge < 1e-3
    assert [bool(row.stable) for row in found] == list(abs(shares - 0.5) > 0.1)
    # From 40 : 60 noisy users go to the second; exact ones start, and stay, in the middle.
    first = 0.5 if isinstance(response, Wardrop) else edge
    np.testing.assert_allclose(shares[0], first, atol=1e-9)


class Crowd(AbstractCrowdGame):
    """Users of different tastes buy less, the more others buy: logit demand with congestion."""

    users: Float[Array, " users"]
    mass: Float[Array, " users"]
    choice_set: dg.Simplex = dg.Simplex(3)

    def contribution(self, choice, offers, user):
        return choice[:2]

    def crowd_start(self):
        return jnp.zeros(2)

    def user_utility(self, choice, offers, user):
        return jnp.sum(choice[:2] * (1 - user * offers.posted - 3 * offers.crowd**2))

    def provider_payoffs(self, choice, offers, user):
        return offers.posted * choice[:2]


TASTES = Crowd(jnp.linspace(0.5, 2.0, 7), jnp.linspace(0.1, 0.2, 7))
PRICES = dg.Constant(jnp.array([0.5, 0.7]))
LOGIT = dg.Logit(jnp.array(0.3))


def test_streaming_changes_nothing():
    @eqx.filter_jit
    def evaluate(chunk):
        return (
            dg.pseudogradient(TASTES, LOGIT, PRICES, chunk=chunk).offer,
            dg.play(TASTES, LOGIT, PRICES, chunk=chunk),
        )

    assert eqx.tree_equal(evaluate(3), evaluate(None), rtol=1e-9, atol=1e-12)


def test_every_provider_sees_its_effect_on_the_crowd():
    @eqx.filter_jit
    def payoffs(prices):
        return dg.provider_payoffs(TASTES, LOGIT, dg.Constant(prices))

    field = eqx.filter_jit(dg.pseudogradient)(TASTES, LOGIT, PRICES).offer
    for provider in range(2):
        step = 1e-5 * jnp.eye(2)[provider]
        change = payoffs(PRICES.offer + step) - payoffs(PRICES.offer - step)
        np.testing.assert_allclose(field[provider], change[provider] / 2e-5, atol=1e-6)


def test_naive_providers_take_the_crowd_as_given():
    """Payoff at prices p of users who expect others: the price times what they buy."""
    naive = eqx.filter_jit(dg.pseudogradient)(TASTES, LOGIT, PRICES, anticipate=False).offer
    np.testing.assert_allclose(naive, play(TASTES, LOGIT, PRICES).interaction.crowd, rtol=1e-10)


def test_other_numbers_do_not_compile_anew():
    traces = []

    class Counted(Crowd):
        def contribution(self, choice, offers, user):
            traces.append(1)
            return choice[:2]

    @eqx.filter_jit
    def field(game, response, profile):
        return dg.pseudogradient(game, response, profile).offer

    game = Counted(TASTES.users, TASTES.mass)
    field(game, LOGIT, PRICES)
    count = len(traces)
    assert 0 < count <= 12
    field(Counted(TASTES.users + 1, TASTES.mass), dg.Logit(jnp.array(0.4)), PRICES)
    assert len(traces) == count


def test_exact_choices_one_by_one_are_refused():
    with pytest.raises(TypeError, match=r"Argmax: .* use Wardrop\(\)"):
        dg.play(TASTES, dg.Argmax(), PRICES)


@pytest.mark.parametrize("response", [Wardrop(), Nash()], ids=["wardrop", "nash"])
def test_joint_choices_need_a_crowd_and_a_convex_set(response):
    from diffgame.games import Cournot

    alone = Cournot(jnp.zeros(2))
    with pytest.raises(TypeError, match="Cournot is no AbstractCrowdGame"):
        dg.play(alone, response, PRICES)
    with pytest.raises(TypeError, match="users respond together"):
        response(alone, PRICES.offer, jnp.ones(()))
    tree = dg.DecisionTree((("user", 3),))
    game = eqx.tree_at(lambda game: game.choice_set, TASTES, tree)
    with pytest.raises(TypeError, match="the choice set is DecisionTree"):
        dg.play(game, response, PRICES)


def test_a_start_of_another_shape_is_refused():
    class Wrong(Crowd):
        def crowd_start(self):
            return jnp.zeros(3)

    with pytest.raises(ValueError, match=r"Wrong: crowd_start has shapes \(3,\)"):
        dg.play(Wrong(TASTES.users, TASTES.mass), LOGIT, PRICES)
    with pytest.raises(ValueError, match="starts is 0"):
        crowd_equilibria(TASTES, LOGIT, PRICES, key=jax.random.key(0), starts=0)


def test_a_profile_beside_a_tipping_point_is_not_certified():
    game = Adoption(jnp.array(3.0), jnp.zeros(1))
    low, _ = game.tipping_prices(jnp.array(0.5))
    for price, status in ((float(low) + 1e-6, False), (3.0, True)):
        profile = dg.Constant(jnp.array([price]), price, price)
        found = dg.solve(game, dg.Logit(0.5), profile)
        judged = dg.certify(game, dg.Logit(0.5), found, key=jax.random.key(0), starts=0, steps=1)
        assert bool(judged.status == dg.Status.certified) == status
        assert bool(judged.status == dg.Status.crowd_not_settled) != status
