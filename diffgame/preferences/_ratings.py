"""Tables of ratings or survey answers, and of providers' utilities for the same items."""

import dataclasses
import difflib
import math
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float64

# The bounds of a fit come from as many answers at least; fewer leave nothing to hold out.
MINIMUM_ANSWERS = 5
MINIMUM_PEOPLE = 3


class RatingsError(ValueError):
    """A table or an option that cannot be used: one line with place, value and remedy."""

    def __init__(self, place: str, problem: str, remedy: str):
        super().__init__(place, problem, remedy)
        self.place, self.problem, self.remedy = place, problem, remedy

    def __str__(self) -> str:
        line = f"{self.place} {self.problem}; {self.remedy}"
        return "".join(c if c.isprintable() else repr(c)[1:-1] for c in line)


@dataclasses.dataclass(frozen=True, eq=False)
class Ratings:
    """What people think of items, on one stated scale; NaN where somebody did not say.

    Attributes:
        name: where the table comes from, for messages and titles.
        people: names of the people, unique; so are those of the items.
        items: names of the items.
        scale: smallest and largest possible rating.
        values: ratings [people, items], within the scale or NaN.
        groups: one label per person, or None.
        topics: names of groups of items, or empty.
        topic_weights: share [items, topics] of each item that belongs to a topic; rows sum to 1.

    Raises:
        RatingsError: on the first fault found.

    Example:
        >>> table = Ratings("films", ("ann", "bob"), ("x", "y"), (1.0, 5.0),
        ...                 np.array([[1.0, 5.0], [4.0, np.nan]]))
        >>> table.observed
        array([[ True,  True],
               [ True, False]])
    """

    name: str
    people: tuple[str, ...]
    items: tuple[str, ...]
    scale: tuple[float, float]
    values: Float64[np.ndarray, "people items"]
    groups: tuple[str, ...] | None = None
    topics: tuple[str, ...] = ()
    topic_weights: Float64[np.ndarray, "items topics"] | None = None

    def __post_init__(self):
        check_scale(self.scale)
        rows = [f"{self.name}: person {person!r}" for person in self.people]
        check_unique(self.people, self.name, "person")
        check_unique(self.items, self.name, "item")
        if self.groups is not None and len(self.groups) != len(self.people):
            problem = f"holds {len(self.groups)} groups for {len(self.people)} people"
            raise RatingsError(f"{self.name}:", problem, "give one group per person")
        check_values(self.values, rows, self.items, self.scale)
        if (self.topic_weights is None) != (not self.topics):
            problem = "has topics without weights, or weights without topics"
            raise RatingsError(f"{self.name}:", problem, "give both")
        if self.topic_weights is not None:
            wrong = np.abs(self.topic_weights.sum(axis=1) - 1) > 1e-9
            if wrong.any() or (self.topic_weights < 0).any():
                item = self.items[int(wrong.argmax())]
                problem = "has topic weights that are negative or do not sum to 1"
                raise RatingsError(f"{self.name}: item {item!r}", problem, "rescale them")

    @property
    def observed(self) -> np.ndarray:
        """Which answers were given, [people, items]."""
        return ~np.isnan(self.values)


def check_scale(scale: tuple[float, float]) -> None:
    """A scale is two finite numbers, the smaller one first."""
    low, high = scale
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        problem = f"is {low:g} to {high:g}"
        raise RatingsError("the scale", problem, "give MIN,MAX with MIN < MAX, as in 1,5")


def check_answers(ratings: Ratings, minimum: int, group_minimum: int = MINIMUM_PEOPLE) -> None:
    """Everybody answers often enough, every item is answered, every group is large enough."""
    silent = ~ratings.observed.any(axis=0)
    if silent.any():
        where = f"{ratings.name}: column {ratings.items[int(silent.argmax())]!r}"
        raise RatingsError(where, "has no answer at all", "leave the item out")
    answers = ratings.observed.sum(axis=1)
    if (answers < minimum).any():
        first = int((answers < minimum).argmax())
        few = int((answers < minimum).sum())
        raise RatingsError(
            f"{ratings.name}: person {ratings.people[first]!r}",
            f"gives {answers[first]} answers, fewer than the minimum of {minimum}"
            + (f" (so do {few - 1} more)" if few > 1 else ""),
            "leave such people out, or lower the minimum (--minimum)",
        )
    for group in sorted(set(ratings.groups or ())):
        size = (ratings.groups or ()).count(group)
        if size < group_minimum:
            raise RatingsError(
                f"{ratings.name}: group {group!r}",
                f"has {size} people, fewer than the minimum of {group_minimum}",
                "merge it with another group or leave it out",
            )


def check_values(
    values: np.ndarray, place: Sequence[str], items: Sequence[str], scale: tuple[float, float]
) -> None:
    """Finite numbers within the scale, or NaN; `place` names the rows."""
    low, high = scale
    wrong = np.argwhere(np.isinf(values) | (values < low) | (values > high))
    if len(wrong):
        row, column = wrong[0]
        where = f"{place[row]} column {items[column]!r}"
        if np.isinf(values[row, column]):
            raise RatingsError(where, "is not finite", "give a finite number")
        problem = f"is {values[row, column]:g}, outside the scale {low:g} to {high:g}"
        raise RatingsError(where, problem, "correct it, or state another scale (--scale)")


def check_unique(
    names: Sequence[str], place: str, kind: str, lines: Sequence[int] | None = None
) -> None:
    """Names that are neither empty nor used twice; `lines` are their rows in a file."""
    first: dict[str, int] = {}
    for k, name in enumerate(names):
        where = f"{place}:" if lines is None else f"{place}: row {lines[k]}"
        if not name:
            raise RatingsError(where, f"holds an empty {kind} name", f"name every {kind}")
        if name in first:
            problem = f"names the {kind} {name!r} twice"
            if lines is not None:
                problem = f"is the {kind} {name!r} of row {lines[first[name]]} again"
            raise RatingsError(where, problem, f"give every {kind} a name of its own")
        first[name] = k


def some_names(names: Sequence[str]) -> str:
    """The first names of a list, for a remedy."""
    return ", ".join(map(repr, names[:4])) + (", ..." if len(names) > 4 else "")


def suggestion(name: str, known: Sequence[str]) -> str:
    """What somebody who wrote `name` may have meant."""
    close = difflib.get_close_matches(name, known, n=1)
    return f"did you mean {close[0]!r}?" if close else f"choose from {some_names(known)}"
