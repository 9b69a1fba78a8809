"""One game of a search, solved again by its number."""

from typing import Any

import jax
import numpy as np

from ._search_file import SearchFile
from ._search_run import Markets, call_factory, factory_columns, market_columns
from ._solve_many import _Engine, _result
from ._source import Made


def replay_game(file: SearchFile, game: int) -> dict[str, np.ndarray]:
    """The row of that game, and its profile, as `run_search` has them: the same bits.

    On the same kind and number of devices, with the versions that made the results.
    """
    if file.factory is not None:
        make, response = call_factory(file.factory)
        # As in solve_many, so that the game and its certificate's search have the same keys.
        made, searched = jax.random.split(jax.random.key(file.seed))
        settings = file.ladder, file.certificate, searched, file.lanes, jax.local_devices()
        engine = _Engine(Made(make, made), response, *settings)
        found = _result([engine.block(game, game + 1)], engine, 1)
        return factory_columns(found, file)
    markets = Markets(file)
    markets.profiles = True
    return market_columns(markets.block(game, game + 1))


def differences(
    row: dict[str, np.ndarray], columns: dict[str, np.ndarray], game: int
) -> dict[str, float]:
    """By name, how far a replayed row is from the results' row; 0 everywhere if bits agree."""
    found = {}
    for name, values in columns.items():
        if name in row:
            mine, kept = row[name][0], values[game]
            found[name] = _distance(mine, kept)
    return found


def _distance(mine: Any, kept: Any) -> float:
    mine, kept = np.asarray(mine), np.asarray(kept)
    if mine.dtype.kind not in "fiub" or kept.dtype.kind not in "fiub":
        return 0.0 if str(mine) == str(kept) else np.inf
    if mine.shape != kept.shape:
        return np.inf
    mine, kept = mine * 1.0, kept * 1.0
    same = (mine == kept) | (np.isnan(mine) & np.isnan(kept))
    both = np.isfinite(mine) & np.isfinite(kept)
    far = np.where(both, np.abs(np.where(both, mine, 0) - np.where(both, kept, 0)), np.inf)
    return float(np.max(np.where(same, 0, far), initial=0))
