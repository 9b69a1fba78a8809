"""The command `diffgame bench`."""

import argparse
import dataclasses
import hashlib
import importlib.util
import math
import os
import platform
import sys
import time
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from .._terminal import Refused, check_output, show_progress, write_whole

EXAMPLES = """examples:
  diffgame bench matrix
  diffgame bench pricing,tolls bench.html --games 200 --seeds 0,1 --seconds 5
  diffgame bench pricing --solver examples/my_solver.py
  diffgame bench matrix --gambit /path/to/python --resume

OUT.html gets tables and performance profiles; the rows go beside it, .parquet. Rows are kept in
OUT.html.journal while the bench runs, so a stopped one goes on with --resume (docs/bench.md).

exit status:
  0  every row was made, whatever it says
  1  a fault of diffgame itself
  2  bad input or usage
"""
# A solver and, if it is a user's own, its file.
Entry = tuple[Any, Path | None]
_PACKAGES = ("jinja2", "plotly", "pyarrow")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `diffgame bench`."""
    from ._suites import SUITES

    parser.add_argument("suites", metavar="SUITES", help=f"of {', '.join(SUITES)}; or all")
    parser.add_argument(
        "out", metavar="OUT.html", nargs="?", help="the page (default bench_SUITES.html)"
    )
    parser.add_argument("--games", type=int, default=20, help="per seed (default 20)")
    parser.add_argument("--seeds", default="0", help="comma-separated (default 0)")
    parser.add_argument(
        "--solvers", metavar="NAMES", help="comma-separated, parts of names will do (default all)"
    )
    parser.add_argument(
        "--solver", metavar="FILE", action="append", default=[], help="also your own solver"
    )
    parser.add_argument("--steps", type=int, help="per game (default: each solver's own)")
    parser.add_argument(
        "--seconds", type=float, default=10.0, help="per game; then it is killed (default 10)"
    )
    parser.add_argument(
        "--first-call",
        metavar="SECONDS",
        type=float,
        default=120.0,
        help="for a solver to start, and to compile for a shape of games (default 120)",
    )
    parser.add_argument(
        "--gambit", metavar="PYTHON", help="an interpreter that has pygambit; it is only called"
    )
    parser.add_argument("--resume", action="store_true", help="go on from the journal of OUT.html")


def _numbers(option: str, text: str) -> tuple[int, ...]:
    try:
        numbers = tuple(int(part) for part in text.split(","))
    except ValueError:
        raise Refused(f"{option} {text!r}: give whole numbers, comma-separated") from None
    if min(numbers) < 0 or len(set(numbers)) < len(numbers):
        raise Refused(f"{option} {text!r}: give different numbers of at least 0")
    return numbers


def _check_ranges(options: argparse.Namespace) -> None:
    for option, value in (("--games", options.games), ("--steps", options.steps)):
        if value is not None and value < 1:
            raise Refused(f"{option} {value}: must be at least 1")
    for option, value in (("--seconds", options.seconds), ("--first-call", options.first_call)):
        if not 0 < value < float("inf"):
            raise Refused(f"{option} {value}: must be a positive number of seconds")


def _files(paths: Sequence[str]) -> dict[str, Path]:
    """Users' files by the name of their solver."""
    files: dict[str, Path] = {}
    for path in map(Path, paths):
        if not path.is_file():
            raise Refused(f"--solver {path}: no such file")
        if path.stem in files:
            raise Refused(f"--solver {path}: two files of that name; rename one")
        files[path.stem] = path.resolve()
    return files


def _matching(text: str, names: Sequence[str]) -> list[str]:
    """The solvers that bear one of the comma-separated texts in their name."""
    found = []
    for part in text.split(","):
        own = [name for name in names if name == part] or [name for name in names if part in name]
        if not own or not part:
            raise Refused(f"--solvers has {part!r}, which is in no name of {'; '.join(names)}")
        found += own
    return found


def _choose(options: argparse.Namespace) -> list[tuple[Any, list[Entry]]]:
    """Every suite with its solvers, and the file of those that have one."""
    from ._suite import Solver
    from ._suites import SUITES, load_suite
    from ._through_solve import STEP

    names = list(SUITES) if options.suites == "all" else options.suites.split(",")
    for name in names:
        if name not in SUITES:
            raise Refused(f"SUITES has {name!r}; choose from {', '.join(SUITES)}, or all")
    if len(set(names)) < len(names):
        raise Refused(f"SUITES {options.suites!r}: names a suite twice")
    files = _files(options.solver)
    suites = [load_suite(name) for name in names]
    known = [solver.name for suite in suites for solver in suite.solvers]
    everybody = list(dict.fromkeys([*known, *files]))
    wanted = everybody if options.solvers is None else _matching(options.solvers, everybody)
    chosen = []
    for suite in suites:
        own: list[Entry] = [(s, None) for s in suite.solvers if s.name in wanted]
        for name, file in files.items():
            if suite.pose is None:
                posed = [name for name in SUITES if load_suite(name).pose is not None]
                raise Refused(
                    f"--solver: {suite.name} is not played through diffgame.solve, so a solver "
                    f"file cannot enter; it can in {', '.join(posed)}"
                )
            if name in known:
                raise Refused(f"--solver {file}: {name} is a solver of the bench; rename the file")
            own.append((Solver(name, None, compiles=True, step=STEP), file))
        if not own:
            raise Refused(f"--solvers: none of them is a solver of {suite.name}")
        chosen.append((suite, own))
    return chosen


def _now_and_then(show: Callable[[str], None]) -> Callable[[str], None]:
    """At most two lines a second: a game may take microseconds."""
    last = -math.inf

    def progress(text: str) -> None:
        nonlocal last
        now = time.monotonic()
        if now - last >= 0.5:
            last = now
            show(text)

    return progress


def _machine() -> dict[str, str]:
    cores = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
    processor = platform.processor() or platform.machine()
    information = Path("/proc/cpuinfo")
    if information.exists():
        for line in information.read_text().splitlines():
            if line.startswith("model name"):
                processor = line.partition(":")[2].strip()
                break
    return {
        "machine": f"{processor}, {cores} cores, {platform.system()}",
        "versions": f"Python {platform.python_version()}, "
        + ", ".join(f"{name} {version(name)}" for name in ("diffgame", "jax", "numpy")),
    }


def _whole(path: Path, save: Callable[[Path], object]) -> None:
    try:
        write_whole(path, save)
    except OSError as error:
        reason = error.strerror or str(error)
        raise Refused(
            f"{path}: cannot be written ({reason}); all rows are kept: free space or permit "
            "writing, and run again with --resume"
        ) from error


def _write_table(path: Path, rows: Sequence[Any], header: dict[str, str]) -> None:
    import pyarrow
    import pyarrow.parquet

    from ._rows import Row

    kinds = {"str": "string", "int": "int64", "bool": "bool", "float": "float64"}
    schema = pyarrow.schema(
        [
            (field.name, kinds[str(getattr(field.type, "__name__", field.type)).split(" |")[0]])
            for field in dataclasses.fields(Row)
        ],
        metadata=header,
    )
    table = pyarrow.Table.from_pylist([dataclasses.asdict(row) for row in rows], schema=schema)
    _whole(path, lambda partial: pyarrow.parquet.write_table(table, partial))


def run(options: argparse.Namespace) -> int:
    """Run the bench, print and write; returns the exit status.

    The caller turns on float64 before (`jax.config.update("jax_enable_x64", True)`).

    Raises:
        Refused: bad input or usage, in one line; rows made so far are kept.
    """
    from ._page import Part, render_bench
    from ._rows import FORMAT, Journal
    from ._run import Settings, run_suite
    from ._suite import Budget
    from ._summary import print_summary, profiles_of, summarise

    _check_ranges(options)
    seeds = _numbers("--seeds", options.seeds)
    out = Path(options.out or f"bench_{options.suites.replace(',', '_')}.html")
    table = out.with_suffix(".parquet")
    if table == out:
        raise Refused(f"OUT.html {out}: is where the rows go; name the page .html")
    check_output("OUT.html", out)
    check_output("the rows", table)
    missing = [package for package in _PACKAGES if importlib.util.find_spec(package) is None]
    if missing:
        raise Refused(f"bench needs {', '.join(missing)}: python -m pip install 'diffgame[bench]'")
    gambit = None if options.gambit is None else Path(options.gambit)
    if gambit is not None and not os.access(gambit, os.X_OK):
        raise Refused(f"--gambit {gambit}: is not a program; name a Python that has pygambit")
    chosen = _choose(options)
    journal_path = out.with_name(f"{out.name}.journal")
    if journal_path.exists() and not options.resume:
        raise Refused(f"{journal_path}: holds rows of an earlier run; add --resume or remove it")
    settings = Settings(
        options.games, seeds, Budget(options.steps, options.seconds), options.first_call, gambit
    )
    about = {
        "games": f"{options.games} per seed, seeds {', '.join(map(str, seeds))}",
        "budget": f"{options.seconds:g} s per game, "
        + ("each solver's own steps" if options.steps is None else f"{options.steps} steps"),
        "first call": f"{options.first_call:g} s at most",
        **_machine(),
    }
    solvers = {suite.name: [solver.name for solver, _ in own] for suite, own in chosen}
    files = {
        str(file): hashlib.sha256(file.read_bytes()).hexdigest()[:16]
        for file in _files(options.solver).values()
    }
    show, stop = show_progress()
    try:
        with Journal(journal_path, {**about, "solvers": solvers, "files": files}) as journal:
            for suite, own in chosen:
                run_suite(suite, own, settings, journal, _now_and_then(show))
    except KeyboardInterrupt:
        stop()
        kept = f"finished rows are kept in {journal_path}; go on with --resume"
        print(f"diffgame: {kept}", file=sys.stderr)
        raise
    finally:
        stop()
    parts = []
    for suite, own in chosen:
        rows = [row for row in journal.rows if row.suite == suite.name]
        summaries = summarise(rows, solvers[suite.name])
        parts.append(Part(suite, rows, summaries, profiles_of(rows, [s for s, _ in own])))
        print_summary(suite, summaries)
    page = render_bench(parts, about)
    _whole(out, lambda partial: partial.write_text(page, encoding="utf-8"))
    _write_table(table, journal.rows, {"format": FORMAT, **about})
    journal.remove()
    print(f"Written to {out} and {table}")
    return 0
