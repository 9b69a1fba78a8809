"""The command `diffgame search`."""

import argparse
import importlib.util
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

from .._terminal import Refused, check_output, show_progress
from ._checkpoint import BatchError
from ._launch import (
    become_member,
    check_processes,
    end_with,
    join_processes,
    read_member,
    run_here,
)
from ._processes import ALONE, Processes, remove_meeting
from ._submit import EXECUTORS, submit

if TYPE_CHECKING:
    from ._search_file import SearchFile

EXAMPLES = """examples:
  diffgame search examples/searches/markets.toml markets.nc
  diffgame search examples/searches/markets.toml markets.nc --resume
  diffgame search examples/searches/markets.toml markets.nc --processes 4

SPEC.toml names a family of markets or a Python factory, how many games, the certificate and the
seed (docs/batch.md). Finished blocks are kept beside the output until the results are written, so
a stopped search goes on with --resume. Several processes share the blocks, and the results are
the same to the last bit: here (--processes), started by hand on several machines (--processes,
--process-id and --coordinator), by a scheduler (srun diffgame search ... --scheduler) or as a job
(--submit).

exit status:
  0  every finished game is certified
  1  a fault of diffgame itself
  2  bad input or usage
  3  some game is not certified (its status says what is known)
"""
_PACKAGES = ("h5netcdf", "h5py", "pyarrow", "xarray")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `diffgame search`."""
    parser.add_argument("spec", metavar="SPEC.toml", help="what to search")
    parser.add_argument(
        "results", metavar="OUT.nc", help="the results; the table goes beside it, .parquet"
    )
    parser.add_argument("--resume", action="store_true", help="go on from the blocks of OUT.nc")
    many = parser.add_argument_group("several processes")
    many.add_argument("--processes", metavar="N", type=int, help="how many (default 1)")
    many.add_argument(
        "--process-id", metavar="K", type=int, help="which one this is, from 0, if started by hand"
    )
    many.add_argument(
        "--coordinator", metavar="HOST:PORT", help="where all of them find process 0, by hand"
    )
    many.add_argument(
        "--scheduler", action="store_true", help="SLURM or MPI started this one and says the rest"
    )
    many.add_argument("--submit", choices=EXECUTORS, help="as a job, with submitit")
    many.add_argument(
        "--submit-options",
        metavar="NAME=VALUE,...",
        default="",
        help="of submitit: nodes=2,timeout_min=600,slurm_partition=long",
    )
    many.add_argument(
        "--wait",
        metavar="SECONDS",
        type=float,
        default=ALONE.wait,
        help="for a process that does not join or no longer answers (default %(default)g)",
    )
    # What processes that are started here are told.
    many.add_argument("--member", help=argparse.SUPPRESS)
    many.add_argument("--parent", type=int, help=argparse.SUPPRESS)


def run(options: argparse.Namespace) -> int:
    """Search, print and write; returns the exit status.

    The caller turns on float64 before (`jax.config.update("jax_enable_x64", True)`).

    Raises:
        Refused: bad input or usage, in one line; finished blocks are kept.
    """
    try:
        return _run(options)
    except BatchError as error:
        raise Refused(str(error)) from None


def _run(options: argparse.Namespace) -> int:
    from ._search_file import read_search
    from ._search_run import run_search

    spec, results = Path(options.spec), Path(options.results)
    file = read_search(spec)
    table = results.with_suffix(".parquet")
    if table == results:
        raise Refused(f"OUT.nc {results}: is where the table goes; name the results .nc")
    check_output("OUT.nc", results)
    check_output("the table", table)
    missing = [package for package in _PACKAGES if importlib.util.find_spec(package) is None]
    if missing:
        raise Refused(
            f"search needs {', '.join(missing)}: python -m pip install 'diffgame[search]'"
        )
    folder = results.with_name(f"{results.name}.blocks")
    if folder.exists() and not options.resume:
        raise Refused(f"{folder}: holds blocks of an earlier run; add --resume or remove it")
    count = 1 if options.processes is None else options.processes
    check_processes(
        options.processes, options.process_id, options.coordinator, options.scheduler, options.wait
    )
    again = ["search", str(spec), str(results), "--resume", "--wait", f"{options.wait:g}"]
    if options.submit is not None:
        jobs = results.with_name(f"{results.name}.jobs")
        return submit(options.submit, again, count, options.submit_options, jobs)
    if options.parent is not None:
        end_with(options.parent)
    processes = ALONE
    if options.member is not None:
        processes = read_member(options.member, options.wait)
    elif options.scheduler or options.coordinator is not None:
        met = join_processes(
            options.coordinator, options.processes, options.process_id, options.wait
        )
        parent = [] if options.parent is None else ["--parent", str(options.parent)]
        become_member([*again, *parent], met)
    elif count > 1:
        return run_here(again, count, folder)
    if processes.index > 0:
        run_search(file, folder, processes=processes)
        return 0
    return _search(file, spec, results, folder, processes)


def _search(
    file: "SearchFile", spec: Path, results: Path, folder: Path, processes: Processes
) -> int:
    """Process 0 of the search, or the only one: it shows progress and writes the results."""
    from ._search_results import write_search
    from ._search_run import run_search

    show, stop = show_progress()
    try:
        last = []
        columns = run_search(
            file, folder, lambda here: (show(str(here)), last.append(here)), processes
        )
    finally:
        stop()
    statuses = columns["status"].tolist()
    counts = dict(Counter(statuses).most_common())
    table = results.with_suffix(".parquet")
    write_search(results, table, spec.read_text("utf-8"), counts, columns, last[-1].rate)
    remove_meeting(folder)
    for pattern in ("block-*.npz", ".*.partial", "settings.json"):
        for path in folder.glob(pattern):
            path.unlink()
    folder.rmdir()
    _print(len(statuses), file.games, counts, last[-1].rate)
    print(f"Written to {results} and {table}")
    return 0 if counts.get("certified", 0) == len(statuses) else 3


def _print(done: int, games: int, counts: dict[str, int], rate: float) -> None:
    early = "" if done == games else f" of {games} (stopped early)"
    print(f"{done} games{early}")
    for status, count in counts.items():
        print(f"  {status:18} {count:10}  {count / done:8.3%}")
    if rate == rate:
        hours = 1e6 / rate / 3600
        rounded = f"{rate:.{0 if rate >= 10 else 2}f}"
        print(f"{rounded} games per second, compilation included; a million take {hours:.2f} h")
