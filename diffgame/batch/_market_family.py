"""Random markets by their number, and what each one's exact equilibrium is worth."""

import dataclasses
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key, Scalar

from ..market import MarketStatus, exploitability, full_information, meet, uninformed
from ..market._dynamics import propose, recommend, settle_user
from ..market._equilibrium_values import equilibrium_segment, nearest_equilibrium
from ..market._frontier import find_frontiers
from ..market._segment import Segment, action_profiles, make_segment, unit_utility

MARKET_STATUSES = (*(status.value for status in MarketStatus), "nonfinite")
_CERTIFIED, _LOCAL, _EXPLOITABLE, _NONFINITE = range(len(MARKET_STATUSES))


@dataclasses.dataclass(frozen=True)
class MarketFamily:
    """How one random market is drawn; all draws independent, utilities scaled to [0, 1].

    The prior and each user's weights are Dirichlet; objectives are uniform on [0, 1]; a user wants
    the weighted mix of the objectives, and a share of something else that is uniform on the range
    `misalignment` (0: weak alignment is exact). Masses are uniform on the range `mass`.
    """

    users: int
    providers: int
    actions: int
    states: int
    prior: float
    weights: float
    misalignment: tuple[float, float]
    mass: tuple[float, float]
    mode: str


class Drawn(NamedTuple):
    """A market's data; arrays as in `Market`."""

    prior: Float[Array, " states"]
    utility: Float[Array, "users actions states"]
    objective: Float[Array, "providers users actions states"]
    mass: Float[Array, " users"]
    misalignment: Scalar


def draw_market(family: MarketFamily, key: Key[Array, ""]) -> Drawn:
    """One market of the family."""
    keys = jax.random.split(key, 6)
    shape = family.users, family.actions, family.states
    prior = jax.random.dirichlet(keys[0], jnp.full(family.states, family.prior))
    objective, _ = unit_utility(jax.random.uniform(keys[1], (family.providers, *shape)))
    weights = jnp.full(family.providers, family.weights)
    weights = jax.random.dirichlet(keys[2], weights, (family.users,))
    mix, _ = unit_utility(jnp.einsum("ji,ijas->jas", weights, objective))
    other, _ = unit_utility(jax.random.uniform(keys[3], shape))
    low, high = family.misalignment
    share = low + (high - low) * jax.random.uniform(keys[4])
    utility, _ = unit_utility((1 - share) * mix + share * other)
    low, high = family.mass
    mass = low + (high - low) * jax.random.uniform(keys[5], (family.users,))
    return Drawn(prior, utility, objective, mass, share)


class MarketEnd(NamedTuple):
    """A market's equilibrium. `gain`: the most that any provider gains, as a share of its range."""

    status: Int[Array, ""]
    gain: Scalar
    user_values: Float[Array, " users"]
    full_information: Float[Array, " users"]
    uninformed: Float[Array, " users"]
    payoffs: Float[Array, " providers"]
    mass: Float[Array, " users"]
    misalignment: Scalar


class MarketSearch(eqx.Module):
    """What all markets of a family share."""

    key: Key[Array, ""]
    tolerance: Scalar
    family: MarketFamily = eqx.field(static=True)


def _babbling(segment: Segment, providers: int) -> Float[Array, "providers profiles states"]:
    silent = recommend(segment, jnp.ones((len(segment.prior), 1)))
    return jnp.broadcast_to(silent, (providers, *silent.shape))


def _settle_one(prior, utility, objective):
    """One user of a personalized market; payoffs from her range from 0 to 1."""
    segment = equilibrium_segment(prior, utility, objective)
    frontiers = find_frontiers(segment)
    signal, incumbent = settle_user(
        segment,
        _babbling(segment, len(objective)),
        frontiers,
        lambda reached: nearest_equilibrium(segment, frontiers, reached)[1],
    )
    meeting = meet(segment, signal, incumbent)
    gains = exploitability(segment, meeting)
    return jnp.max(meeting.values), meeting.payoffs[:, 0], gains.lower, gains.upper


def _settle_personalized(market: Drawn):
    values, payoffs, lower, upper = jax.vmap(_settle_one, in_axes=(None, 0, 1))(
        market.prior, market.utility, market.objective
    )
    low = jnp.min(market.objective, axis=(2, 3)).T
    _, size = unit_utility(market.objective)
    weight = size.T * market.mass[:, None]
    payoffs = jnp.sum(payoffs * weight + low * market.mass[:, None], axis=0)
    total = jnp.sum(weight, axis=0)
    return values, payoffs, *(jnp.sum(part * weight, axis=0) / total for part in (lower, upper))


def _settle_anonymous(market: Drawn):
    """All users see one signal: of the dynamics' proposals the first that is left for the least."""
    users, actions, _ = market.utility.shape
    size = jnp.einsum("ij,j->i", unit_utility(market.objective)[1], market.mass)
    objective = market.objective / size[:, None, None, None]
    profiles = jnp.asarray(action_profiles(users, actions))
    segment = make_segment(market.prior, market.utility, objective, market.mass, profiles)
    proposals, incumbents = propose(segment, _babbling(segment, len(objective)))

    def assess(signal, incumbent):
        meeting = meet(segment, signal, incumbent)
        gains = exploitability(segment, meeting)
        values = jnp.max(meeting.values, axis=0)
        return values, jnp.sum(meeting.payoffs, axis=1) * size, gains.lower, gains.upper

    found = jax.vmap(assess)(proposals, incumbents)
    # Gains below a billionth are no reason to prefer a later proposal.
    best = jnp.argmin(jnp.maximum(jnp.max(found[3], axis=1), 1e-9))
    return jax.tree.map(lambda leaf: leaf[best], found)


def settle_market(search: MarketSearch, index: Int[Array, ""]) -> MarketEnd:
    """Draw the market of that global number, settle it from babbling and assess the end exactly."""
    market = draw_market(search.family, jax.random.fold_in(search.key, index))
    settle = _settle_personalized if search.family.mode == "personalized" else _settle_anonymous
    values, payoffs, lower, upper = settle(market)

    def within(gains):
        return jnp.all(jnp.isfinite(gains) & (gains >= 0) & (gains <= search.tolerance))

    numbers = jnp.concatenate([values, payoffs, lower])
    status = jnp.where(within(lower), _LOCAL, _EXPLOITABLE)
    status = jnp.where(within(upper) & within(lower), _CERTIFIED, status)
    status = jnp.where(jnp.all(jnp.isfinite(numbers)), status, _NONFINITE)
    each = jax.vmap(full_information, in_axes=(None, 0))(market.prior, market.utility)
    blind = jax.vmap(uninformed, in_axes=(None, 0))(market.prior, market.utility)
    return MarketEnd(
        status, jnp.max(upper), values, each, blind, payoffs, market.mass, market.misalignment
    )
