"""What a user knows and the provider does not, and how they may talk: checked for market files."""

import dataclasses
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from jaxtyping import Float64
from numpy.typing import ArrayLike

from . import _checks as checks
from ._checks import MarketFileError
from ._tree import MOST_LEAVES, Protocol

if TYPE_CHECKING:
    Names: TypeAlias = Sequence[str]
    Numbers: TypeAlias = ArrayLike
else:
    # At run time the MarketFile checks what it is built from, to one clear message.
    Names = Numbers = Any


@dataclasses.dataclass(frozen=True, eq=False, init=False)
class PrivateInformation:
    """What a user may learn by herself: names of her private values, and how likely each is.

    It is checked by the `MarketFile` that it becomes part of, not before.

    Attributes:
        values: names of her private values, unique.
        likelihood: probability of each value in each state; every column sums to 1 within 1e-9
            (never rescaled).

    Example:
        >>> test = PrivateInformation(("healthy", "ill"), [[0.9, 0.2], [0.1, 0.8]])
        >>> test.values
        ('healthy', 'ill')
    """

    values: tuple[str, ...]
    likelihood: Float64[np.ndarray, "values states"]

    def __init__(self, values: Names, likelihood: Numbers):
        object.__setattr__(self, "values", values)
        object.__setattr__(self, "likelihood", likelihood)


def check_private(given: Any, field: str, who: str, states: Sequence[str]) -> PrivateInformation:
    """Unique values, and a column of probabilities for each state."""
    if not isinstance(given, PrivateInformation):
        remedy = "give a PrivateInformation, or None"
        raise MarketFileError(checks.located(field, who), f"is {checks.shown(given)}", remedy)
    values = checks.unique_names(given.values, f"{field}.values", "value")
    place = f"{field}.likelihood"
    rows = checks.table(given.likelihood, place, who, values, states, "value")
    for x, row in enumerate(rows):
        for y, probability in enumerate(row):
            if not 0 <= probability <= 1 + checks.PRIOR_TOLERANCE:
                where = f"value {values[x]!r}", f"state {states[y]!r}"
                raise MarketFileError(
                    checks.located(f"{place}[{x}][{y}]", who, *where),
                    f"is {probability!r}",
                    "give a probability from 0 to 1",
                )
    for y, column in enumerate(zip(*rows, strict=True)):
        total = math.fsum(column)
        if not abs(total - 1) <= checks.PRIOR_TOLERANCE:
            raise MarketFileError(
                checks.located(place, who),
                f"has a column for state {states[y]!r} that sums to {total!r}, not 1 within "
                f"{checks.PRIOR_TOLERANCE}",
                "rescale it: in each state the probabilities of all values sum to 1 "
                "(rows = values, columns = states)",
            )
    return PrivateInformation(values, checks.read_only(rows))


def check_tables(
    given: Any,
    field: str,
    who: str,
    actions: Sequence[str],
    states: Sequence[str],
    private: PrivateInformation | None,
) -> list[Any]:
    """The table of a user, or one table per private value of hers."""
    if private is None:
        return checks.table(given, field, who, actions, states)
    remedy = f"give a list of tables, one per value: {checks.shown_names(private.values)}"
    tables = checks.entries(given, field, who, private.values, "private value", remedy)
    result = []
    for x, (name, rows) in enumerate(zip(private.values, tables, strict=True)):
        if _is_row(rows):
            raise MarketFileError(checks.located(field, who), "is one table", remedy)
        here = f"{who}, value {name!r}"
        result.append(checks.table(rows, f"{field}[{x}]", here, actions, states))
    return result


def _is_row(value: Any) -> bool:
    """Whether this is a list of numbers, where a table is expected."""
    return isinstance(value, list | tuple) and bool(value) and isinstance(value[0], int | float)


def read_protocol(given: Any) -> Protocol:
    """A protocol from the three numbers of a file, which reads all numbers as floats."""
    numbers = {}
    for field, number in given.items():
        whole = isinstance(number, int | float) and not isinstance(number, bool)
        if not (whole and math.isfinite(number) and number >= 1 and number == int(number)):
            raise MarketFileError(
                f"conversation.{field}",
                f"is {checks.shown(number)}",
                "give an integer of at least 1",
            )
        numbers[field] = int(number)
    return Protocol(**numbers)


def check_protocol(
    given: Any,
    users: Sequence[str],
    providers: Sequence[str],
    actions: Sequence[str],
    private: Sequence[PrivateInformation | None],
) -> Protocol:
    """A protocol whose trees a `Conversation` can hold."""
    if not isinstance(given, Protocol):
        raise MarketFileError(
            "conversation",
            f"is {checks.shown(given)}",
            "give a Protocol(rounds, user_messages, provider_messages), or None",
        )
    values = max(1 if own is None else len(own.values) for own in private)
    others = len(users) * len(providers) * values * len(actions)
    histories = given.rounds * math.log10(given.user_messages * given.provider_messages)
    digits = histories + math.log10(others)
    # A tree of single moves has one leaf, however long it is.
    small = digits < 18 and 2 * given.rounds <= MOST_LEAVES
    if not (small and others * given.histories(given.rounds) <= MOST_LEAVES):
        size = f"{others * given.histories(given.rounds):,}" if small else f"over 1e{int(digits)}"
        raise MarketFileError(
            "conversation",
            f"makes trees of {size} leaves in {given.rounds} rounds for {len(users)} users, "
            f"{len(providers)} providers, {values} private values and {len(actions)} actions, "
            f"more than {MOST_LEAVES:,}",
            "shrink rounds first, then user_messages and provider_messages, or split the users "
            "into several files",
        )
    return given
