"""Certificates: what is known at a profile, and what a status promises."""

import ast
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jaxtyping import Array, Float

import diffgame as dg
from diffgame.games import Cournot, LinearBertrand, LogitBertrand, StackelbergDuopoly

NASH = dg.Constant(jnp.full(2, 1 / 3), lower=0.0, upper=1.0)
COLLUSION = dg.Constant(jnp.full(2, 1 / 4), lower=0.0, upper=1.0)
KEY = jax.random.key(0)
NEWTON = dg.Newton()


class Quantities(dg.AbstractGame):
    """Cournot's duopoly without buyers, so that it compiles fast."""

    cost: Float[Array, "2"]
    users: Float[Array, "1"] = eqx.field(default_factory=lambda: jnp.zeros(1))
    mass: Float[Array, "1"] = eqx.field(default_factory=lambda: jnp.ones(1))
    choice_set: dg.Simplex = dg.Simplex(1)

    def user_utility(self, choice, offers, user):
        return jnp.sum(choice) * user

    def provider_payoffs(self, choice, offers, user):
        return (1 - jnp.sum(offers) - self.cost) * offers


DUOPOLY = Quantities(jnp.zeros(2))
LOGIT = dg.Logit(1.0)


class Alone(dg.AbstractGame):
    """One provider whose payoff is a function of its number x; the user only watches."""

    payoff: str = eqx.field(static=True)
    users: Float[Array, "1"] = eqx.field(default_factory=lambda: jnp.zeros(1))
    mass: Float[Array, "1"] = eqx.field(default_factory=lambda: jnp.ones(1))
    choice_set: dg.Simplex = dg.Simplex(1)

    def user_utility(self, choice, offers, user):
        return jnp.sum(choice) * user

    def provider_payoffs(self, choice, offers, user):
        x = offers
        return {
            "valley": x**2,
            "peak": -(x**2),
            "flat": 0 * x,
            "slope": x,
            # A low hill at 0 and a higher one, a needle .02 wide, at .77.
            "two hills": jnp.exp(-(x**2)) + 2 * jnp.exp(-(((x - 0.77) / 0.01) ** 2)),
            "pole": jnp.where(x > 1, jnp.nan, -(x**2)),
        }[self.payoff]


def at(x, lower=-2.0, upper=2.0):
    return dg.Constant(jnp.array([x]), lower=lower, upper=upper)


def test_stationarity_is_a_distance_to_the_next_gradient_step():
    np.testing.assert_allclose(dg.stationarity(DUOPOLY, LOGIT, NASH), 0, atol=1e-15)
    # Own gradient 1 - 2/4 - 1/4 = 1/4.
    np.testing.assert_allclose(
        dg.stationarity(Cournot(jnp.zeros(2)), dg.Concave(), COLLUSION), 1 / 4
    )


def test_stationarity_counts_bounds():
    pushing = dg.stationarity(Alone("slope"), LOGIT, at(2.0))
    free = dg.stationarity(Alone("slope"), LOGIT, at(0.0))
    np.testing.assert_array_equal([pushing, free], [0.0, 1.0])


def test_gains_are_those_of_the_best_response():
    """Against 1/4 the best response is 3/8, worth 9/64 where collusion pays 1/8."""
    found = dg.find_deviations(DUOPOLY, LOGIT, COLLUSION, key=KEY, starts=2)
    np.testing.assert_allclose(found.gains, [1 / 64, 1 / 64], rtol=1e-12)
    np.testing.assert_allclose(found.policies.offer, [3 / 8, 3 / 8], rtol=1e-6)
    np.testing.assert_array_equal(found.policies.lower, COLLUSION.lower)
    gains = dg.deviation_gains(DUOPOLY, LOGIT, NASH, key=KEY, starts=2)
    assert jnp.all((gains >= 0) & (gains <= 1e-14))


def test_a_gain_is_what_the_deviation_really_pays():
    game = LogitBertrand(jnp.zeros(2), jnp.array([1.0, 2.0]), jnp.array([0.5, 2.0]))
    profile = dg.Constant(jnp.array([0.3, 5.0]))
    found = dg.find_deviations(game, dg.Logit(0.5), profile, key=KEY, starts=4)
    before = dg.provider_payoffs(game, dg.Logit(0.5), profile)
    for i in range(2):
        moved = dg.Constant(profile.offer.at[i].set(found.policies.offer[i]))
        after = dg.provider_payoffs(game, dg.Logit(0.5), moved)
        np.testing.assert_allclose(found.gains[i], after[i] - before[i], rtol=1e-10)
        # No price on a fine grid is better than the deviation found.
        grid = jax.vmap(
            lambda price, i=i: dg.provider_payoffs(
                game, dg.Logit(0.5), dg.Constant(profile.offer.at[i].set(price))
            )[i]
        )(jnp.linspace(0.0, 10.0, 501))
        assert jnp.max(grid) <= after[i] + 1e-12


def test_the_grid_finds_hills_that_ascent_misses():
    start = at(0.0)
    found = dg.find_deviations(Alone("two hills"), LOGIT, start, key=KEY, starts=0)
    np.testing.assert_allclose(found.policies.offer, [0.77], atol=1e-3)
    np.testing.assert_allclose(found.gains, [1 + np.exp(-(0.77**2))], rtol=1e-3)
    unbounded = dg.Constant(jnp.array([0.0]))
    missed = dg.find_deviations(Alone("two hills"), LOGIT, unbounded, key=KEY, starts=0)
    np.testing.assert_allclose(missed.gains, [0.0], atol=1e-12)


def test_more_starts_never_find_less():
    game = LogitBertrand(jnp.zeros(2), jnp.array([1.0, 2.0]), jnp.array([0.5, 2.0]))
    gains = [
        dg.deviation_gains(
            game, dg.Logit(0.1), dg.Constant(jnp.ones(2)), key=KEY, starts=starts, steps=3
        )
        for starts in (0, 8)
    ]
    assert jnp.all(gains[0] <= gains[1])
    assert jnp.any(gains[0] < gains[1])


def test_deviations_against_exact_users_need_no_derivative():
    """Both charge 1 for a product worth 3: undercutting takes the whole market, almost at 1."""
    game = LogitBertrand(jnp.zeros(2), jnp.full(2, 3.0), jnp.ones(1))
    profile = dg.Constant(jnp.ones(2), lower=0.0, upper=4.0)
    gains = dg.deviation_gains(game, dg.Argmax(), profile, key=KEY, steps=0)
    # The first provider has the market at 1 already; the grid's step is 1/128.
    np.testing.assert_allclose(gains, [0.0, 1 - 1 / 128], rtol=1e-12)


def test_values_that_are_not_finite_are_no_gain():
    gains = dg.deviation_gains(Alone("pole"), LOGIT, at(0.5), key=KEY)
    np.testing.assert_allclose(gains, [0.25], rtol=1e-9)
    lost = dg.deviation_gains(Alone("pole"), LOGIT, at(1.5), key=KEY)
    assert jnp.isnan(lost).all()


@pytest.mark.parametrize(
    ("payoff", "x", "expected"),
    [
        ("peak", 0.0, -2.0),
        ("valley", 0.0, 2.0),
        ("flat", 0.0, 0.0),
        ("valley", 2.0, -np.inf),
        ("slope", 2.0, -np.inf),
    ],
    ids=["peak", "valley", "flat", "valley_at_bound", "slope_at_bound"],
)
def test_second_order(payoff: str, x: float, expected: float):
    curvature = dg.second_order(Alone(payoff), LOGIT, at(x))
    np.testing.assert_allclose(curvature, [expected], rtol=1e-14)


class Mixer(dg.AbstractGame):
    """A provider mixes three messages: payoff slope . p + bend p0^2 + p0 p1."""

    slope: Float[Array, "3"]
    users: Float[Array, "1"] = eqx.field(default_factory=lambda: jnp.zeros(1, int))
    mass: Float[Array, "1"] = eqx.field(default_factory=lambda: jnp.ones(1))
    choice_set: dg.Simplex = dg.Simplex(1)

    def observe(self, user):
        return 0

    def user_utility(self, choice, offers, user):
        return jnp.sum(choice)

    def provider_payoffs(self, choice, offers, user):
        p = offers[:, 0]
        return p @ self.slope + p[:, 0] * p[:, 1] + 3 * p[:, 2] ** 2


@pytest.mark.parametrize(
    ("slope", "row", "expected"),
    [
        # On the edge p2 = 0: along (1, -1, 0) / sqrt 2 the curvature is -1.
        ([0.0, 0.0, -9.0], [0.5, 0.5, 0.0], -1.0),
        ([0.0, 0.0, 9.0], [0.0, 0.0, 1.0], -np.inf),
    ],
    ids=["edge", "vertex"],
)
def test_second_order_on_a_face_of_the_simplex(slope, row, expected: float):
    game = Mixer(jnp.array(slope), users=jnp.zeros(1))
    profile = dg.ProbabilityTable(jnp.array(row)[None, None, None])
    np.testing.assert_allclose(dg.stationarity(game, LOGIT, profile), 0, atol=1e-15)
    curvature = dg.second_order(game, LOGIT, profile)
    np.testing.assert_allclose(curvature, [expected], rtol=1e-12)


def test_user_gap_of_concave_users_bounds_their_loss():
    game = LinearBertrand(jnp.zeros(2), jnp.eye(2) + 0.4, jnp.array([[3.0, 2.0], [4.0, 3.5]]))
    profile = dg.Constant(jnp.ones(2))
    exact = dg.user_gap(game, dg.Concave(), profile)
    assert jnp.all(jnp.abs(exact) <= 1e-11)
    lazy = dg.Concave(max_steps=0)
    gap = dg.user_gap(game, lazy, profile)
    play = eqx.filter_jit(dg.play)
    loss = play(game, dg.Concave(), profile).utilities - play(game, lazy, profile).utilities
    assert jnp.all(loss > 0.1)
    assert jnp.all(gap >= loss)


def test_user_gap_of_quantal_users_is_the_price_of_noise():
    """Values (0, 0.5, 1) at temperature 1: the best is worth 1."""
    game = LogitBertrand(jnp.zeros(2), jnp.array([0.5, 1.0]), jnp.zeros(1))
    weights = np.exp([0.5, 1.0, 0.0])
    attained = weights @ np.array([0.5, 1.0, 0.0]) / weights.sum()
    gap = dg.user_gap(game, LOGIT, dg.Constant(jnp.ones(2)))
    np.testing.assert_allclose(gap, [1 - attained], rtol=1e-13)
    np.testing.assert_array_equal(dg.user_gap(game, dg.Argmax(), dg.Constant(jnp.ones(2))), [0.0])


class Tree(dg.AbstractGame):
    """Two messages, two actions; utility 1 for the action that matches the message."""

    users: Float[Array, "1"] = eqx.field(default_factory=lambda: jnp.zeros(1))
    mass: Float[Array, "1"] = eqx.field(default_factory=lambda: jnp.ones(1))
    choice_set: dg.DecisionTree = dg.DecisionTree((("nature", 2), ("user", 2)))

    def chance(self, offers, user):
        return jnp.array([[0.3], [0.7]])

    def user_utility(self, choice, offers, user):
        return 0.3 * choice[0, 0] + 0.7 * choice[1, 1]

    def provider_payoffs(self, choice, offers, user):
        return -(offers**2)


def test_user_gap_on_a_tree_is_found_by_backward_induction():
    gap = dg.user_gap(Tree(), dg.Logit(0.5), dg.Constant(jnp.zeros(1)))
    right = np.exp(1 / 0.5) / (1 + np.exp(1 / 0.5))
    np.testing.assert_allclose(gap, [1 - right], rtol=1e-13)


def test_welfare_weighs_users_by_mass():
    game = LogitBertrand(jnp.zeros(2), jnp.ones(2), jnp.ones(2), jnp.array([2.0, 0.5]))
    outcome = dg.play(game, LOGIT, dg.Constant(jnp.array([0.0, 0.5])))
    total = dg.welfare(outcome, game.mass)
    expected = 2 * outcome.utilities[0] + 0.5 * outcome.utilities[1]
    np.testing.assert_allclose(total.users, expected, rtol=1e-14)
    np.testing.assert_allclose(total.providers, outcome.payoffs[0] + outcome.payoffs[1])


def certify(game, response, found, tolerance=1e-6):
    return dg.certify(game, response, found, key=KEY, starts=4, steps=50, tolerance=tolerance)


def solve_and_certify(game, response, profile, solver=NEWTON, **settings):
    found = dg.solve(game, response, profile, solver, throw=False, **settings)
    return certify(game, response, found)


@pytest.mark.parametrize(
    ("game", "response", "start"),
    [
        (StackelbergDuopoly(), dg.Concave(), dg.Constant(jnp.zeros(1), lower=0.0, upper=1.0)),
        (Cournot(jnp.zeros(2)), dg.Concave(), COLLUSION),
        (
            LogitBertrand(jnp.zeros(2), jnp.ones(2), jnp.ones(1)),
            LOGIT,
            dg.Constant(jnp.ones(2)),
        ),
    ],
    ids=["stackelberg", "cournot", "logit_bertrand"],
)
def test_textbook_equilibria_are_certified(game, response, start):
    found = solve_and_certify(game, response, start)
    assert found.status == dg.Status.certified
    certificate = found.certificate
    assert 0 <= certificate.residual <= 1e-6
    assert jnp.all((certificate.deviation_gains >= 0) & (certificate.deviation_gains <= 1e-6))
    assert jnp.all(certificate.second_order < 0)
    assert certificate.tolerance == 1e-6
    assert "searched: projected ascent of 50 steps" in certificate.scope
    assert found.solver.startswith("Newton()")
    # Quantal users leave utility on the table, which is the model and no error.
    assert response.maximises == bool(jnp.max(certificate.user_gap) <= 1e-6)


@pytest.mark.parametrize("payoff", ["valley", "two hills"])
def test_stationary_points_that_are_no_equilibrium(payoff: str):
    found = solve_and_certify(Alone(payoff), LOGIT, at(0.0))
    assert found.status == dg.Status.improvable
    assert found.certificate.residual <= 1e-6
    assert found.certificate.deviation_gains > 1
    again = dg.solve(Alone(payoff), LOGIT, found.certificate.deviations, NEWTON)
    assert again.outcome.payoffs > found.outcome.payoffs + 1


def test_naive_equilibria_are_not_stationary_for_those_who_anticipate():
    found = solve_and_certify(
        StackelbergDuopoly(), dg.Concave(), dg.Constant(jnp.array([0.1])), anticipate=False
    )
    assert found.status == dg.Status.not_stationary
    # At 1/3 the anticipating gradient is (1 - 2/3) / 2.
    np.testing.assert_allclose(found.certificate.residual, 1 / 6, rtol=1e-6)


def test_failures_of_the_solver_are_kept():
    slow = dg.GradientPlay(optax.sgd(1e-4))
    found = solve_and_certify(DUOPOLY, LOGIT, COLLUSION, slow, max_steps=3)
    assert found.status == dg.Status.max_steps
    # What was too coarse for the solver may do for a coarser certificate.
    assert certify(DUOPOLY, LOGIT, found, tolerance=0.5).status == dg.Status.certified


def test_inexact_users_are_named():
    lazy = dg.Concave(max_steps=0)
    profile = dg.Constant(jnp.array([0.5]))
    outcome = dg.play(StackelbergDuopoly(), lazy, profile)
    claimed = dg.Equilibrium(
        profile, outcome, jnp.zeros(()), dg.Status.stationary_only, jnp.array(0), "by hand"
    )
    found = certify(StackelbergDuopoly(), lazy, claimed)
    assert found.status == dg.Status.response_inexact
    assert found.certificate.user_gap > 0.1


def test_false_claims_are_not_believed():
    outcome = dg.play(DUOPOLY, LOGIT, COLLUSION)
    claimed = dg.Equilibrium(
        COLLUSION, outcome, jnp.zeros(()), dg.Status.certified, jnp.array(0), "by hand"
    )
    found = certify(DUOPOLY, LOGIT, claimed)
    assert found.status == dg.Status.not_stationary
    broken = eqx.tree_at(lambda game: game.cost, DUOPOLY, jnp.array([jnp.nan, 0.0]))
    found = certify(broken, LOGIT, claimed)
    assert found.status == dg.Status.nonfinite


def test_batches_are_certified_lane_by_lane():
    @eqx.filter_jit
    @eqx.filter_vmap
    def examine(cost):
        game = Quantities(cost)
        found = dg.solve(game, LOGIT, COLLUSION, NEWTON, throw=False)
        return certify(game, LOGIT, found)

    costs = jnp.array([[0.0, 0.1], [jnp.nan, 0.1], [0.2, 0.0]])
    found = examine(costs)
    assert (found.status == dg.Status.certified).tolist() == [True, False, True]
    assert (found.status == dg.Status.nonfinite).tolist() == [False, True, False]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"tolerance": -1.0}, "tolerance is -1.0; give a positive number"),
        ({"starts": -1}, "starts is -1, steps is 100; give starts >= 0 and steps >= 1"),
        ({"steps": 0}, "steps is 0; give starts >= 0 and steps >= 1"),
    ],
)
def test_bad_settings_are_refused(settings, message: str):
    found = dg.solve(DUOPOLY, LOGIT, NASH, NEWTON)
    with pytest.raises(ValueError, match=message):
        dg.certify(DUOPOLY, LOGIT, found, key=KEY, **settings)


def test_the_certificate_is_independent_of_the_solver():
    """No module that certifies imports one that solves, directly or through another."""
    root, seen, waiting = Path(dg.__file__).parent, set(), ["_certificate"]
    while waiting:
        name = waiting.pop()
        seen.add(name)
        tree = ast.parse((root / f"{name}.py").read_text("utf-8"))
        found = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
        waiting += [module for module in found if (root / f"{module}.py").exists()]
        waiting = [module for module in waiting if module not in seen]
    assert {"_deviation", "_play", "_response"} <= seen
    assert seen.isdisjoint({"_solver", "_solve"})
