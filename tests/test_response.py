"""How users choose: by exact, quantal and concave maximisation."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optimistix
import pytest
from jaxtyping import Array, Float, PyTree

import diffgame as dg


class Linear(dg.AbstractGame):
    """Offers are the values of the leaves of any finite set; nature moves by `nature`."""

    choice_set: dg.AbstractChoiceSet
    nature: Float[Array, "..."] = eqx.field(default_factory=lambda: jnp.ones(()))
    users: PyTree = eqx.field(default_factory=lambda: jnp.ones(1))
    mass: Float[Array, " users"] = eqx.field(default_factory=lambda: jnp.ones(1))

    def user_utility(self, choice, offers, user):
        return jnp.sum(choice * self.nature * offers)

    def provider_payoffs(self, choice, offers, user):
        return jnp.sum(choice)[None]

    def chance(self, offers, user):
        return self.nature


class Quadratic(dg.AbstractGame):
    """u = offers . y - y . curvature . y / 2 on any convex set."""

    choice_set: dg.AbstractChoiceSet
    curvature: Float[Array, "n n"]
    users: PyTree = eqx.field(default_factory=lambda: jnp.ones(1))
    mass: Float[Array, " users"] = eqx.field(default_factory=lambda: jnp.ones(1))

    def user_utility(self, choice, offers, user):
        return jnp.sum(offers * choice) - choice @ self.curvature @ choice / 2

    def provider_payoffs(self, choice, offers, user):
        return jnp.sum(choice)[None]


def respond(response, game):
    return jax.jit(lambda offers: response(game, offers, game.users[0]))


def test_argmax_takes_the_best_and_the_lowest_of_equals():
    choose = respond(dg.Argmax(), Linear(dg.Simplex(3)))
    np.testing.assert_array_equal(choose(jnp.array([1.0, 3.0, 2.0])), [0, 1, 0])
    np.testing.assert_array_equal(choose(jnp.array([1.0, 3.0, 3.0])), [0, 1, 0])
    np.testing.assert_array_equal(choose(jnp.zeros(3)), [1, 0, 0])


def test_logit_is_a_softmax_in_units_of_utility():
    values = jnp.array([1.0, 3.0, 2.0])
    weights = np.exp(np.array(values) / 0.7)
    found = respond(dg.Logit(0.7), Linear(dg.Simplex(3)))(values)
    np.testing.assert_allclose(found, weights / weights.sum(), rtol=1e-14)


def softmax(values, temperature):
    weights = np.exp((values - np.max(values)) / temperature)
    return weights / weights.sum()


def backward_induction(values, nature, temperature):
    """Provider, message, action, by plain recursion: the probabilities of her own moves."""
    providers, messages, _ = values.shape
    plan, worth = np.zeros_like(values), np.zeros(providers)
    for i in range(providers):
        for m in range(messages):
            # Values count from the posterior: all actions of a message share its probability.
            plan[i, m] = softmax(values[i, m], temperature)
            worth[i] += nature[i, m] * plan[i, m] @ values[i, m]
    return softmax(worth, temperature)[:, None, None] * plan


@pytest.mark.parametrize("temperature", [0.05, 0.6, 5.0])
def test_logit_on_a_tree_is_the_agent_quantal_response(key, temperature: float):
    one, two = jax.random.split(key)
    values = jax.random.normal(one, (2, 3, 4))
    nature = jax.random.dirichlet(two, jnp.ones(3), (2,))
    tree = dg.DecisionTree((("user", 2), ("nature", 3), ("user", 4)))
    found = respond(dg.Logit(temperature), Linear(tree, nature[:, :, None]))(values)
    expected = backward_induction(np.array(values), np.array(nature), temperature)
    np.testing.assert_allclose(found, expected, rtol=1e-11, atol=1e-15)


def test_argmax_is_the_limit_of_logit_on_a_tree(key):
    values = jax.random.normal(key, (3, 2, 4))
    nature = jnp.full((3, 2, 1), 0.5)
    tree = dg.DecisionTree((("user", 3), ("nature", 2), ("user", 4)))
    game = Linear(tree, nature)
    exact, cold = respond(dg.Argmax(), game)(values), respond(dg.Logit(1e-4), game)(values)
    np.testing.assert_allclose(cold, exact, atol=1e-12)
    assert set(np.unique(exact)) == {0.0, 1.0}


@pytest.mark.parametrize("response", [dg.Argmax(), dg.Logit(0.3)], ids=["argmax", "logit"])
def test_messages_never_sent_do_no_harm(response):
    nature = jnp.array([[1.0, 0.0], [0.5, 0.5]])[:, :, None]
    tree = dg.DecisionTree((("user", 2), ("nature", 2), ("user", 2)))
    values = jnp.array([[[1.0, 0.0], [9.0, 7.0]], [[0.0, 0.5], [0.2, 0.1]]])
    choice = respond(response, Linear(tree, nature))(values)
    assert jnp.all(jnp.isfinite(choice))
    # All moves count the same where nothing is learned: the first, or both alike.
    unseen = choice[0, 1] / jnp.sum(choice[0, 1])
    np.testing.assert_allclose(unseen, [1, 0] if response.maximises else [0.5, 0.5])


def test_messages_never_sent_have_finite_derivatives():
    tree = dg.DecisionTree((("user", 2), ("nature", 2), ("user", 2)))
    values = jnp.arange(8.0).reshape(2, 2, 2)

    def best(probability):
        nature = jnp.stack([probability, 1 - probability], axis=-1)[:, :, None]
        return jnp.sum(dg.Logit(0.5)(Linear(tree, nature), values, jnp.ones(())) ** 2)

    slope = jax.jit(jax.grad(best))(jnp.array([1.0, 0.4]))
    assert jnp.all(jnp.isfinite(slope))


def test_differentiating_argmax_names_the_remedy():
    game = Linear(dg.Simplex(2))
    with pytest.raises(ValueError, match=r"differentiate through Logit\(temperature\)"):
        jax.grad(lambda offers: dg.Argmax()(game, offers, game.users[0])[0])(jnp.ones(2))


def test_concave_on_a_box_is_a_clip():
    game = Quadratic(dg.Box(jnp.zeros(3), jnp.ones(3)), jnp.diag(jnp.array([1.0, 2.0, 4.0])))
    found = respond(dg.Concave(), game)(jnp.array([-1.0, 1.0, 8.0]))
    np.testing.assert_allclose(found, [0.0, 0.5, 1.0], atol=1e-14)


def test_concave_on_a_simplex_is_a_projection(key):
    game = Quadratic(dg.Simplex(5), jnp.eye(5))
    offers = jax.random.normal(key, (5,))
    found = respond(dg.Concave(), game)(offers)
    np.testing.assert_allclose(found, game.choice_set.project(offers), atol=1e-13)


def test_concave_agrees_with_optimistix(key):
    half = jax.random.normal(key, (4, 4))
    game = Quadratic(dg.Box(jnp.full(4, -50.0), jnp.full(4, 50.0)), half @ half.T + jnp.eye(4))
    offers = jnp.arange(1.0, 5.0)
    found = respond(dg.Concave(), game)(offers)

    def loss(choice, _):
        return -game.user_utility(choice, offers, None)

    theirs = optimistix.minimise(loss, optimistix.BFGS(1e-10, 1e-10), jnp.zeros(4)).value
    np.testing.assert_allclose(found, theirs, rtol=1e-6, atol=1e-8)


class Entropic(dg.AbstractGame):
    """u = offers . y - sum of (y + .1)^4: not quadratic, so that Newton has to iterate."""

    choice_set: dg.AbstractChoiceSet
    users: PyTree = eqx.field(default_factory=lambda: jnp.ones(1))
    mass: Float[Array, " users"] = eqx.field(default_factory=lambda: jnp.ones(1))

    def user_utility(self, choice, offers, user):
        return jnp.sum(offers * choice - (choice + 0.1) ** 4)

    def provider_payoffs(self, choice, offers, user):
        return jnp.sum(choice)[None]


@pytest.mark.parametrize(
    "choices", [dg.Simplex(6), dg.Box(jnp.zeros(6), jnp.ones(6))], ids=["simplex", "box"]
)
def test_the_best_concave_choice_leaves_nothing_on_the_table(choices, key):
    game = Entropic(choices)
    offers = 10 ** jax.random.uniform(key, (6,), minval=-3, maxval=3)
    choice = respond(dg.Concave(), game)(offers)
    gradient = jax.grad(game.user_utility)(choice, offers, None)
    gap = choices.support(gradient) - jnp.sum(gradient * choice)
    assert abs(gap) <= 1e-9 * (1 + jnp.max(offers))
    np.testing.assert_allclose(choices.project(choice), choice, atol=1e-15)


def test_a_utility_without_curvature_raises_with_advice():
    # The second good is worth nothing and costs nothing: any amount is a best choice.
    game = Quadratic(dg.Box(jnp.zeros(2), jnp.ones(2)), jnp.diag(jnp.array([2.0, 0.0])))
    choose = eqx.filter_jit(jax.jacfwd(lambda offers: dg.Concave()(game, offers, game.users[0])))
    with pytest.raises(eqx.EquinoxRuntimeError, match="Make the problem strongly concave"):
        jax.block_until_ready(choose(jnp.array([1.0, 0.0])))


@pytest.mark.parametrize("response", [dg.Argmax(), dg.Logit(1.0)], ids=["argmax", "logit"])
def test_finite_responses_need_finite_sets(response):
    game = Quadratic(dg.Box(jnp.zeros(2), jnp.ones(2)), jnp.eye(2))
    with pytest.raises(TypeError, match="the choice set is Box; use Simplex or DecisionTree"):
        response(game, jnp.ones(2), game.users[0])


def test_concave_needs_a_convex_set():
    with pytest.raises(TypeError, match="the choice set is DecisionTree; use Box or Simplex"):
        dg.Concave()(Linear(dg.DecisionTree((("user", 2),))), jnp.ones(2), jnp.ones(()))


@pytest.mark.parametrize("temperature", [0.0, -1.0, float("nan")])
def test_temperatures_must_be_positive(temperature: float):
    with pytest.raises(ValueError, match="give a positive number, or use Argmax"):
        dg.Logit(temperature)
