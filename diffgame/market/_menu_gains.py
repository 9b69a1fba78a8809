"""What providers gain by another menu, when all post the same one."""

import itertools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from ._best_response import Outside
from ._menu import Stakes, respond, stakes_of
from ._menu_meeting import menu_exploitability
from ._menu_program import typed_users

# Values closer than this share of a user's range tie.
TIE = 1e-9
# Sets of actions to recommend that are compared, one linear program each.
_MOST_SETS = 64
# Of recommending another action for sure, in ranges of the provider's payoff.
_PRICE = 100.0


def searched_gains(
    worth: Float[np.ndarray, "starts units"],
    earned: Float[np.ndarray, "starts providers units"],
    size: Float[np.ndarray, " units"],
    allowed: Bool[np.ndarray, "starts groups"],
) -> Float[np.ndarray, "starts providers groups"]:
    """What each provider gains by the best of the allowed menus, when all post another one.

    Everybody listens to the first provider then: the lowest index at a tie. Units are what picks a
    provider as one, `size` the ranges of what menus are worth to them.
    """
    starts, providers = earned.shape[:2]
    groups = allowed.shape[1]
    lead = worth[None] - worth[:, None]
    comes = lead > TIE * size
    stays = lead >= -TIE * size if providers > 1 else np.ones_like(comes)
    gains = np.zeros((starts, providers, groups))
    for i in range(providers):
        holds = stays if i == 0 else comes
        gain = np.where(holds, earned[None, :, i] - earned[:, None, i], 0.0)
        gain = gain.reshape(starts, starts, groups, -1).sum(axis=3)
        gains[:, i] = np.where(allowed[None], gain, 0.0).max(axis=1)
    return np.maximum(gains, 0)


@eqx.filter_jit
def menu_gains(joint, utility, objective, mass, menu, timing: str):
    """What each provider gains when all post `menu`: [groups, providers]."""
    menus = jnp.broadcast_to(menu[:, None], (len(menu), len(objective), *menu.shape[1:]))
    units = joint.shape[1] * (1 if timing == "before" else joint.shape[2])
    nobody = jnp.zeros((len(menu), units), int)

    def meet(*group):
        return menu_exploitability(*group, timing=timing)

    return jax.vmap(meet, in_axes=(0, 0, 1, 0, 0, 0))(
        joint, utility, objective, mass, menus, nobody
    ).gains


def action_sets(actions: int, messages: int) -> Bool[np.ndarray, "sets actions"] | None:
    """All sets of as many actions as there are messages; None: more than one would wait for."""
    sets = list(itertools.islice(itertools.combinations(range(actions), messages), _MOST_SETS + 1))
    if len(sets) > _MOST_SETS:
        return None
    return np.array([[a in kept for a in range(actions)] for kept in sets])


@eqx.filter_jit
def few_messages_gains(
    joint: Float[Array, "users 1 1 states"],
    utility: Float[Array, "users 1 1 actions states"],
    objective: Float[Array, "providers users 1 1 actions states"],
    mass: Float[Array, "users 1"],
    menu: Float[Array, "users 1 actions states"],
    sets: Bool[Array, "sets actions"],
    winnable: Bool[Array, " users"],
) -> Float[Array, "users providers"]:
    """Upper bounds of the gains from conversations with a user without private information.

    Such a conversation is one experiment of as many messages as the provider has over all rounds
    (docs/menus.md): it recommends only the actions of one of `sets`. The others have a price.
    `winnable`: whether such an experiment can be worth more to the user than `menu` is.
    """
    providers = len(objective)

    def user_gains(joint, utility, objective, mass, menu, winnable):
        typed = typed_users(joint, utility, "before")
        worth = jnp.einsum("up,pas,pas->u", typed.share, typed.values(), menu)

        def gain(objective, holds):
            stakes = stakes_of(joint, objective, mass)
            now = stakes.base + stakes.size * jnp.einsum("pas,pas->p", stakes.unit, menu)
            elsewhere = worth if providers > 1 else worth * 0 - 1
            outside = Outside(elsewhere, now, holds[None], jnp.array(providers > 1))

            def best(kept):
                price = jnp.where(kept[None, :, None], 0.0, _PRICE)
                priced = Stakes(stakes.base, stakes.unit - price, stakes.size)
                return respond(typed, priced, outside, jnp.ones((1, 1), bool), 0.0).upper

            most = jnp.maximum(jnp.max(jax.vmap(best)(sets)) - now[0], 0)
            return jnp.where(holds | winnable, most, 0)

        # At a tie she stays with the first.
        return jax.vmap(gain)(objective, jnp.arange(providers) == 0)

    each = jax.vmap(user_gains, in_axes=(0, 0, 1, 0, 0, 0))
    return each(joint, utility, objective, mass, menu, winnable)
