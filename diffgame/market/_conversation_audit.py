"""The part of an audit about conversations: what users know, and what protocols allow."""

from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from jaxtyping import Float

from ._market import Market
from ._market_file import MarketFile
from ._menu_extremes import find_menu_extremes
from ._menu_search import MenuEquilibrium, find_menu_equilibria
from ._menu_starts import distinct_branches, protocol_fits
from ._menu_values import menu_values
from ._menu_worst_case import menu_worst_case
from ._search import EXACT_USERS, MarketStatus
from ._typed_tables import TypedTables, best_values, can_reveal

TIMINGS = ("before", "after")
Menu: TypeAlias = Float[np.ndarray, "users values actions states"]
Progress: TypeAlias = Callable[[str], None]

# Starts of the descent and the ascent of welfare, each of which solves many programs.
_MOST_DESCENTS = 16


def alignment_market(tables: TypedTables) -> Market:
    """A market without private information whose alignment is that of `tables`.

    Alignment compares utilities over all of (private value, action, state), whatever their
    probability: pairs of private value and state take the place of states.
    """
    actions = tables.utility.shape[2]

    def flat(table: np.ndarray) -> np.ndarray:
        return np.swapaxes(table, -3, -2).reshape(*table.shape[:-3], actions, -1)

    utility = flat(tables.utility)
    cells = utility.shape[-1]
    return Market(np.full(cells, 1 / cells), utility, flat(tables.objective), tables.mass)


def names_states(file: MarketFile) -> bool:
    """Whether the provider's messages over all rounds can tell the states apart."""
    return file.conversation is None or can_reveal(file.conversation, len(file.states))


def best_conversations(file: MarketFile, tables: TypedTables) -> dict[str, float | None]:
    """`best_values` by user; empty for a file without `conversation`."""
    if file.conversation is None:
        return {}
    return dict(zip(file.users, best_values(tables, file.conversation), strict=True))


def _end(file: MarketFile, labels: list[str], end: MenuEquilibrium) -> dict[str, Any]:
    """One profile as the audit reports it: everything needed to check it again."""
    groups = np.array_split(np.arange(len(file.users)), len(labels))
    menus, places = {}, {}
    for label, members in zip(labels, groups, strict=True):
        owned = [(j, x) for j in members.tolist() for x in range(_count(file, j))]
        branches, place = distinct_branches(np.stack([end.menu[pair] for pair in owned]))
        # Rows = states, columns = messages, as everywhere in an audit.
        menus[label] = [branch.T.tolist() for branch in branches]
        places |= dict(zip(owned, place.tolist(), strict=True))
    return {
        "status": end.status.value,
        "start": end.start,
        "user_values": dict(zip(file.users, end.user_values.tolist(), strict=True)),
        "provider_payoffs": dict(zip(file.providers, end.provider_payoffs.tolist(), strict=True)),
        "exploitability": {"lower": float(end.lower.max()), "upper": float(end.upper.max())},
        "policies": dict.fromkeys(file.providers, menus),
        "choices": {
            user: {
                "provider": file.providers[0],
                "branches": [places[j, x] for x in range(_count(file, j))],
                "actions": list(file.actions),
            }
            for j, user in enumerate(file.users)
        },
    }


def _count(file: MarketFile, user: int) -> int:
    own = file.private[user]
    return 1 if own is None else len(own.values)


def _extremes(
    file: MarketFile,
    tables: TypedTables,
    starts: int,
    seed: int,
    tolerance: float,
    progress: Progress,
) -> list[tuple[str, Menu]]:
    """Common menus that welfare descends and ascends to, where that search applies."""
    providers, users, _, actions, _ = tables.objective.shape
    plain = max(tables.values) == 1 and 1 < users <= EXACT_USERS and providers > 1
    if not (plain and protocol_fits(file.conversation, users, actions)):
        return []
    market = Market(
        tables.joint[0, 0], tables.utility[:, 0], tables.objective[:, :, 0], tables.mass
    )
    moved = find_menu_extremes(
        market,
        starts=min(starts, _MOST_DESCENTS),
        seed=seed,
        tolerance=tolerance,
        progress=progress,
    )
    return [
        ("descent of welfare", moved.worst.branches[:, None]),
        ("ascent of welfare", moved.best.branches[:, None]),
    ]


class Ranges(NamedTuple):
    """Each user's exact range, if any, whether it is proved, and why there is none.

    `ends`: the menus of the lowest and the highest values, with names.
    """

    range: dict[str, list[float] | None]
    certified: dict[str, bool | None]
    missing: dict[str, str]
    ends: list[tuple[str, Menu]]


def find_ranges(file: MarketFile, tables: TypedTables, timing: str) -> Ranges:
    """The exact personalized ranges of all users for whom they are known to be exact."""
    actions = tables.utility.shape[2]
    asked, missing = [], {}
    for j, (user, types) in enumerate(zip(file.users, tables.values, strict=True)):
        if not protocol_fits(file.conversation, types, actions):
            missing[user] = "the protocol is too small for some of her menus"
        elif timing == "after" and types > 1:
            missing[user] = (
                "she picks a provider for each private value, and they are not known apart"
            )
        else:
            asked.append(j)
    if not asked:
        nothing = dict.fromkeys(file.users)
        return Ranges(nothing, nothing, missing, [])
    found = menu_values(tables, asked)
    known = {file.users[j]: j for j in asked}
    return Ranges(
        {
            user: [float(found.low[known[user]]), float(found.high[known[user]])]
            if user in known
            else None
            for user in file.users
        },
        {
            user: bool(found.certified[known[user]]) if user in known else None
            for user in file.users
        },
        missing,
        [("exact worst", found.worst), ("exact best", found.best)],
    )


def _worst_case(
    file: MarketFile, tables: TypedTables, personalized: bool, timing: str
) -> dict[str, Any] | None:
    if not names_states(file):
        return None
    worst = menu_worst_case(tables, personalized=personalized, timing=timing)
    per_user = dict(zip(file.users, worst.per_user.tolist(), strict=True))
    return {"total": worst.total, "per_user": per_user}


def conversation_mode(
    file: MarketFile,
    tables: TypedTables,
    labels: list[str],
    ranges: Ranges | None,
    *,
    timing: str,
    starts: int,
    seed: int,
    tolerance: float,
    progress: Progress,
) -> dict[str, Any]:
    """One mode of the audit of a market with conversation or private information.

    `labels`: what providers tell apart, the users (personalized) or one label (anonymous).
    `ranges`: needed if they tell users apart, and used for a single user in any case.
    """
    personalized = len(labels) == len(file.users) and labels[0] == file.users[0]
    progress("worst-case certificate")
    worst_case = _worst_case(file, tables, personalized, timing)
    ends = [] if ranges is None else ranges.ends
    if not personalized and len(file.users) > 1:
        ends = _extremes(file, tables, starts, seed, tolerance, progress)
    found = find_menu_equilibria(
        tables,
        file.conversation,
        personalized=personalized,
        timing=timing,
        found=ends,
        starts=starts,
        seed=seed,
        tolerance=tolerance,
        progress=progress,
    )
    silent = {MarketStatus.certified: True, MarketStatus.exploitable: False}
    revealed = found.full_revelation
    missing: dict[str, Any] = {}
    if worst_case is None:
        missing["worst_case_loss"] = (
            "the protocol is too small to name the state: nobody can deviate to telling everything"
        )
    exact = {}
    if personalized and ranges is not None:
        exact = {
            "equilibrium_range": ranges.range,
            "equilibrium_range_certified": ranges.certified,
        }
        if ranges.missing:
            missing["equilibrium_range"] = ranges.missing
    return {
        "timing": timing,
        "worst_case_loss": worst_case,
        **exact,
        "not_computed": missing,
        "babbling_is_equilibrium": silent.get(found.babbling.status),
        "babbling_gain": dict(zip(file.providers, found.babbling.lower.tolist(), strict=True)),
        "babbling": _end(file, labels, found.babbling),
        "full_revelation": None if revealed is None else _end(file, labels, revealed),
        "best": _end(file, labels, found.best()),
        "worst": _end(file, labels, found.worst()),
        "certified": sum(end.status is MarketStatus.certified for end in found.equilibria),
        "searched": found.searched,
    }
