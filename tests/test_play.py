"""One play: totals, observation, streaming in chunks, and every provider's own gradient."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jaxtyping import Array, Float

import diffgame as dg
from diffgame._play import project, split
from diffgame.games import Cournot, LinearBertrand, LogitBertrand, StackelbergDuopoly

LOGIT = dg.Logit(0.7)


def logit_game(users=7):
    return LogitBertrand(
        cost=jnp.array([0.1, 0.3]),
        quality=jnp.array([1.0, 2.0]),
        users=jnp.linspace(0.5, 2.0, users),
        mass=jnp.linspace(1.0, 3.0, users),
    )


PRICES = dg.Constant(jnp.array([1.0, 1.5]))


def test_payoffs_are_mass_weighted_totals_of_one_user_at_a_time():
    game = logit_game()
    outcome = dg.play(game, LOGIT, PRICES)
    expected = np.zeros(2)
    for user, mass in zip(np.array(game.users), np.array(game.mass), strict=True):
        weights = np.exp(np.append(np.array([1.0, 2.0]) - user * np.array([1.0, 1.5]), 0.0) / 0.7)
        share = weights / weights.sum()
        expected += mass * (np.array([1.0, 1.5]) - np.array([0.1, 0.3])) * share[:2]
    np.testing.assert_allclose(outcome.payoffs, expected, rtol=1e-13)
    assert outcome.offers.shape == (7, 2)
    assert outcome.choices.shape == (7, 3)
    best = game.quality[None] - game.users[:, None] * outcome.offers
    np.testing.assert_allclose(
        outcome.utilities, jnp.sum(outcome.choices[:, :2] * best, axis=1), rtol=1e-13
    )


def test_settle_sees_totals():
    """Cournot's price depends on the mean willingness to pay, which no single buyer knows."""
    game = Cournot(jnp.array([0.1, 0.2]), jnp.array([1.0, 2.0]), jnp.array([3.0, 1.0]), slope=0.5)
    profile = dg.Constant(jnp.array([0.5, 0.7]))
    outcome = eqx.filter_jit(dg.play)(game, dg.Concave(), profile)
    price = 1.25 - 0.5 * 1.2
    np.testing.assert_allclose(outcome.payoffs, (price - game.cost) * 4 * jnp.array([0.5, 0.7]))
    np.testing.assert_allclose(outcome.choices[:, 0], (game.users - price) / 0.5, rtol=1e-13)


class Reader(dg.AbstractPolicy):
    """Offers what it sees, times a factor: shows what was observed."""

    factor: Float[Array, ""]

    def __call__(self, observation):
        return self.factor * (jnp.zeros(()) if observation is None else observation)

    def project(self):
        return self

    def parameters(self):
        return jax.tree.map(lambda leaf: True, self)


class Personalized(dg.AbstractGame):
    users: Float[Array, " users"]
    mass: Float[Array, " users"]
    personal: bool
    choice_set: dg.Box

    def observe(self, user):
        return user if self.personal else None

    def user_utility(self, choice, offers, user):
        return -jnp.sum((choice - user) ** 2)

    def provider_payoffs(self, choice, offers, user):
        return offers


@pytest.mark.parametrize("personal", [True, False], ids=["personalized", "anonymous"])
def test_policies_see_only_what_is_observed(personal: bool):
    users = jnp.array([1.0, 2.0, 3.0])
    game = Personalized(users, jnp.ones(3), personal, dg.Box(jnp.zeros(1), jnp.ones(1)))
    outcome = eqx.filter_jit(dg.play)(game, dg.Concave(), Reader(jnp.array([1.0, 10.0])))
    seen = users if personal else jnp.zeros(3)
    np.testing.assert_array_equal(outcome.offers, seen[:, None] * jnp.array([[1.0, 10.0]]))


GAMES = {
    "logit": (logit_game(), LOGIT, PRICES),
    "concave": (
        LinearBertrand(jnp.zeros(2), jnp.eye(2) + 0.3, jnp.linspace(2.0, 4.0, 14).reshape(7, 2)),
        dg.Concave(),
        PRICES,
    ),
    "settled": (
        Cournot(jnp.array([0.1, 0.2]), jnp.linspace(1.0, 2.0, 7)),
        dg.Concave(),
        dg.Constant(jnp.array([0.2, 0.3])),
    ),
}
each_game = pytest.mark.parametrize("name", GAMES)


@pytest.mark.parametrize(
    ("name", "anticipate", "chunks"),
    # Of 7 users: 1 leaves no remainder, 3 leaves one.
    [("logit", True, (1, 3)), ("concave", True, (3,)), ("settled", False, (1,))],
    ids=["logit-anticipating", "concave-anticipating", "settled-naive"],
)
def test_streaming_changes_nothing(name: str, anticipate: bool, chunks: tuple[int, ...]):
    game, response, profile = GAMES[name]

    @eqx.filter_jit
    def evaluate(chunk):
        return (
            dg.provider_payoffs(game, response, profile, chunk=chunk),
            dg.pseudogradient(game, response, profile, anticipate=anticipate, chunk=chunk).offer,
            dg.play(game, response, profile, chunk=chunk),
        )

    whole = evaluate(None)
    for chunk in chunks:
        assert eqx.tree_equal(evaluate(chunk), whole, rtol=1e-12, atol=1e-14)


class Features(dg.AbstractGame):
    """Sellers price by a network of a user's four features."""

    users: Float[Array, "users 4"]
    mass: Float[Array, " users"]
    choice_set: dg.Simplex = dg.Simplex(3)

    def observe(self, user):
        return user

    def user_utility(self, choice, offers, user):
        return jnp.sum(choice[:2] * (1 - offers[:, 0] * (1 + user[0] ** 2)))

    def provider_payoffs(self, choice, offers, user):
        return offers[:, 0] * choice[:2]


def make_networks():
    keys = jax.random.split(jax.random.key(0), 2)
    return dg.Network(eqx.filter_vmap(lambda key: eqx.nn.MLP(4, 1, 16, 2, key=key))(keys))


def working_memory(users: int, chunk: int | None) -> dict[str, int]:
    """Bytes of temporaries of the compiled payoffs and of all providers' gradients."""
    varied, fixed = eqx.partition(make_networks(), eqx.is_array)

    def value(users, mass, varied):
        profile = eqx.combine(varied, fixed)
        return dg.provider_payoffs(Features(users, mass), LOGIT, profile, chunk=chunk)

    def gradient(users, mass, varied):
        profile = eqx.combine(varied, fixed)
        return dg.pseudogradient(Features(users, mass), LOGIT, profile, chunk=chunk)

    def measure(function):
        shapes = (jax.ShapeDtypeStruct((users, 4), float), jax.ShapeDtypeStruct((users,), float))
        compiled = jax.jit(lambda *args: eqx.filter(function(*args), eqx.is_array)).lower(
            *shapes, varied
        )
        return compiled.compile().memory_analysis().temp_size_in_bytes

    return {"value": measure(value), "gradient": measure(gradient)}


def test_streaming_needs_no_more_memory_for_a_million_users():
    small, large = working_memory(1_000, 500), working_memory(1_000_000, 500)
    assert small == large
    unstreamed = working_memory(1_000_000, None)
    assert all(unstreamed[what] > 100 * large[what] for what in large)


def test_streaming_a_remainder_copies_the_users_data_at_most():
    data = 1_000_003 * 5 * 8
    exact, ragged = working_memory(1_000_000, 500), working_memory(1_000_003, 500)
    assert all(ragged[what] <= exact[what] + 1.01 * data for what in exact)


@each_game
def test_groups_larger_than_the_users_are_one_group(name: str):
    game, response, profile = GAMES[name]
    found, whole = (
        eqx.filter_jit(dg.provider_payoffs)(game, response, profile, chunk=chunk)
        for chunk in (50, None)
    )
    np.testing.assert_array_equal(found, whole)


@each_game
def test_the_pseudogradient_is_the_diagonal_of_the_jacobian(name: str):
    game, response, profile = GAMES[name]

    def payoffs(offer):
        return dg.provider_payoffs(game, response, dg.Constant(offer))

    jacobian = jax.jit(jax.jacrev(payoffs))(profile.offer)
    field = eqx.filter_jit(dg.pseudogradient)(game, response, profile)
    np.testing.assert_allclose(field.offer, jnp.diagonal(jacobian), rtol=1e-12)
    assert field.lower is None


def test_the_naive_leader_ignores_the_follower():
    """q2 = (a - q1) / 2 in both; naive: a - 2 q1 - q2; anticipating: (a - 2 q1) / 2."""
    game, quantity = StackelbergDuopoly(), jnp.array([0.3])

    @eqx.filter_jit
    def field(anticipate):
        profile = dg.Constant(quantity)
        return dg.pseudogradient(game, dg.Concave(), profile, anticipate=anticipate).offer

    np.testing.assert_allclose(field(False), 1 - 2 * quantity - (1 - quantity) / 2, rtol=1e-13)
    np.testing.assert_allclose(field(True), (1 - 2 * quantity) / 2, rtol=1e-13)


def test_the_naive_field_of_linear_demand_is_the_quantity_sold():
    game, _, profile = GAMES["concave"]

    @eqx.filter_jit
    def both():
        field = dg.pseudogradient(game, dg.Concave(), profile, anticipate=False)
        return field.offer, dg.play(game, dg.Concave(), profile).choices

    naive, sold = both()
    np.testing.assert_allclose(naive, jnp.mean(sold, axis=0), rtol=1e-13)


def test_payoffs_where_users_expect_something_else():
    game = logit_game()
    expected = dg.Constant(jnp.array([0.2, 0.4]))
    found = dg.provider_payoffs(game, LOGIT, PRICES, expected=expected)
    choices = dg.play(game, LOGIT, expected).choices[:, :2]
    margin = PRICES.offer - game.cost
    np.testing.assert_allclose(found, margin * (game.mass @ choices), rtol=1e-13)


def test_projection_is_provider_by_provider():
    rows = jnp.array([[[[2.0, 1.0]]], [[[0.0, 3.0]]]])
    profile = project(dg.ProbabilityTable(rows))
    np.testing.assert_allclose(profile.probability, [[[[1.0, 0.0]]], [[[0.0, 1.0]]]], atol=1e-15)


def test_splitting_loses_nothing():
    profile = make_networks()
    assert eqx.tree_equal(eqx.combine(*split(profile)), profile)
