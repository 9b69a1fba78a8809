"""Adoption with network effects: the tipping point found, reported, and not smoothed over."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import diffgame as dg
from diffgame._crowd_equilibria import crowd_equilibria
from diffgame._interaction import CrowdStatus
from diffgame.games._adoption import Adoption

EFFECT, TEMPERATURE = 3.0, 0.5
GAME = Adoption(jnp.array(EFFECT), jnp.zeros(1))
LOGIT = dg.Logit(jnp.array(TEMPERATURE))
LOW, HIGH = (float(price) for price in GAME.tipping_prices(jnp.array(TEMPERATURE)))


@eqx.filter_jit
def adoption(price):
    return dg.play(GAME, LOGIT, dg.Constant(price[None])).interaction


def price_at(crowd):
    """The price at which a crowd is its own response, solved for the price."""
    return EFFECT * crowd - TEMPERATURE * np.log(crowd / (1 - crowd))


def test_tipping_prices_are_where_the_price_turns():
    crowd = np.linspace(0.001, 0.999, 200_001)
    price = price_at(crowd)
    middle = (crowd > 0.1) & (crowd < 0.9)
    np.testing.assert_allclose([price[middle].min(), price[middle].max()], [LOW, HIGH], atol=1e-8)
    assert jnp.isnan(GAME.tipping_prices(jnp.array(0.8))).all()


@pytest.mark.parametrize("distance", [1e-1, 1e-3, 1e-6])
def test_adoption_takes_off_at_the_tipping_price(distance: float):
    before, after = adoption(jnp.array(LOW + distance)), adoption(jnp.array(LOW - distance))
    fold = (1 - np.sqrt(1 - 4 * TEMPERATURE / EFFECT)) / 2
    assert before.crowd < fold < 0.9 < after.crowd
    np.testing.assert_allclose(price_at(np.asarray(before.crowd)), LOW + distance, atol=1e-9)
    np.testing.assert_allclose(price_at(np.asarray(after.crowd)), LOW - distance, atol=1e-9)


def test_the_status_says_that_a_tipping_point_is_near():
    far, near = adoption(jnp.array(1.5)), adoption(jnp.array(LOW + 1e-6))
    assert far.status == CrowdStatus.isolated
    assert near.status == CrowdStatus.not_isolated
    for found in (far, near):
        crowd = np.asarray(found.crowd)
        slope = EFFECT / TEMPERATURE * crowd * (1 - crowd)
        np.testing.assert_allclose(found.isolation, 1 - slope, rtol=1e-9, atol=1e-12)
        np.testing.assert_allclose(found.spectral_radius, slope, rtol=1e-9)
        assert found.stable


def test_three_crowds_are_listed_and_the_selected_one_is_first():
    price = dg.Constant(jnp.array([1.45]))
    found = crowd_equilibria(GAME, LOGIT, price, key=jax.random.key(0), starts=16)
    crowds = np.array([row.crowd for row in found])
    np.testing.assert_allclose(price_at(crowds), 1.45, atol=1e-9)
    assert len(found) == 3
    assert np.all(np.diff(crowds) > 0)
    assert [bool(row.stable) for row in found] == [True, False, True]
    np.testing.assert_allclose(crowds[0], adoption(jnp.array(1.45)).crowd, rtol=1e-10)
    radius = EFFECT / TEMPERATURE * crowds * (1 - crowds)
    np.testing.assert_allclose([row.spectral_radius for row in found], radius, rtol=1e-8)
    assert [row.status == CrowdStatus.unstable for row in found] == [False, True, False]
    # Those who have it already start above the middle crowd: the other one is selected.
    many = eqx.tree_at(lambda game: game.adopters, GAME, jnp.array(crowds[1] + 0.01))
    first, *_ = crowd_equilibria(many, LOGIT, price, key=jax.random.key(0), starts=16)
    np.testing.assert_allclose(first.crowd, crowds[2], rtol=1e-10)


@pytest.mark.parametrize("price", [LOW - 0.05, HIGH + 0.05], ids=["cheap", "dear"])
def test_outside_the_tipping_prices_there_is_one_crowd(price: float):
    profile = dg.Constant(jnp.array([price]))
    found = crowd_equilibria(GAME, LOGIT, profile, key=jax.random.key(0), starts=16)
    assert len(found) == 1
    np.testing.assert_allclose(price_at(np.asarray(found[0].crowd)), price, atol=1e-9)


def test_the_seller_sees_the_crowd_react():
    """Demand x(p) solves p = effect x - temperature logit(x), so x' and x'' are known."""

    def profit(price):
        return dg.provider_payoffs(GAME, LOGIT, dg.Constant(price[None]))[0]

    @jax.jit
    def derivatives(price):
        return jax.grad(profit)(price), jax.grad(jax.grad(profit))(price)

    price = jnp.array(1.5)
    x = np.asarray(adoption(price).crowd)
    first = 1 / (EFFECT - TEMPERATURE / (x * (1 - x)))
    second = -(TEMPERATURE * (1 - 2 * x) / (x * (1 - x)) ** 2) * first**3
    found = derivatives(price)
    np.testing.assert_allclose(found[0], x + 1.5 * first, rtol=1e-9)
    np.testing.assert_allclose(found[1], 2 * first + 1.5 * second, rtol=1e-8)
