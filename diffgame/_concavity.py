"""Whether users' utilities are concave where `Concave` ends: a check that can only refute it."""

from typing import Any

import jax
import jax.flatten_util as flatten_util
import jax.numpy as jnp
from jaxtyping import Array, Bool

from ._crowd_game import AbstractCrowdGame, Crowded
from ._game import AbstractGame
from ._play import Outcome
from ._response import AbstractResponse, Concave
from ._total import each

_DIRECTIONS = 8
# Curvatures up to this part of the largest second derivative are rounding.
_ROUNDING = 1e-8


def is_convex_somewhere(
    game: AbstractGame, response: AbstractResponse, outcome: Outcome
) -> Bool[Array, ""]:
    """Whether some user's utility bends upwards at her choice, along one of a few directions.

    Examined are 8 random directions (the same for everybody), which for one coordinate is all
    there is. Only for the response `Concave`, whose answer may then be a user's worst choice.
    """
    if not isinstance(response, Concave):
        return jnp.array(False)
    crowd = None if outcome.interaction is None else outcome.interaction.crowd

    def bends(shared: Any, member: Any) -> Bool[Array, ""]:
        (game, crowd), (user, offers, choice) = shared, member
        seen = Crowded(offers, crowd) if isinstance(game, AbstractCrowdGame) else offers
        flat, unravel = flatten_util.ravel_pytree(choice)
        slope = jax.grad(lambda point: game.user_utility(unravel(point), seen, user))
        drawn = jax.random.normal(jax.random.key(0), (_DIRECTIONS, flat.size), flat.dtype)
        moved = jax.vmap(lambda direction: jax.jvp(slope, (flat,), (direction,))[1])(drawn)
        curvature = jnp.sum(drawn * moved, axis=1)
        scale = jnp.max(jnp.abs(moved)) * jnp.sum(jnp.abs(drawn), axis=1)
        return jnp.any(curvature > _ROUNDING * scale)

    members = game.users, outcome.offers, outcome.choices
    return jnp.any(each(bends, (game, crowd), members))
