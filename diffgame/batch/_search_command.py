"""The command `diffgame search`."""

import argparse
import importlib.util
from collections import Counter
from pathlib import Path

from .._terminal import Refused, check_output, show_progress
from ._checkpoint import BatchError

EXAMPLES = """examples:
  diffgame search examples/searches/markets.toml markets.nc
  diffgame search examples/searches/markets.toml markets.nc --resume

SPEC.toml names a family of markets or a Python factory, how many games, the certificate and the
seed (docs/batch.md). Finished blocks are kept beside the output until the results are written, so
a stopped search goes on with --resume.

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
    from ._search_results import write_search
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
    show, stop = show_progress()
    try:
        last = []
        columns = run_search(file, folder, lambda here: (show(str(here)), last.append(here)))
    finally:
        stop()
    statuses = columns["status"].tolist()
    counts = dict(Counter(statuses).most_common())
    write_search(results, table, spec.read_text("utf-8"), counts, columns)
    for path in (*folder.glob("block-*.npz"), folder / "settings.json"):
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
        print(f"{rate:.0f} games per second, compilation included; a million take {hours:.2f} h")
