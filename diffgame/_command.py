"""The command `diffgame`."""

import argparse
import importlib.util
import io
import sys
import traceback
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

from ._terminal import Refused, check_output, prepare_compiler, show_progress, write_json
from .batch._report_command import (
    EXAMPLES as REPORT_EXAMPLES,
    add_arguments as add_report_arguments,
)
from .batch._search_command import (
    EXAMPLES as SEARCH_EXAMPLES,
    add_arguments as add_search_arguments,
)
from .bench._bench_command import EXAMPLES as BENCH_EXAMPLES, add_arguments as add_bench_arguments
from .preferences._align_command import (
    EXAMPLES as ALIGN_EXAMPLES,
    add_arguments as add_align_arguments,
)

_EXAMPLES = """examples:
  diffgame audit examples/markets/opposed_users.json
  diffgame audit market.json --json audit.json --starts 128 --seed 1
  diffgame audit market.json --modes personalized --tolerance 1e-7

exit status:
  0  every reported equilibrium is certified
  1  a fault of diffgame itself
  2  bad input or usage
  3  some reported equilibrium is not certified (its status says what is known)
"""
_STUDY_EXAMPLES = """examples:
  diffgame study study.nc
  diffgame study quick.nc --scale 0.1 --sections gap,transition

exit status:
  0  every claim holds
  1  a fault of diffgame itself
  2  bad input or usage
  3  some claim does not hold, or could not be decided
"""
_STUDY_PACKAGES = ("h5netcdf", "h5py", "jinja2", "plotly", "xarray")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="diffgame",
        description="Differentiable leader-follower games with certified equilibria.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"diffgame {version('diffgame')}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    audit = commands.add_parser(
        "audit",
        help="find and certify the equilibria of a market",
        description="Read a market (diffgame.market/1), find equilibria with personalized\n"
        "and with anonymous policies, certify them, and say what personalization\n"
        "does for users.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    audit.add_argument("file", metavar="FILE", help="the market, JSON")
    audit.add_argument("--json", metavar="OUT", help="also write everything to this file, as JSON")
    audit.add_argument("--starts", type=int, default=64, help="random starts (default 64)")
    audit.add_argument("--seed", type=int, default=0, help="of the random starts (default 0)")
    audit.add_argument(
        "--modes",
        default="personalized,anonymous",
        help="comma-separated (default personalized,anonymous)",
    )
    audit.add_argument(
        "--tolerance",
        type=float,
        default=1e-6,
        help="gain from deviating that counts as none, as a share of the provider's range of "
        "payoffs (default 1e-6)",
    )
    audit.add_argument(
        "--timing",
        default="before",
        help="whether users pick a provider 'before' or 'after' they learn their private "
        "information (default before)",
    )
    align = commands.add_parser(
        "align",
        help="measure how well providers' utilities, mixed, agree with what people want",
        description="Read ratings or survey answers and the utilities of providers for the same\n"
        "items, and measure for everybody how near a mix of the providers comes.",
        epilog=ALIGN_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_align_arguments(align)
    search = commands.add_parser(
        "search",
        help="solve and certify a whole family of games, as one file describes it",
        description="Read a search (TOML): a family of markets or of your own games, how many,\n"
        "which solvers and certificates; write a results file and a table.",
        epilog=SEARCH_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_search_arguments(search)
    report = commands.add_parser(
        "report",
        help="say what a search found, or solve one of its games again",
        description="Read the results of a search: how games ended, welfare by family and by\n"
        "misalignment, what is not certified; as a page, or one game solved again.",
        epilog=REPORT_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_report_arguments(report)
    bench = commands.add_parser(
        "bench",
        help="compare solvers, yours and others', on the same games",
        description="Run solvers on suites of games, certify every answer by one check, and write\n"
        "tables and performance profiles as a page.",
        epilog=BENCH_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_bench_arguments(bench)
    study = commands.add_parser(
        "study",
        help="compute the results of the papers again, as a results file and a page",
        description="Compute every result of the papers again: a results file (netCDF) that a\n"
        "stopped run continues from, and a page with figures, tables and the claims.",
        epilog=_STUDY_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    study.add_argument(
        "results", metavar="RESULTS.nc", help="the results file; the page goes beside it, .html"
    )
    study.add_argument("--seed", type=int, default=0, help="of all random draws (default 0)")
    study.add_argument(
        "--scale", type=float, default=1.0, help="sample sizes, 1 is the full study (default 1)"
    )
    study.add_argument("--sections", metavar="NAMES", help="comma-separated (default all)")
    return parser


def _audit(options: argparse.Namespace) -> int:
    from .market import AuditSettings, MarketFileError, read_market

    modes = tuple(mode.strip() for mode in options.modes.split(","))
    try:
        settings = AuditSettings(
            options.starts, options.seed, modes, options.tolerance, options.timing
        )
    except ValueError as error:
        raise Refused(f"--{error}") from None
    target = None if options.json is None else Path(options.json)
    if target is not None:
        check_output("--json", target)
    try:
        file = read_market(options.file)
    except MarketFileError as error:
        raise Refused(str(error)) from None

    import jax
    from rich.console import Console

    from ._stored_program import stop_preparing
    from .market import audit_market, print_report

    prepare_compiler()
    progress, stop = show_progress()
    try:
        report = audit_market(file, settings, progress)
    finally:
        stop()
        stop_preparing()
    report["settings"] |= {"diffgame": version("diffgame"), "jax": jax.__version__}
    if target is not None:
        write_json(target, report)
    print_report(file, report, Console())
    statuses = [report[mode][end]["status"] for mode in modes for end in ("best", "worst")]
    return 0 if all(status == "certified" for status in statuses) else 3


def _align(options: argparse.Namespace) -> int:
    from .preferences import RatingsError
    from .preferences._align_command import run

    prepare_compiler()
    try:
        return run(options)
    except RatingsError as error:
        raise Refused(str(error)) from None


def _search(options: argparse.Namespace) -> int:
    from .batch._search_command import run

    prepare_compiler()
    return run(options)


def _report(options: argparse.Namespace) -> int:
    from .batch._report_command import run

    prepare_compiler()
    return run(options)


def _bench(options: argparse.Namespace) -> int:
    from .bench._bench_command import run

    prepare_compiler()
    return run(options)


def _study(options: argparse.Namespace) -> int:
    from .study import SECTIONS, StudyFileError, StudySettings, run_study

    try:
        settings = StudySettings(options.seed, options.scale)
    except ValueError as error:
        raise Refused(f"--{error}") from None
    known = {section.name: section for section in SECTIONS}
    names = list(known) if options.sections is None else options.sections.split(",")
    for name in names:
        if name not in known:
            raise Refused(f"--sections has {name!r}; choose from {', '.join(known)}")
    results = Path(options.results)
    check_output("RESULTS.nc", results)
    page = results.with_suffix(".html")
    if page == results:
        raise Refused(f"RESULTS.nc {results}: is where the page goes; name the results .nc")
    check_output("the page", page)
    missing = [package for package in _STUDY_PACKAGES if importlib.util.find_spec(package) is None]
    if missing:
        raise Refused(f"study needs {', '.join(missing)}: python -m pip install 'diffgame[study]'")
    prepare_compiler()
    progress, stop = show_progress()
    try:
        claims = run_study(results, page, settings, [known[name] for name in names], progress)
    except StudyFileError as error:
        raise Refused(str(error)) from None
    finally:
        stop()
    from .study import print_claims

    print_claims(claims)
    print(f"Written to {results} and {page}")
    return 0 if all(claim.holds for claim in claims) else 3


_RUN = {
    "audit": _audit,
    "align": _align,
    "search": _search,
    "report": _report,
    "bench": _bench,
    "study": _study,
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit status."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # A name that the terminal cannot show is no reason to lose the results.
            stream.reconfigure(errors="replace")
    try:
        options = _parser().parse_args(arguments)
        return _RUN[options.command](options)
    except Refused as refusal:
        print(f"diffgame: {refusal}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("diffgame: interrupted; no file is half written", file=sys.stderr)
        return 130
    except SystemExit:
        raise
    except BaseException:
        traceback.print_exc()
        print("diffgame: this is a fault of diffgame; please report it", file=sys.stderr)
        return 1
