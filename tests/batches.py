"""A family of games for the tests of batches: small, cheap to compile, and one that can break."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from diffgame import AbstractGame, Automatic, Constant, Logit, Simplex
from diffgame.batch import CertificateSettings, Rung
from diffgame.games import LogitBertrand

LADDER = (Rung("extragradient", Automatic(most_parameters=0), max_steps=200),)
CERTIFICATE = CertificateSettings(starts=1, steps=5)
RESPONSE = Logit(0.5)
RAISES = 7.0


class Fragile(AbstractGame):
    """Logit pricing that raises at a cost of 7."""

    inner: LogitBertrand
    users: Float[Array, " users"]
    mass: Float[Array, " users"]
    choice_set: Simplex

    def __init__(self, cost: Array, quality: Array):
        self.inner = LogitBertrand(cost=cost, quality=quality, users=jnp.ones(1))
        self.users, self.mass = self.inner.users, self.inner.mass
        self.choice_set = self.inner.choice_set

    def user_utility(self, choice, offers, user):
        broken = jnp.any(self.inner.cost == RAISES)
        offers = eqx.error_if(offers, broken, "this game raises")
        return self.inner.user_utility(choice, offers, user)

    def provider_payoffs(self, choice, offers, user):
        return self.inner.provider_payoffs(choice, offers, user)


def make(index, key):
    cost, quality = jax.random.uniform(key, (2, 2))
    return LogitBertrand(cost=cost, quality=quality, users=jnp.ones(1)), Constant(jnp.ones(2))


def stack(cost, quality):
    games = eqx.filter_vmap(Fragile)(cost, quality)
    return games, Constant(jnp.ones(cost.shape))
