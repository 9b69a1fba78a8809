"""A game that a user writes: twenty lines, and one clear message for every slip."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jaxtyping import Array, Float

import diffgame as dg

START = dg.Constant(jnp.ones(2), 0.0, 10.0)


class Shops(dg.AbstractGame):
    """Two shops at 0 and 1 post prices; buyers along the street pay for the way, too."""

    users: Float[Array, " users"]
    mass: Float[Array, " users"]
    choice_set: dg.Simplex

    def user_utility(self, choice, offers, user):
        way = jnp.stack([user, 1 - user])
        return jnp.sum(choice[:2] * (3 - offers - way))

    def provider_payoffs(self, choice, offers, user):
        return offers * choice[:2]


def make(kind=Shops, users=5):
    return kind(jnp.linspace(0, 1, users), jnp.full(users, 1 / users), dg.Simplex(3))


def test_twenty_lines_make_a_game_that_is_solved_and_certified():
    found = dg.solve(make(), dg.Logit(0.5), START, tolerance=1e-9)
    found = dg.certify(make(), dg.Logit(0.5), found, key=jax.random.key(0), starts=2)
    assert found.status == dg.Status.certified
    # The street looks the same from both ends.
    np.testing.assert_allclose(*found.profile.offer, rtol=1e-9)


class OnePayoff(Shops):
    def provider_payoffs(self, choice, offers, user):
        return jnp.sum(offers * choice[:2])


class TwoUtilities(Shops):
    def user_utility(self, choice, offers, user):
        return choice[:2] * (3 - offers)


class Deaf(Shops):
    def user_utility(self, choice, offers, user):
        return jnp.sum(choice[:2]) * user


class Tables(Shops):
    def provider_payoffs(self, choice, offers, user):
        return {"sold": choice[:2]}


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        (OnePayoff, r"OnePayoff: payoffs have shape \(\), but the profile has 2 providers"),
        (TwoUtilities, r"TwoUtilities.user_utility returns shape \(2,\); it must be one number"),
        (Deaf, r"Deaf.user_utility does not depend on the offers, .* use the response Passive"),
        (Tables, r"Tables: payoffs have shape dict, but the profile has 2 providers"),
    ],
)
def test_slips_are_named_before_anything_is_computed(kind, message):
    with pytest.raises(ValueError, match=message):
        dg.solve(make(kind), dg.Logit(0.5), START)


def test_users_and_mass_must_count_the_same():
    with pytest.raises(ValueError, match=r"Shops: mass has shape \(4,\).*first axes \[\(5,\)\]"):
        Shops(jnp.linspace(0, 1, 5), jnp.ones(4), dg.Simplex(3))


def test_numbers_that_are_not_finite_at_the_start_are_named():
    broken = Shops(jnp.array([0.0, jnp.nan]), jnp.ones(2), dg.Simplex(3))
    with pytest.raises(Exception, match="check the game's numbers at the starting profile"):
        dg.solve(broken, dg.Logit(0.5), START)
    found = dg.solve(broken, dg.Logit(0.5), START, throw=False)
    assert found.status == dg.Status.nonfinite
    assert found.steps == 0


class Hoard(dg.AbstractGame):
    """Buyers whose second unit is worth more than the first: all or nothing, never in between."""

    users: Float[Array, " users"]
    mass: Float[Array, " users"]
    choice_set: dg.Box

    def user_utility(self, choice, offers, user):
        return jnp.sum(choice * (choice - offers[0]))

    def provider_payoffs(self, choice, offers, user):
        return offers * jnp.sum(choice)


def test_a_utility_that_is_not_concave_is_named():
    game = Hoard(jnp.ones(1), jnp.ones(1), dg.Box(jnp.zeros(1), jnp.ones(1)))
    start = dg.Constant(jnp.array([1.0]), 1.0, 1.0)
    with pytest.raises(Exception, match="A user's utility is convex in some direction"):
        dg.solve(game, dg.Concave(), start)
    found = dg.solve(game, dg.Concave(), start, throw=False)
    assert found.status == dg.Status.not_concave
    judged = dg.certify(game, dg.Concave(), found, key=jax.random.key(0), starts=0, steps=1)
    assert judged.status == dg.Status.not_concave


def test_a_solver_in_the_profiles_place_is_named():
    with pytest.raises(Exception, match=r"profile"):
        dg.solve(make(), dg.Logit(0.5), dg.Newton(), START)
