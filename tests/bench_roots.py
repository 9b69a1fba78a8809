"""A suite of square roots with solvers that go wrong in every way, for the tests of the bench."""

import argparse
import sys
from pathlib import Path

import numpy as np
import pytest

from diffgame.bench import SUITES, Budget, Solver, Suite, Verdict
from diffgame.bench._rows import Journal, Row
from diffgame.bench._run import Settings, run_suite

BENCH = Path(__file__).parents[1] / "diffgame" / "bench"
# The solvers run as a script, without diffgame: that starts faster.
SCRIPT = """
import os, pathlib, subprocess, sys, time
import numpy as np

sys.path.insert(0, {bench!r})
from _messages import serve

CALLS = pathlib.Path({calls!r})


def make(setup):
    name, calls = setup["solver"], 0
    if name == "fails to start":
        raise OSError("no licence\\nsecond line")
    if name == "dies at the start":
        os._exit(7)

    def solve(game):
        nonlocal calls
        calls += 1
        target = game["target"]
        with CALLS.open("a") as log:
            log.write(f"{{name}} {{target.ravel().tolist()}}\\n")
        print("a solver may print what it likes")
        root = np.sqrt(target)
        second = target.ravel()[0] == 1
        if name == "first call slow" and calls == 1:
            time.sleep(3.0)
        if name == "hangs":
            if second:
                child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
                CALLS.with_name("child").write_text(str(child.pid))
                time.sleep(600)
        if name == "hangs at first":
            time.sleep(600)
        if name == "aborts" and second:
            os.abort()
        if name == "is killed" and second:
            os.kill(os.getpid(), 9)
        if name == "exits" and second:
            sys.exit(3)
        if name == "raises" and second:
            raise ValueError("\\nno such luck\\nsecond line")
        if name == "wrong shape" and second:
            root = np.zeros(2)
        if name == "not finite" and second:
            root = root * np.nan
        if name == "text":
            return {{"root": np.array(["one"])}}
        if name == "objects":
            return {{"root": np.array([object()])}}
        if name == "nothing":
            return None
        steps = np.full(target.shape[:-1], calls)
        claimed = np.ones(target.shape[:-1])
        return {{"root": 0 * root if name == "lies" else root, "steps": steps, "claimed": claimed}}

    return solve


serve(make)
"""


def draw(seed: int, game: int):
    return {"target": np.array([float(game + 100 * seed)])}


def check(game, answer) -> Verdict:
    gap = float(np.abs(answer["root"] ** 2 - game["target"])[0])
    return Verdict(gap <= 1e-9, gap, "certified" if gap <= 1e-9 else "no root")


def make_suite(
    folder: Path, patch: pytest.MonkeyPatch, *names: str, compiles: bool = False, batch: int = 1
) -> Suite:
    """The suite with the solvers that go wrong as their names say; calls go to `folder`/calls."""
    script = folder / "roots.py"
    script.write_text(SCRIPT.format(bench=str(BENCH), calls=str(folder / "calls")))
    solvers = tuple(
        Solver(name, None, compiles=compiles, batch=batch, step="call", script=str(script))
        for name in names
    )
    shape = {"root": (1,)}
    suite = Suite("roots", "Square roots.", "error", draw, lambda _: shape, check, solvers)
    patch.setitem(SUITES, "roots", "bench_roots_of_test")
    patch.setitem(sys.modules, "bench_roots_of_test", argparse.Namespace(SUITE=suite))
    return suite


def settings_of(games: int, seconds: float = 20.0, first_call: float = 20.0) -> Settings:
    return Settings(games, (0,), Budget(None, seconds), first_call, Path(sys.executable))


def rows_of(suite: Suite, path: Path, settings: Settings) -> dict[str, list[Row]]:
    """All rows, by solver."""
    with Journal(path, {}) as journal:
        run_suite(suite, [(s, None) for s in suite.solvers], settings, journal, lambda _: None)
    return {s.name: [row for row in journal.rows if row.solver == s.name] for s in suite.solvers}
