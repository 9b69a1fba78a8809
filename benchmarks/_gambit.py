"""Gambit's side of a benchmark, run as a script by an interpreter that has pygambit.

It shares no process with diffgame. Standard input: one JSON object with `work` ("logit" or
"nash"), `rationality`, `budget` (seconds) and `tables` [games, players, *actions]. Standard
output: one JSON object with `version`, and of each game done within the budget its `seconds` and
its profile.
"""

import importlib
import json
import sys
import time

import numpy as np


def main() -> None:
    """Solve one game after another until the budget is spent."""
    pygambit = importlib.import_module("pygambit")
    task = json.load(sys.stdin)
    seconds, profiles = [], []
    for table in np.array(task["tables"]):
        game = pygambit.Game.from_arrays(*table)
        begin = time.perf_counter()
        if task["work"] == "logit":
            mixed = pygambit.qre.logit_solve_lambda(game, task["rationality"])[-1].profile
        else:
            mixed = pygambit.nash.logit_solve(game).equilibria[-1]
        seconds.append(time.perf_counter() - begin)
        profiles.append(
            [[float(mixed[strategy]) for strategy in player.strategies] for player in game.players]
        )
        if sum(seconds) > task["budget"]:
            break
    json.dump(
        {"version": pygambit.__version__, "seconds": seconds, "profiles": profiles}, sys.stdout
    )


if __name__ == "__main__":
    main()
