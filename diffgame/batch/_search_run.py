"""Run a search: blocks of markets or of a user's own games, to columns with a row per game."""

import importlib
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from ._blocks import Block, block_bounds, join_blocks, run_blocks
from ._checkpoint import BatchError
from ._lanes import Lanes
from ._market_ends import MARKET_STATUSES, MarketSearch, settle_market
from ._market_family import MarketFamily
from ._processes import ALONE, Processes
from ._progress import Progress
from ._search_axes import AXES, GAME_DATA, MOST_NUMBERS, numbers_per_market
from ._search_file import Factory, SearchFile
from ._solve_many import BatchResult, solve_many


def _stop(file: SearchFile) -> Callable[[Progress], bool]:
    begun = time.monotonic()

    def until(here: Progress) -> bool:
        late = time.monotonic() - begun >= file.stop_seconds
        return late or here.certified >= file.stop_certified

    return until


def _shares(file: SearchFile) -> list[tuple[int, int, MarketFamily]]:
    """Every family with its first game and the one after its last: equal shares, in order."""
    count = len(file.families)
    return [
        (file.games * number // count, file.games * (number + 1) // count, family)
        for number, family in enumerate(file.families)
    ]


class Markets:
    """Blocks of markets; arrays are filled up to the largest family, with NaN or -1."""

    def __init__(self, file: SearchFile):
        self._lanes = Lanes(file.lanes, jax.local_devices())
        self._shares, self._chunk = _shares(file), file.chunk
        self._sizes = {
            "user": max(family.users for family in file.families),
            "provider": max(family.providers for family in file.families),
            "group": max(len(family.groups) for family in file.families),
            "message": max(family.messages for family in file.families),
        }
        numbers = file.games * max(map(numbers_per_market, file.families))
        self.profiles = numbers <= MOST_NUMBERS if file.profiles is None else file.profiles
        key, tolerance = jax.random.key(file.seed), jnp.asarray(file.certificate.tolerance)
        self._placed = {
            family: self._lanes.place(MarketSearch(key, tolerance, family))
            for family in file.families
        }

    @property
    def bounds(self) -> list[tuple[int, int]]:
        return [
            (first + begin, first + end)
            for first, stop, _ in self._shares
            for begin, end in block_bounds(stop - first, self._chunk)
        ]

    def block(self, first: int, stop: int) -> Block:
        family, width = self.family(first), self._lanes.width
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
            if name in GAME_DATA and not self.profiles:
                continue
            columns[name] = self._fill(values, AXES.get(name, ()))
            if values.dtype == float:
                columns[name][bad] = np.nan
        columns["status"][bad] = MARKET_STATUSES.index("nonfinite")
        columns["certified"] = columns["status"] == MARKET_STATUSES.index("certified")
        columns["users"] = np.full(stop - first, family.users)
        columns["providers"] = np.full(stop - first, family.providers)
        columns["segments"] = np.full(stop - first, len(family.groups))
        return columns

    def _fill(self, values: np.ndarray, axes: tuple[str, ...]) -> np.ndarray:
        missing = [(0, 0)] * values.ndim
        for at, axis in enumerate(axes, start=1):
            missing[at] = (0, self._sizes.get(axis, values.shape[at]) - values.shape[at])
        nothing = np.nan if values.dtype == float else -1
        return np.pad(values, missing, constant_values=nothing)

    def family(self, game: int) -> MarketFamily:
        """The family of a game by its number."""
        return next(family for first, stop, family in self._shares if first <= game < stop)


def market_columns(columns: Block) -> dict[str, np.ndarray]:
    """The same with statuses as text."""
    return columns | {"status": np.array(MARKET_STATUSES, object)[columns["status"]]}


def factory_columns(found: BatchResult, file: SearchFile) -> dict[str, np.ndarray]:
    """A row per game, and its profile's parameters if they are to be kept: `profile.NAME`."""
    games = np.arange(len(found.status))
    columns = {
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
    leaves = {
        f"profile{jax.tree_util.keystr(path)}": np.asarray(leaf)
        for path, leaf in jax.tree_util.tree_leaves_with_path(found.profiles)
        if eqx.is_array_like(leaf)
    }
    few = sum(leaf.size for leaf in leaves.values()) <= MOST_NUMBERS
    kept = few if file.profiles is None else file.profiles
    return columns | leaves if kept else columns


def call_factory(factory: Factory) -> tuple[Any, Any]:
    """The user's `make` and response."""
    module, _, name = factory.function.partition(":")
    if factory.folder not in sys.path:
        sys.path.insert(0, factory.folder)
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
    file: SearchFile,
    folder: Path,
    progress: Callable[[Progress], Any] | None = None,
    processes: Processes = ALONE,
) -> dict[str, np.ndarray]:
    """Columns with a row per finished game: arrays [games, ...], axes as in `AXES`.

    `status` is text. Blocks are kept in `folder`, and those that are there are not run again.

    **Errors:** BatchError in one line.
    """
    until = _stop(file)
    if file.factory is not None:
        make, response = call_factory(file.factory)
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
            processes=processes,
        )
        return factory_columns(found, file)
    markets = Markets(file)
    settings = {
        "games": file.games,
        "seed": file.seed,
        "chunk": file.chunk,
        "lanes": file.lanes,
        "families": [repr(family) for family in file.families],
        "tolerance": file.certificate.tolerance,
        "profiles": markets.profiles,
        "platform": jax.local_devices()[0].platform,
    }
    blocks = run_blocks(markets.bounds, markets.block, folder, settings, progress, until, processes)
    return market_columns(join_blocks(blocks))
