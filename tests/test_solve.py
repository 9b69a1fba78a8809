"""The loop: statuses, batches, traces, and equilibria as functions of the game."""

import chex
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import optimistix
import pytest
from jaxtyping import Array, Float

import diffgame as dg
from diffgame.games import Cournot, LinearBertrand, LogitBertrand, StackelbergDuopoly

SGD = dg.GradientPlay(optax.sgd(0.5))
START = dg.Constant(jnp.array([1.0, 1.0]))
LOGIT = dg.Logit(1.0)


def logit_game(cost):
    return LogitBertrand(cost, jnp.array([2.0, 2.5]), jnp.array([1.0]))


COST = jnp.array([0.5, 0.8])


def test_the_answer_says_how_it_was_made():
    found = dg.solve(logit_game(COST), LOGIT, START, dg.Extragradient(0.5))
    assert found.status == dg.Status.stationary_only
    assert found.certificate is None
    assert 0 <= found.residual <= 1e-6
    assert found.steps > 1
    assert found.solver == (
        "Extragradient(learning_rate=0.5), tolerance=1e-06, max_steps=10000, anticipate=True"
    )
    assert "call `diffgame.certify`" in dg.Status[found.status]


def run(solver, start, **settings):
    return dg.solve(logit_game(COST), LOGIT, start, solver, **settings)


def test_too_few_steps():
    with pytest.raises(eqx.EquinoxRuntimeError, match="raise `max_steps`"):
        run(SGD, START, max_steps=2)
    found = run(SGD, START, max_steps=2, throw=False)
    assert found.status == dg.Status.max_steps
    assert found.steps == 2
    assert found.residual > 1e-6


def test_starting_at_the_answer_takes_no_step():
    answer = run(SGD, START).profile
    assert run(SGD, answer).steps == 0


def test_divergence_is_found_before_numbers_overflow():
    class Runaway(dg.AbstractGame):
        users: Float[Array, "1"]
        mass: Float[Array, "1"]
        choice_set: dg.Simplex = dg.Simplex(1)

        def user_utility(self, choice, offers, user):
            return jnp.sum(choice) * user

        def provider_payoffs(self, choice, offers, user):
            return offers**2

    game = Runaway(jnp.zeros(1), jnp.ones(1))
    with pytest.raises(eqx.EquinoxRuntimeError, match="grew without bound"):
        dg.solve(game, LOGIT, START, SGD)
    found = dg.solve(game, LOGIT, START, SGD, throw=False)
    assert found.status == dg.Status.diverged
    assert jnp.all(jnp.isfinite(found.profile.offer))
    assert 2e8 < jnp.max(found.profile.offer) < 4.1e8


def test_numbers_that_are_not_finite():
    game = logit_game(COST.at[0].set(jnp.nan))
    with pytest.raises(eqx.EquinoxRuntimeError, match="not finite: check the game's numbers"):
        dg.solve(game, LOGIT, START, SGD)
    found = dg.solve(game, LOGIT, START, SGD, throw=False)
    assert found.status == dg.Status.nonfinite
    assert jnp.isnan(found.residual)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"tolerance": 0.0}, "tolerance is 0.0; give a positive number"),
        ({"tolerance": float("nan")}, "tolerance is nan"),
        ({"max_steps": 0}, "max_steps is 0; it must be at least 1"),
    ],
)
def test_bad_settings_are_refused(settings, message: str):
    with pytest.raises(ValueError, match=message):
        run(SGD, START, **settings)


@eqx.filter_jit
def solve_batch(costs, solver):
    return eqx.filter_vmap(
        lambda cost: dg.solve(logit_game(cost), LOGIT, START, solver, throw=False)
    )(costs)


def test_a_batch_of_games_is_solved_as_each_alone():
    costs = jnp.linspace(0.1, 1.0, 256)[:, None] * jnp.array([[1.0, 0.7]])
    batch = solve_batch(costs, SGD)
    assert batch.profile.offer.shape == (256, 2)
    assert jnp.all(batch.status == dg.Status.stationary_only)
    for lane in (0, 100, 255):
        alone = dg.solve(logit_game(costs[lane]), LOGIT, START, SGD)
        np.testing.assert_allclose(batch.profile.offer[lane], alone.profile.offer, atol=1e-12)
        assert batch.steps[lane] == alone.steps


@pytest.mark.parametrize(
    "solver",
    [SGD, dg.Newton(), dg.BestResponse()],
    ids=["gradient_play", "newton", "best_response"],
)
def test_a_broken_game_is_known_and_disturbs_no_other(solver):
    costs = jnp.linspace(0.1, 1.0, 8)[:, None] * jnp.ones((1, 2))
    healthy, broken = solve_batch(costs, solver), solve_batch(costs.at[3].set(jnp.nan), solver)
    others = jnp.arange(8) != 3
    assert (broken.status == dg.Status.nonfinite).tolist() == (~others).tolist()
    for name in ("profile", "outcome", "residual", "steps"):
        for ours, theirs in zip(
            jax.tree.leaves(getattr(broken, name)),
            jax.tree.leaves(getattr(healthy, name)),
            strict=True,
        ):
            np.testing.assert_array_equal(ours[others], theirs[others])
    assert ((broken.status == dg.Status.stationary_only) == others).all()


def test_a_broken_game_disturbs_no_other_through_concave_users():
    def solve(intercept):
        users = jnp.stack([intercept, 2 * intercept])[None]
        game = LinearBertrand(jnp.zeros(2), jnp.eye(2) + 0.3, users)
        found = dg.solve(game, dg.Concave(), START, SGD, throw=False)
        return jnp.sum(found.profile.offer), found.status

    both = eqx.filter_jit(eqx.filter_vmap(jax.value_and_grad(solve, has_aux=True)))
    intercepts = jnp.array([1.0, jnp.nan, 2.0])
    (broken, status), slopes = both(intercepts)
    (healthy, _), expected = both(intercepts.at[1].set(1.5))
    others = jnp.array([0, 2])
    np.testing.assert_array_equal(broken[others], healthy[others])
    np.testing.assert_array_equal(slopes[others], expected[others])
    assert (status == dg.Status.nonfinite).tolist() == [False, True, False]


def test_new_numbers_are_no_new_trace():
    @jax.jit
    @chex.assert_max_traces(n=1)
    def price(cost, temperature):
        return dg.solve(logit_game(cost), dg.Logit(temperature), START, SGD).profile.offer

    prices = [price(COST + shift, jnp.array(1.0 + shift)) for shift in (0.0, 0.1, 0.2)]
    assert len({float(offer[0]) for offer in prices}) == 3


def test_solve_itself_is_traced_once():
    class Counting(dg.AbstractGame):
        users: Float[Array, "1"]
        mass: Float[Array, "1"]
        choice_set: dg.Simplex = dg.Simplex(1)

        def user_utility(self, choice, offers, user):
            return jnp.sum(choice) * user

        def provider_payoffs(self, choice, offers, user):
            traces.append(offers.shape)
            return -((offers - user) ** 2)

    traces: list[tuple[int, ...]] = []
    for target in (1.0, 2.0, 3.0):
        found = dg.solve(Counting(jnp.array([target]), jnp.ones(1)), LOGIT, START, SGD)
        np.testing.assert_allclose(found.profile.offer, target, atol=1e-6)
        counted = len(traces) if target == 1.0 else counted
    assert len(traces) == counted > 0


def test_agrees_with_optimistix():
    game = logit_game(COST)

    def field(offer, _):
        return dg.pseudogradient(game, LOGIT, dg.Constant(offer)).offer

    solver = optimistix.Newton(rtol=1e-12, atol=1e-12)
    theirs = optimistix.root_find(field, solver, START.offer + 1).value
    found = run(SGD, START, tolerance=1e-12).profile.offer
    np.testing.assert_allclose(found, theirs, rtol=1e-10)


def test_bounds_that_bind_are_answers_and_have_derivatives():
    """A price cap below the equilibrium binds for both firms: d price / d cap = 1."""

    def prices(cap, cost):
        start = dg.Constant(jnp.ones(2), lower=0.0, upper=cap)
        return dg.solve(logit_game(cost), LOGIT, start, SGD, tolerance=1e-12).profile.offer

    price, (by_cap, by_cost) = jax.jit(lambda *x: (prices(*x), jax.jacrev(prices, (0, 1))(*x)))(
        jnp.array(1.2), COST
    )
    np.testing.assert_array_equal(price, [1.2, 1.2])
    np.testing.assert_allclose(by_cap, [1.0, 1.0], rtol=1e-12)
    np.testing.assert_allclose(by_cost, jnp.zeros((2, 2)), atol=1e-12)


class Line(dg.AbstractPolicy):
    """A price that is linear in two features, of which all users share one value."""

    weights: Float[Array, "*providers 2"]

    def __call__(self, observation):
        return jnp.sum(self.weights * observation)

    def project(self):
        return self

    def parameters(self):
        return jax.tree.map(lambda leaf: True, self)


class Observed(dg.AbstractGame):
    """Linear demand in which sellers see the same two features of everybody."""

    base: LinearBertrand
    feature: Float[Array, "2"]

    users: Float[Array, "users 2"]
    mass: Float[Array, " users"]
    choice_set: dg.Box

    def observe(self, user):
        return self.feature

    def user_utility(self, choice, offers, user):
        return self.base.user_utility(choice, offers, user)

    def provider_payoffs(self, choice, offers, user):
        return self.base.provider_payoffs(choice, offers, user)


def overparameterized(cost):
    base = LinearBertrand(cost, jnp.array([[1.0, 0.4], [0.4, 1.0]]), jnp.array([[3.0, 3.5]]))
    feature = jnp.array([1.0, 0.5])
    game = Observed(base, feature, base.users, base.mass, base.choice_set)
    solver = dg.GradientPlay(optax.sgd(0.2))
    found = dg.solve(game, dg.Concave(), Line(jnp.zeros((2, 2))), solver, tolerance=1e-12)
    return found, base


@pytest.mark.parametrize("mode", [jax.jacfwd, jax.jacrev])
def test_flat_manifolds_of_equilibria_have_minimum_norm_derivatives(mode):
    """The offers are those of the closed form; the weights move along the feature."""

    def weights(cost):
        found, _ = overparameterized(cost)
        return found.profile.weights, found.outcome.offers[0]

    def closed_form(cost):
        return overparameterized(cost)[1].equilibrium()

    found, offers = jax.jit(mode(weights))(COST)
    expected = jax.jit(jax.jacrev(closed_form))(COST)
    feature = jnp.array([1.0, 0.5])
    np.testing.assert_allclose(offers, expected, rtol=1e-9)
    minimum_norm = expected[:, None, :] * (feature / jnp.sum(feature**2))[None, :, None]
    np.testing.assert_allclose(found, minimum_norm, rtol=1e-9, atol=1e-12)


def test_flat_manifolds_have_second_derivatives():
    def offers(x):
        return overparameterized(COST * x**2)[0].outcome.offers[0]

    def closed_form(x):
        return overparameterized(COST * x**2)[1].equilibrium()

    second, expected = (
        jax.jit(jax.jacfwd(jax.jacrev(function)))(1.0) for function in (offers, closed_form)
    )
    np.testing.assert_allclose(second, expected, rtol=1e-8)


def test_naive_equilibria_have_derivatives_of_their_own():
    """The naive leader ends at Cournot, q1 = (a - 2 c1 + c2) / 3."""

    def quantity(numbers):
        game = StackelbergDuopoly(*numbers)
        start = dg.Constant(jnp.array([0.1]))
        settings = {"anticipate": False, "tolerance": 1e-12}
        return dg.solve(game, dg.Concave(), start, SGD, **settings).profile.offer[0]

    numbers = jnp.array([1.0, 0.1, 0.2])
    found, slope = jax.jit(jax.value_and_grad(quantity))(numbers)
    np.testing.assert_allclose(found, (1 - 0.2 + 0.2) / 3, rtol=1e-11)
    np.testing.assert_allclose(slope, [1 / 3, -2 / 3, 1 / 3], rtol=1e-11)


def test_streamed_users_lead_to_the_same_equilibrium():
    game = Cournot(jnp.array([0.1, 0.2]), jnp.linspace(1.0, 2.0, 10))
    solver = dg.GradientPlay(optax.sgd(0.3))
    start = dg.Constant(jnp.zeros(2))
    whole = dg.solve(game, dg.Concave(), start, solver)
    streamed = dg.solve(game, dg.Concave(), start, solver, chunk=3)
    np.testing.assert_allclose(streamed.profile.offer, whole.profile.offer, rtol=1e-12)
    np.testing.assert_allclose(streamed.outcome.choices, whole.outcome.choices, rtol=1e-10)


def test_a_policy_without_parameters_is_refused():
    class Fixed(dg.AbstractPolicy):
        offer: Float[Array, "..."]

        def __call__(self, observation):
            return self.offer

        def project(self):
            return self

        def parameters(self):
            return jax.tree.map(lambda leaf: False, self)

    with pytest.raises(ValueError, match="the policy Fixed has no parameters"):
        dg.solve(logit_game(COST), LOGIT, Fixed(jnp.ones(2)), SGD)
