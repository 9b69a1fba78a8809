"""A provider without competitors: one experiment, one menu, or a menu for each user."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ._best_response import Outside, persuade
from ._menu import MenuResponse, Stakes, respond, stakes_of
from ._menu_program import TypedUsers, typed_users


class MonopolyValues(eqx.Module):
    """What a provider without competitors gets, between `lower` and `upper`.

    Three numbers each: one public experiment for all, one menu for all, a menu for each user.
    """

    lower: Float[Array, "3"]
    upper: Float[Array, "3"]


def _persuade(typed: TypedUsers, stakes: Stakes) -> MenuResponse:
    """One menu for all pairs: a single unit that takes anything, a single set to hold."""
    pairs = len(typed.utility)
    everybody = jnp.ones((1, pairs), bool)
    share = everybody / pairs
    unit = TypedUsers(
        typed.belief, typed.utility, share, everybody, typed.playable, jnp.zeros(1), jnp.ones(1)
    )
    alone = Outside(-jnp.ones(1), jnp.zeros(1), jnp.array([True]), jnp.array(False))
    return respond(unit, stakes, alone, jnp.ones((1, 1), bool), 0.0)


@eqx.filter_jit
def persuade_by_menu(
    joint: Float[Array, "users types states"],
    utility: Float[Array, "users types actions states"],
    objective: Float[Array, "users types actions states"],
    mass: Float[Array, " users"],
) -> MenuResponse:
    """The best menu of a provider without competitors; arrays as in `menu_best_response`.

    A single linear program, for any number of pairs; `captured` has one entry, everybody.

    >>> import jax.numpy as jnp
    >>> from diffgame.market import persuade_by_menu
    >>> joint, judge = jnp.array([[[0.7, 0.3]]]), jnp.eye(2)[None, None]
    >>> conviction = jnp.array([[[[0.0, 0.0], [1.0, 1.0]]]])
    >>> print(persuade_by_menu(joint, judge, conviction, jnp.ones(1)).lower.round(6))
    0.6
    """
    return _persuade(typed_users(joint, utility, "after"), stakes_of(joint, objective, mass))


@eqx.filter_jit
def monopoly_values(
    joint: Float[Array, "users types states"],
    utility: Float[Array, "users types actions states"],
    objective: Float[Array, "users types actions states"],
    mass: Float[Array, " users"],
) -> MonopolyValues:
    """A monopolist's optimum with a public experiment, a menu, and a menu for each user.

    Each is at least the one before. Arrays as in `menu_best_response`; the law of the state must
    be the same for all users. The public program has actions^pairs recommendations.

    >>> import jax.numpy as jnp
    >>> from diffgame.market import monopoly_values
    >>> strict = jnp.array([[1.0, 0.0], [0.0, 1 / 3]])  # convicts at a posterior of 3/4, not 1/2
    >>> judges = jnp.stack([jnp.eye(2), strict])[:, None]
    >>> conviction = jnp.array([[[[0.0, 0.0], [1.0, 1.0]]]] * 2)
    >>> joint = jnp.array([[[0.7, 0.3]]] * 2)
    >>> print(monopoly_values(joint, judges, conviction, jnp.ones(2)).lower.round(6))
    [0.8 0.8 1. ]
    """
    users, types, actions, states = utility.shape
    pairs = users * types
    prior = jnp.sum(joint, axis=1)[0]
    weight = joint.reshape(pairs, 1, states) / jnp.where(prior > 0, prior, 1)[None, None]
    # The type's likelihood goes into the payoffs: all pairs then share the prior of the state.
    public = persuade(
        prior,
        utility.reshape(pairs, actions, states) * weight,
        objective.reshape(pairs, actions, states) * weight,
        jnp.repeat(mass, types),
    )
    typed, stakes = typed_users(joint, utility, "after"), stakes_of(joint, objective, mass)
    menu = _persuade(typed, stakes)

    def alone(user):
        own = user * types + jnp.arange(types)
        mine = jax.tree.map(lambda leaf: leaf[own], typed)
        return _persuade(mine, Stakes(stakes.base[own], stakes.unit[own], stakes.size))

    personal = jax.vmap(alone)(jnp.arange(users))
    return MonopolyValues(
        jnp.stack([public.lower, menu.lower, jnp.sum(personal.lower)]),
        jnp.stack([public.upper, menu.upper, jnp.sum(personal.upper)]),
    )
