"""From starting tables to settled and assessed profiles: jitted, one segment at a time."""

import functools
from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PyTree

from .._policy import ProbabilityTable
from .._stored_program import stored_jit
from ._anneal import anneal, unit_market
from ._best_response import exploitability, meet
from ._crowd import bound_gains, meet_crowd, search_deviation
from ._dynamics import NEGLIGIBLE, propose, recommend, settle_user
from ._equilibrium_values import EquilibriumValues, equilibrium_segment, equilibrium_set
from ._frontier import find_frontiers
from ._market import Market
from ._segment import (
    Segment,
    action_profiles,
    make_segment,
    playable_profiles,
    unit_utility,
)

_ROUNDS = 2
_DEVIATIONS = 4


class Settled(eqx.Module):
    """A segment's end points, gains in the units of the market; `smooth`: before the dynamics."""

    signal: Float[Array, "ends providers profiles states"]
    incumbent: Int[Array, "ends users"]
    lower: Float[Array, "ends providers"]
    upper: Float[Array, "ends providers"]
    smooth: Float[Array, "starts providers"]


@functools.partial(stored_jit, long=True)
def smooth(
    market: Market, starts: Float[Array, "starts providers observations states messages"]
) -> Float[Array, "starts providers observations states messages"]:
    unit = unit_market(market)
    return jax.vmap(lambda table: anneal(unit, ProbabilityTable(table)).probability)(starts)


def in_batches(function: Callable, items: PyTree, size: int = 32) -> PyTree:
    """Map over the leading axis, `size` at a time to bound memory.

    Filled up with copies of the first item: a remainder would be compiled a second time.
    """
    count = jax.tree.leaves(items)[0].shape[0]
    if count <= size:
        return jax.vmap(function)(items)
    index = jnp.arange(-(-count // size) * size)
    fill = jnp.where(index < count, index, 0)
    results = jax.lax.map(function, jax.tree.map(lambda leaf: leaf[fill], items), batch_size=size)
    return jax.tree.map(lambda leaf: leaf[:count], results)


def assess(
    segment: Segment,
    signal: Float[Array, "ends providers profiles states"],
    incumbent: Int[Array, "ends users"],
    size: Float[Array, " providers"],
) -> Settled:
    """All end points at once: who has whom, and every provider's exact gain from deviating."""

    def one(pair):
        meeting = meet(segment, *pair)
        gain = exploitability(segment, meeting)
        return meeting.chosen, gain.lower * size, gain.upper * size

    chosen, lower, upper = in_batches(one, (signal, incumbent))
    return Settled(signal, chosen, lower, upper, upper)


def settle_user_starts(
    prior: Float[Array, " states"],
    utility: Float[Array, "actions states"],
    objective: Float[Array, "providers actions states"],
    mass: Float[Array, ""],
    tables: Float[Array, "starts providers states messages"],
) -> tuple[Settled, EquilibriumValues]:
    """One user of a personalized market: every start settled, then her exact worst and best."""
    _, payoff_size = unit_utility(objective)
    segment = equilibrium_segment(prior, utility, objective)
    frontiers = find_frontiers(segment)
    values = equilibrium_set(segment, frontiers)
    posted = jax.vmap(jax.vmap(lambda table: recommend(segment, table)))(tables)
    ends, incumbent = jax.vmap(
        lambda signal: settle_user(
            segment, signal, frontiers, lambda reached: values.at_or_above(reached)[1]
        )
    )(posted)
    extreme = jnp.stack([values.worst()[1], values.best()[1]])[:, None]
    extreme = jnp.broadcast_to(extreme, (2, *posted.shape[1:]))
    fixed = jnp.concatenate([as_posted(segment, len(objective)), extreme])
    everything = jnp.concatenate([ends, fixed, posted])
    nobody = jnp.zeros((len(fixed) + len(posted), 1), int)
    settled = assess(segment, everything, jnp.concatenate([incumbent, nobody]), payoff_size * mass)
    kept = len(ends) + len(fixed)
    return _keep(settled, jnp.arange(kept), jnp.arange(kept, len(everything))), values.rescale(
        utility
    )


def as_posted(segment: Segment, providers: int) -> Float[Array, "two providers profiles states"]:
    """All babble, and all reveal the state."""
    states = len(segment.prior)
    tables = jnp.stack([jnp.eye(states)[:1].repeat(states, 0), jnp.eye(states)])
    signals = jax.vmap(lambda table: recommend(segment, table))(tables)[:, None]
    return jnp.broadcast_to(signals, (2, providers, *signals.shape[2:]))


def _keep(settled: Settled, ends: Int[Array, " ends"], smooth: Int[Array, " starts"]) -> Settled:
    kept = jax.tree.map(lambda leaf: leaf[ends], settled)
    return eqx.tree_at(lambda kept: kept.smooth, kept, settled.upper[smooth])


@stored_jit
def settle_users(market: Market, tables: Float[Array, "starts providers users states messages"]):
    """All users of a personalized market: leaves have a leading "users" axis."""
    return jax.vmap(settle_user_starts, in_axes=(None, 0, 1, 0, 2))(
        market.prior, market.utility, market.objective, market.mass, tables
    )


@stored_jit
def settle_group(
    market: Market,
    profiles: Int[Array, "profiles users"],
    tables: Float[Array, "starts providers states messages"],
) -> Settled:
    """A segment of few users: the starts settled as well as can be, then what is posted as such."""
    unit, _ = unit_utility(market.utility)
    size = jnp.einsum("ij,j->i", unit_utility(market.objective)[1], market.mass)
    objective = market.objective / size[:, None, None, None]
    segment = make_segment(market.prior, unit, objective, market.mass, profiles)
    posted = jax.vmap(jax.vmap(lambda table: recommend(segment, table)))(tables)
    proposed, incumbents = in_batches(lambda signal: propose(segment, signal), posted)
    starts, proposals, users = incumbents.shape
    fixed = as_posted(segment, len(objective))
    everything = jnp.concatenate([proposed.reshape(-1, *posted.shape[1:]), fixed])
    incumbents = jnp.concatenate([incumbents.reshape(-1, users), jnp.zeros((2, users), int)])
    settled = assess(segment, everything, incumbents, size)
    # Of each start's proposals the first that nobody leaves, else the one left for the least.
    left = jnp.max(settled.upper / size[None], axis=1)[: starts * proposals]
    left = jnp.maximum(left.reshape(starts, proposals), NEGLIGIBLE)
    first = jnp.arange(starts) * proposals
    ends = first + jnp.argmin(left, axis=1)
    return _keep(settled, jnp.concatenate([ends, starts * proposals + jnp.arange(2)]), first)


class CrowdSettled(eqx.Module):
    table: Float[Array, "starts providers states messages"]
    incumbent: Int[Array, "starts users"]
    lower: Float[Array, "starts providers"]
    upper: Float[Array, "starts providers"]
    smooth: Float[Array, "starts providers"]


@stored_jit
def settle_crowd(market: Market, tables, keys):
    """A segment of many users: rounds of the deviations that search finds, then the bracket."""
    unit = unit_market(market)
    scale = jnp.einsum("ij,j->i", unit_utility(market.objective)[1], market.mass)
    nobody = jnp.zeros(len(market.mass), int)

    def deviate(table, chosen, provider, key):
        return search_deviation(unit, table, chosen, provider, key, _DEVIATIONS)

    def settle(table, key):
        chosen = meet_crowd(unit, table, nobody).chosen
        smooth = bound_gains(unit, meet_crowd(unit, table, chosen))
        providers = len(table)

        def turn(carry, number):
            table, chosen, best = carry
            provider = number % providers
            gain, new = deviate(table, chosen, provider, jax.random.fold_in(key, number))
            # The last round only looks: its gains are those at the tables that are kept.
            moves = (gain > 1e-7) & (number < _ROUNDS * providers)
            table = jnp.where(moves, table.at[provider].set(new), table)
            chosen = meet_crowd(unit, table, chosen).chosen
            return (table, chosen, best.at[provider].set(gain)), None

        start = table, chosen, jnp.zeros(providers)
        turns = jnp.arange((_ROUNDS + 1) * providers)
        (table, chosen, lower), _ = jax.lax.scan(turn, start, turns)
        upper = jnp.maximum(bound_gains(unit, meet_crowd(unit, table, chosen)), lower)
        return CrowdSettled(table, chosen, lower * scale, upper * scale, smooth * scale)

    return in_batches(lambda pair: settle(*pair), (tables, keys))


_playable = stored_jit(playable_profiles)


def played_profiles(market: Market) -> Int[np.ndarray, "profiles users"]:
    """The action profiles that can arise when all users see one signal."""
    profiles = action_profiles(*market.utility.shape[:2])
    return profiles[np.asarray(_playable(market.prior, market.utility, jnp.asarray(profiles)))]
