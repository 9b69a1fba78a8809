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

    - `markets`: whether the games are a family of markets, and not a user's own.
    - `header`: where the results come from. `statuses`: how many games ended how.
    - `families`: a row per size of markets, or per rung of the ladder for a user's own games.
    - `misalignment`, `temperatures`: a row per bin or value; empty where nothing varies.
    - `open`: numbers, statuses and gains of the games that are not certified, worst first.
    """

    markets: bool
    header: Row
    statuses: list[Row]
    families: list[Row]
    misalignment: list[Row]
    temperatures: list[Row]
    open: list[Row]

    @property
    def kind(self) -> str:
        """What the rows of `families` are."""
        return "By family" if self.markets else "By rung"


def losses(columns: Mapping[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Per market: what users lose against full information, and what that adds to none.

    Averages over users, weighted by mass, in units of their utility; NaN without a result.
    """
    mass = columns["mass"]
    # Markets of smaller families have fewer users; a result that is no number stays none.
    there = np.isfinite(mass)
    weight = np.where(there, mass, 0)
    total = np.sum(weight, axis=1)
    known, blind, got = (
        np.sum(np.where(there, weight * columns[name], 0), axis=1)
        for name in ("full_information", "uninformed", "user_values")
    )
    total = np.where(total > 0, total, np.nan)
    return (known - got) / total, (known - blind) / total


def _summary(columns: Mapping[str, np.ndarray], chosen: np.ndarray) -> Row:
    certified = columns["certified"].astype(bool) & chosen
    loss, room = (values[certified] for values in losses(columns))
    some = certified.any() and np.sum(room) > 0
    return {
        "games": int(np.sum(chosen)),
        "certified": float(np.sum(certified) / np.sum(chosen)),
        "welfare": float(1 - np.sum(loss) / np.sum(room)) if some else None,
        "largest loss": float(np.max(loss)) if certified.any() else None,
        "no loss": float(np.mean(loss <= 1e-6)) if certified.any() else None,
    }


def _binned(columns: Mapping[str, np.ndarray], name: str, few: int = 0) -> list[Row]:
    """A row per bin of equal width, or per value where there are at most `few`."""
    values = columns[name]
    low, high = float(np.min(values)), float(np.max(values))
    if not low < high:
        return []
    distinct = np.unique(values)
    if len(distinct) <= few:
        return [
            {name: f"{value:g}"} | _summary(columns, values == value) for value in distinct.tolist()
        ]
    edges = np.linspace(low, high, _BINS + 1)
    place = np.clip(np.searchsorted(edges, values, side="right") - 1, 0, _BINS - 1)
    return [
        {name: f"{edges[number]:.3g} to {edges[number + 1]:.3g}"}
        | _summary(columns, place == number)
        for number in range(_BINS)
        if np.any(place == number)
    ]


def _market_families(columns: Mapping[str, np.ndarray]) -> list[Row]:
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
                    {**label, "choice": "quantal" if quantal else "exact"} | _summary(columns, part)
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
        "games per second": f"{float(header.get('games_per_second', 'nan')):.4g}",
        "diffgame": header.get("diffgame", "unknown"),
        "jax": header.get("jax", "unknown"),
    }
    statuses = [
        {"status": status, "games": count, "share": count / done}
        for status, count in counts.items()
    ]
    if "misalignment" not in columns:
        left = _open(columns, ("gain", "residual", "steps"))
        return Report(False, about, statuses, _rung_rows(columns), [], [], left)
    left = _open(columns, ("gain", "users", "providers", "segments", "temperature", "misalignment"))
    return Report(
        True,
        about,
        statuses,
        _market_families(columns),
        _binned(columns, "misalignment"),
        _binned(columns, "temperature", _FEW),
        left,
    )
