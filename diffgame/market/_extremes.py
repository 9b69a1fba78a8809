"""The equilibria that are worst and best for users: searched for, certified, held to the bound."""

import dataclasses
from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from ._dynamics import recommend
from ._market import Market, babbling, full_revelation, random_profile
from ._search import (
    EXACT_USERS,
    MarketEquilibrium,
    Piece,
    assemble,
    profile_piece,
    segment_market,
)
from ._segment import action_profiles, make_segment, unit_utility
from ._settle import Settled, as_posted, assess, in_batches, played_profiles, settle_users
from ._value import full_information
from ._welfare_descent import move_welfare
from ._worst_case import worst_case_losses

_ALL_PROFILES = 32


@dataclasses.dataclass(frozen=True)
class Extremes:
    """The worst and the best equilibrium for users that were found.

    - `worst`, `best`: with their statuses; utility is counted by mass.
    - `exact`: whether they are the worst and best of all equilibria (personalized markets).
    - `loss`: what users lose in `worst` of full information, counted by mass; `bound`: at most in
        any equilibrium (`worst_case_losses`). The difference is what is not known.
    - `certified`, `searched`: how many end points stand, over all segments.
    """

    worst: MarketEquilibrium
    best: MarketEquilibrium
    exact: bool
    loss: float
    bound: float
    certified: int
    searched: int


@eqx.filter_jit
def _descend(
    market: Market,
    profiles: Int[Array, "profiles users"],
    tables: Float[Array, "starts providers states messages"],
) -> tuple[Settled, Float[Array, " ends"]]:
    """A segment's ends: downwards from each start, upwards, then what is posted; and welfare."""
    unit, length = unit_utility(market.utility)
    size = jnp.einsum("ij,j->i", unit_utility(market.objective)[1], market.mass)
    # Payoffs that are all of one sign keep the programs' numbers of one size.
    objective = market.objective - jnp.min(market.objective, axis=(2, 3), keepdims=True)
    objective = objective / size[:, None, None, None]
    segment = make_segment(market.prior, unit, objective, market.mass, profiles)
    posted = jax.vmap(jax.vmap(lambda table: recommend(segment, table)))(tables)
    weight = market.mass * length
    weight = weight / jnp.sum(weight)
    users = len(weight)
    nobody = jnp.zeros(users, int)
    starts = jnp.concatenate([posted, posted])
    weights = jnp.repeat(jnp.stack([-weight, weight]), len(posted), axis=0)
    moved, incumbent = in_batches(
        lambda start: move_welfare(segment, start[0], nobody, start[1]), (starts, weights)
    )
    fixed = as_posted(segment, len(objective))
    ends = jnp.concatenate([moved, fixed])
    incumbents = jnp.concatenate([incumbent, jnp.zeros((len(fixed), users), int)])
    settled = assess(segment, ends, incumbents, size)
    values = jnp.einsum("jps,ekps->ekj", segment.user_values(), settled.signal)
    return settled, jnp.einsum("ekj,j->ek", values, weight).max(axis=1)


def _starts(market: Market, starts: int, seed: int) -> Float[Array, "starts providers o s m"]:
    """Babbling, full revelation, random profiles; every second one the same for all providers."""
    keys = jax.random.split(jax.random.key(seed), starts)
    drawn = [random_profile(market, key).probability for key in keys]
    drawn = [
        jnp.broadcast_to(table[:1], table.shape) if n % 2 else table
        for n, table in enumerate(drawn)
    ]
    plain = [babbling(market).probability, full_revelation(market).probability]
    return jnp.stack([*plain, *drawn])


def _stands(settled: Settled, tolerance: np.ndarray) -> np.ndarray:
    upper = np.asarray(settled.upper)
    return np.all(np.isfinite(upper) & (upper >= 0) & (upper <= tolerance), axis=1)


def _pick(settled: Settled, welfare, tolerance: np.ndarray) -> tuple[np.ndarray, int]:
    """Indices of the worst and the best end that stand, else of the one left for the least."""
    upper, stands = np.asarray(settled.upper), _stands(settled, tolerance)
    if not np.any(stands):
        least = int(np.argmin(np.max(upper / tolerance, axis=1)))
        return np.array([least, least]), 0
    # Rounded, so that among equals the one that gains least decides.
    rank = np.round(np.asarray(welfare), 9)
    gain = np.max(upper / tolerance, axis=1)
    worst = np.lexsort((gain, np.where(stands, rank, np.inf)))[0]
    best = np.lexsort((gain, np.where(stands, -rank, np.inf)))[0]
    return np.array([worst, best]), int(np.sum(stands))


def find_extremes(
    market: Market,
    *,
    starts: int = 32,
    seed: int = 0,
    tolerance: float = 1e-6,
    progress: Callable[[str], None] = lambda text: None,
) -> Extremes:
    """Search for the equilibria that are worst and best for users, by mass-weighted utility.

    Segments of `market.observation` are independent. For one user both are computed
    (`equilibrium_values`); for two to four, users' welfare descends and ascends along profiles
    that nobody leaves, from babbling, full revelation and `starts` random profiles, by
    derivatives of the providers' best responses. The result is certified like any other.

    **Errors:** ValueError for a segment of more than four users, for which deviations are not
    exhausted, or without float64.

    **Source:** the characterisations X and Z in docs/certificates.md; the descent is a
    convex-concave procedure (Yuille, Rangarajan 2003).

    >>> import jax.numpy as jnp
    >>> from diffgame.market import Market, find_extremes
    >>> coin, judge = jnp.array([0.7, 0.3]), jnp.eye(2)[None]
    >>> acquit = jnp.array([[1.0, 1.0], [0.0, 0.0]])[None]
    >>> found = find_extremes(Market(coin, judge, jnp.stack([acquit, acquit]), jnp.ones(1)))
    >>> print(found.worst.user_values.round(6), found.best.user_values.round(6), found.exact)
    [0.7] [1.] True
    """
    if market.prior.dtype != jnp.float64:
        raise ValueError(
            f"find_extremes: the market is in {market.prior.dtype}; certificates need float64: "
            'set jax.config.update("jax_enable_x64", True) before making it.'
        )
    labels = np.asarray(market.observation)
    groups = [np.flatnonzero(labels == label) for label in range(market.observations)]
    largest = max(len(group) for group in groups)
    if largest > EXACT_USERS:
        raise ValueError(
            f"find_extremes: a segment has {largest} users; deviations are exhausted for up to "
            f"{EXACT_USERS}: let providers see finer segments, or use find_equilibria."
        )
    states, actions = len(market.prior), market.utility.shape[1]
    market = market.with_messages(max(states, actions, states + largest))
    tables = _starts(market, starts, seed)
    pieces: list[Piece] = []
    certified = searched = 0
    exact = largest == 1
    for label, group in enumerate(groups):
        part = segment_market(market, group)
        size = np.asarray(unit_utility(part.objective)[1]) @ np.asarray(part.mass)
        if len(group) == 1:
            progress(f"segment {label + 1} of {len(groups)}: exact range")
            ends, values = settle_users(part, tables[:1, :, label : label + 1])
            settled = jax.tree.map(lambda leaf: leaf[0][-2:], ends)
            profiles, picked = action_profiles(1, actions), np.arange(2)
            stand = int(np.sum(_stands(settled, tolerance * size)))
            exact = exact and bool(np.all(np.asarray(values.complete)))
        else:
            progress(f"segment {label + 1} of {len(groups)}: moving {2 * len(tables)} profiles")
            # Small markets of one size share one compilation.
            every = action_profiles(len(group), actions)
            profiles = every if len(every) <= _ALL_PROFILES else played_profiles(part)
            settled, welfare = _descend(part, jnp.asarray(profiles), tables[:, :, label])
            picked, stand = _pick(settled, welfare, tolerance * size)
        certified, searched = certified + stand, searched + len(settled.upper)
        kept = jax.tree.map(lambda leaf, picked=picked: leaf[picked], settled)
        pieces.append(profile_piece(kept, group, profiles))
    scale = np.asarray(unit_utility(market.objective)[1]) @ np.asarray(market.mass)
    worst, best = (
        assemble(market, labels, pieces, end, name, tolerance * scale)
        for end, name in enumerate(("descent of welfare", "ascent of welfare"))
    )
    full = jax.vmap(full_information, in_axes=(None, 0))(market.prior, market.utility)
    mass = np.asarray(market.mass)
    return Extremes(
        worst,
        best,
        exact,
        float(mass @ (np.asarray(full) - worst.user_values)),
        float(_bound(market)),
        certified,
        searched,
    )


@eqx.filter_jit
def _bound(market: Market) -> Float[Array, ""]:
    return worst_case_losses(market, weight=market.mass).total.loss
