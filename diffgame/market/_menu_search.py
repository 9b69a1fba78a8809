"""Equilibria in menus among profiles in which all providers post the same menu."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from ._menu_gains import TIE, action_sets, few_messages_gains, menu_gains, searched_gains
from ._menu_starts import grouped, make_starts, protocol_fits
from ._protocol_gains import protocol_gains
from ._search import EXACT_USERS, MarketStatus
from ._tree import Protocol
from ._typed_tables import TypedTables, best_values

# Up to this many pairs of user and type that pick a provider each, deviations are exhausted.
_EXACT_PAIRS = 6
# Up to this many linear programs per provider exhaust the policies of a small protocol.
_PROGRAMS = 2_000


@dataclasses.dataclass(frozen=True)
class MenuEquilibrium:
    """A menu that all providers post, and what was proved about it; units as in the market.

    - `start`: where it comes from. `status`: see `MarketStatus`.
    - `user_values` [users], `provider_payoffs` [providers].
    - `lower`, `upper` [providers]: bracket of each provider's gain from its best deviation.
    - `menu` [users, values, actions, states]: the branch of each user and private value, a signal
        whose messages recommend actions; columns sum to 1.
    """

    start: str
    status: MarketStatus
    user_values: Float[np.ndarray, " users"]
    provider_payoffs: Float[np.ndarray, " providers"]
    lower: Float[np.ndarray, " providers"]
    upper: Float[np.ndarray, " providers"]
    menu: Float[np.ndarray, "users values actions states"]


@dataclasses.dataclass(frozen=True)
class MenuSearchResult:
    """What was tried: `searched` menus, of which `equilibria` were assessed exactly.

    `full_revelation` is None where the protocol cannot name the state.
    """

    equilibria: list[MenuEquilibrium]
    babbling: MenuEquilibrium
    full_revelation: MenuEquilibrium | None
    searched: int
    mass: Float[np.ndarray, " users"]

    def best(self) -> MenuEquilibrium:
        """The best for users among the certified, if any; else among what may stand."""
        return min(self._standing(), key=lambda end: -self._total(end))

    def worst(self) -> MenuEquilibrium:
        """The worst for users among the certified, if any; else among what may stand."""
        return min(self._standing(), key=self._total)

    def _total(self, end: MenuEquilibrium) -> float:
        # Rounded, so that among equals the first start is named.
        return round(float(self.mass @ end.user_values), 9)

    def _standing(self) -> list[MenuEquilibrium]:
        for status in (MarketStatus.certified, MarketStatus.local):
            standing = [end for end in self.equilibria if end.status is status]
            if standing:
                return standing
        return self.equilibria


class _FewMessages(NamedTuple):
    """What a provider can do to one user where messages bind.

    - `sets`: the actions that it can recommend. `ceiling` [users]: the most it can be worth.
    """

    sets: Bool[Array, "sets actions"]
    ceiling: Float[np.ndarray, " users"]


def _few_messages(tables: TypedTables, protocol: Protocol | None) -> _FewMessages | None:
    """None where messages do not bind, or where users know something themselves."""
    actions = tables.utility.shape[2]
    if protocol is None or max(tables.values) > 1:
        return None
    messages = protocol.provider_messages ** min(protocol.rounds, actions)
    sets = action_sets(actions, messages) if messages < actions else None
    if sets is None:
        return None
    best = [np.inf if value is None else value for value in best_values(tables, protocol)]
    return _FewMessages(jnp.asarray(sets), np.array(best))


def find_menu_equilibria(
    tables: TypedTables,
    protocol: Protocol | None,
    *,
    personalized: bool,
    timing: str = "before",
    found: Sequence[tuple[str, Float[np.ndarray, "users values actions states"]]] = (),
    starts: int = 64,
    seed: int = 0,
    tolerance: float = 1e-6,
    progress: Callable[[str], None] = lambda text: None,
) -> MenuSearchResult:
    """Try profiles in which all providers post one menu.

    One common menu is enough where conversations have no limit and each user (anonymous: who has
    no private types) or each of her types picks her provider (docs/menus.md, Theorem 8). Tried are
    babbling, full revelation, the optimal menu of each provider if it were alone, `starts` random
    menus and those given as `found`, with their names; personalized, also each user's worst and
    best of those.
    A menu that another one beats counts as tried; the others are assessed by linear programs over
    all menus, hence over all conversations (docs/menus.md): `upper` is proved. Where the protocol
    is too small for some menus, `lower` counts deviations to the tried menus that it allows, and
    menus that it does not allow are left out; `upper` knows of the limit where users without
    private information are addressed one by one, and, timing "before" and up to four users in a
    group, where 2,000 linear programs exhaust the protocol's policies (docs/protocols.md).
    Anonymous menus for more than four users (timing "after": six pairs of user and type) are
    assessed user by user: `upper` lets the deviator tell them apart; beyond six types of one user
    it is what a provider could gain at all.

    **Arguments:** `protocol`: None for conversations of any size; `timing`: whether users pick a
    provider "before" they learn their types or "after"; `tolerance`: gain that counts as none, as
    a share of the range of the provider's payoffs.
    """
    users, values, actions, states = tables.utility.shape
    groups = users if personalized else 1
    progress(f"trying {starts + 2 + len(tables.objective) + len(found)} menus")
    names, menus, allowed = make_starts(tables, groups, protocol, starts, seed, found)
    menu = menus.reshape(-1, users, values, actions, states)
    worth = np.einsum("jxy,jxay,sjxay->sjx", tables.joint, tables.utility, menu)
    weighted = tables.objective * tables.mass[:, None, None, None]
    earned = np.einsum("jxy,ijxay,sjxay->sijx", tables.joint, weighted, menu)
    ideal = np.einsum("jxy,ijxy->ijx", tables.joint, weighted.max(axis=3))
    # What a provider can gain at all, from [providers, users, values] to [providers, groups].
    room = (ideal[None] - earned).reshape(*earned.shape[:2], groups, -1).sum(axis=3)
    scale = np.ptp(weighted, axis=(2, 3, 4))
    part = scale.reshape(len(scale), groups, -1).sum(axis=2) * tolerance
    size = np.ptp(tables.utility, axis=(1, 2, 3))

    def units(array):
        """From pairs, the last two axes, to what picks a provider as one."""
        whole = array.sum(axis=-1) if timing == "before" else array
        return whole.reshape(*array.shape[:-2], -1)

    chance = tables.joint.sum(axis=2)
    lower = searched_gains(units(worth), units(earned), units(size[:, None] * chance), allowed)
    worth, earned = worth.sum(axis=-1), earned.sum(axis=-1)
    upper = np.maximum(room, 0)
    each = values if timing == "after" else 1
    most = EXACT_USERS if timing == "before" else _EXACT_PAIRS
    split, exact = groups, True
    if users // groups * each > most:
        split, exact = users, each <= most
    split_tables = grouped(tables, split)
    pairs = np.reshape(tables.values, (groups, -1)).sum(axis=1).tolist()
    fits = [protocol_fits(protocol, count, actions) for count in pairs]
    ample = np.array(fits) & (split == groups) & exact
    limit = _few_messages(tables, protocol) if groups == users else None
    together = timing == "before" and split == groups and exact
    small = protocol if limit is None and together and not ample.all() else None
    beaten = np.any(lower > part[None], axis=1)
    assessed = np.any(allowed & ~beaten, axis=1)
    assessed[:2] = allowed[:2].all(axis=1)
    for n, s in enumerate(np.flatnonzero(assessed & exact).tolist()):
        progress(f"exact best responses to menu {n + 1} of {assessed.sum()}")
        posted = jnp.asarray(menu[s].reshape(split, -1, actions, states))
        if limit is not None:
            winnable = jnp.asarray(limit.ceiling - worth[s] > TIE * size)
            gains = np.asarray(few_messages_gains(*split_tables, posted, limit.sets, winnable))
            upper[s] = np.minimum(upper[s], gains.T)
            continue
        if small is not None:
            found_gains = protocol_gains(*split_tables, posted, small, limit=_PROGRAMS, seed=seed)
            upper[s] = np.minimum(upper[s], found_gains.upper.T)
            # The protocol itself reaches these, so they count whether menus fit or not.
            lower[s] = np.maximum(lower[s], found_gains.lower.T)
            continue
        gained = menu_gains(*split_tables, posted, timing)
        proved = np.asarray(gained.upper).T.reshape(len(scale), groups, -1).sum(axis=2)
        upper[s] = np.minimum(upper[s], proved)
        reached = np.asarray(gained.lower).T.reshape(len(scale), groups, -1).sum(axis=2)
        lower[s] = np.where(ample, np.maximum(lower[s], reached), lower[s])

    own = np.arange(users) if personalized else np.zeros(users, int)

    def end(name: str, pick: np.ndarray) -> MenuEquilibrium:
        place, every = pick[own], np.arange(users)
        least, most = (side[pick, :, np.arange(groups)].sum(axis=0) for side in (lower, upper))
        fine = [
            np.isfinite(g) & (g >= 0) & (g <= tolerance * scale.sum(axis=1)) for g in (least, most)
        ]
        status = MarketStatus.exploitable
        if np.all(fine[0]):
            status = MarketStatus.certified if np.all(fine[1]) else MarketStatus.local
        payoffs = earned[place, :, every].sum(axis=0)
        return MenuEquilibrium(
            name, status, worth[place, every], payoffs, least, most, menu[place, every]
        )

    tried = np.flatnonzero(allowed.all(axis=1)).tolist()
    ends = {s: end(names[s], np.full(groups, s)) for s in tried if assessed[s]}
    result = list(ends.values())
    proved = allowed & assessed[:, None] & np.all(upper <= part[None], axis=1)
    if groups > 1 and proved.any(axis=0).all():
        low = np.where(proved, worth, np.inf).argmin(axis=0)
        high = np.where(proved, worth, -np.inf).argmax(axis=0)
        result += [end("each user's worst", low), end("each user's best", high)]
    return MenuSearchResult(result, ends[0], ends.get(1), len(tried), tables.mass)
