"""What a random market comes to rest at, from babbling, and what can be gained there."""

from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key, Scalar

from ..market import MarketStatus, exploitability, full_information, meet, uninformed
from ..market._dynamics import recommend, settle_together, settle_user
from ..market._equilibrium_values import equilibrium_segment, nearest_equilibrium
from ..market._frontier import find_frontiers
from ..market._segment import Segment, action_profiles, make_segment, unit_utility
from ._market_family import Drawn, MarketFamily, draw_market
from ._quantal_end import settle_quantal

MARKET_STATUSES = (*(status.value for status in MarketStatus), "nonfinite")
_CERTIFIED, _LOCAL, _EXPLOITABLE, _NONFINITE = range(len(MARKET_STATUSES))


class MarketEnd(NamedTuple):
    """A market, where it came to rest, and what was proved; arrays as in `Market`.

    - `gain`: the most that any provider gains, at most, as a share of its range of payoffs.
    - `signal` [providers, groups, messages, states]: P(message | state). Rows that no group needs
        are 0. `recommended` [users, messages]: the action that a message asks of her, and that
        exact users take; -1 for quantal users, who act on their posteriors.
    - `chosen` [users]: whom she listens to; -1 for quantal users, who go to everybody.
    """

    status: Int[Array, ""]
    gain: Scalar
    user_values: Float[Array, " users"]
    full_information: Float[Array, " users"]
    uninformed: Float[Array, " users"]
    payoffs: Float[Array, " providers"]
    mass: Float[Array, " users"]
    group: Int[Array, " users"]
    misalignment: Scalar
    temperature: Scalar
    prior: Float[Array, " states"]
    utility: Float[Array, "users actions states"]
    objective: Float[Array, "providers users actions states"]
    signal: Float[Array, "providers groups messages states"]
    recommended: Int[Array, "users messages"]
    chosen: Int[Array, " users"]


class MarketSearch(eqx.Module):
    """What all markets of a family share."""

    key: Key[Array, ""]
    tolerance: Scalar
    family: MarketFamily = eqx.field(static=True)


class _Rest(NamedTuple):
    """One group's part of an end; payoffs and gains in units of the market, mass included."""

    values: Float[Array, " members"]
    payoffs: Float[Array, " providers"]
    lower: Float[Array, " providers"]
    upper: Float[Array, " providers"]
    signal: Float[Array, "providers messages states"]
    recommended: Int[Array, "members messages"]
    chosen: Int[Array, " members"]


def _babbling(segment: Segment, providers: int) -> Float[Array, "providers profiles states"]:
    silent = recommend(segment, jnp.ones((len(segment.prior), 1)))
    return jnp.broadcast_to(silent, (providers, *silent.shape))


def _in_units(objective: Float[Array, "providers 1 actions states"], mass: Float[Array, " 1"]):
    """The least that her action is worth to each provider, and over how much that ranges."""
    low = jnp.min(objective, axis=(1, 2, 3)) * mass[0]
    return low, unit_utility(objective[:, 0])[1] * mass[0]


def _settle_one(prior, utility, objective, mass) -> _Rest:
    """A user by herself: the dynamics, then the nearest equilibrium value above them."""
    segment = equilibrium_segment(prior, utility[0], objective[:, 0])
    frontiers = find_frontiers(segment)
    signal, incumbent = settle_user(
        segment,
        _babbling(segment, len(objective)),
        frontiers,
        lambda reached: nearest_equilibrium(segment, frontiers, reached)[1],
    )
    meeting = meet(segment, signal, incumbent)
    gains = exploitability(segment, meeting)
    low, size = _in_units(objective, mass)
    return _Rest(
        jnp.max(meeting.values, axis=0),
        low + size * meeting.payoffs[:, 0],
        size * gains.lower,
        size * gains.upper,
        signal,
        jnp.arange(utility.shape[1])[None],
        meeting.chosen,
    )


def _settle_together(prior, utility, objective, mass) -> _Rest:
    """Users who see one signal: of the dynamics' proposals the first that is left for the least."""
    users, actions, _ = utility.shape
    size = jnp.einsum("ij,j->i", unit_utility(objective)[1], mass)
    profiles = action_profiles(users, actions)
    unit = objective / size[:, None, None, None]
    segment = make_segment(prior, utility, unit, mass, jnp.asarray(profiles))
    meeting, gains = settle_together(segment, _babbling(segment, len(objective)))
    return _Rest(
        jnp.max(meeting.values, axis=0),
        jnp.sum(meeting.payoffs, axis=1) * size,
        gains.lower * size,
        gains.upper * size,
        meeting.signal,
        jnp.asarray(profiles.T),
        meeting.chosen,
    )


def _settle_noisy(prior, utility, objective, mass, temperature, tolerance, messages) -> _Rest:
    """A quantal user by herself, bracket by bracket."""
    unit, _ = unit_utility(objective[:, 0])
    end = settle_quantal(prior, utility[0], unit, temperature, tolerance, messages)
    low, size = _in_units(objective, mass)
    return _Rest(
        end.value[None],
        low + size * end.payoffs,
        size * end.lower,
        size * end.upper,
        jnp.swapaxes(end.table, 1, 2),
        jnp.full((1, messages), -1),
        jnp.full(1, -1),
    )


def _settle_groups(search: MarketSearch, market: Drawn, order: Int[Array, " users"]):
    """All groups of each size together; members of the same group are neighbours in `order`."""
    family = search.family
    first, rests = 0, []
    for size in sorted(set(family.groups), reverse=True):
        count = family.groups.count(size)
        members = order[first : first + count * size].reshape(count, size)
        first += count * size
        parts = (
            market.utility[members],
            jnp.moveaxis(market.objective[:, members], 1, 0),
            market.mass[members],
        )

        def settle(utility, objective, mass, size=size):
            if family.quantal:
                return _settle_noisy(
                    market.prior,
                    utility,
                    objective,
                    mass,
                    market.temperature,
                    search.tolerance,
                    family.messages,
                )
            alone = _settle_one if size == 1 else _settle_together
            return alone(market.prior, utility, objective, mass)

        rests.append(jax.vmap(settle)(*parts))
    return rests


def _fill(leaf: Array, axis: int, size: int, value: int) -> Array:
    missing = [(0, 0)] * leaf.ndim
    missing[axis] = (0, size - leaf.shape[axis])
    return jnp.pad(leaf, missing, constant_values=value)


def settle_market(search: MarketSearch, index: Int[Array, ""]) -> MarketEnd:
    """Draw the market of that global number, settle it from babbling and assess the end."""
    family = search.family
    market = draw_market(family, jax.random.fold_in(search.key, index))
    # Users by group; the groups' numbers rise as their sizes fall.
    order = jnp.argsort(market.observation, stable=True)
    back = jnp.argsort(order)
    rests = _settle_groups(search, market, order)

    def by_user(leaves):
        return jnp.concatenate([leaf.reshape(-1, *leaf.shape[2:]) for leaf in leaves])[back]

    def total(leaves):
        return jnp.sum(jnp.concatenate(leaves), axis=0)

    messages = family.messages
    values = by_user([rest.values for rest in rests])
    payoffs = total([rest.payoffs for rest in rests])
    size = jnp.einsum("ij,j->i", unit_utility(market.objective)[1], market.mass)
    lower = total([rest.lower for rest in rests]) / size
    upper = total([rest.upper for rest in rests]) / size
    signal = jnp.concatenate([_fill(rest.signal, 2, messages, 0) for rest in rests])

    def within(gains):
        return jnp.all(jnp.isfinite(gains) & (gains >= 0) & (gains <= search.tolerance))

    numbers = jnp.concatenate([values, payoffs, lower])
    status = jnp.where(within(lower), _LOCAL, _EXPLOITABLE)
    status = jnp.where(within(upper) & within(lower), _CERTIFIED, status)
    status = jnp.where(jnp.all(jnp.isfinite(numbers)), status, _NONFINITE)
    each = jax.vmap(full_information, in_axes=(None, 0))(market.prior, market.utility)
    blind = jax.vmap(uninformed, in_axes=(None, 0))(market.prior, market.utility)
    return MarketEnd(
        status,
        jnp.max(upper),
        values,
        each,
        blind,
        payoffs,
        market.mass,
        market.observation,
        market.misalignment,
        market.temperature,
        market.prior,
        market.utility,
        market.objective,
        jnp.swapaxes(signal, 0, 1),
        by_user([_fill(rest.recommended, 2, messages, -1) for rest in rests]),
        by_user([rest.chosen for rest in rests]),
    )
