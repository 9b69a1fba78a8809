"""Users without constraints: Newton's method, densely and by conjugate gradients."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jaxtyping import Array, Float, PyTree

import diffgame as dg


class Separable(dg.AbstractGame):
    """u = sum of offers y - user y^2 / 2 - y^4 / 4, coordinate by coordinate; any size."""

    choice_set: dg.Constrained
    users: PyTree = eqx.field(default_factory=lambda: jnp.ones(1))
    mass: Float[Array, " users"] = eqx.field(default_factory=lambda: jnp.ones(1))

    def user_utility(self, choice, offers, user):
        return jnp.sum(offers * choice - user * choice**2 / 2 - choice**4 / 4)

    def provider_payoffs(self, choice, offers, user):
        return jnp.sum(choice)[None]


def cardano(offers, steepness):
    """The real root of y^3 + steepness y = offers."""
    root = np.sqrt(offers**2 / 4 + steepness**3 / 27)
    return np.cbrt(offers / 2 + root) + np.cbrt(offers / 2 - root)


@pytest.mark.parametrize("size", [3, 300], ids=["dense", "matrix-free"])
def test_choices_and_slopes_are_those_of_a_cubic(size: int):
    game, offers = Separable(dg.Constrained(size)), jnp.linspace(-3, 4, size)

    @eqx.filter_jit
    def solve(offers):
        def total(offers):
            best = dg.solve_user_problem(game, offers, jnp.array(1.5))
            return jnp.sum(best.choice), best

        return jax.value_and_grad(total, has_aux=True)(offers)

    (_, best), slope = solve(offers)
    assert best.status == dg.UserStatus.optimal
    expected = cardano(np.array(offers), 1.5)
    np.testing.assert_allclose(best.choice, expected, rtol=1e-12, atol=1e-13)
    np.testing.assert_allclose(slope, 1 / (3 * expected**2 + 1.5), rtol=1e-9)


class Linear(Separable):
    """Nothing bends the utility of the first good."""

    def user_utility(self, choice, offers, user):
        return offers[0] * choice[0] - choice[1] ** 2


def test_a_utility_without_end_is_unbounded():
    game = Linear(dg.Constrained(2))
    best = eqx.filter_jit(dg.solve_user_problem)(game, jnp.array([2.0, 0.0]), None)
    assert best.status == dg.UserStatus.unbounded
    np.testing.assert_allclose(best.ray, [1, 0], atol=1e-9)
