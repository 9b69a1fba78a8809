"""A factory for `diffgame search`: duopolies with random costs and qualities."""

import jax
import jax.numpy as jnp

from diffgame import Constant, Logit
from diffgame.games import LogitBertrand


def duopolies(temperature: float):
    """The function that makes one game from its number and key, and how users choose."""

    def make(index, key):
        del index
        cost, quality = jax.random.uniform(key, (2, 2))
        game = LogitBertrand(cost=cost, quality=quality, users=jnp.ones(1))
        return game, Constant(jnp.ones(2))

    return make, Logit(temperature)
