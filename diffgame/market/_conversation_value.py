"""What each provider is worth to the users of a conversation."""

import equinox as eqx
import jax
from jaxtyping import Array, Float

from .._play import play
from .._policy import AbstractPolicy
from .._response import AbstractResponse
from ._conversation import Conversation


def provider_values(
    game: Conversation, response: AbstractResponse, profile: AbstractPolicy
) -> Float[Array, "users providers"]:
    """What each provider is worth to each user: her utility when it is the only one.

    Before she learns her private value, whatever the timing.

    >>> import jax.numpy as jnp
    >>> from diffgame import Argmax
    >>> from diffgame.market import Conversation, Market, Protocol
    >>> from diffgame.market import provider_values, revealing_conversation
    >>> coin = Market(jnp.full(2, 0.5), jnp.eye(2)[None], jnp.zeros((2, 1, 2, 2)), jnp.ones(1))
    >>> game = Conversation.from_market(coin, Protocol(1, 1, 2))
    >>> print(provider_values(game, Argmax(), revealing_conversation(game)))
    [[1. 1.]]
    """
    lone = eqx.tree_at(lambda game: game.objective, game, game.objective[:1])

    def alone(policy):
        single = jax.tree.map(lambda leaf: leaf[None] if eqx.is_array(leaf) else leaf, policy)
        return play(lone, response, single).utilities

    return eqx.filter_vmap(alone, out_axes=1)(profile)
