"""What the rows of a suite amount to, per solver; the table on the terminal."""

import statistics
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from ._profiles import Profile, profile_of
from ._rows import ABSENT, Row
from ._suite import Solver, Suite


@dataclass(frozen=True)
class Summary:
    """One solver's rows together.

    Medians are over games that it solved: those whose answer is certified; None where there are
    none. `fastest`: the share of all games on which no other solver was faster.
    """

    solver: str
    games: int
    certified: int
    seconds: float | None
    cpu_seconds: float | None
    first_call_seconds: float | None
    steps: float | None
    fastest: float
    wrong_claims: int
    others: dict[str, int]
    remark: str

    def cells(self) -> list[str]:
        """The summary as text, one cell per entry of `COLUMNS`."""
        others = ", ".join(f"{count} {status}" for status, count in self.others.items())
        return [
            self.solver,
            f"{self.certified} of {self.games}",
            duration(self.seconds),
            duration(self.cpu_seconds),
            duration(self.first_call_seconds),
            "" if self.steps is None else f"{self.steps:.4g}",
            f"{self.fastest:.0%}",
            str(self.wrong_claims) if self.wrong_claims else "",
            f"{others}: {self.remark}" if self.remark else others,
        ]


COLUMNS = (
    "solver",
    "certified",
    "time per game",
    "CPU time",
    "first call",
    "steps",
    "fastest",
    "wrong claims",
    "not certified",
)
NUMBERS = COLUMNS[1:-1]


def duration(seconds: float | None) -> str:
    """Seconds in the unit that suits them; "" for None."""
    if seconds is None:
        return ""
    for unit, size in (("us", 1e-6), ("ms", 1e-3)):
        if seconds < 1000 * size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds:.3g} s"


def _median(values) -> float | None:
    kept = [value for value in values if value is not None]
    return statistics.median(kept) if kept else None


def present(rows: Sequence[Row], solvers: Sequence[str]) -> list[str]:
    """The solvers that took part: not those that are not installed or did not start."""
    took_part = {row.solver for row in rows if row.status not in ABSENT}
    return [name for name in solvers if name in took_part]


def profiles_of(rows: Sequence[Row], solvers: Sequence[Solver]) -> list[Profile]:
    """By seconds, all that took part; by steps, those that count the same kind of step."""
    names = present(rows, [solver.name for solver in solvers])
    if not names:
        return []
    found = [profile_of(rows, names, "seconds", "time per game")]
    for step in dict.fromkeys(solver.step for solver in solvers if solver.step):
        alike = [s.name for s in solvers if s.step == step and s.name in names]
        if len(alike) > 1:
            found.append(profile_of(rows, alike, "steps", f"{step}s"))
    return found


def summarise(rows: Sequence[Row], solvers: Sequence[str]) -> list[Summary]:
    """One summary per solver, in this order."""
    by_time = profile_of(rows, present(rows, solvers), "seconds", "")
    found = []
    for name in solvers:
        own = [row for row in rows if row.solver == name]
        solved = [row for row in own if row.certified]
        others = Counter(row.status for row in own if not row.certified)
        remarks = {row.detail for row in own if not row.certified and row.detail}
        found.append(
            Summary(
                name,
                len(own),
                len(solved),
                _median(row.seconds for row in solved),
                _median(row.cpu_seconds for row in solved),
                _median(row.first_call_seconds for row in own),
                _median(row.steps for row in solved),
                by_time.share_at(name, 1.0) if name in by_time.curves else 0.0,
                sum(row.wrong_claim for row in own),
                dict(others.most_common()),
                remarks.pop() if len(remarks) == 1 else "",
            )
        )
    return found


def print_summary(suite: Suite, summaries: Sequence[Summary]) -> None:
    """The table of a suite for a terminal; what was not certified goes below it."""
    from rich import box
    from rich.console import Console
    from rich.table import Table

    console = Console()
    if not console.is_terminal:
        console.width = 120
    shown = [name for name in COLUMNS[:-1] if name != "CPU time"]
    table = Table(box=box.SIMPLE_HEAD, title=f"{suite.name}: {suite.title}", title_justify="left")
    for name in shown:
        table.add_column(name, justify="right" if name in NUMBERS else "left", overflow="fold")
    for summary in summaries:
        cells = zip(COLUMNS, summary.cells(), strict=True)
        table.add_row(*(cell for name, cell in cells if name in shown))
    console.print(table)
    for summary in summaries:
        if summary.others:
            console.print(f"  {summary.solver}: {summary.cells()[-1]}", markup=False)
