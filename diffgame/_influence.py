"""Whether users see what providers do: a check of a game's structure, not of its numbers."""

from typing import Any

import equinox as eqx
import jax
from jax.extend.core import Var
from jaxtyping import PyTree

from ._choice_set import Simplex
from ._crowd_game import AbstractCrowdGame, Crowded
from ._crowd_search import make_offers
from ._game import AbstractGame
from ._nash_game import Passive
from ._policy import AbstractPolicy
from ._response import AbstractResponse
from ._shard import first_user


def check_influence(
    game: AbstractGame, response: AbstractResponse, profile: AbstractPolicy
) -> None:
    """Raise ValueError if utility is no number, or nothing she considers depends on the offers.

    Then no provider moves any user, which is nearly always a slip in `user_utility`. It is meant
    where a user has one option only, or responds by `Passive`.
    """
    if isinstance(response, Passive) or game.choice_set == Simplex(1):
        return
    user = first_user(game.users)
    offers = make_offers(game, profile, user)
    varied, fixed = eqx.partition(offers, eqx.is_inexact_array)

    def considered(varied: PyTree) -> PyTree:
        seen: Any = eqx.combine(varied, fixed)
        if isinstance(game, AbstractCrowdGame):
            seen = Crowded(seen, game.crowd_start())
        choice: Any = game.choice_set.centre()
        parts = (
            game.user_utility(choice, seen, user),
            game.chance(seen, user),
            game.user_constraints(choice, seen, user),
        )
        return eqx.filter(parts, eqx.is_array)

    traced, shapes = jax.make_jaxpr(considered, return_shape=True)(varied)
    if shapes[0].shape != ():
        raise ValueError(
            f"solve: {type(game).__name__}.user_utility returns shape {shapes[0].shape}; it must "
            "be one number for one user: sum over what she chooses from."
        )
    if not _depends(traced.jaxpr):
        raise ValueError(
            f"solve: {type(game).__name__}.user_utility does not depend on the offers, so users do "
            "not respond to providers; use the response Passive if that is meant."
        )


def _depends(jaxpr: Any) -> bool:
    """Whether an output is computed from an input; calls within count as using all they get."""
    reached = set(jaxpr.invars)
    for equation in jaxpr.eqns:
        if any(isinstance(var, Var) and var in reached for var in equation.invars):
            reached.update(equation.outvars)
    return any(isinstance(var, Var) and var in reached for var in jaxpr.outvars)
