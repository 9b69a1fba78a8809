"""Search for equilibria of a market from many starts, each settled and certified exactly."""

import dataclasses
import enum
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from .._stored_program import stored_jit
from ._crowd import meet_crowd
from ._market import Market, babbling, full_revelation, random_profile
from ._segment import action_profiles, unit_utility
from ._settle import (
    CrowdSettled,
    Settled,
    played_profiles,
    settle_crowd,
    settle_group,
    settle_users,
    smooth,
)

# Up to this many users in a segment, best responses are computed over all action profiles.
EXACT_USERS = 4
# Messages sent with less probability than this in every state are rounding errors.
_NEGLIGIBLE = 1e-9


class MarketStatus(enum.StrEnum):
    """What is known about a profile; only `certified` is an equilibrium."""

    certified = "certified"
    """No deviation gains more than the tolerance: proved by linear programs over all of them."""
    local = "local"
    """No deviation that was searched gains more than the tolerance; better ones may exist."""
    exploitable = "exploitable"
    """Some provider gains more than the tolerance by a deviation that was found."""


@dataclasses.dataclass(frozen=True)
class MarketEquilibrium:
    """A profile of a market and what was proved about it; arrays are NumPy, units the market's.

    - `start`: where its search began. `status`: see `MarketStatus`.
    - `user_values` [users]; `provider_payoffs` [providers].
    - `lower`, `upper` [providers]: bracket of each provider's gain from its best deviation.
    - `tables` [providers][observations]: signals [states, messages]; rows sum to 1.
    - `chosen` [users]: the provider that she listens to. `actions` [users][providers]: what she
        does after each message (recommended; optimal for her, ties as recommended).
    """

    start: str
    status: MarketStatus
    user_values: Float[np.ndarray, " users"]
    provider_payoffs: Float[np.ndarray, " providers"]
    lower: Float[np.ndarray, " providers"]
    upper: Float[np.ndarray, " providers"]
    tables: list[list[Float[np.ndarray, "states _"]]]
    chosen: Int[np.ndarray, " users"]
    actions: list[list[Int[np.ndarray, " _"]]]


@dataclasses.dataclass(frozen=True)
class SearchResult:
    """Everything a search ended at, in the order of its starts.

    - `babbling`: the profile in which nobody says anything, assessed like the others.
    - `smooth_certified`: how many starts the smooth stage alone brought to an equilibrium.
    """

    equilibria: list[MarketEquilibrium]
    babbling: MarketEquilibrium
    smooth_certified: int
    mass: Float[np.ndarray, " users"]

    def best(self) -> MarketEquilibrium:
        """The best for users among what may stand: not exploitable, unless everything is."""
        return min(self._standing(), key=lambda end: -self._total(end))

    def worst(self) -> MarketEquilibrium:
        """The worst for users among what may stand."""
        return min(self._standing(), key=self._total)

    def _total(self, end: MarketEquilibrium) -> float:
        # Rounded, so that among equals the first start is named.
        return round(float(self.mass @ end.user_values), 9)

    def _standing(self) -> list[MarketEquilibrium]:
        standing = [e for e in self.equilibria if e.status is not MarketStatus.exploitable]
        return standing or self.equilibria


def segment_market(market: Market, members: Int[np.ndarray, " members"]) -> Market:
    # Taken apart in NumPy: single operations of JAX are compiled one by one.
    utility, objective, mass = map(np.asarray, (market.utility, market.objective, market.mass))
    return Market(market.prior, utility[members], objective[:, members], mass[members])


@dataclasses.dataclass
class Piece:
    """One segment's part of a profile, ready to be put together with the others."""

    members: Int[np.ndarray, " members"]
    lower: Float[np.ndarray, "starts providers"]
    upper: Float[np.ndarray, "starts providers"]
    smooth: Float[np.ndarray, "early providers"]
    chosen: Int[np.ndarray, "starts members"]
    table: Callable[[int, int], Float[np.ndarray, "states messages"]]
    action: Callable[[int, int, int], Int[np.ndarray, " messages"]]


def profile_piece(settled: Settled, members: np.ndarray, profiles: np.ndarray) -> Piece:
    signal = np.asarray(settled.signal)

    def sent(start: int, provider: int) -> np.ndarray:
        return np.flatnonzero(signal[start, provider].max(axis=1) > _NEGLIGIBLE)

    def table(start: int, provider: int) -> np.ndarray:
        rows = signal[start, provider, sent(start, provider)].T
        return rows / rows.sum(axis=1, keepdims=True)

    def action(start: int, provider: int, member: int) -> np.ndarray:
        return profiles[sent(start, provider), member]

    return Piece(
        members,
        np.asarray(settled.lower),
        np.asarray(settled.upper),
        np.asarray(settled.smooth),
        np.asarray(settled.incumbent),
        table,
        action,
    )


def _crowd_piece(market: Market, settled: CrowdSettled, members: np.ndarray) -> Piece:
    tables = np.asarray(settled.table)
    actions = np.asarray(
        jax.vmap(lambda t, c: meet_crowd(market, t, c).actions)(settled.table, settled.incumbent)
    )

    def sent(start: int, provider: int) -> np.ndarray:
        return np.flatnonzero(tables[start, provider].max(axis=0) > _NEGLIGIBLE)

    def table(start: int, provider: int) -> np.ndarray:
        rows = tables[start, provider][:, sent(start, provider)]
        return rows / rows.sum(axis=1, keepdims=True)

    def action(start: int, provider: int, member: int) -> np.ndarray:
        return actions[start, member, provider, sent(start, provider)]

    return Piece(
        members,
        np.asarray(settled.lower),
        np.asarray(settled.upper),
        np.asarray(settled.smooth),
        np.asarray(settled.incumbent),
        table,
        action,
    )


def assemble(
    market: Market,
    labels: np.ndarray,
    pieces: Sequence[Piece],
    start: int,
    name: str,
    tolerance: Float[np.ndarray, " providers"],
) -> MarketEquilibrium:
    providers, users = market.objective.shape[:2]
    prior, utility = np.asarray(market.prior), np.asarray(market.utility)
    worth = np.asarray(market.objective) * np.asarray(market.mass)[None, :, None, None]
    lower = np.sum([piece.lower[start] for piece in pieces], axis=0)
    # Whatever a program could not prove, nobody gains more than its payoffs range over.
    most = np.ptp(worth, axis=(2, 3)).sum(axis=1)
    upper = np.fmin(np.sum([piece.upper[start] for piece in pieces], axis=0), most)
    tables = [[piece.table(start, i) for piece in pieces] for i in range(providers)]
    chosen, actions = np.zeros(users, int), [[] for _ in range(users)]
    values, payoffs = np.zeros(users), np.zeros(providers)
    for piece in pieces:
        label = labels[piece.members[0]]
        for member, j in enumerate(piece.members):
            chosen[j] = piece.chosen[start, member]
            actions[j] = [piece.action(start, i, member) for i in range(providers)]
            joint = prior[:, None] * tables[chosen[j]][label]
            taken = actions[j][chosen[j]]
            values[j] = np.einsum("sm,ms->", joint, utility[j, taken])
            payoffs += np.einsum("sm,kms->k", joint, worth[:, j, taken])
    ok = np.isfinite(upper) & (upper >= 0) & (upper <= tolerance)
    unbeaten = np.isfinite(lower) & (lower >= 0) & (lower <= tolerance)
    status = MarketStatus.exploitable
    if np.all(unbeaten):
        status = MarketStatus.certified if np.all(ok) else MarketStatus.local
    return MarketEquilibrium(name, status, values, payoffs, lower, upper, tables, chosen, actions)


@stored_jit
def _begin(market: Market, seed: Int[Array, ""], starts: int):
    """A key for later use, the profiles that the search starts from, and providers' ranges."""
    keys = jax.random.split(jax.random.key(seed), starts + 1)
    drawn = jax.vmap(lambda key: random_profile(market, key))(keys[1:])
    plain = jnp.stack([babbling(market).probability, full_revelation(market).probability])
    scale = jnp.einsum("ij,j->i", unit_utility(market.objective)[1], market.mass)
    return keys[0], jnp.concatenate([plain, drawn.probability]), scale


def _group(market: Market) -> list[np.ndarray]:
    """The users of every observation."""
    labels = np.asarray(market.observation)
    return [np.flatnonzero(labels == label) for label in range(market.observations)]


def _with_enough_messages(market: Market) -> Market:
    """Enough for the optimal signal to a segment whose best responses are exact."""
    largest = max(len(group) for group in _group(market))
    states, actions = len(market.prior), market.utility.shape[1]
    wanted = states + (largest if largest <= EXACT_USERS else 2)
    return market.with_messages(max(states, actions, min(actions ** min(largest, 8), wanted)))


def prepare_search(market: Market, starts: int, seed: int) -> bool:
    """Compile in the background what `find_equilibria` will run; see `stored_jit`.

    **Returns:** whether any of it must be compiled, since no earlier run has left it.
    """
    groups = _group(market)
    market = _with_enough_messages(market)
    shape = (
        starts + 2,
        len(market.objective),
        len(groups),
        len(market.prior),
        market.messages,
    )
    tables = jax.ShapeDtypeStruct(shape, market.prior.dtype)
    new = [_begin.prepare(market, np.asarray(seed), starts), smooth.prepare(market, tables)]
    single = np.array([group[0] for group in groups if len(group) == 1], int)
    if len(single):
        own = jax.ShapeDtypeStruct((*shape[:2], len(single), *shape[3:]), tables.dtype)
        new.append(settle_users.prepare(segment_market(market, single), own))
    for group in groups:
        if 1 < len(group) <= EXACT_USERS:
            part = segment_market(market, group)
            table = jax.ShapeDtypeStruct((*shape[:2], *shape[3:]), tables.dtype)
            new.append(settle_group.prepare(part, played_profiles(part), table))
    return any(new)


@dataclasses.dataclass(frozen=True)
class Annealed:
    """A search whose starts are annealed; `tables` may still be on their way.

    `names`: of the starts. `groups`: the users of every observation. `ranges`: of the providers'
    payoffs.
    """

    market: Market
    groups: list[np.ndarray]
    names: list[str]
    key: Array
    ranges: Array
    tables: Array


def begin_search(market: Market, starts: int, seed: int) -> Annealed:
    """Anneal from babbling, full revelation and random starts, without waiting for the end."""
    groups, market = _group(market), _with_enough_messages(market)
    names = ["babbling", "full revelation", *(f"random {n}" for n in range(1, starts + 1))]
    key, posted, ranges = _begin(market, np.asarray(seed), starts)
    return Annealed(market, groups, names, key, ranges, smooth(market, posted))


def find_equilibria(
    market: Market,
    *,
    starts: int = 64,
    seed: int = 0,
    tolerance: float = 1e-6,
    progress: Callable[[str], None] = lambda text: None,
) -> SearchResult:
    """Search from babbling, full revelation and `starts` random profiles.

    Each start is annealed against quantal users, then moved by exact best responses, and what it
    ends at is assessed exactly, segment by segment of `market.observation`: linear programs over
    all deviations for segments of up to four users, a bracket for larger ones. Personalized
    markets also contribute the exact worst and best equilibrium.

    **Arguments:** `tolerance`: gain from a deviation that counts as none, as a share of the range
    of the provider's payoffs; `progress`: called with a line of text before each stage.

    **Returns:** all end points, with the best and the worst for users. Needs float64.

    >>> import jax.numpy as jnp
    >>> from diffgame.market import Market, find_equilibria
    >>> coin, same = jnp.array([0.5, 0.5]), jnp.eye(2)[None]
    >>> market = Market(coin, same, jnp.stack([same, -same]), jnp.ones(1))
    >>> find_equilibria(market, starts=2).worst().user_values.round(6)
    array([1.])
    """
    if market.prior.dtype != jnp.float64:
        raise ValueError(
            f"find_equilibria: the market is in {market.prior.dtype}; certificates need float64: "
            'set jax.config.update("jax_enable_x64", True) before making it.'
        )
    return finish_search(begin_search(market, starts, seed), tolerance, progress)


def finish_search(
    annealed: Annealed, tolerance: float, progress: Callable[[str], None]
) -> SearchResult:
    """Settle and assess what was annealed; see `find_equilibria`."""
    market, groups, names = annealed.market, annealed.groups, list(annealed.names)
    labels, actions = np.asarray(market.observation), market.utility.shape[1]
    starts = len(names)
    progress(f"annealing {starts} starts")
    tables = np.asarray(annealed.tables)
    pieces: list[Piece] = []
    single = [int(group[0]) for group in groups if len(group) == 1]
    settled: dict[int, Settled] = {}
    if single:
        progress(f"exact best responses and equilibrium values of {len(single)} users")
        where = np.array([labels[user] for user in single])
        ends, _ = settle_users(segment_market(market, np.array(single)), tables[:, :, where])
        ends = jax.tree.map(np.asarray, ends)
        settled = {
            user: jax.tree.map(lambda leaf, n=n: leaf[n], ends) for n, user in enumerate(single)
        }
    for label, group in enumerate(groups):
        part = segment_market(market, group)
        if len(group) == 1:
            profile = action_profiles(1, actions)
            pieces.append(profile_piece(settled[int(group[0])], group, profile))
        elif len(group) <= EXACT_USERS:
            progress(f"exact best responses for {len(group)} users together")
            profiles = played_profiles(part)
            ends = settle_group(part, profiles, tables[:, :, label])
            pieces.append(profile_piece(ends, group, profiles))
        else:
            progress(f"searching deviations for {len(group)} users together")
            plain = [babbling(market), full_revelation(market)]
            extra = np.stack([profile.probability[:, label] for profile in plain])
            table = jnp.asarray(np.concatenate([tables[:, :, label], extra]))
            crowd = part.anonymous().with_messages(market.messages)
            ends = settle_crowd(crowd, table, jax.random.split(annealed.key, len(table)))
            pieces.append(_crowd_piece(part, ends, group))
    names += ["babbling, as posted", "full revelation, as posted"]
    if len(single) == len(groups):
        names += ["exact worst", "exact best"]
    scale = np.asarray(annealed.ranges)
    found = [
        assemble(market, labels, pieces, start, name, tolerance * scale)
        for start, name in enumerate(names)
    ]
    early = np.sum([piece.smooth[:starts] for piece in pieces], axis=0)
    done = np.isfinite(early) & (early >= 0) & (early <= tolerance * scale)
    mass = np.asarray(market.mass)
    searched = [
        end
        for place, end in enumerate(found)
        # Profiles as posted were not searched for: they count where they happen to stand.
        if place < starts or end.status is not MarketStatus.exploitable
    ]
    return SearchResult(searched, found[starts], int(np.sum(np.all(done, axis=1))), mass)
