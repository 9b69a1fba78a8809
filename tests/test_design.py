"""Design: known optimal policies, known jumps between equilibria, and honest statuses."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jaxtyping import Array, Float

from benchmarks import design as comparison
from diffgame._constraints import Constraints
from diffgame._design import Design, DesignStatus, design
from diffgame._equilibrium import Status
from diffgame._joint_response import Wardrop
from diffgame._nash_game import AbstractNashGame, Passive
from diffgame._newton import Newton
from diffgame._policy import Constant
from diffgame._response import Concave, Logit
from diffgame._solve import solve
from diffgame.games import Congestion, Cournot, LogitBertrand
from diffgame.market import Market
from diffgame.market._rule import Rule, RuleStatus, cheapest_rule

from .designs import is_stationary

KEY = jax.random.key(0)


# Cournot: a subsidy per unit.


def subsidised(subsidy: Float[Array, ""]) -> Cournot:
    return Cournot(cost=0.2 - subsidy * jnp.ones(2))


def surplus(equilibrium, subsidy):
    supply, found = equilibrium.profile.offer, equilibrium.outcome
    return jnp.sum(found.utilities) + jnp.sum(found.payoffs) - subsidy * jnp.sum(supply)


@pytest.fixture(scope="module")
def cournot() -> Design:
    start = Constant(jnp.zeros(2))
    return design(surplus, jnp.zeros(()), subsidised, Concave(), start, key=KEY, starts=3)


def test_subsidy_in_cournot_restores_price_equal_to_marginal_cost(cournot: Design):
    assert is_stationary(cournot)
    # With n firms the subsidy is (a - c) / n, and welfare is that of perfect competition.
    assert abs(cournot.parameters - 0.4) <= 1e-9
    price = 1 - jnp.sum(cournot.equilibrium.profile.offer)
    assert abs(price - 0.2) <= 1e-9
    assert abs(cournot.objective - 0.8**2 / 2) <= 1e-12
    assert all(attempt.solves <= 6 for attempt in cournot.attempts)


def test_gradients_of_every_step_are_those_of_finite_differences(cournot: Design):
    @eqx.filter_jit
    def value(subsidy):
        game, start = subsidised(subsidy), Constant(jnp.zeros(2))
        found = solve(game, Concave(), start, tolerance=1e-12)
        return surplus(found, subsidy)

    for step in cournot.answer.steps:
        h = 1e-4
        difference = (value(step.parameters + h) - value(step.parameters - h)) / (2 * h)
        assert abs(step.gradient - difference) <= 1e-8
        assert abs(step.objective - value(step.parameters)) <= 1e-10


def test_every_attempt_of_a_batch_is_recorded_and_the_best_is_returned(cournot: Design):
    assert len(cournot.attempts) == 3
    assert len({float(attempt.steps[0].parameters) for attempt in cournot.attempts}) == 3
    assert cournot.objective == max(attempt.objective for attempt in cournot.attempts)
    assert "3 starts, 3 of them" in cournot.scope


# Traffic: a toll on the congested road of Pigou's network.


def tolled(toll: Float[Array, ""]) -> Congestion:
    game = Congestion.pigou()
    return eqx.tree_at(lambda game: game.free, game, game.free + toll * jnp.array([1.0, 0.0]))


def time_saved(equilibrium, toll):
    flow = equilibrium.outcome.interaction.crowd
    # The toll counts as time in the game, but costs society nothing.
    return toll * flow[0] - tolled(toll).total_time(flow)


NOBODY = Constant(jnp.zeros((1, 1)), 0.0, 0.0)


def welfare_of_noisy_users(equilibrium, toll):
    """Minus total time, plus what variety is worth to users of temperature 1/4."""
    choice = equilibrium.outcome.choices[0]
    return time_saved(equilibrium, toll) - jnp.sum(choice * jnp.log(choice)) / 4


@pytest.mark.campaign
def test_toll_for_noisy_users_is_the_marginal_cost_of_congestion():
    found = design(
        welfare_of_noisy_users,
        jnp.array(0.1),
        tolled,
        Logit(0.25),
        NOBODY,
        Newton(),
        key=KEY,
        starts=1,
    )
    assert is_stationary(found)
    # At flow x one more user costs the others x * dt/dx = x.
    flow = found.equilibrium.outcome.choices[0, 0]
    assert abs(found.parameters - flow) <= 1e-8
    # No other toll is better, on a grid of logit equilibria found by iteration.
    tolls, x = np.linspace(0, 1, 1001), 0.5
    for _ in range(300):
        x = (x + 1 / (1 + np.exp((x + tolls - 1) / 0.25))) / 2
    entropy = -(x * np.log(x) + (1 - x) * np.log(1 - x))
    best = np.max(-(x**2) - (1 - x) + entropy / 4)
    assert 0 <= found.objective - best <= 1e-6


@pytest.mark.campaign
def test_toll_on_pigous_road_is_the_marginal_cost_of_congestion():
    found = design(
        time_saved, jnp.array(0.1), tolled, Wardrop(), NOBODY, key=KEY, starts=1, upper=0.9
    )
    assert is_stationary(found)
    assert abs(found.parameters - 0.5) <= 1e-8
    assert abs(found.objective + 0.75) <= 1e-12


# Logit Bertrand: taxes that must raise a revenue.

COST, QUALITY, REVENUE = np.array([0.5, 0.8]), np.array([2.0, 2.5]), 0.2


def taxed(tax: Float[Array, " providers"]) -> LogitBertrand:
    return LogitBertrand(jnp.asarray(COST) + tax, jnp.asarray(QUALITY), jnp.ones(1))


def private_surplus(equilibrium, tax):
    del tax
    prices, found = equilibrium.profile.offer, equilibrium.outcome
    return jnp.log1p(jnp.sum(jnp.exp(QUALITY - prices))) + jnp.sum(found.payoffs)


def revenue_raised(equilibrium, tax):
    sales = equilibrium.outcome.choices[0, :2]
    return Constraints(inequalities=(REVENUE - jnp.sum(tax * sales))[None])


def taxes_by_grid(low: np.ndarray, high: np.ndarray, points: int) -> tuple[np.ndarray, float]:
    """The best taxes on a grid, equilibria by iterating the markup equation; no derivative."""
    axes = [np.linspace(low[i], high[i], points) for i in range(2)]
    tax = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1)
    prices = COST + tax + 1
    for _ in range(300):
        weights = np.exp(QUALITY - prices)
        share = weights / (1 + weights.sum(-1, keepdims=True))
        prices = 0.5 * prices + 0.5 * (COST + tax + 1 / (1 - share))
    value = np.log1p(weights.sum(-1)) + ((prices - COST - tax) * share).sum(-1)
    value = np.where((tax * share).sum(-1) >= REVENUE, value, -np.inf)
    best = np.unravel_index(np.argmax(value), value.shape)
    return tax[best], float(value[best])


def test_taxes_that_raise_a_revenue_beat_a_fine_grid_and_agree_with_it():
    found = design(
        private_surplus,
        jnp.full(2, 0.1),
        taxed,
        Logit(1.0),
        Constant(jnp.ones(2), 0.0, 20.0),
        Newton(),
        key=KEY,
        constraints=revenue_raised,
        lower=-1.0,
        upper=2.0,
        starts=2,
    )
    assert is_stationary(found)
    coarse, _ = taxes_by_grid(np.full(2, -1.0), np.full(2, 2.0), 301)
    best, value = taxes_by_grid(coarse - 0.02, coarse + 0.02, 401)
    # Next to the optimum, a spacing of 1e-4 loses at most the price of 1e-4 in both taxes.
    price = float(found.answer.multipliers.inequalities[0])
    assert price > 0
    assert value <= found.objective + 1e-9
    assert found.objective - value <= 2 * price * 1e-4
    np.testing.assert_allclose(found.parameters, best, atol=1e-2)


# Statuses and errors.


class Alone(AbstractNashGame):
    """One player who does what it is told."""

    order: Float[Array, ""]

    def payoffs(self, offers):
        return -((offers - self.order) ** 2)


def obeyed(equilibrium, order):
    return -((equilibrium.profile.offer[0] - order / 2) ** 2) - order


def impossible(equilibrium, order):
    """Never met: at least 1 apart."""
    return Constraints(inequalities=1 + (equilibrium.profile.offer - order) ** 2 + order[None] ** 2)


def run_alone(**settings) -> Design:
    start = Constant(jnp.zeros(1))
    return design(obeyed, jnp.array(1.0), Alone, Passive(), start, key=KEY, starts=1, **settings)


def test_bound_of_a_parameter_holds_at_the_answer():
    # -(order / 2)^2 - order is largest at -2.
    assert is_stationary(bounded := run_alone(lower=-1.0, upper=2.0))
    assert bounded.parameters == -1
    assert run_alone(lower=-1.0, upper=2.0, max_steps=1).status == DesignStatus.max_steps


def test_constraints_that_cannot_be_met_are_reported():
    assert run_alone(constraints=impossible).status == DesignStatus.infeasible


class Restless(AbstractNashGame):
    """One player for whom being where it is stationary is worst."""

    order: Float[Array, ""]

    def payoffs(self, offers):
        return (offers - self.order) ** 2


def test_equilibrium_that_is_stationary_and_no_maximum_is_recorded_at_every_step():
    found = design(
        obeyed, jnp.array(1.0), Restless, Passive(), Constant(jnp.zeros(1)), key=KEY, starts=1
    )
    assert found.status == DesignStatus.inner_uncertified
    assert all(step.equilibrium.status == Status.improvable for step in found.answer.steps)
    assert found.answer.residual <= 1e-8


def test_inner_failure_at_the_start_is_reported_without_a_certificate():
    found = run_alone(lower=-1.0, upper=2.0, inner_steps=1, inner_tolerance=1e-300)
    assert found.status == DesignStatus.inner_failed
    assert found.answer.steps == ()
    assert found.equilibrium.certificate is None


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"tolerance": 0.0}, "tolerance is 0.0; give a positive number"),
        ({"max_steps": 0}, "max_steps is 0; it must be at least 1"),
        ({"lower": 1.0, "upper": 0.0}, "bound 0 has lower 1.0 and upper 0.0"),
        ({"lower": jnp.zeros(3)}, "lower does not fit the parameters"),
    ],
)
def test_settings_out_of_range_are_named(settings: dict, said: str):
    with pytest.raises(ValueError, match=said):
        run_alone(**settings)


# A market: which share of the users' utility must providers take on?

AGREE = jnp.stack([jnp.eye(2)] * 2)


def mixed(share: Float[Array, ""]) -> Market:
    hostile = jnp.einsum("pu,as->puas", jnp.array([[1.0, -2.0], [-2.0, 1.0]]), jnp.eye(2))
    objective = (1 - share) * hostile + share * AGREE[None]
    everybody = jnp.zeros(2, int)
    return Market(jnp.full(2, 0.5), AGREE, objective, jnp.ones(2), everybody, observations=1)


def share_itself(share):
    return share


def cheapest_share(start: float) -> Rule:
    return cheapest_rule(
        share_itself,
        mixed,
        jnp.array(start),
        largest_loss=0.1,
        delta=0.01,
        lower=0.0,
        upper=1.0,
    )


def test_cheapest_rule_bounds_the_loss_in_every_equilibrium():
    found = cheapest_share(0.9)
    assert found.status == RuleStatus.cheapest_nearby
    # At hostility k' = 2 - 3 share the bound is 2 delta / (1 - k').
    assert abs(found.parameters - 0.4) <= 1e-7
    assert abs(found.price - 2 * 0.01 / 0.1**2 / 3) <= 1e-5
    assert found.worst_case.total.certified
    assert abs(found.worst_case.total.loss - 0.1) <= 2e-8
    assert found.residual <= 1e-8


def test_rule_that_restrains_nobody_is_no_start():
    assert cheapest_share(0.0).status == RuleStatus.not_enough
    with pytest.raises(ValueError, match="delta is 0"):
        cheapest_rule(share_itself, mixed, jnp.array(0.9), largest_loss=0.1, delta=0.0)


# nashopt's examples; `python -m benchmarks.design` runs both sides.

NASHOPT = {
    "game_design_1": 3.463772072e-11,
    "game_design_2, any p": 0.0,
    "game_design_2, sum": -0.5354769725,
    "stackelberg": 0.5637195921,
}


@pytest.mark.campaign
@pytest.mark.parametrize("name", NASHOPT)
def test_nashopts_examples_are_solved_at_least_as_well(name: str):
    (example,) = [example for example in comparison.examples() if example.name == name]
    found, _, _ = comparison.ours(example, starts=1)
    assert is_stationary(found)
    certificate = found.equilibrium.certificate
    assert certificate.residual <= 1e-8
    assert jnp.max(certificate.deviation_gains) <= 1e-8
    assert -found.objective <= NASHOPT[name]
