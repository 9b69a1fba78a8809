"""What the results of a search say in sum: statuses, welfare by family, what is not certified."""

import dataclasses
import json
from collections.abc import Mapping
from typing import Any

import numpy as np

Row = dict[str, Any]
"""A line of a table: texts and numbers under fixed names; None where there is nothing to say."""

_BINS = 10
# More values of a temperature than this are shown as bins.
_FEW = 12


@dataclasses.dataclass(frozen=True)
class Report:
    """The tables of a report.

    - `header`: where the results come from. `statuses`: how many games ended how.
    - `families`: a row per size of markets, or per rung of the ladder for a user's own games.
    - `misalignment`, `temperatures`: a row per bin or value; empty where nothing varies.
    - `open`: numbers, statuses and gains of the games that are not certified, worst first.
    """

    header: Row
    statuses: list[Row]
    families: list[Row]
    misalignment: list[Row]
    temperatures: list[Row]
    open: list[Row]


def welfare_shares(columns: Mapping[str, np.ndarray]) -> np.ndarray:
    """Per market: of what full information adds to no information, the share that users get.

    Sums over users, weighted by mass; NaN where information is worth nothing.
    """
    mass = columns["mass"]
    # Markets of smaller families have fewer users; a result that is no number stays none.
    there = np.isfinite(mass)
    known, blind, got = (
        np.sum(np.where(there, mass * columns[name], 0), axis=1)
        for name in ("full_information", "uninformed", "user_values")
    )
    room = known - blind
    worth = room > 1e-12 * np.maximum(np.abs(known), 1)
    share = (got - blind) / np.where(worth, room, 1)
    return np.where(worth & np.isfinite(got), share, np.nan)


def _summary(columns: Mapping[str, np.ndarray], chosen: np.ndarray, welfare: np.ndarray) -> Row:
    certified = columns["certified"].astype(bool) & chosen
    shares = welfare[certified]
    shares = shares[np.isfinite(shares)]
    return {
        "games": int(np.sum(chosen)),
        "certified": float(np.sum(certified) / np.sum(chosen)),
        "welfare, mean": float(np.mean(shares)) if shares.size else None,
        "welfare, lowest": float(np.min(shares)) if shares.size else None,
        "full information": float(np.mean(shares >= 1 - 1e-6)) if shares.size else None,
    }


def _binned(
    columns: Mapping[str, np.ndarray], name: str, welfare: np.ndarray, *, few: int = 0
) -> list[Row]:
    """A row per bin of equal width, or per value where there are at most `few`."""
    values = columns[name]
    low, high = float(np.min(values)), float(np.max(values))
    if not low < high:
        return []
    distinct = np.unique(values)
    if len(distinct) <= few:
        return [
            {name: f"{value:g}"} | _summary(columns, values == value, welfare)
            for value in distinct.tolist()
        ]
    edges = np.linspace(low, high, _BINS + 1)
    place = np.clip(np.searchsorted(edges, values, side="right") - 1, 0, _BINS - 1)
    return [
        {name: f"{edges[number]:.3g} to {edges[number + 1]:.3g}"}
        | _summary(columns, place == number, welfare)
        for number in range(_BINS)
        if np.any(place == number)
    ]


def _market_families(columns: Mapping[str, np.ndarray], welfare: np.ndarray) -> list[Row]:
    names = ("users", "providers", "segments")
    sizes = np.stack([columns[name] for name in names], axis=1)
    rows = []
    for size in np.unique(sizes, axis=0):
        chosen = np.all(sizes == size[None], axis=1)
        for quantal in (False, True):
            part = chosen & ((columns["temperature"] > 0) == quantal)
            if np.any(part):
                label = dict(zip(names, size.tolist(), strict=True))
                rows.append(
                    {**label, "users are": "quantal" if quantal else "exact"}
                    | _summary(columns, part, welfare)
                )
    return rows


def _rung_rows(columns: Mapping[str, np.ndarray]) -> list[Row]:
    rows = []
    for rung in sorted(set(columns["rung"].tolist())):
        chosen = columns["rung"] == rung
        certified = columns["certified"].astype(bool) & chosen
        rows.append(
            {
                "ended on": str(rung),
                "games": int(np.sum(chosen)),
                "certified": float(np.sum(certified) / np.sum(chosen)),
                "steps, median": float(np.median(columns["steps"][chosen])),
                "steps, most": int(np.max(columns["steps"][chosen])),
            }
        )
    return rows


def _open(columns: Mapping[str, np.ndarray], names: tuple[str, ...]) -> list[Row]:
    numbers = np.flatnonzero(~columns["certified"].astype(bool))
    gain = columns["gain"][numbers]
    order = np.argsort(-np.where(np.isnan(gain), np.inf, gain), kind="stable")
    return [
        {"game": game, "status": str(columns["status"][game])}
        | {name: columns[name][game].item() for name in names}
        for game in numbers[order].tolist()
    ]


def summarize(header: Mapping[str, str], columns: Mapping[str, np.ndarray], games: int) -> Report:
    """The tables of a results file; `games`: how many its search asked for."""
    done = len(columns["status"])
    counts = json.loads(header["statuses"])
    about: Row = {
        "games": done if done == games else f"{done} of {games} (stopped early)",
        "games per second": header.get("games_per_second", "nan"),
        "diffgame": header.get("diffgame", "unknown"),
        "jax": header.get("jax", "unknown"),
    }
    statuses = [
        {"status": status, "games": count, "share": count / done}
        for status, count in counts.items()
    ]
    if "misalignment" not in columns:
        left = _open(columns, ("gain", "residual", "steps"))
        return Report(about, statuses, _rung_rows(columns), [], [], left)
    welfare = welfare_shares(columns)
    left = _open(columns, ("gain", "users", "providers", "segments", "temperature", "misalignment"))
    return Report(
        about,
        statuses,
        _market_families(columns, welfare),
        _binned(columns, "misalignment", welfare),
        _binned(columns, "temperature", welfare, few=_FEW),
        left,
    )
