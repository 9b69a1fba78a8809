"""Posted menus: what users make of them, and what each provider gains by another menu."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from ._best_response import Exploitability, Outside, choose_provider
from ._menu import capture_sets_of, respond, stakes_of
from ._menu_program import typed_users, unit_pairs

_TIE = 1e-12


@eqx.filter_jit
def recommend_branches(
    joint: Float[Array, "users types states"],
    utility: Float[Array, "users types actions states"],
    menu: Float[Array, "branches states messages"],
) -> Float[Array, "pairs actions states"]:
    """The direct menu that a menu of experiments amounts to.

    Each pair (user, type) picks the branch worth most to it and acts optimally; values within
    1e-12 of its range tie, and ties go to the lowest index. A single experiment is one branch.

    >>> import jax.numpy as jnp
    >>> from diffgame.market import recommend_branches
    >>> joint, judge = jnp.array([[[0.7, 0.3]]]), jnp.eye(2)[None, None]
    >>> print(recommend_branches(joint, judge, jnp.eye(2)[None]))
    [[[1. 0.]
      [0. 1.]]]
    """
    belief, unit, _, _ = unit_pairs(joint, utility)
    expected = jnp.einsum("ps,pas,csm->pcma", belief, unit, menu)
    best = jnp.max(expected, axis=-1, keepdims=True)
    action = jnp.argmax(expected >= best - _TIE, axis=-1)
    worth = jnp.sum(best[..., 0], axis=-1)
    branch = jnp.argmax(worth >= jnp.max(worth, axis=1, keepdims=True) - _TIE, axis=1)
    action = jnp.take_along_axis(action, branch[:, None, None], axis=1)[:, 0]
    taken = jax.nn.one_hot(action, utility.shape[2], dtype=menu.dtype)
    return jnp.einsum("pma,psm->pas", taken, menu[branch])


class MenuMeeting(eqx.Module):
    """Who goes where when providers post direct menus.

    - `values` [providers, units]: what each menu is worth to each unit, in units of utility; to a
        pair given its type, and its lowest utility if the type never occurs.
    - `chosen` [units]: its provider; ties within 1e-9 of its range keep the incumbent, else the
        lowest index.
    - `payoffs` [providers, providers, units]: what the unit's actions are worth to the first
        provider if the unit listens to the second.
    - `gains`: what each provider gains by its best menu (never below 0: it may stay).
    """

    values: Float[Array, "providers units"]
    chosen: Int[Array, " units"]
    payoffs: Float[Array, "providers providers units"]
    gains: Exploitability


@eqx.filter_jit
def menu_exploitability(
    joint: Float[Array, "users types states"],
    utility: Float[Array, "users types actions states"],
    objective: Float[Array, "providers users types actions states"],
    mass: Float[Array, " users"],
    menus: Float[Array, "providers pairs actions states"],
    incumbent: Int[Array, " units"],
    *,
    timing: str = "before",
) -> MenuMeeting:
    """Let users choose among posted menus, and bound what each provider gains by another menu.

    `menus` are direct and truthful, pairs by user and then type: `recommend_branches` makes them
    of anything posted. `incumbent`, per unit: the provider it stays with at a tie. Other arguments,
    units, ties and errors as in `menu_best_response`; `objective` of all providers.

    >>> import jax.numpy as jnp
    >>> from diffgame.market import menu_exploitability, recommend_branches
    >>> joint, judge = jnp.array([[[0.7, 0.3]]]), jnp.eye(2)[None, None]
    >>> conviction = jnp.array([[[[[0.0, 0.0], [1.0, 1.0]]]]] * 2)
    >>> silence = jnp.stack([recommend_branches(joint, judge, jnp.ones((1, 2, 1)))] * 2)
    >>> nobody = jnp.zeros(1, int)
    >>> found = menu_exploitability(joint, judge, conviction, jnp.ones(1), silence, nobody)
    >>> print(found.gains.upper.round(6))
    [0.6 0.6]
    """
    typed = typed_users(joint, utility, timing)
    sets = capture_sets_of("menu_exploitability", typed, timing)
    providers = len(menus)
    values = jnp.einsum("up,pas,kpas->ku", typed.share, typed.values(), menus)
    chosen = choose_provider(values, incumbent)
    everyone = jnp.arange(providers)

    def payoffs(objective):
        stakes = stakes_of(joint, objective, mass)
        earned = stakes.base[None] + stakes.size * jnp.einsum("pas,kpas->kp", stakes.unit, menus)
        return jnp.einsum("kp,up->ku", earned, typed.part * 1.0)

    earned = jax.vmap(payoffs)(objective)

    def gain(provider):
        others = everyone != provider
        elsewhere = jnp.where(others[:, None], values, -1.0)
        fallback = choose_provider(elsewhere, chosen)
        units = jnp.arange(len(fallback))
        outside = Outside(
            jnp.max(elsewhere, axis=0),
            earned[provider, fallback, units],
            chosen == provider,
            jnp.array(providers > 1),
        )
        stakes = stakes_of(joint, objective[provider], mass)
        response = respond(typed, stakes, outside, sets, 0.0)
        now = jnp.sum(earned[provider, chosen, units])
        return jnp.maximum(response.lower - now, 0), jnp.maximum(response.upper - now, 0)

    gains = Exploitability(*jax.vmap(gain)(everyone))
    weight = jnp.sum(typed.share, axis=1)
    values = typed.low[None] * weight[None] + typed.size[None] * values
    return MenuMeeting(values, chosen, earned, gains)
