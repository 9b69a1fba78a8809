"""Games with 1,000 users to spread over devices, and what is found of them, as bytes."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax

from diffgame import (
    Concave,
    Constant,
    GradientPlay,
    Logit,
    certify,
    provider_payoffs,
    pseudogradient,
    solve,
)
from diffgame.games import Adoption, LinearBertrand, MultiProductBertrand

COUNT, CHUNK = 1000, 7
CLIMB = GradientPlay(optax.sgd(1.0))


def pricing():
    """Two firms, three products, buyers who differ in taste, price sensitivity and mass."""
    rng = np.random.default_rng(0)
    quality, sensitivity = 2 + rng.normal(size=(COUNT, 3)), np.exp(0.3 * rng.normal(size=COUNT))
    mass = jnp.asarray(rng.uniform(size=COUNT) / COUNT)
    owner = jnp.array([0, 0, 1])
    game = MultiProductBertrand(
        jnp.ones(3), owner, jnp.asarray(quality), jnp.asarray(sensitivity), mass
    )
    return game, Logit(1.0), game.post(jnp.full(3, 1.5))


def linear():
    """Users who divide their spending on a convex set."""
    taste = jnp.asarray(np.random.default_rng(1).uniform(0.5, 1.5, (COUNT, 2)))
    substitution = jnp.array([[1.0, 0.5], [0.5, 1.0]])
    return LinearBertrand(jnp.zeros(2), substitution, taste), Concave(), Constant(jnp.full(2, 0.3))


def adoption():
    """Users who gain from each other."""
    taste = jnp.asarray(np.random.default_rng(2).normal(size=COUNT))
    game = Adoption(effect=jnp.array(1.0), users=taste)
    return game, Logit(1.0), Constant(jnp.array([1.0]))


GAMES = {"pricing": pricing, "linear": linear, "adoption": adoption}


@eqx.filter_jit
def value_and_gradient(game, response, profile):
    value = provider_payoffs(game, response, profile, chunk=CHUNK)
    return value, pseudogradient(game, response, profile, chunk=CHUNK).offer


def climb(game, response, profile):
    """Where a short search of first order ends, with what every user does there."""
    found = solve(game, response, profile, CLIMB, max_steps=20, chunk=CHUNK, throw=False)
    outcome = found.outcome
    users = np.asarray(outcome.utilities)[:COUNT], np.asarray(outcome.choices)[:COUNT]
    return found.profile.offer, found.residual, outcome.payoffs, *users


def certified(game, response, profile):
    """The equilibrium of the default solver, with its certificate."""
    found = solve(game, response, profile, tolerance=1e-10, chunk=CHUNK)
    key = jax.random.key(0)
    found = certify(game, response, found, key=key, starts=2, steps=20, chunk=CHUNK)
    end = found.certificate
    assert end is not None
    parts = found.profile.offer, found.residual, found.steps, found.outcome.payoffs
    return (
        *parts,
        end.residual,
        end.deviation_gains,
        end.second_order,
        np.asarray(end.user_gap)[:COUNT],
    )


def in_bytes(arrays) -> list[bytes]:
    return [np.asarray(array).tobytes() for array in arrays]
