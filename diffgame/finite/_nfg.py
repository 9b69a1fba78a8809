"""Gambit's file format `.nfg`: games in strategic form, read and written without loss.

**Source:** the Gambit manual, "Game representation formats": strategic games by payoffs and by
outcomes.
"""

import os
import re
import uuid
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ._nfg_game import NfgError, NfgGame, NfgOutcome, fail, fraction
from ._normal_form import NormalForm

_WORD = re.compile(r'[^\s{}",]+')


class _Reader:
    """Tokens of a file with the line each stands on; quoted texts are marked by their kind."""

    def __init__(self, text: str):
        self.tokens = list(self._split(text))
        self.at = 0
        self.last_line = text.count("\n") + 1

    @staticmethod
    def _split(text: str):
        place, line = 0, 1
        while place < len(text):
            character = text[place]
            if character in "{}":
                yield character, character, line
                place += 1
            elif character == '"':
                end, start_line = place + 1, line
                while end < len(text) and text[end] != '"':
                    end += 2 if text.startswith('\\"', end) else 1
                if end >= len(text):
                    fail("name", "its closing quote is missing",
                          'end it with ", and write a quote inside it as \\"',
                          start_line)  # fmt: skip
                name = text[place + 1 : end]
                line += name.count("\n")
                yield "text", name.replace('\\"', '"'), start_line
                place = end + 1
            elif character.isspace() or character == ",":
                line += character == "\n"
                place += 1
            else:
                word = _WORD.match(text, place)
                assert word is not None
                yield "word", word.group(), line
                place = word.end()

    def peek(self, ahead: int = 0) -> str:
        place = self.at + ahead
        return self.tokens[place][0] if place < len(self.tokens) else "end"

    @property
    def line(self) -> int:
        return self.tokens[self.at][2] if self.at < len(self.tokens) else self.last_line

    def take(self, kind: str, field: str, remedy: str) -> str:
        if self.peek() != kind:
            found = repr(self.tokens[self.at][1]) if self.at < len(self.tokens) else "nothing"
            fail(field, f"found {found}", remedy, self.line)
        self.at += 1
        return self.tokens[self.at - 1][1]

    def texts(self, field: str) -> tuple[str, ...]:
        self.take("{", field, "open the list with {")
        names = []
        while self.peek() != "}":
            names.append(
                self.take("text", field, "write names in quotes and close the list with }")
            )
        self.at += 1
        return tuple(names)


def parse_nfg(text: str) -> NfgGame:
    """Read the contents of a `.nfg` file.

    **Errors:** `NfgError`, one line with line, field and remedy.

    >>> game = parse_nfg('NFG 1 R "Dare" { "A" "B" } { 2 2 } 0 0 7 2 2 7 6 6')
    >>> print(game.normal_form().payoffs[0])
    [[0. 2.]
     [7. 6.]]
    """
    reader = _Reader(text)
    for expected in ("NFG", "1"):
        line = reader.line
        if (word := reader.take("word", "header", "begin with NFG 1 R")) != expected:
            fail("header", f"found {word!r}", "begin with NFG 1 R", line)
    line = reader.line
    number_type = reader.take("word", "header", "write R or D after NFG 1")
    if number_type not in ("R", "D"):
        fail("header", f"number type {number_type!r}", "write R or D after NFG 1", line)
    title = reader.take("text", "title", "write it in quotes after the header")
    players = reader.texts("players")
    line = reader.line
    actions = _read_actions(reader)
    if len(actions) != len(players):
        fail("actions", f"{len(actions)} entries for {len(players)} players",
              "give one entry per player", line)  # fmt: skip
    comment = reader.take("text", "comment", "") if reader.peek() == "text" else None
    line = reader.line
    payoffs, outcomes, contingencies = (), (), ()
    if reader.peek() == "{":
        outcomes = _read_outcomes(reader, len(players))
        line = reader.line
        contingencies = _read_indices(reader, len(outcomes))
    else:
        payoffs = _read_numbers(reader)
    if reader.peek() != "end":
        reader.take("end", "payoffs", "let only numbers follow the actions")
    try:
        return NfgGame(
            title, players, actions, payoffs, outcomes, contingencies, comment, number_type
        )
    except NfgError as error:
        raise NfgError(f"line {line}: {error}") from None


def _read_actions(reader: _Reader) -> tuple[tuple[str, ...] | int, ...]:
    reader.take("{", "actions", "open the list with {")
    found: list[tuple[str, ...] | int] = []
    while reader.peek() != "}":
        if reader.peek() == "{":
            found.append(reader.texts("actions"))
            continue
        line = reader.line
        word = reader.take("word", "actions", "give their number, or their names as { ... }")
        if not (word.isascii() and word.isdigit()):
            fail("actions", f"{word!r} is no number of actions", "give a whole number", line)
        found.append(int(word))
    reader.at += 1
    return tuple(found)


def _read_numbers(reader: _Reader) -> tuple[str, ...]:
    numbers = []
    while reader.peek() == "word":
        line = reader.line
        numbers.append(reader.take("word", "payoffs", ""))
        fraction(numbers[-1], line)
    return tuple(numbers)


def _read_outcomes(reader: _Reader, players: int) -> tuple[NfgOutcome, ...]:
    reader.take("{", "outcomes", "open the list with {")
    outcomes = []
    while reader.peek() != "}":
        reader.take("{", "outcomes", 'write each as { "name" payoffs }')
        line = reader.line
        name = reader.take("text", "outcomes", "write the name in quotes")
        payoffs = _read_numbers(reader)
        reader.take("}", "outcomes", "close each with }")
        if len(payoffs) != players:
            fail("outcomes", f"{name!r} has {len(payoffs)} payoffs",
                  f"give one for each of {players} players", line)  # fmt: skip
        outcomes.append(NfgOutcome(name, payoffs))
    reader.at += 1
    return tuple(outcomes)


def _read_indices(reader: _Reader, outcomes: int) -> tuple[int, ...]:
    indices = []
    while reader.peek() == "word":
        line = reader.line
        word = reader.take("word", "contingencies", "")
        if not (word.isascii() and word.isdigit()) or int(word) > outcomes:
            fail("contingencies", f"{word!r} is no outcome from 0 to {outcomes}",
                  "use 0 for no outcome, or count the outcomes from 1", line)  # fmt: skip
        indices.append(int(word))
    if not indices:
        fail("contingencies", "none", "list the outcome of every combination of actions",
              reader.line)  # fmt: skip
    return tuple(indices)


def _quote(text: str) -> str:
    return '"' + text.replace('"', '\\"') + '"'


def _braced(parts: Sequence[str]) -> str:
    return " ".join(["{", *parts, "}"])


def format_nfg(game: NfgGame) -> str:
    """The contents of a `.nfg` file; `parse_nfg` gives back the same game.

    >>> print(format_nfg(NfgGame("One", ("A",), (("x",),), ("1/3",))), end="")
    NFG 1 R "One" { "A" }
    { { "x" } }
    <BLANKLINE>
    1/3
    """
    actions = [
        str(own) if isinstance(own, int) else _braced([_quote(name) for name in own])
        for own in game.actions
    ]
    players = _braced([_quote(name) for name in game.players])
    lines = [f"NFG 1 {game.number_type} {_quote(game.title)} {players}", _braced(actions)]
    if game.comment is not None:
        lines.append(_quote(game.comment))
    lines.append("")
    if game.by_outcomes:
        lines.append("{")
        for outcome in game.outcomes:
            lines.append(_braced([_quote(outcome.name), ", ".join(outcome.payoffs)]))
        lines += ["}", " ".join(map(str, game.contingencies))]
    else:
        players_count = len(game.players)
        for begin in range(0, len(game.payoffs), players_count):
            lines.append(" ".join(game.payoffs[begin : begin + players_count]))
    return "\n".join(lines) + "\n"


def read_nfg(path: str | os.PathLike[str]) -> NfgGame:
    """Read a `.nfg` file, UTF-8.

    **Errors:** `NfgError`, one line with file, line, field and remedy.

    >>> read_nfg("no/such/game.nfg")
    Traceback (most recent call last):
    ...
    diffgame.finite._nfg_game.NfgError: no/such/game.nfg: no such file; check the path
    """
    name = os.fspath(path)
    try:
        text = Path(path).read_bytes().decode("utf-8")
    except FileNotFoundError:
        raise NfgError(f"{name}: no such file; check the path") from None
    except OSError as error:
        raise NfgError(f"{name}: {error.strerror}; check the path and its permissions") from None
    except UnicodeDecodeError as error:
        raise NfgError(f"{name}: byte {error.start} is not UTF-8; save it as UTF-8") from None
    try:
        return parse_nfg(text)
    except NfgError as error:
        raise NfgError(f"{name}: {error}") from None


def write_nfg(path: str | os.PathLike[str], game: NfgGame) -> None:
    """Write a `.nfg` file that `read_nfg` reads as the same game; it appears whole or not at all.

    **Errors:** `NfgError` when the file cannot be written there.
    """
    target = Path(path)
    beside = target.with_name(f".{target.name}.{uuid.uuid4().hex}")
    try:
        try:
            beside.write_bytes(format_nfg(game).encode("utf-8"))
            beside.replace(target)
        finally:
            beside.unlink(missing_ok=True)
    except OSError as error:
        raise NfgError(
            f"{os.fspath(path)}: {error.strerror}; choose a folder that can be written"
        ) from None


def nfg_of(game: NormalForm, title: str = "") -> NfgGame:
    """A game as a `.nfg` file says it, each payoff by the shortest decimal that reads the same.

    Players are named 1, 2, ..., actions by their number.
    """
    table = np.asarray(game.payoffs, np.float64)
    cells = np.stack([own.ravel(order="F") for own in table], axis=1)
    names = tuple(str(player + 1) for player in range(len(table)))
    payoffs = tuple(repr(float(number)) for number in cells.ravel())
    return NfgGame(title, names, game.actions, payoffs, number_type="D")
