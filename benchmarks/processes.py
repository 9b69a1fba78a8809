"""Two processes against one, each on one core with the same number of markets to solve."""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from diffgame._terminal import prepare_compiler
from diffgame.batch import Processes
from diffgame.batch._search_file import read_search
from diffgame.batch._search_run import run_search

from ._harness import cores, machine

_SEARCH = """
format = "diffgame.search/1"
games = {games}
seed = {seed}
chunk = {chunk}
lanes = 128
[market]
users = 1
providers = 3
actions = 3
states = 3
misalignment = [0.0, 0.3]
"""
_CHUNK = 2048


def _search(folder: Path, games: int, seed: int, processes: Processes) -> dict[str, Any]:
    spec = folder / f"spec-{games}-{processes.index}.toml"
    spec.write_text(_SEARCH.format(games=games, seed=seed, chunk=min(games, _CHUNK)))
    file = read_search(spec)
    begun, used = time.perf_counter(), time.process_time()
    found = run_search(file, folder / f"blocks-{games}-{seed}", None, processes)
    return {
        "seconds": time.perf_counter() - begun,
        "used": time.process_time() - used,
        "certified": float(found["certified"].mean()),
    }


def _work(folder: Path, games: int, index: int, count: int) -> None:
    """One process: compile on a few markets of its own, then its share of all."""
    prepare_compiler()
    begun = time.perf_counter()
    own = folder / f"compile-{index}"
    own.mkdir()
    _search(own, 128, 1, Processes())
    compiled = time.perf_counter() - begun
    # Nobody's clock runs while another still compiles.
    (folder / f"ready-{index}").touch()
    while len(list(folder.glob("ready-*"))) < count:
        time.sleep(0.01)
    found = _search(folder, games * count, 0, Processes(index, count, 600.0))
    print(json.dumps(found | {"compile": compiled}), flush=True)


def _measure(count: int, games: int) -> dict[str, float]:
    """Run so many processes, one core each; seconds are those of the slowest."""
    allowed = os.sched_getaffinity(0)
    with tempfile.TemporaryDirectory() as folder:
        running = []
        for index, core in zip(range(count), sorted(allowed), strict=False):
            # A child begins on the cores that its parent is allowed.
            os.sched_setaffinity(0, {core})
            command = [sys.executable, "-m", "benchmarks.processes", "--games", str(games)]
            command += ["--work", folder, str(index), str(count)]
            running.append(subprocess.Popen(command, stdout=subprocess.PIPE, text=True))
        os.sched_setaffinity(0, allowed)
        said = [process.communicate()[0] for process in running]
    if any(process.returncode for process in running):
        raise SystemExit("a process failed; what it said is above")
    found = [json.loads(text) for text in said]
    return {
        "seconds": max(part["seconds"] for part in found),
        "used": sum(part["used"] for part in found),
        "compile": max(part["compile"] for part in found),
        "certified": found[0]["certified"],
    }


def main() -> None:
    """Alternate one process and two; print a line each, and the efficiency."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.processes", description=__doc__)
    parser.add_argument("--games", type=int, default=16_384, help="of each process")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--work", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.work is not None:
        folder, index, count = options.work
        return _work(Path(folder), options.games, int(index), int(count))
    print("; ".join(f"{name} {value}" for name, value in machine([]).items()))
    if cores() < 2:
        raise SystemExit("this process may use one core: two cannot be compared with one")
    print(
        f"{'processes':>9}{'markets':>9}{'seconds':>9}{'CPU s':>8}{'per s':>8}  certified  compile"
    )
    walls: dict[int, list[float]] = {1: [], 2: []}
    used: dict[int, list[float]] = {1: [], 2: []}
    for _ in range(options.repeats):
        for count in (1, 2):
            found = _measure(count, options.games)
            walls[count].append(found["seconds"])
            used[count].append(found["used"] / count)
            rate = count * options.games / found["seconds"]
            print(
                f"{count:9}{count * options.games:9}{found['seconds']:9.2f}{found['used']:8.2f}"
                f"{rate:8.0f}  {found['certified']:9.3%}{found['compile']:8.1f} s",
                flush=True,
            )
    wall = min(walls[1]) / min(walls[2])
    middle = statistics.median(walls[1]) / statistics.median(walls[2])
    work = min(used[1]) / min(used[2])
    print(
        f"efficiency of two processes: {wall:.1%} (best of {options.repeats}), {middle:.1%} median"
    )
    print(f"CPU time per market, one process / two: {work:.1%}; load {os.getloadavg()[0]:.1f}")
    return None


if __name__ == "__main__":
    main()
