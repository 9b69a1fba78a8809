"""Checks of names, numbers and tables, whose one error names field, value and remedy."""

import json
import math
import numbers
import unicodedata
from collections.abc import Sequence
from typing import Any

import numpy as np

PRIOR_TOLERANCE = 1e-9


class MarketFileError(ValueError):
    """A market that cannot be read, written or built: one line with file, field and remedy.

    Attributes:
        field: where the fault is, as a path into the file (`users[2].utility[1][0]`).
        problem: what is wrong there, with the value.
        remedy: what to do about it.
        source: the file, or "market" for a market that is built in Python.
    """

    def __init__(self, field: str, problem: str, remedy: str, source: str = "market"):
        super().__init__(field, problem, remedy, source)
        self.field, self.problem, self.remedy, self.source = field, problem, remedy, source

    def __str__(self) -> str:
        where = f"{self.field} " if self.field else ""
        line = f"{self.source}: {where}{self.problem}; {self.remedy}"
        return "".join(c if c.isprintable() else repr(c)[1:-1] for c in line)


def located(field: str, *who: str) -> str:
    """A path into the file with the names that its indices stand for."""
    known = ", ".join(filter(None, who))
    return f"{field} ({known})" if known else field


def entries(
    value: Any, field: str, who: str, names: Sequence[str], kind: str, remedy: str = ""
) -> list[Any]:
    """The entries of a list or array that must hold one per name; `who` explains the field."""
    place = located(field, who)
    if hasattr(value, "__array__"):
        value = np.asarray(value).tolist()
    if not isinstance(value, list | tuple):
        listed = remedy or f"give a list with one entry per {kind}"
        raise MarketFileError(place, f"is {shown(value)}", listed)
    if len(value) != len(names):
        raise MarketFileError(
            place,
            f"has {len(value)} entries, but {kind}s number {len(names)}",
            remedy or f"give one entry per {kind}: {shown_names(names)}",
        )
    return list(value)


def finite_numbers(
    value: Any, field: str, who: str, names: Sequence[str], kind: str, place: str = ""
) -> list[float]:
    """Finite float64 numbers, one per name; `place` is the path of the k-th, if not field[k]."""
    result = []
    for k, entry in enumerate(entries(value, field, who, names, kind)):
        where = located(place.format(k) or f"{field}[{k}]", who, f"{kind} {names[k]!r}")
        if isinstance(entry, bool) or not isinstance(entry, numbers.Real):
            raise MarketFileError(where, f"is {shown(entry)}", "give a number")
        try:
            number = float(entry)
        except OverflowError:
            number = math.inf
        if not math.isfinite(number):
            raise MarketFileError(
                where, f"is {number!r}", "give a finite number that fits a float64"
            )
        result.append(number)
    return result


def table(
    value: Any,
    field: str,
    who: str,
    names: Sequence[str],
    states: Sequence[str],
    kind: str = "action",
) -> list[list[float]]:
    """A row per action (or other `kind` of name) of a finite number per state."""
    rows = entries(value, field, who, names, kind)
    return [
        finite_numbers(row, f"{field}[{k}]", f"{who}, {kind} {names[k]!r}", states, "state")
        for k, row in enumerate(rows)
    ]


def read_only(value: Sequence[Any]) -> np.ndarray:
    """A float64 array of its own that cannot change."""
    array = np.array(value, dtype=np.float64)
    array.setflags(write=False)
    return array


def check_prior(prior: list[float], states: Sequence[str]) -> None:
    """Probabilities from 0 to 1, sum 1 within `PRIOR_TOLERANCE`."""
    for k, probability in enumerate(prior):
        if not 0 <= probability <= 1 + PRIOR_TOLERANCE:
            place = located(f"prior[{k}]", f"state {states[k]!r}")
            raise MarketFileError(place, f"is {probability!r}", "give a probability from 0 to 1")
    total = math.fsum(prior)
    if not abs(total - 1) <= PRIOR_TOLERANCE:
        raise MarketFileError(
            "prior", f"sums to {total!r}, not 1 within {PRIOR_TOLERANCE}", "rescale it to sum to 1"
        )


def unique_names(value: Any, field: str, kind: str) -> tuple[str, ...]:
    """At least one name, and none twice."""
    if not isinstance(value, list | tuple):
        raise MarketFileError(field, f"is {shown(value)}", f"give a list of {kind} names")
    if not value:
        raise MarketFileError(field, "is empty", f"give at least one {kind}")
    # Users and providers are objects in the file, states and actions are plain names.
    suffix = ".name" if kind in ("user", "provider") else ""
    first: dict[str, int] = {}
    for k, name in enumerate(value):
        where = f"{field}[{k}]{suffix}"
        check_text(name, where)
        if name in first:
            raise MarketFileError(
                where,
                f"is {name!r}, the name of {field}[{first[name]}] too",
                f"give every {kind} a name of its own",
            )
        first[name] = k
    return tuple(value)


def check_text(value: Any, field: str) -> None:
    """A text that fits on one line of a table and survives UTF-8."""
    if not isinstance(value, str):
        raise MarketFileError(field, f"is {shown(value)}", "give a text in quotes")
    if value != value.strip() or not value:
        raise MarketFileError(field, f"is {shown(value)}", "give a text without outer spaces")
    if any(unicodedata.category(c) in ("Cc", "Cs", "Zl", "Zp") for c in value):
        raise MarketFileError(
            field, f"is {shown(value)}", "leave out control characters and line breaks"
        )


def shown(value: Any) -> str:
    """A value as the file would show it, cut short."""
    try:
        text = json.dumps(value)
    except (TypeError, ValueError, RecursionError):
        text = f"of type {type(value).__name__}"
    return text if len(text) <= 60 else text[:57] + "..."


def shown_names(names: Sequence[str]) -> str:
    """The first names of a list, for a remedy."""
    return ", ".join(repr(name) for name in names[:6]) + (", ..." if len(names) > 6 else "")
