"""Segments of many users: no list of action profiles, hence a bracket instead of a number.

A deviation of a provider is bounded below by what search finds, and above by letting it treat
every user by herself (the personalized relaxation: one exact linear program per user).
"""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Scalar

from .._policy import ProbabilityTable
from ._anneal import climb
from ._best_response import Outside, best_response, choose_provider
from ._market import Market
from ._segment import make_segment

_TIE = 1e-12


class CrowdMeeting(eqx.Module):
    """What exact users do with posted tables [providers, states, messages].

    - `actions` [users, providers, messages]: her action after each message; ties to the lowest.
    - `values` [providers, users]; `chosen` [users]; `payoffs` [deviator, listened to, users]: what
        the users' actions are worth to each provider (mass included) if they listen to another.
    """

    actions: Int[Array, "users providers messages"]
    values: Float[Array, "providers users"]
    chosen: Int[Array, " users"]
    payoffs: Float[Array, "providers providers users"]


def meet_crowd(
    market: Market,
    table: Float[Array, "providers states messages"],
    incumbent: Int[Array, " users"],
) -> CrowdMeeting:
    """Let exact users choose among tables that are the same for all of them."""
    expected = jnp.einsum("jas,s,psm->jpma", market.utility, market.prior, table)
    best = jnp.max(expected, axis=-1, keepdims=True)
    actions = jnp.argmax(expected >= best - _TIE, axis=-1)
    values = jnp.sum(best[..., 0], axis=-1).T
    worth = jnp.einsum("ijas,s,psm,j->ijpma", market.objective, market.prior, table, market.mass)
    taken = jnp.take_along_axis(worth, actions[None, ..., None], axis=-1)[..., 0]
    payoffs = jnp.moveaxis(jnp.sum(taken, axis=-1), 1, 2)
    return CrowdMeeting(actions, values, choose_provider(values, incumbent), payoffs)


def _held_payoffs(meeting: CrowdMeeting) -> Float[Array, "providers users"]:
    return jnp.take_along_axis(meeting.payoffs, meeting.chosen[None, None], axis=1)[:, 0]


def bound_gains(market: Market, meeting: CrowdMeeting) -> Float[Array, " providers"]:
    """An upper bound on each provider's gain: it may deviate for every user by herself."""
    providers = len(meeting.values)
    now = _held_payoffs(meeting)

    def gain(provider, user):
        others = jnp.arange(providers) != provider
        values = jnp.where(others, meeting.values[:, user], -1.0)
        fallback = choose_provider(values[:, None], meeting.chosen[user][None])[0]
        outside = Outside(
            jnp.max(values)[None],
            meeting.payoffs[provider, fallback, user][None],
            (meeting.chosen[user] == provider)[None],
            jnp.array(providers > 1),
        )
        one = (slice(None), user[None])
        segment = make_segment(
            market.prior, market.utility[one[1]], market.objective[one], market.mass[one[1]]
        )
        return best_response(segment, provider, outside).upper - now[provider, user]

    users = jnp.arange(len(market.mass))
    gains = jax.vmap(lambda i: jax.vmap(lambda j: gain(i, j))(users))(jnp.arange(providers))
    return jnp.sum(jnp.maximum(gains, 0), axis=1)


def search_deviation(
    market: Market,
    table: Float[Array, "providers states messages"],
    incumbent: Int[Array, " users"],
    provider: Int[Array, ""],
    key: Array,
    starts: int,
) -> tuple[Scalar, Float[Array, "states messages"]]:
    """The best deviation of one provider that was found, evaluated exactly: its gain, its table.

    Ascents from its present table, from full revelation and from `starts` random tables.
    """
    meeting = meet_crowd(market, table, incumbent)
    now = jnp.sum(_held_payoffs(meeting)[provider])
    profile = ProbabilityTable(table[:, None])
    _, states, messages = table.shape

    def deviate(start):
        new = climb(market, profile, provider, start[None])[0]
        after = meet_crowd(market, table.at[provider].set(new), meeting.chosen)
        return jnp.sum(_held_payoffs(after)[provider]) - now, new

    fresh = jax.random.dirichlet(key, jnp.ones(messages), (starts, states))
    points = jnp.concatenate([table[provider][None], jnp.eye(states, messages)[None], fresh])
    gains, tables = jax.vmap(deviate)(points)
    where = jnp.argmax(gains)
    return jnp.maximum(gains[where], 0), tables[where]
