"""What a `.nfg` file says: numbers stay the text they were, so that 1/3 or 0.10 come back."""

import dataclasses
import math
import re
from fractions import Fraction
from typing import NoReturn

import numpy as np

from ._normal_form import NormalForm

_NUMBER = re.compile(r"[+-]?(\d+/\d+|(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?)")


class NfgError(ValueError):
    """One line that names the file, the line, the field, what is wrong, and the remedy."""


@dataclasses.dataclass(frozen=True)
class NfgOutcome:
    """A named outcome and its payoffs, one number as text per player."""

    name: str
    payoffs: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class NfgGame:
    """What a `.nfg` file says, word for word.

    - `title`, `comment`: text; `comment` is None where the file has none.
    - `players`: their names. `actions`: per player the names of its actions, or their number.
    - `payoffs`: one number as text per player for each contingency, the first player's actions
        changing fastest; empty when the file lists outcomes.
    - `outcomes`, `contingencies`: the outcomes, and for each contingency which one happens,
        counted from 1; 0 is no outcome and pays nothing. Empty when the file lists payoffs.
    - `number_type`: the letter of the header, R (rational) or D (decimal).

    **Errors:** `NfgError` when the parts do not fit each other, or cannot be written.
    """

    title: str
    players: tuple[str, ...]
    actions: tuple[tuple[str, ...] | int, ...]
    payoffs: tuple[str, ...] = ()
    outcomes: tuple[NfgOutcome, ...] = ()
    contingencies: tuple[int, ...] = ()
    comment: str | None = None
    number_type: str = "R"

    def __post_init__(self):
        self._check_names()
        if len(self.actions) != len(self.players):
            fail("actions", f"{len(self.actions)} entries for {len(self.players)} players",
                  "give one entry per player")  # fmt: skip
        for player, count in zip(self.players, self.counts, strict=True):
            if count < 1:
                fail("actions", f"player {player!r} has none", "give at least one")
        players, cells = len(self.players), math.prod(self.counts)
        if self.by_outcomes:
            if self.payoffs:
                fail("payoffs", "given beside outcomes", "give either payoffs or outcomes")
            if len(self.contingencies) != cells:
                fail("contingencies", f"{len(self.contingencies)} of {cells}",
                      "give one outcome per combination of actions")  # fmt: skip
            for index in self.contingencies:
                if not 0 <= index <= len(self.outcomes):
                    fail("contingencies", f"outcome {index} of {len(self.outcomes)}",
                          "use 0 for no outcome, or count the outcomes from 1")  # fmt: skip
            for outcome in self.outcomes:
                if len(outcome.payoffs) != players:
                    fail("outcomes", f"{outcome.name!r} has {len(outcome.payoffs)} payoffs",
                          f"give one for each of {players} players")  # fmt: skip
        elif len(self.payoffs) != cells * players:
            fail("payoffs", f"{len(self.payoffs)} numbers of {cells * players}",
                  "give one per player for each combination of actions")  # fmt: skip
        for text in (*self.payoffs, *(p for outcome in self.outcomes for p in outcome.payoffs)):
            fraction(text)

    def _check_names(self):
        if self.number_type not in ("R", "D"):
            fail("header", f"number type {self.number_type!r}", "use R or D")
        if not self.players:
            fail("players", "none", "name at least one")
        names = [own for own in self.actions if not isinstance(own, int)]
        texts = [self.title, *self.players, *(name for own in names for name in own)]
        texts += [outcome.name for outcome in self.outcomes]
        for text in (*texts, *([] if self.comment is None else [self.comment])):
            if '\\"' in text or text.endswith("\\"):
                fail("name", f"{text!r} has a backslash before a quote or at its end",
                      "the format cannot say that: remove the backslash")  # fmt: skip

    @property
    def counts(self) -> tuple[int, ...]:
        """How many actions each player has."""
        return tuple(own if isinstance(own, int) else len(own) for own in self.actions)

    @property
    def by_outcomes(self) -> bool:
        """Whether the game is given by outcomes instead of payoffs."""
        return bool(self.contingencies)

    def normal_form(self) -> NormalForm:
        """The game with each payoff as the nearest float."""
        players = len(self.players)
        if self.by_outcomes:
            table = [(0.0,) * players]
            table += [tuple(map(_number, outcome.payoffs)) for outcome in self.outcomes]
            numbers = np.array(table)[np.array(self.contingencies)]
        else:
            numbers = np.array([_number(text) for text in self.payoffs]).reshape(-1, players)
        # The first player's action changes fastest: Fortran's order.
        return NormalForm(np.stack([own.reshape(self.counts, order="F") for own in numbers.T]))


def fail(field: str, problem: str, remedy: str, line: int | None = None) -> NoReturn:
    """Raise an `NfgError` of one line."""
    where = "" if line is None else f"line {line}: "
    raise NfgError(f"{where}{field}: {problem}; {remedy}")


def fraction(text: str, line: int | None = None) -> Fraction:
    """The exact number that a text says."""
    if not _NUMBER.fullmatch(text):
        fail("payoffs", f"{text!r} is no number", "write 3, -1/2, 0.25 or 1e-3", line)
    try:
        return Fraction(text)
    except ZeroDivisionError:
        fail("payoffs", f"{text!r} divides by zero", "correct the denominator", line)


def _number(text: str) -> float:
    try:
        return float(fraction(text))
    except OverflowError:
        raise NfgError(
            f"payoffs: {text!r} is beyond float64; rescale the payoffs below 1e308"
        ) from None
