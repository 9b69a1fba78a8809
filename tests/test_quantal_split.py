"""Optimal splits of two states: closed forms, proved values, derivatives, cold users."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import brentq

from diffgame.market._quantal_split import optimal_split

from .quantal import CONVICTION, JUDGE, persuade, random_users

split = jax.jit(optimal_split)


def report(prior, temperature):
    found = optimal_split(prior, JUDGE, CONVICTION, temperature)
    return jnp.append(found.posteriors, found.value)


slopes = jax.jit(jax.jacrev(report, argnums=(0, 1)))
bend = jax.jit(jax.jacfwd(jax.jacfwd(report, argnums=1), argnums=1))


def test_the_logit_judge_of_t7():
    found = split(0.3, JUDGE, CONVICTION, 0.1)
    np.testing.assert_allclose(found.posteriors, [0, 0.621845], rtol=0, atol=1e-6)
    assert found.value == pytest.approx(0.443670, abs=1e-6)
    assert found.splits


@pytest.mark.parametrize("temperature", [0.03, 0.1, 0.3])
@pytest.mark.parametrize("prior", [0.1, 0.3, 0.45])
def test_the_judge_is_split_at_the_tangent_from_certain_innocence(temperature, prior):
    def convicts(p):
        return 1 / (1 + np.exp(-(2 * p - 1) / temperature))

    def tangent(p):
        rate = convicts(p)
        return 2 * rate * (1 - rate) / temperature * p - (rate - convicts(0))

    # The payoff is convex up to 1/2 and concave beyond.
    high = brentq(tangent, 0.5, 1, xtol=1e-15) if tangent(1) < 0 else 1.0
    found = split(prior, JUDGE, CONVICTION, temperature)
    np.testing.assert_allclose(found.posteriors, [0, high], rtol=0, atol=1e-9)
    weight = prior / high
    value = (1 - weight) * convicts(0) + weight * convicts(high)
    assert found.value == pytest.approx(value, abs=1e-12)
    np.testing.assert_allclose(found.weights, [1 - weight, weight], rtol=0, atol=1e-9)


def test_nothing_is_said_where_the_payoff_is_concave():
    found = split(0.9, JUDGE, CONVICTION, 0.1)
    assert not found.splits
    assert found.posteriors.tolist() == [0.9, 0.9]
    assert found.value == pytest.approx(1 / (1 + np.exp(-8)), rel=1e-12)
    slope = slopes(0.9, 0.1)[0][2]
    assert slope == pytest.approx(20 * np.exp(-8) / (1 + np.exp(-8)) ** 2, rel=1e-9)


def test_splits_attain_the_proved_value_on_random_users():
    users = random_users(13, 32, 2)
    found = jax.jit(jax.vmap(optimal_split))(users[0][:, 1], *users[1:])
    proved = persuade(*users)
    np.testing.assert_allclose(found.value, proved.upper, rtol=0, atol=1e-8)
    assert np.sum(found.splits) >= 8
    assert np.sum(np.all((found.posteriors > 0) & (found.posteriors < 1), axis=1)) >= 3


@pytest.mark.parametrize("prior", [0.3, 0.1])
def test_splits_are_differentiable_in_prior_and_temperature(prior):
    step, at = 1e-5, np.array([prior, 0.1])
    ours = slopes(*at)
    for n in range(2):
        move = step * np.eye(2)[n]
        ends = [split(p, JUDGE, CONVICTION, t) for p, t in (at + move, at - move)]
        high, low = (np.append(end.posteriors, end.value) for end in ends)
        np.testing.assert_allclose(ours[n], (high - low) / (2 * step), rtol=0, atol=1e-6)
    assert abs(ours[1][1]) > 0.1
    above, below = (slopes(prior, 0.1 + move)[1] for move in (step, -step))
    curved = bend(prior, 0.1)
    np.testing.assert_allclose(curved, (above - below) / (2 * step), rtol=1e-5, atol=1e-7)
    assert abs(curved[2]) > 0.1


@pytest.mark.parametrize("prior", [0.1, 0.3, 0.5, 0.7])
def test_cold_judges_are_the_exact_judge_of_t1(prior):
    values = [float(split(prior, JUDGE, CONVICTION, t).value) for t in (0.1, 0.01, 0.001)]
    errors = min(1, 2 * prior) - np.array(values)
    assert np.all(errors >= 0)
    assert errors[0] > errors[1] >= errors[2]
    assert errors[2] <= 0.01
