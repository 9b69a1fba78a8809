"""Multi-product price competition: closed forms, pyblp, and what the first-order conditions say."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special

import diffgame as dg
from benchmarks import pricing
from diffgame.games import LogitBertrand, MarkupIteration, MultiProductBertrand

LOGIT = dg.Logit(1.0)
# Two firms, the first with two products; the last product is off the market.
OWNER = jnp.array([0, 1, 0, -1])
COST = jnp.array([0.5, 0.3, 0.8, 0.1])
QUALITY = jnp.array([[1.0, 0.5, 2.0, 9.0], [0.3, 2.0, 1.5, 9.0], [2.5, 1.0, 0.2, 9.0]])
SENSITIVITY = jnp.array([1.0, 2.0, 3.0])
MASS = jnp.array([0.5, 1.0, 1.5])


def mixed(cost=COST, owner=OWNER) -> MultiProductBertrand:
    return MultiProductBertrand(cost, owner, QUALITY, SENSITIVITY, MASS, providers=2, slots=3)


def plain(owner, sensitivity: float) -> MultiProductBertrand:
    """All buyers alike, in the shapes of the mixed logit, so that one program serves both."""
    same = jnp.broadcast_to(QUALITY[:1], QUALITY.shape)
    sensitivities = jnp.full(3, sensitivity)
    return MultiProductBertrand(COST, owner, same, sensitivities, MASS, providers=2, slots=3)


@eqx.filter_jit
def find(game: MultiProductBertrand, solver: dg.AbstractSolver) -> dg.Equilibrium:
    return dg.solve(game, LOGIT, game.post(game.cost), solver, tolerance=1e-13)


def prices(game: MultiProductBertrand, solver: dg.AbstractSolver | None = None):
    found = find(game, MarkupIteration() if solver is None else solver)
    return game.prices(found.profile.offer), found.outcome.choices


def test_prices_satisfy_the_first_order_conditions_of_joint_profits():
    game = mixed()
    price, choices = prices(game)
    bought, weight = choices[:, :-1], MASS * SENSITIVITY
    for firm in range(2):
        markup = jnp.where(firm == OWNER, price - COST, 0)
        lost = (weight @ bought) * markup - bought.T @ (weight * (bought @ markup))
        np.testing.assert_allclose((MASS @ bought - lost)[firm == OWNER], 0, atol=1e-12)
    # Nobody buys what is not on the market, however good it is.
    np.testing.assert_array_equal(choices[:, 3], 0)
    np.testing.assert_array_equal(price[3], COST[3])


def test_plain_logit_firms_charge_one_markup_for_all_their_products():
    game = plain(OWNER, 1.7)
    price, choices = prices(game)
    share = choices[0, :3]
    expected = 1 / (1.7 * (1 - jnp.array([share[0] + share[2], share[1], share[0] + share[2]])))
    np.testing.assert_allclose((price - COST)[:3], expected, rtol=1e-12)


def test_a_logit_monopolist_of_three_products_by_lamberts_function():
    """Markup = (1 + W(sum_j exp(quality_j - s c_j - 1))) / s for every product."""
    game = plain(jnp.array([0, 0, 0, -1]), 1.7)
    price, _ = prices(game)
    inside = np.sum(np.exp(QUALITY[0, :3] - 1.7 * COST[:3] - 1))
    expected = (1 + scipy.special.lambertw(inside).real) / 1.7
    np.testing.assert_allclose((price - COST)[:3], expected, rtol=1e-12)


def test_markup_iteration_and_automatic_agree():
    game = mixed()
    np.testing.assert_allclose(prices(game)[0], prices(game, dg.Automatic())[0], rtol=1e-12)


def test_one_product_per_firm_is_logit_bertrand():
    sensitivity, quality = jnp.array([1.0, 2.5]), jnp.array([1.0, 1.5])
    single = LogitBertrand(COST[:2], quality, sensitivity)
    twice = jnp.tile(quality[None], (2, 1))
    game = MultiProductBertrand(COST[:2], jnp.array([0, 1]), twice, sensitivity)
    offers = jnp.array([1.2, 0.9])
    expected = dg.play(single, LOGIT, dg.Constant(offers))
    outcome = dg.play(game, LOGIT, game.post(offers))
    np.testing.assert_allclose(outcome.payoffs, expected.payoffs, rtol=1e-14)
    np.testing.assert_allclose(outcome.utilities, expected.utilities, rtol=1e-14)


def test_a_batch_gives_what_its_games_give_one_by_one():
    owners = jnp.array([[0, 1, 0, -1], [0, 0, 1, -1], [1, -1, 0, 1]])
    costs = COST[None] + jnp.array([[0.0], [0.3], [-0.2]])
    games = eqx.filter_vmap(mixed)(costs, owners)
    together = eqx.filter_vmap(lambda game: prices(game)[0])(games)
    alone = [prices(mixed(cost, owner))[0] for cost, owner in zip(costs, owners, strict=True)]
    np.testing.assert_allclose(together, jnp.stack(alone), rtol=1e-12)


def test_pass_through_against_finite_differences():
    def price(cost):
        return prices(mixed(cost))[0]

    step = 1e-5
    slopes = jax.jit(jax.jacrev(price))(COST)
    moved = step * jnp.eye(4)[:3]
    expected = [(price(COST + move) - price(COST - move)) / (2 * step) for move in moved]
    np.testing.assert_allclose(slopes[:3, :3], jnp.stack(expected, axis=1)[:3], atol=1e-8)
    # A firm passes most of a product's cost on to that product's buyers.
    assert jnp.all(jnp.diagonal(slopes)[:3] > 0.5)


def test_implied_costs_are_the_costs_at_an_equilibrium():
    game = mixed()
    price, _ = prices(game)
    cost = game.implied_cost(LOGIT, game.arrange(price))
    np.testing.assert_allclose(cost, COST, rtol=1e-11)


def test_consumer_surplus_falls_by_what_is_bought():
    """Its derivative in a price is minus the demand, and without products it is zero."""
    game, price = mixed(), COST + 0.7
    slopes = jax.jacrev(lambda price: game.consumer_surplus(LOGIT, game.arrange(price)))(price)
    bought = dg.play(game, LOGIT, game.post(price)).choices[:, :-1]
    np.testing.assert_allclose(slopes, -bought, atol=1e-15)
    value = np.exp(QUALITY - SENSITIVITY[:, None] * price[None])[:, :3].sum(axis=1)
    surplus = game.consumer_surplus(LOGIT, game.arrange(price))
    np.testing.assert_allclose(surplus, np.log(1 + value) / SENSITIVITY, rtol=1e-14)


def test_a_merger_raises_the_prices_of_those_who_merge_and_is_certified():
    game = plain(OWNER, 1.7)
    before, _ = prices(game)
    merged = game.merge(0, 1, slots=3)
    np.testing.assert_array_equal(merged.owner, [0, 0, 0, -1])
    found = find(merged, MarkupIteration())
    after = merged.prices(found.profile.offer)
    assert jnp.all(after[:3] > before[:3])
    found = dg.certify(merged, LOGIT, found, key=jax.random.key(0), starts=2)
    assert found.status == dg.Status.certified
    assert found.certificate.second_order[0] < -1e-3
    had = game.consumer_surplus(LOGIT, game.arrange(before))
    assert jnp.all(merged.consumer_surplus(LOGIT, found.profile.offer) < had)
    # The firm that is left without products has nothing to choose.
    np.testing.assert_array_equal(found.certificate.deviation_gains[1], 0)
    assert found.certificate.second_order[1] == -jnp.inf


@pytest.mark.parametrize("owner", [[0, 1, 2, -1], [0, -2, 0, 1], [1, 1, 1, 1]])
def test_owners_that_do_not_fit_are_refused(owner: list[int]):
    with pytest.raises(ValueError, match=r"raise providers or slots"):
        mixed(owner=jnp.array(owner))
    with pytest.raises(eqx.EquinoxRuntimeError, match=r"raise providers or slots"):
        jax.block_until_ready(eqx.filter_jit(lambda owner: mixed(owner=owner))(jnp.array(owner)))


def test_firms_are_counted_unless_traced():
    game = MultiProductBertrand(COST, jnp.array([2, 0, 2, -1]), QUALITY, SENSITIVITY)
    assert (game.providers, game.slots) == (3, 2)
    with pytest.raises(ValueError, match="give providers and slots"):
        jax.jit(lambda owner: MultiProductBertrand(COST, owner, QUALITY, SENSITIVITY).cost)(OWNER)


def test_markup_iteration_says_which_games_it_serves():
    game = LogitBertrand(jnp.zeros(2), jnp.ones(2), jnp.ones(1))
    with pytest.raises(TypeError, match="MultiProductBertrand with Logit and Constant only"):
        dg.solve(game, LOGIT, dg.Constant(jnp.ones(2)), MarkupIteration())


@pytest.mark.parametrize("number", [1, 3], ids=["plain", "random-coefficients"])
def test_prices_are_those_of_pyblp(number: int):
    """Two cities of the cereal data: from the costs, and after a merger."""
    demand = pricing.DEMANDS[number]
    (compared,), _ = pricing.compare([demand], count=2)
    for case in compared.cases:
        assert case.peer_converged
        assert case.solved == 2
        np.testing.assert_array_less(case.difference, demand.tolerance)
    # The costs were made so that observed prices are an equilibrium; here it is the one found.
    np.testing.assert_array_less(compared.observed, demand.tolerance)
