"""Blocks of games, one after another: progress, early stop, and nothing finished is lost."""

import math
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ._checkpoint import Checkpoint
from ._processes import ALONE, Alone, Crew, Processes
from ._progress import Progress

Block = dict[str, np.ndarray]


def block_bounds(games: int, chunk: int) -> Iterator[tuple[int, int]]:
    """The first game of every block and the first of the next."""
    for first in range(0, games, chunk):
        yield first, min(first + chunk, games)


class _Ledger:
    """Which blocks are finished, told to `progress`, and where `until` ends the batch.

    `until` sees the blocks in the order of their games, so where it ends does not depend on who
    was faster. Only process 0 decides.
    """

    def __init__(
        self,
        bounds: list[tuple[int, int]],
        progress: Callable[[Progress], Any] | None,
        until: Callable[[Progress], bool] | None,
        decides: bool,
    ):
        self.bounds = bounds
        self.found: dict[int, Block] = {}
        self.end: int | None = None
        self._progress, self._until, self._decides = progress, until, decides
        self._done = self._certified = self._new = 0
        self._begun = math.nan
        self._in_order = self._certified_in_order = 0

    def start_clock(self) -> None:
        """From here on, if not from earlier on, blocks are new ones."""
        if math.isnan(self._begun):
            self._begun = time.perf_counter()

    def add(self, number: int, block: Block) -> None:
        """Enter a finished block."""
        first, stop = self.bounds[number]
        self.found[number] = block
        self._done += stop - first
        self._certified += int(np.sum(block["certified"]))
        if not math.isnan(self._begun):
            self._new += stop - first
        if not self._decides:
            return
        if self._progress is not None:
            self._progress(self._tell(self._done, self._certified))
        while self.end is None and self._in_order in self.found:
            self._certified_in_order += int(np.sum(self.found[self._in_order]["certified"]))
            self._in_order += 1
            here = self._tell(self.bounds[self._in_order - 1][1], self._certified_in_order)
            stopped = self._until is not None and self._until(here)
            if stopped or self._in_order == len(self.bounds):
                self.end = self._in_order

    def _tell(self, done: int, certified: int) -> Progress:
        games = self.bounds[-1][1]
        rate = self._new / (time.perf_counter() - self._begun) if self._new else math.nan
        return Progress(done, games, certified, rate, (games - self._done) / rate)


def run_blocks(
    bounds: list[tuple[int, int]],
    compute: Callable[[int, int], Block],
    folder: Path | None,
    settings: Mapping[str, Any],
    progress: Callable[[Progress], Any] | None,
    until: Callable[[Progress], bool] | None,
    processes: Processes = ALONE,
) -> list[Block]:
    """Compute the blocks that the folder lacks and return all in order, up to an early stop.

    `compute(first, stop)` gives arrays with a leading axis of games, `certified` among them. An
    interruption passes through; what was finished before is in the folder. Of several processes
    each computes every `count`-th block and takes the others from the folder; `progress` and
    `until` are those of process 0.

    **Errors:** BatchError if the folder cannot be used, or another process is gone.
    """
    if folder is None and processes.count > 1:
        raise ValueError(
            f"solve_many: checkpoint is None in {processes.count} processes; name a folder that "
            "all of them see."
        )
    alone = processes.count == 1
    crew = Alone(folder) if folder is None or alone else Crew(folder, processes)
    ledger = _Ledger(bounds, progress, until, decides=processes.index == 0)
    with crew.meet(lambda: None if folder is None else Checkpoint(folder, settings)) as checkpoint:
        _work(ledger, compute, checkpoint, crew, processes)
    return [ledger.found[number] for number in range(ledger.end or 0)]


def _work(
    ledger: _Ledger,
    compute: Callable[[int, int], Block],
    checkpoint: Checkpoint | None,
    crew: Alone | Crew,
    processes: Processes,
) -> None:
    bounds, found = ledger.bounds, ledger.found
    mine = [number for number in range(len(bounds)) if processes.owner(number) == processes.index]
    while ledger.end is None:
        ended = crew.ended()
        finished = set() if checkpoint is None else checkpoint.finished()
        for number, (first, stop) in enumerate(bounds):
            if checkpoint is not None and number not in found and (first, stop) in finished:
                ledger.add(number, checkpoint.read(first, stop))
            if ledger.end is not None:
                break
        if ledger.end is None:
            # What process 0 has seen before it ended the batch is in the folder.
            ledger.end = ended
        if ledger.end is not None:
            break
        ledger.start_clock()
        number = next((number for number in mine if number not in found), None)
        if number is None:
            missing = next((number for number in range(len(bounds)) if number not in found), None)
            if missing is None:
                crew.expect(0, "it did not end the batch")
            else:
                game = bounds[missing][0]
                crew.expect(processes.owner(missing), f"its games from {game} on are not finished")
            continue
        first, stop = bounds[number]
        block = compute(first, stop)
        if checkpoint is not None:
            checkpoint.write(first, stop, block)
        ledger.add(number, block)
    if processes.index == 0:
        crew.end(ledger.end)


def join_blocks(blocks: list[Block]) -> Block:
    """All games' arrays, end to end."""
    return {name: np.concatenate([block[name] for block in blocks]) for name in blocks[0]}
