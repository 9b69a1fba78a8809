"""One leader over users with constraints: closed forms at kinks and off them, and every status."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jaxtyping import Array, Float

import diffgame as dg
from benchmarks.bilevel import run
from diffgame._bilevel import BilevelStatus, solve_bilevel
from diffgame.bench._bilevel_problems import PROBLEMS
from diffgame.games import StackelbergDuopoly

KEY = jax.random.key(0)


class Seller(dg.AbstractGame):
    """A seller posts a price p; a buyer of type a takes y for a y - curvature y^2 / 2 - p y.

    She can take at most `cap`, unless `capped` is 0; the seller must sell at least `floor` in all.
    """

    users: Float[Array, " users"]
    mass: Float[Array, " users"]
    cap: Float[Array, ""]
    floor: Float[Array, ""]
    curvature: Float[Array, ""]
    capped: Float[Array, ""]
    choice_set: dg.Constrained = dg.Constrained(1)

    def user_utility(self, choice, offers, user):
        y = choice[0]
        return (user - offers[0]) * y - self.curvature * y**2 / 2

    def user_constraints(self, choice, offers, user):
        return dg.Constraints(jnp.append(-choice, self.capped * (choice - self.cap)))

    def provider_payoffs(self, choice, offers, user):
        return offers * choice, choice

    def settle(self, totals):
        return totals[0]

    def provider_constraints(self, profile, totals, provider):
        return dg.Constraints(self.floor - totals[1])


def seller(types=(3.0, 3.0), mass=(0.5, 0.5), cap=10.0, floor=0.0, curvature=1.0, capped=1.0):
    numbers = (jnp.asarray(number) for number in (cap, floor, curvature, capped))
    return Seller(jnp.array(types), jnp.array(mass), *numbers)


def price(upper=5.0):
    return dg.Constant(jnp.array([0.5]), 0.0, upper)


def solve(game, profile=None, **options):
    profile = price() if profile is None else profile
    return solve_bilevel(game, profile, key=KEY, starts=6, **options)


@pytest.mark.parametrize(
    ("game", "offer", "choices", "payoff"),
    [
        # p (3 - p) is largest at 3/2.
        (seller(), 1.5, (1.5, 1.5), 2.25),
        # The cap of 1 binds up to p = 2 and no more from there on: the payoff has a kink there.
        (seller(cap=1.0), 2.0, (1.0, 1.0), 2.0),
        # Two types: below p = 2 both buy, above only the one who pays more. Serving both gives
        # p (3 - p) / 2 + p (2 - p) / 2, at most 25/16 at 5/4; serving one at most 9/8.
        (seller((3.0, 2.0)), 1.25, (1.75, 0.75), 25 / 16),
        # Serving the one at 3 who is 19 in 20 of all is better: at 3/2 only she buys.
        (seller((3.0, 1.0), (0.95, 0.05)), 1.5, (1.5, 0.0), 0.95 * 2.25),
        # Must sell 2: the price falls to 1.
        (seller(floor=2.0), 1.0, (2.0, 2.0), 2.0),
    ],
    ids=["smooth", "kink", "two types", "one type served", "floor"],
)
def test_closed_forms(game, offer, choices, payoff):
    best = solve(game)
    assert best.status == BilevelStatus.best_found
    np.testing.assert_allclose(best.profile.offer, [offer], rtol=0, atol=1e-9)
    np.testing.assert_allclose(best.choices[:, 0], choices, rtol=0, atol=1e-9)
    np.testing.assert_allclose(best.payoff, payoff, rtol=1e-10)
    assert np.all((best.user_gap >= 0) & (best.user_gap <= 1e-9))
    assert 0 <= best.violation <= 1e-9
    assert 0 <= best.residual <= 1e-8
    assert 1 <= best.found <= best.starts == 6


@eqx.filter_jit
def slopes(numbers):
    """The derivative of offer and payoff in the buyers' type, the cap and the floor."""

    def answer(numbers):
        kind, cap, floor = numbers
        game = Seller(
            jnp.stack([kind, kind]), jnp.full(2, 0.5), cap, floor, jnp.ones(()), jnp.ones(())
        )
        best = solve_bilevel(game, price(), key=KEY, starts=6, throw=False)
        return jnp.append(best.profile.offer, best.payoff)

    return jax.jacrev(answer)(numbers)


@pytest.mark.parametrize(
    ("cap", "floor", "expected"),
    [
        # Offer a / 2, payoff a^2 / 4.
        (10.0, 0.0, [[0.5, 0, 0], [1.5, 0, 0]]),
        # At the kink: offer a - cap, payoff cap (a - cap).
        (1.0, 0.0, [[1, -1, 0], [1, 1, 0]]),
        # Offer a - floor, payoff floor (a - floor).
        (10.0, 2.0, [[1, 0, -1], [2, 0, -1]]),
    ],
    ids=["smooth", "kink", "floor"],
)
def test_the_best_offer_is_differentiable_kinks_included(cap, floor, expected):
    found = slopes(jnp.array([3.0, cap, floor]))
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-7)


def test_constraints_that_no_offer_meets_are_reported_with_the_least_violation():
    game = seller(cap=1.0, floor=2.0)
    best = solve(game, throw=False)
    assert best.status == BilevelStatus.infeasible
    np.testing.assert_allclose(best.violation, 1.0, rtol=1e-9)
    with pytest.raises(eqx.EquinoxRuntimeError, match="No offer was found whose exact responses"):
        solve(game)


def test_users_without_a_best_choice_are_reported():
    """Without curvature or a cap she takes ever more at any price below her type."""
    game = seller(curvature=0.0, capped=0.0)
    assert solve(game, price(1.0), throw=False).status == BilevelStatus.response_inexact


def test_a_payoff_that_is_not_a_number_is_reported():
    game = seller(mass=(jnp.nan, 0.5))
    assert solve(game, throw=False).status == BilevelStatus.nonfinite


def test_a_search_of_one_step_is_not_called_stationary():
    """What is left are the offers tried; the best of them is feasible and no more."""
    best = solve(seller(), max_steps=1, throw=False)
    assert best.status == BilevelStatus.not_stationary
    assert not best.residual <= 1e-6
    assert 2.0 <= best.payoff <= 2.25 + 1e-12


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"profile": dg.Constant(jnp.zeros(2))}, ValueError, r"the offer has shape \(2,\)"),
        (
            {"profile": dg.ProbabilityTable(jnp.ones((1, 1, 1, 1)))},
            TypeError,
            "the policy is ProbabilityTable",
        ),
        ({"game": StackelbergDuopoly()}, TypeError, "the choice set is Box"),
        ({"starts": 0}, ValueError, "starts is 0"),
        ({"tolerance": 0.0}, ValueError, "tolerance is 0.0"),
    ],
)
def test_bad_arguments_are_named(change, error, message):
    arguments = {"game": seller(), "profile": price(), "key": KEY} | change
    with pytest.raises(error, match=message):
        solve_bilevel(**arguments)


@pytest.mark.campaign
@pytest.mark.parametrize("problem", PROBLEMS, ids=lambda problem: problem.name)
def test_problems_of_the_literature(problem):
    """At the best known value or better, verified by SciPy at the follower's own answer."""
    row = run(problem, 16, grid=False, peer=False)
    assert row.optimum.status == BilevelStatus.best_found
    assert row.verified.gap <= 1e-6
    assert 0 <= row.verified.violation <= 1e-6
    assert row.solved
