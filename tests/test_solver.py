"""Solvers: each reaches known equilibria, and fails where theory says that it fails."""

import equinox as eqx
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jaxtyping import Array, Float

import diffgame as dg
from diffgame._play import split
from diffgame.games import StackelbergDuopoly


class Duel(dg.AbstractGame):
    """Payoffs of two numbers alone; the user only watches."""

    matrix: Float[Array, "2 2"]
    shift: Float[Array, "2"]
    bend: float
    users: Float[Array, "1"] = eqx.field(default_factory=lambda: jnp.zeros(1))
    mass: Float[Array, "1"] = eqx.field(default_factory=lambda: jnp.ones(1))
    choice_set: dg.Simplex = dg.Simplex(1)

    def user_utility(self, choice, offers, user):
        return jnp.sum(choice) * user

    def provider_payoffs(self, choice, offers, user):
        """Own gradients are matrix @ (x - shift) - bend * (x - shift)^3."""
        x = offers - self.shift
        other = (self.matrix - jnp.diag(jnp.diagonal(self.matrix))) @ x
        own = jnp.diagonal(self.matrix) * x**2 / 2
        return own + x * other - self.bend * x**4 / 4


SOLVERS = {
    "sgd": dg.GradientPlay(optax.sgd(0.4)),
    "adam": dg.GradientPlay(optax.adam(optax.exponential_decay(0.05, 200, 0.5))),
    "extragradient": dg.Extragradient(0.3),
    "newton": dg.Newton(),
    "sequential": dg.BestResponse(),
    "simultaneous": dg.BestResponse(order="simultaneous"),
}
each_solver = pytest.mark.parametrize("name", SOLVERS)


@each_solver
def test_the_leader_of_the_textbook(name: str):
    """The solvers' common ground; test_games has the other games."""
    start = dg.Constant(jnp.array([0.1]))
    found = dg.solve(StackelbergDuopoly(), dg.Concave(), start, SOLVERS[name])
    np.testing.assert_allclose(found.profile.offer, [1 / 2], atol=2e-6)
    np.testing.assert_allclose(found.outcome.choices, [[1 / 4]], atol=2e-6)
    np.testing.assert_allclose(found.outcome.payoffs, [1 / 8], atol=1e-6)
    np.testing.assert_allclose(found.outcome.utilities, [1 / 16], atol=2e-6)


@each_solver
def test_every_step_ends_feasible(name: str):
    """The unconstrained equilibrium (3, -4) lies outside the box on both sides."""
    game = Duel(jnp.array([[-1.0, 0.2], [0.1, -1.0]]), jnp.array([3.0, -4.0]), 0.0)
    profile = dg.Constant(jnp.array([0.5, 0.5]), lower=-1.0, upper=1.0)
    parameters, rest = split(profile)
    problem = dg.Problem(game, dg.Logit(1.0), rest, anticipate=True, chunk=None)
    solver = SOLVERS[name]

    @eqx.filter_jit
    def step(parameters, state):
        return solver.step(problem, parameters, problem.field(parameters), state)

    state = solver.init(problem, parameters)
    for _ in range(5):
        parameters, state = step(parameters, state)
        assert jnp.all(jnp.abs(parameters.offer) <= 1)
    found = dg.solve(game, dg.Logit(1.0), profile, solver)
    np.testing.assert_array_equal(found.profile.offer, [1.0, -1.0])


ZERO_SUM = Duel(jnp.array([[0.0, 1.0], [-1.0, 0.0]]), jnp.zeros(2), 0.0)
CORNER = dg.Constant(jnp.array([1.0, 0.5]))


def test_play_of_zero_sum_rotates_outwards_and_extragradient_does_not():
    out = dg.solve(ZERO_SUM, dg.Logit(1.0), CORNER, SOLVERS["sgd"], max_steps=50, throw=False)
    assert jnp.linalg.norm(out.profile.offer) > 2 * jnp.linalg.norm(CORNER.offer)
    found = dg.solve(ZERO_SUM, dg.Logit(1.0), CORNER, SOLVERS["extragradient"])
    np.testing.assert_allclose(found.profile.offer, [0.0, 0.0], atol=2e-6)


def test_newton_needs_one_step_where_the_field_is_linear():
    found = dg.solve(ZERO_SUM, dg.Logit(1.0), CORNER, SOLVERS["newton"])
    assert found.steps == 1
    np.testing.assert_allclose(found.profile.offer, [0.0, 0.0], atol=1e-15)


def test_newton_halves_steps_that_overshoot():
    """Own gradients are -tanh, for which undamped Newton diverges from |x| > 1.09."""

    class Flat(dg.AbstractGame):
        users: Float[Array, "1"]
        mass: Float[Array, "1"]
        choice_set: dg.Simplex = dg.Simplex(1)

        def user_utility(self, choice, offers, user):
            return jnp.sum(choice) * user

        def provider_payoffs(self, choice, offers, user):
            return -jnp.log(jnp.cosh(offers))

    game, start = Flat(jnp.zeros(1), jnp.ones(1)), dg.Constant(jnp.array([2.0, -2.0]))
    undamped = dg.solve(
        game, dg.Logit(1.0), start, dg.Newton(halvings=0, learning_rate=0.0),
        max_steps=50, throw=False,
    )  # fmt: skip
    assert undamped.status == dg.Status.max_steps
    found = dg.solve(game, dg.Logit(1.0), start, dg.Newton(), max_steps=50)
    np.testing.assert_allclose(found.profile.offer, [0.0, 0.0], atol=1e-6)


def test_newton_finds_the_nearest_of_a_line_of_equilibria():
    """Both providers want x1 + x2 = 1."""
    game = Duel(jnp.array([[-1.0, -1.0], [-1.0, -1.0]]), jnp.array([1.0, 0.0]), 0.0)
    found = dg.solve(game, dg.Logit(1.0), dg.Constant(jnp.array([2.0, 1.0])), dg.Newton())
    np.testing.assert_allclose(found.profile.offer, [1.0, 0.0], atol=1e-14)


def test_simultaneous_answers_cycle_where_sequential_ones_settle():
    """Best responses x1 = -x2, x2 = -x1: all at once they swap for ever, unless damped."""
    game = Duel(jnp.array([[-1.0, -1.0], [-1.0, -1.0]]), jnp.zeros(2), 0.0)
    start, quantal = dg.Constant(jnp.array([1.0, 1.0])), dg.Logit(1.0)
    cycle = dg.solve(game, quantal, start, SOLVERS["simultaneous"], max_steps=100, throw=False)
    assert cycle.status == dg.Status.max_steps
    found = dg.solve(game, quantal, start, SOLVERS["sequential"])
    np.testing.assert_allclose(jnp.sum(found.profile.offer), 0, atol=1e-6)
    damped = dg.BestResponse(order="simultaneous", damping=0.5)
    np.testing.assert_allclose(
        dg.solve(game, quantal, start, damped).profile.offer, [0.0, 0.0], atol=1e-6
    )


def test_best_responses_need_no_step_size():
    """Curvatures a million apart: one gradient step size would not serve both."""
    game = Duel(jnp.diag(jnp.array([-1e-3, -1e3])), jnp.array([1.0, -1.0]), 2.0)
    found = dg.solve(game, dg.Logit(1.0), dg.Constant(jnp.zeros(2)), dg.BestResponse())
    np.testing.assert_allclose(found.profile.offer, [1.0, -1.0], atol=2e-3)
    assert found.residual <= 1e-6


@pytest.mark.parametrize("name", ["newton", "sequential"])
def test_naive_leaders_end_at_cournot(name: str):
    """Who takes the follower's quantity as fixed chooses as in simultaneous play: 1/3."""
    found = dg.solve(
        StackelbergDuopoly(),
        dg.Concave(),
        dg.Constant(jnp.array([0.1])),
        SOLVERS[name],
        anticipate=False,
    )
    np.testing.assert_allclose(found.profile.offer, [1 / 3], atol=2e-6)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"order": "random"}, "order is 'random'; give 'sequential' or 'simultaneous'"),
        ({"inner_steps": 0}, "inner_steps is 0; it must be at least 1"),
        ({"damping": 1.0}, r"damping is 1.0; give a number in \[0, 1\)"),
    ],
)
def test_bad_settings_are_refused(settings, message: str):
    with pytest.raises(ValueError, match=message):
        dg.BestResponse(**settings)
