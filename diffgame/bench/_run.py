"""Every solver on every game of a suite, block by block in turn, to rows in the journal."""

import importlib.util
import itertools
import math
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from .._terminal import Refused
from ._judge import claim_of, judge, steps_of
from ._process import Reply, SolverProcess
from ._rows import Journal, Row
from ._suite import Answer, Budget, Game, Solver, Suite
from ._suites import SUITES

Place = tuple[int, int]


@dataclass(frozen=True)
class Settings:
    """What a run is made of.

    - `games`: per seed. `first_call`: seconds for a process to start, and for the first call of a
        solver that compiles.
    - `gambit`: the interpreter that has pygambit; None where there is none.
    """

    games: int
    seeds: tuple[int, ...]
    budget: Budget
    first_call: float
    gambit: Path | None

    @property
    def places(self) -> list[Place]:
        """All games: seed and number."""
        return list(itertools.product(self.seeds, range(self.games)))


def missing_package(solver: Solver, gambit: Path | None) -> str:
    """What to install before the solver can run; "" where it can."""
    if solver.script is not None:
        return "" if gambit is not None else "give --gambit PYTHON, an interpreter that has it"
    if solver.package is None or importlib.util.find_spec(solver.package) is not None:
        return ""
    return f"{solver.package} is missing: python -m pip install 'diffgame[bench]'"


class _Entrant:
    """A solver with its process and the shapes that it has compiled for."""

    def __init__(self, suite: Suite, solver: Solver, file: Path | None, settings: Settings):
        self.solver, self.file, self._suite, self._settings = solver, file, suite, settings
        self.missing = missing_package(solver, settings.gambit)
        command = [sys.executable, "-m", "diffgame.bench._worker"]
        if solver.script is not None:
            command = [str(settings.gambit), str(Path(__file__).parent / solver.script)]
        setup = {
            "module": SUITES[suite.name],
            "solver": solver.name,
            "file": None if file is None else str(file),
            "steps": settings.budget.steps,
            "seconds": settings.budget.seconds,
        }
        self.process = SolverProcess(command, setup, settings.first_call)
        self._refusal: Reply | None = None
        self._warm: set[tuple] = set()
        self._hopeless: dict[tuple, Reply] = {}

    def start(self) -> Reply | None:
        """Start the process if there is none; the reply where it does not start, once for all."""
        if self._refusal is None and not self.process.alive:
            self._warm.clear()
            reply = self.process.start()
            if reply.status != "answered":
                detail = reply.detail if reply.status == "error" else f"{reply.status} starting"
                self._refusal = Reply("did not start", detail)
        return self._refusal

    def call(self, games: Sequence[Game], width: int) -> tuple[Reply, float | None]:
        """One timed call for games of one shape, and the seconds of a first call before it.

        A batch is filled up to `width`, so that no other shape is compiled.
        """
        refusal = self.start()
        if refusal is not None:
            return refusal, None
        shape, arrays, first = _shape(games[0]), games[0], None
        limit = self._settings.budget.seconds
        if self.solver.batch > 1:
            padded = [*games, *[games[0]] * (width - len(games))]
            arrays = {name: np.stack([game[name] for game in padded]) for name in games[0]}
            limit *= len(games)
        if shape in self._hopeless:
            return self._hopeless[shape], None
        if self.solver.compiles and shape not in self._warm:
            allowed = self._settings.first_call
            reply = self.process.ask(arrays, allowed + limit)
            if not self.process.alive:
                if reply.status == "timed out":
                    detail = f"first call for this shape, limit {allowed:g} s; not tried again"
                    reply = self._hopeless[shape] = Reply(reply.status, detail)
                return reply, None
            if reply.status == "error":
                return reply, reply.seconds
            self._warm.add(shape)
            first = reply.seconds
        return self.process.ask(arrays, limit), first

    def solve(self, places: Sequence[Place], games: Sequence[Game], width: int) -> Iterator[Row]:
        """Rows of these games, all of one shape and no more than `width`."""
        name, solver = self._suite.name, self.solver
        if self.missing:
            for place in places:
                yield Row(name, solver.name, *place, "not installed", self.missing)
            return
        reply, first = self.call(games, width)
        seconds, cpu_seconds = (
            None if value is None else value / len(games)
            for value in (reply.seconds, reply.cpu_seconds)
        )
        for lane, (place, game) in enumerate(zip(places, games, strict=True)):
            status, detail, certified, gap = reply.status, reply.detail, False, None
            answer = reply.answer
            if status == "answered":
                answer = _lane(answer, lane) if solver.batch > 1 else answer
                verdict, detail = judge(self._suite, game, answer)
                status, certified = verdict.status, verdict.certified
                gap = float(verdict.gap) if math.isfinite(verdict.gap) else None
            yield Row(
                name,
                solver.name,
                *place,
                status,
                detail,
                certified,
                gap,
                claim_of(answer),
                seconds,
                cpu_seconds,
                first if lane == 0 else None,
                steps_of(answer),
                len(games),
            )


def _shape(game: Game) -> tuple:
    return tuple(sorted((name, values.shape) for name, values in game.items()))


def _lane(answer: Answer, lane: int) -> Answer:
    # A number alone would be a scalar of NumPy's and no array.
    return {name: np.asarray(x[lane]) for name, x in answer.items() if len(x) > lane}


def _groups(
    places: Sequence[Place], games: Sequence[Game], batch: int, counts: Mapping[tuple, int]
) -> Iterator[tuple[list[Place], list[Game], int]]:
    """Games of one shape, at most as many as a call takes of that shape."""
    by_shape: dict[tuple, list[int]] = {}
    for position, game in enumerate(games):
        by_shape.setdefault(_shape(game), []).append(position)
    for shape, positions in by_shape.items():
        width = min(batch, counts[shape])
        for begin in range(0, len(positions), width):
            chosen = positions[begin : begin + width]
            yield [places[n] for n in chosen], [games[n] for n in chosen], width


def run_suite(
    suite: Suite,
    solvers: Sequence[tuple[Solver, Path | None]],
    settings: Settings,
    journal: Journal,
    progress: Callable[[str], None],
) -> None:
    """Add the rows that the journal does not have yet, solvers in turn after each block of games.

    A solver comes with its file if it is a user's own. Other work on the machine then disturbs all
    alike; answers are checked between two calls, never during one.

    **Errors:** Refused where a user's file cannot be run, or the journal not written.
    """
    done = {(row.solver, row.seed, row.game) for row in journal.rows if row.suite == suite.name}
    entrants = [_Entrant(suite, solver, file, settings) for solver, file in solvers]
    counts = Counter(_shape(suite.draw(*place)) for place in settings.places)
    block = len(counts) * max(solver.batch for solver, _ in solvers)
    total, made = len(settings.places) * len(entrants), len(done)
    try:
        for entrant in entrants:
            if entrant.file is not None:
                refusal = entrant.start()
                if refusal is not None:
                    raise Refused(f"--solver {entrant.file}: {refusal.detail}")
        for begin in range(0, len(settings.places), block):
            places = settings.places[begin : begin + block]
            for entrant in entrants:
                name = entrant.solver.name
                left = [place for place in places if (name, *place) not in done]
                games = [suite.draw(*place) for place in left]
                for group in _groups(left, games, entrant.solver.batch, counts):
                    progress(f"{suite.name}: {made} of {total} rows, now {name}")
                    for row in entrant.solve(*group):
                        journal.add(row)
                        made += 1
    finally:
        for entrant in entrants:
            entrant.process.close()
