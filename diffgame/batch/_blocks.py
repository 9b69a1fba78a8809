"""Blocks of games, one after another: progress, early stop, and nothing finished is lost."""

import math
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from ._checkpoint import Checkpoint
from ._progress import Progress

Block = dict[str, np.ndarray]


def block_bounds(games: int, chunk: int) -> Iterator[tuple[int, int]]:
    """The first game of every block and the first of the next."""
    for first in range(0, games, chunk):
        yield first, min(first + chunk, games)


def run_blocks(
    bounds: list[tuple[int, int]],
    compute: Callable[[int, int], Block],
    checkpoint: Checkpoint | None,
    progress: Callable[[Progress], Any] | None,
    until: Callable[[Progress], bool] | None,
) -> list[Block]:
    """Compute the blocks that the checkpoint lacks, in order, and return all up to an early stop.

    `compute(first, stop)` gives arrays with a leading axis of games, `certified` among them. An
    interruption passes through; what was finished before is in the checkpoint.
    """
    games = bounds[-1][1]
    blocks: list[Block] = []
    certified = computed = 0
    seconds = 0.0
    for first, stop in bounds:
        block = None if checkpoint is None else checkpoint.read(first, stop)
        if block is None:
            begun = time.perf_counter()
            block = compute(first, stop)
            if checkpoint is not None:
                checkpoint.write(first, stop, block)
            seconds += time.perf_counter() - begun
            computed += stop - first
        blocks.append(block)
        certified += int(np.sum(block["certified"]))
        rate = computed / seconds if computed else math.nan
        here = Progress(stop, games, certified, rate, (games - stop) / rate)
        if progress is not None:
            progress(here)
        if until is not None and until(here):
            break
    return blocks


def join_blocks(blocks: list[Block]) -> Block:
    """All games' arrays, end to end."""
    return {name: np.concatenate([block[name] for block in blocks]) for name in blocks[0]}
