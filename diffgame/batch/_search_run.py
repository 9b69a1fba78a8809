"""Run a search: blocks of markets or of a user's own games, to columns with a row per game."""

import importlib
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ._blocks import Block, block_bounds, join_blocks, run_blocks
from ._checkpoint import BatchError, Checkpoint
from ._lanes import Lanes
from ._market_family import MARKET_STATUSES, MarketFamily, MarketSearch, settle_market
from ._progress import Progress
from ._search_file import Factory, SearchFile
from ._solve_many import solve_many

_PER_USER = ("user_values", "full_information", "uninformed", "mass")


def _stop(file: SearchFile) -> Callable[[Progress], bool]:
    begun = time.monotonic()

    def until(here: Progress) -> bool:
        late = time.monotonic() - begun >= file.stop_seconds
        return late or here.certified >= file.stop_certified

    return until


def _bounds(file: SearchFile) -> dict[tuple[int, int], MarketFamily]:
    """Every block with its family: equal shares of the games, one family after another."""
    found = {}
    count = len(file.families)
    for number, family in enumerate(file.families):
        first, stop = (file.games * part // count for part in (number, number + 1))
        for begin, end in block_bounds(stop - first, file.chunk):
            found[first + begin, first + end] = family
    return found


class _Markets:
    """Blocks of markets; arrays are filled up with NaN to the largest family."""

    def __init__(self, file: SearchFile):
        self._lanes = Lanes(file.lanes, jax.local_devices())
        self._families = _bounds(file)
        self._users = max(family.users for family in file.families)
        self._providers = max(family.providers for family in file.families)
        key, tolerance = jax.random.key(file.seed), jnp.asarray(file.certificate.tolerance)
        self._placed = {
            family: self._lanes.place(MarketSearch(key, tolerance, family))
            for family in file.families
        }

    @property
    def bounds(self) -> list[tuple[int, int]]:
        return list(self._families)

    def block(self, first: int, stop: int) -> Block:
        family, width = self._families[first, stop], self._lanes.width
        parts, errors = [], {}
        for begun in range(first, stop, width):
            games = begun + np.arange(width)
            inside = games < stop
            lanes = np.minimum(games, stop - 1)
            found, failed = self._lanes.run(settle_market, self._placed[family], lanes, inside)
            if found is None:
                raise BatchError(f"markets {begun} to {stop - 1}: {next(iter(failed.values()))}")
            errors |= {begun + lane - first: text for lane, text in failed.items()}
            parts.append(jax.tree.map(lambda leaf, kept=inside: leaf[kept], found))
        end = jax.tree.map(lambda *leaves: np.concatenate(leaves), *parts)
        bad = list(errors)
        columns = {}
        for name, values in end._asdict().items():
            size = self._users if name in _PER_USER else self._providers
            if values.ndim == 2:
                missing = np.full((len(values), size - values.shape[1]), np.nan)
                values = np.concatenate([values, missing], axis=1)
            if values.dtype == float:
                values[bad] = np.nan
            columns[name] = values
        columns["status"][bad] = MARKET_STATUSES.index("nonfinite")
        columns["certified"] = columns["status"] == MARKET_STATUSES.index("certified")
        columns["users"] = np.full(stop - first, family.users)
        columns["providers"] = np.full(stop - first, family.providers)
        return columns


def _call(factory: Factory) -> tuple[Any, Any]:
    """The user's `make` and response."""
    module, _, name = factory.function.partition(":")
    try:
        function = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise BatchError(f"factory.function {factory.function!r}: {error}") from error
    try:
        made = function(**factory.arguments)
    except TypeError as error:
        raise BatchError(f"factory.arguments of {factory.function!r}: {error}") from error
    if not (isinstance(made, tuple) and len(made) == 2 and callable(made[0])):
        raise BatchError(
            f"factory.function {factory.function!r}: returned {type(made).__name__}; return "
            "(make, response) with make(index, key) -> (game, profile)"
        )
    return made


def run_search(
    file: SearchFile, folder: Path, progress: Callable[[Progress], Any] | None = None
) -> dict[str, np.ndarray]:
    """Columns with a row per finished game: arrays [games] or [games, users or providers].

    `status` is text. Blocks are kept in `folder`, and those that are there are not run again.

    **Errors:** BatchError in one line.
    """
    until = _stop(file)
    if file.factory is not None:
        make, response = _call(file.factory)
        found = solve_many(
            make,
            response,
            key=jax.random.key(file.seed),
            count=file.games,
            ladder=file.ladder,
            certificate=file.certificate,
            chunk=file.chunk,
            lanes=file.lanes,
            checkpoint=folder,
            progress=progress,
            until=until,
        )
        games = np.arange(len(found.status))
        return {
            "status": np.array(found.statuses, object)[found.status],
            "certified": found.certified,
            "residual": found.residual,
            "rung": np.array([rung.name for rung in found.ladder], object)[found.rung],
            "steps": found.steps,
            "gain": found.gain,
            "curvature": found.curvature,
            "user_gap": found.user_gap,
            "user_total": found.user_total,
            "payoffs": found.payoffs,
            "error": np.array([found.errors.get(game, "") for game in games.tolist()], object),
        }
    markets = _Markets(file)
    settings = {
        "games": file.games,
        "seed": file.seed,
        "chunk": file.chunk,
        "lanes": file.lanes,
        "families": [repr(family) for family in file.families],
        "tolerance": file.certificate.tolerance,
        "platform": jax.local_devices()[0].platform,
    }
    checkpoint = Checkpoint(folder, settings)
    blocks = run_blocks(markets.bounds, markets.block, checkpoint, progress, until)
    columns = join_blocks(blocks)
    columns["status"] = np.array(MARKET_STATUSES, object)[columns["status"]]
    return columns
