"""The part of an audit about conversations: what users know, and what protocols allow."""

from collections.abc import Callable
from typing import Any

import numpy as np

from ._market import Market
from ._market_file import MarketFile
from ._menu_search import MenuEquilibrium, find_menu_equilibria
from ._menu_starts import distinct_branches
from ._search import MarketStatus
from ._typed_tables import TypedTables, best_values, can_reveal

TIMING = "before"


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


def conversation_mode(
    file: MarketFile,
    tables: TypedTables,
    labels: list[str],
    *,
    starts: int,
    seed: int,
    tolerance: float,
    progress: Callable[[str], None],
) -> dict[str, Any]:
    """One mode of the audit of a market with conversation or private information.

    `labels`: what providers tell apart, the users (personalized) or one label (anonymous).
    """
    found = find_menu_equilibria(
        tables,
        file.conversation,
        personalized=len(labels) == len(file.users),
        starts=starts,
        seed=seed,
        tolerance=tolerance,
        progress=progress,
    )
    silent = {MarketStatus.certified: True, MarketStatus.exploitable: False}
    revealed = found.full_revelation
    return {
        "timing": TIMING,
        "babbling_is_equilibrium": silent.get(found.babbling.status),
        "babbling_gain": dict(zip(file.providers, found.babbling.lower.tolist(), strict=True)),
        "babbling": _end(file, labels, found.babbling),
        "full_revelation": None if revealed is None else _end(file, labels, revealed),
        "best": _end(file, labels, found.best()),
        "worst": _end(file, labels, found.worst()),
        "certified": sum(end.status is MarketStatus.certified for end in found.equilibria),
        "searched": found.searched,
    }
