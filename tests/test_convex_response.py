"""Users under convex constraints: optimum, infeasibility and unboundedness, in closed form."""

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree

import diffgame as dg
from diffgame import UserStatus


class Disc(dg.AbstractGame):
    """max linear utility on a disc whose radius is offered, and right of a line; or without end."""

    users: PyTree = eqx.field(default_factory=lambda: jnp.ones(1))
    mass: Float[Array, " users"] = eqx.field(default_factory=lambda: jnp.ones(1))
    choice_set: dg.Constrained = eqx.field(default_factory=lambda: dg.Constrained(2))

    def user_utility(self, choice, offers, user):
        return offers["slope"] @ choice

    def user_constraints(self, choice, offers, user):
        curved = offers["bend"] * choice[0] ** 2 + offers["round"] * choice[1] ** 2
        return dg.Constraints(
            jnp.stack(
                [curved - choice[1] * offers["open"] - offers["size"], offers["line"] - choice[0]]
            )
        )

    def provider_payoffs(self, choice, offers, user):
        return choice[:1]


@eqx.filter_jit
def on_disc(**offers):
    offers = {name: jnp.asarray(value, float) for name, value in offers.items()}
    return dg.solve_user_problem(Disc(), offers, None)


def test_general_convex_constraints():
    """A disc of radius 2: the best of a linear utility is where it points."""
    best = on_disc(slope=[3, 4], bend=1, round=1, open=0, size=4, line=-9)
    assert best.status == UserStatus.optimal
    np.testing.assert_allclose(best.choice, [1.2, 1.6], atol=1e-11)
    np.testing.assert_allclose(best.inequality_duals, [5 / 4, 0], atol=1e-11)


def test_a_disc_that_a_line_misses_is_infeasible():
    best = on_disc(slope=[3, 4], bend=1, round=1, open=0, size=4, line=3)
    assert best.status == UserStatus.infeasible
    z, y = np.array(best.inequality_duals), np.array(best.choice)
    # z1 (|x|^2 - 4) + z2 (3 - x0) is least at x = (z2 / (2 z1), 0), and positive there.
    assert np.all(z > 0)
    assert z[0] * ((z[1] / (2 * z[0])) ** 2 - 4) + z[1] * (3 - z[1] / (2 * z[0])) > 0
    np.testing.assert_allclose(y[1], 0, atol=1e-9)


def test_a_parabola_without_a_top_is_unbounded():
    """x0^2 <= x1: utility x1 has no end, straight up; utility x0 - x1 has."""
    shape = {"bend": 1, "round": 0, "open": 1, "size": 0, "line": -9}
    best = on_disc(slope=[0, 1], **shape)
    assert best.status == UserStatus.unbounded
    np.testing.assert_allclose(best.ray, [0, 1], atol=1e-6)
    best = on_disc(slope=[1, -1], **shape)
    assert best.status == UserStatus.optimal
    np.testing.assert_allclose(best.choice, [0.5, 0.25], atol=1e-11)
