"""Gambit's side, run as a script by an interpreter that has pygambit; diffgame is not in it.

Spoken to in messages, like every solver; the setup's `solver` says which of Gambit's methods.
"""

import importlib
from collections.abc import Callable
from typing import Any

import numpy as np


def _make(setup: dict[str, Any]) -> Callable[[dict[str, np.ndarray]], dict[str, np.ndarray]]:
    pygambit = importlib.import_module("pygambit")
    methods = {
        "pygambit lcp_solve": lambda game: pygambit.nash.lcp_solve(
            game, rational=False, stop_after=1
        ),
        "pygambit logit_solve": lambda game: pygambit.nash.logit_solve(game, maxregret=1e-10),
        "pygambit lp_solve": lambda game: pygambit.nash.lp_solve(game, rational=False),
    }
    method = methods[setup["solver"]]

    def solve(arrays):
        payoffs = arrays["payoffs"]
        if payoffs.ndim == 2:
            payoffs = np.stack([payoffs, -payoffs])
        game = pygambit.Game.from_arrays(*payoffs)
        found = method(game).equilibria
        if not found:
            raise RuntimeError("no equilibrium returned")
        first, second = (
            np.array([float(found[-1][strategy]) for strategy in player.strategies])
            for player in game.players
        )
        return {"first": first, "second": second, "claimed": np.array(True)}

    return solve


if __name__ == "__main__":
    # Run as a script: its own folder is where imports are looked for.
    importlib.import_module("_messages").serve(_make)
