"""Reading tables of ratings and of providers' utilities from CSV files."""

import csv
import math
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float64

from ._ratings import (
    Ratings,
    RatingsError,
    check_scale,
    check_unique,
    check_values,
    some_names,
    suggestion,
)


def read_ratings(
    path: str | os.PathLike[str], scale: tuple[float, float], groups: str | None = None
) -> Ratings:
    """Read a CSV: a row per person, her id first; the columns are items; empty means no answer.

    Args:
        path: the file, CSV in UTF-8 with a header.
        scale: smallest and largest possible rating.
        groups: the header of the column that holds each person's group, if any.

    Raises:
        RatingsError: one line with file, row, column and remedy.

    Example:
        >>> read_ratings("no/such.csv", (1.0, 5.0))
        Traceback (most recent call last):
        ...
        diffgame.preferences._ratings.RatingsError: no/such.csv: no such file; check the path
    """
    check_scale(scale)
    name = os.fspath(path)
    header, rows, lines = _read_table(path)
    place = [
        f"{name}: row {line} (person {row[0]!r})," for line, row in zip(lines, rows, strict=True)
    ]
    labels = None
    if groups is not None:
        if groups not in header[1:]:
            problem = f"has no column {groups!r} for the groups"
            raise RatingsError(f"{name}:", problem, suggestion(groups, header[1:]))
        at = header.index(groups)
        labels = tuple(row[at] for row in rows)
        if "" in labels:
            where = f"{place[labels.index('')]} column {groups!r}"
            raise RatingsError(where, "is empty", "name the group, or leave the person out")
        header = header[:at] + header[at + 1 :]
        rows = [row[:at] + row[at + 1 :] for row in rows]
    items, people = tuple(header[1:]), tuple(row[0] for row in rows)
    check_unique(items, f"{name}: row 1", "item")
    check_unique(people, name, "person", lines)
    values = _numbers(rows, place, items)
    check_values(values, place, items, scale)
    return Ratings(name, people, items, scale, values, labels)


def read_providers(
    path: str | os.PathLike[str], items: Sequence[str]
) -> tuple[tuple[str, ...], Float64[np.ndarray, "providers items"]]:
    """Read a CSV of utilities: a row per provider, its name first; the columns are the items.

    The columns may stand in any order, but every item must have one, and every cell a number.

    Returns:
        The providers' names and their utilities [providers, items], in the order of `items`.

    Raises:
        RatingsError: one line with file, row, column and remedy.
    """
    name = os.fspath(path)
    header, rows, lines = _read_table(path)
    given = tuple(header[1:])
    check_unique(given, f"{name}: row 1", "item")
    if not set(given) & set(items):
        problem = "has no item in common with the ratings"
        raise RatingsError(f"{name}:", problem, f"name its columns as there: {some_names(items)}")
    for item in given:
        if item not in set(items):
            raise RatingsError(
                f"{name}: row 1, column {item!r}",
                "is no item of the ratings",
                suggestion(item, items),
            )
    for item in items:
        if item not in set(given):
            problem = f"has no column for the item {item!r}"
            raise RatingsError(f"{name}:", problem, "add it, or leave the item out of the ratings")
    people = tuple(row[0] for row in rows)
    check_unique(people, name, "provider", lines)
    place = [
        f"{name}: row {line} (provider {who!r})," for line, who in zip(lines, people, strict=True)
    ]
    values = _numbers(rows, place, given)
    check_values(values, place, given, (-np.inf, np.inf))
    if np.isnan(values).any():
        row, column = np.argwhere(np.isnan(values))[0]
        where = f"{place[row]} column {given[column]!r}"
        raise RatingsError(where, "is empty", "give the provider's utility for every item")
    return people, values[:, [given.index(item) for item in items]]


def _read_table(path: str | os.PathLike[str]) -> tuple[list[str], list[list[str]], list[int]]:
    """Header, rows and their line numbers; cells without outer spaces, blank lines left out."""
    name = os.fspath(path)
    try:
        with Path(path).open(encoding="utf-8-sig", newline="") as stream:
            reader = csv.reader(stream, strict=True)
            table = [([cell.strip() for cell in row], reader.line_num) for row in reader if row]
    except FileNotFoundError:
        raise RatingsError(f"{name}:", "no such file", "check the path") from None
    except UnicodeDecodeError:
        raise RatingsError(f"{name}:", "is not UTF-8", "save it as CSV in UTF-8") from None
    except csv.Error as error:
        raise RatingsError(f"{name}:", f"is not CSV ({error})", "correct the file") from None
    except OSError as error:
        problem = f"cannot be read ({error.strerror})"
        raise RatingsError(f"{name}:", problem, "check the file and its permissions") from None
    if len(table) < 2 or len(table[0][0]) < 2:
        remedy = "write a header (id, items...) and at least one row"
        raise RatingsError(f"{name}:", "holds no table", remedy)
    header = table[0][0]
    for row, line in table[1:]:
        if len(row) != len(header):
            problem = f"has {len(row)} cells, the header {len(header)}"
            raise RatingsError(f"{name}: row {line}", problem, "add or remove commas")
    return header, [row for row, _ in table[1:]], [line for _, line in table[1:]]


def _numbers(
    rows: Sequence[Sequence[str]], place: Sequence[str], items: Sequence[str]
) -> Float64[np.ndarray, "people items"]:
    def cells() -> Iterator[float]:
        for row, where in zip(rows, place, strict=True):
            for cell, item in zip(row[1:], items, strict=True):
                try:
                    number = float(cell) if cell else math.nan
                    if cell and math.isnan(number):
                        raise ValueError
                except ValueError:
                    problem = f"is {cell[:40]!r}"
                    remedy = "give a number, or nothing for no answer"
                    raise RatingsError(f"{where} column {item!r}", problem, remedy) from None
                yield number

    return np.fromiter(cells(), float, len(rows) * len(items)).reshape(len(rows), len(items))
