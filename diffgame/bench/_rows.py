"""One row per solver and game, kept in a journal while a bench runs."""

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

from .._terminal import Refused

FORMAT = "diffgame.bench/1"
# Statuses of a solver that took no part; a run that goes on tries it again.
ABSENT = ("not installed", "did not start")


@dataclasses.dataclass(frozen=True)
class Row:
    """What one solver did with one game. None: not measured, or nothing to measure.

    - `status`: "certified"; what the check found instead; or "error", "timed out", "died: ...",
        "not installed", "did not start". `detail`: one line more.
    - `gap`: the check's. `claimed`: whether the solver called it a solution.
    - `seconds`, `cpu_seconds`: of the call, over its games, after the first call for the shape.
        `first_call_seconds`: that one's, on the row of the game that it was made with.
    - `steps`: as the solver counts them. `batch`: how many games the call took.
    """

    suite: str
    solver: str
    seed: int
    game: int
    status: str
    detail: str = ""
    certified: bool = False
    gap: float | None = None
    claimed: bool | None = None
    seconds: float | None = None
    cpu_seconds: float | None = None
    first_call_seconds: float | None = None
    steps: float | None = None
    batch: int = 1

    @property
    def wrong_claim(self) -> bool:
        """Did the solver call a solution what the check does not?"""
        return self.claimed is True and not self.certified


class Journal:
    """The rows made so far, a line each; a line cut short by a crash is dropped.

    The first line holds the settings: rows of other settings are never mixed in.
    """

    def __init__(self, path: Path, settings: Mapping[str, Any]):
        self.path = path
        self.rows: list[Row] = []
        head = {"format": FORMAT, **settings}
        try:
            if path.exists():
                self._read(head)
            else:
                self._rewrite(head)
            self._file: IO[str] = path.open("a", encoding="utf-8")
        except OSError as error:
            raise self._refused(error) from error

    def _refused(self, error: OSError) -> Refused:
        return Refused(
            f"{self.path}: cannot be written ({error.strerror}); rows that are in it are kept: "
            "free space or permit writing, and run again with --resume"
        )

    def _read(self, head: Mapping[str, Any]) -> None:
        lines = self.path.read_text("utf-8").split("\n")
        # What follows the last line break was cut short.
        whole = lines[:-1]
        try:
            found, *rows = [json.loads(line) for line in whole]
            found_rows = [Row(**row) for row in rows]
        except (ValueError, TypeError) as error:
            raise Refused(
                f"{self.path}: is not a journal of diffgame bench ({error}); remove it"
            ) from error
        for name in sorted({*head, *found}):
            if head.get(name) != found.get(name):
                raise Refused(
                    f"{self.path}: its run had {name} {found.get(name)!r}, this one has "
                    f"{head.get(name)!r}; use the same settings, or remove it"
                )
        self.rows = [row for row in found_rows if row.status not in ABSENT]
        if lines[-1] or len(self.rows) < len(found_rows):
            self._rewrite(head)

    def _rewrite(self, head: Mapping[str, Any]) -> None:
        records = [head, *(dataclasses.asdict(row) for row in self.rows)]
        text = "".join(json.dumps(record) + "\n" for record in records)
        partial = self.path.with_name(f".{self.path.name}.partial")
        try:
            partial.write_text(text, encoding="utf-8")
            partial.replace(self.path)
        finally:
            partial.unlink(missing_ok=True)

    def add(self, row: Row) -> None:
        """Keep a row: it is in the file when this returns."""
        try:
            self._file.write(json.dumps(dataclasses.asdict(row)) + "\n")
            self._file.flush()
        except OSError as error:
            raise self._refused(error) from error
        self.rows.append(row)

    def __enter__(self) -> "Journal":
        return self

    def __exit__(self, *problem: object) -> None:
        """End writing; the file stays."""
        self._file.close()

    def remove(self) -> None:
        """Remove the file: its rows are elsewhere."""
        self.path.unlink()
