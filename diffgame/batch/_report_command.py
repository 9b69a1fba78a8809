"""The command `diffgame report`."""

import argparse
import importlib.util
from collections.abc import Sequence
from pathlib import Path

from .._terminal import Refused, check_output, write_whole
from ._checkpoint import BatchError

EXAMPLES = """examples:
  diffgame report markets.nc
  diffgame report markets.nc --html markets.html
  diffgame report markets.nc --game 123

RESULTS.nc is what diffgame search wrote. With --game, that game is drawn and solved again from the
search's text in the file, and compared with its row; a Python factory must be importable from
here.

exit status:
  0  reported; with --game: it ended with the same status
  1  a fault of diffgame itself
  2  bad input or usage
  3  with --game: it ended with another status
"""
_PACKAGES = ("h5netcdf", "h5py", "xarray")
_PAGE_PACKAGES = ("jinja2", "plotly")
_MOST_ROWS = 10


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `diffgame report`."""
    parser.add_argument("results", metavar="RESULTS.nc", help="what diffgame search wrote")
    parser.add_argument("--html", metavar="OUT.html", help="also write a page with figures")
    parser.add_argument("--game", metavar="NUMBER", type=int, help="solve this game again instead")


def _need(packages: Sequence[str], extra: str) -> None:
    missing = [package for package in packages if importlib.util.find_spec(package) is None]
    if missing:
        raise Refused(
            f"report needs {', '.join(missing)}: python -m pip install 'diffgame[{extra}]'"
        )


def run(options: argparse.Namespace) -> int:
    """Print the report, or one game solved again; returns the exit status.

    The caller turns on float64 before (`jax.config.update("jax_enable_x64", True)`).

    Raises:
        Refused: bad input or usage, in one line.
    """
    try:
        return _run(options)
    except BatchError as error:
        raise Refused(str(error)) from None


def _run(options: argparse.Namespace) -> int:
    from ._search_file import parse_search
    from ._search_results import read_results

    _need(_PACKAGES, "search")
    results = Path(options.results)
    if options.html is not None:
        if options.game is not None:
            raise Refused("--html and --game: a page shows all games; give one of the two")
        _need(_PAGE_PACKAGES, "study")
        check_output("--html", Path(options.html))
        if Path(options.html).absolute() == results.absolute():
            raise Refused(f"--html {options.html}: is the results file; name another")
    header, columns = read_results(results)
    file = parse_search(header["spec"], results)
    if options.game is not None:
        return _replay(options.game, header, columns, file)
    from rich.console import Console

    from ._report import summarize
    from ._report_page import render_report

    report = summarize(header, columns, file.games)
    rerun = f"Solve one again: diffgame report {results.name} --game NUMBER"
    _print(report, rerun, Console())
    if options.html is not None:
        page = Path(options.html)
        title = f"A search of {len(columns['status'])} games: {results.name}"
        _write(page, render_report(report, columns, header["spec"], title, rerun))
        print(f"Written to {page}")
    return 0


def _write(page: Path, text: str) -> None:
    try:
        write_whole(page, lambda partial: partial.write_text(text, encoding="utf-8"))
    except OSError as error:
        raise Refused(f"--html {page}: cannot be written ({error.strerror})") from error


def _print(report, rerun: str, console) -> None:
    from rich.table import Table

    from ._report_page import WELFARE, text_of

    for name, value in report.header.items():
        console.print(f"{name}: {value}")
    tables = (
        ("How games ended", report.statuses, ""),
        (report.kind, report.families, WELFARE if report.markets else ""),
        ("By misalignment", report.misalignment, ""),
        ("By temperature", report.temperatures, ""),
        ("Not certified", report.open[:_MOST_ROWS], ""),
    )
    for title, rows, text in tables:
        if not rows:
            continue
        table = Table(box=None, padding=(0, 1, 0, 0), title=f"\n{title}", title_justify="left")
        for name, value in rows[0].items():
            side = "left" if isinstance(value, str) else "right"
            table.add_column(name, justify=side, overflow="fold")
        for row in rows:
            table.add_row(*(text_of(name, value) for name, value in row.items()))
        console.print(table)
        if text:
            console.print(text)
    left = len(report.open)
    if left:
        more = "" if left <= _MOST_ROWS else f"{left} in all; --html shows up to 500. "
        console.print(f"{more}{rerun}")


def _replay(game: int, header, columns, file) -> int:
    from ._report_replay import differences, replay_game

    done = len(columns["status"])
    if not 0 <= game < done:
        raise Refused(f"--game {game}: the results have games 0 to {done - 1}; give one of them")
    row = replay_game(file, game)
    # Small ones first: signals and utilities at the end.
    for name, values in sorted(
        row.items(), key=lambda item: item[1][0].size if hasattr(item[1][0], "size") else 1
    ):
        print(f"{name}: {values[0].tolist() if hasattr(values[0], 'tolist') else values[0]}")
    apart = {name: far for name, far in differences(row, columns, game).items() if far > 0}
    if apart:
        named = ", ".join(f"{name} by {far:.3g}" for name, far in apart.items())
        print(f"Differs from the results' row: {named}")
        made = header.get("jax", "unknown")
        print(f"(made with diffgame {header.get('diffgame', 'unknown')}, jax {made})")
    else:
        print("Bitwise as in the results' row.")
    return 0 if str(row["status"][0]) == str(columns["status"][game]) else 3
