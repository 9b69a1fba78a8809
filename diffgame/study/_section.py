"""What a section of a study is: rows that were computed, figures of them, claims held to them."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

Row = Mapping[str, Any]
"""One computed point: numbers and texts under fixed names; `status` says what was proved."""


@dataclasses.dataclass(frozen=True)
class Claim:
    """A claim of a paper, and what was computed about it.

    - `claim`, `setting`: the sentence and where it was tried. `computed`: figures found.
    - `holds`: whether every certified row agrees; None if no row could decide.
    """

    claim: str
    setting: str
    computed: str
    holds: bool | None


@dataclasses.dataclass(frozen=True)
class StudySettings:
    """What a study computes with: `seed` of every random choice, `scale` of the sample sizes.

    **Errors:** ValueError that names the field.
    """

    seed: int = 0
    scale: float = 1.0

    def __post_init__(self):
        if not 0 <= self.seed < 2**32:
            raise ValueError(f"seed is {self.seed}; give a number from 0 to 4294967295.")
        if not 0.05 <= self.scale <= 100:
            raise ValueError(f"scale is {self.scale}; give a number from 0.05 to 100.")

    def count(self, full: int, least: int = 2) -> int:
        """How many items of `full` at scale one."""
        return max(least, round(full * self.scale))


@dataclasses.dataclass(frozen=True)
class Section:
    """One part of a study.

    - `name`: of its group in the results file. `title`, `text`: for the reader; `text` says what is
        shown and what is not.
    - `compute`: settings and progress to rows. `figures`: rows to plotly figures. `claims`: rows
        to claims.
    - `needs`: optional packages.
    """

    name: str
    title: str
    text: str
    compute: Callable[[StudySettings, Callable[[str], None]], list[Row]]
    figures: Callable[[Sequence[Row]], list[Any]]
    claims: Callable[[Sequence[Row]], list[Claim]]
    needs: tuple[str, ...] = ()


def certified(rows: Sequence[Row]) -> list[Row]:
    """The rows whose status is certified."""
    return [row for row in rows if row["status"] == "certified"]


def decide(rows: Sequence[Row], holds: Callable[[Row], bool]) -> bool | None:
    """Whether all certified rows agree; None without any."""
    sure = certified(rows)
    return all(holds(row) for row in sure) if sure else None
